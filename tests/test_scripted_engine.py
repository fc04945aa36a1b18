"""The scripted engine: three kinds of script, and what it says when one runs out."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from tests.specs import engine_spec
from vendomini.chat import (
    ChatRequest,
    Choice,
    CompletionRequest,
    Engine,
    Message,
    Reply,
    Request,
    ScoreRequest,
)
from vendomini.engines.registry import engine_for
from vendomini.engines.scripted import ScriptedEngine, echo, recorded
from vendomini.errors import EngineError
from vendomini.store.hashing import request_hash
from vendomini.store.records import ReplyEntry

HELLO = ChatRequest(messages=(Message(role="user", content="hello there"),), seed=1)
SCORE = ScoreRequest(prompt="x", continuations=("yes", "no"), seed=1)


def answer(engine: Engine, request: Request) -> Reply:
    return asyncio.run(engine_answer(engine, request))


async def engine_answer(engine: Engine, request: Request) -> Reply:
    await engine.start()
    try:
        return await engine.answer(request)
    finally:
        await engine.stop()


def test_a_list_is_answered_in_order_until_it_runs_out() -> None:
    engine = ScriptedEngine(["one", Reply(choices=(Choice(text="two"),))])
    assert [answer(engine, HELLO).text for _ in range(2)] == ["one", "two"]
    with pytest.raises(EngineError, match="no more replies"):
        answer(engine, HELLO)


def test_a_function_sees_the_request() -> None:
    engine = ScriptedEngine(lambda request: f"seed {request.seed}")
    assert answer(engine, HELLO).text == "seed 1"


def test_a_recorded_log_answers_what_was_asked_and_nothing_else(tmp_path: Path) -> None:
    entry = ReplyEntry(
        run="r", attempt=1, ask=0, position=0, hash=request_hash(HELLO), reply=echo(HELLO)
    )
    log = tmp_path / "x.replies.jsonl"
    log.write_bytes(msgspec.json.encode(entry) + b'\n{"torn')
    engine = ScriptedEngine(recorded(log))
    assert answer(engine, HELLO) == echo(HELLO)
    with pytest.raises(EngineError, match="has no reply to request"):
        answer(engine, CompletionRequest(prompt="other"))


@pytest.mark.parametrize("content", [None, b"", b"not json\n"])
def test_a_log_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, content: bytes | None
) -> None:
    log = tmp_path / "x.replies.jsonl"
    if content is not None:
        log.write_bytes(content)
    with pytest.raises(EngineError, match=r"x\.replies\.jsonl"):
        recorded(log)


def test_the_built_in_script_depends_on_request_and_seed_alone() -> None:
    assert echo(HELLO) == echo(HELLO)
    other = ChatRequest(messages=HELLO.messages, seed=2)
    assert echo(HELLO).text != echo(other).text
    scores = [choice.score for choice in echo(SCORE).choices]
    assert len(scores) == 2
    assert all(score is not None and -8 <= score <= 0 for score in scores)


def test_texts_cannot_score() -> None:
    with pytest.raises(EngineError, match="score"):
        answer(ScriptedEngine(["text"]), SCORE)


def test_latency_delays_each_reply_and_replies_wait_side_by_side() -> None:
    async def several() -> list[Reply]:
        engine = ScriptedEngine(echo, latency_s=0.05)
        return list(await asyncio.gather(*(engine.answer(HELLO) for _ in range(20))))

    replies = asyncio.run(asyncio.wait_for(several(), timeout=0.9))  # one by one: 1.0 s
    assert len(replies) == 20


def test_a_spec_opens_the_scripted_engine(tmp_path: Path) -> None:
    spec = engine_spec(backend="scripted", model="m")
    engine = engine_for(spec, log=tmp_path / "engine.log", said=lambda text: None)
    assert answer(engine, HELLO) == echo(HELLO)
