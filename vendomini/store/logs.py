"""The logs of one worker: replies, which are the checkpoint, and steps, which are derived.

A reply is handed to its log before its episode sees it; lines reach the file every two seconds, and
the disk itself before each result. What a crash takes is asked again.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vendomini.chat import Reply
from vendomini.errors import DiskError
from vendomini.store.clock import now_s
from vendomini.store.disk import Disk, write_all
from vendomini.store.experiment import Experiment
from vendomini.store.records import UNREADABLE, ReplyEntry

FLUSH_EVERY_S = 2.0
FLUSH_BYTES = 1 << 20
HELD_BYTES = 16 << 20
"""More than that is not held for a disk that does not keep up: runs wait (`Logs.are_behind`)."""
SYNC_EVERY_S = 30.0
SYNC_BYTES = 8 << 20


class Appender:
    """One file that only this process writes, line by line, buffered in memory.

    It keeps what was written since the last sync, and where in the file that begins: a kernel that
    could not write forgets what it had, and says so once, so all of that is written again.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self.hurry: Callable[[], None] = lambda: None  # called when much is waiting to be written
        self._path = path
        self._disk = disk
        self._adding = threading.Lock()
        self._lines: list[bytes] = []
        self._bytes = 0
        self._writing = threading.Lock()
        self._handle: int | None = None
        self._there = False  # whether the file was made, and its folder synced
        self._doubtful = False  # whether an operation has failed: what is unsynced may be lost
        self._waiting = b""  # taken from `_lines`, not in the file yet
        self._written: list[bytes] = []  # in the file, perhaps not on the disk
        self._synced = 0  # bytes of the file that are on the disk
        self._end = 0  # bytes in the file

    def add(self, line: bytes) -> None:
        """One line, without its newline."""
        with self._adding:
            self._lines.append(line)
            self._bytes += len(line) + 1
            waiting = self._bytes
        if waiting >= FLUSH_BYTES:
            self.hurry()

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be written that whoever adds more is to flush first."""
        return self._bytes >= HELD_BYTES

    @property
    def unsynced(self) -> int:
        """Bytes in the file that a crash of the machine may take."""
        return self._end - self._synced

    def flush(self) -> None:
        """Everything added so far is in the file when this returns. Raises `DiskError`."""
        self._write(and_sync=False)

    def sync(self) -> None:
        """Everything added so far is on the disk when this returns. Raises `DiskError`."""
        self._write(and_sync=True)

    def close(self) -> None:
        """Sync what can be synced."""
        try:
            self.sync()
        finally:
            self._close()

    def _write(self, *, and_sync: bool) -> None:
        with self._writing:
            with self._adding:
                lines, self._lines, self._bytes = self._lines, [], 0
            if lines:
                self._waiting += b"\n".join(lines) + b"\n"
            if self._waiting or (and_sync and self._written):
                self._disk.patience.tried(
                    "write", self._path, lambda: self._write_once(and_sync), writes=True
                )

    def _write_once(self, and_sync: bool) -> None:
        try:
            if self._doubtful:
                self._close()
                write_all(self._opened(), b"".join(self._written), self._synced)
                self._doubtful = False
            handle = self._opened()
            write_all(handle, self._waiting, self._end)
            if self._waiting:
                self._end += len(self._waiting)
                self._written.append(self._waiting)
                self._waiting = b""
            if and_sync:
                os.fdatasync(handle)
                self._synced, self._written = self._end, []
        except OSError:
            self._doubtful = True
            raise

    def _opened(self) -> int:
        if self._handle is None:
            # A log that was there and is gone is not made anew: its beginning would be missing.
            flags = os.O_WRONLY | (0 if self._there else os.O_CREAT)
            self._handle = os.open(self._path, flags, 0o666)
        if not self._there:
            self._disk.sync_folder(self._path.parent)
            self._there = True
        return self._handle

    def _close(self) -> None:
        if self._handle is not None:
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None


class Logs:
    """Both logs of one incarnation, with the thread that flushes them.

    `first` is called before each sync: what the logs are found by has to be there as well.
    """

    def __init__(
        self,
        experiment: Experiment,
        incarnation: str,
        *,
        failed: Callable[[str], None],
        first: Callable[[], None] = lambda: None,
    ) -> None:
        self.replies = Appender(experiment.replies_path(incarnation), experiment.disk)
        self.steps = Appender(experiment.steps_path(incarnation), experiment.disk)
        self._failed = failed
        self._first = first
        self._synced_at = now_s()
        self._is_over = False
        self._wake = threading.Event()
        self.replies.hurry = self.steps.hurry = self._wake.set
        self._thread = threading.Thread(target=self._flush_often, name="flush", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def are_behind(self) -> bool:
        return self.replies.is_behind or self.steps.is_behind

    def flush(self) -> None:
        self.replies.flush()
        self.steps.flush()

    def sync(self) -> None:
        """All that was added so far is on the disk when this returns. Raises `DiskError`."""
        self._first()
        self._synced_at = now_s()
        self.replies.sync()
        self.steps.sync()

    def close(self) -> None:
        self._is_over = True
        self._wake.set()
        self._thread.join()
        try:
            self.replies.close()
        finally:
            self.steps.close()

    def _flush_often(self) -> None:
        while not self._is_over:
            self._wake.wait(FLUSH_EVERY_S)
            self._wake.clear()
            if self._is_over:
                return
            try:
                unsynced = max(self.replies.unsynced, self.steps.unsynced)
                if unsynced > SYNC_BYTES or (unsynced and now_s() - self._synced_at > SYNC_EVERY_S):
                    self.sync()
                else:
                    self.flush()
            except DiskError as error:
                self._failed(f"{error} ({error.hint})")
                return


class StepWriter:
    """Writes the steps of one run: each line begins with the run's id and is byte-stable.

    A step that does not say its number, counted from 0, gets it. Raises `TypeError` for one that is
    no JSON object, and `ValueError` for another number.
    """

    def __init__(self, log: Appender, run: str) -> None:
        self._add = log.add
        self._head = f'{{"run":"{run}",'.encode()
        self._encode = msgspec.json.Encoder().encode
        self.count = 0

    def __call__(self, step: Any) -> None:
        encoded = self._encode(step)
        number = b'{"step":%d' % self.count
        # A field `run` would hide the run's id.
        if not encoded.startswith((number + b",", number + b"}")) or b'"run' in encoded:
            encoded = self._numbered(encoded)
        self._add(self._head + encoded[1:])
        self.count += 1

    def _numbered(self, encoded: bytes) -> bytes:
        """A step that does not begin with its number."""
        known: Any = msgspec.json.decode(encoded)
        if not isinstance(known, dict):
            raise TypeError(f"a step is no JSON object: {encoded[:80].decode()}")
        number = known.get("step", self.count)
        if number != self.count or type(number) is not int:
            raise ValueError(f"step {self.count} says that it is step {number!r}")
        if taken := {"run", "run_id"} & known.keys():
            raise ValueError(f"a step has a field `{min(taken)}`, which is the run's own id")
        return self._encode({"step": self.count, **known})


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One reply that was logged, and the hash of the request it answers."""

    hash: str
    reply: Reply


class ReplyIndex:
    """Finds what earlier attempts have logged.

    A log is read again only when it has grown; of runs that nobody wants any more no line is
    kept, so that memory follows the runs under way and not the size of the experiment.
    """

    def __init__(self, experiment: Experiment, *, is_wanted: Callable[[str], bool]) -> None:
        self._experiment = experiment
        self._is_wanted = is_wanted
        self._logs: dict[str, tuple[int, dict[str, list[bytes]]]] = {}  # bytes read, lines by run

    def longest(self, run: str, attempts: list[tuple[int, str]]) -> dict[tuple[int, int], Logged]:
        """Replies by (ask, position), of the attempt that got furthest; the latest of equals.

        Each attempt's log begins with a copy of the log it took over, so one alone is enough.
        An attempt that died while it copied has fewer lines than the one it copied from.
        A log that cannot be read is as good as none: what it had is asked again.
        """
        best: dict[tuple[int, int], Logged] = {}
        for attempt, incarnation in attempts:
            found: dict[tuple[int, int], Logged] = {}
            for line in self._lines_of(incarnation).get(run, ()):
                try:
                    entry = _ENTRY.decode(line)
                except UNREADABLE:
                    break
                if entry.attempt == attempt:
                    found[entry.ask, entry.position] = Logged(hash=entry.hash, reply=entry.reply)
            if len(found) > len(best):
                best = found
        return best

    def _lines_of(self, incarnation: str) -> dict[str, list[bytes]]:
        path = self._experiment.replies_path(incarnation)
        try:
            size = self._experiment.disk.size(path)
            known = self._logs.get(incarnation)
            if known is None or known[0] != size:
                content = self._experiment.disk.read(path) or b""
                lines, end = _readable(content, self._is_wanted)
                if end is not None:
                    why = f"line {end} cannot be read: the log is used up to there"
                    self._experiment.note_odd(path, why)
                known = (size, lines)
                self._logs[incarnation] = known
        except DiskError as error:
            self._experiment.note_odd(path, str(error))
            return {}
        return known[1]


def lines_by_run(
    content: bytes, *, is_wanted: Callable[[str], bool] = lambda run: True
) -> dict[str, list[bytes]]:
    """The lines of a log by their run, up to the first that is none: a torn last line, or what a
    crash of the machine left in the middle, after which order means nothing."""
    return _readable(content, is_wanted)[0]


def _readable(
    content: bytes, is_wanted: Callable[[str], bool]
) -> tuple[dict[str, list[bytes]], int | None]:
    """As `lines_by_run`, and the number of the line at which it ended; None: at the last."""
    lines: dict[str, list[bytes]] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            run = _LINE.decode(line).run
        except UNREADABLE:
            return lines, number
        if is_wanted(run):
            lines.setdefault(run, []).append(line)
    return lines, None


class _Line(msgspec.Struct):
    run: str


_LINE = msgspec.json.Decoder(_Line)
_ENTRY = msgspec.json.Decoder(ReplyEntry)
