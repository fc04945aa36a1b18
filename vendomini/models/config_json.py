"""A model's sizes from its config.json: pure, and exact where the architecture is known."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from vendomini.errors import ConfigError
from vendomini.models.fields import (
    HEADS,
    HIDDEN,
    KEY_VALUE_HEADS,
    LANGUAGE_PARTS,
    LAYERS,
    VOCABULARY,
    Fields,
    Names,
    dtype_of,
    max_model_len,
    names_in,
)
from vendomini.models.layers import layers_of
from vendomini.models.params import count_params
from vendomini.models.quantization import quantization_in, stored_bytes
from vendomini.models.spec import CacheKind, CacheLayers, Layer, ModelSpec
from vendomini.models.support import defaults, is_known, writes_text

COMPUTED_MARGIN = 0.01
"""How far a weight computed from a known architecture may be off."""

ASSUMED_MARGIN = 0.25
"""The same of an architecture that is only assumed to be like Llama's."""

QUANTISED_MARGIN = 0.05
"""The same of a quantised one: which layers are left in 16 bits varies."""

MOST_LAYERS = 1000

Key: TypeAlias = tuple[CacheKind, int, int, int | None]
"""What makes caches of layers alike: kind, heads, width, window."""

PACKED_BYTES, INDEXER_BYTES = 584, 132
STATE_BYTES = 4
"""vLLM keeps states of linear attention and Mamba in the model's type or in 32 bits."""

DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What counting runs into where a field of a config.json is not of its kind."""


def spec_of_config(
    config: Mapping[str, Any], *, id: str, weight_bytes: int | None, source: str
) -> ModelSpec:
    """The model that a config.json describes.

    `weight_bytes` is the size of the checkpoint where that is known; None: it is computed.
    `source` says where the config.json comes from. Raises `ConfigError` if it describes no model
    that writes text, or lacks what is needed to tell its size.
    """
    language = _language_part(config)
    try:
        _check(config, language, id=id)
        return _weighed(_counted(config, language, id=id), weight_bytes, source)
    except DAMAGE as error:
        raise ConfigError(
            f"the config.json of `{id}` is damaged: a field is not what its name says ({error})",
            hint="download the model again",
        ) from error


# -- private -------------------------------------------------------------------------------


def _language_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a config.json concerns the language model: mostly all of it."""
    for name in (*LANGUAGE_PARTS, "thinker_config"):
        part = config.get(name)
        if isinstance(part, dict) and ("model_type" in part or _has(part, HIDDEN)):
            inner = _language_part(part)
            return inner if "model_type" in inner else {**inner, "model_type": _inherited(config)}
    return config


def _inherited(config: Mapping[str, Any]) -> str | None:
    _, model_type = names_in(config)
    for known in (f"{model_type}_text", model_type):
        if known and defaults(known):
            return known
    return model_type


def _check(config: Mapping[str, Any], language: Mapping[str, Any], *, id: str) -> None:
    names = architecture, model_type = names_in(config)
    if names == (None, None):
        raise ConfigError(
            f"the config.json of `{id}` names neither `architectures` nor `model_type`",
            hint="it is damaged or no model's: download the model again",
        )
    if config.get("is_encoder_decoder") is True or (is_known(*names) and not writes_text(*names)):
        raise ConfigError(
            f"`{id}` is of type `{model_type or architecture}`, which does not continue text",
            hint="use a model that chats: its architecture mostly ends in `ForCausalLM`",
        )
    if lacking := list(dict.fromkeys(_lacking(Fields.of(language), whole=language is config))):
        raise ConfigError(
            f"the config.json of `{id}` lacks {', '.join(f'`{name}`' for name in lacking)}, or "
            "says what cannot be",
            hint="it is damaged or of an unknown architecture: download the model again",
        )


def _lacking(fields: Fields, *, whole: bool) -> Iterator[str]:
    """Sizes that are not said, or cannot be. `whole`: they are no part of a larger config.json,
    which may leave its sizes to defaults."""
    needed = [HIDDEN, VOCABULARY]
    if not _has(fields.said, ("hybrid_override_pattern", "layers_block_type", "block_configs")):
        needed.insert(1, LAYERS)  # no pattern tells them
    yield from (names[0] for names in needed if fields.positive(*names) is None)
    if whole:
        yield from (
            names[0] for names in needed if names is not VOCABULARY and not _has(fields.said, names)
        )
    for names in (HEADS, KEY_VALUE_HEADS):
        if _has(fields.said, names) and fields.value(*names) is not None:
            yield from () if fields.positive(*names) else (names[0],)
    if (fields.number(*LAYERS) or 0) > MOST_LAYERS:
        yield LAYERS[0]


def _has(config: Mapping[str, Any], names: Names) -> bool:
    return any(name in config for name in names)


def _counted(config: Mapping[str, Any], language: Mapping[str, Any], *, id: str) -> ModelSpec:
    """All of a model but its weight in bytes."""
    architecture, model_type = names_in(config)
    fields = Fields.of(language)
    layers = layers_of(fields)
    counts = count_params(fields, layers, config=config)
    latent = any(layer.mixing == "latent" for layer in layers)
    quantization = quantization_in(
        config,
        language,
        experts=counts.experts,
        mlps=counts.mlps,
        others=counts.others,
        latent=latent,
    )
    margin = COMPUTED_MARGIN if counts.is_known else ASSUMED_MARGIN
    mixture = next((layer for layer in layers if layer.experts), None)
    mamba = next((layer for layer in layers if layer.mixing == "mamba"), None)
    # Of the layers that cache: the fewest bound how far tensor parallelism shares them.
    kv_heads = [layer.kv_heads for layer in layers if layer.mixing == "attention"]
    return ModelSpec(
        id=id,
        architecture=architecture,
        model_type=model_type,
        params=counts.total,
        active_params=counts.active,
        embedding_params=counts.embedding + counts.head,
        expert_params=counts.experts,
        vision_params=counts.vision,
        layers=len(layers),
        hidden_size=fields.hidden,
        intermediate_size=max((layer.intermediate or 0 for layer in layers), default=0) or None,
        vocab_size=fields.vocabulary,
        num_attention_heads=fields.heads,
        # With latent attention, as many as there are heads: that is what vLLM divides.
        num_key_value_heads=fields.heads if latent else min(kv_heads, default=fields.heads),
        num_experts=mixture.experts if mixture else 0,
        experts_per_token=mixture.experts_per_token if mixture else 0,
        moe_intermediate_size=mixture.expert_size if mixture else None,
        mamba_heads=mamba.heads if mamba else None,
        mamba_groups=mamba.groups if mamba else None,
        cache=_cache(layers),
        state_bytes=sum(_state_bytes(layer) for layer in layers),
        max_model_len=max_model_len(language),
        dtype=dtype_of(config, language) or "bfloat16",
        quantization=quantization,
        kv_cache_fp8=_kv_cache_fp8(config),
        weight_bytes=0,
        weight_margin=max(margin, QUANTISED_MARGIN) if quantization else margin,
        tie_word_embeddings=counts.is_tied,
    )


def _cache(layers: tuple[Layer, ...]) -> tuple[CacheLayers, ...]:
    """Keys and values of the layers that cache, those alike together, as they first appear."""
    counted = Counter(key for layer in layers for key in _caches(layer))
    groups = [
        CacheLayers(kind=kind, layers=number, kv_heads=heads, width=width, window=window)
        for (kind, heads, width, window), number in counted.items()
    ]
    index = max((layer.index_dim for layer in layers), default=0)
    latent = sum(group.layers for group in groups if group.kind == "latent")
    if index and latent:  # the indexer's keys, of one head, in 8 bits with a scale
        groups.append(
            CacheLayers(kind="latent", layers=latent, kv_heads=1, width=(index + 4 + 1) // 2)
        )
    return tuple(groups)


def _caches(layer: Layer) -> Iterator[Key]:
    """What a layer keeps of a conversation.

    DeepSeek-V4's: the last tokens whole, all before as one place for each `compression` tokens. A
    place takes 584 bytes as vLLM packs it (8 bits, with scales), and where sparse attention
    chooses among them, 132 for its indexer.
    """
    match layer.mixing:
        case "attention" if layer.caches:
            kind: CacheKind = "full" if layer.window is None else "sliding"
            yield kind, layer.kv_heads, layer.head_dim + layer.value_dim, layer.window
        case "latent":
            yield "latent", 1, layer.head_dim, None
        case "compressed":
            yield "sliding", 1, PACKED_BYTES // 2, layer.window
            if layer.compression:
                indexer = INDEXER_BYTES if layer.compression == 4 else 0
                yield "latent", 1, -(-(PACKED_BYTES + indexer) // (2 * layer.compression)), None


def _state_bytes(layer: Layer) -> int:
    """Of a layer's constant state of a sequence: convolutions in 16 bits, states in 32."""
    inner = layer.heads * layer.head_dim
    match layer.mixing:
        case "mamba":
            through, state = inner + 2 * layer.groups * layer.state_size, inner * layer.state_size
        case "delta":
            values = layer.heads * layer.value_dim
            through = 2 * layer.kv_heads * layer.head_dim + values
            state = values * layer.head_dim
        case "kda":
            through, state = 3 * inner, inner * layer.head_dim
        case _:
            return 0
    return 2 * through * (layer.kernel - 1) + STATE_BYTES * state


def _kv_cache_fp8(config: Mapping[str, Any]) -> bool:
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return False
    scheme = said.get("kv_cache_scheme") or said.get("kv_cache_quant_algo")
    if isinstance(scheme, dict):
        return scheme.get("num_bits") == 8
    return isinstance(scheme, str) and "FP8" in scheme.upper()


def _weighed(spec: ModelSpec, weight_bytes: int | None, source: str) -> ModelSpec:
    sources = {"sizes": source, "params": f"counted from {source}"}
    if weight_bytes is None:
        sources["weight_bytes"] = f"computed from {source}"
        computed = stored_bytes(spec, spec.quantization)
        return replace(spec, weight_bytes=computed, sources=sources)
    sources["weight_bytes"] = f"read: {source}"
    if spec.weight_margin >= ASSUMED_MARGIN and spec.quantization is None:
        spec = _counted_in_bytes(spec, weight_bytes)
        sources["params"] = "half the bytes of its weights"
    if spec.quantization is None and weight_bytes > 3 * spec.params:
        weight_bytes //= 2  # in 32 bits, which is loaded in 16
    return replace(spec, weight_bytes=weight_bytes, weight_margin=0.0, sources=sources)


def _counted_in_bytes(spec: ModelSpec, weight_bytes: int) -> ModelSpec:
    """The parameters of a plain checkpoint are known by its size, whatever its architecture."""
    params = weight_bytes // (4 if spec.dtype == "float32" else 2)
    active = round(spec.active_params * params / spec.params) if spec.is_moe else params
    experts = min(spec.expert_params, max(0, params - spec.embedding_params - spec.vision_params))
    return replace(spec, params=params, active_params=active, expert_params=experts)
