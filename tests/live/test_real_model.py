"""What a model of random weights cannot show: readable text, stop tokens, a real template, and
conversations of thousands of tokens. SmolLM2 with 135 million parameters, on the hf engine.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.engines import Live, spec_for
from vendomini.chat import ChatRequest, Message, ReplyFormat, Sampling

WINDOW = 8192
CACHE_BYTES = 1 << 30  # 23,302 tokens
HELPFUL = Message(role="system", content="You are a helpful assistant.")
CAPITAL = Message(role="user", content="What is the capital of France?")
CALL = {
    "type": "object",
    "properties": {
        "tool": {"enum": ["tool_wait", "tool_order"]},
        "quantity": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["tool", "quantity"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def real(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    spec = spec_for(
        "hf",
        smollm2,
        max_model_len=WINDOW,
        kv_cache_memory_bytes=CACHE_BYTES,
        request_timeout_s=600.0,
    )
    with Live(spec, tmp_path_factory.mktemp("real")) as opened:
        yield opened


def chat(*messages: Message, max_tokens: int = 40, **changes: Any) -> ChatRequest:
    sampling = Sampling(temperature=0.0, max_tokens=max_tokens)
    return ChatRequest(messages=messages, sampling=sampling, seed=1, **changes)


def talk(turns: int) -> tuple[Message, ...]:
    """A conversation of so many days, of 77 tokens each, and a last question."""
    days = []
    for day in range(turns):
        news = f"Day {day}. Inbox: {day % 7} messages. " + "The supplier delivered boxes. " * 8
        days += [
            Message(role="user", content=news),
            Message(role="assistant", content='{"tool": "tool_wait", "args": {}}'),
        ]
    return (HELPFUL, *days, CAPITAL)


def test_a_reply_is_readable_and_ends_where_the_model_ends_it(real: Live) -> None:
    reply = real.ask(chat(HELPFUL, CAPITAL))
    (choice,) = reply.choices
    assert choice.text == "The capital of France is Paris."
    assert choice.finish_reason == "stop"
    assert reply.tokens_out == 8  # the token that ends it is counted, and is no text


def test_a_model_is_asked_by_its_own_template(real: Live, smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for messages in ((CAPITAL,), (HELPFUL, CAPITAL), talk(2)):
        rendered = tokenizer.apply_chat_template(
            [{"role": each.role, "content": each.content} for each in messages],
            add_generation_prompt=True,
            tokenize=False,
        )
        assert rendered.startswith("<|im_start|>system\n")  # its template writes one of its own
        assert rendered.endswith("<|im_start|>assistant\n")
        asked = real.ask(chat(*messages, max_tokens=1))
        assert asked.tokens_in == len(tokenizer(rendered)["input_ids"])


@pytest.mark.long
def test_a_conversation_of_thousands_of_tokens_is_still_answered_with_sense(real: Live) -> None:
    reply = real.ask(chat(*talk(79), max_tokens=12))
    assert 6000 < reply.tokens_in < WINDOW
    assert "Paris" in reply.text


def test_a_conversation_beyond_the_window_ends_for_its_context(real: Live) -> None:
    reply = real.ask(chat(*talk(120), max_tokens=12))
    assert reply.choices[0].finish_reason == "context"


def test_replies_held_to_a_schema_can_be_read(real: Live) -> None:
    format = ReplyFormat(kind="schema", json_schema=json.dumps(CALL))
    news = Message(role="user", content="There are 12 boxes to order. Call a tool.")
    requests = [
        ChatRequest(
            messages=(HELPFUL, news),
            sampling=Sampling(temperature=1.0, max_tokens=60),
            reply_format=format,
            seed=seed,
        )
        for seed in range(4)
    ]
    for reply in real.ask_all([*requests]):
        found = json.loads(reply.text)
        assert found["tool"] in ("tool_wait", "tool_order")
        assert 0 <= found["quantity"] <= 99
