"""From the files of an experiment to tables: one row a run, one row a step."""

import functools
import itertools
import mmap
import operator
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from vendomini.errors import StoreError
from vendomini.phase import Run
from vendomini.schema import choices_of, setting_keys
from vendomini.status import states
from vendomini.store.disk import explained
from vendomini.store.experiment import Experiment
from vendomini.store.logs import line_starts_by_run
from vendomini.store.records import Served
from vendomini.workloads.registry import WORKLOADS

if TYPE_CHECKING:  # polars takes a while to load, and `import vendomini.cli` must not
    import polars

STEP_ROWS_AT_ONCE = 4_000

Column: TypeAlias = list[Any]
Step: TypeAlias = dict[str, msgspec.Raw]
"""One logged step, its values still JSON: they are decoded by column, many at a time."""

T = TypeVar("T")

RUN_PARTS = ("arm.", "outcome.", "pe.", "served.", "error.", "import.")
"""The columns of a run after the first four, part by part, whichever run had them first.

``import.`` is of runs that the predecessor played (`predecessor.py`)."""


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
    told how many of how many finished runs have been read. Raises `StoreError`.
    """
    import polars

    experiment.check()
    experiment.disk.make_folder(out)
    rows = list(run_rows(experiment, experiment.runs()))
    table = polars.DataFrame(run_columns(rows))
    paths = [out / name for name in ("runs.parquet", "runs.csv", "steps.parquet")]
    replace_whole(paths[0], table.write_parquet)
    replace_whole(paths[1], table.write_csv)
    played_by = {row["run_id"]: row["served.incarnation"] for row in rows if row["state"] == "done"}
    steps, found = replace_whole(paths[2], partial(write_steps, experiment, played_by, progress))
    return Collected(
        runs_parquet=paths[0],
        runs_csv=paths[1],
        steps_parquet=paths[2],
        runs=len(rows),
        done=len(played_by),
        steps=steps,
        without_steps=tuple(run for run in played_by if run not in found),
    )


# -- runs ----------------------------------------------------------------------------------


def run_rows(experiment: Experiment, runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """One flat row a run, in the order of the runs.

    Keys: ``run_id``, ``state``, ``in_grid``, ``replication``, ``arm.<key>``, ``served.*`` and
    ``error.*``, ``outcome.*`` and ``pe.<type>.*``, null where they do not apply.
    """
    state = states(experiment, runs)
    varying = varying_settings(runs)
    workload = WORKLOADS.get(runs[0].workload) if runs else None
    known = outcome_columns(workload.outcome_type) if workload else ()
    errors = experiment.errors({run for run, is_in in state.items() if is_in == "failed"})
    nothing = {f"served.{name}": None for name in Served.__struct_fields__} | {
        "error.kind": None,
        "error.message": None,
    }
    for run in runs:
        settings = flat(run.settings)
        # A result may have come since the states were listed, and says so itself.
        result = experiment.result(run.id)
        row: dict[str, Any] = {
            "run_id": run.id,
            "state": state[run.id] if result is None else "done",
            "in_grid": run.in_grid,
            "replication": run.replication,
        }
        row.update((f"arm.{key}", settings.get(key)) for key in varying)
        row.update(dict.fromkeys(known))
        row.update(nothing)
        if result is not None:
            for key, value in flat(msgspec.json.decode(result.outcome)).items():
                row[key if key.startswith("pe.") else f"outcome.{key}"] = value
            row.update((f"served.{k}", v) for k, v in msgspec.structs.asdict(result.served).items())
        elif run.id in errors:
            last = errors[run.id][-1]
            row.update({"error.kind": last.kind, "error.message": last.message})
        yield row


@functools.cache
def outcome_columns(outcome: type) -> tuple[str, ...]:
    """The columns that an outcome's type makes, whatever a single run's outcome lacks.

    A field that is a mapping from a `Literal` has columns for each of its names. Fields of
    ``pe`` stand at the top, as ``pe.<type>.*``.
    """
    found: list[str] = []
    hints = get_type_hints(outcome)
    for key in setting_keys(outcome):
        hint = hints.get(key)
        if get_origin(hint) is not dict:
            found.append(key)
            continue
        names, inside = get_args(hint)
        for name in choices_of(names, {}):
            is_section = isinstance(inside, type) and is_dataclass(inside)
            nested = setting_keys(inside) if is_section else ()
            found += [f"{key}.{name}.{inner}" for inner in nested] or [f"{key}.{name}"]
    return tuple(key if key.startswith("pe.") else f"outcome.{key}" for key in found)


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


def flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings as dotted keys; lists as JSON text."""
    found: dict[str, Any] = {}

    def walk(prefix: str, inside: Mapping[str, Any]) -> None:
        for key, value in inside.items():
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            else:
                found[f"{prefix}{key}"] = _leaf(value)

    walk("", nested)
    return found


def run_columns(rows: Sequence[Mapping[str, Any]]) -> "list[polars.Series]":
    """Rows as columns, each of one type, null where a row has no such key.

    A key that is empty in one run and a mapping in another (``outcome.crash``) has the
    mapping's columns only.
    """
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    above = {name[:at] for name in names for at, sign in enumerate(name) if sign == "."}
    kept = [name for name in names if name not in above]
    head = [name for name in kept if not name.startswith(RUN_PARTS)]
    parts = [name for part in RUN_PARTS for name in kept if name.startswith(part)]
    return [series(name, [row.get(name) for row in rows]) for name in [*head, *parts]]


# -- steps ---------------------------------------------------------------------------------


def write_steps(
    experiment: Experiment,
    played_by: Mapping[str, str],
    progress: Callable[[int, int], None],
    path: Path,
) -> tuple[int, set[str]]:
    """Write the steps of finished runs, run by run; how many, and of which runs.

    `played_by` names the worker of each result. Parts are written and joined on disk: memory
    does not grow with the experiment.
    """
    count, found = 0, set[str]()

    def parts() -> "Iterator[list[polars.Series]]":
        nonlocal count
        waiting: list[Step] = []
        progress(0, len(played_by))
        for run, steps in steps_by_run(experiment, played_by):
            waiting += steps
            count += len(steps)
            if len(waiting) >= STEP_ROWS_AT_ONCE:
                yield step_columns(waiting)
                waiting = []
            found.add(run)
            progress(len(found), len(played_by))
        if waiting:
            yield step_columns(waiting)

    write_parts(parts(), path)
    return count, found


def write_parts(parts: "Iterable[list[polars.Series]]", path: Path) -> None:
    """Write a table of steps whose parts come one after the other, with whatever columns."""
    import polars

    none = polars.DataFrame(schema={"run_id": polars.String, "step": polars.Int64})
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".steps.") as folder:
        scans = [none.lazy()]
        for columns in parts:
            part = Path(folder, f"{len(scans)}.parquet")
            polars.DataFrame(columns).write_parquet(part)
            scans.append(polars.scan_parquet(part))
        polars.concat(scans, how="diagonal_relaxed").sink_parquet(path)


def steps_by_run(
    experiment: Experiment, played_by: Mapping[str, str]
) -> Iterator[tuple[str, list[Step]]]:
    """The steps of each run that has some, from the log of the worker whose result counts.

    A worker may have begun a run more than once: its last beginning counts.
    """
    decode = msgspec.json.Decoder(Step).decode
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
                steps = [decode(content[at : content.find(b"\n", at)]) for at in starts]
                first = max(at for at, step in enumerate(steps) if bytes(step["step"]) == b"0")
                yield run, steps[first:]


def step_columns(steps: Sequence[Step]) -> "list[polars.Series]":
    """Steps as columns; a mapping becomes a column for each of its keys, `truth.budget`.

    Lists, and mappings inside of mappings, are JSON text as it was logged.
    """
    made = []
    for name, texts in _by_key(steps):
        first_letters = set(map(_first, texts))
        if name == "run":
            made.append(series("run_id", _values(texts, first_letters)))
        elif "{" in first_letters and first_letters <= {"{", "n"}:
            for key, inside in _by_key(_decode_nested(_array(texts))):
                made.append(series(f"{name}.{key}", _values(inside, set(map(_first, inside)))))
        else:
            made.append(series(name, _values(texts, first_letters)))
    return made


def _by_key(steps: Sequence[Step | None]) -> Iterator[tuple[str, list[str]]]:
    """For each key the JSON of its values, `null` where a step is null or has no such key."""
    given = [step for step in steps if step is not None]
    shapes = set(map(tuple, given))
    if len(shapes) == 1 and len(given) == len(steps):
        # All have the same keys, as is usual: turned round without a look at each.
        for name, values in zip(*shapes, zip(*map(dict.values, given), strict=True), strict=True):
            yield name, _texts(values)
        return
    there = [step or {} for step in steps]
    for name in dict.fromkeys(itertools.chain.from_iterable(shapes)):
        yield name, _texts([step.get(name, _NULL) for step in there])


def _texts(values: Sequence[msgspec.Raw]) -> list[str]:
    """JSON of each value; a line of JSON has no line end inside."""
    return b"\n".join(values).decode().split("\n")


def _array(texts: Sequence[str]) -> str:
    return f"[{','.join(texts)}]"


def _values(texts: list[str], first_letters: set[str]) -> Column:
    """What the texts say, all at once; lists and mappings stay text. `first_letters` are theirs."""
    if first_letters & {"[", "{"}:
        return [_leaf(msgspec.json.decode(t)) if t[0] not in "[{" else t for t in texts]
    return _decode_values(_array(texts))


# -- values --------------------------------------------------------------------------------


def series(name: str, values: Column) -> "polars.Series":
    """A column of one type: numbers of both kinds become numbers with a fraction, any other
    mixture, and whole numbers beyond 64 bits, become text."""
    import polars

    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return polars.Series(name, values, dtype=polars.Null)
    if kinds == {bool}:
        return polars.Series(name, values, dtype=polars.Boolean)
    if kinds == {str}:
        return polars.Series(name, values, dtype=polars.String)
    if kinds <= {int, float}:
        if float in kinds:
            floats = [None if value is None else float(value) for value in values]
            return polars.Series(name, floats, dtype=polars.Float64)
        whole = [value for value in values if value is not None]
        if min(whole) >= -(2**63) and max(whole) < 2**63:
            return polars.Series(name, values, dtype=polars.Int64)
    texts = [value if value is None else _text(value) for value in values]
    return polars.Series(name, texts, dtype=polars.String)


_first = operator.itemgetter(0)
_NULL = msgspec.Raw(b"null")
_encode = msgspec.json.Encoder().encode
_decode_values = msgspec.json.Decoder(list[Any]).decode
_decode_nested = msgspec.json.Decoder(list[Step | None]).decode


def _leaf(value: Any) -> Any:
    """A value that fits into a cell."""
    return _encode(value).decode() if type(value) in (list, dict, tuple) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _encode(value).decode()


def replace_whole(path: Path, write: Callable[[Path], T]) -> T:
    """Write beside the file, then rename: a reader sees the old table or the new one."""
    import polars

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with explained("write", path):
        try:
            written = write(temporary)
            os.replace(temporary, path)
            return written
        except polars.exceptions.PolarsError as error:
            raise StoreError(
                f"cannot write `{path}`: {error}", hint="choose another folder with --out"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
