"""Files with bytes that are no text, of other kinds and of other users, and folders that fail for a
while: a worker and whoever looks get past all of them."""

import asyncio
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import Faults
from tests.harness import job_for, make_worker, outcomes, play, undisturbed
from tests.test_short_runs import played, the_log
from tests.toy import toy_experiment
from vendomini.collect import collect
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.errors import DiskError, StoreError
from vendomini.standing import find_short, status_of
from vendomini.store.aside import finish_cut
from vendomini.store.disk import Disk
from vendomini.store.experiment import Experiment
from vendomini.store.measurements import Measured, add_measurement
from vendomini.store.trying import Patience
from vendomini.worker.drain import Drain
from vendomini.worker.worker import Ended

NO_TEXT = b'{"run":"\xff\xfe"}'


def test_a_reply_log_with_bytes_that_are_no_text_fails_no_run(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path, 1)
    for place, damage in enumerate((b"\xff", NO_TEXT)):
        experiment = toy_experiment(tmp_path / f"{place}", 1)
        play(experiment)
        (log,) = experiment.path("logs").glob("*.replies.jsonl")
        lines = log.read_bytes().splitlines(True)
        at = lines[2].index(b'"text":"') + 8
        torn = damage if damage == NO_TEXT else lines[2][:at] + damage + lines[2][at + 1 : -1]
        log.write_bytes(b"".join([*lines[:2], torn + b"\n", *lines[3:]]))
        (run,) = experiment.runs()
        experiment.result_path(run.id).unlink()
        ended = play(experiment)
        assert (ended.runs, ended.failed) == (1, 0)
        assert outcomes(experiment) == expected


def test_a_step_with_bytes_that_are_no_text_makes_its_run_short(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    log = the_log(experiment)
    first, rest = log.read_bytes().split(b"\n", 1)
    log.write_bytes(first[:-1] + b',"more":"\xff"}\n' + rest)
    assert len(find_short(experiment)) == 1
    collect(experiment, out=tmp_path / "tables", progress=lambda done, total: None)


@pytest.mark.parametrize("content", [b"\xff\xfe", NO_TEXT, b'{"phase":"\xff"}', b"[" * 200_000])
@pytest.mark.parametrize(
    "name",
    [
        "aside.json",
        "audit.json",
        "locks/7.json",
        "runs.jsonl",
        "measurements.jsonl",
        "plans/7.json",
        "results/{run}.json",
        "workers/x.json",
        "errors/{run}.1.json",
        "pins/other.json",
        "claims/{run}.1",
    ],
)
def test_bytes_that_are_no_text_stop_nobody(
    tmp_path: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendomini.store.locks.LEASE_S", 0.3)
    experiment = toy_experiment(tmp_path, 2)
    path = experiment.path(name.format(run=experiment.runs()[1].id))
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as file:
        file.write(content + b"\n")
    status_of(experiment)
    with experiment.locked():
        pass
    finish_cut(experiment)
    if not name.startswith("results"):
        ended = play(experiment, dead_after_s=0.5)
        assert ended.problem is None


@pytest.mark.parametrize("name", ["aside.json", "locks/7.json", "measurements.jsonl", "audit.json"])
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_got_past(
    tmp_path: Path, name: str, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendomini.store.locks.LEASE_S", 0.3)
    experiment = toy_experiment(tmp_path, 2)
    path = experiment.path(name)
    path.parent.mkdir(exist_ok=True)
    make(path)
    with experiment.locked():
        pass
    finish_cut(experiment)
    ended = play(experiment)
    assert (ended.runs, ended.problem) == (2, None)
    assert status_of(experiment).runs.done == 2


def test_a_pipe_in_the_place_of_the_measurements_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "measurements.jsonl")
    measured = Measured(
        model="m",
        backend="b",
        gpu=None,
        concurrency=1.0,
        context=1.0,
        tokens_in=1,
        tokens_cached=0,
        tokens_out=1,
        seconds=1.0,
        requests=1,
    )
    with pytest.raises(StoreError):
        add_measurement(tmp_path, measured)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_log_that_is_no_file_makes_its_runs_short(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    experiment = played(tmp_path)
    log = the_log(experiment)
    log.unlink()
    make(log)
    assert len(find_short(experiment)) == 4


def test_a_disk_that_is_broken_for_very_long_is_still_an_error_in_words() -> None:
    patience = Patience(sleep=lambda seconds: None)

    def broken() -> None:
        raise OSError(errno.EIO, "broken")

    patience._in_vain = 5000
    with pytest.raises(DiskError):
        patience.tried("read", Path("x"), broken, writes=False)


def test_a_file_of_somebody_else_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(b"")
    Faults(monkeypatch, tmp_path).decide = lambda op, path: errno.EACCES if op == "open" else None
    assert Disk().exists(tmp_path / "x")


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("open", "/claims/"),
        ("open", "/pins/"),
        ("open", "/results/"),
        ("open", "aside.json"),
        ("listdir", "/errors"),
        ("link", "/claims/"),
        ("fsync", "/claims"),
        ("fdatasync", "/logs/"),
    ],
)
def test_a_folder_that_fails_for_a_while_ends_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, part: str
) -> None:
    monkeypatch.setattr("vendomini.store.trying.QUICK_S", 0.05)
    expected = undisturbed(tmp_path, 3)
    for after in (0, 2):
        made = toy_experiment(tmp_path / f"{after}", 3)
        seen, since = 0, 0.0

        def fails(op: str, path: str, after: int = after) -> int | None:
            nonlocal seen, since
            if op != operation or part not in path:
                return None
            seen += 1
            if seen == after + 1:
                since = time.monotonic()
            return errno.EIO if since and time.monotonic() - since < 0.6 else None

        with monkeypatch.context() as patch:
            Faults(patch, made.folder).decide = fails
            ended = play(Experiment(made.folder))
        assert (ended.runs, ended.failed, ended.problem) == (3, 0, None), after
        assert outcomes(made) == expected


def test_a_worker_whose_logs_wait_for_the_disk_hears_that_it_is_to_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendomini.store.logs.HELD_BYTES", 500)
    made = toy_experiment(tmp_path, 6)
    drain = Drain(deadline=None, drain_s=10)
    worker = make_worker(made, job_for(made), ScriptedEngine(echo), drain=drain)

    def full(operation: str, path: str) -> int | None:
        is_log = operation == "pwrite" and path.endswith(".replies.jsonl")
        return errno.ENOSPC if is_log else None

    async def told_to_leave() -> Ended:
        asyncio.get_running_loop().call_later(1.0, drain.within, 0.2, "it was told to")
        return await worker.work()

    Faults(monkeypatch, made.folder).decide = full
    began = time.monotonic()
    ended = asyncio.run(told_to_leave())
    assert (ended.runs, ended.reason) == (0, "it was told to")
    assert time.monotonic() - began < 10
