"""What a row says of its run whatever else varies, so that tables can be put together: pure."""

from collections.abc import Mapping
from typing import Any

from vendomini.chat import MODEL
from vendomini.phase import Run, has_model
from vendomini.tables import RUN_LABELS, flat

SECTION, _, _ = MODEL.partition(".")


def labels(run: Run, *, experiment: str) -> dict[str, Any]:
    """Whose a run is and what it is, constant within the experiment or not: `RUN_LABELS`.

    `model` is null where nobody is asked, `agent_kind` in a workload whose agents are of no kind.
    """
    model = run.model if has_model(run.settings) and run.asks != "nobody" else None
    values = (
        experiment,
        run.phase_file,
        run.workload,
        run.workload_version,
        None if model is None else model.name,
        None if model is None else model.revision,
        flat(run.settings).get(f"{SECTION}.kind"),
        run.seed,
    )
    return dict(zip(RUN_LABELS, values, strict=True))


def labels_of_steps(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns for a table of steps, by run: what each was, of a table of runs."""
    first = next(iter(rows.values()), {})
    names = [name for name in first if name == "model" or name.startswith("arm.")]
    return {
        "run_id": list(rows),
        **{name: [row.get(name) for row in rows.values()] for name in names},
    }
