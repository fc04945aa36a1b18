"""What is in a server's answer, whatever its form: texts, thoughts, ends, counts. Pure.

Servers leave fields out, give them as null, as lists of parts, or as another type. None of that
is an error here: what cannot be read is an empty text, for whoever asked to judge.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from vendomini.chat import FinishReason
from vendomini.engines.words import beginning, complaint_in
from vendomini.errors import EngineError
from vendomini.thoughts import call_text, split

LARGEST_COUNT = 1 << 50
"""No answer takes so many tokens: a larger number counts something else."""

_CUT = frozenset(
    {
        "length",
        "max_tokens",
        "max_output_tokens",
        "model_length",
        "max_length",
        "model_context_window_exceeded",
    }
)
_BY_ITSELF = frozenset(
    {"", "stop", "stop_sequence", "end_turn", "eos", "eos_token", "end", "complete", "completed"}
)
"""How a reply ends that nobody filtered, cut or took for a call. Servers have many words for that:
such a reply tells nothing of what they hold to."""
_WHICH = "use a server that speaks OpenAI's protocol; does `engine.base_url` lead to one?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One choice of an answer. `logprobs` are as the server gave them; None: it gave none.

    `is_plain`: it is the text that a model ended by itself, no refusal and no call of a tool, and
    nobody filtered it. `is_thought_alone`: nothing came but thoughts in a field of their own.
    """

    text: str = ""
    reasoning: str | None = None
    finish: FinishReason = "stop"
    is_plain: bool = False
    is_thought_alone: bool = False
    logprobs: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What an answer took, in tokens."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """All of an answer; `counts` is None if it tells none."""

    choices: tuple[Said, ...]
    counts: Counts | None


def read_answer(raw: bytes) -> Answer:
    """The answer to a chat or a completion, with its choices in order.

    Raises `EngineError` where it is no JSON object, or tells of an error.
    """
    told = _object_in(raw)
    listed = told.get("choices")
    if not listed and (told.get("error") or told.get("object") == "error" or "detail" in told):
        raise EngineError(
            f"the server answers with an error: {complaint_in(raw)}", hint="its own log says why"
        )
    if not isinstance(listed, list):
        listed = [listed] if isinstance(listed, dict) else []
    choices = sorted(enumerate(listed), key=lambda each: _index(each[1], each[0]))
    return Answer(
        choices=tuple(_said(choice) for _, choice in choices), counts=_counts(told.get("usage"))
    )


def _object_in(raw: bytes) -> dict[str, Any]:
    try:
        told = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # Halves of characters, numbers that are none, and raw control characters are no JSON, but
        # some servers write them.
        try:
            told = json.loads(raw.decode("utf-8-sig", "replace"), strict=False)
        except (ValueError, RecursionError) as error:
            raise EngineError(
                f"the server's answer is no JSON: {beginning(raw)}", hint=_WHICH
            ) from error
    if not isinstance(told, dict):
        raise EngineError(
            f"the server's answer is not what the protocol says: {complaint_in(raw)}", hint=_WHICH
        )
    return told


def _index(choice: object, place: int) -> int:
    index = choice.get("index") if isinstance(choice, dict) else None
    count = _count(index)
    return place if count is None else count


def _said(choice: object) -> Said:
    if isinstance(choice, str):
        choice = {"text": choice}
    if not isinstance(choice, dict):
        return Said()
    message = choice.get("message") or choice.get("delta")
    if not isinstance(message, dict):
        message = {"content": choice.get("text") if message is None else message}
    ended = choice.get("finish_reason")
    ended = ended.lower() if isinstance(ended, str) else ""
    content, thoughts = _text(message.get("content"))
    told_apart = _thoughts(message) or thoughts
    text, reasoning = _apart(content, told_apart)
    is_plain = ended in _BY_ITSELF
    if not text:
        refusal = message.get("refusal")
        text = _calls(message) or (refusal if isinstance(refusal, str) else "")
        is_plain = is_plain and not text
    return Said(
        text=whole(text),
        reasoning=None if reasoning is None else whole(reasoning),
        finish="length" if ended in _CUT else "stop",
        is_plain=is_plain,
        is_thought_alone=bool(told_apart) and not content.strip() and not text,
        logprobs=choice.get("logprobs"),
    )


def _apart(content: str, thoughts: str) -> tuple[str, str | None]:
    """Answer and thoughts (None: there are none); some the server has told apart already."""
    thoughts = thoughts.strip()
    reasoning, text = split(content)
    if thoughts:
        reasoning = f"{thoughts}\n\n{reasoning}" if reasoning else thoughts
        text = text.lstrip()
    return text, reasoning


def _text(content: object) -> tuple[str, str]:
    """The text of a message's content, and the thoughts among its parts."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if not isinstance(content, list):
        part = _part(content)
        return (_json(content) if part is None else part), ""
    texts, thoughts = [], []
    for each in content:
        kind = each.get("type") if isinstance(each, dict) else None
        if isinstance(kind, str) and kind.startswith(("thinking", "reasoning")):
            thoughts.append("".join(_texts(each)))
        else:
            part = _part(each)
            texts.append("" if part is None else part)
    return "".join(texts), "\n".join(each for each in thoughts if each)


def _part(part: object) -> str | None:
    """The text of one part; None: it is none that has a text."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        for name in ("text", "content", "value"):
            inner = part.get(name)
            if isinstance(inner, dict):
                inner = inner.get("value")
            if isinstance(inner, str):
                return inner
    return None


def _thoughts(message: dict[str, Any]) -> str:
    """The thoughts that a server tells apart, under either name, as a text or as parts."""
    for name in ("reasoning", "reasoning_content", "reasoning_details", "thinking"):
        found = "".join(_texts(message.get(name)))
        if found.strip():
            return found
    return ""


def _texts(told: object) -> Iterator[str]:
    """All texts in parts, where each part tells its own by one of a few names."""
    waiting = [told]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, list):
            waiting += reversed(each)
        elif isinstance(each, dict):
            names = ("text", "content", "summary", "thinking", "reasoning")
            waiting += [each[name] for name in names if each.get(name)][:1]


def _calls(message: dict[str, Any]) -> str:
    """Calls of tools as one JSON text, so that the log shows them; empty: there are none."""
    calls = message.get("tool_calls")
    listed = calls if isinstance(calls, list) else [calls]
    functions = [call.get("function") for call in listed if isinstance(call, dict)]
    told = [
        call_text(_name(function), function.get("arguments"))
        for function in [*functions, message.get("function_call")]
        if isinstance(function, dict)
    ]
    return told[0] if len(told) == 1 else f"[{', '.join(told)}]" if told else ""


def _name(function: dict[str, Any]) -> str:
    name = function.get("name")
    return name if isinstance(name, str) else ""


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return ""


def whole(text: str) -> str:
    """The text without halves of characters, which no log can hold."""
    return _HALF.sub("\N{REPLACEMENT CHARACTER}", text)


_HALF = re.compile("[\ud800-\udfff]")


def _counts(usage: object) -> Counts | None:
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage.get("prompt_tokens", usage.get("input_tokens")))
    completion = _count(usage.get("completion_tokens", usage.get("output_tokens"))) or 0
    if prompt is None:
        return None
    total = _count(usage.get("total_tokens")) or 0  # Gemini's thoughts are in this one alone
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Counts(
        prompt=prompt,
        completion=max(completion, total - prompt),
        cached=min(_count(cached) or _count(usage.get("prompt_cache_hit_tokens")) or 0, prompt),
    )


def _count(value: object) -> int | None:
    """A number of tokens, also in the form of a text or of a fraction; None: it is none."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value) if len(value) < 20 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= LARGEST_COUNT else None
