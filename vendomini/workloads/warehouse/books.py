"""What the heuristic agent believes: its own books, from what it was told and nothing else.

It counts an order as delivered and paid on the day it expects it, until the inbox says
otherwise. Money is in cents, as in the world.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vendomini.workloads.warehouse.agent import Briefing
from vendomini.workloads.warehouse.goods import cents, share
from vendomini.workloads.warehouse.world import FEE_OF_RETURNS

GUESSED_DAYS = 1  # what a notice without its amount is taken for
GUESSED_LENGTH_DAYS = 10


@dataclass(slots=True, kw_only=True)
class Expected:
    """An order of its own, not confirmed yet; `price` in cents a unit."""

    sku: str
    quantity: int
    price: int
    due: int  # day it is expected
    payment_lag: int = 0
    counted: bool = False  # as delivered


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An open customer order at `price` cents a unit; it may be shipped up to `last_day`."""

    id: str
    sku: str
    quantity: int
    price: int
    due: int
    last_day: int


class Books:
    """Stock, cash, orders on their way, customers, and what notices said of suppliers."""

    __slots__ = (
        "_expire_after",
        "_fee",
        "_late_penalty",
        "_owed",
        "_today",
        "cash",
        "coming",
        "counted",
        "lead_extra",
        "on_the_way",
        "raises",
        "sale_prices",
        "stock",
        "total",
        "wanted",
    )

    def __init__(self, briefing: Briefing) -> None:
        self._fee = briefing.fee
        self._expire_after = briefing.expire_after_days
        self._late_penalty = briefing.late_penalty
        self.stock = dict.fromkeys(briefing.skus, briefing.storage_per_sku)  # confirmed
        self.total = briefing.storage_per_sku * len(briefing.skus)  # confirmed
        self.counted = 0  # units counted as delivered and not confirmed
        self.cash = briefing.budget
        self.coming: dict[str, Expected] = {}
        self.on_the_way = dict.fromkeys(briefing.skus, 0)
        self.wanted: dict[str, Wanted] = {}
        self.lead_extra: dict[str, tuple[int, int | None]] = {}  # by supplier, and until when
        self.raises: dict[str, tuple[float, int]] = {}
        self.sale_prices: dict[str, int] = {}  # by SKU: cents a unit in its last customer order
        self._owed: list[tuple[int, int]] = []  # day a payment posts, cents
        self._today = 0

    def morning(self, day: int, *, inbox_count: int) -> None:
        """Count what should have come by today; an empty inbox says that nothing has."""
        self._today = day
        if self.raises:
            self.raises = {name: told for name, told in self.raises.items() if day < told[1]}
        if self._owed:
            self.cash -= sum(amount for posts, amount in self._owed if posts <= day)
            self._owed = [(posts, amount) for posts, amount in self._owed if posts > day]
        for order in self.coming.values():
            if order.due <= day:
                if inbox_count == 0:
                    self._not_yet(order, day)
                elif not order.counted:
                    order.counted = True
                    self.counted += order.quantity
                    self._pay(order, order.due, order.quantity * order.price)
        if self.wanted:
            for id in [w.id for w in self.wanted.values() if w.last_day < day]:
                del self.wanted[id]

    def evening(self) -> None:
        """The storage fee, on what it believes to have."""
        self.cash -= self.fee(self.total + self.counted)

    def fee(self, units: int) -> int:
        return cents(self._fee * max(0, units))

    def committed(self) -> int:
        """Cents that orders on their way, and payments that were late, will still take."""
        coming = sum(o.quantity * o.price for o in self.coming.values() if not o.counted)
        return coming + sum(amount for _, amount in self._owed)

    @property
    def settled(self) -> bool:
        """Whether nothing is counted that the inbox has not confirmed."""
        return self.counted == 0 and not any(order.counted for order in self.coming.values())

    def lead_days(self, supplier: str, stated: int, day: int) -> int:
        """The stated lead time, with what a notice said on top."""
        if supplier not in self.lead_extra:
            return stated
        extra, until = self.lead_extra[supplier]
        return stated + (extra if until is None or day < until else 0)

    def price(self, supplier: str, quoted: int, day: int) -> int:
        """The quoted price in cents, with what a notice said on top."""
        if supplier not in self.raises:
            return quoted
        return share(1 + self._raised_by(supplier, day), quoted)

    def without_raise(self, supplier: str, told: int, day: int) -> int:
        """What a price in cents that was told on `day` is without what a notice said on top."""
        return int(told / (1 + self._raised_by(supplier, day)) + 0.5)

    def _raised_by(self, supplier: str, day: int) -> float:
        raised_by, until = self.raises.get(supplier, (0.0, 0))
        return raised_by if day < until else 0.0

    def earnings(self, wanted: Wanted, day: int) -> int:
        """Cents for shipping a customer order on `day`."""
        gross = wanted.quantity * wanted.price
        return gross - share(self._late_penalty, gross) if day > wanted.due else gross

    def read(self, messages: list[Mapping[str, Any]], day: int) -> None:
        """Take in the inbox of `day`; what is overdue and not in it has not come."""
        for message in messages:
            match message["type"]:
                case "customer_order":
                    self._customer(message)
                case "delivery":
                    self._delivered(message)
                case "delay_notice":
                    self._delayed(message, day)
                case "payment_notice":
                    self._paid_late(message)
                case "price_notice" if "raised_by" in message:
                    self.raises[message["supplier_id"]] = (
                        message["raised_by"],
                        message["until_day"],
                    )
                case "lead_time_notice":
                    self.lead_extra[message["supplier_id"]] = (
                        message.get("extra_days", GUESSED_DAYS),
                        message.get("until_day", message["day"] + GUESSED_LENGTH_DAYS),
                    )
        for order in self.coming.values():
            if order.due <= day:
                self._not_yet(order, day)

    def _customer(self, message: Mapping[str, Any]) -> None:
        id, price = message["customer_order_id"], cents(message["unit_sale_price"])
        self.sale_prices[message["sku"]] = price
        self.wanted[id] = Wanted(
            id=id,
            sku=message["sku"],
            quantity=message["quantity"],
            price=price,
            due=message["due_day"],
            last_day=message["day"] + self._expire_after,
        )

    def _delivered(self, message: Mapping[str, Any]) -> None:
        order = self.coming.pop(message["order_id"])
        self._uncount(order)
        units, returned = message["quantity"], message.get("returned", 0)
        self.on_the_way[order.sku] -= order.quantity
        self.stock[order.sku] += units
        self.total += units
        amount = units * order.price + share(FEE_OF_RETURNS, returned * order.price)
        self._pay(order, message["day"], amount)

    def _delayed(self, message: Mapping[str, Any], day: int) -> None:
        order = self.coming.get(message["order_id"])
        if order is not None:
            days = message.get("delay_days", GUESSED_DAYS)
            self._uncount(order)
            order.due = max(order.due + days, day)

    def _paid_late(self, message: Mapping[str, Any]) -> None:
        order = self.coming.get(message["order_id"])
        if order is not None:
            self._uncount(order)
            order.payment_lag = message.get("payment_days_late", GUESSED_DAYS)

    def _not_yet(self, order: Expected, day: int) -> None:
        self._uncount(order)
        order.due = day + 1

    def _pay(self, order: Expected, day: int, amount: int) -> None:
        """Take a payment for a delivery of `day`, or remember that it posts later."""
        posts = day + order.payment_lag
        if posts > self._today:
            self._owed.append((posts, amount))
        else:
            self.cash -= amount

    def _uncount(self, order: Expected) -> None:
        """Take back what was counted for an order that may not have come."""
        if not order.counted:
            return
        order.counted = False
        self.counted -= order.quantity
        amount = order.quantity * order.price
        posts = (order.due + order.payment_lag, amount)
        if posts in self._owed:
            self._owed.remove(posts)
        else:
            self.cash += amount
