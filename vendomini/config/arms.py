"""The cells of a grid, resolved: what a run of each is played with, and whom it asks."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, get_args

import msgspec

from vendomini.config.translation import leaves
from vendomini.errors import ConfigError
from vendomini.phase import Asked, Scalar, settings_of

ASKED = get_args(Asked)

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
        if not isinstance(follows, workload.settings_type):
            raise ConfigError(
                f"`derive_settings` of the workload gives a `{type(follows).__name__}`",
                hint="it returns settings: those it was given, or some with other values",
            )
        derived = {} if follows is typed else dict(_changed(typed, follows))
        for key, value in derived.items():
            settings = with_setting(settings, key, value)
        asks = workload.asks(follows)
        if asks not in ASKED:
            raise ConfigError(
                f"`asks` of the workload gives `{asks!r}`", hint=f"it says one of {ASKED}"
            )
        yield Arm(values=chosen, settings=settings, derived=derived, asks=asks)


def with_setting(settings: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    """`settings` with one value replaced; what is not on the way to it is shared, not copied."""
    name, _, inner = key.partition(".")
    inside = settings.get(name)  # None: a section that may be left out, and was
    return {**settings, name: with_setting(inside or {}, inner, value) if inner else value}


def _changed(before: Any, after: Any) -> Iterator[tuple[str, Any]]:
    """The settings in which two typed values differ, as plain data by dotted key."""
    for name in (field.name for field in fields(before)):
        one, other = getattr(before, name), getattr(after, name)
        if one is other:
            continue  # nearly all sections: they are shared
        known = dict(leaves({name: msgspec.to_builtins(one)}))
        for key, value in leaves({name: msgspec.to_builtins(other)}):
            if key not in known or known[key] != value:
                yield key, value
