"""Files that are none of ours, or are damaged: named, and in nobody's way."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import job_for, outcomes, play, undisturbed
from tests.toy import toy_experiment, toy_runs
from vendomini.errors import StoreError
from vendomini.standing import status_of
from vendomini.store.claims import Watch
from vendomini.store.experiment import Experiment

COUNT = 6
CONTENTS = (b"", b"{", b"\0" * 64, b"[]", b"null", b'"x"', b"\xff\xfe", b'{"incarnation":7}')


def half_played(folder: Path) -> Experiment:
    experiment = toy_experiment(folder, COUNT)
    play(experiment, only=tuple(run.id for run in experiment.runs()[:3]))
    return experiment


def finished_in_the_end(experiment: Experiment, folder: Path) -> None:
    expected = undisturbed(folder / "expected", COUNT)
    assert play(experiment, dead_after_s=0.5, heartbeat_s=0.05).problem is None
    assert outcomes(Experiment(experiment.folder)) == expected


@pytest.mark.parametrize(
    "name",
    [
        "claims/{run}.bak",
        "claims/{run}.1~",
        "claims/{run}.1.released.old",
        "claims/notes.txt",
        "errors/{run}.old.json",
        "errors/{run}.json",
        "errors/x",
        "results/notes.txt",
        "results/{run}.json.bak",
        "workers/x.json.swp",
        "workers/README",
    ],
)
def test_a_name_that_is_none_of_ours_is_named_and_passed_over(tmp_path: Path, name: str) -> None:
    experiment = half_played(tmp_path)
    odd = name.format(run=experiment.runs()[4].id)
    experiment.path(odd).write_bytes(b"somebody's")
    status = status_of(Experiment(experiment.folder))
    assert status.odd == {odd: "it is nothing of this experiment"}
    assert (status.runs.done, status.runs.waiting) == (3, 3)
    finished_in_the_end(experiment, tmp_path)


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(
    "name",
    [
        "claims/{run}.1",
        "errors/{run}.1.json",
        "workers/20260101T000000-aaaaaaaa.json",
        "jobs/7/slurm.json",
    ],
)
def test_a_record_that_cannot_be_read_is_named_and_counts_as_absent(
    tmp_path: Path, name: str, content: bytes
) -> None:
    experiment = half_played(tmp_path)
    odd = name.format(run=experiment.runs()[4].id)
    experiment.path(odd).parent.mkdir(exist_ok=True)
    experiment.path(odd).write_bytes(content)
    fresh = Experiment(experiment.folder)
    fresh.slurm_jobs()
    fresh.errors()
    status = status_of(fresh)
    assert odd in status.odd
    assert (status.runs.done, status.runs.total) == (3, COUNT)
    finished_in_the_end(experiment, tmp_path)


Make = Callable[[Path], None]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.symlink_to("nowhere"), id="link to nowhere"),
        pytest.param(lambda path: path.symlink_to(path.name), id="link to itself"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
        pytest.param(os.mkfifo, id="pipe"),
    ],
)
@pytest.mark.parametrize(
    "name",
    [
        "claims/{run}.1",
        "errors/{run}.1.json",
        "workers/20260101T000000-aaaaaaaa.json",
        "results/{run}.json",
        "logs/20260101T000000-aaaaaaaa.replies.jsonl",
        "pins/other.json",
    ],
)
def test_what_is_no_file_stops_nobody(tmp_path: Path, name: str, make: Make) -> None:
    experiment = half_played(tmp_path)
    run = experiment.runs()[4].id
    make(experiment.path(name.format(run=run)))
    status = status_of(Experiment(experiment.folder))
    assert status.runs.done == 3
    if name.startswith("results"):
        assert run in status.short  # and the next `run` moves it away
        experiment.path("results", f"{run}.json").rename(tmp_path / "away")
    finished_in_the_end(experiment, tmp_path)


@pytest.mark.parametrize("content", CONTENTS)
def test_runs_that_cannot_be_read_are_written_anew_and_kept(tmp_path: Path, content: bytes) -> None:
    experiment = half_played(tmp_path)
    lines = experiment.path("runs.jsonl").read_bytes().splitlines()
    damaged = b"\n".join([*lines[:2], content or b" ", *lines[3:]])
    experiment.path("runs.jsonl").write_bytes(damaged)
    status = status_of(fresh := Experiment(experiment.folder))
    assert status.runs.total == COUNT - 1
    assert status.odd["runs.jsonl"].startswith("line 3 cannot be read")
    extension = fresh.extend("name: toy\n", toy_runs(COUNT))
    assert (len(extension.kept), len(extension.new)) == (COUNT - 1, 1)
    assert fresh.odd == {}
    assert status_of(Experiment(experiment.folder)).odd == {}
    assert experiment.path("archive", "1", "runs.jsonl").read_bytes() == damaged
    finished_in_the_end(experiment, tmp_path)


@pytest.mark.parametrize("content", [None, b""])
def test_runs_that_are_gone_are_written_anew(tmp_path: Path, content: bytes | None) -> None:
    experiment = half_played(tmp_path)
    experiment.path("runs.jsonl").unlink()
    if content is not None:
        experiment.path("runs.jsonl").write_bytes(content)
    assert status_of(Experiment(experiment.folder)).runs.total == 0
    experiment.extend("name: toy\n", toy_runs(COUNT))
    finished_in_the_end(experiment, tmp_path)


def test_a_pin_that_cannot_be_read_is_moved_away_by_the_next_run(tmp_path: Path) -> None:
    experiment = half_played(tmp_path)
    (pin,) = experiment.path("pins").iterdir()
    pin.write_bytes(b"")
    with_it = play(experiment)
    assert with_it.runs == 0
    assert f"`{pin}` cannot be read" in (with_it.problem or "")
    Experiment(experiment.folder).extend("name: toy\n", toy_runs(COUNT))
    finished_in_the_end(experiment, tmp_path)
    assert experiment.path("archive", "1", f"pins.{pin.name}").read_bytes() == b""


def test_a_damaged_claim_is_nobodys_at_once_and_an_unreadable_one_after_a_while(
    tmp_path: Path,
) -> None:
    experiment = half_played(tmp_path)
    clock = 0.0
    watch = Watch(experiment, dead_after_s=10, clock=lambda: clock)
    assert watch.verdict("") == "dead"
    assert watch.verdict("?x.1") == "unknown"
    clock = 9.0
    assert watch.verdict("?y.1") == "unknown"
    clock = 10.0
    assert watch.verdict("?x.1") == "dead"
    assert watch.verdict("?y.1") == "unknown"  # each for itself


def test_a_marker_that_is_damaged_is_one_clear_error(tmp_path: Path) -> None:
    experiment = half_played(tmp_path)
    experiment.path("experiment.json").write_bytes(b"")
    with pytest.raises(StoreError, match=r"experiment\.json` is damaged"):
        status_of(Experiment(experiment.folder))


def test_replies_end_at_the_first_line_that_is_none(tmp_path: Path) -> None:
    for place in range(1, 14, 4):
        experiment = toy_experiment(tmp_path / f"{place}", 1)
        (run,) = experiment.runs()
        expected = undisturbed(tmp_path / f"{place}", 1)
        play(experiment)
        (log,) = experiment.path("logs").glob("*.replies.jsonl")
        lines = log.read_bytes().splitlines(True)
        log.write_bytes(b"".join([*lines[:place], b"\0" * 500, *lines[place:]]))
        experiment.result_path(run.id).unlink()
        ended = play(experiment)
        assert (ended.runs, ended.failed) == (1, 0)
        result = experiment.result(run.id)
        assert result is not None
        assert result.served.replayed == place
        assert outcomes(experiment) == expected


def test_a_job_that_is_told_of_a_group_plays_beside_odd_files(tmp_path: Path) -> None:
    experiment = half_played(tmp_path)
    for folder in ("archive", "jobs", "plans", "locks"):
        experiment.path(folder).mkdir(exist_ok=True)
        experiment.path(folder, "readme").write_text("mine")
        experiment.path(folder, "1x.json").write_text("mine")
    assert job_for(experiment).group
    finished_in_the_end(experiment, tmp_path)
