"""Any OpenAI-compatible server that somebody else has started: what must be said of it."""

import re
from pathlib import Path

from vendomini.chat import Engine
from vendomini.engines.backend import ON_EVERY_SERVER, Backend, Say
from vendomini.errors import ConfigError
from vendomini.schema import shown
from vendomini.serving import EngineSettings, EngineSpec


class OpenAI(Backend):
    """Takes no GPU: the server has its own."""

    takes = ON_EVERY_SERVER | {"base_url"}

    def open(self, spec: EngineSpec, *, log: Path, said: Say) -> Engine:
        from vendomini.engines.remote import OpenAIEngine

        return OpenAIEngine(spec, said)

    def check(self, settings: EngineSettings) -> None:
        if not settings.base_url:
            raise ConfigError(
                "`engine.backend` is `openai`, but `engine.base_url` does not say where the "
                "server is",
                hint="give its address, such as engine.base_url=http://127.0.0.1:8000/v1",
            )
        if not re.match(r"https?://[^/\s]+", settings.base_url):
            raise ConfigError(
                f"`engine.base_url` is `{shown(settings.base_url)}`, which is no address of a "
                "server",
                hint="give one such as http://127.0.0.1:8000/v1",
            )
        if "@" in settings.base_url.split("/")[2]:
            raise ConfigError(
                "`engine.base_url` has a name or a password in it, which would be written into "
                "logs and plans",
                hint="leave out what is before the `@`, and put the key into the environment as "
                "VENDOMINI_API_KEY",
            )

    def where(self, settings: EngineSettings) -> str:
        return f"at {settings.base_url}"
