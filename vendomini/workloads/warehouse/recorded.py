"""What is said and done in a trial, whatever the run: recorded once, the same for every arm.

A trial needs behaviour that no good agent shows: replies in every dress, readable or not, calls
that fail, and a slow breakdown. All of it is a function of the step and the attempt alone, so
that whatever differs between two trials is the work of their settings.
"""

import json
from collections.abc import Callable
from typing import Any, TypeAlias

from vendomini.workloads.warehouse.agent import Believed, Decision
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.llm import MOST_RE_ASKS

Call: TypeAlias = tuple[str, dict[str, Any]]
Dress: TypeAlias = Callable[[str, dict[str, Any]], str]

ORDERED = 10  # units
ORDER_EVERY = 7  # steps
BELIEVE_EVERY = 5  # steps

SUPPLIED = {"supplier_id": "S1", "sku": "sku_0", "quantity": ORDERED}

LOOKS: tuple[Call, ...] = (
    ("tool_check_budget", {}),
    ("tool_quote", SUPPLIED),
    ("tool_check_inbox", {}),
    ("tool_wait", {}),
    ("tool_check_storage", {}),
)
"""Calls that can be done in any world."""


def worsening(step: int, steps: int) -> Decision:
    """A breakdown over `steps` steps: ever more calls fail, and are not the ones announced.

    Of the first t steps about t**2 / (2 steps) fail, so that a share of failed calls is
    reached the later, the larger it is and the longer the window is that it is taken over.
    """
    fails = _failed(step + 1, steps) > _failed(step, steps)
    tool, arguments = LOOKS[step % len(LOOKS)]
    if fails:
        tool, arguments = "tool_ship_customer_order", {"customer_order_id": f"none of {step}"}
    elif step % ORDER_EVERY == 0:
        tool, arguments = "tool_order", SUPPLIED
    believed = None
    if step % BELIEVE_EVERY == 0:
        believed = Believed(storage=step, budget=10_000 - 100 * step)
    card = Card(
        expected_success=True,
        expected_cost=100,
        expected_lead_days=3,
        expected_quantity=ORDERED,
        expected_storage_after=ORDERED,
        expected_budget_after=10_000,
        next_tool="tool_wait" if fails else LOOKS[(step + 1) % len(LOOKS)][0],
    )
    return Decision(tool=tool, arguments=arguments, card=card, believed=believed)


def stuck(step: int) -> Decision:
    """An order, that the run counts as begun, and then the same look for ever, at what no day
    changes: a crash as early as one can be."""
    if step == 0:
        return Decision(tool="tool_order", arguments=SUPPLIED)
    return Decision(tool="tool_check_storage", arguments={})


def said(step: int, attempt: int) -> str:
    """The reply to a step's request, the first of which is attempt 0: a call in some dress.

    Each call is made on so many steps in a row that with two re-asks a step it comes in every
    dress; the dress that it comes in first changes from call to call.
    """
    block = step // STEPS_A_CALL
    tool, arguments = CALLS[block % len(CALLS)]
    dress = DRESSES[((1 + MOST_RE_ASKS) * step + attempt + block) % len(DRESSES)]
    return dress(tool, _numbered(arguments, step))


# -- private -------------------------------------------------------------------------------

MINIMAL = {"expected_success": True, "expected_cost": 120}
STRUCTURED = {
    **MINIMAL,
    "expected_lead_days": 3,
    "expected_quantity": ORDERED,
    "expected_storage_after": 4,
    "expected_budget_after": 9900,
    "next_tool": "tool_check_inbox",
}
CONFIDENCE = {"confidence": 0.7}
UNCERTAINTY = {"uncertain_about": "the lead time"}
REASONS = {
    "based_on": "the last quote",
    "alternatives_considered": ["wait a day", "order less"],
    "reasoning": "Stock is low and customers wait.",
}
FULL = {**CONFIDENCE, **UNCERTAINTY, **REASONS}

CALLS: tuple[Call, ...] = (
    ("tool_quote", SUPPLIED),
    ("tool_order", SUPPLIED),
    ("tool_check_inbox", {}),
    ("tool_order", {"supplier_id": "S2", "sku": "sku_1", "quantity": ORDERED}),
    ("tool_write_scratchpad", {"text": "day {step}: sku_0 is low"}),
    ("tool_read_scratchpad", {}),
    ("tool_set_value", {"key": "low", "value": "sku_0 on day {step}"}),
    ("tool_get_value", {"key": "low"}),
    ("tool_check_storage", {}),
    ("tool_ship_customer_order", {"customer_order_id": "CO{third}"}),
    ("tool_ship_customer_order", {"customer_order_id": ["CO{third}", "CO{tenth}"]}),
    ("tool_expedite", {"order_id": "ORD{tenth}"}),
    ("tool_cancel_order", {"order_id": "ORD{tenth}"}),
    ("tool_check_budget", {}),
    ("tool_delete_value", {"key": "low"}),
    ("tool_audit_predictions", {}),
    ("tool_ask_help", {}),
    ("tool_reset_beliefs", {}),
    ("tool_delete_scratchpad", {}),
    ("tool_order", {"supplier_id": "S9", "sku": "sku_0", "quantity": -1}),
    ("tool_fly", {"to": "the moon"}),
    ("tool_wait", {}),
)
"""Calls of every tool, also of those that only some runs have, and of one that no run has."""


def _numbered(arguments: dict[str, Any], step: int) -> dict[str, Any]:
    """The arguments with the step's numbers filled in."""
    numbers = {"step": step, "third": step // 3, "tenth": step // 10}
    text = json.dumps(arguments)
    for name, number in numbers.items():
        text = text.replace(f"{{{name}}}", str(number))
    filled: dict[str, Any] = json.loads(text)
    return filled


def _failed(step: int, steps: int) -> int:
    return step * step // (2 * steps)


def _carded(card: dict[str, Any]) -> Dress:
    return lambda tool, arguments: json.dumps({"tool": tool, "args": arguments, "prediction": card})


def _bare(tool: str, arguments: dict[str, Any]) -> str:
    return json.dumps({"tool": tool, "args": arguments})


DRESSES: tuple[Dress, ...] = (
    _carded(STRUCTURED),
    _bare,
    _carded(MINIMAL),
    _carded({**STRUCTURED, **CONFIDENCE}),
    _carded({**STRUCTURED, **UNCERTAINTY}),
    _carded({**STRUCTURED, **FULL}),
    _carded({**MINIMAL, **CONFIDENCE}),
    lambda tool, arguments: _bare(tool, arguments)[:-2],
    _carded({**MINIMAL, **UNCERTAINTY}),
    _carded({**MINIMAL, **FULL}),
    lambda tool, arguments: '{"storage": 12, "budget": 9500}',
    lambda tool, arguments: f"```python\n{_carded(STRUCTURED)(tool, arguments)}\n```",
)

STEPS_A_CALL = -(-len(DRESSES) // (1 + MOST_RE_ASKS))
CONVERSATION_STEPS = STEPS_A_CALL * len(CALLS)
"""Steps until every call was made in every dress that can be read."""
