"""Processors and memory of the nodes an engine is on."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from vendomini.hardware import gpu_named
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import requantized
from vendomini.planner.deployment import Deployment
from vendomini.planner.host import HostResources, host_resources
from vendomini.planner.pool import Pool

LLAMA_8B = model_spec("meta-llama/Llama-3.1-8B-Instruct", environ={})
LLAMA_405B = model_spec("meta-llama/Llama-3.1-405B-Instruct", environ={})
ONE = Deployment(backend="vllm", gpu=gpu_named("H100"), max_model_len=8192)


def test_a_small_model_takes_a_corner_of_a_node() -> None:
    assert host_resources(LLAMA_8B, ONE) == HostResources(cpus=8, memory_gb=40)


def test_a_whole_node_of_eight_gpus_takes_34_processors() -> None:
    eight = replace(ONE, tensor_parallel_size=8)
    asked = host_resources(requantized(LLAMA_405B, "fp8"), eight)
    assert asked.cpus == 34
    assert 150 < asked.memory_gb < 180


def test_what_is_asked_is_for_each_node() -> None:
    two = replace(ONE, tensor_parallel_size=8, pipeline_parallel_size=2, nodes=2)
    one = replace(ONE, tensor_parallel_size=8)
    assert host_resources(LLAMA_405B, two).cpus == host_resources(LLAMA_405B, one).cpus
    assert host_resources(LLAMA_405B, two).memory_gb < host_resources(LLAMA_405B, one).memory_gb


@given(gpus=st.integers(1, 8), cpus=st.integers(1, 256), memory_gb=st.floats(1, 4096))
def test_no_node_is_asked_for_more_than_it_has(gpus: int, cpus: int, memory_gb: float) -> None:
    pool = Pool(gpu=ONE.gpu, gpus_per_node=8, nodes=1, cpus=cpus, memory_gb=memory_gb)
    asked = host_resources(LLAMA_8B, replace(ONE, tensor_parallel_size=gpus))
    had = asked.within(pool)
    assert had.cpus == min(asked.cpus, cpus)
    assert had.memory_gb == min(asked.memory_gb, memory_gb)
