"""How checkpoints store their weights in fewer bits, and what that makes of a model's size."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, TypeAlias

from vendomini.errors import ConfigError
from vendomini.models.spec import ModelSpec, Quantization
from vendomini.schema import nearest

Method: TypeAlias = Literal[
    "fp8",
    "fp8_block",
    "mxfp8",
    "int8",
    "gptq_int8",
    "int4",
    "awq",
    "gptq",
    "mxfp4",
    "nvfp4",
    "bitsandbytes",
    "bitsandbytes_int8",
    "gguf",
]

PLAIN = frozenset({"bf16", "fp16", "bfloat16", "float16", "half", "16bit", "none", "auto"})

# Bytes a parameter: the bits themselves and the scales beside them.
# int4 in groups of 128: 4 bits, a 16-bit scale and a 4-bit zero a group.
METHODS: Mapping[str, Quantization] = {
    "fp8": Quantization(method="fp8", weight_bytes_each=1.0),
    "fp8_block": Quantization(
        method="fp8", weight_bytes_each=1 + 4 / (128 * 128), block=(128, 128)
    ),
    "mxfp8": Quantization(method="mxfp8", weight_bytes_each=1 + 1 / 32, group_size=32),
    "int8": Quantization(method="int8", weight_bytes_each=1.0),
    "gptq_int8": Quantization(method="gptq", weight_bytes_each=1 + 3 / 128, group_size=128),
    "int4": Quantization(
        method="compressed-tensors", weight_bytes_each=0.5 + 2 / 128, group_size=128
    ),
    "awq": Quantization(method="awq", weight_bytes_each=0.5 + 2.5 / 128, group_size=128),
    "gptq": Quantization(method="gptq", weight_bytes_each=0.5 + 2.5 / 128, group_size=128),
    "mxfp4": Quantization(method="mxfp4", weight_bytes_each=0.5 + 1 / 32, group_size=32),
    "nvfp4": Quantization(method="modelopt_fp4", weight_bytes_each=0.5 + 1 / 16, group_size=16),
    # NF4: 4 bits and a 32-bit maximum a group of 64.
    "bitsandbytes": Quantization(
        method="bitsandbytes", weight_bytes_each=0.5 + 4 / 64, group_size=64
    ),
    "bitsandbytes_int8": Quantization(method="bitsandbytes", weight_bytes_each=1.0),
    "gguf": Quantization(method="gguf", weight_bytes_each=0.61),  # Q4_K_M, the usual one
}
"""The methods by the name a user gives, each as it is usually done."""

ALSO: Mapping[str, str] = {
    "float8": "fp8",
    "fp8_per_tensor": "fp8",
    "fp8-dynamic": "fp8",
    "modelopt": "fp8",
    "modelopt_fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "w8a8": "int8",
    "w8a8-fp8": "fp8",
    "w8a8-int8": "int8",
    "w8a16": "gptq_int8",
    "gptq-int8": "gptq_int8",
    "w4a16": "int4",
    "4bit": "int4",
    "compressed-tensors": "int4",
    "awq_marlin": "awq",
    "gptq_marlin": "gptq",
    "gptq-int4": "gptq",
    "awq-int4": "awq",
    "fp4": "nvfp4",
    "modelopt_fp4": "nvfp4",
    "bnb": "bitsandbytes",
    "nf4": "bitsandbytes",
    "bnb-4bit": "bitsandbytes",
    "bnb-nf4": "bitsandbytes",
    "bnb-int8": "bitsandbytes_int8",
    "bnb-8bit": "bitsandbytes_int8",
    "gguf-q4": "gguf",
    "q4_k_m": "gguf",
}


MANY = 20
"""From so many exceptions on, they name the same thing in each layer."""

MARGIN = 0.05
"""What a checkpoint may leave unquantised beyond what is usual."""


def requantized(spec: ModelSpec, method: str) -> ModelSpec:
    """The same model stored otherwise: its `weight_bytes` computed from its parameters.

    ``(params - embedding - others kept) * bytes each + 2 * the rest``: embeddings, the head and
    other senses stay in 16 bits; MXFP4 takes only routed experts where there are any, as gpt-oss
    does. Names of 16-bit types give it back plain. Raises `ConfigError` for an unknown method.
    """
    how = quantization_named(method)
    said = f"`{method}` of {spec.params / 1e9:.3g}e9 parameters"
    return replace(
        spec,
        quantization=how,
        weight_bytes=stored_bytes(spec, how),
        weight_margin=max(spec.weight_margin, MARGIN if how else 0.01),
        kv_cache_fp8=spec.kv_cache_fp8 and how is not None,
        dtype=_plain_dtype(spec, method),
        sources={**spec.sources, "weight_bytes": f"computed: {said}", "quantization": "asked for"},
    )


def quantization_named(method: str) -> Quantization | None:
    """How a method of this name stores weights; None: plain 16 bits."""
    name = method.strip().lower()
    if name in PLAIN:
        return None
    found = METHODS.get(ALSO.get(name, name)) or METHODS.get(
        ALSO.get(name.replace("-", "_"), name.replace("-", "_"))
    )
    if found is None:
        known = (*METHODS, "bf16", "fp16")
        raise ConfigError(
            f"no quantisation is called `{method}`",
            hint=f"did you mean `{nearest(name, known)}`? known: {', '.join(known)}",
        )
    return found


def stored_bytes(spec: ModelSpec, how: Quantization | None) -> int:
    """Bytes of the weights as `how` stores them, computed."""
    if how is None:
        return 2 * spec.params
    if how.expert_only or (how.method == "mxfp4" and spec.expert_params):
        quantised = spec.expert_params
    else:
        quantised = spec.params - spec.embedding_params - spec.vision_params
    return int(quantised * how.weight_bytes_each) + 2 * (spec.params - quantised)


def quantization_in(
    config: Mapping[str, Any],
    language: Mapping[str, Any],
    *,
    experts: int,
    mlps: int,
    others: int,
    latent: bool,
) -> Quantization | None:
    """How the model of a config.json is stored, with the bytes that a parameter takes on average.

    `language` is its part on the language model. `experts`, `mlps` and `others` count parameters
    of the layers, `mlps` are part of `others`; `latent`: its attention is latent. None: plain.
    """
    for part in (config, language):
        how = quantization_of(part)
        if how is not None:
            said = _said(part) or {}
            if _experts_in_4_bits(language, said) and how.method == "fp8":
                narrow = experts * METHODS["mxfp4"].weight_bytes_each
                total = others * how.weight_bytes_each + narrow
                return replace(how, weight_bytes_each=total / (others + experts))
            return _blended(how, said, mlps=experts + mlps, rest=others - mlps, latent=latent)
    return None


def quantization_of(config: Mapping[str, Any]) -> Quantization | None:
    """What a config.json's `quantization_config` says; None: it has none."""
    said = _said(config)
    if said is None:
        return None
    method = str(said.get("quant_method") or said.get("quant_algo") or "").lower()
    bits = said.get("bits", said.get("w_bit"))
    group = _positive(said.get("group_size", said.get("q_group_size")))
    match method:
        case "fp8" | "fbgemm_fp8":
            block = said.get("weight_block_size")
            if isinstance(block, list) and len(block) == 2:
                shape = (int(block[0]), int(block[1]))
                return replace(METHODS["fp8_block"], block=shape)
            return METHODS["fp8"]
        case "mxfp8":
            return METHODS["mxfp8"]
        case "awq":
            return _in_groups(METHODS["awq"], bits or 4, group or 128)
        case "gptq":
            return _in_groups(METHODS["gptq"], bits or 4, group)
        case "mxfp4":
            return replace(METHODS["mxfp4"], expert_only=True)
        case "bitsandbytes":
            eight = said.get("load_in_8bit") or said.get("_load_in_8bit")
            return METHODS["bitsandbytes_int8" if eight else "bitsandbytes"]
        case "gguf":
            return METHODS["gguf"]
        case "compressed-tensors" | "compressed_tensors" | "modelopt" | "nvfp4" | "quark":
            return _from_weights(said, method)
        case _ if said.get("quant_algo"):
            return _from_weights(said, "modelopt")
        case _:
            eight = bits == 8
            found = METHODS.get(method) or METHODS["int8" if eight else "int4"]
            return replace(found, method=method or found.method)


# -- private -------------------------------------------------------------------------------


def _plain_dtype(spec: ModelSpec, method: str) -> str:
    return {"fp16": "float16", "float16": "float16", "half": "float16"}.get(
        method.lower(), {"bf16": "bfloat16", "bfloat16": "bfloat16"}.get(method.lower(), spec.dtype)
    )


def _said(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    said = config.get("quantization_config") or config.get("compression_config")
    return said if isinstance(said, dict) and said else None


def _experts_in_4_bits(language: Mapping[str, Any], said: Mapping[str, Any]) -> bool:
    """DeepSeek-V4 stores its experts in MXFP4 where nothing else is said, as vLLM takes it."""
    if language.get("model_type") != "deepseek_v4":
        return False
    return (language.get("expert_dtype") or said.get("expert_dtype") or "fp4") == "fp4"


def _blended(
    how: Quantization, said: Mapping[str, Any], *, mlps: int, rest: int, latent: bool
) -> Quantization:
    """`how`, with the bytes that a parameter of the layers takes on average.

    `mlps` counts the parameters of MLPs and experts, `rest` those of attention. Of mixed
    precisions the narrower is the MLPs': so Qwen3.6-27B-NVFP4 takes its 21.9e9 bytes. What a list
    of exceptions names stays in 16 bits, and latent attention does in NVFP4 where there is no
    list, as NVIDIA publishes it.
    """
    if how.expert_only or mlps + rest <= 0:
        return how
    narrow, wide = how.weight_bytes_each, how.weight_bytes_each
    bits = {int(each["num_bits"]) for each in _weights(said) if _positive(each.get("num_bits"))}
    exceptions = _exceptions(said)
    if bits == {4, 8}:
        wide = 1.0
    unquantised_attention = any(
        "self_attn" in name or name.endswith(("attn*", "attention*")) for name in exceptions
    )
    if not exceptions and latent and how.method == "modelopt_fp4":
        unquantised_attention = True
    if unquantised_attention:
        wide = 2.0
    if narrow == wide:
        return how
    return replace(how, weight_bytes_each=(narrow * mlps + wide * rest) / (mlps + rest))


def _exceptions(said: Mapping[str, Any]) -> list[str]:
    """Names of what is not quantised; those of single layers do not count."""
    for name in ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers"):
        listed = said.get(name)
        if isinstance(listed, list):
            few = len(listed) < MANY
            return [str(each) for each in listed if not few or not re.search(r"\.\d+\.", str(each))]
    return []


def _from_weights(said: Mapping[str, Any], method: str) -> Quantization:
    """From the groups of modelopt and compressed-tensors: the widest that they quantise to."""
    algorithm = str(said.get("quant_algo") or "").upper()
    weights = _weights(said)
    bits = [int(each["num_bits"]) for each in weights if _positive(each.get("num_bits"))]
    groups = [size for each in weights if (size := _positive(each.get("group_size")))]
    floats = any(each.get("type") == "float" for each in weights)
    four = (bits and min(bits) == 4) or "FP4" in algorithm or "INT4" in algorithm
    name = "modelopt" if method == "modelopt" else "compressed-tensors"
    if four and (floats or "FP4" in algorithm):
        group = min(groups, default=16)
        base = METHODS["mxfp4" if group == 32 else "nvfp4"]
        only = str(said.get("format", "")).startswith("mxfp4")
        return replace(
            base,
            method="modelopt_fp4" if name == "modelopt" else name,
            group_size=group,
            expert_only=only,
        )
    if four:
        return replace(
            _in_groups(METHODS["int4"], 4, min(groups, default=None)),
            method=name,
            # Kimi-K2's int4 is of its experts alone; others say which layers they leave out.
            expert_only=min(groups, default=0) == 32,
        )
    if floats or "FP8" in algorithm:
        block = next((each.get("block_structure") for each in weights), None)
        if isinstance(block, list) and len(block) == 2:
            return replace(METHODS["fp8_block"], method=name, block=(int(block[0]), int(block[1])))
        return replace(METHODS["fp8"], method="modelopt" if name == "modelopt" else name)
    return replace(METHODS["int8"], method=name)


def _weights(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    listed = said.get("weights")
    if isinstance(listed, list):
        return [each for each in listed if isinstance(each, dict)]
    groups = said.get("config_groups")
    found = groups.values() if isinstance(groups, dict) else []
    return [
        each["weights"]
        for each in found
        if isinstance(each, dict) and isinstance(each.get("weights"), dict)
    ]


def _in_groups(base: Quantization, bits: object, group: int | None) -> Quantization:
    """So many bits, with a 16-bit scale and a zero of `bits` for each group of inputs."""
    width = float(bits) if isinstance(bits, int | float) else 4.0
    beside = (2 + width / 8) / group if group else 0.0
    return replace(base, weight_bytes_each=width / 8 + beside, group_size=group)


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
