"""Engines as somebody else would bring them, named by their class."""

import os
from pathlib import Path
from typing import Any

from vendomini.engines.backend import Say
from vendomini.engines.commands import OwnServer
from vendomini.engines.scripted import Scripted, ScriptedEngine, echo
from vendomini.engines.vllm import VLLM
from vendomini.errors import EngineError
from vendomini.serving import EngineSettings, EngineSpec

FAILING = "tests.stranger_engines:Failing"
FORK = "tests.stranger_engines:Fork"
DEAR = "tests.stranger_engines:Dear"


class Fork(VLLM):
    """A server that is started like vLLM's, from a package of its own."""

    packages = ("fork_of_vllm",)
    install = "pip install fork-of-vllm"


class Dear(Scripted):
    """A provider that needs a package which is here, and does not know its own prices."""

    stands_in = False
    packages = ("msgspec",)

    def usd(self, settings: EngineSettings, *, tokens_in: float, tokens_out: float) -> float:
        raise KeyError("price")


class Forgetful(Scripted):
    def open(self, spec: EngineSpec, *, log: Path, said: Say) -> Any:
        ScriptedEngine(echo)


class Misspelt(Scripted):
    takes = frozenset({"concurency"})


class Listed(Scripted):
    takes = "concurrency"  # type: ignore[assignment]


class OneWord(Scripted):
    packages = "msgspec"  # type: ignore[assignment]


class Mute(OwnServer):
    """A server that nobody knows how to start or to talk to."""


class Dotted(Scripted):
    packages = ("no_such_package.inside",)


class Failing(Scripted):
    """A server that cannot start where this variable is set; a script takes its place."""

    stands_in = False
    fallback = "scripted"
    FAILS = "STRANGER_ENGINE_FAILS"

    def open(self, spec: EngineSpec, *, log: Path, said: Say) -> Any:
        return Unstarted(echo)


class Unstarted(ScriptedEngine):
    async def start(self) -> None:
        if why := os.environ.get(Failing.FAILS):
            raise EngineError(why)
