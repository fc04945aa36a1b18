"""Workers on a real Slurm that are killed, requeued, preempted, cancelled, cut off and stopped.

The law: the same command again finishes; no outcome changes, none is missing, none double.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.harness import assert_every_log_is_a_prefix, outcomes
from tests.product import attempts, write_phase, write_profile
from tests.slurm.lab import Lab, send
from tests.slurm_cluster.cluster import SlurmCluster

pytestmark = pytest.mark.slurm

REPLICATIONS = 8
RUNS = 2 * REPLICATIONS
STEPS = 60
LATENCY_S = 0.06  # a run takes four seconds

MakeLab = Callable[..., Lab]


@pytest.fixture(scope="module")
def expected(
    slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The outcomes of a local run; its engine answers at once, and that changes nothing."""
    folder = tmp_path_factory.mktemp("here")
    phase = write_phase(folder, replications=REPLICATIONS, steps=STEPS, latency_s=0)
    here = Lab(slurm_cluster, folder, phase, write_profile(folder))
    here.run_here()
    found = outcomes(here.experiment)
    assert len(found) == RUNS
    return found


@pytest.fixture
def make_lab(slurm_cluster: SlurmCluster, tmp_path: Path) -> Iterator[MakeLab]:
    """Makes a lab: settings of the phase come as overrides, those of the workers by name."""
    labs = []

    def make(*overrides: str, partition: str = "cpu", **engineless: object) -> Lab:
        phase = write_phase(tmp_path, replications=REPLICATIONS, steps=STEPS, latency_s=LATENCY_S)
        profile = write_profile(tmp_path, partition=partition, engineless=engineless)
        lab = Lab(slurm_cluster, tmp_path, phase, profile, overrides=overrides)
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.leave()


@pytest.fixture(scope="module")
def limited(
    slurm_cluster: SlurmCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Lab, str]]:
    """A job of one minute, the shortest there is, with more work than that. It goes on beside
    the first tests of this file, and is looked at in the last."""
    folder = tmp_path_factory.mktemp("limited")
    phase = write_phase(
        folder, replications=REPLICATIONS, steps=STEPS, latency_s=0.35, name="limited"
    )
    lab = Lab(slurm_cluster, folder, phase, write_profile(folder, dead_after_s=60))
    yield lab, lab.sbatch("--time=1", "--partition=gpu", "--nodelist=gpu-a2", "--mem=600M")
    lab.leave()


def finish(lab: Lab, expected: dict[str, bytes]) -> None:
    """The same command again plays the rest, and the law holds."""
    if len(lab.experiment.finished()) < RUNS:
        jobs = lab.submit()
        lab.wait_until_over(*jobs)
        assert {ending for job in jobs for ending in lab.endings(job).values()} == {"COMPLETED 0:0"}
    assert outcomes(lab.experiment) == expected
    assert len(list(lab.experiment.path("results").iterdir())) == RUNS
    assert lab.experiment.errors() == {}
    assert_every_log_is_a_prefix(lab.experiment)


@pytest.mark.usefixtures("limited")
def test_workers_killed_at_many_points_change_nothing(
    make_lab: MakeLab, expected: dict[str, bytes]
) -> None:
    lab = make_lab("engine.latency_s=0.2", "engine.concurrency=6", workers=3)
    for wait_s in (0.0, 0.7, 2.2, 4.1):  # replies are flushed every two seconds
        (job,) = lab.submit()
        for worker in lab.wait_until_at_work(job, workers=2):
            time.sleep(wait_s / 2)
            send(worker, signal.SIGKILL)
        # As the user may, too; and for those that had not begun yet.
        lab.cluster.run(["scancel", "--quiet", "--signal=KILL", job], check=False)
        lab.wait_until_over(job)
        assert not any(ending.startswith("COMPLETED") for ending in lab.endings(job).values())
    assert len(lab.experiment.finished()) < RUNS
    # The killed could not say how they ended: `status` has it from Slurm.
    told = set(lab.status()["ended_by_slurm"].values())
    assert told
    assert told <= {"FAILED", "CANCELLED"}
    finish(lab, expected)
    assert max(attempts(lab.experiment).values()) > 2
    assert sum(served.replayed for served in lab.served().values()) > 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own for the experiment, which every node sees."""
    place = tmp_path / "root"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_the_last_words_of_a_worker_that_can_write_no_file_are_kept_by_slurm(
    small_disk: Path, make_lab: MakeLab, expected: dict[str, bytes]
) -> None:
    lab = make_lab()  # a lease of two seconds
    jobs = lab.submit()
    lab.wait_until_at_work(*jobs, workers=1)
    filler = small_disk / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
    lab.wait_until_over(*jobs)
    told = lab.status()
    assert "No space left on device" in told["unwritable"]
    assert told["last_words"]
    for words in told["last_words"].values():
        assert words.startswith("cannot write") or words.startswith("no heartbeat")
        assert "No space left on device" in words
    filler.unlink()
    finish(lab, expected)


def test_a_requeued_task_finishes_the_run_that_it_had_begun(
    make_lab: MakeLab, expected: dict[str, bytes]
) -> None:
    # Two runs and two workers: each has one of its own, for longer than a requeue takes.
    lab = make_lab("engine.latency_s=0.35", "experiment.replications=1", workers=2)
    (job,) = lab.submit()
    begun = lab.wait_until_at_work(job, workers=2)
    task = f"{job}_1"
    (first,) = [worker for worker in begun if worker.slurm and worker.slurm.job == task]
    time.sleep(3)  # so that there is something to replay
    asked = time.monotonic()
    lab.cluster.run(["scontrol", "requeue", task])
    lab.wait_until_over(job)
    print(f"\nfrom requeue to the end of the run: {time.monotonic() - asked:.1f} s")
    again = [worker for worker in lab.workers() if worker.slurm and worker.slurm.job == task]
    assert [worker.slurm.restarts for worker in again if worker.slurm] == [0, 1]
    assert again[0].incarnation == first.incarnation
    (served,) = [each for each in lab.served().values() if each.attempt == 2]
    assert served.incarnation == again[1].incarnation
    assert served.job == task
    assert 0 < served.replayed < STEPS
    assert outcomes(lab.experiment).items() <= expected.items()
    assert len(lab.served()) == 2
    assert set(lab.endings(job).values()) == {"COMPLETED 0:0"}


def test_a_preempted_worker_comes_back_and_finishes(
    make_lab: MakeLab, expected: dict[str, bytes]
) -> None:
    # Only gpu-h1 has so many CPUs; a run takes longer than a drain.
    lab = make_lab(
        *("engine.latency_s=0.1", "engine.concurrency=16"), partition="preempt", cpus=64, workers=1
    )
    (job,) = lab.submit()
    lab.wait_until_at_work(job, workers=1)
    rival = lab.cluster.sbatch(
        *("--partition=gpu", "--nodelist=gpu-h1", "--cpus-per-task=64", "--output=/dev/null"),
        "--wrap=true",
    )
    lab.cluster.wait_until(lambda: lab.cluster.states(rival).get(rival) == "COMPLETED")
    assert len(lab.experiment.finished()) < RUNS
    lab.wait_until_over(job)
    assert [worker.slurm.restarts for worker in lab.workers() if worker.slurm] == [0, 1]
    assert "preempted: the job goes back into the queue" in lab.log(job)
    assert lab.endings(job) == {job: "COMPLETED 0:0"}
    assert len(lab.experiment.finished()) == RUNS  # nobody had to give the command again
    finish(lab, expected)


def test_a_cancelled_worker_drains_and_frees_its_runs(
    make_lab: MakeLab, expected: dict[str, bytes]
) -> None:
    lab = make_lab("engine.latency_s=0.15", "engine.concurrency=8", workers=2)
    (job,) = lab.submit()
    lab.wait_until_at_work(job, workers=2)
    lab.cluster.run(["scancel", job])
    lab.wait_until_over(job)
    assert {ending.split()[0] for ending in lab.endings(job).values()} == {"CANCELLED"}
    assert {worker.state for worker in lab.workers()} == {"ended"}
    assert {worker.problem for worker in lab.workers()} == {None}
    assert "told to by SIGTERM" in lab.log(f"{job}_0")
    assert lab.status()["runs"] == {
        "total": RUNS,
        "done": 0,
        "running": 0,
        "waiting": RUNS,
        "failed": 0,
        "short": 0,
    }
    freed = {path.name for path in lab.experiment.path("claims").glob("*.released")}
    assert freed == {f"{run}.1.released" for run in attempts(lab.experiment)}
    finish(lab, expected)
    assert all(
        served.replayed > 0 for run, served in lab.served().items() if f"{run}.1.released" in freed
    )


def test_the_runs_of_a_node_that_dies_are_taken_over_by_another(
    make_lab: MakeLab, expected: dict[str, bytes]
) -> None:
    # A node each.
    lab = make_lab("engine.latency_s=0.1", "engine.concurrency=8", cpus=16, workers=2)
    (job,) = lab.submit()
    dead, alive = lab.wait_until_at_work(job, workers=2)
    assert dead.slurm is not None
    assert alive.slurm is not None
    node = dead.slurm.node
    assert node != alive.slurm.node
    lab.cluster.cut_power(node)
    try:
        # Slurm needs half a minute to notice; the heartbeat stands still before.
        lab.cluster.wait_until(lambda: len(lab.experiment.finished()) == RUNS, what="all results")
    finally:
        lab.cluster.run(["scancel", job])
        lab.cluster.run(["scontrol", "update", f"nodename={node}", "state=down", "reason=test"])
        lab.cluster.start_node(node)
        # One that has registered meanwhile is up already, and cannot be resumed.
        resume = ["scontrol", "update", f"nodename={node}", "state=resume"]
        lab.cluster.run(resume, check=False)
        lab.cluster.wait_until(lambda: node in lab.cluster.idle_nodes(), what=f"{node} idle")
    taken = [run for run, count in attempts(lab.experiment).items() if count == 2]
    assert taken
    assert {lab.served()[run].node for run in taken} == {alive.slurm.node}
    finish(lab, expected)


def test_a_zombie_that_comes_back_changes_nothing(
    make_lab: MakeLab, expected: dict[str, bytes]
) -> None:
    lab = make_lab("engine.concurrency=8", cpus=16, workers=2)
    (job,) = lab.submit()
    zombie, other = lab.wait_until_at_work(job, workers=2)
    assert zombie.slurm is not None
    send(zombie, signal.SIGSTOP)
    # Slurm says that its job is running, and so it is: only the heartbeat stands still.
    lab.cluster.wait_until(lambda: len(lab.experiment.finished()) == RUNS, what="all results")
    assert lab.cluster.states(job)[zombie.slurm.job] == "RUNNING"
    before = {path: path.read_bytes() for path in lab.experiment.path("results").iterdir()}
    claims = attempts(lab.experiment)
    send(zombie, signal.SIGCONT)
    lab.wait_until_over(job)
    assert {path: path.read_bytes() for path in lab.experiment.path("results").iterdir()} == before
    assert attempts(lab.experiment) == claims
    taken = [run for run, count in claims.items() if count == 2]
    assert taken
    assert {lab.served()[run].incarnation for run in taken} == {other.incarnation}
    endings = lab.endings(job)
    assert endings.pop(zombie.slurm.job) == "FAILED 3:0"
    assert list(endings.values()) == ["COMPLETED 0:0"]
    assert "others may have taken over" in lab.log(zombie.slurm.job)
    finish(lab, expected)


def test_a_worker_leaves_before_its_time_limit_and_the_rest_is_played_anywhere(
    limited: tuple[Lab, str], expected: dict[str, bytes]
) -> None:
    lab, job = limited
    lab.wait_until_over(job)
    # Not TIMEOUT: it left by itself, by the limit that Slurm had told it.
    assert lab.endings(job) == {job: "COMPLETED 0:0"}
    assert "draining: its time is nearly up" in lab.said()
    (worker,) = lab.workers()
    assert (worker.state, worker.problem) == ("ended", None)
    done = lab.served()
    assert 0 < len(done) < RUNS
    replace(lab, overrides=("engine.latency_s=0",)).run_here()
    assert outcomes(lab.experiment) == expected
    assert all(lab.served()[run] == served for run, served in done.items())
    assert sum(served.replayed for served in lab.served().values()) > 0
