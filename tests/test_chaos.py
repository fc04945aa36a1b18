"""What an experiment survives (`bench.chaos`): a sample of each kind, and the instrument itself."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars
import pytest

from bench.chaos import power, straced
from bench.chaos.injected import Faults
from bench.chaos.odd_cases import SAMPLE, cases
from bench.chaos.suffering import noted_faults, write_shim
from bench.chaos.verdict import Played, Table, compare, read

ROOT = Path(__file__).parent.parent
WHY_NOT: dict[str, Callable[[], str | None]] = {
    "power": power.why_not_here,
    "strace": straced.why_not_here,
}
KINDS = ("power", "errnos", "strace", "odd")


def chaos(kind: str, place: Path, *more: str) -> list[dict[str, Any]]:
    """The figures of one kind; the test is skipped where it cannot be."""
    if (reason := WHY_NOT.get(kind, lambda: None)()) is not None:
        pytest.skip(reason)
    figures = place / "figures.json"
    command = [sys.executable, "-m", "bench.chaos", kind, "--json", str(figures), *more]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said, _ = process.communicate()
        except BaseException:
            process.terminate()  # and waited for: it unmounts its disk
            raise
    assert process.returncode in (0, 1), said
    rows: list[dict[str, Any]] = json.loads(figures.read_text())["results"]
    assert rows
    return rows


def assert_nothing_was_lost(rows: list[dict[str, Any]]) -> None:
    bad = [
        {name: value for name, value in row.items() if name != "said"}
        for row in rows
        if not row["good"]
    ]
    assert not bad, json.dumps(bad, indent=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_faults_loses_doubles_changes_and_shortens_no_run(
    kind: str, tmp_path: Path
) -> None:
    assert_nothing_was_lost(chaos(kind, tmp_path, "--short"))


@pytest.mark.long
@pytest.mark.timeout(5400)
@pytest.mark.parametrize("kind", KINDS)
def test_no_fault_loses_doubles_changes_or_shortens_a_run(kind: str, tmp_path: Path) -> None:
    assert_nothing_was_lost(chaos(kind, tmp_path))


# -- the verdict ---------------------------------------------------------------------------


def steps_of(run: str, *numbers: int) -> tuple[tuple[int, bytes], ...]:
    return tuple((number, f"{run} {number}".encode()) for number in numbers)


def table(**columns: list[Any]) -> Table:
    frame = polars.DataFrame(columns)
    return Table(content=repr(columns).encode(), frame=frame)


WHOLE = Played(
    runs=("a", "b"),
    outcomes={"a": b'{"steps":3}', "b": b'{"steps":2}'},
    results={"a": 1, "b": 1},
    steps={"a": steps_of("a", 0, 1, 2), "b": steps_of("b", 0, 1)},
    runs_table=table(run_id=["a", "b"], steps=[3, 2]),
    steps_table=table(run_id=["a", "a", "a", "b", "b"], step=[0, 1, 2, 0, 1]),
    rows={"a": 1, "b": 1},
)
MUTANTS: dict[str, tuple[Played, str]] = {
    "no result": (replace(WHOLE, outcomes={"a": b'{"steps":3}'}), "lost"),
    "two results": (replace(WHOLE, results={"a": 2, "b": 1}), "doubled"),
    "two rows": (replace(WHOLE, rows={"a": 1, "b": 2}), "doubled"),
    "another outcome": (
        replace(WHOLE, outcomes={**WHOLE.outcomes, "b": b'{"steps":2 }'}),
        "different",
    ),
    "another step": (
        replace(WHOLE, steps={**WHOLE.steps, "b": ((0, b"b 0"), (1, b"other"))}),
        "different",
    ),
    "no step": (replace(WHOLE, steps={"a": WHOLE.steps["a"]}), "short"),
    "the last step lost": (
        replace(WHOLE, steps={**WHOLE.steps, "a": steps_of("a", 0, 1)}),
        "short",
    ),
    "a step in the middle lost": (
        replace(WHOLE, steps={**WHOLE.steps, "a": steps_of("a", 0, 2)}),
        "short",
    ),
    "a step twice": (
        replace(WHOLE, steps={**WHOLE.steps, "a": steps_of("a", 0, 1, 1, 2)}),
        "short",
    ),
}


def test_an_equal_play_is_good() -> None:
    assert compare(WHOLE, WHOLE).is_good


@pytest.mark.parametrize("name", MUTANTS)
def test_the_verdict_sees(name: str) -> None:
    mutant, kind = MUTANTS[name]
    verdict = compare(mutant, WHOLE)
    assert not verdict.is_good
    found = {
        each: getattr(verdict, each)
        for each in ("lost", "doubled", "different", "short")
        if getattr(verdict, each)
    }
    assert list(found) == [kind]
    assert len(found[kind]) == 1


def test_tables_are_equal_as_bytes_or_as_rows_or_not_at_all() -> None:
    same_rows = replace(WHOLE.steps_table, content=b"other bytes")  # type: ignore[type-var]
    assert compare(WHOLE, WHOLE).steps_table == "bytes"
    assert compare(replace(WHOLE, steps_table=same_rows), WHOLE).steps_table == "rows"
    fewer = table(run_id=["a"], step=[0])
    assert compare(replace(WHOLE, steps_table=fewer), WHOLE).steps_table == "different"
    assert not compare(replace(WHOLE, steps_table=fewer), WHOLE).is_good
    assert not compare(replace(WHOLE, runs_table=None), WHOLE).is_good


def test_a_play_is_read_from_its_files_alone(tmp_path: Path) -> None:
    for name in ("results", "logs", "collected"):
        (tmp_path / name).mkdir()
    (tmp_path / "runs.jsonl").write_text('{"id":"a"}\n{"id":"b"}\n')
    for run in "ab":
        served = {"attempt": 1, "incarnation": "w"}
        record = {"run": run, "outcome": {"steps": 2}, "served": served}
        (tmp_path / "results" / f"{run}.json").write_text(json.dumps(record))
    (tmp_path / "results" / "c.json").write_text("")
    log = ["a 0", "b 0", "a 1", "a 0", "a 1", "b 1"]  # `a` was begun anew
    lines = [f'{{"run":"{each[0]}","step":{each[2]},"day":0}}' for each in log]
    (tmp_path / "logs" / "w.steps.jsonl").write_text("\n".join(lines) + '\n{"run":"b","step":2')
    frame = polars.DataFrame({"run_id": ["b", "a", "a"], "served.node": ["x", "y", "z"]})
    frame.write_parquet(tmp_path / "collected" / "runs.parquet")
    played = read(tmp_path)
    assert played.runs == ("a", "b")
    assert played.outcomes == {"a": b'{"steps": 2}', "b": b'{"steps": 2}'}
    assert {run: [number for number, _ in its] for run, its in played.steps.items()} == {
        "a": [0, 1],
        "b": [0, 1],
    }
    assert played.rows == {"a": 2, "b": 1}
    assert played.runs_table is not None
    assert played.runs_table.frame.columns == ["run_id"]
    assert played.steps_table is None


# -- the faults ----------------------------------------------------------------------------

OPERATIONS = """
import os, sys
from pathlib import Path
folder = Path(sys.argv[1])
for name in sys.argv[2:]:
    path = folder / name
    try:
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT)
        try:
            os.write(handle, b"written")
            os.fsync(handle)
        finally:
            os.close(handle)
        os.link(path, f"{path}.link")
        os.replace(f"{path}.link", f"{path}.moved")
        path.read_bytes(), path.stat(), list(os.scandir(path.parent)), os.listdir(path.parent)
        path.unlink()
        print("done")
    except OSError as error:
        print(type(error).__name__, error.errno, error.filename or "")
"""


def operate(folder: Path, notes: Path, *names: str, **faults: Any) -> list[str]:
    """What a process says that has these faults: a line for each name."""
    notes.mkdir(exist_ok=True)
    env = {
        **os.environ,
        "PYTHONPATH": str(write_shim(notes)),
        **Faults(folder=str(folder), noted=str(notes), **faults).variable(),
    }
    command = [sys.executable, "-c", OPERATIONS, str(folder), *names]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "operation", ["open", "write", "fsync", "close", "link", "replace", "unlink", "listdir", "stat"]
)
def test_each_operation_fails_below_the_folder_and_nowhere_else(
    operation: str, tmp_path: Path
) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "results").mkdir()
    said = operate(
        folder,
        tmp_path / "notes",
        "results/a",
        "jobs/b",
        "../elsewhere",
        errno=116,
        probability=1.0,
        operations=(operation,),
    )
    assert said[0].startswith("OSError 116")
    assert said[1:] == ["done", "done"]
    assert noted_faults(tmp_path / "notes") >= 1


def test_a_lost_answer_leaves_the_name_that_was_made(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    names = [f"results/{number}" for number in range(40)]
    faults = {"errno": 5, "probability": 1.0, "operations": ("link",)}
    operate(folder, tmp_path / "notes", *names, **faults)
    made = len(list((folder / "results").glob("*.link")))
    assert 5 < made < 35


def test_a_spell_fails_what_writes_and_a_file_has_so_many_links(tmp_path: Path) -> None:
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "a").write_text("there")
    full = {"errno": 28, "probability": 1.0, "writing": True}
    assert operate(folder, tmp_path / "full", "a", **full)[0].startswith("OSError 28")
    (folder / "a").write_text("there")
    names = ("a", "results/b", "a")  # the first result begins the spell
    said = operate(folder, tmp_path / "spell", *names, **full, spell_s=60.0)
    assert said[0] == "done"
    assert said[2].startswith("OSError 28")
    assert operate(folder, tmp_path / "links", "b", links=1)[0].startswith("OSError 31") is False
    linked = (folder / "c", folder / "c.other")
    linked[0].write_text("")
    os.link(*linked)
    assert operate(folder, tmp_path / "many", "c", links=1)[0].startswith("OSError 31")


def test_the_sample_of_odd_files_is_among_the_cases() -> None:
    assert {case.name for case in cases()} >= set(SAMPLE)
