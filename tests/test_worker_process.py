"""A worker as a process of its own: signals, kills, and what it leaves behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import outcomes, play
from tests.specs import engine_spec
from tests.test_kills import warehouse
from vendomini.phase import group_key
from vendomini.store.experiment import Experiment
from vendomini.store.process import is_gone, this_process
from vendomini.store.records import WorkerRecord
from vendomini.worker.job import Job, write_job

RUNS = 6
LATENCY_S = 0.05  # a run of 120 steps takes six seconds, longer than a drain
LONG = ("simulation.max_steps=120", f"experiment.replications={RUNS}")


@contextmanager
def worker_process(
    experiment: Experiment, *, dead_after_s: float = 180, script: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    job = Job(
        experiment=str(experiment.folder),
        submission="s",
        group=group_key(experiment.runs()[0], "script"),
        pin_key="p",
        engine=engine_spec(backend="scripted", model="m", latency_s=LATENCY_S, script=script),
        concurrency=RUNS,
        workers=1,
        heartbeat_s=0.1,
        dead_after_s=dead_after_s,
    )
    path = write_job(experiment.add_job_folder(), job)
    code = f"from vendomini.worker.entry import work; work({str(path)!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until, "it did not happen within a minute"
        time.sleep(0.02)


def is_at_work(experiment: Experiment) -> bool:
    """All runs are under way, and some replies are in the log file."""
    records = experiment.workers().values()
    logged = any(path.stat().st_size for path in experiment.path("logs").glob("*.replies.jsonl"))
    return logged and any(record.under_way == RUNS for record in records)


def the_worker(experiment: Experiment) -> WorkerRecord:
    (record,) = experiment.workers().values()
    return record


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    experiment = warehouse(tmp_path / "undisturbed", *LONG)
    play(experiment)
    return outcomes(experiment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2, signal.SIGINT])
def test_a_signal_drains_the_worker_and_the_next_one_goes_on(
    tmp_path: Path, expected: dict[str, bytes], number: signal.Signals
) -> None:
    experiment = warehouse(tmp_path / "x", *LONG)
    with worker_process(experiment) as process:
        wait_for(lambda: is_at_work(experiment))
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0
    assert f"told to by {number.name}" in said
    assert the_worker(experiment).state == "ended"
    replayed = _finish(experiment, expected)
    assert replayed > 0


def test_a_second_term_stops_at_once(tmp_path: Path, expected: dict[str, bytes]) -> None:
    experiment = warehouse(tmp_path / "x", *LONG)
    with worker_process(experiment) as process:
        wait_for(lambda: is_at_work(experiment))
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: the_worker(experiment).state == "draining")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 0
    record = the_worker(experiment)
    assert (record.state, record.runs) == ("ended", 0)
    _finish(experiment, expected)


def test_a_killed_worker_is_known_to_be_dead_and_its_runs_are_gone_on_with(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    experiment = warehouse(tmp_path / "x", *LONG)
    for _ in range(4):  # at as many different moments
        with worker_process(experiment) as process:
            wait_for(lambda: _beats_of_the_last(experiment) > 5)
            process.kill()
            process.wait(30)
    assert all(
        is_gone(record.process, seen_from=this_process())
        for record in experiment.workers().values()
    )
    _finish(experiment, expected)
    assert len(list(experiment.path("results").iterdir())) == RUNS


def _beats_of_the_last(experiment: Experiment) -> int:
    living = [
        record
        for record in experiment.workers().values()
        if not is_gone(record.process, seen_from=this_process())
    ]
    return max((record.beat for record in living if record.under_way), default=0)


def test_a_worker_that_was_stopped_for_too_long_publishes_nothing_when_it_wakes(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    experiment = warehouse(tmp_path / "x", *LONG)
    with worker_process(experiment, dead_after_s=1.0) as process:
        wait_for(lambda: is_at_work(experiment))
        process.send_signal(signal.SIGSTOP)
        before = outcomes(experiment)
        time.sleep(1.5)  # for others it is dead from now on
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 3
    assert "no heartbeat" in said
    assert outcomes(experiment) == before
    _finish(experiment, expected)


def test_a_worker_whose_runs_fail_says_so_by_its_exit_status(tmp_path: Path) -> None:
    recorded = warehouse(tmp_path / "recorded", "experiment.replications=1")
    play(recorded)
    (log,) = recorded.path("logs").glob("*.replies.jsonl")
    experiment = warehouse(tmp_path / "x", "experiment.replications=2")
    with worker_process(experiment, script=str(log)) as process:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
    assert "has no reply to request" in said
    assert len(outcomes(experiment)) == 1  # the run that was recorded
    assert [len(errors) for errors in experiment.errors().values()] == [3]


def test_a_worker_without_its_job_file_says_so(tmp_path: Path) -> None:
    code = f"from vendomini.worker.entry import work; work({str(tmp_path / 'job.json')!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "there is no job file" in done.stderr
    assert "Traceback" not in done.stderr


def _finish(experiment: Experiment, expected: dict[str, bytes]) -> int:
    """Play what is left; how many replies came from logs."""
    assert play(experiment).problem is None
    assert outcomes(experiment) == expected
    results = [experiment.result(run) for run in expected]
    return sum(result.served.replayed for result in results if result is not None)
