"""What we and an engine's server say to each other: requests to bodies, answers to replies. Pure.

The protocol is OpenAI's, with what vLLM and the `hf` server add to it. Everything is encoded by
one call: a conversation of megabytes is never copied message by message.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from vendomini.chat import (
    ChatRequest,
    Choice,
    CompletionRequest,
    Reply,
    Request,
    SeedSupport,
    TokenLogprob,
    choices_of,
)
from vendomini.engines.backend import Dialect
from vendomini.engines.habits import WHICH, Habits
from vendomini.engines.manner import DEFAULT, Manner
from vendomini.engines.replies import Answer, Counts, Said, read_answer, whole
from vendomini.engines.words import (
    Complaint,
    beginning,
    complaint_in,
    prompt_tokens_in,
    was_cut,
)
from vendomini.errors import EngineError

MOST_ALTERNATIVES = 20
"""vLLM's limit, and OpenAI's, on `top_logprobs`."""

NEUTRAL = {
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""What vLLM would else take from the model's generation_config.json; no engine samples so."""


PLAINLY = Manner()
"""How a server is asked that has refused nothing yet."""


def chat_body(
    request: ChatRequest, *, model: str, dialect: Dialect, manner: Manner = PLAINLY
) -> bytes:
    """The body of ``/v1/chat/completions``."""
    body = _common(request, model=model, dialect=dialect, manner=manner)
    body["messages"] = manner.put(request.messages)
    wanted = request.sampling.top_logprobs
    if wanted:
        # vLLM, and `hf` like it, counts the drawn token as one of the k, whether it is among the
        # likeliest or not. One more makes room for it; `_top` then takes the likeliest.
        more = 1 if dialect != "openai" and wanted < MOST_ALTERNATIVES else 0
        body["logprobs"] = True
        body["top_logprobs"] = wanted + more
    if request.thinking != "default":
        # Templates know it by either name, and none minds a name it does not know.
        thinks = request.thinking == "on"
        body["chat_template_kwargs"] = {"enable_thinking": thinks, "thinking": thinks}
    return _ENCODER.encode(body)


def completion_body(
    request: CompletionRequest, *, model: str, dialect: Dialect, manner: Manner = PLAINLY
) -> bytes:
    """The body of ``/v1/completions``."""
    body = _common(request, model=model, dialect=dialect, manner=manner)
    body["prompt"] = request.prompt
    if request.sampling.top_logprobs:
        body["logprobs"] = request.sampling.top_logprobs
    return _ENCODER.encode(body)


def _common(
    request: ChatRequest | CompletionRequest, *, model: str, dialect: Dialect, manner: Manner
) -> dict[str, object]:
    sampling = request.sampling
    body: dict[str, object] = {
        "model": model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        manner.limit: sampling.max_tokens,
    }
    if dialect == "vllm":
        body |= NEUTRAL
    if _drawn(request) > 1:
        body["n"] = sampling.n
    if sampling.stop:
        body["stop"] = sampling.stop
    if request.seed is not None:
        body["seed"] = request.seed
    schema = request.reply_format.json_schema
    if schema is not None and manner.schema_in_object:
        raw = msgspec.Raw(schema.encode())
        body["response_format"] = {"type": "json_object", "schema": raw}
    elif schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": "reply",
                "schema": msgspec.Raw(schema.encode()),
                "strict": True,
            },
        }
    for name in manner.left_out:
        if name == "seed" or body.get(name) == DEFAULT:  # another value may be refused by name
            body.pop(name, None)
    return body


def tokenize_body(text: str, *, model: str) -> bytes:
    """The body of ``/tokenize`` for a raw text: special tokens as for a completion."""
    return _ENCODER.encode({"model": model, "prompt": text, "add_special_tokens": True})


def decode_tokens(raw: bytes) -> tuple[int, ...]:
    """The token ids in an answer of ``/tokenize``."""
    return decode(_TOKENS.decode, raw).tokens


def chat_reply(
    raw: bytes,
    request: ChatRequest,
    *,
    dialect: Dialect,
    window: int | None,
    seconds: float,
    habits: Habits | None = None,
) -> Reply:
    """The reply in an answer of ``/v1/chat/completions``, whatever its form.

    `window` is the model's longest conversation in tokens; None: not known. `habits` are what the
    server's earlier answers were like; None: this one stands alone.
    Raises `EngineError` for an answer that is none, and where log-probabilities were asked for and
    are not there, and `EngineLacks` where the server never does what was asked for.
    """
    return _reply(raw, request, dialect, window, seconds, habits, _chat_logprobs)


def completion_reply(
    raw: bytes,
    request: CompletionRequest,
    *,
    dialect: Dialect,
    window: int | None,
    seconds: float,
    habits: Habits | None = None,
) -> Reply:
    """The reply in an answer of ``/v1/completions``; as `chat_reply`.

    Alternatives that look alike (halves of a character) are one here: the protocol names them
    by their text.
    """
    return _reply(raw, request, dialect, window, seconds, habits, _text_logprobs)


def unreadable_reply(
    request: ChatRequest | CompletionRequest, *, complaint: Complaint, seconds: float
) -> Reply:
    """The reply that a server tells as an error, for it could make nothing of the model's words."""
    choice = Choice(
        text=whole(complaint.generated),
        finish_reason="length" if was_cut(complaint) else "stop",
        logprobs=() if request.sampling.top_logprobs else None,
    )
    return Reply(choices=(choice,) * choices_of(request), seconds=seconds)


def context_reply(request: Request, *, refusal: str | Complaint, seconds: float) -> Reply:
    """The reply to a prompt that does not fit: empty choices, and its length if it was told."""
    empty = Choice(text="", finish_reason="context")
    return Reply(
        choices=(empty,) * choices_of(request),
        tokens_in=prompt_tokens_in(refusal),
        seconds=seconds,
    )


T = TypeVar("T")


def decode(decoder: Callable[[bytes], T], raw: bytes) -> T:
    """A server's answer as a value; `EngineError` if it is something else."""
    try:
        return decoder(raw)
    except msgspec.ValidationError as error:
        what = complaint_in(raw) if b'"error"' in raw[:100] else f"{error}: {beginning(raw)}"
        raise EngineError(
            f"the server's answer is not what the protocol says: {what}", hint=WHICH
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(
            f"the server's answer is no JSON: {beginning(raw)}", hint=WHICH
        ) from error


def _drawn(request: ChatRequest | CompletionRequest) -> int:
    """How many choices the server draws. Greedy ones are all the same (vLLM refuses to draw
    more than one)."""
    return 1 if request.sampling.temperature == 0 else request.sampling.n


def _reply(
    raw: bytes,
    request: ChatRequest | CompletionRequest,
    dialect: Dialect,
    window: int | None,
    seconds: float,
    habits: Habits | None,
    logprobs_of: "_LogprobsOf",
) -> Reply:
    if habits is None:
        habits = Habits("the server", said=lambda text: None)
    answer, drawn = read_answer(raw), _drawn(request)
    habits.chose(len(answer.choices), asked=drawn)
    habits.counted(answer.counts is not None)
    given = answer.choices[:drawn]
    if request.reply_format.kind == "schema":
        given = tuple(_out_of_thoughts(said) for said in given)
        if not request.sampling.stop:  # a stop ends anywhere
            for said in given:
                _judge_form(said, habits)
    k = request.sampling.top_logprobs
    choices = [_choice(said, logprobs_of, k, habits) for said in given]
    empty = Choice(text="", logprobs=() if k else None)
    choices += [empty] * (drawn - len(choices))
    if drawn < request.sampling.n:
        choices = choices * request.sampling.n
    counts = _believed(answer, request, window)
    if window is not None and counts.prompt + request.sampling.max_tokens > window:
        # vLLM shortens such a reply to what is left of the window, and says nothing; our own
        # server refuses. Both must be the same to whoever asks.
        choices = [Choice(text="", finish_reason="context")] * request.sampling.n
    support: SeedSupport = "none" if dialect == "openai" and request.seed is None else "best_effort"
    return Reply(
        choices=tuple(choices),
        tokens_in=counts.prompt,
        tokens_out=counts.completion,
        tokens_cached=counts.cached,
        seconds=seconds,
        seed_support=support,
    )


def _believed(
    answer: Answer, request: ChatRequest | CompletionRequest, window: int | None
) -> Counts:
    """What it took; nothing where that cannot be: whoever asked shortens conversations by it."""
    counts = answer.counts or Counts()
    if window is not None and counts.prompt > window:
        return Counts()  # it was answered
    if isinstance(request, ChatRequest):
        characters = sum(len(message.content) + BYTES_ROUND for message in request.messages)
    else:
        characters = len(request.prompt)
    characters += len(request.reply_format.json_schema or "")
    if counts.prompt > BYTES_A_CHARACTER * characters + BYTES_MORE:
        return Counts()
    most = request.sampling.max_tokens * request.sampling.n
    return counts if counts.completion <= 16 * most + BYTES_MORE else Counts(prompt=counts.prompt)


BYTES_A_CHARACTER = 4
BYTES_ROUND = 256
BYTES_MORE = 1 << 16
"""A token is a byte at least: so many there are in a character at most, that a template puts round
a message, and beside them all (a system message of its own, say)."""


def _judge_form(said: Said, habits: Habits) -> None:
    """Whether a reply under a schema that ended by itself is JSON, told to the habits."""
    if said.finish != "stop" or not said.is_plain:
        return
    if not said.text and said.reasoning is not None:
        return  # it ended while it thought
    is_json = False
    with suppress(ValueError, RecursionError):
        json.loads(said.text, strict=False)
        is_json = True
    habits.formed(said.text, is_json=is_json)


def _out_of_thoughts(said: Said) -> Said:
    """The object under a schema that a server took for a thought: its model did not think."""
    if said.finish == "stop" and said.is_thought_alone and said.reasoning is not None:
        with suppress(ValueError, RecursionError):
            if isinstance(json.loads(said.reasoning, strict=False), dict):
                return replace(said, text=said.reasoning, reasoning=None)
    return said


_Logprobs = tuple[TokenLogprob, ...]
_LogprobsOf = Callable[[Any, int], _Logprobs | None]


def _choice(said: Said, logprobs_of: _LogprobsOf, k: int, habits: Habits) -> Choice:
    """`k` is how many alternatives a token were asked for."""
    logprobs = None
    if k:
        try:
            logprobs = logprobs_of(said.logprobs, k)
        except (msgspec.ValidationError, ValueError):
            logprobs = None
        habits.gave("log-probabilities", "it ignores `logprobs`", is_there=logprobs is not None)
        if logprobs:
            habits.gave(
                "alternatives",
                "it ignores `top_logprobs`",
                is_there=any(token.top for token in logprobs),
            )
    return Choice(
        text=said.text, finish_reason=said.finish, reasoning=said.reasoning, logprobs=logprobs
    )


def _chat_logprobs(given: Any, k: int) -> _Logprobs | None:
    told = msgspec.convert(given, _ChatLogprobs | None)
    if told is None or told.content is None:
        return None
    return tuple(
        TokenLogprob(
            token=token.token,
            logprob=token.logprob,
            top=_top([(one.token, one.logprob) for one in token.top_logprobs], k),
        )
        for token in told.content
    )


def _text_logprobs(given: Any, k: int) -> _Logprobs | None:
    told = msgspec.convert(given, _TextLogprobs | None)
    if told is None:
        return None
    tops = told.top_logprobs or [None] * len(told.tokens)
    return tuple(
        TokenLogprob(token=token, logprob=logprob or 0.0, top=_top((top or {}).items(), k))
        for token, logprob, top in zip(told.tokens, told.token_logprobs, tops, strict=True)
    )


def _top(alternatives: Any, k: int) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(alternatives, key=lambda pair: -pair[1])[:k])


class _Alternative(msgspec.Struct):
    token: str
    logprob: float


class _Token(_Alternative):
    top_logprobs: list[_Alternative] = []


class _ChatLogprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _TextLogprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _Tokens(msgspec.Struct):
    tokens: tuple[int, ...]


_ENCODER = msgspec.json.Encoder()
_TOKENS = msgspec.json.Decoder(_Tokens)
