"""Playing the warehouse by hand: settings from dotted keys, agents with a policy, runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import msgspec

from vendomini.chat import ChatRequest, Choice, Episode, Reply, Request
from vendomini.workloads.warehouse.agent import AskingAgent, Decision, Seen, SilentAgent
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.crash import THRESHOLDS
from vendomini.workloads.warehouse.derived import MAIN, derived
from vendomini.workloads.warehouse.episode import days
from vendomini.workloads.warehouse.logged import LoggedStep
from vendomini.workloads.warehouse.records import Outcome, Step
from vendomini.workloads.warehouse.secondary import SECONDARY_THRESHOLDS
from vendomini.workloads.warehouse.settings import Threshold, WarehouseSettings

Call = tuple[str, dict[str, Any]]
WAIT: Call = ("tool_wait", {})


def settings(keys: Mapping[str, Any] | None = None) -> WarehouseSettings:
    """The defaults with an agent that plays and with dotted keys replaced."""
    changed: Any = WarehouseSettings()
    chosen = {"agent.kind": "heuristic", "simulation.max_steps": 200, **(keys or {})}
    for key, value in chosen.items():
        changed = _with(changed, key.split("."), value)
    assert isinstance(changed, WarehouseSettings)
    return changed


def _with(section: Any, path: list[str], value: Any) -> Any:
    assert is_dataclass(section)
    assert not isinstance(section, type)
    assert path[0] in {field.name for field in fields(section)}, path
    if len(path) > 1:
        value = _with(getattr(section, path[0]), path[1:], value)
    return replace(section, **{path[0]: value})


@dataclass(slots=True)
class Policy:
    """An agent that never asks, from a function of what it sees and the results so far."""

    choose: Callable[[Seen], Call | Decision | None]

    def decide(self, seen: Seen) -> Decision:
        chosen = self.choose(seen)
        if chosen is None:
            return Decision(parse_status="failed", re_asks=2)
        if isinstance(chosen, Decision):
            return chosen
        return Decision(tool=chosen[0], arguments=chosen[1], card=Card(expected_success=True))


def listed(calls: list[Call | Decision | None]) -> Policy:
    """The calls in turn, then waiting."""
    return Policy(lambda seen: calls[seen.day] if seen.day < len(calls) else WAIT)


def cycled(*calls: Call | Decision | None) -> Policy:
    """The calls in turn, for ever."""
    return Policy(lambda seen: calls[seen.day % len(calls)])


@dataclass(slots=True)
class Played:
    """A run's outcome, its steps, and both as the bytes a worker would write.

    `requests` are those of the main conversation, `questions` what was asked beside them.
    """

    settings: WarehouseSettings
    outcome: Outcome
    steps: list[Step]
    requests: list[Request]
    questions: list[Request]

    @property
    def bytes(self) -> bytes:
        return msgspec.json.encode([self.steps, self.outcome])

    def logged(self) -> list[LoggedStep]:
        """The steps as a table finds them in the log."""
        return msgspec.json.decode(msgspec.json.encode(self.steps), type=list[LoggedStep])

    def derived(self, threshold: Threshold = MAIN) -> dict[str, Any]:
        """What follows from the logged steps, with one threshold in the place of the main one."""
        return derived(
            self.settings,
            self.logged(),
            msgspec.to_builtins(self.outcome),
            limits={**THRESHOLDS, MAIN: THRESHOLDS[threshold]},
            secondary=SECONDARY_THRESHOLDS[threshold],
        )

    def crash(self, threshold: Threshold = MAIN) -> tuple[str, int, str] | None:
        """Type, onset and severity; None: no primary sign was seen."""
        crash = self.derived(threshold)["crash"]
        return None if crash["onset"] is None else tuple(crash.values())

    def signs(self, threshold: Threshold = MAIN) -> dict[str, int]:
        """Onsets of the signs that set in, in their order."""
        onsets = self.derived(threshold)["signs"]
        set_in = {sign: onset for sign, onset in onsets.items() if onset is not None}
        return dict(sorted(set_in.items(), key=lambda each: each[1]))


def played(
    chosen: WarehouseSettings,
    *,
    agent: AskingAgent | SilentAgent | None = None,
    seed: int = 0,
    replication: int = 0,
    reply: Callable[[ChatRequest], str | Reply] = lambda request: "",
    answer: Callable[[ChatRequest], str | Reply] = lambda request: '{"storage": 0, "budget": 0}',
) -> Played:
    """Play one run to its end; `reply` is the engine, `answer` what it says to questions beside."""
    steps: list[Step] = []
    requests: list[Request] = []
    questions: list[Request] = []
    episode: Episode[Outcome] = days(
        chosen, seed=seed, replication=replication, record=steps.append, agent=agent
    )
    try:
        asked = next(episode)
        while True:
            requests += asked[:1]
            questions += asked[1:]
            replies = []
            for position, request in enumerate(asked):
                assert isinstance(request, ChatRequest)
                said = answer(request) if position else reply(request)
                if isinstance(said, str):
                    said = Reply(choices=(Choice(text=said, finish_reason="stop"),))
                replies.append(said)
            asked = episode.send(tuple(replies))
    except StopIteration as stop:
        return Played(
            settings=chosen,
            outcome=stop.value,
            steps=steps,
            requests=requests,
            questions=questions,
        )
