"""What Slurm 22.05.8 really printed (tests/data), understood; and its commands, imitated."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fakes.slurm import FakeSlurm
from vendomini import slurm
from vendomini.cluster import Gpus
from vendomini.errors import SubmitError
from vendomini.slurm.answers import (
    parse_allocation,
    parse_comment,
    parse_comments,
    parse_config,
    parse_endings,
    parse_gres,
    parse_job,
    parse_minutes,
    parse_partitions,
    parse_queue,
    with_words,
)

DATA = Path(__file__).parent / "data"

BATCH = {
    "SLURM_JOB_ID": "20933355",
    "SLURM_ARRAY_JOB_ID": "20933354",
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURMD_NODENAME": "gpu-a1",
    "SLURM_CPUS_ON_NODE": "6",
    "SLURM_CPUS_PER_TASK": "6",
    "SLURM_GPUS_ON_NODE": "2",
    "CUDA_VISIBLE_DEVICES": "0,1",
    "SLURM_MEM_PER_NODE": "20480",
    "SLURM_JOB_CPUS_PER_NODE": "6",
}


def text(name: str) -> str:
    return (DATA / name).read_text()


def test_partitions_come_with_limits_and_nodes() -> None:
    cpu, short, gpu, preempt = parse_partitions(text("sinfo_nodes.txt"))
    assert [p.name for p in (cpu, short, gpu, preempt)] == ["cpu", "short", "gpu", "preempt"]
    assert [p.is_default for p in (cpu, short, gpu, preempt)] == [True, False, False, False]
    assert [p.max_minutes for p in (cpu, short, gpu, preempt)] == [1440, 2, 2880, None]
    assert [p.default_minutes for p in (cpu, short, gpu, preempt)] == [10, 1, 30, 30]
    assert [len(p.nodes) for p in (cpu, short, gpu, preempt)] == [2, 5, 3, 3]
    a100 = gpu.nodes[0]
    assert (a100.name, a100.cpus, a100.memory_mb) == ("gpu-a1", 32, 256_000)
    assert a100.gpus == (Gpus(type="a100", count=4),)
    assert cpu.nodes[0].gpus == ()


def test_a_row_that_is_not_understood_is_shown() -> None:
    with pytest.raises(SubmitError, match=r"not understood: `who\|knows`"):
        parse_partitions("who|knows\n")


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", ()),
        ("", ()),
        ("gpu:2", (Gpus(type=None, count=2),)),
        ("gpu:a100:4(S:0-1),lustre:1", (Gpus(type="a100", count=4),)),
        (
            "gpu:a100:4(IDX:0,2-3),gpu:h100:1(IDX:4)",
            (Gpus(type="a100", count=4), Gpus(type="h100", count=1)),
        ),
        ("craynetwork:4", ()),
    ],
)
def test_gpus_are_found_among_generic_resources(gres: str, gpus: tuple[Gpus, ...]) -> None:
    assert parse_gres(gres) == gpus


@pytest.mark.parametrize(
    ("written", "minutes"),
    [
        ("2:00", 2),
        ("30:00", 30),
        ("1:30:30", 90),
        ("1-00:00:00", 1440),
        ("2-12:30:00", 3630),
        ("infinite", None),
        ("n/a", None),
    ],
)
def test_slurms_times_are_read_as_minutes(written: str, minutes: int | None) -> None:
    assert parse_minutes(written) == minutes


def test_the_configuration_is_read_by_name() -> None:
    config = parse_config(text("scontrol_show_config.txt"))
    assert config["MaxArraySize"] == "1001"
    assert config["SLURM_VERSION"] == "22.05.8"
    assert config["AccountingStorageType"] == "accounting_storage/slurmdbd"


def test_the_queue_names_each_task_with_its_restarts() -> None:
    jobs = {job.id: job for job in parse_queue(text("squeue_queue.txt"))}
    assert len(jobs) == 9
    assert (jobs["20934712_0"].state, jobs["20934712_0"].restarts) == ("PENDING", 1)
    assert jobs["20934712_0"].reason == "BeginTime"
    assert jobs["20934712_1"].end_time_s == 1795234035
    assert jobs["20934712_3"].end_time_s is None
    assert jobs["20934714"].end_time_s is None
    assert jobs["20934713"].reason == "PartitionTimeLimit"


def test_a_reason_of_several_words_is_kept_whole() -> None:
    reason = "Nodes required for job are DOWN, DRAINED or reserved"
    (job,) = parse_queue(f"75   PENDING   0   N/A   {reason}   \n")
    assert job.reason == reason


def test_a_requeued_task_has_left_its_first_start_but_not_its_second() -> None:
    jobs = {job.id: job for job in parse_queue(text("squeue_queue.txt"))}
    assert slurm.has_left(jobs, "20934712_0", restarts=0)
    assert not slurm.has_left(jobs, "20934712_0", restarts=1)
    assert not slurm.has_left(jobs, "20934712_1", restarts=0)
    assert slurm.has_left(jobs, "20934712_9", restarts=0)


def test_a_requeued_task_has_not_left_while_its_processes_may_live() -> None:
    (job,) = parse_queue("75_0  COMPLETING  1  1795234041  None\n")
    assert not slurm.has_left({"75_0": job}, "75_0", restarts=0)


def test_comments_may_hold_the_separator() -> None:
    found = parse_comments(text("squeue_comments.txt"))
    assert ("20934712", "vendomini:4f2a|b") in found


def test_endings_tell_exit_codes_from_signals() -> None:
    found = parse_endings(text("sacct_endings.txt"))
    assert found["20934716"] == slurm.Ending(state="FAILED", exit_code=3, signal=0)
    assert found["20934717"] == slurm.Ending(state="FAILED", exit_code=0, signal=9)
    assert found["20934712_1"].state == "CANCELLED"
    assert "20934712_[3-5%2]" not in found


def test_a_task_is_shown_with_its_end() -> None:
    shown = parse_job(text("scontrol_show_job_task.txt"))
    assert shown.end_time_s == 1795234035
    assert (shown.memory_mb, shown.gpus) == (1000, ())


def test_a_preempted_job_is_told_from_one_that_only_could_be() -> None:
    preempted = text("scontrol_show_job_preempted.txt")
    assert parse_job(preempted).is_being_preempted
    spared = preempted.replace("PreemptTime=1795235793", "PreemptTime=None")
    assert spared != preempted
    assert not parse_job(spared).is_being_preempted
    # Somebody cancelled it within its grace: it is not to come back.
    cancelled = preempted.replace("JobState=RUNNING", "JobState=COMPLETING")
    assert not parse_job(cancelled).is_being_preempted
    assert not parse_job(text("scontrol_show_job_task.txt")).is_being_preempted


def test_a_job_without_limit_has_no_end() -> None:
    shown = parse_job(text("scontrol_show_job_unlimited.txt"))
    assert shown.end_time_s is None
    assert (shown.memory_mb, shown.gpus) == (20480, (Gpus(type="a100", count=1),))


def test_what_a_job_has_on_its_first_node_is_told_from_what_it_has_in_all() -> None:
    shown = parse_job(text("scontrol_show_job_two_nodes.txt"))
    assert shown.gpus == (Gpus(type="a100", count=2),)
    assert shown.memory_mb == 4000


def test_an_allocation_is_what_its_environment_says() -> None:
    shown = parse_job(text("scontrol_show_job_unlimited.txt"))
    found = parse_allocation(BATCH, shown)
    assert found.queue_id == "20933354_3"
    assert (found.job_id, found.node, found.restarts) == ("20933355", "gpu-a1", 0)
    assert (found.gpus, found.gpu_type, found.cpus, found.memory_mb) == (2, "a100", 6, 20480)
    assert found.end_time_s is None


def test_an_allocation_is_known_without_slurms_answer_too() -> None:
    found = parse_allocation(BATCH | {"SLURM_RESTART_COUNT": "2"}, None)
    assert (found.gpus, found.gpu_type, found.cpus, found.memory_mb) == (2, None, 6, 20480)
    assert found.restarts == 2


def test_the_environments_end_time_wins() -> None:
    shown = parse_job(text("scontrol_show_job_task.txt"))
    found = parse_allocation(BATCH | {"SLURM_JOB_END_TIME": "1795230000"}, shown)
    assert found.end_time_s == 1795230000


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [("0", 1), ("", 0), ("NoDevFiles", 0), ("-1", 0), ("GPU-7f,MIG-3", 2), ("0,1,2,3", 2)],
)
def test_the_gpus_are_those_that_cuda_shows(visible: str, gpus: int) -> None:
    found = parse_allocation(BATCH | {"CUDA_VISIBLE_DEVICES": visible}, None)
    assert found.gpus == gpus


def test_a_variable_left_from_the_login_node_gives_no_gpu() -> None:
    shown = parse_job(text("scontrol_show_job_task.txt"))
    environ = {name: value for name, value in BATCH.items() if name != "SLURM_GPUS_ON_NODE"}
    assert parse_allocation(environ, shown).gpus == 0


def test_a_task_among_several_has_its_own_cpus() -> None:
    step = BATCH | {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_CPUS_ON_NODE": "8",
        "SLURM_CPUS_PER_TASK": "4",
    }
    assert parse_allocation(step, None).cpus == 4


def test_memory_by_cpu_is_summed_over_the_cpus() -> None:
    environ = {name: value for name, value in BATCH.items() if name != "SLURM_MEM_PER_NODE"}
    assert parse_allocation(environ | {"SLURM_MEM_PER_CPU": "1000"}, None).memory_mb == 6000


def test_sallocs_own_shell_is_outside_the_nodes() -> None:
    shown = parse_job(text("scontrol_show_job_two_nodes.txt"))
    environ = {"SLURM_JOB_ID": "20934715", "SLURM_JOB_CPUS_PER_NODE": "4(x2)"}
    found = parse_allocation(environ, shown)
    assert found.node is None
    assert (found.gpus, found.gpu_type, found.cpus, found.memory_mb) == (2, "a100", 4, 4000)


def test_outside_a_job_there_is_no_allocation() -> None:
    assert slurm.allocation({}) is None


def test_a_machine_without_slurm_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SubmitError, match="no Slurm here: `scontrol` is not on PATH") as caught:
        slurm.cluster_facts()
    assert "without --cluster" in caught.value.hint
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "question",
    [
        slurm.cluster_facts,
        lambda: slurm.jobs_in_queue(["75"]),
        lambda: slurm.jobs_with_comment("x"),
        lambda: slurm.endings(["75"]),
        lambda: slurm.cancel(["75"]),
        lambda: slurm.allocation({"SLURM_JOB_ID": "75"}),
    ],
)
def test_a_controller_that_is_down_is_an_error_not_an_empty_answer(
    fake_slurm: FakeSlurm, question: Callable[[], object]
) -> None:
    fake_slurm.go_down()
    with pytest.raises(SubmitError, match="Unable to contact slurm controller"):
        question()


def test_nothing_is_asked_about_no_job(fake_slurm: FakeSlurm) -> None:
    fake_slurm.go_down()
    assert slurm.jobs_in_queue([]) == {}
    assert slurm.endings([]) == {}
    slurm.cancel([])


def test_a_persons_own_formats_do_not_reach_the_questions(
    fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    (fake_slurm.bin / "squeue").write_text(f'#!/bin/sh\nenv >"{seen}"\n')
    monkeypatch.setenv("SQUEUE_FORMAT", "%u")
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SQUEUE_CLUSTERS", "east")
    slurm.jobs_in_queue(["75"])
    names = {line.partition("=")[0] for line in seen.read_text().splitlines()}
    assert "SQUEUE_FORMAT" not in names
    assert "SQUEUE_STATES" not in names
    assert "SQUEUE_CLUSTERS" in names


# -- last words -----------------------------------------------------------------------------


def test_words_follow_a_jobs_comment_and_replace_earlier_ones() -> None:
    once = with_words("vendomini:x:1a:1:0", "cannot write `x`:\n  No space left")
    assert once == "vendomini:x:1a:1:0 -- last words: cannot write `x`: No space left"
    assert with_words(once, "other") == "vendomini:x:1a:1:0 -- last words: other"
    assert len(with_words("c", "w" * 5000)) == 1000


@pytest.mark.parametrize(
    ("shown", "comment"),
    [
        ("JobId=7 Comment=vendomini:a b:1:2:0 StdErr=/x\n", "vendomini:a b:1:2:0"),
        ("JobId=7 AdminComment=no StdErr=/x Comment=my -- last: a=b\n", "my -- last: a=b"),
        ("JobId=7 JobName=x StdErr=/x\n", ""),
    ],
)
def test_a_comment_is_read_from_what_scontrol_shows(shown: str, comment: str) -> None:
    assert parse_comment(shown) == comment


def test_an_ending_has_the_last_words_that_its_worker_left() -> None:
    found = parse_endings(
        "7_1|FAILED|1:0|vendomini:x:1:1:0 -- last words: cannot write: a|b\n"
        "7_2|FAILED|1:0|vendomini:x:1:1:0\n"
        "7_3|FAILED|1:0|\n"
    )
    assert [found[f"7_{n}"].words for n in (1, 2, 3)] == ["cannot write: a|b", "", ""]
