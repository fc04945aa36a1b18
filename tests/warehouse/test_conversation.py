"""The message prefix law, truncations by a block, and the ledger that stays."""

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.modelled import COUNTERS, Counting, Storekeeper, call, context_reply
from tests.warehouse.playing import played, settings
from vendomini.chat import ChatRequest, Choice, Message, Reply, Request
from vendomini.errors import ConfigError
from vendomini.workloads.warehouse.agent import Seen, briefing
from vendomini.workloads.warehouse.conversation import Conversation
from vendomini.workloads.warehouse.episode import Game
from vendomini.workloads.warehouse.ledger import Ledger
from vendomini.workloads.warehouse.llm import Llm
from vendomini.workloads.warehouse.settings import WarehouseSettings

WINDOW = 4096


def llm(keys: dict[str, Any] | None = None) -> WarehouseSettings:
    return settings(
        {
            "agent.kind": "llm",
            "agent.model.context_length": WINDOW,
            "simulation.max_steps": 120,
            "crash_detector.continue_after_crash": 1000,
            **(keys or {}),
        }
    )


def chats(requests: list[Request]) -> list[ChatRequest]:
    return [request for request in requests if isinstance(request, ChatRequest)]


def truncations(asked: list[ChatRequest]) -> list[tuple[ChatRequest, ChatRequest]]:
    """Pairs of requests at which the conversation did not just grow; asserts their form."""
    found = []
    for before, after in itertools.pairwise(asked):
        if after.messages[: len(before.messages)] == before.messages:
            continue
        found.append((before, after))
        assert after.messages[0] == before.messages[0]
        assert [m.role for m in after.messages[1:]] == [
            ("user", "assistant")[n % 2] for n in range(len(after.messages) - 1)
        ]
        grown = (*before.messages, *after.messages[-2:])
        kept = after.messages[2:]
        assert is_within(kept[:-2], grown)
        assert len(after.messages) < len(before.messages) + 2
    return found


def is_within(part: tuple[Message, ...], whole: tuple[Message, ...]) -> bool:
    return any(whole[n : n + len(part)] == part for n in range(len(whole) - len(part) + 1))


KINDS = ("call", "wrong call", "garbage", "huge garbage", "two calls", "half", "context", "long")


@budget(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=40),
    counter=st.sampled_from(sorted(COUNTERS)),
    window=st.integers(4000, 9000),
    honest=st.booleans(),
)
def test_messages_only_grow_except_at_a_truncation(
    kinds: list[str], counter: str, window: int, honest: bool
) -> None:
    window *= {"characters": 4}.get(counter, 1)
    count = COUNTERS[counter]
    turn = iter(range(10_000))

    def say(request: ChatRequest) -> str:
        match kinds[next(turn) % len(kinds)]:
            case "wrong call":
                return call("tool_order", {"quantity": "many"})
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
            case _:
                return call("tool_check_inbox")

    engine = Counting(say=say, window=window, count=count)

    log: list[Reply] = []

    def reply(request: ChatRequest) -> Reply:
        refusing = "context" in kinds and kinds[next(turn) % len(kinds)] == "context"
        if refusing and len(request.messages) > 2:  # there is something that can leave
            answer = context_reply()
        else:
            answer = engine(request)
            answer = answer if honest else Reply(choices=answer.choices)
        log.append(answer)
        return answer

    chosen = llm({"agent.model.context_length": window, "simulation.max_steps": 60})
    run = played(chosen, reply=reply)
    assert run.outcome.steps > 0
    asked = chats(run.requests)
    cut = len(truncations(asked))
    if "context" not in kinds and honest:
        assert engine.refused == 0
        said = sum(count(request.messages[-1].content) for request in asked)
        said += sum(reply.tokens_out for reply in log)
        assert cut <= 2 + 5 * said / window
    replayed = iter(log)
    again = played(chosen, reply=lambda request: next(replayed))
    assert (again.bytes, again.requests) == (run.bytes, run.requests)


@pytest.mark.parametrize("counter", sorted(COUNTERS))
@pytest.mark.parametrize("level", [1, 4])
def test_the_window_is_never_exceeded_and_is_used(counter: str, level: int) -> None:
    window = {"words": 2600, "quarters": 4096, "characters": 16000}[counter]
    most = {"words": 500, "quarters": 2000, "characters": 6000}[counter]
    engine = Counting(say=Storekeeper(), window=window, count=COUNTERS[counter])
    keys = {
        "agent.model.context_length": window,
        "agent.model.max_tokens_per_call": most,
        "simulation.max_steps": 300,
        "simulation.complexity_level": level,
        "simulation.initial_budget": 1e6,
    }
    run = played(llm(keys), reply=engine)
    assert run.outcome.end == "max_steps"
    assert engine.refused == 0
    assert 0.85 * window < engine.longest <= window
    assert truncations(engine.requests)


def test_the_oldest_steps_leave_in_one_block_of_a_quarter_of_the_window() -> None:
    window = 6000
    engine = Counting(say=Storekeeper(), window=window)
    keys = {"agent.model.context_length": window, "simulation.max_steps": 300}
    played(llm(keys), reply=engine)
    cuts = truncations(engine.requests)
    assert len(cuts) > 3
    for before, after in cuts:
        gone = before.messages[1 : 3 + len(before.messages) - len(after.messages)]
        texts = [message.content.split("\n\n")[-1] for message in gone]  # without the ledger
        tokens = sum(engine.count(text) + 4 for text in texts)
        assert window / 4 - 100 < tokens < window / 4 + 700
        assert engine.tokens(before) > window - 2000 - 700
    steps_between = len(engine.requests) / len(cuts)
    assert steps_between > 5


def talk_of(days: int) -> Conversation:
    """A conversation with an engine that does not count."""
    talk = Conversation(
        system=Message(role="system", content="rules"),
        window=4000,
        reply_tokens=1000,
        ledger=Ledger(expire_after_days=8, longest=1000),
    )
    for day in range(days):
        talk.begin(Seen(day=day, inbox_count=0, last_result=None), "x" * 300)
        talk.answered(Reply(choices=(Choice(text="y"),)), "y")
        talk.called(("tool_wait", {}))
    return talk


def test_what_leaves_is_no_longer_counted_and_the_ledger_is_once() -> None:
    talk = talk_of(12)

    def estimated() -> int:
        said = [talk.system, *(m for each in talk._exchanges for m in each.messages)]
        texts = [message.content for message in said] + [talk._ledger_text] * bool(
            talk._ledger_text
        )
        return sum(talk._estimate(text) for text in texts)

    assert talk.tokens == estimated()
    for _ in range(2):
        assert talk.truncate()
        assert talk._ledger_text
        assert talk.tokens == estimated()
    talk.forget()
    assert (len(talk.messages), talk.tokens) == (3, estimated())


def test_more_than_a_quarter_leaves_where_more_must() -> None:
    talk = talk_of(18)
    before = talk.tokens
    talk.begin(Seen(day=18, inbox_count=0, last_result=None), "z" * 6000)
    overflow = talk.tokens + 1000 - 4000
    assert overflow > 4000 / 4
    a_day = before / 18
    talk.make_room()
    assert talk.ledger.days >= overflow / a_day > 4000 / 4 / a_day


def test_an_engine_that_does_not_count_is_not_overrun_either() -> None:
    engine = Counting(say=Storekeeper(), window=WINDOW)
    run = played(llm(), reply=lambda request: Reply(choices=engine(request).choices))
    assert run.outcome.end == "max_steps"
    assert engine.refused == 0


def test_a_prompt_that_is_too_long_after_all_is_cut_and_asked_again() -> None:
    engine = Counting(say=Storekeeper(), window=3800)  # less than the settings say
    run = played(llm(), reply=engine)
    assert run.outcome.end == "max_steps"
    assert engine.refused > 0
    assert (run.outcome.re_asks, run.outcome.format_failures) == (0, 0)


def test_a_window_too_small_for_a_single_day_is_one_clear_error() -> None:
    engine = Counting(say=Storekeeper(), window=2000)
    with pytest.raises(ConfigError, match=r"`agent\.model\.context_length` is `4096`") as refused:
        played(llm(), reply=engine)
    assert "raise `agent.model.context_length`" in refused.value.hint
    assert len(engine.requests) == 1


def test_failed_replies_of_the_day_leave_before_a_run_is_given_up() -> None:
    garbage = "word " * 900
    texts = iter([garbage, garbage] + [call("tool_wait")] * 500)
    engine = Counting(say=lambda request: next(texts), window=3150)
    run = played(llm({"simulation.max_steps": 3}), reply=engine)
    assert engine.refused > 0
    assert run.steps[0].re_asks > 0
    assert run.outcome.end == "max_steps"


def test_the_ledger_says_what_was_told_and_it_is_true() -> None:
    chosen = llm(
        {
            "simulation.max_steps": 250,
            "simulation.initial_budget": 1e6,
            "pe_induction.p_shock": 0.3,
            "agent.interface.prediction_mode": "required",
            "agent.interface.beliefs_every": None,
        }
    )
    game = Game(chosen, seed=0, replication=0)
    agent = Llm(briefing(chosen, game.world, game.tools.offered), chosen.agent)
    engine = Counting(say=Storekeeper(), window=WINDOW)
    steps, mornings, ledgers = [], [], {}
    while game.end is None:
        seen = game.morning()
        world = game.world
        mornings.append((set(world.pending), set(world.customers)))
        episode = agent.ask(seen)
        (request,) = next(episode)
        assert isinstance(request, ChatRequest)
        first = request.messages[1].content
        if "left this conversation" in first:
            days = int(re.findall(r"Days? (?:0 to )?(\d+) ha", first)[0]) + 1
            ledgers[days] = first
        with pytest.raises(StopIteration) as stop:
            episode.send((engine(request),))
        steps.append(game.day(stop.value.value))
    assert len(ledgers) > 3
    listed_orders = listed_customers = told_something = 0
    for days, said in ledgers.items():
        told = steps[: days - 1]  # the result of the last call that left stands below
        done = [step for step in told if step.action and step.result and step.result["success"]]
        placed = {
            step.result["order_id"]: step
            for step in done
            if step.action and step.result and step.action.tool == "tool_order"
        }
        shipped = [
            entry for step in done if step.result for entry in step.result.get("shipped", ())
        ]
        revenue = sum(entry["net_revenue"] for entry in shipped)
        assert f"{len(placed)} orders placed, 0 cancelled, {len(shipped)} customer orders" in said
        assert f"for {revenue:.2f}, {len(told) - len(done)} calls failed, 0 days" in said
        pending, customers = mornings[days - 1]
        orders = re.findall(r"(ORD\d+) \((\d+) (sku_\d+) from (S\d)", said)
        listed_orders += len(orders)
        assert {id for id, *_ in orders} >= pending
        for id, quantity, sku, supplier in orders:
            action = placed[id].action
            assert action is not None
            args = action.args
            assert isinstance(args, dict)
            assert (args["sku"], args["supplier_id"]) == (sku, supplier)
            assert int(quantity) > 0
        news = [m for step in done if step.result for m in step.result.get("messages", ())]
        told_of = {m["customer_order_id"]: m for m in news if m["type"] == "customer_order"}
        arrived = {m["order_id"] for m in news if m["type"] == "delivery"}
        assert {id for id, *_ in orders} == set(placed) - arrived
        listed = set(re.findall(r"(CO\d+) \(", said))
        last_evening, keeps = days - 1, chosen.demand.expire_after_days
        assert listed == {
            id for id in customers & set(told_of) if last_evening - told_of[id]["day"] <= keeps
        }
        still_open = mornings[days][1] if days < len(mornings) else set()
        assert listed >= still_open & set(told_of)
        listed_customers += len(listed)
        budgets = [
            (step.result.get("budget", step.result.get("new_budget")), step.day)
            for step in done
            if step.result and {"budget", "new_budget"} & set(step.result)
        ]
        budget_told = "never told"
        if budgets:
            budget_told = f"{budgets[-1][0]:.2f} at the call of day {budgets[-1][1]}"
        assert f"- Budget: {budget_told}." in said
        looks = [step for step in done if step.result and "storage" in step.result]
        storage_told = f"at the call of day {looks[-1].day}." if looks else "never told."
        assert storage_told in said.split("- Storage: ")[1].splitlines()[0]
        told_something += bool(budgets) + bool(looks)
        last = steps[days - 1].action
        assert last is not None
        assert f'Your call of day {days - 1}: {{"tool":"{last.tool}"' in said
        assert f"\n\nDay {days}. Inbox" in said
        assert len(said) < 4000
    assert listed_orders > 0
    assert listed_customers > 0
    assert told_something > len(ledgers)


def test_a_ledger_of_hostile_calls_can_be_sent() -> None:
    hostile = call("tool_quote", {"quantity": 10**400, "x": [1e308 * 10, "\ud800"]})
    hostile = hostile.replace("Infinity", "1e999")
    engine = Counting(say=lambda request: hostile, window=WINDOW)
    run = played(llm({"simulation.max_steps": 60}), reply=engine)
    assert run.outcome.end == "max_steps"
    assert truncations(chats(run.requests))
    assert "\\ud800" in engine.requests[-1].messages[1].content
