"""Whether an experiment that suffered came to what an undisturbed one of the same phase came to.

`read` takes an experiment's folder, by its documented layout alone, and `compare` judges two of
them without a file. A record that cannot be read counts as none.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec
import polars

Equality: TypeAlias = Literal["bytes", "rows", "different", "none"]
"""How two tables are equal: as files; as rows, in whatever order of rows and columns; not at all.
`none`: one of them is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A collected table: its file, and its frame in an order of its own."""

    content: bytes
    frame: polars.DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What there is of an experiment.

    `outcomes` are bytes by run, `results` how many result records name a run, `steps` the lines
    of each finished run by the log of the worker that its result names, from its last step 0 on.
    """

    runs: tuple[str, ...]
    outcomes: Mapping[str, bytes]
    results: Mapping[str, int]
    steps: Mapping[str, tuple[tuple[int, bytes], ...]]
    runs_table: Table | None = None
    steps_table: Table | None = None
    rows: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is wrong, as ids of runs; all empty and both tables equal: nothing is."""

    runs: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    different: tuple[str, ...]
    short: tuple[str, ...]
    runs_table: Equality
    steps_table: Equality

    @property
    def is_good(self) -> bool:
        wrong = self.lost or self.doubled or self.different or self.short
        tables = {self.runs_table, self.steps_table}
        return not wrong and tables <= {"bytes", "rows"}

    def figures(self) -> dict[str, Any]:
        return {
            "lost": len(self.lost),
            "doubled": len(self.doubled),
            "different": len(self.different),
            "short": len(self.short),
            "runs table": self.runs_table,
            "steps table": self.steps_table,
        }


def compare(suffered: Played, undisturbed: Played) -> Verdict:
    """Judge an experiment by another one that nothing happened to.

    Runs are lost if they have no result, doubled if they have two or two rows, different if the
    outcome or a logged step has other bytes, short if steps are missing, doubled or out of order.
    """
    lost, doubled, different, short = [], [], [], []
    for run in undisturbed.runs:
        if suffered.results.get(run, 0) > 1 or suffered.rows.get(run, 0) > 1:
            doubled.append(run)
        if run not in suffered.outcomes:
            lost.append(run)
            continue
        steps, expected = suffered.steps.get(run, ()), undisturbed.steps.get(run, ())
        is_short = [number for number, _ in steps] != [number for number, _ in expected]
        if is_short:
            short.append(run)
        if suffered.outcomes[run] != undisturbed.outcomes[run] or (
            not is_short and steps != expected
        ):
            different.append(run)
    return Verdict(
        runs=len(undisturbed.runs),
        lost=tuple(lost),
        doubled=tuple(doubled),
        different=tuple(different),
        short=tuple(short),
        runs_table=equality(suffered.runs_table, undisturbed.runs_table),
        steps_table=equality(suffered.steps_table, undisturbed.steps_table),
    )


def short_now(suffered: Played, undisturbed: Played) -> tuple[str, ...]:
    """The finished runs that are short, whatever else is unfinished."""
    return compare(suffered, undisturbed).short


def equality(one: Table | None, other: Table | None) -> Equality:
    if one is None or other is None:
        return "none"
    if one.content == other.content:
        return "bytes"
    return "rows" if one.frame.equals(other.frame) else "different"


def read(folder: Path) -> Played:
    """What there is in an experiment's folder, `collected/` included."""
    runs = tuple(_runs(folder))
    outcomes: dict[str, bytes] = {}
    places: dict[str, str] = {}
    results: Counter[str] = Counter()
    for path in _files(folder / "results"):
        result = _result(path)
        if result is None:
            continue
        results[result.run] += 1
        if path.name == f"{result.run}.json":
            outcomes[result.run] = bytes(result.outcome)
            places[result.run] = str(result.served.get("incarnation"))
    by_worker: dict[str, set[str]] = {}
    for run, incarnation in places.items():
        by_worker.setdefault(incarnation, set()).add(run)
    steps: dict[str, tuple[tuple[int, bytes], ...]] = {}
    for incarnation, its in by_worker.items():
        log = folder / "logs" / f"{incarnation}.steps.jsonl"
        steps.update(logged_steps(log.read_bytes() if log.is_file() else b"", its))
    runs_table = _table(folder / "collected" / "runs.parquet", key=["run_id"], leave_out="served.")
    return Played(
        runs=runs,
        outcomes=outcomes,
        results=results,
        steps=steps,
        runs_table=runs_table,
        steps_table=_table(folder / "collected" / "steps.parquet", key=["run_id", "step"]),
        rows=Counter() if runs_table is None else Counter(runs_table.frame["run_id"].to_list()),
    )


def logged_steps(content: bytes, runs: Collection[str]) -> dict[str, tuple[tuple[int, bytes], ...]]:
    """The steps of each run, numbers and lines, from its last step 0 on; a torn end is dropped."""
    found: dict[str, list[tuple[int, bytes]]] = {}
    for line in content.split(b"\n")[:-1]:
        match = STEP_LINE.match(line)
        if match is None or (run := match[1].decode()) not in runs:
            continue
        number = int(match[2])
        if number == 0:
            found[run] = []
        # Hashed, so that a long phase's logs are not held twice.
        found.setdefault(run, []).append((number, hash(line).to_bytes(8, "big", signed=True)))
    return {run: tuple(lines) for run, lines in found.items()}


# -- private -------------------------------------------------------------------------------

STEP_LINE = re.compile(rb'\{"run":"([^"]+)","step":(\d+)[,}]')


class _Result(msgspec.Struct, frozen=True):
    run: str
    outcome: msgspec.Raw
    served: dict[str, Any]


class _Run(msgspec.Struct, frozen=True):
    id: str


def _runs(folder: Path) -> list[str]:
    path = folder / "runs.jsonl"
    if not path.is_file():
        return []
    found = []
    for line in path.read_bytes().splitlines():
        try:
            found.append(msgspec.json.decode(line, type=_Run).id)
        except msgspec.DecodeError:
            continue
    return found


def _files(folder: Path) -> list[Path]:
    """Regular files that are not temporary; a pipe in their place would never be read."""
    if not folder.is_dir():
        return []
    return [each for each in folder.iterdir() if not each.name.startswith(".") and each.is_file()]


def _result(path: Path) -> _Result | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Result)
    except (OSError, msgspec.DecodeError):
        return None


def _table(path: Path, *, key: list[str], leave_out: str | None = None) -> Table | None:
    if not path.is_file():
        return None
    frame = polars.read_parquet(path)
    kept = [
        name for name in sorted(frame.columns) if not (leave_out and name.startswith(leave_out))
    ]
    return Table(content=path.read_bytes(), frame=frame.select(kept).sort(key))
