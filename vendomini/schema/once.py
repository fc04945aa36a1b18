"""Values of settings that had another word once.

A field's metadata ``once`` has today's word by each older one: ``{"small": "low"}``. An older word
is read as today's wherever it stands, in a phase file with a note. Ids go on with the word that
runs were first hashed under: of several older words for one of today's, the first that is listed.
"""

import functools
import operator
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from vendomini.schema.fields import dataclass_in, fields_of

Words: TypeAlias = Mapping[str, str]
"""Today's word by the older one."""


@functools.cache
def words_once(schema: type) -> Mapping[str, Words]:
    """By dotted key, the older words of each setting that has some."""
    return dict(_words_once(schema, ""))


def _words_once(schema: type, prefix: str) -> Iterator[tuple[str, Words]]:
    for name, (field, hint) in fields_of(schema).items():
        if (section := dataclass_in(hint)) is not None:
            yield from _words_once(section, f"{prefix}{name}.")
        elif "once" in field.metadata:
            yield prefix + name, field.metadata["once"]


def todays_words(settings: Mapping[str, Any], schema: type) -> Mapping[str, Any]:
    """Nested plain settings in today's words: themselves, where nothing had another."""
    for key, words in words_once(schema).items():
        settings = _at(settings, key, words)
    return settings


def todays_value(value: Any, words: Words) -> Any:
    """A setting's value, or each item of it, in today's word: itself, if it had no other."""
    if isinstance(value, str):
        return words.get(value, value)
    if isinstance(value, list | tuple):
        items = [todays_value(item, words) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    if isinstance(value, Mapping):
        named = {name: todays_value(item, words) for name, item in value.items()}
        return value if all(map(operator.is_, named.values(), value.values())) else named
    return value


def at_key(key: str, schema: type) -> Words:
    """The older words of the setting at a dotted key, or in the mapping at it; often none."""
    for name, words in words_once(schema).items():
        if at_or_in(key, name):
            return words
    return {}


def at_or_in(key: str, name: str) -> bool:
    """Whether a dotted key is that of the setting `name`, or of an entry of the mapping there."""
    return key == name or key.startswith(f"{name}.")


def texts_in(value: Any) -> Iterator[str]:
    """The texts that a setting's value is or has."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from texts_in(item)


def first_words(value: Any, words: Words) -> Any:
    """A setting's value in the words that ids have it in."""
    first: dict[str, str] = {}
    for old, today in words.items():
        first.setdefault(today, old)
    return todays_value(value, first)


def _at(settings: Mapping[str, Any], key: str, words: Words) -> Mapping[str, Any]:
    """What is not on the way to a value that changes is shared, not copied."""
    name, _, inner = key.partition(".")
    if name not in settings:
        return settings  # of before there was such a setting
    value = settings[name]
    if not inner:
        now = todays_value(value, words)
    else:
        now = _at(value, inner, words) if isinstance(value, Mapping) else value
    return settings if now is value else {**settings, name: now}
