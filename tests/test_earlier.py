"""What an older version left goes on: the ids of its runs, and a whole experiment folder of it."""

import json
import tarfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import polars
import pytest

from tests.product import ROOT, attempts, vendomini
from vendomini.cli.play import Shown, play
from vendomini.collect import collect
from vendomini.config import expand, load_phase
from vendomini.errors import ConfigError
from vendomini.phase import Run, setting
from vendomini.store.experiment import Experiment
from vendomini.store.process import this_process
from vendomini.store.records import encode
from vendomini.workloads.registry import workload_named
from vendomini.workloads.warehouse.crash import THRESHOLDS

DATA = Path(__file__).parent / "data"
IDS: Mapping[str, Mapping[str, Any]] = json.loads((DATA / "ids.json").read_text())
"""Made by the version before signs left the records: runs of each kind, with their ids."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where an experiment of that version lies: five runs finished, two of them crashed by the
    strict threshold, three in the middle when their worker was killed."""
    return unpacked("earlier", tmp_path)


def unpacked(name: str, folder: Path) -> Path:
    """The folder, with an older experiment in it whose last worker was killed."""
    with tarfile.open(DATA / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    experiment = Experiment(folder / name)
    # Its killed worker was of a process on this machine that is gone: nobody has to wait for it.
    me = this_process()
    for record in experiment.workers().values():
        gone = replace(me, started=me.started - 1)
        moved = msgspec.structs.replace(record, process=gone)
        experiment.disk.write_atomic(experiment.worker_path(record.incarnation), encode(moved))
    return folder


@pytest.mark.parametrize("kind", sorted(IDS))
def test_a_run_has_the_id_it_has_had(kind: str, tmp_path: Path) -> None:
    case = IDS[kind]
    (tmp_path / "config.json").write_text('{"model_type": "tiny"}')
    overrides = [each.replace("{folder}", str(tmp_path)) for each in case["overrides"]]
    phase = load_phase(ROOT / case["file"], overrides, workload_named=workload_named)
    then = replace(expand(phase, window=case["window"])[case["run"]], id=case["id"])
    runs = expand(phase, window=case["window"], known=lambda: {then.id: then})
    assert runs[case["run"]].id == case["id"]


@pytest.mark.parametrize("kind", [kind for kind in sorted(IDS) if kind.startswith("scripted")])
def test_a_run_has_that_id_too_where_the_file_says_probe(kind: str, tmp_path: Path) -> None:
    """What the agent for tests was called when its runs were first hashed."""
    case = IDS[kind]
    todays = [
        each.replace("scripted", "probe") if "agent.kind" in each else each
        for each in case["overrides"]
    ]
    assert todays != case["overrides"]
    (tmp_path / "config.json").write_text('{"model_type": "tiny"}')
    overrides = [each.replace("{folder}", str(tmp_path)) for each in todays]
    phase = load_phase(ROOT / case["file"], overrides, workload_named=workload_named)
    assert not any("means `probe`" in note for note in phase.notes)
    run = expand(phase, window=case["window"])[case["run"]]
    assert setting(run.settings, "agent.kind") == "probe"
    known = {case["id"]: replace(run, id=case["id"])}
    there = expand(phase, window=case["window"], known=lambda: known)
    assert there[case["run"]].id == case["id"]


def test_an_experiment_with_an_older_word_is_played_on_extended_and_collected(
    tmp_path: Path,
) -> None:
    """Of two runs of the probe, then called scripted, one was finished, one killed half-way."""
    experiment = Experiment(unpacked("renamed", tmp_path) / "renamed")
    before = [run.id for run in experiment.runs()]
    assert [run.arm["agent.kind"] for run in experiment.runs()][:2] == ["scripted"] * 2
    finished = experiment.finished()
    results = {run: experiment.result_path(run).read_bytes() for run in finished}
    (half,) = set(before) - finished
    for run in finished:
        assert play(_request(experiment, run)) == 0
    assert _kinds(experiment) == {"probe": 2, "random": 2}

    config = experiment.folder / "phase.yaml"
    words = ("experiment.replications=3", "engine.latency_s=0")
    done = vendomini("run", "--config", config, "--root", tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "3 done and kept, 1 unfinished, 2 new" in done.stderr
    assert "line 80: `scripted` means `probe`" in done.stderr
    after = experiment.runs()
    assert {run.id for run in after} > set(before)
    assert experiment.finished() == {run.id for run in after}
    assert [run.arm["agent.kind"] for run in after] == ["probe"] * 3 + ["random"] * 3
    assert {run: experiment.result_path(run).read_bytes() for run in finished} == results
    played_on = experiment.result(half)
    assert played_on is not None
    assert played_on.served.replayed > 0
    assert attempts(experiment) == {run.id: 1 + (run.id == half) for run in after}
    assert _kinds(experiment) == {"probe": 3, "random": 3}
    for run in experiment.finished():
        assert play(_request(experiment, run)) == 0
    phase = load_phase(config, workload_named=workload_named)
    assert not any("scripted" in note for note in phase.notes)
    assert [run.id for run in expand(phase)] == [run.id for run in after]


def test_an_older_heartbeat_is_read_with_its_number(tmp_path: Path) -> None:
    """It said `live` for the runs that are under way."""
    with tarfile.open(DATA / "renamed.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    experiment = Experiment(tmp_path / "renamed")
    killed = json.loads(experiment.worker_path("20261128T220029-c432c742").read_bytes())
    assert (killed["live"], "under_way" in killed) == (1, False)
    record = experiment.worker(killed["incarnation"])
    assert record is not None
    assert record.under_way == 1
    assert json.loads(encode(record)) == {
        **{name: value for name, value in killed.items() if name != "live"},
        "under_way": 1,
    }


def _kinds(experiment: Experiment) -> dict[str, int]:
    return dict(Counter(_table(experiment)["arm.agent.kind"].to_list()))


def test_what_left_the_id_makes_no_other_run_where_none_was_played() -> None:
    usual, strict = (
        expand(load_phase(ROOT / "configs" / "base.yaml", overrides, workload_named=workload_named))
        for overrides in (["agent.kind=heuristic"], ["agent.kind=heuristic", STRICT])
    )
    assert [run.id for run in strict] == [run.id for run in usual]


STRICT = "crash_detector.threshold=strict"


def test_two_runs_that_a_threshold_told_apart_stay_two_where_both_were_played() -> None:
    """The id of a run by default is what the other one's would be today."""
    strict = load_phase(
        ROOT / "configs" / "base.yaml",
        ["agent.kind=heuristic", STRICT],
        workload_named=workload_named,
    )
    (now,) = expand(strict)
    by_default = replace(now, settings=_with_threshold(now, "moderate"))
    played = replace(now, id=IDS["a strict threshold"]["id"])
    (kept,) = expand(strict, known=lambda: {by_default.id: by_default, played.id: played})
    assert kept == played


def test_a_run_keeps_the_threshold_that_its_result_may_mean(root: Path) -> None:
    """An older result does not name the rule that ended it: its settings do."""
    experiment = Experiment(root / "earlier")
    finished = experiment.finished()
    config = experiment.folder / "phase.yaml"
    config.write_text(config.read_text().replace("threshold: strict", "threshold: lenient"))
    assert vendomini("run", "--config", config, "--root", root, "--limit", "2").returncode == 0
    runs = {run.id: run for run in experiment.runs() if run.id in finished}
    assert len(runs) == 5
    assert {setting(run.settings, "crash_detector.threshold") for run in runs.values()} == {
        "strict"
    }
    assert all(play(_request(experiment, run)) == 0 for run in finished)


def test_whatever_the_threshold_says_now_the_runs_that_are_there_are_kept(root: Path) -> None:
    experiment = Experiment(root / "earlier")
    config = experiment.folder / "phase.yaml"
    for name in ("lenient", "moderate"):
        override = f"crash_detector.threshold={name}"
        words = ("run", "--config", config, "--root", root, override, "--limit", "1")
        done = vendomini(*words)
        assert "5 done and kept, 3 unfinished, 0 new" in done.stderr or (
            "kept" in done.stderr and ", 0 new" in done.stderr
        ), done.stderr
    assert len(experiment.runs()) == 8


def _with_threshold(run: Run, name: str) -> dict[str, Any]:
    detector = {**run.settings["crash_detector"], "threshold": name}
    return {**run.settings, "crash_detector": detector}


def test_a_threshold_is_no_axis_any_more(tmp_path: Path) -> None:
    overrides = ["grid.crash_detector.threshold=[strict, lenient]"]
    with pytest.raises(ConfigError, match="all three thresholds are in the table"):
        load_phase(ROOT / "configs" / "base.yaml", overrides, workload_named=workload_named)


def test_an_older_experiment_is_told_played_on_and_collected(root: Path) -> None:
    experiment = Experiment(root / "earlier")
    finished = experiment.finished()
    before = {run: experiment.result_path(run).read_bytes() for run in finished}
    logs = {log: log.read_bytes() for log in experiment.path("logs").iterdir()}
    status = json.loads(vendomini("status", experiment.folder, "--json").stdout)["runs"]
    assert (status["total"], status["done"], status["waiting"]) == (8, 5, 3)
    for run in finished:
        assert play(_request(experiment, run)) == 0
    config = experiment.folder / "phase.yaml"
    done = vendomini("run", "--config", config, "--root", root)
    assert done.returncode == 0, done.stderr
    assert "5 done and kept, 3 unfinished, 0 new" in done.stderr
    assert experiment.finished() == {run.id for run in experiment.runs()}
    assert {run: experiment.result_path(run).read_bytes() for run in finished} == before
    assert all(log.read_bytes() == content for log, content in logs.items())
    replayed = [experiment.result(run.id) for run in experiment.runs() if run.id not in finished]
    assert all(result is not None and result.served.replayed > 0 for result in replayed)
    for run in experiment.finished() - finished:
        assert play(_request(experiment, run)) == 0
    table = _table(experiment)
    assert table["outcome.stop_rule"].to_list().count("strict") == 5
    assert table["outcome.stop_rule"].to_list().count("lenient") == 3
    crashed = table.filter(polars.col("run_id").is_in(list(finished)) & _ended_by("crash"))
    assert sorted(crashed["outcome.crash_strict.onset"].to_list()) == [8, 23]
    # They ended before it could be seen whether the weaker thresholds would have been reached.
    assert "not observable" in crashed["outcome.crash.type"].to_list()
    assert set(crashed["outcome.crash_lenient.type"]) == {"not observable"}
    assert set(crashed["outcome.censored"]) == {False}


def _ended_by(end: str) -> polars.Expr:
    return polars.col("outcome.end") == end


def test_another_threshold_changes_the_table_and_nothing_that_was_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "random.yaml"
    phase = {
        "inherit": "warehouse",
        "experiment": {"name": "random", "replications": 8},
        "agent": {"kind": "random"},
        "simulation": {"max_steps": 60},
    }
    file.write_text(json.dumps(phase))
    assert vendomini("run", "--config", file, cwd=tmp_path).returncode == 0
    experiment = Experiment(tmp_path / "experiments" / "random")
    kept = {path: path.read_bytes() for path in experiment.folder.rglob("*.json*")}
    before = _table(experiment)
    moderate = THRESHOLDS["moderate"]
    assert isinstance(THRESHOLDS, dict)
    monkeypatch.setitem(THRESHOLDS, "moderate", replace(moderate, failed_share=0.2))
    after = _table(experiment)
    differing = {name for name in before.columns if before[name].to_list() != after[name].to_list()}
    assert {"outcome.crash.onset", "outcome.signs.invalid_burst"} <= differing
    assert all(name.startswith(("outcome.cr", "outcome.si", "outcome.ce")) for name in differing)
    again = expand(load_phase(file, workload_named=workload_named))
    assert [run.id for run in again] == [run.id for run in experiment.runs()]
    for run in experiment.runs():
        assert play(_request(experiment, run.id)) == 0
    now = {path: path.read_bytes() for path in kept}
    assert now == kept


def _request(experiment: Experiment, run: str) -> Shown:
    return Shown(
        config=experiment.folder,
        overrides=(),
        root=experiment.folder.parent,
        run=run,
        steps=None,
        live=False,
        only_list=False,
        full=False,
        pause=False,
        debug=False,
        as_json=False,
    )


def _table(experiment: Experiment) -> polars.DataFrame:
    collected = collect(experiment, out=experiment.path("tables"), progress=lambda done, of: None)
    return polars.read_parquet(collected.runs_parquet)
