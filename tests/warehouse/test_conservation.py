"""Money and units in equals out, every day, by books kept beside the world's own.

`Books` is a second account of a run: it knows the orders on their way as they stand the night
before, and the results the agent reads, and never looks at the world's totals.
"""

import copy
import json
import random
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.playing import settings
from vendomini.workloads.warehouse.agent import Decision, SilentAgent
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.episode import Game, agent_of
from vendomini.workloads.warehouse.records import Step
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.tools import TOOLS
from vendomini.workloads.warehouse.world import World


def half_up(amount: float) -> int:
    return int(amount + 0.5)


class Books:
    """What the world must hold, in cents and units."""

    def __init__(self, chosen: WarehouseSettings, world: World) -> None:
        simulation = chosen.simulation
        self.money = half_up(simulation.initial_budget * 100)
        self.units = dict.fromkeys(world.catalogue.skus, simulation.initial_storage_per_sku)
        self.capacity = simulation.storage_capacity
        self.fee = simulation.storage_fee
        self.posts: dict[int, int] = {}  # cents, by the day they are due

    @property
    def stored(self) -> int:
        return sum(self.units.values())

    def morning(self, day: int, on_their_way: Mapping[str, Any]) -> None:
        """Take in what was on its way the night before and is due."""
        self.money -= self.posts.pop(day, 0)
        for order in on_their_way.values():
            if order.arrival > day:
                continue
            accepted = min(order.arriving, self.capacity - self.stored)
            self.units[order.sku] += accepted
            returned = half_up(0.1 * ((order.arriving - accepted) * order.price))
            amount = accepted * order.price + returned
            if order.payment_lag:
                due = day + order.payment_lag
                self.posts[due] = self.posts.get(due, 0) + amount
            else:
                self.money -= amount

    def call(self, step: Step) -> None:
        """Take in what the agent was told of its call, then the night's fee."""
        result = step.result or {"success": False}
        if result["success"]:
            assert step.action is not None
            match step.action.tool:
                case "tool_ship_customer_order":
                    for shipped in result["shipped"]:
                        self.units[shipped["sku"]] -= shipped["quantity"]
                        self.money += half_up(shipped["net_revenue"] * 100)
                case "tool_cancel_order":
                    self.money -= half_up(result["fee"] * 100)
                case "tool_expedite":
                    self.money -= half_up(result["cost"] * 100)
        self.money -= half_up(self.fee * self.stored * 100)

    def agree(self, world: World) -> None:
        assert world.budget == self.money
        assert world.storage == self.units
        assert world.stored == self.stored <= self.capacity
        assert min(self.units.values()) >= 0
        assert world.owed == sum(self.posts.values())
        assert world.pending_units == sum(order.quantity for order in world.pending.values())
        totals = world.totals
        assert totals.requested == totals.shipped + totals.failed + len(world.customers)


def held(world: World) -> list[object]:
    """What a call can change, beside the budget and customers."""
    orders = [(o.id, o.arriving, o.eta, o.arrival) for o in world.pending.values()]
    return [world.storage.copy(), orders, list(world.inbox)]


def audited_day(game: Game, books: Books, agent: SilentAgent) -> Step:
    """One day of a run, with the books kept and compared beside it."""
    world = game.world
    night = copy.deepcopy(world.pending)
    books.morning(world.day, night)
    seen = game.morning()
    books.agree(world)
    decision = agent.decide(seen)
    before, money, open_orders = held(world), world.budget, set(world.customers)
    step = game.day(decision)
    books.call(step)
    books.agree(world)
    if step.result is None or not step.result["success"]:
        assert world.budget == money - half_up(books.fee * books.stored * 100)
        assert held(world) == before
        assert open_orders >= set(world.customers)  # old ones expire overnight
    return step


class Adversary:
    """Calls that mostly can be made and hurt, and junk between them."""

    def __init__(self, seed: int, world: World) -> None:
        self._draws = random.Random(seed)
        self._world = world

    def decide(self, seen: object) -> Decision:
        draws, world = self._draws, self._world
        if draws.random() < 0.2:
            return Decision(parse_status="failed", re_asks=2)
        if draws.random() < 0.25:
            return Decision(
                tool=draws.choice([*TOOLS, junk(draws)]), arguments=junk(draws), card=a_card(draws)
            )
        tool = draws.choice(list(TOOLS))
        arguments = {
            name: self._argument(name, tool, world) for name in TOOLS[tool].schema["properties"]
        }
        return Decision(tool=tool, arguments=arguments, card=a_card(draws))

    def _argument(self, name: str, tool: str, world: World) -> object:
        draws = self._draws
        match name:
            case "supplier_id":
                return draws.choice(world.catalogue.suppliers)
            case "sku":
                return draws.choice(world.catalogue.skus[:3])
            case "quantity":
                # As much as fits, one more than fits, or little.
                free = world.free_capacity
                return draws.choice([max(1, free), free + 1, 1, 7, 10**30])
            case "order_id":
                return draws.choice([*world.pending, "ORD0", "ORD99999"])
            case _:
                known = [*world.customers, "CO0", "CO99999"]
                few = draws.choices(known, k=draws.randint(0, 4))
                return draws.choice([draws.choice(known), few])


def a_card(draws: random.Random) -> Card | None:
    amounts = [None, 0.0, -1e12, 1e12, 1e-9, 7]
    if draws.random() < 0.2:
        return None
    return Card(
        expected_success=draws.choice([None, True, False]),
        expected_cost=draws.choice(amounts),
        expected_lead_days=draws.choice(amounts),
        expected_quantity=draws.choice(amounts),
        expected_storage_after=draws.choice(amounts),
        expected_budget_after=draws.choice(amounts),
        next_tool=draws.choice([None, "tool_wait", "tool_fly"]),
    )


RING: list[Any] = []
RING.append(RING)
JUNK: list[Any] = [
    None,
    True,
    -1,
    0,
    -(10**30),
    10**5000,
    2**63,
    0.1,
    10.0,
    1e308,
    -0.0,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "10",
    "\ud800",
    "\udfff sku_0",
    "\x00",
    "x" * 5000,
    "ORD0\n",
    "S1",
    "sku_0",
    b"\xff",
    {1, 2},
    1j,
    object(),
    Card,
    len,
    RING,
    ["CO0"] * 3000,
    [[[[[[[[]]]]]]]],
    {"CO0": {"CO0": {"CO0": {"CO0": {"CO0": {}}}}}},
    {number: number for number in range(2000)},
    {None: 1, "\ud800": 2, (1, 2): 3},
]


def junk(draws: random.Random, depth: int = 0) -> Any:
    """Anything but a sensible argument."""
    names = ["supplier_id", "sku", "quantity", "order_id", "customer_order_id", "\udfff", "x"]
    if depth < 3 and draws.random() < 0.6:
        if draws.random() < 0.3:
            return [junk(draws, depth + 1) for _ in range(draws.randint(0, 3))]
        count = draws.randint(0, 4)
        return {name: junk(draws, depth + 1) for name in draws.sample(names, count)}
    return draws.choice(JUNK)


def strict_json(step: Step) -> dict[str, Any]:
    """The step as the log holds it, read back by a reader that takes no NaN and no lone half."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant)

    text = msgspec.json.encode(step).decode("utf-8", "strict")
    read: dict[str, Any] = json.loads(text, parse_constant=refuse)
    json.dumps(read, ensure_ascii=False).encode("utf-8", "strict")
    return read


WORLDS = st.fixed_dictionaries(
    {
        "simulation.complexity_level": st.integers(0, 4),
        "simulation.pressure_level": st.sampled_from(["low", "high"]),
        "simulation.initial_storage_per_sku": st.sampled_from([0, 2]),
        "simulation.storage_capacity": st.sampled_from([50, 120, 500]),
        "simulation.initial_budget": st.sampled_from([0.0, 123.45, 10000.0]),
        "simulation.storage_fee": st.sampled_from([0.0, 0.1, 0.333]),
        "demand.orders_per_day": st.sampled_from([0.6, 3.0]),
        "demand.late_penalty": st.sampled_from([0.0, 0.3]),
        "demand.expire_after_days": st.sampled_from([2, 10]),
        "pe_induction.p_shock": st.sampled_from([0.0, 0.3, 1.0]),
        "pe_induction.pe_mag": st.sampled_from(["low", "medium", "high"]),
        "pe_induction.pe_type_mix": st.sampled_from(["uniform", "quantity_only", "causal_only"]),
        "pe_induction.observability": st.sampled_from(["full", "delayed", "partial", "hidden"]),
    }
)


@pytest.mark.parametrize("kind", ["heuristic", "random", "adversarial"])
@budget(max_examples=30, deadline=None)
@given(keys=WORLDS, replication=st.integers(0, 10**6))
def test_money_and_units_in_equals_out_every_day(
    kind: str, keys: dict[str, Any], replication: int
) -> None:
    played_by = "random" if kind == "adversarial" else kind
    chosen = settings({**keys, "agent.kind": played_by})
    game = Game(chosen, seed=11, replication=replication)
    agent: Any = agent_of(chosen, game, seed=11, replication=replication)
    if kind == "adversarial":
        agent = Adversary(replication, game.world)
    books = Books(chosen, game.world)
    for _ in range(80):
        audited_day(game, books, agent)
        if game.end is not None:
            break


@pytest.mark.parametrize("kind", ["heuristic", "random"])
def test_the_second_account_sees_every_kind_of_flow(kind: str) -> None:
    keys = {
        "agent.kind": kind,
        "simulation.complexity_level": 2,
        "simulation.storage_capacity": 80 if kind == "heuristic" else 400,
        "simulation.initial_budget": 1e6,
        "demand.late_penalty": 0.3,
        "pe_induction.p_shock": 0.8,
        "pe_induction.pe_mag": "high",
        "pe_induction.pe_type_mix": "uniform",
        "simulation.max_steps": 3000,
    }
    chosen = settings(keys)
    game = Game(chosen, seed=1, replication=0)
    books = Books(chosen, game.world)
    agent: Any = agent_of(chosen, game, seed=1, replication=0)
    for _ in range(1500):
        audited_day(game, books, agent)
    totals = game.world.totals
    assert min(totals.revenue, totals.paid, totals.fees, totals.units_in, totals.units_out) > 0
    assert totals.failed > 0
    assert (totals.charges > 0) is (kind == "random")


def test_ten_thousand_hostile_calls_raise_nothing_and_corrupt_nothing() -> None:
    keys = {
        "simulation.complexity_level": 2,
        "simulation.initial_budget": 1e7,
        "simulation.max_steps": 100_000,
        "pe_induction.p_shock": 0.5,
        "pe_induction.pe_mag": "high",
        "pe_induction.pe_type_mix": "uniform",
        "crash_detector.continue_after_crash": 100_000,
    }
    chosen = settings(keys)
    game = Game(chosen, seed=5, replication=0)
    books = Books(chosen, game.world)
    adversary = Adversary(5, game.world)
    codes = set()
    tools = set()
    for day in range(10_000):
        step = audited_day(game, books, adversary)
        logged = strict_json(step)
        assert logged["step"] == day
        if step.result is not None:
            codes.add(step.result.get("code"))
            if step.result["success"]:
                assert step.action is not None
                tools.add(step.action.tool)
    assert codes == {
        None,
        "unknown_tool",
        "invalid_arguments",
        "unknown_id",
        "no_capacity",
        "no_stock",
    }
    assert tools == set(TOOLS)
    summary = game.world.totals
    assert summary.shipped > 0
