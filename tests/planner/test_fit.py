"""What a model takes: known answers, laws, and what is said where nothing works."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.errors import ConfigError
from vendomini.hardware import GpuSpec, gpu_named
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Backend, Deployment
from vendomini.planner.fit import (
    MOST_NODES,
    TYPICAL_SEQUENCES,
    TYPICAL_TOKENS,
    check,
    deployments,
    planned_max_model_len,
    recommended,
    smallest,
)
from vendomini.planner.gates import cannot_run
from vendomini.planner.gpu_memory import memory_use, sequences_that_fit
from vendomini.planner.parallel import refusal
from vendomini.planner.question import Answer, Question, answered, refuse_illegal
from vendomini.planner.verdict import Fit


def known(name: str) -> ModelSpec:
    return model_spec(name, environ={})


def asked(
    name: str | ModelSpec,
    gpu: str | GpuSpec,
    *,
    backend: Backend = "vllm",
    gpus: int | None = None,
    tp: int | None = None,
    pp: int | None = None,
    length: int | None = None,
    nodes: int | None = None,
    groups: int | None = None,
) -> Question:
    spec = gpu if isinstance(gpu, GpuSpec) else gpu_named(gpu)
    return Question(
        model=known(name) if isinstance(name, str) else name,
        gpu=spec,
        backend=backend,
        gpus_per_node=spec.gpus_per_node,
        gpus=gpus,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        data_parallel_size=groups,
        nodes=nodes,
        max_model_len=length,
    )


def shape_of(answer: Answer | Fit) -> tuple[int, int, int, int]:
    """GPUs, TP, PP and nodes of what works."""
    fit = answer.fit if isinstance(answer, Answer) else answer
    assert fit.feasible, fit.reasons
    assert fit.deployment is not None
    shape = fit.deployment
    sizes = shape.tensor_parallel_size, shape.pipeline_parallel_size, shape.nodes
    return shape.gpus, *sizes


# -- known answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gpu", "gpus", "tp", "pp", "nodes"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "L4", 1, 1, 1, 1),
        ("Qwen/Qwen2.5-32B-Instruct", "L40S", 2, 2, 1, 1),
        ("meta-llama/Llama-3.3-70B-Instruct", "A100-80", 2, 2, 1, 1),
        ("meta-llama/Llama-3.3-70B-Instruct", "A100-40", 4, 4, 1, 1),
        ("meta-llama/Meta-Llama-3.1-405B", "H100", 16, 8, 2, 2),
        ("openai/gpt-oss-120b", "H100", 1, 1, 1, 1),
        ("deepseek-ai/DeepSeek-R1", "H200", 8, 8, 1, 1),
        ("deepseek-ai/DeepSeek-R1", "H100", 16, 8, 2, 2),
        ("moonshotai/Kimi-K2-Instruct", "H100", 16, 8, 2, 2),
    ],
)
def test_the_smallest_deployment_is_the_known_one(
    name: str, gpu: str, gpus: int, tp: int, pp: int, nodes: int
) -> None:
    assert shape_of(answered(asked(name, gpu))) == (gpus, tp, pp, nodes)


def test_a_model_whose_heads_do_not_divide_is_cut_by_layers() -> None:
    model = replace(known("Qwen/Qwen2.5-7B"), num_attention_heads=27, hidden_size=27 * 128)
    assert shape_of(answered(asked(model, replace(gpu_named("L4"), memory_gib=12.0)))) == (
        2,
        1,
        2,
        1,
    )


def test_experts_stay_whole_where_their_blocks_cannot_be_cut() -> None:
    fit = answered(asked("Qwen/Qwen3-235B-A22B-FP8", "H100", gpus=8, tp=8)).fit
    assert fit.feasible
    assert fit.deployment is not None
    assert fit.deployment.enable_expert_parallel
    assert any("expert" in reason for reason in fit.reasons)


def test_the_recommended_deployment_holds_16_conversations() -> None:
    answer = answered(asked("Qwen/Qwen2.5-72B-Instruct", "A100-80"))
    assert shape_of(answer)[0] == 2
    best = answer.recommended
    assert best is not None
    assert shape_of(best)[0] == 4
    assert best.deployment is not None
    held = sequences_that_fit(known("Qwen/Qwen2.5-72B-Instruct"), best.deployment, TYPICAL_TOKENS)
    assert held >= TYPICAL_SEQUENCES


def test_transformers_may_use_three_gpus() -> None:
    answer = answered(asked("Qwen/Qwen2.5-72B-Instruct", "A100-80", backend="hf", length=32_768))
    assert shape_of(answer) == (3, 1, 3, 1)


def test_no_more_than_8192_tokens_are_planned_for_unasked() -> None:
    assert planned_max_model_len(known("meta-llama/Meta-Llama-3.1-8B")) == 8192
    assert planned_max_model_len(known("meta-llama/Llama-2-7b-hf")) == 4096


# -- named deployments ---------------------------------------------------------------------------


def test_one_h100_is_too_small_for_70b_in_8_bits() -> None:
    model = requantized(known("meta-llama/Llama-3.3-70B-Instruct"), "fp8")
    assert not answered(asked(model, "H100", gpus=1, length=16_000)).fit.feasible
    assert answered(asked(model, "H100", gpus=2, length=16_000)).fit.feasible


def test_a_refusal_tells_what_would_work() -> None:
    fit = answered(asked("Qwen/Qwen3-32B", "H100", gpus=1, length=32_000)).fit
    said = "\n".join(fit.reasons)
    assert "--max-num-seqs 256" in said
    assert f"--max-model-len {fit.max_model_len_that_fits}" in said
    assert "quantised as fp8" in said
    assert "the smallest that works: 2 H100 (TP 2)" in said


def test_what_fits_nowhere_tells_what_it_needs() -> None:
    fit = answered(asked("moonshotai/Kimi-K2-Instruct", "T4")).fit
    assert not fit.feasible
    assert any("958 GiB for the weights alone" in reason for reason in fit.reasons)
    assert fit.rejected[0].deployment.gpus == 1


def test_more_nodes_of_one_stage_each_take_what_is_beyond_tensor_parallelism() -> None:
    question = asked(
        "meta-llama/Llama-3.2-90B-Vision-Instruct", "L40S", gpus=8, tp=4, pp=1, nodes=2
    )
    assert shape_of(answered(question)) == (8, 4, 2, 2)


def test_attention_groups_share_the_experts_of_one_model() -> None:
    fit = answered(asked("deepseek-ai/DeepSeek-R1", "H200", gpus=8, tp=1, pp=1, groups=8)).fit
    assert shape_of(fit) == (8, 1, 1, 1)
    assert fit.deployment is not None
    assert fit.deployment.data_parallel_size == 8


def test_sglangs_size_that_cuts_no_heads_counts_the_attentions_groups() -> None:
    question = asked("deepseek-ai/DeepSeek-R1", "GB200", gpus=72, tp=72, pp=1, nodes=18)
    fit = answered(question).fit
    assert fit.feasible
    assert fit.deployment is not None
    assert fit.deployment.data_parallel_size > 1


def test_a_context_beyond_the_models_own_is_judged_by_memory_and_told() -> None:
    fit = answered(asked("meta-llama/Llama-2-7b-hf", "H100", gpus=1, length=32_768)).fit
    assert fit.feasible
    assert any("rope scaling" in reason for reason in fit.reasons)


def test_vllm_runs_on_no_v100() -> None:
    fit = answered(asked("Qwen/Qwen2.5-7B-Instruct", "V100-32")).fit
    assert not fit.feasible
    assert fit.memory is None
    assert "7.5" in fit.reasons[0]


def test_a_guessed_size_is_judged_as_it_stands_and_said_to_be_a_guess() -> None:
    fit = answered(asked(model_spec("nobody/knows-8B", environ={}), "L4", gpus=1)).fit
    assert any("known by its size alone" in reason for reason in fit.reasons)


def test_a_verdict_that_the_margin_would_turn_says_so() -> None:
    model = known("Qwen/Qwen3-32B")
    limit = answered(asked(model, "H100", gpus=1, length=1)).fit
    assert limit.memory is not None
    at_the_edge = replace(
        model, weight_bytes=model.weight_bytes + limit.memory.margin - 1, weight_margin=0.05
    )
    fit = answered(asked(at_the_edge, "H100", gpus=1, length=1)).fit
    assert fit.feasible
    assert any("the verdict would be the other" in reason for reason in fit.reasons)
    assert any(reason.startswith("tight") for reason in fit.reasons)


# -- bad questions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "said", "hint"),
    [
        (asked("Qwen/Qwen2.5-7B", "H100", tp=8), "heads 28, TP 8", "legal sizes: 1, 2, 4"),
        (asked("Qwen/Qwen2.5-7B", "H100", tp=2, pp=2, gpus=8), "is not TP 2 x PP 2 = 4", "alone"),
        (asked("meta-llama/Llama-2-7b-hf", "H100", length=4097), "the 4096 tokens", "at most 4096"),
        (asked("Qwen/Qwen2.5-7B", "H100", pp=29), "28 layers", "at most 28"),
        (asked("Qwen/Qwen2.5-7B", "H100", gpus=12), "whole nodes", "multiple of 8"),
        (asked("Qwen/Qwen2.5-7B", "H100", tp=2, backend="hf"), "transformers", "vllm"),
        (asked("Qwen/Qwen2.5-7B", "H100", gpus=16, backend="hf"), "one node", "--gpus-per-node"),
    ],
    ids=["heads", "product", "context", "stages", "nodes", "hf", "hf nodes"],
)
def test_an_illegal_question_is_refused_with_the_choices(
    question: Question, said: str, hint: str
) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        refuse_illegal(question)
    assert hint in refused.value.hint


# -- laws ------------------------------------------------------------------------------------

MODELS = tuple(
    known(name)
    for name in (
        "Qwen/Qwen2.5-7B",
        "Qwen/Qwen3-32B",
        "Qwen/Qwen3-235B-A22B-FP8",
        "meta-llama/Llama-3.3-70B-Instruct",
        "google/gemma-3-27b-it",
        "deepseek-ai/DeepSeek-V3",
        "openai/gpt-oss-120b",
        "microsoft/phi-4",
        "openai-community/gpt2-xl",
    )
)
models = st.sampled_from(MODELS)
gpus = st.sampled_from(["T4", "L4", "A100-40", "L40S", "A100-80", "H100", "H200", "MI300X"])
lengths = st.integers(1, 131_072)
backends: st.SearchStrategy[Backend] = st.sampled_from(["vllm", "hf"])


def looked_for(
    model: ModelSpec, gpu: GpuSpec, length: int, *, backend: Backend = "vllm", per_node: int = 8
) -> Fit:
    return smallest(
        model,
        deployments(
            model,
            gpu,
            backend=backend,
            gpus_per_node=per_node,
            nodes=MOST_NODES,
            max_model_len=length,
        ),
    )


def count(fit: Fit) -> float:
    assert fit.deployment is not None
    return fit.deployment.gpus if fit.feasible else float("inf")


@given(models, gpus, lengths, st.floats(0, 80), backends)
def test_more_memory_never_needs_more_gpus(
    model: ModelSpec, gpu: str, length: int, more: float, backend: Backend
) -> None:
    spec = gpu_named(gpu)
    larger = replace(spec, memory_gib=spec.memory_gib + more)
    fewer, asked_for = (
        count(looked_for(model, one, length, backend=backend)) for one in (larger, spec)
    )
    assert fewer <= asked_for


@given(models, gpus, lengths, st.integers(0, 131_072), backends)
def test_a_longer_context_never_needs_fewer_gpus(
    model: ModelSpec, gpu: str, length: int, more: int, backend: Backend
) -> None:
    spec = gpu_named(gpu)
    short, long_ = (
        count(looked_for(model, spec, n, backend=backend)) for n in (length, length + more)
    )
    assert long_ >= short


@given(models, st.integers(1, 16), st.integers(1, 4), lengths, backends)
def test_every_shape_is_legal_and_fits_a_node_or_takes_whole_ones(
    model: ModelSpec, per_node: int, nodes: int, length: int, backend: Backend
) -> None:
    found = list(
        deployments(
            model,
            gpu_named("H100"),
            backend=backend,
            gpus_per_node=per_node,
            nodes=nodes,
            max_model_len=length,
        )
    )
    assert found[0].gpus == 1
    assert [shape.gpus for shape in found] == sorted(shape.gpus for shape in found)
    for shape in found:
        assert refusal(model, shape, gpus_per_node=per_node) is None
        assert shape.tensor_parallel_size <= per_node
        assert shape.gpus <= per_node or shape.gpus == shape.nodes * per_node
        assert shape.nodes <= nodes
        if shape.backend == "vllm":
            assert model.num_attention_heads % shape.tensor_parallel_size == 0


@given(models, gpus, lengths)
def test_the_smallest_works_and_nothing_smaller_does(
    model: ModelSpec, gpu: str, length: int
) -> None:
    spec = gpu_named(gpu)
    fit = looked_for(model, spec, length)
    assert fit.deployment is not None
    assert fit.memory == memory_use(model, fit.deployment)
    assert fit.feasible == fit.memory.fits == (fit.concurrency >= 1)
    assert fit.feasible == (fit.max_model_len_that_fits >= length)
    for rejected in fit.rejected:
        assert not memory_use(model, rejected.deployment).fits
        if fit.feasible:
            assert rejected.deployment.gpus < fit.deployment.gpus
    if fit.feasible:
        runs = cannot_run(model, spec, "vllm") is None
        assert check(model, fit.deployment, gpus_per_node=8).feasible == runs


@given(models, gpus, lengths)
def test_what_is_recommended_is_never_smaller_than_what_works(
    model: ModelSpec, gpu: str, length: int
) -> None:
    shapes = tuple(
        deployments(
            model,
            gpu_named(gpu),
            backend="vllm",
            gpus_per_node=8,
            nodes=2,
            max_model_len=length,
        )
    )
    best = recommended(model, shapes)
    if best.feasible:
        assert count(best) >= count(smallest(model, shapes))


@given(models, st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_a_named_shape_is_judged_as_the_search_would(model: ModelSpec, tp: int, pp: int) -> None:
    shape = Deployment(
        backend="vllm",
        gpu=gpu_named("H100"),
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        nodes=max(1, tp * pp // 8),
        max_model_len=4096,
    )
    fit = check(model, shape, gpus_per_node=8)
    if fit.deployment is not None:
        assert fit.feasible == memory_use(model, fit.deployment).fits
    else:
        assert not fit.feasible
