"""Asking several things at once."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def all_or_none(
    asked: Iterable[Coroutine[Any, Any, T]], *, at_once: int | None = None
) -> list[T]:
    """All results, in order. When one fails, or the caller is cancelled, so are the others.

    Of a generator only `at_once` are made and under way at a time; None: all of them.
    """
    if at_once is None:
        return await _gathered(asked)
    waiting = enumerate(asked)
    found: dict[int, T] = {}

    async def some() -> None:
        for place, each in waiting:
            found[place] = await each

    await _gathered(some() for _ in range(at_once))
    return [found[place] for place in sorted(found)]


async def _gathered(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    tasks = [asyncio.ensure_future(each) for each in asked]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
