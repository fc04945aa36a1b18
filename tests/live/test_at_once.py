"""An episode that asks far more at once than an engine's KV cache holds."""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tests.live.engines import MAX_MODEL_LEN, Live
from vendomini.chat import (
    EngineFeatures,
    Episode,
    Load,
    Reply,
    Request,
    ScoreRequest,
    ask_all,
    choices_of,
)
from vendomini.phase import Run
from vendomini.store.disk import Disk
from vendomini.store.logs import Appender
from vendomini.worker.drive import Answers, asked_of, drive
from vendomini.worker.meter import Meter
from vendomini.worker.pace import Pace, most_in_flight
from vendomini.worker.turn import InTurn

SCORES = 256
AT_MOST = 48


class Counted:
    """An engine, and how many sequences it had at a time at most."""

    def __init__(self, live: Live) -> None:
        self._engine = live.engine
        self.now = self.most = 0

    @property
    def features(self) -> EngineFeatures:
        return self._engine.features

    @property
    def facts(self) -> Mapping[str, str]:
        return self._engine.facts

    async def answer(self, request: Request) -> Reply:
        self.now += choices_of(request)
        self.most = max(self.most, self.now)
        try:
            return await self._engine.answer(request)
        finally:
            self.now -= choices_of(request)


def scores(count: int) -> Episode[list[float | None]]:
    """Asks for as many scores at once, each with a prompt and two labels of its own."""
    replies = yield from ask_all(
        tuple(
            ScoreRequest(
                prompt=f"Case {number}: the quick brown fox orders {number} boxes. Good?",
                continuations=(" yes, it is", " no"),
            )
            for number in range(count)
        )
    )
    return [choice.score for reply in replies for choice in reply.choices]


def test_what_does_not_fit_the_kv_cache_waits_and_nothing_is_preempted(
    live: Live, tmp_path: Path
) -> None:
    # As if each filled its window: of those the real engines hold some dozens.
    most = most_in_flight(live.engine.capacity, conversation_tokens=MAX_MODEL_LEN, at_most=AT_MOST)
    assert 2 < most < SCORES
    engine, pace, loads = Counted(live), Pace(most, at_once=SCORES), list[Load]()
    run = Run(
        id="0" * 16,
        workload="scores",
        workload_version=1,
        seed=0,
        replication=0,
        arm={},
        settings={},
    )

    async def nothing() -> None:
        """There is nothing to pin."""

    async def play() -> list[float | None]:
        async def look() -> None:
            while (load := await live.engine.load()) is not None:
                loads.append(load)
                await asyncio.sleep(0.02)

        log = Appender(tmp_path / "log", Disk())
        pace.begin(run.id)
        in_turn = InTurn(engine, run.id, pin=nothing, pace=pace, meter=Meter())
        answers = Answers(run, 1, logged={}, engines=asked_of(in_turn), log=log)
        looking = asyncio.create_task(look())
        try:
            return await drive(scores(SCORES), answers)
        finally:
            looking.cancel()
            log.close()

    before = live.run(live.engine.load())
    found = live.run(play())
    assert len(found) == 2 * SCORES
    assert all(score is not None and score < 0 for score in found)
    assert engine.most <= most
    assert pace.in_flight == 0
    for load in loads:
        assert load.running + load.waiting <= most
        assert before is not None
        assert load.preemptions == before.preemptions
