"""Pools: what Slurm, a profile or nvidia-smi say, as nodes that are alike."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.cluster import ClusterFacts, Gpus, Node, Partition
from vendomini.errors import ConfigError
from vendomini.planner.pool import pools_of_cluster, pools_of_machine, pools_of_profile
from vendomini.profile import load_profile
from vendomini.slurm.answers import parse_partitions

ROOT = Path(__file__).resolve().parents[2]


def node(name: str, gres: str | None, count: int = 4, *, cpus: int = 64) -> Node:
    gpus = () if count == 0 else (Gpus(type=gres, count=count),)
    return Node(name=name, cpus=cpus, memory_mb=524_288, gpus=gpus)


def partition(name: str, *nodes: Node, up: bool = True, limit: int | None = 1440) -> Partition:
    return Partition(
        name=name,
        is_default=False,
        is_up=up,
        max_minutes=limit,
        default_minutes=None,
        nodes=nodes,
    )


def facts(*partitions: Partition) -> ClusterFacts:
    return ClusterFacts(partitions=partitions, max_array_size=1001)


def test_nodes_that_are_alike_are_one_pool() -> None:
    pools, notes = pools_of_cluster(
        facts(
            partition("gpu", node("a1", "a100_80gb"), node("a2", "a100_80gb"), node("c1", None, 0)),
            partition("long", node("a1", "a100_80gb"), limit=None),
        ),
        {},
    )
    assert notes == []
    first, second = pools
    assert (first.gpu.name, first.gpus_per_node, first.nodes) == ("A100-80", 4, 2)
    assert (first.cpus, first.memory_gb, first.max_minutes) == (64, 512.0, 1440)
    assert (first.partition, first.gpu_type) == ("gpu", "a100_80gb")
    assert (second.partition, second.nodes, second.max_minutes) == ("long", 1, None)


def test_nodes_that_differ_in_size_are_pools_of_their_own() -> None:
    pools, _ = pools_of_cluster(
        facts(partition("gpu", node("a", "h100", 8), node("b", "h100", 4), node("c", "l40s", 4))),
        {},
    )
    assert [(p.gpu.name, p.gpus_per_node) for p in pools] == [("H100", 4), ("H100", 8), ("L40S", 4)]


def test_a_node_with_two_types_counts_for_both() -> None:
    both = Node(
        name="n1",
        cpus=32,
        memory_mb=262_144,
        gpus=(Gpus(type="t4", count=2), Gpus(type="l4", count=1), Gpus(type="t4", count=1)),
    )
    pools, _ = pools_of_cluster(facts(partition("gpu", both)), {})
    assert {(p.gpu.name, p.gpus_per_node) for p in pools} == {("T4", 3), ("L4", 1)}


def test_a_partition_that_is_down_is_left_out() -> None:
    there = facts(partition("gpu", node("a", "h100"), up=False))
    assert pools_of_cluster(there, {}) == ([], [])


def test_the_profile_s_names_win() -> None:
    there = facts(partition("gpu", node("a", "a100"), node("b", "big")))
    pools, notes = pools_of_cluster(there, {"a100": "A100-80", "big": "H200"})
    assert [pool.gpu.name for pool in pools] == ["A100-80", "H200"]
    assert notes == []


@pytest.mark.parametrize(
    ("gpu_type", "planned", "said"),
    [
        ("a100", "A100-40", "may be A100-40 or A100-64 or A100-80: planned as A100-40"),
        ("big", None, "GPU type `big` is not known: name it in the profile, such as `gpus: {big:"),
        ("a100_1g.10gb", None, "`a100_1g.10gb` are slices of GPUs (MIG)"),
        (None, None, "describe their nodes in the profile's `nodes:`"),
    ],
)
def test_what_slurm_leaves_open_is_said_once(
    gpu_type: str | None, planned: str | None, said: str
) -> None:
    there = facts(
        partition("gpu", node("a", gpu_type), node("b", gpu_type)),
        partition("all", node("a", gpu_type)),
    )
    pools, notes = pools_of_cluster(there, {})
    assert {pool.gpu.name for pool in pools} == ({planned} if planned else set())
    assert len(notes) == 1
    assert said in notes[0]


@given(st.permutations([("a", "h100", 8), ("b", "h100", 4), ("c", "t4", 4), ("d", "h100", 4)]))
def test_pools_do_not_depend_on_the_order_of_nodes(order: list[tuple[str, str, int]]) -> None:
    nodes = [node(*one) for one in order]
    expected = [("H100", 4, 2), ("H100", 8, 1), ("T4", 4, 1)]
    pools, _ = pools_of_cluster(facts(partition("gpu", *nodes)), {})
    assert [(p.gpu.name, p.gpus_per_node, p.nodes) for p in pools] == expected


def test_sinfo_s_own_rows_become_pools() -> None:
    rows = (
        "g1|gpu*|up|1-00:00:00|1:00:00|64|515000|gpu:a100_80gb:4(S:0-1),lustre:1\n"
        "g2|gpu*|up|1-00:00:00|1:00:00|64|515000|gpu:a100_80gb:4(S:0-1)\n"
        "m1|mig|up|2:00:00|n/a|64|515000|gpu:1g.10gb:14\n"
        "c1|cpu|up|infinite|n/a|128|1030000|(null)\n"
    )
    pools, notes = pools_of_cluster(facts(*parse_partitions(rows)), {})
    assert [(p.gpu.name, p.nodes, p.max_minutes) for p in pools] == [("A100-80", 2, 1440)]
    assert len(notes) == 1


SMI = "NVIDIA A100-SXM4-80GB, 81920, 8.0\n"


def test_this_machine_s_gpus_are_one_pool() -> None:
    (pool,), notes = pools_of_machine(SMI * 4, cpus=64, memory_gb=500.0)
    assert (pool.gpu.name, pool.gpus_per_node, pool.nodes) == ("A100-80", 4, 1)
    assert (pool.cpus, pool.memory_gb, pool.partition, notes) == (64, 500.0, None, [])
    assert pool.gpu.memory_gib == 79.2


def test_different_gpus_of_a_machine_are_different_pools() -> None:
    pools, _ = pools_of_machine(SMI + "Tesla T4, 15360, 7.5\n", cpus=8, memory_gb=64.0)
    assert [(p.gpu.name, p.gpus_per_node) for p in pools] == [("A100-80", 1), ("T4", 1)]


def test_a_card_that_shows_less_memory_is_planned_by_what_it_shows() -> None:
    (pool,), _ = pools_of_machine("NVIDIA RTX A6000, 46068, 8.6\n", cpus=8, memory_gb=64.0)
    assert pool.gpu.name == "RTX-A6000"
    assert 44.0 < pool.gpu.memory_gib < 44.9


def test_a_gpu_that_nobody_knows_is_planned_by_its_numbers() -> None:
    (pool,), (note,) = pools_of_machine("NVIDIA Z9000, 65536, 13.0\n", cpus=8, memory_gb=64.0)
    assert pool.gpu.compute_capability == 13.0
    assert 62 < pool.gpu.memory_gib < 64
    assert pool.gpu.bandwidth_gb_s <= 300
    assert "`NVIDIA Z9000` is not known" in note


@pytest.mark.parametrize(
    "line",
    [
        "NVIDIA GB10, [N/A], 12.1",
        "NVIDIA A100-SXM4-80GB MIG 1g.10gb, 9856, 8.0",
        "Odd, 1000, [N/A]",
        "No devices were found",
    ],
)
def test_a_line_without_numbers_or_of_a_slice_is_a_note(line: str) -> None:
    pools, notes = pools_of_machine(f"{line}\n", cpus=8, memory_gb=64.0)
    assert pools == []
    assert len(notes) == 1


NODES = """\
partition: gpu
gpus: {old: V100-16}
nodes:
  - count: 3
    gpus: 4
    gpu_type: a100_80gb
    cpus: 64
    memory: 512G
    max_minutes: 1440
    constraint: fast
  - {count: 1, gpus: 8, gpu: rtx 3090, cpus: 16, memory: 128G, partition: desk}
  - {count: 2, gpus: 2, gpu_type: old, cpus: 16, memory: 128G}
"""


def test_a_profile_describes_nodes(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(NODES)
    first, second, third = pools_of_profile(load_profile(path))
    assert (first.gpu.name, first.gpus_per_node, first.nodes) == ("A100-80", 4, 3)
    assert (first.partition, first.max_minutes, first.memory_gb) == ("gpu", 1440, 512.0)
    assert (first.gpu_type, first.constraint) == ("a100_80gb", "fast")
    assert (second.gpu.name, second.gpu_type, second.partition) == ("RTX-3090", None, "desk")
    assert third.gpu.name == "V100-16"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gpus: {old: V100-16}", "gpus: {old: V100}", "line 2: `gpus.old` is `V100`: GPU `V100` m"),
        ("gpus: {old: V100-16}", "gpus: {old: Z9}", "no GPU `Z9` is known | did you mean"),
        ("gpu_type: a100_80gb", "gpu_type: a100", "line 6: `nodes[0].gpu_type` is `a100`, which m"),
        ("gpu_type: a100_80gb", "gpu_type: new", "`nodes[0].gpu_type` is `new`, which is the type"),
        ("    gpu_type: a100_80gb\n", "", "line 4: `nodes[0]` says neither `gpu` nor `gpu_type`"),
        ("gpu: rtx 3090", "gpu: rtx 3099", "`nodes[1].gpu` is `rtx 3099`: no GPU `rtx 3099`"),
        ("    memory: 512G\n", "    memory: 512\n", "`nodes[0].memory` is `512`"),
        (
            "    memory: 512G\n",
            "    memory: 0G\n",
            "line 8: `nodes[0].memory` is `0G`, which is no",
        ),
        ("count: 3", "count: 0", "line 4: `nodes[0].count` is `0`"),
        ("    gpus: 4\n", "    gpus: 0\n", "`nodes[0].gpus` is `0`"),
        ("    gpus: 4\n", "", "`nodes[0].gpus` is missing"),
        ("    cpus: 64\n", "    cpu: 64\n", "no setting `nodes[0].cpu` | did you mean"),
        ("max_minutes: 1440", "max_minutes: 1", "line 9: `nodes[0].max_minutes` is `1`, no longer"),
        ("partition: gpu\n", "max_gpus: 0\n", "line 1: `max_gpus` is `0`"),
        ("partition: gpu\n", "max_minutes: 2\n", "line 1: `max_minutes` is `2`, no longer than"),
        ("partition: gpu\n", "worker_minutes: 9\n", "line 1: `worker_minutes` is `9`"),
    ],
)
def test_a_mistake_in_what_there_is_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in NODES
    path = tmp_path / "lab.yaml"
    path.write_text(NODES.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert said in f"{caught.value} | {caught.value.hint}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a100", [("A100-40", 4, 16, 2880)]),
        ("h100", [("H100", 8, 8, 1440)]),
        (
            "mixed",
            [
                ("V100-32", 4, 12, 4320),
                ("T4", 4, 10, 1440),
                ("A100-80", 4, 6, 1440),
                ("L40S", 4, 4, 720),
            ],
        ),
    ],
)
def test_the_example_clusters_are_what_they_say(
    name: str, expected: list[tuple[str, int, int, int]]
) -> None:
    pools = pools_of_profile(load_profile(ROOT / "slurm" / f"{name}.yaml"))
    assert [(p.gpu.name, p.gpus_per_node, p.nodes, p.max_minutes) for p in pools] == expected
