"""What a model takes of a GPU: measured figures, the engines' rules, and laws."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.hardware import GIB, gpu_named
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import requantized
from vendomini.models.spec import CacheLayers, ModelSpec
from vendomini.planner.deployment import Backend, Deployment, MemoryUse
from vendomini.planner.gpu_memory import (
    BLOCK_TOKENS,
    batch_of,
    longest_that_fits,
    memory_use,
    sequences_that_fit,
)


def known(name: str) -> ModelSpec:
    return model_spec(name, environ={})


QWEN3_32B = known("Qwen/Qwen3-32B")
QWEN25_7B = known("Qwen/Qwen2.5-7B")
QWEN25_72B = known("Qwen/Qwen2.5-72B")
LLAMA_8B = known("meta-llama/Meta-Llama-3.1-8B")
LLAMA_70B = known("meta-llama/Llama-3.3-70B-Instruct")
DEEPSEEK = known("deepseek-ai/DeepSeek-V3")
GPT_OSS = known("openai/gpt-oss-120b")
GEMMA = known("google/gemma-3-27b-it")
MODELS = (QWEN3_32B, QWEN25_7B, LLAMA_70B, DEEPSEEK, GPT_OSS, GEMMA)


def on(
    gpu: str,
    *,
    backend: Backend = "vllm",
    tp: int = 1,
    pp: int = 1,
    length: int = 8192,
    utilization: float | None = None,
) -> Deployment:
    return Deployment(
        backend=backend,
        gpu=gpu_named(gpu),
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        max_model_len=length,
        gpu_memory_utilization=utilization,
    )


# -- what was measured -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "weights_gib", "kv_gib"),
    [
        (QWEN3_32B, 61.03, 4.45),
        (requantized(LLAMA_70B, "fp8"), 67.72, -1.44),
        (GPT_OSS, None, 3.33),
    ],
    ids=["Qwen3-32B", "Llama-70B FP8", "gpt-oss-120b"],
)
def test_what_vllm_0_11_left_for_the_cache_of_one_h100_is_told_to_half_a_gib(
    model: ModelSpec, weights_gib: float | None, kv_gib: float
) -> None:
    # It took 0.9 of the memory, and its graphs came on top.
    use = memory_use(model, replace(on("H100", utilization=0.9), enforce_eager=True))
    if weights_gib is not None:
        assert use.weights / GIB == pytest.approx(weights_gib, abs=0.1)
    assert use.kv / GIB == pytest.approx(kv_gib, abs=0.5)


def test_qwen3_32b_holds_16000_tokens_on_one_h100_and_not_32000() -> None:
    assert memory_use(QWEN3_32B, on("H100", length=16_000)).fits
    assert not memory_use(QWEN3_32B, on("H100", length=32_000)).fits


@pytest.mark.parametrize(("length", "gib"), [(1, 14.4), (32_768, 20.0)])
def test_transformers_takes_what_was_measured_with_qwen_7b_on_an_a100(
    length: int, gib: float
) -> None:
    use = memory_use(QWEN25_7B, on("A100-80", backend="hf", length=length))
    taken = use.weights + use.activations + use.overhead + use.kv_bytes_per_sequence
    assert taken / GIB == pytest.approx(gib, rel=0.05)


def test_a_72b_model_takes_two_a100s_under_transformers_and_three_for_a_long_prompt() -> None:
    assert memory_use(QWEN25_72B, on("A100-80", backend="hf", pp=2, length=1)).fits
    assert not memory_use(QWEN25_72B, on("A100-80", backend="hf", pp=2, length=32_768)).fits
    assert memory_use(QWEN25_72B, on("A100-80", backend="hf", pp=3, length=32_768)).fits


@pytest.mark.parametrize(
    ("name", "kib_per_token"),
    [
        ("meta-llama/Meta-Llama-3.1-8B", 128),
        ("meta-llama/Llama-3.3-70B-Instruct", 320),
        ("Qwen/Qwen2.5-7B", 56),
        ("meta-llama/Llama-2-7b-hf", 512),
        ("deepseek-ai/DeepSeek-V3", 70_272 / 1024),
    ],
)
def test_a_token_takes_as_much_cache_as_is_known(name: str, kib_per_token: float) -> None:
    use = memory_use(known(name), on("H200", length=1024 * BLOCK_TOKENS))
    each = use.kv_bytes_per_sequence / (1024 * BLOCK_TOKENS)
    assert each == pytest.approx(kib_per_token * 1024)


# -- shares of ranks -------------------------------------------------------------------------


def test_tensor_parallelism_divides_the_weights() -> None:
    one, four = (memory_use(LLAMA_70B, on("H200", tp=tp)).weights for tp in (1, 4))
    assert four == pytest.approx(one / 4, abs=4)


def test_more_ranks_than_kv_heads_save_no_cache() -> None:
    each = [
        memory_use(QWEN25_7B, on("H100", tp=tp)).kv_bytes_per_sequence for tp in (1, 2, 4, 8)
    ]  # 4 KV heads
    assert each[0] == 2 * each[1] == 4 * each[2] == 4 * each[3]


def test_a_latent_cache_is_not_divided() -> None:
    one, eight = (memory_use(DEEPSEEK, on("H200", tp=tp)).kv_bytes_per_sequence for tp in (1, 8))
    assert one == eight


def test_transformers_keeps_a_latent_cache_unfolded() -> None:
    folded, unfolded = (
        memory_use(DEEPSEEK, on("H200", backend=backend)).kv_bytes_per_sequence
        for backend in ("vllm", "hf")
    )
    assert unfolded / folded == pytest.approx(128 * 320 / 576)


def test_the_ends_of_a_pipeline_carry_the_vocabulary() -> None:
    whole = memory_use(QWEN25_72B, on("A100-80")).weights
    fullest = memory_use(QWEN25_72B, on("A100-80", pp=4)).weights
    vocabulary = QWEN25_72B.embedding_params * 2
    assert fullest == pytest.approx((whole - vocabulary) / 4 + vocabulary / 2, abs=8)


def test_layers_that_are_left_over_go_to_the_stages_before_the_last() -> None:
    odd = replace(LLAMA_70B, layers=81)
    shape = replace(on("H100", pp=2), max_num_seqs=1)  # sampling decides nothing
    fullest = memory_use(odd, shape).weights
    vocabulary = odd.embedding_params * 2
    assert fullest == pytest.approx(
        (odd.weight_bytes - vocabulary) * 41 / 81 + vocabulary / 2, abs=8
    )


def test_whole_experts_are_rounded_up_to_the_fullest_rank() -> None:
    model = replace(DEEPSEEK, num_experts=10)
    shape = replace(on("H200", tp=8), enable_expert_parallel=True)
    apart = memory_use(model, on("H200", tp=8)).weights
    whole = memory_use(model, shape).weights
    assert whole > apart  # 2 of 10 experts on a rank, not 10 / 8


def test_data_parallel_groups_share_the_experts_and_repeat_the_rest() -> None:
    shared = replace(on("H200"), data_parallel_size=8, enable_expert_parallel=True)
    weights = memory_use(DEEPSEEK, shared).weights
    experts = DEEPSEEK.expert_params  # a byte each
    rest = DEEPSEEK.weight_bytes - experts
    assert weights == pytest.approx(rest + experts / 8, rel=0.01)
    assert shared.gpus == 8


# -- what an engine does -----------------------------------------------------------------------


def test_a_window_bounds_what_a_long_conversation_takes() -> None:
    short, long_ = (
        memory_use(GEMMA, on("H200", length=length)).kv_bytes_per_sequence
        for length in (65_536, 131_072)
    )
    growing = sum(
        group.layers * group.kv_heads * group.width * 2
        for group in GEMMA.cache
        if group.window is None
    )
    assert long_ - short == growing * 65_536


def test_an_fp8_cache_takes_half() -> None:
    shape = on("H100")
    half = replace(shape, kv_cache_dtype="fp8")
    plain, small = (memory_use(LLAMA_8B, s).kv_bytes_per_sequence for s in (shape, half))
    assert plain == 2 * small


def test_a_model_that_overflows_in_float16_takes_twice_as_much_on_a_t4() -> None:
    gemma2 = known("google/gemma-2-2b")
    on_t4, on_l4 = (memory_use(gemma2, on(gpu)).weights for gpu in ("T4", "L4"))
    assert on_t4 == pytest.approx(2 * on_l4, rel=0.01)


def test_transformers_unpacks_fp8_on_a_card_without_it() -> None:
    fp8 = requantized(LLAMA_8B, "fp8")
    on_a100, on_h100 = (
        memory_use(fp8, on(gpu, backend="hf")).weights for gpu in ("A100-80", "H100")
    )
    assert on_a100 == pytest.approx(memory_use(LLAMA_8B, on("A100-80", backend="hf")).weights)
    assert on_h100 < 0.6 * on_a100


def test_vllm_takes_larger_batches_on_large_cards_but_not_on_the_a100() -> None:
    assert batch_of(on("H100")) == (8192, 1024)
    assert batch_of(on("A100-80")) == batch_of(on("L40S")) == (2048, 256)


def test_fewer_sequences_leave_more_for_the_cache() -> None:
    shape = on("H100")
    assert (
        memory_use(QWEN3_32B, replace(shape, max_num_seqs=256)).kv > memory_use(QWEN3_32B, shape).kv
    )


def test_a_conversation_takes_whole_blocks() -> None:
    uses = [memory_use(LLAMA_8B, on("H100", length=n)).kv_bytes_per_sequence for n in (1, 16, 17)]
    assert uses[0] == uses[1] == uses[2] / 2


def test_a_constant_state_is_counted_once_a_sequence() -> None:
    model = replace(LLAMA_8B, cache=(), state_bytes=50 * GIB)
    shape = on("H100")
    assert memory_use(model, shape).kv_bytes_per_sequence == 50 * GIB
    assert sequences_that_fit(model, shape, 100) == 1


# -- laws ------------------------------------------------------------------------------------

GPUS = ("T4", "L4", "A100-40", "L40S", "A100-80", "H100", "H200", "B200", "MI300X")
shapes = st.builds(
    on,
    st.sampled_from(GPUS),
    backend=st.just("vllm"),
    tp=st.sampled_from([1, 2, 4, 8]),
    pp=st.integers(1, 4),
    length=st.integers(1, 200_000),
)
models = st.sampled_from(MODELS)


def taken(use: MemoryUse) -> int:
    return use.weights + use.activations + use.overhead + use.graphs + use.reserve + use.kv


@given(models, shapes)
def test_the_parts_are_the_whole(model: ModelSpec, shape: Deployment) -> None:
    use = memory_use(model, shape)
    assert taken(use) == use.total == shape.gpu.memory_bytes
    assert use.fits == (use.margin >= 0) == (use.kv >= use.kv_bytes_per_sequence)


@given(models, shapes, st.integers(1, 100_000))
def test_a_longer_context_never_takes_less(model: ModelSpec, shape: Deployment, more: int) -> None:
    longer = replace(shape, max_model_len=shape.max_model_len + more)
    assert memory_use(model, longer).margin <= memory_use(model, shape).margin


@given(models, shapes, st.floats(0, 100))
def test_more_memory_never_leaves_less(model: ModelSpec, shape: Deployment, more: float) -> None:
    larger = replace(shape.gpu, memory_gib=shape.gpu.memory_gib + more)
    assert memory_use(model, replace(shape, gpu=larger)).margin >= memory_use(model, shape).margin


@given(models, shapes)
def test_fewer_bits_never_take_more(model: ModelSpec, shape: Deployment) -> None:
    plain, small = (requantized(model, method) for method in ("bf16", "int4"))
    assert memory_use(small, shape).weights < memory_use(plain, shape).weights


@given(models, shapes, st.booleans())
def test_the_longest_fits_and_a_block_more_does_not(
    model: ModelSpec, shape: Deployment, is_hf: bool
) -> None:
    if is_hf:
        shape = replace(shape, backend="hf", tensor_parallel_size=1)
    longest = longest_that_fits(model, shape)
    if longest == 0:
        assert not memory_use(model, replace(shape, max_model_len=1)).fits
        return
    assert memory_use(model, replace(shape, max_model_len=longest)).fits
    if longest < max(model.max_model_len or 1 << 24, shape.max_model_len):
        longer = replace(shape, max_model_len=longest + 2 * BLOCK_TOKENS)
        assert not memory_use(model, longer).fits


@given(models, shapes, st.integers(1, 50_000))
def test_as_many_sequences_fit_as_there_is_cache_for(
    model: ModelSpec, shape: Deployment, tokens: int
) -> None:
    held = sequences_that_fit(model, shape, tokens)
    assert (held >= 1) == memory_use(model, replace(shape, max_model_len=tokens)).fits
    assert held <= batch_of(shape)[1]
    assert held >= sequences_that_fit(model, shape, tokens + 1000)


@given(
    layers=st.integers(1, 100),
    stages=st.integers(1, 8),
    kv_heads=st.integers(1, 64),
    window=st.none() | st.integers(1, 8192),
)
def test_the_fullest_stage_holds_at_least_its_share(
    layers: int, stages: int, kv_heads: int, window: int | None
) -> None:
    group = CacheLayers(
        kind="sliding" if window else "full",
        layers=layers,
        kv_heads=kv_heads,
        width=256,
        window=window,
    )
    model = replace(LLAMA_8B, layers=layers, cache=(group,))
    count = min(stages, layers)
    plain = replace(on("H100"), max_num_seqs=1)  # so that all stages' activations are alike
    whole = memory_use(model, plain)
    stage = memory_use(model, replace(plain, pipeline_parallel_size=count))
    all_of_it = whole.weights + whole.kv_bytes_per_sequence
    assert (stage.weights + stage.kv_bytes_per_sequence) * count >= all_of_it - count
    assert stage.margin >= whole.margin - stage.overhead
