"""Reset and audit: what each tells, what it must not tell, and what it changes."""

import itertools
import re
from typing import Any

import pytest

from tests.warehouse.modelled import Counting, Storekeeper, call
from tests.warehouse.offering import RECOVERY, game
from tests.warehouse.playing import Played, played, settings
from vendomini.chat import ChatRequest
from vendomini.workloads.warehouse.agent import Decision
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.cards import ERROR_TYPES
from vendomini.workloads.warehouse.episode import Game
from vendomini.workloads.warehouse.goods import CustomerOrder
from vendomini.workloads.warehouse.recovery import LISTED
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.toolbox import AUDITED
from vendomini.workloads.warehouse.toolbox import audited as audited_of

RESET = call("tool_reset_beliefs")
SUPPLIES = {"supplier_id": "S1", "sku": "sku_0", "quantity": 10}


def llm(**keys: Any) -> WarehouseSettings:
    return settings(
        {
            "agent.kind": "llm",
            "agent.model.context_length": 32_000,
            "agent.interface.recovery_tools": "all",
            "agent.interface.beliefs_every": None,
            "simulation.max_steps": 30,
            "crash_detector.continue_after_crash": 1000,
            **keys,
        }
    )


def keeping(at: dict[int, str], window: int = 32_000) -> Counting:
    """A storekeeper that replies as told on the days given."""
    keeper, days = Storekeeper(), itertools.count()

    def say(request: ChatRequest) -> str:
        usual = keeper(request)
        return at.get(next(days), usual)

    return Counting(say=say, window=window)


def breaks(asked: list[ChatRequest]) -> list[int]:
    """Requests whose messages do not begin with those of the one before."""
    return [
        number
        for number, (before, after) in enumerate(itertools.pairwise(asked), start=1)
        if after.messages[: len(before.messages)] != before.messages
    ]


def test_after_a_reset_only_rules_ledger_and_the_last_exchange_are_left() -> None:
    engine = keeping({12: RESET})
    played(llm(), reply=engine)
    asked = engine.requests
    assert breaks(asked) == [13]
    before, after = asked[12].messages, asked[13].messages
    assert [message.role for message in after] == ["system", "user", "assistant", "user"]
    assert after[0] == before[0]
    ledger, _, morning = after[1].content.partition("\n\n")
    assert ledger.startswith("Days 0 to 11 have left this conversation.")
    assert morning == before[-1].content
    assert after[2].content == RESET
    assert after[3].content.startswith("Day 13. ")
    assert '"free_capacity":' in after[3].content
    assert len(asked[14].messages) == 6


def test_notes_outlive_a_reset_and_the_ledger_says_that_they_are_there() -> None:
    wrote = call("tool_write_scratchpad", {"text": "S1 is late"})
    engine = keeping({3: wrote, 12: RESET, 15: call("tool_read_scratchpad")})
    run = played(llm(), reply=engine)
    assert "- Your notes: scratchpad of 1 line, last written on day 3." in (
        engine.requests[13].messages[1].content
    )
    assert run.steps[15].result == {"success": True, "lines": ["S1 is late"]}


@pytest.mark.parametrize(
    ("reply", "tools"),
    [
        (call("tool_reset_beliefs", {"now": True}), "reset"),
        (RESET, "audit"),
        (RESET, "none"),
    ],
)
def test_a_reset_that_fails_forgets_nothing(reply: str, tools: str) -> None:
    engine = keeping({12: reply})
    run = played(llm(**{"agent.interface.recovery_tools": tools}), reply=engine)
    result = run.steps[12].result
    assert result is not None
    assert result["success"] is False
    assert breaks(engine.requests) == []


def test_resets_in_a_row_and_on_the_first_day_leave_a_conversation_that_goes_on() -> None:
    engine = keeping(dict.fromkeys((0, 1, 2, 9, 10), RESET))
    run = played(llm(), reply=engine)
    assert run.outcome.end == "max_steps"
    assert breaks(engine.requests) == [2, 3, 10, 11]  # on the first day nothing was said before
    assert [len(request.messages) for request in engine.requests[:4]] == [2, 4, 4, 4]


def test_resets_and_truncations_live_together_within_the_window() -> None:
    window = 6000
    engine = keeping(dict.fromkeys((20, 70, 71), RESET), window=window)
    chosen = llm(**{"agent.model.context_length": window, "simulation.max_steps": 150})
    run = played(chosen, reply=engine)
    assert (run.outcome.end, engine.refused) == ("max_steps", 0)
    assert {21, 71, 72} < set(breaks(engine.requests))
    again = played(chosen, reply=keeping(dict.fromkeys((20, 70, 71), RESET), window=window))
    assert (again.bytes, again.requests) == (run.bytes, run.requests)


def test_a_reset_leaves_open_predictions_open_and_they_resolve() -> None:
    order = call("tool_order", SUPPLIES, expected_lead_days=40, expected_cost=1)
    engine = Counting(
        say=lambda request: {0: order, 1: RESET}.get(day_of(request), call("tool_check_inbox")),
        window=32_000,
    )
    run = played(llm(**{"pe_induction.p_shock": 0.0}), reply=engine)
    resolved = [(error.type, error.of) for step in run.steps[2:] for error in step.resolved]
    assert {("temporal", 0), ("quantity", 0), ("cost", 0)} <= set(resolved)


def day_of(request: ChatRequest) -> int:
    return int(re.findall(r"Day (\d+)\. Inbox", request.messages[-1].content)[-1])


def next_day(run: Game, tool: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """The day's call; then it is the next morning."""
    step = run.day(Decision(tool=tool, arguments=arguments or {}, card=Card(expected_success=True)))
    assert run.end is None
    run.morning()
    assert step.result is not None
    return step.result


def looked(run: Game) -> dict[str, Any]:
    """What the reset tells, without a day passing."""
    called = run.tools.call("tool_reset_beliefs", {})
    assert called.succeeded
    return called.result


def test_a_reset_tells_what_the_tools_show() -> None:
    run = game({"pe_induction.p_shock": 0.0, "simulation.initial_storage_per_sku": 9})
    ordered = next_day(run, "tool_order", SUPPLIES)
    told = looked(run)
    assert told["budget"] == run.tools.call("tool_check_budget", {}).result["budget"]
    storage = run.tools.call("tool_check_storage", {}).result
    assert {key: told[key] for key in storage} == storage
    free = told["free_capacity"]
    assert free == storage["capacity"] - storage["total"] - 10
    beyond = run.tools.call("tool_order", {**SUPPLIES, "quantity": free + 1})
    assert f"the free capacity `{free}`" in beyond.result["error"]
    assert told["orders"] == [
        {
            "order_id": ordered["order_id"],
            **SUPPLIES,
            "eta_day": ordered["eta_day"],
        }
    ]


def test_customer_orders_are_told_only_once_their_message_was_read() -> None:
    run = game({"demand.orders_per_day": 3.0})
    assert run.world.customers
    assert looked(run)["customer_orders"] == []
    assert looked(run)["unread_messages"] == len(run.world.inbox)
    read = next_day(run, "tool_check_inbox")["messages"]
    told = looked(run)
    orders = [message for message in read if message["type"] == "customer_order"]
    assert told["customer_orders"] == [
        {key: value for key, value in message.items() if key != "type"} for message in orders
    ]
    assert told["unread_messages"] == len(run.world.inbox) > 0


HIDDEN = {
    "pe_induction.p_shock": 1.0,
    "pe_induction.pe_mag": "high",
    "pe_induction.observability": "hidden",
}


@pytest.mark.parametrize("mix", ["temporal_only", "quantity_only", "causal_only", "rule_only"])
def test_hidden_shocks_change_neither_the_facts_nor_the_hint(mix: str) -> None:
    struck = game({**HIDDEN, "pe_induction.pe_type_mix": mix})
    calm = game({**HIDDEN, "pe_induction.p_shock": 0.0})
    ordered = [next_day(run, "tool_order", slowest(run)) for run in (struck, calm)]
    assert ordered[0] == ordered[1]
    while calm.world.day < ordered[0]["eta_day"]:  # then the delivery tells
        assert looked(struck) == looked(calm)
        helps = [run.tools.call("tool_ask_help", {}).result for run in (struck, calm)]
        assert helps[0] == helps[1]
        for run in (struck, calm):
            next_day(run, "tool_check_inbox")
    assert any(struck._shocks.applied.values())
    assert calm.world.day > 2


def test_what_no_tool_shows_is_in_neither_the_facts_nor_the_hint() -> None:
    run = game({**HIDDEN, "pe_induction.pe_type_mix": "uniform", "demand.orders_per_day": 2.0})
    compared = 0
    for day in range(60):
        before = looked(run), run.tools.call("tool_ask_help", {}).result
        hidden = [(order, order.arrival, order.arriving) for order in run.world.pending.values()]
        for order, arrival, arriving in hidden:
            order.arrival, order.arriving = arrival + 5, 3 * arriving
        assert (looked(run), run.tools.call("tool_ask_help", {}).result) == before
        for order, arrival, arriving in hidden:
            order.arrival, order.arriving = arrival, arriving
        compared += len(hidden)
        sku = f"sku_{day % 10}"
        order_one = ("tool_order", {"supplier_id": "S2", "sku": sku, "quantity": 5})
        next_day(run, *(order_one if day % 2 else ("tool_check_inbox", {})))
    assert compared > 20


@pytest.mark.parametrize(
    ("mix", "key", "field"),
    [("temporal_only", "eta_day", "new_eta"), ("quantity_only", "quantity", "quantity")],
)
@pytest.mark.parametrize("observability", ["full", "partial", "hidden"])
def test_what_a_notice_says_counts_from_the_day_it_is_read(
    mix: str, key: str, field: str, observability: str
) -> None:
    run = game(
        {
            "pe_induction.p_shock": 1.0,
            "pe_induction.pe_mag": "high",
            "pe_induction.pe_type_mix": mix,
            "pe_induction.observability": observability,
        }
    )
    slow = slowest(run)
    ordered = next_day(run, "tool_order", slow)
    agreed = {"eta_day": ordered["eta_day"], "quantity": 10}[key]
    assert looked(run)["orders"][0][key] == agreed
    read = run.tools.call("tool_check_inbox", {}).result["messages"]
    notices = [m for m in read if m["type"] in ("delay_notice", "quantity_notice")]
    assert len(notices) == (observability != "hidden")
    said = notices[0][field] if observability == "full" else agreed
    assert looked(run)["orders"][0][key] == said
    assert (said != agreed) is (observability == "full")


def slowest(run: Game) -> dict[str, Any]:
    """What an order takes longest for, so that it is still on its way tomorrow."""
    catalogue = run.world.catalogue
    supplier, sku = max(
        itertools.product(catalogue.suppliers, catalogue.skus),
        key=lambda pair: catalogue.lead_days(*pair),
    )
    assert catalogue.lead_days(supplier, sku) >= 3
    return {"supplier_id": supplier, "sku": sku, "quantity": 10}


def test_expediting_states_a_new_day_whatever_a_notice_said() -> None:
    run = game(
        {
            "simulation.complexity_level": 4,
            "pe_induction.p_shock": 1.0,
            "pe_induction.pe_type_mix": "temporal_only",
        }
    )
    next_day(run, "tool_order", slowest(run))
    run.tools.call("tool_check_inbox", {})
    noticed = looked(run)["orders"][0]["eta_day"]
    said = run.tools.call("tool_expedite", {"order_id": "ORD0"}).result["new_eta_day"]
    assert looked(run)["orders"][0]["eta_day"] == said < noticed


def test_the_facts_stay_short_however_many_orders_there_are() -> None:
    run = game({"demand.orders_per_day": 5.0, "demand.expire_after_days": 1000})
    for _ in range(6):
        run.tools.call("tool_check_inbox", {})
        next_day(run, "tool_check_inbox")
    run.tools.call("tool_check_inbox", {})
    for _ in range(40):
        run.tools.call("tool_order", {**slowest(run), "quantity": 1})
    told = looked(run)
    assert len(told["orders"]) == len(told["customer_orders"]) == LISTED
    assert told["more_orders"] == len(run.world.pending) - LISTED
    assert told["more_customer_orders"] == len(run.world.customers) - LISTED > 0
    newest = list(run.world.pending)[-LISTED:], list(run.world.customers)[-LISTED:]
    assert [order["order_id"] for order in told["orders"]] == newest[0]
    assert [order["customer_order_id"] for order in told["customer_orders"]] == newest[1]


def test_what_is_told_in_full_is_not_said_to_be_more() -> None:
    run = game({"demand.orders_per_day": 0.0})
    for _ in range(LISTED):
        run.tools.call("tool_order", {**slowest(run), "quantity": 1})
    world = run.world
    for number in range(LISTED):
        id = f"CO{number}"
        world.customers[id] = CustomerOrder(id=id, sku="sku_0", quantity=1, price=1, day=0, due=9)
    told = looked(run)
    assert len(told["orders"]) == len(told["customer_orders"]) == LISTED
    assert not {"more_orders", "more_customer_orders"} & told.keys()


def test_the_ledger_of_later_days_knows_what_a_reset_told() -> None:
    window = 6000
    level = {"simulation.complexity_level": 4}  # orders that are long on their way
    order = call("tool_order", {**slowest(game(level)), "quantity": 1})
    at = {day: order for day in range(10, 200, 11)} | dict.fromkeys(range(0, 200, 11), RESET)
    engine = keeping(at, window=window)
    run = played(
        llm(**{"agent.model.context_length": window, "simulation.max_steps": 120, **level}),
        reply=engine,
    )
    checked, known = 0, set()
    for number, request in enumerate(engine.requests):
        first = request.messages[1].content
        if "left this conversation" not in first:
            continue
        days = int(re.findall(r"Days? (?:0 to )?(\d+) ha", first)[0])
        told = [
            (step.day, step.result)
            for step in run.steps[:days]
            if step.action and step.result and step.action.tool == "tool_reset_beliefs"
        ]
        budgets = [
            step
            for step in run.steps[:days]
            if step.result and {"budget", "new_budget"} & set(step.result)
        ]
        if told and budgets[-1].day == told[-1][0]:
            day, facts = told[-1]
            assert f"- Budget: {facts['budget']:.2f} at the call of day {day}." in first
            for order in facts["orders"]:
                assert number > day
                delivered = any(
                    message["type"] == "delivery" and message["order_id"] == order["order_id"]
                    for step in run.steps[day:days]
                    if step.result
                    for message in step.result.get("messages", ())
                )
                assert (f"{order['order_id']} (" in first) is not delivered
                known.add(delivered)
            checked += 1
    assert checked > 10
    assert known == {False, True}


def audited(run: Played) -> list[tuple[int, dict[str, Any]]]:
    return [
        (step.step, step.result)
        for step in run.steps
        if step.action and step.result and step.action.tool == "tool_audit_predictions"
    ]


def test_an_audit_tells_what_the_step_log_resolved() -> None:
    at = dict.fromkeys(range(5, 200, 9), call("tool_audit_predictions"))
    chosen = llm(**{"simulation.max_steps": 200, "pe_induction.p_shock": 0.3})
    run = played(chosen, reply=keeping(at))
    audits = audited(run)
    assert len(audits) == 22
    seen = set()
    for step, result in audits:
        told = [(error["type"], error["day"], error["error"]) for error in result["resolved"]]
        logged = [(e.type, e.of, e.error) for s in run.steps[:step] for e in s.resolved]
        # Errors of the morning of the audit's own day are told, and logged with that day.
        today = [(e.type, e.of, e.error) for e in run.steps[step].resolved]
        mornings = [error for error in today if error[0] in ("temporal", "quantity", "cost")]
        assert told == (logged + mornings)[-AUDITED:]
        seen |= {error["type"] for error in result["resolved"]}
        for error in result["resolved"]:
            assert run.steps[error["day"]].day == error["day"]
            off = abs(float(error["expected"]) - float(error["actual"]))
            if error["type"] != "causal":
                assert error["error"] == pytest.approx(
                    off / max(abs(error["expected"]), 1.0), abs=1e-6
                )
    assert seen == set(ERROR_TYPES)
    last = run.outcome.pe
    assert audits[-1][1]["unresolved"].keys() == {
        type for type in ERROR_TYPES if last[type].predicted
    }


def test_an_audit_counts_what_is_still_open_by_type() -> None:
    run = game({"pe_induction.p_shock": 0.0})
    card = Card(expected_success=True, expected_lead_days=3, expected_quantity=10, expected_cost=9)
    run.day(Decision(tool="tool_order", arguments=slowest(run), card=card))
    run.morning()
    told = run.tools.call("tool_audit_predictions", {}).result
    assert told["unresolved"] == {"temporal": 1, "quantity": 1, "cost": 1, "causal": 0}
    assert told["resolved"] == [
        {"day": 0, "type": "causal", "expected": True, "actual": True, "error": 0.0}
    ]


def test_an_audit_without_predictions_is_empty() -> None:
    run = game({"agent.interface.prediction_mode": "none"})
    told = run.tools.call("tool_audit_predictions", {}).result
    assert told == {"success": True, "resolved": [], "unresolved": {}}


@pytest.mark.parametrize("tools", list(RECOVERY))
def test_predictions_are_kept_only_for_who_may_audit(tools: str) -> None:
    keys = {"agent.interface.recovery_tools": tools}
    run = game(keys)
    run.day(Decision(tool="tool_wait", arguments={}, card=Card(expected_success=True)))
    assert len(run._predictions.audit) == (tools in ("audit", "all"))
    assert not audited_of(settings(keys).agent)
