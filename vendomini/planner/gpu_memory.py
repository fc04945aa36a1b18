"""The memory that a model takes on each GPU of a deployment.

vLLM takes ``total * gpu_memory_utilization``, loads the weights, runs one batch of the largest
size to see what the activations take, and gives the rest to the KV cache; it does not start if
one conversation of `max_model_len` does not fit into that rest. transformers takes what it needs
as it goes: weights, the growing cache, and the activations of a prompt that is read at once.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from vendomini.hardware import GIB, GpuSpec
from vendomini.models.spec import CacheLayers, ModelSpec
from vendomini.planner.deployment import Deployment, MemoryUse
from vendomini.planner.gates import loads_dequantized, runtime_dtype
from vendomini.planner.roofline import UNFOLDED_WIDTH

MIB: Final = 1024**2

GPU_MEMORY_UTILIZATION: Final = 0.92  # vLLM's default since 0.20; it was 0.9
BLOCK_TOKENS: Final = 16  # vLLM's block_size on CUDA

# vLLM's defaults of a server (engine/arg_utils.py): max_num_batched_tokens and max_num_seqs on
# cards of 70 GiB and more other than the A100, and on all others. At that step a card would hold
# less for being larger, so between 66 and 79 GiB, where no such card is sold, it is a slope.
LARGE_CARD_BATCH: Final = (8192, 1024)
SMALL_CARD_BATCH: Final = (2048, 256)
LARGE_CARD_BYTES: Final = 79 * GIB
SMALL_CARD_BYTES: Final = 66 * GIB

# The sampler of each rank holds the logits of the whole vocabulary for max_num_seqs sequences:
# 2 bytes as they come, 4 in float32, 12 sorted with their int64 indices, 12 for the sort's
# alternate buffers and 8 for its segment indices (torch's segmented sort). llm-d measured on H100
# with vLLM 0.11 and 1024 sequences 4.8 to 5.6 GiB with dense models, whatever their size, and 7.4
# with an MoE: so many bytes of 128k, 152k and 201k words. Newer versions mask in a kernel of
# their own and may take less.
SAMPLER_BYTES_PER_LOGIT: Final = 38

# Tokens of the profiling batch: residual, hidden states and the norms' outputs, four at a time
# in vLLM's compiled layers; beside them queries, keys, values or gate, up and their product.
LIVE_HIDDEN_STATES: Final = 4
LEAST_ACTIVATIONS: Final = GIB // 2  # workspaces of the attention and matrix kernels
ENCODER_BYTES: Final = 2 * GIB + GIB // 10  # images at their largest: measured 2.1 GiB on H100

CONTEXT_BYTES: Final = 150 * MIB  # CUDA context: measured 0.13 to 0.15 GiB on H100
NCCL_BYTES: Final = {1: 0, 2: 342 * MIB}  # by ranks; aiconfigurator's table
NCCL_BYTES_OF_MORE: Final = 392 * MIB
GRAPH_BYTES: Final = 400 * MIB  # CUDA graphs; llm-d's measurements scatter from -0.9 to 1.0 GiB

HF_CONTEXT_BYTES: Final = 650 * MIB  # CUDA context and kernels under torch (gpu_poor)
HF_LIVE_HIDDEN_STATES: Final = 3
HF_LOGITS: Final = 3  # float32 copies of the last token's logits while it is sampled

LONGEST: Final = 1 << 24  # tokens; where a config.json does not say how many


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Consecutive layers on one group of GPUs."""

    layers: int
    is_first: bool
    is_last: bool


def memory_use(model: ModelSpec, deployment: Deployment) -> MemoryUse:
    """What a deployment takes of its fullest GPU: that with the smallest margin.

    vLLM: ``kv = total * gpu_memory_utilization - weights - activations - overhead - graphs``,
    where the activations are the largest of a forward pass over `max_num_batched_tokens`, the
    sampling of `max_num_seqs` and the encoding of images. transformers: ``kv = total - weights
    - activations - overhead`` with one prompt of `max_model_len` tokens read at once.
    """
    uses = [
        _of_stage(model, deployment, stage)
        for stage in _stages(model.layers, deployment.pipeline_parallel_size)
    ]
    return min(uses, key=lambda use: use.margin)


def sequences_that_fit(model: ModelSpec, deployment: Deployment, tokens: int) -> int:
    """Conversations of so many tokens that are held at once, at most `max_num_seqs` with vLLM.

    Zero if not even one fits. The GPU with the least room decides.
    """
    most = batch_of(deployment)[1] if deployment.backend == "vllm" else LONGEST
    for stage in _stages(model.layers, deployment.pipeline_parallel_size):
        use = _of_stage(model, replace(deployment, max_model_len=tokens), stage)
        each = use.kv_bytes_per_sequence
        if each:
            most = min(most, use.kv // each)
        elif use.kv < 0:
            most = 0
    return max(0, most)


def longest_that_fits(model: ModelSpec, deployment: Deployment) -> int:
    """The longest conversation in tokens that fits alone; 0: none does.

    At most the model's own context, or what the deployment asks for if that is longer.
    """

    def fits(tokens: int) -> bool:
        return memory_use(model, replace(deployment, max_model_len=tokens)).fits

    longest = max(model.max_model_len or LONGEST, deployment.max_model_len)
    if fits(longest):
        return longest
    if not fits(1):
        return 0
    fitting, too_long = 1, longest
    while too_long - fitting > BLOCK_TOKENS:
        middle = (fitting + too_long) // 2
        if fits(middle):
            fitting = middle
        else:
            too_long = middle
    return max(1, fitting // BLOCK_TOKENS * BLOCK_TOKENS)


def batch_of(deployment: Deployment) -> tuple[int, int]:
    """`max_num_batched_tokens` and `max_num_seqs` of a vLLM server, its defaults where unset."""
    share = _largeness(deployment.gpu)
    tokens, sequences = (
        small + round(share * (large - small))
        for small, large in zip(SMALL_CARD_BATCH, LARGE_CARD_BATCH, strict=True)
    )
    tokens = deployment.max_num_batched_tokens or tokens
    return tokens, min(deployment.max_num_seqs or sequences, tokens)


def _largeness(gpu: GpuSpec) -> float:
    """0 where vLLM's defaults are those of small cards, 1 where those of large ones."""
    if "a100" in gpu.name.lower():
        return 0.0
    slope = LARGE_CARD_BYTES - SMALL_CARD_BYTES
    return min(1.0, max(0.0, (gpu.memory_bytes - SMALL_CARD_BYTES) / slope))


def _element_bytes(model: ModelSpec, deployment: Deployment) -> int:
    dtype = deployment.dtype or runtime_dtype(model, deployment.gpu)
    return 4 if dtype == "float32" else 2


def _stages(layers: int, count: int) -> Iterator[_Stage]:
    """As vLLM cuts the list of layers (get_pp_indices): what is left over goes one each to the
    stages before the last, from the back. Stages that are alike are given once."""
    sizes = [layers // count] * count
    for place in range(layers % count):
        sizes[-2 - place] += 1
    yield _Stage(layers=sizes[0], is_first=True, is_last=count == 1)
    for size in sorted(set(sizes[1:-1])):
        yield _Stage(layers=size, is_first=False, is_last=False)
    if count > 1:
        yield _Stage(layers=sizes[-1], is_first=False, is_last=True)


def _of_stage(model: ModelSpec, deployment: Deployment, stage: _Stage) -> MemoryUse:
    total = deployment.gpu.memory_bytes
    weights = _weights(model, deployment, stage)
    if deployment.backend == "hf":
        reserve = graphs = 0
        activations = _hf_activations(model, deployment, stage)
        overhead = HF_CONTEXT_BYTES
    else:
        utilization = deployment.gpu_memory_utilization or GPU_MEMORY_UTILIZATION
        reserve = total - int(total * utilization)
        graphs = 0 if deployment.enforce_eager else GRAPH_BYTES
        activations = _activations(model, deployment, stage)
        overhead = CONTEXT_BYTES + NCCL_BYTES.get(deployment.gpus, NCCL_BYTES_OF_MORE)
    return MemoryUse(
        total=total,
        weights=weights,
        activations=activations,
        overhead=overhead,
        graphs=graphs,
        reserve=reserve,
        kv=total - reserve - weights - activations - overhead - graphs,
        kv_bytes_per_sequence=_kv_bytes(model, deployment, stage),
    )


def _weights(model: ModelSpec, deployment: Deployment, stage: _Stage) -> int:
    """The weights of one GPU of a stage.

    Tensor parallelism divides every matrix, the vocabulary's too. Routed experts are divided over
    the data-parallel groups as well; with expert parallelism whole experts are, so the fullest
    GPU has ``ceil(experts / GPUs)`` of each layer. The embedding lies on the first stage, the
    head on the last, and both on one that is both; tied ones on either.
    """
    tp = deployment.tensor_parallel_size
    element = _element_bytes(model, deployment)
    quantization = model.quantization
    if loads_dequantized(model, deployment.gpu, deployment.backend):
        quantization = None
    each = element if quantization is None else quantization.weight_bytes_each
    if quantization is None and (model.quantization is not None or element != 2):
        loaded = model.params * element
    else:
        loaded = model.weight_bytes
    embedding = min(model.embedding_params * element, loaded)
    vision = min(model.vision_params * element, loaded - embedding)
    layers = loaded - embedding - vision
    experts = min(model.expert_params * each, layers)
    group = tp * deployment.data_parallel_size
    if deployment.enable_expert_parallel and model.num_experts:
        expert_share = math.ceil(model.num_experts / group) / model.num_experts
    else:
        expert_share = 1 / group
    share = stage.layers / model.layers
    bytes_ = share * ((layers - experts) / tp + experts * expert_share)
    if stage.is_first and stage.is_last:
        bytes_ += embedding / tp
    elif stage.is_first or stage.is_last:
        bytes_ += embedding / tp / (1 if model.tie_word_embeddings else 2)
    if stage.is_first:
        bytes_ += vision / tp
    return math.ceil(bytes_)


def _activations(model: ModelSpec, deployment: Deployment, stage: _Stage) -> int:
    """The peak of vLLM's profiling run: the phases follow each other, so the largest counts."""
    tokens, sequences = batch_of(deployment)
    phases = [LEAST_ACTIVATIONS, _forward(model, deployment, tokens, LIVE_HIDDEN_STATES)]
    if stage.is_last:
        phases.append(sequences * model.vocab_size * SAMPLER_BYTES_PER_LOGIT)
    if stage.is_first and model.vision_params:
        phases.append(ENCODER_BYTES)
    return max(phases)


def _hf_activations(model: ModelSpec, deployment: Deployment, stage: _Stage) -> int:
    """The prompt's states; measured with Qwen2.5-7B on A100: 3.9 GiB for 30,720 tokens."""
    needed = _forward(model, deployment, deployment.max_model_len, HF_LIVE_HIDDEN_STATES)
    if model.quantization is not None:  # one matrix at a time is unpacked to 16 bit
        needed += model.hidden_size * (model.intermediate_size or model.hidden_size) * 2
    if stage.is_last:
        needed = max(needed, HF_LOGITS * model.vocab_size * 4)
    return needed


def _forward(model: ModelSpec, deployment: Deployment, tokens: int, hidden_states: int) -> int:
    """States of `tokens` in the widest layer: the residual stream on every rank, and the
    larger of attention (three hidden sizes) and feed-forward (gate, up, product), divided.

    An expert layer holds each token once for every expert it goes to, as vLLM's fused kernel
    does: the wider of gate and up or the hidden size, and the product.
    """
    tp = deployment.tensor_parallel_size
    width = max(3 * model.hidden_size, 3 * (model.intermediate_size or 0)) / tp
    if model.is_moe and model.moe_intermediate_size:
        inner = model.moe_intermediate_size / tp
        routed = max(2 * inner, model.hidden_size) + inner
        width = max(width, model.experts_per_token * routed)
    element = _element_bytes(model, deployment)
    return math.ceil(tokens * (hidden_states * model.hidden_size + width) * element)


def _kv_bytes(model: ModelSpec, deployment: Deployment, stage: _Stage) -> int:
    """What one conversation of `max_model_len` tokens takes of one GPU of a stage."""
    share = stage.layers / model.layers
    state = math.ceil(model.state_bytes * share / deployment.tensor_parallel_size)
    return state + sum(_group_bytes(group, model, deployment, share) for group in model.cache)


def _group_bytes(group: CacheLayers, model: ModelSpec, deployment: Deployment, share: float) -> int:
    """Whole blocks of a group's layers. Heads are divided, but never below one to a rank.

    A latent cache is not divided, and transformers keeps it unfolded to all heads. A window's
    layers keep ``window - 1`` tokens and the batch that is being read (vLLM's SlidingWindowSpec),
    in one block more.
    """
    tokens = deployment.max_model_len
    blocks = math.ceil(tokens / BLOCK_TOKENS)
    if group.window is not None:
        batch = batch_of(deployment)[0] if deployment.backend == "vllm" else 0
        blocks = min(blocks, math.ceil((group.window - 1 + batch) / BLOCK_TOKENS) + 1)
    heads, width = group.kv_heads, group.width
    if group.kind == "latent" and deployment.backend == "hf":
        heads, width = model.num_attention_heads, UNFOLDED_WIDTH
    elif group.kind != "latent":
        heads = math.ceil(group.kv_heads / deployment.tensor_parallel_size)
    one_byte = deployment.kv_cache_dtype == "fp8" or model.kv_cache_fp8
    element = _element_bytes(model, deployment)
    if one_byte and deployment.backend == "vllm":
        element = 1
    layers = math.ceil(group.layers * share)
    return layers * heads * width * element * blocks * BLOCK_TOKENS
