"""A window of 4096 tokens with 2000 for a reply, as the smallest shipped models have it.

Rules, tools, ledger, one day with its result and a reply must fit, whatever was called.
"""

import itertools
import json
from typing import Any

import pytest

from tests.warehouse.modelled import Counting, Storekeeper, call
from tests.warehouse.playing import played, settings
from vendomini.chat import ChatRequest
from vendomini.workloads.warehouse.agent import Seen
from vendomini.workloads.warehouse.ledger import Ledger
from vendomini.workloads.warehouse.prompt import shortened

WINDOW, REPLY = 4096, 2000
ORDER = call("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 1})
LONG = "sku_1 from S2 costs 13.25, lead 4; " * 20
LONG_RESULTS = (
    call("tool_write_scratchpad", {"text": LONG}),
    call("tool_set_value", {"key": "a long key for a long value", "value": LONG}),
    call("tool_read_scratchpad"),
    call("tool_get_value", {"key": "a long key for a long value"}),
    call("tool_reset_beliefs"),
    call("tool_audit_predictions"),
    call("tool_ask_help"),
)


def tokens(text: str) -> int:
    """As common tokenizers count prompts with JSON: 3.5 characters a token."""
    return int(len(text) / 3.5) + 1


@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("recovery", ["none", "all"])
@pytest.mark.parametrize("every", [2, 1000])
def test_a_busy_run_fits_a_small_window_with_every_tool(
    level: int, recovery: str, every: int
) -> None:
    keeper, days = Storekeeper(), itertools.count()

    def say(request: ChatRequest) -> str:
        usual, day = keeper(request), next(days)
        if day == 0:
            return ORDER  # or the run counts as never begun
        return usual if day % every else LONG_RESULTS[day // every % len(LONG_RESULTS)]

    engine = Counting(say=say, window=WINDOW, count=tokens)
    keys = {
        "agent.kind": "llm",
        "agent.model.context_length": WINDOW,
        "agent.model.max_tokens_per_call": REPLY,
        "agent.interface.memory_tools": "full",
        "agent.interface.recovery_tools": recovery,
        "agent.interface.beliefs_every": None,
        "simulation.complexity_level": level,
        "simulation.initial_budget": 1e6,
        "simulation.max_steps": 250,
        "demand.orders_per_day": 2.0,
        "crash_detector.continue_after_crash": 1000,
    }
    run = played(settings(keys), reply=engine)
    assert (run.outcome.end, run.outcome.steps, engine.refused) == ("max_steps", 250, 0)
    assert 0.95 * WINDOW < engine.longest <= WINDOW


def learnt(longest: int) -> str:
    """The ledger of days full of orders, customers and values with long keys."""
    ledger = Ledger(expire_after_days=1000, longest=longest)
    calls: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
    for n in range(30):
        order = {"supplier_id": "S1", "sku": "sku_0", "quantity": 20}
        calls.append(("tool_order", order, {"order_id": f"ORD{n}", "eta_day": n, "price": 1.0}))
        calls.append(("tool_set_value", {"key": f"key {n} " + "x" * 50, "value": ""}, {}))
    result = None
    for day, (tool, arguments, came_to) in enumerate(calls):
        ledger.learn(Seen(day=day, inbox_count=0, last_result=result), (tool, arguments))
        result = {"success": True, **came_to}
    return ledger.text()


@pytest.mark.parametrize(
    ("longest", "named"), [(10_000, 12), (1200, 6), (900, 3), (700, 1), (1, 1)]
)
def test_a_ledger_shortens_its_lists_to_the_newest_that_fit(longest: int, named: int) -> None:
    said = learnt(longest)
    assert len(said) <= max(longest, 700)
    assert said.count("ORD") == named
    assert "ORD29 (20 sku_0 from S1, eta day 29)" in said
    assert f", and {30 - named} older ones." in said
    assert "30 orders placed" in said


def test_a_result_with_several_long_lists_is_cut_in_each_until_it_fits() -> None:
    result: dict[str, Any] = {
        "success": True,
        "budget": 7.5,
        "orders": [{"order_id": f"ORD{n}"} for n in range(40)],
        "customer_orders": [{"customer_order_id": f"CO{n}"} for n in range(40)],
    }
    whole, none_left = shortened(result, 10_000)
    assert (json.loads(whole), none_left) == (result, 0)
    for limit, orders, customers in ((1500, True, True), (1220, False, True), (400, False, False)):
        said, left_out = shortened(result, limit)
        told = json.loads(said)
        assert len(said) <= limit
        assert (len(told["orders"]) > 0) is orders
        assert (len(told["customer_orders"]) == 40) is customers
        assert left_out == 80 - len(told["orders"]) - len(told["customer_orders"])
        assert told["customer_orders"][-1] == {"customer_order_id": "CO39"}
    assert len(result["orders"]) == len(result["customer_orders"]) == 40
