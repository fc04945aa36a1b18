"""Tables from logs: every value is in its cell, whatever the steps look like."""

import json
from pathlib import Path
from typing import Any

import msgspec
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import play
from tests.toy import toy_experiment
from vendomini.collect import Collected, Tables, collect, reading
from vendomini.store.experiment import Experiment
from vendomini.tables import in_order, run_columns, series, step_columns

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
DEEP = st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=3), SCALARS, max_size=3)
KEYS = st.sampled_from("abc")
STEPS = st.lists(
    st.dictionaries(KEYS, SCALARS | DEEP | st.dictionaries(KEYS, SCALARS | DEEP), max_size=3),
    min_size=1,
    max_size=8,
)


def table_of(folder: Path, experiment: Experiment) -> tuple[Collected, polars.DataFrame]:
    collected = collect(experiment, out=folder / "tables", progress=lambda done, total: None)
    return collected, polars.read_parquet(collected.steps_parquet)


def logged(steps: list[dict[str, Any]]) -> list[dict[str, msgspec.Raw]]:
    """As they come out of a log, each with its number."""
    lines = [msgspec.json.encode({"run": "r", "step": n, **step}) for n, step in enumerate(steps)]
    return [msgspec.json.decode(line, type=dict[str, msgspec.Raw]) for line in lines]


def cells(step: dict[str, Any], mappings: set[str]) -> dict[str, Any]:
    """What the table says of a step, as one would write it down: `mappings` have columns."""
    found: dict[str, Any] = {}
    for key, value in step.items():
        if key in mappings:
            found |= {f"{key}.{inner}": item for inner, item in (value or {}).items()}
        else:
            found[key] = value
    return found


@settings(max_examples=100, deadline=None)
@given(steps=STEPS)
def test_every_value_of_every_step_is_in_its_cell(steps: list[dict[str, Any]]) -> None:
    table = polars.DataFrame(step_columns(logged(steps)))
    rows = table.to_dicts()
    assert table["run_id"].to_list() == ["r"] * len(steps)
    assert table["step"].to_list() == list(range(len(steps)))
    values = {key: [step[key] for step in steps if step.get(key) is not None] for key in "abc"}
    mappings = {
        key for key, those in values.items() if those and all(isinstance(v, dict) for v in those)
    }
    for row, step in zip(rows, steps, strict=True):
        said = cells(step, mappings)
        for name, value in said.items():
            assert is_shown(value, row.get(name)), (name, value, row)
        for name in row.keys() - said.keys() - {"run_id", "step"}:
            assert row[name] is None


def is_shown(value: Any, cell: Any) -> bool:
    """A value of a column of one type is itself; in a mixed one it is its text."""
    if isinstance(value, list | dict):
        return bool(json.loads(cell) == value)
    if isinstance(cell, str) and not isinstance(value, str):
        return bool(json.loads(cell) == value)
    # A whole number among fractions has their precision.
    return bool(cell == (float(value) if isinstance(cell, float) else value))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 2], polars.Int64),
        ([1, 2.5, None], polars.Float64),
        ([True, None], polars.Boolean),
        (["a", None], polars.String),
        ([None, None], polars.Null),
        ([True, 1], polars.String),
        (["a", 1], polars.String),
        ([2**63], polars.String),
    ],
    ids=str,
)
def test_a_column_has_one_type(values: list[Any], kind: Any) -> None:
    column = series("x", values)
    assert column.dtype == kind
    assert [value is None for value in column.to_list()] == [value is None for value in values]


def test_a_key_that_is_a_mapping_in_some_runs_is_its_columns() -> None:
    rows: list[dict[str, Any]] = [
        {"run_id": "a", "served.node": "n", "outcome.crash": None, "outcome.steps": 3},
        {"run_id": "b", "served.node": "n", "pe.x.mean": 0.5, "outcome.crash.onset": 2},
    ]
    table = polars.DataFrame(run_columns(rows))
    assert table.columns == [
        "run_id",
        "outcome.steps",
        "outcome.crash.onset",
        "pe.x.mean",
        "served.node",
    ]
    assert table["outcome.crash.onset"].to_list() == [None, 2]


def test_of_a_run_begun_twice_by_one_worker_the_last_beginning_counts(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 2)
    play(experiment)
    (log,) = experiment.path("logs").glob("*.steps.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    begun = [line.replace(b'"total":', b'"total":1') for line in lines[:6]]
    log.write_bytes(b"".join([*begun, *lines]) + b'{"run":"00000')
    collected, steps = table_of(tmp_path, experiment)
    assert (collected.steps, collected.without_steps) == (10, ())
    assert steps.group_by("run_id").len()["len"].to_list() == [5, 5]
    expected = [json.loads(line)["total"] for line in lines]
    assert sorted(steps["total"]) == sorted(expected)


def test_tables_in_memory_are_those_that_are_written(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 4)
    play(experiment)
    collected, steps = table_of(tmp_path, experiment)
    tables = Tables(experiment)
    for loaded, written in (
        (tables.runs, polars.read_parquet(collected.runs_parquet)),
        (tables.steps, steps),
    ):
        assert loaded.schema == written.schema
        assert loaded.equals(written)
    assert tables.schema == json.loads(collected.schema_json.read_bytes())
    assert (tables.name, tables.folder) == (experiment.name, experiment.folder)
    for log in experiment.path("logs").glob("*.steps.jsonl"):
        log.unlink()
    assert tables.short == {}  # it is what was there when it was read
    assert len(Tables(experiment).short) == 4


@pytest.mark.parametrize("rows_at_once", [1, 7])
def test_a_table_does_not_depend_on_how_many_steps_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    experiment = toy_experiment(tmp_path, 4)
    play(experiment)
    _, expected = table_of(tmp_path, experiment)
    monkeypatch.setattr(reading, "STEP_ROWS_AT_ONCE", rows_at_once)
    _, steps = table_of(tmp_path, experiment)
    assert steps.equals(expected)
    assert steps.height == 20
    assert Tables(experiment).steps.equals(expected)


def test_rows_are_in_the_grids_order_and_columns_in_that_of_the_steps_type(
    tmp_path: Path,
) -> None:
    """Whichever worker played what, and whichever step came first."""
    experiment = toy_experiment(tmp_path, 6)
    ids = [run.id for run in experiment.runs()]
    for number in (4, 1, 5, 0, 3, 2):  # each by a worker of its own
        play(experiment, only=(ids[number],))
    _, steps = table_of(tmp_path, experiment)
    assert steps["run_id"].unique(maintain_order=True).to_list() == ids
    assert steps["step"].to_list() == [0, 1, 2, 3, 4] * 6
    names = ["other.b", "step", "x", "truth.a", "run_id", "truth.Z"]
    assert in_order(names, ("truth", "x")) == [
        "run_id",
        "step",
        "truth.Z",
        "truth.a",
        "x",
        "other.b",
    ]
