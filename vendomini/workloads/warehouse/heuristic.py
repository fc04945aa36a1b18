"""The heuristic agent: a base-stock policy that never asks an engine.

Each day it does the first of these that applies:

1. read the inbox, if messages have waited for three days;
2. ship all open customer orders that confirmed stock covers, oldest first;
3. for the SKU that lacks most, quote a supplier not quoted yet (three before its first order;
   all of them while none is cheap enough), or order up to the base stock, as far as capacity
   and cash allow: at the cheapest one of those that deliver in time, else at the fastest, of
   those where a unit costs at most 85 % of what customers paid last;
4. read the inbox, if there is any message and it did not do so the day before;
5. check budget or storage, if not checked for ten days and nothing is unconfirmed or unread;
6. quote a supplier not quoted yet, or again one whose quote is thirty days old;
7. wait.

A SKU that a customer has asked for lacks something when stock and orders on their way, less
open customer orders, are at most half the base stock: 20 units, or 2.4 times the storage over
the square of the number of SKUs if that is less. Most SKUs are so ordered for a customer who
waits. One that no supplier brings in time has to be there before: its base stock is 20 units
or an equal part of four fifths of the storage, if that is less, while four fifths of the
initial budget are free. Where prices drift, a supplier's do so together, so each price it
states tells what its others are by now.

It predicts success, cost, lead time, quantity, storage and budget from its books.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vendomini.workloads.warehouse.agent import Briefing, Decision, Seen
from vendomini.workloads.warehouse.books import Books, Expected, Wanted
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.goods import cents
from vendomini.workloads.warehouse.tools import MOST_SHIPPED

LARGEST_BASE = 20  # units: the largest customer order
BASE_SHARE = 2.4  # of the storage, over the square of the number of SKUs
SLOW_SHARE = 0.8  # of the storage, over the number of SKUs
RICH_SHARE = 0.8  # of the initial budget, free: the least to buy ahead of customers with
QUOTES_FIRST = 3  # of a SKU, before its first order
LARGEST_COST_SHARE = 0.85  # of the last sale price
PATIENCE_DAYS = 3  # messages may wait
CHECK_DAYS = 10
SHIPPING_DAYS = 5  # from the day an order should come to the day customers give up, to be in time
SHELF_DAYS = 2  # from a delivery to the shipment, at least
FRESH_DAYS = 30
HOLD_DAYS = 5  # without an order after a refused one
RESERVE = 0.05  # of the initial budget, never committed


@dataclass(slots=True, kw_only=True)
class Quote:
    """`price` in cents a unit, as told on `day`, over the supplier's level of that day."""

    supplier: str
    price: float
    lead_days: int
    day: int


class Heuristic:
    """Plays one run."""

    __slots__ = (
        "_asked",
        "_base",
        "_bases",
        "_books",
        "_briefing",
        "_budget_checked",
        "_day",
        "_in_time",
        "_levels",
        "_orders_from",
        "_quotes",
        "_read",
        "_slow_base",
        "_storage_checked",
    )

    def __init__(self, briefing: Briefing) -> None:
        self._briefing = briefing
        self._books = Books(briefing)
        base = int(BASE_SHARE * briefing.capacity / len(briefing.skus) ** 2)
        self._base = max(1, min(LARGEST_BASE, base))
        share = int(SLOW_SHARE * briefing.capacity / len(briefing.skus))
        self._slow_base = max(self._base, min(LARGEST_BASE, share))
        self._bases = dict.fromkeys(briefing.skus, self._base)
        self._in_time = briefing.expire_after_days - SHIPPING_DAYS  # longest lead time that is
        self._levels = dict.fromkeys(briefing.suppliers, 1.0)  # of prices, over the first told
        self._quotes: dict[str, list[Quote]] = {sku: [] for sku in briefing.skus}
        self._asked: tuple[str, Mapping[str, Any]] = ("tool_wait", {})
        self._day = 0
        self._orders_from = 0
        self._read = 0  # day the inbox was last known to be empty
        self._budget_checked = 0
        self._storage_checked = 0

    def decide(self, seen: Seen) -> Decision:
        if seen.last_result is not None:
            self._learn(seen.last_result)
        self._day = seen.day
        if seen.inbox_count == 0:
            self._read = seen.day
        self._books.morning(seen.day, inbox_count=seen.inbox_count)
        if seen.inbox_count and seen.day - self._read >= PATIENCE_DAYS:
            return self._call("tool_check_inbox", {})
        decision = self._ship() or self._supply()
        if decision is not None:
            return decision
        if seen.inbox_count and self._asked[0] != "tool_check_inbox":
            return self._call("tool_check_inbox", {})
        # With messages unread, a check would count a delivery that they tell of once more.
        check = None if seen.inbox_count else self._check()
        return check or self._refresh() or self._call("tool_wait", {})

    def _ship(self) -> Decision | None:
        books = self._books
        if not books.wanted:
            return None
        spare: dict[str, int] = {}
        ready: list[Wanted] = []
        for wanted in books.wanted.values():
            here = spare.get(wanted.sku, books.stock[wanted.sku])
            if wanted.quantity <= here and len(ready) < MOST_SHIPPED:
                spare[wanted.sku] = here - wanted.quantity
                ready.append(wanted)
        if not ready:
            return None
        ids = [wanted.id for wanted in ready]
        return self._call(
            "tool_ship_customer_order",
            {"customer_order_id": ids[0] if len(ids) == 1 else ids},
            leaves=sum(wanted.quantity for wanted in ready),
            earns=sum(self._books.earnings(wanted, self._day) for wanted in ready),
        )

    def _supply(self) -> Decision | None:
        """Quote or order for the SKU that lacks most, if it can be had."""
        if self._day < self._orders_from:
            return None
        books = self._books
        waiting: dict[str, list[Wanted]] = {}
        for wanted in books.wanted.values():
            waiting.setdefault(wanted.sku, []).append(wanted)
        lacking: list[tuple[int, int, str]] = []
        cash = books.cash - books.committed() - int(RESERVE * self._briefing.budget)
        rich = cash >= RICH_SHARE * self._briefing.budget
        for place, (sku, units) in enumerate(books.stock.items()):
            if sku not in books.sale_prices:
                continue
            position = units + books.on_the_way[sku]
            if sku in waiting:
                position -= sum(wanted.quantity for wanted in waiting[sku])
            if 2 * position <= (self._bases[sku] if rich else self._base):
                lacking.append((position, place, sku))
        if not lacking:
            return None
        lacking.sort()
        free = self._briefing.capacity - books.total - sum(books.on_the_way.values())
        for position, place, sku in lacking:
            quotes = self._quotes[sku]
            if len(quotes) < QUOTES_FIRST and len(quotes) < len(self._briefing.suppliers):
                return self._next_quote(place, sku)
            best = self._best(quotes, int(LARGEST_COST_SHARE * books.sale_prices[sku]))
            if best is None:
                if len(quotes) < len(self._briefing.suppliers):
                    return self._next_quote(place, sku)
                continue
            lead_days, price, quote = best
            self._bases[sku] = self._slow_base if lead_days > self._in_time else self._base
            base = self._bases[sku] if rich else self._base
            gone = sum(
                wanted.quantity
                for wanted in waiting.get(sku, ())
                if wanted.last_day < self._day + lead_days + SHELF_DAYS
            )
            affordable = cash // price if cash > 0 else 0
            quantity = min(base - position - gone, free, affordable)
            if quantity > 0:
                return self._order(quote, sku, quantity, price)
        return None

    def _best(self, quotes: list[Quote], most: int) -> tuple[int, int, Quote] | None:
        """Lead time, price and quote to order by: the cheapest of those that come in time.

        None if all cost more than `most` cents a unit.
        """
        books, today = self._books, self._day
        best: tuple[int, int, int] | None = None
        chosen = quotes[0]
        for quote in quotes:
            told = int(quote.price * self._levels[quote.supplier] + 0.5)
            price = books.price(quote.supplier, told, today)
            if price > most:
                continue
            lead_days = books.lead_days(quote.supplier, quote.lead_days, today)
            late = max(0, lead_days - self._in_time)
            option = (late, price, lead_days)
            if best is None or option < best:
                best, chosen = option, quote
        return None if best is None else (best[2], best[1], chosen)

    def _next_quote(self, place: int, sku: str) -> Decision:
        """Ask a supplier not asked yet; SKUs begin with different ones."""
        suppliers = self._briefing.suppliers
        return self._quote(suppliers[(place + len(self._quotes[sku])) % len(suppliers)], sku)

    def _order(self, quote: Quote, sku: str, quantity: int, price: int) -> Decision:
        return self._call(
            "tool_order",
            {"supplier_id": quote.supplier, "sku": sku, "quantity": quantity},
            cost=quantity * price,
            lead_days=self._books.lead_days(quote.supplier, quote.lead_days, self._day),
            quantity=quantity,
        )

    def _quote(self, supplier: str, sku: str) -> Decision:
        return self._call(
            "tool_quote", {"supplier_id": supplier, "sku": sku, "quantity": self._base}
        )

    def _check(self) -> Decision | None:
        if not self._books.settled:
            return None
        if self._day - self._budget_checked >= CHECK_DAYS:
            return self._call("tool_check_budget", {})
        if self._day - self._storage_checked >= CHECK_DAYS:
            return self._call("tool_check_storage", {})
        return None

    def _refresh(self) -> Decision | None:
        for place, (sku, quotes) in enumerate(self._quotes.items()):
            if sku not in self._books.sale_prices:
                continue
            if len(quotes) < len(self._briefing.suppliers):
                return self._next_quote(place, sku)
            oldest = min(quotes, key=lambda quote: quote.day)
            if self._day - oldest.day >= FRESH_DAYS:
                return self._quote(oldest.supplier, sku)
        return None

    def _call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        cost: int | None = None,
        lead_days: int | None = None,
        quantity: int | None = None,
        leaves: int = 0,
        earns: int = 0,
    ) -> Decision:
        """The call with its card; the day's end follows from units that leave and cents earned."""
        books = self._books
        storage = books.total + books.counted - leaves
        budget = books.cash + earns - books.fee(storage)
        self._asked = (tool, arguments)
        return Decision(
            tool=tool,
            arguments=arguments,
            card=Card(
                expected_success=True,
                expected_cost=None if cost is None else cost / 100,
                expected_lead_days=lead_days,
                expected_quantity=quantity,
                expected_storage_after=storage,
                expected_budget_after=budget / 100,
            ),
        )

    def _learn(self, result: Mapping[str, Any]) -> None:
        """Take in the result of yesterday's call, then close yesterday's books."""
        tool, arguments = self._asked
        books = self._books
        if result["success"]:
            match tool:
                case "tool_check_inbox":
                    self._read = self._day
                    books.read(result["messages"], self._day)
                case "tool_ship_customer_order":
                    for shipped in result["shipped"]:
                        del books.wanted[shipped["customer_order_id"]]
                        books.stock[shipped["sku"]] -= shipped["quantity"]
                        books.total -= shipped["quantity"]
                        books.cash += cents(shipped["net_revenue"])
                case "tool_order":
                    self._ordered(result, arguments)
                case "tool_quote":
                    self._quoted(result, arguments)
                case "tool_check_budget":
                    self._budget_checked = self._day
                    books.cash = round(result["budget"] * 100)
                case "tool_check_storage":
                    self._storage_checked = self._day
                    books.stock.update(result["storage"])
                    books.total = result["total"]
        elif tool == "tool_order":
            # The books are wrong: look before the next order.
            self._orders_from = self._day + HOLD_DAYS
            self._budget_checked = self._storage_checked = self._day - CHECK_DAYS
        books.evening()

    def _ordered(self, result: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        supplier, sku, quantity = (arguments[key] for key in ("supplier_id", "sku", "quantity"))
        books, price = self._books, cents(result["price"]) // arguments["quantity"]
        (quote,) = (quote for quote in self._quotes[sku] if quote.supplier == supplier)
        lead_days = books.lead_days(supplier, result["eta_day"] - self._day, self._day)
        self._told(quote, books.without_raise(supplier, price, self._day))
        books.coming[result["order_id"]] = Expected(
            sku=sku, quantity=quantity, price=price, due=self._day + lead_days
        )
        books.on_the_way[sku] += quantity

    def _told(self, quote: Quote, price: int) -> None:
        """Take in a price in cents; where prices drift, it moves all of the supplier's."""
        if self._briefing.drifts:
            self._levels[quote.supplier] = price / quote.price
        else:
            quote.price = price

    def _quoted(self, result: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
        supplier, sku = arguments["supplier_id"], arguments["sku"]
        price = self._books.without_raise(supplier, cents(result["unit_price"]), self._day)
        for quote in self._quotes[sku]:
            if quote.supplier == supplier:
                self._told(quote, price)
                quote.day = self._day
                return
        self._quotes[sku].append(
            Quote(
                supplier=supplier,
                price=price / self._levels[supplier],
                lead_days=result["lead_days"],
                day=self._day,
            )
        )
