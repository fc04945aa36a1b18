"""How far an experiment is, from its files alone."""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vendomini.errors import DiskError, StoreError
from vendomini.phase import Run, group_key, pin_key
from vendomini.store.audit import Progress, short_runs
from vendomini.store.claims import Claim, Claims
from vendomini.store.experiment import ERROR, Experiment
from vendomini.store.oddities import look_round
from vendomini.store.process import is_gone, this_process
from vendomini.store.records import ErrorRecord, Pin, WorkerRecord
from vendomini.store.trying import FULL

PROBE_BYTES = 1 << 16
STATES = ("done", "running", "waiting", "failed", "short")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Runs by state; `total` is their sum. Runs that left the grid are not counted."""

    total: int
    done: int
    running: int
    waiting: int
    failed: int
    short: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A worker as its last heartbeat tells. `silent_s` is how long ago that was, in seconds."""

    record: WorkerRecord
    is_alive: bool
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """An experiment at one moment. `orphaned` runs left the grid and are kept.

    `short` has why, by run; `odd` what is wrong with a file, by its path in the folder.
    """

    name: str
    folder: Path
    runs: Counts
    groups: Mapping[str, Counts]
    workers: tuple[WorkerStatus, ...]
    errors: tuple[ErrorRecord, ...]  # the last error of each failed run
    orphaned: int
    short: Mapping[str, str] = field(default_factory=dict)
    odd: Mapping[str, str] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)  # what serves each group that has one
    unwritable: DiskError | None = None  # why nobody can go on writing here


def state_of(
    run: str,
    *,
    finished: frozenset[str] | set[str],
    claims: Mapping[str, Claim],
    alive: Callable[[str], bool],
    in_error: Mapping[str, int],
    short: Collection[str] = (),
) -> str:
    """``done``: it has a result. ``short``: that is none, or not all of its steps are there.
    ``running``: its owner lives. ``failed``: its last attempt ended in an error. ``waiting``: the
    rest. `in_error` is the highest failed attempt of each run."""
    if run in short:
        return "short"
    if run in finished:
        return "done"
    claim = claims.get(run)
    if claim is None:
        return "waiting"
    if in_error.get(run) == claim.attempt:
        return "failed"
    return "running" if not claim.over and alive(claim.incarnation) else "waiting"


def states(
    experiment: Experiment,
    runs: Iterable[Run],
    *,
    short: Collection[str] = (),
    living: Collection[str] | None = None,
) -> dict[str, str]:
    """The state of each run, by id. Those that are `short` were found before, as were the workers
    that are `living`; None: they are looked for."""
    finished = experiment.finished()
    unfinished = {run.id for run in runs if run.id not in finished}
    claims = Claims(experiment, "status").survey(unfinished)
    alive = _living(workers(experiment)) if living is None else set(living)
    in_error: dict[str, int] = {}
    for run, attempt in experiment.named("errors", ERROR):
        if run in unfinished:
            in_error[run] = max(attempt, in_error.get(run, 0))
    return {
        run.id: state_of(
            run.id,
            finished=finished,
            claims=claims,
            alive=alive.__contains__,
            in_error=in_error,
            short=short,
        )
        for run in runs
    }


def find_short(
    experiment: Experiment, progress: Progress = lambda done, total: None
) -> dict[str, str]:
    """The runs that are short, each with why; those of workers that live are whole so far."""
    return short_runs(experiment, living=_living(workers(experiment)), progress=progress)


def workers(experiment: Experiment) -> tuple[WorkerStatus, ...]:
    """Every worker there was, oldest first, and whether it still lives.

    Does not wait: a heartbeat's time is compared with that of a file written just now on the
    same file system, so that no two machines' clocks meet.
    """
    now = _file_system_time(experiment)
    me = this_process()
    found = []
    for record in sorted(experiment.workers().values(), key=lambda record: record.incarnation):
        written = experiment.disk.stamp(experiment.worker_path(record.incarnation))
        if written is None:
            continue
        silent_s = max(0.0, now - written.changed / 1e9)
        gone = is_gone(record.process, seen_from=me)
        alive = record.state != "ended" and (
            not gone if gone is not None else silent_s < record.dead_after_s
        )
        found.append(WorkerStatus(record=record, is_alive=alive, silent_s=silent_s))
    return tuple(found)


def status_of(experiment: Experiment, progress: Progress = lambda done, total: None) -> Status:
    """Raises `StoreError` if the folder is no experiment of this store format. `progress` is told
    how many bytes of the logs that must be read have been."""
    experiment.check()
    every = experiment.runs()
    runs = [run for run in every if run.in_grid]
    everyone = workers(experiment)
    living = _living(everyone)
    short = short_runs(experiment, living=living, progress=progress)
    look_round(experiment)
    state = states(experiment, runs, short=short, living=living)
    by_group: dict[str, list[str]] = {}
    for run in runs:
        by_group.setdefault(group_of(run), []).append(state[run.id])
    failed = [run.id for run in runs if state[run.id] == "failed"]
    errors = experiment.errors(failed) if failed else {}
    return Status(
        name=experiment.name,
        folder=experiment.folder,
        runs=count(state.values()),
        groups={key: count(members) for key, members in by_group.items()},
        workers=everyone,
        errors=tuple(errors[run][-1] for run in failed if run in errors),
        orphaned=len(every) - len(runs),
        short={run: why for run, why in short.items() if run in state},
        odd=dict(experiment.odd),
        pins=pins_of(experiment, by_group),
        unwritable=unwritable(experiment),
    )


def count(states_of_runs: Iterable[str]) -> Counts:
    """How many of each state."""
    counted = Counter(states_of_runs)
    by_state = {state: counted[state] for state in STATES}
    return Counts(total=sum(by_state.values()), **by_state)


def counts_of(experiment: Experiment) -> Counts:
    """How many runs of the grid are in each state, but that none is known to be short. Raises
    `StoreError`."""
    experiment.check()
    return count(states(experiment, [run for run in experiment.runs() if run.in_grid]).values())


def pins_of(experiment: Experiment, groups: Iterable[str]) -> dict[str, Pin]:
    """What serves each of some groups, of those for which that is decided."""
    found = {group: experiment.pinned(pin_key(group)) for group in groups}
    return {group: pin for group, pin in found.items() if pin is not None}


def fallbacks(pins: Mapping[str, Pin]) -> list[str]:
    """Of which groups another engine than was planned serves the runs, in words."""
    return [
        f"group {group}: `{pin.backend}` serves it in place of `{pin.instead_of}`, which could not "
        f"start: {pin.why}"
        for group, pin in pins.items()
        if pin.instead_of is not None
    ]


def _living(everyone: Iterable[WorkerStatus]) -> set[str]:
    return {each.record.incarnation for each in everyone if each.is_alive}


def group_of(run: Run) -> str:
    """The group it belongs to, whatever version it is of."""
    if run.asks is not None:
        return group_key(run, run.asks)
    # Only its workload knows: it is loaded for runs of before they said it themselves.
    from vendomini.workloads.registry import asked_by

    return group_key(run, asked_by(run))


def unwritable(experiment: Experiment) -> DiskError | None:
    """Why nobody can write more into the folder, such as a full disk; None: somebody can."""
    probe = experiment.path("workers", f".probe.{os.getpid()}")
    try:
        experiment.disk.write_atomic(probe, bytes(PROBE_BYTES), lasts=False)
    except DiskError as error:
        # That this user may not is no news to those who may.
        return error if error.errno in FULL else None
    with suppress(StoreError):
        experiment.disk.remove(probe)
    return None


def _file_system_time(experiment: Experiment) -> float:
    """The clock of the machine that keeps the files; ours where we may not write there."""
    probe = experiment.path("workers", f".probe.{os.getpid()}")
    try:
        experiment.disk.write_atomic(probe, b"", lasts=False)
        stamp = experiment.disk.stamp(probe)
        experiment.disk.remove(probe)
    except StoreError:
        return time.time()
    return time.time() if stamp is None else stamp.changed / 1e9
