"""Which waiting rows make the next batch, and the loop that runs one batch at a time.

A batch is padded to its longest prompt and lasts as long as its longest reply, so rows are put
together that are about as long, and the row that has waited longest is always among them.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue

from vendomini.engines.hf.generation import Drawn
from vendomini.engines.hf.sampling import Row

SPREAD = 1.5
"""The longest prompt of a batch is at most so many times its shortest ..."""

SLACK_TOKENS = 128
"""... and so many tokens more: padding is under a third of a batch of long prompts."""

QUIET_S = 0.01
"""After a batch, its clients ask again. While they come closer together than this, they are
waited for: whoever started with the first alone would have the others wait for that one."""

GATHER_S = 0.5
"""The longest such wait, whatever comes."""


def choose_batch(waiting: Sequence[Row], *, max_rows: int, kv_tokens: int) -> list[int]:
    """Places in `waiting` (oldest first) of the next batch's rows; the oldest is among them.

    The others are taken by how near their prompt's length is to the oldest's, while prompts are
    alike (`SPREAD`, `SLACK_TOKENS`), rows are at most `max_rows`, and rows times (longest prompt
    + longest reply) are at most `kv_tokens`. Scored prompts go with scored prompts.
    """
    oldest = waiting[0]
    chosen = [0]
    shortest = longest = len(oldest.prompt)
    reply = oldest.max_tokens
    scored = oldest.prompt_logprobs is None
    near = sorted(
        range(1, len(waiting)), key=lambda place: abs(len(waiting[place].prompt) - shortest)
    )
    for place in near:
        if len(chosen) == max_rows:
            break
        row = waiting[place]
        length = len(row.prompt)
        if (row.prompt_logprobs is None) != scored:
            continue
        low, high = min(shortest, length), max(longest, length)
        most = max(reply, row.max_tokens)
        if high > SPREAD * low + SLACK_TOKENS or (len(chosen) + 1) * (high + most) > kv_tokens:
            continue
        chosen.append(place)
        shortest, longest, reply = low, high, most
    return sorted(chosen)


@dataclass(slots=True)
class Counters:
    """Since the server started. Changed on the event loop's thread only."""

    preemptions: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    batches: int = 0


@dataclass(slots=True, eq=False)
class _Waiting:
    row: Row
    answer: asyncio.Future[Drawn]


RunBatch = Callable[[Sequence[Row], Callable[[], None]], list[Drawn | Exception]]
"""Rows, and whom to tell of a batch that was halved; to outcomes."""


@dataclass(slots=True, eq=False)
class Batcher:
    """The queue before the model, and the thread that works on it.

    `run_batch` is called on that thread. Everything else belongs to the event loop.
    """

    run_batch: RunBatch
    max_rows: int
    kv_tokens: int
    counters: Counters = field(default_factory=Counters)
    running: int = 0
    _waiting: list[_Waiting] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _batches: SimpleQueue[Callable[[], None]] = field(default_factory=SimpleQueue)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def answer(self, rows: Sequence[Row]) -> list[Drawn]:
        """The rows' outcomes. When the caller is cancelled, its rows are dropped, also those
        that are under way. Raises what went wrong with a row."""
        loop = asyncio.get_running_loop()
        entries = [_Waiting(row, loop.create_future()) for row in rows]
        self._waiting.extend(entries)
        self._arrived.set()
        try:
            return [await entry.answer for entry in entries]
        finally:
            for entry in entries:
                entry.row.abandoned = True
                if not entry.answer.cancel() and not entry.answer.cancelled():
                    entry.answer.exception()  # else asyncio would complain that nobody looked
            if any(entry in self._waiting for entry in entries):
                self._waiting = [entry for entry in self._waiting if entry not in entries]

    async def work(self) -> None:
        """Run batch after batch, until cancelled."""
        # A daemon: a kernel that is under way cannot be interrupted, and holds up no exit.
        threading.Thread(target=self._run_batches, name="batches", daemon=True).start()
        expected = 0
        while True:
            await self._gather(expected)
            if not self._waiting:  # they were dropped meanwhile
                expected = 0
                continue
            places = choose_batch(
                [entry.row for entry in self._waiting],
                max_rows=self.max_rows,
                kv_tokens=self.kv_tokens,
            )
            batch = [self._waiting[place] for place in places]
            taken = set(places)
            self._waiting = [e for place, e in enumerate(self._waiting) if place not in taken]
            expected = len(batch) + len(self._waiting)
            self.running = len(batch)
            try:
                self._settle(batch, await self._run(batch))
            finally:
                self.running = 0

    async def _gather(self, expected: int) -> None:
        """Wait for a row, and for as many as there were before if they come quickly."""
        loop = asyncio.get_running_loop()
        deadline = None
        while True:
            self._arrived.clear()
            if len(self._waiting) >= max(expected, 1):
                return
            if not self._waiting:
                await self._arrived.wait()
                continue
            deadline = deadline or loop.time() + GATHER_S
            try:
                async with asyncio.timeout(min(QUIET_S, deadline - loop.time())):
                    await self._arrived.wait()
            except TimeoutError:
                return

    async def _run(self, batch: Sequence[_Waiting]) -> list[Drawn | Exception]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Drawn | Exception]] = loop.create_future()
        rows = [entry.row for entry in batch]

        def told_halved() -> None:
            loop.call_soon_threadsafe(self._count_halved)

        def settle(outcomes: list[Drawn | Exception]) -> None:
            if not done.done():
                done.set_result(outcomes)

        def run() -> None:
            try:
                outcomes = self.run_batch(rows, told_halved)
            except Exception as error:
                outcomes = [error] * len(rows)
            loop.call_soon_threadsafe(settle, outcomes)

        self._batches.put(run)
        return await done

    def _run_batches(self) -> None:
        while True:
            self._batches.get()()

    def _count_halved(self) -> None:
        self.counters.preemptions += 1

    def _settle(self, batch: Sequence[_Waiting], outcomes: Sequence[Drawn | Exception]) -> None:
        self.counters.batches += 1
        for entry, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Drawn):
                self.counters.prompt_tokens += len(entry.row.prompt)
                self.counters.generated_tokens += len(outcome.tokens)
            if entry.answer.done():  # nobody waits for it any more
                continue
            if isinstance(outcome, Exception):
                entry.answer.set_exception(outcome)
            else:
                entry.answer.set_result(outcome)
