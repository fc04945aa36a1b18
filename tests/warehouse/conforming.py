"""Replies that conform to a schema: what an engine that constrains its decoding can answer."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

Schema = Mapping[str, Any]


def conforming(schema: Schema, shared: Schema | None = None) -> st.SearchStrategy[Any]:
    """JSON values that the schema accepts, also at its bounds."""
    shared = schema.get("$defs", {}) if shared is None else shared
    if "$ref" in schema:
        return conforming(shared[schema["$ref"].removeprefix("#/$defs/")], shared)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of([conforming(option, shared) for option in schema["anyOf"]])
    match schema["type"]:
        case "object":
            members = {
                name: conforming(inner, shared) for name, inner in schema["properties"].items()
            }
            required = {name: members.pop(name) for name in schema["required"]}
            return st.fixed_dictionaries(required, optional=members)
        case "array":
            items = conforming(schema["items"], shared)
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=schema["maxItems"])
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "number":
            least, most = schema["minimum"], schema["maximum"]
            return st.one_of(st.integers(least, most), st.floats(least, most))
        case "boolean":
            return st.booleans()
    assert schema["type"] == "string"
    return st.from_regex(schema["pattern"], fullmatch=True)
