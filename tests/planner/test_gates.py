"""Gates: what a card and an engine permit."""

from dataclasses import replace

import pytest

from vendomini.hardware import gpu_named, known_gpus
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Backend
from vendomini.planner.gates import (
    NO_FLASH,
    NO_SDPA,
    advice,
    attention,
    cannot_run,
    loads_dequantized,
    runtime_dtype,
    usable_quantizations,
)

BACKENDS: tuple[Backend, ...] = ("vllm", "hf")
PLAIN = model_spec("meta-llama/Llama-3.1-8B-Instruct", environ={})


def stored(method: str) -> ModelSpec:
    return requantized(PLAIN, method)


@pytest.mark.parametrize("gpu", ["P100", "P40", "V100-16", "V100-32", "V100-32-PCIe"])
def test_vllm_needs_turing(gpu: str) -> None:
    said = cannot_run(PLAIN, gpu_named(gpu), "vllm")
    assert said is not None
    assert "compute capability 7.5" in said
    assert gpu in said
    assert cannot_run(PLAIN, gpu_named(gpu), "hf") is None
    assert "CUDA 12.6" in (advice(gpu_named(gpu), "hf") or "")


def test_a_plain_model_runs_on_every_newer_gpu_with_both() -> None:
    for gpu in known_gpus():
        if (gpu.compute_capability or 8.0) >= 7.5:
            for backend in BACKENDS:
                assert cannot_run(PLAIN, gpu, backend) is None, gpu.name


@pytest.mark.parametrize(
    ("method", "gpu"),
    [
        ("fp8", "A100-40"),  # weight-only, by Marlin
        ("fp8", "A40"),
        ("fp8", "T4"),
        ("fp8", "MI300X"),
        ("awq", "T4"),
        ("gptq", "T4"),
        ("nvfp4", "A100-80"),
        ("nvfp4", "MI300X"),  # emulated
        ("mxfp4", "A100-80"),
        ("mxfp4", "L40S"),
        ("mxfp4", "MI300X"),  # emulated
        ("mxfp8", "MI355X"),
        ("int4", "H200"),
        ("int8", "A100-80"),
    ],
)
def test_vllm_loads_what_the_card_has_no_units_for(method: str, gpu: str) -> None:
    assert cannot_run(stored(method), gpu_named(gpu), "vllm") is None


@pytest.mark.parametrize(
    ("method", "gpu", "backend", "said"),
    [
        ("mxfp4", "T4", "vllm", "needs compute capability 8.0 for mxfp4, T4 has 7.5"),
        ("fp8", "MI250X", "vllm", "has no fp8 for gfx90a, which MI250X is"),
        ("bitsandbytes", "A100-80", "vllm", "does not load bitsandbytes checkpoints"),
        ("gguf", "A100-80", "vllm", "does not load gguf checkpoints"),
        ("nvfp4", "H100", "hf", "does not load modelopt_fp4 checkpoints"),
        ("awq", "V100-32", "hf", "needs compute capability 7.5 for awq, V100-32 has 7.0"),
    ],
)
def test_what_cannot_be_loaded_is_said_with_the_numbers(
    method: str, gpu: str, backend: Backend, said: str
) -> None:
    assert said in (cannot_run(stored(method), gpu_named(gpu), backend) or "")


def test_the_error_names_the_version_that_was_read() -> None:
    assert "vLLM 0." in (cannot_run(stored("mxfp4"), gpu_named("T4"), "vllm") or "")


def test_transformers_unpacks_fp8_where_the_card_has_no_such_units() -> None:
    model = stored("fp8")
    assert loads_dequantized(model, gpu_named("A100-80"), "hf")
    assert not loads_dequantized(model, gpu_named("H100"), "hf")
    assert not loads_dequantized(model, gpu_named("A100-80"), "vllm")
    assert "fp8" not in usable_quantizations(gpu_named("A100-80"), "hf")
    assert "fp8" in usable_quantizations(gpu_named("A100-80"), "vllm")


def test_transformers_unpacks_mxfp4_for_want_of_its_kernels() -> None:
    model = model_spec("openai/gpt-oss-20b", environ={})
    assert loads_dequantized(model, gpu_named("H100"), "hf")


def test_an_engine_that_cannot_use_a_card_offers_nothing_on_it() -> None:
    assert usable_quantizations(gpu_named("V100-32"), "vllm") == ()
    assert "bitsandbytes" in usable_quantizations(gpu_named("V100-32"), "hf")


def test_what_is_offered_can_be_run() -> None:
    for gpu in known_gpus():
        for backend in BACKENDS:
            for method in usable_quantizations(gpu, backend):
                assert cannot_run(stored(method), gpu, backend) is None, (gpu.name, method)


def test_sparse_latent_attention_needs_hopper() -> None:
    model = model_spec("deepseek-ai/DeepSeek-V3.2", environ={})
    assert "9.0" in (cannot_run(model, gpu_named("A100-80"), "vllm") or "")
    assert cannot_run(model, gpu_named("H200"), "vllm") is None
    dense = model_spec("deepseek-ai/DeepSeek-V3", environ={})
    assert cannot_run(dense, gpu_named("A100-80"), "vllm") is None


def test_an_architecture_that_nobody_knows_is_refused_by_name() -> None:
    odd = replace(PLAIN, architecture="OddForCausalLM", model_type="odd")
    assert "OddForCausalLM" in (cannot_run(odd, gpu_named("H100"), "vllm") or "")
    assert "odd" in (cannot_run(odd, gpu_named("H100"), "hf") or "")


def test_vllm_runs_on_transformers_classes_what_it_has_none_for() -> None:
    known = replace(PLAIN, architecture="OddForCausalLM", model_type="llama")
    assert cannot_run(known, gpu_named("H100"), "vllm") is None


def test_what_nobody_has_said_is_no_reason_to_refuse() -> None:
    silent = replace(PLAIN, architecture=None, model_type=None)
    for backend in BACKENDS:
        assert cannot_run(silent, gpu_named("H100"), backend) is None


@pytest.mark.parametrize(
    ("model", "gpu", "dtype"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "A100-80", "bfloat16"),
        ("meta-llama/Llama-3.1-8B-Instruct", "MI300X", "bfloat16"),
        ("meta-llama/Llama-3.1-8B-Instruct", "T4", "float16"),
        ("meta-llama/Llama-3.1-8B-Instruct", "V100-32", "float16"),
        ("google/gemma-2-9b-it", "A100-80", "bfloat16"),
        ("google/gemma-2-9b-it", "T4", "float32"),
        ("google/gemma-3-27b-it", "V100-32", "float32"),
    ],
)
def test_a_card_without_bfloat16_gets_what_the_model_bears(
    model: str, gpu: str, dtype: str
) -> None:
    assert runtime_dtype(model_spec(model, environ={}), gpu_named(gpu)) == dtype


def test_a_float16_checkpoint_stays_so_and_float32_is_halved() -> None:
    a100 = gpu_named("A100-80")
    assert runtime_dtype(replace(PLAIN, dtype="float16"), a100) == "float16"
    assert runtime_dtype(replace(PLAIN, dtype="float32"), a100) == "bfloat16"
    assert runtime_dtype(replace(PLAIN, dtype="float32"), gpu_named("T4")) == "float16"


@pytest.mark.parametrize(
    ("model", "gpu", "chosen"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "A100-80", "flash_attention_2"),
        ("meta-llama/Llama-3.1-8B-Instruct", "RTX-4090", "flash_attention_2"),
        ("meta-llama/Llama-3.1-8B-Instruct", "T4", "sdpa"),
        ("meta-llama/Llama-3.1-8B-Instruct", "V100-32", "sdpa"),
        ("meta-llama/Llama-3.1-8B-Instruct", "MI300X", "sdpa"),
        ("google/gemma-2-9b-it", "A100-80", "flash_attention_2"),
        ("google/gemma-2-9b-it", "T4", "eager"),
        ("openai/gpt-oss-20b", "A100-80", "eager"),
        ("deepseek-ai/DeepSeek-V3", "A100-80", "flash_attention_2"),
    ],
)
def test_flash_attention_needs_ampere_and_a_model_that_has_it(
    model: str, gpu: str, chosen: str
) -> None:
    assert attention(model_spec(model, environ={}), gpu_named(gpu), "hf") == chosen


@pytest.mark.parametrize("model_type", sorted(NO_SDPA | NO_FLASH | {"llama", "qwen3", "phi3"}))
def test_transformers_models_say_so_themselves(model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CONFIG_MAPPING[model_type]
    classes = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    if config not in classes:
        classes = transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    model = classes[config]
    flash = model._supports_flash_attn and model._compatible_flash_implementations is None
    assert model._supports_sdpa == (model_type not in NO_SDPA)
    assert flash == (model_type not in NO_FLASH)


def test_heads_wider_than_256_have_no_flash_attention() -> None:
    wide = replace(PLAIN, cache=tuple(replace(c, width=2 * 512) for c in PLAIN.cache))
    assert attention(wide, gpu_named("H100"), "hf") == "sdpa"
    assert attention(None, gpu_named("H100"), "hf") == "flash_attention_2"


def test_vllm_s_attention_follows_the_card() -> None:
    latent = model_spec("deepseek-ai/DeepSeek-V3", environ={})
    assert attention(PLAIN, gpu_named("T4"), "vllm") == "FLASHINFER"
    assert attention(PLAIN, gpu_named("A100-80"), "vllm") == "FLASH_ATTN"
    assert attention(latent, gpu_named("A100-80"), "vllm") == "TRITON_MLA"
    assert attention(latent, gpu_named("H100"), "vllm") == "FLASH_ATTN_MLA"
    assert attention(PLAIN, gpu_named("MI300X"), "vllm") == "TRITON_ATTN"
