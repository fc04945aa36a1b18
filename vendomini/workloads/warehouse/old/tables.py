"""Tables of the predecessor's results, with the columns that `collect` gives our own."""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vendomini.store.disk import Disk
from vendomini.store.records import Served
from vendomini.tables import (
    RUN_LABELS,
    STEP_ROWS_AT_ONCE,
    flat,
    outcome_columns,
    replace_whole,
    run_columns,
    series,
    write_parts,
)
from vendomini.workloads.warehouse.derived import COLUMNS
from vendomini.workloads.warehouse.old.folder import (
    Folder,
    Tree,
    mapping,
    number,
    read_folder,
    result_folders,
)
from vendomini.workloads.warehouse.old.outcome import outcome_of, problem_of
from vendomini.workloads.warehouse.old.said import words
from vendomini.workloads.warehouse.old.words import MODEL, todays_key, todays_model
from vendomini.workloads.warehouse.records import Outcome

if TYPE_CHECKING:
    import polars

NO_AXES = frozenset({"combination_id", "replication_id", "seed"})
"""Parameters of a run that say which one it is, not what it plays."""

IDLE = (
    "env.",
    "interface.",
    "agent.interface.",
    "model.context_length",
    "agent.model.context_length",
    "simulation.pressure_level",
)
"""What those parameters begin with that the program stored and never used."""

MISSING: Mapping[str, str] = {
    "pe.*": "it resolved no prediction: its errors and averages were 0 whatever happened",
    "outcome.shocks.*": "it logged no shocks",
    "outcome.crash.severity": "it never told severities",
    "outcome.signs.*": "it looked no further after the first sign",
    "outcome.max_steps": "its limit of steps was not logged",
    "outcome.measures.net_worth, .orders_placed, .calls_failed": "it logged neither prices nor "
    "the results of calls",
    "outcome.format_failures, .re_asks": "it took every reply for an action and asked none again",
    "served.*": "it did not record what answered",
}
"""Columns of our tables that no run of the predecessor can fill, and why."""

TRUTH = {
    "budget": "budget",
    "storage": "total_storage",
    "pending": "pending_orders",
    "inbox": "inbox_count",
    "customers": "open_customer_orders",
    "shipped": "customer_orders_shipped",
    "failed": "customer_orders_failed",
    "revenue": "revenue",
}
"""Our words for the world after a step, and its for the observation that the step returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What was written, and what was found.

    `failed` counts runs without an outcome by why; `merged` folders are among them, written by
    `runs_in_merged` runs at least. `actions_by_parser` counts, of the `replies` that were
    logged, those that did not name the action which was taken. `idle` are axes that had no
    effect when they were played.
    """

    runs_parquet: Path
    runs_csv: Path
    steps_parquet: Path
    runs: int
    done: int
    failed: Mapping[str, int]
    merged: int
    runs_in_merged: int
    steps: int
    unreadable_lines: int
    replies: int
    actions_by_parser: int
    idle: tuple[str, ...]
    missing: Mapping[str, str] = field(default_factory=lambda: MISSING)

    def words(self) -> Sequence[str]:
        """What was found, then what is missing and why, a line each."""
        return words(self)

    def as_json(self) -> dict[str, Any]:
        """The same for scripts."""
        return {n: str(v) if isinstance(v, Path) else v for n, v in asdict(self).items()}


def import_results(folder: Path, *, out: Path, progress: Callable[[int, int], None]) -> Imported:
    """Write `runs.parquet`, `runs.csv` and `steps.parquet` into `out`.

    `folder` is the predecessor's project, its `logs`, or one folder of results. Every folder of
    results has a row; steps are all that can be read. `progress` is told how many of how many
    folders have been read. Raises `StoreError`, also if there are no results.
    """
    import polars

    found = result_folders(folder)
    disk = Disk()
    rows: list[Tree] = []
    tally: Counter[str] = Counter()
    idle: dict[str, None] = {}

    def parts() -> "Iterator[list[polars.Series]]":
        waiting: list[Tree] = []
        progress(0, len(found))
        for count, path in enumerate(found, start=1):
            read = read_folder(path, disk)
            rows.append(run_row(read))
            waiting += step_rows(read)
            tally.update(
                {
                    "runs in merged": read.runs if read.is_merged else 0,
                    "steps": len(read.steps),
                    "unreadable lines": read.unreadable_lines,
                    "replies": len(read.replies),
                    "by parser": sum(read.replies),
                }
            )
            idle.update(dict.fromkeys(k for k in _params(read) if k.startswith(IDLE)))
            if len(waiting) >= STEP_ROWS_AT_ONCE:
                yield step_columns(waiting)
                waiting = []
            progress(count, len(found))
        if waiting:
            yield step_columns(waiting)

    disk.make_folder(out)
    paths = [out / name for name in ("runs.parquet", "runs.csv", "steps.parquet")]
    replace_whole(paths[2], partial(write_parts, parts()))
    table = polars.DataFrame(run_columns(rows))
    replace_whole(paths[0], table.write_parquet)
    replace_whole(paths[1], table.write_csv)
    kinds = Counter(row["error.kind"] for row in rows if row["state"] == "failed")
    return Imported(
        runs_parquet=paths[0],
        runs_csv=paths[1],
        steps_parquet=paths[2],
        runs=len(rows),
        done=sum(row["state"] == "done" for row in rows),
        failed=dict(sorted(kinds.items())),
        merged=kinds["merged"],
        runs_in_merged=tally["runs in merged"],
        steps=tally["steps"],
        unreadable_lines=tally["unreadable lines"],
        replies=tally["replies"],
        actions_by_parser=tally["by parser"],
        idle=tuple(idle),
    )


def run_row(folder: Folder) -> Tree:
    """The row of a folder, with every column of a run of ours; null where it cannot be told."""
    params = _params(folder)
    problem = problem_of(folder)
    replication = number(params.get("replication_id"))
    own = {} if folder.is_merged else folder.summary or {}
    row: Tree = {
        "run_id": folder.id,
        "state": "done" if problem is None else "failed",
        "in_grid": True if params else None,
        "replication": replication if isinstance(replication, int) else None,
        "world": str(replication) if isinstance(replication, int) else None,
    }
    row |= dict.fromkeys(RUN_LABELS)
    row |= {f"arm.{key}": value for key, value in _arm(params).items()}
    row |= dict.fromkeys((*outcome_columns(Outcome), *map("outcome.{}".format, COLUMNS)))
    row |= {f"served.{name}": None for name in Served.__struct_fields__}
    row |= dict(zip(("error.kind", "error.message"), problem or (None, None), strict=True))
    if problem is None:
        row |= outcome_of(folder)
    return row | {
        "import.runs_in_folder": folder.runs,
        "import.steps": len(folder.steps),
        "import.unreadable_lines": folder.unreadable_lines,
        "import.replies": len(folder.replies),
        "import.actions_by_parser": sum(folder.replies) if folder.replies else None,
        "import.fulfilled_orders": number(own.get("fulfilled_orders")),
        "import.total_orders_requested": number(own.get("total_orders_requested")),
    }


def step_rows(folder: Folder) -> Iterator[Tree]:
    """A row for each step that can be read, also of runs that failed and of merged folders."""
    first = 0 if folder.is_merged else folder.first_step
    onset = folder.onset
    for step in folder.steps:
        count = step.step - first
        signs = None  # after its first sign the detector looked no further
        if not folder.is_merged and (onset is None or count <= onset):
            signs = _encoded([step.crash_type] if count == onset else [])
        row: Tree = {
            "run_id": folder.id,
            "step": count,
            "day": number(step.before.get("day")),
            "action.tool": step.tool,
            "action.args": None if step.args is None else _encoded(step.args),
            "import.signs": signs,
        }
        row |= {f"truth.{our}": number(step.after.get(its)) for our, its in TRUTH.items()}
        yield row | {
            "import.runs_in_folder": folder.runs,
            "import.line": step.line,
            "import.crash_detected": step.crashed,
            "import.crash_type": step.crash_type,
            "import.action_by_parser": step.by_parser,
        }


def step_columns(rows: Sequence[Mapping[str, Any]]) -> "list[polars.Series]":
    """Rows of steps as columns; all have the same keys."""
    return [series(name, [row[name] for row in rows]) for name in rows[0]]


def _params(folder: Folder) -> Mapping[str, Any]:
    return mapping((folder.summary or {}).get("params"))


def _arm(params: Mapping[str, Any]) -> Tree:
    """A run's parameters under today's keys."""
    found: Tree = {}
    for key, value in flat(params).items():
        if key in NO_AXES:
            continue
        today = todays_key(key)
        if today == MODEL and isinstance(value, str):
            value = todays_model(value, is_folder=lambda name: False)
        found.setdefault(today, value)
    return found


def _encoded(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
