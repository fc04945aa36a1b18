"""`run` while something happens to it: two at once, Ctrl-C, and kills of any of its processes."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import polars
import pytest

from tests.harness import outcomes
from tests.product import COMMAND, attempts, vendomini, wait_until, write_phase
from vendomini.store.experiment import Experiment
from vendomini.submit import _held

RUNS = 12
STEPS = 30
CONCURRENCY = 4  # as `write_phase` has it
QUICK, SLOW = "engine.latency_s=0", "engine.latency_s=0.1"
"""SLOW is 3 s a run and 9 s in all: what is to be disturbed does not end by itself before."""

Process: TypeAlias = subprocess.Popen[str]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The outcomes of the phase when nothing disturbs it; its engine answers at once."""
    here = tmp_path_factory.mktemp("undisturbed")
    file = write_phase(here, replications=RUNS // 2, steps=STEPS, latency_s=0)
    assert vendomini("run", file, cwd=here).returncode == 0
    found = outcomes(Experiment(here / "experiments" / "small"))
    assert len(found) == RUNS
    return found


class Place:
    """Where one phase is run, by hand and in the background; ends what it has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = write_phase(folder, replications=RUNS // 2, steps=STEPS, latency_s=0.02)
        self.experiment = Experiment(folder / "experiments" / "small")
        self._started: list[Process] = []

    def start(self, *options: str) -> Process:
        """`run` in a session and process group of its own, as in a terminal."""
        process = subprocess.Popen(
            [*COMMAND, "run", self.file, *options],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self) -> subprocess.CompletedProcess[str]:
        """The same command again, to its end; its engine answers at once."""
        return vendomini("run", self.file, QUICK, cwd=self.folder)

    def wait_for_work(self, *, workers: int = 1) -> None:
        """Until so many workers have begun as many runs as they play at a time."""
        wait_until(lambda: self.experiment.path("claims").exists())
        wait_until(lambda: len(attempts(self.experiment)) >= workers * CONCURRENCY)

    def end(self) -> None:
        for process in self._started:
            for pid in members_of(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.communicate(timeout=30)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.end()


def members_of(session: int) -> list[int]:
    """The processes of a session, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its_session, *_ = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(its_session) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


def finish(process: Process) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def assert_complete(place: Place, expected: dict[str, bytes]) -> None:
    assert outcomes(place.experiment) == expected
    assert sorted(place.experiment.finished()) == sorted(expected)


# -- two at once --------------------------------------------------------------------------------


def test_two_runs_at_once_neither_double_nor_lose_a_run(
    place: Place, expected: dict[str, bytes]
) -> None:
    both = [place.start(), place.start()]
    for code, out, err in [finish(process) for process in both]:
        assert (code, out) == (0, "experiments/small\n"), err
        assert f"{RUNS} of {RUNS} runs are done" in err or "nothing to do" in err
    assert_complete(place, expected)
    assert attempts(place.experiment) == dict.fromkeys(expected, 1)
    assert len(place.experiment.workers()) == 2


def test_collect_and_status_while_it_runs(place: Place, expected: dict[str, bytes]) -> None:
    process = place.start("engine.latency_s=0.15", "engine.concurrency=2")
    wait_until(lambda: place.experiment.finished())
    status = vendomini("status", "small", "--json", cwd=place.folder)
    collected = vendomini("collect", "small", "--json", cwd=place.folder)
    assert process.poll() is None
    runs = json.loads(status.stdout)["runs"]
    assert runs["total"] == RUNS
    assert runs["running"] >= 1
    assert runs["done"] >= 1
    assert sum(runs.values()) == 2 * RUNS
    said = json.loads(collected.stdout)
    table = polars.read_parquet(place.folder / said["runs_parquet"])
    assert table.height == RUNS
    assert set(table["state"]) >= {"done", "running"}
    done = table.filter(polars.col("state") == "done")
    assert said["steps"] == done.height * STEPS
    process.terminate()
    assert finish(process)[0] == 130
    assert place.run().returncode == 0
    assert_complete(place, expected)


# -- interruptions ------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_no_process_and_the_next_run_goes_on(
    place: Place, expected: dict[str, bytes], workers: int
) -> None:
    process = place.start("--n-jobs", str(workers), SLOW)
    place.wait_for_work(workers=workers)
    os.killpg(process.pid, signal.SIGINT)  # a terminal tells every process of the group
    code, out, err = finish(process)
    assert (code, out) == (130, "experiments/small\n")
    assert "interrupted: workers are leaving" in err
    assert "nothing is lost: the same command goes on" in err
    assert "Traceback" not in err
    assert members_of(process.pid) == []
    assert {record.state for record in place.experiment.workers().values()} == {"ended"}
    assert len(place.experiment.finished()) < RUNS
    assert outcomes(place.experiment).items() <= expected.items()
    assert place.run().returncode == 0
    assert_complete(place, expected)


def test_a_second_ctrl_c_stops_the_workers_at_once(
    place: Place, expected: dict[str, bytes]
) -> None:
    process = place.start(SLOW)
    place.wait_for_work()
    os.killpg(process.pid, signal.SIGINT)
    wait_until(lambda: "draining" in states_of(place))
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    assert err.count("interrupted") == 1
    assert members_of(process.pid) == []
    assert place.run().returncode == 0
    assert_complete(place, expected)


def test_term_is_answered_like_ctrl_c(place: Place, expected: dict[str, bytes]) -> None:
    process = place.start("--n-jobs", "2", SLOW)
    place.wait_for_work()
    process.terminate()
    code, out, err = finish(process)
    assert (code, out) == (130, "experiments/small\n")
    assert "nothing is lost" in err
    assert members_of(process.pid) == []
    assert place.run().returncode == 0
    assert_complete(place, expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_workers_are_started_leaves_none_behind(
    place: Place, expected: dict[str, bytes], number: signal.Signals
) -> None:
    process = place.start("--n-jobs", "4", SLOW)
    jobs = place.experiment.path("jobs", "1")
    wait_until(jobs.exists)
    process.send_signal(number)
    code, _, err = finish(process)
    assert code == 130
    assert "Traceback" not in err
    assert members_of(process.pid) == []
    assert place.run().returncode == 0
    assert_complete(place, expected)


def test_an_interruption_that_waits_is_not_lost_when_processes_are_started() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        # To this thread: others of a test process do not block it.
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        with _held(signal.SIGINT):
            child = subprocess.run(["grep", "SigBlk", "/proc/self/status"], capture_output=True)
        assert signal.SIGINT in signal.sigpending()
        assert int(child.stdout.split()[1], 16) & 1 << (signal.SIGINT - 1)
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- kills --------------------------------------------------------------------------------------


def worker_pids(place: Place, *, state: str = "working") -> list[int]:
    records = place.experiment.workers().values()
    return [record.process.pid for record in records if record.state == state]


def states_of(place: Place) -> Sequence[str]:
    return [record.state for record in place.experiment.workers().values()]


def test_what_a_killed_worker_had_begun_is_played_by_another(
    place: Place, expected: dict[str, bytes]
) -> None:
    process = place.start("--n-jobs", "2")
    place.wait_for_work(workers=2)
    os.kill(worker_pids(place)[0], signal.SIGKILL)
    code, _, err = finish(process)
    assert code == 0, err
    assert_complete(place, expected)
    assert sorted(states_of(place)) == ["ended", "working"]
    tries = attempts(place.experiment)
    assert set(tries) == set(expected)
    assert max(tries.values()) == 2


def test_a_run_whose_only_worker_is_killed_says_so_and_the_next_goes_on(
    place: Place, expected: dict[str, bytes]
) -> None:
    process = place.start(SLOW)
    place.wait_for_work()
    os.kill(worker_pids(place)[0], signal.SIGKILL)
    code, out, err = finish(process)
    assert (code, out) == (1, "experiments/small\n")
    assert "1 of 1 workers were killed" in err
    assert "runs are unfinished: give the same command again to go on" in err
    assert members_of(process.pid) == []
    status = vendomini("status", "small", cwd=place.folder)
    assert "no worker is alive: give the same `vendomini run` again to go on" in status.stdout
    assert place.run().returncode == 0
    assert_complete(place, expected)


def test_when_run_itself_is_killed_its_workers_go_on_and_nothing_is_doubled(
    place: Place, expected: dict[str, bytes]
) -> None:
    process = place.start("--n-jobs", "2")
    place.wait_for_work(workers=2)
    process.kill()
    process.wait(timeout=30)
    second = place.run()  # it works beside them, and waits for what they play
    assert second.returncode == 0, second.stderr
    assert_complete(place, expected)
    assert attempts(place.experiment) == dict.fromkeys(expected, 1)
    wait_until(lambda: members_of(process.pid) == [])


def test_when_all_of_it_is_killed_at_once_the_next_run_goes_on(
    place: Place, expected: dict[str, bytes]
) -> None:
    process = place.start("--n-jobs", "2", SLOW)
    place.wait_for_work(workers=2)
    os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: members_of(process.pid) == [])
    assert len(place.experiment.finished()) < RUNS
    assert place.run().returncode == 0
    assert_complete(place, expected)
