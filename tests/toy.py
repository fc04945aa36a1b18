"""A small workload for tests of the machinery: it asks, several at once too, and adds up."""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vendomini.chat import ChatRequest, Episode, Message, Sampling, ScoreRequest, ask, ask_all
from vendomini.errors import EngineError
from vendomini.phase import Asked, ModelSettings, Run
from vendomini.store.experiment import Experiment
from vendomini.workloads import Demand, RecordStep, Trial, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyAgent:
    kind: str = "probe"
    model: ModelSettings = field(default_factory=ModelSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyGame:
    steps: int = 5
    breaks: bool = False  # a bug in the workload
    needs_engine: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ToySettings:
    agent: ToyAgent = field(default_factory=ToyAgent)
    game: ToyGame = field(default_factory=ToyGame)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOutcome:
    total: int
    steps: int


TOY = "tests.toy:Toy"


class Toy(Workload):
    """Each step asks one chat, then a score and a chat with two choices at once."""

    name = TOY
    outcome_type = ToyOutcome
    settings_type = ToySettings

    def asks(self, settings: ToySettings) -> Asked:
        if not settings.game.needs_engine:
            return "nobody"
        return "model" if settings.agent.kind == "llm" else "script"

    def trial(self, settings: ToySettings, *, seed: int, replication: int = 0) -> Trial:
        """What a toy says of its game: `steps` in the world, `breaks` in the checks."""
        game = settings.game
        return Trial(world=f"{game.steps:x}", prompt="", checks=f"{game.breaks:x}")

    def play(
        self, settings: ToySettings, *, seed: int, replication: int, record: RecordStep
    ) -> Episode[ToyOutcome]:
        total = 0
        for step in range(settings.game.steps):
            if settings.game.breaks and step == 2:
                raise ZeroDivisionError("the toy is broken")
            if not settings.game.needs_engine:
                yield ()
                total += step * (replication + 1)
            else:
                said = yield from ask(_chat(f"step {step}, so far {total}"))
                total += zlib.crc32(said.text.encode())
                scored, pair = yield from ask_all(
                    (
                        ScoreRequest(prompt=str(total), continuations=("yes", "no")),
                        _chat(f"twice {total}", n=2),
                    )
                )
                assert scored.choices[0].score is not None
                total += round(1000 * scored.choices[0].score)
                total += sum(zlib.crc32(choice.text.encode()) for choice in pair.choices)
            record({"step": step, "total": total})
        return ToyOutcome(total=total, steps=settings.game.steps)


class Batches(Toy):
    """Says of itself that it asks 20 times 256 scores at once, about one prompt."""

    name = "tests.toy:Batches"

    def asks(self, settings: ToySettings) -> Asked:
        return "model"

    def demand(self, settings: ToySettings) -> Demand | None:
        return Demand(
            requests=20 * 256, prefix_tokens=800, growth_tokens=0, output_tokens=1, at_once=256
        )


def _chat(text: str, n: int = 1) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content=text),), sampling=Sampling(n=n))


def toy_runs(count: int, **game: Any) -> list[Run]:
    """Runs that differ in their replication, with readable ids."""
    settings = {
        "experiment": {},
        "engine": {},
        "agent": {"kind": "probe", "model": {"name": "toy/model", "revision": None}},
        "game": game,
    }
    return [
        Run(
            id=f"{number:016x}",
            workload=TOY,
            workload_version=1,
            seed=7,
            replication=number,
            arm={},
            settings=settings,
        )
        for number in range(count)
    ]


def toy_experiment(folder: Path, count: int = 4, **game: Any) -> Experiment:
    experiment = Experiment(folder / "toy")
    experiment.extend("name: toy\n", toy_runs(count, **game))
    return experiment


def failing(*_: Any) -> Any:
    """A script whose engine is broken."""
    raise EngineError("the engine is gone")
