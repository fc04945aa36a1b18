"""A plausible model of a given size: for one that is known by nothing but its name."""

import math
from dataclasses import replace

from vendomini.models.config_json import spec_of_config
from vendomini.models.naming import SizeInName
from vendomini.models.spec import ModelSpec

MARGIN = 0.25
"""By how much a weight taken from a name may be wrong: names round, and count or leave out
embeddings and other senses."""

LARGEST_DENSE = 450.0
"""10**9 parameters: all larger ones are of experts. Llama 3.1's 405 are the most that are not."""

USUAL_ACTIVE = 0.045
"""The share of them that a token reads: 37 of DeepSeek-V3's 671, 32 of Kimi-K2's 1026."""

# (up to 10**9 parameters, hidden size, heads, KV heads, layers, intermediate size), of the usual
# dense models of that size: Llama, Qwen and Mistral.
_DENSE = (
    (0.7, 1024, 16, 8, 24, 2816),
    (2.0, 2048, 32, 8, 20, 6144),
    (5.0, 3072, 24, 8, 28, 8192),
    (11.0, 4096, 32, 8, 32, 14336),
    (18.0, 5120, 40, 8, 40, 13824),
    (26.0, 5120, 32, 8, 40, 32768),
    (45.0, 6144, 48, 8, 60, 20480),
    (90.0, 8192, 64, 8, 80, 28672),
    (200.0, 12288, 96, 8, 88, 28672),
    (math.inf, 16384, 128, 8, 126, 53248),
)
# (up to 10**9 parameters in all, hidden size, heads, KV heads, layers, expert size, experts, taken
# for a token), of the usual models of experts: Qwen3, GLM-4.5, DeepSeek.
_MIXED = (
    (10.0, 2048, 16, 4, 24, 1024, 64, 8),
    (60.0, 2048, 32, 4, 48, 768, 128, 8),
    (180.0, 4096, 64, 8, 46, 1408, 128, 8),
    (450.0, 4096, 64, 8, 94, 1536, 128, 8),
    (math.inf, 7168, 64, 8, 61, 2048, 384, 8),
)


def spec_of_size(id: str, size: SizeInName, *, source: str) -> ModelSpec:
    """A usual model of that size: its dimensions are others', scaled in its layers to the size."""
    if size.active is None and size.total > LARGEST_DENSE:
        size = SizeInName(size.total, active=size.total * USUAL_ACTIVE)
    shape = _config(size)
    spec = spec_of_config(shape, id=id, weight_bytes=None, source=source)
    params = round(size.total * 1e9)
    scale = params / spec.params
    active = round(size.active * 1e9) if size.active else round(spec.active_params * scale)
    experts = round(spec.expert_params * scale)
    return replace(
        spec,
        architecture=None,
        model_type=None,
        params=params,
        active_params=min(active, params),
        embedding_params=min(spec.embedding_params, params // 2),
        expert_params=experts,
        max_model_len=None,
        weight_bytes=2 * params,
        weight_margin=MARGIN,
        is_guess=True,
        sources={"params": source, "weight_bytes": f"guessed from {source}", "sizes": "as usual"},
    )


# -- private -------------------------------------------------------------------------------


def _config(size: SizeInName) -> dict[str, object]:
    common = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256}
    if size.active is None or size.active >= size.total:
        row = next(row for row in _DENSE if size.total <= row[0])
        _, hidden, heads, kv_heads, layers, intermediate = row
        dims = {"intermediate_size": intermediate, "tie_word_embeddings": size.total < 4}
        experts: dict[str, object] = {}
    else:
        mixed = next(row for row in _MIXED if size.total <= row[0])
        _, hidden, heads, kv_heads, layers, expert, number, taken = mixed
        dims = {"intermediate_size": 4 * hidden}
        experts = {"num_experts": number, "num_experts_per_tok": taken}
        experts["moe_intermediate_size"] = expert
        if size.experts:
            big = 14336 if size.total < 80 else 16384
            experts = {"num_experts": size.experts, "num_experts_per_tok": 2}
            experts["moe_intermediate_size"] = big
            hidden, heads, kv_heads, layers = (
                (4096, 32, 8, 32) if size.total < 80 else (6144, 48, 8, 56)
            )
    return {
        **common,
        **dims,
        **experts,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": layers,
    }
