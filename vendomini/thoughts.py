"""Telling a reply's thoughts from its answer, in the words of each kind of model. Pure.

Most models put their thoughts between two marks, which a template may have opened already, so
that the end alone is seen. Models of the harmony format speak on channels, whose marks some servers
leave out when they write the text. A mark inside of a JSON object is text: it stands in a string.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Marks:
    """What stands round a thought. `ends_alone`: nobody writes the end without having thought."""

    start: str
    end: str
    ends_alone: bool = True


TAGS = tuple(
    Marks(f"<{name}>", f"</{name}>", ends_alone=name in ("think", "thought"))
    for name in ("think", "thinking", "thought", "reasoning")
)
"""In the words of DeepSeek, Qwen and most others; `thought` is EXAONE's, whose template opens it;
and what models are told to write by prompts."""

MARKS = (
    *TAGS,
    Marks("<seed:think>", "</seed:think>"),  # Seed-OSS
    Marks("[THINK]", "[/THINK]"),  # Magistral
    Marks(
        "\N{WHITE LEFT-POINTING TRIANGLE}think\N{WHITE RIGHT-POINTING TRIANGLE}",
        "\N{WHITE LEFT-POINTING TRIANGLE}/think\N{WHITE RIGHT-POINTING TRIANGLE}",
    ),  # Kimi
    Marks("<mm:think>", "</mm:think>"),  # MiniMax
    Marks("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    Marks("<|channel>thought", "<channel|>"),  # Gemma 4
)

_SUFFIXED = re.compile(r"<think:[\w.-]{1,16}>")  # Hunyuan: how it thinks is in the mark
_CHANNEL, _MESSAGE = "<|channel|>", "<|message|>"
_OPENED_CHANNEL = f"{_CHANNEL}analysis{_MESSAGE}"
HARMONY_TOKENS = tuple(
    f"<|{name}|>" for name in ("start", "channel", "message", "end", "return", "call", "constrain")
)
_HARMONY = re.compile(r"<\|(start|channel|message|end|return|call|constrain)\|>")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([^\s<]+)")
# Harmony without its marks: `analysis...assistantfinal...`. A word of prose goes on in small
# letters, or ends.
_STRIPPED = re.compile(r"\s*(?:assistant)?analysis(?=[A-Z\"'*\d])")
# On a line of its own it may be prose, unless an object or a leading `analysis` says otherwise.
_STRIPPED_FINAL = re.compile(r"assistantfinal(?:json)?|assistant ?\r?\n{1,4}final(?:json)?(?=\s*{)")
_BEGUN_FINAL = re.compile(r"assistant(?: ?\r?\n{1,4})?final(?:json)?")
_STRIPPED_CALL = re.compile(
    r"assistant(?: ?\r?\n{1,4})?commentary(?: to=(?:functions\.)?(\S+?))? ?(?:json|code)?(?=\s*{)"
)
_FINAL_ALONE = re.compile(r"\s*(?:assistant)?final(?:json)?(?=\s*{)")


def split(text: str, *, opened: Marks | None = None) -> tuple[str | None, str]:
    """Thoughts (None: there are none) and answer of a reply.

    `opened` are the marks of a thought that the prompt has opened, where that is known. A thought
    that never ends leaves no answer.
    """
    thoughts: list[str] = []
    marks = opening(text)
    if marks is None:
        harmony = _split_harmony(text)
        if harmony is not None:
            return harmony
        marks = opened
    if marks is None:
        return _split_at_end(text)
    while marks is not None:
        text = text.lstrip().removeprefix(marks.start)
        end = next(_places(text, marks.end), None)
        if end is None:
            return _joined([*thoughts, text]), ""
        thoughts.append(text[:end])
        text = text[end + len(marks.end) :]
        marks = opening(text)  # a second thought follows the first
    return _joined(thoughts), text.lstrip()


def opening(text: str, known: tuple[Marks, ...] = MARKS) -> Marks | None:
    """The marks of the thought that a text begins with; None: it begins with none."""
    begun = text[: len(text) - len(text.lstrip()) + _LONGEST].lstrip()
    if known is MARKS and (suffixed := _SUFFIXED.match(begun)):
        return Marks(suffixed[0], f"</{suffixed[0][1:]}")
    return next((marks for marks in known if begun.startswith(marks.start)), None)


def opened_by(prompt: str) -> Marks | None:
    """The marks of the thought that a rendered prompt has opened, so that its reply begins inside
    of it; None: it has opened none."""
    end = prompt[-4 * _LONGEST :].rstrip()
    if end.endswith(_OPENED_CHANNEL):
        return HARMONY
    return next((marks for marks in MARKS if end.endswith(marks.start)), None)


HARMONY = Marks(_OPENED_CHANNEL, "<|end|>")
"""Stands for harmony's channels where one is opened by a prompt; `split` reads them all."""

_LONGEST = max(24, *(len(marks.start) for marks in MARKS))


def _joined(thoughts: list[str]) -> str:
    return "\n\n".join(part for each in thoughts if (part := each.strip()))


def _split_at_end(text: str) -> tuple[str | None, str]:
    """Thoughts of which only the end is seen."""
    ends = [
        (place, marks)
        for marks in MARKS
        if marks.ends_alone and (place := next(_places(text, marks.end), None)) is not None
    ]
    if not ends:
        return None, text
    place, marks = min(ends, key=lambda end: end[0])
    return text[:place].strip(), text[place + len(marks.end) :].lstrip()


# -- harmony ---------------------------------------------------------------------------------------


def _split_harmony(text: str) -> tuple[str | None, str] | None:
    """None: the text is none of harmony's."""
    if any(True for mark in (_CHANNEL, _MESSAGE) for _ in _places(text, mark)):
        return _split_channels(text)
    if "analysis" in text or "final" in text:
        return _split_stripped(text)
    return None


def _split_channels(text: str) -> tuple[str | None, str]:
    """By the channels' names: thoughts on `analysis`, the answer on `final`.

    Without a `final` it is what was said on `commentary`, where tools are called too.
    """
    thoughts: list[str] = []
    finals: list[str] = []
    comments: list[str] = []
    for header, body in _messages(text):
        channel = header.split(maxsplit=1)[0] if header else "analysis"
        if not header and body.strip() == "assistant":
            continue  # a role whose mark was left out
        if channel.startswith("final"):
            finals.append(body)
        elif channel.startswith("commentary"):
            comments.append(_call(_RECIPIENT.search(header), body))
        else:
            thoughts.append(body)
    if finals:
        thoughts += comments
    answer = "\n".join(finals or comments).lstrip()
    return (_joined(thoughts) if thoughts else None), answer


def _messages(text: str) -> Iterator[tuple[str, str]]:
    """Header and body of each message. What stands before the first header was opened by the
    prompt: its header is empty."""
    header = body = ""
    where = "body"
    place = 0
    for mark in _marks_of_harmony(text):
        said = text[place : mark.start()]
        place = mark.end()
        if where == "body":
            body += said
        elif where == "header":
            header += said
        match mark[1]:
            case "channel":
                if body.strip():
                    yield header.strip(), body
                header = body = ""
                where = "header"
            case "message":
                if where != "header":
                    if where == "body" and body.strip():
                        yield header.strip(), body
                    header, body = "final", ""  # said on no channel
                where = "body"
            case "constrain":
                header += " "
            case _:  # start, end, return, call: a role follows, which is always the same
                if body.strip():
                    yield header.strip(), body
                header = body = ""
                where = "role"
    if where == "body" and (body + text[place:]).strip():
        yield header.strip(), body + text[place:]


def _marks_of_harmony(text: str) -> Iterator[re.Match[str]]:
    inside = _objects(text)
    start, end = next(inside, (len(text), len(text)))
    for mark in _HARMONY.finditer(text):
        while mark.start() >= end and end < len(text):
            start, end = next(inside, (len(text), len(text)))
        if not start < mark.start() < end:
            yield mark


def _call(recipient: re.Match[str] | None, body: str) -> str:
    """A call of a tool as servers tell it, by name and arguments; other words as they are."""
    if recipient is None or recipient[1] == "assistant":
        return body
    return call_text(recipient[1], body)


def call_text(name: str, arguments: object) -> str:
    """A call of a tool, as the text of a reply: JSON that says what was called."""
    if isinstance(arguments, str):
        with suppress(ValueError, RecursionError):  # then as it came
            arguments = json.loads(arguments, strict=False)
    try:
        return json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    except (ValueError, RecursionError):
        return json.dumps({"name": name})


def _split_stripped(text: str) -> tuple[str | None, str] | None:
    begun = _STRIPPED.match(text)
    final_form = _STRIPPED_FINAL if begun is None else _BEGUN_FINAL
    final = next(_matches(text, final_form), None)
    if final is not None:
        thoughts = text[: final.start()].strip().removeprefix("assistant").removeprefix("analysis")
        return thoughts.strip() or None, text[final.end() :].lstrip()
    if begun is not None:
        call = next(_matches(text, _STRIPPED_CALL), None)
        if call is None:
            return text[begun.end() :].strip(), ""
        body = text[call.end() :].strip()
        answer = call_text(call[1], body) if call[1] else body
        return text[begun.end() : call.start()].strip(), answer
    alone = _FINAL_ALONE.match(text)
    return None if alone is None else (None, text[alone.end() :].lstrip())


# -- marks outside of JSON -------------------------------------------------------------------------


def _places(text: str, mark: str) -> Iterator[int]:
    """Where a mark stands outside of JSON objects."""
    if mark in text:
        yield from (found.start() for found in _matches(text, re.compile(re.escape(mark))))


def _matches(text: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    inside = _objects(text)
    start, end = next(inside, (len(text), len(text)))
    for found in pattern.finditer(text):
        while found.start() >= end and end < len(text):
            start, end = next(inside, (len(text), len(text)))
        if not start < found.start() < end:
            yield found


def _objects(text: str) -> Iterator[tuple[int, int]]:
    """Where each outermost JSON object stands; one that the text, or harmony's answer, begins with
    may be cut off."""
    place = text.find("{")
    while place >= 0:
        before = text[max(0, place - 100) : place].rstrip()
        is_first = not before or _ANSWERS.search(before) is not None
        try:
            _, end = _DECODER.raw_decode(text, place)
            yield place, end
        except json.JSONDecodeError as error:
            end = place + 1
            if is_first:
                # All before the fault is the beginning of an object.
                is_open = error.msg.startswith("Unterminated string")
                end = len(text) if is_open else max(error.pos, end)
                yield place, end
        except (ValueError, RecursionError):
            end = place + 1
        place = text.find("{", end)


_ANSWERS = re.compile(r"<\|channel\|>final[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>$")
_DECODER = json.JSONDecoder(strict=False)
