"""One call for all who ask at about the same time."""

import asyncio
import gc
import threading
import time

import pytest

from vendomini.worker.together import Together


def test_all_who_ask_while_one_call_runs_share_the_next() -> None:
    calls: list[int] = []
    asked = 0
    gate = threading.Event()

    def work() -> None:
        calls.append(asked)
        gate.wait(5)

    async def many() -> None:
        nonlocal asked
        together = Together(work)

        async def ask() -> int:
            nonlocal asked
            asked += 1
            mine = asked
            await together()
            assert any(seen >= mine for seen in calls)  # a call that began after it was asked
            return mine

        first = asyncio.create_task(ask())
        while not calls:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(ask()) for _ in range(50)]
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(first, *others)

    asyncio.run(many())
    assert calls == [1, 51]


def test_an_error_reaches_all_whom_the_call_served_and_nobody_else() -> None:
    failures = [OSError("the disk")]

    def work() -> None:
        if failures:
            raise failures.pop()

    async def ask() -> None:
        together = Together(work)
        both = await asyncio.gather(together(), together(), return_exceptions=True)
        assert [type(each) for each in both] == [OSError, OSError]
        await together()

    asyncio.run(ask())


def test_one_who_is_cancelled_leaves_the_others_what_they_wait_for() -> None:
    gate = threading.Event()
    calls = 0

    def work() -> None:
        nonlocal calls
        calls += 1
        gate.wait(5)

    async def ask() -> None:
        together = Together(work)
        leaving, staying = (asyncio.create_task(together()) for _ in range(2))
        await asyncio.sleep(0.01)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        gate.set()
        await staying

    asyncio.run(ask())
    assert calls == 1


def test_an_error_that_nobody_waits_for_any_more_is_not_complained_of() -> None:
    complaints: list[object] = []

    def fail() -> None:
        time.sleep(0.05)
        raise OSError("full")

    async def all_leave() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
        waiting = asyncio.create_task(Together(fail)())
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.sleep(0.1)
        gc.collect()

    asyncio.run(all_leave())
    gc.collect()
    assert not complaints
