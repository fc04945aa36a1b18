"""The models that are known without their files: data shipped with the program."""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vendomini.models.config_json import spec_of_config
from vendomini.models.naming import LEVELS, context_in_name, inner_keys, key, stored_as
from vendomini.models.quantization import quantization_named, requantized
from vendomini.models.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model of the catalogue: its config.json, or the fields of it that count."""

    id: str
    aliases: tuple[str, ...]
    config: Mapping[str, Any]
    weight_bytes: int | None  # None: nobody wrote it down
    source: str

    def spec(self) -> ModelSpec:
        return _spec(self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An entry that answers to a name. `method` is how the name says that it is stored, where
    the entry is stored otherwise; None: as the entry."""

    entry: Entry
    by: str  # how the name led there; empty: it is the entry's own
    method: str | None = None
    sure: bool = True  # False: another model, by its name built on this one

    def spec(self, name: str) -> ModelSpec:
        spec = self.entry.spec()
        if self.method is not None:
            spec = requantized(spec, self.method)
        sources = {**spec.sources, "catalogue": self.entry.source}
        if self.method is not None:
            sources["quantization"] = f"the name `{name}`"
        if self.by:
            sources["id"] = f"as `{self.entry.id}`: {self.by}"
        if self.sure:
            return replace(spec, id=name, sources=sources)
        return replace(
            spec,
            id=name,
            weight_margin=max(spec.weight_margin, BUILT_ON_MARGIN),
            max_model_len=context_in_name(name) or spec.max_model_len,
            sources=sources,
        )


BUILT_ON_MARGIN = 0.1
"""What a model that is built on another may add to it: a vision tower, a larger vocabulary."""


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All of them, by id."""
    file = importlib.resources.files("vendomini") / "data" / "models.jsonl"
    with file.open(encoding="utf-8") as lines:
        return tuple(_entry(json.loads(line)) for line in lines)


@functools.cache
def find(name: str) -> Found | None:
    """The entry of this id or alias, else one of the same model stored or tuned otherwise."""
    exact, keys = _index()
    if entry := exact.get(name.lower()):
        by = "" if entry.id.lower() == name.lower() else "another name of it"
        return Found(entry=entry, by=by, method=_method(name, entry) if by else None)
    for level in range(LEVELS):
        wanted = key(name, level)
        candidates = keys[level].get(wanted, ())
        if candidates:
            entry = min(candidates, key=lambda each: _distance(name, each))
            return Found(entry=entry, by=_BY[level], method=_method(name, entry))
    for wanted in inner_keys(name):
        if candidates := keys[2].get(wanted, keys[3].get(wanted, [])):
            entry = min(candidates, key=lambda each: _distance(name, each))
            method = _method(name, entry)
            return Found(
                entry=entry, by=f"its name has `{wanted}` in it", method=method, sure=False
            )
    return None


# -- private -------------------------------------------------------------------------------

_BY = (
    "the same name from another publisher",
    "its name differs in how it is stored",
    "its name differs in how it was tuned",
    "its name differs in its date or version",
)


def _entry(line: Mapping[str, Any]) -> Entry:
    return Entry(
        id=line["id"],
        aliases=tuple(line.get("aliases", ())),
        config=line["config"],
        weight_bytes=line.get("weight_bytes"),
        source=line["source"],
    )


@functools.cache
def _spec(id: str) -> ModelSpec:
    entry = next(entry for entry in entries() if entry.id == id)
    return spec_of_config(entry.config, id=id, weight_bytes=entry.weight_bytes, source=entry.source)


@functools.cache
def _index() -> tuple[dict[str, Entry], tuple[dict[str, list[Entry]], ...]]:
    exact: dict[str, Entry] = {}
    keys: tuple[dict[str, list[Entry]], ...] = tuple({} for _ in range(LEVELS))
    for entry in entries():
        for name in (entry.id, *entry.aliases):
            exact.setdefault(name.lower(), entry)
            for level in range(LEVELS):
                there = keys[level].setdefault(key(name, level), [])
                if entry not in there:
                    there.append(entry)
    return exact, keys


def _distance(name: str, entry: Entry) -> tuple[bool, bool, bool, str]:
    """Which of several entries is meant: stored so, tuned so, plain, the newest name last."""
    stored = stored_as(name)
    return (
        stored_as(entry.id) != stored,
        stored_as(entry.id) is not None,
        key(entry.id, 1) != key(name, 1),
        entry.id.lower(),
    )


def _method(name: str, entry: Entry) -> str | None:
    said = stored_as(name)
    if said is None:
        # A name that does not say how it is stored: plain, unless its publisher's models are not.
        return "bf16" if stored_as(entry.id) not in {None, "bf16", "fp16"} else None
    how = quantization_named(said)
    has = entry.spec().quantization
    if how is None:
        return said if has is not None else None
    if has is not None and abs(has.weight_bytes_each - how.weight_bytes_each) < 0.01:
        return None
    return said
