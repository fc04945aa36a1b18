"""The ledger: what stays of the days that have left a conversation, as a few lines of facts.

Everything in it was told to the agent, in a result of its own calls; nothing is looked up in
the world. It holds as of the morning of the first day that is still in the conversation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from vendomini.workloads.warehouse.agent import Seen
from vendomini.workloads.warehouse.arguments import loggable
from vendomini.workloads.warehouse.memory import keys_listed

LISTED = (12, 6, 3, 1)  # orders of a kind and keys, the newest; the first number that fits
LONGEST_CALL = 300  # characters of the last call

Call: TypeAlias = tuple[str, Mapping[str, Any]]


@dataclass(slots=True, kw_only=True)
class Coming:
    """An own order that is not known to have arrived."""

    supplier: str
    sku: str
    quantity: int
    eta: int


@dataclass(slots=True, kw_only=True)
class Ledger:
    """Learns the days that leave, oldest first, and tells what they came to.

    It tells it in at most `longest` characters, as far as shorter lists make that possible.
    """

    expire_after_days: int
    longest: int
    days: int = 0  # that have left, or the first one that has not
    ordered: int = 0
    cancelled: int = 0
    shipped: int = 0
    revenue: float = 0.0
    failed: int = 0
    idle: int = 0  # days without a call that could be read
    budget: tuple[float, int] | None = None  # as told, and the day; None: never told
    storage: tuple[Mapping[str, int], int] | None = None
    coming: dict[str, Coming] = field(default_factory=dict)
    customers: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    lines: int = 0  # in the scratchpad
    written: int = 0  # day of the newest of them
    keys: dict[str, None] = field(default_factory=dict)  # of values, the one set last comes last
    last_call: Call | None = None  # of the newest day that has left; None: none could be read

    def learn(self, seen: Seen, call: Call | None) -> None:
        """Take in a day that leaves: what it showed of the call before, then its own call."""
        if seen.last_result is not None and self.last_call is not None:
            self._result(seen.last_result, self.last_call, seen.day - 1)
        self.idle += call is None
        self.last_call = call
        self.days = seen.day + 1

    def text(self) -> str:
        """A few lines for the beginning of the first message that is left."""
        texts = (self._text(listed) for listed in LISTED)
        return next((text for text in texts if len(text) <= self.longest), self._text(LISTED[-1]))

    def _text(self, listed: int) -> str:
        last = self.days - 1
        span = "Day 0 has" if last == 0 else f"Days 0 to {last} have"
        counts = (
            f"{self.ordered} orders placed, {self.cancelled} cancelled, {self.shipped} customer "
            f"orders shipped for {self.revenue:.2f}, {self.failed} calls failed, "
            f"{self.idle} days without a readable call"
        )
        lines = [
            f"{span} left this conversation. What you were told on them:",
            f"- In all: {counts}.",
            f"- Your orders not known to have arrived: {self._coming(listed)}.",
            f"- Open customer orders you know of: {self._customers(listed)}.",
            f"- Budget: {self._budget()}.",
            f"- Storage: {self._storage()}.",
            *self._notes(listed),
            f"- Your call of day {last}: {self._last_call()}",
        ]
        return "\n".join(lines)

    def _result(self, result: Mapping[str, Any], call: Call, day: int) -> None:
        if not result["success"]:
            self.failed += 1
            return
        tool, arguments = call
        match tool:
            case "tool_order":
                self.ordered += 1
                self.coming[result["order_id"]] = Coming(
                    supplier=arguments["supplier_id"],
                    sku=arguments["sku"],
                    quantity=arguments["quantity"],
                    eta=result["eta_day"],
                )
            case "tool_cancel_order":
                self.cancelled += 1
                self.coming.pop(arguments["order_id"], None)
            case "tool_expedite" if arguments["order_id"] in self.coming:
                self.coming[arguments["order_id"]].eta = result["new_eta_day"]
            case "tool_ship_customer_order":
                for shipped in result["shipped"]:
                    self.shipped += 1
                    self.revenue += shipped["net_revenue"]
                    self.customers.pop(shipped["customer_order_id"], None)
                self.budget = (result["new_budget"], day)
            case "tool_check_budget":
                self.budget = (result["budget"], day)
            case "tool_check_storage":
                self.storage = (result["storage"], day)
            case "tool_check_inbox":
                for message in result["messages"]:
                    self._message(message)
            case "tool_write_scratchpad":
                self.lines += 1
                self.written = day
            case "tool_delete_scratchpad":
                self.lines = 0
            case "tool_set_value":
                self.keys.pop(arguments["key"], None)
                self.keys[arguments["key"]] = None
            case "tool_delete_value":
                self.keys.pop(arguments["key"], None)
            case "tool_reset_beliefs":
                self._facts(result, day)

    def _facts(self, told: Mapping[str, Any], day: int) -> None:
        """All that a reset tells replaces what was known; of lists that were cut, what they name.

        A customer order it names keeps the day of its message.
        """
        self.budget = (told["budget"], day)
        self.storage = (told["storage"], day)
        if "more_orders" not in told:
            self.coming.clear()
        for order in told["orders"]:
            self.coming[order["order_id"]] = Coming(
                supplier=order["supplier_id"],
                sku=order["sku"],
                quantity=order["quantity"],
                eta=order["eta_day"],
            )
        if "more_customer_orders" not in told:
            self.customers.clear()
        for customer in told["customer_orders"]:
            self.customers[customer["customer_order_id"]] = customer

    def _message(self, message: Mapping[str, Any]) -> None:
        match message["type"]:
            case "customer_order":
                self.customers[message["customer_order_id"]] = message
            case "delivery":
                self.coming.pop(message["order_id"], None)
            case "delay_notice" if "new_eta" in message and message["order_id"] in self.coming:
                self.coming[message["order_id"]].eta = message["new_eta"]
            case "quantity_notice" if "quantity" in message and message["order_id"] in self.coming:
                self.coming[message["order_id"]].quantity = message["quantity"]

    def _coming(self, listed: int) -> str:
        return _newest(
            [
                f"{id} ({order.quantity} {order.sku} from {order.supplier}, eta day {order.eta})"
                for id, order in self.coming.items()
            ],
            listed,
        )

    def _customers(self, listed: int) -> str:
        """Those that cannot have expired by the last evening that has left."""
        for id in [
            id
            for id, told in self.customers.items()
            if self.days - 1 - told["day"] > self.expire_after_days
        ]:
            del self.customers[id]
        return _newest(
            [
                f"{id} ({told['quantity']} {told['sku']} at {told['unit_sale_price']:g}, "
                f"due day {told['due_day']})"
                for id, told in self.customers.items()
            ],
            listed,
        )

    def _budget(self) -> str:
        if self.budget is None:
            return "never told"
        return f"{self.budget[0]:.2f} at the call of day {self.budget[1]}"

    def _storage(self) -> str:
        if self.storage is None:
            return "never told"
        units, day = self.storage
        here = ", ".join(f"{count} {sku}" for sku, count in units.items() if count)
        return f"{here or 'empty'} at the call of day {day}"

    def _notes(self, listed: int) -> list[str]:
        """A line on what the memory holds, so that it is looked at; none if it holds nothing."""
        held = []
        if self.lines:
            count = f"{self.lines} line{'' if self.lines == 1 else 's'}"
            held.append(f"scratchpad of {count}, last written on day {self.written}")
        if self.keys:
            held.append(f"values {keys_listed(self.keys, listed)}")
        return [f"- Your notes: {'; '.join(held)}."] if held else []

    def _last_call(self) -> str:
        if self.last_call is None:
            return "none could be read."
        tool, arguments = self.last_call
        said = msgspec.json.encode(loggable({"tool": tool, "args": arguments})).decode()
        return said if len(said) <= LONGEST_CALL else said[:LONGEST_CALL] + "..."


def _newest(names: list[str], listed: int) -> str:
    if len(names) <= listed:
        return ", ".join(names) or "none"
    return ", ".join(names[-listed:]) + f", and {len(names) - listed} older ones"
