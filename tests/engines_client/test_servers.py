"""The servers that people have, each by answers as they are documented or recorded.

`tests/data/servers` has a file for each, with where its forms were found.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.engines_client.fake import FakeServer, Said, Script, says
from tests.engines_client.phase import CALL, QUICK
from tests.product import ROOT
from tests.specs import engine_spec
from vendomini.chat import ChatRequest, Message, Reply, ReplyFormat, Sampling
from vendomini.engines.client import Refused
from vendomini.engines.remote import OpenAIEngine
from vendomini.errors import EngineError

FILES = sorted((Path(__file__).parent.parent / "data" / "servers").glob("*.json"))
SERVERS = [json.loads(file.read_text("utf-8")) for file in FILES]
CHAT = ChatRequest(
    messages=(Message(role="system", content="be short"), Message(role="user", content="hi")),
    sampling=Sampling(temperature=0.7, max_tokens=2000),
    reply_format=ReplyFormat(kind="schema", json_schema='{"type":"object"}'),
    seed=3,
)


def told(entry: dict[str, Any]) -> Said:
    return says(entry["body"], entry["status"])


def ask(
    tmp_path: Path, server: dict[str, Any], *chats: Said, said: list[str] | None = None, **more: Any
) -> tuple[list[Reply | EngineError], FakeServer]:
    """Start on a server and ask once for each of its answers; what came of each."""
    script: dict[str, Script] = {
        "/v1/models": says(server["models"]),
        "/v1/chat/completions": list(chats),
        **more.pop("script", {}),
    }

    async def play() -> tuple[list[Reply | EngineError], FakeServer]:
        (tmp_path / "s.sock").unlink(missing_ok=True)
        async with FakeServer(tmp_path / "s.sock", script) as fake:
            spec = engine_spec(
                backend="openai",
                base_url=f"unix:{fake.socket}",
                request_timeout_s=10.0,
                start_timeout_s=10.0,
                **{"model": server["model"], **more},
            )
            engine = OpenAIEngine(spec, print if said is None else said.append, backoff=QUICK)
            came: list[Reply | EngineError] = []
            try:
                await engine.start()
                for _ in chats:
                    try:
                        came.append(await engine.answer(CHAT))
                    except EngineError as error:
                        came.append(error)
            finally:
                await engine.stop()
            return came, fake

    return asyncio.run(play())


@pytest.mark.parametrize("server", SERVERS, ids=[file.stem for file in FILES])
def test_each_server_is_used_by_its_address_alone(tmp_path: Path, server: dict[str, Any]) -> None:
    # It loads, and is waited for.
    loading = server["loading"]
    then = says(server["models"]) if loading["path"] == "/v1/models" else says({"status": "ok"})
    said: list[str] = []
    # It answers, thinks, and says that a prompt is too long.
    chats = [says(server["chat"]), says(server["reasoning"]), *map(told, server["too_long"])]
    came, fake = ask(
        tmp_path, server, *chats, said=said, script={loading["path"]: [told(loading), then]}
    )
    assert [loading["says"] in line for line in said if line.startswith("waits for")] == [True]
    assert all(isinstance(reply, Reply) for reply in came), came
    replies = [reply for reply in came if isinstance(reply, Reply)]
    assert [reply.text for reply in replies] == [CALL, CALL] + [""] * len(server["too_long"])
    assert [reply.choices[0].finish_reason for reply in replies[:2]] == ["stop", "stop"]
    assert replies[0].choices[0].reasoning is None
    assert replies[1].choices[0].reasoning == "I look at the inbox first."
    assert replies[0].tokens_in == server["chat"]["usage"]["prompt_tokens"]
    for reply, refusal in zip(replies[2:], server["too_long"], strict=True):
        assert reply.choices[0].finish_reason == "context"
        assert reply.tokens_in == refusal["tokens"]
    assert {body["model"] for body in fake.bodies("/v1/chat/completions")} == {server["model"]}


@pytest.mark.parametrize("server", SERVERS, ids=[file.stem for file in FILES])
def test_a_model_that_a_server_has_not_is_told_with_what_it_has(
    tmp_path: Path, server: dict[str, Any]
) -> None:
    with pytest.raises(EngineError) as caught:
        ask(tmp_path, server, model="qwen3")
    assert "does not serve `qwen3`" in str(caught.value)
    assert f"`{server['models']['data'][0]['id']}`" in caught.value.hint
    if server["unknown_model"] is None:
        return  # it answers for any name
    (error,), _ = ask(tmp_path, server, told(server["unknown_model"]))
    assert isinstance(error, Refused)
    words = server["unknown_model"]["body"]["error"]["message"].splitlines()[0]
    assert words in str(error)


def test_what_tgi_minds_about_top_p_is_left_out(tmp_path: Path) -> None:
    (server,) = (each for each in SERVERS if each["server"] == "TGI")
    refusal = told(server["refuses"])
    said: list[str] = []
    came, fake = ask(tmp_path, server, refusal, says(server["chat"]), said=said)
    assert [isinstance(each, Reply) and each.text == CALL for each in came] == [True, True]
    assert ["top_p" in body for body in fake.bodies("/v1/chat/completions")] == [True, False, False]
    assert ["`top_p`, which is left out" in line for line in said] == [True]


def test_the_guide_to_servers_names_each() -> None:
    guide = (ROOT / "docs" / "engines.md").read_text("utf-8")
    for server in SERVERS:
        assert f"| {server['server']} | `{server['base_url']}` |" in guide
