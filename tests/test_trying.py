"""A file operation that failed: tried again, waited for, or given up; and a worker's view of it."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import Faults, every, sometimes
from tests.harness import outcomes, play, steps, undisturbed
from tests.toy import toy_experiment
from vendomini.errors import DiskError
from vendomini.store.card import Card
from vendomini.store.disk import Disk, write_all
from vendomini.store.experiment import Experiment
from vendomini.store.logs import Appender
from vendomini.store.trying import FULL, PASSING, QUICK_S, Patience

ERRNOS = ("ESTALE", "EIO", "ETIMEDOUT", "EAGAIN", "EINTR", "EBUSY", "ENOLCK", "ESHUTDOWN")


class Clock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def failing(number: int, *, times: int = 10**9) -> Callable[[], str]:
    left = times

    def work() -> str:
        nonlocal left
        left -= 1
        if left >= 0:
            raise OSError(number, os.strerror(number))
        return "done"

    return work


def patience(lives: Callable[[], bool], said: list[str] | None = None) -> tuple[Patience, Clock]:
    clock = Clock()
    say = (lambda text: None) if said is None else said.append
    return Patience(lives=lives, say=say, clock=clock, sleep=clock.sleep), clock


@pytest.mark.parametrize("number", sorted(PASSING))
def test_what_may_pass_is_tried_again_for_some_seconds(number: int) -> None:
    mine, clock = patience(lambda: False)
    assert mine.tried("read", Path("x"), failing(number, times=5), writes=False) == "done"
    assert clock.now < QUICK_S
    with pytest.raises(DiskError, match="cannot read `x`") as raised:
        mine.tried("read", Path("x"), failing(number), writes=False)
    assert raised.value.errno == number
    assert raised.value.hint
    assert QUICK_S <= clock.now < 3 * QUICK_S


@pytest.mark.parametrize("number", sorted(PASSING | FULL))
def test_a_write_is_tried_as_long_as_the_lease_lives(number: int) -> None:
    mine, clock = patience(lambda: clock.now < 90.0)
    with pytest.raises(DiskError):
        mine.tried("write", Path("x"), failing(number), writes=True)
    assert 90.0 <= clock.now < 100.0


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOENT, errno.EMLINK, errno.EPERM])
def test_what_does_not_pass_is_said_at_once(number: int) -> None:
    mine, clock = patience(lambda: True)
    with pytest.raises(DiskError):
        mine.tried("write", Path("x"), failing(number), writes=True)
    assert clock.now == 0.0


def test_what_is_waited_for_is_said_once_and_so_is_its_end() -> None:
    said: list[str] = []
    mine, _ = patience(lambda: True, said)
    mine.tried("write", Path("x"), failing(errno.ENOSPC, times=30), writes=True)
    assert said == [
        f"waits: cannot write `x`: {os.strerror(errno.ENOSPC)}",
        "goes on: can write `x` again",
    ]


def test_a_disk_that_is_broken_for_good_is_not_waited_for_at_each_file() -> None:
    mine, clock = patience(lambda: False)
    for _ in range(1000):
        with pytest.raises(DiskError):
            mine.tried("read", Path("x"), failing(errno.EIO), writes=False)
    assert clock.now < 10 * QUICK_S


def test_every_error_number_becomes_words() -> None:
    for number in errno.errorcode:
        mine, _ = patience(lambda: False)
        with pytest.raises(DiskError, match="cannot make the folder `x`"):
            mine.tried("make the folder", Path("x"), failing(number), writes=True)


# -- operations -----------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [frozenset(), frozenset({"link", "replace", "unlink", "mkdir"})])
def test_each_operation_survives_a_failure_and_a_lost_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: frozenset[str]
) -> None:
    faults = Faults(monkeypatch, tmp_path)
    faults.lost = lost
    disk = Disk(Patience(sleep=lambda seconds: None))
    for seed in range(5):
        faults.decide = sometimes(0.1, errno.ESTALE, seed=seed)
        for number in range(8):
            folder = tmp_path / f"{seed}-{number}" / "inside"
            disk.make_folder(folder)
            path = folder / "x"
            assert disk.publish(path, b"first")
            assert not disk.publish(path, b"second")
            assert disk.read(path) == b"first"
            disk.write_atomic(path, b"third")
            assert disk.read(path) == b"third"
            assert disk.exists(path)
            assert disk.names(folder) == ["x"]
            assert disk.size(path) == 5
            disk.remove(path)
            assert not disk.exists(path)
    operations = {"open", "pwrite", "fsync", "link", "replace", "read", "listdir", "mkdir"}
    assert operations <= set(faults.failed)


def test_what_a_kernel_forgot_after_a_failed_sync_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync that fails drops what it could not write, and the next one says that all is well."""
    path = tmp_path / "log"
    log = Appender(path, Disk())
    log.add(b"synced")
    log.sync()
    log.add(b"flushed")
    log.flush()
    log.add(b"waiting")
    real = os.fdatasync
    failures = 0

    def forgetful(handle: int) -> None:
        nonlocal failures
        if failures < 3:
            failures += 1
            os.truncate(path, len(b"synced\n"))  # what was dirty is gone
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(handle)

    monkeypatch.setattr(os, "fdatasync", forgetful)
    log.sync()
    assert failures == 3
    assert path.read_bytes() == b"synced\nflushed\nwaiting\n"


def test_a_log_that_somebody_removed_is_not_begun_anew(tmp_path: Path) -> None:
    log = Appender(tmp_path / "log", Disk())
    log.add(b"one")
    log.sync()
    os.unlink(tmp_path / "log")
    log._close()  # as a stale handle has it
    log.add(b"two")
    with pytest.raises(DiskError, match="No such file"):
        log.sync()
    assert not (tmp_path / "log").exists()


def test_a_file_with_all_the_names_it_may_have_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def few(source: str, target: str) -> None:
        if os.stat(source).st_nlink > 3:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(source, target)

    monkeypatch.setattr(os, "link", few)
    card = Card(Disk(), tmp_path, b"me")
    assert all(card.link(tmp_path / f"{number}") for number in range(10))
    assert not card.link(tmp_path / "7")
    card.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(n) for n in range(10)]
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"me"}


def test_a_file_system_without_hard_links_is_refused_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(monkeypatch, tmp_path)
    faults.decide = every(1, errno.EPERM, "link")
    with pytest.raises(DiskError, match="has no hard links"):
        toy_experiment(tmp_path)
    assert list(tmp_path.iterdir()) == []  # nothing half made


def test_a_first_start_on_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = 0
    for room in range(0, 4000, 150):
        with monkeypatch.context() as patch:
            Faults(patch, tmp_path).room = room
            try:
                toy_experiment(tmp_path / f"{room}")
            except DiskError as error:
                said = str(error)
            else:
                whole += 1
                continue
        assert "No space" in said
        assert not (tmp_path / f"{room}" / "toy").exists()
    assert 0 < whole < 27


def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(DiskError, match="it is no file"):
        Disk().read(tmp_path / "x")


# -- workers --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ERRNOS)
@pytest.mark.parametrize("lost", [False, True])
def test_no_worker_ends_of_an_error_that_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lost: bool
) -> None:
    """One in twenty operations fails, or is carried out and seems to have failed."""
    expected = undisturbed(tmp_path, 12)
    made = toy_experiment(tmp_path, 12)
    with monkeypatch.context() as patch:
        faults = Faults(patch, made.folder)
        faults.decide = sometimes(0.05, getattr(errno, name), seed=1)
        faults.lost = frozenset({"link", "replace", "unlink"} if lost else ())
        ended = play(made)
    assert sum(faults.failed.values()) > 10
    assert (ended.runs, ended.failed, ended.problem) == (12, 0, None)
    assert outcomes(made) == expected
    assert [len(steps(made, run)) for run in expected] == [5] * 12


def test_a_heartbeat_of_another_that_cannot_be_read_is_no_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.test_claims import worker
    from vendomini.store.claims import Watch

    experiment = toy_experiment(tmp_path)
    record = worker(experiment, "20260101T000000-aaaaaaaa")
    clock = Clock()
    watch = Watch(experiment, dead_after_s=10, clock=clock)
    experiment.disk.patience = Patience(clock=clock, sleep=clock.sleep)
    with monkeypatch.context() as patch:
        Faults(patch, experiment.folder).decide = every(1, errno.ESTALE, "open")
        for _ in range(10):
            assert watch.verdict(record.incarnation) == "unknown"
            clock.now += 10
    assert watch.verdict(record.incarnation) == "unknown"  # it begins to be seen only now
    clock.now += 10
    assert watch.verdict(record.incarnation) == "dead"


def test_a_worker_looks_again_where_a_listing_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendomini.store.trying.QUICK_S", 0.05)
    expected = undisturbed(tmp_path, 3)
    made = toy_experiment(tmp_path, 3)
    said: list[str] = []
    failures = 0

    def twice(operation: str, path: str) -> int | None:
        nonlocal failures
        if operation == "listdir" and path.endswith("results") and failures < 8:
            failures += 1
            return errno.ESTALE
        return None

    with monkeypatch.context() as patch:
        Faults(patch, made.folder).decide = twice
        ended = play(Experiment(made.folder), said=said.append)
    assert (ended.runs, ended.problem) == (3, None)
    assert any("looks again" in line for line in said)
    assert outcomes(made) == expected


def test_a_card_that_somebody_tidied_away_is_followed_by_another(tmp_path: Path) -> None:
    card = Card(Disk(), tmp_path, b"content")
    assert card.link(tmp_path / "first")
    for hidden in tmp_path.glob(".card.*"):
        hidden.unlink()
    assert card.link(tmp_path / "second")
    assert (tmp_path / "second").read_bytes() == b"content"


def test_a_write_of_which_nothing_is_taken_is_an_error_and_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", lambda handle, content, at: 0)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="Input/output"):
        write_all(file.fileno(), b"words", 0)
