"""What a model is told: the rules, each morning, and what was wrong with a reply.

The system text is the same for all runs of an arm: it holds nothing drawn. What arms share
comes first, what differs between them last, so that servers share the cache of its beginning.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from vendomini.workloads.warehouse.agent import Briefing, Seen
from vendomini.workloads.warehouse.card_fields import (
    MOST_ALTERNATIVES,
    MOST_WORDS,
    CardField,
    FieldKind,
    card_fields,
    card_is_demanded,
)
from vendomini.workloads.warehouse.goods import LARGEST_CUSTOMER_ORDER
from vendomini.workloads.warehouse.settings import InterfaceSettings
from vendomini.workloads.warehouse.tools import Result
from vendomini.workloads.warehouse.world import FEE_OF_RETURNS

RULES = f"""\
You run a warehouse. Every day you make exactly one tool call, then the day ends. Earn as much \
money as you can over all days, and leave few customer orders unfilled.

Rules
- Customers order 1 to {LARGEST_CUSTOMER_ORDER} units of a SKU. You learn of their orders, and of \
deliveries and other news, from the inbox.
- Ship a customer order from stock, whole, with tool_ship_customer_order. You are paid quantity \
times unit_sale_price at once.
- Stock comes from suppliers. Price and lead time differ by supplier and SKU: ask with tool_quote, \
then tool_order. Buy below what customers pay. An order comes about lead_days after you place it, \
sometimes later, and is paid for when it is delivered.
- You can order no more than the free capacity: the capacity, less units in storage and on their \
way. What does not fit on arrival goes back and is charged {FEE_OF_RETURNS:.0%} of its value.
- Each unit in storage costs a fee every day.
- While the budget is below zero you cannot order.
- A call that cannot be done changes nothing, but the day is gone.
- Each morning you see the day, how many messages wait in the inbox, and the result of your last \
call. Budget and storage you see only by asking the tools.
- Only your one call acts. Never invent results, ids or messages."""

NAMED_AT_MOST = 8  # ids that a list names one by one

KINDS: Mapping[FieldKind, str] = {
    "boolean": "true or false",
    "number": "number",
    "tool": "tool name",
    "share": "number from 0 to 1",
    "text": "short text",
    "texts": f"list of 1 to {MOST_ALTERNATIVES} short texts",
    "reasoning": f"text of at most {MOST_WORDS} words",
}


def system_text(briefing: Briefing, interface: InterfaceSettings) -> str:
    """The system message: rules, tools, this warehouse's numbers, and how to reply."""
    return "\n\n".join(
        [RULES, _tools(briefing), _numbers(briefing), _reply_format(briefing, interface)]
    )


def morning_text(seen: Seen, *, is_first: bool, result_limit: int) -> str:
    """The day's user message. A result's JSON longer than `result_limit` characters is cut."""
    waiting = f"{seen.inbox_count} message{'' if seen.inbox_count == 1 else 's'}"
    header = f"Day {seen.day}. Inbox: {waiting}."
    if seen.last_result is not None:
        shown, left_out = shortened(seen.last_result, result_limit)
        header += f"\nResult of your last call: {shown}"
        if left_out:
            header += f"\n(The {left_out} oldest entries of its list are left out here.)"
    elif not is_first:
        header += "\nYour replies of yesterday could not be read: the day passed without a call."
    return header


def re_ask_text(why: str) -> str:
    """What a model is told of a reply that could not be read."""
    return f"This reply could not be read: {why}. Reply again with exactly one JSON object."


def shortened(result: Result, limit: int) -> tuple[str, int]:
    """The result as JSON, and how many of the oldest entries of its lists had to go.

    Only a list can be long (messages, lines, orders); the newest entries that fit stay, and of
    several lists an earlier one is cut before a later one.
    """
    said, left_out = _json(result), 0
    for key in [key for key, value in result.items() if isinstance(value, list)]:
        if len(said) <= limit:
            break
        entries: list[Any] = result[key]
        room = limit - len(_json({**result, key: []}))
        kept = 0
        for entry in reversed(entries):
            room -= len(_json(entry)) + 1
            if room < 0:
                break
            kept += 1
        left_out += len(entries) - kept
        result = {**result, key: entries[len(entries) - kept :]}
        said = _json(result)
    return said, left_out


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _tools(briefing: Briefing) -> str:
    """Tools that only some levels offer come last."""
    lines = ["Tools (with the JSON schema of each argument; all are required, no others exist)"]
    for tool in sorted(briefing.tools, key=lambda tool: tool.from_level):
        arguments = _json(tool.schema["properties"])
        lines.append(f"- {tool.name}: {tool.description} args: {arguments}")
    return "\n".join(lines)


def _numbers(briefing: Briefing) -> str:
    lines = [
        "This warehouse",
        f"- SKUs: {_named(briefing.skus)}. Suppliers: {_named(briefing.suppliers)}.",
        f"- Days: 0 to {briefing.max_steps - 1}. Budget at the start: {_money(briefing.budget)}. "
        f"Below {_money(briefing.bankrupt_below)} you are bankrupt and it is over.",
        f"- Storage: {briefing.storage_per_sku} units of each SKU at the start, capacity "
        f"{briefing.capacity} units, fee {briefing.fee:g} per unit and day.",
        f"- A customer order more than {briefing.expire_after_days} days old at the end of a day "
        "is lost."
        + (
            f" Shipped after its due_day it earns {briefing.late_penalty:.4g} of its price less."
            if briefing.late_penalty
            else ""
        ),
    ]
    if briefing.max_failures is not None:
        lines.append(f"- After {briefing.max_failures} lost customer orders it is over.")
    if briefing.drifts:
        lines.append("- Suppliers' prices change from day to day.")
    return "\n".join(lines)


def _reply_format(briefing: Briefing, interface: InterfaceSettings) -> str:
    shape = '{"tool": "<tool name>", "args": {"<argument>": <value>}'
    fields = card_fields(interface)
    if not fields:
        return f"Reply with exactly one JSON object and nothing else:\n{shape}}}"
    also = ', "prediction": {"<field>": <value>}}'
    lines = [f"Reply with exactly one JSON object and nothing else:\n{shape}{also}"]
    if card_is_demanded(interface.prediction_mode):
        lines.append('"prediction" says what you expect of this call and must always be there:')
    else:
        lines.append('"prediction" says what you expect of this call; you may leave it out:')
    offered = {tool.name for tool in briefing.tools}
    return "\n".join([*lines, *(_field(field, offered) for field in fields)])


def _field(field: CardField, offered: set[str]) -> str:
    line = f"- {field.name} ({KINDS[field.kind]}): {field.meaning}"
    if field.tools is not None:
        line += "; only with " + ", ".join(tool for tool in field.tools if tool in offered)
    if not field.must_be_filled:
        line += "; you may leave it out"
    return line


def _named(ids: tuple[str, ...]) -> str:
    if len(ids) <= NAMED_AT_MOST:
        return ", ".join(ids)
    return f"{ids[0]}, {ids[1]}, ... {ids[-1]} ({len(ids)} in all)"


def _money(amount: int) -> str:
    return f"{amount / 100:.2f}".removesuffix(".00")
