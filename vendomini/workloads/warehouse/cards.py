"""Prediction cards, and prediction errors resolved when the event happens.

A card belongs to the call it came with. An error is resolved, and exists, only then:

- **causal**, at the call if only success was predicted, else at the day's end: 1 if success
  differs, or the budget after differs from the predicted one by more than 1 % of the larger
  of the two (absolute) values; else 0.
- **storage**, **budget**, at the day's end: units in all and money, after the storage fee.
- **cost**, for a call that costs money: of an order at its payment (what was charged, with the
  fee of returns), of cancelling and expediting at once; 0 if that call failed. A cost
  predicted for a call that is free is no prediction.
- **temporal**, at the delivery: days from the call to the delivery, of an order or of an
  expedited order. Expediting an order withdraws the lead time predicted for it before.
- **quantity**, at the delivery of an order: units that went into storage.

An order that failed or was cancelled never arrives: its lead time, quantity and cost stay
*unresolved*, as does all that has not happened by the end of the run.

    temporal = |predicted - actual| / max(predicted, 1)
    quantity, cost, storage, budget = |predicted - actual| / max(|predicted|, 1)

with money in currency units. Errors come in the order of the events; over those of a type,
from its first one on, three moving averages are kept: ``m <- a error + (1 - a) m`` with m = 0
before the first and a = 0.3 (fast), 0.1 (medium), 0.01 (slow).
"""

import math
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.tools import Called
from vendomini.workloads.warehouse.world import Delivered, Order, Paid

ErrorType: TypeAlias = Literal["temporal", "quantity", "cost", "storage", "budget", "causal"]
ERROR_TYPES: tuple[ErrorType, ...] = (
    "temporal",
    "quantity",
    "cost",
    "storage",
    "budget",
    "causal",
)

FAST, MEDIUM, SLOW = 0.3, 0.1, 0.01
CAUSAL_TOLERANCE = 0.01  # of the larger budget
DECIMALS = 6  # of errors and averages in the log; sums are over unrounded values
COSTLY_AT_ONCE = ("tool_cancel_order", "tool_expedite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """One resolved prediction with both of its sides, for an agent that audits itself.

    `expected` and `actual` are in the unit of the error's type; of a causal error they say
    success, or the budget where that was predicted.
    """

    of: int
    type: ErrorType
    expected: float | bool
    actual: float | bool
    error: float


class Resolved(msgspec.Struct, frozen=True, gc=False):
    """One error, of a prediction made with the call of step `of`."""

    type: ErrorType
    of: int
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSummary:
    """Over the last `size` resolved errors of a type, or all if fewer; None if there are none.

    `sd` is the population's: 0 for a single error.
    """

    size: int
    mean: float | None
    sd: float | None
    max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """A type's errors over a run; `unresolved` counts predictions whose event never came."""

    predicted: int
    resolved: int
    unresolved: int
    mean: float | None
    sd: float | None
    max: float | None
    ewma_fast: float | None
    ewma_medium: float | None
    ewma_slow: float | None
    windows: tuple[WindowSummary, ...]


class Track:
    """The errors of one type, as they resolve."""

    __slots__ = (
        "_fast",
        "_longest",
        "_medium",
        "_recent",
        "_slow",
        "_stats",
        "averages",
        "predicted",
    )

    def __init__(self, longest_window: int) -> None:
        self.predicted = 0
        # fast, medium, slow as the log shows them; None before the first error
        self.averages: tuple[float, float, float] | None = None
        self._fast = self._medium = self._slow = 0.0
        self._stats = (0, 0.0, 0.0, 0.0)  # count, mean, sum of squared deviations, max
        self._longest = longest_window
        self._recent = array("d")  # a ring: thousands of runs under way at once, each with six

    def add(self, error: float) -> None:
        """Count an error, in Welford's way, so that memory does not grow with the run."""
        count, mean, squares, largest = self._stats
        if count < self._longest:
            self._recent.append(error)
        else:
            self._recent[count % self._longest] = error
        count += 1
        off = error - mean
        mean += off / count
        self._stats = (count, mean, squares + off * (error - mean), max(largest, error))
        self._fast += FAST * (error - self._fast)
        self._medium += MEDIUM * (error - self._medium)
        self._slow += SLOW * (error - self._slow)
        self.averages = (
            round(self._fast, DECIMALS),
            round(self._medium, DECIMALS),
            round(self._slow, DECIMALS),
        )

    def summary(self, windows: tuple[int, ...]) -> ErrorSummary:
        count, mean, squares, largest = self._stats
        fast, medium, slow = self.averages or (None, None, None)
        oldest = count % self._longest if count > self._longest else 0
        recent = self._recent[oldest:] + self._recent[:oldest]
        return ErrorSummary(
            predicted=self.predicted,
            resolved=count,
            unresolved=self.predicted - count,
            mean=round(mean, DECIMALS) if count else None,
            sd=round(math.sqrt(squares / count), DECIMALS) if count else None,
            max=round(largest, DECIMALS) if count else None,
            ewma_fast=fast,
            ewma_medium=medium,
            ewma_slow=slow,
            windows=tuple(_window(size, recent[-size:]) for size in windows),
        )


@dataclass(slots=True, kw_only=True)
class _Bound:
    """What is still expected of an order: the step and day of the call, and what it said."""

    step: int
    day: int
    lead: float | None
    quantity: float | None
    cost: float | None


class Predictions:
    """Binds cards to calls and resolves them; one per run."""

    __slots__ = (
        "_at_day_end",
        "_audit",
        "_delivered",
        "_forward",
        "_paid",
        "_today",
        "_windows",
        "tracks",
    )

    def __init__(self, windows: tuple[int, ...], *, audited: int = 0) -> None:
        """The newest `audited` resolved predictions are kept with both sides."""
        self.tracks: dict[ErrorType, Track] = {name: Track(windows[-1]) for name in ERROR_TYPES}
        self._windows = windows
        self._delivered: dict[str, _Bound] = {}  # by order: waits for its delivery
        self._paid: dict[str, _Bound] = {}  # by order: waits for its payment
        self._forward: dict[str, _Bound] = {}  # by order: predicted when it was expedited
        self._at_day_end: tuple[int, Card, bool] | None = None
        self._today: list[Resolved] = []
        self._audit: deque[Audited] | None = deque(maxlen=audited) if audited else None

    @property
    def audit(self) -> tuple[Audited, ...]:
        """The newest resolved predictions, oldest first."""
        return tuple(self._audit or ())

    def happened(self, event: Delivered | Paid) -> None:
        """A delivery or a payment resolves what was predicted of its order."""
        order = event.order
        if isinstance(event, Paid):
            bound = self._paid.pop(order.id, None)
            if bound is not None and bound.cost is not None:
                self._compare("cost", bound.step, bound.cost, event.amount / 100)
            return
        bound = self._delivered.pop(order.id, None)
        timed = self._forward.pop(order.id, bound)
        if timed is not None and timed.lead is not None:
            expected, actual = timed.lead, event.day - timed.day
            error = abs(expected - actual) / max(expected, 1.0)
            self._resolve("temporal", timed.step, expected, actual, error=error)
        if bound is not None and bound.quantity is not None:
            self._compare("quantity", bound.step, bound.quantity, event.accepted)

    def expedited(self, order: Order) -> None:
        """Withdraw the lead times predicted for an order that has been expedited, card or not."""
        self._forward.pop(order.id, None)
        bound = self._delivered.get(order.id)
        if bound is not None:
            bound.lead = None

    def made(self, card: Card, called: Called, *, step: int, day: int) -> None:
        """Bind the card of a call to what it is about."""
        tracks = self.tracks
        if card.expected_storage_after is not None:
            tracks["storage"].predicted += 1
        if card.expected_budget_after is not None:
            tracks["budget"].predicted += 1
            tracks["causal"].predicted += 1
        elif card.expected_success is not None:
            tracks["causal"].predicted += 1
            wrong = card.expected_success != called.succeeded
            self._resolve(
                "causal", step, card.expected_success, called.succeeded, error=float(wrong)
            )
        self._at_day_end = (step, card, called.succeeded)
        if called.tool == "tool_order":
            self._order_made(card, called, step=step, day=day)
        elif called.tool in COSTLY_AT_ONCE:
            if card.expected_cost is not None:
                tracks["cost"].predicted += 1
                self._compare("cost", step, card.expected_cost, called.paid / 100)
            if called.tool == "tool_expedite":
                self._expedite_made(card, called, step=step, day=day)

    def day_ended(self, *, storage: int, budget: int) -> list[Resolved]:
        """Resolve what was said of the day's end (units, cents); all errors of the step."""
        if self._at_day_end is not None:
            step, card, succeeded = self._at_day_end
            self._at_day_end = None
            if card.expected_storage_after is not None:
                self._compare("storage", step, card.expected_storage_after, storage)
            if card.expected_budget_after is not None:
                expected, actual = card.expected_budget_after, budget / 100
                self._compare("budget", step, expected, actual)
                larger = max(abs(expected), abs(actual))
                wrong = abs(expected - actual) > CAUSAL_TOLERANCE * larger
                if card.expected_success is not None and card.expected_success != succeeded:
                    wrong = True
                self._resolve("causal", step, expected, actual, error=float(wrong))
        today, self._today = self._today, []
        return today

    def summaries(self) -> dict[ErrorType, ErrorSummary]:
        return {name: track.summary(self._windows) for name, track in self.tracks.items()}

    def _order_made(self, card: Card, called: Called, *, step: int, day: int) -> None:
        bound = _Bound(
            step=step,
            day=day,
            lead=card.expected_lead_days,
            quantity=card.expected_quantity,
            cost=card.expected_cost,
        )
        self.tracks["temporal"].predicted += bound.lead is not None
        self.tracks["quantity"].predicted += bound.quantity is not None
        self.tracks["cost"].predicted += bound.cost is not None
        if called.ordered is not None:
            self._delivered[called.ordered.id] = bound
            self._paid[called.ordered.id] = bound

    def _expedite_made(self, card: Card, called: Called, *, step: int, day: int) -> None:
        lead = card.expected_lead_days
        self.tracks["temporal"].predicted += lead is not None
        if called.expedited is not None:
            self._forward[called.expedited.id] = _Bound(
                step=step, day=day, lead=lead, quantity=None, cost=None
            )

    def _compare(self, type: ErrorType, of: int, expected: float, actual: float) -> None:
        self._resolve(type, of, expected, actual, error=relative(expected, actual))

    def _resolve(
        self, type: ErrorType, of: int, expected: float, actual: float, *, error: float
    ) -> None:
        self.tracks[type].add(error)
        rounded = round(error, DECIMALS)
        self._today.append(Resolved(type, of, rounded))
        if self._audit is not None:
            self._audit.append(
                Audited(of=of, type=type, expected=expected, actual=actual, error=rounded)
            )


def relative(predicted: float, actual: float) -> float:
    """|predicted - actual| / max(|predicted|, 1)."""
    return abs(predicted - actual) / max(abs(predicted), 1.0)


def _window(size: int, errors: Sequence[float]) -> WindowSummary:
    if not errors:
        return WindowSummary(size=size, mean=None, sd=None, max=None)
    mean = math.fsum(errors) / len(errors)
    squares = math.fsum((error - mean) ** 2 for error in errors)
    return WindowSummary(
        size=size,
        mean=round(mean, DECIMALS),
        sd=round(math.sqrt(squares / len(errors)), DECIMALS),
        max=round(max(errors), DECIMALS),
    )
