"""Which label does a model give a word? It says so, then all labels are scored at once."""

import random
from dataclasses import dataclass, field
from typing import Literal

from vendomini.chat import ChatRequest, Episode, Message, Sampling, ScoreRequest, ask, ask_all
from vendomini.phase import ModelSettings
from vendomini.workloads import RecordStep, Workload

LABELS = {"colours": ("red", "green", "blue"), "sizes": ("small", "large")}
WORDS = ("tomato", "grass", "sky", "whale", "ant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    model: ModelSettings = field(default_factory=ModelSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    name: Literal["colours", "sizes"] = "colours"
    tone: Literal["plain", "polite"] = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    agent: Agent = field(default_factory=Agent)
    task: Task = field(default_factory=Task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    best: tuple[str, ...]
    agreed: int  # how often the likeliest label is in what was said


class LabelSearch(Workload):
    settings_type = Settings
    outcome_type = Outcome
    unit = ("task.name",)

    def play(
        self, settings: Settings, *, seed: int, replication: int, record: RecordStep
    ) -> Episode[Outcome]:
        task, model, best, agreed = settings.task, settings.agent.model, [], 0
        sampling = Sampling(temperature=model.temperature, max_tokens=model.max_tokens_per_call)
        words = random.Random(f"{seed} {replication}").sample(WORDS, k=len(WORDS))
        for step, word in enumerate(words):
            text = f"Label {word}: {', '.join(LABELS[task.name])}?"
            text = f"Please: {text} Thank you." if task.tone == "polite" else text
            chat = ChatRequest(messages=(Message(role="user", content=text),), sampling=sampling)
            said = (yield from ask(chat)).text
            asked = [ScoreRequest(prompt=text, continuations=(name,)) for name in LABELS[task.name]]
            replies = yield from ask_all(tuple(asked))
            scores = [reply.choices[0].score or 0.0 for reply in replies]
            best.append(LABELS[task.name][scores.index(max(scores))])
            agreed += best[-1] in said
            record({"step": step, "word": word, "said": said, "scores": scores, "best": best[-1]})
        return Outcome(best=tuple(best), agreed=agreed)
