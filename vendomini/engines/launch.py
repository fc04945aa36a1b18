"""From a spec to an engine. The only place that knows which backends there are."""

from collections.abc import Callable
from pathlib import Path

from vendomini.chat import Engine, EngineSpec
from vendomini.engines.scripted import ScriptedEngine, echo, recorded

PLAYABLE: frozenset[str] = frozenset({"scripted", "hf", "vllm", "openai"})
"""Backends this version can open."""


def engine_for(spec: EngineSpec, *, log: Path, said: Callable[[str], None]) -> Engine:
    """The engine a spec describes, not yet started.

    A process's own output goes to `log`; what a person should know is `said`.
    """
    # Imported where they are used: an HTTP client takes a tenth of a second to load, and workers
    # whose runs never ask have no use for it.
    match spec.backend:
        case "hf" | "vllm":
            from vendomini.engines.process import ProcessEngine

            return ProcessEngine(spec, log=log, said=said)
        case "openai":
            from vendomini.engines.served import OpenAIEngine

            return OpenAIEngine(spec, said)
        case "scripted":
            script = echo if spec.script is None else recorded(Path(spec.script))
            return ScriptedEngine(
                script, latency_s=spec.latency_s, max_model_len=spec.max_model_len
            )
