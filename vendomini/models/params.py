"""How many parameters a model has, counted matrix by matrix: its layers, what is outside them,
and its other senses.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vendomini.models.families import Family, family, is_known
from vendomini.models.fields import HIDDEN, LAYERS, Fields, Names, names_in
from vendomini.models.spec import Layer
from vendomini.models.support import defaults

NARROWER: Names = ("moe_latent_size", "routed_expert_hidden_size")
"""Channels that experts work in, where they are fewer than the model's."""

TOWERS: Names = ("vision_config", "visual", "vision_tower_config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Parameters by what they are for. `others` are all that the rest does not name.

    `active_experts` is how many of `experts` a token reads. Layers for speculative decoding (MTP)
    are loaded for nothing else: they are not counted.
    """

    embedding: int
    head: int  # 0: it is the embedding
    experts: int
    active_experts: int
    others: int
    mlps: int  # of `others`, those of MLPs and shared experts
    vision: int  # of other senses; 0: there is none, or nothing is said of it
    is_tied: bool
    is_known: bool  # False: it is assumed that its layers are built as Llama's

    @property
    def total(self) -> int:
        return self.embedding + self.head + self.experts + self.others + self.vision

    @property
    def active(self) -> int:
        return self.embedding + self.head + self.active_experts + self.others


def count_params(fields: Fields, layers: tuple[Layer, ...], *, config: Mapping[str, Any]) -> Counts:
    """The parameters of a model of these layers.

    `fields` are those of the language model, `config` is the whole config.json.
    """
    kind = family(fields.model_type)
    is_tied = _is_tied(fields, kind, config)
    width = fields.positive("word_embed_proj_dim") or fields.hidden
    matrix = fields.vocabulary * width
    others = experts = active = mlps = 0
    for layer in layers:
        others += _mixing(fields, kind, layer) + _norms(fields, kind, layer)
        mlps += _mlp(fields, kind, layer) + _beside_experts(fields, kind, layer)
        each = _expert(fields, kind, layer)
        experts += layer.experts * each
        active += min(layer.experts_per_token, layer.experts) * each
    others += mlps + _outside(fields, kind, width)
    return Counts(
        embedding=matrix + _per_layer_embedding(fields),
        head=0 if is_tied else matrix + (fields.vocabulary if kind.head_bias else 0),
        experts=experts,
        active_experts=active,
        others=others,
        mlps=mlps,
        vision=_vision(config, fields.hidden),
        is_tied=is_tied,
        is_known=is_known(fields.model_type),
    )


# -- private -------------------------------------------------------------------------------


def _is_tied(fields: Fields, kind: Family, config: Mapping[str, Any]) -> bool:
    """The whole config.json's word counts before its parts'; then transformers' default."""
    if kind.tied is not None:
        return kind.tied
    _, model_type = names_in(config)
    for part in (config, fields.said, fields.silent, defaults(model_type)):
        said = part.get("tie_word_embeddings")
        if isinstance(said, bool):
            return said
    return False


def _mixing(fields: Fields, kind: Family, layer: Layer) -> int:
    match layer.mixing:
        case "attention":
            return _attention(fields, kind, layer)
        case "latent":
            return _latent(fields, layer)
        case "compressed":
            return _compressed(fields, layer)
        case "delta":
            return _delta(layer, fields.hidden)
        case "kda":
            return _kda(fields, layer)
        case "mamba":
            return _mamba(layer, fields.hidden)
        case "none":
            return 0


def _attention(fields: Fields, kind: Family, layer: Layer) -> int:
    hidden = fields.hidden
    queries = layer.heads * layer.head_dim
    keys = layer.kv_heads * layer.head_dim
    values = 0 if layer.keys_are_values else layer.kv_heads * layer.value_dim
    out = layer.heads * layer.value_dim
    asked = 2 * queries if kind.query_gate else queries
    inward, outward = _biases(fields, kind)
    total = hidden * (asked + keys + values) + out * hidden
    total += (asked + keys + values) * inward + hidden * outward
    normed = fields.flag("use_qk_norm", "qk_layernorm", "use_qk_layernorm")
    if kind.query_norm == "head" or (normed and fields.model_type.startswith("glm4")):
        total += 2 * layer.head_dim
    elif kind.query_norm == "heads" or (normed and fields.model_type == "cohere"):
        total += queries + keys
    if fields.model_type == "gpt_oss" or (fields.model_type == "mimo_v2_flash" and layer.window):
        total += layer.heads  # a sink each
    if fields.model_type in {"step3p5", "step3p7"}:
        total += layer.heads * hidden  # a gate for each head
    if layer.crosses:
        total += 2 * layer.head_dim + 2  # norms of queries and keys, two gates
    return total


def _biases(fields: Fields, kind: Family) -> tuple[bool, bool]:
    """Whether queries, keys and values have one; whether the output has."""
    said = fields.flag(
        "attention_bias", "qkv_bias", "use_qkv_bias", "add_qkv_bias", "use_bias", "bias"
    )
    inward = said if kind.qkv_bias is None else kind.qkv_bias
    return inward, inward if kind.out_bias is None else kind.out_bias


def _latent(fields: Fields, layer: Layer) -> int:
    """MLA: queries and key-values through a narrow space, each with a norm there."""
    hidden = fields.hidden
    rank = fields.positive("kv_lora_rank") or 0
    rope = fields.positive("qk_rope_head_dim") or 0
    nope = fields.positive("qk_nope_head_dim") or 0
    value = fields.positive("v_head_dim") or nope
    narrow = fields.positive("q_lora_rank")
    queries = layer.heads * (nope + rope)
    total = hidden * narrow + narrow + narrow * queries if narrow else hidden * queries
    total += hidden * (rank + rope) + rank + rank * layer.heads * (nope + value)
    total += layer.heads * value * hidden
    index_heads, index_dim = fields.positive("index_n_heads"), layer.index_dim
    if index_heads and index_dim and narrow:  # sparse attention's indexer
        total += narrow * index_heads * index_dim + hidden * index_dim + 2 * index_dim
        total += hidden * index_heads
    return total


def _compressed(fields: Fields, layer: Layer) -> int:
    """DeepSeek-V4's attention, with its hyper-connections (four streams)."""
    hidden = fields.hidden
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
        index, heads = layer.index_dim or 128, fields.positive("index_n_heads") or 64
        total += 4 * 2 * index + 2 * hidden * 2 * index + index
        total += narrow * heads * index + heads * hidden
    return total


def _delta(layer: Layer, hidden: int) -> int:
    """The gated delta net of Qwen3-Next and 3.5."""
    keys, values = layer.kv_heads * layer.head_dim, layer.heads * layer.value_dim
    total = hidden * (2 * keys + 2 * values) + hidden * 2 * layer.heads + values * hidden
    return total + (2 * keys + values) * layer.kernel + 2 * layer.heads + layer.value_dim


def _kda(fields: Fields, layer: Layer) -> int:
    """Kimi delta attention: a decay for each channel, through a space as wide as a head."""
    hidden, head_dim = fields.hidden, layer.head_dim
    wide = layer.heads * head_dim
    narrowed = hidden * head_dim + head_dim * wide
    full_gate = fields.mapping("linear_attn_config").get("use_full_rank_gate")
    total = 3 * hidden * wide + wide * hidden + 3 * wide * layer.kernel
    total += narrowed  # the decay
    total += hidden * wide if full_gate else narrowed
    return total + hidden * layer.heads + layer.heads + wide + head_dim


def _mamba(layer: Layer, hidden: int) -> int:
    inner = layer.heads * layer.head_dim
    through = inner + 2 * layer.groups * layer.state_size
    projection = hidden * (inner + through + layer.heads)
    return projection + through * (layer.kernel + 1) + 3 * layer.heads + inner + inner * hidden


def _norms(fields: Fields, kind: Family, layer: Layer) -> int:
    count = kind.norms
    model_type = fields.model_type
    if model_type == "falcon":
        new = fields.flag("new_decoder_architecture")
        count = 2 if new or not fields.flag("parallel_attn", otherwise=True) else 1
    if model_type == "nemotron-nas":
        count = (layer.mixing != "none") + bool(layer.intermediate)
    if model_type in {"cohere", "cohere2"}:
        return count * fields.hidden
    return count * _norm_size(kind, fields.hidden)


def _mlp(fields: Fields, kind: Family, layer: Layer) -> int:
    if not layer.intermediate:
        return 0
    hidden, size = fields.hidden, layer.intermediate
    with_bias = kind.mlp_bias
    if with_bias is None:
        with_bias = fields.flag("mlp_bias", "use_bias", "bias")
    matrices = 3 if kind.gated else 2
    return matrices * hidden * size + ((matrices - 1) * size + hidden) * with_bias


def _beside_experts(fields: Fields, kind: Family, layer: Layer) -> int:
    """The router, what all tokens share, and the way into a narrower space and back."""
    if not layer.experts:
        return 0
    hidden = fields.hidden
    total = layer.experts * hidden + layer.experts * kind.router_bias
    total += (3 if kind.gated else 2) * hidden * layer.shared_size
    if layer.shared_size and fields.model_type.startswith("qwen"):
        total += hidden  # a gate
    if fields.model_type.startswith("gemma4"):  # scales, and norms of the experts beside the MLP's
        total += hidden + layer.experts + 3 * hidden
    if narrow := fields.positive(*NARROWER):
        total += 2 * hidden * narrow
    return total


def _expert(fields: Fields, kind: Family, layer: Layer) -> int:
    width = fields.positive(*NARROWER) or fields.hidden
    size = (3 if kind.gated else 2) * width * layer.expert_size
    if fields.model_type == "gpt_oss":
        size += 2 * layer.expert_size + fields.hidden
    return size


def _outside(fields: Fields, kind: Family, width: int) -> int:
    hidden = fields.hidden
    total = _norm_size(kind, hidden)
    if kind.learned_positions is not None:
        positions = fields.positive("n_positions", "max_position_embeddings") or 0
        total += (positions + kind.learned_positions) * hidden
    if kind.embedding_norm:
        total += _norm_size(kind, hidden)
    if fields.model_type == "mllama_text_model":
        total += 8 * hidden  # tokens that stand for images
    if fields.model_type == "deepseek_v4":
        streams = fields.positive("hc_mult") or 4
        total += streams * streams * hidden + streams + 1
    if width != hidden:
        total += 2 * width * hidden
    if per_layer := _per_layer_width(fields):  # Gemma 4's small models, Gemma 3n
        total += hidden * fields.depth * per_layer + per_layer
        total += fields.depth * (2 * hidden * per_layer + hidden)
    return total


def _norm_size(kind: Family, width: int) -> int:
    return {"weight": width, "weight and bias": 2 * width, "none": 0}[kind.norm]


def _per_layer_embedding(fields: Fields) -> int:
    rows = fields.positive("vocab_size_per_layer_input") or fields.vocabulary
    return rows * fields.depth * _per_layer_width(fields)


def _per_layer_width(fields: Fields) -> int:
    """Channels of the embedding that each layer has of its own; 0: none has."""
    return fields.positive("hidden_size_per_layer_input") or 0


def _vision(config: Mapping[str, Any], text: int) -> int:
    """Of the vision tower, and of what joins it to a text of so many channels."""
    for name in TOWERS:
        tower = config.get(name)
        if isinstance(tower, dict):
            return _tower(Fields.of(tower), text)
    return 0


def _tower(fields: Fields, text: int) -> int:
    """A vision transformer: patches, positions, layers with biases, then a projector.

    Exact for Qwen's towers; of others a per cent or two may be missing.
    """
    model_type = fields.model_type
    qwen = model_type.startswith(("qwen2_vl", "qwen2_5_vl", "qwen3"))
    width = fields.positive("embed_dim", *HIDDEN) or 1024
    depth = fields.positive("depth", *LAYERS) or 24
    depth += fields.positive("num_global_layers") or 0
    size = fields.positive("intermediate_size", "mlp_dim") or int(
        width * float(fields.value("mlp_ratio") or 4)
    )
    patch = fields.positive("patch_size", "spatial_patch_size") or 14
    frames = fields.positive("temporal_patch_size") or 1
    if model_type.startswith("glm4v"):  # its MLPs are as wide as the text, its merger as they say
        out = fields.positive("out_hidden_size") or text
        joined = out * out + 3 * out * size + 4 * width * out
        size = out
    total = 3 * patch * patch * frames * width
    if model_type.startswith(("qwen2_5_vl", "pixtral", "glm4v")):  # gated, norms without bias
        biased = 3 * width + width + 2 * size + width if model_type.startswith("qwen") else 0
        total += depth * (4 * width * width + 3 * width * size + 2 * width + biased)
    else:
        total += depth * (4 * width * width + 2 * width * size + 9 * width + size)
    total += _positions(fields, width, patch)
    if model_type.startswith("mllama"):  # Llama 3.2's
        tiles = 9 * (1 + (560 // patch) ** 2) * width + 2 * 9 * 4 * width
        return total + tiles + (fields.positive("vision_output_dim") or 0) * text
    if model_type.startswith("glm4v"):
        return total + joined
    merge = fields.positive("spatial_merge_size")
    if qwen and merge:
        out = fields.positive("out_hidden_size") or text
        wide = width * merge * merge
        joined = wide * wide + wide + wide * out + out
        deep = len(fields.list("deepstack_visual_indexes") or ())
        norm = width if model_type.startswith("qwen2_5") else 2 * width
        return total + (1 + deep) * joined + norm + deep * 2 * wide
    if model_type.startswith("siglip"):  # Gemma 3's, with its norms
        return total + width * text + 4 * width
    if merge:
        return total + width * width * merge * merge + width * text + text * text
    return total + width * text + text * text


def _positions(fields: Fields, width: int, patch: int) -> int:
    if number := fields.positive("num_position_embeddings"):
        return number * width + width  # and the patches' bias
    size = fields.positive("image_size")
    if size is None or not fields.model_type.startswith(("clip", "siglip", "intern", "mllama")):
        return 0
    return (size // patch) ** 2 * width
