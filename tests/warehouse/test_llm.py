"""The agent of a model: what it is told, what it is asked again, what it leaves."""

import json
import re
from typing import Any

import pytest

from tests.warehouse.modelled import Counting, Storekeeper, call
from tests.warehouse.playing import Played, played, settings
from vendomini.chat import TEXT, ChatRequest, Choice, Reply, Request
from vendomini.workloads.warehouse.agent import Seen, briefing
from vendomini.workloads.warehouse.episode import Game
from vendomini.workloads.warehouse.prompt import morning_text, shortened, system_text
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.workload import (
    LLM_GROWTH_TOKENS,
    LLM_OUTPUT_TOKENS,
    LLM_PREFIX_TOKENS,
    WAREHOUSE,
)

LLM: dict[str, Any] = {
    "agent.kind": "llm",
    "agent.model.context_length": 32000,
    "simulation.max_steps": 8,
    "crash_detector.continue_after_crash": 1000,
}
INBOX = call("tool_check_inbox")
CHARACTERS_PER_TOKEN = 3.5  # of prompts with JSON, by the tokenizers of common models


def llm(keys: dict[str, Any] | None = None) -> WarehouseSettings:
    return settings({**LLM, **(keys or {})})


def system_of(chosen: WarehouseSettings, replication: int = 0) -> str:
    game = Game(chosen, seed=0, replication=replication)
    told = briefing(chosen, game.world, game.tools.offered)
    return system_text(told, chosen.agent.interface)


def chats(requests: list[Request]) -> list[ChatRequest]:
    assert all(isinstance(request, ChatRequest) for request in requests)
    return [request for request in requests if isinstance(request, ChatRequest)]


def replying(*texts: str | Reply) -> Any:
    """The replies in turn, then the last one for ever."""
    waiting = list(texts)
    return lambda request: waiting.pop(0) if len(waiting) > 1 else waiting[0]


def test_a_storekeeper_plays_to_the_end_and_its_predictions_resolve() -> None:
    chosen = llm({"simulation.max_steps": 150, "pe_induction.p_shock": 0.2})
    run = played(chosen, reply=Counting(say=Storekeeper(), window=32000))
    assert (run.outcome.end, run.outcome.steps) == ("max_steps", 150)
    assert (run.outcome.format_failures, run.outcome.re_asks) == (0, 0)
    assert run.outcome.measures.orders_placed > 3
    assert run.outcome.measures.orders_shipped > 3
    assert run.outcome.measures.calls_failed == 0
    for type, summary in run.outcome.pe.items():
        assert summary.resolved > 0, type
    assert all(step.card is not None for step in run.steps)


def test_a_day_is_one_user_message_with_the_last_result_and_the_reply_as_it_came() -> None:
    odd = f"Well... {INBOX}  "
    run = played(llm(), reply=replying(call("tool_check_budget"), odd, call("tool_fly")))
    asked = chats(run.requests)
    roles = [message.role for message in asked[3].messages]
    assert roles == ["system", *["user", "assistant"] * 3, "user"]
    last = asked[-1].messages
    assert last[1].content == "Day 0. Inbox: 1 message."
    assert last[3].content.startswith("Day 1. Inbox: ")
    assert last[3].content.endswith('Result of your last call: {"success":true,"budget":10000.0}')
    assert last[4].content == odd
    assert '"code":"unknown_tool"' in last[7].content
    assert run.steps[2].result is not None
    assert run.steps[2].result["code"] == "unknown_tool"
    assert run.outcome.format_failures == 0


def test_reasoning_never_enters_the_conversation() -> None:
    thought = Reply(choices=(Choice(text=INBOX, reasoning="SECRET thoughts"),), tokens_out=900)
    run = played(llm({"agent.model.thinking": "on"}), reply=lambda request: thought)
    assert all(request.thinking == "on" for request in chats(run.requests))
    assert "SECRET" not in repr(run.requests)
    assert run.outcome.steps == 8


def test_an_unreadable_reply_is_asked_again_and_counted() -> None:
    run = played(llm(), reply=replying("hello", "{", INBOX))
    first = run.steps[0]
    assert (first.parse_status, first.re_asks) == ("ok", 2)
    assert first.action is not None
    assert first.action.tool == "tool_check_inbox"
    assert (run.outcome.re_asks, run.outcome.format_failures) == (2, 0)
    asked = chats(run.requests)
    assert [message.content for message in asked[2].messages][2::2] == ["hello", "{"]
    assert "no JSON object" in asked[2].messages[3].content
    assert "does not end" in asked[2].messages[5].content
    assert asked[3].messages[: len(asked[2].messages)] == asked[2].messages


def test_after_two_more_unreadable_replies_the_day_is_idle_and_the_next_one_says_so() -> None:
    run = played(llm(), reply=replying("a", "b", "c", INBOX))
    first, second = run.steps[:2]
    assert (first.parse_status, first.re_asks, first.action, first.card) == (
        "failed",
        2,
        None,
        None,
    )
    assert second.parse_status == "ok"
    assert run.outcome.format_failures == 1
    last = chats(run.requests)[3].messages
    assert last[-2].content == "c"
    assert last[-1].content.startswith("Day 1.")
    assert "could not be read" in last[-1].content


def test_twenty_unreadable_days_make_a_run_unusable() -> None:
    run = played(llm({"simulation.max_steps": 200}), reply=lambda request: "def f(): pass")
    assert (run.outcome.end, run.outcome.steps) == ("unusable", 20)
    assert run.derived()["competing"]["type"] == "unusable"
    assert run.crash() is None
    assert (run.outcome.format_failures, run.outcome.re_asks) == (20, 40)
    assert len(run.requests) == 60


def test_a_huge_unreadable_reply_stays_as_its_beginning() -> None:
    garbage = "x" * 8000
    run = played(llm(), reply=replying(garbage, INBOX))
    kept = chats(run.requests)[1].messages[2].content
    assert garbage.startswith(kept.removesuffix(" [...]"))
    assert len(kept) < 700


def test_a_huge_readable_reply_stays_as_it_came() -> None:
    long = "I think. " * 400 + INBOX
    run = played(llm({"simulation.max_steps": 2}), reply=replying(long, INBOX))
    assert chats(run.requests)[1].messages[2].content == long
    just = "x" * 600
    for garbage, kept in ((just, just), (just + "x", just + " [...]")):
        run = played(llm({"simulation.max_steps": 1}), reply=replying(garbage, INBOX))
        assert chats(run.requests)[1].messages[2].content == kept


def test_half_characters_do_not_stop_a_run() -> None:
    run = played(llm(), reply=lambda request: "\ud800 " + INBOX)
    assert run.outcome.end == "max_steps"
    assert "\\ud800" in chats(run.requests)[1].messages[2].content


def test_each_mode_and_format_shows_in_prompt_schema_and_checks() -> None:
    bare = json.dumps({"tool": "tool_wait", "args": {}})
    shown = set()
    for mode, format, reads_bare in (
        ("required", "structured", False),
        ("required", "minimal", False),
        ("optional", "structured", True),
        ("none", "structured", True),
    ):
        keys = {
            "agent.interface.prediction_mode": mode,
            "agent.interface.prediction_format": format,
        }
        run = played(llm(keys), reply=lambda request: bare)
        request = chats(run.requests)[0]
        prompt, schema = request.messages[0].content, request.reply_format.json_schema
        assert schema is not None
        shown.add((prompt, schema))
        assert ("prediction" in prompt, "prediction" in schema) == (mode != "none",) * 2
        structured = mode != "none" and format == "structured"
        assert ("expected_lead_days" in prompt, "next_tool" in schema) == (structured,) * 2
        assert (run.outcome.format_failures == 0) is reads_bare
    assert len(shown) == 4


def test_a_text_reply_asks_for_the_same_without_a_schema() -> None:
    asked = [
        chats(played(llm({"agent.interface.reply_format": format}), reply=replying(INBOX)).requests)
        for format in ("text", "schema")
    ]
    assert all(request.reply_format == TEXT for request in asked[0])
    assert all(request.reply_format.kind == "schema" for request in asked[1])
    assert [r.messages for r in asked[0]] == [r.messages for r in asked[1]]


def test_sampling_comes_from_the_settings_and_no_seed_is_set() -> None:
    keys = {
        "agent.model.temperature": 0.9,
        "agent.model.top_p": 0.8,
        "agent.model.max_tokens_per_call": 321,
    }
    for request in chats(played(llm(keys), reply=replying(INBOX)).requests):
        sampling = request.sampling
        assert (sampling.temperature, sampling.top_p, sampling.max_tokens) == (0.9, 0.8, 321)
        assert request.seed is None


def test_the_same_replies_give_the_same_requests_and_outcome() -> None:
    def run() -> Played:
        keys = {"simulation.max_steps": 80, "agent.model.context_length": 4200}
        return played(llm(keys), reply=Counting(say=Storekeeper(), window=4200))

    one, two = run(), run()
    assert one.bytes == two.bytes
    assert one.requests == two.requests


def test_the_system_message_is_the_same_across_replications_doses_and_days() -> None:
    base = system_of(llm())
    assert system_of(llm(), replication=7) == base
    assert system_of(llm({"pe_induction.p_shock": 0.9, "agent.model.temperature": 1.0})) == base
    assert (
        len(
            {
                request.messages[0]
                for request in chats(played(llm(), reply=replying(INBOX)).requests)
            }
        )
        == 1
    )


def test_what_differs_between_arms_comes_last() -> None:
    base = system_of(llm())
    for keys, shared in (
        ({"agent.interface.prediction_mode": "none"}, 0.8),
        ({"agent.interface.prediction_format": "minimal"}, 0.85),
        ({"simulation.max_steps": 999}, 0.65),
        ({"simulation.complexity_level": 0}, 0.65),
    ):
        other = system_of(llm(keys))
        assert other != base
        assert other.startswith(base[: int(shared * len(base))]), keys


def test_tools_that_only_some_levels_offer_come_after_all_that_every_level_offers() -> None:
    def listed(level: int) -> list[str]:
        said = system_of(llm({"simulation.complexity_level": level}))
        return re.findall(r"^- (tool_\w+): ", said, re.MULTILINE)

    assert len(listed(1)) > 8
    assert listed(2) == [*listed(1), "tool_expedite"]


def test_the_rules_say_the_numbers_of_the_settings() -> None:
    keys = {
        "simulation.max_steps": 77,
        "simulation.initial_budget": 20000.0,
        "simulation.storage_capacity": 321,
        "simulation.storage_fee": 0.25,
        "simulation.complexity_level": 3,
        "demand.late_penalty": 0.125,
        "demand.max_failures": 17,
        "demand.expire_after_days": 13,
    }
    said = system_of(llm(keys))
    for word in ("0 to 76", "20000", "-2000", "321", "0.25", "0.125", "17", "13 days", "sku_19"):
        assert word in said, word
    assert "Budget at the start: 20000. Below -2000 you are bankrupt and it is over." in said
    assert "- SKUs: sku_0, sku_1, ... sku_19 (20 in all). Suppliers: S1, S2, S3, S4, S5." in said
    assert "tool_expedite" in said
    assert "change from day to day" in said


def test_the_rules_leave_out_what_the_settings_leave_out() -> None:
    said = system_of(llm({"simulation.initial_budget": 99.5, "simulation.complexity_level": 0}))
    assert "- SKUs: sku_0, sku_1, sku_2, sku_3, sku_4. Suppliers: S1, S2." in said
    assert "Budget at the start: 99.50. Below -1000 " in said
    for word in ("lost customer orders it is over", "Shipped after", "change from day to day"):
        assert word not in said
    ten = system_of(llm({"simulation.complexity_level": 1}))
    assert "sku_0, sku_1, ... sku_9 (10 in all)" in ten


def test_the_prompt_is_short_and_as_long_as_the_planner_is_told() -> None:
    longest = system_of(llm({"simulation.complexity_level": 4}))
    assert len(longest) / CHARACTERS_PER_TOKEN < 1250
    for level in range(5):
        said = len(system_of(llm({"simulation.complexity_level": level})))
        assert said / CHARACTERS_PER_TOKEN == pytest.approx(LLM_PREFIX_TOKENS, rel=0.1)
    chosen = llm({"simulation.max_steps": 150})
    run = played(chosen, reply=Counting(say=Storekeeper(), window=32000))
    last = chats(run.requests)[-1].messages
    grown = sum(len(message.content) for message in last[1:]) / 150 / CHARACTERS_PER_TOKEN
    assert grown == pytest.approx(LLM_GROWTH_TOKENS, rel=0.3)
    replies = [message.content for message in last if message.role == "assistant"]
    said = sum(map(len, replies)) // len(replies)
    assert said / CHARACTERS_PER_TOKEN == pytest.approx(LLM_OUTPUT_TOKENS, rel=0.3)
    demand = WAREHOUSE.demand(chosen)
    assert demand is not None
    assert demand.requests == len(run.requests)


def test_the_planner_is_told_that_a_card_which_says_more_takes_more() -> None:
    def tokens(mode: str, format: str) -> tuple[int, int]:
        keys = {
            "agent.interface.prediction_mode": mode,
            "agent.interface.prediction_format": format,
        }
        demand = WAREHOUSE.demand(llm(keys))
        assert demand is not None
        return demand.growth_tokens - LLM_GROWTH_TOKENS, demand.output_tokens - LLM_OUTPUT_TOKENS

    assert tokens("required", "structured") == (0, 0)
    assert tokens("required+confidence", "minimal") == (6, 6)
    for asked in (("required+full", "structured"), ("required", "rich")):
        assert tokens(*asked) == (81, 81)


def test_a_long_result_is_cut_to_its_newest_entries_and_says_so() -> None:
    messages = [{"type": "delivery", "order_id": f"ORD{n}"} for n in range(50)]
    result: dict[str, Any] = {"success": True, "messages": messages}
    seen = Seen(day=9, inbox_count=0, last_result=result)
    whole = morning_text(seen, is_first=False, result_limit=10_000)
    assert json.loads(whole.partition("call: ")[2]) == result
    said = morning_text(seen, is_first=False, result_limit=1000)
    shown, _, note = said.partition("call: ")[2].partition("\n")
    kept = json.loads(shown)["messages"]
    assert kept == messages[-len(kept) :]
    assert 10 < len(kept) < 50
    assert len(shown) <= 1000
    assert f"{50 - len(kept)} oldest" in note
    assert shortened(result, 10) == ('{"success":true,"messages":[]}', 50)
