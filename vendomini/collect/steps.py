"""The logged steps of each finished run, and what its workload derives from them.

It is found out each time anew (`Workload.derive`): it is in the tables, and in no record.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from vendomini.collect.runs import Row, known_settings, todays_outcome
from vendomini.errors import DiskError, WorkloadError
from vendomini.phase import Run
from vendomini.store.experiment import Experiment
from vendomini.store.steps import StepLines, step_lines
from vendomini.tables import flat
from vendomini.workloads.workload import Workload


def steps_by_run(
    experiment: Experiment, played_by: Mapping[str, str]
) -> Iterator[tuple[str, list[bytes]]]:
    """The logged lines of each run that has some, in the order of `played_by`, which says whose
    log counts.

    A worker may have begun a run more than once: its last beginning counts. A log that cannot be
    read has none (`Experiment.odd` says so).
    """
    by_worker: dict[str, set[str]] = {}
    for run, incarnation in played_by.items():
        by_worker.setdefault(incarnation, set()).add(run)
    where: dict[str, StepLines] = {}
    for incarnation, its_runs in by_worker.items():
        path = experiment.steps_path(incarnation)
        try:
            blocks = experiment.disk.blocks(path)
            where |= step_lines(blocks, is_wanted=its_runs.__contains__)
        except DiskError as error:
            experiment.note_odd(path, str(error))
    for run, incarnation in played_by.items():
        if run in where:
            found = where.pop(run)
            path = experiment.steps_path(incarnation)
            yield run, experiment.disk.read_pieces(path, found.starts, found.sizes)


def derived(
    workload: Workload, settings: Any, lines: Sequence[bytes], outcome: Mapping[str, Any]
) -> Row:
    """What a workload derives from the logged steps of a finished run, by dotted name.

    `settings` and `outcome` are in today's words; nothing follows from settings that this version
    does not know (None). Raises `WorkloadError` if it cannot.
    """
    if settings is None or type(workload).derive is Workload.derive:
        return {}
    decode = _step_decoder(workload).decode
    try:
        return flat(workload.derive(settings, list(map(decode, lines)), outcome))
    except Exception as error:
        # Somebody else's code: what was played is there, and is shown without what follows of it.
        raise WorkloadError(
            f"workload `{workload.name}` cannot derive anything from the steps of a run: "
            f"{type(error).__name__}: {error}",
            hint="it is a bug of its `derive`, or its `step_type` is not that of the steps",
        ) from error


def derived_columns(
    experiment: Experiment, run: Run, workload: Workload | None, lines: Sequence[bytes]
) -> Row:
    """The same as columns of the table of runs, of a run whose result is there."""
    result = experiment.result(run.id)
    if workload is None or result is None or run.workload != workload.name:
        return {}
    outcome = todays_outcome(msgspec.json.decode(result.outcome), run, workload)
    found = derived(workload, known_settings(run, workload), lines, outcome)
    return {f"outcome.{name}": value for name, value in found.items()}


# -- private -------------------------------------------------------------------------------


@functools.cache
def _step_decoder(workload: Workload) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(workload.step_type)
