"""Which replies are calls, and which are format failures and never a call."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.modelled import call
from tests.warehouse.playing import settings
from vendomini.workloads.warehouse.reading import (
    LONGEST_NAME,
    FormatFailure,
    ReadCall,
    Reader,
    read_numbers,
)
from vendomini.workloads.warehouse.tools import offered

WAIT = call("tool_wait")
ORDER = call("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 5})


def reader(mode: str = "required", format: str = "structured") -> Reader:
    chosen = settings(
        {"agent.interface.prediction_mode": mode, "agent.interface.prediction_format": format}
    )
    return Reader(chosen.agent.interface)


def without(text: str, *path: str) -> str:
    said = json.loads(text)
    inner = said
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return json.dumps(said)


@pytest.mark.parametrize(
    "text",
    [
        WAIT,
        f"  {WAIT}\n",
        f"```json\n{WAIT}\n```",
        f"```\n{WAIT}\n```",
        f"```JSON\n{WAIT}\n```",
        f"I shall wait {{for now}}.\n```json\n{WAIT}\n```\nThat is all.",
        f'The last result was {{"success": true}}, so: {WAIT}',
        f"<think>hm</think>{WAIT}",
        f"<think>{WAIT} or {{'tool': 1}}?</think>\n{WAIT}",
        f"<thinking>not {{ this</thinking>{WAIT}",
        f"````json\n{WAIT}\n````",
        f"~~~\n{WAIT}\n~~~",
        f"```python\nprint(1)\n```\n{WAIT}",
        f"I must return {WAIT}",
        f"> {WAIT}",
        f"**Action:** `{WAIT}`",
        json.dumps(json.loads(WAIT), indent=4),
    ],
)
def test_one_object_is_a_call_whatever_is_round_it(text: str) -> None:
    read = reader().read(text)
    assert isinstance(read, ReadCall)
    assert (read.tool, read.arguments) == ("tool_wait", {})
    assert read.card is not None
    assert read.card.expected_budget_after == 10000


PYTHON = f"""def next_action():
    # decide
    return json.dumps({WAIT})"""
SHIP = call("tool_ship_customer_order", {"customer_order_id": ["CO1", "<id>"]})
GENERIC = '{"tool": "<tool name>", "args": {}}'


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("I would check the inbox first.", "no JSON object"),
        ("tool_check_inbox", "no JSON object"),
        ('{"success": true}', "no JSON object"),
        (WAIT + WAIT, "2 calls"),
        (f"{WAIT}\nor maybe\n{ORDER}", "2 calls"),
        (f"[{WAIT}]", "list"),
        (f"[{WAIT}, {ORDER}]", "2 calls"),
        (f'{{"action": {WAIT}}}', "no JSON object"),
        (WAIT[:-1], "does not end"),
        (ORDER[: len(ORDER) // 2], "does not end"),
        (f'{{"plan": [{WAIT}, ', "does not end"),
        (WAIT.replace('"', "'"), "no valid JSON"),
        (WAIT.replace("}}", ",}}"), "no valid JSON"),
        (PYTHON, "code"),
        (f"```python\n{WAIT}\n```", "code"),
        (f"action = {WAIT}", "code"),
        (f"def act():\n    return {WAIT}", "code"),
        (f"action = '{WAIT}'", "code"),
        (f'json.loads("""{WAIT}""")', "code"),
        (f"~~~python\n{WAIT}\n~~~", "code"),
        (f"``` python\n{WAIT}\n```", "code"),
        (f"<think>I could {WAIT}", "thoughts"),
        (f"<think>I could {WAIT}</think>I wait.", "no JSON object"),
        ("import json\nprint({'a': 1})", "no JSON object"),
        ('{"tool": "<tool name>", "args": {"<argument>": <value>}}', "no valid JSON"),
        (GENERIC, "placeholder"),
        (WAIT.replace("tool_wait", "<tool name>"), "placeholder"),
        (ORDER.replace("sku_0", "<sku>"), "placeholder"),
        (ORDER.replace('"sku"', '"<argument>"'), "placeholder"),
        (SHIP, "placeholder"),
        (without(WAIT, "prediction"), '"prediction" is missing'),
        (without(WAIT, "args"), '"args" is missing'),
        (without(WAIT, "prediction", "expected_success"), '"expected_success" is missing'),
        (without(ORDER, "prediction", "expected_lead_days"), '"expected_lead_days" is missing'),
        ('{"tool": 3, "args": {}}', '"tool" must be'),
        ('{"tool": "tool_wait", "args": "none"}', '"args" must be'),
        ('{"tool": "tool_wait", "args": {}, "prediction": "fine"}', '"prediction" must be'),
        (call("tool_wait", expected_success="yes"), "true or false"),
        (call("tool_wait", expected_success=None), "true or false"),
        (call("tool_wait", expected_budget_after="10"), "a number"),
        (call("tool_wait", expected_budget_after=True), "a number"),
        (call("tool_wait", expected_budget_after=10**13), "a number"),
        (call("tool_wait", expected_budget_after=float("inf")), "no valid JSON"),
        (WAIT.replace("10000", "1e999"), "a number"),
        (WAIT.replace("10000", "9" * 5000), "no valid JSON"),
        (call("tool_wait", next_tool=3), "name of a tool"),
        (call("tool_wait", next_tool="\ud800"), "name of a tool"),
        (call("tool_wait", mood="good"), "no key `mood`"),
        (WAIT[:-1] + ', "thoughts": "none"}', "no key `thoughts`"),
        (WAIT[:-1] + ', "tool": "tool_order"}', "named twice"),
        ("[" * 5000 + "{" * 5000, "does not end"),
        ('{"tool":' * 5000, "does not end"),
        ('{"a":' * 3000 + "1" + "}" * 3000, "no JSON object"),
        ("\ud800", "no JSON object"),
    ],
)
def test_what_is_no_single_readable_call_is_a_format_failure_that_says_why(
    text: str, why: str
) -> None:
    read = reader().read(text)
    assert isinstance(read, FormatFailure)
    assert why in read.why


@pytest.mark.parametrize(
    ("text", "tool", "arguments"),
    [
        (call("tool_fly", {"to": "S1"}), "tool_fly", {"to": "S1"}),
        (call("", {}), "", {}),
        (call("tool_quote", {"qty": -1}), "tool_quote", {"qty": -1}),
        (call("tool_check_budget", {"x": [1, {"y": None}]}), "tool_check_budget", None),
    ],
)
def test_a_wrong_call_that_can_be_read_is_behaviour(
    text: str, tool: str, arguments: dict[str, Any] | None
) -> None:
    read = reader().read(text)
    assert isinstance(read, ReadCall)
    assert read.tool == tool
    assert arguments is None or read.arguments == arguments


@pytest.mark.parametrize("level", [1, 2])
def test_a_card_needs_no_fields_of_a_tool_that_its_run_does_not_offer(level: int) -> None:
    names = {tool.name for tool in offered(level)}
    text = call("tool_expedite", {"order_id": "ORD0"}, expected_cost=None, expected_lead_days=None)
    read = Reader(settings().agent.interface, names).read(text)
    assert isinstance(read, ReadCall) == ("tool_expedite" not in names)


def test_a_reply_cut_off_by_its_length_says_so_and_a_whole_one_counts() -> None:
    failure = reader().read(ORDER[:-3], "length")
    assert isinstance(failure, FormatFailure)
    assert "cut off" in failure.why
    assert isinstance(reader().read(ORDER + " and then", "length"), ReadCall)


@pytest.mark.parametrize("mode", ["required", "optional", "none"])
@pytest.mark.parametrize("format", ["minimal", "structured"])
def test_each_mode_and_format_has_its_own_checks(mode: str, format: str) -> None:
    structured = ORDER
    minimal = json.dumps(
        json.loads(ORDER) | {"prediction": {"expected_success": True, "expected_cost": 10.5}}
    )
    bare = without(ORDER, "prediction")
    malformed = json.dumps(json.loads(ORDER) | {"prediction": {"expected_success": 1}})
    read = reader(mode, format).read
    readable = {
        "structured": isinstance(read(structured), ReadCall),
        "minimal": isinstance(read(minimal), ReadCall),
        "bare": isinstance(read(bare), ReadCall),
        "malformed": isinstance(read(malformed), ReadCall),
    }
    assert readable == {
        "structured": mode != "none" and format == "structured",
        "minimal": mode != "none" and format == "minimal",
        "bare": mode != "required",
        "malformed": False,
    }


def test_a_field_that_a_call_does_not_need_may_be_there_or_null() -> None:
    for cost in (None, 0, 12.5):
        read = reader().read(call("tool_wait", expected_cost=cost))
        assert isinstance(read, ReadCall)
        assert read.card is not None
        assert read.card.expected_cost == cost


def test_the_name_of_the_next_tool_has_a_longest_length() -> None:
    assert isinstance(reader().read(call("tool_wait", next_tool="t" * LONGEST_NAME)), ReadCall)
    failure = reader().read(call("tool_wait", next_tool="t" * (LONGEST_NAME + 1)))
    assert isinstance(failure, FormatFailure)
    assert "name of a tool" in failure.why


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ('I think: {"budget": -2.5, "storage": 7}.', {"storage": 7.0, "budget": -2.5}),
        ('{"storage": 7, "budget": 2, "sure": 1}', None),
        ('{"storage": 7}', None),
        ('{"storage": 7, "budget": true}', None),
        ('{"storage": 7, "budget": 1e13}', None),
        ('{"storage": 7, "budget": 2} {"storage": 8, "budget": 2}', None),
    ],
)
def test_numbers_are_read_from_an_object_with_exactly_the_keys(
    text: str, numbers: dict[str, float] | None
) -> None:
    assert read_numbers(text, ("storage", "budget")) == numbers


@budget(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.text(alphabet='{}[]"\\`tol:, <>=\n1e-'), st.binary().map(repr)))
def test_no_text_raises(text: str) -> None:
    for mode in ("required", "optional", "none"):
        read = reader(mode).read(f"{text}{WAIT[:50]}{text}")
        assert isinstance(read, FormatFailure | ReadCall)


@budget(max_examples=100, deadline=None)
@given(cut=st.integers(0, len(ORDER) - 1))
def test_no_beginning_of_a_reply_is_a_call(cut: int) -> None:
    assert isinstance(reader().read(ORDER[:cut], "length"), FormatFailure)
