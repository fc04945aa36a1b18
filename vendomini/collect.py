"""From the files of an experiment to tables: one row a run, one row a step."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from vendomini.errors import StoreError
from vendomini.phase import Run
from vendomini.status import states
from vendomini.store.disk import explained
from vendomini.store.experiment import Experiment
from vendomini.store.logs import lines_by_run

STEP_ROWS_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was written. `without_steps` are finished runs whose step log was lost."""

    runs_parquet: Path
    runs_csv: Path
    steps_parquet: Path
    runs: int
    done: int
    steps: int
    without_steps: tuple[str, ...]


def collect(
    experiment: Experiment, *, out: Path, progress: Callable[[int, int], None]
) -> Collected:
    """Write `runs.parquet`, `runs.csv` and `steps.parquet` into `out`.

    Every run has a row, whatever its state; steps are those of finished runs. `progress` is
    told how many of how many runs have been read. Raises `StoreError`.
    """
    import polars

    experiment.check()
    experiment.disk.make_folder(out)
    runs = experiment.runs()
    rows = list(run_rows(experiment, runs))
    table = polars.DataFrame(columns_of(rows))
    paths = [out / name for name in ("runs.parquet", "runs.csv", "steps.parquet")]
    _replace(paths[0], table.write_parquet)
    _replace(paths[1], table.write_csv)

    played_by = {
        row["run_id"]: row["served.incarnation"] for row in rows if "served.incarnation" in row
    }
    found: set[str] = set()
    frames = []
    for chunk in _chunks(step_rows(experiment, played_by, found, progress)):
        frames.append(polars.DataFrame(columns_of(chunk)))
    steps = polars.concat(frames, how="diagonal_relaxed") if frames else polars.DataFrame()
    _replace(paths[2], steps.write_parquet)
    return Collected(
        runs_parquet=paths[0],
        runs_csv=paths[1],
        steps_parquet=paths[2],
        runs=len(rows),
        done=len(played_by),
        steps=steps.height,
        without_steps=tuple(run for run in played_by if run not in found),
    )


def run_rows(experiment: Experiment, runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """One flat row a run, in the order of the runs.

    Keys: ``run_id``, ``state``, ``in_grid``, ``replication``, ``arm.<key>``, then, as far as
    there is a result, ``outcome.*``, ``pe.<type>.*`` and ``served.*``, or of a failed run
    ``error.*``.
    """
    state = states(experiment, runs)
    varying = varying_settings(runs)
    errors = experiment.errors({run for run, is_in in state.items() if is_in == "failed"})
    for run in runs:
        settings = flat(run.settings)
        row: dict[str, Any] = {
            "run_id": run.id,
            "state": state[run.id],
            "in_grid": run.in_grid,
            "replication": run.replication,
        }
        row.update((f"arm.{key}", settings.get(key)) for key in varying)
        result = experiment.result(run.id)
        if result is not None:
            for key, value in flat(msgspec.json.decode(result.outcome)).items():
                row[key if key.startswith("pe.") else f"outcome.{key}"] = value
            row.update((f"served.{k}", v) for k, v in msgspec.structs.asdict(result.served).items())
        elif run.id in errors:
            last = errors[run.id][-1]
            row.update({"error.kind": last.kind, "error.message": last.message})
        yield row


def varying_settings(runs: Iterable[Run]) -> list[str]:
    """Dotted keys of the grid, and of every other setting that differs between runs."""
    grid: dict[str, None] = {}
    first: dict[str, Any] | None = None
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


def step_rows(
    experiment: Experiment,
    played_by: Mapping[str, str],
    found: set[str],
    progress: Callable[[int, int], None],
) -> Iterator[dict[str, Any]]:
    """The steps of finished runs, from the log of the worker whose result counts.

    A worker may have tried a run twice: its last beginning counts. Adds to `found` each run
    that has steps.
    """
    for incarnation in dict.fromkeys(played_by.values()):
        content = experiment.disk.read(experiment.steps_path(incarnation))
        mine = {run for run, its in played_by.items() if its == incarnation}
        for run, lines in lines_by_run(content or b"", is_wanted=mine.__contains__).items():
            steps = [msgspec.json.decode(line) for line in lines]
            begin = max(index for index, step in enumerate(steps) if step["step"] == 0)
            found.add(run)
            progress(len(found), len(played_by))
            for step in steps[begin:]:
                del step["run"]
                yield {"run_id": run, **flat(step, levels=2)}


def flat(nested: Mapping[str, Any], *, levels: int = 8) -> dict[str, Any]:
    """Nested mappings as dotted keys, down to `levels`; lists and deeper ones as JSON text."""
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Any, left: int) -> None:
        if isinstance(value, Mapping) and left > 0:
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item, left - 1)
        elif isinstance(value, Mapping | list | tuple):
            found[prefix] = msgspec.json.encode(value).decode()
        else:
            found[prefix] = value

    walk("", nested, levels)
    return found


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns, each of one type, null where a row has no such key.

    Numbers of both kinds become numbers with a fraction; any other mixture becomes text.
    """
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif len(kinds) > 1:
            values = [value if value is None else _text(value) for value in values]
        columns[name] = values
    return columns


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _chunks(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) >= STEP_ROWS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, then rename: a reader sees the old table or the new one."""
    import polars

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with explained("write", path):
        try:
            write(temporary)
            os.replace(temporary, path)
        except polars.exceptions.PolarsError as error:
            raise StoreError(
                f"cannot write `{path}`: {error}", hint="choose another folder with --out"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
