"""How many episodes play on one engine at a time, and which of them may ask.

As many as its KV cache holds whole conversations: with one more, taking turns would evict every
prefix just before it is needed again. When an engine preempts after all (estimates are
estimates), the oldest go on asking and the youngest wait: those that are nearest their end give
their room back first.
"""

import asyncio

from vendomini.chat import Capacity, Load

LOOK_EVERY_S = 2.0
SHRINK = 5  # a fifth fewer at each preemption
QUIET_LOOKS = 15
"""Looks without a preemption after which one more episode may ask."""


def most_live(capacity: Capacity, *, conversation_tokens: int | None, at_most: int) -> int:
    """How many whole conversations fit the KV cache, at least 1; `at_most` where it is unknown."""
    if capacity.kv_cache_tokens is None or conversation_tokens is None:
        return at_most
    return max(1, min(at_most, capacity.kv_cache_tokens // conversation_tokens))


class Pace:
    """The live episodes of one engine, in the order in which they began."""

    def __init__(self, at_most: int) -> None:
        self.limit = at_most
        """Most episodes that may ask, and beyond which none begins."""
        self.is_crowded = False
        """Whether more requests wait in the engine than run: then no episode begins."""
        self._most = at_most
        self._live: dict[str, None] = {}
        self._preemptions = 0
        self._quiet_looks = 0
        self._changed = asyncio.Event()

    def set_most(self, most: int) -> None:
        """Known once the engine has started."""
        self.limit = self._most = most

    def begin(self, run: str) -> None:
        """The youngest from now on."""
        self._live[run] = None

    def leave(self, run: str) -> None:
        self._live.pop(run, None)
        self._wake()

    async def turn(self, run: str) -> None:
        """Wait until this run is among the oldest that may ask."""
        while len(self._live) > self.limit and not self._may_ask(run):
            await self._changed.wait()

    def observe(self, load: Load) -> None:
        """Back-pressure: fewer after a preemption, one more after a quiet while."""
        preempted = load.preemptions > self._preemptions
        self._preemptions = load.preemptions
        self.is_crowded = load.waiting > max(load.running, 1)
        if preempted:
            self._quiet_looks = 0
            fewer = min(self.limit, len(self._live) or self.limit)
            self.limit = max(1, fewer - max(1, fewer // SHRINK))
        elif self.limit < self._most:
            self._quiet_looks += 1
            if self._quiet_looks % QUIET_LOOKS == 0:
                self.limit += 1
                self._wake()

    def _may_ask(self, run: str) -> bool:
        for rank, other in enumerate(self._live):
            if rank >= self.limit:
                return False
            if other == run:
                return True
        return True  # it has left meanwhile

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
