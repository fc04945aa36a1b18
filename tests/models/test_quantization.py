"""What storing weights in fewer bits makes of a model's size."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.errors import ConfigError
from vendomini.models import catalogue
from vendomini.models.config_json import spec_of_config
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import METHODS, quantization_of, requantized

ENTRIES = catalogue.entries()
BY_BITS = sorted(METHODS, key=lambda method: METHODS[method].weight_bytes_each)


@given(st.sampled_from(ENTRIES), st.sampled_from(BY_BITS), st.sampled_from(BY_BITS))
def test_fewer_bits_never_weigh_more(entry: catalogue.Entry, one: str, other: str) -> None:
    spec = entry.spec()
    # MXFP4 is of experts alone where there are any, so it is only compared with 16 bits.
    if spec.is_moe and "mxfp4" in {one, other}:
        assert requantized(spec, "mxfp4").weight_bytes < requantized(spec, "bf16").weight_bytes
        return
    fewer, more = sorted((one, other), key=BY_BITS.index)
    assert requantized(spec, fewer).weight_bytes <= requantized(spec, more).weight_bytes
    assert requantized(spec, more).weight_bytes <= requantized(spec, "bf16").weight_bytes


@given(st.sampled_from(ENTRIES), st.sampled_from(BY_BITS))
def test_back_in_16_bits_a_model_is_what_it_was(entry: catalogue.Entry, method: str) -> None:
    plain = requantized(entry.spec(), "bf16")
    back = requantized(requantized(plain, method), "bf16")
    assert back.weight_bytes == plain.weight_bytes == 2 * plain.params
    assert back.quantization is None


def test_embeddings_stay_in_16_bits() -> None:
    spec = model_spec("meta-llama/Llama-3.1-8B-Instruct", environ={})
    kept = 2 * 128256 * 4096
    assert spec.embedding_params == kept
    assert requantized(spec, "fp8").weight_bytes == (spec.params - kept) + 2 * kept


@pytest.mark.parametrize(
    ("id", "gigabytes"),
    [
        ("openai/gpt-oss-20b", 13.76),  # the sizes of the published files, in 10**9 bytes
        ("openai/gpt-oss-120b", 65.25),
        ("nvidia/Qwen3.6-27B-NVFP4", 21.9),
        ("moonshotai/Kimi-K2.5", 600),
        ("moonshotai/Kimi-K2-Instruct", 1030),
        ("Qwen/Qwen2.5-7B-Instruct-AWQ", 5.57),
        ("hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4", 39.8),
    ],
)
def test_computed_bytes_are_those_of_published_files(id: str, gigabytes: float) -> None:
    assert model_spec(id, environ={}).weight_bytes / 1e9 == pytest.approx(gigabytes, rel=0.05)


def test_computed_bytes_are_those_of_the_index_where_it_is_known() -> None:
    known = [entry for entry in ENTRIES if entry.weight_bytes is not None]
    assert len(known) >= 7
    for entry in known:
        computed = spec_of_config(entry.config, id=entry.id, weight_bytes=None, source="")
        assert computed.weight_bytes == pytest.approx(entry.weight_bytes, rel=0.01), entry.id


@pytest.mark.parametrize(
    ("said", "method", "each"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq", 0.5195),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq", 1.0234),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "gptq", 0.5),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8", 1.0),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 1.0002),
        ({"quant_method": "mxfp4"}, "mxfp4", 0.53125),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 0.5625),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes", 1.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt_fp4", 0.5625),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "modelopt", 1.0),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {"weights": {"num_bits": 8, "type": "float", "group_size": None}}
                },
            },
            "compressed-tensors",
            1.0,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}
                },
            },
            "compressed-tensors",
            0.5195,
        ),
    ],
)
def test_what_a_config_json_says_of_its_storage_is_understood(
    said: dict[str, Any], method: str, each: float
) -> None:
    found = quantization_of({"quantization_config": said})
    assert found is not None
    assert found.method == method
    assert found.weight_bytes_each == pytest.approx(each, abs=1e-3)


def test_attention_that_is_left_out_stays_in_16_bits() -> None:
    entry = next(entry for entry in ENTRIES if entry.id == "Qwen/Qwen3-32B")
    said = {"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}
    whole = {**entry.config, "quantization_config": said}
    said_less = {**said, "exclude_modules": ["lm_head", "model.layers.*.self_attn*"]}
    part = {**entry.config, "quantization_config": said_less}
    sizes = [
        spec_of_config(config, id="x", weight_bytes=None, source="").weight_bytes
        for config in (whole, part)
    ]
    attention = 64 * (2 * 5120 * 64 * 128 + 2 * 5120 * 8 * 128)
    assert sizes[1] - sizes[0] == pytest.approx(attention * (2 - 0.5625), rel=0.001)


def test_an_unknown_method_is_refused_with_the_nearest() -> None:
    spec = model_spec("openai/gpt-oss-20b", environ={})
    with pytest.raises(ConfigError, match="`fp9`") as raised:
        requantized(spec, "fp9")
    assert "fp8" in raised.value.hint
