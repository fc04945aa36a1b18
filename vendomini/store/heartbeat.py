"""The sign of life of a worker, written by a thread of its own."""

import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from vendomini.errors import StoreError
from vendomini.store.clock import now_s
from vendomini.store.experiment import Experiment
from vendomini.store.records import WorkerRecord, encode


def new_incarnation() -> str:
    """A name nobody else has, that sorts by time of start."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


class Heartbeat:
    """Rewrites `workers/<incarnation>.json` every `every_s` seconds until told to end.

    If it could not for `lost_after_s` (the disk is away, or this process was stopped), others
    may have taken over: `lost` is called once, and the owner of this heartbeat has to stop.
    """

    def __init__(
        self,
        experiment: Experiment,
        record: WorkerRecord,
        *,
        every_s: float,
        lost_after_s: float,
        lost: Callable[[str], None],
        look: Callable[[WorkerRecord], WorkerRecord],
    ) -> None:
        self._experiment = experiment
        self._record = record
        self._every_s = every_s
        self._lost_after_s = lost_after_s
        self._lost = lost
        self._look = look  # brings counters up to date just before each writing
        self._renewed = now_s()
        self._writing = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    @property
    def is_fresh(self) -> bool:
        """Whether others still must take this worker for alive."""
        return now_s() - self._renewed < self._lost_after_s

    def start(self) -> None:
        """Write the first beat, then go on in the background."""
        self._write()
        self._thread.start()

    def change(self, **changes: object) -> None:
        """Say something new about the worker, at once."""
        with self._writing:
            self._record = msgspec.structs.replace(self._record, **changes)
        self._write()

    def end(self, *, problem: str | None = None) -> None:
        """The last beat: state `ended`, which frees every run of this incarnation."""
        self._end.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        self.change(state="ended", problem=problem)

    def _beat(self) -> None:
        why = ""
        while not self._end.wait(self._every_s):
            if not self.is_fresh:
                self._lost(
                    f"no heartbeat for {self._lost_after_s:.0f} s{why}: others may have taken over"
                )
                return
            try:
                self._write()
            except StoreError as error:
                why = f" ({error})"  # until it is no longer fresh

    def _write(self) -> None:
        with self._writing:
            # From its beginning: a process that was stopped in its middle is not fresh when it
            # wakes, though it has written.
            began = now_s()
            record = self._look(msgspec.structs.replace(self._record, beat=self._record.beat + 1))
            self._experiment.disk.write_atomic(
                self._experiment.worker_path(record.incarnation), encode(record), lasts=False
            )
            self._record = record
            self._renewed = began
