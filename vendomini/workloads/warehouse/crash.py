"""Signs of a breakdown, their onsets, and how severe the first one was.

All of it is derived from the steps of a run (`derived.py`), and nothing here acts on a run: what
ends one has constants and code of its own (`stop.py`).

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
from typing import Literal, Protocol, TypeAlias

from vendomini.workloads.warehouse.settings import Threshold

PrimarySign: TypeAlias = Literal[
    "looping", "invalid_burst", "budget_denial", "exploration_collapse"
]
Severity: TypeAlias = Literal["soft", "hard", "mission_abandon", "unknown", "not observable"]

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

    `unknown`: not one of them could be read. `not observable`: the run ended before.
    """

    type: PrimarySign
    onset: int
    severity: Severity


class Call(Protocol):
    """A call that was made, live or from a log; `failure` None: it succeeded."""

    @property
    def tool(self) -> str: ...
    @property
    def arguments(self) -> object: ...
    @property
    def result(self) -> object: ...
    @property
    def failure(self) -> str | None: ...


class Signs:
    """What the last calls were like, and which signs hold then by any thresholds; sees one call
    after the other."""

    __slots__ = (
        "_bits",
        "_calls",
        "_counts",
        "_denials",
        "_failed",
        "_last",
        "_least_bits",
        "_run",
        "_size",
        "_window",
    )

    def __init__(self, window_size: int) -> None:
        self._size = window_size
        self._window: deque[tuple[str, bool, bool]] = deque()  # tool, failed, refused for debt
        self._failed = 0
        self._denials = 0
        self._calls = 0  # other than tool_wait
        self._counts: dict[str, int] = {}  # of calls other than tool_wait, by tool
        self._last: Call | None = None
        self._run = 0
        # The entropy of the tools called, and what it is at least, once they were asked for.
        self._bits: float | None = None
        self._least_bits: float | None = None

    def take(self, called: Call) -> None:
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
        self._bits = self._least_bits = None

    def holding(self, limits: Thresholds) -> list[PrimarySign]:
        """The signs that hold after the last call, in the order of `PRIMARY`."""
        length = len(self._window)
        if length < LEAST_STEPS:
            return []
        holding: list[PrimarySign] = []
        if self._run >= limits.repeats:
            holding.append("looping")
        if length >= LEAST_STEPS_OF_BURST and self._failed >= limits.failed_share * length:
            holding.append("invalid_burst")
        if self._denials >= limits.denials:
            holding.append("budget_denial")
        if self._calls >= LEAST_CALLS_OF_COLLAPSE and self._has_at_most(
            limits.entropy_share * REFERENCE_BITS
        ):
            holding.append("exploration_collapse")
        return holding

    def _count(self, tool: str, failed: bool, denied: bool, change: int) -> None:
        self._failed += change * failed
        self._denials += change * denied
        if tool != "tool_wait":
            self._calls += change
            left = self._counts.get(tool, 0) + change
            if left:
                self._counts[tool] = left
            else:
                del self._counts[tool]

    def _has_at_most(self, bits: float) -> bool:
        """Whether the entropy of the tools called is at most so many bits."""
        if self._least_bits is None:
            # That of the commonest tool alone, less what rounding may take away: nearly always
            # it is enough to know this.
            self._least_bits = -math.log2(max(self._counts.values()) / self._calls) - 1e-6
        if self._least_bits > bits:
            return False
        if self._bits is None:
            self._bits = self._entropy()
        return self._bits <= bits

    def _entropy(self) -> float:
        """Bits, of the tools called; rounded, because logarithms differ in the last digit."""
        calls = self._calls
        parts = (count * math.log2(count) for count in self._counts.values())
        return round(math.log2(calls) - math.fsum(parts) / calls, 9)


class Detector:
    """Onsets and severity over a run, by one set of thresholds."""

    __slots__ = (
        "_after",
        "_crash",
        "_holding",
        "_limits",
        "_productive",
        "_readable_after",
        "_size",
        "_steps_after",
        "onsets",
    )

    def __init__(self, limits: Thresholds, window_size: int) -> None:
        self._limits = limits
        self._size = window_size
        self.onsets: dict[PrimarySign, int] = {}
        self._crash: tuple[PrimarySign, int] | None = None
        self._after: Signs | None = None  # the fresh window after the onset; None: not under way
        self._steps_after = 0
        self._readable_after = 0
        self._holding: list[PrimarySign] = []  # in the fresh window
        self._productive = False

    def after_step(self, step: int, called: Call | None, signs: Signs) -> list[PrimarySign]:
        """Look at a step; the primary signs that set in with it.

        `called` is None for a step without a readable call; else `signs` have taken it in.
        """
        if self._after is not None:
            self._judge(self._after, called)
        holding = [] if called is None else signs.holding(self._limits)
        if not holding:
            return holding
        if self._crash is None:
            self._crash = (holding[0], step)
            self._after = Signs(self._size)
        new = [sign for sign in holding if sign not in self.onsets]
        for sign in new:
            self.onsets[sign] = step
        return new

    def crash(self) -> Crash | None:
        """None: no primary sign has set in."""
        if self._crash is None:
            return None
        type, onset = self._crash
        return Crash(type=type, onset=onset, severity=self._severity())

    def _judge(self, fresh: Signs, called: Call | None) -> None:
        """Look at one of the steps after the onset."""
        self._steps_after += 1
        if called is not None:
            self._readable_after += 1
            fresh.take(called)
            self._holding = fresh.holding(self._limits)
            if called.failure is None and called.tool in PRODUCTIVE:
                self._productive = True
        if self._steps_after == SEVERITY_STEPS:
            self._after = None

    def _severity(self) -> Severity:
        if self._steps_after < SEVERITY_STEPS:
            return "not observable"
        if not self._readable_after:
            return "unknown"
        if not self._productive:
            return "mission_abandon"
        return "hard" if self._holding else "soft"
