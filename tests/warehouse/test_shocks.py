"""Every shock type acts, at every magnitude, and moves the errors it is there for."""

from itertools import pairwise
from typing import Any

import pytest

from tests.warehouse.playing import WAIT, Played, cycled, listed, played, settings
from vendomini.workloads.warehouse.records import Step
from vendomini.workloads.warehouse.shocks import STRENGTHS, TYPES, Shocks
from vendomini.workloads.warehouse.world import Order, World

MAGNITUDES = ("low", "medium", "high")
MOVES = {
    "temporal_only": ("temporal",),
    "quantity_only": ("quantity", "cost"),
    "causal_only": ("budget", "causal"),
    "rule_only": ("temporal",),
}


def shaken(world: World, keys: dict[str, Any]) -> Shocks:
    """Shocks that are drawn every day."""
    chosen = settings({"pe_induction.p_shock": 1.0, **keys})
    return Shocks(chosen.pe_induction, seed=0, replication=0)


def a_world() -> World:
    return World(settings({"demand.orders_per_day": 0.0}), seed=0, replication=0)


def ordered(world: World) -> Order:
    return world.place_order(supplier="S1", sku="sku_0", quantity=10)


def struck(type: str, magnitude: str, **keys: Any) -> tuple[World, Order, Order, Shocks]:
    """A world, its order before and after one shock, and the shocks."""
    world = a_world()
    order = ordered(world)
    plain = ordered(a_world())
    shocks = shaken(
        world,
        {"pe_induction.pe_type_mix": f"{type}_only", "pe_induction.pe_mag": magnitude, **keys},
    )
    shocks.strike(world)
    return world, plain, order, shocks


@pytest.mark.parametrize(
    ("magnitude", "days"), [("low", {1}), ("medium", {2}), ("high", {2, 3, 4})]
)
def test_a_temporal_shock_delays_an_order(magnitude: str, days: set[int]) -> None:
    _, plain, order, shocks = struck("temporal", magnitude)
    assert order.arrival - plain.arrival in days
    assert order.eta == plain.eta
    assert shocks.applied["temporal"] == 1


@pytest.mark.parametrize(
    ("magnitude", "least", "most"), [("low", 9, 11), ("medium", 7, 13), ("high", 5, 20)]
)
def test_a_quantity_shock_rescales_what_arrives(magnitude: str, least: int, most: int) -> None:
    _, plain, order, _ = struck("quantity", magnitude)
    assert order.arriving != plain.arriving
    assert least <= order.arriving <= most
    assert order.quantity == plain.quantity


def test_a_quantity_shock_changes_even_a_single_unit() -> None:
    for day in range(30):
        world = a_world()
        world.day = day
        order = world.place_order(supplier="S1", sku="sku_0", quantity=1)
        shaken(
            world,
            {"pe_induction.pe_type_mix": "quantity_only", "pe_induction.pe_mag": "low"},
        ).strike(world)
        assert order.arriving == 2


@pytest.mark.parametrize(
    ("magnitude", "lag", "raised", "days"),
    [("low", 1, 0.0, 0), ("medium", 2, 0.1, 3), ("high", 4, 0.25, 5)],
)
def test_a_causal_shock_posts_late_and_raises_another_suppliers_prices(
    magnitude: str, lag: int, raised: float, days: int
) -> None:
    world, _, order, _ = struck("causal", magnitude)
    assert order.payment_lag == lag
    before = {s: world.catalogue.price(s, "sku_1", 0) for s in world.catalogue.suppliers}
    assert world.price("S1", "sku_1") == before["S1"]
    risen = [s for s in before if world.price(s, "sku_1") != before[s]]
    assert len(risen) == (1 if raised else 0)
    for supplier in risen:
        assert world.price(supplier, "sku_1") == int(before[supplier] * (1 + raised) + 0.5)
        world.day = days
        assert world.price(supplier, "sku_1") == before[supplier]
    budget = world.budget
    while world.pending:
        world.evening()
        world.morning()
    fees = world.totals.fees
    assert world.owed == order.value
    assert world.budget == budget - fees
    for _ in range(lag):
        world.evening()
        world.morning()
    assert world.owed == 0
    assert world.totals.paid == order.value


def late_by(world: World, calm: World, supplier: str) -> int:
    """Days an order at a supplier comes later in one world than in the other."""
    shaken, plain = (
        w.place_order(supplier=supplier, sku="sku_0", quantity=1).arrival for w in (world, calm)
    )
    return shaken - plain


@pytest.mark.parametrize(
    ("magnitude", "extra", "lasts"), [("low", 1, 10), ("medium", 2, 20), ("high", 3, 10_000)]
)
def test_a_rule_shock_lengthens_lead_times_and_is_replaced_not_added(
    magnitude: str, extra: int, lasts: int
) -> None:
    world = a_world()
    keys = {"pe_induction.pe_type_mix": "rule_only", "pe_induction.pe_mag": magnitude}
    shocks = shaken(world, keys)
    for _ in range(60):
        shocks.strike(world)
        world.day += 1
    assert set(world.lead_changes) == set(world.catalogue.suppliers)
    assert {change[0] for change in world.lead_changes.values()} == {extra}
    calm = a_world()
    last = world.day - 1
    # Each supplier was struck again within the last days, the last one on the last day.
    (last_struck,) = (s for s in world.lead_changes if shocks.applied_today[0].target == s)
    for day in (last + 1, last + lasts):
        world.day = calm.day = day
        late = late_by(world, calm, last_struck)
        assert late == (0 if day == last + lasts and magnitude != "high" else extra)


def test_a_shock_without_an_order_waits_for_the_next_and_a_second_one_is_dropped() -> None:
    world = a_world()
    shocks = shaken(world, {"pe_induction.pe_type_mix": "temporal_only"})
    for day in range(3):
        shocks.strike(world)
        assert not shocks.applied_today
        assert shocks.dropped_today == (None if day == 0 else "temporal")
        world.day += 1
    assert shocks.armed == ("temporal",)
    order = ordered(world)
    arrival = order.arrival
    shocks.order_placed(order, world)
    assert order.arrival > arrival
    assert shocks.applied_today[0].drawn == 0
    assert len(shocks.armed) == 0
    assert (shocks.drawn["temporal"], shocks.dropped["temporal"]) == (3, 2)


@pytest.mark.parametrize("p_shock", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("mix", ["realistic", "uniform"])
def test_drawn_is_applied_dropped_or_still_armed(p_shock: float, mix: str) -> None:
    run = played(settings({"pe_induction.p_shock": p_shock, "pe_induction.pe_type_mix": mix}))
    for counts in run.outcome.shocks.values():
        assert counts.drawn == counts.applied + counts.dropped + counts.armed
        assert (counts.drawn > 0) is (p_shock > 0)
    logged = [applied.type for step in run.steps for applied in step.shock_applied]
    assert {t: logged.count(t) for t in TYPES} == {
        t: counts.applied for t, counts in run.outcome.shocks.items()
    }
    drawn = [step.shock_drawn for step in run.steps if step.shock_drawn]
    assert len(drawn) == sum(counts.drawn for counts in run.outcome.shocks.values())


@pytest.mark.parametrize(("mix", "shares"), [("realistic", (4, 3, 2, 1)), ("uniform", (1,) * 4)])
def test_types_are_drawn_in_their_proportions(mix: str, shares: tuple[int, ...]) -> None:
    keys = {
        "pe_induction.p_shock": 1.0,
        "pe_induction.pe_type_mix": mix,
        "simulation.max_steps": 3000,
    }
    order = ("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 1})
    counts = played(settings(keys), agent=listed([order])).outcome.shocks
    for type, share in zip(TYPES, shares, strict=True):
        assert counts[type].drawn / 3000 == pytest.approx(share / sum(shares), abs=0.03)


def test_one_type_only_draws_no_other() -> None:
    for mix in MOVES:
        run = played(settings({"pe_induction.p_shock": 0.5, "pe_induction.pe_type_mix": mix}))
        drawn = {type for type, counts in run.outcome.shocks.items() if counts.drawn}
        assert drawn == {mix.removesuffix("_only")}


def pooled(error: str, *, p_shock: float, **keys: Any) -> float:
    """Mean error over a few replications of the heuristic agent, resolved errors weighed alike."""
    total, count = 0.0, 0
    for replication in range(4):
        chosen = settings(
            {"simulation.max_steps": 400, "pe_induction.p_shock": p_shock}
            | {f"pe_induction.{key}": value for key, value in keys.items()}
        )
        summary = played(chosen, replication=replication).outcome.pe[error]  # type: ignore[index]
        assert summary.mean is not None
        total += summary.mean * summary.resolved
        count += summary.resolved
    return total / count


@pytest.mark.parametrize(("mix", "error"), [(m, e) for m, errors in MOVES.items() for e in errors])
def test_each_type_moves_its_errors_and_more_with_the_dose(mix: str, error: str) -> None:
    means = [
        pooled(error, p_shock=p, pe_type_mix=mix, pe_mag="high", observability="hidden")
        for p in (0.0, 0.1, 0.6)
    ]
    assert all(less < more for less, more in pairwise(means)), means


@pytest.mark.parametrize(("mix", "error"), [(m, errors[0]) for m, errors in MOVES.items()])
def test_each_type_moves_its_errors_more_with_the_magnitude(mix: str, error: str) -> None:
    means = [
        pooled(error, p_shock=0.4, pe_type_mix=mix, pe_mag=magnitude, observability="hidden")
        for magnitude in MAGNITUDES
    ]
    assert all(less < more for less, more in pairwise(means)), means


def test_a_price_raise_moves_cost_errors() -> None:
    costs = [
        pooled(
            "cost", p_shock=0.6, pe_type_mix="causal_only", pe_mag=magnitude, observability="hidden"
        )
        for magnitude in MAGNITUDES
    ]
    assert costs[0] == 0
    assert 0 < costs[1] < costs[2]


@pytest.mark.parametrize(("mix", "error"), [("rule_only", "temporal"), ("causal_only", "cost")])
def test_notices_help_where_they_can(mix: str, error: str) -> None:
    full, hidden = (
        pooled(error, p_shock=0.3, pe_type_mix=mix, pe_mag="high", observability=told)
        for told in ("full", "hidden")
    )
    assert full < 0.8 * hidden


def notices(observability: str) -> tuple[Played, list[tuple[int, dict[str, Any]]]]:
    """A run that orders, then reads its inbox every day; each notice with the day it was read."""
    order = ("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 10})
    calls = [order, *[("tool_check_inbox", {})] * 40]
    chosen = settings(
        {
            "simulation.max_steps": 40,
            "demand.orders_per_day": 0.0,
            "pe_induction.p_shock": 0.5,
            "pe_induction.pe_type_mix": "uniform",
            "pe_induction.observability": observability,
            "crash_detector.continue_after_crash": 100,
        }
    )
    run = played(chosen, agent=listed(list(calls)))
    return run, [(s.day, m) for s in run.steps[1:] for m in read(s) if "notice" in m["type"]]


def read(step: Step) -> list[dict[str, Any]]:
    assert step.result is not None
    messages: list[dict[str, Any]] = step.result["messages"]
    return messages


AMOUNTS = {"delay_days", "new_eta", "quantity", "payment_days_late", "raised_by", "extra_days"}


def test_full_tells_the_same_day_delayed_three_days_later_and_hidden_never() -> None:
    (_, full), (_, delayed), (_, hidden) = map(notices, ("full", "delayed", "hidden"))
    assert hidden == []
    assert full
    assert all(day == message["day"] for day, message in full if message["day"] > 0)
    assert delayed
    assert all(day == message["day"] == message["struck_day"] + 3 for day, message in delayed)
    due = [message for day, message in full if message["day"] + 3 < 40]
    as_struck = [{**message, "day": message["struck_day"]} for _, message in delayed]
    for message in as_struck:
        del message["struck_day"]
    assert as_struck == due


def test_partial_tells_the_same_day_without_the_amount() -> None:
    (_, full), (_, partial) = notices("full"), notices("partial")
    assert [(d, m["type"], m["day"]) for d, m in partial] == [
        (d, m["type"], m["day"]) for d, m in full
    ]
    assert all(AMOUNTS & set(message) for _, message in full)
    assert not any(AMOUNTS & set(message) for _, message in partial)


def test_each_observability_makes_a_different_run_of_the_heuristic() -> None:
    keys = {"pe_induction.p_shock": 0.4, "pe_induction.pe_mag": "high"}
    runs = {
        told: played(settings({**keys, "pe_induction.observability": told})).bytes
        for told in ("full", "delayed", "partial", "hidden")
    }
    assert len(set(runs.values())) == 4


def test_strengths_rise_with_the_magnitude() -> None:
    strengths = [STRENGTHS[magnitude] for magnitude in ("low", "medium", "high")]
    for less, more in pairwise(strengths):
        assert less.delay <= more.delay
        assert less.payment_lag < more.payment_lag
        assert less.raise_by < more.raise_by
        assert less.lead_extra < more.lead_extra


def test_expediting_counts_from_the_day_that_was_stated_and_announced() -> None:
    for observability, stated in (("full", 2), ("partial", 0), ("hidden", 0)):
        world, plain, order, _ = struck(
            "temporal", "medium", **{"pe_induction.observability": observability}
        )
        order.eta = plain.eta = 10
        order.arrival = 12
        world.expedite(order)
        assert order.eta == 10 + stated - 2
        assert order.arrival == 10


def test_a_delayed_notice_is_of_its_day_and_knows_of_an_expedite_in_between() -> None:
    world, _, order, shocks = struck(
        "temporal", "medium", **{"pe_induction.observability": "delayed"}
    )
    order.eta, order.arrival = 10, 12
    world.expedite(order)
    assert order.eta == 8
    world.day = 3
    shocks.strike(world)
    (notice,) = [message for message in world.inbox if message["type"] == "delay_notice"]
    assert (notice["day"], notice["struck_day"]) == (3, 0)
    assert notice["new_eta"] == order.arrival == 10


def test_stock_is_worth_what_it_costs_on_the_last_day_played() -> None:
    keys = {
        "simulation.complexity_level": 4,
        "simulation.initial_storage_per_sku": 3,
        "demand.orders_per_day": 0.0,
        "simulation.max_steps": 7,
    }
    run = played(settings(keys), agent=cycled(WAIT))
    catalogue = World(settings(keys), seed=0, replication=0).catalogue
    prices = [catalogue.cheapest(sku, 6) for sku in catalogue.skus]
    worth = run.outcome.measures.final_budget + 3 * sum(prices) / 100
    assert run.outcome.measures.net_worth == pytest.approx(worth)
