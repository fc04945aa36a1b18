"""A server that somebody else has started, as an engine."""

import asyncio
import os
from collections.abc import Callable, Mapping

from vendomini.chat import Capacity, EngineFeatures, Load, Reply, Request
from vendomini.engines.client import Backoff, Client, ServerGone
from vendomini.engines.served import Served, features_of
from vendomini.errors import EngineDead, EngineError
from vendomini.serving import EngineSpec

KEY_VARIABLES = ("VENDOMINI_API_KEY", "OPENAI_API_KEY")
"""Where a remote server's key is, the first that is set. Never in a file of ours."""


class OpenAIEngine:
    """Any OpenAI-compatible server at the settings' `base_url`, which nobody here started.

    The key is in the environment (`KEY_VARIABLES`). A server that turns out to be vLLM is used
    as one.
    """

    def __init__(
        self, spec: EngineSpec, said: Callable[[str], None], *, backoff: Backoff | None = None
    ) -> None:
        self._spec = spec
        self._backoff = backoff
        self._say = said
        self._client: Client | None = None
        self._served: Served | None = None
        self._gone: asyncio.Event | None = None
        self._death: EngineDead | None = None

    @property
    def features(self) -> EngineFeatures:
        return self._served.features if self._served is not None else features_of("openai")

    @property
    def capacity(self) -> Capacity:
        return self._served.capacity if self._served is not None else Capacity()

    @property
    def facts(self) -> Mapping[str, str]:
        return self._served.facts if self._served is not None else {}

    async def start(self) -> None:
        """Raises `EngineError`: no such host, refused, wrong key, no answer, not the model."""
        spec, settings = self._spec, self._spec.settings
        if settings.base_url is None:
            raise EngineError(
                "`engine.backend` is `openai`, but `engine.base_url` is not set",
                hint="such as engine.base_url=http://127.0.0.1:8000/v1",
            )
        variable = next((name for name in KEY_VARIABLES if os.environ.get(name, "").strip()), None)
        self._gone = asyncio.Event()
        self._client = Client(
            base_url=settings.base_url,
            key=os.environ[variable].strip() if variable else None,
            request_timeout_s=settings.request_timeout_s,
            backoff=self._backoff,
            key_from=f"the key is the environment variable {variable}"
            if variable
            else f"no key is set: put it into the environment variable {KEY_VARIABLES[0]}",
        )
        self._served = Served(self._client, spec=spec, dialect="openai", said=self._say)
        try:
            async with asyncio.timeout(settings.start_timeout_s):
                await self._served.open()
        except TimeoutError as error:
            await self.stop()
            raise EngineError(
                f"no answer within {settings.start_timeout_s:g} s from `{settings.base_url}`",
                hint="is the server stuck? else raise `engine.start_timeout_s`",
            ) from error
        except BaseException:
            await self.stop()
            raise

    async def answer(self, request: Request) -> Reply:
        assert self._served is not None
        assert self._client is not None
        try:
            return await self._served.answer(request)
        except ServerGone as error:
            # Asked many times over a minute. Is it this request, or the whole server?
            try:
                await self._client.get("/v1/models")
            except ServerGone:
                assert self._gone is not None
                self._death = self._death or EngineDead(str(error), hint=error.hint)
                self._gone.set()
                raise self._death from error
            raise

    async def load(self) -> Load | None:
        assert self._served is not None
        return await self._served.load()

    async def died(self) -> EngineDead:
        """Wait until a request, asked again and again, finds no server any more."""
        assert self._gone is not None
        await self._gone.wait()
        assert self._death is not None
        return self._death

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()
