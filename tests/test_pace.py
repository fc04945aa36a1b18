"""How many episodes play at a time, and which of them may ask."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.chat import Capacity, Load
from vendomini.worker.pace import QUIET_LOOKS, Pace, most_live


@pytest.mark.parametrize(
    ("kv_cache", "conversation", "most"),
    [(100_000, 4_000, 25), (100_000, 101_000, 1), (None, 4_000, 256), (100_000, None, 256)],
)
def test_as_many_runs_play_as_the_kv_cache_holds_whole_conversations(
    kv_cache: int | None, conversation: int | None, most: int
) -> None:
    capacity = Capacity(kv_cache_tokens=kv_cache)
    assert most_live(capacity, conversation_tokens=conversation, at_most=256) == most


def quiet(preemptions: int = 0) -> Load:
    return Load(running=4, waiting=0, preemptions=preemptions)


def test_after_a_preemption_only_the_oldest_ask_and_a_run_that_ends_lets_the_next_in() -> None:
    async def live() -> list[str]:
        pace = Pace(4)
        for run in "abcd":
            pace.begin(run)
        pace.observe(quiet(preemptions=1))
        assert pace.limit == 3
        asked: list[str] = []

        async def ask(run: str) -> None:
            await pace.turn(run)
            asked.append(run)

        tasks = [asyncio.create_task(ask(run)) for run in "dcba"]
        await asyncio.sleep(0.01)
        assert sorted(asked) == ["a", "b", "c"]
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
