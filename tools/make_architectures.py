"""Write `vendomini/data/architectures.json`: what transformers and vLLM know, by name.

    .venv/bin/python tools/make_architectures.py transformers
    .venv-vllm/bin/python tools/make_architectures.py vllm

Each is run where that package is installed and replaces its own part. For the model types of
transformers that write text, the defaults of the fields that `vendomini.models` reads are kept:
a config.json says only what differs from them.
"""

import json
import sys
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "vendomini" / "data" / "architectures.json"

FIELDS = [
    "attention_bias", "attention_in_bias", "attention_out_bias", "attention_chunk_size",
    "attn_output_gate", "bias", "conv_kernel", "conv_bias", "mamba_proj_bias",
    "decoder_sparse_step", "do_layer_norm_before", "embd_pdrop", "enable_moe_block", "expand",
    "ffn_hidden_size", "final_logit_softcapping", "first_k_dense_replace",
    "full_attention_interval", "global_head_dim", "head_dim", "hidden_act",
    "activation_function", "hidden_size", "hidden_size_per_layer_input", "intermediate_size",
    "intermediate_size_mlp", "interleave_moe_layer_step", "index_head_dim", "index_n_heads",
    "kv_lora_rank", "linear_conv_kernel_dim", "linear_key_head_dim", "linear_num_key_heads",
    "linear_num_value_heads", "linear_value_head_dim", "mamba_d_conv", "mamba_d_head",
    "mamba_d_ssm", "mamba_d_state", "mamba_expand", "mamba_head_dim", "mamba_n_groups",
    "mamba_n_heads", "mamba_num_heads", "max_position_embeddings", "mlp_bias",
    "mlp_only_layers", "moe_intermediate_size", "moe_layer_freq", "moe_latent_size",
    "moe_shared_expert_intermediate_size", "multi_query", "n_embd", "n_group", "n_groups",
    "n_head", "n_head_kv", "n_inner", "n_layer", "n_positions", "n_routed_experts",
    "n_shared_experts", "new_decoder_architecture", "no_rope_layer_interval", "norm_topk_prob",
    "num_attention_heads", "num_experts", "num_experts_per_tok", "num_global_key_value_heads",
    "num_hidden_layers", "num_key_value_heads", "num_kv_heads", "num_kv_shared_layers",
    "num_local_experts", "num_nextn_predict_layers", "num_shared_experts",
    "num_ln_in_parallel_attn", "parallel_attn", "q_lora_rank", "qk_layernorm",
    "qk_nope_head_dim", "qk_rope_head_dim", "qkv_bias", "add_qkv_bias", "rotary_dim",
    "shared_expert_intermediate_size", "shared_intermediate_size", "sliding_window",
    "sliding_window_pattern", "ssm_state_size", "state_size", "tie_word_embeddings", "use_bias",
    "use_qk_norm", "use_qkv_bias", "use_sliding_window", "v_head_dim", "vocab_size",
    "vocab_size_per_layer_input", "word_embed_proj_dim", "qk_norm", "attention_k_eq_v",
    "use_double_wide_mlp", "layer_types", "layers_block_type", "hybrid_override_pattern",
    "attn_layer_period", "attn_layer_offset", "expert_layer_period", "expert_layer_offset",
    "is_encoder_decoder", "alibi",
]  # fmt: skip


def transformers_part() -> dict[str, Any]:
    import transformers
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    writing = {
        *modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    }
    defaults: dict[str, dict[str, Any]] = {}
    for model_type in sorted(writing):
        try:
            whole = CONFIG_MAPPING[model_type]()
        except Exception as error:  # some classes refuse their own defaults
            print(f"no defaults of {model_type}: {error}", file=sys.stderr)
            continue
        for config in _with_text(whole):
            # As the class declares them: an instance has some computed from others.
            found = {field: getattr(type(config), field, None) for field in FIELDS}
            defaults[config.model_type or model_type] = {
                field: value
                for field, value in found.items()
                if isinstance(value, bool | int | float | str)
            }
    return {
        "version": transformers.__version__,
        "model_types": sorted(CONFIG_MAPPING_NAMES),
        "writing": sorted(writing | set(defaults)),
        "defaults": dict(sorted(defaults.items())),
    }


def _with_text(config: Any) -> list[Any]:
    text = config.get_text_config(decoder=True)
    return [config] if text is config else [config, text]


def vllm_part() -> dict[str, Any]:
    import vllm
    from vllm.model_executor.models import registry

    writing = {*registry._TEXT_GENERATION_MODELS, *registry._MULTIMODAL_MODELS}
    return {
        "version": vllm.__version__,
        "architectures": sorted(vllm.ModelRegistry.get_supported_archs()),
        "writing": sorted(writing & set(vllm.ModelRegistry.get_supported_archs())),
    }


def main() -> None:
    part = sys.argv[1]
    found = json.loads(FILE.read_text()) if FILE.is_file() else {}
    found[part] = {"transformers": transformers_part, "vllm": vllm_part}[part]()
    # One line a list, one a model type: short, and a change is seen in a diff.
    lines = []
    for name in sorted(found):
        inner = []
        for key, value in found[name].items():
            if isinstance(value, dict):
                rows = [f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()]
                inner.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n  }")
            else:
                inner.append(f"  {json.dumps(key)}: {json.dumps(value)}")
        lines.append(f" {json.dumps(name)}: {{\n" + ",\n".join(inner) + "\n }")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
