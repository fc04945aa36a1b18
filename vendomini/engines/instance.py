"""A value that a JSON schema accepts, drawn from a name: what the scripted engine answers where a
real one constrains its decoding. Pure."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from vendomini.errors import EngineError

Schema: TypeAlias = Mapping[str, Any]

MOST_ITEMS = 3
LARGEST = 100


class Draws:
    """Whole numbers that follow from a name: the same name, the same numbers."""

    def __init__(self, name: str) -> None:
        self._numbers = self._all(name)

    def below(self, end: int) -> int:
        """In 0 .. end - 1."""
        return next(self._numbers) % end

    @staticmethod
    def _all(name: str) -> Iterator[int]:
        count = 0
        while True:
            digest = hashlib.sha256(f"{name}/{count}".encode()).digest()
            yield int.from_bytes(digest[:8], "big")
            count += 1


def instance_of(schema: Schema, draws: Draws) -> Any:
    """A plain JSON value. Knows `const`, `enum`, `anyOf`, `oneOf`, references to `$defs` and the
    types with their bounds.

    Properties that are not required are left out half of the time. Raises `EngineError` for a
    schema it cannot read.
    """
    return _instance(schema, draws, schema.get("$defs", {}))


def _instance(schema: Schema, draws: Draws, shared: Mapping[str, Schema]) -> Any:
    reference = schema.get("$ref", "")
    if reference.removeprefix("#/$defs/") in shared:
        return _instance(shared[reference.removeprefix("#/$defs/")], draws, shared)
    if "const" in schema:
        return schema["const"]
    for choice in ("enum", "anyOf", "oneOf"):
        if choice in schema:
            picked = schema[choice][draws.below(len(schema[choice]))]
            return picked if choice == "enum" else _instance(picked, draws, shared)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[draws.below(len(kind))]
    match kind:
        case "object":
            required = schema.get("required", ())
            return {
                name: _instance(inner, draws, shared)
                for name, inner in schema.get("properties", {}).items()
                if name in required or draws.below(2)
            }
        case "array":
            least = schema.get("minItems", 0)
            most = max(least, min(schema.get("maxItems", MOST_ITEMS), MOST_ITEMS))
            count = least + draws.below(most - least + 1)
            return [_instance(schema["items"], draws, shared) for _ in range(count)]
        case "integer":
            return _number(schema, draws)
        case "number":
            return float(_number(schema, draws))
        case "boolean":
            return bool(draws.below(2))
        case "null":
            return None
        case "string":
            # Letters only, so that the simple patterns of our own schemas accept it.
            word = "abcdefghij"[draws.below(10)] * 4
            return word[: schema.get("maxLength", len(word))].ljust(schema.get("minLength", 0))
    raise EngineError(
        f"the scripted engine cannot answer by the schema {dict(schema)}",
        hint="use a script of replies, or a real engine",
    )


def _number(schema: Schema, draws: Draws) -> int:
    least = int(schema.get("minimum", 0))
    most = int(schema.get("maximum", least + LARGEST))
    low, high = max(least, min(0, most)), min(most, max(least, 0) + LARGEST)
    return low + draws.below(high - low + 1)
