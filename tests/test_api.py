"""The functions for Python callers: what the commands do, as values."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest

import vendomini
from tests.fakes.slurm import FakeSlurm
from tests.product import ROOT, write_phase, write_profile
from tests.product import vendomini as command
from vendomini.prepare import plan_as_json
from vendomini.running.plain import Lines
from vendomini.store.experiment import Experiment

LARGE = ROOT / "configs" / "phases" / "phase1_large_models.yaml"
H100 = ROOT / "slurm" / "h100.yaml"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a phase and its experiment, of which half the runs were given no replies."""
    folder = tmp_path_factory.mktemp("desk")
    phase, root = write_phase(folder, replications=2, steps=10, latency_s=0), folder / "experiments"
    recorded = {"experiment.name": "recorded", "pe_induction.p_shock": 0}
    assert vendomini.run(phase, overrides=recorded, root=root).exit_status == 0
    (log,) = (root / "recorded" / "logs").glob("*.replies.jsonl")
    other = {"engine.script": log, "grid.pe_induction.p_shock": [0.0, 1.0]}
    played = vendomini.run(phase, overrides=other, root=root)
    assert played.folder == root / "small"
    assert (played.exit_status, played.runs.done, played.runs.failed) == (1, 2, 2)
    return folder


def fresh(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A program in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# -- what is served -----------------------------------------------------------------------------


def test_importing_the_package_loads_nothing_else(tmp_path: Path) -> None:
    program = "import sys; had = set(sys.modules); import vendomini; print(set(sys.modules) - had)"
    assert fresh(program, tmp_path).stdout == "{'vendomini'}\n"


def test_what_is_served_is_listed_and_nothing_else_is_there() -> None:
    assert set(vendomini.__all__) <= set(dir(vendomini))
    for name in vendomini.__all__:
        assert getattr(vendomini, name) is not None
    assert issubclass(vendomini.PlanError, vendomini.VendoMiniError)
    with pytest.raises(AttributeError, match="module 'vendomini' has no attribute 'plam'"):
        getattr(vendomini, "plam")  # noqa: B009 - type checkers know that there is none


EVERY_MODULE = """
import importlib, inspect, pkgutil
import vendomini

for module in pkgutil.walk_packages(vendomini.__path__, "vendomini."):
    if ".hf." not in module.name:  # it loads torch for seconds, in a process of its own
        importlib.import_module(module.name)
for _ in range(2):
    assert vendomini.plan("small.yaml").runs == 4
    assert vendomini.run("small.yaml", root="every", quiet=True).exit_status == 0
    assert vendomini.status("small", root="every").runs.done == 4
    assert vendomini.load("small", root="every").runs.height == 4
for name in ("plan", "run", "status", "load"):
    assert inspect.isfunction(getattr(vendomini, name)), name
print("as served")
"""


def test_no_module_takes_the_place_of_a_function(tmp_path: Path) -> None:
    """Python would put a module of that name there as soon as somebody imports it."""
    write_phase(tmp_path, replications=2, steps=5, latency_s=0)
    done = fresh(EVERY_MODULE, tmp_path)
    assert done.stdout == "as served\n", done.stderr
    beside = {path.stem for path in Path(vendomini.__file__).parent.iterdir()}
    assert beside.isdisjoint(vendomini.__all__)


def test_asking_how_an_experiment_stands_loads_no_planner(desk: Path) -> None:
    program = (
        "import sys, vendomini; vendomini.status('small')\n"
        "print(*{name.split('.')[1] for name in sys.modules if name.startswith('vendomini.')})"
    )
    assert set(fresh(program, desk).stdout.split()) == {
        *("api", "chat", "entrypoints", "errors", "looking", "phase", "serving"),
        *("standing", "store"),
    }


# -- plan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({}, ()),
        ({"engine.gpu": "H100"}, ("engine.gpu=H100",)),
        (["engine.gpu=H100"], ("engine.gpu=H100",)),
        (
            {"grid.pe_induction.p_shock": [0.0, 1.0], "experiment.replications": 1},
            ("grid.pe_induction.p_shock=[0.0, 1.0]", "experiment.replications=1"),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else type(value).__name__,
)
def test_a_plan_is_the_one_that_the_command_shows(
    overrides: Any, words: tuple[str, ...], tmp_path: Path
) -> None:
    plan = vendomini.plan(LARGE, overrides=overrides, profile=H100, root=tmp_path)
    options = ("--profile", H100, "--root", tmp_path, "--json")
    shown = json.loads(command("plan", "--config", LARGE, *words, *options).stdout)
    assert json.loads(json.dumps(plan_as_json(plan))) == shown
    assert all(group.reasons for group in plan.groups)


def test_what_this_machine_cannot_hold_is_planned_for_an_example_of_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    large = {"grid.agent.model.name": ["deepseek-ai/DeepSeek-V3"]}  # more than any one machine has
    plan = vendomini.plan(LARGE, overrides=large, root=tmp_path)
    assert "this is the plan for an example of a cluster" in " ".join(plan.notes)


def test_checked_axes_are_in_the_notes_or_refused(tmp_path: Path) -> None:
    phase = write_phase(tmp_path, replications=1, steps=5, latency_s=0)
    dead = {"pe_induction.p_shock": 0.0, "grid.pe_induction.pe_mag": ["low", "high"]}
    assert vendomini.plan(phase, overrides=dead, root=tmp_path).runs == 2
    plan = vendomini.plan(phase, overrides=dead, root=tmp_path, check=True)
    assert "axis `pe_induction.pe_mag` does nothing" in " ".join(plan.notes)


@pytest.mark.parametrize("name", ["H100", "1", "0x10", "true", "null", "a b", "é", "1:30"])
def test_text_stays_text_whatever_yaml_would_make_of_it(name: str, tmp_path: Path) -> None:
    phase = write_phase(tmp_path, replications=1, steps=5, latency_s=0)
    overrides = {"experiment.name": name}
    assert vendomini.plan(phase, overrides=overrides, root=tmp_path).name == name


# -- run ----------------------------------------------------------------------------------------


def test_a_run_says_how_it_goes_on_stderr_or_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    phase = write_phase(tmp_path, replications=2, steps=5, latency_s=0)
    played = vendomini.run(phase, root=tmp_path)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"{played.folder}: 0 done and kept, 0 unfinished, 4 new"
    assert err.splitlines()[-1] == "4 of 4 runs are done, 0 failed"
    again = vendomini.run(phase, root=tmp_path, quiet=True)
    assert (again.submission, again.runs, again.exit_status) == (None, played.runs, 0)
    assert capfd.readouterr() == ("", "")


def test_a_long_run_says_now_and_then_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(first_s=0.0).playing(done=0, total=9) as tell:
        tell(done=0, steps_per_s=0.0, doing="loading the weights")
    with Lines(first_s=0.0).playing(done=2, total=9) as tell:
        tell(done=3, steps_per_s=1234.5, doing=None)
    with Lines().playing(done=3, total=9) as tell:
        tell(done=9, steps_per_s=1234.5, doing=None)  # done before anybody began to wonder
    said = "0 of 9 runs, loading the weights\n3 of 9 runs, 1,234 steps/s\n"
    assert capsys.readouterr() == ("", said)


def test_only_some_runs_and_a_group_anew(tmp_path: Path) -> None:
    phase = write_phase(tmp_path, replications=2, steps=5, latency_s=0)
    first = vendomini.run(phase, root=tmp_path, limit=1, quiet=True)
    assert (first.exit_status, first.runs.done, first.runs.total) == (0, 1, 4)
    (group,) = vendomini.plan(phase, root=tmp_path).groups
    both = vendomini.run(phase, root=tmp_path, restart_groups=[group.key], n_jobs=2, quiet=True)
    assert both.runs.done == 4
    assert (both.folder / "archive").exists()


def test_a_run_in_another_thread_is_played_and_no_handler_is_touched(tmp_path: Path) -> None:
    phase = write_phase(tmp_path, replications=2, steps=5, latency_s=0)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    played = []
    thread = threading.Thread(
        target=lambda: played.append(vendomini.run(phase, root=tmp_path, quiet=True))
    )
    thread.start()
    thread.join(60)
    assert [each.exit_status for each in played] == [0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_script_that_is_killed_has_its_workers_leave_and_hears_of_it(tmp_path: Path) -> None:
    write_phase(tmp_path, replications=6, steps=30, latency_s=0.1)
    program = (
        "import signal, vendomini\n"
        "before = [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]\n"
        "try:\n"
        "    vendomini.run('small.yaml')\n"
        "except KeyboardInterrupt:\n"
        "    print(before == [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)])\n"
        "    print(*(worker.record.state for worker in vendomini.status('small').workers))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    claims = tmp_path / "experiments" / "small" / "claims"
    while not (claims.exists() and list(claims.iterdir())):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["True", "ended"], err
    assert "nothing is lost" in err


def test_inside_a_slurm_job_this_process_does_not_become_a_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase = write_phase(tmp_path, replications=1, steps=5, latency_s=0)
    site, root = write_profile(tmp_path), tmp_path / "root"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\ncat '{ROOT}/tests/data/scontrol_show_job_two_nodes.txt'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "20934715")
    monkeypatch.setenv("SLURM_JOB_CPUS_PER_NODE", "4(x2)")
    with pytest.raises(vendomini.SubmitError, match="inside Slurm job 20934715") as refused:
        vendomini.run(phase, cluster=True, profile=site, root=root)
    assert "vendomini run --cluster" in refused.value.hint
    assert not root.exists()


def test_a_cluster_is_submitted_to_and_the_call_returns(
    fake_slurm: FakeSlurm, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    phase = write_phase(tmp_path, replications=1, steps=5, latency_s=0)
    played = vendomini.run(phase, cluster=True, profile=write_profile(tmp_path), root=tmp_path)
    assert (played.exit_status, len(fake_slurm.jobs())) == (0, 1)
    assert played.submission is not None
    assert "see how it goes with: vendomini status" in capfd.readouterr().err


# -- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("function", [vendomini.plan, vendomini.run], ids=["plan", "run"])
@pytest.mark.parametrize(
    ("file", "overrides", "words"),
    [
        ("small.yaml", {"engine.concurency": 5}, ["engine.concurency=5"]),
        ("smal.yaml", {}, []),
    ],
    ids=["a misspelt setting", "no such file"],
)
def test_a_mistake_is_told_as_the_command_tells_it_and_nothing_is_written(
    function: Callable[..., object],
    file: str,
    overrides: dict[str, object],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_phase(tmp_path, replications=1, steps=5, latency_s=0)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(vendomini.ConfigError) as mistake:
        function(file, overrides=overrides)
    told = command(function.__name__, "--config", file, *words, cwd=tmp_path)
    assert told.stderr == f"error: {mistake.value}\nhint: {mistake.value.hint}\n"
    assert "did you mean" in told.stderr
    assert os.listdir(tmp_path) == ["small.yaml"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("engine.gpu=H100", "`overrides` is the text `engine.gpu=H100`"),
        ({"engine.gpu": {1}}, "override `engine.gpu`: `{1}` is no value"),
        ({"engine.latency_s": float("nan")}, "override `engine.latency_s`: `nan` is no value"),
    ],
    ids=["text", "a set", "no number"],
)
def test_overrides_that_no_file_could_have_are_refused(
    overrides: Any, message: str, tmp_path: Path
) -> None:
    phase = write_phase(tmp_path, replications=1, steps=5, latency_s=0)
    with pytest.raises(vendomini.ConfigError) as mistake:
        vendomini.plan(phase, overrides=overrides, root=tmp_path)
    assert str(mistake.value).startswith(message)


@pytest.mark.parametrize("function", [vendomini.status, vendomini.load], ids=["status", "load"])
def test_an_experiment_that_is_not_there_is_told_with_the_nearest(
    function: Callable[..., object], desk: Path
) -> None:
    with pytest.raises(vendomini.StoreError, match="`smal` is no experiment") as mistake:
        function("smal", root=desk / "experiments")
    assert "did you mean `small`" in mistake.value.hint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_jobs": 2.5}, "`n_jobs` is `2.5`"),
        ({"limit": "3"}, "`limit` is `'3'`"),
        ({"max_gpu_hours": "3"}, "`max_gpu_hours` is `'3'`"),
        ({"overrides": [1]}, "`overrides` is `[1]`"),
        ({"restart_groups": None}, "`restart_groups` is `None`"),
    ],
    ids=str,
)
def test_an_argument_of_another_type_is_refused_before_anything_is_written(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    phase = write_phase(tmp_path, replications=1, steps=5, latency_s=0)
    with pytest.raises(vendomini.ConfigError) as mistake:
        vendomini.run(phase, root=tmp_path / "root", quiet=True, **given)
    assert str(mistake.value) == message
    assert not (tmp_path / "root").exists()


def test_what_only_a_script_finds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Its folder is on its own path, and on no worker's."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "mine.py").write_text(
        "from vendomini.engines.scripted import Scripted\nclass Mine(Scripted): pass\n"
    )
    (tmp_path / "scripts" / "go.py").write_text(
        "import sys, vendomini\nfrom vendomini.engines.scripted import Scripted\n"
        "class Own(Scripted): pass\n"
        "words = {'agent.kind': 'llm', 'agent.model.context_length': 8192}\n"
        "for name in ('mine:Mine', '__main__:Own'):\n"
        "    try:\n"
        "        vendomini.run('demo', overrides=words | {'engine.backend': name})\n"
        "    except vendomini.ConfigError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "scripts/go.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    first, second = done.stdout.splitlines()
    assert "engine `mine:Mine` is in module `mine`, which" in first
    assert "a script or a notebook has it, where no worker finds it" in second
    assert not (tmp_path / "experiments").exists()


# -- status and tables --------------------------------------------------------------------------


def test_experiments_are_where_the_environment_says(
    desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VENDOMINI_ROOT", str(desk / "experiments"))
    assert vendomini.status("small").folder == desk / "experiments" / "small"
    with pytest.raises(vendomini.StoreError):
        vendomini.status("small", root="experiments")


def test_status_tells_what_the_command_tells(desk: Path) -> None:
    status = vendomini.status("small", root=desk / "experiments")
    shown = json.loads(command("status", "small", "--json", cwd=desk).stdout)
    assert shown["runs"] == {
        "total": 4,
        "done": status.runs.done,
        "running": 0,
        "waiting": 0,
        "failed": status.runs.failed,
        "short": 0,
    }
    assert [error.message for error in status.errors] == [e["message"] for e in shown["errors"]]
    assert len(status.errors) == 2


def test_tables_are_those_that_collect_writes_and_nothing_is_written(desk: Path) -> None:
    folder = desk / "experiments" / "small"
    before = sorted(folder.rglob("*"))
    tables = vendomini.load("small", root=desk / "experiments")
    runs, steps, schema = tables.runs, tables.steps, tables.schema
    assert sorted(folder.rglob("*")) == before
    assert command("collect", "small", "--out", desk / "tables", cwd=desk).returncode == 0
    for loaded, name in ((runs, "runs.parquet"), (steps, "steps.parquet")):
        written = polars.read_parquet(desk / "tables" / name)
        assert loaded.schema == written.schema
        assert loaded.equals(written)
    assert runs["state"].to_list().count("done") == 2
    assert schema == json.loads((desk / "tables" / "schema.json").read_bytes())
    assert (tables.name, tables.folder, tables.notes) == ("small", folder, ())
    assert Experiment(tables.folder).exists()


def test_a_table_becomes_one_of_pandas(desk: Path) -> None:
    """In a process of its own: pandas takes a second to load."""
    told = fresh(
        "import vendomini; table = vendomini.load('small').runs; pandas = table.to_pandas()\n"
        "print(type(pandas).__module__.split('.')[0], list(pandas.columns) == table.columns)",
        desk,
    )
    assert told.stdout.split()[-2:] == ["pandas", "True"]
