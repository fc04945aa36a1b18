"""One run of a phase file through the real worker: what it asked, and what it left on disk.

The phase is loaded, expanded and claimed as `vendomini run` does it; only the engine is a
function of the request.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tests.harness import outcomes, play
from tests.harness import steps as logged_steps
from vendomini.chat import ChatRequest, Reply, Request
from vendomini.config import expand, load_phase
from vendomini.engines.scripted import ScriptedEngine
from vendomini.phase import settings_of
from vendomini.store.experiment import Experiment
from vendomini.workloads.registry import workload_named
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.workload import WAREHOUSE

BASE = Path(__file__).parent.parent.parent / "configs" / "base.yaml"
WINDOW = 32_000

Answer = Callable[[ChatRequest], Reply | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worked:
    """A run that was played to its end. `steps` and `outcome` are as the files hold them,
    `derived` is what the workload makes of these."""

    experiment: Experiment
    steps: list[dict[str, Any]]
    outcome: dict[str, Any]
    derived: Mapping[str, Any]
    requests: list[ChatRequest]

    def results(self, tool: str) -> list[dict[str, Any]]:
        """What the calls of a tool came to, in their order."""
        made = (step for step in self.steps if step["action"] is not None)
        return [step["result"] for step in made if step["action"]["tool"] == tool]


def worked(
    folder: Path,
    keys: Mapping[str, Any] | None = None,
    reply: Answer | None = None,
    *,
    phase: str | None = None,
    window: int = WINDOW,
) -> Worked:
    """Play the one run of a phase whose agent is a model's, answered by `reply`.

    `phase` is a phase file's text (none: one that inherits the base file and changes nothing),
    `keys` are settings by dotted name that replace its own. Without `reply` nothing may be asked.
    """
    file = folder / "phase.yaml"
    if phase is None:
        phase = f"inherit: {json.dumps(str(BASE))}\nexperiment: {{name: worked}}\n"
    file.write_text(phase, encoding="utf-8")
    chosen = {"agent.kind": "llm", "simulation.max_steps": 20, **(keys or {})}
    overrides = [f"{key}={json.dumps(value)}" for key, value in chosen.items()]
    loaded = load_phase(file, overrides, workload_named=workload_named)
    runs = expand(loaded, window=window)
    assert len(runs) == 1, "the phase has more than one run"
    experiment = Experiment(folder / "experiment")
    experiment.extend(loaded.text, runs)

    requests: list[ChatRequest] = []

    def answer(request: Request) -> Reply | str:
        assert isinstance(request, ChatRequest)
        assert reply is not None, "the run asked"
        requests.append(request)
        return reply(request)

    ended = play(experiment, ScriptedEngine(answer))
    assert ended.failed == 0, [
        error.message for errors in experiment.errors().values() for error in errors
    ]
    assert ended.runs == 1
    (run,) = runs
    lines = logged_steps(experiment, run.id)
    outcome = json.loads(outcomes(experiment)[run.id])
    return Worked(
        experiment=experiment,
        steps=[json.loads(line) for line in lines],
        outcome=outcome,
        derived=WAREHOUSE.derive(
            settings_of(run.settings, WarehouseSettings),
            [msgspec.json.decode(line, type=WAREHOUSE.step_type) for line in lines],
            outcome,
        ),
        requests=requests,
    )


def in_turn(*said: str, then: str) -> Answer:
    """The replies in turn, one a request, then always `then`."""
    waiting = iter(said)
    return lambda request: next(waiting, then)
