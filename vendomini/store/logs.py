"""The logs of one worker: replies, which are the checkpoint, and steps, which are derived.

A reply is handed to its log before its episode sees it; lines reach the file every two
seconds and before each result. What a crash takes is asked again.
"""

import mmap
import os
import threading
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vendomini.chat import Reply
from vendomini.errors import StoreError
from vendomini.store.disk import Disk, explained
from vendomini.store.experiment import Experiment
from vendomini.store.records import ReplyEntry

FLUSH_EVERY_S = 2.0
FLUSH_BYTES = 1 << 20


class Appender:
    """One file that only this process appends to, line by line, buffered in memory.

    A write that fails is remembered and raised at the next use: after it nothing may be
    appended, so that a torn line is always the last one.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._lines: list[bytes] = []
        self._bytes = 0
        self._lock = threading.Lock()
        self._handle: int | None = None  # None: nothing was written yet, there is no file
        self._failure: StoreError | None = None

    def add(self, line: bytes) -> None:
        """One line, without its newline."""
        self._lines.append(line)
        self._bytes += len(line) + 1
        if self._bytes >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Everything added so far is in the file when this returns; raises `StoreError`."""
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if not self._lines:
                return
            lines, self._lines, self._bytes = self._lines, [], 0
            try:
                if self._handle is None:
                    with explained("write", self._path):
                        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                        self._handle = os.open(self._path, flags, 0o666)
                self._disk.append(self._handle, b"\n".join(lines) + b"\n", self._path)
            except StoreError as error:
                self._failure = error
                raise

    def close(self) -> None:
        """Flush what can be flushed."""
        try:
            self.flush()
        finally:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None


class Logs:
    """Both logs of one incarnation, with the thread that flushes them."""

    def __init__(
        self, experiment: Experiment, incarnation: str, *, failed: Callable[[str], None]
    ) -> None:
        self.replies = Appender(experiment.replies_path(incarnation), experiment.disk)
        self.steps = Appender(experiment.steps_path(incarnation), experiment.disk)
        self._failed = failed
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._flush_often, name="flush", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def flush(self) -> None:
        self.replies.flush()
        self.steps.flush()

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        try:
            self.replies.close()
        finally:
            self.steps.close()

    def _flush_often(self) -> None:
        while not self._end.wait(FLUSH_EVERY_S):
            try:
                self.flush()
            except StoreError as error:
                self._failed(str(error))
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
        """
        best: dict[tuple[int, int], Logged] = {}
        for attempt, incarnation in attempts:
            found: dict[tuple[int, int], Logged] = {}
            for line in self._lines_of(incarnation).get(run, ()):
                entry = _ENTRY.decode(line)
                if entry.attempt == attempt:
                    found[entry.ask, entry.position] = Logged(hash=entry.hash, reply=entry.reply)
            if len(found) > len(best):
                best = found
        return best

    def _lines_of(self, incarnation: str) -> dict[str, list[bytes]]:
        path = self._experiment.replies_path(incarnation)
        size = self._experiment.disk.size(path)
        known = self._logs.get(incarnation)
        if known is None or known[0] != size:
            content = self._experiment.disk.read(path) or b""
            known = (size, lines_by_run(content, is_wanted=self._is_wanted))
            self._logs[incarnation] = known
        return known[1]


def lines_by_run(
    content: bytes, *, is_wanted: Callable[[str], bool] = lambda run: True
) -> dict[str, list[bytes]]:
    """The whole lines of a log by the run they begin with; a torn last line is dropped."""
    lines: dict[str, list[bytes]] = {}
    for line in content.split(b"\n")[:-1]:
        run = line[_RUN_STARTS : line.index(b'"', _RUN_STARTS)].decode()
        if is_wanted(run):
            lines.setdefault(run, []).append(line)
    return lines


def line_starts_by_run(
    content: bytes | mmap.mmap, *, is_wanted: Callable[[str], bool]
) -> "dict[str, array[int]]":
    """Where the whole lines of a log start, in bytes, by the run they begin with.

    For logs that are too large to be held: `content` may be a mapped file.
    """
    starts: dict[str, array[int]] = {}
    start = 0
    while (end := content.find(b"\n", start)) >= 0:
        run = content[start + _RUN_STARTS : content.find(b'"', start + _RUN_STARTS)].decode()
        if is_wanted(run):
            starts.setdefault(run, array("Q")).append(start)
        start = end + 1
    return starts


_RUN_STARTS = len(b'{"run":"')  # every line of both logs begins so
_ENTRY = msgspec.json.Decoder(ReplyEntry)
