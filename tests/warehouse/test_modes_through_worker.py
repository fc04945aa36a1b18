"""Every prediction mode and format, from a phase file through the real worker: what a card must
have is demanded there and nowhere else, and what it has is in the step log."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.warehouse.worked import Worked, worked
from vendomini.chat import ChatRequest

MINIMAL: dict[str, Any] = {"expected_success": True}
STRUCTURED: dict[str, Any] = {
    **MINIMAL,
    "expected_storage_after": 0,
    "expected_budget_after": 10000,
    "next_tool": "tool_wait",
}
CONFIDENCE: dict[str, Any] = {"confidence": 0.75}
UNCERTAINTY: dict[str, Any] = {"uncertain_about": "demand tomorrow"}
FULL: dict[str, Any] = {
    **CONFIDENCE,
    **UNCERTAINTY,
    "based_on": "yesterday",
    "alternatives_considered": ["look into storage"],
    "reasoning": "Nothing is on its way, so a day of waiting costs nothing.",
}
DAYS = 3
NO_CARD = None

# By mode: cards that are read, and cards (None: none) for whose lack the reply is asked again.
READ_AND_NOT: dict[str, tuple[list[dict[str, Any] | None], list[dict[str, Any] | None]]] = {
    "required": ([STRUCTURED], [NO_CARD]),
    "optional": ([STRUCTURED, NO_CARD], []),
    "required+confidence": ([STRUCTURED | CONFIDENCE], [NO_CARD, STRUCTURED]),
    "required+uncertainty": ([STRUCTURED | UNCERTAINTY], [NO_CARD, STRUCTURED]),
    "required+full": (
        [STRUCTURED | FULL],
        [NO_CARD, STRUCTURED, STRUCTURED | CONFIDENCE, STRUCTURED | CONFIDENCE | UNCERTAINTY],
    ),
    "none": ([NO_CARD], [STRUCTURED]),
}


def waiting(card: dict[str, Any] | None) -> str:
    said: dict[str, Any] = {"tool": "tool_wait", "args": {}}
    return json.dumps(said if card is None else said | {"prediction": card})


def played(
    folder: Path, mode: str, format: str, *cards: dict[str, Any] | None, reply_format: str = "text"
) -> Worked:
    """Runs of a few days in which every request of a day is answered with the next card."""
    said = iter(waiting(card) for _ in range(DAYS) for card in cards)
    keys = {
        "simulation.max_steps": DAYS,
        "agent.interface.prediction_mode": mode,
        "agent.interface.prediction_format": format,
        "agent.interface.reply_format": reply_format,
        "agent.interface.beliefs_every": None,
    }
    return worked(folder, keys, lambda request: next(said))


CASES = [
    (mode, read, unread)
    for mode, (several, wrong) in READ_AND_NOT.items()
    for read in several
    for unread in wrong
]


@pytest.mark.parametrize(("mode", "read", "unread"), CASES)
def test_a_card_that_lacks_what_its_mode_demands_is_asked_again(
    tmp_path: Path, mode: str, read: dict[str, Any] | None, unread: dict[str, Any] | None
) -> None:
    run = played(tmp_path, mode, "structured", unread, read)
    assert [step["re_asks"] for step in run.steps] == [1] * DAYS
    assert {step["parse_status"] for step in run.steps} == {"ok"}
    assert [step["card"] is None for step in run.steps] == [read is None] * DAYS
    assert run.outcome["format_failures"] == 0
    assert run.outcome["re_asks"] == DAYS
    assert "could not be read" in run.requests[1].messages[-1].content


@pytest.mark.parametrize(
    ("mode", "read"), [(m, card) for m, (r, _) in READ_AND_NOT.items() for card in r]
)
def test_a_card_that_has_what_its_mode_demands_is_read_and_logged(
    tmp_path: Path, mode: str, read: dict[str, Any] | None
) -> None:
    run = played(tmp_path, mode, "structured", read)
    assert run.outcome["re_asks"] == 0
    for step in run.steps:
        logged = step["card"]
        if read is None:
            assert logged is None
            assert step["resolved"] == []
            continue
        assert logged["expected_budget_after"] == 10000
        assert logged["confidence"] == read.get("confidence")
        reflection = logged["reflection"] or {}
        for name in ("uncertain_about", "based_on", "alternatives_considered", "reasoning"):
            assert reflection.get(name) == read.get(name)
        assert {error["type"] for error in step["resolved"]} == {"storage", "budget", "causal"}


@pytest.mark.parametrize(
    ("format", "read", "unread"),
    [
        ("minimal", MINIMAL, STRUCTURED),
        ("structured", STRUCTURED, MINIMAL),
        ("structured", STRUCTURED, STRUCTURED | FULL),
        ("rich", STRUCTURED | FULL, MINIMAL),
        ("rich", STRUCTURED, {**STRUCTURED, **FULL, "confidence": 1.5}),
        ("rich", STRUCTURED, {**STRUCTURED, **FULL, "reasoning": "because " * 101}),
    ],
)
def test_a_format_says_which_fields_a_card_has(
    tmp_path: Path, format: str, read: dict[str, Any], unread: dict[str, Any]
) -> None:
    run = played(tmp_path, "required", format, unread, read)
    assert [step["re_asks"] for step in run.steps] == [1] * DAYS
    for step in run.steps:
        assert step["card"]["next_tool"] == read.get("next_tool")
        assert step["card"]["confidence"] == read.get("confidence")


def asked(requests: list[ChatRequest]) -> tuple[str, str | None]:
    return requests[0].messages[0].content, requests[0].reply_format.json_schema


def test_each_mode_and_format_has_a_prompt_and_a_schema_of_its_own(tmp_path: Path) -> None:
    asked_for: dict[tuple[str, str], tuple[str, str | None]] = {}
    combinations = [
        (mode, format)
        for mode in READ_AND_NOT
        for format in ("minimal", "structured", "rich")
        if mode != "none" or format == "minimal"
    ]
    for mode, format in combinations:
        folder = tmp_path / f"{mode} {format}"
        folder.mkdir()
        card = None
        if mode != "none":
            card = (MINIMAL if format == "minimal" else STRUCTURED) | (
                {
                    "required+confidence": CONFIDENCE,
                    "required+uncertainty": UNCERTAINTY,
                    "required+full": FULL,
                }.get(mode, FULL if format == "rich" else {})
            )
        run = played(folder, mode, format, card, reply_format="schema")
        assert run.outcome["re_asks"] == 0, (mode, format)
        asked_for[mode, format] = asked(run.requests)
    assert len(combinations) == 16
    # A structured card with all five further fields is a rich one: they are the same arm.
    assert asked_for.pop(("required+full", "rich")) == asked_for["required+full", "structured"]
    assert len({prompt for prompt, _ in asked_for.values()}) == 15
    assert len({schema for _, schema in asked_for.values()}) == 15


def test_the_reply_format_decides_whether_decoding_is_constrained(tmp_path: Path) -> None:
    for format in ("schema", "text"):
        folder = tmp_path / format
        folder.mkdir()
        run = played(folder, "required", "structured", STRUCTURED, reply_format=format)
        assert {request.reply_format.kind for request in run.requests} == {format}
