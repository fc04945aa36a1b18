"""What holds of every plan, whatever the model, the cards and the work."""

from dataclasses import replace
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.planner.cases import GPUS, MODELS, chosen, found, known, pool
from vendomini.errors import ConfigError, PlanError
from vendomini.hardware import GpuSpec, gpu_named
from vendomini.planner.choice import ONE_GPU, Candidate, Limits
from vendomini.planner.decision import Choice
from vendomini.planner.pool import Pool

MODEL = st.sampled_from(MODELS)
GPU = st.sampled_from(GPUS)
PER_NODE = st.sampled_from([1, 2, 3, 4, 8])
NODES = st.integers(1, 12)
WINDOW = st.sampled_from([2048, 4096, 8192, 16384, 32768])
STEPS = st.sampled_from([1, 50, 500, 1000, 5000])
RUNS = st.integers(1, 900)
BACKENDS = ("vllm", "hf")


def least_gpus(model: str, gpu: GpuSpec, per_node: int, nodes: int, window: int) -> dict[str, int]:
    """By backend, the fewest GPUs that hold the model; many where nothing does."""
    every = found(model, [pool(gpu, per_node=per_node, nodes=nodes)], window=window).every
    return {
        name: min((c.deployment.gpus for c in every if c.deployment.backend == name), default=10**6)
        for name in BACKENDS
    }


def planned(model: str, pools: list[Pool], **asked: Any) -> Choice:
    """The choice; where nothing fits there is nothing to claim."""
    try:
        return chosen(model, pools, **asked)
    except PlanError:
        assume(False)
        raise


@st.composite
def pools(draw: st.DrawFn, *, most: int = 3) -> list[Pool]:
    names = draw(st.lists(GPU, min_size=1, max_size=most, unique=True))
    return [pool(name, per_node=draw(PER_NODE), nodes=draw(NODES)) for name in names]


@settings(deadline=None, max_examples=60)
@given(MODEL, GPU, PER_NODE, NODES, WINDOW, st.floats(1.0, 4.0))
def test_more_memory_never_needs_more_gpus(
    model: str, gpu: str, per_node: int, nodes: int, window: int, more: float
) -> None:
    here = gpu_named(gpu)
    larger = replace(here, memory_gib=here.memory_gib * more)
    least = least_gpus(model, here, per_node, nodes, window)
    for backend, gpus in least_gpus(model, larger, per_node, nodes, window).items():
        assert gpus <= least[backend]


@settings(deadline=None, max_examples=60)
@given(MODEL, GPU, PER_NODE, NODES, st.integers(512, 32768), st.integers(1, 32768))
def test_a_longer_context_never_needs_fewer_gpus(
    model: str, gpu: str, per_node: int, nodes: int, window: int, more: int
) -> None:
    here = gpu_named(gpu)
    least = least_gpus(model, here, per_node, nodes, window)
    for backend, gpus in least_gpus(model, here, per_node, nodes, window + more).items():
        assert gpus >= least[backend]


def holds_the_rules(model: str, candidate: Candidate, limits: Limits) -> None:
    spec, shape, place = known(model), candidate.deployment, candidate.pool
    tp = shape.tensor_parallel_size
    assert spec.num_attention_heads % tp == 0
    kv = spec.num_key_value_heads
    assert spec.cache[0].kind == "latent" or kv % tp == 0 or tp % kv == 0
    assert tp <= place.gpus_per_node
    assert shape.pipeline_parallel_size <= spec.layers
    if shape.nodes == 1:
        assert shape.gpus <= place.gpus_per_node
    else:
        assert shape.gpus == shape.nodes * place.gpus_per_node
        assert shape.nodes <= place.nodes
    assert candidate.memory.fits
    assert candidate.memory.total <= place.gpu.memory_bytes
    held = candidate.estimate.at_once * shape.gpus
    assert held <= place.nodes * place.gpus_per_node
    assert limits.max_gpus is None or held <= limits.max_gpus
    assert place.max_minutes is None or candidate.minutes <= place.max_minutes


@settings(deadline=None, max_examples=60)
@given(MODEL, pools(), RUNS, STEPS, WINDOW, st.none() | st.integers(1, 64))
def test_a_plan_keeps_to_heads_nodes_memory_and_limits(
    model: str, places: list[Pool], runs: int, steps: int, window: int, most: int | None
) -> None:
    limits = Limits(max_gpus=most)
    choice = planned(model, places, runs=runs, steps=steps, window=window, limits=limits)
    every = found(model, places, runs=runs, steps=steps, window=window, limits=limits).every
    assert choice.candidate in every
    for candidate in every:
        holds_the_rules(model, candidate, limits)


@settings(deadline=None, max_examples=60)
@given(MODEL, pools(), RUNS, STEPS, st.sampled_from([None, 1, 5]))
def test_no_other_deployment_takes_fewer_gpu_hours_but_for_ties(
    model: str, places: list[Pool], runs: int, steps: int, phase: int | None
) -> None:
    choice = planned(model, places, runs=runs, steps=steps, phase=phase)
    for other in found(model, places, runs=runs, steps=steps).every:
        if other.deployment.backend == choice.backend:
            assert choice.candidate.estimate.gpu_hours <= other.estimate.gpu_hours * ONE_GPU


@settings(deadline=None, max_examples=40)
@given(MODEL, pools(), RUNS, STEPS, st.data())
def test_a_choice_does_not_depend_on_the_order_of_the_pools(
    model: str, places: list[Pool], runs: int, steps: int, data: st.DataObject
) -> None:
    one = planned(model, places, runs=runs, steps=steps)
    other = planned(model, data.draw(st.permutations(places)), runs=runs, steps=steps)
    assert one.candidate == other.candidate
    assert one.alternatives == other.alternatives
    assert set(one.rejected) == set(other.rejected)


@settings(deadline=None, max_examples=40)
@given(MODEL, pools(most=2), pools(most=1), RUNS, STEPS, st.sampled_from(BACKENDS))
def test_more_places_never_cost_more_gpu_hours_but_for_ties(
    model: str, places: list[Pool], more: list[Pool], runs: int, steps: int, backend: str
) -> None:
    few = planned(model, places, runs=runs, steps=steps, backend=backend)
    many = planned(model, [*places, *more], runs=runs, steps=steps, backend=backend)
    least = few.candidate.estimate.gpu_hours
    assert many.candidate.estimate.gpu_hours <= least * ONE_GPU


@settings(deadline=None, max_examples=60)
@given(
    MODEL,
    GPU,
    PER_NODE,
    st.sampled_from([None, *range(1, 17)]),
    st.sampled_from([None, *range(1, 9)]),
    st.sampled_from([None, 1, 2, 4, 8]),
)
def test_sizes_that_are_asked_for_are_taken_or_refused_with_a_way_out(
    model: str, gpu: str, per_node: int, gpus: int | None, tp: int | None, pp: int | None
) -> None:
    asked: dict[str, Any] = {
        "gpus": gpus,
        "tensor_parallel_size": tp,
        "pipeline_parallel_size": pp,
    }
    places = [pool(gpu, per_node=per_node)]
    refused = None
    try:
        shape = chosen(model, places, backend="vllm", **asked).candidate.deployment
    except (ConfigError, PlanError) as error:
        refused = error
    if refused is None:
        assert all(getattr(shape, name) == value for name, value in asked.items() if value)
    else:
        assert (refused.exit_code, bool(refused.hint)) == (2, True)
