"""The imitated Slurm: real submitit and our own questions work on it as on a real one."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import submitit

from tests.fakes.slurm import FakeSlurm
from vendomini import slurm
from vendomini.errors import SubmitError
from vendomini.slurm.questions import ask

PATIENCE_S = 60


def wait_until(predicate: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not predicate():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def executor(folder: Path) -> submitit.SlurmExecutor:
    found = submitit.SlurmExecutor(folder=folder, python=sys.executable)
    found.update_parameters(time=10, comment="vendomini:4f2a", array_parallelism=1, mem="2GB")
    return found


def submit(tmp_path: Path, *directives: str, script: str) -> None:
    """sbatch, through our own way of running commands."""
    lines = ["#!/bin/bash", *(f"#SBATCH {line}" for line in directives), script]
    path = tmp_path / "job.sh"
    path.write_text("\n".join(lines) + "\n")
    ask("sbatch", str(path))


def test_submitit_plays_an_array_and_reads_its_results(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    slurm_executor = executor(tmp_path / "jobs")
    jobs = slurm_executor.map_array(pow, [2, 3], [5, 2])
    assert [job.result() for job in jobs] == [32, 9]
    (job,) = fake_slurm.jobs()
    assert (job["tasks"], job["throttle"]) == ([0, 1], 1)
    assert job["options"]["comment"] == "vendomini:4f2a"
    wait_until(fake_slurm.is_idle)
    assert slurm.jobs_in_queue([job["id"]]) == {}
    assert {ending.state for ending in slurm.endings([job["id"]]).values()} == {"COMPLETED"}


def test_a_task_knows_its_allocation(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    code = (
        "import os; from vendomini.slurm import allocation; a = allocation(os.environ); "
        "print(a.queue_id, a.gpus, a.cpus, a.memory_mb, a.end_time_s is not None)"
    )
    submit(
        tmp_path,
        "--array=3",
        "--gres=gpu:a100:2",
        "--cpus-per-task=4",
        "--mem=8G",
        "--time=30",
        f"--output={tmp_path}/out",
        script=f'"{sys.executable}" -c "{code}"',
    )
    wait_until(fake_slurm.is_idle)
    (job,) = fake_slurm.jobs()
    assert (tmp_path / "out").read_text().strip() == f"{job['id']}_3 2 4 8192 True"


def test_a_throttled_array_waits_in_the_queue_and_is_cancelled(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    submit(tmp_path, "--array=0-2%1", f"--output={tmp_path}/out", script="exec sleep 600")
    (job,) = fake_slurm.jobs()
    first, *rest = (f"{job['id']}_{task}" for task in range(3))
    wait_until(lambda: slurm.jobs_in_queue([first])[first].state == "RUNNING")
    jobs = slurm.jobs_in_queue([job["id"]])
    assert {jobs[name].reason for name in rest} == {"JobArrayTaskLimit"}
    assert jobs[first].end_time_s is not None
    slurm.cancel([job["id"]])
    wait_until(lambda: not slurm.jobs_in_queue([job["id"]]))
    assert fake_slurm.is_idle()


def test_a_submission_whose_answer_was_lost_is_found_by_its_comment(
    fake_slurm: FakeSlurm, tmp_path: Path
) -> None:
    fake_slurm.lose_answers()
    with pytest.raises(SubmitError, match="Socket timed out"):
        submit(tmp_path, "--comment=vendomini:77", f"--output={tmp_path}/out", script="true")
    wait_until(fake_slurm.is_idle)
    (job,) = fake_slurm.jobs()
    assert slurm.jobs_with_comment("vendomini:77") == [job["id"]]
    assert slurm.jobs_with_comment("vendomini:7") == []


def test_an_array_above_the_limit_is_refused(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.limit_arrays(2)
    assert slurm.cluster_facts().max_array_size == 2
    with pytest.raises(SubmitError, match="Invalid job array specification"):
        submit(tmp_path, "--array=0-2", script="true")


def test_a_refusal_carries_slurms_own_words(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.refuse("Invalid qos specification")
    with pytest.raises(SubmitError, match="Invalid qos specification"):
        submit(tmp_path, script="true")
    fake_slurm.recover()
    submit(tmp_path, f"--output={tmp_path}/out", script="true")
    assert len(fake_slurm.jobs()) == 1


def test_the_facts_are_those_of_the_real_cluster(fake_slurm: FakeSlurm) -> None:
    facts = slurm.cluster_facts()
    assert [partition.name for partition in facts.partitions] == ["cpu", "short", "gpu", "preempt"]
    assert facts.max_array_size == 1001
