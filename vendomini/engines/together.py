"""Asking several things at once."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def all_or_none(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, in order. When one fails, or the caller is cancelled, so are the others."""
    tasks = [asyncio.ensure_future(each) for each in asked]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
