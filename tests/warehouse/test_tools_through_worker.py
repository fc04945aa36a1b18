"""What an interface offers, through the real worker from a phase file.

Each setting of the memory and of the recovery tools is played by a model that calls every tool
there could be: the log shows what each came to, and `unknown_tool` where it is not offered.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.warehouse.modelled import call
from tests.warehouse.offering import ARGUMENTS, MEMORY, RECOVERY
from tests.warehouse.worked import BASE, Worked, in_turn, worked

PHASE = f"""\
inherit: {json.dumps(str(BASE))}
experiment:
  name: tools
fixed:
  agent.interface.beliefs_every: null
grid:
  agent.interface.memory_tools: [MEMORY]
  agent.interface.recovery_tools: [RECOVERY]
"""
ORDER = call("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 10})
EVERY_TOOL = [call(name, args) for name, args in ARGUMENTS.items()]


def phase(*, memory: str = "none", recovery: str = "none") -> str:
    return PHASE.replace("MEMORY", memory).replace("RECOVERY", recovery)


def played_with(folder: Path, *said: str, then: str | None = None, **settings: str) -> Worked:
    calm = {"pe_induction.p_shock": 0.0}
    reply = in_turn(*said, then=then or call("tool_wait"))
    return worked(folder, calm, reply, phase=phase(**settings))


def offered(run: Worked) -> set[str]:
    """Of the tools that can be added, those in the prompt; asserts that the schema has the same."""
    request = run.requests[0]
    prompt = request.messages[0].content
    assert request.reply_format.json_schema is not None
    alternatives = json.loads(request.reply_format.json_schema)["anyOf"]
    in_schema = {each["properties"]["tool"]["const"] for each in alternatives} & set(ARGUMENTS)
    assert {name for name in ARGUMENTS if f"- {name}: " in prompt} == in_schema
    return in_schema


def assert_only_these_act(run: Worked, enabled: frozenset[str]) -> None:
    assert offered(run) == enabled
    for name in ARGUMENTS:
        (result,) = run.results(name)
        assert result["success"] is (name in enabled), name
        if name not in enabled:
            assert result["code"] == "unknown_tool"
            assert result["error"] == f"there is no tool `{name}`"
    assert run.outcome["measures"]["calls_failed"] == len(ARGUMENTS) - len(enabled)


@pytest.mark.parametrize("memory", list(MEMORY))
def test_a_model_has_the_memory_tools_of_the_phase_and_no_others(
    tmp_path: Path, memory: str
) -> None:
    run = played_with(tmp_path, *EVERY_TOOL, memory=memory)
    assert_only_these_act(run, MEMORY[memory])


@pytest.mark.parametrize("recovery", list(RECOVERY))
def test_a_model_has_the_recovery_tools_of_the_phase_and_no_others(
    tmp_path: Path, recovery: str
) -> None:
    run = played_with(tmp_path, *EVERY_TOOL, recovery=recovery)
    assert_only_these_act(run, RECOVERY[recovery])


def test_the_defaults_are_all_of_memory_and_nothing_of_recovery(tmp_path: Path) -> None:
    keys = {"agent.interface.beliefs_every": None}
    run = worked(tmp_path, keys, in_turn(*EVERY_TOOL, then=call("tool_wait")))
    assert_only_these_act(run, MEMORY["full"])


def test_a_scratchpad_keeps_its_lines_and_loses_them_when_deleted(tmp_path: Path) -> None:
    read = call("tool_read_scratchpad")
    lines = [call("tool_write_scratchpad", {"text": text}) for text in ("S1 is late", "buy sku_0")]
    run = played_with(tmp_path, *lines, read, call("tool_delete_scratchpad"), read, memory="basic")
    assert run.results("tool_write_scratchpad") == [{"success": True}] * 2
    full, empty = run.results("tool_read_scratchpad")
    assert full == {"success": True, "lines": ["S1 is late", "buy sku_0"]}
    assert empty == {"success": True, "lines": []}
    assert '"lines":["S1 is late","buy sku_0"]' in run.requests[3].messages[-1].content


def test_values_are_kept_replaced_and_dropped(tmp_path: Path) -> None:
    get = call("tool_get_value", {"key": "best"})
    run = played_with(
        tmp_path,
        get,
        call("tool_set_value", {"key": "best", "value": "S1"}),
        call("tool_set_value", {"key": "best", "value": "S2"}),
        get,
        call("tool_delete_value", {"key": "best"}),
        get,
        memory="full",
    )
    before, kept, after = run.results("tool_get_value")
    assert kept == {"success": True, "value": "S2"}
    assert before == after
    assert (before["code"], before["success"]) == ("unknown_id", False)
    assert run.outcome["measures"]["calls_failed"] == 2


@pytest.mark.parametrize(("recovery", "cut"), [("reset", True), ("all", True), ("audit", False)])
def test_a_reset_cuts_the_conversation_and_tells_the_facts(
    tmp_path: Path, recovery: str, cut: bool
) -> None:
    reset = call("tool_reset_beliefs")
    wait = call("tool_wait")
    run = played_with(tmp_path, ORDER, wait, reset, wait, recovery=recovery)
    lengths = [len(request.messages) for request in run.requests[:5]]
    assert lengths == [2, 4, 6, 4 if cut else 8, 6 if cut else 10]
    (result,) = run.results("tool_reset_beliefs")
    assert result["success"] is cut
    if cut:
        first = run.requests[3].messages[1].content
        assert first.startswith("Days 0 to 1 have left this conversation.")
        (order,) = run.results("tool_order")
        (told,) = result["orders"]
        assert (told["order_id"], told["eta_day"]) == (order["order_id"], order["eta_day"])
        assert result["budget"] == run.steps[2]["truth"]["budget"] == 10_000


def test_a_reset_does_not_change_what_the_run_measures(tmp_path: Path) -> None:
    """The order's errors resolve as they do when a day is waited instead."""
    runs = []
    for name, second in (("reset", "tool_reset_beliefs"), ("wait", "tool_wait")):
        (tmp_path / name).mkdir()
        runs.append(played_with(tmp_path / name, ORDER, call(second), recovery="reset"))
    with_reset, without = ([step["resolved"] for step in run.steps] for run in runs)
    assert with_reset == without
    assert any(error["type"] == "temporal" for step in with_reset for error in step)
    assert runs[0].outcome["pe"] == runs[1].outcome["pe"]


@pytest.mark.parametrize("recovery", ["audit", "all"])
def test_an_audit_tells_what_the_log_resolved(tmp_path: Path, recovery: str) -> None:
    audit = call("tool_audit_predictions")
    waits = [call("tool_wait")] * 3
    run = played_with(tmp_path, ORDER, *waits, audit, recovery=recovery)
    (result,) = run.results("tool_audit_predictions")
    resolved: list[dict[str, Any]] = [error for step in run.steps[:4] for error in step["resolved"]]
    resolved += [e for e in run.steps[4]["resolved"] if e["type"] in ("temporal", "quantity")]
    told = [
        {"type": error["type"], "of": error["day"], "error": error["error"]}
        for error in result["resolved"]
    ]
    assert len(told) == 10
    assert told == resolved[-10:]
    assert result["unresolved"]["storage"] == 0


@pytest.mark.parametrize("recovery", ["help", "all"])
def test_help_gives_the_hint_that_the_state_asks_for(tmp_path: Path, recovery: str) -> None:
    wrong = [call("tool_quote", {"supplier_id": "S1", "sku": f"no_{n}", "quantity": 1})
             for n in range(3)]  # fmt: skip
    ask = call("tool_ask_help")
    run = played_with(tmp_path, ask, *wrong, ask, recovery=recovery)
    calm, failing = run.results("tool_ask_help")
    assert (calm["about"], failing["about"]) == ("general", "failures")
    assert "3 of your last 3 calls failed, mostly with unknown_id" in failing["hint"]


def test_calls_of_added_tools_are_calls_like_any_other(tmp_path: Path) -> None:
    """The same call for ever is looping, and it costs the day as every call does."""
    again = call("tool_ask_help")
    keys = {"demand.orders_per_day": 0.0, "simulation.max_steps": 40}
    run = worked(tmp_path, keys, in_turn(then=again), phase=phase(recovery="help"))
    assert run.derived["signs"]["looping"] is not None
    assert [step["day"] for step in run.steps] == list(range(len(run.steps)))
