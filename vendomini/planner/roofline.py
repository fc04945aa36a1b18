"""What one pass of a model takes on its GPUs: bytes over bandwidth, operations over FLOP/s. Pure.

The constants are few and physical. They were set on the published measurements that
`bench/decode_speed.py` compares with, not on single rows of them.
"""

from vendomini.hardware import GpuSpec
from vendomini.models.spec import CacheLayers, ModelSpec
from vendomini.planner.deployment import Deployment

MEMORY_EFFICIENCY = 0.8
"""Of the memory's peak bandwidth. aiconfigurator computes with the same share; A100, 16-bit and
INT4 from 0.5B to 72B, one sequence: 0.80 to 0.85."""

EXPERT_EFFICIENCY = 0.6
"""The same for the weights of experts: a batch gives each of them few tokens, unevenly."""

COMPUTE_EFFICIENCY = 0.6
"""Of the dense peak FLOP/s; large prompts of dense models reach 0.5 to 0.7."""

EXPERT_COMPUTE_EFFICIENCY = 0.3
"""The same for experts: as many small products as there are experts."""

ALL_REDUCE_S = 10e-6
"""The latency of one all-reduce between GPUs of one node over NVLink."""

PCIE_STEP_S = 10e-6
"""One step of a ring without NVLink, through the host; an all-reduce of n GPUs has ``2 * (n - 1)``,
so that the 30 us of two GPUs become 150 us of eight."""

LINK_EFFICIENCY = 0.8
"""Of a link's peak, in large all-reduces over NVLink."""

PCIE_EFFICIENCY = 0.4
"""The same over PCIe, which GPUs share with each other and with the host."""

NETWORK_S = 60e-6
"""The latency of one message or all-reduce between nodes."""

NETWORK_GB_S = 25.0
"""A GPU's share of the network between nodes, each direction: 200 Gbit/s InfiniBand."""

UNFOLDED_WIDTH = 320
"""Elements a head and token that MLA's cache unfolds to: 128 + 64 of the key, 128 of the value, in
every published model."""

SDPA_TIMES = 2.0
"""How much longer attention takes without Flash Attention, in prompts."""

HOP_S = 10e-6
"""The latency of handing a layer's output to the next GPU of the node."""


def native_tflops(model: ModelSpec, gpu: GpuSpec) -> float:
    """10**12 operations a second at which the GPU computes with these weights.

    A format for which the GPU has no units is unpacked to 16 bit (weight-only kernels): it saves
    memory and reads, and computes no faster. So it is with AWQ and GPTQ everywhere.
    """
    method = model.quantization.method if model.quantization is not None else ""
    if "fp4" in method:
        # MXFP4 goes with 8-bit activations, NVFP4 with 4-bit ones; both need units for FP4.
        if gpu.fp4_tflops is not None:
            return (gpu.fp8_tflops or gpu.tflops) if method == "mxfp4" else gpu.fp4_tflops
    elif "fp8" in method and gpu.fp8_tflops is not None:
        return gpu.fp8_tflops
    return gpu.tflops


def expert_bytes(model: ModelSpec) -> float:
    """Bytes of the weights of all routed experts."""
    quantization = model.quantization
    each = quantization.weight_bytes_each if quantization is not None else 2.0
    return min(model.expert_params * each, float(model.weight_bytes))


def shared_bytes(model: ModelSpec) -> float:
    """Bytes of weights that each decode step reads, whatever its tokens are.

    Not the experts, not other senses, and of the input embedding only a row a token.
    """
    unread = 2.0 * model.vision_params
    if not model.tie_word_embeddings:
        unread += model.embedding_params  # half of them, two bytes each
    return max(model.weight_bytes - expert_bytes(model) - unread, 0.0)


def touched_share(model: ModelSpec, tokens: float) -> float:
    """The share of the experts that a batch of `tokens` reads, if each draws its own:
    ``1 - (1 - k/E)**tokens``."""
    if not model.is_moe:
        return 0.0
    drawn = min(model.experts_per_token / model.num_experts, 1.0)
    return float(1.0 - (1.0 - drawn) ** tokens)


def weights_s(model: ModelSpec, deployment: Deployment, tokens: float) -> float:
    """Seconds to read what `tokens` need of the weights, each GPU its part; all stages in turn."""
    bandwidth = deployment.gpu.bandwidth_gb_s * 1e9 * deployment.tensor_parallel_size
    experts = expert_bytes(model) * touched_share(model, tokens)
    return (shared_bytes(model) / MEMORY_EFFICIENCY + experts / EXPERT_EFFICIENCY) / bandwidth


def cached_tokens(layers: CacheLayers, context: float) -> float:
    """How many tokens of a conversation these layers keep and read."""
    return context if layers.window is None else min(context, layers.window)


def cache_bytes(model: ModelSpec, deployment: Deployment, context: float) -> float:
    """Bytes of one conversation's cache that one rank of tensor parallelism reads in a step.

    Ranks share the KV heads as far as there are any; what MLA compresses each of them reads whole.
    transformers caches it unfolded, and in 16 bit.
    """
    is_hf = deployment.backend == "hf"
    is_fp8 = deployment.kv_cache_dtype == "fp8" or model.kv_cache_fp8
    element = 1 if is_fp8 and not is_hf else 2
    total = 0.0
    for group in model.cache:
        width = group.kv_heads * group.width / min(deployment.tensor_parallel_size, group.kv_heads)
        if group.kind == "latent":
            width = model.num_attention_heads * UNFOLDED_WIDTH if is_hf else group.width
        total += cached_tokens(group, context) * group.layers * width * element
    return total + model.state_bytes / deployment.tensor_parallel_size


def cache_s(model: ModelSpec, deployment: Deployment, *, sequences: float, context: float) -> float:
    """Seconds to read the caches of all sequences in one decode step."""
    bandwidth = deployment.gpu.bandwidth_gb_s * 1e9 * MEMORY_EFFICIENCY
    return sequences * cache_bytes(model, deployment, context) / bandwidth


def products_s(model: ModelSpec, deployment: Deployment, tokens: float) -> float:
    """Seconds that the matrix products of `tokens` take: 2 operations a parameter and token."""
    flops = native_tflops(model, deployment.gpu) * 1e12 * deployment.tensor_parallel_size
    drawn = model.experts_per_token / model.num_experts if model.is_moe else 0.0
    experts = min(model.expert_params * drawn, model.active_params)
    shared = model.active_params - experts
    work = shared / COMPUTE_EFFICIENCY + experts / EXPERT_COMPUTE_EFFICIENCY
    return 2.0 * tokens * work / flops


def attention_s(model: ModelSpec, deployment: Deployment, *, tokens: float, cached: float) -> float:
    """Seconds of attention of a prompt's `tokens` to themselves and to `cached` ones before them.

    ``4 * heads * head_dim`` operations a layer and pair of tokens, half the pairs of the new
    ones; in 16 bit whatever the weights are.
    """
    flops = deployment.gpu.tflops * 1e12 * COMPUTE_EFFICIENCY * deployment.tensor_parallel_size
    operations = 0.0
    for group in model.cache:
        seen = cached + tokens / 2
        if group.window is not None:
            seen = min(seen, group.window)
        width = UNFOLDED_WIDTH if group.kind == "latent" else group.width
        operations += 2.0 * model.num_attention_heads * width * group.layers * tokens * seen
    slow = deployment.backend == "hf" and not deployment.flash_attention
    return operations / flops * (SDPA_TIMES if slow else 1.0)


def all_reduce_s(model: ModelSpec, deployment: Deployment, tokens: float) -> float:
    """Seconds of the two all-reduces of each layer: latency, and for large ones the ring's
    ``2 * (n - 1) / n`` times the bytes over the link."""
    ranks = deployment.tensor_parallel_size
    if ranks == 1:
        return 0.0
    gpu = deployment.gpu
    latency, link = ALL_REDUCE_S, gpu.link_gb_s * LINK_EFFICIENCY
    if not gpu.has_nvlink:
        latency += 2 * (ranks - 1) * PCIE_STEP_S
        link = gpu.link_gb_s * PCIE_EFFICIENCY
    if deployment.nodes > deployment.pipeline_parallel_size:  # ranks of a stage on several nodes
        latency, link = latency + NETWORK_S, min(link, NETWORK_GB_S)
    moved = 2.0 * tokens * model.hidden_size * 2 * (ranks - 1) / ranks
    return 2 * model.layers * (latency + moved / (link * 1e9))


def hops_s(model: ModelSpec, deployment: Deployment, tokens: float) -> float:
    """Seconds of handing `tokens` from stage to stage, over the network between nodes."""
    hops = deployment.pipeline_parallel_size - 1
    far = min(hops, deployment.nodes - 1)
    moved = tokens * model.hidden_size * 2
    near = HOP_S + moved / (deployment.gpu.link_gb_s * 1e9)
    return (hops - far) * near + far * (NETWORK_S + moved / (NETWORK_GB_S * 1e9))
