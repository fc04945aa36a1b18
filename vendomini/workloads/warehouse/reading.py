"""Reading a reply: the call it makes, or why none can be read from it.

Found leniently: the JSON object may have prose round it, follow a thought in tags, or stand in
a fence without a language or with ``json``. Read strictly: there must be exactly one call, as
valid JSON, with the keys asked for and no others, and it must stand by itself, not inside of a
thought, of code or of a list.

What is wrong with a call that can be read, such as an unknown tool or a wrong argument, is
for the world to say: that is behaviour. What is not read here is a *format failure*, and
never a call.
"""

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

from vendomini.chat import FinishReason
from vendomini.thoughts import TAGS, opening
from vendomini.workloads.warehouse.arguments import shown
from vendomini.workloads.warehouse.card import Card, Reflection
from vendomini.workloads.warehouse.card_fields import (
    MOST_ALTERNATIVES,
    MOST_WORDS,
    CardField,
    card_fields,
    card_is_demanded,
)
from vendomini.workloads.warehouse.settings import InterfaceSettings

PLACEHOLDER = re.compile(r"\s*<[^<>]*>\s*")
LARGEST_AMOUNT = 1e12  # as card.Amount has it
LONGEST_NAME = 80  # characters of the tool announced as next
LOOKED_BACK = 200  # characters before a call that tell whether it is inside of code
# What opens code, a quoted text in code, or a list; in prose none of these leads an object.
CODE_BEFORE = re.compile(r"""(?:[=(\[{]\s*["'`]*|^[ \t]*(?:return|yield))\s*\Z""", re.MULTILINE)
FENCE = re.compile(r"(?:`{3,}|~{3,})[ \t]*([^\s{`~]*)")
BRACE = re.compile(r"[{}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadCall:
    """A call that could be read. Its tool and arguments may be wrong."""

    tool: str
    arguments: dict[str, Any]
    card: Card | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatFailure:
    """No call could be read; `why` is said to the model."""

    why: str


def read_numbers(text: str, keys: tuple[str, ...]) -> dict[str, float] | None:
    """The numbers of a reply's single object with exactly these keys; None: it has no such one.

    Takes any text at all, and never raises.
    """
    try:
        said = _single_object(text, with_key=keys[0])
    except _Unreadable:
        return None
    if said.keys() != set(keys):
        return None
    if not all(_is_number(value, -LARGEST_AMOUNT, LARGEST_AMOUNT) for value in said.values()):
        return None
    return {key: float(said[key]) for key in keys}


class _Unreadable(Exception):
    """Ends the reading; never leaves this module. Its text is the `why`."""


class Reader:
    """Reads the replies of one run, by what its interface asks for."""

    __slots__ = ("_card_is_demanded", "_fields", "_offered")

    def __init__(
        self, interface: InterfaceSettings, offered: Collection[str] | None = None
    ) -> None:
        """`offered` are the names of the run's tools: of others a card needs no field of their own.

        None: all there are.
        """
        self._offered = offered
        self._card_is_demanded = card_is_demanded(interface.prediction_mode)
        self._fields = {field.name: field for field in card_fields(interface)}

    def read(self, text: str, finish_reason: FinishReason = "stop") -> ReadCall | FormatFailure:
        """Takes any text at all, and never raises."""
        try:
            return self._call(_single_object(text, with_key="tool"))
        except _Unreadable as unreadable:
            if finish_reason == "length":
                return FormatFailure(why="the reply was cut off before its JSON object was ready")
            return FormatFailure(why=str(unreadable))

    def _call(self, said: dict[str, Any]) -> ReadCall:
        known = ("tool", "args", "prediction") if self._fields else ("tool", "args")
        for key in said:
            if key not in known:
                raise _Unreadable(f"there is no key {shown(key)}; there are: {_listed(known)}")
        tool, arguments = said["tool"], said.get("args")
        if not isinstance(tool, str):
            raise _Unreadable(f'"tool" must be the name of a tool, not {shown(tool)}')
        if "args" not in said:
            raise _Unreadable('"args" is missing')
        if not isinstance(arguments, dict):
            raise _Unreadable(f'"args" must be an object, not {shown(arguments)}')
        for part in (tool, *_texts(arguments)):
            if PLACEHOLDER.fullmatch(part):
                raise _Unreadable(f"{shown(part)} is a placeholder: put what you mean in its place")
        card = None
        if said.get("prediction") is not None:
            card = self._card(said["prediction"], tool)
        elif self._card_is_demanded:
            raise _Unreadable('"prediction" is missing')
        return ReadCall(tool=tool, arguments=arguments, card=card)

    def _card(self, said: object, tool: str) -> Card:
        if not isinstance(said, dict):
            raise _Unreadable(f'"prediction" must be an object, not {shown(said)}')
        for name in said:
            if name not in self._fields:
                raise _Unreadable(
                    f"the prediction has no key {shown(name)}; it has: {_listed(self._fields)}"
                )
        values: dict[str, Any] = {}
        is_offered = self._offered is None or tool in self._offered
        for name, field in self._fields.items():
            value = said.get(name)
            is_demanded = field.is_demanded_of(tool) and (is_offered or field.tools is None)
            if _says_nothing(field, value) and not is_demanded:
                continue
            if name not in said:
                raise _Unreadable(f'"{name}" is missing from the prediction')
            wrong = _misfit(field, value)
            if wrong is not None:
                raise _Unreadable(f'"{name}" must be {wrong}')
            values[name] = value
        return _card_of(values)


def _card_of(values: dict[str, Any]) -> Card:
    """The card; what it says of itself is kept apart from what it predicts."""
    said = {name: values.pop(name) for name in Reflection.__struct_fields__ if name in values}
    if not said:
        return Card(**values)
    for name, value in said.items():
        is_list = isinstance(value, list)
        said[name] = tuple(map(_storable, value)) if is_list else _storable(value)
    return Card(**values, reflection=Reflection(**said))


def _storable(text: str) -> str:
    """The text, unless it holds half characters that no log can hold."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _says_nothing(field: CardField, value: object) -> bool:
    if isinstance(value, str) and field.kind in ("text", "reasoning"):
        return not value.strip()
    return value is None or (field.kind == "texts" and value == [])


def _misfit(field: CardField, value: object) -> str | None:
    """What the value should have been, in words, and what it is; None if it fits."""
    match field.kind:
        case "boolean":
            wanted = None if isinstance(value, bool) else "true or false"
        case "number":
            # A comparison, so that an infinity is refused too.
            wanted = None if _is_number(value, -LARGEST_AMOUNT, LARGEST_AMOUNT) else "a number"
        case "share":
            wanted = None if _is_number(value, 0, 1) else "a number from 0 to 1"
        case "tool":
            is_name = _is_text(value) and len(value) <= LONGEST_NAME and value.isprintable()
            wanted = None if is_name else "the name of a tool"
        case "text":
            wanted = None if _is_text(value) else "a text"
        case "reasoning":
            wanted = None if _is_text(value) else "a text"
            if _is_text(value) and (words := len(value.split())) > MOST_WORDS:
                return f"at most {MOST_WORDS} words, not {words}"
        case "texts":
            wanted = f"a list of 1 to {MOST_ALTERNATIVES} texts"
            if isinstance(value, list) and all(_is_text(item) for item in value):
                if 1 <= len(value) <= MOST_ALTERNATIVES:
                    return None
                return f"{wanted}, not of {len(value)}"
    return None if wanted is None else f"{wanted}, not {shown(value)}"


def _is_number(value: object, least: float, most: float) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and least <= value <= most  # type: ignore[operator]


def _is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text that says something: neither empty nor a placeholder."""
    return isinstance(value, str) and bool(value.strip()) and not PLACEHOLDER.fullmatch(value)


def _texts(value: object) -> Iterator[str]:
    """All texts in a JSON value, names of keys too, however deep."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list):
            waiting += value


def _single_object(text: str, *, with_key: str) -> dict[str, Any]:
    """The only object of the text with this key, standing by itself."""
    if not text.strip():
        raise _Unreadable("the reply is empty")
    text = _answer(text)
    found = [(place, said) for place, said in _objects(text, with_key) if with_key in said]
    if not found:
        raise _Unreadable(f'there is no JSON object with "{with_key}" in the reply')
    if len(found) > 1:
        raise _Unreadable(f"there are {len(found)} calls in the reply: make exactly one")
    place, said = found[0]
    before = text[:place]
    fences = FENCE.findall(before)  # their languages
    if len(fences) % 2 and fences[-1].lower() not in ("", "json"):
        raise _Unreadable(f"the call is inside of {shown(fences[-1])} code: reply with JSON alone")
    if CODE_BEFORE.search(before[-LOOKED_BACK:]):
        raise _Unreadable("the call is inside of code or a list: reply with one JSON object alone")
    return said


def _answer(text: str) -> str:
    """The text without a thought in tags that leads it: what is weighed there is not said yet."""
    # Engines have told thoughts and answer apart already, in every model's words: what is left to
    # read here is what an engine of somebody else's hands through.
    opened = opening(text, TAGS)
    if opened is None:
        return text
    _, closed, answer = text.lstrip().removeprefix(opened.start).partition(opened.end)
    if not closed:
        raise _Unreadable("the reply ends inside of its thoughts")
    return answer


def _objects(text: str, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The outermost JSON objects of the text, each with its place.

    Braces that hold no JSON are skipped with all that they hold, unless they hold the key.
    """
    place = text.find("{")
    while place >= 0:
        try:
            said, end = _DECODER.raw_decode(text, place)
            yield place, said
        except (ValueError, RecursionError):
            closing = _closing(text, place)
            if closing is None:
                raise _Unreadable("the JSON object in the reply does not end") from None
            end = closing
            if re.search(rf"""["']{key}["']""", text[place:end]):
                raise _Unreadable("the object with the call is no valid JSON") from None
        place = text.find("{", end)


def _closing(text: str, place: int) -> int | None:
    """Just behind the brace that closes the one at `place`; None: none does."""
    depth = 0
    for brace in BRACE.finditer(text, place):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object none of whose keys is named twice: its second value would hide the first."""
    said: dict[str, Any] = {}
    for key, value in pairs:
        if key in said:
            raise _Unreadable(f"the key {shown(key)} is named twice in one object")
        said[key] = value
    return said


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)
