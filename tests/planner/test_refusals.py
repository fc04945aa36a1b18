"""What no deployment can do: each one error, with what could be done."""

from dataclasses import replace
from typing import Any

import pytest

from tests.planner.cases import EXPERTS, LARGE, LATENT, SMALL, chosen, known, pool, wishes
from vendomini.errors import ConfigError, PlanError, VendoMiniError
from vendomini.models.quantization import requantized
from vendomini.planner.pool import Pool
from vendomini.planner.refusals import with_gpu_of_pools

A100 = pool("A100-40")


def refused(model: Any, pools: list[Pool], **wanted: Any) -> VendoMiniError:
    with pytest.raises((ConfigError, PlanError)) as caught:
        chosen(model, pools, **wanted)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value


# -- sizes -------------------------------------------------------------------------------------


def test_a_tensor_parallelism_that_does_not_divide_is_refused_with_those_that_do() -> None:
    error = refused(LARGE, [pool("H100", per_node=8)], tensor_parallel_size=3)
    assert "`engine.tensor_parallel_size` is `3`" in str(error)
    assert "64 attention heads, 8 key-value heads" in str(error)
    assert error.hint == "possible: 1, 2, 4, 8"


def test_28_heads_do_not_go_on_8_gpus() -> None:
    """Qwen2.5-7B: 28 heads and 4 KV heads."""
    assert refused(SMALL, [pool("H100", per_node=8)], tensor_parallel_size=8).hint == (
        "possible: 1, 2, 4"
    )


def test_a_tensor_parallelism_larger_than_a_node_is_refused() -> None:
    error = refused(LARGE, [A100], tensor_parallel_size=8)
    assert "on nodes of up to 4 GPUs" in str(error)
    assert error.hint == "possible: 1, 2, 4"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"gpus": 3, "tensor_parallel_size": 2}, "`2` times `engine.pipeline_parallel_size` `1`"),
        ({"gpus": 4, "tensor_parallel_size": 4, "pipeline_parallel_size": 2}, "is `8` GPUs"),
        ({"gpus": 4, "pipeline_parallel_size": 3}, "`3` is `3` GPUs"),
    ],
)
def test_gpus_that_are_not_the_product_are_refused(wanted: dict[str, int], said: str) -> None:
    error = refused(SMALL, [A100], backend="vllm", **wanted)
    assert said in str(error)
    assert f"`engine.gpus` is `{wanted['gpus']}`" in str(error)


def test_more_stages_than_layers_are_refused() -> None:
    error = refused(SMALL, [pool("A100-80", nodes=64)], pipeline_parallel_size=29)
    assert "has `28` layers" in str(error)
    assert error.hint == "use at most 28"


def test_gpus_that_no_job_can_have_are_refused_with_what_fits() -> None:
    error = refused(SMALL, [A100], backend="vllm", gpus=6)
    assert "given that the backend is `vllm` and `engine.gpus` is `6`" in str(error)
    assert error.hint.startswith("nearest that fits: without these settings, 1 x A100-40")


# -- which GPU ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["A100-40", "a100-40gb", "A100", "NVIDIA A100-SXM4-40GB", "a100_of_the_site"]
)
def test_a_gpu_is_known_by_any_of_its_names(name: str) -> None:
    places = [replace(A100, gpu_type="a100_of_the_site"), pool("T4")]
    wanted = with_gpu_of_pools(places, wishes(4096, gpu=name))
    assert wanted.engine.gpu == "A100-40"


def test_a_gpu_that_is_not_there_is_refused_with_the_nearest() -> None:
    error = refused(SMALL, [A100, pool("T4"), pool("V100-32")], gpu="V100-16")
    assert "`engine.gpu` is `V100-16`, but no node that may be used has it" in str(error)
    assert error.hint == "did you mean `V100-32`? There are: A100-40, T4, V100-32"
    assert "There are: A100-40" in refused(SMALL, [A100], gpu="nonsense").hint


def test_a_gpus_name_that_fits_several_is_refused_with_them() -> None:
    error = refused(SMALL, [A100, pool("A100-80"), pool("T4")], gpu="A100")
    assert "may be one of several" in str(error)
    assert error.hint.endswith("There are: A100-40, A100-80")


# -- what fits on nothing ----------------------------------------------------------------------


def test_a_model_that_fits_on_nothing_is_told_with_what_would() -> None:
    few = refused(LATENT, [pool("A100-40", nodes=2)])
    assert "(439 GiB of weights) with a conversation of 4,096 tokens" in str(few)
    assert "fits on nothing that may be used: 2 nodes of 4 x A100-40" in str(few)
    assert "GiB a GPU too small" in str(few)
    assert "a checkpoint quantised as fp8, on 8 x A100-40 on 2 nodes" in few.hint
    assert "more nodes: 16 x A100-40 on 4 nodes" in few.hint


def test_the_roomiest_deployment_of_each_backend_is_told_and_no_other() -> None:
    said = str(refused(LATENT, [pool("T4", nodes=1)]))
    assert said.count("too small") == 2
    assert "4 x T4 (TP 1, PP 4), vllm" in said
    assert "4 x T4, hf" in said


def test_a_shorter_context_is_offered_where_it_would_fit() -> None:
    error = refused(SMALL, [pool("L4", per_node=1, nodes=1)], window=131_072)
    assert "agent.model.context_length=" in error.hint
    offered = int(error.hint.partition("context_length=")[2].split(";")[0])
    chosen(SMALL, [pool("L4", per_node=1, nodes=1)], window=offered)


def test_what_is_offered_does_fit() -> None:
    few = pool("A100-80", per_node=1, nodes=1)
    error = refused(LARGE, [few])
    assert "a checkpoint quantised as fp8, on 1 x A100-80" in error.hint
    assert chosen(requantized(known(LARGE), "fp8"), [few]).candidate.deployment.gpus == 1
    assert "more nodes: 2 x A100-80 on 2 nodes" in error.hint
    more = pool("A100-80", per_node=1, nodes=2)
    assert chosen(LARGE, [more]).candidate.deployment.nodes == 2


# -- what the card cannot do -------------------------------------------------------------------


def test_vllm_on_a_v100_is_refused_with_what_would_fit_without() -> None:
    error = refused(
        SMALL, [pool("V100-32")], backend="vllm", backend_reason="`engine.backend` is `vllm`"
    )
    assert "vLLM needs compute capability 7.5" in str(error)
    assert "`engine.backend` is `vllm`" in str(error)
    assert "too small" not in str(error)
    assert error.hint == "nearest that fits: without these settings, 1 x V100-32, hf"


def test_a_quantisation_that_the_card_lacks_is_refused() -> None:
    packed = requantized(known(SMALL), "mxfp4")
    cannot = {"hf": "it cannot quantise to `mxfp4` while it loads"}
    error = refused(packed, [pool("T4")], unavailable=cannot)
    assert "for mxfp4, T4 has 7.5" in str(error)
    assert "without `engine.quantization`, 2 x T4, vllm" in error.hint


def test_bfloat16_on_a_card_without_it_is_refused_with_the_types_it_has() -> None:
    error = refused(SMALL, [pool("T4")], backend="vllm", dtype="bfloat16")
    assert "for bfloat16, T4 has 7.5" in str(error)
    assert "`engine.dtype` may be `float16` or `float32`" in str(error)
    chosen(SMALL, [pool("T4")], backend="vllm", dtype="float16")


def test_float16_for_a_model_that_overflows_in_it_is_refused() -> None:
    error = refused("google/gemma-2-9b-it", [A100], backend="vllm", dtype="float16")
    assert "float16, whose range they leave" in str(error)


def test_float32_takes_twice_the_memory() -> None:
    half, full = (
        chosen(SMALL, [A100], backend="vllm", dtype=dtype).candidate
        for dtype in ("bfloat16", "float32")
    )
    one = half.memory.weights * half.deployment.gpus
    assert full.memory.weights * full.deployment.gpus == pytest.approx(2 * one, rel=0.01)


def test_transformers_never_leaves_a_node() -> None:
    error = refused(LATENT, [A100], backend="hf")
    assert "4 x A100-40, hf" in str(error)
    assert "without these settings, 16 x A100-40 on 4 nodes, vllm" in error.hint


def test_experts_offered_as_fp8_fit_on_one_small_card() -> None:
    error = refused(EXPERTS, [pool("L40S", per_node=1, nodes=1)])
    assert "a checkpoint quantised as fp8, on 1 x L40S" in error.hint
