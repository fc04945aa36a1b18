"""Belief questions: when they are asked, what is read of the answers, and that no trace is left."""

import itertools
import json
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.harness import assert_every_log_is_a_prefix, kill_after, outcomes, play, steps
from tests.warehouse.conforming import conforming
from tests.warehouse.modelled import COUNTERS, Counting, Storekeeper, call, context_reply
from tests.warehouse.playing import Played, played, settings
from tests.warehouse.worked import BASE, worked
from vendomini.chat import TEXT, ChatRequest, Choice, Reply, Request
from vendomini.config import expand, load_phase
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.store.experiment import Experiment
from vendomini.workloads.registry import workload_named
from vendomini.workloads.warehouse.agent import Believed
from vendomini.workloads.warehouse.beliefs import ANSWER, QUESTION, QUESTION_TOKENS, read_belief
from vendomini.workloads.warehouse.recovery import RESET
from vendomini.workloads.warehouse.settings import WarehouseSettings

EVERY = "agent.interface.beliefs_every"
ANSWERED = '{"storage": 40, "budget": 9500.5}'


def llm(keys: dict[str, Any] | None = None) -> WarehouseSettings:
    return settings(
        {
            "agent.kind": "llm",
            "agent.model.context_length": 32000,
            "simulation.max_steps": 12,
            "crash_detector.continue_after_crash": 1000,
            **(keys or {}),
        }
    )


def chats(requests: list[Request]) -> list[ChatRequest]:
    return [request for request in requests if isinstance(request, ChatRequest)]


def inbox(request: ChatRequest) -> str:
    return call("tool_check_inbox")


def said(text: str, finish_reason: Any = "stop") -> Reply:
    return Reply(choices=(Choice(text=text, finish_reason=finish_reason),))


@pytest.mark.parametrize(
    ("every", "days"), [(None, []), (1, list(range(1, 12))), (5, [5, 10]), (11, [11]), (12, [])]
)
def test_beliefs_are_asked_for_every_so_many_days_and_not_on_the_first(
    every: int | None, days: list[int]
) -> None:
    run = played(llm({EVERY: every}), reply=inbox, answer=lambda request: ANSWERED)
    assert [step.day for step in run.steps if step.belief is not None] == days
    assert len(run.questions) == len(days)
    assert (run.outcome.beliefs.asked, run.outcome.beliefs.read) == (len(days), len(days))


def test_the_question_is_a_paragraph_more_of_the_days_own_request() -> None:
    run = played(llm({EVERY: 4}), reply=inbox)
    days = {
        re.findall(r"^Day (\d+)", request.messages[-1].content, re.MULTILINE)[0]: request
        for request in chats(run.requests)
    }
    assert len(run.questions) == 2
    for question, day in zip(chats(run.questions), ("4", "8"), strict=True):
        main = days[day]
        assert question.messages[:-1] == main.messages[:-1]
        assert question.messages[-1].content == f"{main.messages[-1].content}\n\n{QUESTION}"
        assert question.reply_format == ANSWER
        most = main.sampling.max_tokens - QUESTION_TOKENS
        assert question.sampling == replace(main.sampling, max_tokens=most)
        assert (question.thinking, question.seed) == (main.thinking, None)


@pytest.mark.parametrize("most", [1, 2, 50, 199, 200, 2000])
def test_an_answer_may_be_a_bit_shorter_than_a_reply(most: int) -> None:
    keys = {EVERY: 1, "agent.model.max_tokens_per_call": most, "simulation.max_steps": 2}
    (question,) = chats(played(llm(keys), reply=inbox).questions)
    assert most / 2 <= question.sampling.max_tokens <= most
    assert len(QUESTION) / 2.5 < QUESTION_TOKENS


def test_a_text_reply_asks_for_beliefs_in_text() -> None:
    keys = {EVERY: 1, "agent.interface.reply_format": "text"}
    questions = chats(played(llm(keys), reply=inbox).questions)
    assert len(questions) == 11
    assert all(question.reply_format == TEXT for question in questions)


@pytest.mark.parametrize(
    "text",
    [
        ANSWERED,
        f"  {ANSWERED}\n",
        f"I think: {ANSWERED} More I do not know.",
        f"```json\n{ANSWERED}\n```",
        f'The last result was {{"success": true}}. {ANSWERED}',
        '{"budget": 9500.5, "storage": 40.0}',
    ],
)
def test_an_answer_is_read_whatever_is_round_it(text: str) -> None:
    assert read_belief(said(text)) == Believed(storage=40, budget=9500.5)


@pytest.mark.parametrize(
    ("text", "finish_reason"),
    [
        ("", "stop"),
        ("", "context"),
        (ANSWERED, "context"),
        ("I do not know.", "stop"),
        ('{"storage": 40}', "stop"),
        ('{"budget": 40}', "stop"),
        ('{"storage": 40, "budget": "9500"}', "stop"),
        ('{"storage": true, "budget": 9500}', "stop"),
        ('{"storage": null, "budget": 9500}', "stop"),
        ('{"storage": NaN, "budget": 9500}', "stop"),
        ('{"storage": Infinity, "budget": 9500}', "stop"),
        ('{"storage": 1e999, "budget": 9500}', "stop"),
        ('{"storage": 1e13, "budget": 9500}', "stop"),
        (f'{{"storage": {"9" * 5000}, "budget": 9500}}', "stop"),
        ('{"storage": 40, "budget": 9500, "sure": true}', "stop"),
        ('{"storage": 40, "storage": 41, "budget": 9500}', "stop"),
        ('{"storage": <number>, "budget": <number>}', "stop"),
        (ANSWERED[:-1], "length"),
        (ANSWERED[:-9], "length"),
        (ANSWERED * 2, "stop"),
        (f"[{ANSWERED}]", "stop"),
        (f"storage = {ANSWERED}", "stop"),
        (f"```python\n{ANSWERED}\n```", "stop"),
        (call("tool_check_budget"), "stop"),
        ("\ud800", "stop"),
    ],
)
def test_an_answer_that_cannot_be_read_is_counted_and_not_asked_again(
    text: str, finish_reason: Any
) -> None:
    unread = said(text, finish_reason)
    assert read_belief(unread) == Believed()
    run = played(llm({EVERY: 4}), reply=inbox, answer=lambda request: unread)
    assert (len(run.requests), len(run.questions)) == (12, 2)
    beliefs = run.outcome.beliefs
    assert (beliefs.asked, beliefs.read, beliefs.storage_divergence) == (2, 0, None)
    assert (run.outcome.re_asks, run.outcome.format_failures) == (0, 0)
    asked = [step.belief for step in run.steps if step.belief is not None]
    assert [(belief.storage, belief.budget) for belief in asked] == [(None, None)] * 2


@budget(max_examples=200, deadline=None)
@given(st.text() | st.text(alphabet='{}[]"\\`storagebudget:, <>=\n1e-'))
def test_no_answer_raises(text: str) -> None:
    assert read_belief(said(text + ANSWERED[:20] + text)) == Believed()


@budget(max_examples=200, deadline=None)
@given(conforming(json.loads(ANSWER.json_schema or "")))
def test_every_answer_that_conforms_to_its_schema_is_read(answer: dict[str, float]) -> None:
    assert read_belief(said(json.dumps(answer))) == Believed(**answer)


def test_the_truth_beside_a_belief_is_that_of_the_morning() -> None:
    """Nothing happens between the morning and the day's look at storage or budget."""
    order = {"supplier_id": "S1", "sku": "sku_0", "quantity": 5}
    looks = itertools.cycle(
        [
            call("tool_order", order),
            call("tool_check_storage"),
            call("tool_check_budget"),
        ]
    )
    keys = {EVERY: 1, "pe_induction.p_shock": 0.5, "simulation.max_steps": 60}
    run = played(llm(keys), reply=lambda request: next(looks), answer=lambda request: ANSWERED)
    seen: defaultdict[str, set[float]] = defaultdict(set)
    for step in run.steps:
        if step.belief is not None and step.result is not None and step.action is not None:
            if step.action.tool == "tool_check_storage":
                assert step.belief.true_storage == step.result["total"]
                seen["storage"].add(step.belief.true_storage)
            if step.action.tool == "tool_check_budget":
                assert step.belief.true_budget == step.result["budget"]
                seen["budget"].add(step.belief.true_budget)
    assert min(map(len, seen.values())) > 5


@pytest.mark.parametrize("kind", ["heuristic", "random", "probe"])
def test_only_a_models_agent_is_asked_for_beliefs(kind: str) -> None:
    run = played(llm({EVERY: 1, "agent.kind": kind}))
    assert (run.questions, run.outcome.beliefs.asked) == ([], 0)


def test_a_re_ask_does_not_repeat_the_question() -> None:
    run = played(
        llm({EVERY: 1, "simulation.max_steps": 2}),
        reply=lambda request: inbox(request) if "Day 1." not in str(request.messages) else "?",
        answer=lambda request: ANSWERED,
    )
    assert len(run.requests) == 4
    assert len(run.questions) == 1
    assert run.steps[1].parse_status == "failed"
    assert run.steps[1].belief is not None
    assert run.steps[1].belief.storage == 40


def test_both_are_asked_again_if_the_days_request_is_too_long() -> None:
    refused = iter([True, False])

    def reply(request: ChatRequest) -> str | Reply:
        too_long = request.messages[-1].content.startswith("Day 4.") and next(refused, False)
        return context_reply() if too_long else inbox(request)

    answers = iter(["{}", ANSWERED])

    def answer(request: ChatRequest) -> str:
        return next(answers)

    run = played(llm({EVERY: 4, "simulation.max_steps": 6}), reply=reply, answer=answer)
    assert (len(run.requests), len(run.questions)) == (7, 2)
    first, second = chats(run.questions)
    assert len(second.messages) < len(first.messages)
    assert second.messages[:-1] == chats(run.requests)[5].messages[:-1]
    assert run.steps[4].belief is not None
    assert run.steps[4].belief.storage == 40
    assert run.outcome.beliefs.asked == 1


# -- no trace -----------------------------------------------------------------------------------

KINDS = (
    "call",
    "order",
    "garbage",
    "huge garbage",
    "two calls",
    "half",
    "context",
    "long",
    "reset",
)


def speaking(kinds: list[str], *, window: int, counter: str, honest: bool) -> Callable[..., Reply]:
    """A model whose reply to the n-th request of the main conversation is of the n-th kind."""
    turn = iter(range(10_000))

    def say(request: ChatRequest) -> str:
        match kinds[next(turn) % len(kinds)]:
            case "order":
                return call("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 5})
            case "garbage":
                return "I do not know."
            case "huge garbage":
                return "word " * 900
            case "two calls":
                return call("tool_wait") * 2
            case "half":
                return call("tool_wait")[:40]
            case "long":
                return "thus " * 300 + call("tool_check_storage")
            case "reset":
                return call(RESET)
            case _:
                return call("tool_check_inbox")

    engine = Counting(say=say, window=window, count=COUNTERS[counter])

    def reply(request: ChatRequest) -> Reply:
        refusing = "context" in kinds and kinds[next(turn) % len(kinds)] == "context"
        if refusing and len(request.messages) > 2:  # there is something that can leave
            return context_reply()
        answer = engine(request)
        return answer if honest else Reply(choices=answer.choices)

    return reply


def without_beliefs(run: Played) -> tuple[list[Request], list[Any]]:
    kept = []
    for step in run.steps:
        shown = {name: getattr(step, name) for name in step.__struct_fields__}
        shown.pop("belief")
        kept.append(shown)
    return run.requests, kept


@budget(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=30),
    counter=st.sampled_from(sorted(COUNTERS)),
    window=st.integers(4300, 9000),
    honest=st.booleans(),
    every=st.integers(1, 12),
    answer=st.sampled_from([ANSWERED, "I do not know", "word " * 3000, "", "context"]),
    recovery=st.sampled_from(["none", "all"]),
)
def test_the_main_conversation_is_the_same_with_and_without_beliefs(
    kinds: list[str],
    counter: str,
    window: int,
    honest: bool,
    every: int,
    answer: str,
    recovery: str,
) -> None:
    window *= {"characters": 4}.get(counter, 1)
    runs = []
    for asked in (every, None):
        keys = {
            EVERY: asked,
            "agent.model.context_length": window,
            "agent.interface.recovery_tools": recovery,
            "simulation.max_steps": 50,
        }
        runs.append(
            played(
                llm(keys),
                reply=speaking(kinds, window=window, counter=counter, honest=honest),
                answer=lambda request: context_reply() if answer == "context" else answer,
            )
        )
    with_beliefs, without = runs
    assert without_beliefs(with_beliefs) == without_beliefs(without)
    assert without.questions == []
    assert (with_beliefs.questions != []) == (with_beliefs.outcome.steps > every)
    assert QUESTION not in str(with_beliefs.requests)


def test_a_question_fits_wherever_its_days_request_fits() -> None:
    window = 4600
    main = Counting(say=Storekeeper(), window=window)
    beside = Counting(say=lambda request: ANSWERED, window=window)
    keys = {
        EVERY: 1,
        "agent.model.context_length": window,
        "simulation.max_steps": 200,
        "simulation.initial_budget": 1e6,
    }
    run = played(llm(keys), reply=main, answer=beside)
    assert (main.refused, beside.refused) == (0, 0)
    assert main.longest > 0.97 * window
    assert run.outcome.beliefs.read == 199


# -- through the real worker --------------------------------------------------------------------

STEPS = 7
ASKS_OF_TWO = 3
REPLIES = STEPS + ASKS_OF_TWO


def experiment(folder: Path) -> Experiment:
    phase = load_phase(
        BASE,
        [
            "agent.kind=llm",
            "engine.backend=scripted",
            f"simulation.max_steps={STEPS}",
            f"{EVERY}=2",
            "pe_induction.p_shock=0.6",
        ],
        workload_named=workload_named,
    )
    made = Experiment(folder)
    made.extend(phase.text, expand(phase, window=32000))
    return made


@pytest.mark.parametrize("replies", range(REPLIES))
@pytest.mark.parametrize("torn", [0, 90])
def test_a_run_killed_in_the_middle_of_an_ask_of_two_resumes_to_the_same_outcome(
    replies: int, torn: int, tmp_path: Path
) -> None:
    expected = experiment(tmp_path / "undisturbed")
    undisturbed = ScriptedEngine(echo)
    play(expected, undisturbed)
    assert undisturbed.answered == REPLIES
    killed = experiment(tmp_path / "killed")
    kill_after(killed, replies, torn)
    assert outcomes(killed) == {}
    engine = ScriptedEngine(echo)
    assert play(killed, engine).problem is None
    assert engine.answered <= REPLIES - replies + (torn > 0)
    assert outcomes(killed) == outcomes(expected)
    (run,) = outcomes(killed)
    assert steps(killed, run) == steps(expected, run)
    assert_every_log_is_a_prefix(killed)
    (result,) = outcomes(expected).values()
    assert json.loads(result)["beliefs"]["asked"] == ASKS_OF_TWO


@pytest.mark.parametrize("every", [3, None])
def test_beliefs_are_logged_through_the_real_worker(every: int | None, tmp_path: Path) -> None:
    def reply(request: ChatRequest) -> str:
        return ANSWERED if QUESTION in request.messages[-1].content else inbox(request)

    keys = {EVERY: every, "simulation.max_steps": 8, "demand.orders_per_day": 0.0}
    run = worked(tmp_path, keys, reply)
    beliefs = {step["step"]: step["belief"] for step in run.steps if step["belief"] is not None}
    assert set(beliefs) == (set() if every is None else {3, 6})
    for belief in beliefs.values():
        assert (belief["storage"], belief["budget"]) == (40, 9500.5)
    assert run.outcome["beliefs"]["read"] == len(beliefs)
    if every is not None:
        assert beliefs[3]["true_budget"] == run.steps[2]["truth"]["budget"]
        assert run.outcome["beliefs"]["budget_divergence"] == pytest.approx(0.04995)
