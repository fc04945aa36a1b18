"""The warehouse itself: budget, storage, orders on their way, customers, and the day's course.

A day: the **morning** posts payments that are due, takes in deliveries and hears customers;
then shocks strike; then the agent makes its one call (`tools.py`); the **evening** charges
the storage fee and lets old customer orders expire.

Money is whole cents (see `catalogue.py`). Nothing here draws a shock: `shocks.py` changes
orders, lead times and prices through the methods below.
"""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from vendomini.workloads.warehouse.goods import Catalogue, CustomerOrder, cents, share
from vendomini.workloads.warehouse.settings import WarehouseSettings

FEE_OF_RETURNS = 0.1  # of the value of what does not fit
FEE_OF_CANCELLING = 0.1  # of the order's value
COST_OF_EXPEDITING = 0.5  # of the order's value
EXPEDITED_DAYS = 2
DEBT_LIMIT = 100_000  # cents
DEBT_SHARE = 0.1  # of the initial budget

MessageFields: TypeAlias = dict[str, Any]
"""One inbox message: plain JSON values, the first of them `type`."""


def bankrupt_below(initial_budget: int) -> int:
    """The budget in cents below which a run ends bankrupt."""
    return -max(DEBT_LIMIT, int(DEBT_SHARE * initial_budget))


@dataclass(slots=True, kw_only=True)
class Order:
    """An order at a supplier that has not arrived.

    `quantity`, `price` (cents a unit) and `eta` are what was agreed and stated; `arriving`
    and `arrival` are what will come, and when. `announced_delay` are days that a notice has
    put on the stated day. `payment_lag` is in days after delivery.
    `struck` names the types of shock that have hit it: each hits an order at most once, or a
    delay a day would hold an order back for ever and its errors would never resolve.
    """

    id: str
    supplier: str
    sku: str
    quantity: int
    price: int
    day: int
    eta: int
    arriving: int
    arrival: int
    announced_delay: int = 0
    payment_lag: int = 0
    struck: list[str] = field(default_factory=list)

    @property
    def value(self) -> int:
        """What was agreed, in cents."""
        return self.quantity * self.price


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """`accepted` units went into storage on `day`, `returned` ones did not fit."""

    order: Order
    day: int
    accepted: int
    returned: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """`amount` cents for an order left the budget."""

    order: Order
    amount: int


@dataclass(slots=True, kw_only=True)
class Totals:
    """Everything that flowed in and out so far, in cents and units: what balances the books."""

    revenue: int = 0
    paid: int = 0  # for deliveries and returns
    fees: int = 0  # for storage
    charges: int = 0  # for cancelling and expediting
    units_in: int = 0
    units_out: int = 0
    requested: int = 0  # customer orders
    shipped: int = 0
    failed: int = 0


class World:
    """The state of one run on one day."""

    __slots__ = (
        "_expire_after",
        "_fee",
        "_unposted",
        "budget",
        "capacity",
        "catalogue",
        "customers",
        "day",
        "expedites",
        "inbox",
        "late_penalty",
        "lead_changes",
        "orders_placed",
        "owed",
        "pending",
        "pending_units",
        "raises",
        "storage",
        "stored",
        "totals",
    )

    def __init__(self, settings: WarehouseSettings, *, seed: int, replication: int) -> None:
        simulation = settings.simulation
        self.catalogue = Catalogue(settings, seed=seed, replication=replication)
        self.day = 0
        self.budget = cents(simulation.initial_budget)
        self.capacity = simulation.storage_capacity
        self.expedites = simulation.complexity_level >= 2
        self.late_penalty = settings.demand.late_penalty
        self.storage = dict.fromkeys(self.catalogue.skus, simulation.initial_storage_per_sku)
        self.stored = simulation.initial_storage_per_sku * len(self.storage)  # units in all
        self.pending: dict[str, Order] = {}
        self.pending_units = 0  # as ordered
        self.orders_placed = 0
        self.customers: dict[str, CustomerOrder] = {}  # open ones
        self.inbox: list[MessageFields] = []
        self.owed = 0  # cents for what was delivered and not posted yet
        self.totals = Totals()
        # By supplier: days on top of the stated lead time, and the first day without (None: never).
        self.lead_changes: dict[str, tuple[int, int | None]] = {}
        # By supplier: what a price is raised by, as a share, and the first day without.
        self.raises: dict[str, tuple[float, int]] = {}
        self._unposted: dict[int, list[Paid]] = {}
        self._fee = simulation.storage_fee
        self._expire_after = settings.demand.expire_after_days

    @property
    def free_capacity(self) -> int:
        """Units that may still be ordered: capacity less storage and what is on its way."""
        return self.capacity - self.stored - self.pending_units

    def price(self, supplier: str, sku: str) -> int:
        """What a unit ordered today is agreed at, in cents: with a shock's raise, if any."""
        price = self.catalogue.price(supplier, sku, self.day)
        if supplier in self.raises:
            raised_by, until = self.raises[supplier]
            if self.day < until:
                return share(1 + raised_by, price)
        return price

    def morning(self) -> list[Delivered | Paid]:
        """Payments that were late, then deliveries with theirs, then customers; what resolves."""
        events: list[Delivered | Paid] = []
        if self._unposted:
            for payment in self._unposted.pop(self.day, ()):
                self.owed -= payment.amount
                self._post(payment, events)
        if self.pending:
            for order in [o for o in self.pending.values() if o.arrival <= self.day]:
                self._deliver(order, events)
        for customer in self.catalogue.customer_orders(self.day, self.totals.requested):
            self.customers[customer.id] = customer
            self.totals.requested += 1
            self.inbox.append(
                {
                    "type": "customer_order",
                    "customer_order_id": customer.id,
                    "sku": customer.sku,
                    "quantity": customer.quantity,
                    "unit_sale_price": customer.price / 100,
                    "due_day": customer.due,
                    "day": self.day,
                }
            )
        return events

    def evening(self) -> None:
        """The storage fee, customer orders that are too old, and on to the next day."""
        fee = cents(self._fee * self.stored)
        self.budget -= fee
        self.totals.fees += fee
        if self.customers:
            oldest = self.day - self._expire_after
            for id in [c.id for c in self.customers.values() if c.day < oldest]:
                del self.customers[id]
                self.totals.failed += 1
        self.day += 1

    def place_order(self, *, supplier: str, sku: str, quantity: int) -> Order:
        """Order at today's price; the caller has checked that it is allowed."""
        stated = self.catalogue.lead_days(supplier, sku)
        late = self.catalogue.days_late(supplier, sku, self.day)
        extra, until = self.lead_changes.get(supplier, (0, None))
        if until is not None and self.day >= until:
            extra = 0
        order = Order(
            id=f"ORD{self.orders_placed}",
            supplier=supplier,
            sku=sku,
            quantity=quantity,
            price=self.price(supplier, sku),
            day=self.day,
            eta=self.day + stated,
            arriving=quantity,
            arrival=self.day + stated + extra + late,
        )
        self.orders_placed += 1
        self.pending[order.id] = order
        self.pending_units += quantity
        return order

    def cancel(self, order: Order) -> int:
        """Drop a pending order for a share of its value; the cents charged."""
        del self.pending[order.id]
        self.pending_units -= order.quantity
        return self._charge(share(FEE_OF_CANCELLING, order.value))

    def expedite(self, order: Order) -> int:
        """Bring an order forward, to tomorrow at the earliest; the cents charged.

        The stated day, with what a notice has put on it, moves like the true one, whatever the
        true one is.
        """
        tomorrow = self.day + 1
        order.eta = max(tomorrow, order.eta + order.announced_delay - EXPEDITED_DAYS)
        order.announced_delay = 0
        order.arrival = max(tomorrow, order.arrival - EXPEDITED_DAYS)
        return self._charge(share(COST_OF_EXPEDITING, order.value))

    def ship(self, customer: CustomerOrder) -> tuple[int, int]:
        """Ship an open customer order from storage; gross revenue and late penalty in cents."""
        gross = customer.quantity * customer.price
        penalty = share(self.late_penalty, gross) if self.day > customer.due else 0
        del self.customers[customer.id]
        self.storage[customer.sku] -= customer.quantity
        self.stored -= customer.quantity
        self.totals.units_out += customer.quantity
        self.totals.shipped += 1
        self.totals.revenue += gross - penalty
        self.budget += gross - penalty
        return gross, penalty

    def net_worth(self) -> int:
        """Budget less what is owed, with stock at the cheapest unshocked price, in cents: that of
        the day which has ended."""
        ended = max(0, self.day - 1)
        stock = sum(
            units * self.catalogue.cheapest(sku, ended)
            for sku, units in self.storage.items()
            if units
        )
        return self.budget - self.owed + stock

    def _deliver(self, order: Order, events: list[Delivered | Paid]) -> None:
        accepted = min(order.arriving, self.capacity - self.stored)
        returned = order.arriving - accepted
        del self.pending[order.id]
        self.pending_units -= order.quantity
        self.storage[order.sku] += accepted
        self.stored += accepted
        self.totals.units_in += accepted
        message: MessageFields = {
            "type": "delivery",
            "order_id": order.id,
            "sku": order.sku,
            "quantity": accepted,
            "day": self.day,
        }
        if returned:
            message["returned"] = returned
        self.inbox.append(message)
        events.append(Delivered(order=order, day=self.day, accepted=accepted, returned=returned))
        amount = accepted * order.price + share(FEE_OF_RETURNS, returned * order.price)
        payment = Paid(order=order, amount=amount)
        if order.payment_lag:
            self.owed += amount
            self._unposted.setdefault(self.day + order.payment_lag, []).append(payment)
        else:
            self._post(payment, events)

    def _post(self, payment: Paid, events: list[Delivered | Paid]) -> None:
        self.budget -= payment.amount
        self.totals.paid += payment.amount
        events.append(payment)

    def _charge(self, amount: int) -> int:
        self.budget -= amount
        self.totals.charges += amount
        return amount
