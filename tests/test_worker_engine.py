"""A worker and an engine that loads slowly, holds little, and dies."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from tests.harness import job_for, make_worker, outcomes, play, undisturbed
from tests.toy import toy_experiment
from vendomini.chat import Capacity, Reply, Request
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.errors import EngineDead
from vendomini.worker.drain import Drain


class Mortal(ScriptedEngine):
    """Dies of its `fatal`-th request; whoever asks then, and later, hears of it."""

    def __init__(self, fatal: int, drain: Drain | None = None) -> None:
        super().__init__(echo)
        self.fatal = fatal
        self.drain = drain  # told to leave at that moment, as Slurm tells a whole step
        self.stopped = False
        self._death = asyncio.Event()

    async def answer(self, request: Request) -> Reply:
        if self.answered >= self.fatal:
            self._death.set()
            if self.drain is not None:
                self.drain.within(5.0, "it was told to by SIGTERM")
            raise EngineDead("it was ended by SIGKILL", hint="its log is elsewhere")
        return await super().answer(request)

    async def died(self) -> EngineDead:
        await self._death.wait()
        return EngineDead("it was ended by SIGKILL", hint="its log is elsewhere")

    async def stop(self) -> None:
        self.stopped = True


def test_a_dead_engine_fails_no_run_and_the_next_worker_finishes_them_all(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 4)
    engine = Mortal(fatal=9)
    ended = play(experiment, engine)
    assert ended.exit_status == 3
    assert ended.problem is not None
    assert "the engine died: it was ended by SIGKILL (its log is elsewhere)" in ended.problem
    assert engine.stopped
    assert not any(experiment.errors().values())
    assert play(experiment).exit_status == 0
    assert outcomes(experiment) == undisturbed(tmp_path)


def test_an_engine_that_is_told_to_leave_with_its_worker_is_no_failure(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 4)
    drain = Drain(deadline=None, drain_s=10)

    async def live() -> object:
        engine = Mortal(fatal=9, drain=drain)
        worker = make_worker(experiment, job_for(experiment), engine, drain=drain)
        return await worker.work()

    asyncio.run(live())
    assert drain.problem is None
    (record,) = experiment.workers().values()
    assert (record.state, record.problem) == ("ended", None)
    assert not any(experiment.errors().values())
    assert play(experiment).exit_status == 0
    assert outcomes(experiment) == undisturbed(tmp_path)


class Mute(ScriptedEngine):
    """A model without a chat template."""

    features = replace(ScriptedEngine.features, kinds=frozenset({"completion", "score"}))
    facts: ClassVar[Mapping[str, str]] = {"chat": "the model has no chat template"}


def test_what_an_engine_cannot_do_is_refused_by_name_and_fails_no_run(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 4)
    ended = play(experiment, Mute(echo))
    assert ended.exit_status == 3
    assert ended.problem is not None
    assert (
        "the engine cannot do requests of kind `chat`: the model has no chat template"
        in ended.problem
    )
    assert not any(experiment.errors().values())
    assert play(experiment).exit_status == 0


class Crowded(ScriptedEngine):
    """Counts how many requests it has at a time at most. Its KV cache holds 100 tokens."""

    capacity: Capacity = Capacity(kv_cache_tokens=100)

    def __init__(self) -> None:
        super().__init__(echo)
        self.capacity = Capacity(kv_cache_tokens=100)
        self.most = self.now = 0

    async def answer(self, request: Request) -> Reply:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        self.now -= 1
        return await super().answer(request)


def test_no_more_runs_play_than_the_kv_cache_holds_conversations(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 12)
    engine = Crowded()
    ended = play(experiment, engine, conversation_tokens=40, concurrency=64)
    assert (ended.runs, ended.exit_status) == (12, 0)
    assert engine.most <= 2  # also where one step of a toy asks two things at once


def test_fewer_runs_play_where_each_has_several_requests_in_flight(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 6)
    engine = Crowded()
    said: list[str] = []
    job = job_for(experiment, conversation_tokens=25, at_once=2)
    seen: list[int] = []

    async def live() -> None:
        worker = make_worker(experiment, job, engine, said=said.append)
        working = asyncio.create_task(worker.work())
        while not working.done():
            await asyncio.sleep(0.001)
            claimed = len(experiment.disk.names(experiment.path("claims")))
            seen.append(claimed - len(experiment.finished()))
        assert (await working).runs == 6

    asyncio.run(live())
    assert engine.most <= 4
    assert max(seen) <= 2
    assert (
        "up to 4 requests at a time: the KV cache holds 100 tokens, a conversation needs up to 25"
        in said
    )


def test_a_dead_engine_leaves_nobody_waiting_for_a_turn(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 6)
    ended = play(experiment, Mortal(fatal=9), concurrency=2, at_once=1)
    assert ended.exit_status == 3
    assert not any(experiment.errors().values())
    assert play(experiment, concurrency=3, at_once=2).runs == 6 - ended.runs
    assert outcomes(experiment) == undisturbed(tmp_path, 6)


class Slow(ScriptedEngine):
    """Never ready."""

    def __init__(self) -> None:
        super().__init__(echo)
        self.loading = asyncio.Event()
        self.was_cancelled = False

    async def start(self) -> None:
        self.loading.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


def test_a_worker_that_is_told_to_leave_while_it_loads_leaves_and_has_claimed_nothing(
    tmp_path: Path,
) -> None:
    experiment = toy_experiment(tmp_path, 4)
    drain = Drain(deadline=None, drain_s=10)

    async def live() -> Slow:
        engine = Slow()
        worker = make_worker(experiment, job_for(experiment), engine, drain=drain)
        working = asyncio.create_task(worker.work())
        await asyncio.wait_for(engine.loading.wait(), timeout=30)
        drain.within(60.0, "it was told to by SIGTERM")
        ended = await asyncio.wait_for(working, timeout=30)
        assert (ended.runs, ended.problem) == (0, None)
        return engine

    assert asyncio.run(live()).was_cancelled
    assert experiment.disk.names(experiment.path("claims")) == []
