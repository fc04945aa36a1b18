"""How long engines take to start."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.hardware import gpu_named
from vendomini.models.lookup import model_spec
from vendomini.planner.deployment import Deployment
from vendomini.planner.startup import startup_s
from vendomini.store.measurements import Measured

LLAMA_8B = model_spec("meta-llama/Llama-3.1-8B-Instruct", environ={})
LLAMA_405B = model_spec("meta-llama/Llama-3.1-405B-Instruct", environ={})
VLLM = Deployment(backend="vllm", gpu=gpu_named("H100"), max_model_len=8192)
HF = replace(VLLM, backend="hf")


def seen(seconds: float | None, *, tp: int = 1) -> Measured:
    return Measured(
        model=LLAMA_8B.id,
        backend="vllm",
        gpu="NVIDIA H100 80GB HBM3",
        tensor_parallel_size=tp,
        concurrency=1,
        context=10,
        tokens_in=10,
        tokens_cached=0,
        tokens_out=10,
        seconds=1,
        startup_s=seconds,
        requests=1,
    )


def test_vllm_starts_a_small_model_in_one_to_three_minutes() -> None:
    assert 60 < startup_s(LLAMA_8B, VLLM) < 180


def test_transformers_starts_sooner_and_without_graphs_vllm_does_too() -> None:
    assert startup_s(LLAMA_8B, HF) < startup_s(LLAMA_8B, VLLM) / 2
    assert startup_s(LLAMA_8B, replace(VLLM, enforce_eager=True)) < startup_s(LLAMA_8B, VLLM)


def test_the_weights_of_a_large_model_are_most_of_its_start_and_nodes_share_them() -> None:
    one = replace(VLLM, tensor_parallel_size=8)
    two = replace(one, pipeline_parallel_size=2, nodes=2)
    assert startup_s(LLAMA_405B, one) > 800
    assert startup_s(LLAMA_405B, two) < 0.7 * startup_s(LLAMA_405B, one)


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=9))
def test_measured_starts_replace_the_estimate(seconds: list[float]) -> None:
    found = startup_s(LLAMA_8B, VLLM, measured=[seen(each) for each in seconds])
    assert min(seconds) <= found <= max(seconds)


def test_starts_of_another_shape_say_nothing() -> None:
    others = [seen(1.0, tp=2), seen(None)]
    assert startup_s(LLAMA_8B, VLLM, measured=others) == pytest.approx(startup_s(LLAMA_8B, VLLM))
