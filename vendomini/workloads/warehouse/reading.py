"""Reading a reply: the call it makes, or why none can be read from it.

Found leniently: the JSON object may have prose round it, or stand in a fence without a
language or with ``json``. Read strictly: there must be exactly one call, as valid JSON, with
the keys asked for and no others, and it must stand by itself, not inside of code or a list.

What is wrong with a call that can be read, such as an unknown tool or a wrong argument, is
for the world to say: that is behaviour. What is not read here is a *format failure*, and
never a call.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vendomini.chat import FinishReason
from vendomini.workloads.warehouse.arguments import shown
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.card_fields import CardField, card_fields
from vendomini.workloads.warehouse.settings import InterfaceSettings

PLACEHOLDER = re.compile(r"\s*<[^<>]*>\s*")
LARGEST_AMOUNT = 1e12  # as cards.Amount has it
LONGEST_NAME = 80  # characters of the tool announced as next
CODE_BEFORE = "=([{"  # what opens code or a list; in prose none of these leads an object


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


class _Unreadable(Exception):
    """Ends the reading; never leaves this module. Its text is the `why`."""


class Reader:
    """Reads the replies of one run, by what its interface asks for."""

    __slots__ = ("_fields", "_mode")

    def __init__(self, interface: InterfaceSettings) -> None:
        self._mode = interface.prediction_mode
        self._fields = {
            field.name: field
            for field in card_fields(interface.prediction_format)
            if interface.prediction_mode != "none"
        }

    def read(self, text: str, finish_reason: FinishReason = "stop") -> ReadCall | FormatFailure:
        """Takes any text at all, and never raises."""
        try:
            return self._call(_single_object(text))
        except _Unreadable as unreadable:
            if finish_reason == "length":
                return FormatFailure(why="the reply was cut off before its JSON object was ready")
            return FormatFailure(why=str(unreadable))

    def _call(self, said: dict[str, Any]) -> ReadCall:
        known = ("tool", "args") if self._mode == "none" else ("tool", "args", "prediction")
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
        for part in (tool, *arguments, *arguments.values()):
            if isinstance(part, str) and PLACEHOLDER.fullmatch(part):
                raise _Unreadable(f"{shown(part)} is a placeholder: put what you mean in its place")
        card = None
        if "prediction" in said:
            card = self._card(said["prediction"], tool)
        elif self._mode == "required":
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
        for name, field in self._fields.items():
            value = said.get(name)
            if value is None and not field.belongs_to(tool):
                continue
            if name not in said:
                raise _Unreadable(f'"{name}" is missing from the prediction')
            wrong = _misfit(field, value)
            if wrong is not None:
                raise _Unreadable(f'"{name}" must be {wrong}, not {shown(value)}')
            values[name] = value
        return Card(**values)


def _misfit(field: CardField, value: object) -> str | None:
    """What the value should have been, in words; None if it fits."""
    match field.kind:
        case "boolean":
            return None if isinstance(value, bool) else "true or false"
        case "number":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            # A comparison, so that an infinity is refused too.
            if is_number and -LARGEST_AMOUNT <= value <= LARGEST_AMOUNT:  # type: ignore[operator]
                return None
            return "a number"
        case "tool":
            is_name = (
                isinstance(value, str)
                and len(value) <= LONGEST_NAME
                and value.isprintable()
                and not PLACEHOLDER.fullmatch(value)
            )
            return None if is_name else "the name of a tool"


def _single_object(text: str) -> dict[str, Any]:
    """The only object with a "tool" in the text, standing by itself."""
    if not text.strip():
        raise _Unreadable("the reply is empty")
    calls = [(place, said) for place, said in _objects(text) if "tool" in said]
    if not calls:
        raise _Unreadable('there is no JSON object with "tool" in the reply')
    if len(calls) > 1:
        raise _Unreadable(f"there are {len(calls)} calls in the reply: make exactly one")
    place, said = calls[0]
    before = text[:place]
    fences = before.split("```")
    language = re.match(r"[^\s{]*", fences[-1])
    inside = len(fences) % 2 == 0
    if inside and language is not None and language[0].lower() not in ("", "json"):
        raise _Unreadable(f"the call is inside of {shown(language[0])} code: reply with JSON alone")
    if before.rstrip()[-1:] and before.rstrip()[-1] in CODE_BEFORE:
        raise _Unreadable("the call is inside of code or a list: reply with one JSON object alone")
    return said


def _objects(text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The outermost JSON objects of the text, each with its place, in time linear in the text.

    Braces that hold no JSON are skipped with all that they hold, unless they try to be a call.
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
            if re.search(r"""["']tool["']""", text[place:end]):
                raise _Unreadable("the object with the call is no valid JSON") from None
        place = text.find("{", end)


def _closing(text: str, place: int) -> int | None:
    """Just behind the brace that closes the one at `place`; None: none does."""
    depth = 0
    for brace in re.finditer(r"[{}]", text[place:]):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return place + brace.end()
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
