"""The hf server as a process on a Unix socket: what it answers, and how it ends."""

import asyncio
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import transformers

from tests.engines.hf_serving import Ask, Serving, serve, value_of
from tests.tiny_models import tiny_model

WINDOW_TOKENS = 1024


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    base = tmp_path_factory.mktemp("hf")
    folder = tiny_model(base / "tiny", "qwen3", template="reasoning")
    found = serve(
        folder, base / "s", base / "log", "--max-model-len", str(WINDOW_TOKENS), "--device", "cpu"
    )
    yield found
    found.process.send_signal(signal.SIGINT)
    assert found.process.wait(30) == 0


@pytest.fixture(scope="module")
def direct(serving: Serving) -> tuple[Any, Any]:
    """The same model and tokenizer in this process."""
    model = transformers.AutoModelForCausalLM.from_pretrained(serving.folder)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(serving.folder)


def logprobs_of(model: Any, ids: list[int]) -> Any:
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0].log_softmax(-1)


PROMPTS = [f"Order {'boxes ' * k}from supplier {k}, day" for k in range(16)]


def test_a_batch_of_greedy_prompts_equals_one_by_one(serving: Serving) -> None:
    def body(prompt: str) -> dict[str, Any]:
        return {"prompt": prompt, "temperature": 0, "max_tokens": 16, "ignore_eos": True}

    async def together(ask: Ask) -> Any:
        before = value_of(await ask("/metrics"), "passes_total")
        replies = await asyncio.gather(*(ask("/v1/completions", **body(p)) for p in PROMPTS))
        return replies, value_of(await ask("/metrics"), "passes_total") - before

    async def one_by_one(ask: Ask) -> Any:
        return [await ask("/v1/completions", **body(prompt)) for prompt in PROMPTS]

    batched, passes = serving.talk(together)
    alone = serving.talk(one_by_one)
    texts = [[reply["choices"][0]["text"] for reply in replies] for replies in (batched, alone)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 1
    assert passes < 16 * len(PROMPTS) / 2
    assert all(reply["usage"]["completion_tokens"] == 16 for reply in batched)


def test_a_seed_gives_the_same_reply_alone_and_in_a_crowd(serving: Serving) -> None:
    def body(seed: int) -> dict[str, Any]:
        return {"prompt": PROMPTS[seed % 16], "temperature": 1, "seed": seed, "max_tokens": 20}

    async def crowd(ask: Ask) -> Any:
        return await asyncio.gather(
            *(ask("/v1/completions", **body(seed), top_p=1 - seed % 3 / 10) for seed in range(32))
        )

    replies = serving.talk(crowd)
    for seed in (5, 21):
        alone = serving.ask("/v1/completions", **body(seed), top_p=1 - seed % 3 / 10)
        assert alone["choices"] == replies[seed]["choices"]
    assert replies[5]["choices"] != replies[21]["choices"]


def test_choice_i_of_n_is_drawn_with_the_seed_plus_i(serving: Serving) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 12}
    several = serving.ask("/v1/chat/completions", **body, seed=40, n=3)["choices"]
    assert [choice["index"] for choice in several] == [0, 1, 2]
    for sample in range(3):
        (one,) = serving.ask("/v1/chat/completions", **body, seed=40 + sample)["choices"]
        assert one["message"] == several[sample]["message"]
    assert len({choice["message"]["content"] for choice in several}) == 3


def test_a_reply_ends_before_its_stop_string(serving: Serving) -> None:
    body: dict[str, Any] = {
        "prompt": PROMPTS[3],
        "temperature": 0,
        "max_tokens": 40,
        "ignore_eos": True,
    }
    whole = serving.ask("/v1/completions", **body)
    text = whole["choices"][0]["text"]
    assert whole["choices"][0]["finish_reason"] == "length"
    stop = text[len(text) // 2 :][:3]
    found = serving.ask("/v1/completions", **body, stop=["never this", stop])
    assert found["choices"][0]["finish_reason"] == "stop"
    assert found["choices"][0]["text"] == text[: text.index(stop)]
    assert found["usage"]["completion_tokens"] < 40


def test_a_reply_ends_at_the_models_end_token(serving: Serving, direct: tuple[Any, Any]) -> None:
    schema = {"type": "object", "properties": {"day": {"type": "boolean"}}, "required": ["day"]}
    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    found = serving.ask(
        "/v1/completions", prompt="x", max_tokens=40, seed=1, response_format=form, logprobs=0
    )
    tokens = found["choices"][0]["logprobs"]["tokens"]
    assert tokens[-1] == direct[1].eos_token
    assert found["usage"]["completion_tokens"] == len(tokens)
    assert "".join(tokens[:-1]) == found["choices"][0]["text"]


def test_schema_replies_fit_their_schemas_also_side_by_side(serving: Serving) -> None:
    schemas: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": {"tool": {"enum": [f"tool_{k}", "none"]}, "ok": {"type": "boolean"}},
            "required": ["tool", "ok"],
        }
        for k in range(8)
    ]

    async def conversation(ask: Ask) -> Any:
        return await asyncio.gather(
            *(
                ask(
                    "/v1/chat/completions",
                    messages=[{"role": "user", "content": "go"}],
                    seed=k,
                    max_tokens=80,
                    response_format={
                        "type": "json_schema",
                        "json_schema": {"name": "reply", "schema": schema, "strict": True},
                    },
                )
                for k, schema in enumerate(schemas)
            )
        )

    for k, reply in enumerate(serving.talk(conversation)):
        (choice,) = reply["choices"]
        said = msgspec.json.decode(choice["message"]["content"])
        assert choice["finish_reason"] == "stop"
        assert said["tool"] in (f"tool_{k}", "none")
        assert isinstance(said["ok"], bool)


def test_logprobs_are_those_of_a_direct_forward_pass(
    serving: Serving, direct: tuple[Any, Any]
) -> None:
    model, tokenizer = direct
    named = [9, 10, 11]
    messages = [{"role": "user", "content": PROMPTS[4]}]
    drawing = {"temperature": 0.7, "top_p": 0.9, "seed": 4, "max_tokens": 6, "ignore_eos": True}

    async def conversation(ask: Ask) -> Any:
        body = {"messages": messages, **drawing, "logprobs": True, "top_logprobs": 20}
        return await asyncio.gather(
            ask("/tokenize", messages=messages),
            ask("/v1/chat/completions", **body),
            ask("/v1/chat/completions", **body, logprob_token_ids=named),
            ask("/v1/completions", prompt=PROMPTS[9], max_tokens=9),
        )

    prompt, likeliest, chosen, _ = serving.talk(conversation)
    ids = prompt["tokens"]
    for step in range(6):
        expected = logprobs_of(model, ids)[-1]
        found = likeliest["choices"][0]["logprobs"]["content"][step]
        token = int((expected - found["logprob"]).abs().argmin())
        others = sorted((top["logprob"] for top in found["top_logprobs"]), reverse=True)
        best = expected.topk(20).values.tolist()
        assert found["logprob"] == pytest.approx(float(expected[token]), abs=1e-4)
        assert others[:19] == pytest.approx(best[:19], abs=1e-4)
        own, *of_named = chosen["choices"][0]["logprobs"]["content"][step]["top_logprobs"]
        assert own["logprob"] == pytest.approx(found["logprob"], abs=1e-4)
        assert [top["token"] for top in of_named] == [tokenizer.decode([name]) for name in named]
        assert [top["logprob"] for top in of_named] == pytest.approx(
            expected[named].tolist(), abs=1e-4
        )
        ids.append(token)


def test_scores_are_those_of_a_direct_forward_pass(
    serving: Serving, direct: tuple[Any, Any]
) -> None:
    model, tokenizer = direct

    async def conversation(ask: Ask) -> Any:
        return await asyncio.gather(
            *(
                ask("/v1/completions", prompt=p, prompt_logprobs=1, max_tokens=1, temperature=0)
                for p in PROMPTS
            )
        )

    for prompt, reply in zip(PROMPTS, serving.talk(conversation), strict=True):
        ids = tokenizer(prompt)["input_ids"]
        expected = logprobs_of(model, ids)
        first, *others = reply["choices"][0]["prompt_logprobs"]
        assert first is None
        assert len(others) == len(ids) - 1
        for place, entry in enumerate(others):
            own = entry[str(ids[place + 1])]
            assert own["logprob"] == pytest.approx(float(expected[place, ids[place + 1]]), abs=1e-4)
            assert own["rank"] == int((expected[place] > expected[place, ids[place + 1]]).sum()) + 1
            assert str(int(expected[place].argmax())) in entry
        assert reply["usage"]["completion_tokens"] == 1


def test_it_answers_while_it_generates_and_drops_a_request_whose_client_has_gone(
    serving: Serving,
) -> None:
    async def conversation(ask: Ask) -> None:
        long = {"prompt": "x", "max_tokens": 900, "ignore_eos": True}
        running = asyncio.create_task(ask("/v1/completions", **long, seed=1))
        while value_of(await ask("/metrics"), "num_requests_running") != 1:
            pass
        beside = asyncio.create_task(ask("/v1/completions", **long, seed=2))
        while value_of(await ask("/metrics"), "num_requests_running") != 2:
            pass
        assert (await ask("/health"))[0] == 200
        assert (await ask("/tokenize", prompt="hello"))["count"] > 0
        assert not running.done()
        beside.cancel()
        while value_of(await ask("/metrics"), "num_requests_running") != 1:
            pass
        running.cancel()
        while value_of(await ask("/metrics"), "num_requests_running") != 0:
            pass
        made = value_of(await ask("/metrics"), "generation_tokens_total")
        await ask("/v1/completions", prompt="x", max_tokens=1)
        after = value_of(await ask("/metrics"), "generation_tokens_total")
        assert after == made + 1

    serving.talk(conversation)


def test_tokenize_counts_what_a_chat_will_take(serving: Serving) -> None:
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
    off: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
    for arguments in ({}, off):
        counted = serving.ask("/tokenize", **chat, **arguments)
        asked = serving.ask("/v1/chat/completions", **chat, **arguments, max_tokens=1)
        assert counted["count"] == len(counted["tokens"]) == asked["usage"]["prompt_tokens"]
        assert counted["max_model_len"] == WINDOW_TOKENS


def test_models_and_metrics_tell_what_is_served(serving: Serving) -> None:
    (model,) = serving.ask("/v1/models")["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny", WINDOW_TOKENS)
    _, metrics = serving.ask("/metrics")
    (line,) = [x for x in metrics.splitlines() if x.startswith("vendomini:cache_config_info{")]
    tokens = line.partition('kv_cache_size_tokens="')[2].partition('"')[0]
    assert int(tokens) >= WINDOW_TOKENS


def test_a_wrong_key_opens_nothing_but_health(serving: Serving) -> None:
    assert serving.ask("/health", key="wrong")[0] == 200
    for path in ("/v1/models", "/metrics"):
        assert serving.ask(path, key="wrong")[0] == 401
    assert serving.ask("/v1/completions", key="wrong", prompt="x")[0] == 401


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"prompt": "x", "max_tokens": 2000}, 400, "maximum context length is 1024"),
        ({"prompt": [1] * 1024, "max_tokens": 1}, 400, "maximum context length is 1024"),
        ({"prompt": "x", "model": "other"}, 404, "`other`"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": [10**6]}, 400, "1000000"),
        ({"prompt": "x", "temperature": -1}, 400, "temperature"),
        ({"prompt": "x", "max_tokens": 0}, 400, "max_tokens"),
        ({"prompt": "x", "top_k": 5}, 400, "`top_k`"),
        ({"prompt": "x", "stream": True}, 400, "`stream`"),
        ({"prompt": "x", "nonsense": 1}, 400, "nonsense"),
        ({"prompt": "x", "response_format": {"type": "json_schema"}}, 400, "json_schema"),
        (
            {
                "prompt": "x",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"type": "number", "multipleOf": 3}},
                },
            },
            400,
            "multipleOf",
        ),
        (
            {
                "prompt": "x",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"type": "no such type"}},
                },
            },
            400,
            "no such type",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    serving: Serving, body: dict[str, Any], status: int, words: str
) -> None:
    found, error = serving.ask("/v1/completions", **body)
    assert found == status
    assert words in error["message"]
    if "context length" in words:
        assert error["param"] == "context_length"


def test_log_probabilities_are_numbers_that_json_can_say(serving: Serving) -> None:
    reply = serving.ask(
        "/v1/chat/completions",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=3,
        temperature=0,
        logprobs=True,
        top_logprobs=4,
        ignore_eos=True,
    )
    entries = reply["choices"][0]["logprobs"]["content"]
    assert len(entries) == 3
    for entry in entries:
        assert len(entry["top_logprobs"]) == 4
        assert entry["top_logprobs"][0]["logprob"] == entry["logprob"]
        assert all(math.isfinite(top["logprob"]) for top in entry["top_logprobs"])


def test_sigterm_ends_it_in_order_in_mid_batch(serving: Serving, tmp_path: Path) -> None:
    own = serve(serving.folder, tmp_path / "s", tmp_path / "log", "--attn-implementation", "eager")

    async def conversation(ask: Ask) -> None:
        long = {"prompt": "x", "max_tokens": 2000, "ignore_eos": True, "n": 4}
        running = asyncio.create_task(ask("/v1/completions", **long))
        while value_of(await ask("/metrics"), "num_requests_running") != 4:
            pass
        own.process.send_signal(signal.SIGTERM)
        # It may still be told that the server is ending, or find the connection closed.
        await asyncio.wait([running])
        if running.exception() is None:
            assert running.result()[0] == 503

    own.talk(conversation)
    assert own.process.wait(30) == 0
    assert not own.uds.exists()
    log = (tmp_path / "log").read_text()
    assert "[*] Using eager attention, as asked" in log
    assert "[*] transformers " in log
    assert "Traceback" not in log
