"""What no deployment can do, told with what one could: pure."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from vendomini.errors import ConfigError, PlanError
from vendomini.hardware import GIB
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner.choice import Wanted
from vendomini.planner.deployment import Backend, Deployment
from vendomini.planner.fit import deployments
from vendomini.planner.gates import cannot_run
from vendomini.planner.memory import longest_that_fits, memory_use
from vendomini.planner.parallel import legal_sizes
from vendomini.planner.pool import Pool

BACKENDS: Final[tuple[Backend, ...]] = ("vllm", "hf")

SMALLER = ("fp8", "awq")
"""Quantisations that are tried, in this order, to say what would fit."""

MOST_NODES = 64
SHORTEST_CONTEXT = 1024

SAID = 3
"""Deployments that an error tells of: the last, which are the largest."""


def refuse_impossible(model: ModelSpec, pools: Sequence[Pool], wanted: Wanted) -> None:
    """Raise for a word of the phase that no pool can follow, with what it may be."""
    if wanted.backend is not None and (why := wanted.unavailable.get(wanted.backend)):
        raise PlanError(
            f"backend `{wanted.backend}` cannot serve model `{model.id}`: {why}",
            hint="use engine.backend=" + ("hf" if wanted.backend == "vllm" else "vllm"),
        )
    names = sorted({pool.gpu.name for pool in pools})
    if wanted.gpu is not None and wanted.gpu not in names:
        raise ConfigError(
            f"`engine.gpu` is `{wanted.gpu}`, and there is none that may be used",
            hint=f"there are: {', '.join(names)}",
        )
    usable = [pool for pool in pools if wanted.gpu in (None, pool.gpu.name)]
    most = max(pool.gpus_per_node for pool in usable)
    size = wanted.tensor_parallel_size
    if size is not None:
        legal = legal_sizes(model, most=most, expert_parallel=model.is_moe)
        if size not in legal:
            raise ConfigError(
                f"`engine.tensor_parallel_size` is `{size}`, which model `{model.id}` with its "
                f"{model.num_attention_heads} attention heads and {model.num_key_value_heads} "
                f"key-value heads cannot have on nodes of up to {most} GPUs",
                hint=f"it may be {', '.join(map(str, legal))}",
            )
    stages = wanted.pipeline_parallel_size
    needed = (size or 1) * (stages or 1)
    if wanted.gpus is not None and (needed != wanted.gpus if size else wanted.gpus % needed):
        raise ConfigError(
            f"`engine.tensor_parallel_size` `{size or 'null'}` times "
            f"`engine.pipeline_parallel_size` `{stages or 1}` is `{needed}` GPUs, but "
            f"{wanted.gpus_from} is `{wanted.gpus}`",
            hint="leave one of them away",
        )
    if stages is not None and stages > model.layers:
        raise ConfigError(
            f"`engine.pipeline_parallel_size` is `{stages}`, but model `{model.id}` has "
            f"`{model.layers}` layers",
            hint=f"use at most {model.layers}",
        )


def nothing_fits(
    model: ModelSpec, pools: Sequence[Pool], wanted: Wanted, rejected: Sequence[str]
) -> PlanError:
    """The error for a model that fits on nothing: what it needs, and the nearest that fits."""
    where = ", ".join(
        f"{_nodes(pool.nodes)} of {pool.gpus_per_node} x {pool.gpu.name}" for pool in pools
    )
    asked = [
        f"{name}={value}"
        for name, value in (
            ("engine.backend", wanted.backend),
            ("engine.gpu", wanted.gpu),
            ("engine.gpus", wanted.gpus),
            ("engine.tensor_parallel_size", wanted.tensor_parallel_size),
            ("engine.pipeline_parallel_size", wanted.pipeline_parallel_size),
        )
        if value is not None
    ]
    why = [*missing(wanted), *rejected[-SAID:]]
    return PlanError(
        f"model `{model.id}` ({model.weight_bytes / GIB:,.0f} GiB of weights) with a conversation "
        f"of {wanted.max_model_len:,} tokens fits on nothing that may be used: {where}"
        + (f", with {', '.join(asked)}" if asked else "")
        + (f". {'; '.join(why)}" if why else ""),
        hint=_nearest(model, pools, wanted)
        + ("; or leave the settings of `engine` away" if asked else ""),
    )


def missing(wanted: Wanted) -> list[str]:
    """The backends that cannot be used where the workers run, and why."""
    return [f"`{name}`: {why}" for name, why in wanted.unavailable.items()]


# -- private -------------------------------------------------------------------------------


def _nearest(model: ModelSpec, pools: Sequence[Pool], wanted: Wanted) -> str:
    """The nearest that fits: a shorter context, a quantised model, more nodes."""
    offers = []
    longest = max(
        (
            longest_that_fits(model, shape)
            for pool in pools
            for backend in BACKENDS
            if cannot_run(model, pool.gpu, backend) is None
            for shape in _all(model, pool, backend, wanted)
        ),
        default=0,
    )
    if SHORTEST_CONTEXT <= longest < wanted.max_model_len:
        offers.append(f"agent.model.context_length={longest // 256 * 256}")
    for method in SMALLER:
        smaller = requantized(model, method)
        if model.quantization is not None or smaller.weight_bytes >= model.weight_bytes:
            continue
        place = _first_that_fits(smaller, pools, wanted)
        if place is not None:
            offers.append(f"a checkpoint quantised as {method}, on {place}")
            break
    more = [replace(pool, nodes=MOST_NODES) for pool in pools]
    place = _first_that_fits(model, more, wanted)
    if place is not None:
        offers.append(f"more nodes: {place}")
    return "nearest that fits: " + "; ".join(offers) if offers else "use GPUs with more memory"


def _nodes(count: int) -> str:
    return f"{count} node{'s' if count > 1 else ''}"


def _all(model: ModelSpec, pool: Pool, backend: Backend, wanted: Wanted) -> Iterator[Deployment]:
    return deployments(
        model,
        pool.gpu,
        backend=backend,
        gpus_per_node=pool.gpus_per_node,
        nodes=pool.nodes,
        max_model_len=wanted.max_model_len,
    )


def _first_that_fits(model: ModelSpec, pools: Sequence[Pool], wanted: Wanted) -> str | None:
    fitting = [
        shape
        for pool in pools
        if cannot_run(model, pool.gpu, "vllm") is None
        for shape in _all(model, pool, "vllm", wanted)
        if memory_use(model, shape).fits
    ]
    if not fitting:
        return None
    least = min(fitting, key=lambda shape: (shape.nodes, shape.gpus))
    nodes = f" on {least.nodes} nodes" if least.nodes > 1 else ""
    return f"{least.gpus} x {least.gpu.name}{nodes}"
