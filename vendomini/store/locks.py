"""One process at a time: a lock that is a lease, so that one whose holder is gone is nobody's.

A chain of files `locks/<n>.json`, like claims: the highest number is the lock. It is free when its
holder wrote so, is seen to be gone, or has not renewed it for `LEASE_S` on the observer's clock;
then the next number is taken by `link`, which one of several wins. No file of another's is ever
renamed or removed while it may count, so no two of them break the same lock.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from vendomini.errors import DiskError, StoreError
from vendomini.store.clock import now_s
from vendomini.store.disk import NO_FILE, Disk
from vendomini.store.process import Process, is_gone, this_process
from vendomini.store.records import UNREADABLE

WAIT_S = 60.0
LEASE_S = 20.0
RENEWED_EVERY_S = 5.0
LOOK_EVERY_S = 0.05
KEPT = 16
"""Numbers below the lock's that stay: who is slow to take one that has gone by must find it."""


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """`locks/<n>.json`: who holds the lock, or held it. `beat` grows with each renewal."""

    process: Process
    beat: int = 0
    released: bool = False


class Lock:
    """The lock, while it is held."""

    def __init__(self, disk: Disk, folder: Path, number: int) -> None:
        self.path = _path(folder, number)
        self._next = _path(folder, number + 1)
        self._disk = disk

    def check(self) -> None:
        """Raise `StoreError` if somebody has taken it over: this process stood still too long."""
        if self._disk.exists(self._next):
            raise StoreError(
                f"`{self.path}` was taken over by another `vendomini run`: this one stood still",
                hint="nothing is lost: give the same command again",
            )


@contextmanager
def locked(disk: Disk, folder: Path) -> Iterator[Lock]:
    """Hold the lock whose files are in `folder`. Raises `StoreError` after 60 s of waiting."""
    me = this_process()
    disk.make_folder(folder)
    lock = Lock(disk, folder, _take(disk, folder, me))
    end = threading.Event()
    renewing = threading.Thread(
        target=_renew, args=(disk, lock.path, me, end), name="lock", daemon=True
    )
    renewing.start()
    try:
        yield lock
    finally:
        end.set()
        renewing.join()
        with suppress(StoreError):  # nobody can write: its lease will run out
            disk.write_atomic(lock.path, _encode(Holding(process=me, released=True)), lasts=False)
            for number in sorted(_numbers(disk, folder))[:-KEPT]:
                disk.remove(_path(folder, number))


# -- private -------------------------------------------------------------------------------


def _take(disk: Disk, folder: Path, me: Process) -> int:
    """Wait until the lock is free, and take it; its number."""
    began = since = now_s()
    seen: tuple[int, bytes | None] | None = None  # the lock as it was seen last, since `since`
    while True:
        number = max(_numbers(disk, folder), default=0)
        content = _read(disk, _path(folder, number)) if number else None
        now = now_s()
        if seen != (number, content):
            seen, since = (number, content), now
        holder = _holding(content)
        is_free = number == 0 or now - since >= LEASE_S
        if holder is not None:
            is_free |= holder.released or is_gone(holder.process, seen_from=me) is True
        if is_free and disk.publish(
            mine := _path(folder, number + 1), _encode(Holding(process=me)), lasts=False
        ):
            if max(_numbers(disk, folder), default=0) <= number + 1:
                return number + 1
            disk.remove(mine)  # it had gone by, and was taken away
        if now - began > WAIT_S:
            who = f" (process {holder.process.pid} on {holder.process.host})" if holder else ""
            raise StoreError(
                f"another `vendomini run` holds `{_path(folder, number)}`{who}",
                hint="wait until it has ended, then try again",
            )
        time.sleep(LOOK_EVERY_S)


def _renew(disk: Disk, path: Path, me: Process, end: threading.Event) -> None:
    beat = 0
    while not end.wait(RENEWED_EVERY_S):
        beat += 1
        try:
            disk.write_atomic(path, _encode(Holding(process=me, beat=beat)), lasts=False)
        except StoreError:
            continue  # until it is taken over, which `check` tells


def _read(disk: Disk, path: Path) -> bytes | None:
    """None: there is none, or what stands in its place is no file."""
    try:
        return disk.read(path)
    except DiskError as error:
        if error.errno not in NO_FILE:
            raise
        return None


def _holding(content: bytes | None) -> Holding | None:
    """None: it cannot be read, and its lease alone decides."""
    try:
        return None if content is None else _HOLDING.decode(content)
    except UNREADABLE:
        return None


def _numbers(disk: Disk, folder: Path) -> list[int]:
    names = (name.removesuffix(".json") for name in disk.names(folder))
    return [int(name) for name in names if name.isascii() and name.isdigit()]


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number}.json"


_encode = msgspec.json.Encoder().encode
_HOLDING = msgspec.json.Decoder(Holding)
