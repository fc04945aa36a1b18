"""What is derived from logged steps is what a detector says that watches the run itself."""

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.modelled import call
from tests.warehouse.playing import WAIT, Call, Played, Policy, cycled, listed, played, settings
from vendomini.tables import flat
from vendomini.workloads.warehouse.agent import Decision, Seen
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.crash import THRESHOLDS, Detector, Signs
from vendomini.workloads.warehouse.derived import COLUMN, MAIN, SIGNS, Json, derived
from vendomini.workloads.warehouse.logged import LoggedStep
from vendomini.workloads.warehouse.recorded import CONVERSATION_STEPS, said, worsening
from vendomini.workloads.warehouse.secondary import SECONDARY_THRESHOLDS, SecondarySigns
from vendomini.workloads.warehouse.settings import Threshold
from vendomini.workloads.warehouse.tools import Called
from vendomini.workloads.warehouse.workload import WAREHOUSE

CALM: dict[str, Any] = {
    "demand.orders_per_day": 0.0,
    "pe_induction.p_shock": 0.0,
    "simulation.max_steps": 120,
}
LOOK: Call = ("tool_check_storage", {})


class Live:
    """The detectors of one threshold, which watch a run's steps as they were made."""

    def __init__(self, threshold: Threshold, size: int) -> None:
        self.signs, self.detector = Signs(size), Detector(THRESHOLDS[threshold], size)
        self.secondary = SecondarySigns(SECONDARY_THRESHOLDS[threshold], size)
        self.onsets: dict[str, int] = {}

    def watch(self, run: Played) -> None:
        for step in run.steps:
            called = None
            if step.action is not None:
                assert step.result is not None
                called = Called(
                    tool=step.action.tool,
                    arguments=step.action.args,
                    result=step.result,
                    failure=step.result.get("code"),
                )
                self.signs.take(called)
            new: list[str] = [*self.detector.after_step(step.step, called, self.signs)]
            new += self.secondary.seen(
                None if called is None else called.tool,
                next_tool=None if step.card is None else step.card.next_tool,
                belief=step.belief,
            )
            for sign in new:
                self.onsets.setdefault(sign, step.step)


def agrees(run: Played) -> None:
    """What is derived from the run's log is what watching it says, by each threshold."""
    table, size = run.derived(), run.settings.crash_detector.window_size
    for threshold, column in COLUMN.items():
        live = Live(threshold, size)
        live.watch(run)
        crash = live.detector.crash()
        if crash is None:
            unseen = "not observable" if run.outcome.end == "crash" else None
            assert table[column] == {"type": unseen, "onset": None, "severity": None}
        else:
            assert tuple(table[column].values()) == (crash.type, crash.onset, crash.severity)
        assert run.derived(threshold)["signs"] == {sign: live.onsets.get(sign) for sign in SIGNS}
    never = table["crash"]["type"] is None
    assert table["censored"] == (never and run.outcome.end == "max_steps")
    competes = never and run.outcome.end != "max_steps"
    assert table["competing"]["type"] == (run.outcome.end if competes else None)
    assert table["competing"]["onset"] == (run.outcome.steps - 1 if competes else None)


CALLS: list[Call | None] = [
    WAIT,
    LOOK,
    ("tool_check_budget", {}),
    ("tool_quote", {"supplier_id": "S1", "sku": "sku_0", "quantity": 1}),
    ("tool_quote", {"supplier_id": "S1", "sku": "sku_0", "quantity": 1.0}),
    ("tool_quote", {"quantity": 1, "sku": "sku_0", "supplier_id": "S1"}),
    ("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 2}),
    ("tool_cancel_order", {"order_id": "ORD99"}),
    ("tool_cancel_order", {"order_id": None}),
    ("tool_fly", {"to": ["the", "moon"]}),
    None,
]


@given(
    blocks=st.lists(
        st.tuples(st.integers(0, len(CALLS) - 1), st.integers(1, 9)), min_size=1, max_size=30
    ),
    size=st.sampled_from([10, 20, 50]),
    goes_on=st.integers(0, 60),
    money=st.sampled_from([0.5, 10000.0]),
    announced=st.sampled_from([None, "tool_wait", "tool_quote"]),
)
@budget(max_examples=80, deadline=None)
def test_what_is_derived_from_the_log_is_what_watching_the_run_says(
    blocks: list[tuple[int, int]], size: int, goes_on: int, money: float, announced: str | None
) -> None:
    calls = [CALLS[pick] for pick, times in blocks for _ in range(times)]

    def choose(seen: Seen) -> Decision:
        made = calls[seen.day % len(calls)]
        if made is None:
            return Decision(parse_status="failed")
        card = Card(expected_success=True, next_tool=announced)
        return Decision(tool=made[0], arguments=made[1], card=card)

    keys = {
        **CALM,
        "simulation.initial_budget": money,
        "simulation.initial_storage_per_sku": 1,
        "crash_detector.window_size": size,
        "crash_detector.continue_after_crash": goes_on,
    }
    agrees(played(settings(keys), agent=Policy(choose)))


@pytest.mark.parametrize("kind", ["heuristic", "random"])
@pytest.mark.parametrize("level", [0, 4])
def test_it_is_so_of_the_rule_policies(kind: str, level: int) -> None:
    keys = {
        "agent.kind": kind,
        "simulation.complexity_level": level,
        "simulation.max_steps": 400,
        "pe_induction.p_shock": 0.5,
        "crash_detector.window_size": 10,
    }
    for replication in range(3):
        agrees(played(settings(keys), replication=replication))


@pytest.mark.parametrize("size", [10, 20, 60])
def test_it_is_so_of_a_recorded_breakdown_and_of_a_recorded_conversation(size: int) -> None:
    keys = {
        "simulation.max_steps": 240,
        "crash_detector.window_size": size,
        "crash_detector.continue_after_crash": 240,
    }
    breaking = played(settings(keys), agent=Policy(lambda seen: worsening(seen.day, 240)))
    assert set(breaking.signs()) >= {"invalid_burst", "decoupling", "slow_divergence"}
    agrees(breaking)
    replies = iter(said(step, attempt) for step in range(10**6) for attempt in range(3))
    talk = {
        **keys,
        "agent.kind": "llm",
        "agent.model.context_length": 10**6,
        "agent.interface.recovery_tools": "all",
        "simulation.max_steps": CONVERSATION_STEPS,
    }
    agrees(played(settings(talk), reply=lambda request: next(replies)))


# -- what cannot be known ------------------------------------------------------------------


def test_what_a_run_that_was_stopped_did_not_show_is_not_observable() -> None:
    """As of an older run that its own strict threshold has ended."""
    run = played(settings({**CALM, "simulation.max_steps": 8}), agent=cycled(WAIT, LOOK, WAIT))
    outcome = {**msgspec.to_builtins(run.outcome), "end": "crash"}
    found = derived(run.settings, run.logged(), outcome)
    unseen = {"type": "not observable", "onset": None, "severity": None}
    assert [found[column] for column in COLUMN.values()] == [unseen] * 3
    assert not found["censored"]
    assert found["competing"] == {"type": None, "onset": None}


def test_what_a_run_did_not_show_to_its_end_is_no_crash() -> None:
    run = played(settings(CALM), agent=cycled(WAIT, LOOK, WAIT))
    none = {"type": None, "onset": None, "severity": None}
    assert [run.derived()[column] for column in COLUMN.values()] == [none] * 3
    assert run.derived()["censored"]


# -- its columns ---------------------------------------------------------------------------


@pytest.mark.parametrize("made", [WAIT, LOOK, None])
def test_a_table_has_the_same_columns_whatever_has_happened(made: Call | None) -> None:
    run = played(settings(CALM), agent=listed([made] * 120))
    assert tuple(flat(run.derived())) == WAREHOUSE.derived_columns()
    assert {f"signs.{sign}" for sign in SIGNS} <= set(WAREHOUSE.derived_columns())


def test_the_crash_by_each_threshold_has_a_column_of_its_own() -> None:
    assert set(COLUMN) == set(get_args(Threshold))
    assert COLUMN[MAIN] == "crash"


def test_the_workload_derives_by_the_thresholds_of_the_table() -> None:
    run = played(settings(CALM), agent=cycled(LOOK))
    outcome = msgspec.to_builtins(run.outcome)
    assert WAREHOUSE.derive(run.settings, run.logged(), outcome) == run.derived()
    assert WAREHOUSE.step_type is LoggedStep


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b'{"a":1,"b":2}', b'{"b":2,"a":1}', True),
        (b'{"a":1}', b'{"a":1.0}', True),
        (b'{"a":1}', b'{"a":1}', True),
        (b'{"a":1}', b'{"a":"1"}', False),
        (b"[1,2]", b"[2,1]", False),
        (b"null", b"0", False),
    ],
)
def test_values_of_json_are_equal_as_what_they_say_is(one: bytes, other: bytes, same: bool) -> None:
    assert (Json(msgspec.Raw(one)) == Json(msgspec.Raw(other))) is same


def test_steps_with_fields_of_older_versions_are_read() -> None:
    run = played(
        settings({**CALM, "agent.kind": "llm", "agent.model.context_length": 32000}),
        reply=lambda request: call("tool_check_storage"),
    )
    older = [{**msgspec.to_builtins(step), "run": "0", "signs": []} for step in run.steps]
    read = msgspec.json.decode(msgspec.json.encode(older), type=list[LoggedStep])
    assert derived(run.settings, read, {"end": run.outcome.end}) == run.derived()
