"""From the files of an experiment to tables: one row a run, one row a step.

What a workload derives from the logged steps of a run (`Workload.derive`) is found out here, each
time anew: it is in the tables, and in no record.
"""

import functools
import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import msgspec

from vendomini.errors import ConfigError, WorkloadError
from vendomini.phase import Run, setting, settings_of
from vendomini.standing import states
from vendomini.store.disk import explained
from vendomini.store.experiment import Experiment
from vendomini.store.logs import line_starts_by_run
from vendomini.store.records import Served, encode
from vendomini.tables import (
    STEP_ROWS_AT_ONCE,
    Step,
    flat,
    outcome_columns,
    replace_whole,
    run_columns,
    step_columns,
    write_parts,
)
from vendomini.workloads.registry import todays_runs, workload_named
from vendomini.workloads.workload import Measure, Workload

if TYPE_CHECKING:  # polars takes a while to load, and `import vendomini.cli` must not
    import polars

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was written. `without_steps` are finished runs whose step log was lost; `notes` say
    what else the tables lack, and why."""

    runs_parquet: Path
    runs_csv: Path
    steps_parquet: Path
    schema_json: Path
    runs: int
    done: int
    steps: int
    without_steps: tuple[str, ...]
    notes: tuple[str, ...] = ()


def collect(
    experiment: Experiment, *, out: Path, progress: Callable[[int, int], None]
) -> Collected:
    """Write `runs.parquet`, `runs.csv`, `steps.parquet` and `schema.json` into `out`.

    Every run has a row, whatever its state; steps are those of finished runs. `progress` is
    told how many of how many finished runs have been read. Raises `StoreError`.
    """
    import polars

    experiment.check()
    experiment.disk.make_folder(out)
    runs = todays_runs(experiment.runs())
    workload, note = _workload_of(runs)
    notes = {"": (note, "")} if note else {}  # each with the first run that it is about
    rows = {row["run_id"]: row for row in run_rows(experiment, runs, workload)}
    by_id = {run.id: run for run in runs}
    played_by = _played_by(rows)
    count, found = 0, set[str]()

    def parts() -> "Iterator[list[polars.Series]]":
        nonlocal count
        waiting: list[Step] = []
        progress(0, len(played_by))
        for id, lines in steps_by_run(experiment, played_by):
            try:
                rows[id] |= _derived_columns(experiment, by_id[id], workload, lines)
            except WorkloadError as error:
                # One note for all runs in which it is the same: messages may name what was there.
                notes.setdefault(type(error.__cause__).__name__, (str(error), id))
            waiting += map(_decode_step, lines)
            count += len(lines)
            if len(waiting) >= STEP_ROWS_AT_ONCE:
                yield step_columns(waiting)
                waiting = []
            found.add(id)
            progress(len(found), len(played_by))
        if waiting:
            yield step_columns(waiting)

    collected = Collected(
        runs_parquet=out / "runs.parquet",
        runs_csv=out / "runs.csv",
        steps_parquet=out / "steps.parquet",
        schema_json=out / "schema.json",
        runs=len(rows),
        done=len(played_by),
        steps=0,
        without_steps=(),
    )
    # The steps first: what follows from them is in the table of runs. Memory does not grow with
    # the experiment, parts are written and joined on disk.
    replace_whole(collected.steps_parquet, lambda path: write_parts(parts(), path))
    table = polars.DataFrame(run_columns(list(rows.values())))
    replace_whole(collected.runs_parquet, table.write_parquet)
    replace_whole(collected.runs_csv, table.write_csv)
    schema = encode(_schema(table, workload))
    replace_whole(collected.schema_json, lambda path: path.write_bytes(schema))
    lost = tuple(id for id in played_by if id not in found)
    said = tuple(f"{note} (first in run {id})" if id else note for note, id in notes.values())
    return replace(collected, steps=count, without_steps=lost, notes=said)


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
    workload, _ = _workload_of(runs)
    if workload is None or not workload.measures:
        return []
    rows = {row["run_id"]: row for row in run_rows(experiment, runs, workload)}
    by_id, played_by = {run.id: run for run in runs}, _played_by(rows)
    read = 0
    if type(workload).derive is not Workload.derive:
        progress(0, len(played_by))
        for read, (id, lines) in enumerate(steps_by_run(experiment, played_by), start=1):
            with suppress(WorkloadError):  # `collect` says so; what was logged stands all the same
                rows[id] |= _derived_columns(experiment, by_id[id], workload, lines)
            progress(read, len(played_by))
    done = [rows[id] for id in played_by]
    return [_standing(measure, done) for measure in workload.measures]


# -- runs ----------------------------------------------------------------------------------


def run_rows(
    experiment: Experiment, runs: Sequence[Run], workload: Workload | None
) -> Iterator[Row]:
    """One flat row a run, in the order of the runs; what is derived from steps is still null.

    Keys: ``run_id``, ``state``, ``in_grid``, ``replication``, ``world``, ``arm.<key>``,
    ``served.*`` and ``error.*``, ``outcome.*`` and ``pe.<type>.*``, null where they do not apply.
    Without its workload an outcome is as it was logged.
    """
    state = states(experiment, runs)
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
        result = experiment.result(run.id)
        row: Row = {
            "run_id": run.id,
            "state": state[run.id] if result is None else "done",
            "in_grid": run.in_grid,
            "replication": run.replication,
            "world": world_of(run, unit),
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


# -- steps ---------------------------------------------------------------------------------


def steps_by_run(
    experiment: Experiment, played_by: Mapping[str, str]
) -> Iterator[tuple[str, list[bytes]]]:
    """The logged lines of each run that has some, from the worker whose result counts.

    A worker may have begun a run more than once: its last beginning counts.
    """
    by_worker: dict[str, set[str]] = {}
    for run, incarnation in played_by.items():
        by_worker.setdefault(incarnation, set()).add(run)
    for incarnation, its_runs in by_worker.items():
        path = experiment.steps_path(incarnation)
        if experiment.disk.size(path) == 0:
            continue  # lost: the caller says so
        with (
            explained("read", path),
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            starts_by_run = line_starts_by_run(content, is_wanted=its_runs.__contains__)
            for run, starts in starts_by_run.items():
                lines = [content[at : content.find(b"\n", at)] for at in starts]
                firsts = [at for at, line in enumerate(lines) if _number(line) == 0]
                yield run, lines[max(firsts) :]


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


@functools.cache
def _step_decoder(workload: Workload) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(workload.step_type)


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


# -- private -------------------------------------------------------------------------------


def _workload_of(runs: Sequence[Run]) -> tuple[Workload | None, str]:
    """None, and why, where it is not installed: what was logged can be collected without it."""
    if not runs:
        return None, ""
    try:
        return workload_named(runs[0].workload), ""
    except ConfigError as error:
        return None, f"outcomes are as they were logged, and nothing is derived from steps: {error}"


def _schema(table: "polars.DataFrame", workload: Workload | None) -> Row:
    """What the columns of the table of runs are: their type, and what the workload says of those
    it measures."""
    measures = {} if workload is None else {each.column: each for each in workload.measures}
    columns: Row = {name: {"type": str(type)} for name, type in table.schema.items()}
    for name, measure in measures.items():
        if name in columns:
            columns[name] |= {k: v for k, v in asdict(measure).items() if k != "column"}
    if workload is None:
        return {"runs": columns}
    return {
        "workload": workload.name,
        "version": workload.version,
        "derive_version": workload.derive_version,
        "runs": columns,
    }


def _played_by(rows: Mapping[str, Row]) -> dict[str, str]:
    """Which worker's log counts, of each finished run."""
    return {id: row["served.incarnation"] for id, row in rows.items() if row["state"] == "done"}


def _derived_columns(
    experiment: Experiment, run: Run, workload: Workload | None, lines: Sequence[bytes]
) -> Row:
    result = experiment.result(run.id)
    if workload is None or result is None or run.workload != workload.name:
        return {}
    outcome = todays_outcome(msgspec.json.decode(result.outcome), run, workload)
    found = derived(workload, known_settings(run, workload), lines, outcome)
    return {f"outcome.{name}": value for name, value in found.items()}


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


class _Numbered(msgspec.Struct):
    step: int


def _number(line: bytes) -> int:
    return _decode_number(line).step


_decode_number = msgspec.json.Decoder(_Numbered).decode
_decode_step = msgspec.json.Decoder(Step).decode
