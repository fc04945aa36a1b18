"""What is asked of a cluster and what a job was given."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.cluster import (
    Allocation,
    Profile,
    ResourceRule,
    Resources,
    fits,
    rule_for,
    split_array,
)

SMALL = Resources(gpus=1, cpus=8, memory_gb=48, minutes=120, workers=2)
LARGE = Resources(gpus=4, gpu_type="a100", cpus=32, memory_gb=240, minutes=720, workers=1)
PROFILE = Profile(
    name="lab",
    engineless=Resources(gpus=0, cpus=1, memory_gb=4, minutes=60, workers=4),
    resources=(
        ResourceRule(model="*Llama-3.1-8B*", resources=SMALL),
        ResourceRule(model="meta-llama/*", resources=LARGE),
    ),
)


def given_job(
    *, gpus: int = 0, cpus: int = 1, memory_mb: int | None = None, gpu_type: str | None = None
) -> Allocation:
    return Allocation(
        job_id="75",
        node="n1",
        restarts=0,
        gpus=gpus,
        cpus=cpus,
        memory_mb=memory_mb,
        gpu_type=gpu_type,
    )


def resources_of(model: str) -> Resources:
    rule = rule_for(PROFILE, model)
    assert rule is not None
    return rule.resources


def test_the_first_rule_that_matches_wins() -> None:
    assert resources_of("meta-llama/Llama-3.1-8B-Instruct") is SMALL
    assert resources_of("meta-llama/Llama-3.3-70B-Instruct") is LARGE


def test_a_pattern_matches_whatever_the_case() -> None:
    assert resources_of("META-LLAMA/llama-3.1-8b") is SMALL


def test_a_pattern_matches_a_local_folder() -> None:
    assert resources_of("/data/models/Llama-3.1-8B-Instruct") is SMALL


def test_a_model_that_no_rule_names_has_no_resources() -> None:
    assert rule_for(PROFILE, "openai/gpt-oss-20b") is None


def test_a_job_with_exactly_what_is_needed_fits() -> None:
    job = given_job(gpus=4, cpus=32, memory_mb=240 * 1024, gpu_type="a100")
    assert fits(LARGE, job) is None


def test_memory_that_is_not_limited_and_a_type_that_is_not_known_fit() -> None:
    assert fits(LARGE, given_job(gpus=4, cpus=32)) is None


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (given_job(gpus=2, cpus=32), "needs 4 GPUs, the job has 2"),
        (given_job(gpus=4, cpus=8), "needs 32 CPUs, the job has 8"),
        (
            given_job(gpus=4, cpus=32, memory_mb=64 * 1024),
            "needs 240 GB of memory, the job has 64 GB",
        ),
        (
            given_job(gpus=4, cpus=32, gpu_type="h100"),
            "needs `a100` GPUs, the job has `h100`",
        ),
    ],
)
def test_a_job_that_is_too_small_says_what_is_short(job: Allocation, reason: str) -> None:
    assert fits(LARGE, job) == reason


def test_a_cpu_group_fits_a_job_of_any_gpu() -> None:
    assert fits(PROFILE.engineless, given_job(gpus=8, gpu_type="h100", cpus=1)) is None


def test_a_task_of_an_array_is_named_by_array_and_task() -> None:
    task = Allocation(
        job_id="78", array_job_id="75", array_task_id=3, node="n1", restarts=0, gpus=0, cpus=1
    )
    assert task.queue_id == "75_3"
    assert given_job().queue_id == "75"


def test_an_array_above_the_sites_limit_is_split_evenly() -> None:
    assert split_array(10, 4) == [4, 3, 3]
    assert split_array(4, 4) == [4]


def test_a_site_without_arrays_gets_one_job_for_each_worker() -> None:
    assert split_array(3, 0) == [1, 1, 1]


@given(workers=st.integers(1, 5000), limit=st.integers(1, 2000))
def test_a_split_is_the_fewest_arrays_that_hold_all_workers(workers: int, limit: int) -> None:
    sizes = split_array(workers, limit)
    assert sum(sizes) == workers
    assert max(sizes) <= limit
    assert max(sizes) - min(sizes) <= 1
    assert (len(sizes) - 1) * limit < workers
