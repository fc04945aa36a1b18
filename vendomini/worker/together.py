"""One piece of work for all who want it at about the same time, such as a sync."""

import asyncio
from collections.abc import Callable


class Together:
    """Calls `work`, in a thread, for any number of tasks at once.

    Whoever asks while it runs waits for the next call: each is served by one that began after it
    asked. An error of a call reaches all whom it served.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None  # waits for the one that runs

    async def __call__(self) -> None:
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
            self._next.add_done_callback(_heard)
        # One who is cancelled leaves the others what they wait for.
        await asyncio.shield(self._next)

    async def _after(self, running: "asyncio.Task[None] | None") -> None:
        if running is not None:
            await asyncio.wait({running})
        self._running, self._next = self._next, None
        await asyncio.to_thread(self._work)


# -- private -------------------------------------------------------------------------------


def _heard(task: "asyncio.Task[None]") -> None:
    """When all whom it served were cancelled, nobody else asks for its error, and asyncio would
    complain of that whenever memory is tidied up."""
    if not task.cancelled():
        task.exception()
