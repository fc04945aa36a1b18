"""What a worker is told: one file, written before the job is submitted and never changed."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from vendomini.errors import StoreError
from vendomini.serving import EngineSettings, EngineSpec
from vendomini.store.disk import Disk
from vendomini.store.records import UNREADABLE, encode

JOB_FILE = "job.json"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A group's work, for any number of identical workers. Times are in seconds."""

    experiment: str  # the experiment's folder, absolute
    submission: str
    group: str
    pin_key: str
    engine: EngineSpec | None  # None: the runs of this group never ask
    # What takes its place, before the group's first reply, where it cannot start. None: nothing.
    fallback: EngineSpec | None = None
    concurrency: int  # most requests of one worker in flight; episodes under way, if it never asks
    # The longest conversation of a run, in tokens: what one request needs of the KV cache.
    # None: not known, and `concurrency` alone decides.
    conversation_tokens: int | None = None
    at_once: int = 1  # most requests that one run has in flight at the same time
    workers: int  # how many were planned; a worker leaves work for that many
    only: tuple[str, ...] | None = None  # ids to play; None: the whole group
    minutes: int | None = None  # the time limit; None: there is none
    heartbeat_s: float = 30.0
    dead_after_s: float = 180.0
    drain_s: float = 120.0  # before the deadline: no new claims from here on


def write_job(folder: Path, job: Job) -> Path:
    """The path that a worker is started with."""
    path = folder / JOB_FILE
    Disk().publish(path, encode(job))
    return path


def read_job(path: Path) -> Job:
    """Raises `StoreError` if the file is missing, damaged, or says what this version cannot."""
    content = Disk().read(path)
    if content is None:
        raise StoreError(f"there is no job file `{path}`", hint="submit the experiment again")
    try:
        written = msgspec.json.decode(content)
    except UNREADABLE as error:
        raise StoreError(
            f"the job file `{path}` is damaged: {error}", hint="submit the experiment again"
        ) from error
    try:
        written = _of_today(written)
        job = msgspec.convert(written, Job)
        _refuse_unknown(written, job)
    except msgspec.ValidationError as error:
        raise StoreError(
            f"the job `{path}` was submitted by an older version of VendoMini, or a newer one: "
            f"{error}",
            hint="nothing is lost: give the phase to `vendomini run` again",
        ) from error
    return job


def told_of(spec: EngineSpec | None) -> dict[str, Any] | None:
    """An engine as a worker's file has it; None: it has none."""
    return None if spec is None else {"backend": spec.backend, **msgspec.to_builtins(spec)}


# -- private -------------------------------------------------------------------------------

SETTINGS = frozenset(field.name for field in fields(EngineSettings))


def _refuse_unknown(written: Any, job: Job) -> None:
    """A setting of a newer version would be lost: raise `msgspec.ValidationError`."""
    known = [(written, frozenset(Job.__struct_fields__))]
    for name, spec in (("engine", job.engine), ("fallback", job.fallback)):
        if spec is not None:
            known += [
                (written[name], frozenset(field.name for field in fields(EngineSpec))),
                (written[name]["settings"], SETTINGS),
            ]
    for given, names in known:
        if unknown := sorted(given.keys() - names):
            raise msgspec.ValidationError(f"Object contains unknown field `{unknown[0]}`")


def _of_today(written: Any) -> Any:
    """A job as it is written now: its workers may wait in Slurm's queue while the code is updated.

    Before there was one record of an engine, its settings stood beside its model.
    """
    engine = written.get("engine") if isinstance(written, dict) else None
    if not isinstance(engine, dict) or "settings" in engine:
        return written
    settings = {name: value for name, value in engine.items() if name in SETTINGS}
    others = {name: value for name, value in engine.items() if name not in SETTINGS}
    return {**written, "engine": {**others, "settings": settings}}
