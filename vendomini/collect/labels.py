"""What a row says of its run whatever else varies, so that tables can be put together: pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from vendomini.phase import Run, has_model
from vendomini.store.records import Served, WorkerRecord
from vendomini.tables import flat

NOT_PLAYED = dict.fromkeys(("vendomini_version", "engine", "dtype", "quantization"))


def labels(run: Run, *, experiment: str) -> dict[str, Any]:
    """Whose a run is and what it is, constant within the experiment or not.

    `model` is null where nobody is asked. `agent_kind` is null in a workload without agents.
    """
    model = run.model if has_model(run.settings) and run.asks != "nobody" else None
    return {
        "experiment": experiment,
        "phase_file": run.phase_file,
        "workload": run.workload,
        "workload_version": run.workload_version,
        "model": None if model is None else model.name,
        "model_revision": None if model is None else model.revision,
        "agent_kind": flat(run.settings).get("agent.kind"),
        "seed": run.seed,
        **NOT_PLAYED,
    }


def labels_of_play(served: Served, worker: WorkerRecord | None) -> dict[str, Any]:
    """By what a finished run was played; null where its worker's file does not say."""
    engine: Mapping[str, Any] = {}
    facts: Mapping[str, str] = {}
    if worker is not None:
        engine, facts = worker.engine or {}, worker.engine_facts
    settings = engine.get("settings", {})
    return {
        "vendomini_version": None if worker is None else worker.provenance.get("vendomini"),
        "engine": served.backend,
        "dtype": facts.get("dtype") or settings.get("dtype"),
        "quantization": settings.get("quantization"),
    }


def labels_of_steps(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns for a table of steps, by run: what each was, of a table of runs."""
    axes: Sequence[str] = [
        name for name in next(iter(rows.values()), {}) if name == "model" or name.startswith("arm.")
    ]
    return {
        "run_id": list(rows),
        **{name: [row.get(name) for row in rows.values()] for name in axes},
    }
