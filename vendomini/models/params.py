"""How many parameters a model has, counted matrix by matrix from its config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vendomini.models.families import Family, family
from vendomini.models.fields import (
    HIDDEN,
    LAYERS,
    VOCABULARY,
    Fields,
)
from vendomini.models.layers import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Parameters by what they are for. `others` are all that the rest does not name.

    `active_experts` is how many of `experts` a token reads. `draft` are layers for speculative
    decoding (MTP), which are loaded for nothing else: no other count includes them.
    """

    embedding: int
    head: int  # 0: it is the embedding
    experts: int
    active_experts: int
    others: int
    mlps: int = 0  # of `others`, those of MLPs and shared experts
    draft: int = 0

    @property
    def total(self) -> int:
        return self.embedding + self.head + self.experts + self.others

    @property
    def active(self) -> int:
        return self.embedding + self.head + self.active_experts + self.others


def count_params(config: Mapping[str, Any], layers: tuple[Layer, ...], *, tied: bool) -> Counts:
    """The language model's parameters. `config` is its own part of a config.json."""
    fields = Fields.of(config)
    kind = family(config.get("model_type"))
    hidden = fields.positive(*HIDDEN) or 0
    vocabulary = fields.positive(*VOCABULARY) or 0
    width = fields.positive("word_embed_proj_dim") or hidden
    others = 0
    experts = active = mlps = 0
    for layer in layers:
        others += _mixing(fields, kind, layer, hidden) + _norms(fields, kind, layer, hidden)
        if layer.intermediate:
            mlps += _mlp(fields, kind, hidden, layer.intermediate)
        if layer.experts:
            each = _expert(fields, kind, layer, hidden)
            experts += layer.experts * each
            active += min(layer.experts_per_token, layer.experts) * each
            mlps += _beside_experts(fields, kind, layer, hidden)
    others += mlps + _outside(fields, kind, hidden, width, vocabulary)
    return Counts(
        embedding=vocabulary * width + _per_layer_embedding(fields, vocabulary),
        head=0 if tied else vocabulary * width + (vocabulary if kind.head_bias else 0),
        experts=experts,
        active_experts=active,
        others=others,
        mlps=mlps,
        draft=_draft(fields, kind, layers, hidden),
    )


def norm_size(kind: Family, width: int) -> int:
    return {"weight": width, "weight and bias": 2 * width, "none": 0}[kind.norm]


# -- private -------------------------------------------------------------------------------


def _mixing(fields: Fields, kind: Family, layer: Layer, hidden: int) -> int:
    match layer.mixing:
        case "attention":
            return _attention(fields, kind, layer, hidden)
        case "latent":
            return _latent(fields, layer, hidden)
        case "compressed":
            return _compressed(fields, layer, hidden)
        case "delta":
            return _delta(fields, hidden)
        case "kda":
            return _kda(fields, hidden)
        case "mamba":
            return _mamba(fields, hidden)
        case "none":
            return 0


def _biases(fields: Fields, kind: Family) -> tuple[bool, bool]:
    """Whether queries, keys and values have one; whether the output has."""
    said = fields.flag(
        "attention_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias", "use_bias", "bias"
    )
    inward = said if kind.qkv_bias is None else kind.qkv_bias
    return inward, inward if kind.out_bias is None else kind.out_bias


def _attention(fields: Fields, kind: Family, layer: Layer, hidden: int) -> int:
    queries = layer.heads * layer.head_dim
    keys = layer.kv_heads * layer.head_dim
    values = 0 if layer.keys_are_values else layer.kv_heads * layer.value_dim
    out = layer.heads * layer.value_dim
    asked = 2 * queries if kind.query_gate else queries
    inward, outward = _biases(fields, kind)
    total = hidden * (asked + keys + values) + out * hidden
    total += (asked + keys + values) * inward + hidden * outward
    normed = fields.flag("use_qk_norm", "qk_layernorm", "use_qk_layernorm")
    model_type = str(fields.said.get("model_type", ""))
    if kind.query_norm == "head" or (normed and model_type.startswith("glm4")):
        total += 2 * layer.head_dim
    elif kind.query_norm == "heads" or (normed and model_type == "cohere"):
        total += queries + keys
    if model_type == "gpt_oss" or (model_type == "mimo_v2_flash" and layer.window):
        total += layer.heads  # a sink each
    if model_type in {"step3p5", "step3p7"}:
        total += layer.heads * hidden  # a gate for each head
    if layer.crosses:
        total += 2 * layer.head_dim + 2  # norms of queries and keys, two gates
    return total


def _latent(fields: Fields, layer: Layer, hidden: int) -> int:
    """MLA: queries and key-values through a narrow space, each with a norm there."""
    rank = fields.positive("kv_lora_rank") or 0
    rope = fields.positive("qk_rope_head_dim") or 0
    nope = fields.positive("qk_nope_head_dim") or 0
    value = fields.positive("v_head_dim") or nope
    narrow = fields.positive("q_lora_rank")
    queries = layer.heads * (nope + rope)
    total = hidden * narrow + narrow + narrow * queries if narrow else hidden * queries
    total += hidden * (rank + rope) + rank + rank * layer.heads * (nope + value)
    total += layer.heads * value * hidden
    index_heads, index_dim = fields.positive("index_n_heads"), fields.positive("index_head_dim")
    if index_heads and index_dim and narrow:  # sparse attention's indexer
        total += narrow * index_heads * index_dim + hidden * index_dim + 2 * index_dim
        total += hidden * index_heads
    return total


def _compressed(fields: Fields, layer: Layer, hidden: int) -> int:
    """DeepSeek-V4's attention, with its hyper-connections (four streams)."""
    narrow = fields.positive("q_lora_rank") or 0
    head = layer.head_dim
    groups = fields.positive("o_groups") or 8
    out_rank = fields.positive("o_lora_rank") or 1024
    total = hidden * narrow + narrow + narrow * layer.heads * head
    total += hidden * head + head + layer.heads
    total += layer.heads * head // groups * groups * out_rank + groups * out_rank * hidden
    streams = fields.positive("hc_mult") or 4
    mixed = streams * (2 + streams)
    total += 2 * (mixed * streams * hidden + mixed + 3)
    if layer.compression:
        wide = head * (2 if layer.compression == 4 else 1)
        total += layer.compression * wide + 2 * hidden * wide + head
    if layer.compression == 4:
        index, heads = (
            fields.positive("index_head_dim") or 128,
            fields.positive("index_n_heads") or 64,
        )
        total += 4 * 2 * index + 2 * hidden * 2 * index + index
        total += narrow * heads * index + heads * hidden
    return total


def _delta(fields: Fields, hidden: int) -> int:
    """The gated delta net of Qwen3-Next and 3.5."""
    key_heads = fields.positive("linear_num_key_heads") or 0
    value_heads = fields.positive("linear_num_value_heads") or 0
    keys = key_heads * (fields.positive("linear_key_head_dim") or 0)
    value_dim = fields.positive("linear_value_head_dim") or 0
    values = value_heads * value_dim
    kernel = fields.positive("linear_conv_kernel_dim") or 4
    total = hidden * (2 * keys + 2 * values) + hidden * 2 * value_heads + values * hidden
    return total + (2 * keys + values) * kernel + 2 * value_heads + value_dim


def _kda(fields: Fields, hidden: int) -> int:
    """Kimi delta attention: a decay for each channel, through a space as wide as a head."""
    heads, head_dim, kernel = kda_sizes(fields)
    linear = fields.mapping("linear_attn_config")
    wide = heads * head_dim
    total = 3 * hidden * wide + wide * hidden + 3 * wide * kernel
    total += hidden * head_dim + head_dim * wide  # the decay
    if linear.get("use_full_rank_gate"):
        total += hidden * wide
    else:
        total += hidden * head_dim + head_dim * wide
    return total + hidden * heads + heads + wide + head_dim


def kda_sizes(fields: Fields) -> tuple[int, int, int]:
    """Of Kimi delta attention: heads, channels of a head, width of the convolutions."""
    linear = fields.mapping("linear_attn_config")
    heads = linear.get("num_heads") or fields.positive("linear_num_heads") or 0
    head_dim = linear.get("head_dim") or fields.positive("linear_head_dim") or 0
    kernel = linear.get("short_conv_kernel_size") or fields.positive("linear_conv_kernel_dim") or 4
    return int(heads), int(head_dim), int(kernel)


def mamba_sizes(fields: Fields) -> tuple[int, int, int, int]:
    """Of Mamba-2: heads, channels of a head, groups, size of the state."""
    heads = fields.positive("mamba_num_heads", "mamba_n_heads") or 0
    head_dim = fields.positive("mamba_head_dim", "mamba_d_head") or 0
    groups = fields.positive("n_groups", "mamba_n_groups") or 1
    state = fields.positive("ssm_state_size", "mamba_d_state", "state_size") or 0
    return heads, head_dim, groups, state


def mamba_kernel(fields: Fields) -> int:
    return fields.positive("conv_kernel", "mamba_d_conv") or 4


def _mamba(fields: Fields, hidden: int) -> int:
    heads, head_dim, groups, state = mamba_sizes(fields)
    inner = heads * head_dim
    through = inner + 2 * groups * state
    projection = hidden * (2 * inner + 2 * groups * state + heads)
    return projection + through * (mamba_kernel(fields) + 1) + 3 * heads + inner + inner * hidden


def _mlp(fields: Fields, kind: Family, hidden: int, size: int) -> int:
    with_bias = fields.flag("mlp_bias", "use_bias", "bias")
    if kind.mlp_bias is not None:
        with_bias = kind.mlp_bias
    matrices = 3 if kind.gated else 2
    return matrices * hidden * size + ((matrices - 1) * size + hidden) * with_bias


def _expert(fields: Fields, kind: Family, layer: Layer, hidden: int) -> int:
    width = fields.positive("moe_latent_size", "routed_expert_hidden_size") or hidden
    size = (3 if kind.gated else 2) * width * layer.expert_size
    if fields.said.get("model_type") == "gpt_oss":
        size += 2 * layer.expert_size + hidden
    return size


def _beside_experts(fields: Fields, kind: Family, layer: Layer, hidden: int) -> int:
    """The router, what all tokens share, and the way into a narrower space and back."""
    total = layer.experts * hidden + layer.experts * kind.router_bias
    total += (3 if kind.gated else 2) * hidden * layer.shared_size
    model_type = str(fields.said.get("model_type", ""))
    if layer.shared_size and model_type.startswith("qwen"):
        total += hidden  # a gate
    if model_type.startswith("gemma4"):  # scales, and norms of the experts beside the MLP's
        total += hidden + layer.experts + 3 * hidden
    if narrow := fields.positive("moe_latent_size", "routed_expert_hidden_size"):
        total += 2 * hidden * narrow
    return total


def _norms(fields: Fields, kind: Family, layer: Layer, hidden: int) -> int:
    count = kind.norms
    model_type = fields.said.get("model_type")
    if model_type == "falcon":
        new = fields.flag("new_decoder_architecture")
        count = 2 if new or not fields.flag("parallel_attn", otherwise=True) else 1
    if model_type == "nemotron-nas":
        count = (layer.mixing != "none") + bool(layer.intermediate)
    if model_type in {"cohere", "cohere2"}:
        return count * hidden
    return count * norm_size(kind, hidden)


def _outside(fields: Fields, kind: Family, hidden: int, width: int, vocabulary: int) -> int:
    total = norm_size(kind, hidden)
    if kind.learned_positions is not None:
        positions = fields.positive("n_positions", "max_position_embeddings") or 0
        total += (positions + kind.learned_positions) * hidden
    if kind.embedding_norm:
        total += norm_size(kind, hidden)
    if fields.said.get("model_type") == "mllama_text_model":
        total += 8 * hidden  # tokens that stand for images
    if fields.said.get("model_type") == "deepseek_v4":
        streams = fields.positive("hc_mult") or 4
        total += streams * streams * hidden + streams + 1
    if width != hidden:
        total += 2 * width * hidden
    if per_layer := _per_layer_width(fields):  # Gemma 4's small models, Gemma 3n
        layers = fields.positive(*LAYERS) or 0
        total += hidden * layers * per_layer + per_layer
        total += layers * (2 * hidden * per_layer + hidden)
    return total


def _per_layer_embedding(fields: Fields, vocabulary: int) -> int:
    rows = fields.positive("vocab_size_per_layer_input") or vocabulary
    return rows * (fields.positive(*LAYERS) or 0) * _per_layer_width(fields)


def _per_layer_width(fields: Fields) -> int:
    """Channels of the embedding that each layer has of its own; 0: none has."""
    return fields.positive("hidden_size_per_layer_input") or 0


def _draft(fields: Fields, kind: Family, layers: tuple[Layer, ...], hidden: int) -> int:
    """Layers that guess further tokens: each as the last one, with a projection and two norms."""
    number = fields.number("num_nextn_predict_layers", "mtp_num_hidden_layers") or 0
    if not layers or number <= 0 or fields.positive(*LAYERS) is None:
        return 0
    last = layers[-1]
    each = _mixing(fields, kind, last, hidden) + _norms(fields, kind, last, hidden)
    if last.intermediate:
        each += _mlp(fields, kind, hidden, last.intermediate)
    if last.experts:
        each += last.experts * _expert(fields, kind, last, hidden)
        each += _beside_experts(fields, kind, last, hidden)
    return number * (each + 2 * hidden * hidden + 3 * hidden)
