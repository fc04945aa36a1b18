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
    CommandRequest,
    CompletionRequest,
    Engine,
    EngineFeatures,
    Reply,
    Request,
    Sampling,
    ScoreRequest,
    TokenLogprob,
    choices_of,
    sample_seed,
)
from vendomini.engines.backend import Backend, Say
from vendomini.engines.instance import Draws, instance_of
from vendomini.errors import EngineDead, EngineError
from vendomini.serving import EngineSpec
from vendomini.store.hashing import request_hash

Script: TypeAlias = Callable[[Request], Reply | str] | Sequence[Reply | str] | Mapping[str, Reply]
"""A function of the request, replies in the order of asking, or replies by request hash."""


class Scripted(Backend):
    """Stands in for any engine: what a phase sets for another does nothing, and is left alone."""

    takes = frozenset({"concurrency", "max_model_len", "script", "latency_s"})
    stands_in = True

    def open(self, spec: EngineSpec, *, log: Path, said: Say) -> Engine:
        settings = spec.settings
        script = echo if settings.script is None else recorded(Path(settings.script))
        return ScriptedEngine(
            script, latency_s=settings.latency_s, max_model_len=settings.max_model_len
        )


class ScriptedEngine:
    """Answers what a model is asked, each after `latency_s` seconds, as the script says.

    A text becomes as many equal choices as were asked for; a `Reply` is given as it is.
    """

    features = EngineFeatures(
        kinds=frozenset({"chat", "completion", "score"}),
        formats=frozenset({"text", "schema"}),
        several_choices=True,
        logprobs=True,
        seed_support="exact",
    )

    facts: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, script: Script, *, latency_s: float = 0.0, max_model_len: int | None = None
    ) -> None:
        self.latency_s = latency_s
        self.capacity = Capacity(max_model_len=max_model_len)
        self.answered = 0
        self._next = _reader(script)

    async def start(self) -> None:
        """Nothing to load."""

    async def answer(self, request: Request) -> Reply:
        """Raises `EngineError` when the script has no answer."""
        most = self.capacity.max_model_len
        if most is not None and _words(request) > most:
            choice = Choice(text="", finish_reason="context")
            return Reply(choices=(choice,) * choices_of(request), tokens_in=_words(request))
        answer = self._next(request)
        await asyncio.sleep(self.latency_s)  # also without latency: other episodes get their turn
        self.answered += 1
        if isinstance(answer, Reply):
            return answer
        if not isinstance(answer, str):
            raise EngineError(
                f"the script answers `{answer!r}`, which is neither text nor a `Reply`",
                hint="see docs/engines.md",
            )
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

    Each text is a name of the request and the choice's seed, or where a schema is asked for, an
    instance of it; each score is drawn from them, in -8 .. 0 (natural log). At temperature 0 all
    choices are alike. `max_tokens` and log-probabilities count words.
    """
    if isinstance(request, ScoreRequest):
        name = request_hash(request)
        choices = tuple(
            Choice(text=text, score=round(-8.0 * _share(name, str(number)), 6))
            for number, text in enumerate(request.continuations)
        )
    else:
        assert not isinstance(request, CommandRequest), "the engine's features have no such kind"
        # As a model would: how many choices, where to cut and what to count change no word.
        drawn_by = Sampling(temperature=request.sampling.temperature, top_p=request.sampling.top_p)
        asked = replace(request, seed=None, sampling=drawn_by)
        name, seed = request_hash(asked), request.seed or 0
        greedy = request.sampling.temperature == 0
        choices = tuple(
            _echoed(name, 0 if greedy else sample_seed(seed, sample), request)
            for sample in range(choices_of(request))
        )
    return replace(_counted(choices, request), seed_support="exact")


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


def _echoed(name: str, seed: int, request: ChatRequest | CompletionRequest) -> Choice:
    text = f"{name} {seed}"
    if request.reply_format.json_schema is not None:
        schema = msgspec.json.decode(request.reply_format.json_schema)
        text = msgspec.json.encode(instance_of(schema, Draws(text))).decode()
    for stop in request.sampling.stop:
        text = text.partition(stop)[0]
    words = text.split(" ")
    is_cut = len(words) > request.sampling.max_tokens
    words = words[: request.sampling.max_tokens]
    logprobs = None
    if request.sampling.top_logprobs:
        likely = tuple(-_share(name, f"{seed}/{number}") for number in range(len(words)))
        logprobs = tuple(
            TokenLogprob(token=word, logprob=logprob, top=((word, logprob),))
            for word, logprob in zip(words, likely, strict=True)
        )
    return Choice(
        text=" ".join(words), finish_reason="length" if is_cut else "stop", logprobs=logprobs
    )


def _share(name: str, part: str) -> float:
    """In 0 .. 1, from a name."""
    return Draws(f"{name}/{part}").below(1 << 32) / (1 << 32)


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
    choices = tuple(Choice(text=text) for _ in range(choices_of(request)))
    return replace(_counted(choices, request), seconds=seconds, seed_support="exact")


def _counted(choices: tuple[Choice, ...], request: Request) -> Reply:
    """Tokens of a scripted reply are white-space separated words."""
    asked = _words(request)
    said = sum(len(choice.text.split()) for choice in choices)
    return Reply(choices=choices, tokens_in=asked, tokens_out=said)


def _words(request: Request) -> int:
    if isinstance(request, ChatRequest):
        return sum(len(message.content.split()) for message in request.messages)
    if isinstance(request, CommandRequest):
        return sum(len(argument.split()) for argument in request.argv)
    return len(request.prompt.split())
