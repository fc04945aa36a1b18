"""The engines that are processes of ours, each behind the one client."""

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from vendomini.chat import Capacity, EngineFeatures, Load, Reply, Request
from vendomini.engines.child import Child, new_folder
from vendomini.engines.client import Client, ServerGone
from vendomini.engines.commands import KnownDevice, engine_command, own_server
from vendomini.engines.gpus import gpu_name
from vendomini.engines.metrics import attention_in
from vendomini.engines.served import Served
from vendomini.errors import ConfigError, EngineDead, EngineError
from vendomini.models import find_folder, read_model
from vendomini.serving import EngineSpec

DEATH_S = 5.0
"""How long a broken connection, or an engine's own failure, waits for its process's end to
explain it."""


def device_of(spec: EngineSpec, *, has_gpu: bool) -> KnownDevice:
    """Where the engine runs. Raises `EngineError` if a GPU is asked for and none is here."""
    if spec.settings.device == "cuda" and not has_gpu:
        raise EngineError(
            "`engine.device` is `cuda`, but there is no GPU here",
            hint="use `engine.device=auto`, or ask for GPUs in the profile",
        )
    if spec.settings.device == "auto":
        return "cuda" if has_gpu else "cpu"
    return spec.settings.device


def gpu_is_here(environ: Mapping[str, str]) -> bool:
    """Whether this process may use a GPU: the kernel's device files say, not what was promised."""
    if environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "NoDevFiles"):
        return False
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def _is_cached(model: str, revision: str | None) -> bool:
    """Whether all of a model is on this machine."""
    try:
        folder = find_folder(model, revision)
        return folder is not None and read_model(folder) is not None
    except ConfigError:
        return False


class ProcessEngine:
    """Implements `vendomini.chat.Engine` by a child process on a Unix socket."""

    def __init__(self, spec: EngineSpec, *, log: Path, said: Callable[[str], None]) -> None:
        self.spec = spec
        self._server = own_server(spec)
        self.address: tuple[Path, str] = (Path(), "")
        """The socket and the key of the running server."""
        self._log = log
        self._say = said
        self._child: Child | None = None
        self._client: Client | None = None
        self._served: Served | None = None
        self._device: KnownDevice | None = None
        self._gpu: str | None = None  # None: there is none, or nobody says which
        self._attention: str | None = None  # None: nobody says

    @property
    def features(self) -> EngineFeatures:
        return self._opened.features

    @property
    def capacity(self) -> Capacity:
        return self._opened.capacity

    @property
    def facts(self) -> Mapping[str, str]:
        told = {"device": self._device, "gpu": self._gpu, "attention": self._attention}
        return {
            **{name: value for name, value in told.items() if value is not None},
            **self._opened.facts,
        }

    async def start(self) -> None:
        """Raises `EngineError` with the root cause; then nothing of it is left running."""
        spec = self.spec
        self._device = device_of(spec, has_gpu=gpu_is_here(os.environ))
        self._gpu = gpu_name(os.environ) if self._device == "cuda" else None
        if self._device == "cpu":
            asked = f", though {spec.gpus} are in the plan" if spec.gpus else ""
            why = (
                "as the settings say" if spec.settings.device == "cpu" else f"no GPU is here{asked}"
            )
            self._say(f"[*] the engine runs on the CPU: {why}")
        if self._server.loading is not None:
            self._say(self._server.loading)
        key = secrets.token_urlsafe(32)
        folder = new_folder()
        socket = folder / "engine.sock"
        self.address = (socket, key)
        self._child = Child(folder=folder, log=self._log, said=self._say)
        try:
            await self._child.start(
                engine_command(
                    spec,
                    device=self._device,
                    socket=socket,
                    key=key,
                    is_cached=_is_cached(spec.model, spec.revision),
                    cpus=os.environ.get("SLURM_CPUS_PER_TASK"),
                )
            )
            self._client = Client(
                uds=socket, key=key, request_timeout_s=spec.settings.request_timeout_s
            )
            await self._child.wait_until(self._is_ready, timeout_s=spec.settings.start_timeout_s)
            self._served = Served(
                self._client,
                spec=spec,
                dialect=self._server.dialect,
                said=self._say,
            )
            await self._served.open()
            self._attention = await self._told_attention()
        except BaseException:
            await self.stop()
            raise
        if self._server.loaded is not None:
            self._say(self._server.loaded)
        tokens = self.capacity.kv_cache_tokens
        holds = f", KV cache of {tokens:,} tokens" if tokens else ""
        self._say(f"[*] the engine is ready on {self._device}{holds}")

    async def answer(self, request: Request) -> Reply:
        try:
            return await self._opened.answer(request)
        except EngineDead:
            raise
        except EngineError as error:
            if isinstance(error, ServerGone) or getattr(error, "is_the_servers", False):
                assert self._child is not None
                dead = await self._child.death_within(DEATH_S)
                if dead is not None:
                    raise dead from error
            raise

    async def load(self) -> Load | None:
        return await self._opened.load()

    async def died(self) -> EngineDead:
        assert self._child is not None
        return await self._child.died()

    async def stop(self) -> None:
        if self._served is not None:
            await self._served.close()
        if self._client is not None:
            await self._client.close()
        if self._child is not None:
            await self._child.stop()

    async def _told_attention(self) -> str | None:
        assert self._client is not None
        assert self._child is not None
        if (pattern := self._server.says_attention) is not None:
            said = pattern.search(self._child.tail())
            return None if said is None else said[1]
        try:
            return attention_in(await self._client.get("/metrics"))
        except EngineError:
            return None

    async def _is_ready(self) -> bool:
        assert self._client is not None
        try:
            async with asyncio.timeout(5.0):
                await self._client.get("/health")
        except (EngineError, TimeoutError):
            return False
        return True

    @property
    def _opened(self) -> Served:
        assert self._served is not None, "the engine was not started"
        return self._served
