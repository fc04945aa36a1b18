"""Real engines in tests: opened as a worker opens them, asked from plain test functions."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.specs import engine_spec
from vendomini.chat import Engine, Reply, Request
from vendomini.engines.registry import engine_for
from vendomini.serving import EngineSpec

ROOT = Path(__file__).parent.parent.parent
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
KV_CACHE_BYTES = 1 << 26
MAX_MODEL_LEN = 2048

T = TypeVar("T")


def vllm_python() -> str:
    """The interpreter of vLLM's own environment; skips the test without one, fails it in CI."""
    if not VLLM_PYTHON.exists():
        reason = "vLLM is not installed in .venv-vllm: `make test` installs it"
        if "CI" in os.environ:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return str(VLLM_PYTHON)


def spec_for(backend: str, model: Path, **changes: Any) -> EngineSpec:
    """A spec that suits a tiny model on a CPU."""
    values: dict[str, Any] = {
        "backend": backend,
        "model": str(model),
        "device": "cpu",
        # Left to themselves, vLLM halves a float32 checkpoint and transformers does not.
        "dtype": "float32",
        "kv_cache_memory_bytes": KV_CACHE_BYTES,
        "max_model_len": MAX_MODEL_LEN,
        "start_timeout_s": 300.0,
        "request_timeout_s": 120.0,
    }
    if backend == "vllm":
        values["python"] = vllm_python()
    return engine_spec(**{**values, **changes})


class Live:
    """An engine with an event loop of its own, for as long as the block lasts."""

    def __init__(self, spec: EngineSpec, home: Path) -> None:
        self.spec = spec
        self.log = home / "engine.log"
        self.said: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.engine: Engine = engine_for(spec, log=self.log, said=self.said.append)

    def __enter__(self) -> "Live":
        self._thread.start()
        try:
            self.run(self.engine.start(), timeout_s=400)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.engine.stop())
        self._end()

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout_s: float = 180) -> T:
        """Its result; from any thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def ask(self, request: Request) -> Reply:
        return self.run(self.engine.answer(request))

    def ask_all(self, requests: list[Request]) -> list[Reply]:
        """All at once."""

        async def together() -> list[Reply]:
            return list(await asyncio.gather(*map(self.engine.answer, requests)))

        return self.run(together())

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
