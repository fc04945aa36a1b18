"""The folder of an experiment: who writes which name, and what is found there."""

import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from vendomini import __version__
from vendomini.errors import DiskError, StoreError
from vendomini.phase import Run
from vendomini.store.disk import NO_FILE, Disk
from vendomini.store.locks import Lock, locked
from vendomini.store.records import (
    STORE_FORMAT,
    UNREADABLE,
    ErrorRecord,
    Marker,
    Pin,
    ReadWorkerRecord,
    ResultRecord,
    SlurmJobs,
    WorkerRecord,
    encode,
)

FOLDERS = ("plans", "jobs", "pins", "workers", "claims", "results", "errors", "logs")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What a `run` changed: ids of the runs the grid kept, added, and no longer has."""

    kept: tuple[str, ...]
    new: tuple[str, ...]
    orphaned: tuple[str, ...]


class Experiment:
    """One experiment on disk. Reading never writes; each writer is named at its method.

    A name that is none of ours is passed over; a record that cannot be read counts as absent. Both
    are in `odd`, so that whoever looks is told, and stop nothing else.
    """

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        self.folder = folder
        self.disk = disk or Disk()
        self.odd: dict[str, str] = {}
        """By the path below the folder: what is wrong with it."""

    # -- names ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.folder.name

    def path(self, *parts: str) -> Path:
        return self.folder.joinpath(*parts)

    def result_path(self, run: str) -> Path:
        return self.path("results", f"{run}.json")

    def worker_path(self, incarnation: str) -> Path:
        return self.path("workers", f"{incarnation}.json")

    def replies_path(self, incarnation: str) -> Path:
        return self.path("logs", f"{incarnation}.replies.jsonl")

    def steps_path(self, incarnation: str) -> Path:
        return self.path("logs", f"{incarnation}.steps.jsonl")

    def engine_log_path(self, incarnation: str) -> Path:
        """What the engine's process itself wrote."""
        return self.path("logs", f"{incarnation}.engine.log")

    def note_odd(self, path: Path, why: str) -> None:
        self.odd[str(path.relative_to(self.folder))] = why

    # -- reading -------------------------------------------------------------------------

    def exists(self) -> bool:
        return self.disk.exists(self.path("experiment.json"))

    def check(self) -> None:
        """Raise `StoreError` if this is no experiment, or one of another store format."""
        content = self.disk.read(self.path("experiment.json"))
        if content is None:
            raise StoreError(
                f"`{self.folder}` is no experiment: it has no experiment.json",
                hint="name the folder that `vendomini run` printed",
            )
        try:
            marker = msgspec.json.decode(content, type=Marker)
        except UNREADABLE as error:
            raise StoreError(
                f"`{self.path('experiment.json')}` is damaged: {error}",
                hint="restore the file, or choose another folder with --root",
            ) from error
        if marker.store_format != STORE_FORMAT:
            raise StoreError(
                f"`{self.folder}` has store format {marker.store_format} (made by VendoMini "
                f"{marker.made_by}), this VendoMini reads format {STORE_FORMAT}",
                hint="use that version, or another `experiment.name` or --root",
            )

    def runs(self) -> list[Run]:
        """All runs there ever were, in the grid's order, those no longer in it last."""
        path = self.path("runs.jsonl")
        found = []
        for number, line in enumerate((self.disk.read(path) or b"").splitlines(), start=1):
            try:
                found.append(_RUN.decode(line))
            except UNREADABLE as error:
                self.note_odd(path, f"line {number} cannot be read: {error}")
        return found

    def finished(self) -> set[str]:
        """Ids of the runs that a listing shows as done."""
        return {run for run, _ in self.named("results", RESULT)}

    def is_finished(self, run: str) -> bool:
        """Asked of the file itself: true even where a listing does not show it yet."""
        return self.disk.exists(self.result_path(run))

    def result(self, run: str) -> ResultRecord | None:
        return self._read(self.result_path(run), _RESULT)

    def errors(self, runs: Iterable[str] | None = None) -> dict[str, list[ErrorRecord]]:
        """The error records of some runs (all, if None), oldest attempt first."""
        wanted = None if runs is None else set(runs)
        found: dict[str, list[ErrorRecord]] = {}
        for run, attempt in self.named("errors", ERROR):
            if wanted is not None and run not in wanted:
                continue
            record = self._read(self.path("errors", f"{run}.{attempt}.json"), _ERROR)
            if record is not None:
                found.setdefault(run, []).append(record)
        for records in found.values():
            records.sort(key=lambda record: record.attempt)
        return found

    def workers(self) -> dict[str, WorkerRecord]:
        """Every incarnation's last heartbeat."""
        found = {}
        for incarnation, _ in self.named("workers", WORKER):
            record = self.worker(incarnation)
            if record is not None:
                found[record.incarnation] = record
        return found

    def slurm_jobs(self) -> list[SlurmJobs]:
        """Everything that was handed to Slurm, oldest first; most of it has ended long since."""
        found = []
        for number in self.numbers("jobs"):
            record = self._read(self.path("jobs", str(number), "slurm.json"), _SLURM)
            if record is not None:
                found.append(record)
        return found

    def worker(self, incarnation: str) -> WorkerRecord | None:
        """A worker's last heartbeat; None: there is none, or none that can be read."""
        try:
            return self.heartbeat(incarnation)
        except DiskError as error:
            self.note_odd(self.worker_path(incarnation), str(error))
            return None

    def heartbeat(self, incarnation: str) -> WorkerRecord | None:
        """As `worker`; raises `DiskError` where the file system does not say."""
        read = self._decoded(self.worker_path(incarnation), _WORKER)
        return None if read is None else read.todays()

    def named(self, folder: str, pattern: "re.Pattern[str]") -> list[tuple[str, int]]:
        """The names in a folder that are ours, as run (or incarnation) and attempt (0 without)."""
        found = []
        for name in self.disk.names(self.path(folder)):
            match = pattern.fullmatch(name)
            if match is None:
                self.note_odd(self.path(folder, name), "it is nothing of this experiment")
                continue
            found.append((match[1], int(match[2] or 0)))
        return found

    def numbers(self, folder: str) -> list[int]:
        """Those by which a folder's names are numbered, in order."""
        names = (name.removesuffix(".json") for name in self.disk.names(self.path(folder)))
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    # -- writing -------------------------------------------------------------------------

    def extend(self, phase_text: str, runs: Sequence[Run]) -> Extension:
        """Make the experiment, or bring it to an edited phase; runs that left stay, marked.

        Two processes may do so at once: a lock makes one wait for the other. Raises
        `StoreError` if the folder cannot be written, or holds something else.
        """
        is_new = self._make()
        try:
            for folder in FOLDERS:
                self.disk.make_folder(self.path(folder))
            extension, changes = self._changes(phase_text, runs)
            if changes or self._damaged():
                with self.locked() as lock:  # somebody else may have changed it since
                    extension, changes = self._changes(phase_text, runs)
                    self._keep_damaged()
                    for name, content in changes.items():
                        lock.check()
                        self.disk.write_atomic(self.path(name), content)
        except StoreError:
            if is_new:
                self._unmake()
            raise
        return extension

    def _changes(self, phase_text: str, runs: Sequence[Run]) -> tuple[Extension, dict[str, bytes]]:
        """What an edited phase changes, and the files that are to be written for it."""
        known = {run.id: run for run in self.runs()}
        wanted = {run.id for run in runs}
        orphaned = [replace(run, in_grid=False) for run in known.values() if run.id not in wanted]
        lines = [encode(run) for run in (*runs, *orphaned)]
        contents = {"runs.jsonl": b"\n".join(lines) + b"\n", "phase.yaml": phase_text.encode()}
        extension = Extension(
            kept=tuple(run.id for run in runs if run.id in known),
            new=tuple(run.id for run in runs if run.id not in known),
            orphaned=tuple(run.id for run in orphaned),
        )
        return extension, {
            name: content
            for name, content in contents.items()
            if content != self.disk.read(self.path(name))
        }

    def add_plan(self, plan: bytes) -> None:
        """Keep a plan that was carried out, under the next number, unless it equals the last."""
        numbers = self.numbers("plans")
        last = self.path("plans", f"{max(numbers)}.json") if numbers else None
        if last is not None and self.disk.read(last) == plan:
            return
        number = max(numbers, default=0) + 1
        while not self.disk.publish(self.path("plans", f"{number}.json"), plan):
            number += 1

    def add_job_folder(self) -> Path:
        """A folder `jobs/<n>` that nobody had before."""
        return self._new_numbered("jobs")

    def keep_slurm_jobs(self, folder: Path, jobs: SlurmJobs) -> None:
        """Remember what Slurm was handed, in the job's folder."""
        self.disk.write_atomic(folder / "slurm.json", encode(jobs))

    def publish_result(self, run: str, record: ResultRecord) -> bool:
        """The first result of a run is its result; False if there was one.

        The folder is left to be synced: one sync will do for many.
        """
        return self.disk.publish(self.result_path(run), encode(record), lasts=False)

    def publish_error(self, record: ErrorRecord) -> None:
        name = f"{record.run}.{record.attempt}.json"
        self.disk.publish(self.path("errors", name), encode(record))

    def pin(self, key: str, wanted: Pin) -> Pin:
        """What serves a group: decided by the first who asks, so it may differ from `wanted`."""
        path = self.path("pins", f"{key}.json")
        if self.disk.publish(path, encode(wanted)):
            return wanted
        pinned = self._read(path, _PIN, waits=True)
        if pinned is None:
            raise StoreError(
                f"`{path}` cannot be read: {self.odd.get(f'pins/{key}.json', 'it has gone')}",
                hint="give the same `vendomini run` again: it moves the file away",
            )
        return pinned

    def pinned(self, key: str) -> Pin | None:
        """None: no reply of the group was logged yet, and no engine fell back."""
        return self._read(self.path("pins", f"{key}.json"), _PIN)

    def new_archive(self) -> Path:
        """A folder `archive/<n>` that nobody had before."""
        return self._new_numbered("archive")

    def locked(self) -> AbstractContextManager[Lock]:
        """Hold the experiment's lock. Raises `StoreError` after 60 s of waiting."""
        return locked(self.disk, self.path("locks"))

    # -- private -------------------------------------------------------------------------

    def _read(
        self, path: Path, decoder: msgspec.json.Decoder[T], *, waits: bool = False
    ) -> T | None:
        try:
            return self._decoded(path, decoder, waits=waits)
        except DiskError as error:
            self.note_odd(path, str(error))
            return None

    def _decoded(
        self, path: Path, decoder: msgspec.json.Decoder[T], *, waits: bool = False
    ) -> T | None:
        content = self.disk.read(path, waits=waits)
        if content is None:
            if self.disk.leads_nowhere(path):
                self.note_odd(path, "it leads nowhere")
            return None
        try:
            return decoder.decode(content)
        except UNREADABLE as error:
            self.note_odd(path, f"it cannot be read: {error}")
            return None

    def _new_numbered(self, folder: str) -> Path:
        self.disk.make_folder(self.path(folder))
        number = max(self.numbers(folder), default=0) + 1
        while not self.disk.make_new_folder(self.path(folder, str(number))):
            number += 1
        return self.path(folder, str(number))

    def _damaged(self) -> list[Path]:
        """What cannot be read, of that which is written anew."""
        pins = [self.path("pins", name) for name in self.disk.names(self.path("pins"))]
        runs = [self.path("runs.jsonl")] if "runs.jsonl" in self.odd else []
        return runs + [path for path in pins if self._is_damaged(path)]

    def _keep_damaged(self) -> None:
        """Moved out of the way: nothing is deleted."""
        damaged = self._damaged()
        archive = self.new_archive() if damaged else self.folder
        for path in damaged:
            name = str(path.relative_to(self.folder))
            self.disk.move(path, archive / name.replace("/", "."))
            del self.odd[name]

    def _is_damaged(self, pin: Path) -> bool:
        """For good, and not only hard to read just now."""
        try:
            return self.disk.exists(pin) and self._decoded(pin, _PIN) is None
        except DiskError as error:
            self.note_odd(pin, str(error))
            return error.errno in NO_FILE

    def _make(self) -> bool:
        """Make the folder and its marker; False if it is an experiment already."""
        if self.exists():
            self.check()
            return False
        if self.disk.names(self.folder):
            raise StoreError(
                f"`{self.folder}` exists and is no experiment",
                hint="choose another `experiment.name`, or another folder with --root",
            )
        # The marker comes first: a start that is cut short can be gone on with.
        self.disk.make_folder(self.folder)
        marker = Marker(store_format=STORE_FORMAT, made_by=__version__)
        try:
            self.disk.publish(self.path("experiment.json"), encode(marker))
        except StoreError:
            self._unmake()
            raise
        return True

    def _unmake(self) -> None:
        """What a first start made before it failed: nothing is half written."""
        with suppress(OSError):
            shutil.rmtree(self.path("locks"), ignore_errors=True)
            for folder in FOLDERS:
                with suppress(FileNotFoundError):
                    self.path(folder).rmdir()
            if self.disk.names(self.folder) in ([], ["experiment.json"]):
                self.path("experiment.json").unlink(missing_ok=True)
                self.folder.rmdir()


RESULT = re.compile(r"([^.]+)()\.json")
WORKER = RESULT
ERROR = re.compile(r"([^.]+)\.(\d{1,9})\.json")
"""Names of ours: of which run (or incarnation), and of which attempt."""

_RUN = msgspec.json.Decoder(Run)
_RESULT = msgspec.json.Decoder(ResultRecord)
_ERROR = msgspec.json.Decoder(ErrorRecord)
_SLURM = msgspec.json.Decoder(SlurmJobs)
_PIN = msgspec.json.Decoder(Pin)
_WORKER = msgspec.json.Decoder(ReadWorkerRecord)
