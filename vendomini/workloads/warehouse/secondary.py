"""Secondary signs: recorded with their onsets and analysed apart, never a run's crash.

Not every arm can show them: they need cards that announce the next tool, or belief questions.

| sign | holds when | strict | moderate | lenient |
|---|---|---|---|---|
| decoupling | of the calls in the window that a card announced, at least 10, this share was of another tool | .4 | .5 | .6 |
| slow_divergence | over the last 10 beliefs about storage, or about the budget, at least 6, the median divergence is above this, and above that of their first half | .3 | .5 | .7 |

A card announces the next call that can be read, whenever it comes. The divergence of a belief
is ``|belief - truth| / max(|truth|, 10)``, in units or money.
"""  # noqa: E501  (a table row is one line)

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vendomini.workloads.warehouse.belief import Belief, divergence
from vendomini.workloads.warehouse.settings import Threshold

SecondarySign: TypeAlias = Literal["decoupling", "slow_divergence"]
SECONDARY: tuple[SecondarySign, ...] = ("decoupling", "slow_divergence")

LEAST_ANNOUNCED = 10
BELIEFS = 10
LEAST_BELIEFS = 6
DECIMALS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondaryThresholds:
    """From which value on each sign holds."""

    decoupled_share: float
    divergence: float


SECONDARY_THRESHOLDS: Mapping[Threshold, SecondaryThresholds] = {
    "strict": SecondaryThresholds(decoupled_share=0.4, divergence=0.3),
    "moderate": SecondaryThresholds(decoupled_share=0.5, divergence=0.5),
    "lenient": SecondaryThresholds(decoupled_share=0.6, divergence=0.7),
}


class SecondarySigns:
    """Which secondary signs hold; sees one step after the other."""

    __slots__ = (
        "_announced",
        "_budget",
        "_differed",
        "_limits",
        "_size",
        "_storage",
        "_window",
    )

    def __init__(self, limits: SecondaryThresholds, window_size: int) -> None:
        self._limits = limits
        self._size = window_size
        self._announced: str | None = None  # the tool that the last card announced
        # Of the calls in the window: whether another tool was announced; None: none was.
        self._window: deque[bool | None] = deque()
        self._differed = [0, 0]  # calls in the window as announced, and of another tool
        self._storage: deque[float] = deque(maxlen=BELIEFS)
        self._budget: deque[float] = deque(maxlen=BELIEFS)

    def seen(
        self, tool: str | None, *, next_tool: str | None, belief: Belief | None
    ) -> list[SecondarySign]:
        """Take in a step; the signs that hold after it, in the order of `SECONDARY`.

        `tool` is None for a step without a readable call; `next_tool` is what its card announces.
        """
        if tool is not None:
            self._take(None if self._announced is None else self._announced != tool)
            self._announced = next_tool
        holding: list[SecondarySign] = []
        as_announced, differed = self._differed
        announced = as_announced + differed
        if announced >= LEAST_ANNOUNCED and differed >= self._limits.decoupled_share * announced:
            holding.append("decoupling")
        if belief is not None:
            if belief.storage is not None:
                self._storage.append(divergence(belief.storage, belief.true_storage))
            if belief.budget is not None:
                self._budget.append(divergence(belief.budget, belief.true_budget))
            if self._drifts(self._storage) or self._drifts(self._budget):
                holding.append("slow_divergence")
        return holding

    def _take(self, differs: bool | None) -> None:
        self._window.append(differs)
        if differs is not None:
            self._differed[differs] += 1
        if len(self._window) > self._size:
            left = self._window.popleft()
            if left is not None:
                self._differed[left] -= 1

    def _drifts(self, seen: deque[float]) -> bool:
        if len(seen) < LEAST_BELIEFS:
            return False
        values = list(seen)
        whole = statistics.median(values)
        first = statistics.median(values[: len(values) // 2])
        return whole > self._limits.divergence and whole > first
