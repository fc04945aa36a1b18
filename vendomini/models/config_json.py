"""A model's sizes from its config.json: pure, and exact where the architecture is known."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vendomini.errors import ConfigError
from vendomini.models import support
from vendomini.models.cache import cache_of, state_bytes
from vendomini.models.facts import LANGUAGE_PARTS, max_model_len
from vendomini.models.families import family, is_known
from vendomini.models.fields import (
    HEADS,
    HIDDEN,
    KEY_VALUE_HEADS,
    LAYERS,
    VOCABULARY,
    Fields,
    Names,
)
from vendomini.models.layers import Layer, layers_of
from vendomini.models.params import Counts, count_params, mamba_sizes
from vendomini.models.quantization import METHODS, blended, quantization_of, stored_bytes
from vendomini.models.spec import ModelSpec, Quantization
from vendomini.models.vision import vision_params

COMPUTED_MARGIN = 0.01
"""How far a weight computed from a known architecture may be off."""

ASSUMED_MARGIN = 0.25
"""The same of an architecture that is only assumed to be like Llama's."""

QUANTISED_MARGIN = 0.05
"""The same of a quantised one: which layers are left in 16 bits varies."""


MOST_LAYERS = 1000

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
    language = language_part(config)
    architecture = _first(config.get("architectures"))
    model_type = _text(config.get("model_type"))
    _check(config, language, id=id, architecture=architecture, model_type=model_type)
    try:
        return _spec(config, language, id=id, weight_bytes=weight_bytes, source=source)
    except DAMAGE as error:
        raise ConfigError(
            f"the config.json of `{id}` is damaged: a field is not what its name says ({error})",
            hint="download the model again",
        ) from error


ENCODERS = frozenset({
    "bert", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "rembert", "roberta", "roformer", "xlm-roberta",
})  # fmt: skip
"""Types that read a text as a whole, although transformers has a class of each that writes."""


def language_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of a config.json concerns the language model: mostly all of it."""
    for name in (*LANGUAGE_PARTS, "thinker_config"):
        part = config.get(name)
        if isinstance(part, dict) and ("model_type" in part or _has(part, HIDDEN)):
            inner = language_part(part)
            return inner if "model_type" in inner else {**inner, "model_type": _inherited(config)}
    return config


# -- private -------------------------------------------------------------------------------


def _spec(
    config: Mapping[str, Any],
    language: Mapping[str, Any],
    *,
    id: str,
    weight_bytes: int | None,
    source: str,
) -> ModelSpec:
    fields = Fields.of(language)
    layers = layers_of(language)
    tied = _tied(config, language)
    counts = count_params(language, layers, tied=tied)
    vision = vision_params(config, hidden=fields.positive(*HIDDEN) or 0)
    quantization = _quantization(config, language, layers, counts)
    experts = next((layer for layer in layers if layer.experts), None)
    mamba = mamba_sizes(fields) if any(layer.mixing == "mamba" for layer in layers) else None
    heads = fields.positive(*HEADS) or 1
    spec = ModelSpec(
        id=id,
        architecture=_first(config.get("architectures")),
        model_type=_text(config.get("model_type")),
        params=counts.total + vision,
        active_params=counts.active,
        embedding_params=counts.embedding + counts.head,
        expert_params=counts.experts,
        vision_params=vision,
        layers=len(layers),
        hidden_size=fields.positive(*HIDDEN) or 0,
        intermediate_size=max((layer.intermediate or 0 for layer in layers), default=0) or None,
        vocab_size=fields.positive(*VOCABULARY) or 0,
        num_attention_heads=heads,
        num_key_value_heads=_kv_heads(layers, heads),
        num_experts=experts.experts if experts else 0,
        experts_per_token=experts.experts_per_token if experts else 0,
        moe_intermediate_size=experts.expert_size if experts else None,
        mamba_heads=mamba[0] if mamba else None,
        mamba_groups=mamba[2] if mamba else None,
        cache=cache_of(language, layers),
        state_bytes=state_bytes(language, layers),
        max_model_len=max_model_len(language),
        dtype=_dtype(config, language),
        quantization=quantization,
        kv_cache_fp8=_kv_cache_fp8(config),
        weight_bytes=0,
        tie_word_embeddings=tied,
    )
    margin = COMPUTED_MARGIN if is_known(_text(language.get("model_type"))) else ASSUMED_MARGIN
    if quantization is not None:
        margin = max(margin, QUANTISED_MARGIN)
    return _weighed(spec, weight_bytes, source, margin=margin)


def _quantization(
    config: Mapping[str, Any],
    language: Mapping[str, Any],
    layers: tuple[Layer, ...],
    counts: Counts,
) -> Quantization | None:
    for part in (config, language):
        how = quantization_of(part)
        if how is not None:
            said = part.get("quantization_config") or part.get("compression_config") or {}
            if _experts_in_4_bits(language, said) and how.method == "fp8":
                return _with_experts_in_4_bits(how, counts)
            return blended(
                how,
                said,
                mlps=counts.experts + counts.mlps,
                rest=counts.others - counts.mlps,
                latent=any(layer.mixing == "latent" for layer in layers),
            )
    return None


def _experts_in_4_bits(language: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    """DeepSeek-V4 stores its experts in MXFP4 where nothing else is said, as vLLM takes it."""
    if language.get("model_type") != "deepseek_v4":
        return False
    return (language.get("expert_dtype") or said.get("expert_dtype") or "fp4") == "fp4"


def _with_experts_in_4_bits(how: Quantization, counts: Counts) -> Quantization:
    others = counts.others * how.weight_bytes_each
    experts = counts.experts * METHODS["mxfp4"].weight_bytes_each
    return replace(how, weight_bytes_each=(others + experts) / (counts.others + counts.experts))


def _has(config: Mapping[str, Any], names: Names) -> bool:
    return any(name in config for name in names)


def _inherited(config: Mapping[str, Any]) -> str | None:
    model_type = _text(config.get("model_type"))
    for known in (f"{model_type}_text", model_type):
        if known and support.defaults(known):
            return known
    return model_type


def _check(
    config: Mapping[str, Any],
    language: Mapping[str, Any],
    *,
    id: str,
    architecture: str | None,
    model_type: str | None,
) -> None:
    if architecture is None and model_type is None:
        raise ConfigError(
            f"the config.json of `{id}` names neither `architectures` nor `model_type`",
            hint="it is damaged or no model's: download the model again",
        )
    if config.get("is_encoder_decoder") is True or (
        not writes_text(architecture, model_type) and _known(architecture, model_type)
    ):
        raise ConfigError(
            f"`{id}` is of type `{model_type or architecture}`, which does not continue text",
            hint="use a model that chats: its architecture mostly ends in `ForCausalLM`",
        )
    fields = Fields.of(language)
    lacking = [
        names[0]
        for names in (HIDDEN, LAYERS, VOCABULARY)
        if fields.positive(*names) is None and not (names is LAYERS and _has_pattern(language))
    ]
    if language is config:  # parts of a larger config.json may leave their sizes to defaults
        lacking += [
            names[0]
            for names in (HIDDEN, LAYERS)
            if not _has(config, names) and not (names is LAYERS and _has_pattern(language))
        ]
    for names in (HEADS, KEY_VALUE_HEADS):
        if _has(language, names) and fields.value(*names) is not None:
            lacking += [names[0]] if fields.positive(*names) is None else []
    if (fields.number(*LAYERS) or 0) > MOST_LAYERS:
        lacking.append(LAYERS[0])
    if lacking:
        named = ", ".join(f"`{name}`" for name in dict.fromkeys(lacking))
        raise ConfigError(
            f"the config.json of `{id}` lacks {named}, or says what cannot be",
            hint="it is damaged or of an unknown architecture: download the model again",
        )


def _has_pattern(language: Mapping[str, Any]) -> bool:
    return any(
        name in language
        for name in ("hybrid_override_pattern", "layers_block_type", "block_configs")
    )


def writes_text(architecture: str | None, model_type: str | None) -> bool:
    """Whether a model of these names continues text, as far as vLLM or transformers know."""
    return (architecture is not None and support.vllm_writes(architecture)) or (
        model_type is not None
        and support.transformers_writes(model_type)
        and not _encodes(architecture, model_type)
    )


def _encodes(architecture: str | None, model_type: str | None) -> bool:
    ends = ("ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "EncoderModel")
    if architecture is None:
        return False
    writes = architecture.endswith(("ForCausalLM", "LMHeadModel"))
    return architecture.endswith(ends) or (model_type in ENCODERS and not writes)


def _known(architecture: str | None, model_type: str | None) -> bool:
    return (architecture is not None and support.vllm_knows(architecture)) or (
        model_type is not None and support.transformers_knows(model_type)
    )


def _tied(config: Mapping[str, Any], language: Mapping[str, Any]) -> bool:
    """The whole config.json's word counts before its parts'; then transformers' default."""
    kind = family(_text(language.get("model_type")))
    if kind.tied is not None:
        return kind.tied
    for part in (config, language):
        said = part.get("tie_word_embeddings")
        if isinstance(said, bool):
            return said
    for part in (language, config):
        declared = support.defaults(_text(part.get("model_type"))).get("tie_word_embeddings")
        if isinstance(declared, bool):
            return declared
    return False


def _kv_heads(layers: tuple[Layer, ...], heads: int) -> int:
    """Of the layers that cache: the fewest, which bound how far tensor parallelism shares them.

    With latent attention, as many as there are heads: that is what vLLM divides.
    """
    if any(layer.mixing == "latent" for layer in layers):
        return heads
    return min((layer.kv_heads for layer in layers if layer.mixing == "attention"), default=heads)


def _dtype(config: Mapping[str, Any], language: Mapping[str, Any]) -> str:
    for part in (config, language):
        for name in ("dtype", "torch_dtype"):
            if said := _text(part.get(name)):
                return said.removeprefix("torch.")
    return "bfloat16"


def _kv_cache_fp8(config: Mapping[str, Any]) -> bool:
    said = config.get("quantization_config")
    if not isinstance(said, dict):
        return False
    scheme = said.get("kv_cache_scheme") or said.get("kv_cache_quant_algo")
    if isinstance(scheme, dict):
        return scheme.get("num_bits") == 8
    return isinstance(scheme, str) and "FP8" in scheme.upper()


def _weighed(spec: ModelSpec, weight_bytes: int | None, source: str, *, margin: float) -> ModelSpec:
    sources = {"sizes": source, "params": f"counted from {source}"}
    if weight_bytes is not None:
        if margin >= ASSUMED_MARGIN and spec.quantization is None:
            spec = _counted_in_bytes(spec, weight_bytes)
            sources["params"] = "half the bytes of its weights"
        sources["weight_bytes"] = f"read: {source}"
        return replace(
            spec, weight_bytes=_as_loaded(spec, weight_bytes), weight_margin=0.0, sources=sources
        )
    sources["weight_bytes"] = f"computed from {source}"
    return replace(
        spec,
        weight_bytes=stored_bytes(spec, spec.quantization),
        weight_margin=margin,
        sources=sources,
    )


def _counted_in_bytes(spec: ModelSpec, weight_bytes: int) -> ModelSpec:
    """The parameters of a plain checkpoint are known by its size, whatever its architecture."""
    params = weight_bytes // (4 if spec.dtype == "float32" else 2)
    active = round(spec.active_params * params / spec.params) if spec.is_moe else params
    experts = min(spec.expert_params, max(0, params - spec.embedding_params - spec.vision_params))
    return replace(spec, params=params, active_params=active, expert_params=experts)


def _as_loaded(spec: ModelSpec, stored: int) -> int:
    """Checkpoints in 32 bits are loaded in 16."""
    if spec.quantization is None and stored > 3 * spec.params:
        return stored // 2
    return stored


def _first(value: object) -> str | None:
    return _text(value[0] if isinstance(value, list) and value else value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
