"""The client against servers that answer well, badly, late or not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from pathlib import Path
from typing import TypeVar

import pytest

from tests.engines_client.fake import (
    BREAKS_OFF,
    HANGS,
    HTML,
    RESETS,
    FakeServer,
    Said,
    Script,
    refuses,
    says,
)
from vendomini.engines.client import Backoff, Client, Refused, ServerFailed, ServerGone
from vendomini.errors import EngineError

T = TypeVar("T")
FINE = says({"fine": True})
QUICK = Backoff(tries=4, first_s=0.001, most_s=0.002, most_asked_s=0.001)


def child(socket: Path, *, timeout_s: float = 10.0) -> Client:
    return Client(uds=socket, key="k", request_timeout_s=timeout_s)


def remote(socket: Path, *, backoff: Backoff = QUICK) -> Client:
    return Client(base_url=f"unix:{socket}", key="k", request_timeout_s=10.0, backoff=backoff)


def ask(
    tmp_path: Path,
    script: Script,
    *,
    opened: Callable[[Path], Client] = child,
    how: Callable[[Client], Awaitable[T]],
) -> tuple[T | EngineError, FakeServer]:
    """What asking a server with this script gives or raises, and the server."""

    async def play() -> tuple[T | EngineError, FakeServer]:
        async with FakeServer(tmp_path / "s.sock", {"/v1/x": script}) as server:
            client = opened(server.socket)
            try:
                return await how(client), server
            except EngineError as error:
                return error, server
            finally:
                await client.close()

    return asyncio.run(play())


def post(client: Client) -> Awaitable[bytes]:
    return client.post("/v1/x", b'{"a":1}')


def get(client: Client) -> Awaitable[bytes]:
    return client.get("/v1/x")


def test_a_body_and_the_key_arrive_and_the_answer_comes_back(tmp_path: Path) -> None:
    answer, server = ask(tmp_path, FINE, how=post)
    assert answer == b'{"fine": true}'
    assert server.asked == [("/v1/x", {"a": 1})]
    assert server.headers[0]["Authorization"] == "Bearer k"
    assert server.headers[0]["Content-Type"] == "application/json"


def test_more_requests_than_any_default_limit_are_under_way_at_once(tmp_path: Path) -> None:
    count = 150  # aiohttp's own limit is 100

    async def play() -> int:
        async with FakeServer(tmp_path / "s.sock", {"/v1/x": HANGS}) as server:
            client = child(server.socket)
            tasks = [asyncio.ensure_future(post(client)) for _ in range(count)]
            await server.has_been_asked(count)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await client.close()
            return len(server.asked)

    assert asyncio.run(play()) == count


def test_a_server_that_is_not_there_is_gone_at_once(tmp_path: Path) -> None:
    async def play() -> None:
        client = child(tmp_path / "none.sock")
        with pytest.raises(ServerGone, match="cannot be reached"):
            await post(client)
        await client.close()

    asyncio.run(play())


def test_a_server_that_dies_in_the_middle_of_a_request_is_gone(tmp_path: Path) -> None:
    async def play() -> None:
        async with FakeServer(tmp_path / "s.sock", {"/v1/x": HANGS}) as server:
            client = child(server.socket)
            task = asyncio.ensure_future(post(client))
            await server.has_been_asked()
            await server.stop()
            with pytest.raises(ServerGone):
                await task
            await client.close()

    asyncio.run(play())


def test_a_connection_broken_before_an_answer_is_tried_again_at_once(tmp_path: Path) -> None:
    """A server may close a connection that rests just as it is used again."""
    answer, server = ask(tmp_path, [RESETS, FINE], how=post)
    assert answer == b'{"fine": true}'
    assert server.asked == [("/v1/x", {"a": 1})] * 2


def test_a_child_that_breaks_off_every_answer_is_gone(tmp_path: Path) -> None:
    error, server = ask(tmp_path, RESETS, how=post)
    assert isinstance(error, ServerGone)
    assert "without an answer" in str(error)
    assert len(server.asked) < 10


def test_a_child_that_breaks_off_in_the_middle_of_an_answer_is_not_asked_again(
    tmp_path: Path,
) -> None:
    error, server = ask(tmp_path, BREAKS_OFF, how=post)
    assert isinstance(error, ServerGone)
    assert "in the middle" in str(error)
    assert len(server.asked) == 1


def test_a_remote_server_that_breaks_off_is_asked_the_same_again(tmp_path: Path) -> None:
    answer, server = ask(tmp_path, [BREAKS_OFF, FINE], opened=remote, how=post)
    assert answer == b'{"fine": true}'
    assert server.asked == [("/v1/x", {"a": 1})] * 2


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 520, 524, 529])
def test_a_remote_server_that_is_busy_is_asked_again(tmp_path: Path, status: int) -> None:
    answer, server = ask(tmp_path, [refuses("later", status), FINE], opened=remote, how=post)
    assert answer == b'{"fine": true}'
    assert server.asked == [("/v1/x", {"a": 1})] * 2


@pytest.mark.parametrize(("status", "tries"), [(503, 4), (500, 2), (501, 1)])
def test_a_remote_server_is_asked_again_a_bounded_number_of_times(
    tmp_path: Path, status: int, tries: int
) -> None:
    error, server = ask(tmp_path, refuses("no GPU", status), opened=remote, how=post)
    assert isinstance(error, ServerFailed)
    assert f"answers {status}: no GPU" in str(error)
    assert len(server.asked) == tries


def test_a_failure_of_a_child_is_told_at_once(tmp_path: Path) -> None:
    error, server = ask(tmp_path, refuses("EngineCore died", 500), how=post)
    assert isinstance(error, ServerFailed)
    assert error.is_the_servers
    assert len(server.asked) == 1


def test_a_remote_server_that_nobody_reaches_is_given_up_after_a_bounded_number(
    tmp_path: Path,
) -> None:
    async def play() -> None:
        client = remote(tmp_path / "none.sock")
        with pytest.raises(ServerGone, match=r"none\.sock"):
            await post(client)
        await client.close()

    asyncio.run(play())


def test_waits_grow_are_bounded_and_differ() -> None:
    backoff = Backoff(first_s=1.0, most_s=8.0, most_asked_s=30.0)
    for attempt, longest in ((1, 1), (2, 2), (3, 4), (4, 8), (9, 8)):
        waits = {backoff.wait_s(attempt, None) for _ in range(50)}
        assert len(waits) > 1
        assert all(longest / 2 <= wait <= longest for wait in waits)


def test_what_the_server_asks_to_wait_is_honoured_within_bounds() -> None:
    backoff = Backoff(first_s=0.1, most_s=0.1, most_asked_s=30.0)
    assert backoff.wait_s(1, 12.0) == 12.0
    assert backoff.wait_s(1, 3600.0) == 30.0


# A fixed date, and not one in an hour: processes that share the tests must name them alike.
@pytest.mark.parametrize(
    "asked", ["0", "soon", "-3", formatdate(4_000_000_000, usegmt=True), "1e99", "nan"]
)
def test_any_retry_after_is_survived(tmp_path: Path, asked: str) -> None:
    busy = says({}, 429, **{"Retry-After": asked})
    answer, _ = ask(tmp_path, [busy, FINE], opened=remote, how=post)
    assert answer == b'{"fine": true}'


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("opened", [child, remote])
def test_a_wrong_key_is_told_with_where_the_key_comes_from(
    tmp_path: Path, status: int, opened: Callable[[Path], Client]
) -> None:
    error, server = ask(tmp_path, says({"error": "Unauthorized"}, status), opened=opened, how=post)
    assert isinstance(error, EngineError)
    assert "refuses the key" in str(error)
    assert "key" in error.hint
    assert len(server.asked) == 1


def test_a_refusal_keeps_its_status_and_the_servers_words(tmp_path: Path) -> None:
    error, server = ask(tmp_path, refuses("bad `n`", param="n_x"), opened=remote, how=post)
    assert isinstance(error, Refused)
    assert (error.status, error.message) == (400, "bad `n` (n_x)")
    assert len(server.asked) == 1


@pytest.mark.parametrize("how", [get, post])
def test_html_is_told_by_its_beginning(
    tmp_path: Path, how: Callable[[Client], Awaitable[bytes]]
) -> None:
    error, _ = ask(tmp_path, HTML, opened=remote, how=how)
    assert isinstance(error, EngineError)
    assert "HTML" in str(error)
    assert "Log in here" in str(error)
    assert "engine.base_url" in error.hint


def test_a_page_that_is_not_there_is_told_by_its_beginning(tmp_path: Path) -> None:
    missing = Said(body=HTML.body, status=404)
    error, _ = ask(tmp_path, missing, opened=remote, how=get)
    assert isinstance(error, Refused)
    assert "Log in here" in str(error)
    assert "engine.base_url" in error.hint


def test_a_server_that_sends_us_elsewhere_is_not_followed_with_the_key(tmp_path: Path) -> None:
    moved = says({}, 302, Location="http://elsewhere/v1/x")
    error, server = ask(tmp_path, moved, opened=remote, how=post)
    assert isinstance(error, EngineError)
    assert "http://elsewhere/v1/x" in str(error)
    assert len(server.asked) == 1


def test_a_server_that_hangs_is_told_by_its_seconds_and_not_asked_again(tmp_path: Path) -> None:
    error, server = ask(
        tmp_path, HANGS, opened=lambda socket: child(socket, timeout_s=0.2), how=post
    )
    assert isinstance(error, EngineError)
    assert not isinstance(error, ServerGone)
    assert "no answer within 0.2 s" in str(error)
    assert len(server.asked) == 1


def test_something_that_does_not_speak_http_is_told(tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    async def play() -> None:
        server = await asyncio.start_unix_server(greet, str(tmp_path / "s.sock"))
        client = child(tmp_path / "s.sock")
        with pytest.raises(EngineError, match="not HTTP"):
            await get(client)
        await client.close()
        server.close()

    asyncio.run(play())


def test_a_closed_client_asks_no_more(tmp_path: Path) -> None:
    async def play() -> None:
        async with FakeServer(tmp_path / "s.sock", {"/v1/x": [HANGS, FINE]}) as server:
            client = remote(server.socket)
            task = asyncio.ensure_future(post(client))
            await server.has_been_asked()
            await client.close()
            await client.close()
            with pytest.raises(EngineError):
                await task
            with pytest.raises(EngineError, match="closed"):
                await post(client)
            assert len(server.asked) == 1

    asyncio.run(play())


@pytest.mark.parametrize(
    ("base_url", "models", "tokenize"),
    [
        ("http://h:8000/v1", "http://h:8000/v1/models", "http://h:8000/tokenize"),
        ("http://h:8000/v1/", "http://h:8000/v1/models", "http://h:8000/tokenize"),
        ("http://h:8000", "http://h:8000/v1/models", "http://h:8000/tokenize"),
        ("https://h/a/v1", "https://h/a/v1/models", "https://h/a/tokenize"),
        ("https://h/v1beta/openai", "https://h/v1beta/openai/models", "https://h/v1beta/openai/t"),
        ("unix:/a/b.sock", "http://engine/v1/models", "http://engine/tokenize"),
    ],
)
def test_a_base_url_is_read_as_openai_clients_read_it(
    base_url: str, models: str, tokenize: str
) -> None:
    client = Client(base_url=base_url, key=None, request_timeout_s=1.0)
    assert str(client._url("/v1/models")) == models
    if tokenize.endswith("/tokenize"):
        assert str(client._url("/tokenize")) == tokenize


@pytest.mark.parametrize("base_url", ["", "h:8000/v1", "ftp://h/v1", "http://", "http://[/v1"])
def test_a_base_url_that_is_none_is_refused_with_an_example(base_url: str) -> None:
    with pytest.raises(EngineError, match="is no address") as raised:
        Client(base_url=base_url, key=None, request_timeout_s=1.0)
    assert "http://127.0.0.1:8000/v1" in raised.value.hint


def test_a_body_of_many_megabytes_is_sent_without_a_warning(tmp_path: Path) -> None:
    body = b'{"a":"' + b"x" * (3 << 20) + b'"}'
    _, server = ask(tmp_path, FINE, how=lambda client: client.post("/v1/x", body))
    assert len(server.asked[0][1]["a"]) == 3 << 20
