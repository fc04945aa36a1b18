"""Composes a phase file, what it inherits and the command line's overrides; checks no value."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from vendomini.config.translation import Translator, leaves
from vendomini.errors import ConfigError
from vendomini.schema import Words, at_or_in, shown, texts_in, todays_value
from vendomini.yamlfile import Document, parse_value

INHERIT, GRID, FIXED = "inherit", "grid", "fixed"
PARTS = (INHERIT, GRID, FIXED)
"""Top-level keys of a phase file that are no sections of settings."""

Tree: TypeAlias = dict[str, Any]
"""Nested plain data."""


@dataclass(slots=True, kw_only=True)
class Draft:
    """A phase while it is composed: the parts of its file, and where each key was written.

    `grid` and `fixed` have dotted keys. `overridden` are the settings that the command line set.
    `translator` understands the words of older files; None: there are none.
    """

    path: Path
    translator: Translator | None
    mappings: AbstractSet[str]
    sections: Tree = field(default_factory=dict)
    grid: Tree = field(default_factory=dict)
    fixed: Tree = field(default_factory=dict)
    overridden: list[str] = field(default_factory=list)
    places: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def place(self, key: str) -> str:
        """Where `key`, or what it is in, was written last; the file's path if nowhere."""
        while key and key not in self.places:
            key = key[: max(key.rfind("."), key.rfind("["), 0)]
        return self.places.get(key, f"{self.path}")

    def part(self, name: str) -> Tree:
        """The part of a file that a top-level key other than `inherit` names."""
        return {GRID: self.grid, FIXED: self.fixed}[name]

    def put(self, key: str, value: Any, place: str) -> None:
        """Set the setting at a dotted key, making the sections it is in.

        Raises `ConfigError` if what should be a section is a value.
        """
        *sections, last = key.split(".")
        inside = self.sections
        for depth, name in enumerate(sections, start=1):
            if inside.get(name) is None:
                inside[name] = {}
            if not isinstance(inside[name], dict):
                above = ".".join(sections[:depth])
                raise ConfigError(
                    f"{self.place(above)}: `{above}` is `{shown(inside[name])}`, no section, so "
                    f"that `{key}` cannot be set ({place})",
                    hint=f"`{above}` must be a section of settings for that",
                )
            inside = inside[name]
        inside[last] = value
        self.places[key] = place


def compose(
    documents: Sequence[Document],
    overrides: Sequence[str],
    *,
    translator: Translator | None,
    mappings: AbstractSet[str] = frozenset(),
) -> Draft:
    """The parts of a phase file, the last of the documents, of all it inherits, and of the
    overrides, in this order.

    `mappings` are the dotted keys of settings that are mappings or nothing: unlike a section, one
    is emptied by `null` or `{}`. What older files say is translated, each file for itself, with a
    note. Raises `ConfigError`
    for a part that is no mapping, and an override that is not ``KEY=VALUE``.
    """
    draft = Draft(path=documents[-1].path, translator=translator, mappings=mappings)
    for document in documents:
        if translator is not None:
            translation = translator.translate(document, parts=(FIXED, GRID))
            draft.notes += translation.notes
            _refuse_twice(draft, translation.document, is_old=bool(translation.notes))
            _add_document(draft, translation.document)
        else:
            _refuse_twice(draft, document, is_old=False)
            _add_document(draft, document)
    if translator is not None and draft.notes and (note := translator.remark(documents)):
        draft.notes.append(note)
    for override in overrides:
        _add_override(draft, override)
    return draft


def put_in_todays_words(draft: Draft, once: Mapping[str, Words]) -> None:
    """Give values that had another word once the word of today, each with a note.

    `once` are the older words of settings, by dotted key.
    """
    for key, words in once.items():
        *sections, last = key.split(".")
        inside: Any = draft.sections
        for name in sections:
            inside = inside.get(name) if isinstance(inside, dict) else None
        if isinstance(inside, dict) and last in inside:
            _renew(draft, inside, last, key, words)
        for part in (FIXED, GRID):
            values = draft.part(part)
            for name in [name for name in values if at_or_in(name, key)]:
                _renew(draft, values, name, f"{part}.{name}", words)


def written_last(
    documents: Sequence[Document], overrides: Sequence[str], section: str, name: str
) -> tuple[Any, str]:
    """What is said last of one setting, as it is written, and where; None if nothing is.

    For what must be known before anything else can be understood.
    """
    value, where = None, f"{documents[-1].path}"
    for document in documents:
        written = document.data.get(section)
        if isinstance(written, Mapping) and written.get(name) is not None:
            value, where = written[name], document.place(f"{section}.{name}")
    for override in overrides:
        key, _, text = override.partition("=")
        if key.strip() not in (section, f"{section}.{name}"):
            continue
        said = parse_value(text, f"override `{override}`", key.strip())
        if key.strip() == section:
            if not isinstance(said, Mapping) or name not in said:
                continue
            said = said[name]
        value, where = said, f"override `{override}`"
    return value, where


def _add_document(draft: Draft, document: Document) -> None:
    draft.places.update({key: document.place(key) for key in document.lines})
    for name, value in document.data.items():
        if name in PARTS and name != INHERIT:
            if not isinstance(value, Mapping) and value is not None:
                raise ConfigError(
                    f"{document.place(name)}: `{name}` is `{shown(value)}`, but it is a mapping",
                    hint=f"write its keys below `{name}:`, indented",
                )
            draft.part(name).update(_dotted(value or {}, name, document))
    own = {name: value for name, value in document.data.items() if name not in PARTS}
    draft.sections = _merged(draft.sections, own, draft.mappings)


def _refuse_twice(draft: Draft, document: Document, *, is_old: bool) -> None:
    """One file that says a setting in its section and otherwise under `fixed` means one of the two.
    Of a file in older words it is known which: `fixed` won."""
    fixed = document.data.get(FIXED)
    own = {name: value for name, value in document.data.items() if name not in PARTS}
    written = dict(leaves(own))
    for key, value in leaves(fixed) if isinstance(fixed, Mapping) else ():
        if key not in written or written[key] == value:  # a composed phase repeats what is fixed
            continue
        places = f"{document.place(f'{FIXED}.{key}')}: `{key}` is `{shown(value)}` under `{FIXED}`"
        other = f"`{shown(written[key])}` in its section ({document.place(key)})"
        if is_old:
            draft.notes.append(f"{places}, which wins over {other}")
            continue
        raise ConfigError(
            f"{places}, and {other}", hint="remove one of the two: one file gives a setting once"
        )


def _dotted(nested: Mapping[str, Any], part: str, document: Document) -> Tree:
    """A part's values by dotted key, whether its keys were written dotted or nested."""
    found: Tree = {}
    for key, value in leaves(nested):
        if key in found:
            raise ConfigError(
                f"{document.place(f'{part}.{key}')}: `{part}` has `{key}` twice, once nested",
                hint="remove one of the two",
            )
        found[key] = value
    return found


def _merged(
    below: Mapping[str, Any],
    above: Mapping[str, Any],
    mappings: AbstractSet[str],
    prefix: str = "",
) -> Tree:
    """Mappings merge, anything else is replaced by what is above."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        # `section:` with nothing below it takes nothing away from what it inherits.
        key = f"{prefix}{name}"
        empty = isinstance(old, Mapping) and value is None and key not in mappings
        if old is not None and (both or empty):
            merged[name] = _merged(old, value or {}, mappings, f"{key}.")
        else:
            merged[name] = value
    return merged


def _add_override(draft: Draft, override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    where = f"override `{override}`"
    if not equals or not key or not all(key.split(".")):
        raise ConfigError(
            f"{where}: not of the form KEY=VALUE",
            hint="write a dotted key, `=`, and a YAML value, such as `engine.concurrency=100`",
        )
    try:
        override.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{where!a}: not UTF-8 text", hint="write it as UTF-8") from None
    value = parse_value(text, where, key)
    part, _, inner = key.partition(".")
    if part == INHERIT:
        raise ConfigError(f"{where}: `inherit` acts in files only", hint="name that file as FILE")
    if part not in PARTS:
        _override(draft, key, value, where)
    elif inner:
        _override_part(draft, part, inner, value, where)
    elif isinstance(value, Mapping):
        for name, item in leaves(value):
            _override_part(draft, part, name, item, where)
    elif value is None:
        draft.part(part).clear()
    else:
        raise ConfigError(
            f"{where}: `{part}` is a mapping", hint=f"write `{part}.KEY=VALUE`, or `{part}=null`"
        )


def _override(draft: Draft, key: str, value: Any, where: str) -> None:
    """Set a setting or a section's settings, so that neither grid nor `fixed` hides it."""
    if isinstance(value, Mapping) and (value or key not in draft.mappings):
        for name, item in leaves(value, f"{key}."):
            _override(draft, name, item, where)
        return
    today, value = _todays(draft, key, value, where, is_axis=False)
    if today is None:
        return
    key = today
    if (axis := draft.grid.pop(key, None)) is not None:
        several = f"of {len(axis)} values " if isinstance(axis, list) else ""
        draft.notes.append(f"{where} replaces the axis {several}by one value")
    draft.fixed.pop(key, None)
    draft.overridden.append(key)
    draft.put(key, value, where)


def _override_part(draft: Draft, part: str, key: str, value: Any, where: str) -> None:
    if part == FIXED:
        _override(draft, key, value, where)
        return
    if part == GRID:
        today, value = _todays(draft, key, value, where, is_axis=True)
        assert today is not None  # an axis that never acted is refused
        key = today
        draft.fixed.pop(key, None)
    draft.part(part)[key] = value
    full = f"{part}.{key}"
    draft.places = {k: p for k, p in draft.places.items() if not k.startswith(f"{full}[")}
    draft.places[full] = where


def _todays(
    draft: Draft, key: str, value: Any, where: str, *, is_axis: bool
) -> tuple[str | None, Any]:
    """An override's key and value in today's words; no key: it never acted."""
    if draft.translator is None:
        return key, value
    today, value, notes = draft.translator.translate_setting(key, value, where, is_axis=is_axis)
    draft.notes += notes
    return today, value


def _renew(draft: Draft, inside: Tree, name: str, key: str, words: Words) -> None:
    before = inside[name]
    inside[name] = todays_value(before, words)
    if inside[name] is not before:
        older = [text for text in words if text in texts_in(before)]
        said = ", ".join(f"`{text}` means `{words[text]}`" for text in older)
        draft.notes.append(f"{draft.place(key)}: {said}")
