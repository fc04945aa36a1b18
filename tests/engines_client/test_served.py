"""An opened server as an engine."""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.engines_client.fake import (
    MODELS,
    FakeServer,
    Said,
    Script,
    chats,
    letters,
    refuses,
    says,
)
from tests.specs import engine_spec
from vendomini.chat import (
    Capacity,
    ChatRequest,
    CompletionRequest,
    Load,
    Message,
    Reply,
    ReplyFormat,
    Sampling,
    ScoreRequest,
    missing_feature,
)
from vendomini.engines.backend import Dialect
from vendomini.engines.client import Client, ServerFailed
from vendomini.engines.score import Scorer
from vendomini.engines.served import Served
from vendomini.errors import EngineError, EngineLacks

T = TypeVar("T")
SYSTEM = Message(role="system", content="be short")
USER = Message(role="user", content="hi")
CHAT = ChatRequest(messages=(SYSTEM, USER), sampling=Sampling(max_tokens=10), seed=1)
METRICS = Said(
    body=b"vllm:num_requests_running 2.0\nvllm:num_requests_waiting 1.0\n"
    b'vllm:cache_config_info{kv_cache_size_tokens="5000"} 1.0\n'
)


def no_system(body: Any) -> Said:
    """A template that raises for a system message."""
    if any(turn["role"] == "system" for turn in body.get("messages", ())):
        return refuses("System role not supported")
    return letters(body)


def drops_system(body: Any) -> Said:
    """A template that leaves the system message out, and has one of its own if there is none."""
    turns = body.get("messages", [])
    kept = [turn for turn in turns if turn["role"] != "system"]
    if len(kept) == len(turns):
        kept = [{"role": "system", "content": "You are a model."}, *kept]
    return letters({"messages": kept})


def no_template(body: Any) -> Said:
    if "messages" in body:
        return refuses("you must provide a chat template if the tokenizer does not define one.")
    return letters(body)


def served(
    tmp_path: Path,
    use: Callable[[Served], Awaitable[T]],
    *,
    dialect: Dialect = "vllm",
    said: list[str] | None = None,
    **script: Script,
) -> tuple[T, FakeServer]:
    """What `use` makes of a server that answers by `script` (names are ends of paths)."""
    paths: dict[str, Script] = {"models": MODELS, "metrics": METRICS, "tokenize": letters, **script}
    full = {_FULL.get(name, f"/{name}"): steps for name, steps in paths.items()}

    async def play() -> tuple[T, FakeServer]:
        async with FakeServer(tmp_path / "s.sock", full) as server:
            client = Client(uds=server.socket, key="k", request_timeout_s=10)
            try:
                engine = Served(
                    client,
                    spec=engine_spec(backend="vllm", model="m"),
                    dialect=dialect,
                    said=(said if said is not None else []).append,
                )
                await engine.open()
                return await use(engine), server
            finally:
                await client.close()

    return asyncio.run(play())


_FULL = {
    "models": "/v1/models",
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
}


async def opened(engine: Served) -> Served:
    return engine


def answers(request: Any) -> Callable[[Served], Awaitable[Any]]:
    return lambda engine: engine.answer(request)


def test_an_opened_server_tells_its_model_window_cache_and_load(tmp_path: Path) -> None:
    async def use(engine: Served) -> tuple[Served, Load | None]:
        return engine, await engine.load()

    (engine, load), _ = served(tmp_path, use, version=says({"version": "0.32.0"}))
    assert engine.capacity == Capacity(kv_cache_tokens=5000, max_model_len=1000)
    assert load == Load(running=2, waiting=1, preemptions=0)
    assert engine.facts["vllm"] == "0.32.0"
    assert engine.facts["model"] == "m"


def test_a_template_with_a_system_role_gets_the_conversation_as_it_is(tmp_path: Path) -> None:
    said: list[str] = []
    reply, server = served(tmp_path, answers(CHAT), said=said, chat=chats("yes"))
    assert reply.text == "yes"
    (body,) = server.bodies("/v1/chat/completions")
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"]
    assert said == []


@pytest.mark.parametrize("tokenize", [no_system, drops_system])
@pytest.mark.parametrize("dialect", ["hf", "vllm"])
def test_a_template_without_a_system_role_gets_its_text_before_the_first_user_message(
    tmp_path: Path, tokenize: Callable[[Any], Said], dialect: Dialect
) -> None:
    said: list[str] = []
    _, server = served(
        tmp_path, answers(CHAT), dialect=dialect, said=said, chat=chats("yes"), tokenize=tokenize
    )
    (body,) = server.bodies("/v1/chat/completions")
    assert body["messages"] == [{"role": "user", "content": "be short\n\nhi"}]
    assert len(said) == 1
    assert "system messages" in said[0]


def test_a_compatible_server_is_folded_for_after_it_has_refused(tmp_path: Path) -> None:
    said: list[str] = []

    async def twice(engine: Served) -> object:
        return await engine.answer(CHAT), await engine.answer(CHAT)

    refusal = refuses("Conversation roles must alternate user/assistant/user/assistant/...")
    _, server = served(tmp_path, twice, dialect="openai", said=said, chat=[refusal, chats("yes")])
    asked = [len(body["messages"]) for body in server.bodies("/v1/chat/completions")]
    assert asked == [2, 1, 1]
    assert len(said) == 1


def test_a_template_that_fails_where_others_refuse_teaches_too(tmp_path: Path) -> None:
    """As llama.cpp tells it."""
    said: list[str] = []
    failure = refuses("Jinja Exception: System role not supported", 500, type="server_error")
    reply, server = served(
        tmp_path, answers(CHAT), dialect="openai", said=said, chat=[failure, chats("yes")]
    )
    assert reply.text == "yes"
    assert [len(body["messages"]) for body in server.bodies("/v1/chat/completions")] == [2, 1]


def test_another_failure_teaches_nothing(tmp_path: Path) -> None:
    failure = refuses("unexpected argument seed", 500)
    with pytest.raises(ServerFailed):
        served(tmp_path, answers(CHAT), dialect="openai", chat=failure)


@pytest.mark.parametrize(
    "content", [b"", b'{"error": {"message": "no", "code": "request_too_large"}}']
)
def test_a_body_that_is_too_large_is_a_prompt_too_long(tmp_path: Path, content: bytes) -> None:
    chat = Said(body=content, status=413)
    reply, _ = served(tmp_path, answers(CHAT), dialect="openai", chat=chat)
    assert reply.choices[0].finish_reason == "context"


def test_an_error_with_status_200_is_judged_by_its_words(tmp_path: Path) -> None:
    """Some send blanks first, so that the connection lives on, and have sent the status by then."""
    told = {"error": {"message": "Your input context is too long", "type": "invalid"}}
    chat = Said(body=b"\n" * 300 + json.dumps(told).encode())
    reply, _ = served(tmp_path, answers(CHAT), dialect="openai", chat=chat)
    assert reply.choices[0].finish_reason == "context"


UNREADABLE = "Unexpected token 200002 while expecting start token 200006"


@pytest.mark.parametrize(
    ("told", "text", "finish"),
    [
        (refuses("no", code="json_validate_failed", failed_generation='{"a": '), '{"a": ', "stop"),
        (refuses("no", code="tool_use_failed"), "", "stop"),
        (
            refuses(
                "The response was filtered due to the prompt triggering Azure OpenAI's content "
                "management policy.",
                code="content_filter",
            ),
            "",
            "stop",
        ),
        (refuses(UNREADABLE, 500), "", "stop"),
        (says({"error": {"message": UNREADABLE, "type": "BadRequestError"}}), "", "stop"),
        (refuses("unexpected tokens remaining in message header: ['x']", 500), "", "stop"),
        (
            refuses(
                "Could not finish the message because max_tokens or model output limit was "
                "reached. Please try again with higher max_tokens."
            ),
            "",
            "length",
        ),
    ],
)
def test_what_a_server_can_make_nothing_of_is_a_reply(
    tmp_path: Path, told: Said, text: str, finish: str
) -> None:
    reply, _ = served(tmp_path, answers(CHAT), dialect="openai", chat=told)
    assert (reply.text, reply.choices[0].finish_reason) == (text, finish)


def test_a_refusal_without_a_system_message_is_not_folded_for(tmp_path: Path) -> None:
    request = ChatRequest(messages=(USER, USER))
    refusal = refuses("Conversation roles must alternate user/assistant/user/assistant/...")
    with pytest.raises(EngineError, match="must alternate"):
        served(tmp_path, answers(request), dialect="openai", chat=refusal)


def test_a_model_without_a_chat_template_cannot_chat_and_says_why(tmp_path: Path) -> None:
    said: list[str] = []
    engine, _ = served(tmp_path, opened, tokenize=no_template, said=said)
    assert engine.features.kinds == {"completion", "score"}
    assert missing_feature(CHAT, engine.features) == "requests of kind `chat`"
    assert "no chat template" in engine.facts["chat"]
    assert "no chat template" in said[0]
    with pytest.raises(EngineError, match="the model has no chat template"):
        served(tmp_path, answers(CHAT), tokenize=no_template)


def test_a_prompt_too_long_is_a_reply_with_as_many_empty_choices(tmp_path: Path) -> None:
    refusal = refuses(
        "This model's maximum context length is 1000 tokens. However, your prompt contains 1234 "
        "input tokens"
    )
    request = ChatRequest(messages=(USER,), sampling=Sampling(n=3, max_tokens=10))
    reply, _ = served(tmp_path, answers(request), chat=refusal)
    assert [(each.text, each.finish_reason) for each in reply.choices] == [("", "context")] * 3
    assert reply.tokens_in == 1234


def test_replies_that_never_fit_are_said_aloud_once(tmp_path: Path) -> None:
    said: list[str] = []
    request = ChatRequest(messages=(USER,), sampling=Sampling(max_tokens=5000))

    async def twice(engine: Served) -> object:
        return await engine.answer(request), await engine.answer(request)

    refusal = refuses("max_tokens=5000 cannot be greater than max_model_len=1000.")
    served(tmp_path, twice, said=said, chat=refusal)
    assert len(said) == 1
    assert "max_tokens_per_call" in said[0]


def test_a_completion_is_answered(tmp_path: Path) -> None:
    answer = says(
        {"choices": [{"text": "b", "finish_reason": "length"}], "usage": {"prompt_tokens": 2}}
    )
    request = CompletionRequest(prompt="a", sampling=Sampling(max_tokens=1))
    reply, _ = served(tmp_path, answers(request), completions=answer)
    assert (reply.text, reply.choices[0].finish_reason) == ("b", "length")


def probabilities(body: Any) -> Said:
    """Token t has log-probability -t / 100 everywhere. Tells it as vLLM does."""
    choice: dict[str, Any] = {"text": "", "finish_reason": "length"}
    if "logprob_token_ids" in body:
        tokens = [0, *body["logprob_token_ids"]]
        top = {f"token_id:{token}": -token / 100 for token in tokens}
        choice["logprobs"] = {
            "tokens": ["token_id:0"],
            "token_logprobs": [0],
            "top_logprobs": [top],
        }
    else:
        told = [{str(token): {"logprob": -token / 100}} for token in body["prompt"]]
        choice["prompt_logprobs"] = [None, *told[1:]]
    count = len(body["prompt"])
    return says({"choices": [choice], "usage": {"prompt_tokens": count, "completion_tokens": 1}})


def texts_only(body: Any) -> Said:
    """As `probabilities`, but names tokens by their text."""
    if "logprob_token_ids" not in body:
        return probabilities(body)
    tops = [{chr(token): -token / 100 for token in body["logprob_token_ids"]}]
    logprobs = {"tokens": ["a"], "token_logprobs": [0], "top_logprobs": tops}
    return says({"choices": [{"logprobs": logprobs}], "usage": {"prompt_tokens": 1}})


def test_labels_of_one_token_are_scored_by_one_completion(tmp_path: Path) -> None:
    request = ScoreRequest(prompt="is it ", continuations=("B", "A", "C"))
    reply, server = served(tmp_path, answers(request), completions=probabilities)
    assert [each.text for each in reply.choices] == ["B", "A", "C"]
    assert [each.score for each in reply.choices] == [-0.66, -0.65, -0.67]
    assert len(server.bodies("/v1/completions")) == 1
    assert reply.tokens_in == len("is it ") + 1


def test_longer_continuations_are_scored_by_their_prompts(tmp_path: Path) -> None:
    request = ScoreRequest(prompt="x", continuations=("AB", "C", ""))
    reply, server = served(tmp_path, answers(request), completions=probabilities)
    for choice, score in zip(reply.choices, (-1.31, -0.67, 0.0), strict=True):
        assert choice.score is not None
        assert math.isclose(choice.score, score)
    assert len(server.bodies("/v1/completions")) == 2


@pytest.mark.parametrize(
    "first", [texts_only, refuses("Object contains unknown field `return_tokens_as_token_ids`")]
)
def test_a_server_that_names_no_ids_is_scored_the_longer_way_and_says_so(
    tmp_path: Path, first: Any
) -> None:
    def answer(body: Any) -> Said:
        one_token = "logprob_token_ids" in body
        if not one_token:
            return probabilities(body)
        return first if isinstance(first, Said) else texts_only(body)

    request = ScoreRequest(prompt="x", continuations=("A", "B"))
    said: list[str] = []

    async def twice(engine: Served) -> Any:
        await engine.answer(request)
        return await engine.answer(request)

    reply, server = served(tmp_path, twice, said=said, completions=answer)
    assert [each.score for each in reply.choices] == [-0.65, -0.66]
    assert len(server.bodies("/v1/completions")) == 1 + 2 + 2
    assert len(said) == 1


class Counting(Client):
    """Counts how many completions it has under way at most."""

    now = most = 0

    async def post(self, path: str, body: bytes) -> bytes:
        is_counted = path == "/v1/completions"
        self.now += is_counted
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.001)
            return await super().post(path, body)
        finally:
            self.now -= is_counted


@pytest.mark.parametrize(
    ("room", "at_most", "most"), [(5000, None, 5), (None, 7, 7), (100, None, 1), (None, None, 40)]
)
def test_no_more_continuations_are_scored_at_a_time_than_the_kv_cache_holds(
    tmp_path: Path, room: int | None, at_most: int | None, most: int
) -> None:
    labels = tuple(f"{number:02}" for number in range(40))
    request = ScoreRequest(prompt="x" * 900, continuations=labels)

    async def play() -> tuple[list[float | None], int]:
        paths = {"/tokenize": letters, "/v1/completions": probabilities}
        async with FakeServer(tmp_path / "s.sock", paths) as server:
            client = Counting(uds=server.socket, key="k", request_timeout_s=10)
            try:
                scorer = Scorer(client, model="m", said=print, at_most=at_most)
                reply = await scorer.reply(request, window=1000, room=room, started=0.0)
            finally:
                await client.close()
        return [each.score for each in reply.choices], client.most

    scores, seen = asyncio.run(play())
    assert scores == pytest.approx([-sum(map(ord, label)) / 100 for label in labels])
    assert seen == most


def test_a_score_that_does_not_fit_is_a_context_reply(tmp_path: Path) -> None:
    request = ScoreRequest(prompt="x" * 998, continuations=("A", "BC"))
    reply, server = served(tmp_path, answers(request), completions=probabilities)
    assert [each.finish_reason for each in reply.choices] == ["context"] * 2
    assert reply.tokens_in == 1001
    assert server.bodies("/v1/completions") == []


def test_an_unopened_feature_set_is_by_dialect() -> None:
    client = Client(base_url="http://127.0.0.1:1/v1", key=None, request_timeout_s=1)
    spec = engine_spec(backend="openai", model="m")
    assert "score" in Served(client, spec=spec, dialect="hf", said=print).features.kinds
    assert "score" not in Served(client, spec=spec, dialect="openai", said=print).features.kinds


KEPT = '{"a": 1}'


def under_schema(*, dialect: Dialect) -> Callable[..., Any]:
    """Asks under a schema once for each answer of a script; what came of each."""
    reply_format = ReplyFormat(kind="schema", json_schema='{"type":"object"}')
    request = ChatRequest(
        messages=(USER,), reply_format=reply_format, sampling=Sampling(max_tokens=10)
    )

    def ask(tmp_path: Path, script: list[Said]) -> list[str | EngineError]:
        async def each(engine: Served) -> list[str | EngineError]:
            came: list[str | EngineError] = []
            for _ in script:
                try:
                    came.append((await engine.answer(request)).text)
                except EngineError as error:
                    came.append(error)
            return came

        steps: Script = list(script)
        return served(tmp_path, each, dialect=dialect, chat=steps)[0]

    return ask


@pytest.mark.parametrize("dialect", ["openai", "vllm"])
def test_a_server_that_never_keeps_a_schema_is_told_by_its_first_replies(
    tmp_path: Path, dialect: Dialect
) -> None:
    script = [chats("Sure!"), chats(""), chats("Sure!"), chats("Sure!")]
    came = under_schema(dialect=dialect)(tmp_path, script)
    assert came[:3] == ["Sure!", "", "Sure!"]
    assert isinstance(came[3], EngineLacks)
    assert "does not constrain its replies" in str(came[3])
    assert "it gave Sure!" in str(came[3])
    assert "`text`" in came[3].hint


def test_a_server_that_gives_nothing_under_a_schema_is_told_by_many_replies(tmp_path: Path) -> None:
    came = under_schema(dialect="openai")(tmp_path, [chats("")] * 20)
    assert came[:19] == [""] * 19
    assert "under a schema its first 20 were empty" in str(came[19])


def test_an_object_that_a_server_took_for_a_thought_is_the_reply(tmp_path: Path) -> None:
    choice = {"message": {"content": "", "reasoning_content": KEPT}, "finish_reason": "stop"}
    cut = {**choice, "finish_reason": "length"}
    script = [says({"choices": [each]}) for each in (choice, cut)]
    assert under_schema(dialect="openai")(tmp_path, script) == [KEPT, ""]


@pytest.mark.parametrize(
    "refusal",
    [
        refuses(
            "Invalid schema for response_format 'reply': schema must be of type object",
            param="response_format",
            code=None,
        ),
        says(
            {
                "error": "Input validation error: grammar is not valid: Grammar must have a "
                "'properties' field",
                "error_type": "validation",
            },
            422,
        ),
        refuses(
            "Unsupported JSON schema fields: {'minItems', 'items'}",
            param="response_format",
            code="wrong_api_format",
        ),
        refuses("JSON Schema not supported: could not understand the instance"),
        refuses("Failed to initialize samplers: failed to parse grammar"),
        refuses("Failed to initialize samplers: failed to parse grammar", 500),
    ],
)
def test_a_schema_that_is_refused_is_told_at_once(tmp_path: Path, refusal: Said) -> None:
    came = under_schema(dialect="openai")(tmp_path, [refusal])
    assert isinstance(came[0], EngineLacks)
    assert "does not take reply_format `schema`" in str(came[0])


def test_odd_replies_among_kept_ones_are_no_verdict(tmp_path: Path) -> None:
    script = [chats("Sure!"), chats(KEPT), *[chats("Sure!")] * 5]
    came = under_schema(dialect="openai")(tmp_path, script)
    assert came == ["Sure!", KEPT, *["Sure!"] * 5]


@pytest.mark.parametrize(
    "odd",
    [
        chats("Sure!", finish="length"),
        chats("", finish="content_filter"),
        chats("Sure!", finish="content_filter: PROHIBITED_CONTENT"),
        chats("Sure!", finish="SAFETY"),
        chats("Sure!", finish="RECITATION"),
        chats("Sure!", finish="insufficient_system_resource"),
        chats("Sure!", finish="model_context_window_exceeded"),
        says({"choices": [{"message": {"refusal": "no"}, "finish_reason": "stop"}]}),
        says({"choices": [{"message": {"reasoning": "hm"}, "finish_reason": "stop"}]}),
        says({"choices": [{"message": {"tool_calls": [{"function": {"name": "f"}}]}}]}),
    ],
)
def test_replies_that_did_not_end_by_themselves_say_nothing_of_a_schema(
    tmp_path: Path, odd: Said
) -> None:
    assert all(
        isinstance(text, str) for text in under_schema(dialect="openai")(tmp_path, [odd] * 5)
    )


def test_a_server_that_never_answers_with_a_choice_is_told(tmp_path: Path) -> None:
    request = ChatRequest(messages=(USER,))

    async def thrice(engine: Served) -> list[str]:
        return [(await engine.answer(request)).text for _ in range(3)]

    with pytest.raises(EngineLacks, match="without any reply"):
        served(tmp_path, thrice, dialect="openai", chat=says({"choices": []}))


def test_a_server_that_does_not_count_tokens_is_told_once(tmp_path: Path) -> None:
    said: list[str] = []
    answer = says({"choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]})

    async def twice(engine: Served) -> tuple[Reply, dict[str, str]]:
        await engine.answer(CHAT)
        return await engine.answer(CHAT), dict(engine.facts)

    (reply, facts), _ = served(tmp_path, twice, dialect="openai", said=said, chat=answer)
    assert (reply.text, reply.tokens_in, reply.tokens_out) == ("a", 0, 0)
    assert [("does not count tokens" in line) for line in said] == [True]
    assert facts["tokens"] == "not counted by the server"


def test_an_openai_reply_says_whether_a_seed_was_sent(tmp_path: Path) -> None:
    reply, _ = served(tmp_path, answers(CHAT), dialect="openai", chat=chats("a"))
    assert reply.seed_support == "best_effort"
    request = ChatRequest(messages=(USER,), sampling=Sampling(max_tokens=5))
    reply, _ = served(tmp_path, answers(request), dialect="openai", chat=chats("a"))
    assert reply.seed_support == "none"
