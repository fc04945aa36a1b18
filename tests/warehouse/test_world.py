"""Money and units are conserved, tools refuse what cannot be, nothing raises."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.playing import WAIT, cycled, listed, played, settings
from vendomini.workloads.warehouse.agent import Seen, briefing
from vendomini.workloads.warehouse.episode import Game
from vendomini.workloads.warehouse.heuristic import Heuristic
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.tools import TOOLS, Called, call, offered
from vendomini.workloads.warehouse.world import Delivered, Order, Paid, World


def world(keys: dict[str, Any] | None = None) -> World:
    return World(settings(keys), seed=0, replication=0)


def balanced(it: World, chosen: WarehouseSettings) -> None:
    """Assert that what came in less what went out is what is there."""
    totals = it.totals
    start = round(chosen.simulation.initial_budget * 100)
    assert it.budget == start + totals.revenue - totals.paid - totals.fees - totals.charges
    stock = chosen.simulation.initial_storage_per_sku * len(it.storage)
    assert it.stored == sum(it.storage.values()) == stock + totals.units_in - totals.units_out
    assert min(it.storage.values()) >= 0
    assert it.stored <= it.capacity
    assert it.pending_units == sum(order.quantity for order in it.pending.values())
    assert it.owed == sum(p.amount for late in it._unposted.values() for p in late)
    assert totals.requested == totals.shipped + totals.failed + len(it.customers)


def days(it: World, count: int) -> list[Delivered | Paid]:
    """Pass days without a call; what was delivered and paid."""
    events = []
    for _ in range(count):
        it.evening()
        events += it.morning()
    return events


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["S1", "sku_0", "ORD0", "CO0", "\ud800", "10", 10**30, 10.0, -5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["supplier_id", "sku", "quantity", "order_id", "customer_order_id", "qty", "\udfff"]
)
HOSTILE = st.tuples(
    st.sampled_from(sorted(TOOLS)) | st.text(max_size=5) | JSON,
    st.dictionaries(NAMES, JSON, max_size=4) | JSON,
)
SENSIBLE: st.SearchStrategy[tuple[Any, Any]] = st.one_of(
    st.tuples(
        st.sampled_from(["tool_order", "tool_quote"]),
        st.fixed_dictionaries(
            {
                "supplier_id": st.sampled_from(["S1", "S2"]),
                "sku": st.sampled_from(["sku_0", "sku_1", "sku_2"]),
                "quantity": st.integers(1, 400),
            }
        ),
    ),
    st.tuples(
        st.sampled_from(["tool_cancel_order", "tool_expedite"]),
        st.fixed_dictionaries({"order_id": st.integers(0, 20).map(lambda n: f"ORD{n}")}),
    ),
    st.tuples(
        st.just("tool_ship_customer_order"),
        st.fixed_dictionaries(
            {
                "customer_order_id": st.integers(0, 40).map(lambda n: f"CO{n}")
                | st.lists(st.integers(0, 40).map(lambda n: f"CO{n}"), max_size=4)
            }
        ),
    ),
    st.tuples(st.sampled_from(["tool_check_inbox", "tool_wait"]), st.just({})),
)


@budget(max_examples=60, deadline=None)
@given(
    calls=st.lists(HOSTILE | SENSIBLE, min_size=20, max_size=60),
    level=st.sampled_from([0, 2, 4]),
    p_shock=st.sampled_from([0.0, 0.5, 1.0]),
    magnitude=st.sampled_from(["low", "high"]),
    capacity=st.sampled_from([60, 500]),
    start=st.sampled_from([50.0, 10000.0]),
)
def test_money_and_units_are_conserved_and_hostile_arguments_raise_nothing(
    calls: list[tuple[Any, Any]],
    level: int,
    p_shock: float,
    magnitude: str,
    capacity: int,
    start: float,
) -> None:
    chosen = settings(
        {
            "simulation.complexity_level": level,
            "simulation.initial_storage_per_sku": 2,
            "simulation.storage_capacity": capacity,
            "simulation.initial_budget": start,
            "demand.orders_per_day": 3.0,
            "demand.late_penalty": 0.3,
            "pe_induction.p_shock": p_shock,
            "pe_induction.pe_mag": magnitude,
        }
    )
    game = Game(chosen, seed=5, replication=0)
    for tool, arguments in calls:
        agent = listed([(tool, arguments)])
        game.morning()
        before = game.world.budget
        step = game.day(agent.decide(_first_day()))
        assert step.result is not None
        if not step.result["success"]:
            assert game.world.budget == before - round(step_fee(chosen, game.world))
        balanced(game.world, chosen)
        text = msgspec.json.encode(step)
        assert msgspec.json.decode(text)["action"] is not None


def _first_day() -> Seen:
    return Seen(day=0, inbox_count=0, last_result=None)


def step_fee(chosen: WarehouseSettings, it: World) -> float:
    return chosen.simulation.storage_fee * 100 * it.stored


def ordered(it: World, quantity: int = 10, supplier: str = "S1", sku: str = "sku_0") -> Order:
    called = call(it, "tool_order", {"supplier_id": supplier, "sku": sku, "quantity": quantity})
    assert called.ordered is not None
    return called.ordered


@pytest.mark.parametrize(
    ("tool", "arguments", "code", "words"),
    [
        ("tool_teleport", {}, "unknown_tool", "`tool_teleport`"),
        ("tool_expedite", {"order_id": "ORD0"}, "unknown_tool", "tool_expedite"),
        ("tool_wait", {"days": 3}, "invalid_arguments", "`days`"),
        ("tool_wait", None, "invalid_arguments", "object"),
        ("tool_order", {"supplier_id": "S1", "sku": "sku_0"}, "invalid_arguments", "missing"),
        (
            "tool_order",
            {"supplier_id": "S1", "sku": "sku_0", "quantity": -3},
            "invalid_arguments",
            "`-3`",
        ),
        (
            "tool_order",
            {"supplier_id": "S1", "sku": "sku_0", "quantity": "10"},
            "invalid_arguments",
            "whole number",
        ),
        (
            "tool_order",
            {"supplier_id": "S1", "sku": "sku_0", "quantity": 10.0},
            "invalid_arguments",
            "whole number",
        ),
        (
            "tool_order",
            {"supplier_id": "S1", "sku": "sku_0", "quantity": True},
            "invalid_arguments",
            "whole number",
        ),
        ("tool_order", {"supplier_id": "S9", "sku": "sku_0", "quantity": 1}, "unknown_id", "`S9`"),
        ("tool_quote", {"supplier_id": "S1", "sku": "x", "quantity": 1}, "unknown_id", "`x`"),
        (
            "tool_order",
            {"supplier_id": "S1", "sku": "sku_0", "quantity": 501},
            "no_capacity",
            "`500`",
        ),
        ("tool_cancel_order", {"order_id": "ORD7"}, "unknown_id", "`ORD7`"),
        ("tool_ship_customer_order", {"customer_order_id": "CO99"}, "unknown_id", "`CO99`"),
        ("tool_ship_customer_order", {"customer_order_id": []}, "invalid_arguments", "list"),
        ("tool_ship_customer_order", {"customer_order_id": 3}, "invalid_arguments", "a text or"),
    ],
)
def test_a_call_that_cannot_be_done_fails_with_its_reason(
    tool: str, arguments: Any, code: str, words: str
) -> None:
    it = world()
    called = call(it, tool, arguments)
    assert called.failure == called.result["code"] == code
    assert words in called.result["error"]
    assert not called.result["success"]
    assert (it.budget, it.pending, it.stored) == (1_000_000, {}, 0)


def test_payment_is_on_delivery_at_the_price_of_the_order() -> None:
    it = world({"demand.orders_per_day": 0.0, "simulation.storage_fee": 0.0})
    order = ordered(it, 10)
    assert it.budget == 1_000_000
    events = days(it, order.arrival)
    assert [type(event) for event in events] == [Delivered, Paid]
    assert it.budget == 1_000_000 - order.value
    assert it.storage["sku_0"] == 10


def test_what_does_not_fit_is_returned_and_charged_ten_percent() -> None:
    it = world({"demand.orders_per_day": 0.0, "simulation.storage_capacity": 10})
    order = ordered(it, 10)
    order.arriving = 16
    delivered, paid = days(it, order.arrival)[-2:]
    assert isinstance(delivered, Delivered)
    assert isinstance(paid, Paid)
    assert (delivered.accepted, delivered.returned) == (10, 6)
    assert paid.amount == 10 * order.price + int(0.6 * order.price + 0.5)
    assert it.stored == 10


def test_orders_on_their_way_use_up_capacity() -> None:
    it = world()
    ordered(it, 300)
    called = call(it, "tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 201})
    assert called.failure == "no_capacity"
    assert "`200`" in called.result["error"]


def test_orders_are_refused_in_debt_and_allowed_again_after_it() -> None:
    it = world()
    it.budget = -1
    arguments = {"supplier_id": "S1", "sku": "sku_0", "quantity": 1}
    assert call(it, "tool_order", arguments).failure == "debt"
    it.budget = 0
    assert call(it, "tool_order", arguments).succeeded


def test_shipping_a_list_is_all_or_none() -> None:
    it = world({"demand.orders_per_day": 5.0, "simulation.initial_storage_per_sku": 20})
    it.morning()
    days(it, 3)
    first, second = list(it.customers.values())[:2]
    nothing = call(it, "tool_ship_customer_order", {"customer_order_id": [first.id, "CO999"]})
    assert nothing.failure == "unknown_id"
    twice = call(it, "tool_ship_customer_order", {"customer_order_id": [first.id, first.id]})
    assert twice.failure in ("invalid_arguments", "no_stock")
    both = call(it, "tool_ship_customer_order", {"customer_order_id": [first.id, second.id]})
    assert both.succeeded
    assert it.totals.revenue == sum(o.price * o.quantity for o in (first, second))


def test_a_late_shipment_pays_the_penalty() -> None:
    it = world({"demand.late_penalty": 0.25, "simulation.initial_storage_per_sku": 20})
    while not it.customers:
        days(it, 1)
    (customer,) = list(it.customers.values())[:1]
    days(it, 4)
    called = call(it, "tool_ship_customer_order", {"customer_order_id": customer.id})
    gross = customer.quantity * customer.price
    assert called.result["shipped"][0]["late_penalty"] == int(gross * 0.25 + 0.5) / 100
    assert it.totals.revenue == gross - int(gross * 0.25 + 0.5)


def test_an_old_customer_order_expires_and_counts_as_failed() -> None:
    it = world({"demand.expire_after_days": 4})
    while not it.customers:
        days(it, 1)
    (customer, *_) = it.customers.values()
    days(it, 4)
    assert customer.id in it.customers
    days(it, 2)
    assert customer.id not in it.customers
    assert it.totals.failed >= 1


def test_expediting_comes_with_level_2_and_brings_an_order_forward() -> None:
    assert "tool_expedite" not in {tool.name for tool in offered(1)}
    it = world({"simulation.complexity_level": 2})
    suppliers = [(s, k) for s in it.catalogue.suppliers for k in it.catalogue.skus]
    slow = next(pair for pair in suppliers if it.catalogue.lead_days(*pair) >= 5)
    order = ordered(it, 10, *slow)
    eta, arrival = order.eta, order.arrival
    called = call(it, "tool_expedite", {"order_id": order.id})
    assert called.result["new_eta_day"] == eta - 2
    assert order.arrival == arrival - 2
    assert it.budget == 1_000_000 - int(0.5 * order.value + 0.5)


def test_a_cancelled_order_costs_a_tenth_and_never_comes() -> None:
    it = world({"demand.orders_per_day": 0.0})
    order = ordered(it, 10)
    called = call(it, "tool_cancel_order", {"order_id": order.id})
    assert called.result["fee"] == int(0.1 * order.value + 0.5) / 100
    assert days(it, 20) == []


def test_the_inbox_is_emptied_by_reading() -> None:
    it = world({"demand.orders_per_day": 5.0})
    days(it, 2)
    assert call(it, "tool_check_inbox", {}).result["messages"]
    assert call(it, "tool_check_inbox", {}).result["messages"] == []


def test_a_result_holds_no_current_day() -> None:
    it = world()
    results = []
    for _ in range(2):
        results.append(call(it, "tool_check_storage", {}).result)
        days(it, 1)
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("start", "limit"), [(10000.0, -1000.0), (50000.0, -5000.0), (10.0, -1000.0)]
)
def test_a_run_ends_bankrupt_below_its_limit(start: float, limit: float) -> None:
    keys = {
        "simulation.initial_budget": start,
        "simulation.initial_storage_per_sku": 20,
        "simulation.storage_fee": 3.0,
        "simulation.max_steps": 1000,
    }
    run = played(settings(keys), agent=cycled(WAIT))
    assert run.outcome.end == "bankrupt"
    found = run.derived()
    assert found["competing"] == {"type": "bankrupt", "onset": run.steps[-1].step}
    assert not found["censored"]
    assert run.steps[-1].truth.budget < limit <= run.steps[-2].truth.budget


def test_failures_end_a_run_only_if_a_file_says_so() -> None:
    idle, short = cycled(WAIT), settings({"simulation.max_steps": 150})
    assert played(short, agent=idle).outcome.end == "max_steps"
    ended = played(settings({"demand.max_failures": 5}), agent=cycled(WAIT))
    assert ended.outcome.end == "max_failures"
    assert ended.steps[-1].truth.failed >= 5 > ended.steps[-2].truth.failed


def test_the_truth_of_a_step_is_the_world_at_its_end() -> None:
    chosen = settings({"pe_induction.p_shock": 1.0, "pe_induction.pe_type_mix": "causal_only"})
    game = Game(chosen, seed=0, replication=0)
    agent = Heuristic(briefing(chosen, game.world, game.tools.offered))
    seen = []
    while game.end is None:
        truth = game.day(agent.decide(game.morning())).truth
        world = game.world
        pending = list(world.pending.values())
        assert truth.budget == world.budget / 100
        assert truth.owed == world.owed / 100
        assert truth.storage == sum(world.storage.values())
        assert (truth.pending, truth.pending_units) == (
            len(pending),
            sum(order.quantity for order in pending),
        )
        assert (truth.inbox, truth.customers) == (len(world.inbox), len(world.customers))
        assert (truth.shipped, truth.failed) == (world.totals.shipped, world.totals.failed)
        assert truth.revenue == world.totals.revenue / 100
        seen.append((truth.owed, truth.pending, truth.inbox, truth.customers, truth.shipped))
    assert all(any(values) for values in zip(*seen, strict=True))


def test_an_impossible_call_is_logged_as_json_can_hold_it() -> None:
    called: Called = call(world(), "tool_order", {"quantity": 10**40, "sku": "\ud800"})
    assert msgspec.json.encode(called.arguments)
    assert called.arguments == {"quantity": "an integer of 133 bits", "sku": "\\ud800"}
