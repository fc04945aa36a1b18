"""Checking a call's arguments against its tool's JSON schema, and logging hostile ones.

The schemas use a small part of JSON Schema: ``type`` (object, array, string, integer),
``properties``, ``required``, ``additionalProperties: false``, ``minimum``, ``minItems``,
``maxItems``, ``items``, ``maxLength``, ``anyOf``. Stricter than the standard in two points: 10.0
is no integer, and a text with a longest length, which is kept, holds no half of a surrogate pair,
which no request could carry.
"""

import math
from collections.abc import Mapping
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]

SHOWN = 80  # characters of a wrong value that a message repeats
LOGGED = 500  # characters of a text, and items of a list, that the log keeps of a failed call
DEEPEST = 4  # levels of a failed call's arguments that the log keeps
LARGEST = 2**63 - 1  # of an integer in the log, which readers of JSON can hold


def violation(schema: Schema, arguments: object) -> str | None:
    """What is wrong with the arguments, in words for the agent; None if they fit."""
    if not isinstance(arguments, dict):
        return f"the arguments must be an object, not {shown(arguments)}"
    properties: Mapping[str, Schema] = schema["properties"]
    for name in arguments:
        if name not in properties:
            allowed = ", ".join(f"`{known}`" for known in properties) or "none"
            return f"there is no argument {shown(name)}; there are: {allowed}"
    for name in schema["required"]:
        if name not in arguments:
            return f"the argument `{name}` is missing"
    for name, value in arguments.items():
        wrong = _misfit(properties[name], value)
        if wrong:
            return f"the argument `{name}` must be {wrong}, not {shown(value)}"
    return None


def shown(value: object) -> str:
    """A value in backticks for a message: ASCII, and no longer than a line."""
    text = value if isinstance(value, str) else repr(loggable(value))
    text = text[: SHOWN + 1].encode("ascii", "backslashreplace").decode("ascii")
    return f"`{text}`" if len(text) <= SHOWN else f"`{text[:SHOWN]}...`"


def loggable(value: object, depth: int = 0) -> object:
    """The value as JSON can hold it, cut where it is long, deep or no JSON at all."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -LARGEST <= value <= LARGEST else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value[:LOGGED].encode("utf-8", "backslashreplace").decode("utf-8")
    if depth >= DEEPEST:
        return "..."
    if isinstance(value, list | tuple):
        return [loggable(item, depth + 1) for item in value[:LOGGED]]
    if isinstance(value, dict):
        return {
            str(loggable(key, DEEPEST)): loggable(item, depth + 1)
            for key, item in list(value.items())[:LOGGED]
        }
    return f"a {type(value).__name__}"


def _misfit(schema: Schema, value: object) -> str | None:
    """What the value should have been, in words; None if it fits."""
    if "anyOf" in schema:
        wishes = [_misfit(option, value) for option in schema["anyOf"]]
        return None if None in wishes else " or ".join(wish for wish in wishes if wish)
    if schema["type"] == "string":
        return _text_misfit(schema, value)
    if schema["type"] == "integer":
        least: int = schema["minimum"]
        if isinstance(value, int) and not isinstance(value, bool) and value >= least:
            return None
        return f"a whole number from {least} on"
    fewest, most = schema["minItems"], schema["maxItems"]
    if (
        isinstance(value, list)
        and fewest <= len(value) <= most
        and not any(_misfit(schema["items"], item) for item in value)
    ):
        return None
    return f"a list of {fewest} to {most} texts"


def _text_misfit(schema: Schema, value: object) -> str | None:
    if "maxLength" not in schema:
        return None if isinstance(value, str) else "a text"
    most: int = schema["maxLength"]
    wish = f"a text of at most {most} characters"
    if not isinstance(value, str):
        return wish
    if len(value) > most:
        return f"{wish} (this one has {len(value)})"
    return None if _is_sendable(value) else f"{wish} without halves of characters"


def _is_sendable(text: str) -> bool:
    """Whether the text can be written as UTF-8: it holds no half of a surrogate pair."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
