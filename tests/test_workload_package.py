"""A workload in somebody else's package: played like ours, with no line of ours changed."""

import contextlib
import json
import os
import signal
import subprocess
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars
import pytest

from tests.fakes.slurm import FakeSlurm
from tests.forked import Forked
from tests.harness import assert_every_log_is_a_prefix, outcomes, steps
from tests.installing import PACKAGE, install
from tests.model_folders import model_folder
from tests.product import COMMAND, wait_until, write_profile
from tests.test_cli_bad_input import everything_in
from vendomini.store.experiment import Experiment

# Installed once, also where several processes share the tests.
pytestmark = pytest.mark.xdist_group("workload package")

RUNS = 8
STEPS = 5
LATENCY_S = 0.4
"""A run is 4 s: a log is written every 2 s, so what is killed then has begun its runs and no more.
"""
QUICK = "engine.latency_s=0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Where the package is installed: a folder for commands, and the loaded program."""

    folder: Path
    packages: Path
    env: Mapping[str, str]
    give: Forked

    def __call__(
        self, *words: str | Path, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return self.give(*words, env=self.env, cwd=cwd or self.folder)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder, packages = tmp_path_factory.mktemp("desk"), tmp_path_factory.mktemp("packages")
    env = install(PACKAGE, packages) | {"COLUMNS": "120"}
    env.pop("VENDOMINI_ROOT", None)
    with Forked(env) as give:
        yield Desk(folder=folder, packages=packages, env=env, give=give)


def write_labels(folder: Path, workload: str = "label_search", inherit: str = "base") -> Path:
    """A phase of eight runs; its engine takes a while for each reply."""
    file = folder / "labels.yaml"
    phase = {
        "inherit": inherit,
        "experiment": {"workload": workload, "name": "labels", "replications": 2, "seed": 3},
        "engine": {"backend": "scripted", "latency_s": LATENCY_S, "concurrency": 4},
        "agent": {"model": {"name": "some/model", "context_length": 4096}},
        "grid": {"task.name": ["colours", "sizes"], "task.tone": ["plain", "polite"]},
    }
    file.write_text(json.dumps(phase))  # JSON is YAML
    return file


def test_the_package_is_at_most_sixty_lines() -> None:
    lines = (PACKAGE / "label_search.py").read_text().splitlines()
    assert len(lines) <= 60


def test_it_is_planned_killed_resumed_collected_and_told_like_our_own(
    desk: Desk, tmp_path: Path
) -> None:
    file = write_labels(tmp_path)
    planned = desk("plan", "--config", file, cwd=tmp_path)
    assert planned.stdout.startswith(f"labels: {RUNS} runs\n"), planned.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.yaml"]

    experiment = Experiment(tmp_path / "experiments" / "labels")
    kill_in_the_middle(desk, file, experiment)
    assert desk("status", "labels", "--json", cwd=tmp_path).returncode == 0
    resumed = desk("run", "--config", file, QUICK, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    counts = json.loads(desk("status", "labels", "--json", cwd=tmp_path).stdout)["runs"]
    assert (counts["done"], counts["total"]) == (RUNS, RUNS)
    assert_every_log_is_a_prefix(experiment)
    results = [experiment.result(run.id) for run in experiment.runs()]
    replayed = sum(result.served.replayed for result in results if result is not None)
    assert replayed > 0  # what was logged is not asked again

    (tmp_path / "undisturbed").mkdir()
    again = desk("run", "--config", file, QUICK, cwd=tmp_path / "undisturbed")
    assert again.returncode == 0, again.stderr
    undisturbed = Experiment(tmp_path / "undisturbed" / "experiments" / "labels")
    assert outcomes(experiment) == outcomes(undisturbed)
    for run in outcomes(experiment):
        assert steps(experiment, run) == steps(undisturbed, run)

    assert_collected(desk, tmp_path)
    for run in (experiment.runs()[0].id, experiment.runs()[-1].id):
        told = desk("play", "labels", "--run", run, cwd=tmp_path)
        assert told.returncode == 0, told.stdout + told.stderr
        assert "finished: shown from its log" in told.stderr
        assert told.stdout.count("\nstep ") >= STEPS
    provenance = [worker.provenance for worker in experiment.workers().values()]
    assert {each["workload"] for each in provenance} == {"label_search 1 of label-search 0.3.1"}


def kill_in_the_middle(desk: Desk, file: Path, experiment: Experiment) -> None:
    """`run`, whose only worker is killed once replies are on disk."""
    process = subprocess.Popen(
        [*COMMAND, "run", "--config", file],
        cwd=file.parent,
        env=dict(desk.env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: any(map(os.path.getsize, experiment.path("logs").glob("*.replies.*"))))
        (worker,) = experiment.workers().values()
        os.kill(worker.process.pid, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 1
    assert "1 of 1 workers were killed" in said
    assert len(experiment.finished()) < RUNS


def assert_collected(desk: Desk, folder: Path) -> None:
    collected = desk("collect", "labels", "--json", cwd=folder)
    assert collected.returncode == 0, collected.stderr
    paths = json.loads(collected.stdout)
    runs = polars.read_parquet(folder / paths["runs_parquet"])
    assert runs.height == RUNS
    assert sorted(runs["world"].to_list()) == ["colours"] * 4 + ["sizes"] * 4
    assert "arm.task.name" not in runs.columns
    assert set(runs["arm.task.tone"]) == {"plain", "polite"}
    assert runs["outcome.agreed"].null_count() == 0
    table = polars.read_parquet(folder / paths["steps_parquet"])
    assert table.height == RUNS * STEPS
    assert {"run_id", "step", "word", "said", "scores", "best"} <= set(table.columns)
    schema = json.loads((folder / paths["schema_json"]).read_text())
    assert schema["workload"] == "label_search"


def test_its_engine_is_planned_played_and_named_like_our_own(desk: Desk, tmp_path: Path) -> None:
    words = ("engine.backend=parrot", QUICK, "--limit", "2")
    planned = desk("plan", "--config", write_labels(tmp_path), *words, "--json", cwd=tmp_path)
    (group,) = json.loads(planned.stdout)["groups"]
    assert (group["backend"], group["gpus"], group["gpu_hours"]) == ("parrot", 0, 0.0)
    assert "the parrot engine runs inside the worker: no GPU" in group["reasons"]
    assert group["usd"] is None  # this workload does not say beforehand what it asks
    played = desk("run", "--config", tmp_path / "labels.yaml", *words, cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    experiment = Experiment(tmp_path / "experiments" / "labels")
    results = [experiment.result(run) for run in experiment.finished()]
    assert [each and each.served.backend for each in results] == ["parrot"] * 2
    tokens = [each.served.tokens_in + 4 * each.served.tokens_out for each in results if each]
    assert [each and each.served.usd for each in results] == [each / 1e6 for each in tokens]
    for run in experiment.finished():
        assert any(step["said"].isupper() for step in map(json.loads, steps(experiment, run)))


def test_what_a_provider_asks_is_in_the_plan(desk: Desk, tmp_path: Path) -> None:
    words = ("demo", "agent.kind=llm", "engine.backend=parrot", "agent.model.context_length=8192")
    plan = json.loads(desk("plan", *words, "--json", cwd=tmp_path).stdout)
    assert [group["usd"] for group in plan["groups"]] == [plan["usd"]]
    assert f" {plan['usd']:,.2f} " in desk("plan", *words, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("parot", "did you mean `parrot`?"),
        ("no.such:Engine", "engine `no.such:Engine` cannot be used: there is no module `no`"),
        ("label_search:LabelSearch", "no subclass of `vendomini.engines.backend.Backend`"),
        ("vendomini.engines.backend:Backend", "it has no `open`"),
    ],
)
def test_an_engine_that_cannot_be_used_is_refused_by_name(
    desk: Desk, tmp_path: Path, backend: str, said: str
) -> None:
    words = ("--config", write_labels(tmp_path), f"engine.backend={backend}")
    refused = desk("run", *words, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert said in " ".join(refused.stderr.split()), refused.stderr
    assert not (tmp_path / "experiments").exists()


def test_a_setting_that_does_nothing_with_its_engine_is_refused(desk: Desk, tmp_path: Path) -> None:
    words = ("engine.backend=parrot", "engine.dtype=float16")
    refused = desk("plan", "--config", write_labels(tmp_path), *words, cwd=tmp_path)
    assert refused.returncode == 2
    assert "has no effect with backend `parrot`" in " ".join(refused.stderr.split())


def test_by_its_class_it_has_the_same_runs_as_by_its_name(desk: Desk, tmp_path: Path) -> None:
    ids = []
    for name in ("label_search", "label_search:LabelSearch"):
        listed = desk("play", write_labels(tmp_path, name), "--list", "--json", cwd=tmp_path)
        assert listed.returncode == 0, listed.stderr
        ids.append(listed.stdout)
    assert ids[0] == ids[1]


# -- refused ------------------------------------------------------------------------------------

MODULES = {
    "no_workload.py": "class Thing:\n    pass\n",
    "no_play.py": """\
from dataclasses import dataclass, replace
from vendomini.workloads import Workload


@dataclass(frozen=True)
class Settings:
    rounds: int = 1


class Thing(Workload):
    settings_type = outcome_type = Settings


class Bare(Workload):
    def play(self, settings, *, seed, replication, record):
        yield ()


class Loose(Bare):
    settings_type = outcome_type = dict


class Numbers(Bare):
    settings_type = Settings
    outcome_type = list


class Told(Bare):
    settings_type = outcome_type = Settings

    def __init__(self, more):
        pass


@dataclass(frozen=True)
class Taken:
    engine: int = 1


class Double(Bare):
    settings_type, outcome_type = Taken, Settings


class Nowhere(Bare):
    settings_type = outcome_type = Settings
    unit = ("task.name",)
""",
    "needs_more.py": "import a_package_that_nobody_has\n",
    "breaks.py": "raise RuntimeError('no licence here')\n",
    "is_wrong.py": "def broken(:\n",
    "is_no_class.py": "Thing = 3\n",
}

REFUSED = {
    "an unknown name": (
        "label_serach",
        "is `label_serach`, which is no workload of the packages installed here",
        "did you mean `label_search`? There are: broken, label_search, warehouse; or name a class",
    ),
    "a module that is not there": (
        "no.such:Thing",
        "workload `no.such:Thing` cannot be played: there is no module `no`",
        "install the package",
    ),
    "a module without that class": (
        "no_workload:Other",
        "`no_workload` has no `Other`",
        "name the class after the colon",
    ),
    "a class that is no workload": ("no_workload:Thing", "no subclass of", "docs/workloads.md"),
    "no class at all": ("is_no_class:Thing", "no subclass of", "docs/workloads.md"),
    "no play": ("no_play:Thing", "it has no `play`", "docs/workloads.md"),
    "no settings": ("no_play:Bare", "it has no `settings_type`", "docs/workloads.md"),
    "settings that are no dataclass": ("no_play:Loose", "no dataclass", "docs/workloads.md"),
    "an outcome that is no dataclass": ("no_play:Numbers", "`outcome_type`", "docs/workloads.md"),
    "a class that wants arguments": ("no_play:Told", "without arguments", "its settings"),
    "a section that all have": ("no_play:Double", "a section `engine`", "docs/workloads.md"),
    "a unit that is no setting": ("no_play:Nowhere", "`unit` `task.name`", "docs/workloads.md"),
    "a package that needs another": (
        "needs_more:Thing",
        "there is no module `a_package_that_nobody_has`",
        "install the package",
    ),
    "an import that fails": (
        "breaks:Thing",
        "loading `breaks` fails with RuntimeError: no licence here",
        "import breaks",
    ),
    "a file that is no Python": (
        "is_wrong:Thing",
        "loading `is_wrong` fails with SyntaxError",
        "import is_wrong",
    ),
    "an entry point whose import fails": (
        "broken",
        "workload `broken` (`breaks:Thing`) cannot be played: loading `breaks` fails",
        "import breaks",
    ),
}


@pytest.fixture(scope="module")
def modules(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The desk with what cannot be played, installed: what is broken is broken for itself alone."""
    more = tmp_path_factory.mktemp("modules")
    for name, text in MODULES.items():
        (desk.packages / name).write_text(text)
    package = more / "broken"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "broken"\nversion = "1"\n[tool.setuptools]\npy-modules = []\n'
        '[project.entry-points."vendomini.workloads"]\nbroken = "breaks:Thing"\n'
    )
    install(package, desk.packages)
    return desk


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_played_is_one_error_and_nothing_is_written(
    case: str, modules: Desk, tmp_path: Path
) -> None:
    workload, problem, hint = REFUSED[case]
    file = write_labels(tmp_path, workload)
    assert_refused(modules, tmp_path, "run", "--config", file, problem=problem, hint=hint)


def test_a_file_that_is_not_shipped_cannot_be_inherited(desk: Desk, tmp_path: Path) -> None:
    for inherit in ("nosuch", "label_search"):  # the second has no file of its own
        file = write_labels(tmp_path, inherit=inherit)
        problem = f"`inherit: {inherit}`"
        assert_refused(desk, tmp_path, "run", "--config", file, problem=problem, hint="")


def test_a_broken_package_does_not_disturb_other_workloads(modules: Desk, tmp_path: Path) -> None:
    planned = modules("plan", "--config", write_labels(tmp_path), cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr


@pytest.mark.parametrize("backend", ["scripted", "hf"])
def test_an_interpreter_of_the_workers_without_the_package_is_refused_before_anything_is_booked(
    backend: str, desk: Desk, tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    python = tmp_path / "python"
    # The package of this test is found by PYTHONPATH, which jobs inherit.
    python.write_text(f'#!/bin/sh\nunset PYTHONPATH\nexec {tmp_path}/bare/bin/python "$@"\n')
    python.chmod(0o755)
    here = tmp_path / "here"
    here.mkdir()
    gpu = {"model": "*", "gpus": 1, "cpus": 2, "memory": "8G", "minutes": 10, "workers": 1}
    profile = write_profile(tmp_path, python=str(python), resources=[gpu])
    words = ("run", "--config", write_labels(tmp_path), "--cluster", "--profile", profile)
    model = model_folder(tmp_path / "model")
    slurm = {name: os.environ[name] for name in ("PATH", "FAKE_SLURM")}
    assert_refused(
        replace(desk, env={**desk.env, **slurm}),
        here,
        *(*words, f"engine.backend={backend}", QUICK, f"agent.model.name={model}"),
        problem=f"in module `label_search`, which `{python}`, the interpreter of the workers, does",
        hint="install its package there",
    )
    assert fake_slurm.jobs() == []


def assert_refused(desk: Desk, folder: Path, *words: str | Path, problem: str, hint: str) -> None:
    """One error with its hint, status 2, no trace, and nothing written."""
    before = everything_in(folder)
    done = desk(*words, cwd=folder)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    message, _, advice = done.stderr.partition("\nhint: ")
    assert message.startswith("error: ")
    assert "\nerror: " not in message
    assert problem in message
    assert advice.strip()
    assert hint in advice
    assert "Traceback" not in done.stderr
    assert everything_in(folder) == before
