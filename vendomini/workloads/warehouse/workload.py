"""The warehouse as a workload: what a phase file may say, and how a run of it is played."""

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from vendomini.chat import Episode
from vendomini.errors import ConfigError
from vendomini.workloads.warehouse.card_fields import FieldKind, card_fields
from vendomini.workloads.warehouse.settings import (
    LEAVING_SHARE,
    SKUS,
    WarehouseSettings,
    orders_a_day,
)
from vendomini.workloads.workload import Demand, RecordStep, Trial

if TYPE_CHECKING:  # the world is loaded where it is played: a plan or a status has no use for it
    from vendomini.workloads.warehouse.records import Outcome

# Estimates for the planner, in tokens. Of a model's agent, measured as characters over 3.5: the
# system message of the default interface at complexity 0 .. 4 (1,129 .. 1,188); per step of a
# policy that reads, quotes, orders and ships over 150 days, the user message (55) and the reply
# with its structured card (57), and round the two what a chat template adds.
LLM_PREFIX_TOKENS = 1160
LLM_GROWTH_TOKENS = 130
LLM_OUTPUT_TOKENS = 60
# What a card says of itself beside, by kind of field: the name, and a sentence where it is text.
REFLECTIVE_TOKENS: Mapping[FieldKind, int] = {"share": 6, "text": 10, "texts": 20, "reasoning": 35}
# Of the scripted agent: one message a step, which never grows, and a short reply.
SCRIPTED_PREFIX_TOKENS = 150
SCRIPTED_OUTPUT_TOKENS = 64

FEW_DAYS = 20  # as many as a window of the crash detector has by default
LONGEST_WINDOW = 1_000_000  # resolved errors; as many as the longest run has steps
OF_CARDS = ("agent.interface.prediction_format", "measurement.pe_windows")
OF_TOOLS = ("agent.interface.memory_tools", "agent.interface.recovery_tools")
SHOCK_SHAPES = ("pe_induction.pe_mag", "pe_induction.pe_type_mix", "pe_induction.observability")


class Warehouse:
    """Implements `vendomini.workloads.workload.Workload`."""

    name: ClassVar[str] = "warehouse"
    version: ClassVar[int] = 2
    settings_type: ClassVar[type] = WarehouseSettings

    @property
    def outcome_type(self) -> type["Outcome"]:
        from vendomini.workloads.warehouse.records import Outcome

        return Outcome

    def check(self, settings: WarehouseSettings) -> None:
        """Raise `ConfigError` if values that are each allowed are impossible together."""
        simulation, demand = settings.simulation, settings.demand
        skus = SKUS[simulation.complexity_level]
        rate = orders_a_day(settings)
        if rate > skus:
            key = "orders_per_day" if demand.p_customer_order is None else "p_customer_order"
            raise ConfigError(
                f"`demand.{key}` and `simulation.pressure_level` make `{rate:g}` customer orders "
                f"a day, but each of the `{skus}` SKUs of complexity level "
                f"`{simulation.complexity_level}` is ordered at most once a day",
                hint=f"lower `demand.{key}`",
            )
        stock = simulation.initial_storage_per_sku * skus
        if stock > simulation.storage_capacity:
            raise ConfigError(
                f"`simulation.initial_storage_per_sku` `{simulation.initial_storage_per_sku}` "
                f"times `{skus}` SKUs is `{stock}`, but `simulation.storage_capacity` is "
                f"`{simulation.storage_capacity}`",
                hint="lower the initial storage or raise the capacity",
            )
        model = settings.agent.model
        window, most = model.context_length, model.max_tokens_per_call
        if settings.agent.kind == "llm" and isinstance(window, int) and 2 * most > window:
            raise ConfigError(
                f"`agent.model.max_tokens_per_call` `{most}` is more than half of "
                f"`agent.model.context_length` `{window}`: too little is left to ask with",
                hint=f"lower `agent.model.max_tokens_per_call` to {window // 2} or less",
            )
        windows = settings.measurement.pe_windows
        increasing = all(short < long for short, long in itertools.pairwise(windows))
        if not (windows and increasing and windows[0] >= 1 and windows[-1] <= LONGEST_WINDOW):
            raise ConfigError(
                f"`measurement.pe_windows` is `{list(windows)}`",
                hint=f"give increasing whole numbers from 1 to {LONGEST_WINDOW}, "
                "such as `[10, 100, 500]`",
            )

    def refuse_unplayable(self, settings: WarehouseSettings) -> None:
        """All that can be planned can be played."""

    def asks(self, settings: WarehouseSettings) -> bool:
        return settings.agent.kind in ("llm", "scripted")

    def inert(self, settings: WarehouseSettings, keys: tuple[str, ...]) -> Mapping[str, str]:
        """Of the grid's keys those that cannot act on runs with these settings, and why."""
        reasons: dict[str, str] = {}
        kind = settings.agent.kind
        asks_no_card = kind == "llm" and settings.agent.interface.prediction_mode == "none"
        for key in keys:
            if kind in ("heuristic", "random"):
                if key.startswith(("agent.model.", "agent.interface.", "engine.")):
                    reasons[key] = f"the `{kind}` agent never asks a model"
            elif kind == "scripted" and (
                (key.startswith("agent.interface.") and key not in OF_TOOLS)
                or key == "agent.model.context_length"
            ):
                reasons[key] = "the `scripted` agent asks in one fixed way"
            elif key in OF_CARDS and asks_no_card and "agent.interface.prediction_mode" not in keys:
                reasons[key] = "no card is asked for: `agent.interface.prediction_mode` is `none`"
            if kind == "random" and key == "measurement.pe_windows":
                reasons[key] = "the `random` agent predicts nothing"
            if (
                key in SHOCK_SHAPES
                and settings.pe_induction.p_shock == 0
                and "pe_induction.p_shock" not in keys
            ):
                reasons[key] = "no shock is drawn while `pe_induction.p_shock` is 0"
            if key == "demand.orders_per_day" and settings.demand.p_customer_order is not None:
                reasons[key] = "`demand.p_customer_order` is set and decides instead"
        return reasons

    def notes(self, settings: WarehouseSettings) -> tuple[str, ...]:
        """What a reader of a plan should know: that conversations hold only a few days."""
        demand, model = self.demand(settings), settings.agent.model
        window = model.context_length
        if settings.agent.kind != "llm" or demand is None or not isinstance(window, int):
            return ()
        room = window - model.max_tokens_per_call - demand.prefix_tokens
        days = max(0, room // demand.growth_tokens)
        if days >= min(FEW_DAYS, settings.simulation.max_steps):
            return ()
        return (
            f"a conversation holds about {days} days: `agent.model.context_length` `{window}` "
            f"less `agent.model.max_tokens_per_call` `{model.max_tokens_per_call}` and about "
            f"{demand.prefix_tokens} tokens of rules; of older days a ledger of facts stays. A "
            "smaller `agent.model.max_tokens_per_call` leaves more",
        )

    def demand(self, settings: WarehouseSettings) -> Demand | None:
        """Requests and tokens of one run that reaches `max_steps`; None if it never asks.

        A re-asked reply is not counted.
        """
        if not self.asks(settings):
            return None
        steps, most = settings.simulation.max_steps, settings.agent.model.max_tokens_per_call
        if settings.agent.kind == "scripted":
            return Demand(
                requests=steps,
                prefix_tokens=SCRIPTED_PREFIX_TOKENS,
                growth_tokens=0,
                output_tokens=min(most, SCRIPTED_OUTPUT_TOKENS),
            )
        interface = settings.agent.interface
        every = interface.beliefs_every
        reflective = sum(REFLECTIVE_TOKENS.get(each.kind, 0) for each in card_fields(interface))
        return Demand(
            requests=steps,
            side_requests=0 if every is None else (steps - 1) // every,
            prefix_tokens=LLM_PREFIX_TOKENS,
            growth_tokens=LLM_GROWTH_TOKENS + min(most, reflective),
            output_tokens=min(most, LLM_OUTPUT_TOKENS + reflective),
            kept_share=1 - 1 / LEAVING_SHARE,
        )

    def trial(self, settings: WarehouseSettings, *, seed: int, replication: int = 0) -> Trial:
        """See `trial.py`."""
        from vendomini.workloads.warehouse.trial import trial

        return trial(settings, seed=seed, replication=replication)

    def play(
        self, settings: WarehouseSettings, *, seed: int, replication: int, record: RecordStep
    ) -> Episode["Outcome"]:
        """The episode of one run; steps are `records.Step`. Raises as `refuse_unplayable`."""
        from vendomini.workloads.warehouse.episode import play

        self.refuse_unplayable(settings)
        return play(settings, seed=seed, replication=replication, record=record)


WAREHOUSE = Warehouse()
