"""Shipped phases and profiles: found by their names, from anywhere, and after what is there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked import Forked
from tests.product import ROOT
from vendomini import shipped
from vendomini.cli.options import Options
from vendomini.errors import ConfigError
from vendomini.looking.runs import find_runs


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VENDOMINI_ROOT", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def program() -> Iterator[Forked]:
    with Forked({**os.environ, "COLUMNS": "100"}) as forked:
        yield forked


def test_every_file_in_configs_and_slurm_has_a_name_of_its_own() -> None:
    files = {*(ROOT / "configs").rglob("*.yaml")} - {ROOT / "configs" / "base.yaml"}
    assert {path.resolve() for path in shipped.phases().values()} == files
    profiles = {path.resolve() for path in shipped.profiles().values()}
    assert profiles == {*(ROOT / "slurm").glob("*.yaml")}
    assert list(shipped.phases()) == sorted(path.stem for path in files)


def test_a_shipped_phase_is_planned_by_its_name(program: Forked) -> None:
    words = ("plan", "phase1_large_models", "--profile", "h100", "--json")
    plan = json.loads(program(*words).stdout)
    assert (plan["phase"], plan["runs"]) == ("phase1_large_models", 660)
    assert {group["gpu"] for group in plan["groups"]} == {"H100"}
    files = ("configs/phases/phase1_large_models.yaml", "slurm/h100.yaml")
    by_path = ("plan", "--config", ROOT / files[0], "--profile", ROOT / files[1], "--json")
    assert json.loads(program(*by_path).stdout) == plan


def test_a_file_that_is_there_wins_over_a_shipped_name_and_a_folder_does_not(here: Path) -> None:
    (here / "demo").mkdir()
    assert shipped.phase_file(Path("demo")) == shipped.phases()["demo"]
    (here / "base").write_text("inherit: warehouse\n")
    assert shipped.phase_file(Path("base")) == Path("base")
    assert shipped.profile_file(Path("h100")) == shipped.profiles()["h100"]


@pytest.mark.parametrize("given", ["demo.yaml", "phases/demo"])
def test_a_shipped_name_in_a_path_is_only_a_hint(given: str) -> None:
    with pytest.raises(ConfigError, match="there is no file") as caught:
        shipped.phase_file(Path(given))
    assert "did you mean the shipped phase `demo`?" in caught.value.hint


def test_a_phase_inherits_a_shipped_one_by_its_name(program: Forked, here: Path) -> None:
    (here / "mine.yaml").write_text("inherit: demo\nexperiment: {name: mine, replications: 1}\n")
    done = program("plan", "mine.yaml", "--json", cwd=here)
    assert json.loads(done.stdout)["runs"] == 6, done.stderr


def test_play_prefers_an_experiment_to_the_phase_of_its_name(program: Forked, here: Path) -> None:
    root = here / "experiments"
    assert len(find_runs(Path("demo"), (), root=root, say=print).runs) == 30
    done = program("run", "demo", "experiment.replications=1", "--limit", "1", cwd=here)
    assert (done.returncode, done.stdout) == (0, "experiments/demo\n"), done.stderr
    assert len(find_runs(Path("demo"), (), root=root, say=print).runs) == 6
    assert "finished: shown from its log" in program("play", "demo", cwd=here).stderr


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "experiment.seed=7"),
        ("--config", "demo", "experiment.seed=7"),
        ("experiment.seed=7", "--config", "demo"),
        (f"--config={ROOT / 'configs' / 'demo.yaml'}", "experiment.seed=7"),
    ],
    ids=" ".join,
)
def test_a_phase_is_the_first_word_or_that_of_config(
    program: Forked, here: Path, words: tuple[str, ...]
) -> None:
    done = program("plan", *words, "--json", cwd=here)
    assert json.loads(done.stdout)["runs"] == 30, done.stderr


def test_a_file_may_have_an_equals_sign_in_its_name(here: Path) -> None:
    (here / "a=b.yaml").write_text("inherit: warehouse\n")
    request = Options(file="a=b.yaml", words=("experiment.seed=1",)).request()
    assert (request.config, request.overrides) == (Path("a=b.yaml"), ("experiment.seed=1",))


@pytest.mark.parametrize("command", ["run", "plan"])
def test_help_names_all_that_is_shipped_and_shows_no_types(program: Forked, command: str) -> None:
    text = program(command, "--help").stdout
    words = text.replace(",", " ").split()
    assert {*shipped.phases(), *shipped.profiles()} <= {*words}
    assert "<" not in text
    assert "[FILE] [KEY=VALUE]..." in text
    assert "[default: experiments]" in text
    assert "[default: 1]" in text


def completed(line: str, cwd: Path) -> list[str]:
    asks = {"_VENDOMINI_COMPLETE": "complete_bash", "COMP_WORDS": line}
    done = subprocess.run(
        [Path(sys.executable).with_name("vendomini")],
        cwd=cwd,
        env={**os.environ, **asks, "COMP_CWORD": str(len(line.split(" ")) - 1)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.split()


def test_the_shell_completes_shipped_names_with_the_files_that_are_there(here: Path) -> None:
    (here / "demo_of_mine.yaml").touch()
    assert completed("vendomini run de", here) == [
        *("demo", "demo_model", "demo_of_mine.yaml"),
    ]
    assert completed("vendomini plan demo --profile h", here) == ["h100"]
    # Nothing: the shell itself goes on, with paths.
    assert completed("vendomini run configs/", here) == []
    folder = here / "experiments" / "depot"
    folder.mkdir(parents=True)
    (folder / "experiment.json").touch()
    assert completed("vendomini play de", here) == [
        *("demo", "demo_model", "demo_of_mine.yaml", "depot"),
    ]
