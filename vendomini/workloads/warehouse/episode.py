"""The protocol of the experiment: see the morning, decide, act, compare, until the end."""

import math
from typing import TypeAlias

from vendomini.chat import Episode
from vendomini.workloads.warehouse.agent import (
    AskingAgent,
    Believed,
    Decision,
    Seen,
    SilentAgent,
    briefing,
)
from vendomini.workloads.warehouse.belief import Belief, divergence
from vendomini.workloads.warehouse.cards import Predictions
from vendomini.workloads.warehouse.heuristic import Heuristic
from vendomini.workloads.warehouse.llm import Llm
from vendomini.workloads.warehouse.probe import Probe
from vendomini.workloads.warehouse.random_agent import RandomAgent
from vendomini.workloads.warehouse.records import (
    Action,
    Averages,
    BeliefSummary,
    Delivery,
    Measures,
    Outcome,
    Payment,
    ShockCounts,
    Step,
    Truth,
)
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.shocks import TYPES, Shocks
from vendomini.workloads.warehouse.stop import PLAYED, End, Stop, StopRule
from vendomini.workloads.warehouse.toolbox import Toolbox, audited
from vendomini.workloads.warehouse.tools import Called, Result
from vendomini.workloads.warehouse.world import Delivered, Paid, World
from vendomini.workloads.workload import RecordStep

PAUSE_STEPS = 100  # between two pauses of an agent that never asks

AnyAgent: TypeAlias = AskingAgent | SilentAgent


def agent_of(settings: WarehouseSettings, run: "Game", *, seed: int, replication: int) -> AnyAgent:
    """Whoever plays; raises `ConfigError` if a model's window is not known."""
    told = briefing(settings, run.world, run.tools.offered)
    match settings.agent.kind:
        case "heuristic":
            return Heuristic(told)
        case "random":
            return RandomAgent(told, seed=seed, replication=replication)
        case "probe":
            return Probe(told, settings.agent.model)
        case "llm":
            return Llm(told, settings.agent)


def days(
    settings: WarehouseSettings,
    *,
    seed: int,
    replication: int,
    record: RecordStep,
    agent: AnyAgent | None = None,
    stop_rule: StopRule = PLAYED,
) -> Episode[Outcome]:
    """Play one run with the agent the settings name, or the one given."""
    run = Game(settings, seed=seed, replication=replication, stop_rule=stop_rule)
    if agent is None:
        agent = agent_of(settings, run, seed=seed, replication=replication)
    while run.end is None:
        seen = run.morning()
        if hasattr(agent, "ask"):
            decision = yield from agent.ask(seen)
        else:
            decision = agent.decide(seen)
            if run.step % PAUSE_STEPS == PAUSE_STEPS - 1:
                yield ()
        record(run.day(decision))
    return run.outcome()


class Game:
    """One run between two steps: the world, its shocks, open predictions and what ends it."""

    __slots__ = (
        "_beliefs",
        "_calls_failed",
        "_events",
        "_inbox_count",
        "_last_result",
        "_max_steps",
        "_predictions",
        "_re_asks",
        "_shocks",
        "_stop",
        "_unreadable",
        "end",
        "step",
        "tools",
        "world",
    )

    def __init__(
        self,
        settings: WarehouseSettings,
        *,
        seed: int,
        replication: int,
        stop_rule: StopRule = PLAYED,
    ) -> None:
        self.world = World(settings, seed=seed, replication=replication)
        self.step = 0
        self.end: End | None = None
        self._shocks = Shocks(settings.pe_induction, seed=seed, replication=replication)
        self._predictions = Predictions(
            settings.measurement.pe_windows, audited=audited(settings.agent)
        )
        self.tools = Toolbox(
            self.world,
            agent=settings.agent,
            complexity_level=settings.simulation.complexity_level,
            predictions=self._predictions,
        )
        self._stop = Stop(stop_rule, settings, self.world)
        self._max_steps = settings.simulation.max_steps
        self._last_result: Result | None = None
        self._beliefs: list[Belief] = []
        self._events: list[Delivery | Payment] = []  # of the morning
        self._inbox_count = 0
        self._calls_failed = 0
        self._re_asks = 0
        self._unreadable = 0

    def morning(self) -> Seen:
        """Payments, deliveries, customers and shocks; what the agent sees then."""
        self._events = []
        for event in self.world.morning():
            self._predictions.happened(event)
            self._events.append(_logged(event))
        self._shocks.strike(self.world)
        self._inbox_count = len(self.world.inbox)
        return Seen(
            day=self.world.day,
            inbox_count=self._inbox_count,
            last_result=self._last_result,
        )

    def day(self, decision: Decision) -> Step:
        """The day's call and its evening; the step to log. Sets `end` if it was the last."""
        belief = self._belief(decision.believed)
        called = self._act(decision)
        world, step, today = self.world, self.step, self.world.day
        world.evening()
        resolved = self._predictions.day_ended(storage=world.stored, budget=world.budget)
        self._re_asks += decision.re_asks
        self.end = self._stop.after_step(step, called)
        self.step += 1
        shocks, totals = self._shocks, world.totals
        tracks = self._predictions.tracks
        return Step(
            step=step,
            day=today,
            inbox_count=self._inbox_count,
            events=self._events,
            action=None if called is None else Action(called.tool, called.arguments),
            result=self._last_result,
            card=decision.card,
            belief=belief,
            resolved=resolved,
            ewma=Averages(
                tracks["temporal"].averages,
                tracks["quantity"].averages,
                tracks["cost"].averages,
                tracks["storage"].averages,
                tracks["budget"].averages,
                tracks["causal"].averages,
            ),
            shock_drawn=shocks.drawn_today,
            shock_applied=shocks.applied_today,
            shock_dropped=shocks.dropped_today,
            parse_status=decision.parse_status,
            re_asks=decision.re_asks,
            truth=Truth(
                world.budget / 100,
                world.owed / 100,
                world.stored,
                len(world.pending),
                world.pending_units,
                len(world.inbox),
                len(world.customers),
                totals.shipped,
                totals.failed,
                totals.revenue / 100,
            ),
        )

    def outcome(self) -> Outcome:
        """Raises `AssertionError` before the end."""
        assert self.end is not None
        world, shocks, totals = self.world, self._shocks, self.world.totals
        armed = shocks.armed
        fulfilled = totals.shipped / totals.requested if totals.requested else None
        return Outcome(
            steps=self.step,
            max_steps=self._max_steps,
            end=self.end,
            stop_rule=self._stop.rule,
            measures=Measures(
                orders_requested=totals.requested,
                orders_shipped=totals.shipped,
                orders_failed=totals.failed,
                fulfilled=None if fulfilled is None else round(fulfilled, 6),
                orders_placed=world.orders_placed,
                calls_failed=self._calls_failed,
                revenue=totals.revenue / 100,
                net_worth=world.net_worth() / 100,
                final_budget=world.budget / 100,
                final_storage=world.stored,
            ),
            shocks={
                type: ShockCounts(
                    drawn=shocks.drawn[type],
                    applied=shocks.applied[type],
                    dropped=shocks.dropped[type],
                    armed=int(type in armed),
                )
                for type in TYPES
            },
            pe=self._predictions.summaries(),
            beliefs=summary_of(self._beliefs),
            format_failures=self._unreadable,
            re_asks=self._re_asks,
        )

    def _belief(self, believed: Believed | None) -> Belief | None:
        """The answer to the morning's question beside the truth of the morning."""
        if believed is None:
            return None
        belief = Belief(
            storage=believed.storage,
            budget=believed.budget,
            true_storage=self.world.stored,
            true_budget=self.world.budget / 100,
        )
        self._beliefs.append(belief)
        return belief

    def _act(self, decision: Decision) -> Called | None:
        """Make the call, if there is one, and bind its card."""
        if decision.parse_status == "failed":
            self._last_result = None
            self._unreadable += 1
            return None
        called = self.tools.call(decision.tool, decision.arguments)
        self._last_result = called.result
        if called.ordered is not None:
            self._shocks.order_placed(called.ordered, self.world)
        if called.expedited is not None:
            self._predictions.expedited(called.expedited)
        if not called.succeeded:
            self._calls_failed += 1
        if decision.card is not None:
            self._predictions.made(decision.card, called, step=self.step, day=self.world.day)
        return called


def _logged(event: Delivered | Paid) -> Delivery | Payment:
    if isinstance(event, Paid):
        return Payment(event.order.id, event.amount / 100)
    return Delivery(event.order.id, event.order.sku, event.accepted, event.returned)


def summary_of(beliefs: list[Belief]) -> BeliefSummary:
    """How a run's beliefs compare with the truth."""
    storage = [divergence(b.storage, b.true_storage) for b in beliefs if b.storage is not None]
    budget = [divergence(b.budget, b.true_budget) for b in beliefs if b.budget is not None]
    return BeliefSummary(
        asked=len(beliefs),
        read=len(storage),
        storage_divergence=_mean(storage),
        budget_divergence=_mean(budget),
    )


def _mean(values: list[float]) -> float | None:
    return round(math.fsum(values) / len(values), 6) if values else None
