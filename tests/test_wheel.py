"""What a user installs is the whole program: the wheel, in an environment outside any clone.

The wheel is built from the source distribution, as an index has both, so that this is proven, too.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.product import ROOT
from tools.environment import uv_environment

# Built and installed once, also where several processes share the tests.
pytestmark = pytest.mark.xdist_group("wheel")

PATIENCE_S = 300  # for an index far away
LARGE = "deepseek-ai/DeepSeek-V3"  # its 640 GiB are on no machine that runs these tests
OURS = ("PYTHON", "VENDOMINI_", "VIRTUAL_ENV", "PYTEST_", "COVERAGE_", "SLURM_", "HF_")


def outside() -> dict[str, str]:
    """This process's environment, without what leads to the clone or is set for its tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OURS)}


def said(*command: str | Path, cwd: Path, env: Mapping[str, str]) -> str:
    """What a command prints on stdout; it succeeds."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """A wheel that was built from this clone, and a new environment with it and nothing of ours."""

    wheel: Path
    bin: Path
    desk: Path  # an empty folder, where commands are given

    def __call__(self, *arguments: str | Path) -> str:
        """Give a command to the installed program, as its user's shell would."""
        env = outside() | {"PATH": f"{self.bin}{os.pathsep}{os.defpath}", "COLUMNS": "200"}
        env |= {"HOME": str(self.desk), "CUDA_VISIBLE_DEVICES": ""}
        return said(self.bin / "vendomini", *arguments, cwd=self.desk, env=env)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """By uv where it is, in seconds; else by pip, in half a minute."""
    place = tmp_path_factory.mktemp("wheel")
    built, new, desk = place / "built", place / "new", place / "desk"
    desk.mkdir()
    pip = (sys.executable, "-m", "pip")
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    env = outside()
    if uv is not None:
        # uv does not read pip's settings: where packages come from here.
        env |= uv_environment(said(*pip, "config", "list", cwd=place, env=env), env)
        # Without `--wheel` uv makes the wheel from the source distribution.
        said(uv, "build", "--python", sys.executable, "--out-dir", built, ROOT, cwd=place, env=env)
    else:
        said(*pip, "wheel", "--no-deps", "--wheel-dir", built, ROOT, cwd=place, env=env)
    (wheel,) = built.glob("*.whl")
    venv.create(new, symlinks=True)
    python = new / "bin" / "python"
    if uv is not None:
        said(uv, "pip", "install", "--python", python, wheel, cwd=place, env=env)
    else:
        said(*pip, "--python", python, "install", "--no-compile", wheel, cwd=place, env=env)
    return Installed(wheel=wheel, bin=python.parent, desk=desk)


def test_the_wheel_has_every_file_of_the_package_and_no_other(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "vendomini").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == files | {
        f"vendomini/data/{path.relative_to(ROOT).as_posix()}"
        for folder in ("configs", "slurm")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    }


def test_the_installed_program_is_not_the_clones(installed: Installed) -> None:
    where = "import vendomini, vendomini.cli.main as main; print(vendomini.__file__, main.__file__)"
    files = said(installed.bin / "python", "-c", where, cwd=installed.desk, env=outside()).split()
    new = installed.bin.parent
    assert all(Path(file).is_relative_to(new) for file in files), files
    assert not new.is_relative_to(ROOT)
    assert installed("--version").strip() in installed.wheel.name


def test_a_phase_is_planned_played_and_collected_by_the_wheel_alone(installed: Installed) -> None:
    phase = {
        "experiment": {"name": "small", "replications": 2, "seed": 1},
        "agent": {"kind": "heuristic"},
        "fixed": {"simulation.max_steps": 20},
        "grid": {"pe_induction.p_shock": [0.0, 0.5]},
    }
    (installed.desk / "small.yaml").write_text(json.dumps(phase))  # JSON is YAML
    assert "small: 4 runs" in installed("plan", "small.yaml")
    installed("run", "small.yaml")
    counts = json.loads(installed("status", "small", "--json"))["runs"]
    assert counts["done"] == 4, counts
    tables = [Path(line) for line in installed("collect", "small").split()]
    assert [path.name for path in tables] == [
        *("runs.parquet", "runs.csv", "steps.parquet", "schema.json"),
    ]
    with (installed.desk / tables[1]).open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_the_wheel_knows_models_cards_and_an_example_of_a_cluster(installed: Installed) -> None:
    phase = {
        "experiment": {"name": "large", "seed": 1},
        "agent": {"kind": "llm", "model": {"name": LARGE}},
    }
    (installed.desk / "large.yaml").write_text(json.dumps(phase))
    plan = json.loads(installed("plan", "large.yaml", "--json"))
    (group,) = plan["groups"]
    assert (group["model"], group["gpu"], group["backend"]) == (LARGE, "H100", "vllm")
    assert any("an example of a cluster" in note for note in plan["notes"])


def test_shipped_phases_and_profiles_are_found_by_their_names(installed: Installed) -> None:
    plan = json.loads(installed("plan", "phase1_large_models", "--profile", "h100", "--json"))
    assert (plan["runs"], plan["groups"][0]["gpu"]) == (660, "H100")
    assert installed("run", "demo", "--limit", "2") == "experiments/demo\n"
    runs, *_ = installed("collect", "demo").splitlines()
    assert runs == "experiments/demo/collected/runs.parquet"
    assert installed("play", "demo", "--list").count("\n") == 30
    python = "import vendomini; t = vendomini.load('demo'); print(t.runs.height, t.steps.height)"
    told = said(installed.bin / "python", "-c", python, cwd=installed.desk, env=outside()).split()
    assert told == ["30", "240"]  # of 30 runs two were played, 120 days each


def test_a_package_to_start_from_is_written(installed: Installed) -> None:
    assert installed("init", "--workload", "mine") == "mine\n"
    assert (installed.desk / "mine" / "mine.yaml").is_file()
