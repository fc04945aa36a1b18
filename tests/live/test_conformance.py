"""What every engine must do alike: the same requests to the scripted, the hf and the vllm engine.

The two real ones run a tiny random model on the CPU. The scripted one stands in for a model in
tests, and so has to keep the same promises.
"""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from tests.live.engines import MAX_MODEL_LEN, Live
from vendomini.chat import (
    ChatRequest,
    CompletionRequest,
    Message,
    ReplyFormat,
    Request,
    Sampling,
    ScoreRequest,
    missing_feature,
)
from vendomini.workloads.warehouse.memory import memory_tools
from vendomini.workloads.warehouse.reading import FormatFailure, Reader
from vendomini.workloads.warehouse.recovery import recovery_tools
from vendomini.workloads.warehouse.reply_schema import reply_schema
from vendomini.workloads.warehouse.settings import InterfaceSettings
from vendomini.workloads.warehouse.tools import offered

GREEDY = Sampling(temperature=0.0, max_tokens=12)
DRAWN = Sampling(temperature=1.0, max_tokens=12)
SCHEMA = {
    "type": "object",
    "properties": {
        "tool": {"enum": ["tool_wait", "tool_order"]},
        "quantity": {"type": "integer", "minimum": 0, "maximum": 99},
        # xgrammar 0.2 lets raw control characters through where only a length is given.
        "note": {"type": "string", "pattern": "^[a-z ]{0,8}$"},
    },
    "required": ["tool", "quantity", "note"],
    "additionalProperties": False,
}


def chat(text: str = "Order twelve boxes.", **changes: Any) -> ChatRequest:
    messages = (
        Message(role="system", content="You run a warehouse."),
        Message(role="user", content=text),
    )
    values: dict[str, Any] = {"messages": messages, "sampling": GREEDY, "seed": 7, **changes}
    return ChatRequest(**values)


def completion(**changes: Any) -> CompletionRequest:
    values: dict[str, Any] = {
        "prompt": "The quick brown fox orders",
        "sampling": GREEDY,
        "seed": 7,
        **changes,
    }
    return CompletionRequest(**values)


EVERY_KIND: list[Request] = [
    chat(),
    completion(),
    ScoreRequest(prompt="The quick", continuations=(" brown", " boxes")),
]


@pytest.mark.parametrize("request_", EVERY_KIND, ids=["chat", "completion", "score"])
def test_each_kind_is_answered_with_its_counts(live: Live, request_: Request) -> None:
    assert missing_feature(request_, live.engine.features) is None
    reply = live.ask(request_)
    assert reply.tokens_in > 0
    assert reply.seed_support == live.engine.features.seed_support
    for choice in reply.choices:
        assert choice.text
        assert choice.finish_reason in ("stop", "length")


def test_a_greedy_reply_is_the_same_each_time_alone_and_in_a_crowd(live: Live) -> None:
    alone = live.ask(chat())
    crowd = live.ask_all([chat(), *(chat(f"Day {day}: " + "wait " * day) for day in range(15))])
    assert crowd[0].text == alone.text
    assert len({reply.text for reply in crowd}) > 1


def test_equal_seeds_draw_equal_replies_also_in_a_crowd_and_others_differ(live: Live) -> None:
    asked = chat(sampling=DRAWN)
    alone = live.ask(asked)
    crowd = live.ask_all([asked, *(replace(chat("Another day."), seed=seed) for seed in range(9))])
    assert crowd[0].text == alone.text
    seeds = [replace(asked, seed=seed) for seed in range(6)]
    assert len({reply.text for reply in live.ask_all([*seeds])}) > 1


def test_each_choice_of_several_is_drawn_by_its_own_seed(live: Live) -> None:
    several = live.ask(chat(sampling=replace(DRAWN, n=3)))
    assert len(several.choices) == 3
    alone = [live.ask(replace(chat(sampling=DRAWN), seed=7 + number)) for number in range(3)]
    assert [choice.text for choice in several.choices] == [reply.text for reply in alone]
    assert several.tokens_out == sum(reply.tokens_out for reply in alone)


def test_a_reply_is_cut_at_max_tokens_and_says_so(live: Live) -> None:
    longer = live.ask(completion(sampling=replace(GREEDY, max_tokens=2)))
    shorter = live.ask(completion(sampling=replace(GREEDY, max_tokens=1)))
    assert shorter.choices[0].finish_reason == "length"
    assert shorter.tokens_out == 1
    assert longer.text.startswith(shorter.text)


def test_a_stop_text_ends_a_reply_and_is_not_part_of_it(live: Live) -> None:
    whole = live.ask(completion())
    stop = whole.text[len(whole.text) // 2 :][:2]
    cut = live.ask(completion(sampling=replace(GREEDY, stop=(stop,))))
    assert cut.text == whole.text.partition(stop)[0]
    assert cut.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("make", [chat, completion], ids=["chat", "completion"])
def test_a_schema_reply_fits_its_schema(live: Live, make: Any) -> None:
    schema = ReplyFormat(kind="schema", json_schema=msgspec.json.encode(SCHEMA).decode())
    sampling = replace(DRAWN, max_tokens=200, n=4)
    reply = live.ask(make(sampling=sampling, reply_format=schema))
    for choice in reply.choices:
        assert choice.finish_reason == "stop"
        said = msgspec.json.decode(choice.text)
        assert said.keys() == {"tool", "quantity", "note"}
        assert said["tool"] in ("tool_wait", "tool_order")
        assert 0 <= said["quantity"] <= 99
        assert len(said["note"]) <= 8


@pytest.mark.parametrize("n", [1, pytest.param(4, marks=pytest.mark.long)])
def test_constrained_replies_of_the_warehouse_s_fullest_interface_can_be_read(
    live: Live, n: int
) -> None:
    """The largest grammar there is, and whatever a model draws from it is no format failure."""
    interface = InterfaceSettings(
        prediction_mode="required+full",
        prediction_format="rich",
        memory_tools="full",
        recovery_tools="all",
    )
    tools = offered(4) + memory_tools(interface) + recovery_tools(interface)
    schema = ReplyFormat(kind="schema", json_schema=reply_schema(tools, interface))
    # A random model ends hardly any text by itself: a reply has more than a thousand tokens.
    sampling = replace(DRAWN, max_tokens=MAX_MODEL_LEN - 100, n=n)
    reply = live.ask(chat("Go on.", sampling=sampling, reply_format=schema))
    for choice in reply.choices:
        assert choice.finish_reason == "stop"
        said = Reader(interface).read(choice.text)
        assert not isinstance(said, FormatFailure), said
        assert said.card is not None
        assert said.card.reflection is not None
        assert said.card.reflection.reasoning


def test_a_text_reply_is_not_held_to_anything(live: Live) -> None:
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(live.ask(chat(sampling=replace(GREEDY, max_tokens=40))).text)


@pytest.mark.parametrize("make", [chat, completion], ids=["chat", "completion"])
def test_log_probabilities_come_when_asked_for_one_a_token(live: Live, make: Any) -> None:
    assert live.ask(make()).choices[0].logprobs is None
    reply = live.ask(make(sampling=replace(GREEDY, top_logprobs=3)))
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert len(logprobs) in (reply.tokens_out, reply.tokens_out - 1)  # the end has no text
    for token in logprobs:
        assert token.logprob <= 0
        assert token.top
        # Greedy takes the likeliest. (Completions name tokens by their text, and parts of a
        # character have no text of their own: such a token may be missing among the top ones.)
        assert all(other <= token.logprob + 1e-4 for _, other in token.top)


def test_scores_are_sums_of_log_probabilities_in_the_order_asked(live: Live) -> None:
    one, two = " boxes", " the second supplier on day three"
    both = live.ask(ScoreRequest(prompt="The quick brown fox", continuations=(one, two)))
    assert [choice.text for choice in both.choices] == [one, two]
    scores = [choice.score for choice in both.choices]
    assert all(score is not None and score < 0 for score in scores)
    again = live.ask(ScoreRequest(prompt="The quick brown fox", continuations=(one, two)))
    assert [choice.score for choice in again.choices] == pytest.approx(scores, abs=1e-3)


def test_a_label_of_one_token_scores_alike_alone_and_among_longer_ones(live: Live) -> None:
    prompt = "The quick brown fox orders"
    short = live.ask(ScoreRequest(prompt=prompt, continuations=("!", "?")))
    mixed = live.ask(ScoreRequest(prompt=prompt, continuations=("!", "?", " twelve boxes !?")))
    if live.spec.backend == "scripted":
        return  # its scores are drawn by the name of the whole request
    assert [choice.score for choice in short.choices] == pytest.approx(
        [choice.score for choice in mixed.choices[:2]], abs=1e-3
    )


def test_without_a_system_role_its_text_leads_the_first_user_message(live: Live) -> None:
    if live.spec.backend == "scripted":
        assert live.ask(chat()).text  # it has no template, and takes every role
        return
    folded = "You run a warehouse.\n\nOrder twelve boxes."
    by_hand = ChatRequest(messages=(Message(role="user", content=folded),), sampling=GREEDY, seed=7)
    assert live.ask(chat()).text == live.ask(by_hand).text
    assert live.ask(chat()).tokens_in == live.ask(by_hand).tokens_in


def test_a_prompt_that_is_too_long_is_a_reply_of_its_own_kind(models: Any, live: Live) -> None:
    long = chat("word " * (4 * MAX_MODEL_LEN), sampling=replace(GREEDY, n=2))
    reply = live.ask(long)
    assert [choice.finish_reason for choice in reply.choices] == ["context", "context"]
    assert [choice.text for choice in reply.choices] == ["", ""]
    assert live.ask(chat()).text  # and the engine lives on


def test_a_crowd_of_requests_is_answered_each_its_own(live: Live) -> None:
    requests: list[Request] = [chat(f"Day {day}", seed=day) for day in range(64)]
    replies = live.ask_all(requests)
    assert len(replies) == 64
    assert replies[5].text == live.ask(requests[5]).text


def test_an_engine_tells_what_it_holds_and_how_busy_it_is(live: Live) -> None:
    if live.spec.backend == "scripted":
        assert live.run(live.engine.load()) is None
        assert live.engine.capacity.max_model_len == MAX_MODEL_LEN
        return
    load = live.run(live.engine.load())
    assert load is not None
    assert load.preemptions == 0
    assert live.engine.capacity.max_model_len == MAX_MODEL_LEN
    tokens = live.engine.capacity.kv_cache_tokens
    assert tokens is not None
    # 2 layers x keys and values x 2 heads x 32 x 4 bytes is 1,024 bytes a token
    if live.spec.backend == "hf":
        tokens *= 2  # it tells half: conversations at rest stay beside those under way
    assert 0.9 * (1 << 16) <= tokens <= 1.1 * (1 << 16)
    assert live.engine.facts["device"] == "cpu"


def test_thinking_reaches_the_template_and_thoughts_stay_out_of_the_text(live: Live) -> None:
    off, on, default = (live.ask(chat(thinking=thinking)) for thinking in ("off", "on", "default"))
    if live.spec.backend != "scripted":
        # This template writes an empty thought where thinking is off.
        assert off.tokens_in > on.tokens_in == default.tokens_in
    assert "</think>" not in off.text + on.text + default.text
