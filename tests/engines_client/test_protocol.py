"""Requests to bodies and answers to replies, without a server."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.engines_client.fake import chats, says
from vendomini.chat import (
    ChatRequest,
    CompletionRequest,
    Message,
    ReplyFormat,
    Sampling,
)
from vendomini.engines.backend import Dialect
from vendomini.engines.habits import Habits
from vendomini.engines.manner import Manner, lesson
from vendomini.engines.protocol import (
    chat_body,
    chat_reply,
    completion_body,
    completion_reply,
)
from vendomini.engines.score import one_token_bodies, prompt_body, prompt_score, scored
from vendomini.engines.template import folded
from vendomini.engines.words import (
    Complaint,
    beginning,
    complaint_in,
    complaint_of,
    error_status,
    is_too_long,
    is_unreadable,
    minds_empty,
    minds_system,
    minds_turns,
    prompt_tokens_in,
    refused_parameter,
)
from vendomini.errors import EngineError, EngineLacks

SYSTEM = Message(role="system", content="be short")
USER = Message(role="user", content="hi")
ASSISTANT = Message(role="assistant", content="yes?")
SCHEMA = ReplyFormat(kind="schema", json_schema='{"type":"object"}')


def chat(**fields: Any) -> ChatRequest:
    return ChatRequest(**{"messages": (SYSTEM, USER), "seed": 5, **fields})


def body_of(request: ChatRequest, dialect: Dialect = "hf") -> dict[str, Any]:
    body: dict[str, Any] = json.loads(chat_body(request, model="m", dialect=dialect))
    return body


def reply_of(
    raw: bytes, request: ChatRequest, *, window: int | None = None, habits: Habits | None = None
) -> Any:
    return chat_reply(raw, request, dialect="vllm", window=window, seconds=0.5, habits=habits)


def test_a_plain_chat_says_only_what_is_asked() -> None:
    assert body_of(chat(sampling=Sampling(max_tokens=9))) == {
        "model": "m",
        "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "hi"}],
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 9,
        "seed": 5,
    }


def test_a_full_chat_names_everything() -> None:
    sampling = Sampling(temperature=0.5, top_p=0.9, n=3, stop=("a", "b"), top_logprobs=4)
    body = body_of(chat(sampling=sampling, reply_format=SCHEMA, thinking="off"), "openai")
    assert body["n"] == 3
    assert body["stop"] == ["a", "b"]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 4)
    assert body["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "schema": {"type": "object"}, "strict": True},
    }


def test_a_models_own_sampling_defaults_reach_no_reply_of_vllm() -> None:
    body = body_of(chat(), "vllm")
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    assert not {"top_k", "min_p", "repetition_penalty"} & set(body_of(chat(), "openai"))


def test_greedy_choices_are_drawn_once_and_given_n_times() -> None:
    request = chat(sampling=Sampling(temperature=0.0, n=3))
    assert "n" not in body_of(request)
    reply = reply_of(chats("yes").body, request)
    assert [choice.text for choice in reply.choices] == ["yes"] * 3
    assert reply.tokens_out == 3


def test_a_completion_counts_its_alternatives_by_logprobs() -> None:
    request = CompletionRequest(prompt="a b", sampling=Sampling(top_logprobs=3))
    body = json.loads(completion_body(request, model="m", dialect="vllm"))
    assert (body["prompt"], body["logprobs"]) == ("a b", 3)
    assert "top_logprobs" not in body


def test_a_reply_has_its_choices_in_order_and_its_tokens() -> None:
    raw = says(
        {
            "choices": [
                {"index": 1, "message": {"content": "b"}, "finish_reason": "length"},
                {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"},
            ],
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 8},
            },
        }
    ).body
    reply = reply_of(raw, chat(sampling=Sampling(n=2, max_tokens=2)))
    assert [(each.text, each.finish_reason) for each in reply.choices] == [
        ("a", "stop"),
        ("b", "length"),
    ]
    assert (reply.tokens_in, reply.tokens_out, reply.tokens_cached) == (10, 4, 8)
    assert (reply.seconds, reply.seed_support) == (0.5, "best_effort")


def test_cached_tokens_that_are_not_told_are_none() -> None:
    raw = chats("a", prompt_tokens_details=None).body
    assert reply_of(raw, chat()).tokens_cached == 0


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}, (10, 4)),
        # Gemini tells thoughts in the total alone, and some gateways have the names of OpenAI's
        # other interface.
        ({"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 34}, (10, 24)),
        ({"input_tokens": 10, "output_tokens": 4}, (10, 4)),
    ],
)
def test_tokens_are_counted_in_each_servers_words(
    usage: dict[str, int], counted: tuple[int, int]
) -> None:
    choices = [{"message": {"content": "a"}, "finish_reason": "stop"}]
    reply = reply_of(says({"choices": choices, "usage": usage}).body, chat())
    assert (reply.tokens_in, reply.tokens_out) == counted


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ("an answer", (None, "an answer")),
        ("<think>hm</think>an answer", ("hm", "an answer")),
        ("hm</think>an answer", ("hm", "an answer")),
        ("[THINK]hm[/THINK]an answer", ("hm", "an answer")),
        (
            "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>a",
            ("hm", "a"),
        ),
        ('{"note": "</think>"}', (None, '{"note": "</think>"}')),
    ],
)
def test_reasoning_in_the_text_is_split_from_the_answer(
    text: str, apart: tuple[str | None, str]
) -> None:
    choice = reply_of(chats(text).body, chat()).choices[0]
    assert (choice.reasoning, choice.text) == apart


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_that_the_server_splits_is_taken_as_it_is(name: str) -> None:
    message = {"content": "\nan answer", name: "hm\n"}
    choices = [{"message": message, "finish_reason": "stop"}]
    raw = says({"choices": choices, "usage": {"prompt_tokens": 1}}).body
    choice = reply_of(raw, chat()).choices[0]
    assert (choice.reasoning, choice.text) == ("hm", "an answer")


@pytest.mark.parametrize(
    "content",
    [
        "more</think>an answer",
        "<|channel|>analysis<|message|>more<|end|><|start|>assistant<|channel|>final<|message|>"
        "an answer",
        "<think>more</think>an answer",
    ],
)
def test_marks_that_a_server_left_in_the_text_are_split_too(content: str) -> None:
    message = {"content": content, "reasoning": "hm"}
    raw = says({"choices": [{"message": message, "finish_reason": "stop"}]}).body
    choice = reply_of(raw, chat()).choices[0]
    assert (choice.text, choice.reasoning) == ("an answer", "hm\n\nmore")


def test_a_reply_that_ended_while_it_thought_is_an_empty_answer() -> None:
    choice = reply_of(chats("<think>hm").body, chat(reply_format=SCHEMA)).choices[0]
    assert (choice.reasoning, choice.text) == ("hm", "")


def test_alternatives_are_the_likeliest_k_wherever_the_drawn_token_stands() -> None:
    request = chat(sampling=Sampling(top_logprobs=2))
    assert body_of(request, "vllm")["top_logprobs"] == 3
    drawn_first = [("z", -9.0), ("a", -0.1), ("b", -0.2)]
    token = {
        "token": "z",
        "logprob": -9.0,
        "top_logprobs": [{"token": text, "logprob": value} for text, value in drawn_first],
    }
    raw = chats("z", logprobs={"content": [token]}).body
    (logprob,) = reply_of(raw, request).choices[0].logprobs
    assert (logprob.token, logprob.logprob) == ("z", -9.0)
    assert logprob.top == (("a", -0.1), ("b", -0.2))


def test_a_completions_logprobs_are_the_same_thing() -> None:
    request = CompletionRequest(prompt="p", sampling=Sampling(top_logprobs=2))
    logprobs = {
        "tokens": ["z"],
        "token_logprobs": [-9.0],
        "top_logprobs": [{"z": -9.0, "b": -0.2, "a": -0.1}],
    }
    choices = [{"text": "z", "finish_reason": "stop", "logprobs": logprobs}]
    raw = says({"choices": choices, "usage": {"prompt_tokens": 1}}).body
    reply = completion_reply(raw, request, dialect="vllm", window=None, seconds=0.0)
    assert reply.choices[0].logprobs is not None
    assert reply.choices[0].logprobs[0].top == (("a", -0.1), ("b", -0.2))


@pytest.mark.parametrize(
    ("raw", "sampling", "words"),
    [
        (chats("a").body, Sampling(n=2), "does not give several choices: asked for 2, it gives 1"),
        (chats("a").body, Sampling(top_logprobs=1), "does not give log-probabilities"),
        (
            chats("a", logprobs={"content": [{"token": "a", "logprob": -1.0}]}).body,
            Sampling(top_logprobs=1),
            "does not give alternatives",
        ),
    ],
)
def test_what_a_server_never_gives_is_named(raw: bytes, sampling: Sampling, words: str) -> None:
    with pytest.raises(EngineLacks, match=words):
        reply_of(raw, chat(sampling=sampling))


def test_what_a_server_has_given_before_is_one_odd_reply() -> None:
    habits = Habits("the server", print)
    request = chat(sampling=Sampling(n=2))
    assert reply_of(chats("a", "b").body, request, habits=habits).choices[1].text == "b"
    assert [each.text for each in reply_of(chats("a").body, request, habits=habits).choices] == [
        "a",
        "",
    ]
    alternative = {"token": "a", "logprob": -1.0}
    given = {"content": [{**alternative, "top_logprobs": [alternative]}]}
    request = chat(sampling=Sampling(top_logprobs=1))
    reply_of(chats("a", logprobs=given).body, request, habits=habits)
    with pytest.raises(EngineError, match="no log-probabilities this time") as caught:
        reply_of(chats("a").body, request, habits=habits)
    assert not isinstance(caught.value, EngineLacks)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (says({"error": {"message": "overloaded"}}).body, "overloaded"),
        (says({"object": "error", "message": "old vLLM"}).body, "old vLLM"),
        (says([{"error": {"message": "Gemini's"}}]).body, "Gemini's"),
        (says("fine!").body, "not what the protocol says"),
        (b"fine!", "no JSON: fine!"),
        (b"\xff\xfe", "no JSON"),
        (b"", "no JSON: nothing"),
    ],
)
def test_an_answer_that_is_none_is_told(raw: bytes, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        reply_of(raw, chat())


def test_one_ended_reply_under_a_schema_that_is_no_json_is_a_reply() -> None:
    reply = reply_of(chats("Sure! {}").body, chat(reply_format=SCHEMA))
    assert reply.text == "Sure! {}"


@pytest.mark.parametrize(
    ("text", "finish", "sampling"),
    [
        ('{"a": 1}', "stop", Sampling()),
        ('{"a": ', "length", Sampling()),  # cut off: the agent's business
        ('{"a": ', "stop", Sampling(stop=("}",))),  # so it was asked for
    ],
)
def test_other_replies_under_a_schema_are_replies(
    text: str, finish: str, sampling: Sampling
) -> None:
    request = chat(reply_format=SCHEMA, sampling=sampling)
    assert reply_of(chats(text, finish=finish).body, request).text == text


def test_a_reply_that_was_shortened_to_fit_the_window_is_a_prompt_too_long() -> None:
    """vLLM shortens without a word; the hf server refuses."""
    request = chat(sampling=Sampling(max_tokens=100))
    raw = chats("a", prompt_tokens=901).body
    reply = reply_of(raw, request, window=1000)
    assert (reply.choices[0].finish_reason, reply.text, reply.tokens_in) == ("context", "", 901)
    fits = chats("a", prompt_tokens=900).body
    assert reply_of(fits, request, window=1000).choices[0].finish_reason == "stop"


VLLM = "This model's maximum context length is 1024 tokens. However, your prompt contains "


@pytest.mark.parametrize(
    ("refusal", "tokens"),
    [
        (VLLM + "at least 1025 input tokens, which exceeds this limit", 1025),
        (VLLM + "83628 characters (which is the upper bound for 1024 input tokens).", 0),
        ("max_tokens=5000 cannot be greater than max_model_len=1024.", 0),
        ("Input length (1030) exceeds model's maximum context length (1024).", 1030),
        (
            "This model's maximum context length is 8192 tokens. However, you requested 9000 "
            "tokens (8000 in the messages, 1000 in the completion).",
            8000,
        ),
        ("Your messages resulted in 9000 tokens. (context_length_exceeded)", 9000),
        (
            "This model's maximum context length is 64 tokens, but the prompt has 70 and 8 new "
            "ones were asked for (context_length)",
            70,
        ),
        # As they stand in each server's source or documentation, or in reports of them.
        ("`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 3500 `inputs` tokens", 3500),
        ("`inputs` must have less than 4095 tokens. Given: 5000", 5000),
        ("request (4476 tokens) exceeds the available context size (4096 tokens), try it", 4476),
        ("the request exceeds the available context size. try increasing the context size", 0),
        ("The input (5000 tokens) is longer than the model's context length (4096 tokens).", 5000),
        (
            "Requested token count exceeds the model's maximum context length of 4096 tokens. You "
            "requested a total of 6000 tokens: 5000 tokens from the input messages and 1000 tokens "
            "for the completion.",
            5000,
        ),
        ("The decoder prompt (length 70) is longer than the maximum model length of 64. M", 70),
        (
            "The input token count (1048577) exceeds the maximum number of tokens allowed (9).",
            1048577,
        ),
        ("prompt token count of 200000 exceeds the limit of 128000", 200000),
        (
            "Input tokens exceed the configured limit of 9 tokens. Your messages resulted in "
            "290000 tokens.",
            290000,
        ),
        ("Your input exceeds the context window of this model. Please adjust your input.", 0),
        ("prompt is too long: 213462 tokens > 200000 maximum", 213462),
        ("input length and `max_tokens` exceed context limit: 190000 + 21333 > 200000", 190000),
        (
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 "
            "maximum context length",
            40000,
        ),
        (
            "This endpoint's maximum context length is 32768 tokens. However, you requested about "
            "40000 tokens (39000 of text input, 1000 in the output).",
            39000,
        ),
        (
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
            537812,
        ),
        ("Please reduce the length of the messages or completion.", 0),
        (
            "Please reduce the length of the messages or completion. Current length is 9000 while "
            "limit is 8192",
            9000,
        ),
        (
            "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received "
            "4143.",
            4143,
        ),
        (
            "Trying to keep the first 6547 tokens when context the overflows. However, the model "
            "is loaded with context length of only 4096 tokens, which is not enough.",
            6547,
        ),
        (
            "The number of tokens to keep from the initial prompt is greater than the context "
            "length (n_keep: 13055>= n_ctx: 4096).",
            13055,
        ),
        ("Context size has been exceeded", 0),
        ("prompt too long; exceeded max context length by 100918 tokens", 0),
        ("Requested tokens (3000) exceed context window of 2048", 3000),
        ("Input length 131393 exceeds the maximum allowed input length of 131040 tokens.", 131393),
        ("Your request exceeded model token limit: 256000 (requested: 300000)", 300000),
        ("Range of input length should be [1, 30720]", 0),
        ("invalid params, context window exceeds limit", 0),
        ("Input is too long for requested model", 0),
        ("model_context_window_exceeded", 0),
        (
            "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens). Use a "
            "shorter input or enable --allow-auto-truncate.",
            160062,
        ),
        (
            "Unable to submit request because the input token count is 1251952 but model only "
            "supports up to 1048576.",
            1251952,
        ),
        ("Prompt exceeds max length", 0),
        ("tokens in request more than max tokens allowed", 0),
        ("prompt tokens (330095) exceed model maximum (278528)", 330095),
        (
            "The sum of prompt length (9351.0), query length (0) should not exceed max_num_tokens "
            "(8192)",
            9351,
        ),
        ("Input token length too long", 0),
        ("The length of tokens in the request is too long", 0),
        ("Request contains 35000 tokens, which exceeds the limit of 32768", 35000),
        ("Your input context is too long", 0),
        ("litellm.ContextWindowExceededError: no", 0),
        (
            "This model's maximum context length is 4097 tokens, however you requested 10351 "
            "tokens (10346 in your prompt; 5 for the completion).",
            10346,
        ),
    ],
)
def test_every_wording_of_a_prompt_too_long_is_understood(refusal: str, tokens: int) -> None:
    assert is_too_long(refusal)
    assert prompt_tokens_in(refusal) == tokens


@pytest.mark.parametrize(
    "refusal",
    [
        "`top_logprobs` must be a positive value or -1.",
        "max_tokens is too large: 5000. This model supports at most 4096 completion tokens, "
        "whereas you provided 5000.",
        "Input validation error: `max_new_tokens` must be <= 4096. Given: 5000",
        "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
        "Too many tokens, please wait before trying again.",
        "Rate limit reached for tokens per minute (TPM): Limit 6000, Requested 7000",
        "Request contains 35000 tokens, which exceeds the limit of 20000 tokens per minute",
        "`max_tokens` must be less than or equal to `8192`",
        "Range of max_tokens should be [1, 2000]",
        "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens",
        "Unrecognized request argument supplied: context_length",
        "The model `m` does not exist",
    ],
)
def test_another_refusal_is_not_a_prompt_too_long(refusal: str) -> None:
    assert not is_too_long(refusal)


@pytest.mark.parametrize(
    ("told", "tokens"),
    [
        ({"error": {"message": "no", "code": "context_length_exceeded"}}, 0),
        (
            {"error": {"message": "no", "type": "exceed_context_size_error", "n_prompt_tokens": 9}},
            9,
        ),
        ({"error": {"message": "no", "param": "input_tokens", "code": 400}}, 0),
        ({"error": {"message": "no", "type": "request_too_large"}}, 0),
        (
            {
                "errors": [
                    {
                        "message": "AiError: " + "no " * 60 + "The estimated number of input and "
                        "maximum output tokens (12000) exceeded this model context window limit "
                        "(8000)."
                    }
                ]
            },
            0,
        ),
        # llama.cpp's, as Ollama hands it on.
        (
            {
                "error": json.dumps(
                    {
                        "error": {
                            "message": "no",
                            "code": 400,
                            "n_prompt_tokens": 8,
                            "type": "exceed_context_size_error",
                        }
                    }
                )
            },
            8,
        ),
        # A provider's, as OpenRouter hands it on.
        (
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {
                        "raw": '{"error": {"message": "prompt is too long: 7 tokens > 5 maximum"}}',
                        "provider_name": "X",
                    },
                }
            },
            7,
        ),
    ],
)
def test_codes_and_types_are_believed_first_wherever_they_stand(told: Any, tokens: int) -> None:
    complaint = complaint_of(json.dumps(told).encode())
    assert is_too_long(complaint)
    assert prompt_tokens_in(complaint) == tokens


@pytest.mark.parametrize(
    ("message", "parameter"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported with this model.", "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0.3 with this model.", "temperature"),
        ("Unrecognized request argument supplied: seed", "seed"),
        ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "seed"),
        ("property 'seed' is unsupported", "seed"),
        ("`temperature` is deprecated for this model.", "temperature"),
        ("`temperature` and `top_p` cannot both be specified for this model.", "top_p"),
        ("max_tokens is too large: 5000. This model supports at most 4096", "max_tokens"),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", "max_tokens"),
        ("This response_format type is unavailable now", "response_format"),
        ("This model does not support response format `json_schema`.", "response_format"),
        ("Input validation error: `top_p` must be > 0.0 and < 1.0", "top_p"),
        ("Input validation error: `max_new_tokens` must be <= 4096. Given: 5000", "max_tokens"),
        ("`max_tokens` must be less than or equal to `8192`", "max_tokens"),
        ("Range of max_tokens should be [1, 2000]", "max_tokens"),
        ("max_tokens: 100000 > 8192, which is the maximum allowed number", "max_tokens"),
        ("invalid temperature: only 1 is allowed for this model", "temperature"),
        ("`temperature` may only be set to 1 when thinking is enabled.", "temperature"),
        ("Input validation error: grammar is not valid: Grammar must have", "response_format"),
        ("JSON Schema not supported: could not understand the instance", "response_format"),
        ("Failed to initialize samplers: failed to parse grammar", "response_format"),
        (
            "The specified schema produces a constraint that has too many states for serving",
            "response_format",
        ),
        ("Unsupported parameter: 'store'", None),
        ("the chat template refused: no system role", None),
    ],
)
def test_the_parameter_that_is_refused_is_known_by_words(
    message: str, parameter: str | None
) -> None:
    assert refused_parameter(Complaint(message)) == parameter


def test_the_parameter_that_is_refused_is_known_by_its_code() -> None:
    told = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "no"}]}
    assert refused_parameter(complaint_of(json.dumps(told).encode())) == "seed"
    assert refused_parameter(Complaint("no", code="unsupported_value", param="top_p")) == "top_p"
    assert refused_parameter(Complaint("no", code="unsupported_value", param="store")) is None
    assert refused_parameter(Complaint("no", code="model_not_found", param="n")) is None
    assert refused_parameter(Complaint("no", param="response_format")) == "response_format"
    mistral = {
        "object": "error",
        "message": {
            "detail": [
                {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "no", "input": 3}
            ]
        },
        "type": "invalid_request_error",
    }
    assert refused_parameter(complaint_of(json.dumps(mistral).encode())) == "seed"


@pytest.mark.parametrize(
    ("minds", "words"),
    [
        (minds_empty, "message content must not be empty"),
        (minds_empty, "content or tool_calls must be set"),
        (minds_empty, "messages: at least one content element is required"),
        (minds_empty, "* GenerateContentRequest.contents.parts must not be empty."),
        (minds_system, "'messages[0].role' does not support 'system' with this model"),
        (minds_system, "Developer instruction is not enabled for models/m"),
        (minds_turns, "it does not support successive user or assistant messages"),
    ],
)
def test_what_a_template_minds_is_known_by_words(minds: Callable[[str], bool], words: str) -> None:
    assert minds(words)


@pytest.mark.parametrize("word", ["x", "unknown "])
def test_a_refusal_of_any_length_is_read_in_no_time(word: str) -> None:
    began = time.process_time()
    complaint = complaint_of((word * (200_000 // len(word))).encode())
    told = complaint_of(json.dumps({"error": {"message": word * 25_000}}).encode())
    for each in (complaint, told):
        assert not is_too_long(each)
        assert not is_unreadable(each)
        assert refused_parameter(each) is None
        assert prompt_tokens_in(each) == 0
    assert time.process_time() - began < 1


def test_a_schema_is_put_in_the_form_that_llama_cpp_for_python_takes() -> None:
    told = complaint_of(
        b"""{"error": {"message": "[{'type': 'literal_error', 'loc': ('body', 'response_format', """
        b"""'type'), 'msg': \\"Input should be 'text' or 'json_object'\\"}]", "code": null}}"""
    )
    schema = '{"type": "object"}'
    request = chat(reply_format=ReplyFormat(kind="schema", json_schema=schema))
    taught = lesson(told, request, Manner(), failed=True)
    assert taught is not None
    manner = taught.learned(Manner())
    body = json.loads(chat_body(request, model="m", dialect="openai", manner=manner))
    assert body["response_format"] == {"type": "json_object", "schema": {"type": "object"}}
    assert lesson(told, chat(), Manner(), failed=True) is None


def test_a_parameter_is_left_out_only_at_the_value_that_needs_no_saying() -> None:
    manner = Manner(left_out=frozenset({"seed", "top_p"}))
    kept, left = (
        json.loads(
            chat_body(
                chat(seed=1, sampling=Sampling(top_p=top_p)),
                model="m",
                dialect="openai",
                manner=manner,
            )
        )
        for top_p in (0.9, 1.0)
    )
    assert (kept["top_p"], "seed" in kept) == (0.9, False)
    assert "top_p" not in left


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"error": {"message": "no", "code": "context_length_exceeded"}}', "no (context_"),
        (b'{"error": "Unauthorized"}', "Unauthorized"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"object": "error", "message": "old vLLM"}', "old vLLM"),
        (b'{"detail": [{"loc": 1}]}', '{"detail"'),
        (b"[]", "[]"),
        (b"<html>\n  busy </html>", "<html> busy </html>"),
        (b"", "nothing"),
    ],
)
def test_a_complaint_is_found_in_every_kind_of_error(content: bytes, words: str) -> None:
    assert complaint_in(content).startswith(words)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b' \n\n{"error": {"message": "no", "code": 429}}', 429),
        (b'{"error": {"message": "no", "code": "some_code"}}', 400),
        (b'{"error": "no"}', 400),
        (b'{"object": "error", "message": "no", "code": 500}', 500),
        (b'{"error": null, "choices": [{}]}', None),
        (b'{"error": null}', None),
    ],
)
def test_an_error_that_came_with_status_200_is_one(content: bytes, status: int | None) -> None:
    assert error_status(content, other=400) == status


def test_a_long_page_is_shown_by_its_beginning() -> None:
    assert len(beginning(b"word " * 1000)) == 120


def test_system_messages_lead_the_next_user_message() -> None:
    assert [message.content for message in folded((SYSTEM, USER, ASSISTANT, USER))] == [
        "be short\n\nhi",
        "yes?",
        "hi",
    ]
    late = folded((USER, ASSISTANT, SYSTEM, USER))
    assert [message.content for message in late] == ["hi", "yes?", "be short\n\nhi"]
    assert folded((SYSTEM,)) == (Message(role="user", content="be short"),)
    assert folded((USER, ASSISTANT)) == (USER, ASSISTANT)


def test_one_completion_tells_continuations_of_one_token() -> None:
    prompt = (1, 2)
    parts = [scored(prompt, (1, 2, token)) for token in (7, 8, 7)]
    bodies = one_token_bodies(prompt, parts, model="m")
    assert bodies is not None
    (body,) = (json.loads(each) for each in bodies)
    assert (body["prompt"], body["max_tokens"]) == ([1, 2], 1)
    assert body["logprob_token_ids"] == [7, 8]


def test_more_tokens_than_vllm_takes_at_once_are_told_in_parts() -> None:
    parts = [scored((1,), (1, 2000 + place)) for place in range(300)]
    bodies = one_token_bodies((1,), parts, model="m")
    assert bodies is not None
    asked = [json.loads(each)["logprob_token_ids"] for each in bodies]
    assert max(map(len, asked)) <= 128
    assert [token for part in asked for token in part] == [2000 + place for place in range(300)]


@pytest.mark.parametrize("whole", [(1, 2, 3, 4), (1, 9), (1, 2), (1, 9, 9)])
def test_other_continuations_are_not_told_by_one_token(whole: tuple[int, ...]) -> None:
    assert one_token_bodies((1, 2), [scored((1, 2), whole)], model="m") is None


def test_a_token_over_the_boundary_is_scored_from_the_first_that_differs() -> None:
    part = scored((1, 2, 3), (1, 2, 9, 4))
    assert json.loads(prompt_body(part, model="m"))["prompt"] == [1, 2, 9, 4]
    told = [None, {"2": {"logprob": -1}}, {"9": {"logprob": -2}}, {"4": {"logprob": -4}}]
    raw = says({"choices": [{"prompt_logprobs": told}], "usage": {"prompt_tokens": 4}}).body
    assert prompt_score(raw, part)[0] == -6


def test_the_first_token_of_all_has_no_score() -> None:
    with pytest.raises(EngineError, match="needs a token before"):
        scored((), (5,))


def test_a_server_without_prompt_logprobs_is_named() -> None:
    raw = says({"choices": [{"text": "x"}], "usage": {"prompt_tokens": 4}}).body
    with pytest.raises(EngineError, match="does not give scores"):
        prompt_score(raw, scored((1,), (1, 2)))
