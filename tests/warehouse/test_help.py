"""The hint of `tool_ask_help`: rule by rule, in their order, and looking back on the last calls."""

import itertools
import random
from dataclasses import replace
from typing import Any, get_args

import pytest

from tests.warehouse.offering import ARGUMENTS, game
from tests.warehouse.test_recovery import SUPPLIES, next_day, slowest
from vendomini.workloads.warehouse.goods import CustomerOrder
from vendomini.workloads.warehouse.recovery import (
    ADVICE,
    CALLS,
    FAILED,
    MESSAGES,
    REPEATED,
    SPACE,
    WAITED,
    News,
    Situation,
    hint,
    situation,
)
from vendomini.workloads.warehouse.tools import Called, Failure

CALM = Situation(
    day=20,
    budget=100_000,
    storage={"sku_0": 10, "sku_1": 0},
    capacity=500,
    free_capacity=400,
    due=(),
    messages=0,
    waiting_since=None,
    coming={},
    last=(),
)


def customer(number: int, sku: str, quantity: int, due: int = 22) -> CustomerOrder:
    return CustomerOrder(id=f"CO{number}", sku=sku, quantity=quantity, price=2000, day=19, due=due)


def made(tool: str, failure: Failure | None = None, **arguments: Any) -> Called:
    result: dict[str, Any] = {"success": failure is None}
    if failure is not None:
        result |= {"code": failure, "error": failure}
    return Called(tool=tool, arguments=arguments, result=result, failure=failure)


COVERED = (customer(1, "sku_0", 8),)
UNCOVERED = (customer(2, "sku_1", 8),)
FAILING = tuple(made("tool_quote", "unknown_id", number=n) for n in range(FAILED))
SAME = (made("tool_check_budget"),) * REPEATED
LATE_INBOX = {"messages": 1, "waiting_since": 20 - WAITED}
FULL = {"free_capacity": 500 // SPACE - 1}

# In the order of the rules: what makes each hold, alone.
RULES: list[tuple[str, dict[str, Any]]] = [
    ("debt", {"budget": -1}),
    ("repetition", {"last": SAME}),
    ("failures", {"last": FAILING}),
    ("shipping", {"due": COVERED}),
    ("inbox", LATE_INBOX),
    ("space", FULL),
    ("ordering", {"due": UNCOVERED}),
    ("general", {}),
]


@pytest.mark.parametrize(("rule", "changes"), RULES)
def test_each_rule_of_the_hint_holds_alone(rule: str, changes: dict[str, Any]) -> None:
    assert hint(replace(CALM, **changes))["about"] == rule


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(RULES, 2)))
def test_of_two_rules_that_hold_the_first_gives_the_hint(
    first: tuple[str, dict[str, Any]], second: tuple[str, dict[str, Any]]
) -> None:
    changes = {**second[1], **first[1]}
    for key in ("last", "due"):
        if key in first[1] and key in second[1]:
            changes[key] = (*second[1][key], *first[1][key])
    assert hint(replace(CALM, **changes))["about"] == first[0]


@pytest.mark.parametrize(
    ("rule", "changes"),
    [
        ("debt", {"budget": 0}),
        ("repetition", {"last": SAME[1:]}),
        ("repetition", {"last": (made("tool_wait"),) * REPEATED}),
        ("repetition", {"last": (*SAME[1:], made("tool_check_budget", other=1))}),
        ("repetition", {"last": (*SAME, made("tool_wait"))}),
        ("repetition", {"last": (*SAME[1:], replace(SAME[0], result={"success": True, "n": 1}))}),
        ("failures", {"last": (*FAILING[1:], made("tool_wait"))}),
        ("shipping", {"due": (customer(1, "sku_0", 11),)}),
        ("inbox", {"messages": MESSAGES - 1, "waiting_since": 20 - WAITED + 1}),
        ("space", {"free_capacity": 500 // SPACE}),
        ("ordering", {"due": UNCOVERED, "coming": {"sku_1": 8}}),
    ],
)
def test_a_rule_does_not_hold_just_short_of_its_bound(rule: str, changes: dict[str, Any]) -> None:
    assert hint(replace(CALM, **changes))["about"] != rule


def test_many_messages_are_worth_a_hint_before_they_are_old() -> None:
    said = hint(replace(CALM, messages=MESSAGES, waiting_since=20))
    assert said["about"] == "inbox"
    assert said["hint"].startswith(
        f"{MESSAGES} messages wait in the inbox, the oldest since day 20"
    )


def test_the_hint_names_the_orders_that_the_stock_covers_one_after_the_other() -> None:
    due = (customer(1, "sku_0", 8), customer(2, "sku_0", 3), customer(3, "sku_0", 2))
    assert hint(replace(CALM, due=due))["hint"] == "Ship from stock now: CO1, CO3."
    assert "CO1, CO3" in hint(replace(CALM, due=due, budget=-1))["hint"]


@pytest.mark.parametrize(("count", "others"), [(12, ""), (13, ", and 1 more")])
def test_a_hint_names_twelve_and_counts_the_others(count: int, others: str) -> None:
    due = tuple(customer(number, "sku_0", 1) for number in range(count))
    named = ", ".join(f"CO{number}" for number in range(12))
    stock = {"sku_0": 20}
    said = hint(replace(CALM, due=due, storage=stock))["hint"]
    assert said == f"Ship from stock now: {named}{others}."


def test_a_situation_adds_up_what_is_on_its_way_and_has_those_due_first_first() -> None:
    run = game({"pe_induction.p_shock": 0.0, "demand.orders_per_day": 4.0})
    world = run.world
    slow = slowest(run)
    for quantity in (10, 20):
        assert run.tools.call("tool_order", {**slow, "quantity": quantity}).succeeded
    run.tools.call("tool_check_inbox", {})
    late = replace(next(iter(world.customers.values())), id="CO_late", due=world.day + 90)
    world.customers = {"CO_late": late, **world.customers}
    seen = situation(world, News(world), ())
    assert seen.coming == {slow["sku"]: 30}
    assert len(seen.due) == len(world.customers) > 1
    assert seen.due[-1] == late
    assert [each.due for each in seen.due] == sorted(each.due for each in seen.due)


def test_the_hint_names_what_must_be_ordered() -> None:
    due = (customer(1, "sku_1", 8), customer(2, "sku_1", 5), customer(3, "sku_0", 12))
    said = hint(replace(CALM, due=due, coming={"sku_1": 6}))["hint"]
    assert "neither stock nor orders on their way: 7 sku_1, 2 sku_0." in said


def test_the_hint_names_the_commonest_failure_and_of_equals_the_newest() -> None:
    kinds: tuple[Failure, ...] = ("no_stock", "unknown_id", "no_stock", "unknown_id")
    last = tuple(made("tool_quote", kind, n=n) for n, kind in enumerate(kinds))
    said = hint(replace(CALM, last=last))["hint"]
    assert said == f"4 of your last 4 calls failed, mostly with unknown_id: {ADVICE['unknown_id']}."
    said = hint(replace(CALM, last=(*last, last[0])))["hint"]
    assert f"mostly with no_stock: {ADVICE['no_stock']}." in said


def test_there_is_advice_for_every_way_to_fail() -> None:
    assert set(ADVICE) == set(get_args(Failure))


def test_the_hint_looks_back_on_the_last_calls_other_than_for_help() -> None:
    run = game({"demand.orders_per_day": 0.0})
    help_: dict[str, Any] = {}

    def about() -> str:
        return str(run.tools.call("tool_ask_help", help_).result["about"])

    assert about() == "general"
    for number in range(FAILED):
        assert about() == "general"
        run.tools.call("tool_fly", {"to": number})
    assert about() == "failures"
    for number in range(CALLS - FAILED + 1):
        assert about() == "failures"
        run.tools.call("tool_quote", {**SUPPLIES, "quantity": number + 1})
    assert about() == "general"
    for _ in range(REPEATED):
        assert about() == "general"
        run.tools.call("tool_check_budget", {})
    assert about() == "repetition"


def test_hints_are_the_same_for_the_same_state_and_calls_and_change_nothing() -> None:
    one, other = game({"pe_induction.p_shock": 0.5}), game({"pe_induction.p_shock": 0.5})
    draw = random.Random(3)
    names = [*ARGUMENTS, "tool_check_inbox", "tool_check_budget", "tool_order", "tool_fly"]
    for _ in range(120):
        name = draw.choice(names)
        arguments = ARGUMENTS.get(name, SUPPLIES if name == "tool_order" else {})
        extra = [each.tools.call("tool_ask_help", {}).result for each in (one, other)]
        assert extra[0] == extra[1]
        if draw.random() < 0.5:  # asking once more changes no later hint
            one.tools.call("tool_ask_help", {})
        assert next_day(one, name, arguments) == next_day(other, name, arguments)
