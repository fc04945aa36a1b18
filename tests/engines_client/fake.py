"""A real HTTP server that answers by a script, well or badly, for tests of the client."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

from aiohttp import web


@dataclass(frozen=True, kw_only=True)
class Said:
    """One answer. `then` is what comes instead of its end."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    then: Literal["end", "hang", "reset", "reset in the middle"] = "end"


Step: TypeAlias = Said | Callable[[Any], Said]
Script: TypeAlias = Step | list[Step]
"""One answer for all, or one after another; the last one stays. A function is given the body."""


def says(value: object, status: int = 200, **headers: str) -> Said:
    """A JSON answer."""
    return Said(body=json.dumps(value).encode(), status=status, headers=headers)


def refuses(message: str, status: int = 400, **more: object) -> Said:
    """An error as vLLM words it."""
    return says({"error": {"message": message, "code": status, **more}}, status)


def chats(*texts: str, finish: str = "stop", logprobs: Any = None, **usage: object) -> Said:
    """A chat completion with a choice for each text."""
    taken: dict[str, object] = {"prompt_tokens": 7, "completion_tokens": 3, **usage}
    choices = [
        {"index": i, "message": {"content": text}, "finish_reason": finish, "logprobs": logprobs}
        for i, text in enumerate(texts)
    ]
    return says({"choices": choices, "usage": taken})


def letters(body: Any) -> Said:
    """A tokenizer by letters, with a first special token; a chat begins each turn with its role."""
    text = body.get("prompt")
    if text is None:
        text = "".join(turn["role"][0].upper() + turn["content"] for turn in body["messages"])
    return says({"tokens": [0, *map(ord, text)]})


HANGS = Said(body=b"", then="hang")
RESETS = Said(body=b"", then="reset")
BREAKS_OFF = Said(body=b'{"choices": [', then="reset in the middle")
HTML = Said(body=b"<!DOCTYPE html><html><title>Log in here</title></html>")
MODELS = says({"data": [{"id": "m", "max_model_len": 1000}]})


class FakeServer:
    """Serves a script on a Unix socket: an answer by path. `asked` is what came, in order."""

    def __init__(self, socket: Path, script: Mapping[str, Script]) -> None:
        self.socket = socket
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._script = {
            path: list(steps) if isinstance(steps, list) else [steps]
            for path, steps in script.items()
        }
        self._runner: web.AppRunner | None = None
        self._ends = asyncio.Event()
        self._came = asyncio.Condition()

    async def has_been_asked(self, count: int = 1) -> None:
        """Returns when so many requests have come."""
        async with asyncio.timeout(20), self._came:
            await self._came.wait_for(lambda: len(self.asked) >= count)

    def bodies(self, path: str) -> list[Any]:
        """The bodies that were sent to a path."""
        return [body for asked, body in self.asked if asked == path]

    async def __aenter__(self) -> "FakeServer":
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.socket)).start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """As a process that ends: its socket refuses, and what is under way breaks off."""
        self._ends.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        body = json.loads(content) if content else None
        async with self._came:
            self.asked.append((request.path, body))
            self._came.notify_all()
        self.headers.append(dict(request.headers))
        steps = self._script.get(request.path)
        if steps is None:
            return web.json_response({"error": {"message": "no such path"}}, status=404)
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        said = step if isinstance(step, Said) else step(body)
        if said.then == "hang":
            await self._ends.wait()
        if said.then in ("hang", "reset"):
            assert request.transport is not None
            request.transport.abort()
        if said.then == "reset in the middle":
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(said.body)
            assert request.transport is not None
            request.transport.abort()
            return response
        return web.Response(body=said.body, status=said.status, headers=said.headers)
