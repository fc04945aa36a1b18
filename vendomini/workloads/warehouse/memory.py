"""An agent's own notes: a scratchpad of lines, and values by key.

They are the agent's and nothing else's: the world does not read them, and a conversation that is
cut does not lose them. A write says only that it succeeded, so that writing the same thing over
and over is the same call with the same result.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from vendomini.workloads.warehouse.arguments import Schema, shown
from vendomini.workloads.warehouse.settings import InterfaceSettings
from vendomini.workloads.warehouse.tools import Refused, Result, Tool, arguments_of

LONGEST_TEXT = 1_000  # characters of a line or a value
LONGEST_KEY = 64  # characters
LARGEST_PAD = 8_000  # characters of all lines
MOST_VALUES = 100
KEYS_NAMED = 12  # keys that a message names, the newest

Act: TypeAlias = Callable[[Mapping[str, Any]], Result]
"""What a call does with arguments that fit its schema; returns what its result says besides
`success`. Raises `Refused`."""

_LONG: Schema = {"type": "string", "maxLength": LONGEST_TEXT}
_KEY: Schema = {"type": "string", "maxLength": LONGEST_KEY}

SCRATCHPAD = (
    Tool(
        name="tool_write_scratchpad",
        description="Add a line to your scratchpad, which stays when old days leave this "
        "conversation.",
        schema=arguments_of(text=_LONG),
    ),
    Tool(
        name="tool_read_scratchpad",
        description="The lines of your scratchpad.",
        schema=arguments_of(),
    ),
    Tool(
        name="tool_delete_scratchpad",
        description="Empty your scratchpad.",
        schema=arguments_of(),
    ),
)
VALUES = (
    Tool(
        name="tool_set_value",
        description="Keep a value under a key, in place of the one before; it stays too.",
        schema=arguments_of(key=_KEY, value=_LONG),
    ),
    Tool(
        name="tool_get_value",
        description="The value kept under a key.",
        schema=arguments_of(key=_KEY),
    ),
    Tool(
        name="tool_delete_value",
        description="Drop a key and its value.",
        schema=arguments_of(key=_KEY),
    ),
)


def memory_tools(interface: InterfaceSettings) -> tuple[Tool, ...]:
    """The tools of `agent.interface.memory_tools`, in a fixed order."""
    match interface.memory_tools:
        case "none":
            return ()
        case "basic":
            return SCRATCHPAD
        case "full":
            return SCRATCHPAD + VALUES


class Memory:
    """The notes of one run."""

    __slots__ = ("acts", "lines", "values")

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.values: dict[str, str] = {}  # the key set last comes last
        self.acts: Mapping[str, Act] = {
            "tool_write_scratchpad": self._write,
            "tool_read_scratchpad": self._read,
            "tool_delete_scratchpad": self._empty,
            "tool_set_value": self._set,
            "tool_get_value": self._get,
            "tool_delete_value": self._delete,
        }

    def _write(self, arguments: Mapping[str, Any]) -> Result:
        text: str = arguments["text"]
        held = sum(len(line) for line in self.lines)
        if held + len(text) > LARGEST_PAD:
            raise Refused(
                "no_room",
                f"the scratchpad holds `{held}` characters in `{len(self.lines)}` lines, at most "
                f"`{LARGEST_PAD}`: `{len(text)}` more do not fit; tool_delete_scratchpad empties "
                "it",
            )
        self.lines.append(text)
        return {}

    def _read(self, arguments: Mapping[str, Any]) -> Result:
        return {"lines": list(self.lines)}

    def _empty(self, arguments: Mapping[str, Any]) -> Result:
        self.lines.clear()
        return {}

    def _set(self, arguments: Mapping[str, Any]) -> Result:
        key: str = arguments["key"]
        if key not in self.values and len(self.values) >= MOST_VALUES:
            raise Refused(
                "no_room",
                f"`{len(self.values)}` values are kept, and there can be no more: "
                f"{keys_listed(self.values)}; tool_delete_value drops one",
            )
        self.values.pop(key, None)
        self.values[key] = arguments["value"]
        return {}

    def _get(self, arguments: Mapping[str, Any]) -> Result:
        return {"value": self.values[self._known(arguments["key"])]}

    def _delete(self, arguments: Mapping[str, Any]) -> Result:
        del self.values[self._known(arguments["key"])]
        return {}

    def _known(self, key: str) -> str:
        if key not in self.values:
            there = keys_listed(self.values)
            raise Refused("unknown_id", f"there is no value {shown(key)}; there are: {there}")
        return key


def keys_listed(keys: Iterable[str], named: int = KEYS_NAMED) -> str:
    """The keys for a message, the newest `named` of them, the very newest last."""
    names = [shown(key) for key in keys]
    if len(names) <= named:
        return ", ".join(names) or "none"
    return f"{len(names) - named} older ones, " + ", ".join(names[-named:])
