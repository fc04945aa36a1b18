"""What no agent can change: suppliers, prices, lead times, and what customers ask for.

Money is counted in whole cents. An amount that a formula makes is rounded half up to cents
once, where it arises; sums of cents are exact.
"""

from dataclasses import dataclass

from vendomini.workloads.warehouse.draws import Stream
from vendomini.workloads.warehouse.settings import (
    SKUS,
    SUPPLIERS,
    WarehouseSettings,
    due_after_days,
    orders_a_day,
)

DRIFT_FROM_LEVEL = 3
DRIFT_A_DAY = 0.02
DRIFT_BOUNDS = (0.5, 2.0)  # of the price at the start
LARGEST_CUSTOMER_ORDER = 20  # units; sizes are uniform from 1
LATE_DAYS = (1, 3)  # how late an order that is not on time arrives


def cents(amount: float) -> int:
    """An amount of money that is not negative, rounded half up to whole cents."""
    return int(amount * 100 + 0.5)


def share(part: float, amount: int) -> int:
    """`part` of an amount in cents, rounded half up to whole cents."""
    return int(part * amount + 0.5)


@dataclass(slots=True, kw_only=True)
class CustomerOrder:
    """`price` is what a unit sells for, in cents. Shipping after `due` may be penalised."""

    id: str
    sku: str
    quantity: int
    price: int
    day: int
    due: int


class Catalogue:
    """Suppliers, SKUs, prices, lead times, lateness and demand of one run.

    A function of seed, replication, complexity, pressure and the settings of demand alone.
    With ``u`` the uniform draw of the stream named, and supplier i, SKU j from 0:

    - price of (i, j): 5 + 45 u(catalogue, day 0, 256 i + 3 j), in cents;
    - lead days: 1 + floor((5 + complexity) u(catalogue, 0, 256 i + 3 j + 1));
    - reliability of i: 0.85 + 0.14 u(catalogue, 0, 256 i + 255);
    - from level 3 all prices of i on day d are its prices at the start times level(d), with
      level(0) = 1 and level(d) = level(d-1) (1 + 0.02 (2 u(drift, d, i) - 1)) within 0.5 .. 2;
    - an order placed on day d is on time if u(reliability, d, 512 i + 2 j) is below the
      reliability, else 1 .. 3 days late by u(reliability, d, 512 i + 2 j + 1).
    """

    __slots__ = (
        "_base",
        "_chances",
        "_demand",
        "_drift",
        "_due_days",
        "_lead",
        "_level",
        "_level_day",
        "_markup",
        "_reliability",
        "_reliable",
        "drifts",
        "sku_number",
        "skus",
        "supplier_number",
        "suppliers",
    )

    def __init__(self, settings: WarehouseSettings, *, seed: int, replication: int) -> None:
        level = settings.simulation.complexity_level
        self.skus = tuple(f"sku_{j}" for j in range(SKUS[level]))
        self.suppliers = tuple(f"S{i + 1}" for i in range(SUPPLIERS[level]))
        self.sku_number = {sku: j for j, sku in enumerate(self.skus)}
        self.supplier_number = {supplier: i for i, supplier in enumerate(self.suppliers)}
        drawn = Stream("catalogue", seed=seed, replication=replication)
        self._reliable = [
            drawn.between(0.85, 0.99, 0, 256 * i + 255) for i in range(len(self.suppliers))
        ]
        self._base = [
            [cents(drawn.between(5, 50, 0, 256 * i + 3 * j)) for j in range(len(self.skus))]
            for i in range(len(self.suppliers))
        ]
        self._lead = [
            [drawn.integer(1, 5 + level, 0, 256 * i + 3 * j + 1) for j in range(len(self.skus))]
            for i in range(len(self.suppliers))
        ]
        self.drifts = level >= DRIFT_FROM_LEVEL
        self._drift = Stream("drift", seed=seed, replication=replication)
        self._level = [1.0] * len(self.suppliers)
        self._level_day = 0
        self._reliability = Stream("reliability", seed=seed, replication=replication)
        self._demand = Stream("demand", seed=seed, replication=replication)
        self._chances = _binomial(len(self.skus), orders_a_day(settings) / len(self.skus))
        self._due_days = due_after_days(settings)
        self._markup = settings.demand.sale_markup

    def lead_days(self, supplier: str, sku: str) -> int:
        """The lead time the supplier states, which no shock changes."""
        return self._lead[self.supplier_number[supplier]][self.sku_number[sku]]

    def price(self, supplier: str, sku: str, day: int) -> int:
        """Cents a unit on `day`, before any shock. Days must not go back."""
        base = self._base[self.supplier_number[supplier]][self.sku_number[sku]]
        if not self.drifts:
            return base
        if day > self._level_day:
            self._drift_to(day)
        return int(base * self._level[self.supplier_number[supplier]] + 0.5)

    def cheapest(self, sku: str, day: int) -> int:
        """The lowest price of any supplier on `day`, before any shock, in cents a unit."""
        return min(self.price(supplier, sku, day) for supplier in self.suppliers)

    def days_late(self, supplier: str, sku: str, day: int) -> int:
        """How late an order placed on `day` arrives without any shock: 0, or 1 to 3."""
        i = self.supplier_number[supplier]
        entity = 512 * i + 2 * self.sku_number[sku]
        if self._reliability.uniform(day, entity) < self._reliable[i]:
            return 0
        return self._reliability.integer(*LATE_DAYS, day, entity + 1)

    def customer_orders(self, day: int, first_number: int) -> list[CustomerOrder]:
        """What customers ask for on `day`; the ids count on from `first_number`.

        Each SKU is ordered with the same chance, at most once. As one draw: the number of
        orders follows the binomial law (inverse of its distribution at u(demand, day, 0)),
        then order k takes the SKU at place floor((SKUs - k) u(demand, day, 1 + 2 k)) among
        those not taken yet, and 1 .. 20 units by u(demand, day, 2 + 2 k). The price is the
        cheapest supplier's times the markup.
        """
        u = self._demand.uniform(day, 0)
        if u < self._chances[0]:
            return []
        count = sum(u >= chance for chance in self._chances)
        left = list(self.skus)
        orders = []
        for k in range(count):
            sku = left.pop(int(len(left) * self._demand.uniform(day, 1 + 2 * k)))
            orders.append(
                CustomerOrder(
                    id=f"CO{first_number + k}",
                    sku=sku,
                    quantity=self._demand.integer(1, LARGEST_CUSTOMER_ORDER, day, 2 + 2 * k),
                    price=share(self._markup, self.cheapest(sku, day)),
                    day=day,
                    due=day + self._due_days,
                )
            )
        return orders

    def _drift_to(self, day: int) -> None:
        """Move all levels on to a later day."""
        low, high = DRIFT_BOUNDS
        for today in range(self._level_day + 1, day + 1):
            for i, level in enumerate(self._level):
                step = DRIFT_A_DAY * (2 * self._drift.uniform(today, i) - 1)
                self._level[i] = min(high, max(low, level * (1 + step)))
        self._level_day = day


def _binomial(trials: int, chance: float) -> tuple[float, ...]:
    """P(at most k) for k = 0 .. trials - 1, by products and sums only, so alike everywhere."""
    weights = [1.0]  # the distribution after no trial
    for _ in range(trials):
        weights = [
            (weights[k] if k < len(weights) else 0.0) * (1 - chance)
            + (weights[k - 1] * chance if k else 0.0)
            for k in range(len(weights) + 1)
        ]
    total, cumulative = 0.0, []
    for weight in weights[:-1]:
        total += weight
        cumulative.append(total)
    return tuple(cumulative)
