"""The engine that plays from a script: for tests, benchmarks, and replaying a recorded log.

It stands where a real engine cannot: it loads no model, and its token counts are words.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, TypeAlias

import msgspec

from vendomini.chat import (
    Capacity,
    ChatRequest,
    Choice,
    EngineFeatures,
    Reply,
    Request,
    ScoreRequest,
    choices_of,
    request_hash,
    sample_seed,
)
from vendomini.errors import EngineDead, EngineError

Script: TypeAlias = Callable[[Request], Reply | str] | Sequence[Reply | str] | Mapping[str, Reply]
"""A function of the request, replies in the order of asking, or replies by request hash."""


class ScriptedEngine:
    """Answers every kind of request, each after `latency_s` seconds, as the script says.

    A text becomes as many equal choices as were asked for; a `Reply` is given as it is.
    """

    features = EngineFeatures(
        kinds=frozenset({"chat", "completion", "score"}),
        formats=frozenset({"text", "schema"}),
        several_choices=True,
        logprobs=True,
        seed_support="exact",
    )

    capacity = Capacity()
    facts: ClassVar[Mapping[str, str]] = {}

    def __init__(self, script: Script, *, latency_s: float = 0.0) -> None:
        self.latency_s = latency_s
        self.answered = 0
        self._next = _reader(script)

    async def start(self) -> None:
        """Nothing to load."""

    async def answer(self, request: Request) -> Reply:
        """Raises `EngineError` when the script has no answer."""
        answer = self._next(request)
        await asyncio.sleep(self.latency_s)  # also without latency: other episodes get their turn
        self.answered += 1
        if isinstance(answer, Reply):
            return answer
        return _reply_of(answer, request, seconds=self.latency_s)

    async def load(self) -> None:
        """It has no queue."""

    async def died(self) -> EngineDead:
        """Never: it is part of this process."""
        return await asyncio.Future()

    async def stop(self) -> None:
        """Nothing to free."""


def echo(request: Request) -> Reply:
    """The built-in script: choices that depend on the request and its seed, and on nothing else.

    Each text is the request's hash and the choice's seed; each score is drawn from them,
    in -8 .. 0 (natural log).
    """
    name = request_hash(request)
    seed = request.seed or 0
    choices = []
    for sample in range(choices_of(request)):
        drawn = sample_seed(seed, sample)
        if isinstance(request, ScoreRequest):
            score = -8.0 * (int(name[:8], 16) ^ drawn) / 2**32
            choices.append(Choice(text=request.continuations[sample], score=round(score, 6)))
        else:
            choices.append(Choice(text=f"{name} {drawn}"))
    return replace(_counted(tuple(choices), request), seed_support="exact")


def recorded(path: Path) -> dict[str, Reply]:
    """The replies of a log that a worker wrote, by request hash; a torn last line is left out.

    Raises `EngineError` if the file cannot be read or holds no replies.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"the scripted engine cannot read its recorded log `{path}`: {error.strerror}",
            hint="`engine.script` is the path of a `logs/*.replies.jsonl` file",
        ) from error
    replies: dict[str, Reply] = {}
    for line in content.split(b"\n")[:-1]:
        try:
            entry = _ENTRY.decode(line)
        except msgspec.DecodeError as error:
            raise EngineError(
                f"`{path}` is no reply log: {error}",
                hint="`engine.script` is the path of a `logs/*.replies.jsonl` file",
            ) from error
        replies[entry.hash] = entry.reply
    if not replies:
        raise EngineError(f"the recorded log `{path}` holds no replies", hint="name another log")
    return replies


class _Entry(msgspec.Struct):
    hash: str
    reply: Reply


_ENTRY = msgspec.json.Decoder(_Entry)


def _reader(script: Script) -> Callable[[Request], Reply | str]:
    if callable(script):
        return script
    if isinstance(script, Mapping):
        return lambda request: _look_up(script, request)
    waiting = iter(script)
    return lambda request: _following(waiting)


def _look_up(script: Mapping[str, Reply], request: Request) -> Reply:
    name = request_hash(request)
    if name not in script:
        raise EngineError(
            f"the recorded log has no reply to request {name}",
            hint="a recorded log answers only what was asked when it was made",
        )
    return script[name]


def _following(waiting: Iterator[Reply | str]) -> Reply | str:
    try:
        return next(waiting)
    except StopIteration:
        raise EngineError("the script has no more replies", hint="write a longer script") from None


def _reply_of(text: str, request: Request, *, seconds: float) -> Reply:
    if isinstance(request, ScoreRequest):
        raise EngineError(
            "a script of texts cannot answer a score request",
            hint="let the script give a Reply whose choices have scores",
        )
    choices = tuple(Choice(text=text) for _ in range(request.sampling.n))
    return replace(_counted(choices, request), seconds=seconds, seed_support="exact")


def _counted(choices: tuple[Choice, ...], request: Request) -> Reply:
    """Tokens of a scripted reply are white-space separated words."""
    if isinstance(request, ChatRequest):
        asked = sum(len(message.content.split()) for message in request.messages)
    else:
        asked = len(request.prompt.split())
    said = sum(len(choice.text.split()) for choice in choices)
    return Reply(choices=choices, tokens_in=asked, tokens_out=said)
