"""What a model takes: the deployments that are legal, the smallest that works, the recommended.

A group of GPUs inside a node is a power of two or the whole node, as nodes are shared out, and
beyond a node it is whole nodes. Tensor parallelism stays inside a node and pipeline parallelism
crosses nodes; inside one it serves where tensor parallelism cannot divide the model.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count, takewhile
from typing import Final, Literal

from vendomini.hardware import GIB, GpuSpec
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Backend, Deployment, MemoryUse
from vendomini.planner.gates import cannot_run, loads_dequantized, usable_quantizations
from vendomini.planner.gpu_memory import longest_that_fits, memory_use, sequences_that_fit
from vendomini.planner.parallel import refusal
from vendomini.planner.verdict import Fit, Rejected

DEFAULT_MAX_MODEL_LEN: Final = 8192
"""Tokens to plan for where nobody says: most models' whole context would be 128k and more, which
an engine reserves for one conversation before it starts."""

MOST_NODES: Final = 16
"""Nodes to look at where nobody says how many there are."""

TYPICAL_TOKENS: Final = 4096
TYPICAL_SEQUENCES: Final = 16
"""What a recommended deployment holds at once: an engine that holds less waits more than it
computes (a decode step costs about the same for 1 conversation as for 16)."""

TIGHT_BYTES: Final = GIB // 2
"""About what the estimates of activations, graphs and NCCL may be wrong by together."""


def planned_max_model_len(model: ModelSpec) -> int:
    """The context to plan for where none is asked for: the model's own, at most 8192 tokens."""
    return min(model.max_model_len or DEFAULT_MAX_MODEL_LEN, DEFAULT_MAX_MODEL_LEN)


def deployments(
    model: ModelSpec,
    gpu: GpuSpec,
    *,
    backend: Backend,
    gpus_per_node: int,
    nodes: int = 1,
    max_model_len: int,
    kv_cache_dtype: Literal["auto", "fp8"] = "auto",
    gpu_memory_utilization: float | None = None,
    max_num_seqs: int | None = None,
    max_num_batched_tokens: int | None = None,
    enforce_eager: bool = False,
    flash_attention: bool = True,
) -> Iterator[Deployment]:
    """All legal shapes on up to `nodes` nodes, fewest GPUs first, of those the simplest first:
    tensor parallelism alone, then with more and more stages.

    Experts stay whole (expert parallelism) where only that makes a size legal. Nothing is said
    of memory, nor of what the engine can run on `gpu`. With `hf` any number of GPUs of one node.
    """
    plain = Deployment(
        backend=backend,
        gpu=gpu,
        max_model_len=max_model_len,
        kv_cache_dtype=kv_cache_dtype,
        gpu_memory_utilization=gpu_memory_utilization,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        enforce_eager=enforce_eager,
        flash_attention=flash_attention,
    )
    if backend == "hf":
        shapes: Iterable[tuple[int, int, int]] = ((1, n, 1) for n in range(1, gpus_per_node + 1))
    else:
        shapes = _shapes(gpus_per_node, nodes)
    for tp, pp, on in shapes:
        shape = replace(plain, tensor_parallel_size=tp, pipeline_parallel_size=pp, nodes=on)
        legal = legalised(model, shape, gpus_per_node=gpus_per_node)
        if legal is not None:
            yield legal


def legalised(model: ModelSpec, shape: Deployment, *, gpus_per_node: int) -> Deployment | None:
    """The shape itself, or with whole experts where only that makes it legal; None: it is not."""
    if refusal(model, shape, gpus_per_node=gpus_per_node) is None:
        return shape
    if shape.backend == "vllm" and model.is_moe and not shape.enable_expert_parallel:
        whole = replace(shape, enable_expert_parallel=True)
        if refusal(model, whole, gpus_per_node=gpus_per_node) is None:
            return whole
    return None


def check(model: ModelSpec, deployment: Deployment, *, gpus_per_node: int) -> Fit:
    """Whether a given deployment works, with the reasons; expert parallelism may be turned on."""
    why = cannot_run(model, deployment.gpu, deployment.backend)
    if why is not None:
        return Fit(feasible=False, deployment=None, memory=None, reasons=(why,))
    legal = legalised(model, deployment, gpus_per_node=gpus_per_node)
    if legal is None:
        why = refusal(model, deployment, gpus_per_node=gpus_per_node)
        assert why is not None
        return Fit(feasible=False, deployment=None, memory=None, reasons=(why,))
    return _judged(model, legal)


def smallest(model: ModelSpec, shapes: Iterable[Deployment]) -> Fit:
    """The first of `shapes`, which begin with the smallest, that works, by memory alone: whether
    the engine runs on such GPUs is `gates.cannot_run`'s to say.

    None does: the verdict on the roomiest of them, with what would be needed. `rejected` says
    why the smaller ones do not work.
    """
    return _first(model, shapes, lambda deployment, memory: None)


def recommended(model: ModelSpec, shapes: Iterable[Deployment]) -> Fit:
    """The first of `shapes` that works and also holds 16 conversations of a typical length."""

    def too_few(deployment: Deployment, memory: MemoryUse) -> str | None:
        tokens = min(TYPICAL_TOKENS, deployment.max_model_len)
        held = sequences_that_fit(model, deployment, tokens)
        if held >= TYPICAL_SEQUENCES:
            return None
        return f"it works, but holds {held} conversations of {tokens:,} tokens at once"

    return _first(model, shapes, too_few)


def nearest(model: ModelSpec, shapes: Iterable[Deployment]) -> tuple[str, ...]:
    """What would work in place of `shapes`, none of which does: a shorter context, fewer bits."""
    several = tuple(shapes)
    offers = []
    longest = max((longest_that_fits(model, shape) for shape in several), default=0)
    if longest:
        offers.append(f"a shorter context would fit: `--max-model-len {longest}`")
    for method in _smaller_methods(model, several):
        quantised = requantized(model, method)
        fitting = next((s for s in several if memory_use(quantised, s).fits), None)
        if quantised.weight_bytes < model.weight_bytes and fitting is not None:
            offers.append(f"a checkpoint quantised as {method} would fit on {named(fitting)}")
            break
    return tuple(offers)


def named(deployment: Deployment) -> str:
    """The shape in a few words, such as ``4 H100 (TP 4)``."""
    parts = []
    if deployment.tensor_parallel_size > 1:
        parts.append(f"TP {deployment.tensor_parallel_size}")
    if deployment.pipeline_parallel_size > 1:
        parts.append(
            f"layers over {deployment.pipeline_parallel_size}"
            if deployment.backend == "hf"
            else f"PP {deployment.pipeline_parallel_size}"
        )
    if deployment.data_parallel_size > 1:
        parts.append(f"DP {deployment.data_parallel_size}")
    if deployment.enable_expert_parallel:
        parts.append("experts whole")
    if deployment.nodes > 1:
        parts.append(f"{deployment.nodes} nodes")
    inside = f" ({', '.join(parts)})" if parts else ""
    return f"{deployment.gpus} {deployment.gpu.name}{inside}"


def _shapes(gpus_per_node: int, nodes: int) -> Iterator[tuple[int, int, int]]:
    """Tensor- and pipeline-parallel sizes and nodes."""
    powers = takewhile(lambda size: size < gpus_per_node, (2**n for n in count()))
    for size in (*powers, gpus_per_node):
        for tp in range(size, 0, -1):
            if size % tp == 0:
                yield tp, size // tp, 1
    for several in range(2, nodes + 1):
        for tp in range(gpus_per_node, 0, -1):
            if gpus_per_node % tp == 0:
                yield tp, several * gpus_per_node // tp, several


def _first(
    model: ModelSpec,
    shapes: Iterable[Deployment],
    objection: Callable[[Deployment, MemoryUse], str | None],
) -> Fit:
    rejected: dict[int, Rejected] = {}
    roomiest: tuple[int, Deployment] | None = None
    for shape in shapes:
        memory = memory_use(model, shape)
        why = objection(shape, memory) if memory.fits else shortage(shape, memory)
        if why is None:
            fit = _judged(model, shape)
            smaller = tuple(r for gpus, r in rejected.items() if gpus < shape.gpus)
            return replace(fit, rejected=smaller)
        rejected.setdefault(shape.gpus, Rejected(deployment=shape, why=why))
        if roomiest is None or memory.margin > roomiest[0]:
            roomiest = memory.margin, shape
    if roomiest is None:
        why = "no shape divides the model on the GPUs that there are"
        return Fit(feasible=False, deployment=None, memory=None, reasons=(why,))
    fit = _judged(model, roomiest[1])
    return replace(fit, rejected=tuple(rejected.values()))


def _judged(model: ModelSpec, deployment: Deployment) -> Fit:
    memory = memory_use(model, deployment)
    return Fit(
        feasible=memory.fits,
        deployment=deployment,
        memory=memory,
        max_model_len_that_fits=longest_that_fits(model, deployment),
        concurrency=sequences_that_fit(model, deployment, deployment.max_model_len),
        reasons=tuple(_reasons(model, deployment, memory)),
    )


def _reasons(model: ModelSpec, deployment: Deployment, memory: MemoryUse) -> Iterator[str]:
    if memory.fits:
        yield (
            f"{named(deployment)}: weights take {memory.weights / GIB:.1f} of "
            f"{memory.total / GIB:.1f} GiB, {memory.kv / GIB:.1f} are left for the cache, and a "
            f"conversation of {deployment.max_model_len:,} tokens takes "
            f"{memory.kv_bytes_per_sequence / GIB:.2f}"
        )
        if memory.margin < TIGHT_BYTES:
            yield (
                f"tight: {memory.margin / GIB:.2f} GiB are left over, and the engine's own needs "
                f"are known to about {TIGHT_BYTES / GIB:.1f}"
            )
    else:
        yield f"{named(deployment)}: {shortage(deployment, memory)}"
    if deployment.enable_expert_parallel and deployment.data_parallel_size == 1:
        yield "experts stay whole (expert parallelism): tensor parallelism would cut them illegally"
    if loads_dequantized(model, deployment.gpu, deployment.backend):
        yield f"transformers unpacks these weights to 16 bit on {deployment.gpu.name}"
    yield from _doubts(model, deployment, memory)


def _doubts(model: ModelSpec, deployment: Deployment, memory: MemoryUse) -> Iterator[str]:
    """What a guessed size may do to the verdict, which is given for the size as it stands."""
    if model.is_guess:
        yield (
            f"the model is known by its size alone: its weights may be "
            f"{model.weight_margin:.0%} more or less, its cache more"
        )
    sign = 1 if memory.fits else -1
    other = replace(model, weight_bytes=int(model.weight_bytes * (1 + sign * model.weight_margin)))
    if model.weight_margin and memory_use(other, deployment).fits != memory.fits:
        yield (
            f"with weights {model.weight_margin:.0%} {'larger' if memory.fits else 'smaller'}, "
            "which is as far as they may be off, the verdict would be the other"
        )


def shortage(deployment: Deployment, memory: MemoryUse) -> str:
    """Why it does not fit, in GiB for each GPU."""
    if memory.kv < 0:
        return (
            f"weights {memory.weights / GIB:.1f} GiB, activations "
            f"{memory.activations / GIB:.1f} and the engine's own "
            f"{(memory.overhead + memory.graphs + memory.reserve) / GIB:.1f} are "
            f"{-memory.kv / GIB:.1f} GiB more than the {memory.total / GIB:.1f} of each GPU"
        )
    return (
        f"{memory.kv / GIB:.1f} GiB are left for the cache of each GPU, and a conversation of "
        f"{deployment.max_model_len:,} tokens takes {memory.kv_bytes_per_sequence / GIB:.1f}"
    )


def _smaller_methods(model: ModelSpec, shapes: tuple[Deployment, ...]) -> tuple[str, ...]:
    if model.quantization is not None or not shapes:
        return ()
    return usable_quantizations(shapes[0].gpu, shapes[0].backend)
