"""From the name of a backend, and from a spec, to an engine."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vendomini.chat import Engine
from vendomini.engines.backend import Backend, Say
from vendomini.entrypoints import ENGINES
from vendomini.errors import ConfigError
from vendomini.serving import EngineSpec


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
    return backend_named(spec.backend).open(spec, log=log, said=said)


def _lacks(found: Any) -> Iterable[str]:
    if found.open is Backend.open:
        yield "has no `open`"
    if found.planned_as not in (None, "vllm", "hf"):
        yield f"has `planned_as` `{found.planned_as}`, which is neither `vllm`, `hf` nor None"
