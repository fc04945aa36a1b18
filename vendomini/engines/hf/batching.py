"""The queue before the model, and the thread that works on it."""

import asyncio
import os
import threading
import traceback
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from vendomini.engines.hf.generation import Generation, Task
from vendomini.engines.hf.sampling import Drawing, Row


class Batcher:
    """Rows in, what they became out. The generation is its thread's alone."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self._arrived: SimpleQueue[Task] = SimpleQueue()

    @property
    def running(self) -> int:
        return len(self.generation.running)

    @property
    def waiting(self) -> int:
        return len(self.generation.waiting) + self._arrived.qsize()

    async def answer(self, rows: Sequence[Row]) -> list[Drawing]:
        """What the rows became. When the caller is cancelled, its rows are dropped, also those
        that are under way. Raises what went wrong with a row."""
        loop = asyncio.get_running_loop()
        answers: list[asyncio.Future[Drawing]] = [loop.create_future() for _ in rows]
        tasks = [
            self.generation.task(row, _teller(answer, loop))
            for row, answer in zip(rows, answers, strict=True)
        ]
        for task in tasks:
            self._arrived.put(task)
        try:
            return [await answer for answer in answers]
        finally:
            for row, answer in zip(rows, answers, strict=True):
                row.abandoned = True
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()  # else asyncio would complain that nobody looked

    def start(self) -> None:
        """Work until the process ends."""
        # A daemon: a kernel that is under way cannot be interrupted, and holds up no exit.
        threading.Thread(target=self._work, name="generation", daemon=True).start()

    def _work(self) -> None:
        generation = self.generation
        while True:
            is_idle = not (generation.running or generation.waiting)
            try:
                while True:
                    generation.waiting.append(self._arrived.get(block=is_idle))
                    is_idle = False
            except Empty:
                self._step()

    def _step(self) -> None:
        try:
            self.generation.step()
        except Exception:
            # Nobody would be answered any more: whoever asked hears it from the process's end.
            print(f"[!] {' '.join(traceback.format_exc(limit=-1).split())}", flush=True)
            os._exit(1)


def _teller(
    answer: asyncio.Future[Drawing], loop: asyncio.AbstractEventLoop
) -> Callable[[Drawing | Exception], None]:
    def settle(end: Drawing | Exception) -> None:
        if answer.done():  # nobody waits for it any more
            return
        if isinstance(end, Exception):
            answer.set_exception(end)
        else:
            answer.set_result(end)

    def told(end: Drawing | Exception) -> None:
        loop.call_soon_threadsafe(settle, end)

    return told
