"""The predecessor's phase files in today's words: its sections, keys and names of models.

Pure: data and the lines they stand in come in, the same data under today's keys go out, with
notes that say what was translated. Only files of the warehouse are read so: a workload of
somebody's own may well have a section `env`.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

from vendomini.config import Translation, leaves
from vendomini.errors import ConfigError
from vendomini.identity import is_local
from vendomini.schema import shown
from vendomini.yamlfile import Document

RENAMED: Mapping[str, str] = {
    "env": "simulation",
    "model": "agent.model",
    "interface": "agent.interface",
    "max_steps": "simulation.max_steps",
}
"""What a dotted key of the predecessor begins with, and what that is today."""

NEVER_ACTED = (
    "paths",
    "measurement.crash_threshold",
    "measurement.success_metric",
    "measurement.log_every_n_steps",
    "measurement.checkpoint_every_n_steps",
)
"""Sections and settings of its base file that nothing read, and that have no counterpart."""

ACTS_NOW = (
    "fixed",
    "max_steps_by_level",
    "env",
    "agent.interface",
    "interface",
    "agent.model.context_length",
    "model.context_length",
)
"""What its files say and its program did not do."""

UNREAD: Mapping[str, str] = {
    "environment": "write `environment` as `simulation`, and its shocks as `pe_induction`",
    "pe_tracking": "write `pe_tracking` as `measurement.pe_windows`",
    "crash_detection": "write `crash_detection` as `crash_detector`",
    "logging": "leave `logging` out: every step is logged",
    "runs_per_config": "write `runs_per_config` as `experiment.replications`",
    "logs_dir": "leave `logs_dir` out: experiments are kept below --root",
    "results_dir": "leave `results_dir` out: `vendomini collect` has --out",
    "checkpoints_dir": "leave `checkpoints_dir` out: experiments are kept below --root",
}
"""Keys of its other layouts that mean nothing here, and what to do about each."""

MODEL = "agent.model.name"
CACHE_PREFIX = "models--"


def translate(
    document: Document, *, parts: Sequence[str], is_folder: Callable[[str], bool] = is_local
) -> Translation:
    """A phase file, or a file that one inherits, in today's words.

    `parts` are the top-level keys whose values have dotted keys: ``fixed`` and ``grid``.
    Raises `ConfigError` for a key said twice, in old words and in new, with two values; for a
    key of a layout that the predecessor never read; and for an axis that never acted.
    """
    for key in document.data:
        _refuse_unread(key, {k: document.place(k) for k in document.data})
    found = _Findings(document)
    data = _with_sections(copy.deepcopy(document.data), found, is_folder)
    for part in parts:
        if isinstance(data.get(part), Mapping):
            data[part] = _with_part(data[part], part, found, is_folder)
    lines = {_todays_place(key, parts): line for key, line in document.lines.items()}
    return Translation(
        document=replace(document, data=data, lines=lines), notes=tuple(found.notes())
    )


def translate_setting(
    key: str, value: Any, where: str, *, is_axis: bool, is_folder: Callable[[str], bool] = is_local
) -> tuple[str | None, Any, tuple[str, ...]]:
    """An override in today's words: key, value, notes. No key: it never acted and is left out.

    `where` is the place named in notes and errors. Raises `ConfigError` as `translate` does.
    """
    _refuse_unread(key, {key.split(".")[0]: where})
    if _never_acted(key):
        if is_axis:
            _refuse_axis(key, where)
        return None, None, (f"{where}: left out, since it never acted",)
    notes = []
    if (today := todays_key(key)) != key:
        notes.append(f"{where}: `{key}` means `{today}`")
    if today == MODEL:
        value, names = _todays_models(value, is_folder)
        notes += [f"{where}: {_worded(names)}"] if names else []
    return today, value, tuple(notes)


def acting_now(documents: Iterable[Document]) -> str:
    """The note on what these files say and the predecessor did not do; empty if there is none.

    `documents` are as they were written, the farthest inherited first.
    """
    places = {}
    for document in documents:
        for key in ACTS_NOW:
            if document.line(key) is not None:
                places[key] = document.place(key)
    said = [f"`{key}` ({places[key]})" for key in ACTS_NOW if key in places]
    return f"acts here, and did not in the predecessor: {', '.join(said)}" if said else ""


def todays_key(key: str) -> str:
    """What a dotted key of the predecessor is today: ``env.max_steps`` is a simulation's."""
    end = min((at for sign in ".[" if (at := key.find(sign)) >= 0), default=len(key))
    return RENAMED.get(key[:end], key[:end]) + key[end:]


def todays_model(name: str, *, is_folder: Callable[[str], bool] = is_local) -> str:
    """``org/name`` for ``org--name`` or ``models--org--name``, unless that is a folder here."""
    bare = name.removeprefix(CACHE_PREFIX) if name.count("--") == 2 else name
    organisation, _, rest = bare.partition("--")
    if not organisation or not rest or "--" in rest or "/" in name or is_folder(name):
        return name  # a hub id has no `--` in either half
    return f"{organisation}/{rest}"


class OldWords:
    """Implements `config.Translator` for the warehouse's files."""

    @property
    def sections(self) -> frozenset[str]:
        return frozenset(key.partition(".")[0] for key in (*RENAMED, *NEVER_ACTED, *UNREAD))

    def translate(self, document: Document, *, parts: Sequence[str]) -> Translation:
        return translate(document, parts=parts)

    def translate_setting(
        self, key: str, value: Any, where: str, *, is_axis: bool
    ) -> tuple[str | None, Any, tuple[str, ...]]:
        return translate_setting(key, value, where, is_axis=is_axis)

    def remark(self, documents: Sequence[Document]) -> str:
        return acting_now(documents)


class _Findings:
    """What was translated in a file, as it is found."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.renamed: dict[tuple[str, str], list[str]] = {}  # by part and first name
        self.models: dict[str, str] = {}
        self.model_places: list[str] = []
        self.left_out: list[str] = []
        self.mocks: dict[str, str] = {}  # models that were none, and where they are named

    def add_renamed(self, part: str, key: str) -> None:
        self.renamed.setdefault((part, key.split(".")[0]), []).append(key)

    def todays_models(self, value: Any, key: str, is_folder: Callable[[str], bool]) -> Any:
        """A model's name, or an axis of names, that was written at `key`."""
        today, names = _todays_models(value, is_folder)
        self.models.update(names)
        self.model_places += [self.document.place(key)] if names else []
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and "mock" in name and "/" not in name:
                self.mocks.setdefault(name, self.document.place(key))
        return today

    def notes(self) -> Iterator[str]:
        for (part, name), keys in self.renamed.items():
            place = self.document.place(f"{part}.{keys[0]}" if part else keys[0])
            where = f"{place}: in `{part}`, " if part else f"{place}: "
            if len(keys) == 1:
                yield f"{where}`{keys[0]}` means `{todays_key(keys[0])}`"
            else:
                own = ", ".join(f"`{key.partition('.')[2]}`" for key in keys)
                yield f"{where}`{name}.*` means `{RENAMED[name]}.*`: {own}"
        if self.models:
            yield f"{self.model_places[0]}: {_worded(self.models)}"
        if self.left_out:
            keys = sorted(self.left_out, key=lambda key: self.document.line(key) or 0)
            why = "they never acted" if len(keys) > 1 else "it never acted"
            said = ", ".join(f"`{key}`" for key in keys)
            yield f"{self.document.place(keys[0])}: left out, since {why}: {said}"
        if self.renamed:
            for name, place in self.mocks.items():
                yield (
                    f"{place}: `{name}` was no model but five replies in turn; without a model "
                    "a phase is played with `agent.kind=heuristic`"
                )


def _with_sections(
    data: dict[str, Any], found: _Findings, is_folder: Callable[[str], bool]
) -> dict[str, Any]:
    """A file's data with its old sections moved to where they are today."""
    document = found.document
    written: dict[str, str] = {}  # today's keys that were said in old words, and those
    for old, today in RENAMED.items():
        if old not in data:
            continue
        value = data.pop(old)
        is_section = old != "max_steps"
        if is_section and value is None:
            continue  # nothing below it
        if is_section and not isinstance(value, Mapping):
            raise ConfigError(
                f"{document.place(old)}: `{old}` is `{shown(value)}`, but it is a section of "
                "settings",
                hint=f"write settings below it, indented; today it is `{today}`",
            )
        keys = [f"{old}.{key}" for key, _ in leaves(value)] if is_section else [old]
        for name in reversed(today.split(".")):
            value = {name: value}
        _join(data, value, "", old, written, document)
        for key in keys:
            written.setdefault(todays_key(key), key)
            found.add_renamed("", key)
    for key in NEVER_ACTED:
        section, _, name = key.partition(".")
        inside = data.get(section)
        if not name and section in data:
            del data[section]
            found.left_out.append(section)
        elif isinstance(inside, dict) and name in inside:
            del inside[name]
            found.left_out.append(key)
    inside = data
    for section in MODEL.split(".")[:-1]:
        inside = inside.get(section) if isinstance(inside, dict) else None
    if isinstance(inside, dict) and "name" in inside:
        written_as = written.get(MODEL, MODEL)
        inside["name"] = found.todays_models(inside["name"], written_as, is_folder)
    return data


def _join(
    into: dict[str, Any],
    more: Mapping[str, Any],
    prefix: str,
    old: str,
    written: Mapping[str, str],
    document: Document,
) -> None:
    """Put in what an old section says; said twice with two values is an error."""
    for name, value in more.items():
        key = prefix + name
        there = into.get(name)
        if name not in into or (there is None and isinstance(value, Mapping)):
            into[name] = value
        elif isinstance(there, dict) and isinstance(value, Mapping):
            _join(there, value, f"{key}.", old, written, document)
        elif not _same(there, value):
            in_old_words = old + key[len(RENAMED[old]) :] if key.startswith(RENAMED[old]) else old
            _refuse_two(written.get(key, key), there, in_old_words, value, document.place)


def _with_part(
    nested: Mapping[str, Any], part: str, found: _Findings, is_folder: Callable[[str], bool]
) -> Mapping[str, Any]:
    """`fixed` or `grid` with today's keys, dotted."""
    flat = list(leaves(nested))
    if len({key for key, _ in flat}) < len(flat):
        return nested  # a key written twice: whoever reads the part says so
    place = found.document.place
    done: dict[str, Any] = {}
    written: dict[str, str] = {}
    for key, value in flat:
        _refuse_unread(key, {key.split(".")[0]: place(f"{part}.{key}")})
        if _never_acted(key):
            if part == "grid":
                _refuse_axis(key, place(f"{part}.{key}"))
            found.left_out.append(f"{part}.{key}")
            continue
        today = todays_key(key)
        if today != key:
            found.add_renamed(part, key)
        if today == MODEL:
            value = found.todays_models(value, f"{part}.{key}", is_folder)
        if today in done and not _same(done[today], value):
            _refuse_two(written[today], done[today], key, value, lambda key: place(f"{part}.{key}"))
        done.setdefault(today, value)
        written.setdefault(today, key)
    return done


def _todays_models(value: Any, is_folder: Callable[[str], bool]) -> tuple[Any, dict[str, str]]:
    """A model's name, or an axis of names, and those that were translated."""
    if isinstance(value, list):
        names = [_todays_models(item, is_folder) for item in value]
        return [name for name, _ in names], {k: v for _, one in names for k, v in one.items()}
    if not isinstance(value, str) or (name := todays_model(value, is_folder=is_folder)) == value:
        return value, {}
    return name, {value: name}


def _todays_place(key: str, parts: Sequence[str]) -> str:
    """Where a value that was written at `key` is found now."""
    part, _, inner = key.partition(".")
    return f"{part}.{todays_key(inner)}" if part in parts and inner else todays_key(key)


def _worded(names: Mapping[str, str]) -> str:
    return ", ".join(f"`{old}` means `{today}`" for old, today in names.items())


def _never_acted(key: str) -> bool:
    return any(key == idle or key.startswith(f"{idle}.") for idle in NEVER_ACTED)


def _same(one: object, other: object) -> bool:
    """Whether YAML would call them one value: `1` is `1.0`, and `true` is not `1`."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _refuse_two(
    key: str, value: object, again: str, other: object, place: Callable[[str], str]
) -> NoReturn:
    raise ConfigError(
        f"{place(key)}: `{key}` is `{shown(value)}`, but `{again}`, which means the same, is "
        f"`{shown(other)}` ({place(again)})",
        hint="remove one of the two",
    )


def _refuse_axis(key: str, where: str) -> NoReturn:
    raise ConfigError(
        f"{where}: the axis `{key}` never acted, in the predecessor neither",
        hint="remove it; to repeat an arm, raise `experiment.replications`",
    )


def _refuse_unread(key: str, places: Mapping[str, str]) -> None:
    """`places` are the top-level keys of what is read, all of which one error can name."""
    if key.split(".")[0] not in UNREAD:
        return
    those = [name for name in places if name in UNREAD]
    also = ", ".join(f"`{name}`" for name in those[1:])
    raise ConfigError(
        f"{places[those[0]]}: there is no setting `{those[0]}`" + (f", nor {also}" if also else ""),
        hint="; ".join(UNREAD[name] for name in those)
        + "; `inherit: warehouse` names the file that lists every setting",
    )
