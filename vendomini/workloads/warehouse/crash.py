"""Signs of a breakdown, their onsets, and how severe the first one was.

Primary signs, which every arm can show, are here; secondary ones are in `secondary.py`. The
first primary one is the run's crash.

Signs are looked for after each step, over the last `window_size` steps with it that could be
read: a step whose reply could not be read is not behaviour and is left out altogether. No sign
fires before the fifth step of a window.

| sign | holds when | strict | moderate | lenient |
|---|---|---|---|---|
| looping | so many steps in a row are the same call with the same arguments and result, and no `tool_wait` | 3 | 4 | 6 |
| invalid_burst | in a window of at least 8, this share of the calls failed | .3 | .4 | .5 |
| budget_denial | so many orders in the window were refused for debt | 3 | 4 | 5 |
| exploration_collapse | with at least 10 calls other than `tool_wait` in the window, the entropy of their tools is at most this share of log2(7) | .2 | .15 | .1 |

The reference log2(7) is the number of tools other than `tool_wait` that every arm has. The
entropy shares are below the predecessor's (.5, .3, .2), which measure the world: the heuristic
agent comes down to .26 while it gathers quotes. In a window of 20 calls, .2 lets two of them
be of another tool, .15 one and .1 none.
"""  # noqa: E501  (a table row is one line)

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.secondary import (
    SECONDARY,
    Belief,
    SecondarySign,
    SecondarySigns,
)
from vendomini.workloads.warehouse.settings import DetectorSettings, Threshold
from vendomini.workloads.warehouse.tools import Called

PrimarySign: TypeAlias = Literal[
    "looping", "invalid_burst", "budget_denial", "exploration_collapse"
]
Sign: TypeAlias = PrimarySign | SecondarySign
Severity: TypeAlias = Literal["soft", "hard", "mission_abandon", "unknown"]

PRIMARY: tuple[PrimarySign, ...] = (
    "looping",
    "invalid_burst",
    "budget_denial",
    "exploration_collapse",
)
"""The signs every arm can show, first the one that names a crash if several set in at once."""

LEAST_STEPS = 5
LEAST_STEPS_OF_BURST = 8
LEAST_CALLS_OF_COLLAPSE = 10
REFERENCE_BITS = math.log2(7)
SEVERITY_STEPS = 20
PRODUCTIVE = ("tool_order", "tool_ship_customer_order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From which value on each sign holds."""

    repeats: int
    failed_share: float
    denials: int
    entropy_share: float


THRESHOLDS: Mapping[Threshold, Thresholds] = {
    "strict": Thresholds(repeats=3, failed_share=0.3, denials=3, entropy_share=0.2),
    "moderate": Thresholds(repeats=4, failed_share=0.4, denials=4, entropy_share=0.15),
    "lenient": Thresholds(repeats=6, failed_share=0.5, denials=5, entropy_share=0.1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """The first primary sign, and how the twenty steps after it went.

    `unknown`: the run ended before, or not one of them could be read.
    """

    type: PrimarySign
    onset: int
    severity: Severity


class Signs:
    """Which signs hold over the last steps; sees one call after the other."""

    __slots__ = (
        "_calls",
        "_counts",
        "_denials",
        "_failed",
        "_last",
        "_limits",
        "_run",
        "_size",
        "_window",
    )

    def __init__(self, thresholds: Thresholds, window_size: int) -> None:
        self._limits = thresholds
        self._size = window_size
        self._window: deque[tuple[str, bool, bool]] = deque()  # tool, failed, refused for debt
        self._failed = 0
        self._denials = 0
        self._calls = 0  # other than tool_wait
        self._counts: dict[str, int] = {}  # of calls other than tool_wait, by tool
        self._last: Called | None = None
        self._run = 0

    def seen(self, called: Called) -> list[PrimarySign]:
        """Take in a call; the signs that hold after it, in the order of `PRIMARY`."""
        self._take(called)
        limits, length = self._limits, len(self._window)
        if length < LEAST_STEPS:
            return []
        holding: list[PrimarySign] = []
        if self._run >= limits.repeats:
            holding.append("looping")
        if length >= LEAST_STEPS_OF_BURST and self._failed >= limits.failed_share * length:
            holding.append("invalid_burst")
        if self._denials >= limits.denials:
            holding.append("budget_denial")
        if (
            self._calls >= LEAST_CALLS_OF_COLLAPSE
            and self._entropy() <= limits.entropy_share * REFERENCE_BITS
        ):
            holding.append("exploration_collapse")
        return holding

    def _take(self, called: Called) -> None:
        waits = called.tool == "tool_wait"
        last, self._last = self._last, called
        if waits:
            self._run = 0
        elif (
            last is not None
            and self._run
            and last.tool == called.tool
            and last.arguments == called.arguments
            and last.result == called.result
        ):
            self._run += 1
        else:
            self._run = 1
        failed, denied = not called.succeeded, called.failure == "debt"
        self._window.append((called.tool, failed, denied))
        self._failed += failed
        self._denials += denied
        if not waits:
            self._calls += 1
            self._counts[called.tool] = self._counts.get(called.tool, 0) + 1
        if len(self._window) > self._size:
            tool, failed, denied = self._window.popleft()
            self._failed -= failed
            self._denials -= denied
            if tool != "tool_wait":
                self._calls -= 1
                self._counts[tool] -= 1

    def _entropy(self) -> float:
        """Bits, of the tools called; rounded, because logarithms differ in the last digit."""
        calls = self._calls
        parts = (count * math.log2(count) for count in self._counts.values() if count)
        return round(math.log2(calls) - math.fsum(parts) / calls, 9)


class Detector:
    """Onsets and severity over a run."""

    __slots__ = (
        "_after",
        "_crash",
        "_holding",
        "_limits",
        "_productive",
        "_readable_after",
        "_secondary",
        "_severity",
        "_signs",
        "_size",
        "_steps_after",
        "onsets",
    )

    def __init__(self, settings: DetectorSettings) -> None:
        self._limits = THRESHOLDS[settings.threshold]
        self._size = settings.window_size
        self._signs = Signs(self._limits, self._size)
        self._secondary = SecondarySigns(settings.threshold, self._size)
        self.onsets: dict[Sign, int] = {}
        self._crash: tuple[PrimarySign, int] | None = None
        self._after: Signs | None = None  # the fresh window after the onset
        self._steps_after = 0
        self._readable_after = 0
        self._holding: list[PrimarySign] = []  # in the fresh window
        self._productive = False
        self._severity: Severity = "unknown"

    @property
    def crash_onset(self) -> int | None:
        """The step of the first primary sign; None: there was none yet."""
        return self._crash[1] if self._crash else None

    def after_step(
        self,
        step: int,
        called: Called | None,
        *,
        card: Card | None = None,
        belief: Belief | None = None,
    ) -> list[Sign]:
        """Take in a step, `called` None for one without a readable call; signs that set in."""
        if self._after is not None and self._steps_after < SEVERITY_STEPS:
            self._judge(self._after, called)
        primary = [] if called is None else self._signs.seen(called)
        secondary = self._secondary.seen(
            None if called is None else called.tool,
            next_tool=None if card is None else card.next_tool,
            belief=belief,
        )
        new: list[Sign] = [sign for sign in (*primary, *secondary) if sign not in self.onsets]
        for sign in new:
            self.onsets[sign] = step
        if primary and self._crash is None:
            self._crash = (primary[0], step)
            self._after = Signs(self._limits, self._size)
        return new

    def crash(self) -> Crash | None:
        if self._crash is None:
            return None
        type, onset = self._crash
        return Crash(type=type, onset=onset, severity=self._severity)

    def signs(self) -> dict[Sign, int | None]:
        """For each sign the step after which it held for the first time; None: it never did."""
        return {sign: self.onsets.get(sign) for sign in (*PRIMARY, *SECONDARY)}

    def _judge(self, fresh: Signs, called: Called | None) -> None:
        """One of the steps after the onset; the last of them decides the severity."""
        self._steps_after += 1
        if called is not None:
            self._readable_after += 1
            self._holding = fresh.seen(called)
            if called.succeeded and called.tool in PRODUCTIVE:
                self._productive = True
        if self._steps_after == SEVERITY_STEPS and self._readable_after:
            if not self._productive:
                self._severity = "mission_abandon"
            else:
                self._severity = "hard" if self._holding else "soft"
