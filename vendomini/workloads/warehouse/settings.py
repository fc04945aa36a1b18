"""The warehouse's sections of a phase file, with defaults and bounds.

Sections under `agent` act on agents that ask a model; `WAREHOUSE.inert` says which of them
cannot act on a given kind of agent.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from vendomini.phase import ModelSettings

AgentKind: TypeAlias = Literal["llm", "heuristic", "random", "probe"]
Level: TypeAlias = Literal["0", "1", "2", "3", "4"]  # of complexity
Pressure: TypeAlias = Literal["low", "medium", "high"]
Magnitude: TypeAlias = Literal["low", "medium", "high"]
TypeMix: TypeAlias = Literal[
    "temporal_only", "quantity_only", "causal_only", "rule_only", "uniform", "realistic"
]
Observability: TypeAlias = Literal["full", "delayed", "partial", "hidden"]
Threshold: TypeAlias = Literal["strict", "moderate", "lenient"]
PredictionMode: TypeAlias = Literal[
    "required",
    "optional",
    "required+confidence",
    "required+uncertainty",
    "required+full",
    "none",
]
PredictionFormat: TypeAlias = Literal["minimal", "structured", "rich"]

LEVELS: tuple[Level, ...] = ("0", "1", "2", "3", "4")

SKUS = (5, 10, 15, 20, 25)
"""SKUs by complexity level 0..4."""

SUPPLIERS = (2, 3, 4, 5, 6)
"""Suppliers by complexity level 0..4."""

DEMAND_BY_PRESSURE: dict[Pressure, float] = {"low": 0.7, "medium": 1.0, "high": 1.3}
DUE_BY_PRESSURE: dict[Pressure, float] = {"low": 1.5, "medium": 1.0, "high": 0.7}


LEAVING_SHARE = 4
"""At least one part in so many of a conversation's window leaves at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationSettings:
    """The world. Money in currency units, storage in units, one step is one day."""

    max_steps: int = field(default=1000, metadata={"ge": 1, "le": 1_000_000})
    complexity_level: int = field(default=1, metadata={"ge": 0, "le": 4})
    initial_budget: float = field(default=10000.0, metadata={"ge": 0, "le": 1e9})
    pressure_level: Pressure = "medium"
    initial_storage_per_sku: int = field(default=0, metadata={"ge": 0, "le": 100_000})
    storage_capacity: int = field(default=500, metadata={"ge": 1, "le": 1_000_000})
    storage_fee: float = field(default=0.1, metadata={"ge": 0, "le": 1e6})  # per unit and day


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandSettings:
    """What customers ask for; `simulation.pressure_level` scales rate and due days."""

    orders_per_day: float = field(default=0.6, metadata={"ge": 0, "le": 25})  # over all SKUs
    # Chance per SKU and day, as older phase files have it; None: orders_per_day decides.
    p_customer_order: float | None = field(default=None, metadata={"ge": 0, "le": 1})
    due_days: int = field(default=3, metadata={"ge": 1, "le": 10_000})
    sale_markup: float = field(default=1.6, metadata={"gt": 0, "le": 1000})
    late_penalty: float = field(default=0.0, metadata={"ge": 0, "le": 1})  # share of the gross
    expire_after_days: int = field(default=10, metadata={"ge": 1, "le": 10_000})
    # Expired customer orders that end the run; None: they end nothing.
    max_failures: int | None = field(default=None, metadata={"ge": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceSettings:
    """How an agent that asks a model is spoken to."""

    prediction_mode: PredictionMode = "required"
    prediction_format: PredictionFormat = "structured"
    memory_tools: Literal["none", "basic", "full"] = "full"
    recovery_tools: Literal["none", "reset", "audit", "help", "all"] = "none"
    reply_format: Literal["schema", "text"] = "schema"
    # Steps between two questions about total storage and budget; None: never asked.
    beliefs_every: int | None = field(default=10, metadata={"ge": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """Who plays."""

    kind: AgentKind = field(default="llm", metadata={"once": {"scripted": "probe"}})
    model: ModelSettings = field(default_factory=ModelSettings)
    interface: InterfaceSettings = field(default_factory=InterfaceSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class InductionSettings:
    """The dose: how often, how hard and in what way the world surprises, and who is told."""

    p_shock: float = field(default=0.1, metadata={"ge": 0, "le": 1})  # chance per step
    pe_mag: Magnitude = "medium"
    pe_type_mix: TypeMix = "realistic"
    observability: Observability = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """The window that signs of a breakdown are looked for in, and how long a run goes on after
    the first. Lengths in steps.

    `threshold` decides nothing, and is read so that older files load: a table has the crash by all
    three thresholds, and the rule that ends a run is one and the same (`stop.py`).
    """

    threshold: Threshold = field(
        default="moderate", metadata={"not_in_id": "all three thresholds are in the table"}
    )
    window_size: int = field(default=20, metadata={"ge": 10, "le": 1000})
    continue_after_crash: int = field(default=50, metadata={"ge": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementSettings:
    """Lengths of the windows over the last resolved errors of each type, increasing."""

    pe_windows: tuple[int, ...] = (10, 100, 500)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarehouseSettings:
    """All the sections the warehouse adds to a phase file."""

    simulation: SimulationSettings = field(default_factory=SimulationSettings)
    demand: DemandSettings = field(default_factory=DemandSettings)
    agent: AgentSettings = field(default_factory=AgentSettings)
    pe_induction: InductionSettings = field(default_factory=InductionSettings)
    crash_detector: DetectorSettings = field(default_factory=DetectorSettings)
    measurement: MeasurementSettings = field(default_factory=MeasurementSettings)
    # By complexity level, in place of simulation.max_steps; None: the same for every level.
    max_steps_by_level: dict[Level, int] | None = field(
        default=None,
        metadata={"ge": 1, "le": 1_000_000, "not_in_id": "it sets simulation.max_steps"},
    )


def level_of(settings: WarehouseSettings) -> Level:
    """The complexity level, as a file names it where something is given by level."""
    return LEVELS[settings.simulation.complexity_level]


def orders_a_day(settings: WarehouseSettings) -> float:
    """Mean number of customer orders a day over all SKUs, with the pressure applied."""
    demand, simulation = settings.demand, settings.simulation
    rate = demand.orders_per_day
    if demand.p_customer_order is not None:
        rate = demand.p_customer_order * SKUS[simulation.complexity_level]
    return rate * DEMAND_BY_PRESSURE[simulation.pressure_level]


def due_after_days(settings: WarehouseSettings) -> int:
    """Days a customer order is due after its request: at least 1, rounded half up."""
    scaled = settings.demand.due_days * DUE_BY_PRESSURE[settings.simulation.pressure_level]
    return max(1, int(scaled + 0.5))
