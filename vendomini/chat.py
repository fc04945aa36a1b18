"""What episodes ask and engines answer: requests, replies, and the seam between them.

An episode is a generator: it yields a tuple of requests and is sent the tuple of their
replies. It holds no engine, file or clock, so one process interleaves hundreds of them,
and a test drives one by hand. An episode that yields an empty tuple asks nothing: it
offers a pause in a long computation, and is sent an empty tuple.
"""

import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias, TypeVar

import msgspec

from vendomini.errors import EngineDead

MODEL = "agent.model"
"""Where a run's settings name the model that answers requests of the role `agent`."""

Speaker: TypeAlias = Literal["system", "user", "assistant", "tool"]
FinishReason: TypeAlias = Literal["stop", "length", "context"]
SeedSupport: TypeAlias = Literal["exact", "best_effort", "none"]
Kind: TypeAlias = Literal["chat", "completion", "score", "command"]
Format: TypeAlias = Literal["text", "schema"]
Thinking: TypeAlias = Literal["default", "off", "on"]


AGENT = "agent"
"""The role of requests that name none: the model which the run is about."""


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A call that an assistant's message makes of a tool; a later message has its result."""

    id: str
    name: str
    arguments: str  # JSON text


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One turn of a conversation.

    `tool_call_id` is that of the call whose result a message of role `tool` is.
    """

    # A struct, because its JSON is hashed and sent: what a message does not use is not in it.
    role: Speaker
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None  # None: it is no result


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A tool that a reply may call."""

    name: str
    description: str
    parameters: str  # JSON text of the schema of its arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How replies are drawn; the same on every engine.

    `max_tokens` counts new tokens. `top_logprobs` is how many alternatives per token are
    returned with their log-probabilities (0: none).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 2000
    stop: tuple[str, ...] = ()
    n: int = 1
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyFormat:
    """`text`: anything. `schema`: JSON that `json_schema` accepts; shape only, no world ids."""

    kind: Format = "text"
    json_schema: str | None = None  # the JSON text of the schema; None exactly when kind is text

    def __post_init__(self) -> None:
        if (self.kind == "schema") != (self.json_schema is not None):
            raise ValueError("a reply format has a json_schema exactly when its kind is `schema`")


TEXT = ReplyFormat()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """Continue a conversation, by the model's own chat template.

    A request of any kind names the `role` of whoever shall answer it.
    """

    messages: tuple[Message, ...]
    sampling: Sampling = Sampling()
    reply_format: ReplyFormat = TEXT
    thinking: Thinking = "default"
    tools: tuple[Tool, ...] = ()
    role: str = AGENT
    seed: int | None = None  # None: whoever drives the episode sets it


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionRequest:
    """Continue raw text."""

    prompt: str
    sampling: Sampling = Sampling()
    reply_format: ReplyFormat = TEXT
    role: str = AGENT
    seed: int | None = None  # None: whoever drives the episode sets it


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """How likely is each continuation of the prompt? One choice each, in order, with `score`."""

    prompt: str
    continuations: tuple[str, ...]
    role: str = AGENT
    seed: int | None = None  # kept so that all kinds are alike; a score draws nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRequest:
    """Run a command; the reply's text is what it wrote to its standard output."""

    argv: tuple[str, ...]
    stdin: str = ""
    role: str = AGENT
    seed: int | None = None  # kept so that all kinds are alike; a command is not told it


ModelRequest: TypeAlias = ChatRequest | CompletionRequest | ScoreRequest
Request: TypeAlias = ModelRequest | CommandRequest

KINDS: dict[type, Kind] = {
    ChatRequest: "chat",
    CompletionRequest: "completion",
    ScoreRequest: "score",
    CommandRequest: "command",
}

DRAWS_NOTHING = (ScoreRequest, CommandRequest)
"""Requests without sampling and reply format."""

MODEL_KINDS: tuple[Kind, ...] = ("chat", "completion", "score")
"""What a model answers, and so the one engine of a group. The others run in the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """One token of a reply, its natural-log probability, and the likeliest alternatives."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One of the n answers to a request.

    `score` is the summed natural-log probability of a continuation (score requests only).
    """

    text: str
    finish_reason: FinishReason = "stop"
    reasoning: str | None = None  # None: the model gave none apart from its answer
    logprobs: tuple[TokenLogprob, ...] | None = None  # None: not asked for
    score: float | None = None  # None: not a score request


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an engine answered, and what it took.

    Finish reason `context` means that the prompt was too long: a reply like any other.
    `tokens_cached` of the `tokens_in` were found in the engine's prefix cache.
    `seconds` is wall time from asking to answer.
    """

    choices: tuple[Choice, ...]
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    seconds: float = 0.0
    seed_support: SeedSupport = "none"

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text


T = TypeVar("T")
Episode: TypeAlias = Generator[tuple[Request, ...], tuple[Reply, ...], T]


def ask(request: Request) -> Episode[Reply]:
    """Ask one thing from inside an episode: ``reply = yield from ask(request)``."""
    (reply,) = yield (request,)
    return reply


def ask_all(requests: tuple[Request, ...]) -> Episode[tuple[Reply, ...]]:
    """Ask several things at once; the replies come in the order of the requests."""
    return (yield requests)


def kind_of(request: Request) -> Kind:
    """``chat``, ``completion``, ``score`` or ``command``."""
    return KINDS[type(request)]


def format_of(request: Request) -> Format:
    """The reply format a request insists on; scores and commands have none and count as text."""
    if isinstance(request, DRAWS_NOTHING):
        return "text"
    return request.reply_format.kind


def choices_of(request: Request) -> int:
    """How many choices the reply must have."""
    if isinstance(request, ScoreRequest):
        return len(request.continuations)
    return 1 if isinstance(request, CommandRequest) else request.sampling.n


def request_seed(phase_seed: int, replication: int, ask_index: int, position: int) -> int:
    """The seed of a request, in 0 .. 2**31 - 1: a function of its place alone."""
    place = f"{phase_seed}/{replication}/{ask_index}/{position}"
    return _seed_from(place)


def sample_seed(seed: int, sample: int) -> int:
    """The seed of choice `sample` of a request with several, as vLLM counts them on."""
    return seed + sample


def seeded(request: Request, seed: int) -> Request:
    """The request with its seed filled in, unless the episode chose one itself."""
    return request if request.seed is not None else replace(request, seed=seed)


def _seed_from(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFeatures:
    """What an engine can do; what is missing here is refused, by name, before it is asked.

    `tools` are both those of a request and calls and results in its messages.
    """

    kinds: frozenset[Kind]
    formats: frozenset[Format]
    several_choices: bool
    logprobs: bool
    seed_support: SeedSupport
    roles: frozenset[str] = frozenset({AGENT})
    tools: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a started engine can hold. None: it does not say.

    `kv_cache_tokens` is how many tokens of conversations fit its KV cache at once;
    `max_model_len` is the longest single one.
    """

    kv_cache_tokens: int | None = None
    max_model_len: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy an engine is. `preemptions` counts since it started: conversations that lost
    their place in the KV cache in the middle of a reply."""

    running: int
    waiting: int
    preemptions: int


class Answerer(Protocol):
    """Answers requests, many at a time.

    Raises `EngineError` when it cannot answer a request, and `EngineDead` when it can answer
    none any more; a prompt that is too long is a reply with finish reason ``context``.
    """

    @property
    def features(self) -> EngineFeatures: ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What really serves, once it has started: versions, device, attention, KV cache.

        Under the name of a kind of requests it may say why it cannot answer those.
        """
        ...

    async def answer(self, request: Request) -> Reply: ...


class Engine(Answerer, Protocol):
    """What answers, from its start to its end."""

    @property
    def capacity(self) -> Capacity:
        """Known once it has started."""
        ...

    async def start(self) -> None:
        """Load the model; return when the first request may come.

        Raises `EngineError` with the root cause if it cannot.
        """
        ...

    async def load(self) -> Load | None:
        """None: it does not say."""
        ...

    async def died(self) -> EngineDead:
        """Wait until it has died by itself, and tell of what. Never returns where it cannot."""
        ...

    async def stop(self) -> None:
        """Free everything and leave nothing behind; allowed at any time, also twice."""
        ...


def not_built(request: Request, features: EngineFeatures) -> str | None:
    """What `request` needs and no engine of this version does, by name; None if there is nothing.

    It is a matter of the one request: others of the same engine are answered.
    """
    if request.role not in features.roles:
        return f"role `{request.role}`"
    if isinstance(request, ChatRequest) and not features.tools:
        if request.tools:
            return "tools"
        for message in request.messages:
            if message.tool_calls or message.role == "tool" or message.tool_call_id is not None:
                return "tool calls in messages"
    return None


def missing_feature(request: Request, features: EngineFeatures) -> str | None:
    """The first thing `request` needs and the engine lacks, by name; None if there is none."""
    if kind_of(request) not in features.kinds:
        return f"requests of kind `{kind_of(request)}`"
    if format_of(request) not in features.formats:
        return f"reply_format `{format_of(request)}`"
    if not isinstance(request, DRAWS_NOTHING):
        if request.sampling.n > 1 and not features.several_choices:
            return "several choices (n > 1)"
        if request.sampling.top_logprobs and not features.logprobs:
            return "log-probabilities"
    return None
