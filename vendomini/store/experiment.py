"""The folder of an experiment: who writes which name, and what is found there."""

import os
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec

from vendomini import __version__
from vendomini.errors import StoreError
from vendomini.phase import Run
from vendomini.store.disk import Disk
from vendomini.store.process import Process, is_gone, this_process
from vendomini.store.records import (
    STORE_FORMAT,
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
LOCK_WAIT_S = 60.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What a `run` changed: ids of the runs the grid kept, added, and no longer has."""

    kept: tuple[str, ...]
    new: tuple[str, ...]
    orphaned: tuple[str, ...]


class Experiment:
    """One experiment on disk. Reading never writes; each writer is named at its method."""

    def __init__(self, folder: Path, *, disk: Disk | None = None) -> None:
        self.folder = folder
        self.disk = disk or Disk()

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
        except msgspec.DecodeError as error:
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
        content = self.disk.read(self.path("runs.jsonl"))
        if content is None:
            return []
        try:
            return [_RUN.decode(line) for line in content.splitlines()]
        except msgspec.DecodeError as error:
            raise StoreError(
                f"`{self.path('runs.jsonl')}` is damaged: {error}",
                hint="run the phase file again to have it written anew",
            ) from error

    def finished(self) -> set[str]:
        """Ids of the runs that a listing shows as done."""
        return {name.removesuffix(".json") for name in self.disk.names(self.path("results"))}

    def is_finished(self, run: str) -> bool:
        """Asked of the file itself: true even where a listing does not show it yet."""
        return self.disk.exists(self.result_path(run))

    def result(self, run: str) -> ResultRecord | None:
        return self._read(self.result_path(run), _RESULT)

    def errors(self, runs: Iterable[str] | None = None) -> dict[str, list[ErrorRecord]]:
        """The error records of some runs (all, if None), oldest attempt first."""
        wanted = None if runs is None else set(runs)
        found: dict[str, list[ErrorRecord]] = {}
        for name in self.disk.names(self.path("errors")):
            run = name.split(".")[0]
            if wanted is not None and run not in wanted:
                continue
            record = self._read(self.path("errors", name), _ERROR)
            if record is not None:
                found.setdefault(run, []).append(record)
        for records in found.values():
            records.sort(key=lambda record: record.attempt)
        return found

    def workers(self) -> dict[str, WorkerRecord]:
        """Every incarnation's last heartbeat."""
        found = {}
        for name in self.disk.names(self.path("workers")):
            record = self.worker(name.removesuffix(".json"))
            if record is not None:
                found[record.incarnation] = record
        return found

    def slurm_jobs(self) -> list[SlurmJobs]:
        """Everything that was handed to Slurm, oldest first; most of it has ended long since."""
        found = []
        for number in sorted(self._numbers("jobs")):
            jobs = self._read(self.path("jobs", str(number), "slurm.json"), _SLURM)
            if jobs is not None:
                found.append(jobs)
        return found

    def worker(self, incarnation: str) -> WorkerRecord | None:
        read = self._read(self.worker_path(incarnation), _WORKER)
        return None if read is None else read.todays()

    # -- writing -------------------------------------------------------------------------

    def extend(self, phase_text: str, runs: Sequence[Run]) -> Extension:
        """Make the experiment, or bring it to an edited phase; runs that left stay, marked.

        Two processes may do so at once: a lock makes one wait for the other. Raises
        `StoreError` if the folder cannot be written, or holds something else.
        """
        self._make()
        for folder in FOLDERS:
            self.disk.make_folder(self.path(folder))
        with self.locked():
            known = {run.id: run for run in self.runs()}
            wanted = {run.id for run in runs}
            orphaned = [
                replace(run, in_grid=False) for run in known.values() if run.id not in wanted
            ]
            lines = [encode(run) for run in (*runs, *orphaned)]
            content = b"\n".join(lines) + b"\n"
            if content != self.disk.read(self.path("runs.jsonl")):
                self.disk.write_atomic(self.path("runs.jsonl"), content)
            phase = phase_text.encode()
            if phase != self.disk.read(self.path("phase.yaml")):
                self.disk.write_atomic(self.path("phase.yaml"), phase)
        return Extension(
            kept=tuple(run.id for run in runs if run.id in known),
            new=tuple(run.id for run in runs if run.id not in known),
            orphaned=tuple(run.id for run in orphaned),
        )

    def add_plan(self, plan: bytes) -> None:
        """Keep a plan that was carried out, under the next number, unless it equals the last."""
        numbers = self._numbers("plans")
        last = self.path("plans", f"{max(numbers)}.json") if numbers else None
        if last is not None and self.disk.read(last) == plan:
            return
        number = max(numbers, default=0) + 1
        while not self.disk.publish(self.path("plans", f"{number}.json"), plan):
            number += 1

    def add_job_folder(self) -> Path:
        """A folder `jobs/<n>` that nobody had before."""
        number = max(self._numbers("jobs"), default=0) + 1
        while not self.disk.make_new_folder(self.path("jobs", str(number))):
            number += 1
        return self.path("jobs", str(number))

    def keep_slurm_jobs(self, folder: Path, jobs: SlurmJobs) -> None:
        """Remember what Slurm was handed, in the job's folder."""
        self.disk.write_atomic(folder / "slurm.json", encode(jobs))

    def publish_result(self, run: str, record: ResultRecord) -> bool:
        """The first result of a run is its result; False if there was one."""
        return self.disk.publish(self.result_path(run), encode(record))

    def publish_error(self, record: ErrorRecord) -> None:
        name = f"{record.run}.{record.attempt}.json"
        self.disk.publish(self.path("errors", name), encode(record))

    def pin(self, key: str, wanted: Pin) -> Pin:
        """What serves a group: decided by the first who asks, so it may differ from `wanted`."""
        path = self.path("pins", f"{key}.json")
        if self.disk.publish(path, encode(wanted)):
            return wanted
        pinned = self.pinned(key)
        assert pinned is not None
        return pinned

    def pinned(self, key: str) -> Pin | None:
        """None: no reply of the group was logged yet."""
        return self._read(self.path("pins", f"{key}.json"), _PIN)

    def set_aside(self, runs: Collection[str], pin_key: str) -> Path:
        """Move claims, results and errors of runs, and their group's pin, out of the way.

        Nothing is deleted: all of it stays in the folder that is returned. Nobody may be
        playing the runs.
        """
        number = max(self._numbers("archive"), default=0) + 1
        archive = self.path("archive", str(number))
        with self.locked():
            for folder in ("claims", "errors", "results", "pins"):
                self.disk.make_folder(archive / folder)
                for name in self.disk.names(self.path(folder)):
                    if name.split(".")[0] in runs or name == f"{pin_key}.json":
                        os.rename(self.path(folder, name), archive / folder / name)
        return archive

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the experiment's lock; it dies with its holder. Raises `StoreError` after 60 s."""
        path = self.path(".lock")
        me = this_process()
        waited_until = time.monotonic() + LOCK_WAIT_S
        while not self.disk.publish(path, encode(me)):
            content = self.disk.read(path)
            holder = None if content is None else msgspec.json.decode(content, type=Process)
            if holder is not None and is_gone(holder, seen_from=me):
                self._break_lock(path, holder)
            elif time.monotonic() > waited_until:
                raise StoreError(
                    f"another `vendomini run` holds `{path}`"
                    + (f" (process {holder.pid} on {holder.host})" if holder else ""),
                    hint="wait for it; if that process is gone, remove the file and try again",
                )
            else:
                time.sleep(0.05)
        try:
            yield
        finally:
            self.disk.remove(path)

    # -- private -------------------------------------------------------------------------

    def _read(self, path: Path, decoder: msgspec.json.Decoder[T]) -> T | None:
        content = self.disk.read(path)
        if content is None:
            return None
        try:
            return decoder.decode(content)
        except msgspec.DecodeError as error:
            raise StoreError(
                f"`{path}` is damaged: {error}",
                hint="restore it, or move it away: what it told is then found out anew",
            ) from error

    def _make(self) -> None:
        if self.exists():
            self.check()
            return
        if self.disk.names(self.folder):
            raise StoreError(
                f"`{self.folder}` exists and is no experiment",
                hint="choose another `experiment.name`, or another folder with --root",
            )
        # The marker comes first: a start that is cut short can be gone on with.
        self.disk.make_folder(self.folder)
        marker = Marker(store_format=STORE_FORMAT, made_by=__version__)
        self.disk.publish(self.path("experiment.json"), encode(marker))

    def _break_lock(self, path: Path, holder: Process) -> None:
        """Only one of several that found it stale may take it away: renaming decides who."""
        aside = path.with_name(f".lock.stale.{os.getpid()}")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return
        content = self.disk.read(aside)
        if content is not None and msgspec.json.decode(content, type=Process) != holder:
            # Somebody else had broken it and taken it between our look and our rename.
            self.disk.link(aside, path)
        self.disk.remove(aside)

    def _numbers(self, folder: str) -> list[int]:
        names = (name.split(".")[0] for name in self.disk.names(self.path(folder)))
        return [int(name) for name in names if name.isdigit()]


_RUN = msgspec.json.Decoder(Run)
_RESULT = msgspec.json.Decoder(ResultRecord)
_ERROR = msgspec.json.Decoder(ErrorRecord)
_SLURM = msgspec.json.Decoder(SlurmJobs)
_PIN = msgspec.json.Decoder(Pin)
_WORKER = msgspec.json.Decoder(ReadWorkerRecord)
