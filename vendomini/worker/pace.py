"""How many requests an engine has at a time, how many episodes play on it, and whose turn it is.

As many as its KV cache holds whole conversations: with one more, taking turns would evict every
prefix just before it is needed again. When an engine preempts after all (estimates are
estimates), the oldest go on asking and the youngest wait: those that are nearest their end give
their room back first.
"""

import asyncio
from heapq import heappop, heappush

from vendomini.chat import Capacity, Load

LOOK_EVERY_S = 2.0
SHRINK = 5  # a fifth fewer at each preemption
QUIET_LOOKS = 15
"""Looks without a preemption after which there may be one more request at a time."""


def most_in_flight(capacity: Capacity, *, conversation_tokens: int | None, at_most: int) -> int:
    """How many whole conversations fit the KV cache, at least 1; `at_most` where it is unknown."""
    if capacity.kv_cache_tokens is None or conversation_tokens is None:
        return at_most
    return max(1, min(at_most, capacity.kv_cache_tokens // conversation_tokens))


class Pace:
    """The episodes under way on one engine, in the order in which they began, and what they ask.

    What is counted is sequences: a request makes one for each of its choices. `at_once` is how
    many requests an episode has in flight at a time; it may ask for more, and waits then.
    """

    def __init__(self, at_most: int, *, at_once: int = 1) -> None:
        self.limit = at_most
        """Most sequences in flight."""
        self.is_crowded = False
        """Whether more requests wait in the engine than run: then no episode begins."""
        self.in_flight = 0
        self._most = at_most
        self._at_once = at_once
        self._under_way: dict[str, int] = {}  # each run with its number, in the order of beginning
        self._begun = 0
        self._arrived = 0
        # By the run's number and by arrival: (number, arrival, run, sequences, its turn, which
        # is told how many it holds).
        self._waiting: list[tuple[int, int, str, int, asyncio.Future[int]]] = []
        self._preemptions = 0
        self._quiet_looks = 0
        self._peak = 0  # sequences in flight, at most since the last look

    @property
    def most_under_way(self) -> int:
        """Most episodes that may ask, and beyond which none begins."""
        return max(1, self.limit // self._at_once)

    def set_most(self, most: int) -> None:
        """Known once the engine has started."""
        self.limit = self._most = most

    def begin(self, run: str) -> None:
        """The youngest from now on."""
        self._begun += 1
        self._under_way[run] = self._begun

    def leave(self, run: str) -> None:
        self._under_way.pop(run, None)
        self._admit()

    async def turn(self, run: str, sequences: int = 1) -> int:
        """Wait until this run is among the oldest that may ask, and there is room for so many
        sequences, or for all that there may be. Returns how many it holds, to be given back."""
        if not self._waiting and self.in_flight + sequences <= self.limit and self._may_ask(run):
            self._take(sequences)  # at once, as nearly always
            return sequences
        self._arrived += 1
        told: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        entry = (self._under_way.get(run, 0), self._arrived, run, sequences, told)
        heappush(self._waiting, entry)
        self._admit()
        try:
            return await told
        except asyncio.CancelledError:
            if told.cancelled():
                self._admit()  # it may have been what the others waited for
            else:
                self.give_back(told.result())
            raise

    def give_back(self, held: int) -> None:
        """Of a request that is answered, or never will be."""
        self.in_flight -= held
        if self._waiting:
            self._admit()

    def observe(self, load: Load) -> None:
        """Back-pressure: fewer after a preemption, one more after a quiet while."""
        preempted = load.preemptions > self._preemptions
        self._preemptions = load.preemptions
        self.is_crowded = load.waiting > max(load.running, 1)
        if preempted:
            self._quiet_looks = 0
            # What was really in flight: a request may make more sequences than was planned.
            fewer = min(
                self.limit, max(self._peak, len(self._under_way) * self._at_once) or self.limit
            )
            self.limit = max(1, fewer - max(1, fewer // SHRINK))
        elif self.limit < self._most:
            self._quiet_looks += 1
            if self._quiet_looks % QUIET_LOOKS == 0:
                self.limit += 1
                self._admit()
        self._peak = self.in_flight

    def _take(self, sequences: int) -> None:
        self.in_flight += sequences
        self._peak = max(self._peak, self.in_flight)

    def _admit(self) -> None:
        """Let in who waits, the oldest first. Nobody passes one that needs more room: it would
        wait for ever."""
        while self._waiting:
            _, _, run, sequences, told = self._waiting[0]
            if not told.done():  # else it was cancelled
                held = min(sequences, self.limit)
                if self.in_flight + held > self.limit or not self._may_ask(run):
                    return
                self._take(held)
                told.set_result(held)
            heappop(self._waiting)

    def _may_ask(self, run: str) -> bool:
        if len(self._under_way) <= self.most_under_way:
            return True
        for rank, other in enumerate(self._under_way):
            if rank >= self.most_under_way:
                return False
            if other == run:
                return True
        return True  # it has left meanwhile
