"""The schema fixes the shape and nothing of the world, and all it lets through can be read."""

import random
import re
from typing import Any

import msgspec
import pytest

from tests.warehouse.playing import settings
from vendomini.workloads.warehouse.beliefs import ANSWER
from vendomini.workloads.warehouse.card_fields import MOST_WORDS
from vendomini.workloads.warehouse.episode import Game
from vendomini.workloads.warehouse.reading import ReadCall, Reader
from vendomini.workloads.warehouse.reply_schema import reply_schema
from vendomini.workloads.warehouse.settings import InterfaceSettings
from vendomini.workloads.warehouse.tools import Tool, arguments_of, offered

LONGEST_BYTES = 2000  # of a constrained reply: within 2,000 tokens even at one a byte


def interface(mode: str, format: str) -> InterfaceSettings:
    keys = {"agent.interface.prediction_mode": mode, "agent.interface.prediction_format": format}
    return settings(keys).agent.interface


def alternatives(mode: str, format: str = "structured", level: int = 1) -> dict[str, Any]:
    schema = msgspec.json.decode(reply_schema(offered(level), interface(mode, format)))
    return {reply["properties"]["tool"]["const"]: reply for reply in schema["anyOf"]}


def every_tool() -> tuple[Tool, ...]:
    keys = {
        "agent.kind": "llm",
        "simulation.complexity_level": 4,
        "agent.interface.memory_tools": "full",
        "agent.interface.recovery_tools": "all",
    }
    return Game(settings(keys), seed=0, replication=0).tools.offered


def test_there_is_one_alternative_for_each_tool_that_is_offered() -> None:
    for level in range(5):
        names = [tool.name for tool in offered(level)]
        assert list(alternatives("required", level=level)) == names
    assert "tool_expedite" not in alternatives("required", level=1)


def test_each_mode_asks_for_its_card() -> None:
    for name, reply in alternatives("required").items():
        assert reply["required"] == ["tool", "args", "prediction"], name
    for reply in alternatives("optional").values():
        assert reply["required"] == ["tool", "args"]
        assert "prediction" in reply["properties"]
    for reply in alternatives("none").values():
        assert "prediction" not in reply["properties"]


def test_each_format_asks_for_its_fields_of_the_calls_they_belong_to() -> None:
    def fields(format: str, tool: str) -> list[str]:
        card = alternatives("required", format, level=2)[tool]["properties"]["prediction"]
        assert card["required"] == list(card["properties"])
        return list(card["properties"])

    assert fields("minimal", "tool_wait") == ["expected_success"]
    assert fields("minimal", "tool_order") == ["expected_success", "expected_cost"]
    days_end = ["expected_storage_after", "expected_budget_after", "next_tool"]
    assert fields("structured", "tool_wait") == ["expected_success", *days_end]
    assert fields("structured", "tool_order") == [
        "expected_success",
        "expected_cost",
        "expected_lead_days",
        "expected_quantity",
        *days_end,
    ]
    assert fields("structured", "tool_expedite") == [
        "expected_success",
        "expected_cost",
        "expected_lead_days",
        *days_end,
    ]


def test_no_id_and_no_bound_of_the_world_is_in_it() -> None:
    schema = reply_schema(offered(4), interface("required", "structured"))
    for word in ("sku_0", "S1", "ORD", '"minimum":1,', '"maxItems":100', "minItems"):
        assert word not in schema


def test_the_next_tool_is_any_that_is_offered() -> None:
    for level in (1, 4):
        names = [tool.name for tool in offered(level)]
        for reply in alternatives("required", level=level).values():
            card = reply["properties"]["prediction"]["properties"]
            assert card["next_tool"] == {"enum": names}


def test_the_longest_reasoning_is_never_of_too_many_words() -> None:
    schema = msgspec.json.decode(reply_schema(offered(1), interface("required+full", "rich")))
    pattern = re.compile(schema["$defs"]["reasoning"]["pattern"])
    words = " ".join("w" * MOST_WORDS)
    assert pattern.fullmatch(words)
    assert not pattern.fullmatch(words + " w")
    assert not pattern.fullmatch(words + "w")


def test_several_customer_orders_can_be_shipped_in_one_call() -> None:
    ship = alternatives("none")["tool_ship_customer_order"]["properties"]["args"]["properties"]
    (several,) = [o for o in ship["customer_order_id"]["anyOf"] if o["type"] == "array"]
    assert several["maxItems"] == 16


def walk(
    matcher: Any, xgrammar: Any, vocabulary: list[str], chance: random.Random, *, wordy: bool
) -> str:
    """A random reply that the grammar lets through, token by token, to its end.

    A wordy one closes no text and no list before it must.
    """
    bitmask = xgrammar.allocate_token_bitmask(1, len(vocabulary))
    closing = {vocabulary.index('"'), vocabulary.index("]")}
    said = ""
    while not matcher.is_terminated():
        matcher.fill_next_token_bitmask(bitmask)
        words = bitmask[0].tolist()
        allowed = [i for i in range(len(vocabulary)) if (words[i // 32] >> (i % 32)) & 1]
        token = chance.choice(allowed)
        if wordy:
            token = chance.choice([i for i in allowed if i not in closing] or allowed)
        elif closing & set(allowed) and chance.random() < 0.1:
            token = next(i for i in allowed if i in closing)
        assert matcher.accept_token(token)
        said += "" if token == len(vocabulary) - 1 else vocabulary[token]
        assert len(said.encode()) <= LONGEST_BYTES, said
    return said


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("none", "structured"),
        ("required", "minimal"),
        ("optional", "structured"),
        ("required+confidence", "minimal"),
        ("required+uncertainty", "rich"),
        ("optional", "rich"),
        ("required+full", "rich"),
    ],
)
def test_every_reply_a_grammar_lets_through_ends_soon_and_can_be_read(
    mode: str, format: str
) -> None:
    import xgrammar

    asked = interface(mode, format)
    # Every byte of ASCII, control characters too: what only a strict pattern keeps out.
    vocabulary = [*map(chr, range(128)), '{"tool": ', "tool_", "ORD1", "99999", " <", "</s>"]
    tokens = xgrammar.TokenizerInfo(
        vocabulary, vocab_type=xgrammar.VocabType.RAW, stop_token_ids=[len(vocabulary) - 1]
    )
    grammar = xgrammar.GrammarCompiler(tokens).compile_json_schema(
        reply_schema(every_tool(), asked), any_whitespace=False
    )
    read, chance, seen = Reader(asked).read, random.Random(0), set()
    for number in range(60):
        matcher = xgrammar.GrammarMatcher(grammar)
        said = walk(matcher, xgrammar, vocabulary, chance, wordy=number % 3 == 0)
        call = read(said)
        assert isinstance(call, ReadCall), (said, call)
        seen.add((call.tool, call.card is not None))
    with_card = {card for _, card in seen}
    assert with_card == {"optional": {True, False}, "none": {False}}.get(mode, {True})
    assert len({tool for tool, _ in seen}) > 8


def test_a_text_with_a_longest_length_gets_it_up_to_a_bound() -> None:
    def pattern(**bounds: int) -> str:
        text = {"type": "string", **bounds}
        tool = Tool(name="tool_note", description="", schema=arguments_of(text=text))
        schema = msgspec.json.decode(reply_schema((tool,), interface("none", "minimal")))
        found = schema["anyOf"][0]["properties"]["args"]["properties"]["text"]["pattern"]
        assert isinstance(found, str)
        return found

    for bounds, most in (({}, 32), ({"maxLength": 1}, 1), ({"maxLength": 150}, 150)):
        for length in range(most + 3):
            assert (re.fullmatch(pattern(**bounds), "x" * length) is not None) == (length <= most)
    assert pattern(maxLength=100_000) == pattern(maxLength=200)
    assert re.fullmatch(pattern(maxLength=200, minLength=5), "")
    for text in (" x", "<text>", 'x"', "x\\", "x\n", "x\x7f", "é"):
        assert not re.fullmatch(pattern(maxLength=150), text)


@pytest.mark.parametrize("length", [0, 1, 99, 100, 101, 128, 129, 199, 200])
def test_a_long_text_passes_a_grammar_up_to_its_length(length: int) -> None:
    import xgrammar

    text = {"type": "string", "maxLength": 200}
    tool = Tool(name="tool_note", description="", schema=arguments_of(text=text))
    tokens = xgrammar.TokenizerInfo([*map(chr, range(128)), "</s>"], stop_token_ids=[128])
    grammar = xgrammar.GrammarCompiler(tokens).compile_json_schema(
        reply_schema((tool,), interface("none", "minimal")), any_whitespace=False
    )
    said = f'{{"tool": "tool_note", "args": {{"text": "{"x" * length}'
    matcher = xgrammar.GrammarMatcher(grammar)
    assert matcher.accept_string(said)
    assert matcher.accept_string("x") == (length < 200)
    matcher = xgrammar.GrammarMatcher(grammar)
    assert matcher.accept_string(said + '"}}')


def test_a_grammar_of_beliefs_lets_two_numbers_through() -> None:
    import xgrammar

    tokens = xgrammar.TokenizerInfo([*map(chr, range(128)), "</s>"], stop_token_ids=[128])
    schema = ANSWER.json_schema
    grammar = xgrammar.GrammarCompiler(tokens).compile_json_schema(schema, any_whitespace=False)
    matcher = xgrammar.GrammarMatcher(grammar)
    assert matcher.accept_string('{"storage": 40, "budget": -9500.25}')
    matcher = xgrammar.GrammarMatcher(grammar)
    assert not matcher.accept_string('{"tool"')


def test_a_grammar_lets_a_negative_quantity_and_an_unknown_id_through() -> None:
    import xgrammar

    schema = reply_schema(offered(2), interface("none", "structured"))
    vocabulary = [*map(chr, range(128)), "</s>"]
    tokens = xgrammar.TokenizerInfo(vocabulary, stop_token_ids=[128])
    grammar = xgrammar.GrammarCompiler(tokens).compile_json_schema(schema, any_whitespace=False)
    for args in (
        '{"supplier_id": "S99", "sku": "no such", "quantity": -5}',
        '{"supplier_id": "", "sku": "", "quantity": 999999999}',
    ):
        matcher = xgrammar.GrammarMatcher(grammar)
        assert matcher.accept_string(f'{{"tool": "tool_order", "args": {args}}}'), args
    matcher = xgrammar.GrammarMatcher(grammar)
    assert not matcher.accept_string('{"tool": "tool_fly"')
