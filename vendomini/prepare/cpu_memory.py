"""What a KV cache on a CPU will get, for the plan: pure. The engine decides where it runs."""

from dataclasses import dataclass

from vendomini.chat import MODEL
from vendomini.engines.memory import cache_for, most_cache, needs_of
from vendomini.errors import PlanError
from vendomini.hardware import GIB
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Backend
from vendomini.serving import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuMemory:
    """Memory that an engine on a CPU may use, in bytes, and whose it is."""

    bytes: int
    of: str


def cpu_cache_reasons(
    name: str,
    size: ModelSpec | None,
    settings: EngineSettings,
    *,
    planned_as: Backend,
    key: str = f"{MODEL}.context_length",
    memory: CpuMemory | None,
) -> list[str]:
    """How memory will be shared out; nothing where the memory or the model's sizes are not known.

    `settings` have the longest conversation, which the phase says in `key`. Raises `PlanError` if
    not one of those fits.
    """
    if memory is None or size is None:
        return []
    needs = needs_of(size, settings, planned_as=planned_as)
    free = memory.bytes - needs.weight_bytes
    if free <= 0:
        raise PlanError(
            f"model `{name}` has {_gib(needs.weight_bytes)} of weights, and {memory.of} only "
            f"{_gib(memory.bytes)} of memory available",
            hint="end what else runs there, or play it on a machine with more memory or a GPU",
        )
    asked, window = settings.kv_cache_memory_bytes, settings.max_model_len
    most = most_cache(free) if asked is None else asked
    if window is not None and window * needs.token_bytes > most:
        may = f"{memory.of} {_gib(memory.bytes)} of memory available: at most {_gib(most)} for it"
        raise PlanError(
            f"`{key}` is `{window}`: one conversation of model `{name}` takes "
            f"{_gib(window * needs.token_bytes)} of KV cache, but "
            + (may if asked is None else f"`engine.kv_cache_memory_bytes` is `{asked}`"),
            hint=f"at most {most // needs.token_bytes} tokens fit, "
            f"{key}={most // needs.token_bytes}; or "
            + (
                "play it where there is more memory"
                if asked is None
                else f"use engine.kv_cache_memory_bytes={window * needs.token_bytes}"
            ),
        )
    cache = cache_for(size, settings, planned_as=planned_as, available=memory.bytes)
    return [
        f"memory on the CPU, each worker: {_gib(needs.weight_bytes)} of weights and "
        f"{_gib(cache.bytes)} for conversations, of the {_gib(memory.bytes)} that {memory.of} "
        f"available; {_gib(cache.left)} are left for the system"
    ]


# -- private -------------------------------------------------------------------------------


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / (1 << 20):.0f} MiB"
