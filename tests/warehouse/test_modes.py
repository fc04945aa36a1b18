"""Each prediction mode and format shows in the prompt, in the reply's schema and in the checks."""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.conforming import conforming
from tests.warehouse.playing import settings
from tests.warehouse.worked import in_turn, worked
from vendomini.chat import ChatRequest, Reply
from vendomini.engines.instance import Draws, instance_of
from vendomini.workloads.warehouse.agent import briefing
from vendomini.workloads.warehouse.episode import Game
from vendomini.workloads.warehouse.prompt import system_text
from vendomini.workloads.warehouse.reading import FormatFailure, ReadCall, Reader
from vendomini.workloads.warehouse.reply_schema import reply_schema
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.tools import TOOLS

MODES = (
    "required",
    "optional",
    "required+confidence",
    "required+uncertainty",
    "required+full",
    "none",
)
FORMATS = ("minimal", "structured", "rich")
COMBINATIONS = list(itertools.product(MODES, FORMATS))

MINIMAL: dict[str, Any] = {"expected_success": True, "expected_cost": 12.5}
STRUCTURED: dict[str, Any] = {
    **MINIMAL,
    "expected_lead_days": 3,
    "expected_quantity": 5,
    "expected_storage_after": 0,
    "expected_budget_after": 9900,
    "next_tool": "tool_wait",
}
REFLECTIVE: dict[str, Any] = {
    "confidence": 0.75,
    "uncertain_about": "when it arrives",
    "based_on": "the quote of yesterday",
    "alternatives_considered": ["waiting", "asking S2"],
    "reasoning": "Customers wait and S1 is cheap.",
}
BASE: dict[str, dict[str, Any]] = {"minimal": MINIMAL, "structured": STRUCTURED, "rich": STRUCTURED}
FILLED = {
    "required": set[str](),
    "optional": set[str](),
    "required+confidence": {"confidence"},
    "required+uncertainty": {"uncertain_about"},
    "required+full": set(REFLECTIVE),
}
ARGS = {"supplier_id": "S1", "sku": "sku_0", "quantity": 5}


def chosen(mode: str, format: str) -> WarehouseSettings:
    keys = {"agent.interface.prediction_mode": mode, "agent.interface.prediction_format": format}
    return settings({"agent.kind": "llm", "agent.interface.recovery_tools": "all", **keys})


def demanded(mode: str, format: str) -> set[str]:
    """Fields of an order's card that must be filled, written down apart from the program."""
    return set() if mode == "none" else set(BASE[format]) | FILLED[mode]


def asked(mode: str, format: str) -> dict[str, Any]:
    """A whole card of an order, with every field that is asked for."""
    if mode == "none":
        return {}
    reflective = {
        name: value
        for name, value in REFLECTIVE.items()
        if format == "rich" or name in FILLED[mode]
    }
    return BASE[format] | reflective


def prompt_of(mode: str, format: str) -> str:
    run = chosen(mode, format)
    game = Game(run, seed=0, replication=0)
    return system_text(briefing(run, game.world, game.tools.offered), run.agent.interface)


def schema_of(mode: str, format: str) -> dict[str, Any]:
    run = chosen(mode, format)
    tools = Game(run, seed=0, replication=0).tools.offered
    schema = reply_schema(tools, run.agent.interface)
    decoded: dict[str, Any] = msgspec.json.decode(schema)
    return decoded


def alternative(mode: str, format: str, tool: str) -> dict[str, Any]:
    (found,) = (
        reply
        for reply in schema_of(mode, format)["anyOf"]
        if reply["properties"]["tool"]["const"] == tool
    )
    assert isinstance(found, dict)
    return found


def reply(card: dict[str, Any] | None, tool: str = "tool_order") -> str:
    said: dict[str, Any] = {"tool": tool, "args": ARGS if tool == "tool_order" else {}}
    return json.dumps(said if card is None else said | {"prediction": card})


def read(mode: str, format: str, card: dict[str, Any] | None) -> ReadCall | FormatFailure:
    return Reader(chosen(mode, format).agent.interface).read(reply(card))


@pytest.mark.parametrize(("mode", "format"), COMBINATIONS)
def test_the_prompt_asks_for_the_fields_of_mode_and_format(mode: str, format: str) -> None:
    said = prompt_of(mode, format)
    lines = {
        line[2:].partition(" (")[0]: line
        for line in said.partition('"prediction" says')[2].splitlines()
        if line.startswith("- ")
    }
    assert list(lines) == list(asked(mode, format))
    may_be_left_out = {name for name, line in lines.items() if "may leave it out" in line}
    assert may_be_left_out == set(lines) - demanded(mode, format)
    assert ("must always be there" in said) == (mode not in ("optional", "none"))
    assert ("this call; you may leave it out:" in said) == (mode == "optional")
    assert ('"prediction"' in said) == (mode != "none")


@pytest.mark.parametrize(("mode", "format"), COMBINATIONS)
def test_the_schema_demands_what_the_prompt_demands(mode: str, format: str) -> None:
    order = alternative(mode, format, "tool_order")
    assert ("prediction" in order["required"]) == (mode not in ("optional", "none"))
    assert ("prediction" in order["properties"]) == (mode != "none")
    if mode == "none":
        return
    card = order["properties"]["prediction"]
    assert list(card["properties"]) == list(asked(mode, format))
    assert set(card["required"]) == demanded(mode, format)
    waiting = alternative(mode, format, "tool_wait")["properties"]["prediction"]
    of_orders = {"expected_cost", "expected_lead_days", "expected_quantity"}
    assert set(waiting["properties"]) == set(card["properties"]) - of_orders
    assert set(waiting["required"]) == demanded(mode, format) - of_orders


@pytest.mark.parametrize(("mode", "format"), COMBINATIONS)
def test_what_is_demanded_is_checked_and_nothing_else_is(mode: str, format: str) -> None:
    whole = asked(mode, format)
    assert isinstance(read(mode, format, None), ReadCall) == (mode in ("optional", "none"))
    if mode == "none":
        assert isinstance(read(mode, format, MINIMAL), FormatFailure)
        return
    called = read(mode, format, whole)
    assert isinstance(called, ReadCall)
    assert called.card is not None
    for name, value in STRUCTURED.items():
        assert getattr(called.card, name) == (value if name in whole else None)
    assert called.card.confidence == whole.get("confidence")
    if whole.keys() & (REFLECTIVE.keys() - {"confidence"}):
        said = msgspec.to_builtins(called.card.reflection)
        for name in REFLECTIVE.keys() - {"confidence"}:
            value = whole.get(name)
            assert said[name] == (tuple(value) if isinstance(value, list) else value)
    else:
        assert called.card.reflection is None
    for name in whole:
        for without in ({k: v for k, v in whole.items() if k != name}, {**whole, name: None}):
            missed = read(mode, format, without)
            assert isinstance(missed, FormatFailure) == (name in demanded(mode, format)), name
            if isinstance(missed, FormatFailure):
                assert f'"{name}"' in missed.why
    for name in (STRUCTURED | REFLECTIVE).keys() - whole.keys():
        unasked = read(mode, format, {**whole, name: (STRUCTURED | REFLECTIVE)[name]})
        assert isinstance(unasked, FormatFailure)
        assert f"no key `{name}`" in unasked.why


def test_a_field_is_demanded_of_just_the_calls_that_it_can_be_about() -> None:
    of_tools = {
        "tool_order": {"expected_cost", "expected_lead_days", "expected_quantity"},
        "tool_expedite": {"expected_cost", "expected_lead_days"},
        "tool_cancel_order": {"expected_cost"},
    }
    of_all = STRUCTURED.keys() - of_tools["tool_order"]
    reader = Reader(chosen("required", "structured").agent.interface)
    for tool in TOOLS:
        missed = {
            name
            for name in STRUCTURED
            if isinstance(
                reader.read(reply({k: v for k, v in STRUCTURED.items() if k != name}, tool)),
                FormatFailure,
            )
        }
        assert missed == of_all | of_tools.get(tool, set()), tool


def test_the_prompt_names_no_tool_that_is_not_offered() -> None:
    for level, is_offered in ((1, False), (2, True)):
        run = replace(
            chosen("required", "structured"),
            simulation=settings({"simulation.complexity_level": level}).simulation,
        )
        game = Game(run, seed=0, replication=0)
        said = system_text(briefing(run, game.world, game.tools.offered), run.agent.interface)
        assert ("tool_expedite" in said) == is_offered


WORDS = " ".join(["word"] * 100)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("confidence", 1.01, "a number from 0 to 1"),
        ("confidence", -0.01, "a number from 0 to 1"),
        ("confidence", True, "a number from 0 to 1"),
        ("confidence", "high", "a number from 0 to 1"),
        ("confidence", float("nan"), "no valid JSON"),
        ("uncertain_about", "<text>", "a text"),
        ("uncertain_about", 3, "a text"),
        ("based_on", ["a quote"], "a text"),
        ("reasoning", f"{WORDS} more", "at most 100 words, not 101"),
        ("alternatives_considered", ["wait"] * 6, "a list of 1 to 5 texts, not of 6"),
        ("alternatives_considered", ["wait", ""], "a list of 1 to 5 texts"),
        ("alternatives_considered", ["wait", 3], "a list of 1 to 5 texts"),
        ("alternatives_considered", "wait", "a list of 1 to 5 texts"),
    ],
)
@pytest.mark.parametrize("mode", ["required", "optional", "required+full"])
def test_a_wrong_value_is_a_format_failure_that_says_why(
    mode: str, name: str, value: object, why: str
) -> None:
    failure = read(mode, "rich", {**asked(mode, "rich"), name: value})
    assert isinstance(failure, FormatFailure)
    assert why in failure.why
    assert name in failure.why or value != value


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("uncertain_about", "", "a text"),
        ("uncertain_about", " \n", "a text"),
        ("based_on", "", "a text"),
        ("reasoning", " ", "a text"),
        ("alternatives_considered", [], "a list of 1 to 5 texts, not of 0"),
    ],
)
def test_an_empty_text_is_a_format_failure_where_it_must_be_filled_and_nothing_elsewhere(
    name: str, value: object, why: str
) -> None:
    empty = {**asked("required+full", "rich"), name: value}
    failure = read("required+full", "rich", empty)
    assert isinstance(failure, FormatFailure)
    assert f'"{name}" must be {why}' in failure.why
    for mode in ("required", "optional"):
        called = read(mode, "rich", empty)
        assert isinstance(called, ReadCall)
        assert called.card is not None
        assert called.card.confidence == REFLECTIVE["confidence"]
        assert getattr(called.card.reflection, name) is None


@pytest.mark.parametrize("mode", MODES)
def test_a_card_that_is_null_is_no_card(mode: str) -> None:
    said = json.dumps({"tool": "tool_wait", "args": {}, "prediction": None})
    reader = Reader(chosen(mode, "structured").agent.interface)
    assert isinstance(reader.read(said), ReadCall) == (mode == "optional")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("confidence", 0),
        ("confidence", 1),
        ("reasoning", WORDS),
        ("reasoning", f"  {WORDS}\n"),
        ("alternatives_considered", ["wait"] * 5),
        ("based_on", "das Angebot von gestern: 5 €"),
    ],
)
def test_a_value_at_its_bound_is_read(name: str, value: object) -> None:
    assert isinstance(
        read("required+full", "rich", {**REFLECTIVE, **STRUCTURED, name: value}), ReadCall
    )


def test_a_card_that_says_hostile_things_can_be_logged() -> None:
    hostile = {"based_on": "\ud800", "alternatives_considered": ["\udfff x", '"\\']}
    called = read("required", "rich", STRUCTURED | hostile)
    assert isinstance(called, ReadCall)
    assert called.card is not None
    again = msgspec.json.decode(msgspec.json.encode(called.card), type=type(called.card))
    assert again == called.card


def test_modes_and_formats_differ_in_all_three_wherever_they_ask_for_different_cards() -> None:
    """`none` asks for no card in any format, and `required+full` makes a structured card rich."""
    cards = [None, {}, MINIMAL, STRUCTURED]
    for name in REFLECTIVE:
        cards += [{**base, name: REFLECTIVE[name]} for base in (MINIMAL, STRUCTURED)]
    cards += [{**base, **REFLECTIVE} for base in (MINIMAL, STRUCTURED)]
    alike: dict[str, Callable[[str, str], str]] = {
        "prompt": prompt_of,
        "schema": lambda mode, format: json.dumps(schema_of(mode, format)),
        "checks": lambda mode, format: str(
            [isinstance(read(mode, format, card), ReadCall) for card in cards]
        ),
    }
    for shows, of in alike.items():
        groups = defaultdict(set)
        for mode, format in COMBINATIONS:
            groups[of(mode, format)].add((mode, format))
        same = sorted(sorted(group) for group in groups.values() if len(group) > 1)
        assert same == [
            [("none", format) for format in sorted(FORMATS)],
            [("required+full", "rich"), ("required+full", "structured")],
        ], shows


@pytest.mark.parametrize(("mode", "format"), COMBINATIONS)
def test_every_reply_that_conforms_to_the_schema_is_read(mode: str, format: str) -> None:
    schema = schema_of(mode, format)
    reader = Reader(chosen(mode, format).agent.interface)
    for name in range(50):
        said = msgspec.json.encode(instance_of(schema, Draws(f"{mode}/{format}/{name}"))).decode()
        assert isinstance(reader.read(said), ReadCall), said

    @budget(max_examples=60, deadline=None, database=None)
    @given(said=conforming(schema))
    def every(said: Any) -> None:
        called = reader.read(json.dumps(said))
        assert isinstance(called, ReadCall), called
        assert (called.card is not None) == ("prediction" in said)

    every()


@budget(max_examples=200, deadline=None)
@given(
    place=st.sampled_from([each for each in COMBINATIONS if each[0] != "none"]),
    left_out=st.sets(st.sampled_from(sorted(STRUCTURED | REFLECTIVE))),
)
def test_a_card_is_read_exactly_if_it_has_what_is_demanded(
    place: tuple[str, str], left_out: set[str]
) -> None:
    card = {name: value for name, value in asked(*place).items() if name not in left_out}
    assert isinstance(read(*place, card), ReadCall) == (demanded(*place) <= card.keys())


@pytest.mark.parametrize(("mode", "format"), COMBINATIONS)
def test_a_mode_acts_through_the_real_worker(mode: str, format: str, tmp_path: Path) -> None:
    """The first reply lacks what is demanded, or has a card where none is; then all are right."""
    right = asked(mode, format)
    missing = {name: value for name, value in right.items() if name not in FILLED.get(mode, ())}
    if mode in ("required", "optional"):
        missing = {name: value for name, value in right.items() if name in REFLECTIVE}
    first = reply(STRUCTURED if mode == "none" else missing)
    then = reply(None if mode == "none" else right)
    seen: list[ChatRequest] = []
    answers = in_turn(first, then=then)

    def answer(request: ChatRequest) -> Reply | str:
        seen.append(request)
        return answers(request)

    run = worked(
        tmp_path,
        {
            "agent.interface.prediction_mode": mode,
            "agent.interface.prediction_format": format,
            "agent.interface.beliefs_every": None,
            "simulation.max_steps": 2,
        },
        answer,
    )
    assert [step["re_asks"] for step in run.steps] == [1, 0]
    assert run.outcome["format_failures"] == 0
    told = seen[0].messages[0].content
    shaped = seen[0].reply_format.json_schema
    assert shaped is not None
    for name in STRUCTURED | REFLECTIVE:
        assert (f"- {name} (" in told, f'"{name}"' in shaped) == (name in right,) * 2
    for step in run.steps:
        if mode == "none":
            assert step["card"] is None
            continue
        logged = step["card"] | (step["card"]["reflection"] or {})
        for name, value in right.items():
            assert logged[name] == value
