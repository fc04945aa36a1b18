"""Whether finished runs are whole: a result that is none, and steps that are lost, are found here.

A run is short when its result cannot be read, or when the log of the worker that played it does not
have all of its steps, one after the other. A power cut may do that to a file system that promised
otherwise, and people do it with editors.

What was counted is kept in `audit.json`, so that a log that has not changed is read once. It may be
removed at any time.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from vendomini.errors import DiskError, StoreError
from vendomini.store.disk import NO_FILE, NOWHERE, Stamp
from vendomini.store.experiment import RESULT, Experiment
from vendomini.store.records import UNREADABLE, ResultRecord, encode
from vendomini.store.steps import StepLines, step_lines

FILE = "audit.json"
KEPT_RESULTS, KEPT_BYTES = 100, 1 << 20
"""From how many new ones on, or how much of logs, what was found is kept."""
Progress = Callable[[int, int], None]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A result, as far as it says what its steps are. `problem` is why it is no result."""

    stamp: Stamp
    incarnation: str = ""
    steps: int | None = None  # None: it was written before results said so
    problem: str = ""


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """A log of steps: how many there are of each run, and the runs in which one is missing."""

    stamp: Stamp
    steps: Mapping[str, int]
    broken: tuple[str, ...] = ()


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """`audit.json`: results by run, logs by the incarnation that wrote them."""

    results: Mapping[str, Known] = {}
    logs: Mapping[str, Counted] = {}


def short_runs(
    experiment: Experiment,
    *,
    living: Collection[str] = (),
    progress: Progress = lambda done, total: None,
) -> dict[str, str]:
    """Runs that have a result and are short, each with why.

    Runs of workers that are `living` are left out: they have synced what their results rest on, and
    go on writing. `progress` is told how many bytes of how many have been read.
    """
    before = _kept(experiment)
    results = _results(experiment, before.results)
    played = {each.incarnation for each in results.values() if each.steps != 0 and not each.problem}
    logs = _logs(experiment, sorted(played.difference(living)), before.logs, progress)
    now = Audit(results=results, logs=logs)
    if _is_worth_keeping(now, before):
        # Whoever only may read looks again each time.
        with suppress(StoreError):
            experiment.disk.write_atomic(experiment.path(FILE), encode(now), lasts=False)
    return judged(now)


def judged(audit: Audit) -> dict[str, str]:
    """The runs that are short, each with why. Pure."""
    found = {}
    for run, result in audit.results.items():
        if result.problem:
            found[run] = f"results/{run}.json {result.problem}"
            continue
        log = audit.logs.get(result.incarnation)
        if log is None or result.steps == 0:
            continue
        there = log.steps.get(run, 0)
        why = why_short(there, run in log.broken, wanted=result.steps)
        if why:
            found[run] = f"logs/{result.incarnation}.steps.jsonl {why}"
    return found


def why_short(there: int, is_broken: bool, *, wanted: int | None) -> str:
    """What a log lacks of a run's steps; empty if nothing. `wanted` None: nobody said how many."""
    if wanted is not None and there != wanted:
        return f"has {there} of its {wanted} steps"
    return "has a gap in its steps" if is_broken else ""


# -- private -------------------------------------------------------------------------------


def _is_worth_keeping(now: Audit, before: Audit) -> bool:
    """Whether it took a while to find out."""
    results = sum(each != before.results.get(run) for run, each in now.results.items())
    read = sum(each.stamp.size for name, each in now.logs.items() if each != before.logs.get(name))
    return results >= KEPT_RESULTS or read >= KEPT_BYTES


def _results(experiment: Experiment, before: Mapping[str, Known]) -> dict[str, Known]:
    found = {}
    for name, stamp in experiment.disk.stamps(experiment.path("results")).items():
        match = RESULT.fullmatch(name)
        if match is None:
            path = experiment.path("results", name)
            experiment.note_odd(path, "it is nothing of this experiment")
            continue
        run = match[1]
        known = before.get(run)
        if known is None or known.stamp != stamp:
            known = _read_result(experiment, run, stamp)
        if known is not None:
            found[run] = known
    return found


def _read_result(experiment: Experiment, run: str, stamp: Stamp) -> Known | None:
    """None: nobody can say just now, or it has gone."""
    path = experiment.result_path(run)
    try:
        content = experiment.disk.read(path)
    except DiskError as error:
        if error.errno in NO_FILE:
            return Known(stamp=stamp, problem=f"is no result: {error}")
        experiment.note_odd(path, str(error))
        return None
    if content is None:
        return Known(stamp=stamp, problem="leads nowhere") if stamp == NOWHERE else None
    try:
        record = _RESULT.decode(content)
    except UNREADABLE as error:
        return Known(stamp=stamp, problem=f"cannot be read: {error}")
    if record.run != run:
        return Known(stamp=stamp, problem=f"is of run {record.run}")
    served = record.served
    return Known(stamp=stamp, incarnation=served.incarnation, steps=served.steps)


def _logs(
    experiment: Experiment,
    incarnations: Collection[str],
    before: Mapping[str, Counted],
    progress: Progress,
) -> dict[str, Counted]:
    found: dict[str, Counted] = {}
    waiting: list[tuple[str, Path, Stamp]] = []
    for incarnation in incarnations:
        path = experiment.steps_path(incarnation)
        try:
            stamp = experiment.disk.stamp(path) or NOWHERE
        except DiskError as error:
            experiment.note_odd(path, str(error))
            if error.errno in NO_FILE:
                found[incarnation] = _counted(NOWHERE, {})
            continue
        known = before.get(incarnation)
        if known is not None and known.stamp == stamp:
            found[incarnation] = known
        else:
            waiting.append((incarnation, path, stamp))
    done, total = 0, sum(stamp.size for _, _, stamp in waiting)
    for incarnation, path, stamp in waiting:
        progress(done, total)
        try:
            found[incarnation] = _counted(stamp, step_lines(experiment.disk.blocks(path)))
        except DiskError as error:
            experiment.note_odd(path, str(error))
            if error.errno in NO_FILE:
                found[incarnation] = _counted(stamp, {})
        done += stamp.size
        progress(done, total)
    return found


def _counted(stamp: Stamp, lines: Mapping[str, StepLines]) -> Counted:
    return Counted(
        stamp=stamp,
        steps={run: each.count for run, each in lines.items()},
        broken=tuple(sorted(run for run, each in lines.items() if each.is_broken)),
    )


def _kept(experiment: Experiment) -> Audit:
    try:
        content = experiment.disk.read(experiment.path(FILE))
        return Audit() if content is None else _AUDIT.decode(content)
    except (DiskError, *UNREADABLE):
        return Audit()


_AUDIT = msgspec.json.Decoder(Audit)
_RESULT = msgspec.json.Decoder(ResultRecord)
