"""Engines as a test writes them down: their settings by name."""

from typing import Any

from vendomini.serving import EngineSettings, EngineSpec


def engine_spec(
    *,
    model: str,
    revision: str | None = None,
    thinking: bool = False,
    enable_expert_parallel: bool = False,
    **settings: Any,
) -> EngineSpec:
    return EngineSpec(
        settings=EngineSettings(**settings),
        model=model,
        revision=revision,
        thinking=thinking,
        enable_expert_parallel=enable_expert_parallel,
    )
