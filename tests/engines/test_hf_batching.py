"""Which rows make a batch, the queue before the model, and batches that do not fit memory."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
import torch

from vendomini.engines.hf.batching import Batcher, choose_batch
from vendomini.engines.hf.generation import Drawn, run_halving
from vendomini.engines.hf.sampling import Row


def row(length: int, *, max_tokens: int = 10, scored: bool = False) -> Row:
    return Row(
        prompt=[1] * length,
        max_tokens=max_tokens,
        temperature=0.0,
        top_p=1.0,
        prompt_logprobs=0 if scored else None,
    )


def drawn(rows: Sequence[Row]) -> list[Drawn | Exception]:
    return [Drawn(tokens=[len(row.prompt)], stopped=True) for row in rows]


def test_all_that_wait_and_are_alike_go_together() -> None:
    waiting = [row(1000), row(1100), row(900), row(1200)]
    assert choose_batch(waiting, max_rows=256, kv_tokens=10**6) == [0, 1, 2, 3]


def test_the_oldest_is_in_the_batch_and_padding_is_bounded() -> None:
    waiting = [row(4000), *(row(100) for _ in range(20)), row(3500)]
    assert choose_batch(waiting, max_rows=256, kv_tokens=10**6) == [0, 21]


def test_rows_are_bounded_by_number_and_by_the_kv_cache() -> None:
    waiting = [row(100, max_tokens=100) for _ in range(20)]
    assert len(choose_batch(waiting, max_rows=8, kv_tokens=10**6)) == 8
    assert len(choose_batch(waiting, max_rows=256, kv_tokens=1000)) == 5
    assert len(choose_batch(waiting, max_rows=256, kv_tokens=1)) == 1


def test_a_long_reply_counts_for_every_row_beside_it() -> None:
    waiting = [row(100, max_tokens=10), row(100, max_tokens=900), row(100, max_tokens=10)]
    assert choose_batch(waiting, max_rows=256, kv_tokens=1999) == [0, 2]


def test_scored_prompts_are_batched_apart() -> None:
    waiting = [row(10, scored=True), row(10), row(11, scored=True)]
    assert choose_batch(waiting, max_rows=256, kv_tokens=10**6) == [0, 2]


class Held:
    """A model whose batches wait until they are let go."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def __call__(self, rows: Sequence[Row], _: Callable[[], None]) -> list[Drawn | Exception]:
        self.sizes.append(len(rows))
        self.begun.release()
        self.go_on.acquire()
        return drawn(rows)


def test_requests_that_wait_are_batched_at_once_and_dropped_ones_never_run() -> None:
    async def main() -> list[int]:
        held = Held()
        batcher = Batcher(run_batch=held, max_rows=256, kv_tokens=10**6)
        working = asyncio.create_task(batcher.work())
        first = asyncio.create_task(batcher.answer([row(10)]))
        await asyncio.to_thread(held.begun.acquire)
        others = [asyncio.create_task(batcher.answer([row(10), row(10)])) for _ in range(5)]
        await asyncio.sleep(0)  # each puts its rows into the queue
        assert batcher.waiting == 10
        gone = others.pop()
        gone.cancel()
        await asyncio.wait([gone])
        assert batcher.waiting == 8
        held.go_on.release()
        held.go_on.release()
        await asyncio.gather(first, *others)
        working.cancel()
        return held.sizes

    assert asyncio.run(main()) == [1, 8]


def test_rows_nobody_waits_for_are_marked_so_that_their_batch_can_end_them() -> None:
    async def main() -> bool:
        held = Held()
        batcher = Batcher(run_batch=held, max_rows=256, kv_tokens=10**6)
        working = asyncio.create_task(batcher.work())
        left = row(10)
        asked = asyncio.create_task(batcher.answer([left]))
        await asyncio.to_thread(held.begun.acquire)
        asked.cancel()
        await asyncio.wait([asked])
        held.go_on.release()
        working.cancel()
        return left.abandoned

    assert asyncio.run(main())


def test_a_batch_that_fails_is_that_batchs_error_and_the_next_is_answered() -> None:
    def run(rows: Sequence[Row], _: Callable[[], None]) -> list[Drawn | Exception]:
        if len(rows[0].prompt) == 13:
            raise ValueError("unlucky")
        return drawn(rows)

    async def main() -> list[Drawn]:
        batcher = Batcher(run_batch=run, max_rows=256, kv_tokens=10**6)
        working = asyncio.create_task(batcher.work())
        with pytest.raises(ValueError, match="unlucky"):
            await batcher.answer([row(13), row(13)])
        found = await batcher.answer([row(14)])
        working.cancel()
        return found

    assert asyncio.run(main())[0].tokens == [14]


def test_a_batch_that_does_not_fit_memory_is_halved_until_it_does() -> None:
    told: list[None] = []
    sizes = []

    def run(rows: Sequence[Row]) -> list[Drawn]:
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("too much")
        return [Drawn(tokens=[len(row.prompt)], stopped=True) for row in rows]

    outcomes = run_halving(
        [row(length) for length in range(1, 9)], run, told_halved=lambda: told.append(None)
    )
    assert [outcome.tokens[0] for outcome in outcomes if isinstance(outcome, Drawn)] == [
        *range(1, 9)
    ]
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert len(told) == 3


def test_one_row_that_does_not_fit_fails_alone() -> None:
    def run(rows: Sequence[Row]) -> list[Drawn]:
        if any(len(row.prompt) == 3 for row in rows):
            raise torch.OutOfMemoryError("too much")
        return [Drawn(tokens=[1], stopped=True) for _ in rows]

    outcomes = run_halving([row(length) for length in (1, 2, 3, 4)], run, told_halved=lambda: None)
    assert [isinstance(outcome, Exception) for outcome in outcomes] == [False, False, True, False]


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def run(rows: Sequence[Row]) -> list[Drawn]:
        calls.append(len(rows))
        raise RuntimeError("no") if len(calls) == 1 else ValueError("a bug")

    outcomes = run_halving([row(1), row(2)], run, told_halved=lambda: None)
    assert [str(outcome) for outcome in outcomes] == ["no", "no"]
    with pytest.raises(ValueError, match="a bug"):
        run_halving([row(1), row(2)], run, told_halved=lambda: None)
    assert calls == [2, 2]
