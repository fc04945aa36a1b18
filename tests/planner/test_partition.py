"""Of partitions that lead to the same nodes, the shortest one that holds the job is taken."""

from hypothesis import given
from hypothesis import strategies as st

from vendomini.hardware import gpu_named
from vendomini.planner.pool import Pool
from vendomini.planner.queues import shortest_that_holds, without_shorter

GPUS = ("A100-40", "H100")


def pool(
    name: str = "gpu", *, minutes: int | None = None, nodes: int = 2, gpu: str = "A100-40"
) -> Pool:
    return Pool(
        gpu=gpu_named(gpu),
        gpus_per_node=4,
        nodes=nodes,
        cpus=32,
        memory_gb=250.0,
        partition=name,
        max_minutes=minutes,
        gpu_type=gpu.lower(),
    )


SHORT, DAYS, ENDLESS = (
    pool("short", minutes=10),
    pool("gpu", minutes=2880),
    pool("preempt", minutes=None),
)
POOLS = st.lists(
    st.builds(
        pool,
        st.sampled_from(["gpu", "short", "long"]),
        minutes=st.sampled_from([None, 10, 60, 2880]),
        nodes=st.integers(1, 4),
        gpu=st.sampled_from(GPUS),
    ),
    min_size=1,
    max_size=6,
    unique=True,
)


def test_a_job_of_hours_does_not_go_to_the_partition_of_minutes() -> None:
    pools = [SHORT, DAYS, ENDLESS]
    (kept,) = without_shorter(pools)
    assert kept is ENDLESS
    assert shortest_that_holds(pools, kept, minutes=10) is SHORT
    assert shortest_that_holds(pools, kept, minutes=11) is DAYS
    assert shortest_that_holds(pools, kept, minutes=2881) is ENDLESS


def test_a_longer_partition_of_fewer_nodes_makes_none_needless() -> None:
    pools = [DAYS, pool("long", minutes=None, nodes=1)]
    assert without_shorter(pools) == pools


def test_a_shorter_partition_of_fewer_nodes_is_not_taken() -> None:
    pools = [pool("short", minutes=60, nodes=1), DAYS]
    assert shortest_that_holds(pools, DAYS, minutes=30) is DAYS


def test_other_gpus_are_not_alike() -> None:
    pools = [SHORT, pool("new", minutes=None, gpu="H100")]
    assert without_shorter(pools) == pools
    assert shortest_that_holds(pools, pools[1], minutes=5) is pools[1]


@given(POOLS)
def test_whatever_is_left_out_is_made_up_for(pools: list[Pool]) -> None:
    kept = without_shorter(pools)
    for left_out in [each for each in pools if each not in kept]:
        assert any(
            other.gpu == left_out.gpu
            and other.nodes >= left_out.nodes
            and (other.max_minutes or 10**9) >= (left_out.max_minutes or 10**9)
            for other in kept
        )


@given(POOLS, st.integers(1, 3000))
def test_the_pool_taken_holds_the_job_or_is_the_chosen_one(pools: list[Pool], minutes: int) -> None:
    for chosen in pools:
        taken = shortest_that_holds(pools, chosen, minutes=minutes)
        assert taken.gpu == chosen.gpu
        assert taken.nodes >= chosen.nodes
        assert taken is chosen or (taken.max_minutes or 10**9) >= minutes
