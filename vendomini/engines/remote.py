"""A server that somebody else has started, as an engine."""

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from vendomini.chat import Capacity, EngineFeatures, Load, Reply, Request
from vendomini.engines.client import (
    BUSY,
    Backoff,
    Client,
    NoAnswer,
    NoSuchHost,
    Refused,
    ServerFailed,
    ServerGone,
)
from vendomini.engines.listed import models_in
from vendomini.engines.served import Served, features_of
from vendomini.engines.words import in_words
from vendomini.errors import EngineDead, EngineError
from vendomini.serving import EngineSpec

KEY_VARIABLES = ("VENDOMINI_API_KEY", "OPENAI_API_KEY")
"""Where a remote server's key is, the first that is set. Never in a file of ours."""


LOOK_AGAIN_S = (0.2, 2.0)
"""Seconds until a server that is not ready is asked once more: first, and at most."""

SAY_EVERY_S = 30.0


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
        self._waits_for = ""  # what a server says that is not ready; empty: it is

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
        """Waits for a server that is not there yet, or loads, as long as a start may take.

        Raises `EngineError`: no such host, not ready in time, wrong key, no API, not the model.
        """
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
                await self._wait_until_up(self._client)
                await self._served.open()
        except TimeoutError as error:
            await self.stop()
            raise self._too_late() from error
        except BaseException:
            await self.stop()
            raise

    async def _wait_until_up(self, client: Client) -> None:
        """Says at once what it waits for, and again when that changes."""
        started = said_at = time.monotonic()
        wait_s, most_s = LOOK_AGAIN_S
        while (waits := await _not_ready(client)) is not None:
            why, asked_s = waits
            now = time.monotonic()
            if why != self._waits_for or now - said_at > SAY_EVERY_S:
                limit_s = self._spec.settings.start_timeout_s
                self._say(
                    f"waits for {client.name} since {now - started:.0f} s, up to {limit_s:g} s "
                    f"(`engine.start_timeout_s`): {why}"
                )
                said_at, self._waits_for = now, why
            await asyncio.sleep(max(wait_s, asked_s))
            wait_s = min(most_s, 2 * wait_s)
        self._waits_for = ""

    def _too_late(self) -> EngineError:
        settings = self._spec.settings
        if not self._waits_for:
            return EngineError(
                f"no answer within {settings.start_timeout_s:g} s from `{settings.base_url}`",
                hint="is the server stuck? else raise `engine.start_timeout_s`",
            )
        return EngineError(
            f"the server at `{settings.base_url}` was not ready after "
            f"{settings.start_timeout_s:g} s: {self._waits_for}",
            hint="is `engine.base_url` right, and does the server run? It mostly ends in `/v1`; "
            "else raise `engine.start_timeout_s`",
        )

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


async def _not_ready(client: Client) -> tuple[str, float] | None:
    """What a server is doing that cannot answer yet, and the seconds that it asks to wait; None: it
    can answer, or never will."""
    try:
        models = models_in(await client.get("/v1/models", once=True))
    except NoSuchHost:
        raise
    except ServerGone as error:
        return str(error).removeprefix(f"{client.name} "), 0.0
    except NoAnswer:
        return "it takes requests and does not answer them", 0.0
    except Refused as error:
        if error.status not in (408, 429):
            raise
        return _answers(error), error.retry_after_s or 0.0
    except ServerFailed as error:
        if error.status not in BUSY:
            raise
        return _answers(error), 0.0
    if not models:
        return "it serves no model yet", 0.0
    # Some list their model while it loads.
    with suppress(EngineError):
        try:
            await client.get("/health", once=True)
        except ServerFailed as error:
            if error.status == 503:
                return _answers(error), 0.0
    return None


def _answers(error: Refused | ServerFailed) -> str:
    return f"it answers {error.status}, {in_words(error.complaint)}"
