"""What a run leaves: its steps and its outcome. No clock, so both are byte-stable.

Money is in currency units: whole cents over 100, so every amount prints with at most two
decimals. Errors and averages are rounded to six decimals.
"""

from dataclasses import dataclass

import msgspec

from vendomini.workloads.warehouse.agent import ParseStatus
from vendomini.workloads.warehouse.belief import Belief
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.cards import ErrorSummary, ErrorType, Resolved
from vendomini.workloads.warehouse.settings import Threshold
from vendomini.workloads.warehouse.shocks import Applied, ShockType
from vendomini.workloads.warehouse.stop import End
from vendomini.workloads.warehouse.tools import Result


class Action(msgspec.Struct, frozen=True, gc=False):
    """The call that was made, as the log can hold it."""

    tool: str
    args: object


class Truth(msgspec.Struct, frozen=True, gc=False):
    """The world after the day's end. Money in currency units.

    `owed` is for what was delivered and has not posted; `pending` counts orders on their way,
    `pending_units` what was ordered with them; `customers` counts open customer orders.
    """

    budget: float
    owed: float
    storage: int
    pending: int
    pending_units: int
    inbox: int
    customers: int
    shipped: int
    failed: int
    revenue: float


class Delivery(msgspec.Struct, frozen=True, tag="delivery", tag_field="type", gc=False):
    """An order that arrived in the morning: units that went into storage, and that went back."""

    order_id: str
    sku: str
    accepted: int
    returned: int


class Payment(msgspec.Struct, frozen=True, tag="payment", tag_field="type", gc=False):
    """What was charged for an order in the morning, in currency units."""

    order_id: str
    amount: float


class Averages(msgspec.Struct, frozen=True, gc=False):
    """fast, medium and slow of each type; None before the type's first resolved error."""

    temporal: tuple[float, float, float] | None
    quantity: tuple[float, float, float] | None
    cost: tuple[float, float, float] | None
    storage: tuple[float, float, float] | None
    budget: tuple[float, float, float] | None
    causal: tuple[float, float, float] | None


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One step. `resolved` names the step predicted in.

    `inbox_count` is what the agent saw in the morning, `events` what had happened until then;
    `belief` is None where none was asked for.
    """

    step: int
    day: int
    inbox_count: int
    events: list[Delivery | Payment]
    action: Action | None  # None: the replies could not be read
    result: Result | None
    card: Card | None
    belief: Belief | None
    resolved: list[Resolved]
    ewma: Averages
    shock_drawn: ShockType | None
    shock_applied: tuple[Applied, ...]
    shock_dropped: ShockType | None
    parse_status: ParseStatus
    re_asks: int
    truth: Truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """How the business went. Money in currency units.

    `fulfilled` is shipped over requested; None: nothing was requested. `net_worth` is budget
    less what is owed, with stock at the cheapest unshocked price of the last day.
    """

    orders_requested: int
    orders_shipped: int
    orders_failed: int
    fulfilled: float | None
    orders_placed: int
    calls_failed: int
    revenue: float
    net_worth: float
    final_budget: float
    final_storage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShockCounts:
    """Shocks of a type; `armed` ones still waited for an order at the end.

    drawn = applied + dropped + armed.
    """

    drawn: int
    applied: int
    dropped: int
    armed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BeliefSummary:
    """Belief questions of a run: how many were asked and read, and the mean divergences.

    See `secondary.divergence`; None: no belief was read.
    """

    asked: int
    read: int
    storage_divergence: float | None
    budget_divergence: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to. `steps` counts those played, `end` says why there were no more.

    `stop_rule` is the rule for stopping that was played, which is `lenient`. An outcome of before
    there was one lacks it: those runs ended by their own `crash_detector.threshold`. What else
    is known of a run follows from its steps: see `derived.py`.
    """

    steps: int
    max_steps: int
    end: End
    stop_rule: Threshold
    measures: Measures
    shocks: dict[ShockType, ShockCounts]
    pe: dict[ErrorType, ErrorSummary]
    beliefs: BeliefSummary
    format_failures: int
    re_asks: int
