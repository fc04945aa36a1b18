"""What no deployment can do, told with what one could: pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vendomini.chat import MODEL
from vendomini.errors import ConfigError, PlanError
from vendomini.hardware import GIB, ambiguous, gpu_of_site
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner.choice import Wanted
from vendomini.planner.deployment import BACKENDS, HF, VLLM, Deployment
from vendomini.planner.estimate import MOST_UNDER_WAY
from vendomini.planner.fit import deployments
from vendomini.planner.gates import cannot_run, refused_dtype
from vendomini.planner.gpu_memory import longest_that_fits, memory_use
from vendomini.planner.parallel import ASKED_FOR, legal_sizes
from vendomini.planner.pool import Pool
from vendomini.schema import nearest

SMALLER = ("fp8", "awq")
"""Quantisations that are tried, in this order, to say what would fit."""

MOST_NODES = 64
SHORTEST_CONTEXT = 1024

_TOO_SMALL = re.compile(r"\d+ x ([^,(]+?)(?: \([^)]*\))?, (\w+): ")


def with_gpu_of_pools(pools: Sequence[Pool], wanted: Wanted) -> Wanted:
    """The same wishes with our name of the GPU: a site's own name is as good, and so is a family's
    (`A100`) of which one is there. Raises `ConfigError` for one that none of the pools has."""
    if wanted.engine.gpu is None:
        return wanted
    names = list(dict.fromkeys(pool.gpu.name for pool in pools))
    of_site = {pool.gpu_type: pool.gpu.name for pool in pools if pool.gpu_type is not None}
    known = gpu_of_site(wanted.engine.gpu)
    meant = {
        wanted.engine.gpu,
        of_site.get(wanted.engine.gpu),
        None if known is None else known.name,
    }
    meant |= {gpu.name for gpu in ambiguous(wanted.engine.gpu)}
    there = [name for name in names if name in meant]
    if len(there) != 1:
        why = "which may be one of several GPUs" if there else "but no node that may be used has it"
        choices = there or names
        raise ConfigError(
            f"`engine.gpu` is `{wanted.engine.gpu}`, {why}",
            hint=f"did you mean `{nearest(wanted.engine.gpu, choices)}`? "
            f"There are: {', '.join(choices)}",
        )
    return replace(wanted, engine=replace(wanted.engine, gpu=there[0]))


def refuse_impossible(model: ModelSpec, pools: Sequence[Pool], wanted: Wanted) -> None:
    """Raise for a word of the phase that no pool can follow, with what it may be."""
    if wanted.backend is not None and (why := wanted.unavailable.get(wanted.backend)):
        raise PlanError(
            f"backend `{wanted.backend}` cannot serve model `{model.id}`: {why}",
            hint="use engine.backend=" + (HF if wanted.backend == VLLM else VLLM),
        )
    usable = [pool for pool in pools if wanted.engine.gpu in (None, pool.gpu.name)]
    most = max(pool.gpus_per_node for pool in usable)
    size = wanted.engine.tensor_parallel_size
    if size is not None:
        legal = legal_sizes(model, most=most, expert_parallel=model.is_moe)
        if size not in legal:
            raise ConfigError(
                f"`engine.tensor_parallel_size` is `{size}`, which is not possible for model "
                f"`{model.id}` ({model.num_attention_heads} attention heads, "
                f"{model.num_key_value_heads} key-value heads) on nodes of up to {most} GPUs",
                hint=f"possible: {', '.join(map(str, legal))}",
            )
    stages = wanted.engine.pipeline_parallel_size
    needed = (size or 1) * (stages or 1)
    if wanted.engine.gpus is not None and (
        needed != wanted.engine.gpus if size else wanted.engine.gpus % needed
    ):
        raise ConfigError(
            f"`engine.tensor_parallel_size` `{size or 'null'}` times "
            f"`engine.pipeline_parallel_size` `{stages or 1}` is `{needed}` GPUs, but "
            f"{wanted.gpus_from} is `{wanted.engine.gpus}`",
            hint="remove one of these settings",
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
    asked = _asked(wanted)
    why = [*missing(wanted), *_roomiest(rejected, wanted)]
    return PlanError(
        f"model `{model.id}` ({model.weight_bytes / GIB:,.0f} GiB of weights) with a conversation "
        f"of {wanted.max_model_len:,} tokens fits on nothing that may be used: {where}"
        + (f", given that {' and '.join(asked)}" if asked else "")
        + (f". {'; '.join(why)}" if why else ""),
        hint=_nearest(model, pools, wanted),
    )


def missing(wanted: Wanted) -> list[str]:
    """The backends that cannot be used where the workers run, and why."""
    return [f"`{name}`: {why}" for name, why in wanted.unavailable.items()]


# -- private -------------------------------------------------------------------------------


def _asked(wanted: Wanted) -> list[str]:
    """What limits the choice, in the words of who said it."""
    words = {
        "`engine.gpu`": wanted.engine.gpu,
        wanted.gpus_from: wanted.engine.gpus,
        "`engine.tensor_parallel_size`": wanted.engine.tensor_parallel_size,
        "`engine.pipeline_parallel_size`": wanted.engine.pipeline_parallel_size,
        "`engine.dtype`": wanted.engine.dtype,
    }
    said = [f"{name} is `{value}`" for name, value in words.items() if value is not None]
    if wanted.backend is None:
        return said
    why = f" ({wanted.backend_reason})" if wanted.backend_reason else ""
    return [f"the backend is `{wanted.backend}`{why}", *said]


def _roomiest(rejected: Sequence[str], wanted: Wanted) -> list[str]:
    """Of the deployments that are too small the largest of each GPU and backend, which come last,
    and all else that rules something out."""
    last: dict[str, str] = {}
    for text in rejected:
        match = _TOO_SMALL.match(text)
        if match is None:
            last[text] = text
        elif wanted.backend in (None, match[2]) and match[2] not in wanted.unavailable:
            last[f"{match[1]} {match[2]}"] = text
    return list(last.values())


def _nearest(model: ModelSpec, pools: Sequence[Pool], wanted: Wanted) -> str:
    """The nearest that fits: with less asked for, a shorter context, a quantised model, or more
    nodes."""
    offers = []
    engine = replace(
        wanted.engine,
        gpu=None,
        gpus=None,
        tensor_parallel_size=None,
        pipeline_parallel_size=None,
        dtype=None,
    )
    free = replace(wanted, backend=None, engine=engine)
    if _asked(wanted) and (place := _first_that_fits(model, pools, free)):
        offers.append(f"without these settings, {place}")
    if model.sources.get("quantization") == ASKED_FOR:
        anywhere = replace(wanted, unavailable={})
        place = _first_that_fits(requantized(model, "bf16"), pools, anywhere)
        if place is not None:
            offers.append(f"without `engine.quantization`, {place}")
    longest = max(
        (longest_that_fits(model, shape) for pool in pools for shape in _all(model, pool, wanted)),
        default=0,
    )
    if SHORTEST_CONTEXT <= longest < wanted.max_model_len:
        offers.append(f"{MODEL}.context_length={longest // 256 * 256}")
    for method in SMALLER if model.quantization is None else ():
        smaller = requantized(model, method)
        if smaller.weight_bytes >= model.weight_bytes:
            continue
        place = _first_that_fits(smaller, pools, free)
        if place is not None and not any(offer.endswith(place) for offer in offers):
            offers.append(f"a checkpoint quantised as {method}, on {place}")
            break
    more = [replace(pool, nodes=MOST_NODES) for pool in pools]
    place = _first_that_fits(model, more, free)
    if place is not None and not any(offer.endswith(place) for offer in offers):
        offers.append(f"more nodes: {place}")
    return "nearest that fits: " + "; ".join(offers) if offers else "use other or larger GPUs"


def _nodes(count: int) -> str:
    return f"{count} node{'s' if count > 1 else ''}"


def _all(model: ModelSpec, pool: Pool, wanted: Wanted) -> Iterator[Deployment]:
    """Every shape in a pool that both it and the wishes allow, whatever it holds."""
    for backend in BACKENDS:
        if wanted.backend not in (None, backend) or backend in wanted.unavailable:
            continue
        if wanted.engine.gpu not in (None, pool.gpu.name) or cannot_run(model, pool.gpu, backend):
            continue
        if wanted.engine.dtype and refused_dtype(model, pool.gpu, backend, wanted.engine.dtype):
            continue
        for shape in deployments(
            model,
            pool.gpu,
            backend=backend,
            gpus_per_node=pool.gpus_per_node,
            nodes=pool.nodes,
            max_model_len=wanted.max_model_len,
            gpu_memory_utilization=wanted.engine.gpu_memory_utilization,
            max_num_seqs=wanted.engine.concurrency or MOST_UNDER_WAY,
            enforce_eager=wanted.engine.enforce_eager,
        ):
            pairs = [(wanted.engine.gpus, shape.gpus)]
            if backend == "vllm":
                pairs += [
                    (wanted.engine.tensor_parallel_size, shape.tensor_parallel_size),
                    (wanted.engine.pipeline_parallel_size, shape.pipeline_parallel_size),
                ]
            if all(asked in (None, size) for asked, size in pairs):
                yield replace(shape, dtype=wanted.engine.dtype)


def _first_that_fits(model: ModelSpec, pools: Sequence[Pool], wanted: Wanted) -> str | None:
    fitting = [
        shape
        for pool in pools
        for shape in _all(model, pool, wanted)
        if memory_use(model, shape).fits
    ]
    if not fitting:
        return None
    least = min(fitting, key=lambda shape: (shape.nodes, shape.gpus))
    nodes = f" on {least.nodes} nodes" if least.nodes > 1 else ""
    return f"{least.gpus} x {least.gpu.name}{nodes}, {least.backend}"
