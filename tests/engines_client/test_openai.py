"""Any compatible server, as an engine by its address."""

import asyncio
import socket as sockets
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engines_client.fake import (
    HANGS,
    HTML,
    MODELS,
    RESETS,
    FakeServer,
    Said,
    Script,
    letters,
    refuses,
    says,
)
from tests.specs import engine_spec
from vendomini.chat import (
    Capacity,
    ChatRequest,
    Engine,
    Message,
    ScoreRequest,
    missing_feature,
)
from vendomini.engines.client import Backoff, ServerGone
from vendomini.engines.remote import OpenAIEngine
from vendomini.errors import EngineDead, EngineError

CHAT = ChatRequest(messages=(Message(role="user", content="hi"),), seed=1)
QUICK = Backoff(tries=2, first_s=0.001, most_s=0.001)
METRICS = Said(
    body=b"vllm:num_requests_running 2.0\nvllm:num_requests_waiting 1.0\n"
    b'vllm:cache_config_info{kv_cache_size_tokens="5000"} 1.0\n'
)


def openai(
    socket: Path, *, model: str = "m", said: list[str] | None = None, **fields: Any
) -> OpenAIEngine:
    fields = {"base_url": f"unix:{socket}", "request_timeout_s": 5.0, **fields}
    spec = engine_spec(backend="openai", model=model, **fields)
    return OpenAIEngine(spec, print if said is None else said.append, backoff=QUICK)


def start(tmp_path: Path, script: dict[str, Script], **fields: Any) -> tuple[Any, FakeServer]:
    """The engine, started and stopped again, or the error that its start gave."""

    async def play() -> tuple[Any, FakeServer]:
        async with FakeServer(tmp_path / "s.sock", script) as server:
            engine = openai(server.socket, **fields)
            try:
                await engine.start()
                return engine, server
            except EngineError as error:
                return error, server
            finally:
                await engine.stop()
                await engine.stop()

    return asyncio.run(play())


def test_the_key_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    _, server = start(tmp_path, {"/v1/models": MODELS})
    assert server.headers[0]["Authorization"] == "Bearer second"
    monkeypatch.setenv("VENDOMINI_API_KEY", "first\n")
    (tmp_path / "s.sock").unlink(missing_ok=True)
    _, server = start(tmp_path, {"/v1/models": MODELS})
    assert server.headers[0]["Authorization"] == "Bearer first"


def test_a_compatible_server_is_what_it_is(tmp_path: Path) -> None:
    engine, _ = start(tmp_path, {"/v1/models": MODELS})
    checked: Engine = engine
    assert checked.features.kinds == {"chat", "completion"}
    assert missing_feature(ScoreRequest(prompt="a", continuations=("b",)), checked.features)
    assert checked.capacity == Capacity(max_model_len=1000)


def test_a_vllm_elsewhere_is_used_as_one(tmp_path: Path) -> None:
    models = says({"data": [{"id": "m", "owned_by": "vllm"}]})
    script: dict[str, Script] = {"/v1/models": models, "/tokenize": letters, "/metrics": METRICS}
    engine, _ = start(tmp_path, script)
    assert "score" in engine.features.kinds
    assert engine.capacity.kv_cache_tokens == 5000


def test_a_vllm_behind_a_door_that_passes_only_openais_paths_is_a_compatible_server(
    tmp_path: Path,
) -> None:
    models = says({"data": [{"id": "m", "owned_by": "vllm"}]})
    engine, _ = start(tmp_path, {"/v1/models": models})
    assert engine.features.kinds == {"chat", "completion"}


def test_a_model_that_is_not_served_is_named_with_the_nearest_first(tmp_path: Path) -> None:
    models = says({"data": [{"id": "mistral-7b"}, {"id": "llama-3-8b"}, {"id": "qwen"}]})
    error, _ = start(tmp_path, {"/v1/models": models}, model="meta/llama-3-8b")
    assert isinstance(error, EngineError)
    assert "does not serve `meta/llama-3-8b`" in str(error)
    assert error.hint.index("llama-3-8b") < error.hint.index("mistral-7b")


@pytest.mark.parametrize(
    ("models", "words", "hint"),
    [
        (HTML, "HTML", "engine.base_url"),
        (says({"error": "Unauthorized"}, 401), "refuses the key", "VENDOMINI_API_KEY"),
        (Said(body=b"\n  <html>"), "HTML", "http://127.0.0.1:8000/v1"),
        (says({"ok": 1}), "not what the protocol says", ""),
        (Said(body=b"hello"), "no JSON", "engine.base_url"),
        (refuses("nothing here", 404), "nothing here", "engine.base_url"),
        (refuses("broken", 500), "broken", ""),
        (refuses("no such page", 200), "no such page", "engine.base_url"),
    ],
)
def test_a_start_fails_with_one_clear_error(
    tmp_path: Path, models: Said, words: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VENDOMINI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    error, _ = start(tmp_path, {"/v1/models": models})
    assert isinstance(error, EngineError)
    assert words in str(error)
    assert hint in error.hint


LOADS = says({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, 503)


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (LOADS, "it answers 503, Loading model"),
        (refuses("bad gateway", 502), "it answers 502, bad gateway"),
        (refuses("slow down", 429), "it answers 429, slow down"),
        (refuses("slow", 408), "it answers 408, slow"),
        (refuses("overloaded", 529), "it answers 529, overloaded"),
        (says({"data": []}), "it serves no model yet"),
        (says({"object": "list", "data": None}), "it serves no model yet"),
        (RESETS, "broke the connection off"),
    ],
)
def test_a_server_that_loads_is_waited_for_with_what_it_says(
    tmp_path: Path, models: Said, words: str
) -> None:
    said: list[str] = []

    async def play(script: list[Said], **fields: Any) -> OpenAIEngine:
        async with FakeServer(tmp_path / "s.sock", {"/v1/models": [*script]}) as server:
            engine = openai(server.socket, said=said, **fields)
            try:
                await engine.start()
            finally:
                await engine.stop()
            return engine

    resets = 8 if models is RESETS else 1  # client and library try those again themselves
    engine = asyncio.run(play([models] * resets + [MODELS]))
    assert engine.facts["model"] == "m"
    assert len(said) == 1
    assert words in said[0]
    assert "up to 1800 s (`engine.start_timeout_s`)" in said[0]
    with pytest.raises(EngineError, match=words) as caught:
        asyncio.run(play([models], start_timeout_s=2.0))
    assert "was not ready after 2 s" in str(caught.value)
    assert "engine.base_url" in caught.value.hint


def test_a_server_that_asks_to_wait_is_not_asked_before(tmp_path: Path) -> None:
    began = time.monotonic()
    busy = says({"error": {"message": "slow down"}}, 429, **{"Retry-After": "1"})
    engine, _ = start(tmp_path, {"/v1/models": [busy, MODELS]})
    assert engine.facts["model"] == "m"
    assert time.monotonic() - began >= 1


def test_a_server_that_lists_its_model_while_it_loads_is_waited_for(tmp_path: Path) -> None:
    script: dict[str, Script] = {"/v1/models": MODELS, "/health": [LOADS, says({"status": "ok"})]}
    engine, server = start(tmp_path, script)
    assert engine.facts["model"] == "m"
    assert [path for path, _ in server.asked].count("/health") == 2


def test_a_server_is_waited_for_that_is_started_later(tmp_path: Path) -> None:
    said: list[str] = []

    async def play() -> None:
        engine = openai(tmp_path / "s.sock", said=said)
        starting = asyncio.ensure_future(engine.start())
        await asyncio.sleep(0.1)
        assert not starting.done()
        async with FakeServer(tmp_path / "s.sock", {"/v1/models": MODELS}):
            await starting
            await engine.stop()

    asyncio.run(play())
    assert len(said) == 1
    assert "cannot be reached" in said[0]


def test_a_start_ends_at_its_deadline(tmp_path: Path) -> None:
    error, _ = start(tmp_path, {"/v1/models": HANGS}, start_timeout_s=0.2)
    assert isinstance(error, EngineError)
    assert "no answer within 0.2 s" in str(error)


def refused_port() -> str:
    with sockets.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


@pytest.mark.parametrize(
    ("base_url", "words"),
    [
        (None, "`engine.base_url` is not set"),
        ("localhost:8000", "is no address"),
        ("http://no-such-host.invalid/v1", "no such host as `no-such-host.invalid`"),
        ("refused", "connection refused"),
    ],
)
def test_a_server_that_is_not_there_is_told_at_the_start(base_url: str | None, words: str) -> None:
    async def play() -> None:
        where = refused_port() if base_url == "refused" else base_url
        patience_s = 0.3 if base_url == "refused" else 60
        spec = engine_spec(backend="openai", model="m", base_url=where, start_timeout_s=patience_s)
        engine = OpenAIEngine(spec, print)
        with pytest.raises(EngineError, match=words):
            await engine.start()
        await engine.stop()

    asyncio.run(play())


def test_a_remote_server_that_is_gone_for_good_is_an_engine_that_died(tmp_path: Path) -> None:

    async def play() -> None:
        server = FakeServer(tmp_path / "s.sock", {"/v1/models": MODELS})
        async with server:
            engine = openai(server.socket)
            await engine.start()
            death = asyncio.ensure_future(engine.died())
        with pytest.raises(EngineDead, match=r"s\.sock"):
            await engine.answer(CHAT)
        assert isinstance(await death, EngineDead)
        await engine.stop()

    asyncio.run(play())


def test_a_request_that_breaks_a_remote_server_is_not_its_death(tmp_path: Path) -> None:

    async def play() -> None:
        script: dict[str, Script] = {"/v1/models": MODELS, "/v1/chat/completions": RESETS}
        async with FakeServer(tmp_path / "s.sock", script) as server:
            engine = openai(server.socket)
            await engine.start()
            with pytest.raises(ServerGone):
                await engine.answer(CHAT)
            await engine.stop()

    asyncio.run(play())
