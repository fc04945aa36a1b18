"""Servers with troubles as they were reported, played by a worker with the warehouse's agent.

A test of one of the cases that were collected from other projects' reports names it (40: see
`tests/test_engine_cause.py`).
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines_client.fake import Said, Script, refuses, says
from tests.engines_client.phase import CALL, Played, completion, every, play
from vendomini.engines.words import is_too_long, prompt_tokens_in

FINE = says(completion())
DRAFT = 'maybe {"tool": "tool_x", "args": {}}'
TEXT = ("agent.interface.reply_format=text",)


def assert_all_done(played: Played, runs: int = 2) -> None:
    assert played.errors == []
    assert (played.ended.runs, played.ended.exit_status) == (runs, 0)


# -- 41: replies without text, choices, a known end, counts ----------------------------------------


ODD = {
    "content null": completion(None),
    "content empty": completion(""),
    "no choices": {"id": "x", "choices": [], "usage": {"prompt_tokens": 1}},
    "choices null": {"id": "x", "choices": None},
    "nothing": {},
    "message null": {"choices": [{"index": 0, "message": None, "finish_reason": "stop"}]},
    "filtered": completion("", "content_filter"),
    "a call of a tool": completion(
        None,
        "tool_calls",
        tool_calls=[
            {
                "id": "c1",
                "type": "function",
                "function": {"name": "tool_wait", "arguments": '{"days": 1}'},
            }
        ],
    ),
    "an old call": completion(
        None, "function_call", function_call={"name": "tool_wait", "arguments": "not JSON"}
    ),
    "a refusal": completion(None, refusal="I cannot help with that."),
    "a number": completion(7),
    "an image": completion([{"type": "image_url", "image_url": {"url": "x"}}]),
    "prose": completion("Let me look at the inbox."),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("reply_format", ["schema", "text"])
def test_an_odd_reply_is_asked_again_like_any_other(
    tmp_path: Path, odd: dict[str, Any], reply_format: str
) -> None:
    """Case 41."""
    overrides = [f"agent.interface.reply_format={reply_format}"]
    played = play(tmp_path, every(7, says(odd), FINE), overrides=overrides)
    assert_all_done(played)
    # Of 30 days one in six or so began with an odd reply, which was asked again.
    assert played.total("re_asks") >= 4
    assert played.total("format_failures") == 0
    assert len(played.bodies) == 30 + played.total("re_asks")


def test_a_reply_without_text_is_a_format_failure_where_asking_again_does_not_help(
    tmp_path: Path,
) -> None:
    """Case 41: the reply depends on the conversation, so that it comes again."""
    seen: dict[str, int] = {}

    def sticky(body: Any) -> Said:
        days = sum(message["role"] == "user" for message in body["messages"])
        seen.setdefault(json.dumps(body["messages"]), days)
        return says(completion(None)) if days % 9 == 8 or days in (9, 10) else FINE

    played = play(tmp_path, sticky, overrides=TEXT)
    assert_all_done(played)
    assert played.total("format_failures") >= 2
    assert played.total("re_asks") >= 4


GIVES = {
    "no end": completion(finish=None),
    "an end of TGI's": completion(finish="eos_token"),
    "an end of Anthropic's": completion(finish="end_turn"),
    "an end unheard of": completion(finish="because"),
    "an end of tools": completion(finish="tool_calls"),
    "no counts": {name: value for name, value in completion().items() if name != "usage"},
    "counts null": {**completion(), "usage": None},
    "counts as texts": {**completion(), "usage": {"prompt_tokens": "10", "completion_tokens": "5"}},
    "parts": completion([{"type": "text", "text": CALL}]),
    "parts that are texts": completion([CALL[:10], CALL[10:]]),
    "parts with thoughts": completion(
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": DRAFT}]},
            {"type": "text", "text": CALL},
        ]
    ),
    "no index": {"choices": [{"message": {"content": CALL}, "finish_reason": "stop"}]},
    "a text in place of a message": {"choices": [{"text": CALL, "finish_reason": "stop"}]},
    "an index of another type": {
        "choices": [{"index": "0", "message": {"content": CALL}, "finish_reason": "stop"}]
    },
    "an object in place of its text": completion(json.loads(CALL)),
}


@pytest.mark.parametrize("given", GIVES.values(), ids=GIVES.keys())
def test_a_reply_in_another_form_is_read(tmp_path: Path, given: dict[str, Any]) -> None:
    """Case 41."""
    played = play(tmp_path, says(given))
    assert_all_done(played)
    assert played.total("re_asks") == 0
    assert {reply.text for reply in played.replies} <= {CALL, json.dumps(json.loads(CALL))}


def test_text_round_json_is_read_where_no_schema_is_asked_for(tmp_path: Path) -> None:
    """Case 41."""
    played = play(tmp_path, says(completion(f"Sure!\n```json\n{CALL}\n```")), overrides=TEXT)
    assert_all_done(played)
    assert played.total("re_asks") == 0


@pytest.mark.parametrize(
    ("gives", "asked"),
    [(f"Sure!\n```json\n{CALL}\n```", 4), (None, 21)],
    ids=["fence", "null"],
)
def test_a_server_that_never_keeps_a_schema_ends_the_worker_before_runs_are_spent(
    tmp_path: Path, gives: str | None, asked: int
) -> None:
    """Case 41: what one odd reply does not show, the first three do, or 20 empty ones."""
    played = play(tmp_path, says(completion(gives)))
    assert (played.ended.runs, played.ended.exit_status) == (0, 3)
    assert played.errors == []
    assert len(played.bodies) <= asked
    assert played.ended.problem is not None
    assert "s.sock` does not constrain its replies" in played.ended.problem
    assert "use reply_format `text`" in played.ended.problem


# -- thoughts ------------------------------------------------------------------------------


SPLIT = {
    "harmony": f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final"
    f"<|message|>{CALL}",
    "harmony without its marks": f"analysisMaybe {DRAFT}assistantfinal{CALL}",
    "Magistral": f"[THINK]{DRAFT}[/THINK]{CALL}",
    "DeepSeek": f"<think>{DRAFT}</think>\n{CALL}",
    "DeepSeek, opened": f"{DRAFT}</think>\n{CALL}",
    "Seed": f"<seed:think>{DRAFT}</seed:think>{CALL}",
}


@pytest.mark.parametrize("text", SPLIT.values(), ids=SPLIT.keys())
def test_thoughts_are_no_part_of_a_reply(tmp_path: Path, text: str) -> None:
    """Each kind of model's words, and a draft of a call within the thought."""
    played = play(tmp_path, says(completion(text)), runs=1, steps=5)
    assert_all_done(played, runs=1)
    assert played.total("re_asks") == 0
    for reply in played.replies:
        assert reply.text == CALL
        assert DRAFT in (reply.choices[0].reasoning or "")
    assert not any(DRAFT in json.dumps(body).replace("\\", "") for body in played.bodies)


@pytest.mark.parametrize(
    "message",
    [
        {"reasoning": DRAFT},
        {"reasoning_content": DRAFT},
        {"reasoning": [{"type": "text", "text": DRAFT}]},
        {"reasoning": {"content": DRAFT}},
        {"reasoning_details": [{"type": "reasoning.text", "text": DRAFT}]},
        {"reasoning": None, "reasoning_content": DRAFT},
    ],
)
def test_thoughts_in_a_field_of_their_own_are_kept(tmp_path: Path, message: dict[str, Any]) -> None:
    played = play(tmp_path, says(completion(CALL, **message)), runs=1, steps=3)
    assert_all_done(played, runs=1)
    assert {reply.choices[0].reasoning for reply in played.replies} == {DRAFT}


def test_a_mark_within_a_text_of_the_answer_cuts_nothing(tmp_path: Path) -> None:
    said = json.dumps({"tool": "tool_check_inbox", "args": {"note": "</think> [/THINK]"}})
    played = play(tmp_path, says(completion(said)), runs=1, steps=3)
    assert_all_done(played, runs=1)
    assert {reply.text for reply in played.replies} == {said}
    assert {reply.choices[0].reasoning for reply in played.replies} == {None}


# -- 43: too long ----------------------------------------------------------------------------------


TOO_LONG = {
    "TGI": (
        says(
            {
                "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= "
                "4096. Given: 3500 `inputs` tokens and 2000 `max_new_tokens`",
                "error_type": "validation",
            },
            422,
        ),
        3500,
    ),
    "llama.cpp": (
        says(
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the limit",
                    "type": "exceed_context_size_error",
                    "n_prompt_tokens": 4476,
                    "n_ctx": 4096,
                }
            },
            400,
        ),
        4476,
    ),
    "gpt-5": (
        refuses(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted "
            "in 290000 tokens.",
            code="context_length_exceeded",
        ),
        290000,
    ),
    "a status of 413": (refuses("prompt is too long: 7 tokens > 5 maximum", 413), 7),
    "a status of 500": (
        refuses("Requested tokens (3000) exceed context window of 2048", 500),
        3000,
    ),
    "a status of 200": (
        refuses(
            "This endpoint's maximum context length is 5 tokens. However, you requested about "
            "9 tokens (8 of text input, 1 in the output).",
            200,
            code=400,
        ),
        8,
    ),
}


@pytest.mark.parametrize(("refusal", "tokens"), TOO_LONG.values(), ids=TOO_LONG.keys())
def test_a_conversation_that_is_too_long_is_shortened(
    tmp_path: Path, refusal: Said, tokens: int
) -> None:
    """Case 43."""
    played = play(tmp_path, lambda body: refusal if len(body["messages"]) > 6 else FINE)
    assert_all_done(played)
    refused = [each for each in played.replies if each.choices[0].finish_reason == "context"]
    assert refused
    assert {reply.tokens_in for reply in refused} == {tokens}


REFUSALS = """\
`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 3500 `inputs` tokens and 2000 `max_new_tokens`
`inputs` must have less than 4095 tokens. Given: 5000
The input token count (1048577) exceeds the maximum number of tokens allowed (1048576).
Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 290000 tokens.
"""  # noqa: E501


def test_the_reported_refusals_are_understood() -> None:
    """Case 43."""
    lines = REFUSALS.splitlines()
    assert all(map(is_too_long, lines))
    assert [prompt_tokens_in(line) for line in lines] == [3500, 5000, 1048577, 290000]


# -- 45: cut while it thinks -----------------------------------------------------------------------


def test_a_reply_that_was_cut_while_it_thought_is_empty_and_its_thought_kept(
    tmp_path: Path,
) -> None:
    """Case 45: no verdict on the server, whose schema applies behind the thoughts."""
    played = play(tmp_path, says(completion(None, "length", reasoning="I think and")))
    assert_all_done(played)
    assert {reply.choices[0].reasoning for reply in played.replies} == {"I think and"}
    assert {reply.choices[0].finish_reason for reply in played.replies} == {"length"}
    assert played.total("format_failures") == 30


# -- servers that load -------------------------------------------------------------------------


def test_a_server_that_loads_is_waited_for_before_runs_are_claimed(tmp_path: Path) -> None:
    loads = says({"error": {"message": "Loading model", "type": "unavailable_error"}}, 503)
    script: dict[str, Script] = {
        "/v1/models": [loads, loads, says({"data": []}), says({"data": [{"id": "m"}]})]
    }
    played = play(tmp_path, FINE, runs=1, steps=3, script=script)
    assert_all_done(played, runs=1)
    waited = [line for line in played.said if line.startswith("waits for")]
    assert len(waited) == 2
    assert "it answers 503, Loading model" in waited[0]
    assert "it serves no model yet" in waited[1]


# -- 47: what a model refuses ----------------------------------------------------------------------


def unsupported(parameter: str, words: str, code: str = "unsupported_parameter") -> Said:
    """As OpenAI refuses."""
    return says(
        {
            "error": {
                "message": words,
                "type": "invalid_request_error",
                "param": parameter,
                "code": code,
            }
        },
        400,
    )


MAX_TOKENS = unsupported(
    "max_tokens",
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead.",
)
TEMPERATURE = unsupported(
    "temperature",
    "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) "
    "value is supported.",
    "unsupported_value",
)


def test_max_tokens_are_asked_for_in_the_words_that_the_model_takes(tmp_path: Path) -> None:
    """Case 47."""
    played = play(tmp_path, lambda body: MAX_TOKENS if "max_tokens" in body else FINE)
    assert_all_done(played)
    refused = [body for body in played.bodies if "max_tokens" in body]
    assert 1 <= len(refused) <= 2  # of each run that began before the first refusal came
    assert {body["max_completion_tokens"] for body in played.bodies if body not in refused} == {
        2000
    }
    assert sum("`max_completion_tokens`" in line for line in played.said) == 1


def test_a_temperature_that_the_model_draws_at_anyhow_is_left_out(tmp_path: Path) -> None:
    """Case 47."""
    played = play(
        tmp_path,
        lambda body: TEMPERATURE if "temperature" in body else FINE,
        overrides=["agent.model.temperature=1"],
    )
    assert_all_done(played)
    assert sum("temperature" in body for body in played.bodies) <= 2


@pytest.mark.parametrize(
    ("refusal", "setting", "fits"),
    [
        (TEMPERATURE, "`agent.model.temperature` 0.3", "to 1"),
        (
            unsupported(
                "max_tokens",
                "max_tokens is too large: 2000. This model supports at most 1024 completion tokens",
                "invalid_value",
            ),
            "`agent.model.max_tokens_per_call` 2000",
            "lower",
        ),
        (
            unsupported(
                "response_format",
                "Invalid parameter: 'response_format' of type "
                "'json_schema' is not supported with this model.",
                "",
            ),
            "reply_format `schema`",
            "reply_format `text`",
        ),
    ],
)
def test_what_cannot_be_put_otherwise_is_one_early_error_that_names_the_setting(
    tmp_path: Path, refusal: Said, setting: str, fits: str
) -> None:
    """Case 47."""
    played = play(tmp_path, refusal, overrides=["agent.model.temperature=0.3"])
    assert (played.ended.runs, played.ended.exit_status) == (0, 3)
    assert played.errors == []
    assert len(played.bodies) <= 2
    assert played.ended.problem is not None
    assert f"the server does not take {setting}" in played.ended.problem
    assert fits in played.ended.problem


def test_a_seed_that_is_refused_is_left_out_and_its_replies_say_so(tmp_path: Path) -> None:
    """Case 47."""
    refusal = refuses("property 'seed' is unsupported")
    played = play(tmp_path, lambda body: refusal if "seed" in body else FINE, runs=1, steps=3)
    assert_all_done(played, runs=1)
    assert {reply.seed_support for reply in played.replies} == {"none"}


def in_turn(body: Any) -> bool:
    roles = [message["role"] for message in body["messages"]]
    return roles == [("user", "assistant")[place % 2] for place in range(len(roles))]


def test_a_template_that_wants_turns_gets_turns(tmp_path: Path) -> None:
    refusal = refuses(
        "After the optional system message, conversation roles must alternate user and assistant "
        "roles except for tool calls and results."
    )
    played = play(tmp_path, lambda body: FINE if in_turn(body) else refusal)
    assert_all_done(played)


def test_a_server_that_takes_no_empty_message_is_told_that_it_was_empty(tmp_path: Path) -> None:
    refusal = refuses("Assistant message must have either content or tool_calls, but not none.")
    fine = every(5, says(completion(None)), FINE)

    def strict(body: Any) -> Said:
        is_empty = any(not message["content"] for message in body["messages"])
        said: Said = refusal if is_empty else fine(body)
        return said

    played = play(tmp_path, strict)
    assert_all_done(played)
    assert played.total("re_asks") >= 4
