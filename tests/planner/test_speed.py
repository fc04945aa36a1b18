"""The roofline: what it says of known deployments, its laws, and how far published speeds are."""

from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.decode_speed import GOAL, error_of_step, figures, rows
from vendomini.hardware import GpuSpec, gpu_named
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import requantized
from vendomini.models.spec import CacheKind, CacheLayers, ModelSpec
from vendomini.planner.deployment import Backend, Deployment
from vendomini.planner.gpu_memory import sequences_that_fit
from vendomini.planner.speed import HF_LAYER_S, VLLM_V0, prefill_s, speed, step_s


def on(gpu: str | GpuSpec, *, backend: Backend = "vllm", tp: int = 1, pp: int = 1) -> Deployment:
    return Deployment(
        backend=backend,
        gpu=gpu if isinstance(gpu, GpuSpec) else gpu_named(gpu),
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        max_model_len=8192,
    )


LLAMA_70B = model_spec("meta-llama/Llama-3.1-70B-Instruct", environ={})
LLAMA_8B = model_spec("meta-llama/Llama-3.1-8B-Instruct", environ={})
QWEN_MOE = model_spec("Qwen/Qwen3-30B-A3B", environ={})
DEEPSEEK = model_spec("deepseek-ai/DeepSeek-V3", environ={})
GPT_OSS = model_spec("openai/gpt-oss-120b", environ={})
MODELS = (LLAMA_70B, LLAMA_8B, QWEN_MOE, DEEPSEEK, GPT_OSS)


# -- what is known ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "tp", "milliseconds"),
    [
        ("H200", 1, 21.5),
        ("H200", 2, 13.9),
        ("H200", 4, 9.9),
        ("H200", 8, 7.9),
        ("H100", 2, 17.4),
        ("H100", 4, 11.8),
        ("H100", 8, 9.1),
    ],
)
def test_llama_70b_in_fp8_writes_as_fast_as_was_measured(
    gpu: str, tp: int, milliseconds: float
) -> None:
    model = requantized(LLAMA_70B, "fp8")
    step = step_s(model, on(gpu, tp=tp), sequences=4, context=1536)
    assert step * 1000 == pytest.approx(milliseconds, rel=0.12)


@pytest.mark.parametrize(
    ("name", "tokens_s"), [("0.5B", 311.6), ("1.5B", 183.3), ("7B", 84.3), ("32B", 22.1)]
)
def test_an_old_vllm_writes_one_stream_as_fast_as_was_measured(name: str, tokens_s: float) -> None:
    model = model_spec(f"Qwen/Qwen2.5-{name}-Instruct", environ={})
    step = step_s(model, on("A100-80GB"), sequences=1, context=1024, overheads=VLLM_V0)
    assert 1 / step == pytest.approx(tokens_s, rel=0.12)


@pytest.mark.parametrize(("name", "tokens_s"), [("0.5B", 47), ("7B", 40), ("14B", 25), ("32B", 17)])
def test_transformers_is_as_slow_as_its_layers_are_many(name: str, tokens_s: float) -> None:
    model = model_spec(f"Qwen/Qwen2.5-{name}-Instruct", environ={})
    alone = speed(model, on("A100-80GB", backend="hf"), sequences=1, context=512)
    assert alone.step_s >= model.layers * HF_LAYER_S
    assert alone.decode_tokens_s == pytest.approx(tokens_s, rel=0.15)


def test_the_computed_speeds_are_those_that_others_published() -> None:
    found, unsaid = rows()
    errors = figures([error_of_step(row) for row in found])
    assert (len(found), unsaid) == (1062, 5)
    assert errors.median <= 0.15 < GOAL
    assert errors.p90 <= 0.45
    assert abs(errors.bias) <= 0.05


def test_no_card_with_many_published_speeds_is_misjudged() -> None:
    found, _ = rows()
    for gpu in ("A100-80", "H100", "H200", "B200", "B300"):
        errors = [abs(error_of_step(row)) for row in found if row.labels["GPU"] == gpu]
        assert len(errors) > 100
        assert median(errors) <= GOAL, gpu


@pytest.mark.parametrize(
    ("name", "quantization", "gpu", "tp", "tokens_s"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "fp8", "H100", 1, 15200),
        ("meta-llama/Llama-3.1-70B-Instruct", "fp8", "H100", 2, 4200),
        ("meta-llama/Llama-3.1-70B-Instruct", "fp8", "H200", 1, 2900),
        ("meta-llama/Llama-3.1-405B-Instruct", "fp8", "H100", 8, 2900),
        ("Qwen/Qwen3-235B-A22B-FP8", None, "H100", 8, 14900),
    ],
)
def test_full_engines_reach_what_vllm_usually_does_of_tensorrt_llms_published_best(
    name: str, quantization: str | None, gpu: str, tp: int, tokens_s: float
) -> None:
    """1,000 tokens in, 1,000 out, as many sequences as fit; these figures set no constant."""
    model = model_spec(name, environ={})
    if quantization is not None:
        model = requantized(model, quantization)
    deployment = on(gpu, tp=tp)
    under_way = min(sequences_that_fit(model, deployment, 2000), 1024)
    at = speed(model, deployment, sequences=under_way, context=1500)
    seconds_a_token = at.step_s + under_way * 1000 / at.prefill_tokens_s / 1000
    assert 0.5 <= under_way / seconds_a_token / tokens_s <= 1.0


# -- laws ------------------------------------------------------------------------------------


@st.composite
def models(draw: st.DrawFn) -> ModelSpec:
    """Dense models and mixtures, with KV heads of their own number, sliding windows or MLA."""
    layers, heads = draw(st.integers(2, 96)), 2 ** draw(st.integers(2, 6))
    kv_heads = 2 ** draw(st.integers(0, 5))
    params = draw(st.integers(10**8, 10**12))
    embedding = params // 50
    experts = draw(st.sampled_from([0, 8, 128]))
    of_experts = int(params * 0.9) if experts else 0
    active = params - of_experts + (of_experts * 2 // experts if experts else 0)
    kinds: tuple[CacheKind, ...] = ("full", "sliding", "latent")
    kind = draw(st.sampled_from(kinds))
    group = CacheLayers(
        kind=kind,
        layers=layers,
        kv_heads=1 if kind == "latent" else min(kv_heads, heads),
        width=576 if kind == "latent" else 256,
        window=1024 if kind == "sliding" else None,
    )
    return ModelSpec(
        id="drawn",
        params=params,
        active_params=active,
        embedding_params=embedding,
        expert_params=of_experts,
        layers=layers,
        hidden_size=heads * 128,
        vocab_size=32000,
        num_attention_heads=heads,
        num_key_value_heads=min(kv_heads, heads),
        num_experts=experts,
        experts_per_token=2 if experts else 0,
        cache=(group,),
        max_model_len=131072,
        dtype="bfloat16",
        weight_bytes=2 * params,
    )


BACKENDS = st.sampled_from(["vllm", "hf"])
CARDS = st.sampled_from(["T4", "A100-80GB", "L40S", "H100", "B200"])
SEQUENCES = st.integers(1, 512)
CONTEXTS = st.integers(1, 65536)


@given(model=models(), card=CARDS, backend=BACKENDS, sequences=SEQUENCES, context=CONTEXTS)
def test_faster_memory_is_never_slower(
    model: ModelSpec, card: str, backend: Backend, sequences: int, context: int
) -> None:
    gpu = gpu_named(card)
    faster = replace(gpu, bandwidth_gb_s=gpu.bandwidth_gb_s * 1.5)
    here = speed(model, on(gpu, backend=backend), sequences=sequences, context=context)
    there = speed(model, on(faster, backend=backend), sequences=sequences, context=context)
    assert there.step_s <= here.step_s
    assert there.prefill_tokens_s >= here.prefill_tokens_s


@given(
    model=models(),
    card=CARDS,
    backend=BACKENDS,
    pp=st.sampled_from([1, 2, 4]),
    sequences=SEQUENCES,
    context=CONTEXTS,
)
def test_more_sequences_never_write_fewer_tokens_together_nor_each_of_them_more(
    model: ModelSpec, card: str, backend: Backend, pp: int, sequences: int, context: int
) -> None:
    deployment = on(card, backend=backend, pp=pp)
    fewer = speed(model, deployment, sequences=sequences, context=context)
    more = speed(model, deployment, sequences=sequences + 1, context=context)
    assert more.decode_tokens_s >= fewer.decode_tokens_s * (1 - 1e-9)
    assert more.step_s >= fewer.step_s


@given(model=models(), card=CARDS, backend=BACKENDS, sequences=SEQUENCES, context=CONTEXTS)
def test_a_longer_conversation_is_never_faster(
    model: ModelSpec, card: str, backend: Backend, sequences: int, context: int
) -> None:
    deployment = on(card, backend=backend)
    short = step_s(model, deployment, sequences=sequences, context=context)
    assert step_s(model, deployment, sequences=sequences, context=2 * context) >= short
    read = prefill_s(model, deployment, context)
    assert prefill_s(model, deployment, 2 * context) >= read
    assert prefill_s(model, deployment, context, cached=1000) >= read


@given(model=models(), card=CARDS, sequences=SEQUENCES, context=CONTEXTS)
def test_stages_of_a_pipeline_make_no_sequence_faster_that_is_alone(
    model: ModelSpec, card: str, sequences: int, context: int
) -> None:
    one, two = on(card), on(card, pp=2)
    assert step_s(model, two, sequences=1, context=context) >= step_s(
        model, one, sequences=1, context=context
    )
    # Together they are faster, by the hop between the stages at most slower.
    assert step_s(model, two, sequences=2 * sequences, context=context) <= (
        step_s(model, one, sequences=2 * sequences, context=context) * 1.01 + 1e-3
    )


@given(model=models(), card=CARDS, sequences=SEQUENCES, context=CONTEXTS)
def test_stages_of_a_pipeline_read_prompts_side_by_side_and_transformers_gpus_do_not(
    model: ModelSpec, card: str, sequences: int, context: int
) -> None:
    def read(backend: Backend, pp: int) -> float:
        deployment = on(card, backend=backend, pp=pp)
        return speed(model, deployment, sequences=sequences, context=context).prefill_tokens_s

    assert read("vllm", 4) <= read("vllm", 1) * min(sequences, 4)
    assert read("hf", 4) <= read("hf", 1)


@given(model=models(), card=CARDS, sequences=SEQUENCES, context=CONTEXTS)
def test_layers_spread_over_gpus_by_transformers_are_no_faster(
    model: ModelSpec, card: str, sequences: int, context: int
) -> None:
    one, four = on(card, backend="hf"), on(card, backend="hf", pp=4)
    assert step_s(model, four, sequences=sequences, context=context) >= step_s(
        model, one, sequences=sequences, context=context
    )


@given(model=models(), card=CARDS, sequences=SEQUENCES, context=CONTEXTS)
def test_vllm_is_never_slower_than_transformers(
    model: ModelSpec, card: str, sequences: int, context: int
) -> None:
    ours = step_s(model, on(card), sequences=sequences, context=context)
    theirs = step_s(model, on(card, backend="hf"), sequences=sequences, context=context)
    assert ours <= theirs * 1.2  # they overlap launches with the GPU's work, which we add up


# -- what parallelism, formats and links do --------------------------------------------------


@pytest.mark.parametrize("model", [LLAMA_70B, GPT_OSS, DEEPSEEK], ids=lambda model: model.id)
def test_a_large_model_writes_faster_with_each_doubling_over_nvlink(model: ModelSpec) -> None:
    steps = [step_s(model, on("H200", tp=tp), sequences=32, context=4096) for tp in (1, 2, 4, 8)]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] / steps[3] < 6  # never the whole factor: each layer costs the same


def test_a_small_model_gains_nothing_from_tensor_parallelism() -> None:
    model = model_spec("Qwen/Qwen2.5-0.5B-Instruct", environ={})
    one = step_s(model, on("H100"), sequences=1, context=1024)
    assert step_s(model, on("H100", tp=2), sequences=1, context=1024) > one


def test_over_pcie_stages_beat_ranks_where_many_sequences_are_under_way() -> None:
    model = model_spec("meta-llama/Llama-3.1-70B-Instruct", environ={})
    staged, ranks = on("L40S", pp=8), on("L40S", tp=8)
    crowd = [speed(model, each, sequences=128, context=2048) for each in (staged, ranks)]
    assert crowd[0].prefill_tokens_s > crowd[1].prefill_tokens_s
    alone = [step_s(model, each, sequences=1, context=2048) for each in (staged, ranks)]
    assert alone[0] > alone[1]


def test_pcie_makes_tensor_parallelism_dear() -> None:
    card = gpu_named("A100-80GB")
    without = replace(card, has_nvlink=False, link_gb_s=32.0)
    prompts = [prefill_s(LLAMA_70B, on(gpu, tp=4), 8192) for gpu in (card, without)]
    steps = [
        step_s(LLAMA_70B, on(gpu, tp=4), sequences=32, context=2048) for gpu in (card, without)
    ]
    assert prompts[1] > 1.5 * prompts[0]
    assert steps[1] > 1.1 * steps[0]


def test_ranks_on_two_nodes_are_slower_than_stages() -> None:
    model = requantized(LLAMA_70B, "fp8")
    across = replace(on("H100", tp=16), nodes=2)
    staged = replace(on("H100", tp=8, pp=2), nodes=2)
    assert prefill_s(model, across, 8192) > prefill_s(model, staged, 8192) / 2
    assert step_s(model, across, sequences=64, context=2048) > step_s(
        model, staged, sequences=64, context=2048
    )


def test_eight_bits_read_prompts_faster_only_where_the_gpu_computes_in_them() -> None:
    small = requantized(LLAMA_8B, "fp8")
    for card, gains in (("H100", True), ("A100-80GB", False)):
        plain, eight = (prefill_s(model, on(card), 8192) for model in (LLAMA_8B, small))
        assert (eight < 0.8 * plain) == gains
        assert step_s(small, on(card), sequences=1, context=512) < step_s(
            LLAMA_8B, on(card), sequences=1, context=512
        )


def test_a_mixture_reads_more_of_its_experts_the_more_tokens_it_writes() -> None:
    deployment = on("H100")
    alone, crowd = (step_s(QWEN_MOE, deployment, sequences=n, context=512) for n in (1, 64))
    dense = model_spec("Qwen/Qwen3-32B", environ={})
    assert alone < step_s(dense, deployment, sequences=1, context=512) / 2
    assert crowd > 3 * alone


def test_transformers_loops_over_experts_where_it_cannot_group_them() -> None:
    grouped = step_s(QWEN_MOE, on("A100-80GB", backend="hf"), sequences=1, context=512)
    looped = step_s(QWEN_MOE, on("V100-32GB", backend="hf"), sequences=1, context=512)
    assert 1 / looped == pytest.approx(1.9, rel=0.15)
    assert grouped < looped / 4


def test_mla_is_read_whole_by_each_rank() -> None:
    long = [step_s(DEEPSEEK, on("H200", tp=8), sequences=64, context=c) for c in (1000, 33000)]
    bytes_read = 64 * 32000 * 61 * 576 * 2
    assert long[1] - long[0] == pytest.approx(bytes_read / (0.8 * 4.8e12), rel=0.05)


def test_flash_attention_helps_transformers_with_long_prompts_and_large_batches() -> None:
    flash = on("A100-80GB", backend="hf")
    without = replace(flash, flash_attention=False)
    assert prefill_s(LLAMA_8B, without, 32768) > 1.2 * prefill_s(LLAMA_8B, flash, 32768)
    crowds = [step_s(LLAMA_8B, each, sequences=64, context=4096) for each in (flash, without)]
    assert crowds[1] > 1.2 * crowds[0]


def test_quantised_weights_make_transformers_no_faster() -> None:
    plain = step_s(LLAMA_8B, on("A100-80GB", backend="hf"), sequences=1, context=512)
    four = requantized(LLAMA_8B, "awq")
    assert step_s(four, on("A100-80GB", backend="hf"), sequences=1, context=512) >= plain
    assert step_s(four, on("A100-80GB"), sequences=1, context=512) < step_s(
        LLAMA_8B, on("A100-80GB"), sequences=1, context=512
    )


def test_without_cuda_graphs_a_small_model_is_several_times_slower() -> None:
    graphs = on("H100")
    eager = replace(graphs, enforce_eager=True)
    steps = [step_s(LLAMA_8B, each, sequences=1, context=512) for each in (graphs, eager)]
    assert steps[1] > 1.8 * steps[0]


def test_a_sliding_window_stops_growing() -> None:
    deployment = on("H100", tp=2)
    short, long = (step_s(GPT_OSS, deployment, sequences=64, context=c) for c in (8192, 16384))
    full = sum(group.layers for group in GPT_OSS.cache if group.kind == "full")
    grown = 64 * 8192 * full * 8 * 128 * 2 / 2
    assert long - short == pytest.approx(grown / (0.8 * 3.35e12), rel=0.05)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.id)
def test_a_processor_is_a_slow_gpu(model: ModelSpec) -> None:
    processor = GpuSpec(
        name="processor",
        vendor="cpu",
        compute_capability=None,
        memory_gib=512,
        bandwidth_gb_s=100,
        tflops=2,
        link_gb_s=20,
    )
    slow = speed(model, on(processor), sequences=4, context=1024)
    quick = speed(model, on("H200"), sequences=4, context=1024)
    assert slow.step_s > 10 * quick.step_s
    assert slow.prefill_tokens_s < quick.prefill_tokens_s / 50
