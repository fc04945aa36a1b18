"""Requests, replies, and what an episode is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendomini.chat import (
    ChatRequest,
    CompletionRequest,
    EngineFeatures,
    Episode,
    Message,
    Reply,
    ReplyFormat,
    Request,
    Sampling,
    ScoreRequest,
    ask,
    ask_all,
    choices_of,
    format_of,
    kind_of,
    missing_feature,
    request_hash,
    request_seed,
    sample_seed,
    seeded,
)
from vendomini.engines.scripted import ScriptedEngine, echo

HELLO = ChatRequest(messages=(Message(role="user", content="hello"),))


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
    ]
    assert request_hash(same) == request_hash(HELLO)
    assert len({request_hash(request) for request in variants}) == len(variants)


def test_a_hash_is_the_same_in_every_version_of_the_program() -> None:
    # Reply logs outlive programs: these names may change only with REQUEST_VERSION.
    assert request_hash(HELLO) == "95f3f9a49c201ed7de6a7c1b5e775c2d"
    assert request_hash(CompletionRequest(prompt="x", seed=3)) == "c2962d9ee46db76257556bf5aa8adcf0"


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
    ]
    for request, features, missing in cases:
        assert missing_feature(request, features) == missing


def test_a_score_counts_as_text_and_has_a_choice_for_each_continuation() -> None:
    score = ScoreRequest(prompt="x", continuations=("a", "b", "c"))
    assert format_of(score) == "text"
    assert choices_of(score) == 3
    assert choices_of(replace(HELLO, sampling=Sampling(n=4))) == 4


def test_the_text_of_a_reply_is_its_first_choice() -> None:
    reply: Reply = echo(replace(HELLO, sampling=Sampling(n=2), seed=1))
    assert reply.text == reply.choices[0].text
    assert reply.choices[0].text != reply.choices[1].text
