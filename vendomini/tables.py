"""Tables of runs and steps: rows to columns, values to cells, files written whole.

Whatever plays and whatever is collected, cells hold plain values; what is nested becomes columns.
"""

import functools
import itertools
import operator
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields as fields_of
from dataclasses import is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from vendomini.errors import StoreError
from vendomini.schema import choices_of, setting_keys
from vendomini.store.trying import explained

if TYPE_CHECKING:  # polars takes a while to load, and `import vendomini.cli` must not
    import polars

STEP_ROWS_AT_ONCE = 4_000

Column: TypeAlias = list[Any]
Step: TypeAlias = dict[str, msgspec.Raw]
"""One logged step, its values still JSON: they are decoded by column, many at a time."""

T = TypeVar("T")

RUN_PARTS = ("arm.", "outcome.", "pe.", "served.", "error.", "import.")
"""The columns of a run after the first four, part by part, whichever run had them first.

``import.`` is of runs that another program played."""


RUN_LABELS = (
    *("experiment", "phase_file", "workload", "workload_version", "model", "model_revision"),
    *("agent_kind", "seed"),
)
"""Columns that say what a run is of, constant or not."""


# -- rows ---------------------------------------------------------------------------------


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


# -- steps --------------------------------------------------------------------------------


def write_parts(
    parts: "Iterable[list[polars.Series]]", path: Path, *, fields: Sequence[str] = ()
) -> None:
    """Write a table of steps whose parts come one after the other, with whatever columns: those
    of the `fields` first, in their order, then by name."""
    import polars

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".steps.") as folder:
        scans = [_no_steps().lazy()]
        for columns in parts:
            part = Path(folder, f"{len(scans)}.parquet")
            polars.DataFrame(columns).write_parquet(part)
            scans.append(polars.scan_parquet(part))
        joined = polars.concat(scans, how="diagonal_relaxed")
        names = in_order(joined.collect_schema().names(), fields)
        joined.select(names).sink_parquet(path)


def joined_parts(
    parts: "Iterable[list[polars.Series]]", *, fields: Sequence[str]
) -> "polars.DataFrame":
    """The same table in memory."""
    import polars

    joined = polars.concat(
        [_no_steps(), *map(polars.DataFrame, parts)], how="diagonal_relaxed", rechunk=True
    )
    return joined.select(in_order(joined.columns, fields))


def field_names(step: Any) -> tuple[str, ...]:
    """Those of a step's type, in the order in which it declares them; none of a mapping's."""
    if hasattr(step, "__struct_fields__"):
        return tuple(step.__struct_fields__)
    return tuple(field.name for field in fields_of(step)) if is_dataclass(step) else ()


def in_order(names: Iterable[str], fields: Sequence[str]) -> list[str]:
    """The same for whatever steps come first: by field, then by name."""
    rank = {name: at for at, name in enumerate(("run_id", "step", *fields))}

    def place(name: str) -> tuple[int, str]:
        return rank.get(name.partition(".")[0], len(rank)), name

    return sorted(names, key=place)


def _no_steps() -> "polars.DataFrame":
    import polars

    return polars.DataFrame(schema={"run_id": polars.String, "step": polars.Int64})


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


def run_labels(labels: Mapping[str, Column]) -> "polars.DataFrame":
    """What the steps of a run are labelled with; ``run_id`` is one of the columns."""
    import polars

    return polars.DataFrame([series(name, values) for name, values in labels.items()])


def labelled(columns: "list[polars.Series]", labels: "polars.DataFrame") -> "list[polars.Series]":
    """Columns of steps with the labels of their runs, but for names that the steps have, too."""
    import polars

    steps = polars.DataFrame(columns)
    more = [name for name in labels.columns if name not in steps.columns]
    told = labels.select("run_id", *more)
    return steps.join(told, on="run_id", how="left", maintain_order="left").get_columns()


def _by_key(steps: Sequence[Step | None]) -> Iterator[tuple[str, list[str]]]:
    """For each key the JSON of its values, `null` where a step is null or has no such key."""
    given = [step for step in steps if step is not None]
    shapes = list(dict.fromkeys(map(tuple, given)))  # in order: tables are the same each time
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
