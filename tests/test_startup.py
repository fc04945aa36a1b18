"""What each command loads: it is all that a user waits for before anything is done.

A room that is loaded and not named here is a wait that nobody decided on; one that is named and
not loaded is gone from the table. `python -m bench.startup` says what it comes to in seconds.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.product import vendomini, write_phase

REFERRING = "phase5_long_horizon"
"""The shipped phase that has `${...}`."""

WATCHED = (
    "aiohttp",
    "asyncio",
    "msgspec",
    "omegaconf",
    "polars",
    "rich.progress",
    "submitit",
    "torch",
    "yaml",
)
"""What others wrote and takes more than a few milliseconds."""

PROBE = """
import atexit, json, sys
given, sys.argv = json.loads(sys.argv[1]), ["vendomini", *sys.argv[2:]]
def tell():
    loaded = [name for name in sys.modules if name.startswith("vendomini.")]
    opened = ("vendomini.cli.", "vendomini.looking.", "vendomini.running.")
    rooms = {name.split(".")[1] for name in loaded} - {"cli", "looking", "running"}
    here = {name for name in loaded if name.startswith(opened)}
    watched = {name for name in given if name in sys.modules}
    print(json.dumps(sorted(rooms | here | watched)), file=sys.stderr)
atexit.register(tell)
from vendomini.cli.main import main
main()
"""

COMMANDS = {
    *("errors", "shipped"),
    *(f"vendomini.cli.{name}" for name in ("main", "options", "fit_command", "models_command")),
}
"""The command line itself: what `--help` and completion need."""

STORE = {"chat", "entrypoints", "msgspec", "phase", "serving", "store"}
MODELS = {"chat", "hardware", "identity", "models", "msgspec", "schema"}
WORKLOADS = {"schema", "transcript", "workloads"}
"""What a workload says of itself."""
STANDING = {*COMMANDS, *STORE, "standing", "vendomini.cli.show", "vendomini.looking.experiments"}
PLAN = {
    *COMMANDS,
    *STORE,
    *MODELS,
    *WORKLOADS,
    *("cluster", "config", "data", "engines", "interpolation", "partitions", "planner", "prepare"),
    *("profile", "slurm", "yaml", "yamlfile"),
    *(f"vendomini.cli.{name}" for name in ("gpu_memory", "known", "planned", "planning", "show")),
    *(f"vendomini.looking.{name}" for name in ("engines", "models", "places", "prepared", "runs")),
    "vendomini.looking.space",
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an experiment that has been played."""
    folder = tmp_path_factory.mktemp("desk")
    phase = write_phase(folder, replications=1, steps=3, latency_s=0)
    assert vendomini("run", "--config", phase, cwd=folder).returncode == 0
    shutil.copytree(folder / "experiments" / "small", folder / "experiments" / "copied")
    return folder


@pytest.mark.parametrize(
    ("words", "loads"),
    [
        (("--help",), COMMANDS),
        (("run", "--help"), COMMANDS),
        (("--version",), COMMANDS),
        (("status", "small"), {*STANDING, "vendomini.cli.status"}),
        (
            ("remove", "copied", "--yes"),
            {*STANDING, "vendomini.cli.remove", "vendomini.looking.removable"},
        ),
        (
            ("collect", "small"),
            {
                *STANDING,
                *WORKLOADS,
                *("collect", "polars", "tables", "vendomini.cli.results"),
            },
        ),
        (
            ("init", "--workload", "mine"),
            {
                *COMMANDS,
                *("data", "entrypoints", "msgspec", "store"),
                *("vendomini.cli.init", "vendomini.cli.show"),
            },
        ),
        (
            ("models", "show", "Qwen/Qwen3-32B"),
            {*COMMANDS, *MODELS, "vendomini.cli.known", "vendomini.cli.show"},
        ),
        (
            ("fit", "Qwen/Qwen3-32B", "--gpu", "H100"),
            {
                *COMMANDS,
                *MODELS,
                "planner",
                *(
                    f"vendomini.cli.{name}"
                    for name in ("fit_batch", "fitting", "gpu_memory", "show")
                ),
            },
        ),
        (("plan", "demo"), PLAN),
        (("plan", "phase1_large_models", "--profile", "h100"), PLAN),
        # `${...}` is what OmegaConf is for, and the only thing.
        (("plan", "demo", "experiment.description='${experiment.name}'"), {*PLAN, "omegaconf"}),
        (("plan", REFERRING, "--profile", "h100"), {*PLAN, "omegaconf"}),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_a_command_loads_what_it_needs_and_nothing_else(
    words: tuple[str, ...], loads: set[str], desk: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(WATCHED), *words],
        cwd=desk,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(json.loads(done.stderr.splitlines()[-1])) == loads


def test_completion_loads_the_command_line_and_nothing_else(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_VENDOMINI_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "vendomini status ")
    monkeypatch.setenv("COMP_CWORD", "2")
    monkeypatch.setenv("VENDOMINI_ROOT", str(desk / "experiments"))
    probe = [sys.executable, "-c", PROBE, json.dumps(WATCHED)]
    done = subprocess.run(probe, cwd=desk, capture_output=True, text=True, check=False, timeout=60)
    # The test of `remove` has its own, which may be gone by now.
    assert set(done.stdout.split()) - {"copied"} == {"small"}
    assert set(json.loads(done.stderr.splitlines()[-1])) == COMMANDS


def test_a_plan_loads_no_world(desk: Path) -> None:
    words = ("plan", "demo")
    probe = PROBE.replace(
        "watched = {", "print(*(name for name in loaded if 'warehouse.' in name)); watched = {"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, json.dumps(WATCHED), *words],
        cwd=desk,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    rooms = "vendomini.workloads.warehouse"
    assert set(done.stdout.splitlines()[-1].split()) == {
        f"{rooms}.{name}"
        for name in (
            *("belief", "card_fields", "logged", "old", "old.words", "settings", "workload"),
        )
    }
