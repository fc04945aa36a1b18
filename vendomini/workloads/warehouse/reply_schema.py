"""The JSON schema of a constrained reply: its shape, and that it ends.

No id, quantity or price of the world is in it: a call that cannot be done must stay possible.
Its bounds are generic. With them every reply that a grammar lets through is finite, whatever
the model: a text is short printable ASCII without quotes and backslashes, a list is short, a
number has few digits. All that it lets through can be read.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from vendomini.workloads.warehouse.arguments import Schema
from vendomini.workloads.warehouse.card_fields import (
    MOST_ALTERNATIVES,
    MOST_WORDS,
    CardField,
    card_fields,
    card_is_demanded,
)
from vendomini.workloads.warehouse.settings import InterfaceSettings
from vendomini.workloads.warehouse.tools import Tool

CHARACTER = r"[ !#-\[\]-~]"
FIRST_CHARACTER = r"[!#-;=-\[\]-~]"  # no blank, and not `<`: no text is a placeholder
LONGEST_ID = 32  # characters of a text argument that has no longest length of its own
LONGEST_TEXT = 200  # characters of one that has
LONGEST_SAID = 80  # characters of a card's short text
# Characters that cannot be more than MOST_WORDS words. Each character of the longest text of a
# kind costs an engine some 30 ms of a core, once, to make the grammar for 128,000 tokens.
LONGEST_REASONING = 2 * MOST_WORDS - 1
REPEATED_AT_MOST = 100  # xgrammar 0.2 fails at a repetition of more than 128
MOST_ITEMS = 16
LARGEST = 1_000_000_000  # of a number, either sign


def reply_schema(tools: tuple[Tool, ...], interface: InterfaceSettings) -> str:
    """The schema as JSON text: one alternative for each tool, in the order of the tools."""
    fields = card_fields(interface)
    demanded = card_is_demanded(interface.prediction_mode)
    alternatives = [_reply(tool, tools, fields, card_required=demanded) for tool in tools]
    kinds = {field.kind for field in fields}
    # Once for all tools: an engine keeps a table for each character of each text.
    shared: dict[str, Schema] = {}
    if kinds & {"text", "texts"}:
        shared["text"] = _text(1, LONGEST_SAID)
    if "reasoning" in kinds:
        shared["reasoning"] = _text(1, LONGEST_REASONING)
    schema: dict[str, Any] = {"$defs": shared} if shared else {}
    return msgspec.json.encode(schema | {"anyOf": alternatives}).decode()


def _text(fewest: int, most: int) -> Schema:
    """A text of 0 or 1 .. `most` characters.

    By pattern, since xgrammar lets raw control characters through where only a length is given.
    """
    said = FIRST_CHARACTER + _repeated(most - 1)
    return {"type": "string", "pattern": f"^{said}$" if fewest else f"^({said})?$"}


def _repeated(most: int) -> str:
    """0 .. `most` characters, as a pattern.

    Never two repetitions of which either could take the next character: that costs xgrammar
    milliseconds a token.
    """
    if most <= REPEATED_AT_MOST:
        return f"{CHARACTER}{{0,{most}}}"
    fewer = REPEATED_AT_MOST - 1
    rest = _repeated(most - REPEATED_AT_MOST)
    return f"({CHARACTER}{{0,{fewer}}}|{CHARACTER}{{{REPEATED_AT_MOST}}}{rest})"


def _reply(
    tool: Tool, tools: tuple[Tool, ...], fields: tuple[CardField, ...], *, card_required: bool
) -> Schema:
    arguments = {name: _bounded(schema) for name, schema in tool.schema["properties"].items()}
    properties: dict[str, Schema] = {"tool": {"const": tool.name}, "args": _object(arguments)}
    required = ["tool", "args"]
    if fields:
        names = [offered.name for offered in tools]
        belonging = [field for field in fields if field.belongs_to(tool.name)]
        properties["prediction"] = _object(
            {field.name: _value(field, names) for field in belonging},
            required=[field.name for field in belonging if field.must_be_filled],
        )
        if card_required:
            required.append("prediction")
    return _object(properties, required=required)


def _object(properties: Mapping[str, Schema], *, required: list[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _value(field: CardField, tools: list[str]) -> Schema:
    match field.kind:
        case "boolean":
            return {"type": "boolean"}
        case "number":
            return {"type": "number", "minimum": -LARGEST, "maximum": LARGEST}
        case "share":
            return {"type": "number", "minimum": 0, "maximum": 1}
        case "tool":
            return {"enum": tools}
        case "text" | "reasoning":
            return {"$ref": f"#/$defs/{field.kind}"}
        case "texts":
            return {
                "type": "array",
                "items": {"$ref": "#/$defs/text"},
                "minItems": 1,
                "maxItems": MOST_ALTERNATIVES,
            }


def _bounded(schema: Schema) -> Schema:
    """An argument's shape without the world's bounds, with generic ones."""
    if "anyOf" in schema:
        return {"anyOf": [_bounded(option) for option in schema["anyOf"]]}
    match schema["type"]:
        case "integer":
            return {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST}
        case "array":
            return {"type": "array", "items": _bounded(schema["items"]), "maxItems": MOST_ITEMS}
        case _:
            most = min(schema["maxLength"], LONGEST_TEXT) if "maxLength" in schema else LONGEST_ID
            return _text(0, most)
