"""A run as lines to read: what was seen, said and done, step by step. Nothing here prints.

Steps and outcomes are plain JSON values, as the log has them: a field that an older log lacks,
or that is null, is left out. What a workload's steps mean is told by its `Teller`; those of a
workload without one are shown as their JSON.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from vendomini.chat import (
    ChatRequest,
    Choice,
    CommandRequest,
    Message,
    Reply,
    Request,
    ScoreRequest,
)

Values: TypeAlias = Mapping[str, Any]
"""One step or outcome as JSON."""

Tone: TypeAlias = Literal["plain", "dim", "good", "bad", "strong"]

REMEMBERED = 4
"""Requests back that a conversation may go on from: a question on the side, then the main one."""

# Characters shown without --full; most replies and mornings are shorter.
SHOWN_SYSTEM = 400
SHOWN_REASONING = 300
SHOWN_TEXT = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A label and a text, which may have several lines and hold anything at all.

    `most` is how many of its characters are shown where not all are wanted; None: all.
    """

    label: str
    text: str
    tone: Tone = "plain"
    most: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request of a step, what it added to the conversation, and its reply.

    `has_lost` says that the conversation no longer holds all that it held before.
    """

    request: Request
    reply: Reply
    new: tuple[Message, ...]
    has_lost: bool = False


class Teller(Protocol):
    """Tells the steps of one run, each once and in order, as they mean something to a reader."""

    def who(self) -> str:
        """Who plays; empty where there is nothing to say."""
        ...

    def heading(self, step: Values) -> str: ...

    def saw(self, step: Values) -> list[Line]:
        """What an agent that asks nobody saw; called before `step`."""
        ...

    def saw_json(self, step: Values) -> dict[str, Any]:
        """The same for scripts; called before `step`."""
        ...

    def step(self, step: Values, exchanges: Sequence[Exchange]) -> list[Line]:
        """What was done and what happened."""
        ...

    def outcome(self, outcome: Values, derived: Values) -> list[Line]:
        """What the run left, and what follows from its steps, by dotted name."""
        ...


class PlainTeller:
    """Knows nothing of a workload."""

    def who(self) -> str:
        return ""

    def heading(self, step: Values) -> str:
        return f"step {step.get('step', '?')}"

    def saw(self, step: Values) -> list[Line]:
        return []

    def saw_json(self, step: Values) -> dict[str, Any]:
        return {}

    def step(self, step: Values, exchanges: Sequence[Exchange]) -> list[Line]:
        return [Line(label="step", text=as_json(step))]

    def outcome(self, outcome: Values, derived: Values) -> list[Line]:
        lines = [Line(label="outcome", text=as_json(outcome))]
        return [*lines, Line(label="derived", text=as_json(derived))] if derived else lines


@dataclass(slots=True)
class Conversations:
    """Finds what each request of a run adds to those before it."""

    _earlier: list[tuple[Message, ...]] = field(default_factory=list)

    def exchange(self, request: Request, reply: Reply) -> Exchange:
        """Requests are given in the order they were asked in."""
        if not isinstance(request, ChatRequest):
            if isinstance(request, CommandRequest):
                said = shlex.join(request.argv)
            else:
                said = request.prompt
            prompt = Message(role="user", content=said)
            return Exchange(request=request, reply=reply, new=(prompt,))
        messages = request.messages
        known = [said for said in self._earlier if messages[: len(said)] == said]
        self._earlier = [*self._earlier[1 - REMEMBERED :], messages]
        if known:
            start = max(map(len, known))
            while start < len(messages) and messages[start].role == "assistant":
                start += 1  # the reply before, which has been shown
            return Exchange(request=request, reply=reply, new=messages[start:])
        shared = max((_shared(said, messages) for said in self._earlier[:-1]), default=0)
        if shared == 0:
            return Exchange(request=request, reply=reply, new=messages)
        # The first message that is another now, and what is new at the end.
        tail = len(messages)
        while tail > shared + 1 and messages[tail - 1].role == "user":
            tail -= 1
        new = (*messages[shared : shared + 1], *messages[max(tail, shared + 1) :])
        return Exchange(request=request, reply=reply, new=new, has_lost=True)


def exchange_lines(exchanges: Sequence[Exchange]) -> Iterator[Line]:
    """What was asked in a step and what came back, in order."""
    shown: list[str] = []
    for number, exchange in enumerate(exchanges):
        if exchange.has_lost:
            yield Line(
                label="cut",
                text="what is older has left the conversation: it begins with the next message",
                tone="dim",
            )
        for message in exchange.new:
            if message.role == "system":
                continue  # shown once, above the first step: `system_line`
            if message.role == "assistant":
                yield Line(label="before", text=message.content, tone="dim", most=SHOWN_TEXT)
            else:
                label = "asked" if number else "saw"
                text = message.content
                known = max((each for each in shown if text.startswith(each)), key=len, default="")
                if known:
                    rest = text[len(known) :].lstrip()
                    text = f"(the same, then) {rest}" if rest else "(the same)"
                shown.append(message.content)
                yield Line(label=label, text=text, most=SHOWN_TEXT)
        if isinstance(exchange.request, ScoreRequest):
            for choice in exchange.reply.choices:
                yield Line(label="score", text=f"{choice.score}: {choice.text}")
        else:
            for choice in exchange.reply.choices:
                yield from _choice_lines(choice)


def system_line(exchanges: Sequence[Exchange]) -> Line | None:
    """The system message that a step was asked under; None: there was none."""
    for exchange in exchanges:
        if isinstance(exchange.request, ChatRequest):
            first = exchange.request.messages[0]
            if first.role == "system":
                return Line(label="system", text=first.content, tone="dim", most=SHOWN_SYSTEM)
    return None


def exchanges_json(exchanges: Sequence[Exchange]) -> dict[str, Any]:
    """The messages that were new, and what came back, for scripts; `request` counts the step's
    requests from 0."""
    messages = [
        {"request": number, "role": message.role, "content": message.content}
        for number, exchange in enumerate(exchanges)
        for message in exchange.new
    ]
    said = [
        {
            "request": number,
            "text": choice.text,
            "reasoning": choice.reasoning,
            "finish_reason": choice.finish_reason,
            "score": choice.score,
        }
        for number, exchange in enumerate(exchanges)
        for choice in exchange.reply.choices
    ]
    return {"messages": messages, "said": said}


def visible(text: str) -> str:
    """The text with everything that a terminal would obey, or not show, as an escape; line ends
    stay."""
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter == "\n"
        else "    "
        if letter == "\t"
        else letter.encode("unicode_escape").decode()
        for letter in text
    )


def shortened(line: Line) -> str:
    """The line's text, cut to its `most` characters, with how many are left out."""
    if line.most is None or len(line.text) <= line.most:
        return line.text
    left = len(line.text) - line.most
    return f"{line.text[: line.most]} [... {left:,} more characters: --full]"


def as_json(value: object) -> str:
    """On one line, and as readable as JSON is."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def _choice_lines(choice: Choice) -> Iterator[Line]:
    if choice.reasoning:
        yield Line(label="thought", text=choice.reasoning, tone="dim", most=SHOWN_REASONING)
    if choice.finish_reason == "context":
        yield Line(label="said", text="nothing: the conversation was too long for the window")
        return
    yield Line(label="said", text=choice.text or "nothing at all", most=SHOWN_TEXT)
    if choice.finish_reason == "length":
        yield Line(label="", text="(the reply was cut off at its most tokens)", tone="dim")


def _shared(some: Sequence[Message], others: Sequence[Message]) -> int:
    """How many messages two conversations begin with alike."""
    count = 0
    for one, other in zip(some, others, strict=False):
        if one != other:
            break
        count += 1
    return count
