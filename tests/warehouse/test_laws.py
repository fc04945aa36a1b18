"""Randomness is keyed: what arms share, what more dose adds, what replies decide."""

import hashlib
import itertools
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.harness import play as play_all
from tests.harness import steps as logged_steps
from tests.product import ROOT
from tests.warehouse.playing import WAIT, cycled, played, settings
from vendomini.chat import ChatRequest
from vendomini.config import expand, load_phase
from vendomini.store.experiment import Experiment
from vendomini.workloads.registry import workload_named
from vendomini.workloads.warehouse.draws import Stream
from vendomini.workloads.warehouse.goods import Catalogue, CustomerOrder
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.world import World

SEEDS = st.integers(0, 2**40)
REPLICATIONS = st.integers(0, 50)


def heard(chosen: WarehouseSettings, *, seed: int, replication: int, days: int) -> list[object]:
    """Catalogue and demand of the first days, as plain values."""
    catalogue = Catalogue(chosen, seed=seed, replication=replication)
    told: list[object] = [
        [catalogue.price(s, k, 0), catalogue.lead_days(s, k)]
        for s in catalogue.suppliers
        for k in catalogue.skus
    ]
    for day in range(days):
        told += [
            (order.sku, order.quantity, order.price, order.due)
            for order in catalogue.customer_orders(day, 0)
        ]
    return told


def test_a_stream_is_splitmix64_at_any_place() -> None:
    stream = Stream("demand", seed=0, replication=0)
    stream.key = 1234567
    # The published first outputs of SplitMix64 with this seed.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [stream.uniform(0, k) for k in range(3)] == [(z >> 11) / 2**53 for z in expected]


def test_a_stream_s_key_is_the_documented_hash() -> None:
    digest = hashlib.sha256(b"vendomini/warehouse/1/7/3/shock when").digest()
    assert Stream("shock when", seed=7, replication=3).key == int.from_bytes(digest[:8], "big")


@budget(deadline=None)
@given(
    seed=SEEDS, replication=REPLICATIONS, day=st.integers(0, 10**6), entity=st.integers(0, 65535)
)
def test_a_draw_depends_on_its_place_alone(
    seed: int, replication: int, day: int, entity: int
) -> None:
    fresh = Stream("demand", seed=seed, replication=replication).uniform(day, entity)
    used = Stream("demand", seed=seed, replication=replication)
    for other in range(5):
        used.uniform(day, other)
    assert used.uniform(day, entity) == fresh
    assert 0 <= fresh < 1


@budget(max_examples=15, deadline=None)
@given(
    seed=SEEDS,
    replication=REPLICATIONS,
    level=st.integers(0, 4),
    p_shock=st.floats(0, 1),
    mix=st.sampled_from(["realistic", "causal_only", "rule_only"]),
)
def test_arms_share_catalogue_and_demand_whatever_their_agents_do(
    seed: int, replication: int, level: int, p_shock: float, mix: str
) -> None:
    keys = {"simulation.complexity_level": level, "simulation.max_steps": 60}
    alone = heard(settings(keys), seed=seed, replication=replication, days=60)
    arm = settings({**keys, "pe_induction.p_shock": p_shock, "pe_induction.pe_type_mix": mix})
    world_of_arm: list[object] = heard(arm, seed=seed, replication=replication, days=60)
    assert world_of_arm == alone
    requested = sum(isinstance(order, tuple) for order in alone)
    for kind in ("heuristic", "random"):
        chosen = settings(
            {
                **keys,
                "agent.kind": kind,
                "pe_induction.p_shock": p_shock,
                "demand.max_failures": None,
            }
        )
        run = played(chosen, seed=seed, replication=replication)
        if run.outcome.steps == 60:
            assert run.outcome.measures.orders_requested == requested


def test_replications_seeds_and_pressures_differ() -> None:
    base = heard(settings(), seed=0, replication=0, days=50)
    assert heard(settings(), seed=1, replication=0, days=50) != base
    assert heard(settings(), seed=0, replication=1, days=50) != base
    pressed = settings({"simulation.pressure_level": "high"})
    assert heard(pressed, seed=0, replication=0, days=50) != base


@pytest.mark.parametrize(("pressure", "factor", "due"), [("low", 0.7, 5), ("high", 1.3, 2)])
def test_pressure_scales_demand_and_due_days(pressure: str, factor: float, due: int) -> None:
    orders: list[CustomerOrder] = []
    chosen = settings({"simulation.pressure_level": pressure})
    catalogue = Catalogue(chosen, seed=0, replication=0)
    for day in range(4000):
        orders += catalogue.customer_orders(day, 0)
    assert len(orders) / 4000 == pytest.approx(0.6 * factor, rel=0.06)
    assert {order.due - order.day for order in orders} == {due}
    assert {order.quantity for order in orders} == set(range(1, 21))
    assert {order.sku for order in orders} == set(catalogue.skus)


def test_a_chance_per_sku_stands_for_the_total() -> None:
    per_sku = settings({"demand.p_customer_order": 0.06})
    total = settings({"demand.orders_per_day": 0.6})
    assert heard(per_sku, seed=3, replication=0, days=300) == heard(
        total, seed=3, replication=0, days=300
    )


@budget(max_examples=25, deadline=None)
@given(seed=SEEDS, doses=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_shock_drawn_at_p_is_drawn_at_every_larger_p(
    seed: int, doses: tuple[float, float]
) -> None:
    drawn = [
        {
            (step.step, step.shock_drawn)
            for step in played(
                settings({"simulation.max_steps": 40, "pe_induction.p_shock": p}),
                seed=seed,
                agent=cycled(WAIT),
            ).steps
            if step.shock_drawn
        }
        for p in sorted(doses)
    ]
    assert drawn[0] <= drawn[1]


def test_prices_drift_from_level_3_within_their_bounds() -> None:
    for level, drifts in ((2, False), (3, True), (4, True)):
        catalogue = Catalogue(
            settings({"simulation.complexity_level": level}), seed=0, replication=0
        )
        prices = [catalogue.price("S1", "sku_0", day) for day in range(3000)]
        assert (len(set(prices)) > 1) is drifts
        assert all(abs(b - a) <= 0.02 * a + 1 for a, b in itertools.pairwise(prices))
        assert 0.5 * prices[0] - 1 <= min(prices) <= max(prices) <= 2 * prices[0] + 1


def test_drift_is_the_same_whoever_looks_and_when() -> None:
    chosen = settings({"simulation.complexity_level": 4})
    often, once = (Catalogue(chosen, seed=0, replication=0) for _ in range(2))
    seen = [often.price("S2", "sku_3", day) for day in range(200)]
    assert once.price("S2", "sku_3", 199) == seen[-1]


def test_lateness_is_a_draw_of_day_supplier_and_sku() -> None:
    late = []
    for placed in (1, 3):
        world = World(settings(), seed=4, replication=0)
        for _ in range(placed):
            order = world.place_order(supplier="S2", sku="sku_1", quantity=5)
        late.append(order.arrival - order.eta)
    assert late[0] == late[1]


def test_orders_are_late_by_one_to_three_days_as_often_as_suppliers_are_unreliable() -> None:
    catalogue = Catalogue(settings(), seed=0, replication=0)
    late = [
        catalogue.days_late(s, k, day)
        for day in range(300)
        for s in catalogue.suppliers
        for k in catalogue.skus
    ]
    assert set(late) == {0, 1, 2, 3}
    assert 0.01 <= sum(days > 0 for days in late) / len(late) <= 0.15


@pytest.mark.parametrize("kind", ["heuristic", "random", "probe"])
def test_equal_seeds_and_replies_give_equal_bytes(kind: str) -> None:
    chosen = settings({"agent.kind": kind, "pe_induction.p_shock": 0.5})

    def reply(request: ChatRequest) -> str:
        return hashlib.sha256(request.messages[-1].content.encode()).hexdigest()

    first = played(chosen, replication=2, reply=reply)
    played(chosen, replication=3, reply=reply)
    assert played(chosen, replication=2, reply=reply).bytes == first.bytes


def test_steps_and_outcome_are_json_objects_numbered_from_0() -> None:
    run = played(settings({"pe_induction.p_shock": 0.5}))
    steps = msgspec.json.decode(msgspec.json.encode(run.steps))
    assert [step["step"] for step in steps] == list(range(200))
    assert b"NaN" not in run.bytes
    outcome = msgspec.json.decode(msgspec.json.encode(run.outcome))
    assert outcome["pe"]["temporal"]["mean"] > 0


def test_the_steps_of_a_run_are_the_same_bytes_in_any_order_and_crowd(tmp_path: Path) -> None:
    phase = load_phase(
        ROOT / "configs" / "demo.yaml",
        ["simulation.max_steps=40", "experiment.replications=2"],
        workload_named=workload_named,
    )
    runs = expand(phase)
    logged = []
    for name, ordered, concurrency in (("as is", runs, 1), ("turned", runs[::-1], 5)):
        experiment = Experiment(tmp_path / name)
        experiment.extend(phase.text, ordered)
        assert play_all(experiment, concurrency=concurrency).runs == len(runs)
        logged.append({run.id: logged_steps(experiment, run.id) for run in runs})
    assert logged[0] == logged[1]


def test_a_run_plays_the_same_on_every_machine() -> None:
    """All draws, prices that drift, shocks and errors of a run, as they were elsewhere.

    A change of the world or of the rule policy changes the number; another machine must not.
    """
    keys = {
        "simulation.complexity_level": 4,
        "simulation.max_steps": 400,
        "pe_induction.p_shock": 0.7,
        "pe_induction.pe_type_mix": "uniform",
        "pe_induction.pe_mag": "high",
    }
    run = played(settings(keys), seed=11, replication=3)
    assert hashlib.sha256(run.bytes).hexdigest()[:16] == "ee4f69da9a0211fe"
