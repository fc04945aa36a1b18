"""What is known of a model by its name: its files, the catalogue, the size in its name."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.model_folders import hub_snapshot
from vendomini.errors import ConfigError
from vendomini.models import catalogue, support
from vendomini.models.config_json import spec_of_config
from vendomini.models.lookup import model_spec, spec_of_file
from vendomini.models.naming import size_in_name, stored_as

PHASES = sorted((Path(__file__).parents[2] / "configs" / "phases").glob("*.yaml"))
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
PARAMS = 2 * 1000 * 512 + 4 * (2 * 512 * 512 + 2 * 512 * 128 + 3 * 512 * 1024 + 2 * 512) + 512


def spec_of(config: dict[str, Any]) -> Any:
    return spec_of_config(config, id="x", weight_bytes=None, source="a test")


def models_named(data: object) -> set[str]:
    if isinstance(data, dict):
        return {name for value in data.values() for name in models_named(value)}
    if isinstance(data, list):
        return {name for value in data for name in models_named(value)}
    is_id = isinstance(data, str) and data.count("/") == 1 and data[0] != "." and " " not in data
    return {str(data)} if is_id else set()


@pytest.mark.parametrize("path", PHASES, ids=lambda path: path.stem)
def test_every_model_of_the_shipped_phases_is_in_the_catalogue(path: Path) -> None:
    names = models_named(yaml.safe_load(path.read_text()))
    assert [name for name in sorted(names) if catalogue.find(name) is None] == []


def test_every_entry_can_be_read_and_has_a_source() -> None:
    for entry in catalogue.entries():
        spec = entry.spec()
        assert spec.params > 0, entry.id
        assert spec.cache, entry.id
        assert entry.source, entry.id
        assert spec.architecture, entry.id


def test_no_two_entries_claim_one_name() -> None:
    names = [name for entry in catalogue.entries() for name in (entry.id, *entry.aliases)]
    assert len({name.lower() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("name", "params", "method"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8030261248, None),
        ("allenai/OLMo-2-1124-13B-Instruct", 13716198400, None),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", 72706203648, "awq"),
        ("Qwen/Qwen2.5-72B-Instruct-GPTQ-Int8", 72706203648, "gptq"),
        ("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", 70553706496, "fp8"),
        ("unsloth/llama-3-8b-bnb-4bit", 8030261248, "bitsandbytes"),
        ("lmsys/gpt-oss-20b-bf16", 20914757184, None),
        ("THUDM/GLM-4-9B-0414", 9400279040, None),
        ("CohereForAI/c4ai-command-r-08-2024", 32296476672, None),
        ("NousResearch/Hermes-3-Llama-3.1-8B", 8030261248, None),
        ("nvidia/OpenMath2-Llama3.1-8B", 8030261248, None),
    ],
)
def test_variants_are_found_under_their_architecture(
    name: str, params: int, method: str | None
) -> None:
    spec = model_spec(name, environ={})
    assert (spec.id, spec.params, spec.is_guess) == (name, params, False)
    assert (spec.quantization.method if spec.quantization else None) == method


def test_a_date_makes_no_other_model() -> None:
    assert model_spec("deepseek-ai/DeepSeek-V3-0324", environ={}).layers == 61
    assert model_spec("deepseek-ai/DeepSeek-V2.5-1210", environ={}).layers == 60


def test_files_count_before_the_catalogue(tmp_path: Path) -> None:
    snapshot = hub_snapshot(tmp_path / "hub", "Qwen/Qwen3-8B")
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    spec = model_spec("Qwen/Qwen3-8B", environ={"HF_HOME": str(tmp_path)})
    assert spec.params == PARAMS
    assert spec.sources["config"] == str(snapshot / "config.json")
    assert model_spec("Qwen/Qwen3-8B", environ={}).params == 8190735360


def test_plain_folders_of_the_cache_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "org--name"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(LLAMA))
    assert model_spec("org/name", environ={"HF_HOME": str(tmp_path)}).params == PARAMS


def test_an_index_says_the_weights_although_they_are_missing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    computed = model_spec(str(tmp_path), environ={})
    assert (computed.weight_bytes, computed.weight_margin > 0) == (2 * PARAMS, True)
    index = {"metadata": {"total_size": 2 * PARAMS + 64}, "weight_map": {"a": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    read = model_spec(str(tmp_path), environ={})
    assert (read.weight_bytes, read.weight_margin) == (2 * PARAMS + 64, 0.0)


def test_a_checkpoint_in_32_bits_is_loaded_in_16(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**LLAMA, "torch_dtype": "float32"}))
    index = {"metadata": {"total_size": 4 * PARAMS}, "weight_map": {"a": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert model_spec(str(tmp_path), environ={}).weight_bytes == 2 * PARAMS


def test_modelopts_own_file_says_how_a_model_is_stored(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    said = {"quant_algo": "NVFP4", "group_size": 16, "kv_cache_quant_algo": "FP8"}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": said}))
    spec = model_spec(str(tmp_path), environ={})
    assert spec.quantization is not None
    assert (spec.quantization.method, spec.kv_cache_fp8) == ("modelopt_fp4", True)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("{", "is damaged"),
        ("[]", "holds no JSON object"),
        ("{}", "names neither"),
        (json.dumps({**LLAMA, "hidden_size": None}), "lacks `hidden_size`"),
        (
            json.dumps({key: LLAMA[key] for key in LLAMA if key != "hidden_size"}),
            "lacks `hidden_size`",
        ),
        (json.dumps({**LLAMA, "num_hidden_layers": "four"}), "lacks `num_hidden_layers`"),
        (
            json.dumps({**LLAMA, "architectures": ["LamaForCausalLM"], "model_type": "lama"}),
            "neither vLLM",
        ),
        (
            json.dumps({**LLAMA, "architectures": ["BertForMaskedLM"], "model_type": "bert"}),
            "does not continue text",
        ),
        (
            json.dumps({**LLAMA, "architectures": ["BertModel"], "model_type": "bert"}),
            "does not continue text",
        ),
        (
            json.dumps(
                {**LLAMA, "architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
            ),
            "does not continue text",
        ),
    ],
)
def test_a_config_json_that_is_no_models_is_one_clear_error(
    tmp_path: Path, written: str, says: str
) -> None:
    (tmp_path / "config.json").write_text(written)
    with pytest.raises(ConfigError, match=says) as raised:
        model_spec(str(tmp_path), environ={})
    assert raised.value.hint


@pytest.mark.parametrize(
    "damage",
    [
        {"model_type": ["llama"]},
        {"num_attention_heads": "8"},
        {"num_attention_heads": 0},
        {"num_hidden_layers": 10**9},
        {"block_configs": [1]},
        {"linear_attn_config": {"num_heads": "x"}},
        {"hybrid_layer_pattern": {"2": 3}},
        {"moe_layers_enum": "a,b", "num_experts": 4},
        {"mlp_layer_types": ["sparse"], "num_experts": 4},
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": ["a", "b"]}},
        {"vision_config": {"mlp_ratio": "x"}},
    ],
)
def test_a_field_of_the_wrong_kind_is_one_clear_error(damage: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"config.json of `x`"):
        spec_of({**LLAMA, **damage})


def test_an_unknown_architecture_is_told_with_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    config = {**LLAMA, "architectures": ["Qwen3ForCausalLn"], "model_type": "qwen33"}
    file.write_text(json.dumps(config))
    with pytest.raises(ConfigError) as raised:
        spec_of_file(file, id="x")
    assert "Qwen3ForCausalLM" in raised.value.hint


def test_a_name_that_says_nothing_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="nothing is known") as raised:
        model_spec("Qwen/Qwen3-Nxt", environ={})
    assert "Qwen/Qwen3-8B" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("foo-7B", 7, None),
        ("foo-1.5b-chat", 1.5, None),
        ("foo-360M", 0.36, None),
        ("foo/bar-236B", 236, None),
        ("foo-405b-fp8", 405, None),
        ("foo-30B-A3B", 30, 3),
        ("foo-1T", 1000, None),
        ("foo2-V7", None, None),
        ("foo-8bit", None, None),
        ("foo-27b-it-GPTQ-4b-128g", 27, None),
        ("foo:70b", 70, None),
        ("foo-7B-1M", 7, None),
        ("foo-14m", 0.014, None),
    ],
)
def test_a_size_in_a_name_is_read(name: str, total: float | None, active: float | None) -> None:
    size = size_in_name(name)
    assert (size.total if size else None) == total
    assert (size.active if size else None) == active


def test_experts_of_a_mixture_share_their_attention() -> None:
    sizes = [size_in_name("x-8x7B"), size_in_name("x-8x22B")]
    assert [round(size.total) for size in sizes if size] == pytest.approx([46.7, 140.6], rel=0.06)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("x-GPTQ-Int4", "gptq"),
        ("x-GPTQ-Int8", "gptq_int8"),
        ("x-bnb-4bit", "bitsandbytes"),
        ("x-FP8-dynamic", "fp8"),
        ("x-quantized.w4a16", "int4"),
        ("x-NVFP4", "nvfp4"),
        ("x-NVFP4A16", "nvfp4"),
        ("x-7B.w8a8", "int8"),
        ("x-27b-GPTQ-4b-128g", "gptq"),
        ("x-27b-qat-int4-unquantized", None),
        ("x-7B", None),
    ],
)
def test_how_a_model_is_stored_is_read_from_its_name(name: str, method: str | None) -> None:
    assert stored_as(name) == method


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("somebody/Qwen2.5-72B-Instruct-abliterated", "Qwen/Qwen2.5-72B"),
        ("somebody/gpt-oss-120b-somehow", "openai/gpt-oss-120b"),
        ("openai/gpt-oss-120b:free", "openai/gpt-oss-120b"),
        ("gpt-oss:20b", "openai/gpt-oss-20b"),
    ],
)
def test_a_fine_tune_is_known_by_what_its_name_begins_with(name: str, entry: str) -> None:
    spec = model_spec(name, environ={})
    assert not spec.is_guess
    assert spec.params == model_spec(entry, environ={}).params


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("somebody/Llama-2-7B-32K", 32768),
        ("somebody/Llama-3-8B-Instruct-Gradient-1048k", 1048000),
        ("nvidia/Llama-3.1-8B-UltraLong-1M-Instruct", 1000000),
        ("somebody/Llama-3-8B-tuned", 8192),
    ],
)
def test_a_fine_tune_has_the_context_that_its_name_says(name: str, tokens: int) -> None:
    assert model_spec(name, environ={}).max_model_len == tokens


def test_a_merge_of_another_size_is_not_its_first_part() -> None:
    assert model_spec("somebody/Mistral-7B-upscaled-11B", environ={}).params == 11e9


@pytest.mark.parametrize("size", ["0.5B", "3B", "7B", "13B", "34B", "70B", "120B", "500B", "1T"])
def test_a_guess_has_its_size_a_wide_margin_and_heads_that_divide(size: str) -> None:
    spec = model_spec(f"somebody/something-{size}", environ={})
    stated = size_in_name(size)
    assert stated is not None
    assert spec.params == round(stated.total * 1e9)
    assert (spec.is_guess, spec.weight_margin) == (True, 0.25)
    assert spec.num_attention_heads % 8 == 0
    assert spec.expert_params + spec.embedding_params <= spec.params


def test_a_given_size_counts_where_the_name_says_none() -> None:
    spec = model_spec("somebody/something", environ={}, params_b=13)
    assert (spec.params, spec.is_guess) == (13_000_000_000, True)
    assert "13" in spec.sources["params"]


def test_what_vllm_and_transformers_know_is_data() -> None:
    assert support.vllm_knows("LlamaForCausalLM")
    assert not support.vllm_knows("LamaForCausalLM")
    assert support.transformers_knows("qwen3")
    assert set(support.versions()) == {"transformers", "vllm"}


def test_sliding_and_latent_layers_have_caches_of_their_own() -> None:
    gemma = model_spec("google/gemma-3-27b-it", environ={})
    assert {(group.kind, group.layers, group.window) for group in gemma.cache} == {
        ("sliding", 52, 1024),
        ("full", 10, None),
    }
    deepseek = model_spec("deepseek-ai/DeepSeek-V3", environ={})
    assert deepseek.kv_bytes_per_token() == 70_272
    hybrid = model_spec("Qwen/Qwen3.5-27B", environ={})
    assert hybrid.kv_bytes_per_token() == 65_536
    assert hybrid.state_bytes == 153_944_064


def test_layers_for_speculative_decoding_are_not_counted() -> None:
    config = {**LLAMA, "model_type": "glm4_moe", "num_nextn_predict_layers": 1}
    without = {**config, "num_nextn_predict_layers": 0}
    assert spec_of(config).params == spec_of(without).params
