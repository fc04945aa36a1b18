"""The predecessor's results become our tables, and nothing it never measured becomes a number."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.product import ROOT, vendomini
from vendomini.errors import StoreError
from vendomini.store.disk import Disk
from vendomini.workloads.warehouse.old import tables
from vendomini.workloads.warehouse.old.folder import Folder, named_tool, read_folder
from vendomini.workloads.warehouse.old.outcome import problem_of
from vendomini.workloads.warehouse.old.said import words
from vendomini.workloads.warehouse.old.tables import (
    Imported,
    import_results,
    run_row,
    step_columns,
    step_rows,
)

TYPES = ("temporal", "quantity", "cost", "causal")
AVERAGES = {kind: {"fast": 0.0, "med": 0.0, "slow": 0.0} for kind in TYPES}
PARAMS = {
    "agent.model.name": "meta-llama/Llama-3.1-8B-Instruct",
    "pe_induction.p_shock": 0.3,
    "pe_induction.pe_mag": "high",
    "agent.interface.prediction_mode": "required",
    "combination_id": 7,
    "replication_id": 2,
    "seed": 37,
}


def observation(day: int, **changes: Any) -> dict[str, Any]:
    return {
        "day": day,
        "budget": 200.0 - day,
        "revenue": 1.5 * day,
        "storage": {"sku_0": day, "sku_1": 0},
        "storage_capacity": 500,
        "pending_orders": 1,
        "inbox_count": 3,
        "total_storage": day,
        "open_customer_orders": 2,
        "overdue_customer_orders": 0,
        "customer_orders_shipped": 4,
        "customer_orders_failed": 1,
        **changes,
    }


def step(n: int, tool: str = "tool_check_inbox", **changes: Any) -> dict[str, Any]:
    """A line of steps.jsonl as the predecessor wrote it."""
    action = {"tool": tool, "args": {}}
    return {
        "step": n,
        "observation": observation(n),
        "action": action,
        "prediction": {
            **action,
            "expected_success": True,
            "prediction_text": "",
            "scratchpad_raw": f"THOUGHTS: look\nACTION: {tool}\nARGS: {{}}\nSUCCESS: true",
        },
        "result": observation(n + 1),
        "pe": dict.fromkeys(TYPES, 0.0),
        "cumulative_pe": AVERAGES,
        "crash_detected": False,
        "crash_type": None,
        **changes,
    }


def crashed_steps(length: int, *, onset: int) -> list[dict[str, Any]]:
    """As logged: once seen, a crash stays."""
    return [
        step(n, crash_detected=n >= onset, crash_type="looping" if n >= onset else None)
        for n in range(length)
    ]


def summary(total_steps: int, **changes: Any) -> dict[str, Any]:
    return {
        "run_id": "1700000000_42",
        "params": PARAMS,
        "seed": 42,
        "model_load_failed": False,
        "model_load_error": None,
        "total_steps": total_steps,
        "crashed": False,
        "crash_type": None,
        "final_budget": 150.5,
        "final_storage": {"sku_0": 3, "sku_1": 4},
        "final_scratchpad": {},
        "scratchpad_final_size": 0,
        "fulfilled_orders": 6,
        "total_orders_requested": 9,
        "revenue": 88.25,
        "customer_orders_shipped": 4,
        "customer_orders_failed": 1,
        "cumulative_pe": AVERAGES,
        **changes,
    }


def write_run(
    logs: Path,
    name: str,
    steps: Sequence[dict[str, Any]] = (),
    said: dict[str, Any] | None = None,
    *,
    torn: bytes = b"",
) -> Path:
    folder = logs / name
    folder.mkdir(parents=True)
    if steps or torn:
        lines = b"".join(json.dumps(line).encode() + b"\n" for line in steps)
        (folder / "steps.jsonl").write_bytes(lines + torn)
    if said is not None:
        (folder / "summary.json").write_text(json.dumps(said, indent=2))
    return folder


def read(folder: Path) -> Folder:
    return read_folder(folder, Disk())


def imported_from(
    folder: Path, out: Path
) -> tuple[Imported, dict[str, dict[str, Any]], polars.DataFrame]:
    """What was found, the row of each run, and the steps."""
    done = import_results(folder, out=out, progress=lambda done, total: None)
    runs = polars.read_parquet(done.runs_parquet)
    assert polars.read_csv(done.runs_csv).height == runs.height == done.runs
    return (
        done,
        {row["run_id"]: row for row in runs.to_dicts()},
        polars.read_parquet(done.steps_parquet),
    )


# one run


def test_an_ordinary_run_is_a_row_in_todays_names(tmp_path: Path) -> None:
    write_run(tmp_path / "logs", "run_1_42", [step(n) for n in range(100)], summary(100))
    done, rows, steps = imported_from(tmp_path, tmp_path / "tables")
    row = rows["1_42"]
    assert (done.runs, done.done, done.failed, done.steps) == (1, 1, {}, 100)
    assert (row["state"], row["in_grid"], row["replication"]) == ("done", True, 2)
    assert {key: value for key, value in row.items() if key.startswith("arm.")} == {
        "arm.agent.model.name": "meta-llama/Llama-3.1-8B-Instruct",
        "arm.pe_induction.p_shock": 0.3,
        "arm.pe_induction.pe_mag": "high",
        "arm.agent.interface.prediction_mode": "required",
    }
    known = {
        key.removeprefix("outcome."): value
        for key, value in row.items()
        if key.startswith("outcome.") and value is not None
    }
    assert known == {
        "steps": 100,
        "end": "max_steps",
        "censored": True,
        "measures.orders_requested": 7,
        "measures.orders_shipped": 4,
        "measures.orders_failed": 1,
        "measures.fulfilled": 4 / 7,
        "measures.revenue": 88.25,
        "measures.final_budget": 150.5,
        "measures.final_storage": 7,
    }
    assert (row["error.kind"], row["error.message"]) == (None, None)
    assert (row["import.fulfilled_orders"], row["import.total_orders_requested"]) == (6, 9)
    assert steps["step"].to_list() == list(range(100))
    (third,) = steps.filter(polars.col("step") == 3).to_dicts()
    assert (third["day"], third["action.tool"], third["action.args"]) == (
        3,
        "tool_check_inbox",
        "{}",
    )
    # The world after the step, as in our own tables.
    assert (third["truth.budget"], third["truth.storage"], third["truth.revenue"]) == (196, 4, 6)
    assert (third["truth.pending"], third["truth.inbox"], third["truth.customers"]) == (1, 3, 2)
    assert third["import.signs"] == "[]"


def test_a_crash_is_at_its_own_step_and_not_at_the_runs_length(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    early = summary(56, crashed=True, crash_type="looping")
    write_run(logs, "run_early", crashed_steps(56, onset=5), early)
    late = summary(91, crashed=True, crash_type="looping")
    write_run(logs, "run_late", crashed_steps(91, onset=60), late)
    _, rows, steps = imported_from(logs, tmp_path / "tables")
    for name, onset, length in (("early", 5, 56), ("late", 60, 91)):
        row = rows[name]
        assert row["outcome.crash.onset"] == onset
        assert row["outcome.crash.type"] == "looping"
        assert row["outcome.steps"] == length
        assert (row["outcome.end"], row["outcome.censored"]) == ("crash", False)
        assert row["outcome.crash.severity"] is None
        assert row["outcome.competing.type"] is None
        signs = steps.filter(polars.col("run_id") == name).sort("step")["import.signs"].to_list()
        assert signs == ["[]"] * onset + ['["looping"]'] + [None] * (length - onset - 1)


def test_steps_that_are_numbered_from_1_are_counted_from_0(tmp_path: Path) -> None:
    steps = [{**line, "step": line["step"] + 1} for line in crashed_steps(12, onset=6)]
    write_run(tmp_path, "run_a", steps, summary(12, crashed=True, crash_type="looping"))
    _, rows, table = imported_from(tmp_path, tmp_path / "tables")
    assert (rows["a"]["outcome.crash.onset"], rows["a"]["outcome.steps"]) == (6, 12)
    assert table["step"].to_list() == list(range(12))


def test_older_results_hold_the_observation_and_an_end(tmp_path: Path) -> None:
    """Before February 2026: no customers, no revenue."""
    new = ("revenue", "open_customer_orders", "overdue_customer_orders")
    gone = {*new, "customer_orders_shipped", "customer_orders_failed"}

    def older(n: int) -> dict[str, Any]:
        return {key: value for key, value in observation(n).items() if key not in gone}

    steps = [step(n, observation=older(n), result=[older(n + 1), False]) for n in range(30)]
    said = {key: value for key, value in summary(30).items() if key not in gone}
    write_run(tmp_path, "run_a", steps, said)
    _, rows, table = imported_from(tmp_path, tmp_path / "tables")
    row = rows["a"]
    assert table["truth.budget"].to_list() == [199.0 - n for n in range(30)]
    assert table["truth.customers"].to_list() == [None] * 30
    assert (row["state"], row["outcome.end"]) == ("done", "max_steps")
    for name in ("revenue", "orders_requested", "orders_shipped", "orders_failed", "fulfilled"):
        assert row[f"outcome.measures.{name}"] is None


@pytest.mark.parametrize(
    ("said", "last", "end", "competing"),
    [
        ({"final_budget": -3.5}, {}, "bankrupt", "bankrupt"),
        ({"final_budget": 0}, {}, "bankrupt", "bankrupt"),
        ({}, {"customer_orders_failed": 25}, "max_failures", "max_failures"),
        ({}, {"customer_orders_failed": 2}, None, None),
        ({"params": {**PARAMS, "demand.max_failures": 2}}, {"customer_orders_failed": 2},
         "max_failures", "max_failures"),
        ({"params": {**PARAMS, "demand.max_failures": 9}}, {"customer_orders_failed": 2},
         "max_steps", None),
        ({}, {"customer_orders_failed": 1}, "max_steps", None),
    ],
)  # fmt: skip
def test_how_a_run_ended_is_told_only_where_its_files_tell(
    tmp_path: Path,
    said: dict[str, Any],
    last: dict[str, Any],
    end: str | None,
    competing: str | None,
) -> None:
    steps = [step(n) for n in range(20)]
    steps[-1]["result"] = observation(20, **last)
    row = run_row(read(write_run(tmp_path, "run_a", steps, summary(20, **said))))
    assert row["outcome.end"] == end
    assert row["outcome.competing.type"] == competing
    assert row["outcome.competing.onset"] == (19 if competing else None)
    assert row["outcome.censored"] is (None if end is None else end == "max_steps")


def test_an_event_after_the_crash_competes_with_nothing(tmp_path: Path) -> None:
    said = summary(30, crashed=True, crash_type="looping", final_budget=-1)
    row = run_row(read(write_run(tmp_path, "run_a", crashed_steps(30, onset=5), said)))
    assert (row["outcome.end"], row["outcome.crash.onset"]) == ("bankrupt", 5)
    assert row["outcome.competing.type"] is None
    assert row["outcome.censored"] is False


def test_parameters_in_older_words_are_arms_in_todays(tmp_path: Path) -> None:
    params = {
        "model.name": "openai--gpt-oss-20b",
        "env.complexity_level": 2,
        "interface.memory_tools": "none",
        "replication_id": 0,
    }
    write_run(tmp_path, "run_a", [step(0)], summary(1, params=params))
    done, rows, _ = imported_from(tmp_path, tmp_path / "tables")
    assert rows["a"]["arm.agent.model.name"] == "openai/gpt-oss-20b"
    assert rows["a"]["arm.simulation.complexity_level"] == 2
    assert rows["a"]["arm.agent.interface.memory_tools"] == "none"
    assert done.idle == ("env.complexity_level", "interface.memory_tools")


# runs without an outcome


def outcome_in(row: dict[str, Any]) -> dict[str, Any]:
    parts = ("outcome.", "pe.", "served.")
    return {key: value for key, value in row.items() if key.startswith(parts) and value is not None}


@pytest.mark.parametrize(
    ("steps", "said", "torn", "kind", "message"),
    [
        ([], summary(0, model_load_failed=True, model_load_error="no such model"), b"",
         "model_load_failed", "no such model"),
        ([], {"params": PARAMS, "model_load_failed": True}, b"",
         "model_load_failed", "no message was kept"),
        (crashed_steps(4, onset=9), summary(4, model_load_failed=True, crashed=True,
         crash_type="model_error", model_load_error="CUDA"), b"", "model_error", "CUDA"),
        (crashed_steps(4, onset=9), summary(4, crashed=True, crash_type="exception"), b"",
         "exception", "no message was kept"),
        ([step(n) for n in range(7)], None, b'{"step": 7, "obs', "unfinished", "after 7 steps"),
        ([step(n) for n in range(7)], None, b"", "unfinished", "no summary.json"),
        ([], None, b'{"st', "unfinished", "after 0 steps"),
        ([], summary(9), b"", "no_steps", "no step that can be read"),
        ([step(n) for n in range(7)], summary(30), b"", "inconsistent", "counts 30 steps"),
        ([step(n) for n in range(7)], summary(3), b"", "inconsistent", "counts 3 steps"),
    ],
)  # fmt: skip
def test_a_run_that_failed_has_an_error_and_never_an_outcome(
    tmp_path: Path,
    steps: list[dict[str, Any]],
    said: dict[str, Any] | None,
    torn: bytes,
    kind: str,
    message: str,
) -> None:
    write_run(tmp_path, "run_a", steps, said, torn=torn)
    done, rows, table = imported_from(tmp_path, tmp_path / "tables")
    row = rows["a"]
    assert (row["state"], row["error.kind"]) == ("failed", kind)
    assert message in row["error.message"]
    assert outcome_in(row) == {}
    assert (done.done, done.failed) == (0, {kind: 1})
    assert table.height == done.steps == len(steps)
    assert done.unreadable_lines == bool(torn)


@pytest.mark.parametrize("content", [b'{"total_steps": 3', b"[1]", b"\xff\xfe", b"3"])
def test_a_torn_summary_is_told(tmp_path: Path, content: bytes) -> None:
    folder = write_run(tmp_path, "run_a", [step(n) for n in range(3)])
    (folder / "summary.json").write_bytes(content)
    row = run_row(read(folder))
    assert (row["state"], row["error.kind"]) == ("failed", "summary")
    assert outcome_in(row) == {}


def test_a_torn_line_costs_that_line_alone(tmp_path: Path) -> None:
    lines = [json.dumps(step(n)).encode() for n in range(10)]
    lines[4] = lines[4][:50]
    lines[6] = b"[]"
    folder = write_run(tmp_path, "run_a", said=summary(10), torn=b"\n".join([*lines, b""]))
    row = run_row(read(folder))
    assert (row["state"], row["outcome.steps"]) == ("done", 10)
    assert (row["import.steps"], row["import.unreadable_lines"]) == (8, 2)
    assert row["import.runs_in_folder"] == 1
    assert [row["step"] for row in step_rows(read(folder))] == [0, 1, 2, 3, 5, 7, 8, 9]


def test_the_first_line_that_can_be_read_is_the_first_step_only_if_none_is_torn(
    tmp_path: Path,
) -> None:
    lines = [b'{"step": 0, "obs', *(json.dumps(step(n)).encode() for n in range(1, 6))]
    folder = write_run(tmp_path, "run_a", said=summary(6), torn=b"\n".join([*lines, b""]))
    found = read(folder)
    assert (found.first_step, found.length) == (0, 6)
    assert [row["step"] for row in step_rows(found)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("total", "problem"), [(9, None), (10, None), (11, "inconsistent")])
def test_torn_lines_excuse_as_many_steps_of_the_summary(
    tmp_path: Path, total: int, problem: str | None
) -> None:
    lines = [json.dumps(step(n)) for n in range(7)] + ["{", "{"]
    torn = "".join(f"{line}\n" for line in lines).encode()
    found = problem_of(read(write_run(tmp_path, "run_a", said=summary(total), torn=torn)))
    assert (found and found[0]) == problem


def test_a_truth_value_is_no_number_of_a_step(tmp_path: Path) -> None:
    found = read(write_run(tmp_path, "run_a", [step(0), step(1, step=True)]))
    assert ([each.step for each in found.steps], found.unreadable_lines) == ([0], 1)


@pytest.mark.parametrize("digits", ["1e999", "-1e999", "9" * 400, "9" * 5000])
def test_a_number_beyond_all_numbers_is_missing_and_its_line_is_read(
    tmp_path: Path, digits: str
) -> None:
    line = json.dumps(step(0)).replace('"budget": 199.0', f'"budget": {digits}')
    assert digits in line
    (row,) = step_rows(read(write_run(tmp_path, "run_a", torn=line.encode())))
    assert (row["truth.budget"], row["truth.storage"]) == (None, 1)


@pytest.mark.parametrize(("units", "total"), [(4, 9), ("many", 3), (None, 3)])
def test_a_storage_that_is_not_known_of_every_sku_is_that_of_the_last_step(
    tmp_path: Path, units: object, total: int
) -> None:
    said = summary(3, final_storage={"sku_0": 5, "sku_1": units})
    row = run_row(read(write_run(tmp_path, "run_a", [step(n) for n in range(3)], said)))
    assert row["outcome.measures.final_storage"] == total


def test_nothing_shipped_is_a_share_of_0_and_nothing_requested_is_no_share(tmp_path: Path) -> None:
    def fulfilled(shipped: int, failed: int, still_open: int) -> object:
        name = f"run_{shipped}{failed}{still_open}"
        steps = [step(0, result=observation(1, open_customer_orders=still_open))]
        said = summary(1, customer_orders_shipped=shipped, customer_orders_failed=failed)
        row = run_row(read(write_run(tmp_path, name, steps, said)))
        return row["outcome.measures.fulfilled"]

    assert fulfilled(0, 3, 1) == 0.0
    assert fulfilled(0, 0, 0) is None
    assert fulfilled(1, 2, 1) == 0.25


def test_a_crash_is_what_the_summary_says_whatever_the_steps_say(tmp_path: Path) -> None:
    def end(name: str, crashed: object, onset: int) -> tuple[object, ...]:
        steps, said = crashed_steps(9, onset=onset), summary(9, crashed=crashed)
        row = run_row(read(write_run(tmp_path, f"run_{name}", steps, said)))
        assert row["error.kind"] is None
        return tuple(row[f"outcome.{key}"] for key in ("end", "crash.type", "crash.onset"))

    assert end("both", True, 6) == ("crash", "looping", 6)
    assert end("summary_alone", True, 99) == ("crash", None, None)
    assert end("steps_alone", False, 6) == ("max_steps", None, None)
    assert end("unsaid", None, 6) == ("crash", "looping", 6)


def test_what_is_no_number_is_missing(tmp_path: Path) -> None:
    steps = [step(0, result=observation(1, budget=float("nan"), revenue=float("inf")))]
    said = summary(1, final_budget=float("-inf"), revenue=True)
    folder = read(write_run(tmp_path, "run_a", steps, said))
    row = run_row(folder)
    assert (row["outcome.measures.final_budget"], row["outcome.measures.revenue"]) == (None, None)
    (only,) = step_rows(folder)
    assert (only["truth.budget"], only["truth.revenue"], only["truth.storage"]) == (None, None, 1)


def test_a_count_of_steps_that_is_one_off_is_the_same_run(tmp_path: Path) -> None:
    for total in (6, 7, 8):
        folder = write_run(tmp_path, f"run_{total}", [step(n) for n in range(7)], summary(total))
        assert problem_of(read(folder)) is None
        assert run_row(read(folder))["outcome.steps"] == 7


# folders of several runs


@pytest.mark.parametrize("interleaved", [True, False])
def test_a_folder_of_several_runs_is_marked_and_has_no_outcome(
    tmp_path: Path, interleaved: bool
) -> None:
    one, other = crashed_steps(56, onset=5), crashed_steps(56, onset=7)
    steps = [*one, *other]
    if interleaved:
        steps = [line for pair in zip(one, other, strict=True) for line in pair]
    write_run(tmp_path, "run_a", steps, summary(56, crashed=True, crash_type="looping"))
    done, rows, table = imported_from(tmp_path, tmp_path / "tables")
    row = rows["a"]
    assert (row["state"], row["error.kind"]) == ("failed", "merged")
    assert "2 runs or more wrote into this folder" in row["error.message"]
    assert row["import.runs_in_folder"] == 2
    assert outcome_in(row) == {}
    assert row["import.fulfilled_orders"] is None
    assert read(tmp_path / "run_a").onset is None
    assert (done.merged, done.runs_in_merged, done.done) == (1, 2, 0)
    assert table["import.runs_in_folder"].to_list() == [2] * 112
    assert table["import.line"].to_list() == list(range(1, 113))
    assert table["import.signs"].null_count() == 112
    assert sum(table["import.crash_detected"]) == 51 + 49


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_runs_in_a_folder_are_counted_however_their_steps_are_interleaved(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    of_run = data.draw(st.permutations([n for n, size in enumerate(lengths) for _ in range(size)]))
    played = [0] * len(lengths)
    steps = []
    for run in of_run:
        steps.append({"step": played[run], "action": {"tool": "tool_order", "args": {}}})
        played[run] += 1
    logs = tmp_path_factory.mktemp("logs")
    folder = read(write_run(logs, "run_a", steps, {"params": {}}))
    assert folder.runs == len(lengths)
    assert folder.is_merged == (len(lengths) > 1)
    assert len(folder.steps) == sum(lengths)
    assert (problem_of(folder) is None) == (len(lengths) == 1)


def test_step_numbers_that_go_back_are_of_two_runs(tmp_path: Path) -> None:
    numbers = [5, 6, 7, 0, 1]
    folder = read(write_run(tmp_path, "run_a", [step(n) for n in numbers], summary(8)))
    assert folder.runs == 2


# what was chosen by the parser


@pytest.mark.parametrize(
    ("reply", "named"),
    [
        ("THOUGHTS: x\nACTION: tool_order\nARGS: {}", "tool_order"),
        ("ACTION: tool_order\nACTION: tool_quote", "tool_quote"),
        ('ACTION: "tool_order"  # buy', "tool_order"),
        ("  ACTION:tool_wait", "tool_wait"),
        ("ACTION: [tool name]", "[tool name]"),
        ("Action: tool_order", None),
        ("I would take ACTION: tool_order", None),
        ("def play():\n    tool_order('S1')", None),
        ("ACTION:", ""),
        ("Error calling model: CUDA out of memory", None),
        ("", None),
    ],
)
def test_a_reply_names_what_its_last_action_line_says(reply: str, named: str | None) -> None:
    assert named_tool(reply) == named


def test_actions_that_no_reply_named_are_counted(tmp_path: Path) -> None:
    def said(n: int, reply: Any) -> dict[str, Any]:
        return step(n, prediction={"tool": "tool_check_inbox", "scratchpad_raw": reply})

    replies = [
        "ACTION: tool_check_inbox",
        "ACTION: tool_name",  # the placeholder of the template
        "while True: tool_check_inbox()",
        "ACTION: tool_order\nARGS: {",  # no arguments, so the parser chose another
        None,
    ]
    steps = [said(n, reply) for n, reply in enumerate(replies)]
    steps.append(step(5, prediction=None))
    write_run(tmp_path, "run_a", steps, summary(6))
    write_run(tmp_path, "run_b", [step(0, prediction=None)], summary(1))
    done, rows, table = imported_from(tmp_path, tmp_path / "tables")
    assert (rows["a"]["import.replies"], rows["a"]["import.actions_by_parser"]) == (4, 3)
    assert (rows["b"]["import.replies"], rows["b"]["import.actions_by_parser"]) == (0, None)
    assert (done.replies, done.actions_by_parser) == (4, 3)
    of_a = table.filter(polars.col("run_id") == "a")["import.action_by_parser"].to_list()
    assert of_a == [False, True, True, True, None, None]


# the tables


def test_both_kinds_of_tables_are_one_table(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    given = ("experiment.replications=1", "simulation.max_steps=60")
    played = vendomini("run", "--config", "configs/demo.yaml", *given, cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    assert vendomini("collect", "experiments/demo", "--out", "ours", cwd=tmp_path).returncode == 0
    logs = tmp_path / "logs"
    write_run(logs, "run_a", [step(n) for n in range(9)], summary(9))
    said = summary(20, crashed=True, crash_type="looping")
    write_run(logs, "run_b", crashed_steps(20, onset=5), said)
    _, rows, steps = imported_from(tmp_path, tmp_path / "theirs")

    ours, theirs = (polars.read_parquet(tmp_path / d / "runs.parquet") for d in ("ours", "theirs"))
    # A crash or competing event that no run of ours had is one empty column.
    nested = {
        name for name in ours.columns if any(n.startswith(f"{name}.") for n in theirs.columns)
    }
    settings_only_ours = {name for name in ours.columns if name.startswith("arm.")}
    assert set(ours.columns) - set(theirs.columns) <= settings_only_ours | nested
    assert nested <= {"outcome.crash", "outcome.competing"}
    both = polars.concat([ours.drop(nested), theirs], how="diagonal_relaxed")
    assert both.height == ours.height + 2
    assert both["outcome.steps"].dtype == polars.Int64
    assert both["pe.cost.mean"].dtype == polars.Float64
    assert both["state"].to_list() == ["done"] * both.height

    measured = {name for name in ours.columns if name.startswith(("pe.", "served."))}
    assert len([name for name in measured if name.startswith("pe.")]) == 6 * 10
    for row in rows.values():
        assert {name: row[name] for name in measured} == dict.fromkeys(measured)
    own_steps = polars.read_parquet(tmp_path / "ours" / "steps.parquet")
    extra = {name for name in steps.columns if not name.startswith("import.")}
    assert extra <= set(own_steps.columns)
    joined = polars.concat([own_steps, steps], how="diagonal_relaxed")
    assert joined.height == own_steps.height + 29
    not_theirs = joined.filter(polars.col("run_id").is_in(["a", "b"]))
    for name in ("ewma.cost", "resolved", "parse_status", "shock_drawn"):
        assert not_theirs[name].null_count() == 29
    assert joined["truth.budget"].dtype == polars.Float64
    assert joined["day"].dtype == polars.Int64


@pytest.mark.parametrize("where", ["", "logs", "logs/run_a"])
def test_a_project_its_logs_and_one_folder_can_be_named(tmp_path: Path, where: str) -> None:
    logs = tmp_path / "project" / "logs"
    write_run(logs, "run_a", [step(0)], summary(1))
    (tmp_path / "project" / "test_data").mkdir()  # no results: `logs` is where they are
    if where != "logs/run_a":
        write_run(logs, "test_b", [step(0)], summary(1))
        (logs / "run_c").mkdir()
        (logs / "run_notes.txt").write_text("no folder")
    done, rows, _ = imported_from(tmp_path / "project" / where, tmp_path / "tables")
    if where == "logs/run_a":
        assert list(rows) == ["a"]
    else:
        assert {name: row["state"] for name, row in rows.items()} == {
            "a": "done",
            "c": "failed",
            "test_b": "done",
        }
        assert done.failed == {"empty": 1}


@pytest.mark.parametrize("rows_at_once", [1, 4])
def test_tables_do_not_depend_on_how_many_steps_are_held_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    logs = tmp_path / "logs"
    for n in range(4):
        write_run(logs, f"run_{n}", [step(k, crash_type=None) for k in range(n + 1)], summary(n))
    _, _, expected = imported_from(logs, tmp_path / "all")
    monkeypatch.setattr(tables, "STEP_ROWS_AT_ONCE", rows_at_once)
    _, _, steps = imported_from(logs, tmp_path / "parts")
    assert steps.equals(expected)
    assert steps.height == 10


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["looping", "\ud800", "ACTION: x"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
STEP_KEYS = st.sampled_from(list(step(0)))
SUMMARY_KEYS = st.sampled_from(list(summary(0)))


@settings(max_examples=100, deadline=None)
@given(
    lines=st.lists(
        st.binary(max_size=20)
        | st.dictionaries(STEP_KEYS, ANYTHING, max_size=4).map(
            lambda changes: json.dumps(step(1) | changes).encode()
        ),
        max_size=4,
    ),
    said=st.dictionaries(SUMMARY_KEYS, ANYTHING, max_size=4),
)
def test_whatever_is_in_the_files_is_a_row(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], said: dict[str, Any]
) -> None:
    logs = tmp_path_factory.mktemp("logs")
    content = json.dumps(step(0)).encode() + b"\n" + b"\n".join(lines)
    write_run(logs, "run_a", said=summary(1) | said, torn=content)
    _, rows, table = imported_from(logs, logs / "tables")
    row = rows["a"]
    assert row["state"] in ("done", "failed")
    assert (row["state"] == "failed") == bool(row["error.kind"])
    if row["state"] == "failed":
        assert outcome_in(row) == {}
    assert row["import.steps"] == table.height >= 1
    assert not [name for name in row if name.startswith("pe.") and row[name] is not None]


def test_rows_of_steps_have_one_shape(tmp_path: Path) -> None:
    folder = read(write_run(tmp_path, "run_a", [step(0), {"step": 1}], summary(2)))
    columns = step_columns(list(step_rows(folder)))
    assert {len(column) for column in columns} == {2}
    assert len({column.name for column in columns}) == len(columns)


# the command


def test_the_command_says_what_it_found_and_what_is_missing(tmp_path: Path) -> None:
    logs = tmp_path / "old" / "logs"
    write_run(logs, "run_a", [step(n) for n in range(9)], summary(9), torn=b'{"st')
    write_run(logs, "run_b", [step(0), step(0)], summary(1))
    write_run(logs, "run_c", [step(0, prediction=None)])
    write_run(logs, "run_d", [], summary(0, model_load_failed=True))
    done = vendomini("import-results", "old", "--out", "tables", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        f"tables/{name}" for name in ("runs.parquet", "runs.csv", "steps.parquet")
    ]
    assert done.stderr.splitlines()[:9] == [
        "4 folders: 1 run with an outcome, 3 without; 12 steps",
        "  1 folder into which several runs were written: whose steps are whose is not known "
        "(2 runs or more)",
        "  1 whose model could not be loaded",
        "  1 without a summary: ended from outside",
        "1 line of steps cannot be read and is left out",
        "0 of 11 actions (0%) were not named by the reply: the predecessor's parser chose them",
        "1 step was logged without its reply",
        "axes that had no effect when they were played: `agent.interface.prediction_mode`",
        "missing in every run (null in the tables):",
    ]
    assert "  pe.*: it resolved no prediction" in done.stderr
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == [
        "runs.csv",
        "runs.parquet",
        "steps.parquet",
    ]


def test_the_share_of_the_parsers_actions_is_one_of_the_replies(tmp_path: Path) -> None:
    steps = [step(0), step(1, "tool_wait"), step(2, prediction={}), step(3, prediction={})]
    steps[1]["prediction"]["scratchpad_raw"] = "ACTION: tool_order"
    write_run(tmp_path, "run_a", steps, summary(4))
    done, _, _ = imported_from(tmp_path, tmp_path / "tables")
    said = "\n".join(words(done))
    assert "1 of 2 actions (50%) were not named by the reply" in said
    assert "2 steps were logged without their replies" in said


def test_the_command_speaks_json(tmp_path: Path) -> None:
    write_run(tmp_path / "logs", "run_a", [step(n) for n in range(9)], summary(9))
    done = vendomini("import-results", ".", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["runs"], said["done"], said["failed"], said["steps"]) == (1, 1, {}, 9)
    assert said["runs_parquet"] == "collected/runs.parquet"
    assert "pe.*" in said["missing"]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("nowhere", "there is no folder `nowhere`"),
        ("other", "`other` holds no results of the predecessor"),
        ("hollow", "all folders of results in `hollow/logs` are empty: 2"),
    ],
)
def test_no_results_are_one_error_and_nothing_written(
    tmp_path: Path, where: str, said: str
) -> None:
    (tmp_path / "other" / "logs").mkdir(parents=True)
    for name in ("run_a", "run_b"):
        (tmp_path / "hollow" / "logs" / name).mkdir(parents=True)
    done = vendomini("import-results", where, "--out", "tables", cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "tables").exists()


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    write_run(tmp_path / "logs", "run_a", [step(0)], summary(1))
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError, match="cannot make the folder"):
        import_results(tmp_path, out=tmp_path / "taken", progress=lambda done, total: None)
