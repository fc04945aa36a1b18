"""Predictions are bound to their call and resolved when the event happens; else not at all."""

import math
from typing import Any

import pytest

from tests.warehouse.playing import WAIT, Call, Policy, listed, played, settings
from vendomini.workloads.warehouse.agent import Decision
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.cards import ERROR_TYPES, Predictions, Track, relative
from vendomini.workloads.warehouse.tools import call
from vendomini.workloads.warehouse.world import Delivered, World

CALM = {"demand.orders_per_day": 0.0, "pe_induction.p_shock": 0.0, "simulation.max_steps": 30}
ORDER: dict[str, Any] = {"supplier_id": "S1", "sku": "sku_0", "quantity": 10}

LEVEL_2 = {"simulation.complexity_level": 2}
SLOW = "sku_2"  # takes more than a day


def order_with(**card: Any) -> Decision:
    return Decision(tool="tool_order", arguments=ORDER, card=Card(**card))


def arrival() -> int:
    world = World(settings(CALM), seed=0, replication=0)
    return world.place_order(supplier="S1", sku="sku_0", quantity=10).arrival


def lead_of_an_order_on_day(day: int) -> int:
    run = World(settings(CALM), seed=0, replication=0)
    for _ in range(day):
        run.evening()
        run.morning()
    assert run.day == day
    return run.place_order(supplier="S1", sku="sku_0", quantity=10).arrival - day


def test_an_order_resolves_at_its_delivery_and_payment_not_before() -> None:
    decision = order_with(expected_lead_days=1, expected_quantity=8, expected_cost=1.0)
    run = played(settings(CALM), agent=listed([decision]))
    of_order = [(step.step, e) for step in run.steps for e in step.resolved if e.type != "causal"]
    assert {step for step, _ in of_order} == {arrival()}
    errors = {e.type: e.error for _, e in of_order}
    price = run.steps[0].result["price"]  # type: ignore[index]
    assert errors == {
        "temporal": float(arrival() - 1),
        "quantity": 0.25,
        "cost": pytest.approx(price - 1.0),
    }
    assert all(e.of == 0 for _, e in of_order)


def test_a_lead_time_is_counted_from_the_day_of_the_order() -> None:
    late = listed([WAIT, WAIT, WAIT, WAIT, order_with(expected_lead_days=1)])
    (error,) = [
        error
        for step in played(settings(CALM), agent=late).steps
        for error in step.resolved
        if error.type == "temporal"
    ]
    assert (error.of, error.error) == (4, lead_of_an_order_on_day(4) - 1)


def test_storage_and_budget_resolve_at_the_days_end() -> None:
    decision = Decision(
        tool="tool_wait",
        arguments={},
        card=Card(expected_storage_after=4, expected_budget_after=8000.0),
    )
    (step, *_) = played(settings(CALM), agent=listed([decision])).steps
    errors = {e.type: e.error for e in step.resolved}
    assert errors == {"storage": 1.0, "budget": 0.25, "causal": 1.0}


def test_a_step_that_could_not_be_read_resolves_no_card_of_the_day_before() -> None:
    said = Decision(tool="tool_wait", arguments={}, card=Card(expected_storage_after=4))
    run = played(settings(CALM), agent=listed([said, Decision(parse_status="failed")]))
    assert [len(step.resolved) for step in run.steps[:2]] == [1, 0]


@pytest.mark.parametrize(
    ("card", "error"),
    [
        (Card(expected_success=True), 0.0),
        (Card(expected_success=False), 1.0),
        (Card(expected_success=True, expected_budget_after=10050.0), 0.0),
        (Card(expected_success=True, expected_budget_after=10200.0), 1.0),
        (Card(expected_budget_after=10101.0), 0.0),
        (Card(expected_budget_after=10102.0), 1.0),
        (Card(expected_budget_after=9900.0), 0.0),
        (Card(expected_budget_after=9899.0), 1.0),
        (Card(expected_success=False, expected_budget_after=10000.0), 1.0),
    ],
)
def test_causal_is_a_wrong_success_or_a_budget_off_by_more_than_a_hundredth(
    card: Card, error: float
) -> None:
    decision = Decision(tool="tool_wait", arguments={}, card=card)
    (step, *_) = played(settings(CALM), agent=listed([decision])).steps
    assert [e.error for e in step.resolved if e.type == "causal"] == [error]


def test_the_end_of_the_run_leaves_predictions_unresolved_never_0() -> None:
    decision = order_with(expected_lead_days=3, expected_quantity=10, expected_cost=100.0)
    chosen = settings({**CALM, "simulation.max_steps": 1})
    pe = played(chosen, agent=listed([decision])).outcome.pe
    for type in ("temporal", "quantity", "cost"):
        summary = pe[type]
        assert (summary.predicted, summary.resolved, summary.unresolved) == (1, 0, 1)
        values = (summary.mean, summary.sd, summary.max, summary.ewma_fast, summary.ewma_slow)
        assert set(values) == {None}
        assert {window.mean for window in summary.windows} == {None}


@pytest.mark.parametrize("call_back", ["cancel", "fail"])
def test_an_order_that_never_arrives_is_unresolved(call_back: str) -> None:
    first = order_with(expected_lead_days=3, expected_quantity=10, expected_cost=100.0)
    if call_back == "fail":
        first = Decision(tool="tool_order", arguments={**ORDER, "sku": "x"}, card=first.card)
    calls: list[Call | Decision | None] = [first, ("tool_cancel_order", {"order_id": "ORD0"})]
    run = played(settings(CALM), agent=listed(calls))
    for type in ("temporal", "quantity", "cost"):
        assert run.outcome.pe[type].unresolved == 1
        assert run.outcome.pe[type].mean is None


def test_what_was_never_predicted_has_no_errors() -> None:
    decision = Decision(tool="tool_order", arguments=ORDER, card=Card(next_tool="tool_wait"))
    chosen = settings({**CALM, "simulation.max_steps": 1})
    pe = played(chosen, agent=listed([decision])).outcome.pe
    assert {(each.predicted, each.resolved, each.unresolved) for each in pe.values()} == {(0, 0, 0)}
    assert list(pe) == list(ERROR_TYPES)


def test_cancelling_is_paid_at_once_and_so_is_its_cost_error() -> None:
    cancel = Decision(
        tool="tool_cancel_order", arguments={"order_id": "ORD0"}, card=Card(expected_cost=0.0)
    )
    run = played(settings(CALM), agent=listed([("tool_order", ORDER), cancel]))
    fee = run.steps[1].result["fee"]  # type: ignore[index]
    assert [e.error for e in run.steps[1].resolved if e.type == "cost"] == [pytest.approx(fee)]


def test_expediting_withdraws_the_lead_time_predicted_before() -> None:
    chosen = settings({**CALM, "simulation.complexity_level": 2})
    world = World(chosen, seed=0, replication=0)
    predictions = Predictions((10,))
    ordered = call(world, "tool_order", ORDER)
    predictions.made(Card(expected_lead_days=5), ordered, step=0, day=0)
    expedited = call(world, "tool_expedite", {"order_id": "ORD0"})
    predictions.made(Card(expected_lead_days=2), expedited, step=1, day=1)
    assert ordered.ordered is not None
    predictions.happened(Delivered(order=ordered.ordered, day=4, accepted=10, returned=0))
    (error,) = [e for e in predictions.day_ended(storage=0, budget=0) if e.type == "temporal"]
    assert (error.of, error.error) == (1, 0.5)
    summary = predictions.summaries()["temporal"]
    assert (summary.predicted, summary.unresolved) == (2, 1)


@pytest.mark.parametrize("card", [None, Card(expected_success=True)])
def test_expediting_withdraws_it_whatever_card_comes_with_it(card: Card | None) -> None:
    expedite = Decision(tool="tool_expedite", arguments={"order_id": "ORD0"}, card=card)
    order = {"supplier_id": "S1", "sku": SLOW, "quantity": 10}
    first = Decision(tool="tool_order", arguments=order, card=Card(expected_lead_days=7))
    run = played(settings(CALM | LEVEL_2), agent=listed([first, expedite]))
    assert run.steps[1].result is not None
    assert run.steps[1].result["success"]
    temporal = run.outcome.pe["temporal"]
    assert (temporal.predicted, temporal.resolved, temporal.unresolved) == (1, 0, 1)


def test_a_quantity_is_what_went_into_storage_not_what_came() -> None:
    world, predictions = World(settings(CALM), seed=0, replication=0), Predictions((10,))
    ordered = call(world, "tool_order", ORDER)
    assert ordered.ordered is not None
    predictions.made(Card(expected_quantity=10), ordered, step=0, day=0)
    predictions.happened(Delivered(order=ordered.ordered, day=4, accepted=6, returned=4))
    errors = {e.type: e.error for e in predictions.day_ended(storage=0, budget=0)}
    assert errors == {"quantity": 0.4}


def test_a_negative_lead_time_is_an_error_by_the_formula() -> None:
    run = played(settings(CALM), agent=listed([order_with(expected_lead_days=-5.0)]))
    assert run.outcome.pe["temporal"].mean == arrival() + 5


@pytest.mark.parametrize(
    ("predicted", "actual", "error"), [(4, 6, 0.5), (0, 3, 3.0), (-10, 10, 2.0), (0.5, 0, 0.5)]
)
def test_relative_errors_never_divide_by_less_than_one(
    predicted: float, actual: float, error: float
) -> None:
    assert relative(predicted, actual) == error


def test_averages_and_windows_follow_their_formulas() -> None:
    errors = [1.0, 0.0, 2.0, 0.5, 0.25]
    track = Track(4)
    fast = medium = slow = 0.0
    for error in errors:
        track.predicted += 1
        track.add(error)
        fast = 0.3 * error + 0.7 * fast
        medium = 0.1 * error + 0.9 * medium
        slow = 0.01 * error + 0.99 * slow
    summary = track.summary((2, 4))
    assert summary.ewma_fast == pytest.approx(fast, abs=1e-6)
    assert summary.ewma_medium == pytest.approx(medium, abs=1e-6)
    assert summary.ewma_slow == pytest.approx(slow, abs=1e-6)
    assert (summary.mean, summary.max) == (0.75, 2.0)
    spread = math.sqrt(sum((e - 0.75) ** 2 for e in errors) / 5)
    assert summary.sd == pytest.approx(spread, abs=1e-6)
    short, long = summary.windows
    assert (short.size, short.mean, short.max) == (2, 0.375, 0.5)
    assert (long.size, long.mean, long.max) == (4, 0.6875, 2.0)


def test_steps_log_averages_only_from_a_types_first_error_on() -> None:
    decision = order_with(expected_lead_days=1)
    run = played(settings(CALM), agent=listed([decision]))
    shown = [step.ewma.temporal for step in run.steps]
    assert shown[: arrival()] == [None] * arrival()
    assert None not in shown[arrival() :]


def test_coverage_adds_up_for_the_heuristic() -> None:
    run = played(settings({"pe_induction.p_shock": 0.5}))
    logged = [e.type for step in run.steps for e in step.resolved]
    for type, summary in run.outcome.pe.items():
        assert summary.predicted == summary.resolved + summary.unresolved
        assert summary.unresolved >= 0
        assert logged.count(type) == summary.resolved
    for type in ("storage", "budget", "causal"):
        summary = run.outcome.pe[type]
        assert (summary.predicted, summary.resolved) == (200, 200)
    orders = run.outcome.measures.orders_placed
    assert run.outcome.pe["temporal"].predicted == orders


def test_an_agent_that_hands_in_no_card_predicts_nothing() -> None:
    silent = Policy(lambda seen: Decision(tool=WAIT[0], arguments={}))
    run = played(settings(CALM), agent=silent)
    assert all(summary.predicted == 0 for summary in run.outcome.pe.values())
    assert {step.card for step in run.steps} == {None}
