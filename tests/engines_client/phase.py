"""Runs of the warehouse's language model agent, played by a worker against the fake server."""

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.engines_client.fake import FakeServer, Said, Script, says
from tests.harness import job_for, make_worker
from tests.product import ROOT
from tests.specs import engine_spec
from vendomini.chat import Reply
from vendomini.config import expand, load_phase
from vendomini.engines.client import Backoff
from vendomini.engines.remote import OpenAIEngine
from vendomini.store.experiment import Experiment
from vendomini.worker.worker import Ended
from vendomini.workloads.registry import workload_named

CALL = json.dumps({"tool": "tool_check_inbox", "args": {}})
"""A reply that every mode without a demanded card reads."""

QUICK = Backoff(tries=2, first_s=0.001, most_s=0.001)
LISTED = says({"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "me"}]})


def completion(content: Any = CALL, finish: Any = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion as OpenAI gives it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, **message},
                "finish_reason": finish,
                "logprobs": None,
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What became of a phase, and what was asked and said meanwhile."""

    ended: Ended
    experiment: Experiment
    said: list[str]
    bodies: list[Any]

    @property
    def outcomes(self) -> list[dict[str, Any]]:
        results = (self.experiment.result(run.id) for run in self.experiment.runs())
        return [json.loads(bytes(result.outcome)) for result in results if result is not None]

    @property
    def errors(self) -> list[str]:
        found = self.experiment.errors().values()
        return [error.message for errors in found for error in errors]

    @property
    def replies(self) -> list[Reply]:
        """All logged ones."""
        logs = self.experiment.path("logs").glob("*.replies.jsonl")
        lines = itertools.chain.from_iterable(log.read_bytes().splitlines() for log in logs)
        return [msgspec.convert(json.loads(line)["reply"], Reply) for line in lines]

    def total(self, *path: str) -> int:
        """A number of the outcome, summed over all runs."""
        found = 0
        for outcome in self.outcomes:
            value: Any = outcome
            for name in path:
                value = value[name]
            found += value
        return found


def play(
    folder: Path,
    chat: Script,
    *,
    runs: int = 2,
    steps: int = 15,
    mode: str = "optional",
    overrides: Sequence[str] = (),
    script: Mapping[str, Script] | None = None,
) -> Played:
    """Play a small phase to its end by one worker; `chat` is the server's script for replies."""
    file = folder / "phase.yaml"
    phase = {
        "inherit": str(ROOT / "configs" / "base.yaml"),
        "experiment": {"name": "p", "replications": runs},
        "agent": {
            "kind": "llm",
            "model": {"name": "m", "context_length": 32768},
            "interface": {"beliefs_every": None},
        },
        "simulation": {"max_steps": steps},
        "engine": {"backend": "openai", "base_url": "http://127.0.0.1:1/v1"},
    }
    file.write_text(json.dumps(phase))  # JSON is YAML
    asked = (f"agent.interface.prediction_mode={mode}", *overrides)
    loaded = load_phase(file, asked, workload_named=workload_named)
    experiment = Experiment(folder / "experiment")
    experiment.extend(loaded.text, expand(loaded))
    said: list[str] = []

    async def live() -> tuple[Ended, list[Any]]:
        paths: dict[str, Script] = {"/v1/models": LISTED, **(script or {})}
        full = {**paths, "/v1/chat/completions": chat}
        async with FakeServer(folder / "s.sock", full) as server:
            spec = engine_spec(
                backend="openai",
                model="m",
                base_url=f"unix:{server.socket}",
                request_timeout_s=20.0,
                start_timeout_s=20.0,
            )
            engine = OpenAIEngine(spec, said.append, backoff=QUICK)
            job = job_for(experiment, engine=spec, concurrency=8)
            ended = await make_worker(experiment, job, engine, said=said.append).work()
            return ended, server.bodies("/v1/chat/completions")

    ended, bodies = asyncio.run(live())
    return Played(ended=ended, experiment=experiment, said=said, bodies=bodies)


def every(period: int, odd: Said, else_: Said) -> Any:
    """A step that gives an odd answer each so many times."""
    count = itertools.count(1)
    return lambda body: odd if next(count) % period == 0 else else_
