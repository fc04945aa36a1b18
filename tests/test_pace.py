"""How many requests are asked at a time, how many episodes play, and which of them may ask."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.chat import Capacity, Load
from vendomini.errors import EngineDead
from vendomini.worker.pace import QUIET_LOOKS, Pace, most_in_flight


@pytest.mark.parametrize(
    ("kv_cache", "conversation", "most"),
    [(100_000, 4_000, 25), (100_000, 101_000, 1), (None, 4_000, 256), (100_000, None, 256)],
)
def test_as_many_runs_play_as_the_kv_cache_holds_whole_conversations(
    kv_cache: int | None, conversation: int | None, most: int
) -> None:
    capacity = Capacity(kv_cache_tokens=kv_cache)
    assert most_in_flight(capacity, conversation_tokens=conversation, at_most=256) == most


def quiet(preemptions: int = 0) -> Load:
    return Load(running=4, waiting=0, preemptions=preemptions)


def test_a_preemption_takes_a_fifth_of_what_was_really_in_flight() -> None:
    """Also where runs asked more at once than their workload had said."""

    async def live() -> None:
        pace = Pace(256)
        for run in "ab":
            pace.begin(run)
        held = [await pace.turn(run) for run in "ab" for _ in range(100)]
        pace.observe(quiet(preemptions=1))
        assert pace.limit == 160
        for each in held:
            pace.give_back(each)
        pace.observe(quiet(preemptions=2))
        assert pace.limit == 128  # of the 200 that were there at the last look

    asyncio.run(live())


def test_after_a_preemption_only_the_oldest_ask_and_a_run_that_ends_lets_the_next_in() -> None:
    async def live() -> list[str]:
        pace = Pace(4)
        for run in "abcd":
            pace.begin(run)
        pace.observe(quiet(preemptions=1))
        assert pace.limit == 3
        asked: list[str] = []

        async def ask(run: str) -> None:
            held = await pace.turn(run)
            asked.append(run)
            await asyncio.sleep(0)
            pace.give_back(held)

        tasks = [asyncio.create_task(ask(run)) for run in "dcba"]
        await asyncio.sleep(0.01)
        assert sorted(asked) == ["a", "b", "c"]
        assert pace.in_flight == 0
        pace.leave("b")
        await asyncio.wait_for(asyncio.gather(*tasks), timeout=5)
        return asked

    assert asyncio.run(live())[-1] == "d"


def test_quiet_looks_let_one_more_ask_until_all_may() -> None:
    pace = Pace(10)
    pace.observe(quiet(preemptions=2))
    low = pace.limit
    assert low == 8
    for _ in range(QUIET_LOOKS):
        pace.observe(quiet(preemptions=2))
    assert pace.limit == low + 1
    for _ in range(10 * QUIET_LOOKS):
        pace.observe(quiet(preemptions=2))
    assert pace.limit == 10


def test_no_run_begins_while_more_requests_wait_than_run() -> None:
    pace = Pace(10)
    pace.observe(Load(running=2, waiting=3, preemptions=0))
    assert pace.is_crowded
    pace.observe(Load(running=3, waiting=2, preemptions=0))
    assert not pace.is_crowded


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=60))
def test_whatever_an_engine_reports_the_limit_stays_between_one_and_the_most(
    looks: list[tuple[int, int]],
) -> None:
    pace, preemptions = Pace(7), 0
    for more, waiting in looks:
        preemptions += more
        pace.observe(Load(running=1, waiting=waiting, preemptions=preemptions))
        assert 1 <= pace.limit <= 7


@dataclass(slots=True)
class Asked:
    """What was asked by a pace, in order, and the most that was in flight."""

    pace: Pace
    order: list[str] = field(default_factory=list)
    most: int = 0

    async def one(self, run: str, sequences: int = 1, *, patience_s: float = 0.0) -> None:
        held = await self.pace.turn(run, sequences)
        try:
            self.order.append(run)
            self.most = max(self.most, self.pace.in_flight)
            await asyncio.sleep(patience_s)
        finally:
            self.pace.give_back(held)


def test_an_ask_larger_than_the_limit_proceeds_piece_by_piece() -> None:
    async def live() -> Asked:
        asked = Asked(Pace(30, at_once=256))
        asked.pace.begin("a")
        await asyncio.gather(*(asked.one("a") for _ in range(256)))
        return asked

    asked = asyncio.run(live())
    assert (len(asked.order), asked.most, asked.pace.in_flight) == (256, 30, 0)


def test_a_request_with_more_choices_than_the_limit_is_asked_alone() -> None:
    async def live() -> Asked:
        asked = Asked(Pace(4))
        asked.pace.begin("a")
        asked.pace.begin("b")
        await asyncio.gather(asked.one("a"), asked.one("b", 99), asked.one("a", 3))
        return asked

    asked = asyncio.run(live())
    assert asked.order == ["a", "a", "b"]  # the oldest run's first
    assert (asked.most, asked.pace.in_flight) == (4, 0)


def test_nobody_passes_a_request_that_waits_for_more_room() -> None:
    async def live() -> list[str]:
        asked = Asked(Pace(4))
        for run in "abc":
            asked.pace.begin(run)
        first = asyncio.create_task(asked.one("a", 2, patience_s=0.01))
        await asyncio.sleep(0)
        await asyncio.gather(first, asked.one("b", 3), asked.one("c"))
        return asked.order

    assert asyncio.run(live()) == ["a", "b", "c"]


@pytest.mark.parametrize(("at_once", "most"), [(1, 64), (16, 4), (64, 1), (256, 1)])
def test_as_many_runs_are_under_way_as_their_requests_have_room(at_once: int, most: int) -> None:
    assert Pace(64, at_once=at_once).most_under_way == most


def test_a_run_that_seldom_asks_a_second_thing_does_not_lower_the_runs_under_way() -> None:
    async def live() -> Asked:
        asked = Asked(Pace(8))
        for run in "abcdefgh":
            asked.pace.begin(run)
        assert asked.pace.most_under_way == 8
        await asyncio.gather(*(asked.one(run) for run in "abcdefghaceg"))
        return asked

    asked = asyncio.run(live())
    assert (len(asked.order), asked.most) == (12, 8)


@given(
    limit=st.integers(1, 9),
    at_once=st.integers(1, 20),
    requests=st.lists(
        st.tuples(
            st.sampled_from("abcde"), st.integers(1, 12), st.sampled_from(["answer", "cut", "fail"])
        ),
        max_size=40,
    ),
    preempted=st.booleans(),
)
def test_whoever_is_cancelled_or_fails_gives_back_and_all_others_are_asked(
    limit: int, at_once: int, requests: list[tuple[str, int, str]], preempted: bool
) -> None:
    async def live() -> None:
        asked = Asked(Pace(limit, at_once=at_once))
        pace = asked.pace
        for run in "abcde":
            pace.begin(run)

        async def one(run: str, sequences: int, end: str) -> None:
            await asked.one(run, sequences)
            if end == "fail":
                raise EngineDead("it died")

        tasks = [asyncio.create_task(one(*each)) for each in requests]
        cut = [task for task, (_, _, end) in zip(tasks, requests, strict=True) if end == "cut"]
        for number, task in enumerate(cut):
            if number % 2:
                await asyncio.sleep(0)
            task.cancel()
        if preempted:
            pace.observe(quiet(preemptions=1))
        for run in "abcde":
            its = [task for task, each in zip(tasks, requests, strict=True) if each[0] == run]
            await asyncio.wait_for(asyncio.gather(*its, return_exceptions=True), timeout=5)
            pace.leave(run)
        assert asked.most <= limit
        assert pace.in_flight == 0

    asyncio.run(live())
