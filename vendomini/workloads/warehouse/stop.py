"""What ends a run. It is played, and so part of what a run is: nothing here may be tuned.

A run ends at the first of these, looked for in the evening of each step:

| ends | when | competes |
|---|---|---|
| bankrupt | the budget is below the limit of debt | yes |
| unusable | the replies of 20 steps in a row could not be read | yes |
| max_failures | so many customer orders have expired, where a file sets it | yes |
| never_started | it is day 150, or twice the pairs of a SKU and a supplier, whichever is later, and no order has succeeded | yes |
| crash | the first primary sign by the rule `lenient` is `continue_after_crash` steps old | no |
| max_steps | so many were played | no |

What competes ends the chance of a crash. The primary signs are those of `crash.py`, by constants
and code of this module alone: a detector can be changed there, and runs stay as they are. Only
`lenient` is played. By the other rules ended the runs of versions that had a choice; they are
kept to replay those.
"""  # noqa: E501  (a table row is one line)

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vendomini.workloads.warehouse.settings import (
    SKUS,
    SUPPLIERS,
    SimulationSettings,
    Threshold,
    WarehouseSettings,
)
from vendomini.workloads.warehouse.tools import Called
from vendomini.workloads.warehouse.world import World, bankrupt_below

Competing: TypeAlias = Literal["bankrupt", "unusable", "max_failures", "never_started"]
End: TypeAlias = Literal[
    "max_steps", "crash", "bankrupt", "unusable", "max_failures", "never_started"
]

UNREADABLE_STEPS = 20  # in a row
STARTED_BY_DAY = 150
STARTED_BY_PAIRS = 2  # days a pair of a SKU and a supplier: time to ask for every price twice

LEAST_STEPS = 5
LEAST_STEPS_OF_BURST = 8
LEAST_CALLS_OF_COLLAPSE = 10
REFERENCE_BITS = math.log2(7)
DIGITS = 9  # of an entropy: logarithms differ in the last ones


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """From which value on each sign holds."""

    repeats: int
    failed_share: float
    denials: int
    entropy_share: float


RULES: Mapping[Threshold, Limits] = {
    "strict": Limits(repeats=3, failed_share=0.3, denials=3, entropy_share=0.2),
    "moderate": Limits(repeats=4, failed_share=0.4, denials=4, entropy_share=0.15),
    "lenient": Limits(repeats=6, failed_share=0.5, denials=5, entropy_share=0.1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRule:
    """Which rule ends a run. `must_start` is not set in runs of before there was never_started."""

    name: Threshold = "lenient"
    must_start: bool = True


PLAYED = StopRule()


def started_by(simulation: SimulationSettings) -> int:
    """The day by whose evening an order has to have succeeded."""
    level = simulation.complexity_level
    return max(STARTED_BY_DAY, STARTED_BY_PAIRS * SKUS[level] * SUPPLIERS[level])


class Stop:
    """Sees a run step by step, and says when it ends."""

    __slots__ = (
        "_bankrupt_below",
        "_continue",
        "_max_failures",
        "_max_steps",
        "_sign",
        "_started_by",
        "_unreadable",
        "_world",
        "onset",
        "rule",
    )

    def __init__(self, rule: StopRule, settings: WarehouseSettings, world: World) -> None:
        self.rule = rule.name
        self.onset: int | None = None
        """The step after which a primary sign held by the rule for the first time."""
        self._world = world
        self._bankrupt_below = bankrupt_below(world.budget)
        self._max_steps = settings.simulation.max_steps
        self._max_failures = settings.demand.max_failures
        self._started_by = started_by(settings.simulation) if rule.must_start else None
        self._continue = settings.crash_detector.continue_after_crash
        self._unreadable = 0  # in a row
        window_size = settings.crash_detector.window_size
        self._sign: FirstSign | None = FirstSign(RULES[rule.name], window_size)

    def after_step(self, step: int, called: Called | None) -> End | None:
        """Why `step` was the last; None: it was not. `called` None: nothing could be read."""
        if called is None:
            self._unreadable += 1
        else:
            self._unreadable = 0
            if self._sign is not None and self._sign.holds_after(called):
                self.onset = step
                self._sign = None  # there is nothing more to look for
        world = self._world
        if world.budget < self._bankrupt_below:
            return "bankrupt"
        if self._unreadable >= UNREADABLE_STEPS:
            return "unusable"
        if self._max_failures is not None and world.totals.failed >= self._max_failures:
            return "max_failures"
        if not world.orders_placed and self._started_by is not None and step >= self._started_by:
            return "never_started"
        if self.onset is not None and step - self.onset >= self._continue:
            return "crash"
        return "max_steps" if step + 1 >= self._max_steps else None


class FirstSign:
    """Whether any primary sign holds over the last steps; sees one readable call after another."""

    __slots__ = (
        "_bits",
        "_calls",
        "_counts",
        "_denials",
        "_failed",
        "_last",
        "_least_share",
        "_limits",
        "_run",
        "_size",
        "_window",
    )

    def __init__(self, limits: Limits, window_size: int) -> None:
        self._limits = limits
        self._size = window_size
        self._bits = limits.entropy_share * REFERENCE_BITS
        # No entropy is below that of the commonest tool alone, -log2 of its share: where this
        # tool has less than this share, there is no need to compute it.
        self._least_share = 2 ** -(self._bits + 1e-6)
        self._window: deque[tuple[str, bool, bool]] = deque()  # tool, failed, refused for debt
        self._failed = 0
        self._denials = 0
        self._calls = 0  # other than tool_wait
        self._counts: dict[str, int] = {}  # of calls other than tool_wait, by tool
        self._last: Called | None = None
        self._run = 0

    def holds_after(self, called: Called) -> bool:
        """Take in a call; whether a sign holds after it."""
        self._take(called)
        limits, length = self._limits, len(self._window)
        if length < LEAST_STEPS:
            return False
        return (
            self._run >= limits.repeats
            or self._denials >= limits.denials
            or (length >= LEAST_STEPS_OF_BURST and self._failed >= limits.failed_share * length)
            or (self._calls >= LEAST_CALLS_OF_COLLAPSE and self._collapses())
        )

    def _take(self, called: Called) -> None:
        tool, last = called.tool, self._last
        self._last = called
        if tool == "tool_wait":
            self._run = 0
        elif (
            last is not None
            and self._run
            and last.tool == tool
            and last.arguments == called.arguments
            and last.result == called.result
        ):
            self._run += 1
        else:
            self._run = 1
        failure = called.failure
        self._count(tool, failure is not None, failure == "debt", 1)
        self._window.append((tool, failure is not None, failure == "debt"))
        if len(self._window) > self._size:
            self._count(*self._window.popleft(), -1)

    def _count(self, tool: str, failed: bool, denied: bool, change: int) -> None:
        self._failed += change * failed
        self._denials += change * denied
        if tool != "tool_wait":
            self._calls += change
            left = self._counts.get(tool, 0) + change
            if left:
                self._counts[tool] = left
            else:
                del self._counts[tool]  # agents make names up: they must not heap up

    def _collapses(self) -> bool:
        counts, calls = self._counts.values(), self._calls
        if max(counts) < self._least_share * calls:
            return False
        parts = (count * math.log2(count) for count in counts)
        return round(math.log2(calls) - math.fsum(parts) / calls, DIGITS) <= self._bits
