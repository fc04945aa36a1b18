"""What a schema, a dataclass of dataclasses, says of its settings: keys, types, defaults."""

import functools
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

Plain: TypeAlias = dict[str, Any]
"""Nested plain data of a whole section."""

CONTAINERS = (tuple, list, dict)


def defaults(schema: type) -> Plain:
    """Every setting that has a default, as nested plain data."""
    return {name: value for name, value in field_defaults(schema).items() if value is not MISSING}


def setting_keys(schema: type) -> tuple[str, ...]:
    """The dotted keys of all settings, in the schema's order; sections are not among them."""
    return tuple(key for key, section in keys_of(schema) if not section)


@functools.cache
def nullable_mappings(schema: type) -> frozenset[str]:
    """Dotted keys of the settings that are a mapping or null."""
    return frozenset(_nullable_mappings(schema, ""))


def _nullable_mappings(schema: type, prefix: str) -> Iterator[str]:
    for name, (_, hint) in fields_of(schema).items():
        if (section := dataclass_in(hint)) is not None:
            yield from _nullable_mappings(section, f"{prefix}{name}.")
        elif takes_null(hint) and any(get_origin(each) is dict for each in alternatives(hint)):
            yield prefix + name


@functools.cache
def settings_out_of_id(schema: type) -> tuple[str, ...]:
    """Dotted keys of the settings whose field has the metadata ``not_in_id``: a word on why they
    define no run."""
    return tuple(_out_of_id(schema, ""))


def _out_of_id(schema: type, prefix: str) -> Iterator[str]:
    for name, (field, hint) in fields_of(schema).items():
        if (section := dataclass_in(hint)) is not None:
            yield from _out_of_id(section, f"{prefix}{name}.")
        elif "not_in_id" in field.metadata:
            yield prefix + name


@functools.cache
def fields_of(schema: type) -> dict[str, tuple["Field[Any]", Any]]:
    """Each field of a dataclass with its resolved type."""
    hints = get_type_hints(schema)
    return {field.name: (field, hints[field.name]) for field in fields(schema)}


@functools.cache
def keys_of(schema: type) -> tuple[tuple[str, bool], ...]:
    """Each dotted key of the schema, and whether it is a section."""
    return tuple(_walk_from(schema, ""))


def _walk_from(schema: type, prefix: str) -> Iterator[tuple[str, bool]]:
    for name, (_, hint) in fields_of(schema).items():
        section = dataclass_in(hint)
        yield prefix + name, section is not None
        if section is not None:
            yield from _walk_from(section, f"{prefix}{name}.")


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types a union is made of, ``None`` left out; one for a type that is no union."""
    args = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return tuple(arg for arg in args if arg is not type(None))


def takes_null(hint: Any) -> bool:
    """Whether the type allows ``None``."""
    return hint is type(None) or type(None) in get_args(hint)


def dataclass_in(hint: Any) -> type | None:
    """The dataclass a field holds, or None if it holds a value."""
    for alternative in alternatives(hint):
        if is_dataclass(alternative):
            return cast(type, alternative)
    return None


def _plain(value: Any) -> Any:
    """A default as plain data."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return value


def field_defaults(schema: type) -> Plain:
    """Per field its default as plain data, or MISSING where a value must be given."""
    found: Plain = {}
    for name, (field, hint) in fields_of(schema).items():
        section = dataclass_in(hint)
        if field.default is not MISSING:
            found[name] = _plain(field.default)
        elif field.default_factory is not MISSING:
            found[name] = _plain(field.default_factory())
        elif section is not None and not takes_null(hint):
            found[name] = field_defaults(section)
        else:
            found[name] = MISSING
    return found
