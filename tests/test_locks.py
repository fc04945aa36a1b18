"""The experiment's lock: one at a time, and none that outlives its holder."""

import multiprocessing
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from vendomini.errors import StoreError
from vendomini.store import locks
from vendomini.store.disk import Disk
from vendomini.store.locks import Holding, locked
from vendomini.store.process import this_process

ELSEWHERE = replace(this_process(), host="another")


def hold(folder: Path, holding: Holding, number: int = 1) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{number}.json"
    path.write_bytes(msgspec.json.encode(holding))
    return path


def count_up(folder: Path, times: int) -> None:
    """Adds to a number by reading and writing it: each is lost that is not alone."""
    counter = folder / "counter"
    for _ in range(times):
        with locked(Disk(), folder / "locks"):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_of_many_that_want_it_one_has_it(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    context = multiprocessing.get_context("spawn")
    many = [context.Process(target=count_up, args=(tmp_path, 60)) for _ in range(4)]
    threads = [threading.Thread(target=count_up, args=(tmp_path, 30)) for _ in range(2)]
    for process in many:
        process.start()
    for thread in threads:
        thread.start()
    for process in many:
        process.join(120)
    for thread in threads:
        thread.join(120)
    assert [process.exitcode for process in many] == [0] * 4
    assert (tmp_path / "counter").read_text() == str(4 * 60 + 2 * 30)
    assert len(list((tmp_path / "locks").iterdir())) <= locks.KEPT + 1


def die_with_it(folder: Path) -> None:
    with locked(Disk(), folder):
        os._exit(1)


def test_those_that_die_with_it_keep_nobody_out(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        dead = context.Process(target=die_with_it, args=(tmp_path / "locks",))
        dead.start()
        dead.join(60)
        assert dead.exitcode == 1
    began = time.monotonic()
    with locked(Disk(), tmp_path / "locks"):
        pass
    assert time.monotonic() - began < locks.LEASE_S / 2


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 300, None])
def test_of_a_holder_elsewhere_only_time_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    """A login node that is gone, and a lock that a crash has left without content."""
    monkeypatch.setattr(locks, "LEASE_S", 0.4)
    path = hold(tmp_path / "locks", Holding(process=ELSEWHERE))
    if content is not None:
        path.write_bytes(content)
    began = time.monotonic()
    with locked(Disk(), tmp_path / "locks"):
        assert time.monotonic() - began >= 0.4


def test_a_holder_that_renews_it_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "LEASE_S", 0.4)
    monkeypatch.setattr(locks, "WAIT_S", 1.5)
    end = threading.Event()

    def renew() -> None:
        for beat in range(1000):
            Disk().write_atomic(
                tmp_path / "locks" / "1.json",
                msgspec.json.encode(Holding(process=ELSEWHERE, beat=beat)),
            )
            if end.wait(0.1):
                return

    hold(tmp_path / "locks", Holding(process=ELSEWHERE))
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with (
            pytest.raises(StoreError, match=r"another `vendomini run` holds .*on another\)"),
            locked(Disk(), tmp_path / "locks"),
        ):
            pass
    finally:
        end.set()
        thread.join()


def test_whoever_holds_it_for_long_renews_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "RENEWED_EVERY_S", 0.05)
    with locked(Disk(), tmp_path / "locks") as lock:
        first = lock.path.read_bytes()
        time.sleep(0.5)
        assert lock.path.read_bytes() != first
        lock.check()


def test_a_holder_that_was_taken_over_is_told_and_harms_nobody(tmp_path: Path) -> None:
    with locked(Disk(), tmp_path / "locks") as mine:
        theirs = hold(tmp_path / "locks", Holding(process=ELSEWHERE), number=2)
        with pytest.raises(StoreError, match="was taken over"):
            mine.check()
        before = theirs.read_bytes()
    assert theirs.read_bytes() == before


def test_a_number_that_had_gone_by_is_not_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow between its look and its link: others had the next number and removed it since."""
    real = locks._numbers
    looks = 0

    def late(disk: Disk, folder: Path) -> list[int]:
        nonlocal looks
        looks += 1
        return [1] if looks == 1 else real(disk, folder)

    released = Holding(process=ELSEWHERE, released=True)
    hold(tmp_path / "locks", released, number=1)
    hold(tmp_path / "locks", released, number=40)
    monkeypatch.setattr(locks, "_numbers", late)
    with locked(Disk(), tmp_path / "locks") as lock:
        assert lock.path.name == "41.json"
