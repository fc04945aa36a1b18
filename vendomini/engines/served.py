"""A server that is ready, as an engine: everything but its process's life."""

import difflib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

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
from vendomini.engines.client import Client, Refused
from vendomini.engines.metrics import Counters, parse_metrics
from vendomini.engines.protocol import (
    chat_body,
    chat_reply,
    completion_body,
    completion_reply,
    context_reply,
    decode,
    decode_tokens,
    lacks,
    tokenize_body,
)
from vendomini.engines.score import Scorer
from vendomini.engines.template import PLAIN, WITH_SYSTEM, folded, tokenize_chat_body
from vendomini.engines.words import is_too_long, minds_system
from vendomini.errors import EngineError
from vendomini.serving import EngineSpec


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
        self._folds_system = False
        self._tells_load = False
        self._scorer: Scorer | None = None  # None: not opened

    @property
    def facts(self) -> Mapping[str, str]:
        """What it told when it was opened."""
        return self._facts

    async def open(self) -> None:
        """Learn what it serves and how. Raises `EngineError` if that is not what was asked for."""
        served = self._chosen(decode(_MODELS.decode, await self._client.get("/v1/models")).data)
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
        except Refused as refused:
            if refused.status not in (400, 413, 422) or not is_too_long(refused.message):
                raise
            self._tell_if_none_fits(request)
            seconds = time.perf_counter() - started
            return context_reply(request, refusal=refused.message, seconds=seconds)

    async def load(self) -> Load | None:
        return (await self._counters()).load if self._tells_load else None

    async def close(self) -> None:
        """Nothing to free: the client is not ours."""

    async def _chat(self, request: ChatRequest, started: float) -> Reply:
        if self._no_chat is not None:
            raise EngineError(self._no_chat, hint="use a model that was made for conversations")
        asked = request
        if self._folds_system:
            asked = replace(request, messages=folded(request.messages))
        body = chat_body(asked, model=self._model, dialect=self._dialect)
        try:
            raw = await self._client.post("/v1/chat/completions", body)
        except Refused as refused:
            if not self._must_fold(asked, refused):
                raise
            return await self._chat(request, started)
        return chat_reply(
            raw,
            request,
            dialect=self._dialect,
            window=self.capacity.max_model_len,
            seconds=time.perf_counter() - started,
        )

    async def _complete(self, request: CompletionRequest, started: float) -> Reply:
        body = completion_body(request, model=self._model, dialect=self._dialect)
        raw = await self._client.post("/v1/completions", body)
        return completion_reply(
            raw,
            request,
            dialect=self._dialect,
            window=self.capacity.max_model_len,
            seconds=time.perf_counter() - started,
        )

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

    def _chosen(self, models: tuple["_Model", ...]) -> "_Model":
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
            self._fold("refuses")
        else:
            if one == other:
                self._fold("leaves out")

    async def _tokens_of_chat(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        raw = await self._client.post("/tokenize", tokenize_chat_body(messages, model=self._model))
        return decode_tokens(raw)

    def _must_fold(self, asked: ChatRequest, refused: Refused) -> bool:
        """Whether a refusal shows that system messages must be folded; then they are from now.

        The question is whether this request had one, not whether another has found out already.
        """
        has_system = any(message.role == "system" for message in asked.messages)
        if not has_system or refused.status != 400 or not minds_system(refused.message):
            return False
        if not self._folds_system:
            self._fold("refuses")
        return True

    def _fold(self, does: str) -> None:
        self._folds_system = True
        self._facts["system messages"] = "put before the first user message"
        self._say(
            f"the model's chat template {does} system messages: "
            "their text is put before the first user message"
        )

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


class _Model(msgspec.Struct, frozen=True):
    id: str
    max_model_len: int | None = None  # None: the server does not say
    owned_by: str | None = None


class _Models(msgspec.Struct, frozen=True):
    data: tuple[_Model, ...]


class _Version(msgspec.Struct, frozen=True):
    version: str


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


_MODELS = msgspec.json.Decoder(_Models)
_VERSION = msgspec.json.Decoder(_Version)
