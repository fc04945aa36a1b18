"""The warehouse as a workload: what a phase file may say, and how a run of it is played."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vendomini.chat import Episode
from vendomini.errors import ConfigError
from vendomini.phase import Asked
from vendomini.transcript import PlainTeller, Teller
from vendomini.workloads.warehouse.card_fields import FieldKind, card_fields
from vendomini.workloads.warehouse.logged import LoggedStep
from vendomini.workloads.warehouse.settings import (
    LEAVING_SHARE,
    SKUS,
    AgentKind,
    DetectorSettings,
    InterfaceSettings,
    WarehouseSettings,
    level_of,
    orders_a_day,
)
from vendomini.workloads.workload import (
    TOKEN_BYTES,
    Demand,
    Imported,
    Length,
    Measure,
    RecordStep,
    Trial,
    Workload,
    reply_bytes,
)

if TYPE_CHECKING:  # the world is loaded where it is played: a plan or a status has no use for it
    from vendomini.workloads.warehouse.old.words import OldWords
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
# Of the probe: one message a step, which never grows, and a short reply.
PROBE_PREFIX_TOKENS = 150
PROBE_OUTPUT_TOKENS = 64

# Bytes of a step in the log, measured 2026-11-29 over 200 to 1,000 days at complexity 0 .. 4 and
# p_shock 0 .. 1. A model's: of a policy that reads, quotes, orders and ships (1,147 .. 1,230), as
# `required` has it; without a card, and so without errors of it, 440 less. What a card says of
# itself beside is in the step, too.
STEP_BYTES: Mapping[AgentKind, int] = {
    "heuristic": 1320,  # 1,304 .. 1,338
    "random": 680,  # 664 .. 690
    "probe": 720,  # 708 .. 734
    "llm": 1200,
}
CARD_BYTES = 440

FEW_DAYS = 20  # as many as a window of the crash detector has by default
LONGEST_WINDOW = 1_000_000  # resolved errors; as many as the longest run has steps
OF_CARDS = ("agent.interface.prediction_format", "measurement.pe_windows")
OF_TOOLS = ("agent.interface.memory_tools", "agent.interface.recovery_tools")
PREDICTED = ("temporal", "quantity", "cost", "storage", "budget", "causal")  # `cards.ERROR_TYPES`
SHORT_STEPS = 1000  # most of a short run
PHASES = 5  # of the study
SHORT_PHASES = (1, 2, 3)
STOP_RULE = "stop_rule"
USUAL_THRESHOLD = DetectorSettings().threshold
DERIVED_NOW = ("crash", "competing", "censored", "signs")  # what older outcomes have beside
SHOCK_SHAPES = ("pe_induction.pe_mag", "pe_induction.pe_type_mix", "pe_induction.observability")


class Warehouse(Workload):
    """A warehouse that an agent runs for as long as it can, while the world surprises it."""

    name = "warehouse"
    version = 2
    derive_version = 1
    settings_type = WarehouseSettings
    step_type = LoggedStep
    not_tried = ("agent.kind",)
    once_in_id = ("crash_detector.threshold",)
    base_file = Path(__file__).with_name("warehouse.yaml")
    measures = (
        Measure(
            column="outcome.crash.onset",
            kind="time to event",
            meaning="the first primary sign of a breakdown, by the moderate threshold",
            unit="steps",
        ),
        Measure(
            column="outcome.measures.fulfilled",
            kind="share",
            meaning="customer orders shipped, of those requested",
        ),
        Measure(
            column="outcome.measures.net_worth",
            kind="number",
            meaning="budget less what is owed, with stock at the cheapest price of the last day",
            unit="currency units",
        ),
        *(
            Measure(
                column=f"pe.{type}.mean",
                kind="number",
                meaning=f"mean error of the {type} predictions that were resolved",
            )
            for type in PREDICTED
        ),
    )

    @property
    def outcome_type(self) -> type["Outcome"]:
        from vendomini.workloads.warehouse.records import Outcome

        return Outcome

    @property
    def translator(self) -> "OldWords":
        from vendomini.workloads.warehouse.old.words import OldWords

        return OldWords()

    # -- before it is played ----------------------------------------------------------------

    def asks(self, settings: WarehouseSettings) -> Asked:
        match settings.agent.kind:
            case "llm":
                return "model"
            case "probe":
                return "script"
            case "heuristic" | "random":
                return "nobody"

    def derive_settings(self, settings: WarehouseSettings) -> WarehouseSettings:
        """With the steps of the run's level, where they are given by level."""
        simulation = settings.simulation
        by_level = settings.max_steps_by_level or {}
        steps = by_level.get(level_of(settings), simulation.max_steps)
        if steps == simulation.max_steps:
            return settings
        return replace(settings, simulation=replace(simulation, max_steps=steps))

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

    def inert(self, settings: WarehouseSettings, keys: tuple[str, ...]) -> Mapping[str, str]:
        """Of the grid's keys those that cannot act on runs with these settings, and why."""
        reasons: dict[str, str] = {}
        kind = settings.agent.kind
        asks_no_card = kind == "llm" and settings.agent.interface.prediction_mode == "none"
        for key in keys:
            if kind in ("heuristic", "random"):
                if key.startswith(("agent.model.", "agent.interface.", "engine.")):
                    reasons[key] = f"the `{kind}` agent never asks a model"
            elif kind == "probe" and (
                (key.startswith("agent.interface.") and key not in OF_TOOLS)
                or key == "agent.model.context_length"
            ):
                reasons[key] = "the `probe` agent asks in one fixed way"
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

    def notes(self, arms: Sequence[WarehouseSettings]) -> Iterable[str]:
        """That conversations hold only a few days; what decides nothing; levels without a run."""
        first: dict[str, WarehouseSettings] = {}
        for settings in arms:
            if self.asks(settings) == "model":
                first.setdefault(settings.agent.model.name, settings)
        notes = map(self._short_conversation, first.values())
        yield from dict.fromkeys(note for note in notes if note is not None)
        named = [level for settings in arms for level in settings.max_steps_by_level or ()]
        levels = set(map(level_of, arms))
        idle = [level for level in dict.fromkeys(named) if level not in levels]
        if idle:
            yield f"`max_steps_by_level` names level {', '.join(idle)}, which no run has"
        if any(each.crash_detector.threshold != USUAL_THRESHOLD for each in arms):
            yield (
                "`crash_detector.threshold` decides nothing any more: runs end by the lenient one, "
                "and all three are in the table"
            )

    def demand(self, settings: WarehouseSettings) -> Demand | None:
        """Requests and tokens of one run that reaches `max_steps`; None if it never asks.

        A re-asked reply is not counted.
        """
        if self.asks(settings) == "nobody":
            return None
        steps, most = settings.simulation.max_steps, settings.agent.model.max_tokens_per_call
        if settings.agent.kind == "probe":
            return Demand(
                requests=steps,
                prefix_tokens=PROBE_PREFIX_TOKENS,
                growth_tokens=0,
                output_tokens=min(most, PROBE_OUTPUT_TOKENS),
            )
        interface = settings.agent.interface
        every = interface.beliefs_every
        reflective = _reflective_tokens(interface)
        return Demand(
            requests=steps,
            side_requests=0 if every is None else (steps - 1) // every,
            prefix_tokens=LLM_PREFIX_TOKENS,
            growth_tokens=LLM_GROWTH_TOKENS + min(most, reflective),
            output_tokens=min(most, LLM_OUTPUT_TOKENS + reflective),
            kept_share=1 - 1 / LEAVING_SHARE,
        )

    def written(self, settings: WarehouseSettings) -> int:
        """Of a run that reaches `max_steps`. What a model thinks is logged with its reply: where
        it is told to, up to the limit of a call."""
        demand, interface = self.demand(settings), settings.agent.interface
        step = STEP_BYTES[settings.agent.kind]
        if settings.agent.kind == "llm":
            step -= CARD_BYTES if interface.prediction_mode == "none" else 0
            step += TOKEN_BYTES * _reflective_tokens(interface)
        if demand is not None and settings.agent.model.thinking == "on":
            demand = replace(demand, output_tokens=settings.agent.model.max_tokens_per_call)
        return reply_bytes(demand) + settings.simulation.max_steps * step

    def trial(self, settings: WarehouseSettings, *, seed: int, replication: int = 0) -> Trial:
        """See `trial.py`."""
        from vendomini.workloads.warehouse.trial import trial

        return trial(settings, seed=seed, replication=replication)

    def length(self, settings: WarehouseSettings, *, phase: int | None) -> Length:
        """As the predecessor's guide has it: by the phase of the study, else by the steps.

        Raises `ConfigError` for a phase that the study does not have.
        """
        if phase is not None and phase > PHASES:
            raise ConfigError(
                f"`experiment.phase` is `{phase}`, and the study has phases 1 to {PHASES}",
                hint="leave it out for a phase of your own",
            )
        steps = settings.simulation.max_steps
        is_short = steps <= SHORT_STEPS if phase is None else phase in SHORT_PHASES
        of = f"{steps} steps" if phase is None else f"phase {phase}"
        return Length(is_short=is_short, words=f"{'short' if is_short else 'long'} runs ({of})")

    # -- playing it -------------------------------------------------------------------------

    def play(
        self, settings: WarehouseSettings, *, seed: int, replication: int, record: RecordStep
    ) -> Episode["Outcome"]:
        """The episode of one run; steps are `records.Step`."""
        from vendomini.workloads.warehouse.episode import days

        return days(settings, seed=seed, replication=replication, record=record)

    def replay(
        self,
        settings: WarehouseSettings,
        *,
        seed: int,
        replication: int,
        record: RecordStep,
        outcome: Mapping[str, Any],
    ) -> Episode["Outcome"]:
        """By the rule for stopping that the outcome, as it was logged, names; an outcome of before
        there was one came to its end by the run's own threshold."""
        from vendomini.workloads.warehouse.episode import days
        from vendomini.workloads.warehouse.stop import StopRule

        name = outcome.get(STOP_RULE)
        rule = StopRule(name=settings.crash_detector.threshold, must_start=False)
        if name is not None:
            rule = StopRule(name=name)
        return days(settings, seed=seed, replication=replication, record=record, stop_rule=rule)

    # -- after it was played ----------------------------------------------------------------

    def derive(
        self,
        settings: WarehouseSettings,
        steps: Sequence[LoggedStep],
        outcome: Mapping[str, Any],
    ) -> Mapping[str, Any]:
        """See `derived.py`."""
        from vendomini.workloads.warehouse.derived import derived

        return derived(settings, steps, outcome)

    def derived_columns(self) -> tuple[str, ...]:
        from vendomini.workloads.warehouse.derived import COLUMNS

        return COLUMNS

    def import_results(
        self, folder: Path, out: Path, progress: Callable[[int, int], None]
    ) -> Imported:
        """The predecessor's results."""
        from vendomini.workloads.warehouse.old.tables import import_results

        return import_results(folder, out=out, progress=progress)

    def teller(self, settings: WarehouseSettings | None) -> Teller:
        if settings is None:
            return PlainTeller()
        from vendomini.workloads.warehouse.teller import WarehouseTeller

        return WarehouseTeller(settings)

    # -- records of older versions ----------------------------------------------------------

    def todays_step(self, step: dict[str, Any]) -> dict[str, Any]:
        """Without the signs that set in with it, which are derived."""
        return {key: value for key, value in step.items() if key != "signs"}

    def todays_outcome(
        self, outcome: dict[str, Any], settings: WarehouseSettings
    ) -> dict[str, Any]:
        """Without what is derived, and with the rule that ended it."""
        if STOP_RULE in outcome:
            return outcome
        todays: dict[str, Any] = {}
        for key, value in outcome.items():
            if key not in DERIVED_NOW:
                todays[key] = value
            if key == "end":
                todays[STOP_RULE] = settings.crash_detector.threshold
        return todays

    # -- private ----------------------------------------------------------------------------

    def _short_conversation(self, settings: WarehouseSettings) -> str | None:
        """What to know of conversations that hold only a few days; None: they hold more."""
        demand, model = self.demand(settings), settings.agent.model
        window = model.context_length
        if demand is None or not isinstance(window, int):
            return None
        room = window - model.max_tokens_per_call - demand.prefix_tokens
        days = max(0, room // demand.growth_tokens)
        if days >= min(FEW_DAYS, settings.simulation.max_steps):
            return None
        return (
            f"a conversation holds about {days} days: `agent.model.context_length` `{window}` "
            f"less `agent.model.max_tokens_per_call` `{model.max_tokens_per_call}` and about "
            f"{demand.prefix_tokens} tokens of rules; of older days a ledger of facts stays. A "
            "smaller `agent.model.max_tokens_per_call` leaves more"
        )


def _reflective_tokens(interface: InterfaceSettings) -> int:
    """What a card says of itself beside what it predicts."""
    return sum(REFLECTIVE_TOKENS.get(each.kind, 0) for each in card_fields(interface))


WAREHOUSE = Warehouse()
