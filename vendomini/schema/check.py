"""Checks plain nested data against a schema: a frozen dataclass of frozen dataclasses.

The schema is the only place that knows a setting's type, default, bounds and choices; this
module turns it into answers and into errors that name the key, the place and the nearest valid
choice. It is stricter than a converter: nothing is coerced but a whole number where a number
with a fraction is wanted.

A field's type is ``bool``, ``int``, ``float``, ``str``, a ``Literal``, a union of these, another
dataclass, or a ``tuple[X, ...]``, ``list[X]`` or ``dict[str, X]`` of any of them, each possibly
``| None``. Field metadata: ``ge``, ``gt``, ``le``, ``lt`` bound its numbers; ``choices`` are the
only texts it takes (for unions such as ``int | str``; elsewhere a ``Literal`` says it better).

Plain data are what YAML and JSON hold: dict, list, str, int, float, bool, None.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, Literal, NoReturn, Protocol, TypeVar, get_args, get_origin

import msgspec

from vendomini.errors import ConfigError
from vendomini.schema.fields import (
    CONTAINERS,
    Plain,
    alternatives,
    dataclass_in,
    field_defaults,
    fields_of,
    keys_of,
    setting_keys,
    takes_null,
)
from vendomini.schema.words import BOUNDS, SCALARS, choices_of, expected, named, nearest, shown

T = TypeVar("T")


class Source(Protocol):
    """Where data come from, for error messages."""

    def place(self, key: str) -> str:
        """Such as ``configs/demo.yaml, line 7``, for a dotted key that may not be there."""
        ...


@dataclass(frozen=True, slots=True)
class Place:
    """A source without lines, such as the command line."""

    name: str

    def place(self, key: str) -> str:
        return self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """What one checking needs to word its errors."""

    schema: type
    source: Source
    also: tuple[str, ...] = ()  # keys that are valid, but handled elsewhere: for suggestions

    def fail(self, key: str, text: str, hint: str = "") -> NoReturn:
        raise ConfigError(f"{self.source.place(key)}: {text}", hint=hint)


def conform(data: Mapping[str, Any], schema: type[T], *, source: Source) -> T:
    """The instance of `schema` that `data` describe, defaults filled in.

    Raises `ConfigError` at the first key that is unknown, missing, of the wrong type, outside
    its choices or its range.
    """
    return msgspec.convert(complete(data, schema, source=source), schema)


def complete(
    data: Mapping[str, Any], schema: type, *, source: Source, also: Iterable[str] = ()
) -> Plain:
    """`data` checked, converted, and with every default filled in, as plain data.

    `also` are top-level keys that the caller understands and has taken out; a misspelt one is
    still recognised. Raises `ConfigError` as `conform` does.
    """
    check = _Check(schema=schema, source=source, also=tuple(also))
    return _section(data, schema, "", check, field_defaults(schema))


def check_value(schema: type, key: str, value: object, where: str) -> Any:
    """`value`, checked and converted for the setting at the dotted `key`, as plain data.

    `where` is the place named in errors. Raises `ConfigError` if there is no such setting (or it
    is a section), or the value does not fit it.
    """
    check = _Check(schema=schema, source=Place(where))
    setting = find_setting(schema, key, where)
    return _value(value, setting.hint, key, check, setting.metadata, MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of a schema: what its field says."""

    hint: Any
    metadata: Mapping[str, Any]

    @property
    def holds_several(self) -> bool:
        """Whether its values are lists or mappings."""
        return any(get_origin(hint) in CONTAINERS for hint in alternatives(self.hint))


def find_setting(schema: type, key: str, where: str, *, also: Iterable[str] = ()) -> Setting:
    """The setting at a dotted `key`; raises `ConfigError` if there is none, or it is a section."""
    section: type | None = schema
    for index, name in enumerate(parts := key.split(".")):
        if section is None or name not in (found := fields_of(section)):
            unknown_key(schema, key, where, also=also)
        field, hint = found[name]
        section = dataclass_in(hint)
        if section is None and index == len(parts) - 1:
            return Setting(hint=hint, metadata=field.metadata)
        inside = _mapping_in(hint)
        if inside is not None and index == len(parts) - 2:
            _check_name(parts[-1], inside, key.rpartition(".")[0], where)
            return Setting(hint=get_args(inside)[1], metadata=field.metadata)
    below = [name for name in setting_keys(schema) if name.startswith(f"{key}.")]
    raise ConfigError(
        f"{where}: `{key}` is a section, not a setting",
        hint=f"name one of its settings: {', '.join(below)}",
    )


def unknown_key(schema: type, key: str, where: str, *, also: Iterable[str] = ()) -> NoReturn:
    """Raise the `ConfigError` for a key that `schema` does not have."""
    keys = [name for name, _ in keys_of(schema)]
    raise ConfigError(
        f"{where}: there is no setting `{key}`",
        hint=f"did you mean `{nearest(key, [*keys, *also])}`?",
    )


def _section(data: object, schema: type, key: str, check: _Check, base: Plain) -> Plain:
    """A section's data over its defaults."""
    if not isinstance(data, Mapping):
        check.fail(
            key,
            f"`{key}` is `{shown(data)}`, but it is a section of settings",
            f"write settings below it, indented: {', '.join(fields_of(schema))}",
        )
    known = fields_of(schema)
    for name in data:
        if name not in known:
            _refuse_unknown(name, schema, key, check)
    done: Plain = {}
    for name, (field, hint) in known.items():
        full = f"{key}.{name}" if key else name
        if name in data:
            done[name] = _value(data[name], hint, full, check, field.metadata, base[name])
        elif base[name] is MISSING:
            check.fail(full, f"`{full}` is missing", f"give it: {expected(hint, field.metadata)}")
        else:
            done[name] = _filled(base[name], full, check)
    return done


def _filled(base: Any, key: str, check: _Check) -> Any:
    """A default, for a section that was not written; refuses one that has a hole."""
    if not isinstance(base, dict):
        return base
    for name, value in base.items():
        if value is MISSING:
            check.fail(key, f"`{key}.{name}` is missing", "give it")
        _filled(value, f"{key}.{name}", check)
    return base


def _refuse_unknown(name: object, schema: type, key: str, check: _Check) -> NoReturn:
    full = f"{key}.{name}" if key else f"{name}"
    if "." in str(name) and full in {found for found, _ in keys_of(check.schema)}:
        *sections, last = full.split(".")
        check.fail(
            full,
            f"`{name}` is written as one key with dots, which here is no setting",
            f"nest it: write `{last}:` inside the section `{'.'.join(sections)}`",
        )
    # Inside a list or mapping of sections, the keys of such a section are what can be meant.
    inside = [f"{key}.{found}" for found in fields_of(schema)] if key else []
    unknown_key(check.schema, full, check.source.place(full), also=(*check.also, *inside))


def _value(
    value: Any, hint: Any, key: str, check: _Check, metadata: Mapping[str, Any], base: Any
) -> Any:
    if (section := dataclass_in(hint)) is not None:
        if value is None:
            # `section:` with all of its lines commented out reads as null.
            if takes_null(hint):
                return None
            value = {}
        under = base if isinstance(base, dict) else field_defaults(section)
        return _section(value, section, key, check, under)
    if value is None and takes_null(hint):
        return None
    for alternative in alternatives(hint):
        origin, args = get_origin(alternative), get_args(alternative)
        if origin in (tuple, list) and isinstance(value, list | tuple):
            return _items(value, origin, args, key, check, metadata)
        if origin is dict and isinstance(value, Mapping):
            for name in value:
                _check_name(name, alternative, key, check.source.place(f"{key}.{name}"))
            return {
                name: _value(item, args[1], f"{key}.{name}", check, metadata, MISSING)
                for name, item in value.items()
            }
        if origin is Literal and any(value == arg and type(value) is type(arg) for arg in args):
            return value
        if origin is None and _is_scalar_of(value, alternative):
            return _in_range(value, alternative, hint, key, check, metadata)
    return _refuse_type(value, hint, key, check, metadata)


def _mapping_in(hint: Any) -> Any:
    """The mapping that a field may hold; None: it holds none."""
    return next((each for each in alternatives(hint) if get_origin(each) is dict), None)


def _check_name(name: str, mapping: Any, key: str, where: str) -> None:
    """Refuse a name that a mapping by some names only does not take."""
    names = [str(each) for each in choices_of(get_args(mapping)[0], {})]
    if names and name not in names:
        raise ConfigError(
            f"{where}: `{key}` has no entry `{shown(name)}`",
            hint=f"did you mean `{nearest(name, names)}`? Its entries are {', '.join(names)}",
        )


def _items(
    value: list[Any] | tuple[Any, ...],
    origin: Any,
    args: tuple[Any, ...],
    key: str,
    check: _Check,
    metadata: Mapping[str, Any],
) -> list[Any]:
    if origin is list or args[-1] is Ellipsis:
        hints = [args[0]] * len(value)
    elif len(value) == len(args):
        hints = list(args)
    else:
        check.fail(
            key, f"`{key}` has {len(value)} items, but takes {len(args)}", f"list {len(args)}"
        )
    return [
        _value(item, hint, f"{key}[{index}]", check, metadata, MISSING)
        for index, (item, hint) in enumerate(zip(value, hints, strict=True))
    ]


def _is_scalar_of(value: object, kind: Any) -> bool:
    if kind not in SCALARS:
        raise TypeError(f"a schema cannot hold a field of type {kind}")
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _in_range(
    value: Any, kind: Any, hint: Any, key: str, check: _Check, metadata: Mapping[str, Any]
) -> Any:
    if kind is str:
        choices = metadata.get("choices")
        if choices is not None and value not in choices:
            _refuse_type(value, hint, key, check, metadata)
        return value
    if kind is bool:
        return value
    if not math.isfinite(value):
        check.fail(
            key, f"`{key}` is `{value}`, which is not a finite number", "write a finite number"
        )
    if any(
        name in metadata and not holds(value, metadata[name]) for name, (_, holds) in BOUNDS.items()
    ):
        check.fail(
            key,
            f"`{key}` is `{shown(value)}`, which is outside its range",
            f"it takes {expected(hint, metadata)}",
        )
    # -0.0 is 0.0: they are one value, and must get one id.
    return float(value) + 0.0 if kind is float else value


def _refuse_type(
    value: object, hint: Any, key: str, check: _Check, metadata: Mapping[str, Any]
) -> NoReturn:
    kinds = alternatives(hint)
    choices = [str(choice) for choice in choices_of(hint, metadata)]
    advice = f"it takes {expected(hint, metadata)}"
    if isinstance(value, str) and {int, float, bool} & set(kinds) and _reads_as_number(value):
        advice += "; remove the quotes"
    elif isinstance(value, str) and choices:
        near = nearest(value, choices)
        check.fail(
            key,
            f"`{key}` is `{shown(value)}`, which is not among its choices",
            f"did you mean `{near}`? It takes {expected(hint, metadata)}",
        )
    elif isinstance(value, int | float) and (str in kinds or choices):
        advice += "; put it in quotes if it is meant as text"
    elif isinstance(value, list | tuple):
        advice += f"; several values belong in the grid, as `grid.{key}`"
    check.fail(key, f"`{key}` is `{shown(value)}`, which is {named(value)}", advice)


def _reads_as_number(text: str) -> bool:
    if text in ("true", "false"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True
