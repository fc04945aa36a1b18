"""The layers of a model, one by one, as its config.json describes them: what mixes tokens
(attention and its kin), and what follows (an MLP, experts, nothing).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from vendomini.models.fields import (
    EXPERT_SIZE,
    EXPERTS,
    EXPERTS_PER_TOKEN,
    INTERMEDIATE,
    KEY_VALUE_HEADS,
    SHARED_EXPERT_SIZE,
    SHARED_EXPERTS,
    Fields,
)
from vendomini.models.spec import Layer


def layers_of(fields: Fields) -> tuple[Layer, ...]:
    """The layers of the language model, in order."""
    if blocks := fields.list("block_configs"):
        return tuple(_nas_layer(fields, block) for block in blocks)
    pattern = _mixer_pattern(fields)
    if pattern is not None:
        return tuple(_one_mixer(fields, sign) for sign in pattern)
    count = fields.depth
    if fields.model_type == "deepseek_v4":
        return tuple(_v4_layer(fields, ratio) for ratio in _v4_ratios(fields, count))
    kinds = _kinds(fields, count)
    moe = _which_have_experts(fields, count)
    return tuple(
        _follow(fields, _mix(fields, kinds[index], index, count), is_moe=moe[index], index=index)
        for index in range(count)
    )


# -- private -------------------------------------------------------------------------------


def _nas_layer(fields: Fields, block: Mapping[str, Any]) -> Layer:
    """Nemotron-NAS: each layer may lack its attention or have fewer KV heads, and its own MLP."""
    attention, ffn = block.get("attention", {}), block.get("ffn", {})
    layer = Layer(mixing="none", caches=False)
    if not attention.get("no_op") and not attention.get("replace_with_linear"):
        kv_heads = fields.heads // (attention.get("n_heads_in_group") or 1)
        head = fields.positive("head_dim") or fields.hidden // fields.heads
        layer = Layer(heads=fields.heads, kv_heads=kv_heads, head_dim=head, value_dim=head)
    if ffn.get("no_op"):
        return layer
    size = ffn.get("intermediate_size")
    if size is None:
        # As its code rounds it: two thirds of four times the hidden size, in steps.
        wanted = int(2 * (ffn.get("ffn_mult") or 1.0) * fields.hidden / 3)
        size = wanted if wanted % 256 == 0 else wanted + 256 - wanted % 256
    return replace(layer, intermediate=size)


def _mixer_pattern(fields: Fields) -> list[str] | None:
    pattern = fields.value("hybrid_override_pattern")
    if isinstance(pattern, str):
        return [sign for sign in pattern if sign not in "|"]
    if fields.model_type != "nemotron_h":
        return None
    listed = fields.value("layers_block_type", "layer_types")
    if isinstance(listed, list):
        return [str(each) for each in listed]
    counted = _counts(fields.mapping("layers_block_type", "layers_block_type_counts"))
    return _interleaved(counted) if counted else None


def _one_mixer(fields: Fields, sign: str) -> Layer:
    """A layer of Nemotron-H: a mixer or an MLP or experts, and nothing else."""
    match sign:
        case "M" | "mamba" | "linear_attention":
            return _mamba(fields)
        case "*" | "attention" | "full_attention":
            return _mix(fields, "full_attention", 0, 1)
        case "E" | "moe":
            layer = _follow(fields, Layer(mixing="none", caches=False), is_moe=True)
            return replace(layer, intermediate=None)
        case _:
            return Layer(mixing="none", caches=False, intermediate=_intermediate(fields))


def _v4_ratios(fields: Fields, count: int) -> Iterator[int]:
    """How many tokens each layer of DeepSeek-V4 compresses into one; 0: it does not."""
    ratios = fields.list("compress_ratios")
    if ratios is None:
        counted = fields.mapping("compress_ratios_counts")
        ratios = _interleaved({str(k): int(v) for k, v in counted.items()}) if counted else []
    named = {"sliding_attention": 0, "compressed_sparse_attention": 4}
    kinds = fields.list("layer_types") or []
    for index in range(count):
        if index < len(kinds):
            yield named.get(str(kinds[index]), 128)
        else:
            yield int(ratios[index]) if index < len(ratios) else 4 if index % 2 else 128


def _v4_layer(fields: Fields, compression: int) -> Layer:
    head = fields.positive("head_dim") or 512
    layer = Layer(
        mixing="compressed",
        heads=fields.heads,
        kv_heads=1,
        head_dim=head,
        value_dim=head,
        window=fields.positive("sliding_window"),
        compression=compression,
        index_dim=fields.positive("index_head_dim") or 0,
    )
    return _follow(fields, layer, is_moe=True)


def _kinds(fields: Fields, count: int) -> list[str]:
    """Per layer: full_attention, sliding_attention, chunked_attention, linear_attention, ..."""
    said = fields.list("layer_types")
    if said is not None and len(said) == count:
        return [str(kind) for kind in said]
    counted = _counts(fields.mapping("layer_types", "layer_types_counts"))
    if counted and sum(counted.values()) == count:
        return _interleaved(counted)
    if linear := fields.mapping("linear_attn_config"):
        return _kimi_kinds(linear, count)
    every = fields.positive("full_attention_interval")
    if every and fields.positive("linear_num_value_heads"):
        return _every(count, every, "full_attention", "linear_attention")
    model_type = fields.model_type
    if model_type == "bamba":
        attending = fields.list("attn_layer_indices") or []
        return ["full_attention" if index in attending else "mamba" for index in range(count)]
    if model_type in {"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"}:
        return _every(count, 4, "full_attention", "linear_attention")
    swa = fields.value("hybrid_layer_pattern", "hybrid_layer_pattern_counts")
    if isinstance(swa, list):  # MiMo-V2: 1 is a sliding layer
        return ["sliding_attention" if each else "full_attention" for each in swa]
    if isinstance(swa, dict):
        named = {"0": "full_attention", "1": "sliding_attention"}
        return _interleaved({named[str(key)]: int(value) for key, value in swa.items()})
    if model_type.startswith("llama4"):
        every = fields.positive("no_rope_layer_interval") or 4
        return _every(count, every, "full_attention", "chunked_attention")
    if fields.positive("sliding_window") and fields.flag("use_sliding_window", otherwise=True):
        return _sliding_kinds(fields, count)
    return ["full_attention"] * count


def _kimi_kinds(linear: Mapping[str, Any], count: int) -> list[str]:
    full = linear.get("full_attn_layers")
    if isinstance(full, list):  # counted from 1
        return ["full_attention" if i + 1 in full else "kda" for i in range(count)]
    number = full if isinstance(full, int) else 0
    return _interleaved({"kda": count - number, "full_attention": number})


def _sliding_kinds(fields: Fields, count: int) -> list[str]:
    """Where a config.json has a window and no list of layers: what the model's code does."""
    pattern = fields.positive("sliding_window_pattern", "_sliding_window_pattern")
    usual = {
        "gemma2": 2,
        "gemma3_text": 6,
        "gemma3": 6,
        "gemma4_text": 6,
        "gemma4": 6,
        "gpt_oss": 2,
        "cohere2": 4,
        "olmo3": 4,
        "exaone4": 4,
    }
    every = pattern or usual.get(fields.model_type)
    if every and every > 1:
        return _every(count, every, "full_attention", "sliding_attention")
    if fields.model_type.startswith("qwen"):
        full = fields.number("max_window_layers") or 0
        return ["full_attention" if i < full else "sliding_attention" for i in range(count)]
    return ["sliding_attention"] * count


def _which_have_experts(fields: Fields, count: int) -> list[bool]:
    """Which layers have experts."""
    if not fields.positive(*EXPERTS) or fields.value("enable_moe_block") is False:
        return [False] * count
    frequency = fields.value("moe_layer_freq")
    if isinstance(frequency, list) and len(frequency) == count:
        return [bool(each) for each in frequency]
    listed = fields.list("moe_layers")
    if listed is not None:
        return [index in listed for index in range(count)]
    if isinstance(enum := fields.value("moe_layers_enum"), str):
        chosen = {int(part) for part in enum.split(",") if part}
        return [index in chosen for index in range(count)]
    if types := fields.list("mlp_layer_types"):
        return [each == "sparse" for each in types]
    first = fields.number("first_k_dense_replace", "moe_layer_start_index") or 0
    if step := fields.positive("interleave_moe_layer_step"):
        return [(index + 1) % step == 0 for index in range(count)]
    step = fields.positive("decoder_sparse_step") or 1
    dense = fields.list("mlp_only_layers") or []
    every = frequency if isinstance(frequency, int) and frequency > 0 else 1
    if fields.model_type == "ernie4_5_moe":
        every = fields.positive("moe_layer_interval") or 1
        return [index >= max(first, 1) and (index + 1) % every == 0 for index in range(count)]
    return [
        index >= first and index % every == 0 and (index + 1) % step == 0 and index not in dense
        for index in range(count)
    ]


def _mix(fields: Fields, kind: str, index: int, count: int) -> Layer:
    model_type = fields.model_type
    if kind in {"mamba", "mamba2"} or (
        kind == "linear_attention" and model_type in {"bamba", "granitemoehybrid"}
    ):
        return _mamba(fields)
    if kind in {"linear_attention", "kda"}:
        return _kda(fields) if kind == "kda" or model_type == "kimi_linear" else _delta(fields)
    heads = fields.heads
    if kind == "sliding_attention":
        heads = fields.positive("num_sliding_attention_heads") or heads  # Step-3.5
    if rank := fields.positive("kv_lora_rank"):
        rope = fields.positive("qk_rope_head_dim") or 0
        index = fields.positive("index_head_dim") or 0
        return Layer(
            mixing="latent", heads=heads, kv_heads=1, head_dim=rank + rope, index_dim=index
        )
    head_dim = (
        fields.positive("head_dim", "attention_head_dim", "kv_channels") or fields.hidden // heads
    )
    kv_heads = _kv_heads(fields, heads)
    layer = Layer(heads=heads, kv_heads=kv_heads, head_dim=head_dim, value_dim=head_dim)
    if value_dim := fields.positive("v_head_dim"):
        layer = replace(layer, value_dim=value_dim)
    if kind == "sliding_attention":
        layer = replace(layer, window=fields.positive("sliding_window"))
        layer = _swa_sizes(fields, layer)
    elif kind == "chunked_attention":
        layer = replace(layer, window=fields.positive("attention_chunk_size"))
    elif model_type.startswith("gemma4"):
        layer = _gemma4_global(fields, layer)
    if index in (fields.list("cross_attention_layers") or ()):  # to what it sees
        return replace(layer, caches=False, crosses=True)
    shared = fields.number("num_kv_shared_layers") or 0
    return replace(layer, caches=False) if shared and index >= count - shared else layer


def _mamba(fields: Fields) -> Layer:
    return Layer(
        mixing="mamba",
        caches=False,
        heads=fields.positive("mamba_num_heads", "mamba_n_heads") or 0,
        head_dim=fields.positive("mamba_head_dim", "mamba_d_head") or 0,
        groups=fields.positive("n_groups", "mamba_n_groups") or 1,
        state_size=fields.positive("ssm_state_size", "mamba_d_state", "state_size") or 0,
        kernel=fields.positive("conv_kernel", "mamba_d_conv") or 4,
    )


def _kda(fields: Fields) -> Layer:
    linear = fields.mapping("linear_attn_config")
    kernel = linear.get("short_conv_kernel_size") or fields.positive("linear_conv_kernel_dim") or 4
    return Layer(
        mixing="kda",
        caches=False,
        heads=int(linear.get("num_heads") or fields.positive("linear_num_heads") or 0),
        head_dim=int(linear.get("head_dim") or fields.positive("linear_head_dim") or 0),
        kernel=int(kernel),
    )


def _delta(fields: Fields) -> Layer:
    return Layer(
        mixing="delta",
        caches=False,
        heads=fields.positive("linear_num_value_heads") or 0,
        kv_heads=fields.positive("linear_num_key_heads") or 0,
        head_dim=fields.positive("linear_key_head_dim") or 0,
        value_dim=fields.positive("linear_value_head_dim") or 0,
        kernel=fields.positive("linear_conv_kernel_dim") or 4,
    )


def _kv_heads(fields: Fields, heads: int) -> int:
    model_type = fields.model_type
    if model_type == "chatglm":
        if fields.flag("multi_query_attention"):
            return fields.positive("multi_query_group_num") or heads
        return heads
    if model_type == "falcon" and not fields.flag("new_decoder_architecture"):
        stated = fields.positive("num_key_value_heads")
        return stated or (1 if fields.flag("multi_query", otherwise=True) else heads)
    if model_type == "gpt_bigcode":
        return 1 if fields.flag("multi_query", otherwise=True) else heads
    nested = fields.mapping("attn_config").get("kv_n_heads")  # DBRX, MPT
    if isinstance(nested, int):
        return nested
    return fields.positive(*KEY_VALUE_HEADS) or heads


def _swa_sizes(fields: Fields, layer: Layer) -> Layer:
    """MiMo-V2's sliding layers have heads of their own."""
    return replace(
        layer,
        heads=fields.positive("swa_num_attention_heads") or layer.heads,
        kv_heads=fields.positive("swa_num_key_value_heads") or layer.kv_heads,
        head_dim=fields.positive("swa_head_dim") or layer.head_dim,
        value_dim=fields.positive("swa_v_head_dim") or layer.value_dim,
    )


def _gemma4_global(fields: Fields, layer: Layer) -> Layer:
    """Gemma 4's global layers have wider heads, and fewer where keys serve as values too."""
    wide = fields.positive("global_head_dim") or 512
    layer = replace(layer, head_dim=wide, value_dim=wide)
    fewer = fields.positive("num_global_key_value_heads")
    if fewer is None:
        return layer
    return replace(layer, kv_heads=fewer, keys_are_values=fields.flag("attention_k_eq_v"))


def _follow(fields: Fields, layer: Layer, *, is_moe: bool, index: int = 0) -> Layer:
    only_shared = fields.positive("shared_intermediate_size")  # Granite 4's dense ones
    if not is_moe and only_shared:
        return replace(layer, intermediate=only_shared)
    if not is_moe:
        wide = fields.positive("intermediate_size_mlp")  # Llama-4's dense layers
        return replace(layer, intermediate=wide or _intermediate(fields, index))
    size = fields.positive(*EXPERT_SIZE) or _intermediate(fields)
    return replace(
        layer,
        experts=fields.positive(*EXPERTS) or 0,
        experts_per_token=fields.positive(*EXPERTS_PER_TOKEN) or 1,
        expert_size=size,
        shared_size=_shared_size(fields, size),
        # Gemma 4's layers have both.
        intermediate=_intermediate(fields) if fields.flag("enable_moe_block") else None,
    )


def _shared_size(fields: Fields, expert_size: int) -> int:
    if fields.model_type.startswith("llama4"):
        return expert_size
    count = fields.number(*SHARED_EXPERTS)
    size = fields.positive(*SHARED_EXPERT_SIZE)
    if size:
        return size * (count or 1) if fields.model_type == "nemotron_h" else size
    return (count or 0) * expert_size


def _intermediate(fields: Fields, index: int = 0) -> int:
    if listed := fields.list(*INTERMEDIATE):  # one for each layer
        return int(listed[index])
    found = fields.positive(*INTERMEDIATE)
    if fields.model_type == "qwen":  # it counts both halves of the gate
        return (found or 0) // 2
    return found or 4 * fields.hidden


def _every(count: int, every: int, last: str, others: str) -> list[str]:
    return [last if (index + 1) % every == 0 else others for index in range(count)]


def _counts(found: Mapping[str, Any]) -> dict[str, int]:
    return {str(kind): int(n) for kind, n in found.items() if isinstance(n, int)}


def _interleaved(counts: Mapping[str, int]) -> list[str]:
    """Kinds spread evenly: how many there are of each is known, their order is not."""
    total = sum(counts.values())
    places = sorted(
        ((index + 0.5) / number * total, kind)
        for kind, number in sorted(counts.items())
        for index in range(number)
    )
    return [kind for _, kind in places]
