"""What we and an engine's server say to each other: requests to bodies, answers to replies. Pure.

The protocol is OpenAI's, with what vLLM and the `hf` server add to it. Everything is encoded by
one call: a conversation of megabytes is never copied message by message.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from vendomini.chat import (
    ChatRequest,
    Choice,
    CompletionRequest,
    FinishReason,
    Reply,
    Request,
    SeedSupport,
    TokenLogprob,
    choices_of,
)
from vendomini.engines.backend import Dialect
from vendomini.engines.words import beginning, complaint_in, prompt_tokens_in
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


def chat_body(request: ChatRequest, *, model: str, dialect: Dialect) -> bytes:
    """The body of ``/v1/chat/completions``."""
    body = _common(request, model=model, dialect=dialect)
    body["messages"] = request.messages
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


def completion_body(request: CompletionRequest, *, model: str, dialect: Dialect) -> bytes:
    """The body of ``/v1/completions``."""
    body = _common(request, model=model, dialect=dialect)
    body["prompt"] = request.prompt
    if request.sampling.top_logprobs:
        body["logprobs"] = request.sampling.top_logprobs
    return _ENCODER.encode(body)


def _common(
    request: ChatRequest | CompletionRequest, *, model: str, dialect: Dialect
) -> dict[str, object]:
    sampling = request.sampling
    body: dict[str, object] = {
        "model": model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
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
    if schema is not None:
        body["response_format"] = {
            "type": "json_schema",
            "json_schema": {
                "name": "reply",
                "schema": msgspec.Raw(schema.encode()),
                "strict": True,
            },
        }
    return body


def tokenize_body(text: str, *, model: str) -> bytes:
    """The body of ``/tokenize`` for a raw text: special tokens as for a completion."""
    return _ENCODER.encode({"model": model, "prompt": text, "add_special_tokens": True})


def decode_tokens(raw: bytes) -> tuple[int, ...]:
    """The token ids in an answer of ``/tokenize``."""
    return decode(_TOKENS.decode, raw).tokens


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """What an answer took, in tokens."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None

    @property
    def cached(self) -> int:
        """How many of the prompt's were in the server's prefix cache."""
        details = self.prompt_tokens_details
        return (details.cached_tokens or 0) if details is not None else 0


def chat_reply(
    raw: bytes, request: ChatRequest, *, dialect: Dialect, window: int | None, seconds: float
) -> Reply:
    """The reply in an answer of ``/v1/chat/completions``.

    `window` is the model's longest conversation in tokens; None: not known.
    Raises `EngineError` when the answer lacks something that was asked for.
    """
    answer = decode(_CHAT.decode, raw)
    choices = []
    for each in sorted(answer.choices, key=lambda each: each.index):
        said = each.message
        reasoning, text = _apart(said.reasoning or said.reasoning_content, said.content or "")
        if said.refusal and not text:
            text = said.refusal
        finish = _finish_of(each.finish_reason)
        if not said.refusal and (text or reasoning is None):  # else it ended while it thought
            _check_format(text, request, finish)
        logprobs = None
        if request.sampling.top_logprobs:
            tokens = each.logprobs.content if each.logprobs is not None else None
            if tokens is None:
                raise lacks("log-probabilities", "it ignores `logprobs`")
            k = request.sampling.top_logprobs
            logprobs = tuple(
                TokenLogprob(
                    token=token.token,
                    logprob=token.logprob,
                    top=_top([(one.token, one.logprob) for one in token.top_logprobs], k),
                )
                for token in tokens
            )
            _check_alternatives(logprobs)
        choices.append(
            Choice(text=text, finish_reason=finish, reasoning=reasoning, logprobs=logprobs)
        )
    return _reply(choices, answer.usage, request, dialect, window=window, seconds=seconds)


def completion_reply(
    raw: bytes,
    request: CompletionRequest,
    *,
    dialect: Dialect,
    window: int | None,
    seconds: float,
) -> Reply:
    """The reply in an answer of ``/v1/completions``; as `chat_reply`.

    Alternatives that look alike (halves of a character) are one here: the protocol names them
    by their text.
    """
    answer = decode(_COMPLETION.decode, raw)
    choices = []
    for each in sorted(answer.choices, key=lambda each: each.index):
        finish = _finish_of(each.finish_reason)
        _check_format(each.text, request, finish)
        logprobs = None
        if request.sampling.top_logprobs:
            told = each.logprobs
            if told is None:
                raise lacks("log-probabilities", "it ignores `logprobs`")
            tops = told.top_logprobs or [None] * len(told.tokens)
            k = request.sampling.top_logprobs
            logprobs = tuple(
                TokenLogprob(token=token, logprob=logprob or 0.0, top=_top((top or {}).items(), k))
                for token, logprob, top in zip(told.tokens, told.token_logprobs, tops, strict=True)
            )
            _check_alternatives(logprobs)
        choices.append(Choice(text=each.text, finish_reason=finish, logprobs=logprobs))
    return _reply(choices, answer.usage, request, dialect, window=window, seconds=seconds)


def context_reply(request: Request, *, refusal: str, seconds: float) -> Reply:
    """The reply to a prompt that does not fit: empty choices, and its length if it was told."""
    empty = Choice(text="", finish_reason="context")
    return Reply(
        choices=(empty,) * choices_of(request),
        tokens_in=prompt_tokens_in(refusal),
        seconds=seconds,
    )


def split_reasoning(text: str) -> tuple[str | None, str]:
    """Reasoning and answer of a text with ``<think>``...``</think>``; None: it has none.

    A template may have opened the reasoning already, so its end alone tells. Reasoning that
    never ends leaves no answer.
    """
    head, end, answer = text.partition("</think>")
    opened = head.lstrip().startswith("<think>")
    if not end and not opened:
        return None, text
    reasoning = head.lstrip().removeprefix("<think>") if opened else head
    return reasoning.strip(), answer.lstrip()


T = TypeVar("T")


def decode(decoder: Callable[[bytes], T], raw: bytes) -> T:
    """A server's answer as a value; `EngineError` if it is something else."""
    try:
        return decoder(raw)
    except msgspec.ValidationError as error:
        what = complaint_in(raw) if b'"error"' in raw[:100] else f"{error}: {beginning(raw)}"
        raise EngineError(
            f"the server's answer is not what the protocol says: {what}", hint=_WHICH
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineError(
            f"the server's answer is no JSON: {beginning(raw)}", hint=_WHICH
        ) from error


def lacks(feature: str, sign: str) -> EngineError:
    """The error of a server that was asked for something and silently did not do it."""
    return EngineError(f"the server does not give {feature}: {sign}", hint=_WHICH)


_WHICH = "use a server that can, such as vLLM, or do not ask for it"


def _drawn(request: ChatRequest | CompletionRequest) -> int:
    """How many choices the server draws. Greedy ones are all the same (vLLM refuses to draw
    more than one)."""
    return 1 if request.sampling.temperature == 0 else request.sampling.n


def _reply(
    choices: list[Choice],
    usage: Usage | None,
    request: ChatRequest | CompletionRequest,
    dialect: Dialect,
    *,
    window: int | None,
    seconds: float,
) -> Reply:
    drawn = _drawn(request)
    if len(choices) != drawn:
        raise lacks("several choices", f"asked for {drawn}, it gives {len(choices)}")
    if usage is None:
        raise lacks("token counts", "its answer has no `usage`")
    if drawn < request.sampling.n:
        choices = choices * request.sampling.n
    if window is not None and usage.prompt_tokens + request.sampling.max_tokens > window:
        # vLLM shortens such a reply to what is left of the window, and says nothing; our own
        # server refuses. Both must be the same to whoever asks.
        choices = [Choice(text="", finish_reason="context")] * request.sampling.n
    support: SeedSupport = "none" if dialect == "openai" and request.seed is None else "best_effort"
    return Reply(
        choices=tuple(choices),
        tokens_in=usage.prompt_tokens,
        tokens_out=usage.completion_tokens,
        tokens_cached=usage.cached,
        seconds=seconds,
        seed_support=support,
    )


def _apart(reasoning: str | None, text: str) -> tuple[str | None, str]:
    if reasoning:
        return reasoning.strip(), text.lstrip()
    return split_reasoning(text)


def _finish_of(reason: str | None) -> FinishReason:
    if reason == "stop":
        return "stop"
    if reason == "length":
        return "length"
    raise EngineError(
        f"the server ended a reply by `{reason}`, not by `stop` or `length`",
        hint="its own log may say why",
    )


def _check_format(
    text: str, request: ChatRequest | CompletionRequest, finish: FinishReason
) -> None:
    """Whether an ended reply under a schema is JSON. A stop text may end it anywhere."""
    if request.reply_format.kind != "schema" or finish != "stop" or request.sampling.stop:
        return
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError) as error:
        raise EngineError(
            "the server does not constrain its replies: under a schema it gave "
            f"{beginning(text.encode(errors='replace'))}",
            hint="use reply_format `text`, or a server that can, such as vLLM",
        ) from error


def _top(alternatives: Any, k: int) -> tuple[tuple[str, float], ...]:
    return tuple(sorted(alternatives, key=lambda pair: -pair[1])[:k])


def _check_alternatives(logprobs: tuple[TokenLogprob, ...]) -> None:
    if logprobs and not any(token.top for token in logprobs):
        raise lacks("alternatives", "it ignores `top_logprobs`")


class _Alternative(msgspec.Struct):
    token: str
    logprob: float


class _Token(_Alternative):
    top_logprobs: list[_Alternative] = []


class _ChatLogprobs(msgspec.Struct):
    content: list[_Token] | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None


class _ChatChoice(msgspec.Struct):
    message: _Said
    index: int = 0
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None


class _ChatAnswer(msgspec.Struct):
    choices: list[_ChatChoice]
    usage: Usage | None = None


class _TextLogprobs(msgspec.Struct):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None = None


class _TextChoice(msgspec.Struct):
    text: str
    index: int = 0
    finish_reason: str | None = None
    logprobs: _TextLogprobs | None = None


class _TextAnswer(msgspec.Struct):
    choices: list[_TextChoice]
    usage: Usage | None = None


class _Tokens(msgspec.Struct):
    tokens: tuple[int, ...]


_ENCODER = msgspec.json.Encoder()
_CHAT = msgspec.json.Decoder(_ChatAnswer)
_COMPLETION = msgspec.json.Decoder(_TextAnswer)
_TOKENS = msgspec.json.Decoder(_Tokens)
