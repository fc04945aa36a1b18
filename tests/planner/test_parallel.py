"""How models may be cut over GPUs: the engines' rules, on models that are."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.hardware import gpu_named
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import requantized
from vendomini.models.spec import CacheLayers, ModelSpec
from vendomini.planner.deployment import Backend, Deployment
from vendomini.planner.parallel import legal_sizes, needs_expert_parallel, refusal


def known(name: str) -> ModelSpec:
    return model_spec(name, environ={})


def deployed(
    tp: int = 1,
    pp: int = 1,
    *,
    nodes: int = 1,
    expert_parallel: bool = False,
    backend: Backend = "vllm",
) -> Deployment:
    return Deployment(
        backend=backend,
        gpu=gpu_named("H100"),
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        nodes=nodes,
        enable_expert_parallel=expert_parallel,
        max_model_len=4096,
    )


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", (1, 2, 4, 8, 16)),
        ("Qwen/Qwen2.5-0.5B-Instruct", (1, 2)),  # 14 heads, 2 KV heads
        ("Qwen/Qwen2.5-7B-Instruct", (1, 2, 4)),  # 28 heads: 7 does not go with 4 KV heads
        ("microsoft/phi-4", (1, 2, 5, 10)),  # 40 heads, 10 KV heads
        ("Qwen/Qwen3-30B-A3B", (1, 2, 4, 8, 16)),
        ("openai/gpt-oss-120b", (1, 2, 4, 8, 16)),
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", (1, 2, 4, 8)),  # 8 groups of Mamba heads
    ],
)
def test_the_legal_sizes_are_those_that_the_engine_takes(
    model: str, sizes: tuple[int, ...]
) -> None:
    assert legal_sizes(known(model), most=16) == sizes


@pytest.mark.parametrize(
    ("model", "tp", "said"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", 8, "heads 28, TP 8"),
        ("Qwen/Qwen2.5-7B-Instruct", 7, "KV heads 4, TP 7"),
        ("microsoft/phi-4", 4, "KV heads 10, TP 4"),
        ("meta-llama/Llama-3.1-8B-Instruct", 3, "heads 32, TP 3"),
        ("Qwen/Qwen3-235B-A22B-FP8", 8, "expert size 1536, TP 8: not in whole fp8 blocks of 128"),
        ("deepseek-ai/DeepSeek-R1", 32, "intermediate size 18432, TP 32"),
    ],
)
def test_an_illegal_size_is_refused_with_its_numbers(model: str, tp: int, said: str) -> None:
    answer = refusal(known(model), deployed(tp, nodes=4), gpus_per_node=8)
    assert answer is not None
    assert answer.startswith(said)


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("Qwen/Qwen3-235B-A22B-FP8", 4),
        ("Qwen/Qwen3-30B-A3B-FP8", 2),
        ("MiniMaxAI/MiniMax-M2.5", 4),
    ],
)
def test_experts_in_fp8_blocks_are_whole_above_a_size(model: str, most: int) -> None:
    spec = known(model)
    assert max(legal_sizes(spec, most=8)) == most
    assert 8 in legal_sizes(spec, most=8, expert_parallel=True)
    assert needs_expert_parallel(spec, 8)
    assert not needs_expert_parallel(spec, most)
    assert refusal(spec, deployed(8, expert_parallel=True), gpus_per_node=8) is None


def test_each_gpu_holds_at_least_one_expert() -> None:
    spec = known("mistralai/Mixtral-8x7B-Instruct-v0.1")
    assert spec.num_experts == 8
    answer = refusal(spec, deployed(16, nodes=2, expert_parallel=True), gpus_per_node=8)
    assert answer is not None
    assert "experts 8, TP 16" in answer


def test_expert_parallelism_is_for_models_with_experts() -> None:
    spec = known("meta-llama/Llama-3.1-8B-Instruct")
    assert refusal(spec, deployed(2, expert_parallel=True), gpus_per_node=8) is not None
    assert not needs_expert_parallel(spec, 3)


def test_groups_that_share_a_scale_are_not_cut() -> None:
    plain = known("Qwen/Qwen2.5-72B-Instruct")  # 29568 is 231 groups of 128
    asked = requantized(plain, "awq")
    read = replace(asked, sources={"quantization": "its config.json"})
    assert legal_sizes(plain, most=8) == (1, 2, 4, 8)
    assert legal_sizes(read, most=8) == (1,)
    assert legal_sizes(asked, most=8) == (1, 2, 4, 8)  # published ones are padded
    padded = replace(read, intermediate_size=29696)
    assert legal_sizes(padded, most=8) == (1, 2, 4, 8)


def test_another_quantisation_may_be_asked_about() -> None:
    spec = known("Qwen/Qwen3-235B-A22B-FP8")
    assert spec.quantization is not None
    four_bit = replace(spec.quantization, method="modelopt_fp4", block=None, group_size=16)
    assert 8 not in legal_sizes(spec, most=8)
    assert 8 in legal_sizes(spec, most=8, method=four_bit)


def test_gpus_are_counted_against_the_nodes() -> None:
    spec = known("meta-llama/Llama-3.3-70B-Instruct")
    assert refusal(spec, deployed(4), gpus_per_node=4) is None
    assert refusal(spec, deployed(8), gpus_per_node=4) == (
        "TP 8 x PP 1 takes 8 GPUs, and 1 node has 4"
    )
    assert refusal(spec, deployed(4, 2, nodes=2), gpus_per_node=4) is None
    assert refusal(spec, deployed(8, nodes=2), gpus_per_node=4) is None  # over the network
    assert refusal(spec, deployed(4, 4, nodes=2), gpus_per_node=4) == (
        "TP 4 x PP 4 takes 16 GPUs, and 2 nodes have 8"
    )


def test_a_model_known_by_its_size_alone_is_refused_no_size() -> None:
    guess = model_spec("nobody/knows-70b", environ={})
    assert guess.is_guess
    assert refusal(guess, deployed(6), gpus_per_node=8) is None
    assert legal_sizes(guess, most=16) == (1, 2, 4, 8, 16)
    assert not needs_expert_parallel(guess, 8)


def test_a_stage_has_at_least_one_layer() -> None:
    spec = known("Qwen/Qwen2.5-0.5B-Instruct")
    assert refusal(spec, deployed(1, 24, nodes=3), gpus_per_node=8) is None
    answer = refusal(spec, deployed(1, 25, nodes=4), gpus_per_node=8)
    assert answer == "24 layers cannot be cut into PP 25 stages"


def test_transformers_spreads_layers_only() -> None:
    spec = known("meta-llama/Llama-3.3-70B-Instruct")
    assert refusal(spec, deployed(1, 3, backend="hf"), gpus_per_node=8) is None
    assert "TP 2" in (refusal(spec, deployed(2, backend="hf"), gpus_per_node=8) or "")


@pytest.mark.parametrize(("tp", "pp", "nodes"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-2, 1, 1)])
def test_sizes_below_one_are_refused(tp: int, pp: int, nodes: int) -> None:
    spec = known("meta-llama/Llama-3.1-8B-Instruct")
    assert "less than 1" in (refusal(spec, deployed(tp, pp, nodes=nodes), gpus_per_node=8) or "")


models = st.builds(
    lambda heads, group, hidden, inner, experts: ModelSpec(
        id="any",
        params=10**9,
        active_params=10**9,
        embedding_params=10**8,
        layers=16,
        hidden_size=hidden,
        intermediate_size=None if experts else inner,
        vocab_size=32_000,
        num_attention_heads=heads * group,
        num_key_value_heads=heads,
        num_experts=experts,
        experts_per_token=min(experts, 2),
        moe_intermediate_size=inner if experts else None,
        cache=(CacheLayers(kind="full", layers=16, kv_heads=heads, width=256),),
        max_model_len=4096,
        dtype="bfloat16",
        weight_bytes=2 * 10**9,
    ),
    heads=st.integers(1, 16),
    group=st.integers(1, 12),
    hidden=st.integers(1, 64).map(lambda n: n * 64),
    inner=st.integers(1, 200).map(lambda n: n * 64),
    experts=st.sampled_from([0, 0, 4, 60, 128]),
)


@given(model=models, most=st.integers(1, 32), expert_parallel=st.booleans())
def test_a_legal_size_divides_the_heads(model: ModelSpec, most: int, expert_parallel: bool) -> None:
    sizes = legal_sizes(model, most=most, expert_parallel=expert_parallel)
    assert sizes[0] == 1
    assert list(sizes) == sorted(set(sizes))
    for tp in sizes:
        assert tp <= most
        assert model.num_attention_heads % tp == 0
        assert model.hidden_size % tp == 0
        kv = model.num_key_value_heads
        assert kv % tp == 0 or tp % kv == 0


@given(model=models, most=st.integers(1, 32))
def test_whole_experts_only_add_sizes_up_to_their_number(model: ModelSpec, most: int) -> None:
    cut = legal_sizes(model, most=most)
    if model.is_moe:
        whole = legal_sizes(model, most=most, expert_parallel=True)
        assert {tp for tp in cut if tp <= model.num_experts} <= set(whole)


@given(model=models, tp=st.integers(1, 32))
def test_a_refusal_and_the_legal_sizes_agree(model: ModelSpec, tp: int) -> None:
    answer = refusal(model, deployed(tp), gpus_per_node=32)
    assert (answer is None) == (tp in legal_sizes(model, most=32))
