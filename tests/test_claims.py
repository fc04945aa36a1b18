"""Who owns a run: claims, and judging whether their owners live."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from tests.toy import toy_experiment
from vendomini.store.claims import Claims, Watch
from vendomini.store.disk import Disk
from vendomini.store.experiment import Experiment
from vendomini.store.heartbeat import Heartbeat, new_incarnation
from vendomini.store.process import Process, is_gone, this_process
from vendomini.store.records import SlurmPlace, WorkerRecord, WorkerState, encode

ELSEWHERE = Process(host="other", boot="b", namespace="n", pid=1, started=1)


def worker(
    experiment: Experiment,
    incarnation: str,
    *,
    process: Process = ELSEWHERE,
    beat: int = 1,
    state: WorkerState = "working",
    slurm: SlurmPlace | None = None,
) -> WorkerRecord:
    record = WorkerRecord(
        incarnation=incarnation,
        beat=beat,
        state=state,
        process=process,
        submission="s",
        group="g",
        started="2026-01-01T00:00:00+00:00",
        slurm=slurm,
    )
    experiment.disk.write_atomic(experiment.worker_path(incarnation), encode(record))
    return record


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_an_attempt_is_claimed_by_one_only_and_the_claim_is_never_empty(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    a, b = Claims(experiment, "a"), Claims(experiment, "b")
    assert a.take("r", 1)
    assert not b.take("r", 1)
    claim = b.look("r")
    assert claim is not None
    assert (claim.attempt, claim.incarnation, claim.over) == (1, "a", False)


def take_many(folder: Path, incarnation: str) -> None:
    claims = Claims(Experiment(folder), incarnation)
    for number in range(200):
        claims.take(f"r{number}", 1)


def test_two_processes_that_race_never_both_own_a_run(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    context = multiprocessing.get_context("spawn")
    both = [
        context.Process(target=take_many, args=(experiment.folder, name)) for name in ("a", "b")
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    owners = Claims(experiment, "c").survey({f"r{number}" for number in range(200)})
    assert len(owners) == 200
    assert {claim.incarnation for claim in owners.values()} <= {"a", "b"}


def test_the_highest_attempt_owns_the_run(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    a, b = Claims(experiment, "a"), Claims(experiment, "b")
    assert a.take("r", 1)
    assert a.is_mine("r", 1)
    assert b.take("r", 2)
    assert not a.is_mine("r", 1)
    assert b.is_mine("r", 2)
    assert b.survey({"r"})["r"].incarnation == "b"
    assert b.earlier("r", 3) == [(2, "b"), (1, "a")]


def test_a_released_attempt_is_over(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    claims = Claims(experiment, "a")
    claims.take("r", 1)
    claims.release("r", 1)
    assert claims.survey({"r"})["r"].over
    look = claims.look("r")
    assert look is not None
    assert look.over


def test_all_claims_of_a_worker_share_one_inode(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    claims = Claims(experiment, "a")
    for number in range(5):
        claims.take(f"r{number}", 1)
    claims.close()
    files = list(experiment.path("claims").iterdir())
    assert len(files) == 5
    assert len({file.stat().st_ino for file in files}) == 1


def test_an_ended_worker_has_freed_its_runs(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    worker(experiment, "a", state="ended")
    assert Watch(experiment, dead_after_s=180).verdict("a") == "ended"


def test_a_process_on_this_machine_is_judged_at_once(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    me = this_process()
    worker(experiment, "alive", process=me)
    worker(experiment, "dead", process=msgspec.convert({**_plain(me), "started": 1}, Process))
    watch = Watch(experiment, dead_after_s=180)
    assert watch.verdict("alive") == "alive"
    assert watch.verdict("dead") == "dead"


def _plain(process: Process) -> dict[str, object]:
    return dict(msgspec.to_builtins(process))


def test_a_reused_process_id_is_not_taken_for_the_worker() -> None:
    me = this_process()
    before = msgspec.convert({**_plain(me), "started": me.started - 1}, Process)
    assert is_gone(before, seen_from=me) is True
    assert is_gone(me, seen_from=me) is False


def test_a_process_that_nobody_has_reaped_is_gone() -> None:
    code = (
        "import msgspec, sys; from vendomini.store.process import this_process; "
        "sys.stdout.buffer.write(msgspec.json.encode(this_process())); "
        "sys.stdout.flush(); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        process = msgspec.json.decode(os.read(child.stdout.fileno(), 10_000), type=Process)
        assert is_gone(process, seen_from=this_process()) is False
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it ends, and stays a zombie
        assert Path(f"/proc/{child.pid}").exists()
        assert is_gone(process, seen_from=this_process()) is True


@pytest.mark.parametrize("field", ["host", "boot", "namespace"])
def test_a_process_elsewhere_cannot_be_seen(field: str) -> None:
    me = this_process()
    elsewhere = msgspec.convert({**_plain(me), field: "other"}, Process)
    assert is_gone(elsewhere, seen_from=me) is None


def test_elsewhere_a_heartbeat_that_stands_still_is_death_and_one_that_moves_is_life(
    tmp_path: Path,
) -> None:
    experiment = toy_experiment(tmp_path)
    clock = Clock()
    watch = Watch(experiment, dead_after_s=180, clock=clock)
    worker(experiment, "still")
    worker(experiment, "moves")
    assert watch.verdict("still") == watch.verdict("moves") == "unknown"
    clock.now += 100
    worker(experiment, "moves", beat=2)
    assert watch.verdict("still") == "unknown"
    assert watch.verdict("moves") == "alive"
    clock.now += 81
    assert watch.verdict("still") == "dead"
    assert watch.verdict("moves") == "alive"
    clock.now += 100
    assert watch.verdict("moves") == "dead"


def test_a_beat_that_came_while_nobody_looked_is_no_sign_of_life(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    clock = Clock()
    watch = Watch(experiment, dead_after_s=180, clock=clock)
    worker(experiment, "elsewhere")
    assert watch.verdict("elsewhere") == "unknown"
    worker(experiment, "elsewhere", beat=2)  # its last: it dies, and nobody looks for an hour
    clock.now += 3600
    assert watch.verdict("elsewhere") == "unknown"
    clock.now += 100
    assert watch.verdict("elsewhere") == "unknown"
    clock.now += 80
    assert watch.verdict("elsewhere") == "dead"


def test_slurm_says_at_once_that_a_job_is_over_and_no_answer_says_nothing(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    place = SlurmPlace(job="7_1", restarts=0, node="n1", user=os.getuid())
    answers: dict[tuple[str, int], bool | None] = {("7_1", 0): True}
    worker(experiment, "gone", slurm=place)
    worker(experiment, "again", slurm=replace(place, restarts=1))
    worker(experiment, "others", slurm=replace(place, user=os.getuid() + 1))
    watch = Watch(
        experiment, dead_after_s=180, ask_slurm=lambda job, start: answers.get((job, start))
    )
    assert watch.verdict("gone") == "dead"
    assert watch.verdict("others") == "unknown"  # whose jobs we may not be shown
    assert watch.verdict("again") == "unknown"


def test_a_claim_whose_worker_left_no_file_is_freed_in_time(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    clock = Clock()
    watch = Watch(experiment, dead_after_s=180, clock=clock)
    assert watch.verdict("nobody") == "unknown"
    clock.now += 181
    assert watch.verdict("nobody") == "dead"


def test_a_worker_that_cannot_renew_its_heartbeat_is_told_so(tmp_path: Path) -> None:
    import threading

    experiment = toy_experiment(tmp_path)
    lost = threading.Event()
    incarnation = new_incarnation()
    heartbeat = Heartbeat(
        experiment,
        worker(experiment, incarnation, process=this_process()),
        every_s=0.01,
        lost_after_s=0.1,
        lost=lambda problem: lost.set(),
        look=lambda record: record,
    )
    heartbeat.start()
    assert heartbeat.is_fresh
    for path in experiment.path("workers").iterdir():
        path.unlink()
    experiment.path("workers").rmdir()  # from here on no beat can be written
    assert lost.wait(30)
    assert not heartbeat.is_fresh


def test_a_worker_that_was_stopped_while_it_beat_is_not_fresh_when_it_wakes(
    tmp_path: Path,
) -> None:
    """Others have taken it for dead meanwhile, and its beat comes all the same."""

    class Stopped(Disk):
        def write_atomic(self, path: Path, content: bytes, *, lasts: bool = True) -> None:
            super().write_atomic(path, content, lasts=lasts)
            time.sleep(0.3)

    experiment = Experiment(toy_experiment(tmp_path).folder, disk=Stopped())
    heartbeat = Heartbeat(
        experiment,
        worker(experiment, new_incarnation(), process=this_process()),
        every_s=60,
        lost_after_s=0.2,
        lost=lambda why: None,
        look=lambda record: record,
    )
    heartbeat.change(state="working")
    assert not heartbeat.is_fresh
