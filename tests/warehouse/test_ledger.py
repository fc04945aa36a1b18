"""What the ledger learns of each result and message, kind by kind."""

from typing import Any

from vendomini.workloads.warehouse.agent import Seen
from vendomini.workloads.warehouse.ledger import LONGEST_CALL, Call, Ledger

Day = tuple[Call | None, dict[str, Any] | None]
"""A day's call, and its result, which is seen the next morning."""

WAITED: Day = (("tool_wait", {}), {"success": True})
UNREAD: Day = (None, None)


def learnt(*days: Day) -> Ledger:
    """A ledger to which these days have left, and then a day of waiting."""
    ledger = Ledger(expire_after_days=7, longest=10_000)
    before: dict[str, Any] | None = None
    for day, (call, result) in enumerate((*days, WAITED)):
        ledger.learn(Seen(day=day, inbox_count=0, last_result=before), call)
        before = result
    return ledger


def line(ledger: Ledger, start: str) -> str:
    (found,) = [each for each in ledger.text().splitlines() if each.startswith(f"- {start}")]
    return found


def made(tool: str, told: dict[str, Any] | None = None, **arguments: Any) -> Day:
    return (tool, arguments), {"success": True, **(told or {})}


def failed(tool: str, **arguments: Any) -> Day:
    return (tool, arguments), {"success": False, "code": "unknown_id", "error": "no"}


def ordered(number: int, quantity: int = 10, eta: int = 5) -> Day:
    told = {"order_id": f"ORD{number}", "eta_day": eta}
    return made("tool_order", told, supplier_id="S1", sku="sku_0", quantity=quantity)


def inbox(*messages: dict[str, Any]) -> Day:
    return made("tool_check_inbox", {"messages": list(messages)})


def wanted(number: int, day: int = 0) -> dict[str, Any]:
    return {
        "type": "customer_order",
        "customer_order_id": f"CO{number}",
        "sku": "sku_0",
        "quantity": 3,
        "unit_sale_price": 20.5,
        "due_day": 9,
        "day": day,
    }


def shipped(number: int, revenue: float, budget: float) -> Day:
    entry = {"customer_order_id": f"CO{number}", "quantity": 3, "net_revenue": revenue}
    told = {"shipped": [entry], "new_budget": budget}
    return made("tool_ship_customer_order", told, customer_order_id=f"CO{number}")


ON_WAY = "Your orders not known to have arrived"


def test_an_order_is_listed_until_it_is_cancelled_or_its_delivery_was_read() -> None:
    both = "ORD0 (10 sku_0 from S1, eta day 5), ORD1 (4 sku_0 from S1, eta day 7)"
    placed = (ordered(0), ordered(1, quantity=4, eta=7))
    assert line(learnt(*placed), ON_WAY) == f"- {ON_WAY}: {both}."
    one = f"- {ON_WAY}: ORD1 (4 sku_0 from S1, eta day 7)."
    cancel = made("tool_cancel_order", {"fee": 1.0}, order_id="ORD0")
    assert line(learnt(*placed, cancel), ON_WAY) == one
    assert "2 orders placed, 1 cancelled" in line(learnt(*placed, cancel), "In all")
    arrived = inbox({"type": "delivery", "order_id": "ORD0", "quantity": 10, "day": 1})
    assert line(learnt(*placed, arrived), ON_WAY) == one
    refused = learnt(*placed, failed("tool_cancel_order", order_id="ORD0"))
    assert line(refused, ON_WAY) == f"- {ON_WAY}: {both}."
    assert "0 cancelled" in line(refused, "In all")
    assert "1 calls failed" in line(refused, "In all")


def test_an_order_has_the_day_and_the_quantity_that_were_told_last() -> None:
    def says(*days: Day) -> str:
        return line(learnt(ordered(0), *days), ON_WAY).removeprefix(f"- {ON_WAY}: ORD0 ")

    late = {"type": "delay_notice", "order_id": "ORD0", "new_eta": 9, "day": 1}
    short = {"type": "quantity_notice", "order_id": "ORD0", "quantity": 6, "day": 1}
    assert says(inbox(late)) == "(10 sku_0 from S1, eta day 9)."
    assert says(inbox(short)) == "(6 sku_0 from S1, eta day 5)."
    sooner = made("tool_expedite", {"new_eta_day": 3, "cost": 5.0}, order_id="ORD0")
    assert says(inbox(late), sooner) == "(10 sku_0 from S1, eta day 3)."
    unsaid = [{k: v for k, v in m.items() if k in ("type", "order_id")} for m in (late, short)]
    assert says(inbox(*unsaid)) == "(10 sku_0 from S1, eta day 5)."


def test_news_of_an_order_that_the_ledger_does_not_know_is_no_order() -> None:
    late = {"type": "delay_notice", "order_id": "ORD7", "new_eta": 9, "day": 0}
    short = {"type": "quantity_notice", "order_id": "ORD7", "quantity": 6, "day": 0}
    sooner = made("tool_expedite", {"new_eta_day": 3, "cost": 5.0}, order_id="ORD7")
    arrived = {"type": "delivery", "order_id": "ORD7", "quantity": 10, "day": 1}
    assert line(learnt(inbox(late, short, arrived), sooner), ON_WAY) == f"- {ON_WAY}: none."


def test_a_customer_is_listed_until_shipped_to_or_expired() -> None:
    start = "Open customer orders you know of"
    known = line(learnt(inbox(wanted(1), wanted(2))), start)
    assert known == (
        f"- {start}: CO1 (3 sku_0 at 20.5, due day 9), CO2 (3 sku_0 at 20.5, due day 9)."
    )
    sold = learnt(inbox(wanted(1), wanted(2)), shipped(1, 61.5, 900.0), shipped(3, 10.0, 910.0))
    assert line(sold, start) == f"- {start}: CO2 (3 sku_0 at 20.5, due day 9)."
    assert "2 customer orders shipped for 71.50" in line(sold, "In all")
    assert line(sold, "Budget") == "- Budget: 910.00 at the call of day 2."
    for days, is_open in ((7, True), (8, False)):  # it is lost on the evening of day 7
        ledger = learnt(inbox(wanted(1)), *[WAITED] * (days - 1))
        assert ledger.days == days + 1
        assert ("CO1" in line(ledger, start)) == is_open


def test_days_without_a_call_are_counted_and_their_results_are_nobodys() -> None:
    ledger = learnt(WAITED, UNREAD, UNREAD, WAITED)
    assert "2 days without a readable call" in line(ledger, "In all")
    unread = Ledger(expire_after_days=7, longest=10_000)
    unread.learn(Seen(day=0, inbox_count=0, last_result=None), None)
    assert unread.text().startswith("Day 0 has left this conversation.")
    assert unread.text().endswith("- Your call of day 0: none could be read.")


def test_what_was_looked_at_holds_as_of_the_day_of_the_call() -> None:
    storage = made("tool_check_storage", {"storage": {"sku_0": 4, "sku_1": 0}})
    budget = made("tool_check_budget", {"budget": 12.5})
    ledger = learnt(WAITED, storage, budget)
    assert line(ledger, "Storage") == "- Storage: 4 sku_0 at the call of day 1."
    assert line(ledger, "Budget") == "- Budget: 12.50 at the call of day 2."
    empty = learnt(made("tool_check_storage", {"storage": {"sku_0": 0}}))
    assert line(empty, "Storage") == "- Storage: empty at the call of day 0."
    assert line(learnt(), "Storage") == "- Storage: never told."


def test_notes_are_counted_and_keys_named_in_the_order_they_were_set_in() -> None:
    write = made("tool_write_scratchpad", text="x")
    empty = made("tool_delete_scratchpad")

    def set_(key: str) -> Day:
        return made("tool_set_value", key=key, value="v")

    drop = made("tool_delete_value", key="a")
    ledger = learnt(write, empty, write, write, WAITED)
    assert line(ledger, "Your notes") == (
        "- Your notes: scratchpad of 2 lines, last written on day 3."
    )
    assert "Your notes" not in learnt(write, empty, set_("a"), drop).text()
    keys = learnt(set_("a"), set_("b"), set_("a"), set_("c"))
    assert line(keys, "Your notes") == "- Your notes: values `b`, `a`, `c`."
    dropped = learnt(set_("a"), set_("b"), drop)
    assert line(dropped, "Your notes") == "- Your notes: values `b`."


FACTS: dict[str, Any] = {
    "budget": 50.0,
    "storage": {"sku_0": 2},
    "orders": [
        {"order_id": "ORD1", "supplier_id": "S2", "sku": "sku_1", "quantity": 7, "eta_day": 8}
    ],
    "customer_orders": [wanted(2)],
}


def test_a_reset_replaces_what_was_known_where_it_tells_all() -> None:
    before = (ordered(0), inbox(wanted(1)))
    whole = learnt(*before, made("tool_reset_beliefs", FACTS))
    assert list(whole.coming) == ["ORD1"]
    assert list(whole.customers) == ["CO2"]
    assert line(whole, ON_WAY) == f"- {ON_WAY}: ORD1 (7 sku_1 from S2, eta day 8)."
    assert line(whole, "Budget") == "- Budget: 50.00 at the call of day 2."
    cut = {**FACTS, "more_orders": 1, "more_customer_orders": 1}
    part = learnt(*before, made("tool_reset_beliefs", cut))
    assert list(part.coming) == ["ORD0", "ORD1"]
    assert list(part.customers) == ["CO1", "CO2"]


def test_the_last_call_is_told_whole_up_to_its_longest() -> None:
    def said(text: str) -> str:
        ledger = Ledger(expire_after_days=7, longest=10_000)
        ledger.learn(Seen(day=0, inbox_count=0, last_result=None), ("tool_x", {"text": text}))
        return ledger.text().partition("- Your call of day 0: ")[2]

    rest = len(said(""))
    whole = said("a" * (LONGEST_CALL - rest))
    assert whole.endswith('"}}')
    assert len(whole) == LONGEST_CALL
    cut = said("a" * (LONGEST_CALL - rest + 1))
    assert cut == cut[:LONGEST_CALL] + "..."
