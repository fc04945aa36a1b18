"""Plans made from what a real Slurm says of itself, and jobs that ask it for what they say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.planning import GPU_NODES, LARGE, SMALL, Desk, by_model
from tests.slurm_cluster.cluster import SlurmCluster
from vendomini.cluster import Profile
from vendomini.looking.places import Pools, pools_there
from vendomini.profile import default_profile

pytestmark = pytest.mark.slurm

DAY = 24 * 60
A100 = {"gpu": "A100-40", "gpus": 4, "cpus": 32, "memory": "250G", "count": 2}
H100 = {"gpu": "H100", "gpu_type": "h100", "gpus": 8, "cpus": 64, "memory": "1000000M", "count": 1}


@pytest.fixture
def desk(on_slurm: SlurmCluster, tmp_path: Path) -> Desk:
    return Desk(on_slurm, tmp_path)


@pytest.fixture
def waiting(desk: Desk) -> Iterator[Desk]:
    """On its cluster no GPU job starts; none is left at the end."""
    desk.cluster.run(
        ["scontrol", "update", f"nodename={GPU_NODES}", "state=drain", "reason=a test"]
    )
    yield desk
    desk.cluster.cancel_all()
    desk.cluster.run(["scontrol", "update", f"nodename={GPU_NODES}", "state=resume"])


@pytest.fixture
def partitions_down(desk: Desk) -> Iterator[None]:
    """The partitions of the newer GPUs take no jobs."""
    names = ("gpu", "short", "preempt")
    for name in names:
        desk.cluster.run(["scontrol", "update", f"partitionname={name}", "state=down"])
    yield
    for name in names:
        desk.cluster.run(["scontrol", "update", f"partitionname={name}", "state=up"])


def found(profile: Profile | None = None) -> Pools:
    return pools_there(profile or default_profile(), [SMALL], ask_slurm=True)


def kinds(pools: Pools) -> set[tuple[str | None, str | None, str, int, int, int | None]]:
    return {
        (
            each.partition,
            each.gpu_type,
            each.gpu.name,
            each.nodes,
            each.gpus_per_node,
            each.max_minutes,
        )
        for each in pools.pools
    }


def fake_vllm(folder: Path) -> dict[str, Any]:
    """A profile's `engines:` with an interpreter that says it has vLLM."""
    program = folder / "python"
    program.write_text("#!/bin/sh\necho vllm\n")
    program.chmod(0o755)
    return {"vllm": {"python": str(program)}}


def test_the_pools_are_those_of_the_cluster(desk: Desk) -> None:
    pools = found()
    assert kinds(pools) == {
        ("gpu", "a100", "A100-40", 2, 4, 2 * DAY),
        ("gpu", "h100", "H100", 1, 8, 2 * DAY),
        ("old", "v100", "V100-16", 1, 4, DAY // 4),
        ("short", "a100", "A100-40", 2, 4, 10),
        ("short", "h100", "H100", 1, 8, 10),
        ("preempt", "a100", "A100-40", 2, 4, None),
        ("preempt", "h100", "H100", 1, 8, None),
    }
    assert any("`warp9` is not known" in note and "`gpus: {warp9:" in note for note in pools.notes)


def test_a_profile_names_the_gpus_that_slurm_does_not(desk: Desk) -> None:
    profile = Profile(
        name="site",
        engineless=default_profile().engineless,
        partition="old",
        gpus={"v100": "V100-32", "warp9": "T4"},
    )
    pools = found(profile)
    assert kinds(pools) == {
        ("old", "v100", "V100-32", 1, 4, DAY // 4),
        ("old", "warp9", "T4", 1, 2, DAY // 4),
    }
    assert not any("v100" in note or "warp9" in note for note in pools.notes)


def test_a_partition_that_is_down_is_not_used(desk: Desk, partitions_down: None) -> None:
    assert {kind[:2] for kind in kinds(found())} == {("old", "v100")}
    desk.write_phase(SMALL)
    (group,) = desk.plan("--cluster")["groups"]
    assert (group["resources"]["partition"], group["resources"]["gpu_type"]) == ("old", "v100")
    assert group["dtype"] == "float16"  # these GPUs have no other
    # Two such jobs share a node, as the plan counts on.
    assert 2 * group["resources"]["cpus"] <= 16
    desk.cluster.run(["scontrol", "update", "partitionname=old", "nodes=gpu-x1"])
    try:
        said = desk.refused("plan", "--cluster", status=2)
    finally:
        desk.cluster.run(["scontrol", "update", "partitionname=old", "nodes=gpu-v1,gpu-x1"])
    assert "Slurm tells of no GPU in a partition that takes jobs" in said
    assert "GPU type `warp9` is not known: name it in the profile" in said


def test_nodes_in_a_profile_plan_alike_without_slurm(desk: Desk, tmp_path: Path) -> None:
    desk.write_phase(SMALL, LARGE, steps=400)
    there = desk.plan("--cluster")
    profile = desk.write_profile(
        nodes=[
            {**kind, "partition": partition, "max_minutes": minutes}
            for kind in (
                {**A100, "gpu_type": "a100", "memory": "256000M"},
                {**H100},
            )
            for partition, minutes in (("gpu", 2 * DAY), ("short", 10), ("preempt", None))
        ]
    )
    here = desk.plan(*profile, PATH=str(tmp_path))  # no command of Slurm is there
    fields = ("gpu", "gpus", "workers", "resources", "gpu_hours", "wall_hours")
    assert [[group[name] for name in fields] for group in there["groups"]] == [
        [group[name] for name in fields] for group in here["groups"]
    ]
    groups = by_model(there)
    assert {groups[name]["resources"]["partition"] for name in groups} == {"gpu"}
    assert groups[SMALL]["gpus"] < groups[LARGE]["gpus"]
    assert groups[SMALL]["resources"]["minutes"] > 10  # why they are not in the one of minutes


def test_each_group_is_a_job_that_asks_slurm_for_what_its_plan_says(waiting: Desk) -> None:
    desk = waiting
    desk.write_phase(SMALL, LARGE, replications=400, backend="vllm", concurrency=2)
    profile = desk.write_profile(
        worker_minutes=30, signal_delay_s=60, engines=fake_vllm(desk.folder)
    )
    groups = by_model(desk.plan("--cluster", *profile))
    said = desk.run(*profile)
    assert desk.jobs().keys() == desk.ids().keys() == {SMALL, LARGE}
    assert len({group["resources"]["gpus"] for group in groups.values()}) == 2
    for name, ids in desk.ids().items():
        plan, asked = groups[name], groups[name]["resources"]
        for job in ids:
            shown = desk.shown(job)
            assert shown["Partition"] == asked["partition"]
            assert shown["TresPerNode"] == f"gres:gpu:{asked['gpu_type']}:{asked['gpus']}"
            assert shown["CPUs/Task"] == str(asked["cpus"])
            assert shown["MinMemoryNode"] == f"{asked['memory_gb']:g}G"
            assert (
                shown["TimeLimit"] == f"{asked['minutes'] // 60:02}:{asked['minutes'] % 60:02}:00"
            )
            assert shown["NumNodes"].split("-")[0] == "1"
        assert sum(desk.workers_waiting(job) for job in ids) == plan["workers"]
        told = desk.jobs()[name]
        assert told.engine is not None
        assert told.engine.gpus == asked["gpus"]
        assert told.engine.settings.tensor_parallel_size == plan["tensor_parallel_size"]
        assert told.engine.settings.pipeline_parallel_size == plan["pipeline_parallel_size"]
        assert (told.minutes, told.workers) == (asked["minutes"], plan["workers"])
        assert told.concurrency == plan["concurrency"]
        assert f"submitted group `{name}`" in said
    large = desk.jobs()[LARGE].engine
    assert large is not None
    assert (large.settings.tensor_parallel_size or 1) > 1
    submitted = desk.ids()
    assert len(submitted[SMALL]) == 2  # more workers than an array of this site may have

    again = desk.run(*profile)
    assert desk.ids() == submitted
    assert "Slurm job" not in again
    assert desk.status_waiting() == {name: group["workers"] for name, group in groups.items()}
    left = [job for several in submitted.values() for job in several]
    desk.cluster.run(["scancel", *left])
    desk.cluster.wait_until(lambda: not any(map(desk.workers_waiting, left)))
    assert desk.status_waiting() == {}
    desk.run(*profile)
    assert len(desk.experiment.slurm_jobs()) == 4  # what was cancelled is submitted anew


def test_a_feature_leads_to_nodes_whose_gpus_the_site_does_not_name(waiting: Desk) -> None:
    desk = waiting
    desk.write_phase(SMALL, replications=4)
    nodes = [{**A100, "gpu": "A100-80", "partition": "gpu", "constraint": "gpu80"}]
    profile = desk.write_profile(nodes=nodes, gpu_request="gpus", max_minutes=30)
    desk.run(*profile)
    ((job,),) = desk.ids().values()
    shown = desk.shown(job)
    assert (shown["Features"], shown["Partition"]) == ("gpu80", "gpu")
    assert shown["TresPerNode"] == "gres:gpu:1"


def test_what_no_node_serves_is_refused_before_anything_is_submitted(desk: Desk) -> None:
    desk.write_phase(LARGE)
    old = desk.write_profile(partition="old")
    said = desk.refused("run", "--cluster", *old, status=2)
    assert f"model `{LARGE}`" in said
    assert "fits on nothing that may be used: 1 node of 4 x V100-16" in said
    brief = desk.write_profile(max_minutes=5)
    said = desk.refused("run", "--cluster", *brief, status=2)
    assert "minutes to load it, play and stop cleanly, but `max_minutes` of profile `site`" in said
    said = desk.refused("run", "--cluster", "--max-gpu-hours", "0.01", status=2)
    assert "more than --max-gpu-hours `0.01`" in said
    assert not desk.cluster.run(["squeue", "--noheader"]).stdout


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"partition": "gpus"}, "the cluster has no partition `gpus`"),
        ({"partition": "short"}, "but partition `short` allows at most 10"),
        ({"partition": "old"}, "no node of partition `old` has more than 0 `h100` GPUs"),
    ],
)
def test_nodes_that_slurm_does_not_have_are_refused_and_no_job_waits_for_them(
    desk: Desk, changed: dict[str, Any], said: str
) -> None:
    desk.write_phase(LARGE)
    node = {**H100, "partition": "gpu", **changed}
    profile = desk.write_profile(nodes=[{key: value for key, value in node.items() if value}])
    told = desk.refused("run", "--cluster", *profile, status=2)
    assert said in told
    assert "`nodes`" in told
    assert not desk.cluster.run(["squeue", "--noheader"]).stdout


def test_an_engine_of_two_nodes_is_planned_and_not_played(desk: Desk) -> None:
    desk.write_phase(LARGE, replications=4, backend="vllm")
    settings = {"gpus": {"a100": "A100-40"}, "engines": fake_vllm(desk.folder)}
    nodes = [{**A100, "gpu_type": "a100", "partition": "gpu", "gpus": 2}]
    profile = desk.write_profile(**settings, nodes=nodes)
    (group,) = desk.plan("--cluster", *profile)["groups"]
    assert group["nodes"] == 2
    assert group["pipeline_parallel_size"] >= 2
    assert group["resources"]["gpus"] * 2 == group["gpus"]
    told = desk.refused("run", "--cluster", *profile, status=2)
    assert "needs 2 nodes for one engine: this version can plan that, but not play it" in told


def test_without_a_controller_there_is_one_error_unless_rules_say_it_all(
    desk: Desk, tmp_path: Path
) -> None:
    nobody = tmp_path / "slurm.conf"
    conf = desk.cluster.conf.read_text()
    port = next(line for line in conf.splitlines() if line.startswith("SlurmctldPort="))
    nobody.write_text(conf.replace(port, "SlurmctldPort=9\nMessageTimeout=2\nTCPTimeout=1"))
    desk.write_phase(SMALL)
    said = desk.refused("plan", "--cluster", status=3, SLURM_CONF=str(nobody))
    assert "scontrol ping" in said
    rule = {"model": "*", "gpus": 1, "cpus": 4, "memory": "16G", "minutes": 60}
    plan = desk.plan("--cluster", *desk.write_profile(resources=[rule]), SLURM_CONF=str(nobody))
    (group,) = plan["groups"]
    assert (group["resources"]["gpus"], group["resources"]["cpus"]) == (1, 4)
    assert any(
        "nothing is computed of what the profile's rules ask for" in n for n in plan["notes"]
    )
