"""How fast a deployment reads prompts and writes replies: roofline plus overheads. Pure.

Decode step of `B` sequences of `c` tokens (all in seconds)::

    t = max(weights read, products) + KV caches read + L * layer + all-reduces + hops

A step reads all weights but the input embedding, of a mixture's experts those that the batch's
tokens draw (`roofline.touched_share`); the products of the batch run meanwhile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Deployment, Speed
from vendomini.planner.observed import nearest, those_of
from vendomini.planner.roofline import (
    all_reduce_s,
    attention_s,
    cache_s,
    hops_s,
    products_s,
    weights_s,
)
from vendomini.store.measurements import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Overheads:
    """What a layer costs beside reading and computing, in seconds; one of experts `experts_s`
    more."""

    layer_s: float
    experts_s: float


VLLM = Overheads(layer_s=50e-6, experts_s=15e-6)
"""vLLM since 0.8 (V1) with CUDA graphs: H100 to B300, vLLM 0.11 to 0.19, 8B to 1000B."""

VLLM_V0 = Overheads(layer_s=117e-6, experts_s=15e-6)
"""vLLM before 0.8: the fit of Qwen2.5 0.5B to 32B on A100, vLLM 0.6.3, one sequence."""

VLLM_EAGER = Overheads(layer_s=350e-6, experts_s=100e-6)
"""Without CUDA graphs: a processor's launches, some 5 us each, half as many as transformers'."""

HF_LAYER_S = 0.88e-3
"""transformers on A100, 0.5B to 32B, one sequence: 0.88 ms a layer whatever its size, as the
processor launches kernel by kernel. 0.6 ms were seen with a newer processor."""

HF_EXPERTS_S = 0.6e-3
"""More for a layer of experts in one grouped product."""

HF_LOOP_S = 85e-6
"""An expert's turn in the loop over a layer's experts: Qwen3-30B-A3B, 128 experts in each of 48
layers, 1.9 tokens a second."""

HF_HOP_S = 50e-6
"""Handing over to the next GPU, which `accelerate` does from Python, tensor by tensor."""


def speed(
    model: ModelSpec,
    deployment: Deployment,
    *,
    sequences: int,
    context: int,
    measured: Sequence[Measured] = (),
    overheads: Overheads | None = None,
) -> Speed:
    """The speed of one replica with `sequences` conversations under way of `context` tokens each.

    `measured` are speeds seen on this cluster (`store.measurements`): those of this very
    deployment replace the computed ones, scaled by what the formula says of the difference in
    concurrency and context. `overheads` are those of another vLLM than today's. Fewer sequences
    and shorter contexts than 1 count as 1.
    """
    sequences, context = max(sequences, 1), max(context, 1)
    step = step_s(model, deployment, sequences=sequences, context=context, overheads=overheads)
    read = prefill_s(model, deployment, context, overheads=overheads)
    at_once = _prompts_at_once(deployment, sequences)
    seen = nearest(those_of(model, deployment, measured), sequences=sequences)
    times = median(_times(model, deployment, each) for each in seen) if seen else 1.0
    return Speed(
        step_s=step * times,
        decode_tokens_s=sequences / (step * times),
        prefill_tokens_s=at_once * context / (read * times),
        source=_told(seen, times) if seen else "computed",
        is_measured=bool(seen),
    )


def _times(model: ModelSpec, deployment: Deployment, measured: Measured) -> float:
    """How many times the computed seconds the measured work took."""
    sequences = max(measured.concurrency, 1.0)
    step = step_s(model, deployment, sequences=sequences, context=measured.context)
    new = max(measured.tokens_in - measured.tokens_cached, 0)
    cached = measured.tokens_cached / measured.requests
    each = prefill_s(model, deployment, new / measured.requests, cached=cached)
    reading = measured.requests * each / _prompts_at_once(deployment, sequences)
    computed = measured.tokens_out * step / sequences + reading
    return measured.seconds / computed


def _prompts_at_once(deployment: Deployment, sequences: float) -> float:
    """Each stage of vLLM's pipeline may read another prompt; transformers' wait for each other."""
    if deployment.backend == "hf":
        return 1.0
    return min(float(deployment.pipeline_parallel_size), sequences)


def _told(seen: Sequence[Measured], times: float) -> str:
    under_way = f"{median(each.concurrency for each in seen):.3g}"
    count = "1 measurement" if len(seen) == 1 else f"{len(seen)} measurements"
    return f"{count} with about {under_way} requests under way: {times:.2f} times the computed time"


def step_s(
    model: ModelSpec,
    deployment: Deployment,
    *,
    sequences: float,
    context: float,
    overheads: Overheads | None = None,
) -> float:
    """Seconds of one decode step, computed: the time to each sequence's next token.

    Stages of a pipeline work on a part of the sequences each, and a token passes all of them.
    """
    if deployment.backend == "hf":
        return _hf_step_s(model, deployment, sequences=sequences, context=context)
    batch = max(sequences / deployment.pipeline_parallel_size, 1.0)
    return (
        max(weights_s(model, deployment, batch), products_s(model, deployment, batch))
        + cache_s(model, deployment, sequences=batch, context=context)
        + _launches_s(model, overheads or _overheads_of(deployment))
        + all_reduce_s(model, deployment, batch)
        + hops_s(model, deployment, batch)
    )


def prefill_s(
    model: ModelSpec,
    deployment: Deployment,
    tokens: float,
    *,
    cached: float = 0.0,
    overheads: Overheads | None = None,
) -> float:
    """Seconds until a prompt has been read whose last `tokens` are new, after `cached` ones.

    Products and attention at the GPU's rate, but no faster than the weights can be read, and what
    each layer costs. Stages of a pipeline read it one after another.
    """
    launches = model.layers * hf_layer_s(model, deployment)
    if deployment.backend == "hf":
        model = _as_hf_computes(model)
    computed = max(products_s(model, deployment, tokens), weights_s(model, deployment, tokens))
    computed += attention_s(model, deployment, tokens=tokens, cached=cached)
    computed += all_reduce_s(model, deployment, tokens) + hops_s(model, deployment, tokens)
    if deployment.backend == "hf":
        return max(computed, launches)
    return computed + _launches_s(model, overheads or _overheads_of(deployment))


def _overheads_of(deployment: Deployment) -> Overheads:
    return VLLM_EAGER if deployment.enforce_eager else VLLM


def _launches_s(model: ModelSpec, overheads: Overheads) -> float:
    experts = overheads.experts_s if model.is_moe else 0.0
    return model.layers * (overheads.layer_s + experts)


def hf_layer_s(model: ModelSpec, deployment: Deployment) -> float:
    """Seconds in which the processor launches one layer's kernels with transformers.

    Experts are one grouped product on GPUs of compute capability 8.0 with 16-bit weights
    (transformers 5), and a loop over all of them else.
    """
    if not model.is_moe:
        return HF_LAYER_S
    capability = deployment.gpu.compute_capability
    if model.quantization is None and capability is not None and capability >= 8.0:
        return HF_LAYER_S + HF_EXPERTS_S
    return HF_LAYER_S + model.num_experts * HF_LOOP_S


def _as_hf_computes(model: ModelSpec) -> ModelSpec:
    """Quantised weights are unpacked to 16 bit before each product: none of the kernels that
    transformers has was seen to be faster than 16-bit weights."""
    return model if model.quantization is None else requantized(model, "bf16")


def _hf_step_s(
    model: ModelSpec, deployment: Deployment, *, sequences: float, context: float
) -> float:
    """A step with transformers: launches or the GPU's work, whichever takes longer.

    The cache is written anew at each token (torch.cat), so it is read twice and written once;
    attention other than Flash Attention also spreads the KV heads to all heads first.
    """
    launches = model.layers * hf_layer_s(model, deployment)
    model = _as_hf_computes(model)
    passes = 3.0
    if not deployment.flash_attention:
        passes += 2.0 * model.num_attention_heads / max(model.num_key_value_heads, 1)
    work = max(weights_s(model, deployment, sequences), products_s(model, deployment, sequences))
    work += passes * cache_s(model, deployment, sequences=sequences, context=context)
    return max(launches, work) + HF_HOP_S * (deployment.pipeline_parallel_size - 1)
