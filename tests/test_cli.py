"""The commands as their users have them: what they print, write, and end with."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars
import pytest

from tests.harness import outcomes
from tests.product import COMMAND, ROOT, attempts, vendomini, wait_until, write_phase
from vendomini import __version__, submit
from vendomini.cli import show
from vendomini.cli.main import main
from vendomini.standing import status_of
from vendomini.store.experiment import Experiment
from vendomini.tables import RUN_LABELS
from vendomini.workloads.warehouse.workload import WAREHOUSE

GROUP_KEYS = {
    "model", "runs", "backend", "dtype", "quantization", "gpu_type", "gpus", "nodes",
    "tensor_parallel_size", "pipeline_parallel_size", "max_model_len", "concurrency", "workers",
    "gpu_hours", "wall_hours", "reasons", "rejected", "context_length", "conversation_tokens",
}  # fmt: skip
ERROR_TYPES = ("temporal", "quantity", "cost", "storage", "budget", "causal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


class Cli(Protocol):
    """Give a command in this process."""

    def __call__(self, *arguments: str | Path) -> Done: ...


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Cli]:
    """In an empty current directory, outside of any Slurm job."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.delenv("VENDOMINI_ROOT", raising=False)
    for name in os.environ:
        if name.startswith(("SLURM_", "SBATCH_")):
            monkeypatch.delenv(name)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def give(*arguments: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", ["vendomini", *(str(word) for word in arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        said = capsys.readouterr()
        code = exit_.value.code
        return Done(code=code if isinstance(code, int) else 0, out=said.out, err=said.err)

    yield give
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A phase of four short runs."""
    return write_phase(tmp_path, replications=2, steps=10, latency_s=0)


def counts(**some: int) -> dict[str, int]:
    names = ("total", "done", "running", "waiting", "failed", "short")
    return {**dict.fromkeys(names, 0), **some}


def everything_in(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"a folder"
        for path in folder.rglob("*")
    }


# -- plan -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "runs"),
    [("demo", 30), ("phases/phase1_small_models", 660), ("phases/phase3_small_models", 990)],
)
def test_plan_counts_the_runs_and_has_every_key_that_scripts_build_on(
    cli: Cli, name: str, runs: int
) -> None:
    file = ROOT / "configs" / f"{name}.yaml"
    plan = cli("plan", file, "--json").json()
    assert plan["phase"] == file.stem
    assert plan["runs"] == runs
    assert sum(group["runs"] for group in plan["groups"]) == runs
    for group in plan["groups"]:
        assert group.keys() >= GROUP_KEYS
        assert group["reasons"]


def test_plan_has_one_group_a_model_and_what_the_profile_gives_it(cli: Cli) -> None:
    file = ROOT / "configs" / "phases" / "phase1_large_models.yaml"
    profile = ROOT / "slurm" / "example.yaml"
    done = cli("plan", file, "--cluster", "--profile", profile, "--json")
    groups = {group["model"]: group for group in done.json()["groups"]}
    assert len(groups) == 3
    large = groups["Qwen/Qwen2.5-72B-Instruct"]
    assert (large["runs"], large["gpus"], large["gpu_type"], large["nodes"]) == (220, 4, "a100", 1)


def test_plan_of_runs_that_never_ask_is_one_group_without_gpus(cli: Cli) -> None:
    file = ROOT / "configs" / "phases" / "phase1_large_models.yaml"
    plan = cli("plan", file, "agent.kind=heuristic", "--json").json()
    (group,) = plan["groups"]
    assert (group["runs"], group["gpus"], group["backend"], group["gpu_hours"]) == (660, 0, None, 0)
    assert "axis `agent.model.name` does nothing here" in plan["notes"][0]


def test_plan_writes_nothing_and_is_what_a_dry_run_shows(cli: Cli, small: Path) -> None:
    planned = cli("plan", small)
    assert (planned.code, planned.err) == (0, "")
    assert cli("run", "--dry-run", "--config", small) == planned
    assert cli("plan", small, "--json", "--limit", "3").json()["runs"] == 3
    assert everything_in(Path.cwd()) == {}


def test_a_model_that_nobody_knows_is_not_submitted(cli: Cli) -> None:
    asked = (
        *("run", "phase1_small_models", "--cluster", "--profile", ROOT / "slurm" / "example.yaml"),
        "agent.model.name=Qwen/Qwen3-33B",
    )
    done = cli(*asked)
    assert done.code == 2
    assert done.err.startswith("error: model `Qwen/Qwen3-33B` is neither on this machine nor in")
    assert "did you mean `Qwen/Qwen3-32B`" in done.err
    assert "--trust-names" in done.err
    assert everything_in(Path.cwd()) == {}


@pytest.mark.parametrize("columns", ["30", "60", "80", "200"])
def test_a_plan_loses_nothing_in_a_terminal_of_any_width(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setattr(show.OUT, "width", int(columns))
    file = ROOT / "configs" / "phases" / "phase1_large_models.yaml"
    profile = ROOT / "slurm" / "example.yaml"
    out = cli("plan", file, "--cluster", "--profile", profile).out
    for said in (
        "Qwen/Qwen2.5-72B-Instruct",
        "220",
        "4 x A100-80",
        "gpu:a100:4",
        "240G",
        "720",
        "workers",
    ):
        assert said in out


def test_a_name_with_brackets_is_shown_as_it_is(cli: Cli, small: Path) -> None:
    done = cli("plan", small, "agent.model.name=org/[red]m[/red]")
    assert done.out.count("org/[red]m[/red]") == 2


# -- run --------------------------------------------------------------------------------------


def test_run_prints_the_folder_alone_on_stdout(cli: Cli, small: Path) -> None:
    done = cli("run", small)
    assert (done.code, done.out) == (0, "experiments/small\n")
    assert "0 done and kept, 0 unfinished, 4 new" in done.err
    assert "4 of 4 runs are done, 0 failed" in done.err
    assert len(outcomes(Experiment(Path("experiments/small")))) == 4
    assert "\x1b" not in done.err


def test_run_as_json_says_how_the_runs_stand(cli: Cli, small: Path) -> None:
    said = cli("run", small, "--json").json()
    assert said["experiment"] == "experiments/small"
    assert said["submission"].startswith("vendomini:small:")
    assert said["runs"] == {
        "total": 4,
        "done": 4,
        "running": 0,
        "waiting": 0,
        "failed": 0,
        "short": 0,
    }


def test_a_second_run_says_finished_and_does_nothing(cli: Cli, small: Path) -> None:
    cli("run", small)
    before = everything_in(Path.cwd())
    done = cli("run", small, "--n-jobs", "2")
    assert (done.code, done.out) == (0, "experiments/small\n")
    assert "finished: all 4 runs are done; nothing to do" in done.err
    assert everything_in(Path.cwd()) == before
    said = cli("run", small, "--json").json()
    assert (said["submission"], said["runs"]["done"]) == (None, 4)
    assert everything_in(Path.cwd()) == before


def test_limit_plays_the_first_runs_and_the_next_run_the_others(cli: Cli, small: Path) -> None:
    first = cli("run", small, "--limit", "1")
    assert first.code == 0
    experiment = Experiment(Path("experiments/small"))
    ids = [run.id for run in experiment.runs()]
    assert experiment.finished() == set(ids[:1])
    assert len(ids) == 4
    again = cli("run", small, "--limit", "1")
    assert "finished: all 1 runs are done" in again.err
    everything = cli("run", small)
    assert "1 done and kept, 3 unfinished, 0 new" in everything.err
    assert attempts(experiment) == dict.fromkeys(ids, 1)


def test_an_edited_phase_keeps_what_is_done_and_marks_what_left_the_grid(
    cli: Cli, small: Path
) -> None:
    cli("run", small)
    folder = Path("experiments/small")
    first = outcomes(Experiment(folder))
    done = cli("run", small, "grid.pe_induction.p_shock=[0.5, 1.0]", "--replace-grid")
    assert (
        "2 done and kept, 0 unfinished, 2 new, 2 no longer in the grid (kept, marked)" in done.err
    )
    both = outcomes(Experiment(folder))
    assert len(both) == 6
    assert first.items() <= both.items()
    assert attempts(Experiment(folder)) == dict.fromkeys(both, 1)
    status = cli("status", "small", "--json").json()
    assert (status["runs"]["total"], status["orphaned"]) == (4, 2)
    cli("collect", "small")
    table = polars.read_parquet(folder / "collected" / "runs.parquet")
    assert table["in_grid"].to_list() == [True] * 4 + [False] * 2
    assert table["arm.pe_induction.p_shock"].to_list() == [0.5, 0.5, 1.0, 1.0, 0.0, 0.0]
    # Back to the old grid: nothing is played again.
    back = cli("run", small, "--replace-grid")
    assert "4 done and kept, 0 unfinished, 0 new, 2 no longer in the grid" in back.err
    assert outcomes(Experiment(folder)) == both


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "grid.pe_induction.p_shock=[0.5, 1.0]",
            "2 runs with results are not in the grid of this phase: `pe_induction.p_shock` was "
            "`0.0`, and is `0.5`, `1.0`",
        ),
        (
            "agent.model.name=org/other",
            "4 runs with results are not in the grid of this phase: `agent.model.name` was "
            "`meta-llama/Llama-3.1-8B-Instruct`, and is `org/other`",
        ),
        (
            "experiment.replications=1",
            "2 runs with results are not in the grid of this phase: `experiment.replications` "
            "was `2`, and is `1`",
        ),
        (
            "experiment.seed=8",
            "4 runs with results are not in the grid of this phase: `experiment.seed` was",
        ),
    ],
)
def test_a_phase_that_would_take_played_runs_out_of_the_grid_is_refused_with_the_two_ways_on(
    cli: Cli, small: Path, override: str, said: str
) -> None:
    assert cli("run", small).code == 0
    before = everything_in(Path("experiments"))
    refused = cli("run", small, override)
    assert refused.code == 2
    assert refused.err.startswith(f"error: in experiment `small` {said}")
    assert "experiment.name=NEW" in refused.err
    assert "--replace-grid" in refused.err
    assert everything_in(Path("experiments")) == before
    planned = cli("plan", small, override)
    assert planned.code == 0
    assert "`run` refuses that without --replace-grid" in " ".join(planned.out.split())
    beside = cli("run", small, override, "experiment.name=beside", "--limit", "1")
    assert (beside.code, beside.out) == (0, "experiments/beside\n")


def test_two_phases_that_set_no_name_have_folders_of_their_own(cli: Cli, small: Path) -> None:
    phase = json.loads(small.read_text())
    del phase["experiment"]["name"]
    for name in ("one", "two"):
        file = small.with_name(f"{name}.yaml")
        file.write_text(json.dumps(phase))
        assert cli("run", file, "--limit", "1").out == f"experiments/{name}\n"
    child = small.with_name("child.yaml")
    child.write_text("inherit: ./small.yaml\n")
    assert cli("run", child, "--limit", "1").out == "experiments/child\n"


def test_more_replications_play_only_the_new_runs(cli: Cli, small: Path) -> None:
    cli("run", small)
    first = outcomes(Experiment(Path("experiments/small")))
    done = cli("run", small, "experiment.replications=3")
    assert "4 done and kept, 0 unfinished, 2 new" in done.err
    after = outcomes(Experiment(Path("experiments/small")))
    assert len(after) == 6
    assert first.items() <= after.items()
    assert set(attempts(Experiment(Path("experiments/small"))).values()) == {1}


def test_an_experiment_lives_below_the_root_that_is_named(
    cli: Cli, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "some where"
    by_option = cli("run", small, "--root", root, "--limit", "1")
    assert by_option.out == f"{root / 'small'}\n"
    monkeypatch.setenv("VENDOMINI_ROOT", str(root))
    assert "1 done and kept, 3 unfinished" in cli("run", small, "--limit", "2").err
    assert cli("status", "small", "--json").json()["runs"]["done"] == 2
    assert cli("collect", "small").out.startswith(str(root / "small" / "collected"))
    assert cli("status", root / "small", "--root", "elsewhere").code == 0
    assert everything_in(Path.cwd()) == {}


def test_a_worker_that_cannot_start_is_explained_and_is_code_3(cli: Cli, small: Path) -> None:
    done = cli("run", small, "engine.script=/no/such/log.jsonl")
    assert (done.code, done.out) == (3, "experiments/small\n")
    assert "a worker could not start: the scripted engine cannot read its recorded log" in done.err
    assert "4 runs are unfinished: solve that, then give the same command again" in done.err


def test_the_old_command_line_still_works(small: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "run_experiment.py", "--config", small, "--n-jobs", "2"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "experiments/small\n"), done.stderr
    assert len(Experiment(tmp_path / "experiments" / "small").workers()) == 2
    assert len(outcomes(Experiment(tmp_path / "experiments" / "small"))) == 4


# -- failed runs, status, collect --------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment with runs of every state; two, one done and one waiting, left the grid.

    Its engine knows the replies of two runs only: those of the arm that was recorded.
    """
    here = tmp_path_factory.mktemp("mixed")
    file = write_phase(here, replications=2, steps=10, latency_s=0, name="mixed")
    axis = "grid.pe_induction.p_shock"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return vendomini("run", file, *arguments, cwd=here)

    assert run("experiment.name=recorded", "pe_induction.p_shock=0").returncode == 0
    (log,) = (here / "experiments" / "recorded" / "logs").glob("*.replies.jsonl")
    played = run(f"{axis}=[0.0, 1.0]", f"engine.script={log}")
    assert played.returncode == 1
    assert "2 of 4 runs are done, 2 failed" in played.stderr
    assert "why: vendomini status experiments/mixed" in played.stderr
    assert run(f"{axis}=[0.7]", "--limit", "1", "--replace-grid").returncode == 0
    finished = run(f"{axis}=[0.0, 1.0, 0.3]", "--limit", "2", "--replace-grid")
    assert "finished: all 2 runs are done" in finished.stderr
    return here / "experiments" / "mixed"


def test_failed_runs_are_code_1_and_status_says_why(cli: Cli, mixed: Path) -> None:
    done = cli("status", mixed)
    assert done.code == 0
    assert "the recorded log has no reply to request" in done.out
    assert "2 runs are no longer in the grid (kept, not counted)" in done.out
    status = cli("status", mixed, "--json").json()
    assert status["runs"] == counts(total=6, done=2, waiting=2, failed=2)
    assert list(status["groups"].values()) == [status["runs"]]
    assert {error["kind"] for error in status["errors"]} == {"engine"}
    assert len(status["errors"]) == 2
    assert {worker["state"] for worker in status["workers"]} == {"ended"}
    assert not any(worker["alive"] for worker in status["workers"])


def test_status_alone_has_a_line_for_each_experiment(cli: Cli, small: Path) -> None:
    empty = cli("status")
    assert (empty.code, empty.out.splitlines()[0]) == (
        0,
        "there is no experiment below `experiments`: `vendomini run demo` makes one",
    )
    assert cli("run", small).code == 0
    assert cli("run", small, "experiment.name=other", "--limit", "1").code == 0
    Path("experiments/broken").mkdir()
    Path("experiments/broken/experiment.json").write_text("{}")
    every = cli("status", "--json")
    assert every.json() == {
        "other": counts(total=4, done=1, waiting=3),
        "small": counts(total=4, done=4),
    }
    assert "`broken` cannot be read" in every.err
    rows = [line.split() for line in cli("status").out.splitlines()]
    assert ["other", "4", "1", "0", "3", "0"] in rows
    assert ["small", "4", "4", "0", "0", "0"] in rows
    assert cli("status", "--measures").code == 2


def test_collect_has_a_row_for_each_run_of_any_state(cli: Cli, mixed: Path) -> None:
    done = cli("collect", mixed)
    paths = [Path(line) for line in done.out.splitlines()]
    tables = ["runs.parquet", "runs.csv", "steps.parquet", "schema.json"]
    assert [path.name for path in paths] == tables
    table = polars.read_parquet(paths[0])
    runs = Experiment(mixed).runs()
    assert table["run_id"].to_list() == [run.id for run in runs]
    assert table.columns[:14] == [
        *("run_id", "state", "in_grid", "replication", "world"),
        *RUN_LABELS,
        "arm.pe_induction.p_shock",
    ]
    assert table["world"].to_list() == ["0", "1"] * 4
    for name, value in {
        "experiment": "mixed",
        "phase_file": "mixed.yaml",
        "workload": "warehouse",
        "workload_version": WAREHOUSE.version,
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "model_revision": None,
        "agent_kind": "probe",
        "seed": 3,
    }.items():
        assert table[name].to_list() == [value] * 8, name
    played = [__version__ if state == "done" else None for state in table["state"]]
    assert table["served.version"].to_list() == played
    parts = [name.split(".")[0] for name in table.columns[13:]]
    assert list(dict.fromkeys(parts)) == ["arm", "outcome", "pe", "served", "error"]
    assert table["state"].to_list() == [
        "done", "done", "failed", "failed", "waiting", "waiting", "done", "waiting"
    ]  # fmt: skip
    assert table["in_grid"].to_list() == [True] * 6 + [False] * 2
    assert table["replication"].to_list() == [0, 1] * 4
    finished = table.filter(polars.col("state") == "done")
    others = table.filter(polars.col("state") != "done")
    assert finished["outcome.steps"].to_list() == [10] * 3
    assert finished["served.backend"].to_list() == ["scripted"] * 3
    assert finished["served.attempt"].null_count() == 0
    for name in table.columns:
        if name.startswith(("outcome.", "pe.", "served.")):
            assert others[name].null_count() == others.height
    for kind in ERROR_TYPES:
        # Nothing of a type that was never resolved, else the mean of its errors.
        resolved = finished[f"pe.{kind}.resolved"].to_list()
        means = finished[f"pe.{kind}.mean"].to_list()
        assert [mean is None for mean in means] == [count == 0 for count in resolved]
    failed = table.filter(polars.col("state") == "failed")
    assert failed["error.kind"].to_list() == ["engine"] * 2
    assert all("no reply to request" in message for message in failed["error.message"])
    with paths[1].open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [row["run_id"] for row in written] == table["run_id"].to_list()
    assert list(written[0]) == table.columns


def test_collect_has_the_steps_of_the_finished_runs(cli: Cli, mixed: Path, tmp_path: Path) -> None:
    said = cli("collect", mixed, "--out", tmp_path / "tables", "--json").json()
    assert (said["runs"], said["done"], said["steps"], said["without_steps"]) == (8, 3, 30, [])
    steps = polars.read_parquet(said["steps_parquet"])
    assert steps.columns[:2] == ["run_id", "step"]
    assert {"action.tool", "truth.budget", "resolved", "shock_applied"} <= set(steps.columns)
    by_run = steps.group_by("run_id", maintain_order=True).agg("step")
    assert by_run["step"].to_list() == [list(range(10))] * 3
    axis = "arm.pe_induction.p_shock"
    runs = polars.read_parquet(Path(said["runs_parquet"])).filter(state="done")
    assert (
        steps.select("run_id", "model", axis)
        .unique(maintain_order=True)
        .equals(runs.select("run_id", "model", axis))
    )
    assert set(by_run["run_id"]) == Experiment(mixed).finished()
    assert Path(said["steps_parquet"]).parent == tmp_path / "tables"
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "runs.csv",
        "runs.parquet",
        "schema.json",
        "steps.parquet",
    ]
    schema = json.loads(Path(said["schema_json"]).read_text())
    table = polars.read_parquet(said["runs_parquet"])
    assert {name: known["type"] for name, known in schema["runs"].items()} == {
        name: str(type) for name, type in table.schema.items()
    }
    assert schema["runs"]["outcome.measures.net_worth"]["unit"] == "currency units"
    assert (schema["workload"], schema["derive_version"]) == ("warehouse", 1)


def test_status_says_how_the_measures_stand(cli: Cli, mixed: Path) -> None:
    plain = cli("status", mixed, "--json").json()
    assert "measures" not in plain
    measures = cli("status", mixed, "--measures", "--json").json()["measures"]
    by_column = {each["measure"]["column"]: each for each in measures}
    crash = by_column["outcome.crash.onset"]
    # Of the three that are done one has left the grid.
    assert (crash["runs"], crash["events"], crash["mean"]) == (2, 0, None)
    cli("collect", mixed)
    table = polars.read_parquet(mixed / "collected" / "runs.parquet")
    worth = by_column["outcome.measures.net_worth"]
    assert worth["runs"] == 2
    in_grid = table.filter(polars.col("in_grid"))["outcome.measures.net_worth"]
    assert worth["mean"] == pytest.approx(in_grid.mean())
    assert "outcome.measures.net_worth" in cli("status", mixed, "--measures").out


def test_without_its_workload_an_experiment_still_has_a_status_and_tables(
    cli: Cli, tmp_path: Path
) -> None:
    """Such as on a laptop that lacks the package which the cluster has."""
    file = write_phase(tmp_path, replications=1, steps=5, latency_s=0)
    folder = Path(cli("run", file).out.strip())
    runs = folder / "runs.jsonl"
    runs.write_text(runs.read_text().replace('"workload":"warehouse"', '"workload":"elsewhere"'))
    assert cli("status", folder, "--json").json()["runs"]["done"] == 2
    done = cli("collect", folder)
    assert "`elsewhere`, which is no workload of the packages installed here" in done.err
    table = polars.read_parquet(folder / "collected" / "runs.parquet")
    assert table["outcome.steps"].to_list() == [5, 5]
    assert "outcome.crash.onset" not in table.columns


def test_a_setting_that_varies_without_being_an_axis_is_a_column(cli: Cli, tmp_path: Path) -> None:
    file = write_phase(tmp_path, replications=1, steps=5, latency_s=0)
    cli("run", file)
    cli("run", file, "simulation.max_steps=6", "--replace-grid")
    cli("collect", "small")
    table = polars.read_parquet("experiments/small/collected/runs.parquet")
    assert table["arm.simulation.max_steps"].to_list() == [6, 6, 5, 5]
    assert table["outcome.steps"].to_list() == [6, 6, 5, 5]
    assert [name for name in table.columns if name.startswith("arm.")] == [
        "arm.pe_induction.p_shock",
        "arm.simulation.max_steps",
    ]


def test_collect_of_an_experiment_where_nothing_was_played(cli: Cli, small: Path) -> None:
    cli("run", small, "engine.script=/no/such/log.jsonl")
    done = cli("collect", "small")
    assert done.code == 0
    assert "0 of 4 runs done, 0 steps" in done.err
    table = polars.read_parquet("experiments/small/collected/runs.parquet")
    assert table["state"].to_list() == ["waiting"] * 4
    assert "served.seconds" in table.columns
    steps = polars.read_parquet("experiments/small/collected/steps.parquet")
    assert (steps.columns, steps.height) == (["run_id", "step"], 0)


def test_a_step_log_that_was_lost_is_said_and_loses_nothing_else(cli: Cli, small: Path) -> None:
    cli("run", small)
    (log,) = Path("experiments/small/logs").glob("*.steps.jsonl")
    log.unlink()
    done = cli("collect", "small")
    assert done.code == 1
    assert f"logs/{log.name} has 0 of its 10 steps" in done.err
    table = polars.read_parquet("experiments/small/collected/runs.parquet")
    assert table["state"].to_list() == ["short"] * 4
    assert table["outcome.steps"].to_list() == [None] * 4
    assert cli("collect", "small", "--keep-short").code == 0
    table = polars.read_parquet("experiments/small/collected/runs.parquet")
    assert table["state"].to_list() == ["short"] * 4
    assert table["outcome.steps"].to_list() == [10] * 4


def test_somebody_elses_files_in_an_experiment_do_no_harm(cli: Cli, small: Path) -> None:
    cli("run", small, "--limit", "2")
    for folder in ("claims", "errors", "results", "plans", "jobs"):
        Path("experiments/small", folder, "notes.txt").write_text("mine")
        Path("experiments/small", folder, "x").write_text("mine")
    assert cli("status", "small", "--json").json()["runs"]["done"] == 2
    assert cli("run", small).code == 0
    assert cli("collect", "small").code == 0
    assert len(attempts(Experiment(Path("experiments/small")))) >= 4


# -- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "plan", "status", "collect"])
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_of_every_command_has_an_example(cli: Cli, command: str, option: str) -> None:
    done = cli(command, option)
    assert done.code == 0
    assert re.search(rf"^ *Examples?:\s+vendomini {command} \S", done.out, re.MULTILINE)


def test_help_names_every_command_and_version_the_version(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    for command in ("run", "plan", "status", "collect", "remove"):
        assert re.search(rf"^│ {command} +\S", done.out, re.MULTILINE)
    assert cli("--version") == Done(code=0, out=f"{__version__}\n", err="")


@pytest.mark.parametrize("command", ["status", "collect", "remove"])
def test_the_shell_completes_names_of_experiments(command: str, tmp_path: Path) -> None:
    for name in ("phase1", "phase2", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "experiment.json").touch()
    (tmp_path / "phase_that_is_none").mkdir()
    asks = {
        "_VENDOMINI_COMPLETE": "complete_bash",
        "COMP_WORDS": f"vendomini {command} ph",
        "COMP_CWORD": "2",
        "VENDOMINI_ROOT": str(tmp_path),
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("vendomini")],
        env={**os.environ, **asks},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == ["phase1", "phase2"]


def test_ctrl_c_while_the_program_loads_leaves_no_traceback(tmp_path: Path) -> None:
    loading = tmp_path / "typer.py"  # found first, and interrupted in the middle
    loading.write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [Path(sys.executable).with_name("vendomini"), "--version"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "configs/demo.yaml"]])
def test_help_and_plan_load_nothing_heavy(arguments: list[str]) -> None:
    probe = (
        "import atexit, sys\n"
        "heavy = {'torch', 'vllm', 'submitit', 'polars', 'pyarrow', 'matplotlib', 'pandas'}\n"
        "atexit.register(lambda: print(*sorted(heavy & set(sys.modules)), file=sys.stderr))\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "from vendomini.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "\n")


def test_a_reader_that_goes_away_gets_no_traceback(small: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "plan", small, "--json"],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert "Traceback" not in done.stderr


def test_a_terminal_without_utf_8_shows_a_name_escaped(small: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "plan", small, "experiment.name=größe"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(r"gr\xf6\xdfe: 4 runs")


MakeDisk = Callable[[str], Path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[MakeDisk]:
    """Mounts a file system of that size, or makes it another one."""
    place = tmp_path / "disk"

    def mount(size: str) -> Path:
        is_new = not place.exists()
        place.mkdir(exist_ok=True)
        options = f"size={size}" if is_new else f"remount,size={size}"
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
            reason = "no small file system can be mounted here: that needs root"
            if "CI" in os.environ:
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        return place

    yield mount
    if place.exists():
        subprocess.run(["umount", place], check=True)


def outcomes_elsewhere(cli: Cli, tmp_path: Path) -> dict[str, bytes]:
    other = cli("run", "demo", "--root", tmp_path / "roomy")
    return outcomes(Experiment(Path(other.out.strip())))


def test_a_full_disk_is_named_and_the_next_run_goes_on(
    cli: Cli, tmp_path: Path, small_disk: MakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "LOCAL_DEAD_AFTER_S", 9.0)  # a lease of six seconds
    place = small_disk("256k")
    demo: list[str | Path] = ["demo", "--root", place]
    full = cli("run", *demo)
    assert full.code == 3
    assert "No space left on device (free space or quota" in full.err
    assert "nobody can write here: cannot write" in cli("status", *demo).out
    again = cli("run", *demo)
    assert again.code == 2
    assert "No space left on device\nhint: free space or quota" in again.err
    small_disk("20m")
    assert cli("run", *demo).code == 0
    assert outcomes(Experiment(place / "demo")) == outcomes_elsewhere(cli, tmp_path)


def test_a_disk_that_is_full_for_a_while_is_waited_for(
    cli: Cli, tmp_path: Path, small_disk: MakeDisk
) -> None:
    place = small_disk("256k")

    def grow() -> None:
        wait_until(lambda: os.statvfs(place).f_bavail == 0)
        time.sleep(25)  # long enough for the command to see that nothing moves
        small_disk("20m")

    larger = threading.Thread(target=grow)
    larger.start()
    done = cli("run", "demo", "--root", place)
    larger.join()
    assert done.code == 0
    assert "workers wait: cannot write" in done.err
    assert outcomes(Experiment(place / "demo")) == outcomes_elsewhere(cli, tmp_path)


# -- again --------------------------------------------------------------------------------------


def the_run(number: int) -> str:
    return Experiment(Path("experiments/small")).runs()[number].id


def test_a_short_run_is_named_and_played_again(cli: Cli, small: Path) -> None:
    cli("run", small)
    before = outcomes(Experiment(Path("experiments/small")))
    (log,) = Path("experiments/small/logs").glob("*.steps.jsonl")
    victim = the_run(2)
    lines = log.read_bytes().splitlines(True)
    log.write_bytes(b"".join(line for line in lines if f'{victim}","step":7,'.encode() not in line))
    why = f"logs/{log.name} has 9 of its 10 steps"
    told = cli("status", "small")
    assert (told.code, cli("status", "small", "--json").json()["short"]) == (1, {victim: why})
    assert f"short {victim}: {why}\nthe same `vendomini run` plays them again" in told.out
    assert cli("collect", "small", "--json").code == 1
    again = cli("run", small)
    assert again.code == 0
    assert f"run {victim} is short: {why}" in again.err
    assert "what there was of them is in experiments/small/archive/1" in again.err
    assert outcomes(Experiment(Path("experiments/small"))) == before
    assert cli("status", "small").code == 0
    assert cli("collect", "small").code == 0


def test_one_run_is_played_anew_and_the_others_stay(cli: Cli, small: Path) -> None:
    cli("run", small)
    experiment = Experiment(Path("experiments/small"))
    before = outcomes(experiment)
    victim = the_run(1)
    done = cli("run", small, "--restart-run", victim[:6])
    assert done.code == 0
    assert f"run {victim} starts anew; what there was of it is in" in done.err
    assert "3 done and kept, 1 unfinished" in done.err
    assert outcomes(experiment) == before
    tries = {run: result.served.attempt for run in before if (result := experiment.result(run))}
    assert tries == {run: 2 if run == victim else 1 for run in before}


@pytest.mark.parametrize("option", ["--restart-run", "--restart-group"])
def test_what_is_not_there_cannot_be_played_anew(cli: Cli, small: Path, option: str) -> None:
    early = cli("run", small, option, "0")
    assert early.code == 2
    assert f"{option}: nothing was played yet" in early.err
    cli("run", small)
    before = everything_in(Path.cwd())
    done = cli("run", small, option, "no-such")
    assert done.code == 2
    assert f"error: {option}: " in done.err
    assert "hint: there are `" in done.err or "hint: there are: `" in done.err
    assert everything_in(Path.cwd()) == before


def test_nothing_moves_where_one_of_several_cannot_be_played_anew(cli: Cli, small: Path) -> None:
    cli("run", small)
    (group,) = status_of(Experiment(Path("experiments/small"))).groups
    before = everything_in(Path("experiments"))
    done = cli("run", small, "--restart-group", group, "--restart-run", "no-such")
    assert done.code == 2
    assert "error: --restart-run: no run's id begins with `no-such`" in done.err
    assert everything_in(Path("experiments")) == before


def test_short_runs_that_left_the_grid_are_noted_and_not_asked_for(cli: Cli, small: Path) -> None:
    """No `run` of the grid plays them again."""
    cli("run", small)
    gone = [run.id for run in Experiment(Path("experiments/small")).runs() if run.replication]
    (log,) = Path("experiments/small/logs").glob("*.steps.jsonl")
    lines = log.read_bytes().splitlines(True)
    log.write_bytes(b"".join(line for line in lines if gone[0].encode() not in line))
    cli("run", small, "experiment.replications=1", "--replace-grid")
    assert cli("status", "small").code == 0
    done = cli("collect", "small", "--json")
    assert (done.code, done.json()["short"]) == (0, {})
    (note,) = done.json()["notes"]
    assert "outcomes of short runs that are not in the grid (1) are left out" in note
    assert gone[0] in note
    (note,) = cli("collect", "small", "--keep-short", "--json").json()["notes"]
    assert "are as they are" in note


def test_a_collect_of_the_same_experiment_has_the_same_bytes(cli: Cli, small: Path) -> None:
    """And of another play of it, as far as it is not about who played it."""
    cli("run", small)
    cli("run", small, "--root", "other", "--n-jobs", "2")
    for place in ("experiments", "experiments", "other"):
        cli("collect", "small", "--root", place, "--out", f"{place}-tables")
        tables = {path.name: path.read_bytes() for path in Path(f"{place}-tables").iterdir()}
        if place == "experiments":
            first = tables
    assert tables["steps.parquet"] == first["steps.parquet"]
    assert tables["schema.json"] == first["schema.json"]
    again = {path.name: path.read_bytes() for path in Path("experiments-tables").iterdir()}
    assert again == first
