"""What we ask of Slurm, asked of a real one."""

import json
import sys
from pathlib import Path

import pytest

from tests.slurm_cluster.cluster import SlurmCluster
from vendomini import slurm
from vendomini.cluster import Gpus
from vendomini.errors import SubmitError
from vendomini.partitions import check_against
from vendomini.profile import default_profile

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parent.parent.parent

TELL = """\
import json, os, sys
from dataclasses import asdict
sys.path.insert(0, os.environ["VENDOMINI_ROOT_UNDER_TEST"])
from vendomini.slurm import allocation
found = allocation(os.environ)
print(json.dumps(asdict(found) | {"queue_id": found.queue_id}))
"""


def tell(
    cluster: SlurmCluster, tmp_path: Path, *options: str, srun: bool = False
) -> list[dict[str, object]]:
    """What `allocation` says inside a job with these options, once for each process of it."""
    program = tmp_path / "tell.py"
    program.write_text(TELL)
    script = tmp_path / "tell.sh"
    start = "exec srun " if srun else "exec "
    script.write_text(
        f'#!/bin/bash\nexport VENDOMINI_ROOT_UNDER_TEST="{ROOT}"\n'
        f'{start}"{sys.executable}" "{program}"\n'
    )
    job = cluster.sbatch(*options, f"--output={tmp_path}/told-%j", script)
    cluster.wait_until(lambda: set(cluster.states(job).values()) == {"COMPLETED"})
    lines = [file.read_text().splitlines() for file in sorted(tmp_path.glob("told-*"))]
    return [json.loads(line) for told in lines for line in told]


def test_the_facts_are_those_of_the_cluster(on_slurm: SlurmCluster) -> None:
    facts = slurm.cluster_facts()
    assert {partition.name for partition in facts.partitions} == {
        "cpu",
        "gpu",
        "old",
        "short",
        "preempt",
    }
    default = facts.partition(None)
    assert default is not None
    assert default.name == "cpu"
    gpu = facts.partition("gpu")
    assert gpu is not None
    assert {node.name: node.gpus for node in gpu.nodes} == {
        "gpu-a1": (Gpus(type="a100", count=4),),
        "gpu-a2": (Gpus(type="a100", count=4),),
        "gpu-h1": (Gpus(type="h100", count=8),),
    }
    assert facts.max_array_size == on_slurm.max_array_size
    check_against(default_profile(), facts)


def test_the_largest_array_is_taken_and_one_more_is_refused(on_slurm: SlurmCluster) -> None:
    size = slurm.cluster_facts().max_array_size
    on_slurm.sbatch(f"--array=0-{size - 1}", "--hold", "--output=/dev/null", "--wrap=true")
    done = on_slurm.run(["sbatch", f"--array=0-{size}", "--hold", "--wrap=true"], check=False)
    assert "Invalid job array specification" in done.stderr


def test_a_gpu_job_knows_what_it_was_given(on_slurm: SlurmCluster, tmp_path: Path) -> None:
    (told,) = tell(
        on_slurm,
        tmp_path,
        "--partition=gpu",
        "--gres=gpu:h100:3",
        "--cpus-per-task=5",
        "--mem=20G",
        "--time=7",
    )
    assert told["node"] == "gpu-h1"
    assert (told["gpus"], told["gpu_type"]) == (3, "h100")
    assert (told["cpus"], told["memory_mb"]) == (5, 20480)
    assert told["restarts"] == 0
    assert told["end_time_s"] is not None


def test_each_task_of_an_array_knows_its_own_place(on_slurm: SlurmCluster, tmp_path: Path) -> None:
    told = tell(on_slurm, tmp_path, "--array=2-4", "--cpus-per-task=2")
    assert sorted(int(str(task["array_task_id"])) for task in told) == [2, 3, 4]
    assert len({task["job_id"] for task in told}) == 3
    assert len({task["array_job_id"] for task in told}) == 1
    # No --mem: the site's default by CPU.
    assert {task["memory_mb"] for task in told} == {2000}
    assert {task["gpus"] for task in told} == {0}


def test_a_task_among_several_of_a_step_knows_its_own_share(
    on_slurm: SlurmCluster, tmp_path: Path
) -> None:
    options = ("--partition=gpu", "--ntasks=2", "--nodes=1", "--gpus-per-task=1")
    told = tell(on_slurm, tmp_path, *options, "--cpus-per-task=2", "--mem=4G", srun=True)
    assert [(task["gpus"], task["cpus"]) for task in told] == [(1, 2), (1, 2)]


def test_sallocs_shell_knows_that_it_is_not_on_a_node(
    on_slurm: SlurmCluster, tmp_path: Path
) -> None:
    program = tmp_path / "tell.py"
    program.write_text(TELL)
    options = ("--partition=gpu", "--gres=gpu:a100:2", "--cpus-per-task=4", "--mem=6G")
    done = on_slurm.run(
        ["salloc", *options, "--", sys.executable, program],
        extra_env={"VENDOMINI_ROOT_UNDER_TEST": str(ROOT)},
    )
    told = json.loads(done.stdout)
    assert told["node"] is None
    assert (told["gpus"], told["gpu_type"]) == (2, "a100")
    assert (told["cpus"], told["memory_mb"]) == (4, 6144)


def test_the_end_time_is_the_start_and_the_limit(on_slurm: SlurmCluster) -> None:
    job = on_slurm.sbatch("--time=9", "--output=/dev/null", "--wrap=sleep 600")
    on_slurm.wait_until(lambda: on_slurm.states(job)[job] == "RUNNING")
    start = on_slurm.run(
        ["squeue", "--noheader", f"--jobs={job}", "--format=%S"],
        extra_env={"SLURM_TIME_FORMAT": "%s"},
    )
    assert slurm.jobs_in_queue([job])[job].end_time_s == int(start.stdout) + 9 * 60


def test_a_job_without_limit_has_no_end_time(on_slurm: SlurmCluster) -> None:
    job = on_slurm.sbatch(
        "--partition=preempt", "--time=UNLIMITED", "--output=/dev/null", "--wrap=sleep 600"
    )
    on_slurm.wait_until(lambda: on_slurm.states(job)[job] == "RUNNING")
    assert slurm.jobs_in_queue([job])[job].end_time_s is None


def test_running_waiting_and_cancelled_tasks_are_told_apart(on_slurm: SlurmCluster) -> None:
    job = on_slurm.sbatch("--array=0-2%1", "--output=/dev/null", "--wrap=sleep 600")
    first, *rest = (f"{job}_{task}" for task in range(3))
    on_slurm.wait_until(lambda: on_slurm.states(job).get(first) == "RUNNING")
    jobs = slurm.jobs_in_queue([job])
    assert {name: one.state for name, one in jobs.items()} == {
        first: "RUNNING",
        rest[0]: "PENDING",
        rest[1]: "PENDING",
    }
    assert {jobs[name].reason for name in rest} == {"JobArrayTaskLimit"}
    assert set(slurm.jobs_in_queue([first])) == {first}
    slurm.cancel([rest[0]])
    assert set(slurm.jobs_in_queue([job])) == {first, rest[1]}
    slurm.cancel([job])
    on_slurm.wait_until(lambda: not slurm.jobs_in_queue([job]))
    on_slurm.wait_until(lambda: first in slurm.endings([job]))
    assert slurm.endings([job])[first].state == "CANCELLED"


def test_ids_that_never_were_are_not_in_the_queue(on_slurm: SlurmCluster) -> None:
    assert slurm.jobs_in_queue(["1"]) == {}
    assert slurm.jobs_in_queue(["1", "2_3"]) == {}
    assert slurm.endings(["1"]) == {}
    slurm.cancel(["1"])
    with pytest.raises(SubmitError, match="the environment says Slurm job `1`"):
        slurm.allocation({"SLURM_JOB_ID": "1"})


def test_a_requeued_task_keeps_its_id_and_counts_its_restarts(
    on_slurm: SlurmCluster, tmp_path: Path
) -> None:
    job = on_slurm.sbatch(
        "--array=0-1",
        "--requeue",
        f"--output={tmp_path}/restarts-%a",
        "--error=/dev/null",  # where Slurm says that the job was requeued
        "--open-mode=append",
        "--wrap=echo ${SLURM_RESTART_COUNT:-0}; exec sleep 600",
    )
    task, starts = f"{job}_0", tmp_path / "restarts-0"
    # RUNNING is said a little before the first process runs.
    on_slurm.wait_until(lambda: starts.exists() and starts.read_text().split() == ["0"])
    assert not slurm.has_left(slurm.jobs_in_queue([task]), task, restarts=0)
    on_slurm.run(["scontrol", "requeue", task])
    on_slurm.wait_until(lambda: slurm.has_left(slurm.jobs_in_queue([task]), task, restarts=0))
    on_slurm.wait_until(lambda: slurm.jobs_in_queue([task])[task].state == "RUNNING")
    again = slurm.jobs_in_queue([task])
    assert again[task].restarts == 1
    assert not slurm.has_left(again, task, restarts=1)
    on_slurm.wait_until(lambda: starts.read_text().split() == ["0", "1"])


def test_a_job_is_found_by_its_comment_even_after_its_end(on_slurm: SlurmCluster) -> None:
    job = on_slurm.sbatch("--array=0-1", "--comment=vendomini:77", "--output=/dev/null", "--wrap=:")
    assert slurm.jobs_with_comment("vendomini:77") == [job]
    on_slurm.wait_until(lambda: set(on_slurm.states(job).values()) == {"COMPLETED"})
    assert slurm.jobs_with_comment("vendomini:77") == [job]
    assert slurm.jobs_with_comment("vendomini:7") == []


def test_accounting_tells_how_a_job_ended(on_slurm: SlurmCluster) -> None:
    failed = on_slurm.sbatch("--output=/dev/null", "--wrap=exit 3")
    killed = on_slurm.sbatch("--output=/dev/null", "--wrap=kill -9 $$")

    def ended() -> bool:
        found = slurm.endings([failed, killed])
        return {one.state for one in found.values()} == {"FAILED"} and len(found) == 2

    on_slurm.wait_until(ended)
    found = slurm.endings([failed, killed])
    assert (found[failed].exit_code, found[failed].signal) == (3, 0)
    assert (found[killed].exit_code, found[killed].signal) == (0, 9)


def test_a_node_that_dies_takes_its_job_to_another(on_slurm: SlurmCluster) -> None:
    job = on_slurm.sbatch(
        "--partition=cpu", "--requeue", "--output=/dev/null", "--wrap=exec sleep 600"
    )
    on_slurm.wait_until(lambda: on_slurm.states(job)[job] == "RUNNING")
    node = on_slurm.run(["squeue", "--noheader", f"--jobs={job}", "--format=%N"]).stdout.strip()
    on_slurm.kill_node(node)
    # The controller calls a silent node down itself, but only after half a minute.
    on_slurm.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"])
    on_slurm.wait_until(lambda: slurm.has_left(slurm.jobs_in_queue([job]), job, restarts=0))
    on_slurm.wait_until(lambda: slurm.jobs_in_queue([job])[job].state == "RUNNING")
    on_slurm.start_node(node)
    # One that has registered meanwhile is up already, and cannot be resumed.
    on_slurm.run(["scontrol", "update", f"nodename={node}", "state=resume"], check=False)
    slurm.cancel([job])
    on_slurm.wait_until(lambda: node in on_slurm.idle_nodes())
