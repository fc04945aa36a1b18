"""Scratchpad and values: offered by the setting, kept within limits, and remembered."""

import itertools
import json
import random
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.modelled import Counting, Storekeeper, call
from tests.warehouse.offering import ARGUMENTS, MEMORY, RECOVERY, added, game, told
from tests.warehouse.playing import played, settings
from vendomini.chat import ChatRequest
from vendomini.workloads.warehouse.agent import Decision
from vendomini.workloads.warehouse.memory import (
    KEYS_NAMED,
    LARGEST_PAD,
    LONGEST_KEY,
    LONGEST_TEXT,
    MOST_VALUES,
)
from vendomini.workloads.warehouse.tools import TOOLS


@pytest.mark.parametrize(("memory", "recovery"), list(itertools.product(MEMORY, RECOVERY)))
def test_exactly_the_enabled_tools_are_in_the_prompt_the_reply_schema_and_callable(
    memory: str, recovery: str
) -> None:
    enabled = set(MEMORY[memory] | RECOVERY[recovery])
    assert told(memory, recovery) == (enabled, enabled, enabled)


@pytest.mark.parametrize("kind", ["llm", "probe", "heuristic", "random"])
def test_only_agents_that_ask_are_offered_what_an_interface_adds(kind: str) -> None:
    run = game(kind=kind)
    assert set(added(run)) == (set(ARGUMENTS) if kind in ("llm", "probe") else set())
    assert run.tools.call("tool_read_scratchpad", {}).succeeded is (kind in ("llm", "probe"))
    assert [tool.name for tool in run.tools.offered[: len(TOOLS) - 1]] == [
        name for name in TOOLS if name != "tool_expedite"
    ]


def test_arms_share_the_beginning_of_their_tools() -> None:
    def offered(memory: str, recovery: str) -> list[str]:
        keys = {"agent.interface.memory_tools": memory, "agent.interface.recovery_tools": recovery}
        return added(game(keys))

    arms = [("none", "none"), ("basic", "none"), ("full", "none"), ("full", "all")]
    for fewer, more in itertools.pairwise(offered(*arm) for arm in arms):
        assert len(fewer) < len(more)
        assert more[: len(fewer)] == fewer


def test_lines_are_read_as_they_were_written_until_the_pad_is_emptied() -> None:
    tools = game().tools
    assert tools.call("tool_read_scratchpad", {}).result == {"success": True, "lines": []}
    for text in ("S1 is late", "", "two\nlines, and \u00e9\u4e2d"):
        assert tools.call("tool_write_scratchpad", {"text": text}).result == {"success": True}
    read = tools.call("tool_read_scratchpad", {}).result
    assert read["lines"] == ["S1 is late", "", "two\nlines, and \u00e9\u4e2d"]
    assert tools.call("tool_delete_scratchpad", {}).result == {"success": True}
    assert tools.call("tool_read_scratchpad", {}).result["lines"] == []
    assert len(read["lines"]) == 3  # the log's result is not emptied with the pad


def test_a_value_is_replaced_read_and_dropped() -> None:
    tools = game().tools
    for value in ("S1", "S2"):
        assert tools.call("tool_set_value", {"key": "best", "value": value}).succeeded
    assert tools.call("tool_get_value", {"key": "best"}).result == {"success": True, "value": "S2"}
    assert tools.call("tool_delete_value", {"key": "best"}).result == {"success": True}
    for name in ("tool_get_value", "tool_delete_value"):
        called = tools.call(name, {"key": "best"})
        assert (called.failure, called.result["code"]) == ("unknown_id", "unknown_id")
        assert called.result["error"] == "there is no value `best`; there are: none"


def test_an_unknown_key_names_the_keys_there_are_and_not_too_many() -> None:
    tools = game().tools
    for number in range(KEYS_NAMED):
        tools.call("tool_set_value", {"key": f"k{number}", "value": ""})
    tools.call("tool_set_value", {"key": "k0", "value": "new"})
    error = tools.call("tool_get_value", {"key": "k99"}).result["error"]
    assert error.startswith("there is no value `k99`; there are: `k1`, `k2`, ")
    assert error.endswith(", `k11`, `k0`")
    for number in range(KEYS_NAMED, MOST_VALUES):
        tools.call("tool_set_value", {"key": f"{number}" * 30, "value": ""})
    error = tools.call("tool_delete_value", {"key": "k99"}).result["error"]
    assert f"{MOST_VALUES - KEYS_NAMED} older ones, " in error
    assert error.endswith(f", `{'98' * 30}`, `{'99' * 30}`")
    assert len(error) < 1200


@pytest.mark.parametrize(
    ("tool", "arguments", "limit"),
    [
        ("tool_write_scratchpad", {"text": "x" * (LONGEST_TEXT + 1)}, LONGEST_TEXT),
        ("tool_set_value", {"key": "k", "value": "x" * (LONGEST_TEXT + 1)}, LONGEST_TEXT),
        ("tool_set_value", {"key": "x" * (LONGEST_KEY + 1), "value": "v"}, LONGEST_KEY),
        ("tool_get_value", {"key": "x" * (LONGEST_KEY + 1)}, LONGEST_KEY),
    ],
)
def test_a_text_over_its_limit_is_refused_with_the_limit_and_its_length(
    tool: str, arguments: dict[str, str], limit: int
) -> None:
    tools = game().tools
    called = tools.call(tool, arguments)
    assert called.failure == "invalid_arguments"
    said = called.result["error"]
    assert f"a text of at most {limit} characters (this one has {limit + 1}), not `xxx" in said
    assert tools.call("tool_read_scratchpad", {}).result["lines"] == []
    shorter = {name: text[:limit] for name, text in arguments.items()}
    assert tools.call(tool, shorter).failure in (None, "unknown_id")


@pytest.mark.parametrize("text", [7, None, True, ["a"], {"a": 1}, "\ud800"])
def test_what_is_no_text_that_a_request_can_carry_is_refused(text: object) -> None:
    tools = game().tools
    called = tools.call("tool_write_scratchpad", {"text": text})
    assert called.failure == "invalid_arguments"
    assert f"a text of at most {LONGEST_TEXT} characters" in called.result["error"]
    called.result["error"].encode("ascii")
    assert tools.call("tool_read_scratchpad", {}).result["lines"] == []


def test_a_full_scratchpad_says_what_it_holds_and_takes_what_still_fits() -> None:
    tools = game().tools
    lines = LARGEST_PAD // LONGEST_TEXT - 1
    for _ in range(lines):
        assert tools.call("tool_write_scratchpad", {"text": "x" * LONGEST_TEXT}).succeeded
    assert tools.call("tool_write_scratchpad", {"text": "y" * (LONGEST_TEXT - 5)}).succeeded
    full = tools.call("tool_write_scratchpad", {"text": "z" * 6})
    assert full.failure == "no_room"
    assert full.result["error"] == (
        f"the scratchpad holds `{LARGEST_PAD - 5}` characters in `{lines + 1}` lines, at most "
        f"`{LARGEST_PAD}`: `6` more do not fit; tool_delete_scratchpad empties it"
    )
    assert tools.call("tool_write_scratchpad", {"text": "z" * 5}).succeeded
    assert tools.call("tool_delete_scratchpad", {}).succeeded
    assert tools.call("tool_write_scratchpad", {"text": "z" * 6}).succeeded


def test_a_full_store_says_so_and_still_replaces() -> None:
    tools = game().tools
    for number in range(MOST_VALUES):
        assert tools.call("tool_set_value", {"key": str(number), "value": "v"}).succeeded
    full = tools.call("tool_set_value", {"key": "more", "value": "v"})
    assert full.failure == "no_room"
    assert f"`{MOST_VALUES}` values are kept" in full.result["error"]
    assert "tool_delete_value" in full.result["error"]
    assert tools.call("tool_set_value", {"key": "7", "value": "w"}).succeeded
    assert tools.call("tool_delete_value", {"key": "8"}).succeeded
    assert tools.call("tool_set_value", {"key": "more", "value": "v"}).succeeded


TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["x" * LONGEST_TEXT, "x" * (LONGEST_TEXT + 1), "\ud800", "k" * LONGEST_KEY]),
)
NOTES = st.one_of(
    st.tuples(st.just("tool_write_scratchpad"), st.fixed_dictionaries({"text": TEXTS})),
    st.tuples(st.just("tool_set_value"), st.fixed_dictionaries({"key": TEXTS, "value": TEXTS})),
    st.tuples(
        st.sampled_from(["tool_get_value", "tool_delete_value"]),
        st.fixed_dictionaries({"key": TEXTS}),
    ),
    st.tuples(
        st.sampled_from(["tool_read_scratchpad", "tool_delete_scratchpad"]),
        st.sampled_from([{}, {}, {"text": "x"}]),
    ),
)


def fits(arguments: dict[str, str]) -> bool:
    limits = {"text": LONGEST_TEXT, "value": LONGEST_TEXT, "key": LONGEST_KEY}
    return all(
        len(text) <= limits[name] and not re.search("[\ud800-\udfff]", text)
        for name, text in arguments.items()
    )


@budget(max_examples=150, deadline=None)
@given(st.lists(NOTES, max_size=40), st.integers(0, LARGEST_PAD // LONGEST_TEXT))
def test_the_memory_is_a_list_and_a_dictionary_with_limits(
    calls: list[tuple[str, dict[str, str]]], full_lines: int
) -> None:
    tools = game().tools
    lines: list[str] = []
    values: dict[str, str] = {}
    filled = [("tool_write_scratchpad", {"text": "x" * LONGEST_TEXT})] * full_lines
    for tool, arguments in filled + calls:
        expected: dict[str, Any] | str = {}
        if not fits(arguments) or ("text" in arguments and tool != "tool_write_scratchpad"):
            expected = "invalid_arguments"
        elif tool == "tool_write_scratchpad":
            if sum(map(len, lines)) + len(arguments["text"]) > LARGEST_PAD:
                expected = "no_room"
            else:
                lines.append(arguments["text"])
        elif tool == "tool_read_scratchpad":
            expected = {"lines": lines}
        elif tool == "tool_delete_scratchpad":
            lines = []
        elif tool == "tool_set_value":
            values[arguments["key"]] = arguments["value"]
        elif arguments["key"] not in values:
            expected = "unknown_id"
        elif tool == "tool_get_value":
            expected = {"value": values[arguments["key"]]}
        else:
            del values[arguments["key"]]
        called = tools.call(tool, arguments)
        if isinstance(expected, str):
            assert (called.failure, called.result["code"]) == (expected, expected)
        else:
            assert called.result == {"success": True, **expected}
        strict(called.arguments)
        strict(called.result)


def strict(value: object) -> Any:
    """Through JSON and back, refusing what only some readers take."""

    def refuse(constant: str) -> object:
        raise AssertionError(constant)

    return json.loads(msgspec.json.encode(value), parse_constant=refuse)


def hostile(draw: random.Random, depth: int = 0) -> Any:
    """A value that no schema asks for, and some that one nearly does."""
    plain = (
        None, True, -1, 0, 10**30, 1.5, float("nan"), float("inf"), "", "best", "\ud800", "\0\n",
        "S1", "sku_0", "ORD0", "CO0", "x" * 2000, "\U0001f600" * 900, b"bytes", object(),
    )  # fmt: skip
    if depth < 6 and draw.random() < 0.2:
        items = [hostile(draw, depth + 1) for _ in range(draw.randrange(4))]
        return items if draw.random() < 0.5 else {str(item)[:9]: item for item in items}
    return draw.choice(plain)


def test_10000_hostile_calls_over_all_tools_raise_nothing_and_log_strict_json() -> None:
    run = game(
        {
            "simulation.complexity_level": 4,
            "simulation.max_steps": 10_000,
            "simulation.initial_budget": 1e9,
            "crash_detector.continue_after_crash": 100_000,
            "pe_induction.p_shock": 0.3,
        }
    )
    schemas = {tool.name: tool.schema for tool in run.tools.offered}
    assert len(schemas) == len(TOOLS) + len(ARGUMENTS)
    draw = random.Random(7)
    names = sorted(schemas)
    succeeded: set[str] = set()
    failures: set[str] = set()
    order = {"supplier_id": "S1", "sku": "sku_0", "quantity": 1}
    run.day(Decision(tool="tool_order", arguments=order))  # or the run counts as never begun
    run.morning()
    while run.end is None:
        name = draw.choice(names) if draw.random() < 0.95 else hostile(draw)
        arguments = hostile(draw)
        if isinstance(name, str) and name in schemas and draw.random() < 0.9:
            arguments = {key: hostile(draw) for key in schemas[name]["properties"]}
            if name in ARGUMENTS and draw.random() < 0.5:
                arguments = dict(ARGUMENTS[name])
        step = run.day(Decision(tool=name, arguments=arguments))
        logged = strict(step)
        assert logged["result"]["success"] in (True, False)
        if logged["result"]["success"]:
            succeeded.add(logged["action"]["tool"])
        else:
            failures.add(logged["result"]["code"])
        if run.end is None:
            run.morning()
    assert (run.step, run.end) == (10_000, "max_steps")
    assert succeeded >= set(ARGUMENTS)
    assert {"unknown_tool", "invalid_arguments", "unknown_id"} <= failures


def llm(**keys: Any) -> Any:
    return settings(
        {
            "agent.kind": "llm",
            "agent.model.context_length": 6000,
            "agent.interface.beliefs_every": None,
            "simulation.max_steps": 120,
            "crash_detector.continue_after_crash": 1000,
            **keys,
        }
    )


def noting(note: str) -> Counting:
    """A storekeeper that makes the noted call every seventh day."""
    keeper, days = Storekeeper(), itertools.count()

    def say(request: ChatRequest) -> str:
        return note if next(days) % 7 == 3 else keeper(request)

    return Counting(say=say, window=6000)


def ledgers(engine: Counting) -> list[str]:
    """The ledgers that led the conversation, each once."""
    firsts = (request.messages[1].content for request in engine.requests)
    return list(dict.fromkeys(text for text in firsts if "left this conversation" in text))


def test_a_ledger_says_what_the_memory_holds_as_far_as_its_days_go() -> None:
    engine = noting(call("tool_write_scratchpad", {"text": "S1 is late"}))
    run = played(llm(), reply=engine)
    said = ledgers(engine)
    assert len(said) > 2
    for text in said:
        days = int(re.findall(r"Days? (?:0 to )?(\d+) ha", text)[0])
        written = [day for day in range(days) if day % 7 == 3]  # results of before its last call
        (line,) = (line for line in text.splitlines() if line.startswith("- Your notes"))
        count = f"{len(written)} line{'s' * (len(written) > 1)}"
        assert line == f"- Your notes: scratchpad of {count}, last written on day {written[-1]}."
    wrote = [step for step in run.steps if step.action and "write" in step.action.tool]
    assert len(wrote) == 17
    assert all(step.result == {"success": True} for step in wrote)


def test_a_ledger_names_the_keys_of_values() -> None:
    engine = noting(call("tool_set_value", {"key": "s2_lead", "value": "4"}))
    played(llm(), reply=engine)
    assert all("- Your notes: values `s2_lead`." in text for text in ledgers(engine)[1:])
    assert len(ledgers(engine)) > 2


@pytest.mark.parametrize("note", ["tool_delete_scratchpad", "tool_read_scratchpad"])
def test_a_ledger_is_silent_of_a_memory_that_holds_nothing(note: str) -> None:
    engine = noting(call(note))
    played(llm(), reply=engine)
    assert ledgers(engine)
    assert not any("Your notes" in text for text in ledgers(engine))


def test_a_ledger_is_silent_of_notes_where_no_memory_is_offered() -> None:
    engine = noting(call("tool_write_scratchpad", {"text": "S1 is late"}))
    run = played(llm(**{"agent.interface.memory_tools": "none"}), reply=engine)
    assert run.outcome.measures.calls_failed > 10
    assert ledgers(engine)
    assert not any("Your notes" in text for text in ledgers(engine))


def test_writing_the_same_note_over_and_over_is_looping() -> None:
    note = call("tool_write_scratchpad", {"text": "hm"})
    run = played(llm(**{"simulation.max_steps": 60}), reply=lambda request: note)
    assert "looping" in run.signs()


def test_failed_notes_count_as_failed_calls_and_make_an_invalid_burst() -> None:
    wrong = call("tool_get_value", {"key": "none"})
    run = played(llm(**{"simulation.max_steps": 60}), reply=lambda request: wrong)
    assert "invalid_burst" in run.signs()
    assert run.outcome.measures.calls_failed == run.outcome.steps
