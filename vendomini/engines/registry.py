"""From the name of a backend, and from a spec, to an engine."""

import functools
from collections.abc import Callable, Iterable
from dataclasses import fields
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, get_args

from vendomini.chat import Engine
from vendomini.engines.backend import Backend, Dialect, Say
from vendomini.entrypoints import ENGINES
from vendomini.errors import ConfigError, EngineError
from vendomini.serving import EngineSettings, EngineSpec

PARTS = ("features", "facts", "capacity", "start", "answer", "load", "died", "stop")
"""What every engine has: `vendomini.chat.Engine`."""


@functools.cache
def backend_named(name: str) -> Backend:
    """Ours, that of an entry point, or of a class ``package.module:Class``.

    Raises `ConfigError` naming the nearest there is, or why what is named cannot be used.
    """
    known = ENGINES.value_of(name)
    if known is None:
        raise ConfigError(
            f"`engine.backend` is `{name}`, which is no engine of the packages installed here",
            hint=ENGINES.hint_for(name),
        )
    own_name, value = known
    backend: Backend = ENGINES.made(own_name, value, base=Backend, lacks=_lacks)
    backend.name = own_name
    return backend


def every_backend() -> list[Backend]:
    """Ours, and those of installed packages that can be loaded."""
    found = []
    for name in ENGINES.values():
        try:
            found.append(backend_named(name))
        except ConfigError:
            continue  # a broken package is told of when its engine is asked for
    return found


def engine_for(spec: EngineSpec, *, log: Path, said: Say) -> Engine:
    """The engine that a spec describes, not yet started. Raises `ConfigError` if its package is
    not here, `EngineError` as its `open`."""
    engine = backend_named(spec.backend).open(spec, log=log, said=said)
    there = {*dir(type(engine)), *getattr(engine, "__dict__", ())}
    if missing := [name for name in PARTS if name not in there]:
        raise EngineError(
            f"engine `{spec.backend}` cannot be used: its `open` gives `{engine!r}`, which has no "
            f"`{missing[0]}`",
            hint="it returns what has the methods of `vendomini.chat.Engine`: docs/engines.md",
        )
    return engine


def usd_of(spec: EngineSpec, *, tokens_in: float, tokens_out: float) -> float | None:
    """What so many tokens cost, in US dollars; None: nobody is billed for them.

    Raises `ConfigError` if the backend cannot say it, whatever its code does.
    """
    backend = backend_named(spec.backend)
    ask = partial(backend.usd, spec.settings, tokens_in=tokens_in, tokens_out=tokens_out)
    usd: float | None = asked(backend, "usd", ask)
    if usd is None or (type(usd) in (int, float) and 0 <= usd < inf):
        return usd
    raise ConfigError(
        f"engine `{backend.name}`: its `usd` gives `{usd!r}`, which is no sum of dollars",
        hint="a number from 0 on, or None where nobody is billed: docs/engines.md",
    )


def asked(backend: Backend, hook: str, ask: Callable[[], Any]) -> Any:
    """What a hook of a backend says. Raises `ConfigError` if its code fails."""
    try:
        return ask()
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"engine `{backend.name}`: its `{hook}` fails with {type(error).__name__}: {error}",
            hint="that is a fault of the engine's package",
        ) from error


# -- private -------------------------------------------------------------------------------


def _lacks(found: Any) -> Iterable[str]:
    from vendomini.engines.commands import OwnServer

    if found.open is Backend.open:
        yield "has no `open`"
    if issubclass(found, OwnServer):
        if found.command is OwnServer.command:
            yield "has no `command`"
        if getattr(found, "dialect", None) not in get_args(Dialect):
            yield f"has no `dialect`: one of {', '.join(get_args(Dialect))}"
    names = {field.name for field in fields(EngineSettings)}
    if not isinstance(found.takes, frozenset | set):
        yield f"has `takes` `{found.takes!r}`, which is no set of names"
    elif unknown := sorted(map(str, found.takes - names)):
        yield f"has `{unknown[0]}` in `takes`, which is no setting of `engine`"
    if not isinstance(found.packages, tuple | list):
        yield f"has `packages` `{found.packages!r}`, which is no tuple of names"
    if not isinstance(found.fallback, str | None):
        yield f"has `fallback` `{found.fallback!r}`, which is no name of an engine"
    if found.planned_as not in (None, "vllm", "hf"):
        yield f"has `planned_as` `{found.planned_as}`, which is neither `vllm`, `hf` nor None"
