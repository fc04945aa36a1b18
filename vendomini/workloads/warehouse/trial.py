"""What a short trial of a run shows, for the test that no axis of a grid does nothing.

| played | as | shows |
|---|---|---|
| the heuristic (or the random) agent | the settings say | the world, its errors |
| a recorded breakdown | amplified | the world, its errors, signs |
| a recorded agent that is stuck | the settings say, but for `max_failures` | how a crashed run ends |
| a recorded conversation through the real agent, for `llm` only | amplified | the prompt, what is read |
| the first request, for `llm` only | the settings say | the prompt |

*Amplified* means that what is rare, late or scarce in the run comes in its trial: a dose that is
not 0 is at least `LEAST_DOSE`, customers who come at all come often, no limit ends the trial
early, and there is money and room for every order. So a magnitude is seen to act at p_shock 0.001
too. The `heuristic` agent stands for the probe.

What `agent.model` says is left out: it is compared, not tried.
"""  # noqa: E501  (a table row is one line)

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from vendomini.chat import ChatRequest, Choice, Message, Reply, Request
from vendomini.phase import ModelSettings
from vendomini.workloads.warehouse.agent import Decision, Seen
from vendomini.workloads.warehouse.derived import derived
from vendomini.workloads.warehouse.episode import AnyAgent, days
from vendomini.workloads.warehouse.logged import LoggedStep
from vendomini.workloads.warehouse.recorded import CONVERSATION_STEPS, said, stuck, worsening
from vendomini.workloads.warehouse.records import Outcome, Step
from vendomini.workloads.warehouse.settings import AgentKind, DemandSettings, WarehouseSettings
from vendomini.workloads.workload import Trial

STEPS = 240
LEAST_DOSE = 0.3
LEAST_BUDGET = 1_000_000.0
LEAST_CAPACITY = 10_000
LEAST_DEMAND = 0.3  # customer orders a day
LEAST_CHANCE = 0.06  # the same, by SKU in the smallest world
MODEL = ModelSettings(context_length=1_000_000)  # no trial is long enough for a truncation


def trial(settings: WarehouseSettings, *, seed: int, replication: int) -> Trial:
    """Play it all; equal settings, equal digests."""
    seen = _Seen(seed=seed, replication=replication)
    short = min(STEPS, settings.simulation.max_steps)
    silent: AgentKind = "random" if settings.agent.kind == "random" else "heuristic"
    as_set = _with(settings, kind=silent, steps=short)
    seen.played(as_set)
    loud = _amplified(_with(settings, kind=silent, steps=STEPS))
    seen.played(loud, agent=_Recorded(lambda step: worsening(step, STEPS)))
    endless = replace(as_set, demand=replace(as_set.demand, max_failures=None))
    seen.played(endless, agent=_Recorded(stuck), is_check=True)
    if settings.agent.kind == "llm":
        talk = _amplified(_with(settings, kind="llm", steps=CONVERSATION_STEPS))
        seen.played(talk, is_check=True)
        seen.asked_first(_with(settings, kind="llm", steps=settings.simulation.max_steps))
    return Trial(world=seen.world(), prompt=seen.prompt(), checks=seen.checks())


# -- private -------------------------------------------------------------------------------


def _with(settings: WarehouseSettings, *, kind: AgentKind, steps: int) -> WarehouseSettings:
    return replace(
        settings,
        agent=replace(settings.agent, kind=kind, model=MODEL),
        simulation=replace(settings.simulation, max_steps=steps),
    )


def _amplified(settings: WarehouseSettings) -> WarehouseSettings:
    induction = settings.pe_induction
    dose = max(induction.p_shock, LEAST_DOSE) if induction.p_shock else 0.0
    simulation = replace(
        settings.simulation,
        initial_budget=max(settings.simulation.initial_budget, LEAST_BUDGET),
        storage_capacity=max(settings.simulation.storage_capacity, LEAST_CAPACITY),
    )
    return replace(
        settings,
        simulation=simulation,
        pe_induction=replace(induction, p_shock=dose),
        demand=_frequent(settings.demand),
        crash_detector=replace(settings.crash_detector, continue_after_crash=STEPS),
    )


def _frequent(demand: DemandSettings) -> DemandSettings:
    rate, chance = demand.orders_per_day, demand.p_customer_order
    return replace(
        demand,
        orders_per_day=max(rate, LEAST_DEMAND) if rate else rate,
        p_customer_order=max(chance, LEAST_CHANCE) if chance else chance,
        max_failures=None,
    )


@dataclass(frozen=True, slots=True)
class _Recorded:
    """An agent that decides by the day alone."""

    decision: Callable[[int], Decision]

    def decide(self, seen: Seen) -> Decision:
        return self.decision(seen.day)


class _Seen:
    """Plays, and takes in what can be seen of it."""

    __slots__ = ("_checks", "_encoder", "_prompt", "_replication", "_seed", "_world")

    def __init__(self, *, seed: int, replication: int) -> None:
        self._seed = seed
        self._replication = replication
        self._encoder = msgspec.json.Encoder()
        self._world = hashlib.sha256()
        self._prompt = hashlib.sha256()
        self._checks = hashlib.sha256()

    def world(self) -> str:
        return self._world.hexdigest()

    def prompt(self) -> str:
        return self._prompt.hexdigest()

    def checks(self) -> str:
        return self._checks.hexdigest()

    def played(
        self,
        settings: WarehouseSettings,
        *,
        agent: AnyAgent | None = None,
        is_check: bool = False,
    ) -> None:
        """A run to its end, with the recorded replies where it asks.

        `is_check`: which replies are read, or how many steps are played, is what it shows, so
        all that happens in it is the work of the checks.
        """
        steps: list[Step] = []
        episode = days(
            settings,
            seed=self._seed,
            replication=self._replication,
            record=steps.append,
            agent=agent,
        )
        before: tuple[Message, ...] = ()
        step = attempt = 0
        try:
            asked = next(episode)
            while True:
                if len(steps) > step:
                    step, attempt = len(steps), 0
                for request in asked:
                    before = self._asked(request, before)
                # A belief question beside the day's request gets the same words as an answer.
                reply = Reply(choices=(Choice(text=said(step, attempt)),))
                attempt += 1
                asked = episode.send((reply,) * len(asked))
        except StopIteration as stop:
            self._take(settings, steps, stop.value, self._checks if is_check else self._world)

    def asked_first(self, settings: WarehouseSettings) -> None:
        """The first request of a run, and no more of it."""
        episode = days(
            settings,
            seed=self._seed,
            replication=self._replication,
            record=lambda step: None,
        )
        for request in next(episode):
            self._asked(request, ())
        episode.close()

    def _asked(self, request: Request, before: tuple[Message, ...]) -> tuple[Message, ...]:
        """A request, but for the messages it has in common with the one before."""
        assert isinstance(request, ChatRequest)
        messages = request.messages
        kept = len(before) if messages[: len(before)] == before else 0
        self._prompt.update(
            self._encoder.encode((kept, messages[kept:], request.reply_format.json_schema))
        )
        return messages

    def _take(
        self,
        settings: WarehouseSettings,
        steps: list[Step],
        outcome: Outcome,
        world: "hashlib._Hash",
    ) -> None:
        encode = self._encoder.encode
        for one in steps:
            shocks = (one.shock_drawn, one.shock_applied, one.shock_dropped)
            world.update(encode((one.day, one.action, one.result, shocks, one.truth)))
            read = (one.parse_status, one.re_asks, one.card, one.belief)
            self._checks.update(encode((read, one.resolved, one.ewma)))
        logged = [_logged(encode(one)) for one in steps]
        self._checks.update(encode((outcome, derived(settings, logged, {"end": outcome.end}))))


_logged = msgspec.json.Decoder(LoggedStep).decode
