"""The heuristic lasts, the random one plays, the probe does what replies say."""

import hashlib
import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.playing import played, settings
from vendomini.chat import ChatRequest
from vendomini.workloads.warehouse.settings import PredictionMode
from vendomini.workloads.warehouse.tools import TOOLS

LEAST_FULFILLED = (0.88, 0.72, 0.58, 0.5, 0.45)  # by level, in 600 days of high pressure


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("pressure", ["low", "medium", "high"])
def test_the_heuristic_reaches_max_steps_without_shocks(level: int, pressure: str) -> None:
    chosen = settings(
        {
            "simulation.complexity_level": level,
            "simulation.pressure_level": pressure,
            "simulation.max_steps": 600,
            "pe_induction.p_shock": 0.0,
        }
    )
    run = played(chosen)
    assert (run.outcome.end, run.outcome.steps) == ("max_steps", 600)
    assert run.signs("strict") == {}
    assert run.outcome.measures.calls_failed == 0
    assert run.outcome.measures.net_worth > 9000
    fulfilled = run.outcome.measures.fulfilled
    assert fulfilled is not None
    assert fulfilled > LEAST_FULFILLED[level]


@pytest.mark.parametrize("level", [1, 4])
@pytest.mark.parametrize("observability", ["full", "hidden"])
def test_the_heuristic_does_not_break_down_under_shocks(level: int, observability: str) -> None:
    for replication in range(2):
        chosen = settings(
            {
                "simulation.complexity_level": level,
                "simulation.max_steps": 500,
                "pe_induction.p_shock": 1.0,
                "pe_induction.pe_mag": "high",
                "pe_induction.observability": observability,
            }
        )
        assert played(chosen, replication=replication).signs("strict") == {}


def test_the_heuristic_predicts_a_calm_world_exactly_but_for_lateness() -> None:
    run = played(settings({"pe_induction.p_shock": 0.0, "simulation.max_steps": 500}))
    pe = run.outcome.pe
    assert pe["quantity"].mean == pe["cost"].mean == 0
    assert pe["temporal"].resolved > 50
    assert pe["causal"].mean is not None
    assert pe["causal"].mean < 0.05


def test_the_heuristic_plays_with_little_money() -> None:
    keys = {"simulation.initial_budget": 200.0, "simulation.max_steps": 500}
    run = played(settings(keys))
    assert run.outcome.end == "max_steps"
    assert run.outcome.measures.orders_shipped > 0


@pytest.mark.parametrize("level", [0, 4])
def test_the_heuristic_shows_no_sign_though_it_has_no_money_to_order_with(level: int) -> None:
    keys = {
        "simulation.initial_budget": 0.0,
        "simulation.complexity_level": level,
        "simulation.max_steps": 500,
        "pe_induction.p_shock": 1.0,
    }
    run = played(settings(keys))
    assert run.outcome.measures.orders_placed == 0
    assert run.outcome.end == "never_started"
    assert run.signs("strict") == {}


@pytest.mark.parametrize("level", [1, 4])
@pytest.mark.parametrize("observability", ["delayed", "hidden"])
def test_the_heuristic_ships_only_what_is_there_whatever_comes_late(
    level: int, observability: str
) -> None:
    keys = {
        "simulation.complexity_level": level,
        "simulation.max_steps": 2500,
        "pe_induction.p_shock": 0.7,
        "pe_induction.pe_mag": "high",
        "pe_induction.pe_type_mix": "uniform",
        "pe_induction.observability": observability,
    }
    outcome = played(settings(keys), seed=2000, replication=140).outcome
    assert outcome.measures.orders_shipped > 100
    assert outcome.measures.calls_failed == 0


def test_the_heuristic_never_reads_its_inbox_two_days_running() -> None:
    keys = {"simulation.max_steps": 600, "pe_induction.p_shock": 1.0}
    run = played(settings({**keys, "simulation.complexity_level": 4}))
    tools = [step.action.tool for step in run.steps if step.action]
    assert "tool_check_inbox" in tools
    assert ("tool_check_inbox",) * 2 not in set(itertools.pairwise(tools))


def test_the_heuristic_foretells_drifting_prices_from_any_of_a_suppliers() -> None:
    """Each SKU's own last price would be off by .07 in the mean."""
    keys = {"pe_induction.p_shock": 0.0, "simulation.max_steps": 2000}
    cost = played(settings({**keys, "simulation.complexity_level": 4})).outcome.pe["cost"]
    assert cost.mean is not None
    assert 0 < cost.mean < 0.06


@pytest.mark.parametrize("kind", ["heuristic", "random"])
def test_agents_that_never_ask_pause_and_ask_nothing(kind: str) -> None:
    run = played(settings({"agent.kind": kind, "simulation.max_steps": 350}))
    assert run.requests == []


def test_the_random_agent_uses_every_tool_it_is_offered() -> None:
    keys = {
        "agent.kind": "random",
        "simulation.complexity_level": 2,
        "simulation.max_steps": 1000,
        "simulation.initial_budget": 1e8,
        "crash_detector.continue_after_crash": 1000,
    }
    run = played(settings(keys))
    assert {step.action.tool for step in run.steps if step.action} == set(TOOLS)
    succeeded = {
        step.action.tool
        for step in run.steps
        if step.action and step.result and step.result["success"]
    }
    assert succeeded == set(TOOLS)


def saying(**call: Any) -> str:
    return msgspec.json.encode(call).decode()


PROBE = {"agent.kind": "probe", "simulation.max_steps": 40}


def test_the_probe_asks_once_a_step_with_one_message() -> None:
    run = played(settings({**PROBE, "agent.model.temperature": 0.9}))
    assert len(run.requests) == 40
    for request in run.requests:
        assert isinstance(request, ChatRequest)
        assert [message.role for message in request.messages] == ["user"]
        assert request.sampling.temperature == 0.9
        assert request.seed is None
        assert len(request.messages[0].content) < 1200


def test_a_json_reply_is_the_probes_call_and_card() -> None:
    card = {"expected_success": False}
    run = played(
        settings(PROBE),
        reply=lambda request: saying(tool="tool_fly", args={"to": "S1"}, card=card),
    )
    assert run.steps[0].action is not None
    assert (run.steps[0].action.tool, run.steps[0].action.args) == ("tool_fly", {"to": "S1"})
    assert run.outcome.pe["causal"].mean == 0
    assert "looping" in run.signs()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{",
        '{"tool": 3}',
        '{"tool": "tool_wait", "card": {"expected_cost": 1e400}}',
        "\ud800",
        '{"tool": "\\ud800"}',
        "[" * 5000,
    ],
)
def test_any_other_reply_is_some_sensible_call(text: str) -> None:
    run = played(settings(PROBE), reply=lambda request: text)
    assert run.outcome.steps > 0
    assert run.steps[0].action is not None
    assert run.steps[0].action.tool in TOOLS
    assert msgspec.json.decode(run.bytes)


@budget(max_examples=20, deadline=None)
@given(texts=st.lists(st.text(max_size=6), min_size=1, max_size=5))
def test_the_outcome_depends_on_replies_and_on_them_alone(texts: list[str]) -> None:
    def replies() -> Any:
        count = iter(range(1000))
        return lambda request: texts[next(count) % len(texts)]

    one, two = (
        played(settings({**PROBE, "agent.model.name": name}), reply=replies())
        for name in ("a", "b")
    )
    assert one.bytes == two.bytes
    assert one.requests == two.requests


def test_different_replies_make_different_runs() -> None:
    def varied(salt: str) -> bytes:
        return played(
            settings(PROBE),
            reply=lambda r: hashlib.sha256((salt + r.messages[0].content).encode()).hexdigest(),
        ).bytes

    assert len({varied(salt) for salt in "abc"}) == 3


def test_the_probes_menu_reaches_orders_and_shipments() -> None:
    chosen = settings(
        {
            **PROBE,
            "simulation.max_steps": 400,
            "simulation.initial_storage_per_sku": 20,
            "crash_detector.continue_after_crash": 1000,
        }
    )
    run = played(chosen, reply=lambda r: hashlib.sha256(r.messages[0].content.encode()).hexdigest())
    assert run.outcome.measures.orders_placed > 10
    assert run.outcome.measures.orders_shipped > 3


def test_prediction_modes_are_the_six_of_the_study() -> None:
    assert PredictionMode.__args__ == (  # type: ignore[attr-defined]
        "required",
        "optional",
        "required+confidence",
        "required+uncertainty",
        "required+full",
        "none",
    )
