"""The planner against real deployments, at the figures it has reached: `bench/planner.py`."""

from unittest import mock

import pytest

from bench.planner import Bench, bench, misses, moved
from vendomini.planner import gpu_memory


@pytest.fixture(scope="module")
def judged() -> Bench:
    return bench()


def test_99_of_100_real_deployments_are_found_feasible(judged: Bench) -> None:
    assert judged.score.deployments == 502
    assert judged.score.feasible >= 498


def test_every_deployment_gets_a_verdict(judged: Bench) -> None:
    assert all(one.answer is not None for one in judged.truth)


def test_stated_minima_are_met_and_never_exceeded(judged: Bench) -> None:
    assert judged.score.minima == 57
    assert judged.score.equal >= 53
    assert judged.score.more == 0


def test_documented_failures_are_refused(judged: Bench) -> None:
    assert judged.score.refused == judged.score.failures == 42


def test_each_miss_is_explained(judged: Bench) -> None:
    assert [miss for miss in misses(judged) if miss["explanation"] == "unexplained"] == []


def test_half_of_a_minimum_that_is_met_does_not_do(judged: Bench) -> None:
    for one, stated in zip(judged.minima, judged.stated, strict=True):
        assert one.answer is not None
        if one.gpus == stated and stated > 1:
            assert [rejected.deployment.gpus for rejected in one.answer.fit.rejected][-1] * 2 >= (
                stated
            )


@pytest.mark.parametrize(
    "name", ["SAMPLER_BYTES_PER_LOGIT x 0.7", "SAMPLER_BYTES_PER_LOGIT x 1.3", "GRAPH_BYTES x 1.3"]
)
def test_the_goals_hang_on_no_constant(name: str) -> None:
    with moved()[name]():
        score = bench().score
    assert score.reaches_goals


def test_a_lax_model_would_be_noticed() -> None:
    """The failures are no formality: without what an engine needs for itself some would pass."""
    with (
        mock.patch.object(gpu_memory, "SAMPLER_BYTES_PER_LOGIT", 0),
        mock.patch.object(gpu_memory, "GPU_MEMORY_UTILIZATION", 1.0),
    ):
        score = bench().score
    assert score.refused < score.failures
    assert not score.reaches_goals
