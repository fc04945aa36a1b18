"""How the measures of a workload stand, while an experiment is being played too."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean

from vendomini.collect.runs import Row, run_rows, workers_of, workload_of
from vendomini.collect.steps import derived_columns, steps_by_run
from vendomini.errors import WorkloadError
from vendomini.standing import find_short
from vendomini.store.experiment import Experiment
from vendomini.workloads.registry import todays_runs
from vendomini.workloads.workload import Measure, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """How one measure stands over the finished runs that have it, `runs` of them.

    `mean` is that of the column: of a share, of a number, or of the times of those `events` that
    came.
    """

    measure: Measure
    runs: int
    events: int | None  # None: it is no time to an event
    mean: float | None  # None: there is nothing to take it of


def measured(experiment: Experiment, *, progress: Callable[[int, int], None]) -> list[Measured]:
    """How the workload's measures stand now; reads the step logs if something follows from them."""
    experiment.check()
    runs = [run for run in todays_runs(experiment.runs()) if run.in_grid]
    workload, _ = workload_of(runs)
    if workload is None or not workload.measures:
        return []
    short = find_short(experiment)
    rows = {row["run_id"]: row for row in run_rows(experiment, runs, workload, short=short)}
    by_id, played_by = {run.id: run for run in runs}, workers_of(rows)
    read = 0
    if type(workload).derive is not Workload.derive:
        progress(0, len(played_by))
        for read, (id, lines) in enumerate(steps_by_run(experiment, played_by), start=1):
            with suppress(WorkloadError):  # `collect` says so; what was logged stands all the same
                rows[id] |= derived_columns(experiment, by_id[id], workload, lines)
            progress(read, len(played_by))
    done = [rows[id] for id in played_by]
    return [_standing(measure, done) for measure in workload.measures]


# -- private -------------------------------------------------------------------------------


def _standing(measure: Measure, rows: Sequence[Row]) -> Measured:
    values = (row.get(measure.column) for row in rows)
    there = [value for value in values if isinstance(value, int | float)]  # a text is none
    is_event = measure.kind == "time to event"
    return Measured(
        measure=measure,
        runs=len(rows) if is_event else len(there),
        events=len(there) if is_event else None,
        mean=fmean(map(float, there)) if there else None,
    )
