"""Requests, replies, and what an episode is."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.chat import (
    ChatRequest,
    CommandRequest,
    CompletionRequest,
    EngineFeatures,
    Episode,
    Message,
    Reply,
    ReplyFormat,
    Request,
    Sampling,
    ScoreRequest,
    Tool,
    ToolCall,
    ask,
    ask_all,
    choices_of,
    format_of,
    kind_of,
    missing_feature,
    not_built,
    request_seed,
    sample_seed,
    seeded,
)
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.store.hashing import request_hash

HELLO = ChatRequest(messages=(Message(role="user", content="hello"),))
TOOL = Tool(name="order", description="orders", parameters='{"type":"object"}')
CALL = ToolCall(id="1", name="order", arguments='{"units":3}')
CALLS = Message(role="assistant", content="hello", tool_calls=(CALL,))
RESULT = Message(role="tool", content="hello", tool_call_id="1")


def two_questions() -> Episode[str]:
    first = yield from ask(HELLO)
    second, third = yield from ask_all((HELLO, CompletionRequest(prompt=first.text)))
    return f"{first.text} {second.text} {third.text}"


def test_an_episode_is_driven_by_hand() -> None:
    episode = two_questions()
    (asked,) = next(episode)
    assert asked == HELLO
    reply = replace(echo(HELLO), tokens_in=0)
    both = episode.send((reply,))
    assert [kind_of(request) for request in both] == ["chat", "completion"]
    with pytest.raises(StopIteration) as stop:
        episode.send((reply, reply))
    assert stop.value.value == " ".join([reply.text] * 3)


def test_equal_requests_have_equal_hashes_and_different_ones_differ() -> None:
    same = ChatRequest(messages=(Message(role="user", content="hello"),))
    variants: list[Request] = [
        HELLO,
        replace(HELLO, seed=1),
        replace(HELLO, thinking="off"),
        replace(HELLO, sampling=Sampling(temperature=0.5)),
        replace(HELLO, sampling=Sampling(n=2)),
        replace(HELLO, reply_format=ReplyFormat(kind="schema", json_schema="{}")),
        ChatRequest(messages=(Message(role="system", content="hello"),)),
        CompletionRequest(prompt="hello"),
        ScoreRequest(prompt="hello", continuations=("a",)),
        ScoreRequest(prompt="hello", continuations=("a", "b")),
        replace(HELLO, role="judge"),
        CompletionRequest(prompt="hello", role="judge"),
        ScoreRequest(prompt="hello", continuations=("a",), role="judge"),
        replace(HELLO, tools=(TOOL,)),
        ChatRequest(messages=(Message(role="assistant", content="hello"),)),
        ChatRequest(messages=(CALLS,)),
        ChatRequest(messages=(Message(role="tool", content="hello"),)),
        ChatRequest(messages=(RESULT,)),
        CommandRequest(argv=("hello",)),
        CommandRequest(argv=("hello",), stdin="x"),
        CommandRequest(argv=("hello",), role="grader"),
    ]
    assert request_hash(same) == request_hash(HELLO)
    assert len({request_hash(request) for request in variants}) == len(variants)


def test_a_hash_is_the_same_in_every_version_of_the_program() -> None:
    # Reply logs outlive programs: these names may change only with REQUEST_VERSION.
    assert request_hash(HELLO) == "95f3f9a49c201ed7de6a7c1b5e775c2d"
    assert request_hash(CompletionRequest(prompt="x", seed=3)) == "c2962d9ee46db76257556bf5aa8adcf0"


TURNS = (
    Message(role="system", content="be brief"),
    Message(role="user", content="hällo\n"),
    Message(role="assistant", content=""),
    Message(role="user", content="2"),
)
OPTIONS = Sampling(temperature=0.5, top_p=0.9, max_tokens=7, stop=("a", "b"), n=3, top_logprobs=2)
SCHEMA = ReplyFormat(kind="schema", json_schema='{"type":"object"}')


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (ChatRequest(messages=TURNS), "1e497b5b90c7abaf08337e86c10d75d7"),
        (
            ChatRequest(
                messages=TURNS, sampling=OPTIONS, reply_format=SCHEMA, thinking="on", seed=5
            ),
            "061d8c82a8c84387f7551250a63e6e24",
        ),
        (CompletionRequest(prompt="once"), "31f6c1d37c6b64e720801efb2a913531"),
        (
            CompletionRequest(prompt="once", sampling=OPTIONS, reply_format=SCHEMA, seed=5),
            "fe31c4839f2a21e31c0ff854ba957426",
        ),
        (
            ScoreRequest(prompt="is it?", continuations=(" yes", " no")),
            "253985246d66bbaf6f30b13ccfd3d532",
        ),
        (
            ScoreRequest(prompt="is it?", continuations=(" yes", " no"), seed=5),
            "91838bfefa25c011a6bff9cad5fd54b2",
        ),
    ],
)
def test_what_a_request_does_not_use_is_not_in_its_hash(request_: Request, name: str) -> None:
    # Computed before requests had roles, tools and calls of tools.
    assert request_hash(request_) == name


def test_spelling_out_a_default_does_not_change_the_hash() -> None:
    spelt = replace(HELLO, sampling=Sampling(temperature=1.0, n=1), reply_format=ReplyFormat())
    assert request_hash(spelt) == request_hash(HELLO)


@given(
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 99), st.integers(0, 9)),
    st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 99), st.integers(0, 9)),
)
def test_seeds_depend_on_the_place_and_fit_31_bits(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int]
) -> None:
    assert 0 <= request_seed(*one) < 2**31
    assert (request_seed(*one) == request_seed(*other)) == (one == other)


def test_the_choices_of_one_request_have_different_seeds_and_the_first_has_its_own() -> None:
    seeds = [sample_seed(5, sample) for sample in range(8)]
    assert seeds[0] == 5
    assert len(set(seeds)) == 8


def test_a_seed_an_episode_chose_is_kept() -> None:
    assert seeded(HELLO, 9).seed == 9
    assert seeded(replace(HELLO, seed=1), 9).seed == 1


def test_a_reply_format_needs_a_schema_exactly_when_it_is_one() -> None:
    with pytest.raises(ValueError, match="exactly when"):
        ReplyFormat(kind="schema")
    with pytest.raises(ValueError, match="exactly when"):
        ReplyFormat(kind="text", json_schema="{}")


def test_what_an_engine_lacks_is_named() -> None:
    able = ScriptedEngine(echo).features
    schema = replace(HELLO, reply_format=ReplyFormat(kind="schema", json_schema="{}"))
    score = ScoreRequest(prompt="x", continuations=("a",))
    several = replace(HELLO, sampling=Sampling(n=2))
    assert missing_feature(schema, able) is None
    assert missing_feature(several, able) is None
    cases: list[tuple[Request, EngineFeatures, str]] = [
        (schema, replace(able, formats=frozenset({"text"})), "reply_format `schema`"),
        (score, replace(able, kinds=frozenset({"chat"})), "requests of kind `score`"),
        (several, replace(able, several_choices=False), "several choices (n > 1)"),
        (
            replace(HELLO, sampling=Sampling(top_logprobs=2)),
            replace(able, logprobs=False),
            "log-probabilities",
        ),
        (CommandRequest(argv=("ls",)), able, "requests of kind `command`"),
    ]
    for request, features, missing in cases:
        assert missing_feature(request, features) == missing
    running = replace(able, kinds=frozenset({"command"}))
    assert missing_feature(cases[-1][0], running) is None


def test_what_no_engine_does_yet_is_named_and_a_matter_of_the_one_request() -> None:
    able = ScriptedEngine(echo).features
    score = ScoreRequest(prompt="x", continuations=("a",))
    cases: list[tuple[Request, str]] = [
        (replace(HELLO, tools=(TOOL,)), "tools"),
        (ChatRequest(messages=(HELLO.messages[0], CALLS)), "tool calls in messages"),
        (ChatRequest(messages=(RESULT,)), "tool calls in messages"),
        (replace(HELLO, role="judge"), "role `judge`"),
        (replace(score, role="judge"), "role `judge`"),
    ]
    for request, missing in cases:
        assert not_built(request, able) == missing
        assert missing_feature(request, able) is None
    later = replace(able, tools=True, roles=frozenset({"agent", "judge"}))
    assert not any(not_built(request, later) for request, _ in cases)
    assert not_built(HELLO, able) is None


def test_a_score_counts_as_text_and_has_a_choice_for_each_continuation() -> None:
    score = ScoreRequest(prompt="x", continuations=("a", "b", "c"))
    assert format_of(score) == "text"
    assert choices_of(score) == 3
    assert choices_of(replace(HELLO, sampling=Sampling(n=4))) == 4


def test_a_command_counts_as_text_and_has_one_choice() -> None:
    command = CommandRequest(argv=("ls", "-l"))
    assert (format_of(command), choices_of(command)) == ("text", 1)
    assert seeded(command, 9).seed == 9


def test_a_message_is_written_without_what_it_does_not_use() -> None:
    assert msgspec.json.encode(HELLO.messages[0]) == b'{"role":"user","content":"hello"}'
    assert b'"tool_calls":[{"id":"1","name":"order"' in msgspec.json.encode(CALLS)


def test_the_text_of_a_reply_is_its_first_choice() -> None:
    reply: Reply = echo(replace(HELLO, sampling=Sampling(n=2), seed=1))
    assert reply.text == reply.choices[0].text
    assert reply.choices[0].text != reply.choices[1].text
