"""Which deployment is taken: known answers, ties, overrides, limits."""

from typing import Any

import pytest

from tests.planner.cases import (
    EXPERTS,
    LARGE,
    LATENT,
    MIDDLE,
    PACKED,
    SMALL,
    chosen,
    found,
    pool,
)
from vendomini.planner.choice import (
    FEW_UNDER_WAY,
    ONE_GPU,
    SAFETY,
    SAME,
    Candidate,
    Limits,
    cheapest,
)

A100 = pool("A100-80")
H100 = pool("H100", per_node=8)


def shape(candidate: Candidate) -> tuple[int, int, int, int]:
    """GPUs, TP, PP and nodes."""
    it = candidate.deployment
    return it.gpus, it.tensor_parallel_size, it.pipeline_parallel_size, it.nodes


# -- known answers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "gpu", "per_node", "expected"),
    [
        (SMALL, "A100-40", 4, (1, 1, 1, 1)),
        (EXPERTS, "H100", 8, (2, 2, 1, 1)),
        (PACKED, "L40S", 4, (1, 1, 1, 1)),
        (LARGE, "A100-80", 4, (4, 4, 1, 1)),
        (LATENT, "H100", 8, (8, 8, 1, 1)),
        (LATENT, "A100-80", 4, (8, 4, 2, 2)),
        (LATENT, "A100-40", 4, (16, 4, 4, 4)),
    ],
)
def test_models_get_the_gpus_that_such_models_are_served_on(
    model: str, gpu: str, per_node: int, expected: tuple[int, int, int, int]
) -> None:
    choice = chosen(model, [pool(gpu, per_node=per_node)], phase=1)
    assert shape(choice.candidate) == expected


def test_a_model_that_one_gpu_holds_gets_more_workers_and_not_more_gpus() -> None:
    choice = chosen(SMALL, [A100], runs=2000, steps=1000, phase=1)
    assert choice.candidate.deployment.gpus == 1
    assert choice.candidate.estimate.workers > 4


@pytest.mark.parametrize("gpu", ["A100-80", "H100"])
def test_experts_that_fill_one_gpu_get_two_with_room_for_conversations(gpu: str) -> None:
    """Qwen3-30B-A3B leaves 14 of 80 GB: with few runs at a time each reads all experts anew."""
    choice = chosen(EXPERTS, [pool(gpu, per_node=8)], runs=825, steps=1000, phase=2)
    alone = chosen(EXPERTS, [pool(gpu, per_node=8)], runs=825, steps=1000, phase=2, gpus=1)
    assert choice.candidate.deployment.gpus == 2
    assert choice.candidate.estimate.gpu_hours * ONE_GPU < alone.candidate.estimate.gpu_hours


def test_stages_cross_nodes_only_where_one_node_is_too_small() -> None:
    for gpu in ("A100-40", "A100-80", "H100"):
        for model in (SMALL, MIDDLE, LARGE, EXPERTS, PACKED):
            best = chosen(model, [pool(gpu, per_node=8)], phase=1).candidate
            assert best.deployment.nodes == 1, (model, gpu)


def test_a_t4_is_not_taken_where_an_a100_takes_fewer_gpu_hours() -> None:
    choice = chosen(SMALL, [pool("T4"), A100, pool("V100-32")], phase=1)
    assert choice.candidate.pool.gpu.name == "A100-80"


# -- ties --------------------------------------------------------------------------------------


def test_of_equal_gpu_hours_the_simpler_deployment_is_taken() -> None:
    every = found(LARGE, [H100]).every
    best = cheapest(every)
    least = min(each.estimate.gpu_hours for each in every)
    assert best.estimate.gpu_hours <= least * SAME
    for other in every:
        if other.estimate.gpu_hours <= least * SAME:
            assert shape(other)[3] >= shape(best)[3]
            if shape(other)[3] == shape(best)[3]:
                assert other.deployment.gpus >= best.deployment.gpus


def test_one_gpu_with_room_is_taken_though_several_are_a_little_cheaper() -> None:
    several = [each for each in found(MIDDLE, [pool("H200", per_node=8)]).every]
    best = cheapest([each for each in several if each.deployment.backend == "vllm"])
    assert best.deployment.gpus == 1
    assert best.estimate.under_way >= FEW_UNDER_WAY
    least = min(each.estimate.gpu_hours for each in several)
    assert best.estimate.gpu_hours <= least * ONE_GPU


# -- overrides ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"gpus": 2}, (2, 2, 1, 1)),
        ({"gpus": 8}, (8, 4, 2, 2)),
        ({"tensor_parallel_size": 2}, (2, 2, 1, 1)),
        ({"tensor_parallel_size": 1, "pipeline_parallel_size": 2}, (2, 1, 2, 1)),
        ({"tensor_parallel_size": 4, "pipeline_parallel_size": 2}, (8, 4, 2, 2)),
        ({"pipeline_parallel_size": 4, "gpus": 4}, (4, 1, 4, 1)),
    ],
)
def test_sizes_that_are_asked_for_are_taken(
    wanted: dict[str, Any], expected: tuple[int, int, int, int]
) -> None:
    choice = chosen(SMALL, [A100], backend="vllm", **wanted)
    assert shape(choice.candidate) == expected


def test_a_gpu_type_that_is_asked_for_is_taken() -> None:
    choice = chosen(SMALL, [A100, pool("T4"), H100], gpu="T4")
    assert choice.candidate.pool.gpu.name == "T4"


def test_a_longer_context_has_to_fit_even_if_no_run_fills_it() -> None:
    short, long = (found(SMALL, [A100], window=tokens).every[0].memory for tokens in (4096, 32768))
    assert long.margin < short.margin


def test_the_phases_own_number_of_runs_under_way_is_kept() -> None:
    choice = chosen(SMALL, [A100], concurrency=5)
    assert choice.candidate.estimate.under_way == 5


def test_experts_stay_whole_where_tensor_parallelism_would_cut_their_blocks() -> None:
    """Qwen3-30B-A3B in FP8: experts of 768 are 6 blocks of 128, which 4 GPUs do not divide."""
    fp8 = "Qwen/Qwen3-30B-A3B-FP8"
    whole = chosen(fp8, [A100], backend="vllm", tensor_parallel_size=4)
    assert whole.candidate.deployment.enable_expert_parallel
    assert any("expert parallel" in reason for reason in whole.reasons)
    cut = chosen(fp8, [A100], backend="vllm", tensor_parallel_size=2)
    assert not cut.candidate.deployment.enable_expert_parallel


# -- limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [4, 8, 12, 16])
def test_a_group_holds_no_more_gpus_at_a_time_than_it_may(most: int) -> None:
    choice = chosen(LARGE, [A100], runs=800, steps=2000, limits=Limits(max_gpus=most))
    best = choice.candidate
    assert best.estimate.at_once * best.deployment.gpus <= most


def test_a_limit_below_the_least_deployment_is_told() -> None:
    some = found(LATENT, [A100], limits=Limits(max_gpus=4))
    assert not [each for each in some.every if each.deployment.backend == "vllm"]
    assert any("`max_gpus` allows" in why for why in some.rejected)


def test_a_workers_time_limit_leaves_room_for_what_estimates_miss() -> None:
    best = chosen(SMALL, [A100], runs=400).candidate
    assert best.minutes * 60 >= SAFETY * best.estimate.worker_s
    assert best.minutes % 10 == 0
    assert best.tasks == best.estimate.workers


def test_work_beyond_the_partitions_limit_takes_workers_one_after_another() -> None:
    few = pool("A100-80", nodes=1, minutes=240)
    best = chosen(LARGE, [few], runs=800, steps=2000, phase=5).candidate
    assert best.minutes == 240
    assert best.tasks > best.estimate.workers
    needed = SAFETY * best.estimate.worker_s / 60
    assert best.tasks * 240 >= best.estimate.workers * needed


def test_workers_are_many_enough_to_end_within_what_the_scheduler_backfills() -> None:
    wish = Limits(worker_minutes=180)
    best = chosen(SMALL, [pool("A100-80", nodes=50)], runs=2000, steps=1000, limits=wish).candidate
    assert best.minutes <= 180 + 20
    relaxed = Limits(worker_minutes=2000)
    few = chosen(SMALL, [pool("A100-80", nodes=50)], runs=2000, steps=1000, limits=relaxed)
    assert few.candidate.estimate.workers < best.estimate.workers
