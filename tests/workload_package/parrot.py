"""An engine of somebody else's: it answers what it was asked, in capitals."""

from pathlib import Path

from vendomini.chat import ChatRequest, Engine, Reply, Request
from vendomini.engines.backend import Backend, Say
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.serving import EngineSettings, EngineSpec


class Parrot(Backend):
    takes = frozenset({"concurrency", "latency_s"})

    def open(self, spec: EngineSpec, *, log: Path, said: Say) -> Engine:
        said("the parrot is awake")
        return ScriptedEngine(answer, latency_s=spec.settings.latency_s)

    def usd(self, settings: EngineSettings, *, tokens_in: float, tokens_out: float) -> float:
        return (tokens_in + 4 * tokens_out) / 1e6


def answer(request: Request) -> Reply | str:
    if isinstance(request, ChatRequest):
        return request.messages[-1].content.upper()
    return echo(request)
