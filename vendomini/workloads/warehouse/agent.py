"""The seam between the day's course and whoever makes the day's call."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from vendomini.chat import Episode
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.goods import cents
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.tools import Result, Tool
from vendomini.workloads.warehouse.world import World, bankrupt_below

ParseStatus: TypeAlias = Literal["ok", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Briefing:
    """What every agent is told before the first day: the rules' numbers, no prices.

    Money in cents.
    """

    skus: tuple[str, ...]
    suppliers: tuple[str, ...]
    tools: tuple[Tool, ...]
    max_steps: int
    budget: int
    storage_per_sku: int
    capacity: int
    fee: float  # currency units for each unit of storage and day
    expire_after_days: int
    late_penalty: float  # share of the gross
    bankrupt_below: int
    max_failures: int | None  # expired customer orders that end the run; None: they end nothing
    drifts: bool  # prices change from day to day


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What an agent sees of a morning: the day, how many messages wait, and its last result."""

    day: int
    inbox_count: int
    last_result: Result | None  # None: no call was made the day before


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """The answer to a belief question: units in storage and budget in currency units, in all.

    Both are None if the reply could not be read.
    """

    storage: float | None = None
    budget: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The day's call, or that none could be read from the replies (`failed`: an idle day).

    `tool` and `arguments` may be anything at all. `believed` is what was answered to the
    morning's belief question; None: none was asked.
    """

    tool: object = None
    arguments: object = None
    card: Card | None = None
    parse_status: ParseStatus = "ok"
    re_asks: int = 0
    believed: Believed | None = None


class SilentAgent(Protocol):
    """Decides by itself and never asks an engine."""

    def decide(self, seen: Seen) -> Decision: ...


class AskingAgent(Protocol):
    """Decides by what an engine answers."""

    def ask(self, seen: Seen) -> Episode[Decision]: ...


def briefing(settings: WarehouseSettings, world: World, tools: tuple[Tool, ...]) -> Briefing:
    """What is said of a world before its first day."""
    simulation = settings.simulation
    return Briefing(
        skus=world.catalogue.skus,
        suppliers=world.catalogue.suppliers,
        tools=tools,
        max_steps=simulation.max_steps,
        budget=cents(simulation.initial_budget),
        storage_per_sku=simulation.initial_storage_per_sku,
        capacity=simulation.storage_capacity,
        fee=simulation.storage_fee,
        expire_after_days=settings.demand.expire_after_days,
        late_penalty=settings.demand.late_penalty,
        bankrupt_below=bankrupt_below(cents(simulation.initial_budget)),
        max_failures=settings.demand.max_failures,
        drifts=world.catalogue.drifts,
    )
