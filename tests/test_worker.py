"""The worker in this process: many episodes on one engine, and everything that goes wrong."""

import asyncio
import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults import Faults
from tests.harness import (
    assert_every_log_is_a_prefix,
    bury,
    job_for,
    kill_after,
    make_worker,
    outcomes,
    play,
    steps,
    undisturbed,
)
from tests.toy import failing, toy_experiment, toy_runs
from vendomini.chat import Reply, Request, kind_of
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.errors import ConfigError, EngineError
from vendomini.phase import ENGINELESS
from vendomini.store.disk import Disk
from vendomini.store.experiment import Experiment
from vendomini.store.hashing import request_hash
from vendomini.store.logs import lines_by_run
from vendomini.store.records import Pin
from vendomini.worker.drain import Drain
from vendomini.worker.job import read_job, write_job
from vendomini.worker.worker import Ended


def test_every_run_of_the_group_is_played_and_published(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, count=20)
    ended = play(experiment)
    assert ended == Ended(runs=20, failed=0, reason=None, problem=None)
    assert len(outcomes(experiment)) == 20
    first = experiment.runs()[0].id
    assert [json.loads(line)["step"] for line in steps(experiment, first)] == list(range(5))
    (worker,) = experiment.workers().values()
    assert (worker.state, worker.runs, worker.steps) == ("ended", 20, 100)


def test_runs_interleave_on_one_engine(tmp_path: Path) -> None:
    # One after another they would take 4 x 5 x 2 replies of 20 ms each: 0.8 s.
    experiment = toy_experiment(tmp_path, count=40)
    waiting, most = 0, 0

    class Counting(ScriptedEngine):
        async def answer(self, request: Request) -> Reply:
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            try:
                return await super().answer(request)
            finally:
                waiting -= 1

    play(experiment, Counting(echo, latency_s=0.02), concurrency=16)
    # 16 replies are written at a time; a toy's requests may have two each.
    assert 8 <= most <= 16


def test_a_run_that_never_asks_needs_no_engine(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, needs_engine=False)
    assert play(experiment, group=ENGINELESS).runs == 4
    result = experiment.result(experiment.runs()[0].id)
    assert result is not None
    assert result.served.backend is None


def test_a_second_worker_of_a_finished_group_opens_no_engine(tmp_path: Path) -> None:
    class Locked(ScriptedEngine):
        async def start(self) -> None:
            raise AssertionError("an engine was opened though there was no work")

    experiment = toy_experiment(tmp_path)
    play(experiment)
    assert play(experiment, Locked(echo)).runs == 0


def test_workers_at_the_same_time_play_each_run_once(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, count=60)
    job = job_for(experiment, workers=3)

    async def together() -> list[Ended]:
        engines = [ScriptedEngine(echo, latency_s=0.05) for _ in range(3)]
        workers = [make_worker(experiment, job, engine) for engine in engines]
        return list(await asyncio.gather(*(worker.work() for worker in workers)))

    ended = asyncio.run(together())
    assert sum(each.runs for each in ended) == 60
    assert all(each.runs > 0 for each in ended)
    assert len(list(experiment.path("claims").iterdir())) == 60


def test_a_worker_leaves_a_fair_share_to_the_others(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, count=12)
    under_way: list[int] = []

    class Watching(ScriptedEngine):
        async def answer(self, request: Request) -> Reply:
            claimed = len(list(experiment.path("claims").glob("*.1")))
            under_way.append(claimed - len(outcomes(experiment)))
            return await super().answer(request)

    play(experiment, Watching(echo), workers=4)
    assert max(under_way) <= 3


def test_when_a_result_appears_its_replies_and_steps_are_in_the_logs(tmp_path: Path) -> None:
    made = toy_experiment(tmp_path, count=3)
    logged: list[tuple[int, int]] = []

    class Looking(Disk):
        def publish(self, path: Path, content: bytes, *, lasts: bool = True) -> bool:
            if path.parent.name == "results":
                counts = [
                    sum(len(lines_by_run(log.read_bytes()).get(path.stem, [])) for log in logs)
                    for logs in (
                        made.path("logs").glob("*.replies.jsonl"),
                        made.path("logs").glob("*.steps.jsonl"),
                    )
                ]
                logged.append((counts[0], counts[1]))
            return super().publish(path, content, lasts=lasts)

    play(Experiment(made.folder, disk=Looking()))
    assert logged == [(15, 5)] * 3


# -- kills ---------------------------------------------------------------------------------


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kills=st.lists(st.tuples(st.integers(0, 32), st.integers(0, 400)), max_size=4))
def test_kills_at_any_reply_change_no_outcome_and_no_logged_prefix(
    kills: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kills")
    expected = undisturbed(folder, 2, steps=5)
    experiment = toy_experiment(folder, 2, steps=5)
    for replies, torn in kills:
        if len(outcomes(experiment)) == 2:
            break
        kill_after(experiment, replies, torn)
    assert play(experiment).problem is None
    assert outcomes(experiment) == expected
    assert_every_log_is_a_prefix(experiment)


def test_what_was_logged_is_not_asked_again(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 1)
    kill_after(experiment, 9, 0)
    engine = ScriptedEngine(echo)
    play(experiment, engine)
    assert engine.answered == 15 - 9
    result = experiment.result(experiment.runs()[0].id)
    assert result is not None
    assert (result.served.attempt, result.served.replayed, result.served.replies) == (2, 9, 15)


def test_a_request_that_differs_from_the_log_stops_its_run_and_no_other(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 2)
    kill_after(experiment, 4, 0)
    (log,) = experiment.path("logs").glob("*.replies.jsonl")
    log.write_bytes(log.read_bytes().replace(b'"hash":"', b'"hash":"f', 1))
    ended = play(experiment)
    assert (ended.runs, ended.failed) == (1, 1)
    ((error,),) = experiment.errors().values()
    assert error.kind == "replay"
    assert "asks something else" in error.message
    assert "version" in error.hint


def test_a_drained_worker_frees_its_runs_at_once(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path)
    experiment = toy_experiment(tmp_path)
    drain = Drain(deadline=None, drain_s=10)

    class Slow(ScriptedEngine):
        async def answer(self, request: Request) -> Reply:
            if self.answered >= 7:
                drain.within(0.0, "told to")
            return await super().answer(request)

    job = job_for(experiment)
    first = asyncio.run(
        make_worker(experiment, job, Slow(echo, latency_s=0.01), drain=drain).work()
    )
    assert (first.reason, first.problem, first.exit_status) == ("told to", None, 0)
    assert list(experiment.path("claims").glob("*.released"))
    assert play(experiment).runs == 4 - first.runs
    assert outcomes(experiment) == expected


def test_a_worker_drains_by_its_own_deadline(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, steps=200)
    drain = Drain(deadline=time.monotonic() + 1.0, drain_s=10)
    job = job_for(experiment)
    engine = ScriptedEngine(echo, latency_s=0.05)
    ended = asyncio.run(make_worker(experiment, job, engine, drain=drain).work())
    assert ended.reason == "its time is nearly up"
    assert ended.problem is None
    assert play(experiment).runs == 4 - ended.runs


def test_a_zombie_that_comes_back_publishes_nothing(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path, 1)
    experiment = toy_experiment(tmp_path, 1)
    run = experiment.runs()[0].id
    said: list[str] = []

    class Overtaken(ScriptedEngine):
        """In the middle of the run another worker claims the next attempt and finishes it."""

        asked = 0

        async def answer(self, request: Request) -> Reply:
            self.asked += 1
            if self.asked == 8:
                experiment.disk.publish(experiment.path("claims", f"{run}.1.released"), b"")
                other = make_worker(experiment, job_for(experiment), ScriptedEngine(echo))
                assert (await other.work()).runs == 1
            return await super().answer(request)

    worker = make_worker(experiment, job_for(experiment), Overtaken(echo), said=said.append)
    assert asyncio.run(worker.work()).runs == 0
    result = experiment.result(run)
    assert result is not None
    assert result.served.attempt == 2
    assert outcomes(experiment) == expected
    assert any("taken it over" in text for text in said)


# -- errors --------------------------------------------------------------------------------


def test_a_bug_in_one_run_leaves_the_others_alone_and_is_not_tried_again(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "toy")
    broken = toy_runs(1, breaks=True)
    experiment.extend("x\n", [*broken, *toy_runs(4)[1:]])
    ended = play(experiment)
    assert (ended.runs, ended.failed, ended.exit_status) == (3, 1, 1)
    (error,) = experiment.errors()[broken[0].id]
    assert error.kind == "bug"
    assert "ZeroDivisionError: the toy is broken" in error.message
    assert "tests/toy.py" in error.trace
    assert play(experiment).failed == 0  # the same submission does not try again
    assert play(experiment, submission="second").failed == 1  # the next `run` does


def test_an_engine_error_is_tried_again_and_is_never_an_outcome(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path, 1)
    experiment = toy_experiment(tmp_path, 1)

    class Flaky(ScriptedEngine):
        failures = 0

        async def answer(self, request: Request) -> Reply:
            if kind_of(request) == "score" and self.failures < 2:
                self.failures += 1
                raise EngineError("a short outage")
            return await super().answer(request)

    ended = play(experiment, Flaky(echo))
    assert (ended.runs, ended.failed) == (1, 2)
    assert outcomes(experiment) == expected
    result = experiment.result(experiment.runs()[0].id)
    assert result is not None
    assert result.served.attempt == 3


def test_a_broken_engine_does_not_burn_through_the_phase(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 100)
    ended = play(experiment, ScriptedEngine(failing), concurrency=4)
    assert ended.exit_status == 3
    assert "the engine is gone" in (ended.problem or "")
    assert len(experiment.errors()) < 20
    assert play(experiment, submission="second").runs == 100


def test_an_engine_that_does_not_start_ends_the_worker_and_claims_nothing(tmp_path: Path) -> None:
    class Dead(ScriptedEngine):
        async def start(self) -> None:
            raise EngineError("no such model", hint="download it")

    experiment = toy_experiment(tmp_path)
    ended = play(experiment, Dead(echo))
    assert ended.problem == "no such model (download it)"
    assert list(experiment.path("claims").iterdir()) == []
    (worker,) = experiment.workers().values()
    assert worker.problem == ended.problem


def test_what_an_engine_learns_from_its_answers_is_in_the_workers_file(tmp_path: Path) -> None:
    learned: dict[str, str] = {}

    class Learning(ScriptedEngine):
        @property
        def facts(self) -> Mapping[str, str]:  # type: ignore[override]
            return learned

        async def stop(self) -> None:
            await super().stop()
            learned.clear()

    def script(request: Request) -> Reply:
        learned["seed"] = "left out: the server refuses it"
        time.sleep(0.05)
        return echo(request)

    experiment = toy_experiment(tmp_path)
    play(experiment, Learning(script), heartbeat_s=0.02)
    (worker,) = experiment.workers().values()
    assert worker.engine_facts == {"seed": "left out: the server refuses it"}


def test_what_serves_a_group_is_pinned_at_its_first_reply(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    experiment.pin("toy", Pin(backend="vllm", dtype="bfloat16", quantization=None))
    ended = play(experiment)
    assert ended.runs == 0
    assert "come from vllm (dtype bfloat16), not from scripted" in (ended.problem or "")
    assert outcomes(experiment) == {}


# -- disks ---------------------------------------------------------------------------------


class SlowAndStale(Disk):
    """Every operation takes 10 ms, and a listing shows what was there a second ago."""

    def __init__(self) -> None:
        super().__init__()
        self._listed: dict[Path, tuple[float, list[str]]] = {}
        self._lock = threading.Lock()

    def names(self, folder: Path) -> list[str]:
        time.sleep(0.01)
        with self._lock:
            now = time.monotonic()
            known = self._listed.get(folder)
            if known is None or now - known[0] > 1.0:
                fresh = super().names(folder)
                shown = known[1] if known is not None else []
                self._listed[folder] = (now, fresh)
                return shown
            return known[1]

    def read(self, path: Path, *, waits: bool = False) -> bytes | None:
        time.sleep(0.01)
        return super().read(path, waits=waits)

    def exists(self, path: Path, *, waits: bool = False) -> bool:
        time.sleep(0.01)
        return super().exists(path, waits=waits)

    def write_temporary(self, path: Path, content: bytes) -> Path:
        time.sleep(0.01)
        return super().write_temporary(path, content)

    def link(self, finished: Path, path: Path) -> bool:
        time.sleep(0.01)
        return super().link(finished, path)

    def remove(self, path: Path) -> None:
        time.sleep(0.01)
        super().remove(path)


def test_a_slow_and_stale_file_system_neither_doubles_nor_loses_a_run(tmp_path: Path) -> None:
    expected = undisturbed(tmp_path, 40)
    made = toy_experiment(tmp_path, 40)

    async def together() -> list[Ended]:
        workers = []
        for _ in range(3):
            experiment = Experiment(made.folder, disk=SlowAndStale())
            job = job_for(made, workers=3, concurrency=8)
            workers.append(make_worker(experiment, job, ScriptedEngine(echo)))
        return list(await asyncio.gather(*(worker.work() for worker in workers)))

    ended = asyncio.run(together())
    assert [each.problem for each in ended] == [None] * 3
    assert outcomes(made) == expected
    assert sum(each.runs for each in ended) == 40


@pytest.mark.parametrize("room", [900, 3_000, 10_000, 30_000])
def test_on_a_full_disk_the_worker_waits_for_its_lease_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    expected = undisturbed(tmp_path, 6)
    made = toy_experiment(tmp_path, 6)
    said: list[str] = []
    with monkeypatch.context() as patch:
        Faults(patch, made.folder).room = room
        ended = play(made, dead_after_s=1.5, said=said.append)
    assert ended.exit_status == 3
    assert "No space" in (ended.problem or "")
    assert not ended.is_told  # nobody could: its last words go elsewhere
    assert any("waits: cannot write" in line and "No space" in line for line in said)
    for record in made.workers().values():
        bury(made, record)
    assert play(made).problem is None
    assert outcomes(made) == expected


def test_a_disk_that_is_full_for_a_while_ends_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(tmp_path, 6)
    made = toy_experiment(tmp_path, 6)
    said: list[str] = []
    with monkeypatch.context() as patch:
        faults = Faults(patch, made.folder)
        faults.room = 3_000
        threading.Timer(1.0, setattr, (faults, "room", None)).start()
        ended = play(made, said=said.append)
    assert faults.failed["pwrite"] > 0
    assert (ended.exit_status, ended.runs) == (0, 6)
    assert outcomes(made) == expected
    assert any("goes on" in line for line in said)


def test_a_job_file_says_what_a_worker_needs(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    job = job_for(experiment)
    assert read_job(write_job(tmp_path, job)) == job


def test_a_job_of_before_requests_were_counted_is_read(tmp_path: Path) -> None:
    job = job_for(toy_experiment(tmp_path), at_once=7)
    path = write_job(tmp_path, job)
    path.write_bytes(path.read_bytes().replace(b'"at_once":7,', b""))
    assert read_job(path) == msgspec.structs.replace(job, at_once=1)


def test_an_episode_that_finds_its_settings_impossible_fails_alone_and_is_not_tried_again(
    tmp_path: Path,
) -> None:
    experiment = toy_experiment(tmp_path, 3)
    asked: list[str] = []

    def script(request: Request) -> Reply:
        asked.append(request_hash(request))
        if len(asked) == 1:
            raise ConfigError("the window is too small", hint="raise it")
        return echo(request)

    ended = play(experiment, ScriptedEngine(script))
    assert (ended.runs, ended.failed, ended.problem) == (2, 1, None)
    ((error,),) = experiment.errors({run.id for run in experiment.runs()}).values()
    assert error.kind == "bug"
    assert error.message == "ConfigError: the window is too small"
    assert error.trace == ""
