"""Shocks: drawn by key, applied to the world, announced or not.

On day d a shock is drawn if u(shock when, d) < p_shock, so one drawn at some p is drawn at
every larger p. Its details are draws of the stream ``shock what`` on the day it was drawn:
entity 0 the type, 1 the order or supplier it strikes, 2 the amount, 3 the supplier whose
prices rise.

- **temporal**: a pending order arrives later: 1 day, 2 days, or 2 .. 4.
- **quantity**: what arrives of a pending order is multiplied by uniform 0.9 .. 1.1, 0.7 .. 1.3
  or 0.5 .. 2.0, rounded half up, changed by at least one unit and at least one unit.
- **causal**: the payment of a pending order posts 1, 2 or 4 days after delivery; at medium and
  high another supplier's prices rise by 10 % for 3 days or 25 % for 5, counting from today if
  the order was pending in the morning, from tomorrow if it has just been placed.
- **rule**: a supplier's lead time is longer for orders placed from now on: +1 for 10 days, +2
  for 20, +3 until changed again; it replaces an earlier change. What a supplier *states* (a
  quote's lead days, an order's eta) stays the catalogue's: only a notice or experience tells.

A price is agreed, so a quote shows a raise; a lead time is an expectation, so it does not.
The first three need a pending order that their type has not struck yet. Without one they
stay armed and strike the next order placed; a second one of an armed type is dropped.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from vendomini.workloads.warehouse.draws import Stream
from vendomini.workloads.warehouse.settings import InductionSettings, Magnitude, TypeMix
from vendomini.workloads.warehouse.world import MessageFields, Order, World

ShockType: TypeAlias = Literal["temporal", "quantity", "causal", "rule"]
TYPES: tuple[ShockType, ...] = ("temporal", "quantity", "causal", "rule")

NOTICE_DELAY_DAYS = 3  # observability `delayed`

MIXES: dict[TypeMix, tuple[float, ...]] = {
    "temporal_only": (1.0, 0.0, 0.0, 0.0),
    "quantity_only": (0.0, 1.0, 0.0, 0.0),
    "causal_only": (0.0, 0.0, 1.0, 0.0),
    "rule_only": (0.0, 0.0, 0.0, 1.0),
    "uniform": (0.25, 0.25, 0.25, 0.25),
    "realistic": (0.4, 0.3, 0.2, 0.1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """What a magnitude means, in days and shares."""

    delay: tuple[int, int]  # least and most
    factor: tuple[float, float]
    payment_lag: int
    raise_by: float  # 0: prices stay
    raise_days: int
    lead_extra: int
    lead_days: int | None  # None: until changed again


STRENGTHS: dict[Magnitude, Strength] = {
    "low": Strength(
        delay=(1, 1),
        factor=(0.9, 1.1),
        payment_lag=1,
        raise_by=0.0,
        raise_days=0,
        lead_extra=1,
        lead_days=10,
    ),
    "medium": Strength(
        delay=(2, 2),
        factor=(0.7, 1.3),
        payment_lag=2,
        raise_by=0.1,
        raise_days=3,
        lead_extra=2,
        lead_days=20,
    ),
    "high": Strength(
        delay=(2, 4),
        factor=(0.5, 2.0),
        payment_lag=4,
        raise_by=0.25,
        raise_days=5,
        lead_extra=3,
        lead_days=None,
    ),
}


class Applied(msgspec.Struct, frozen=True, gc=False):
    """A shock that struck: on an order or a supplier, one it was `drawn` for on that day.

    `amount` is days, or units more (less, if negative) for a quantity shock.
    """

    type: ShockType
    target: str
    amount: int
    drawn: int


class Shocks:
    """Draws, arms, applies and announces the shocks of one run, and counts them."""

    __slots__ = (
        "_armed",
        "_later",
        "_observability",
        "_p",
        "_strength",
        "_up_to",
        "_what",
        "_when",
        "applied",
        "applied_today",
        "drawn",
        "drawn_today",
        "dropped",
        "dropped_today",
    )

    def __init__(self, settings: InductionSettings, *, seed: int, replication: int) -> None:
        self.drawn = dict.fromkeys(TYPES, 0)
        self.applied = dict.fromkeys(TYPES, 0)
        self.dropped = dict.fromkeys(TYPES, 0)
        self.drawn_today: ShockType | None = None
        self.dropped_today: ShockType | None = None
        self.applied_today: tuple[Applied, ...] = ()
        self._p = settings.p_shock
        self._strength = STRENGTHS[settings.pe_mag]
        self._observability = settings.observability
        total = 0.0
        self._up_to: list[tuple[float, ShockType]] = []
        for type, part in zip(TYPES, MIXES[settings.pe_type_mix], strict=True):
            total += part
            if part:
                self._up_to.append((total, type))
        self._when = Stream("shock when", seed=seed, replication=replication)
        self._what = Stream("shock what", seed=seed, replication=replication)
        self._armed: dict[ShockType, int] = {}  # by type: the day it was drawn
        # By day: notices that come late, and the order whose delay one of them announces.
        self._later: dict[int, list[tuple[MessageFields, Order | None]]] = {}

    def strike(self, world: World) -> None:
        """The morning's part: notices that come late, and today's shock if one is drawn."""
        self.drawn_today = self.dropped_today = None
        self.applied_today = ()
        day = world.day
        if self._later:
            for notice, delayed in self._later.pop(day, ()):
                self._post(notice, delayed, world)
        if self._when.uniform(day) >= self._p:
            return
        type = self._type(day)
        self.drawn_today = type
        self.drawn[type] += 1
        if type == "rule":
            self._apply_rule(world)
            return
        targets = [order for order in world.pending.values() if type not in order.struck]
        if targets:
            self._apply(type, day, self._what.choice(targets, day, 1), world, first_day=day)
        elif type in self._armed:
            self.dropped_today = type
            self.dropped[type] += 1
        else:
            self._armed[type] = day

    def order_placed(self, order: Order, world: World) -> None:
        """Armed shocks strike the order that has just been placed, in the order of `TYPES`."""
        for type in TYPES:
            if type in self._armed:
                self._apply(type, self._armed.pop(type), order, world, first_day=world.day + 1)

    @property
    def armed(self) -> tuple[ShockType, ...]:
        """Types that wait for an order."""
        return tuple(type for type in TYPES if type in self._armed)

    def _type(self, day: int) -> ShockType:
        u = self._what.uniform(day, 0)
        for up_to, type in self._up_to:
            if u < up_to:
                return type
        return self._up_to[-1][1]  # the sum of the parts may round to just below 1

    def _apply(
        self, type: ShockType, drawn: int, order: Order, world: World, *, first_day: int
    ) -> None:
        order.struck.append(type)
        if type == "temporal":
            amount = self._delay(drawn, order, world)
        elif type == "quantity":
            amount = self._rescale(drawn, order, world)
        else:
            amount = self._interfere(drawn, order, world, first_day=first_day)
        self._count(type, order.id, amount, drawn)

    def _count(self, type: ShockType, target: str, amount: int, drawn: int) -> None:
        self.applied[type] += 1
        self.applied_today += (Applied(type, target, amount, drawn),)

    def _delay(self, drawn: int, order: Order, world: World) -> int:
        days = self._what.integer(*self._strength.delay, drawn, 2)
        order.arrival += days
        self._announce(
            world,
            {"type": "delay_notice", "order_id": order.id, "day": world.day},
            {"delay_days": days, "new_eta": order.eta + days},
            delayed=order,
        )
        return days

    def _rescale(self, drawn: int, order: Order, world: World) -> int:
        before = order.arriving
        factor = self._what.between(*self._strength.factor, drawn, 2)
        after = max(1, int(before * factor + 0.5))
        if after == before:
            after = before - 1 if factor < 1 and before > 1 else before + 1
        order.arriving = after
        self._announce(
            world,
            {"type": "quantity_notice", "order_id": order.id, "day": world.day},
            {"quantity": after},
        )
        return after - before

    def _interfere(self, drawn: int, order: Order, world: World, *, first_day: int) -> int:
        lag = self._strength.payment_lag
        order.payment_lag = lag
        self._announce(
            world,
            {"type": "payment_notice", "order_id": order.id, "day": world.day},
            {"payment_days_late": lag},
        )
        if self._strength.raise_by:
            others = [name for name in world.catalogue.suppliers if name != order.supplier]
            other = self._what.choice(others, drawn, 3)
            until = first_day + self._strength.raise_days
            world.raises[other] = (self._strength.raise_by, until)
            self._announce(
                world,
                {"type": "price_notice", "supplier_id": other, "day": world.day},
                {"raised_by": self._strength.raise_by, "until_day": until},
            )
        return lag

    def _apply_rule(self, world: World) -> None:
        day, extra = world.day, self._strength.lead_extra
        supplier = self._what.choice(world.catalogue.suppliers, day, 1)
        lasts = self._strength.lead_days
        until = None if lasts is None else day + lasts
        world.lead_changes[supplier] = (extra, until)
        self._announce(
            world,
            {"type": "lead_time_notice", "supplier_id": supplier, "day": day},
            {"extra_days": extra, "until_day": until},
        )
        self._count("rule", supplier, extra, day)

    def _announce(
        self,
        world: World,
        fact: MessageFields,
        amounts: MessageFields,
        *,
        delayed: Order | None = None,
    ) -> None:
        """Tell of a shock, as observability has it; `delayed` is the order it holds back."""
        if self._observability == "full":
            self._post(fact | amounts, delayed, world)
        elif self._observability == "partial":
            world.inbox.append(fact)
        elif self._observability == "delayed":
            posted = world.day + NOTICE_DELAY_DAYS
            notice = fact | amounts | {"day": posted, "struck_day": world.day}
            self._later.setdefault(posted, []).append((notice, delayed))

    def _post(self, notice: MessageFields, delayed: Order | None, world: World) -> None:
        """Put a notice with its amounts into the inbox; what it says of an order is now stated."""
        if delayed is not None and delayed.id in world.pending:
            delayed.announced_delay += notice["delay_days"]
            # It may have been expedited since the shock.
            notice["new_eta"] = delayed.eta + delayed.announced_delay
        world.inbox.append(notice)
