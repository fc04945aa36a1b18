"""What a model's code does and its config.json does not say, by `model_type`.

Read in transformers 5.23 and, for types it lacks, in the code beside the checkpoints.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Norm: TypeAlias = Literal["weight", "weight and bias", "none"]
QueryNorm: TypeAlias = Literal["none", "head", "heads"]
"""Normalised queries and keys: one weight per channel of a head, or of all heads together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How the layers of one kind of model are built.

    Biases: None means that the config.json says so (`attention_bias`, `mlp_bias`).
    """

    gated: bool = True  # three matrices in an MLP, else two
    qkv_bias: bool | None = None
    out_bias: bool | None = None  # None: as the queries'
    mlp_bias: bool | None = None
    norm: Norm = "weight"
    norms: int = 2  # of a layer
    query_norm: QueryNorm = "none"
    query_gate: bool = False  # queries come with a gate of the same size
    router_bias: bool = False  # a correction of each expert's score, or a bias
    head_bias: bool = False  # of the output head
    learned_positions: int | None = None  # how many more rows than positions
    embedding_norm: bool = False
    tied: bool | None = None  # None: as the config.json and transformers say


DENSE = Family()
_LAYER_NORM = Family(norm="weight and bias", gated=False)
_GPT = replace(_LAYER_NORM, qkv_bias=True, mlp_bias=True)
_QWEN2 = Family(qkv_bias=True, out_bias=False)
_HEAD_NORM = Family(query_norm="head")
_QWEN_NEXT = Family(query_norm="head", query_gate=True)
_DEEPSEEK_V3 = Family(router_bias=True)
_GEMMA2 = Family(norms=4)
_GEMMA3 = Family(norms=4, query_norm="head")
_OLMO2 = Family(query_norm="heads")
_GLM4_MOE = Family(out_bias=False, router_bias=True)

FAMILIES: dict[str, Family] = {
    "apertus": Family(gated=False, query_norm="head"),
    "arcee": Family(gated=False),
    "bamba": DENSE,
    "bloom": replace(_GPT, embedding_norm=True),
    "chatglm": Family(qkv_bias=True, out_bias=False, tied=False),
    "cohere": Family(norms=1),
    "cohere2": Family(norms=1),
    "cwm": DENSE,
    "deepseek_v2": DENSE,
    "deepseek_v3": _DEEPSEEK_V3,
    "deepseek_v32": _DEEPSEEK_V3,
    "deepseek_v4": _DEEPSEEK_V3,
    "dots1": replace(_HEAD_NORM, router_bias=True),
    "ernie4_5": Family(),
    "ernie4_5_moe": Family(router_bias=True),
    "exaone4": _HEAD_NORM,
    "exaone": DENSE,
    "falcon": Family(gated=False, norm="weight and bias", norms=1),
    "gemma2": _GEMMA2,
    "gemma3_text": _GEMMA3,
    "gemma4_text": _GEMMA3,
    "glm": Family(out_bias=False),
    "glm4": Family(norms=4, out_bias=False),
    "glm4v_text": Family(norms=4, qkv_bias=True, out_bias=False),
    "glm4_moe": _GLM4_MOE,
    "glm4v_moe_text": replace(_GLM4_MOE, qkv_bias=True),
    "glm4_moe_lite": _DEEPSEEK_V3,
    "glm_moe_dsa": _DEEPSEEK_V3,
    "gpt2": replace(_GPT, learned_positions=0),
    "gpt_bigcode": replace(_GPT, learned_positions=0),
    "gpt_neox": replace(_LAYER_NORM, mlp_bias=True),
    "gptj": replace(_GPT, norms=1, qkv_bias=False, head_bias=True),
    "granitemoehybrid": DENSE,
    "gpt_oss": Family(qkv_bias=True, router_bias=True),
    "hunyuan_v1_dense": _HEAD_NORM,
    "hunyuan_v1_moe": _HEAD_NORM,
    "hy_v3": replace(_HEAD_NORM, router_bias=True),
    "kimi_k2": _DEEPSEEK_V3,
    "kimi_linear": _DEEPSEEK_V3,
    "minimax_m2": Family(query_norm="heads", router_bias=True),
    "minimax_m3_vl_text": Family(query_norm="head", router_bias=True),
    "mimo": _QWEN2,
    "mimo_v2_flash": Family(router_bias=True),
    "mpt": Family(gated=False, qkv_bias=False, mlp_bias=False),
    "nemotron": _LAYER_NORM,
    "nemotron_h": Family(gated=False, norms=1, router_bias=True),
    "olmo": Family(norm="none"),
    "olmo2": _OLMO2,
    "olmo3": _OLMO2,
    "olmoe": _OLMO2,
    "opt": replace(_GPT, learned_positions=2),
    "phi": replace(_GPT, norms=1, head_bias=True),
    "phimoe": Family(norm="weight and bias", head_bias=True),
    "qwen": _QWEN2,
    "qwen2": _QWEN2,
    "qwen2_moe": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen3": _HEAD_NORM,
    "qwen3_moe": _HEAD_NORM,
    "qwen3_vl_text": _HEAD_NORM,
    "qwen3_vl_moe_text": _HEAD_NORM,
    "qwen3_next": _QWEN_NEXT,
    "qwen3_5_text": _QWEN_NEXT,
    "qwen3_5_moe_text": _QWEN_NEXT,
    "seed_oss": Family(out_bias=False),
    "stablelm": Family(norm="weight and bias", out_bias=False),
    "starcoder2": Family(gated=False, norm="weight and bias"),
    "step3p5": Family(query_norm="head", router_bias=True),
}

SAME_LAYERS = {
    "qwen2_vl": "qwen2",
    "qwen2_5_vl": "qwen2",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma4_unified_text": "gemma4_text",
    "minimax_m3": "minimax_m3_vl_text",
    "minimax_m3_vl": "minimax_m3_vl_text",
    "step3p7": "step3p5",
    "mimo_v2": "mimo_v2_flash",
    "kimi_k25": "deepseek_v3",
    "kimi_k3": "kimi_linear",
    "mistral4": "deepseek_v2",
    "mistral_large4_text": "deepseek_v2",
    "bailing_moe": "dots1",
    "inkling_text": "dots1",
    "mellum": "qwen3_moe",
    "nemotron-nas": "llama",
    "internlm2": "llama",
    "baichuan": "llama",
    "glm4v": "glm4v_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""Model types whose layers are those of another."""


LIKE_LLAMA = frozenset(
    {
        "deepseek_v4", "gemma", "granite", "granitemoe", "llama", "llama4", "llama4_text",
        "ministral3", "mistral", "mixtral", "mllama_text_model", "phi3", "smollm3",
    }
)  # fmt: skip
"""Types that differ from Llama in nothing but what their config.json says."""


def family(model_type: str) -> Family:
    """How models of this type are built; as Llama where nothing else is known."""
    return FAMILIES.get(SAME_LAYERS.get(model_type, model_type), DENSE)


def is_known(model_type: str) -> bool:
    """Whether this module knows how models of this type are built, rather than assumes it."""
    return model_type in FAMILIES or model_type in SAME_LAYERS or model_type in LIKE_LLAMA
