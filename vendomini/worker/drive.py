"""Playing one episode: from its log while that lasts, then from the engine."""

import asyncio
from collections.abc import Generator, Mapping
from typing import TypeVar

import msgspec

from vendomini.chat import (
    MODEL_KINDS,
    Answerer,
    Episode,
    Kind,
    Reply,
    Request,
    kind_of,
    missing_feature,
    not_built,
    request_seed,
    seeded,
)
from vendomini.engines.together import all_or_none
from vendomini.errors import EngineError, EngineLacks, ReplayError, WorkloadError
from vendomini.phase import Run
from vendomini.store.hashing import request_hash
from vendomini.store.logs import Appender, Logged
from vendomini.store.records import ReplyEntry

T = TypeVar("T")


class Answers:
    """Answers the requests of one attempt at a run, and logs each reply before it is used.

    `engines` has who answers each kind of request; it is empty for a run that never asks.
    Logged replies come first, and are copied into this attempt's log. As soon as one request
    had to be asked anew, what the log holds of later asks no longer applies.
    """

    def __init__(
        self,
        run: Run,
        attempt: int,
        *,
        logged: Mapping[tuple[int, int], Logged],
        engines: Mapping[Kind, Answerer],
        log: Appender,
    ) -> None:
        self.replies = 0
        self.replayed = 0
        self.tokens_in = 0
        self.tokens_out = 0
        self.tokens_cached = 0
        self._run = run
        self._attempt = attempt
        self._logged = logged
        self._engines = engines
        self._log = log
        self._ask = 0
        self._diverged_at: int | None = None  # the ask at which the log ended

    async def to(self, requests: tuple[Request, ...]) -> tuple[Reply, ...]:
        """The replies, in the order of the requests, which are answered side by side.

        Raises `ReplayError` if a request differs from the logged one, `EngineLacks` if no engine
        does what is asked, `EngineError` if one does not answer.
        """
        if len(requests) == 1:
            reply = await self._answer(requests[0], 0)
            self._ask += 1
            return (reply,)
        replies = await all_or_none(
            self._answer(request, position) for position, request in enumerate(requests)
        )
        self._ask += 1
        return tuple(replies)

    async def _answer(self, request: Request, position: int) -> Reply:
        ask = self._ask
        request = seeded(
            request, request_seed(self._run.seed, self._run.replication, ask, position)
        )
        name = request_hash(request)
        logged = self._from_log(ask, position)
        if logged is not None:
            if logged.hash != name:
                raise ReplayError(
                    f"run {self._run.id} asks something else than its log has at ask {ask}, "
                    f"position {position}: {name} now, {logged.hash} then",
                    hint="the workload's code changed meanwhile: raise its version, go back to the "
                    f"code of then, or play this run anew with --restart-run {self._run.id}",
                )
            reply = logged.reply
            self.replayed += 1
        else:
            reply = await self._from_engine(request)
        self._log.add(
            _ENCODER.encode(
                ReplyEntry(
                    run=self._run.id,
                    attempt=self._attempt,
                    ask=ask,
                    position=position,
                    hash=name,
                    reply=reply,
                )
            )
        )
        self.replies += 1
        self.tokens_in += reply.tokens_in
        self.tokens_out += reply.tokens_out
        self.tokens_cached += reply.tokens_cached
        return reply

    def _from_log(self, ask: int, position: int) -> Logged | None:
        if self._diverged_at is not None and ask > self._diverged_at:
            return None
        logged = self._logged.get((ask, position))
        if logged is None and self._diverged_at is None:
            self._diverged_at = ask
        return logged

    async def _from_engine(self, request: Request) -> Reply:
        if not self._engines:
            raise EngineError(
                f"run {self._run.id} asks, but its workload said that it never would",
                hint="this is a bug in the workload's `asks`",
            )
        kind = kind_of(request)
        engine = self._engines.get(kind)
        unbuilt: str | None = f"requests of kind `{kind}`"
        if engine is not None:
            unbuilt = not_built(request, engine.features)
        if engine is None or unbuilt is not None:
            raise WorkloadError(
                f"run {self._run.id} asks for {unbuilt}, which this version cannot do yet",
                hint="leave it out of the workload, or wait for a version that can",
            )
        missing = missing_feature(request, engine.features)
        if missing is not None:
            why = engine.facts.get(kind)
            raise EngineLacks(
                f"the engine cannot do {missing}" + (f": {why}" if why else ""),
                hint="choose another model or another `engine.backend`",
            )
        return await engine.answer(request)


def asked_of(model: Answerer | None) -> Mapping[Kind, Answerer]:
    """Who answers what, for a run that asks this model only; None: that never asks."""
    return {} if model is None else dict.fromkeys(MODEL_KINDS, model)


async def drive(episode: Episode[T], answers: Answers) -> T:
    """Play an episode to its end; its outcome. Raises `TypeError` for what is none."""
    if not isinstance(episode, Generator):
        raise TypeError(f"`play` gives a `{type(episode).__name__}`, no generator: it has to yield")
    try:
        requests = next(episode)
        while True:
            if not isinstance(requests, tuple):
                raise TypeError(
                    f"an episode yields a tuple of requests, not a `{type(requests).__name__}`: "
                    "`yield from ask(request)` does"
                )
            if requests:
                requests = episode.send(await answers.to(requests))
            else:
                await asyncio.sleep(0)  # a pause it offers: signals and other episodes come in
                requests = episode.send(())
    except StopIteration as stop:
        outcome: T = stop.value
        return outcome
    finally:
        episode.close()


_ENCODER = msgspec.json.Encoder()
