"""How a model may be cut over GPUs: the engines' own rules, with the numbers they speak of.

Rules of vLLM 0.32, read in its sources: `ModelConfig.verify_with_parallel_config`, the attention
layers of `model_executor/models`, `FusedMoEConfig`, `validate_fp8_block_shape` and the Marlin
kernels' group checks. A vision tower sets no rule: it is replicated where it cannot be cut.
"""

from vendomini.models.spec import ModelSpec, Quantization
from vendomini.planner.deployment import Deployment

LEAST_EXPERT_GROUP = 32
NO_GROUPS = frozenset({"bitsandbytes", "gguf"})  # theirs run over the flattened matrix
ASKED_FOR = "asked for"
"""What `ModelSpec.sources` says of a quantisation that no file was read for."""


def refusal(model: ModelSpec, deployment: Deployment, *, gpus_per_node: int) -> str | None:
    """Why the deployment's sizes are illegal for `model`, naming the numbers; None: they are not.

    Tensor parallelism over several nodes is legal if the deployment says that it has them.
    """
    tp, pp = deployment.tensor_parallel_size, deployment.pipeline_parallel_size
    for name, size in (("TP", tp), ("PP", pp), ("nodes", deployment.nodes)):
        if size < 1:
            return f"{name} {size} is less than 1"
    if pp > model.layers:
        return f"{model.layers} layers cannot be cut into PP {pp} stages"
    if deployment.gpus > deployment.nodes * gpus_per_node:
        nodes = "1 node has" if deployment.nodes == 1 else f"{deployment.nodes} nodes have"
        return (
            f"TP {tp} x PP {pp} takes {deployment.gpus} GPUs, and {nodes} "
            f"{deployment.nodes * gpus_per_node}"
        )
    if deployment.backend == "hf":
        return None if tp == 1 else f"transformers spreads layers, not heads: TP {tp} is vLLM's"
    if deployment.enable_expert_parallel and not model.is_moe:
        return "expert parallelism needs experts, and the model has none"
    return _uncut(model, tp, is_expert_parallel=deployment.enable_expert_parallel)


def legal_sizes(
    model: ModelSpec,
    *,
    most: int,
    method: Quantization | None = None,
    expert_parallel: bool = False,
) -> tuple[int, ...]:
    """The tensor-parallel sizes up to `most` that `model` may be cut into, ascending.

    `method` stands for the model's own quantisation where it is given. Of a model that is known by
    its size alone nobody knows the heads: powers of two suit nearly all.
    """
    return tuple(
        tp
        for tp in range(1, most + 1)
        if not (model.is_guess and tp & (tp - 1))
        and _uncut(model, tp, is_expert_parallel=expert_parallel, method=method) is None
    )


def needs_expert_parallel(model: ModelSpec, tensor_parallel_size: int) -> bool:
    """Whether that size is legal only with whole experts on each GPU."""
    return (
        model.is_moe
        and _uncut(model, tensor_parallel_size, is_expert_parallel=False) is not None
        and _uncut(model, tensor_parallel_size, is_expert_parallel=True) is None
    )


def _uncut(
    model: ModelSpec, tp: int, *, is_expert_parallel: bool, method: Quantization | None = None
) -> str | None:
    """Why `model` cannot be cut over `tp` GPUs; a guess of its heads refuses nothing."""
    if tp == 1 or model.is_guess:
        return None
    heads = model.num_attention_heads
    if heads % tp:
        return f"heads {heads}, TP {tp}: TP must divide the attention heads"
    kv_heads = sorted({group.kv_heads for group in model.cache if group.kind != "latent"})
    for count in kv_heads:
        if count % tp and tp % count:
            return f"KV heads {count}, TP {tp}: one must be a multiple of the other"
    if model.hidden_size % tp:
        return f"hidden size {model.hidden_size}, TP {tp}: TP must divide it"
    if model.intermediate_size is not None and model.intermediate_size % tp:
        return f"intermediate size {model.intermediate_size}, TP {tp}: TP must divide it"
    return (
        _uncut_state(model, tp)
        or _uncut_experts(model, tp, is_expert_parallel=is_expert_parallel)
        or _uncut_scales(
            model, tp, method or model.quantization, is_expert_parallel=is_expert_parallel
        )
    )


def _uncut_state(model: ModelSpec, tp: int) -> str | None:
    """Mamba's and linear attention's heads, and the groups that Mamba's share."""
    if model.mamba_heads is not None and model.mamba_heads % tp:
        return f"Mamba heads {model.mamba_heads}, TP {tp}: TP must divide them"
    groups = model.mamba_groups
    if groups is not None and groups > 1 and groups % tp:
        return f"Mamba groups {groups}, TP {tp}: TP must divide them, or there must be one"
    return None


def _uncut_experts(model: ModelSpec, tp: int, *, is_expert_parallel: bool) -> str | None:
    if not model.is_moe:
        return None
    if is_expert_parallel:
        if tp > model.num_experts:
            return f"experts {model.num_experts}, TP {tp}: each GPU must hold at least one"
        return None
    size = model.moe_intermediate_size
    if size is not None and size % tp:
        return f"expert size {size}, TP {tp}: TP must divide it, or enable expert parallelism"
    return None


def _uncut_scales(
    model: ModelSpec, tp: int, method: Quantization | None, *, is_expert_parallel: bool
) -> str | None:
    """Slices of quantised matrices must hold whole blocks or groups of those that share a scale.

    MXFP4's and NVFP4's (32 and 16) are padded by the engine. Checkpoints that nobody has read yet
    are taken to be padded to whole groups, as those published are (Qwen2.5-72B's: from 29568 to
    29696); experts' groups are halved down to 32 where they must (`moe_wna16`).
    """
    if method is None or "fp4" in method.method or method.method in NO_GROUPS:
        return None
    if method.block is not None:
        unit = expert_unit = method.block[0]
        what = f"{method.method} blocks"
    elif method.group_size is not None and method.group_size > 1:
        unit, expert_unit = method.group_size, min(method.group_size, LEAST_EXPERT_GROUP)
        what = f"{method.method} groups"
    else:
        return None
    is_padded = method.block is None and model.sources.get("quantization") == ASKED_FOR
    size = model.intermediate_size
    if not (method.expert_only or is_padded) and _straddles(size, tp, unit):
        return f"intermediate size {size}, TP {tp}: not in whole {what} of {unit}"
    size = model.moe_intermediate_size
    if model.is_moe and not is_expert_parallel and _straddles(size, tp, expert_unit):
        return (
            f"expert size {size}, TP {tp}: not in whole {what} of {expert_unit}; "
            "expert parallelism keeps experts whole"
        )
    return None


def _straddles(size: int | None, tp: int, unit: int) -> bool:
    """Whether slices of a row cut through a group; one as long as the row is on every GPU."""
    return size is not None and size > unit and (size // tp) % unit != 0
