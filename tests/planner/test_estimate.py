"""What work costs on an engine: laws over real models and cards, and sums done by hand."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.planner.cases import EXPERTS, LARGE, LATENT, PACKED, SMALL, known, run, work
from vendomini.hardware import gpu_named
from vendomini.planner.deployment import Backend, Deployment
from vendomini.planner.estimate import HASTE, MOST_UNDER_WAY, SPREAD, Pace
from vendomini.planner.work import RunWork, work_of

HOUR = 3600.0
HYBRID = "Qwen/Qwen3-Next-80B-A3B-Instruct"

SHAPES = [
    (SMALL, "T4", 2, "hf"),
    (SMALL, "A100-40", 1, "vllm"),
    (SMALL, "A100-80", 1, "hf"),
    (EXPERTS, "H100", 1, "vllm"),
    (LARGE, "A100-80", 4, "vllm"),
    (LATENT, "H200", 8, "vllm"),
    (PACKED, "L40S", 1, "vllm"),
]


def pace(
    shape: tuple[str, str, int, str] = SHAPES[1],
    *,
    runs: int = 220,
    steps: int = 500,
    most_under_way: int | None = None,
) -> Pace:
    model, gpu, gpus, backend = shape
    deployment = Deployment(
        backend="vllm" if backend == "vllm" else "hf",
        gpu=gpu_named(gpu),
        tensor_parallel_size=gpus if backend == "vllm" else 1,
        pipeline_parallel_size=1 if backend == "vllm" else gpus,
        max_model_len=4096,
    )
    return Pace(known(model), deployment, work(runs, steps), most_under_way=most_under_way)


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 900), st.integers(1, 3000))
def test_more_workers_never_take_longer(
    shape: tuple[str, str, int, str], runs: int, steps: int
) -> None:
    at = pace(shape, runs=runs, steps=steps)
    times = [at.worker_s(workers) for workers in range(1, min(runs, 64) + 1)]
    assert all(one >= other - 1e-6 for one, other in pairwise(times))
    together = [at.estimate(n, at_once=64).wall_hours for n in range(1, min(runs, 64) + 1)]
    assert together == sorted(together, reverse=True)


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 600), st.integers(1, 64), st.integers(1, 100))
def test_fewer_gpus_at_a_time_never_end_sooner_and_cost_the_same(
    shape: tuple[str, str, int, str], runs: int, at_once: int, workers: int
) -> None:
    at = pace(shape, runs=runs)
    few, many = (at.estimate(min(workers, runs), at_once=n) for n in (at_once, at_once + 1))
    assert few.wall_hours >= many.wall_hours
    assert few.gpu_hours == many.gpu_hours


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 400), st.integers(1, 400))
def test_more_runs_and_longer_ones_never_take_less(
    shape: tuple[str, str, int, str], runs: int, steps: int
) -> None:
    here = pace(shape, runs=runs, steps=steps).worker_s(1)
    assert pace(shape, runs=runs + 1, steps=steps).worker_s(1) >= here
    assert pace(shape, runs=runs, steps=steps + 50).worker_s(1) >= here


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 600), st.integers(1, 40), st.floats(600, 40 * HOUR))
def test_the_number_of_workers_keeps_to_what_there_is_and_hurries_only_so_much(
    shape: tuple[str, str, int, str], runs: int, at_once: int, wanted_s: float
) -> None:
    at = pace(shape, runs=runs)
    workers = at.workers_for(wanted_s, at_once=at_once)
    assert 1 <= workers <= min(at_once, runs)
    waves = min(at_once, -(-runs // at.most_under_way), runs)
    if workers > 1 and workers <= waves:  # the fewest that end in time
        assert at.worker_s(workers - 1) > wanted_s
    if workers > waves:  # further ones have fewer runs under way each
        hasty, cheap = (at.estimate(n, at_once=at_once).gpu_hours for n in (workers, waves))
        assert hasty <= HASTE * cheap * (1 + 1e-9)


@settings(deadline=None)
@given(st.sampled_from(SHAPES), st.integers(1, 600), st.integers(1, 40), st.floats(0.5, 40))
def test_a_limit_is_kept_where_any_number_of_workers_can_keep_it(
    shape: tuple[str, str, int, str], runs: int, at_once: int, limit_h: float
) -> None:
    at = pace(shape, runs=runs)
    limit_s = limit_h * HOUR
    workers = at.workers_for(limit_s / 2, at_once=at_once, limit_s=limit_s)
    if at.worker_s(min(at_once, runs)) <= limit_s:
        assert at.worker_s(workers) <= limit_s


def test_hours_are_starts_and_rounds_added_up() -> None:
    at = pace(runs=100, steps=500, most_under_way=30)
    asked = run(500)
    per_round = asked.output_tokens * at.speed(30).step_s
    per_round += 30 * asked.new_tokens / at.speed(30).prefill_tokens_s
    rest = asked.output_tokens * at.speed(10).step_s
    rest += 10 * asked.new_tokens / at.speed(10).prefill_tokens_s
    seconds = at.startup_s + 550 * (3 * per_round + rest)
    estimate = at.estimate(1, at_once=4)
    assert estimate.worker_s == pytest.approx(seconds)
    assert estimate.gpu_hours == estimate.wall_hours == pytest.approx(seconds / HOUR)
    assert estimate.startup_share == pytest.approx(at.startup_s / seconds)
    assert estimate.under_way == 30
    low, high = estimate.gpu_hours_range
    assert (low, high) == (estimate.gpu_hours / SPREAD, estimate.gpu_hours * SPREAD)


def test_gpu_hours_count_every_gpu_of_every_worker() -> None:
    at = pace(SHAPES[4])
    estimate = at.estimate(3, at_once=2)
    assert estimate.gpu_hours == pytest.approx(3 * 4 * estimate.worker_s / HOUR)
    assert estimate.wall_hours == pytest.approx(2 * estimate.worker_s / HOUR)
    assert (estimate.workers, estimate.at_once) == (3, 2)


def test_a_worker_takes_no_less_than_its_longest_run() -> None:
    one_long = work_of({run(5): 50, run(2000): 1})
    at = pace(runs=51)
    mixed = Pace(known(SMALL), at.deployment, one_long)
    assert mixed.playing_s(51) >= 2200 * mixed.round_s(1)
    assert mixed.worker_s(51) >= 2200 * mixed.round_s(1)


def test_runs_under_way_are_no_more_than_fit_are_asked_for_or_are_there() -> None:
    assert pace(runs=3).most_under_way == 3
    assert pace(most_under_way=7).most_under_way == 7
    assert pace(SHAPES[5], runs=10_000).most_under_way <= MOST_UNDER_WAY
    crowded = pace(runs=10_000).most_under_way
    roomy = Pace(
        known(SMALL), replace(pace().deployment, gpu=gpu_named("A100-80")), work(10_000)
    ).most_under_way
    assert 1 < crowded < roomy


@pytest.mark.parametrize(
    ("model", "backend", "grows"),
    [
        (SMALL, "vllm", False),
        (SMALL, "hf", False),
        (HYBRID, "vllm", False),
        (HYBRID, "hf", True),  # whose states are of no prefix
    ],
)
def test_only_what_is_new_is_read_where_the_engine_keeps_conversations(
    model: str, backend: Backend, grows: bool
) -> None:
    short, long = run(500, window=4096), run(500, window=32768)
    at = replace(pace().deployment, backend=backend, max_model_len=32768, gpu=gpu_named("H200"))
    reading = []
    for each in (short, long):
        paced = Pace(known(model), at, work_of({each: 1}))
        speed = paced.speed(1)
        drawing = work_of({each: 1}).output_tokens * speed.step_s
        reading.append((paced.round_s(1) - drawing) * speed.prefill_tokens_s)
    assert (reading[1] > 2 * reading[0]) is grows


def test_one_job_a_run_starts_an_engine_for_each() -> None:
    at = pace(runs=50)
    alone, together = at.one_run_a_job(at_once=16), at.estimate(1, at_once=16)
    assert (alone.workers, alone.under_way, alone.at_once) == (50, 1, 16)
    assert alone.gpu_hours == pytest.approx(50 * (at.startup_s + 550 * at.round_s(1)) / HOUR)
    assert alone.gpu_hours > together.gpu_hours


def batched(at_once: int, *, runs: int = 40, most_under_way: int | None = None) -> Pace:
    """Runs of 2,560 short scores, so many of them at once."""
    scores = RunWork(
        requests=2560, prefix_tokens=400, growth_tokens=0, output_tokens=8, at_once=at_once
    )
    at = pace()
    return Pace(known(SMALL), at.deployment, work_of({scores: runs}), most_under_way=most_under_way)


def test_fewer_runs_are_under_way_where_each_asks_several_things_at_once() -> None:
    assert batched(1).most_under_way == 40
    assert batched(32).most_under_way == MOST_UNDER_WAY // 32
    assert (
        batched(MOST_UNDER_WAY).most_under_way == batched(10 * MOST_UNDER_WAY).most_under_way == 1
    )
    assert batched(4, most_under_way=12).most_under_way == 3


def test_a_run_that_asks_at_once_is_as_fast_as_so_many_that_do_not() -> None:
    alone, together = batched(1, runs=256), batched(64, runs=256)
    assert together.round_s(4) == pytest.approx(alone.round_s(256), rel=0.01)
    assert together.playing_s(256) == pytest.approx(alone.playing_s(256), rel=0.01)


def test_what_is_asked_beyond_the_limit_waits() -> None:
    at = batched(64, most_under_way=16)
    assert at.most_under_way == 1
    step_s, tokens = at.speed(1).step_s, 8
    assert step_s == pytest.approx(batched(1, most_under_way=16).speed(16).step_s, rel=0.01)
    assert at.round_s(1) == pytest.approx(64 / 16 * tokens * step_s)
    assert at.playing_s(1) == pytest.approx(2560 / 64 * at.round_s(1))


def test_one_batched_arm_beside_many_others_costs_what_it_is_worth() -> None:
    one = RunWork(requests=100, prefix_tokens=400, growth_tokens=0, output_tokens=8)
    batch = replace(one, requests=6400, at_once=64)
    at = pace()
    alone, mixed = (
        Pace(known(SMALL), at.deployment, work_of(kinds))
        for kinds in ({one: 100}, {one: 100, batch: 1})
    )
    assert alone.most_under_way == 100
    assert mixed.most_under_way == 101
    assert alone.playing_s(100) < mixed.playing_s(101) < 3 * alone.playing_s(100)
