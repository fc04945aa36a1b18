"""The hf server as a process of its own, and a client for tests."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

KEY = "a key"
Ask = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A server that is ready."""

    folder: Path
    uds: Path
    process: subprocess.Popen[str]

    def talk(self, conversation: Callable[[Ask], Awaitable[Any]], *, key: str = KEY) -> Any:
        """Run a conversation with the server; `Ask` posts to a path and returns the reply."""

        async def main() -> Any:
            connector = aiohttp.UnixConnector(str(self.uds), limit=0)
            headers = {"Authorization": f"Bearer {key}"}
            async with aiohttp.ClientSession("http://x", connector=connector, headers=headers) as s:

                async def ask(path: str, **body: Any) -> Any:
                    method = "POST" if body else "GET"
                    sent = {"model": "tiny", **body} if body else None
                    async with s.request(method, path, json=sent) as reply:
                        if reply.content_type != "application/json":
                            return reply.status, await reply.text()
                        found = await reply.json()
                        return found if reply.status == 200 else (reply.status, found["error"])

                return await conversation(ask)

        return asyncio.run(main())

    def ask(self, path: str, *, key: str = KEY, **body: Any) -> Any:
        return self.talk(lambda ask: ask(path, **body), key=key)


def serve(folder: Path, uds: Path, log: Path, *arguments: str) -> Serving:
    """Start a server and wait until it is ready."""
    command = [sys.executable, "-m", "vendomini.engines.hf", "--model", str(folder)]
    command += ["--served-model-name", "tiny", "--uds", str(uds), *arguments]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ,
                "VENDOMINI_API_KEY": KEY,
                "HF_HUB_OFFLINE": "1",
                "OMP_NUM_THREADS": "1",
            },
        )
    # The socket is opened when the model is loaded: nothing else has to be waited for.
    while not uds.exists():
        assert process.poll() is None, log.read_text()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    return Serving(folder=folder, uds=uds, process=process)


def value_of(metrics: tuple[int, str], name: str) -> float:
    """A number that /metrics tells."""
    (line,) = [x for x in metrics[1].splitlines() if x.startswith(f"vendomini:{name}")]
    return float(line.split()[-1])
