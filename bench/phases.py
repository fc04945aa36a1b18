"""A shipped phase in full with the heuristic agent: does the dose arrive, and in what it should?

    python -m bench.phases configs/phases/phase1_small_models.yaml [--n-jobs N] [--json FILE]

The phase is played by `vendomini run` and read from the table that `vendomini collect` writes.
The rule policy asks no model, so that arms that differ in model or prompt alone play the same.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars

from vendomini.workloads.warehouse.cards import ERROR_TYPES

DOSE = "arm.pe_induction.p_shock"
AXES = ("arm.pe_induction.pe_mag", "arm.pe_induction.pe_type_mix", "arm.pe_induction.observability")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", type=Path)
    parser.add_argument("--n-jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        vendomini("run", "--config", options.phase, "--root", folder, "--n-jobs", options.n_jobs)
        played = time.perf_counter()
        experiment = next(Path(folder).iterdir())
        vendomini("collect", experiment)
        collected = time.perf_counter()
        runs = polars.read_parquet(experiment / "collected" / "runs.parquet")
    figures = {
        "phase": options.phase.stem,
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "workers": options.n_jobs,
        "minutes to play": round((played - started) / 60, 2),
        "minutes to collect": round((collected - played) / 60, 2),
        **figures_of(runs),
    }
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def vendomini(command: str, *arguments: object) -> None:
    kind = ["agent.kind=heuristic"] if command == "run" else []
    line = [sys.executable, "-m", "vendomini.cli.main", command, *map(str, arguments), *kind]
    subprocess.run(line, check=True)


def figures_of(runs: polars.DataFrame) -> dict[str, Any]:
    """Of a table of runs: ends, signs, and errors by dose and by every other axis of the dose."""
    done = runs.filter(polars.col("state") == "done")
    axes = [axis for axis in AXES if axis in runs.columns]
    crashed = column(done, "outcome.crash.type").drop_nulls()
    return {
        "runs": len(runs),
        "done": len(done),
        "steps": int(done["outcome.steps"].sum()),
        "crashed": len(crashed),
        "crash rate": round(len(crashed) / len(done), 5),
        "crashes by type": counts(crashed),
        "competing events": counts(column(done, "outcome.competing.type").drop_nulls()),
        "censored": int(done["outcome.censored"].sum()),
        "fulfilled, mean": round(float(done["outcome.measures.fulfilled"].mean()), 4),  # type: ignore[arg-type]
        "coverage": {type: coverage(done, type) for type in ERROR_TYPES},
        "mean error by p_shock": by(done, DOSE),
        **{f"mean error by {axis.rpartition('.')[2]}": by(done, axis) for axis in axes},
        **{
            f"mean error by {axis.rpartition('.')[2]} and p_shock": {
                str(value): by(done.filter(polars.col(axis) == value), DOSE)
                for value in done[axis].unique(maintain_order=True)
            }
            for axis in axes
        },
    }


def column(table: polars.DataFrame, name: str) -> polars.Series:
    """The column, or an empty one where no run has it."""
    return table[name] if name in table.columns else polars.Series(name, [], dtype=polars.String)


def counts(values: polars.Series) -> dict[str, int]:
    return {str(value): int((values == value).sum()) for value in sorted(values.unique())}


def coverage(table: polars.DataFrame, type: str) -> dict[str, Any]:
    predicted, resolved = (
        int(table[f"pe.{type}.{name}"].sum()) for name in ("predicted", "resolved")
    )
    return {
        "predicted": predicted,
        "resolved": resolved,
        "share": round(resolved / predicted, 4) if predicted else None,
    }


def by(table: polars.DataFrame, axis: str) -> dict[str, dict[str, float | None]]:
    """Mean over runs of each type's mean error, by an axis's values."""
    found: dict[str, dict[str, float | None]] = {}
    for value in table[axis].unique(maintain_order=True):
        part = table.filter(polars.col(axis) == value)
        found[str(value)] = {
            type: None if mean is None else round(float(mean), 5)  # type: ignore[arg-type]
            for type in ERROR_TYPES
            for mean in [part[f"pe.{type}.mean"].mean()]
        }
    return found


def show(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if not (isinstance(value, dict) and value and isinstance(next(iter(value.values())), dict)):
            print(f"{name}: {value}")
        elif " and " not in name:
            print(f"{name}:")
            for row, cells in value.items():
                said = "  ".join(f"{key} {cell}" for key, cell in cells.items())
                print(f"  {row:>14}  {said}")


if __name__ == "__main__":
    main()
