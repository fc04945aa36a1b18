"""The queue before the model: who is answered, who is dropped, and what goes wrong alone."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from vendomini.engines.hf.batching import Batcher
from vendomini.engines.hf.generation import Task
from vendomini.engines.hf.sampling import Drawing, Row


def row(length: int) -> Row:
    return Row(prompt=[1] * length, max_tokens=10, temperature=0.0, top_p=1.0)


class Held:
    """A model whose steps wait until they are let go; in each all that waits is answered."""

    def __init__(self) -> None:
        self.waiting: deque[Task] = deque()
        self.running: list[Task] = []
        self.sizes: list[int] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def task(self, row: Row, told: Callable[[Drawing | Exception], None]) -> Task:
        return Task(Drawing(row), told)

    def step(self) -> None:
        self.running = [task for task in self.waiting if not task.row.abandoned]
        self.waiting.clear()
        self.sizes.append(len(self.running))
        self.begun.release()
        self.go_on.acquire()
        for task in self.running:
            if len(task.row.prompt) == 13:
                task.told(ValueError("unlucky"))
            else:
                task.drawing.tokens = [len(task.row.prompt)]
                task.told(task.drawing)
        self.running = []


def begun(held: Any) -> Batcher:
    batcher = Batcher(held)
    batcher.start()
    return batcher


def test_what_comes_meanwhile_waits_for_the_next_step_and_what_was_dropped_never_runs() -> None:
    async def main() -> list[int]:
        held = Held()
        batcher = begun(held)
        first = asyncio.create_task(batcher.answer([row(10)]))
        await asyncio.to_thread(held.begun.acquire)
        others = [asyncio.create_task(batcher.answer([row(10), row(10)])) for _ in range(5)]
        await asyncio.sleep(0)  # each puts its rows into the queue
        assert batcher.waiting == 10
        gone = others.pop()
        gone.cancel()
        await asyncio.wait([gone])
        held.go_on.release()
        held.go_on.release()
        await asyncio.gather(first, *others)
        return held.sizes

    assert asyncio.run(main()) == [1, 8]


def test_rows_nobody_waits_for_are_marked_so_that_they_are_ended_under_way() -> None:
    async def main() -> bool:
        held = Held()
        batcher = begun(held)
        left = row(10)
        asked = asyncio.create_task(batcher.answer([left]))
        await asyncio.to_thread(held.begun.acquire)
        asked.cancel()
        await asyncio.wait([asked])
        held.go_on.release()
        return left.abandoned

    assert asyncio.run(main())


def test_what_goes_wrong_with_a_row_is_its_askers_and_the_next_is_answered() -> None:
    async def main() -> list[Drawing]:
        held = Held()
        batcher = begun(held)
        held.go_on.release(2)
        with pytest.raises(ValueError, match="unlucky"):
            await batcher.answer([row(13), row(13)])
        return await batcher.answer([row(14)])

    assert asyncio.run(main())[0].tokens == [14]
