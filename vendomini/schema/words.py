"""How errors name values, types and the nearest valid choice."""

import difflib
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal, get_args, get_origin

from vendomini.schema.fields import alternatives, takes_null

BOUNDS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "ge": ("at least", operator.ge),
    "gt": ("more than", operator.gt),
    "le": ("at most", operator.le),
    "lt": ("less than", operator.lt),
}
"""Field metadata that bound a number: in words, and as a test of value and bound."""

SCALARS = {bool: "`true` or `false`", int: "a whole number", float: "a number", str: "text"}


def nearest(key: str, choices: Collection[str]) -> str:
    """The choice most like `key`; dotted keys are compared as a whole and by their last part."""

    key = key.casefold()

    def likeness(choice: str) -> float:
        choice = choice.casefold()
        whole = difflib.SequenceMatcher(None, key, choice).ratio()
        last = difflib.SequenceMatcher(None, key.split(".")[-1], choice.split(".")[-1]).ratio()
        return whole + last + choice.endswith(f".{key}")

    return max(choices, key=likeness)


def shown(value: object) -> str:
    """The value as its YAML would be written, cut to a line, for messages."""
    text = "null" if value is None else '""' if value == "" else str(value)
    if isinstance(value, bool):
        text = text.lower()
    return text if len(text) <= 80 else f"{text[:77]}..."


def named(value: object) -> str:
    """What kind of value it is, in words."""
    names: dict[type, str] = {
        bool: "a boolean",
        int: "a whole number",
        float: "a number with a fraction",
        str: "text",
        dict: "a mapping",
        list: "a list",
        type(None): "no value",
    }
    return names.get(type(value), type(value).__name__)


def choices_of(hint: Any, metadata: Mapping[str, Any]) -> list[Any]:
    """The values that a setting's type or metadata name."""
    literals = [
        a for kind in alternatives(hint) if get_origin(kind) is Literal for a in get_args(kind)
    ]
    return [*literals, *metadata.get("choices", ())]


def expected(hint: Any, metadata: Mapping[str, Any]) -> str:
    """What a setting takes, in words: ``a whole number (at least 1), or `auto` ``."""
    said: list[str] = []
    for kind in alternatives(hint):
        origin = get_origin(kind)
        if kind in (int, float):
            bounds = [f"{w} {metadata[n]}" for n, (w, _) in BOUNDS.items() if n in metadata]
            said.append(SCALARS[kind] + (f" ({', '.join(bounds)})" if bounds else ""))
        elif kind is bool or (kind is str and "choices" not in metadata):
            said.append(SCALARS[kind])
        elif origin in (tuple, list):
            said.append(f"a list, each item {expected(get_args(kind)[0], metadata)}")
        elif origin is dict:
            said.append(f"a mapping, each value {expected(get_args(kind)[1], metadata)}")
        elif is_dataclass(kind):
            said.append("a section of settings")
    said += [f"`{shown(choice)}`" for choice in choices_of(hint, metadata)]
    if takes_null(hint):
        said.append("`null`")
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"
