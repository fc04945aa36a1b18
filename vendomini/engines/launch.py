"""From a spec to an engine. The only place that knows which backends there are."""

from pathlib import Path

from vendomini.chat import Engine, EngineSpec
from vendomini.engines.scripted import ScriptedEngine, echo, recorded
from vendomini.errors import ConfigError

PLAYABLE: frozenset[str] = frozenset({"scripted"})
"""Backends this version can open. The others can be planned."""


def engine_for(spec: EngineSpec) -> Engine:
    """The engine a spec describes, not yet started; `ConfigError` if it cannot be opened."""
    if spec.backend not in PLAYABLE:
        raise ConfigError(
            f"`engine.backend` `{spec.backend}` can be planned, but not opened by this version",
            hint="use `agent.kind=heuristic`, or `agent.kind=scripted engine.backend=scripted`",
        )
    script = echo if spec.script is None else recorded(Path(spec.script))
    return ScriptedEngine(script, latency_s=spec.latency_s)
