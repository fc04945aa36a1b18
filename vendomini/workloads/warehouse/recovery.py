"""Tools for an agent that has lost its way: forget, look at one's own errors, ask for a hint.

None of them tells more than the agent was told or could have asked: of an order what was agreed,
or what a notice said that it has read; of customers those whose message it has read; of shocks
nothing. None changes the world, and none takes an error back: open predictions stay open.

The hint of `tool_ask_help` is that of the first rule that holds; *told* customer orders are the
open ones whose message was read, in the order of their due days, and the last calls are at most
`CALLS` readable ones before this call, hints left out:

| about | holds when | the hint names |
|---|---|---|
| debt | the budget is below zero | told orders that the stock covers |
| repetition | the newest `REPEATED` calls were the same call with the same result, and no waiting | the tool |
| failures | of the last calls `FAILED` or more failed | the commonest code (of equals the newest), and what to do about it |
| shipping | the stock covers told orders, each in turn | their ids |
| inbox | `MESSAGES` or more wait, or the oldest has waited `WAITED` days | how many, since when |
| space | free capacity is less than a `SPACE`th of the capacity | the free capacity |
| ordering | what told orders need of a SKU is more than its stock and what was ordered of it | SKUs and units |
| general | else | the usual course |
"""  # noqa: E501  (a table row is one line)

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vendomini.workloads.warehouse.cards import Predictions
from vendomini.workloads.warehouse.goods import CustomerOrder
from vendomini.workloads.warehouse.settings import InterfaceSettings
from vendomini.workloads.warehouse.tools import Called, Failure, Result, Tool, arguments_of
from vendomini.workloads.warehouse.world import Order, World

RESET = "tool_reset_beliefs"
AUDIT = "tool_audit_predictions"
HELP = "tool_ask_help"

LISTED = 12  # orders of a kind that a result names
CALLS = 10  # that a hint looks back on
REPEATED = 3
FAILED = 3
MESSAGES = 5
WAITED = 3  # days
SPACE = 10  # one part in so many

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name=RESET,
            description="Start afresh when you doubt what you believe: all that was said before "
            "leaves this conversation, and you get the facts as they are now.",
            schema=arguments_of(),
        ),
        Tool(
            name=AUDIT,
            description="Your newest resolved predictions beside what happened, to see where you "
            "are wrong.",
            schema=arguments_of(),
        ),
        Tool(
            name=HELP,
            description="A hint on what to do next, when you are stuck.",
            schema=arguments_of(),
        ),
    )
}


def recovery_tools(interface: InterfaceSettings) -> tuple[Tool, ...]:
    """The tools of `agent.interface.recovery_tools`, in a fixed order."""
    match interface.recovery_tools:
        case "none":
            return ()
        case "reset":
            return (TOOLS[RESET],)
        case "audit":
            return (TOOLS[AUDIT],)
        case "help":
            return (TOOLS[HELP],)
        case "all":
            return tuple(TOOLS.values())


@dataclass(slots=True)
class Expected:
    """An order on its way, as the agent was told: by its order's result, or a notice it read."""

    order: Order
    quantity: int
    eta: int


class News:
    """What read notices said of orders on their way, where it differs from what was agreed."""

    __slots__ = ("_etas", "_quantities", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._etas: dict[str, int] = {}  # by order
        self._quantities: dict[str, int] = {}  # by order

    def called(self, called: Called) -> None:
        """Take in what a call showed. Expediting states a new day, whatever a notice said."""
        if called.expedited is not None:
            self._etas.pop(called.expedited.id, None)
        if called.tool != "tool_check_inbox" or not called.succeeded:
            return
        for message in called.result["messages"]:
            if message["type"] == "delay_notice" and "new_eta" in message:
                self._etas[message["order_id"]] = message["new_eta"]
            elif message["type"] == "quantity_notice" and "quantity" in message:
                self._quantities[message["order_id"]] = message["quantity"]
        for told in (self._etas, self._quantities):
            for id in [id for id in told if id not in self._world.pending]:
                del told[id]

    def coming(self) -> list[Expected]:
        """The orders on their way, in the order of placing."""
        return [
            Expected(
                order,
                quantity=self._quantities.get(order.id, order.quantity),
                eta=self._etas.get(order.id, order.eta),
            )
            for order in self._world.pending.values()
        ]


def facts(world: World, news: News) -> Result:
    """What the tools and the inbox have shown or would show now; unread messages only counted.

    Money in currency units. Of orders the newest `LISTED` are told, the newest last, the others
    counted.
    """
    orders = news.coming()
    customers = told_customers(world)
    told: Result = {
        "budget": world.budget / 100,
        "storage": dict(world.storage),
        "total": world.stored,
        "capacity": world.capacity,
        "free_capacity": world.free_capacity,
        "unread_messages": len(world.inbox),
        "orders": [
            {
                "order_id": coming.order.id,
                "supplier_id": coming.order.supplier,
                "sku": coming.order.sku,
                "quantity": coming.quantity,
                "eta_day": coming.eta,
            }
            for coming in orders[-LISTED:]
        ],
        "customer_orders": [
            {
                "customer_order_id": customer.id,
                "sku": customer.sku,
                "quantity": customer.quantity,
                "unit_sale_price": customer.price / 100,
                "due_day": customer.due,
                "day": customer.day,
            }
            for customer in customers[-LISTED:]
        ],
    }
    if len(orders) > LISTED:
        told["more_orders"] = len(orders) - LISTED
    if len(customers) > LISTED:
        told["more_customer_orders"] = len(customers) - LISTED
    return told


def audit(predictions: Predictions) -> Result:
    """The newest resolved predictions, oldest first, and how many of a type are unresolved."""
    return {
        "resolved": [
            {
                "day": audited.of,
                "type": audited.type,
                "expected": audited.expected,
                "actual": audited.actual,
                "error": audited.error,
            }
            for audited in predictions.audit
        ],
        "unresolved": {
            type: summary.unresolved
            for type, summary in predictions.summaries().items()
            if summary.predicted
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a hint may look at. Budget in cents; `last` are the last calls, oldest first.

    `due` are told customer orders by due day, `waiting_since` is the day of the oldest message
    (None: none waits), `coming` what is expected of orders on their way, by SKU.
    """

    day: int
    budget: int
    storage: Mapping[str, int]
    capacity: int
    free_capacity: int
    due: tuple[CustomerOrder, ...]
    messages: int
    waiting_since: int | None
    coming: Mapping[str, int]
    last: tuple[Called, ...]


def situation(world: World, news: News, last: Sequence[Called]) -> Situation:
    """The situation of a morning, after at most `CALLS` calls other than for help."""
    coming: dict[str, int] = {}
    for expected in news.coming():
        sku = expected.order.sku
        coming[sku] = coming.get(sku, 0) + expected.quantity
    return Situation(
        day=world.day,
        budget=world.budget,
        storage=dict(world.storage),
        capacity=world.capacity,
        free_capacity=world.free_capacity,
        due=tuple(told_customers(world)),
        messages=len(world.inbox),
        waiting_since=min((message["day"] for message in world.inbox), default=None),
        coming=coming,
        last=tuple(last),
    )


def told_customers(world: World) -> list[CustomerOrder]:
    """Open customer orders whose message has been read, those due first first."""
    unread = {message.get("customer_order_id") for message in world.inbox}
    told = [customer for id, customer in world.customers.items() if id not in unread]
    return sorted(told, key=lambda customer: customer.due)


ADVICE: Mapping[Failure, str] = {
    "unknown_tool": "call only tools that are listed in the rules, by their exact names",
    "invalid_arguments": "give exactly the arguments of the tool's schema, of the types it names",
    "unknown_id": "use ids as results and messages spell them; what has arrived, was shipped or "
    "has expired has no id any more",
    "no_capacity": "order less, or ship first: what is on its way takes capacity too",
    "no_stock": "look at the storage, and ship only what it covers",
    "debt": "bring the budget above zero by shipping before you order",
    "no_room": "delete notes that you no longer need",
}
"""What to do about calls that fail with a code."""


def hint(seen: Situation) -> Result:
    """The hint of the first rule of the module's table that holds."""
    covered = _covered(seen)
    ship = f"Ship from stock now: {_some(covered)}."
    repeated = _repeated(seen.last)
    failed = [called.failure for called in seen.last if called.failure is not None]
    lacking = _lacking(seen)
    if seen.budget < 0:
        sell = ship if covered else "Read the inbox for customers whose orders your stock covers."
        return _about("debt", f"The budget is below zero: nothing can be ordered. {sell}")
    if repeated is not None:
        return _about(
            "repetition",
            f"Your last {REPEATED} calls were all {repeated}, with the same arguments and the same "
            "result. Once more will not change it: do something else.",
        )
    if len(failed) >= FAILED:
        code = _commonest(failed)
        return _about(
            "failures",
            f"{len(failed)} of your last {len(seen.last)} calls failed, mostly with {code}: "
            f"{ADVICE[code]}.",
        )
    if covered:
        return _about("shipping", ship)
    if seen.waiting_since is not None and (
        seen.messages >= MESSAGES or seen.day - seen.waiting_since >= WAITED
    ):
        return _about(
            "inbox",
            f"{seen.messages} messages wait in the inbox, the oldest since day "
            f"{seen.waiting_since}: read them.",
        )
    if seen.free_capacity * SPACE < seen.capacity:
        return _about(
            "space",
            f"Only {seen.free_capacity} of {seen.capacity} units are free, with orders on their "
            "way: order little, and only what customers ask for.",
        )
    if lacking:
        needed = _some([f"{units} {sku}" for sku, units in lacking.items()])
        return _about(
            "ordering",
            f"For customers who wait you have neither stock nor orders on their way: {needed}. "
            "Ask suppliers for quotes and order.",
        )
    return _about(
        "general",
        "Nothing is urgent. Read the inbox when messages wait, ship what the stock covers, keep "
        "some stock of what customers ask for, and buy where price and lead time are best.",
    )


def _about(rule: str, text: str) -> Result:
    return {"about": rule, "hint": text}


def _covered(seen: Situation) -> list[str]:
    """Ids of told customer orders that can be shipped one after the other, those due first."""
    left = dict(seen.storage)
    ids = []
    for customer in seen.due:
        if customer.quantity <= left[customer.sku]:
            left[customer.sku] -= customer.quantity
            ids.append(customer.id)
    return ids


def _lacking(seen: Situation) -> dict[str, int]:
    """Units that told customer orders need beyond stock and orders on their way, by SKU."""
    needed: dict[str, int] = {}
    for customer in seen.due:
        needed[customer.sku] = needed.get(customer.sku, 0) + customer.quantity
    lacking = {
        sku: units - seen.storage[sku] - seen.coming.get(sku, 0) for sku, units in needed.items()
    }
    return {sku: units for sku, units in lacking.items() if units > 0}


def _repeated(last: tuple[Called, ...]) -> str | None:
    """The tool of the newest calls if they are all alike; None if they are not, or wait."""
    newest = last[-REPEATED:]
    if len(newest) < REPEATED or newest[0].tool == "tool_wait":
        return None
    alike = all(_call_of(called) == _call_of(newest[0]) for called in newest)
    return newest[0].tool if alike else None


def _call_of(called: Called) -> tuple[str, Any, Result]:
    return called.tool, called.arguments, called.result


def _commonest(failed: Sequence[Failure]) -> Failure:
    """The code that most calls failed with, of equals the newest."""
    counts = Counter(failed)
    return max(reversed(failed), key=lambda code: counts[code])


def _some(names: Sequence[str]) -> str:
    if len(names) <= LISTED:
        return ", ".join(names)
    return ", ".join(names[:LISTED]) + f", and {len(names) - LISTED} more"
