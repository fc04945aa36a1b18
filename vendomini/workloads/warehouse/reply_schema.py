"""The JSON schema of a constrained reply: its shape, and that it ends.

No id, quantity or price of the world is in it: a call that cannot be done must stay possible.
Its bounds are generic. With them every reply that a grammar lets through is finite, whatever
the model: a text is printable ASCII without quotes and backslashes (xgrammar lets raw control
characters through where only a length is given), a list is short, a number has few digits.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from vendomini.workloads.warehouse.arguments import Schema
from vendomini.workloads.warehouse.card_fields import CardField, card_fields
from vendomini.workloads.warehouse.settings import InterfaceSettings
from vendomini.workloads.warehouse.tools import Tool

TEXT_PATTERN = r"^[ !#-\[\]-~]{0,32}$"
MOST_ITEMS = 16
LARGEST = 1_000_000_000  # of a number, either sign


def reply_schema(tools: tuple[Tool, ...], interface: InterfaceSettings) -> str:
    """The schema as JSON text: one alternative for each tool, in the order of the tools."""
    fields = () if interface.prediction_mode == "none" else card_fields(interface.prediction_format)
    required = interface.prediction_mode != "optional"
    alternatives = [_reply(tool, tools, fields, card_required=required) for tool in tools]
    return msgspec.json.encode({"anyOf": alternatives}).decode()


def _reply(
    tool: Tool, tools: tuple[Tool, ...], fields: tuple[CardField, ...], *, card_required: bool
) -> Schema:
    arguments = {name: _bounded(schema) for name, schema in tool.schema["properties"].items()}
    properties: dict[str, Schema] = {"tool": {"const": tool.name}, "args": _object(arguments)}
    required = ["tool", "args"]
    if fields:
        names = [offered.name for offered in tools]
        properties["prediction"] = _object(
            {field.name: _value(field, names) for field in fields if field.belongs_to(tool.name)}
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
        case "tool":
            return {"enum": tools}


def _bounded(schema: Schema) -> dict[str, Any]:
    """An argument's shape without the world's bounds, with generic ones."""
    if "anyOf" in schema:
        return {"anyOf": [_bounded(option) for option in schema["anyOf"]]}
    match schema["type"]:
        case "integer":
            return {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST}
        case "array":
            return {"type": "array", "items": _bounded(schema["items"]), "maxItems": MOST_ITEMS}
        case _:
            return {"type": "string", "pattern": TEXT_PATTERN}
