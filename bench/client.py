"""What asking a server costs the one who asks: ``python -m bench.client``.

A null server in its own process answers every chat at once, over a Unix socket. 64 episodes under
way ask it with bodies of 32 KB by the way a worker goes: seed, hash, encode, HTTP, decode, log.
The figures are the CPU time of this process, all threads of it; the server's is not in them.

The parts are timed one by one over the same requests; `http` is what remains of the whole.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec

from vendomini.chat import (
    ChatRequest,
    Episode,
    Message,
    ask,
)
from vendomini.engines.protocol import chat_body, chat_reply
from vendomini.engines.remote import OpenAIEngine
from vendomini.phase import Run
from vendomini.serving import EngineSettings, EngineSpec
from vendomini.store.disk import Disk
from vendomini.store.hashing import request_hash
from vendomini.store.logs import Appender
from vendomini.store.records import ReplyEntry
from vendomini.worker.drive import Answers, asked_of, drive

EPISODES = 64
BODY_BYTES = 32 << 10
TURNS = 16
GOAL = 1000
SAID = "Order 12 units of red boxes from the nearest supplier, and keep the budget in sight. " * 4
ANSWER = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": SAID, "reasoning": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 8000,
        "completion_tokens": 80,
        "prompt_tokens_details": {"cached_tokens": 7936},
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--asks", type=int, default=200, help="of each episode")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
        return
    figures = measure(options.asks)
    for name, value in figures.items():
        print(f"{name:45} {value}")
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(asks: int) -> dict[str, object]:
    """The figures by name; `asks` is how often each episode asks."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "null.sock"
        server = subprocess.Popen([sys.executable, "-m", "bench.client", "--serve", str(socket)])
        try:
            cpu_s, wall_s, log_bytes = asyncio.run(play(socket, Path(folder), asks))
        finally:
            server.kill()
            server.wait()
    count = EPISODES * asks
    microseconds = 1e6 * cpu_s / count
    parts = split(asks)
    parts["http"] = microseconds - sum(parts.values())
    return {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "episodes under way": EPISODES,
        "requests": count,
        "bytes a body": len(chat_body(request(0, 0), model="m", dialect="openai")),
        "bytes of reply log a reply": round(log_bytes / count),
        "requests a second of wall time": round(count / wall_s),
        "requests a second per core": round(count / cpu_s),
        "goal": GOAL,
        "client CPU a request, us": round(microseconds),
        **{f"  of it {name}, us": round(value) for name, value in parts.items()},
    }


async def play(socket: Path, folder: Path, asks: int) -> tuple[float, float, int]:
    """CPU and wall seconds of all episodes, and the bytes they logged."""
    settings = EngineSettings(backend="openai", base_url=f"unix:{socket}", request_timeout_s=60)
    spec = EngineSpec(settings=settings, model="m")
    engine = OpenAIEngine(spec, print)
    while not socket.exists():
        await asyncio.sleep(0.02)
    await engine.start()
    path = folder / "replies.jsonl"
    log = Appender(path, Disk())

    def answers(number: int) -> Answers:
        run = Run(
            id=f"{number:032x}",
            workload="bench",
            workload_version=1,
            seed=0,
            replication=number,
            arm={},
            settings={},
        )
        return Answers(run, 0, logged={}, engines=asked_of(engine), log=log)

    await drive(episode(0, 20), answers(0))  # connections and caches are warm
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(
        *(drive(episode(number, asks), answers(number)) for number in range(EPISODES))
    )
    log.flush()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    log.close()
    await engine.stop()
    return cpu, wall, path.stat().st_size


def episode(number: int, asks: int) -> Episode[None]:
    """Asks, and does nothing with the replies."""
    for place in range(asks):
        yield from ask(request(number, place))


def request(number: int, place: int) -> ChatRequest:
    """A conversation of `BODY_BYTES`, most of it the same for all, as the worker would ask it."""
    last = Message(role="user", content=f"episode {number}, day {place}: what now?")
    return ChatRequest(messages=(*_TURNS, last))


def split(asks: int) -> dict[str, float]:
    """CPU microseconds a request of the parts that need no server."""
    requests = [replace(request(0, place), seed=7) for place in range(max(asks, 200))]
    raw = msgspec.json.encode(ANSWER)
    encoder = msgspec.json.Encoder()
    lines: list[bytes] = []

    def read_and_log(each: ChatRequest) -> None:
        reply = chat_reply(raw, each, dialect="openai", window=32768, seconds=0.1)
        entry = ReplyEntry(run="0" * 32, attempt=0, ask=0, position=0, hash="0" * 32, reply=reply)
        lines.append(encoder.encode(entry))

    def cpu_us(step: Callable[[ChatRequest], object]) -> float:
        started = time.process_time()
        for each in requests:
            step(each)
        return 1e6 * (time.process_time() - started) / len(requests)

    return {
        "hash": cpu_us(request_hash),
        "encode": cpu_us(lambda each: chat_body(each, model="m", dialect="openai")),
        "decode and log": cpu_us(read_and_log),
    }


async def serve(path: Path) -> None:
    """The null server: reads a request by its length, answers at once, parses no JSON."""
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(_Null, str(path))
    await server.serve_forever()


class _Null(asyncio.Protocol):
    def __init__(self) -> None:
        self._read = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._read[:end]).lower()
            _, found, rest = head.partition(b"content-length:")
            whole = end + 4 + (int(rest.split(b"\r\n", 1)[0]) if found else 0)
            if len(self._read) < whole:
                return
            self._transport.write(_answer(head))
            del self._read[:whole]


def _answer(head: bytes) -> bytes:
    return _ANSWERS.get(head.split(b" ", 2)[1], _OK)


def _http(body: bytes) -> bytes:
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body)}\r\n\r\n".encode() + body


_OK = _http(b"{}")
_ANSWERS = {
    b"/v1/models": _http(b'{"data":[{"id":"m","max_model_len":32768}]}'),
    b"/v1/chat/completions": _http(msgspec.json.encode(ANSWER)),
}
_PART = 'Day 3. Your stock: {"red box": 12, "blue box": 7}.\nThe supplier says "soon".\n'
_TURNS = (
    Message(role="system", content="You run a warehouse."),
    *(
        Message(
            role="assistant" if turn % 2 else "user",
            content=(_PART * BODY_BYTES)[: BODY_BYTES // TURNS],
        )
        for turn in range(TURNS)
    ),
)

if __name__ == "__main__":
    main()
