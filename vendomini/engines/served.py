"""A server that is ready, as an engine: everything but its process's life."""

import difflib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import msgspec

from vendomini.chat import (
    MODEL,
    Capacity,
    ChatRequest,
    CommandRequest,
    CompletionRequest,
    EngineFeatures,
    Load,
    Message,
    Reply,
    Request,
    ScoreRequest,
)
from vendomini.engines.backend import Dialect
from vendomini.engines.client import Client, Refused, ServerFailed
from vendomini.engines.habits import Habits, lacks
from vendomini.engines.listed import Listed, models_in
from vendomini.engines.manner import Lesson, Manner, fold, lesson
from vendomini.engines.metrics import Counters, parse_metrics
from vendomini.engines.protocol import (
    chat_body,
    chat_reply,
    completion_body,
    completion_reply,
    context_reply,
    decode,
    decode_tokens,
    tokenize_body,
    unreadable_reply,
)
from vendomini.engines.score import Scorer
from vendomini.engines.template import PLAIN, WITH_SYSTEM, tokenize_chat_body
from vendomini.engines.words import is_too_long, is_unreadable
from vendomini.errors import EngineError
from vendomini.serving import EngineSpec

R = TypeVar("R", ChatRequest, CompletionRequest)


class Served:
    """Answers by an opened server. Its client is the caller's to close.

    A prompt counts as too long as soon as it does not fit the model's window together with
    the `max_tokens` asked for, on every server alike.
    """

    def __init__(
        self, client: Client, *, spec: EngineSpec, dialect: Dialect, said: Callable[[str], None]
    ) -> None:
        self.features = features_of(dialect)
        self.capacity = Capacity()
        self._client = client
        self._spec = spec
        self._dialect: Dialect = dialect
        self._say = said
        self._model = spec.model
        self._facts: dict[str, str] = {}
        self._no_chat: str | None = None  # why it cannot chat; None: it can
        self._manner = Manner()
        self._habits = Habits(client.name, said)
        self._tells_load = False
        self._scorer: Scorer | None = None  # None: not opened

    @property
    def facts(self) -> Mapping[str, str]:
        """What it told when it was opened, and what its answers have shown since."""
        return {**self._facts, **self._habits.facts}

    async def open(self) -> None:
        """Learn what it serves and how. Raises `EngineError` if that is not what was asked for."""
        served = self._chosen(models_in(await self._client.get("/v1/models")))
        self._model = served.id
        self._scorer = Scorer(
            self._client, model=served.id, said=self._say, at_most=self._spec.settings.concurrency
        )
        if served.owned_by == "vllm" and self._dialect == "openai" and await self._tokenizes():
            self._dialect = "vllm"
            self.features = features_of("vllm")
        counters = Counters()
        if self._dialect != "openai":
            counters = await self._counters()
            await self._try_template()
        self._tells_load = counters.load is not None
        self.capacity = Capacity(
            kv_cache_tokens=counters.kv_cache_tokens, max_model_len=served.max_model_len
        )
        self._facts["model"] = served.id
        self._facts["dialect"] = self._dialect
        if self._dialect != "openai" and (version := await self._version()):
            self._facts[self._dialect] = version
        for name in ("max_model_len", "kv_cache_tokens"):
            if (tokens := getattr(self.capacity, name)) is not None:
                self._facts[name] = str(tokens)

    async def answer(self, request: Request) -> Reply:
        """Raises `EngineError`, in every case that is not a reply."""
        started = time.perf_counter()
        try:
            if isinstance(request, ChatRequest):
                return await self._chat(request, started)
            if isinstance(request, CompletionRequest):
                return await self._complete(request, started)
            assert isinstance(request, ScoreRequest), "its features have no other kind"
            return await self._score(request, started)
        except (Refused, ServerFailed) as refused:
            seconds = time.perf_counter() - started
            told = refused.complaint
            if isinstance(request, ChatRequest | CompletionRequest) and is_unreadable(told):
                return unreadable_reply(request, complaint=told, seconds=seconds)
            if not _is_too_long(refused):
                raise
            self._tell_if_none_fits(request)
            return context_reply(request, refusal=told, seconds=seconds)

    async def load(self) -> Load | None:
        return (await self._counters()).load if self._tells_load else None

    async def close(self) -> None:
        """Nothing to free: the client is not ours."""

    async def _chat(self, request: ChatRequest, started: float) -> Reply:
        if self._no_chat is not None:
            raise EngineError(self._no_chat, hint="use a model that was made for conversations")
        asked, raw = await self._put(
            request,
            lambda asked, manner: self._client.post(
                "/v1/chat/completions",
                chat_body(asked, model=self._model, dialect=self._dialect, manner=manner),
            ),
        )
        return chat_reply(
            raw,
            asked,
            dialect=self._dialect,
            window=self.capacity.max_model_len,
            seconds=time.perf_counter() - started,
            habits=self._habits,
        )

    async def _complete(self, request: CompletionRequest, started: float) -> Reply:
        asked, raw = await self._put(
            request,
            lambda asked, manner: self._client.post(
                "/v1/completions",
                completion_body(asked, model=self._model, dialect=self._dialect, manner=manner),
            ),
        )
        return completion_reply(
            raw,
            asked,
            dialect=self._dialect,
            window=self.capacity.max_model_len,
            seconds=time.perf_counter() - started,
            habits=self._habits,
        )

    async def _put(
        self, request: R, post: Callable[[R, Manner], Awaitable[bytes]]
    ) -> tuple[R, bytes]:
        """The request as it was asked in the end, and the answer: a refusal may teach how the
        server is to be asked, and then it is asked again. Raises as `Client.post`, and
        `EngineLacks` where the server does not take what the request needs."""
        while True:
            # Others learn meanwhile: what counts is how this request was put.
            manner = self._manner
            asked = replace(request, seed=None) if "seed" in manner.left_out else request
            try:
                return asked, await post(asked, manner)
            except (Refused, ServerFailed) as refused:
                told = refused.complaint
                if refused.status not in (400, 422, 500) or is_too_long(told):
                    raise
                if is_unreadable(told):
                    raise
                taught = lesson(told, request, manner, failed=refused.status == 500)
                if taught is None or taught.learned(manner) == manner:
                    raise
                self._learn(taught)

    async def _score(self, request: ScoreRequest, started: float) -> Reply:
        if "score" not in self.features.kinds:
            raise lacks("scores", "it is not known to tell the probabilities of a prompt")
        assert self._scorer is not None
        return await self._scorer.reply(
            request,
            window=self.capacity.max_model_len,
            room=self.capacity.kv_cache_tokens,
            started=started,
        )

    def _chosen(self, models: tuple[Listed, ...]) -> Listed:
        if not models:
            raise EngineError(
                f"the server at {self._client.where} serves no model", hint="start it with one"
            )
        if self._dialect != "openai":
            return models[0]
        by_name = {each.id: each for each in models}
        if self._spec.model in by_name:
            return by_name[self._spec.model]
        near = difflib.get_close_matches(self._spec.model, by_name, n=len(by_name), cutoff=0.0)
        names = ", ".join(f"`{name}`" for name in near[:8])
        more = f" and {len(near) - 8} more" if len(near) > 8 else ""
        raise EngineError(
            f"the server at {self._client.where} does not serve `{self._spec.model}`",
            hint=f"set `{MODEL}.name` to one it serves: {names}{more}",
        )

    async def _tokenizes(self) -> bool:
        try:
            raw = await self._client.post("/tokenize", tokenize_body("hi", model=self._model))
            return bool(decode_tokens(raw))
        except EngineError:
            return False  # what stands before it passes only OpenAI's own paths on

    async def _counters(self) -> Counters:
        try:
            return parse_metrics(await self._client.get("/metrics"))
        except Refused:
            return Counters()

    async def _version(self) -> str | None:
        try:
            return decode(_VERSION.decode, await self._client.get("/version")).version
        except Refused:
            return None

    async def _try_template(self) -> None:
        try:
            await self._tokens_of_chat(PLAIN)
        except Refused as refused:
            self._no_chat = f"the model has no chat template: {refused.message}"
            self._facts["chat"] = self._no_chat
            kinds = self.features.kinds - {"chat"}
            self.features = replace(self.features, kinds=kinds)
            self._say(f"no chat: {self._no_chat}")
            return
        try:
            one, other = [await self._tokens_of_chat(messages) for messages in WITH_SYSTEM]
        except Refused:
            self._learn(fold("refuses"))
        else:
            if one == other:
                self._learn(fold("leaves out"))

    async def _tokens_of_chat(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        raw = await self._client.post("/tokenize", tokenize_chat_body(messages, model=self._model))
        return decode_tokens(raw)

    def _learn(self, taught: Lesson) -> None:
        """From now on; said once, however many requests have met it at a time."""
        self._manner = taught.learned(self._manner)
        if "seed" in self._manner.left_out:
            self.features = replace(self.features, seed_support="none")
        if taught.name not in self._facts:
            self._facts[taught.name] = taught.fact
            self._say(taught.said)

    def _tell_if_none_fits(self, request: Request) -> None:
        window = self.capacity.max_model_len
        if isinstance(request, ScoreRequest | CommandRequest) or window is None:
            return
        asked = request.sampling.max_tokens
        if asked >= window and "window" not in self._facts:
            self._facts["window"] = f"{asked} new tokens never fit {window}"
            self._say(
                f"a reply of {asked} tokens never fits the model's window of {window}: "
                f"every prompt is too long; lower `{MODEL}.max_tokens_per_call`"
            )


class _Version(msgspec.Struct, frozen=True):
    version: str


def _is_too_long(refused: Refused | ServerFailed) -> bool:
    """Some servers fail where others refuse: LM Studio and llama-cpp-python have answered 500."""
    if refused.status == 413 and not refused.complaint.message:
        return True
    return refused.status in (400, 413, 422, 500) and is_too_long(refused.complaint)


def features_of(dialect: Dialect) -> EngineFeatures:
    """What a server of that kind can do."""
    has_score = dialect != "openai"
    return EngineFeatures(
        kinds=frozenset({"chat", "completion", "score"} if has_score else {"chat", "completion"}),
        formats=frozenset({"text", "schema"}),
        several_choices=True,
        logprobs=True,
        seed_support="best_effort",
    )


_VERSION = msgspec.json.Decoder(_Version)
