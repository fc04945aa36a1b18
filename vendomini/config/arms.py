"""The cells of a grid, resolved: what a run of each is played with, and whom it asks."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from vendomini.config.translation import leaves
from vendomini.phase import Asked, Scalar, settings_of

Axes = tuple[tuple[str, tuple[Scalar, ...]], ...]


class Deriving(Protocol):
    """What must be known of a workload to resolve an arm."""

    @property
    def settings_type(self) -> type: ...

    def derive_settings(self, settings: Any) -> Any: ...

    def asks(self, settings: Any) -> Asked: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One cell of the grid, which its replications share.

    `values` are the grid's by dotted key, `settings` all there are, nested. `derived` are those
    that the workload set by what others say.
    """

    values: Mapping[str, Scalar]
    settings: Mapping[str, Any]
    derived: Mapping[str, Any]
    asks: Asked


def resolve(sections: Mapping[str, Any], axes: Axes, workload: Deriving) -> Iterator[Arm]:
    """Each cell of the grid in its order, the last axis fastest. Raises `ConfigError` for values
    from which the workload can derive nothing."""
    keys = [key for key, _ in axes]
    for values in itertools.product(*(values for _, values in axes)):
        chosen = dict(zip(keys, values, strict=True))
        settings = sections
        for key, value in chosen.items():
            settings = with_setting(settings, key, value)
        typed: Any = settings_of(settings, workload.settings_type)
        follows = workload.derive_settings(typed)
        derived = {} if follows is typed else dict(_changed(typed, follows))
        for key, value in derived.items():
            settings = with_setting(settings, key, value)
        yield Arm(values=chosen, settings=settings, derived=derived, asks=workload.asks(follows))


def with_setting(settings: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    """`settings` with one value replaced; what is not on the way to it is shared, not copied."""
    name, _, inner = key.partition(".")
    return {**settings, name: with_setting(settings[name], inner, value) if inner else value}


def _changed(before: object, after: object) -> Iterator[tuple[str, Any]]:
    """The settings in which two typed values differ, as plain data by dotted key."""
    known = dict(leaves(msgspec.to_builtins(before)))
    for key, value in leaves(msgspec.to_builtins(after)):
        if key not in known or known[key] != value:
            yield key, value
