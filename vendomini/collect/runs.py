"""One row a run: what it was played on, how it stands, and what it came to."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from vendomini.collect.labels import labels
from vendomini.errors import ConfigError
from vendomini.phase import Run, setting, settings_of
from vendomini.standing import states
from vendomini.store.experiment import Experiment
from vendomini.store.records import Served
from vendomini.tables import flat, outcome_columns
from vendomini.workloads.registry import workload_named
from vendomini.workloads.workload import Workload

Row = dict[str, Any]


def run_rows(
    experiment: Experiment,
    runs: Sequence[Run],
    workload: Workload | None,
    *,
    short: Collection[str],
    keep_short: bool = False,
) -> Iterator[Row]:
    """One flat row a run, in the order of the runs; what is derived from steps is still null.

    Keys: ``run_id``, ``state``, ``in_grid``, ``replication``, ``world``, `labels`, ``arm.<key>``,
    ``served.*`` and ``error.*``, ``outcome.*`` and ``pe.<type>.*``, null where they do not apply.
    Without its workload an outcome is as it was logged. Of runs that are `short` nothing is told,
    or, with `keep_short`, what they came to.
    """
    state = states(experiment, runs, short=short)
    unit = () if workload is None else workload.unit
    mine = None if workload is None else workload.name
    varying = [key for key in varying_settings(runs) if key not in unit]
    nothing: Row = {}
    if workload is not None:
        nothing |= dict.fromkeys(outcome_columns(workload.outcome_type))
        nothing |= {f"outcome.{name}": None for name in workload.derived_columns()}
    nothing |= {f"served.{name}": None for name in Served.__struct_fields__}
    nothing |= {"error.kind": None, "error.message": None}
    errors = experiment.errors({run for run, is_in in state.items() if is_in == "failed"})
    for run in runs:
        settings = flat(run.settings)
        # A result may have come since the states were listed, and says so itself.
        is_short = state[run.id] == "short"
        result = experiment.result(run.id) if keep_short or not is_short else None
        row: Row = {
            "run_id": run.id,
            "state": state[run.id] if result is None or is_short else "done",
            "in_grid": run.in_grid,
            "replication": run.replication,
            "world": world_of(run, unit),
            **labels(run, experiment=experiment.name),
        }
        row.update((f"arm.{key}", settings.get(key)) for key in varying)
        row.update(nothing)
        if result is not None:
            own = workload if run.workload == mine else None  # else it left the grid long ago
            outcome = todays_outcome(msgspec.json.decode(result.outcome), run, own)
            for key, value in flat(outcome).items():
                row[key if key.startswith("pe.") else f"outcome.{key}"] = value
            row.update((f"served.{k}", v) for k, v in msgspec.structs.asdict(result.served).items())
        elif run.id in errors:
            last = errors[run.id][-1]
            row.update({"error.kind": last.kind, "error.message": last.message})
        yield row


def world_of(run: Run, unit: Sequence[str]) -> str | None:
    """What a run is played on: its values of the workload's `unit`, else its replication. None: it
    is of before there were such settings, or of another workload."""
    if not unit:
        return str(run.replication)
    try:
        values = [str(setting(run.settings, key)) for key in unit]
    except (KeyError, TypeError):
        return None
    return values[0] if len(values) == 1 else " ".join(map("{}={}".format, unit, values))


def varying_settings(runs: Iterable[Run]) -> list[str]:
    """Dotted keys of the grid, and of every other setting that differs between runs."""
    grid: dict[str, None] = {}
    first: Row | None = None
    varying: dict[str, None] = {}
    for run in runs:
        grid.update(dict.fromkeys(run.arm))
        settings = flat(run.settings)
        if first is None:
            first = settings
        for key in settings.keys() | first.keys():
            if settings.get(key) != first.get(key):
                varying[key] = None
    return [*grid, *sorted(key for key in varying if key not in grid)]


def todays_outcome(outcome: Row, run: Run, workload: Workload | None) -> Row:
    """A logged outcome in the words of this version of its workload."""
    settings = None if workload is None else known_settings(run, workload)
    if workload is None or settings is None:
        return outcome
    return workload.todays_outcome(outcome, settings)


def known_settings(run: Run, workload: Workload) -> Any:
    """A run's settings, typed; None if they are those of another version."""
    try:
        return settings_of(run.settings, workload.settings_type)
    except (KeyError, msgspec.ValidationError):
        return None


def workload_of(runs: Sequence[Run]) -> tuple[Workload | None, str]:
    """None, and why, where it is not installed: what was logged can be collected without it."""
    if not runs:
        return None, ""
    try:
        return workload_named(runs[0].workload), ""
    except ConfigError as error:
        return None, f"outcomes are as they were logged, and nothing is derived from steps: {error}"


def workers_of(rows: Mapping[str, Row]) -> dict[str, str]:
    """Which worker's log counts, of each run whose outcome counts."""
    found = ((id, row["served.incarnation"]) for id, row in rows.items())
    return {id: incarnation for id, incarnation in found if incarnation is not None}
