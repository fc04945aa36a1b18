"""How far an experiment is, from its files alone."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vendomini.errors import StoreError
from vendomini.phase import Run, group_key
from vendomini.store.claims import Claim, Claims
from vendomini.store.experiment import Experiment
from vendomini.store.process import is_gone, this_process
from vendomini.store.records import ErrorRecord, WorkerRecord

STATES = ("done", "running", "waiting", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Runs by state; `total` is their sum. Runs that left the grid are not counted."""

    total: int
    done: int
    running: int
    waiting: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """A worker as its last heartbeat tells. `silent_s` is how long ago that was, in seconds."""

    record: WorkerRecord
    is_alive: bool
    silent_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """An experiment at one moment. `orphaned` runs left the grid and are kept."""

    name: str
    folder: Path
    runs: Counts
    groups: Mapping[str, Counts]
    workers: tuple[WorkerStatus, ...]
    errors: tuple[ErrorRecord, ...]  # the last error of each failed run
    orphaned: int


def state_of(
    run: str,
    *,
    finished: frozenset[str] | set[str],
    claims: Mapping[str, Claim],
    alive: Callable[[str], bool],
    in_error: Mapping[str, int],
) -> str:
    """``done``: it has a result. ``running``: its owner lives. ``failed``: its last attempt ended
    in an error. ``waiting``: the rest. `in_error` is the highest failed attempt of each run."""
    if run in finished:
        return "done"
    claim = claims.get(run)
    if claim is None:
        return "waiting"
    if in_error.get(run) == claim.attempt:
        return "failed"
    return "running" if not claim.over and alive(claim.incarnation) else "waiting"


def states(experiment: Experiment, runs: Iterable[Run]) -> dict[str, str]:
    """The state of each run, by id."""
    finished = experiment.finished()
    unfinished = {run.id for run in runs if run.id not in finished}
    claims = Claims(experiment, "status").survey(unfinished)
    living = {worker.record.incarnation for worker in workers(experiment) if worker.is_alive}
    in_error: dict[str, int] = {}
    for name in experiment.disk.names(experiment.path("errors")):
        run, _, rest = name.partition(".")
        if run in unfinished:
            in_error[run] = max(int(rest.removesuffix(".json")), in_error.get(run, 0))
    return {
        run.id: state_of(
            run.id,
            finished=finished,
            claims=claims,
            alive=living.__contains__,
            in_error=in_error,
        )
        for run in runs
    }


def workers(experiment: Experiment) -> tuple[WorkerStatus, ...]:
    """Every worker there was, oldest first, and whether it still lives.

    Does not wait: a heartbeat's time is compared with that of a file written just now on the
    same file system, so that no two machines' clocks meet.
    """
    now = _file_system_time(experiment)
    me = this_process()
    found = []
    for record in sorted(experiment.workers().values(), key=lambda record: record.incarnation):
        try:
            written = experiment.worker_path(record.incarnation).stat().st_mtime
        except FileNotFoundError:
            continue
        silent_s = max(0.0, now - written)
        gone = is_gone(record.process, seen_from=me)
        alive = record.state != "ended" and (
            not gone if gone is not None else silent_s < record.dead_after_s
        )
        found.append(WorkerStatus(record=record, is_alive=alive, silent_s=silent_s))
    return tuple(found)


def status_of(experiment: Experiment) -> Status:
    """Raises `StoreError` if the folder is no experiment of this store format."""
    experiment.check()
    every = experiment.runs()
    runs = [run for run in every if run.in_grid]
    state = states(experiment, runs)
    by_group: dict[str, list[str]] = {}
    for run in runs:
        by_group.setdefault(_group_of(run), []).append(state[run.id])
    failed = [run.id for run in runs if state[run.id] == "failed"]
    errors = experiment.errors(failed) if failed else {}
    return Status(
        name=experiment.name,
        folder=experiment.folder,
        runs=count(state.values()),
        groups={key: count(members) for key, members in by_group.items()},
        workers=workers(experiment),
        errors=tuple(errors[run][-1] for run in failed if run in errors),
        orphaned=len(every) - len(runs),
    )


def count(states_of_runs: Iterable[str]) -> Counts:
    """How many of each state."""
    counted = Counter(states_of_runs)
    by_state = {state: counted[state] for state in STATES}
    return Counts(total=sum(by_state.values()), **by_state)


def _group_of(run: Run) -> str:
    if run.asks is not None:
        return group_key(run, run.asks)
    # Only its workload knows: it is loaded for runs of before they said it themselves.
    from vendomini.workloads.registry import asked_by

    return group_key(run, asked_by(run))


def _file_system_time(experiment: Experiment) -> float:
    """The clock of the machine that keeps the files; ours where we may not write there."""
    probe = experiment.path("workers", f".probe.{os.getpid()}")
    try:
        experiment.disk.write_atomic(probe, b"")
    except (OSError, StoreError):
        return time.time()
    try:
        return probe.stat().st_mtime
    finally:
        experiment.disk.remove(probe)
