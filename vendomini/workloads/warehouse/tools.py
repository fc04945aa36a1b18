"""The tools of the warehouse: schemas, and what a call does.

Those that an interface adds are in `memory.py` and `recovery.py`; `toolbox.py` joins them.

A call that cannot be done as it was asked is a *failed call*: the world stays as it was and
the result says why. Never an exception, never silently repaired. Results hold no current
day, so that two of them compare equal when nothing differs but the day.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from vendomini.workloads.warehouse.arguments import Schema, loggable, shown, violation
from vendomini.workloads.warehouse.world import Order, World

Result: TypeAlias = dict[str, Any]
"""What the agent reads: plain JSON values with `success`; if false, also `code` and `error`."""

Failure: TypeAlias = Literal[
    "unknown_tool", "invalid_arguments", "unknown_id", "no_capacity", "no_stock", "debt", "no_room"
]

MOST_SHIPPED = 100  # customer orders in one call


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """What a call came to. `arguments` are those of the call, as the log can hold them."""

    tool: str
    arguments: object
    result: Result
    failure: Failure | None = None  # None: the call succeeded
    paid: int = 0  # cents charged at once
    ordered: Order | None = None  # the order placed
    expedited: Order | None = None

    @property
    def succeeded(self) -> bool:
        return self.failure is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """`description` and `schema` are what an agent is told."""

    name: str
    description: str
    schema: Schema
    from_level: int = 0  # lowest complexity level that offers it


class Refused(Exception):
    """Ends a call that cannot be done; `failed_call` says what it comes to."""

    def __init__(self, failure: Failure, message: str) -> None:
        self.failure: Failure = failure
        self.message = message


def arguments_of(**properties: Schema) -> Schema:
    """The schema of a tool's arguments, all of them required and no others allowed."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


_TEXT: Schema = {"type": "string"}
_QUANTITY: Schema = {"type": "integer", "minimum": 1}
_ONE_OR_MORE: Schema = {
    "anyOf": [
        _TEXT,
        {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_SHIPPED},
    ]
}

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            name="tool_order",
            description="Order units of a SKU at a supplier; paid on delivery.",
            schema=arguments_of(supplier_id=_TEXT, sku=_TEXT, quantity=_QUANTITY),
        ),
        Tool(
            name="tool_check_inbox",
            description="Read all messages; this empties the inbox.",
            schema=arguments_of(),
        ),
        Tool(
            name="tool_check_storage",
            description="Units in storage by SKU, in all, and the capacity.",
            schema=arguments_of(),
        ),
        Tool(
            name="tool_check_budget",
            description="The budget.",
            schema=arguments_of(),
        ),
        Tool(
            name="tool_quote",
            description="A supplier's price today and its lead time in days.",
            schema=arguments_of(supplier_id=_TEXT, sku=_TEXT, quantity=_QUANTITY),
        ),
        Tool(
            name="tool_cancel_order",
            description="Cancel an order on its way, for a fee of 10 % of its value.",
            schema=arguments_of(order_id=_TEXT),
        ),
        Tool(
            name="tool_expedite",
            description="Bring an order up to two days forward, for 50 % of its value.",
            schema=arguments_of(order_id=_TEXT),
            from_level=2,
        ),
        Tool(
            name="tool_ship_customer_order",
            description="Ship one open customer order, or a list of them (all or none).",
            schema=arguments_of(customer_order_id=_ONE_OR_MORE),
        ),
        Tool(
            name="tool_wait",
            description="Let the day pass.",
            schema=arguments_of(),
        ),
    )
}


def offered(complexity_level: int) -> tuple[Tool, ...]:
    """The tools of a complexity level, in a fixed order."""
    return tuple(tool for tool in TOOLS.values() if tool.from_level <= complexity_level)


def call(world: World, tool: object, arguments: object) -> Called:
    """Make the day's call. Takes anything at all as tool and arguments, and never raises."""
    try:
        if not isinstance(tool, str) or tool not in TOOLS:
            raise Refused("unknown_tool", f"there is no tool {shown(tool)}")
        if tool == "tool_expedite" and not world.expedites:
            raise Refused("unknown_tool", "there is no tool `tool_expedite`")
        wrong = violation(TOOLS[tool].schema, arguments)
        if wrong is not None:
            raise Refused("invalid_arguments", wrong)
        assert isinstance(arguments, dict)
        return _CALLS[tool](world, arguments)
    except Refused as refused:
        return failed_call(tool, arguments, refused)


def failed_call(tool: object, arguments: object, refused: Refused) -> Called:
    """A call that changed nothing, of anything at all as tool and arguments."""
    return Called(
        tool=str(loggable(tool)),
        arguments=loggable(arguments),
        result={"success": False, "code": refused.failure, "error": refused.message},
        failure=refused.failure,
    )


def _order(world: World, arguments: Mapping[str, Any]) -> Called:
    supplier, sku = _supplied(world, arguments)
    quantity: int = arguments["quantity"]
    if world.budget < 0:
        raise Refused("debt", "the budget is below zero: nothing can be ordered")
    if quantity > world.free_capacity:
        raise Refused(
            "no_capacity",
            f"the quantity {shown(quantity)} is more than the free capacity "
            f"`{world.free_capacity}` (capacity less storage and orders on their way)",
        )
    order = world.place_order(supplier=supplier, sku=sku, quantity=quantity)
    return Called(
        tool="tool_order",
        arguments=arguments,
        result={
            "success": True,
            "order_id": order.id,
            "eta_day": order.eta,
            "price": order.value / 100,
        },
        ordered=order,
    )


def _check_inbox(world: World, arguments: Mapping[str, Any]) -> Called:
    messages, world.inbox = world.inbox, []
    return Called(
        tool="tool_check_inbox",
        arguments=arguments,
        result={"success": True, "messages": messages},
    )


def _check_storage(world: World, arguments: Mapping[str, Any]) -> Called:
    return Called(
        tool="tool_check_storage",
        arguments=arguments,
        result={
            "success": True,
            "storage": dict(world.storage),
            "total": world.stored,
            "capacity": world.capacity,
        },
    )


def _check_budget(world: World, arguments: Mapping[str, Any]) -> Called:
    return Called(
        tool="tool_check_budget",
        arguments=arguments,
        result={"success": True, "budget": world.budget / 100},
    )


def _quote(world: World, arguments: Mapping[str, Any]) -> Called:
    supplier, sku = _supplied(world, arguments)
    return Called(
        tool="tool_quote",
        arguments=_logged_quantity(arguments),
        result={
            "success": True,
            "unit_price": world.price(supplier, sku) / 100,
            "lead_days": world.catalogue.lead_days(supplier, sku),
        },
    )


def _cancel(world: World, arguments: Mapping[str, Any]) -> Called:
    order = _pending(world, arguments)
    fee = world.cancel(order)
    return Called(
        tool="tool_cancel_order",
        arguments=arguments,
        result={"success": True, "fee": fee / 100},
        paid=fee,
    )


def _expedite(world: World, arguments: Mapping[str, Any]) -> Called:
    order = _pending(world, arguments)
    cost = world.expedite(order)
    return Called(
        tool="tool_expedite",
        arguments=arguments,
        result={"success": True, "new_eta_day": order.eta, "cost": cost / 100},
        paid=cost,
        expedited=order,
    )


def _ship(world: World, arguments: Mapping[str, Any]) -> Called:
    asked = arguments["customer_order_id"]
    ids: list[str] = [asked] if isinstance(asked, str) else asked
    wanted: dict[str, int] = {}
    for id in ids:
        if id not in world.customers:
            raise Refused("unknown_id", f"{shown(id)} is no open customer order")
        customer = world.customers[id]
        wanted[customer.sku] = wanted.get(customer.sku, 0) + customer.quantity
    if len(set(ids)) < len(ids):
        raise Refused("invalid_arguments", "a customer order is named twice")
    for sku, units in wanted.items():
        if units > world.storage[sku]:
            here = world.storage[sku]
            raise Refused("no_stock", f"`{units}` units of `{sku}` are needed, `{here}` are here")
    shipped: list[Result] = []
    net = 0
    for id in ids:
        customer = world.customers[id]
        gross, penalty = world.ship(customer)
        net += gross - penalty
        shipped.append(
            {
                "customer_order_id": id,
                "sku": customer.sku,
                "quantity": customer.quantity,
                "gross_revenue": gross / 100,
                "late_penalty": penalty / 100,
                "net_revenue": (gross - penalty) / 100,
            }
        )
    return Called(
        tool="tool_ship_customer_order",
        arguments=arguments,
        result={
            "success": True,
            "shipped": shipped,
            "net_revenue": net / 100,
            "new_budget": world.budget / 100,
        },
    )


def _wait(world: World, arguments: Mapping[str, Any]) -> Called:
    return Called(tool="tool_wait", arguments=arguments, result={"success": True})


def _supplied(world: World, arguments: Mapping[str, Any]) -> tuple[str, str]:
    supplier, sku = arguments["supplier_id"], arguments["sku"]
    if supplier not in world.catalogue.supplier_number:
        raise Refused("unknown_id", f"there is no supplier {shown(supplier)}")
    if sku not in world.catalogue.sku_number:
        raise Refused("unknown_id", f"there is no SKU {shown(sku)}")
    return supplier, sku


def _pending(world: World, arguments: Mapping[str, Any]) -> Order:
    order = world.pending.get(arguments["order_id"])
    if order is None:
        raise Refused("unknown_id", f"no order {shown(arguments['order_id'])} is on its way")
    return order


def _logged_quantity(arguments: Mapping[str, Any]) -> object:
    """A quote takes any quantity, also one that the log cannot hold as a number."""
    return loggable(dict(arguments))


_CALLS: Mapping[str, Callable[[World, Mapping[str, Any]], Called]] = {
    "tool_order": _order,
    "tool_check_inbox": _check_inbox,
    "tool_check_storage": _check_storage,
    "tool_check_budget": _check_budget,
    "tool_quote": _quote,
    "tool_cancel_order": _cancel,
    "tool_expedite": _expedite,
    "tool_ship_customer_order": _ship,
    "tool_wait": _wait,
}
