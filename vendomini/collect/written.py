"""The tables as files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vendomini.collect.mixing import Mixed
from vendomini.collect.reading import Reading
from vendomini.store.experiment import Experiment
from vendomini.store.records import encode
from vendomini.tables import replace_whole, write_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was written. `short` are runs with a result, but not all that it rests on, each with
    why; `without_steps` finished runs of which there is no step, and nobody knows whether there
    were some; `mixed` has the arms whose runs were answered by several engines, with how many each
    answered; `notes` say what else the tables lack, and why."""

    runs_parquet: Path
    runs_csv: Path
    steps_parquet: Path
    schema_json: Path
    runs: int
    done: int
    steps: int
    without_steps: tuple[str, ...]
    notes: tuple[str, ...] = ()
    short: Mapping[str, str] = field(default_factory=dict)
    mixed: Mixed = field(default_factory=dict)


def collect(
    experiment: Experiment,
    *,
    out: Path,
    progress: Callable[[int, int], None],
    keep_short: bool = False,
) -> Collected:
    """Write `runs.parquet`, `runs.csv`, `steps.parquet` and `schema.json` into `out`.

    Every run has a row, whatever its state; steps are those of finished runs. `progress` is
    told how many of how many finished runs have been read. Of runs that are short nothing is told
    but that they are, or, with `keep_short`, what there is. Raises `StoreError`.
    """
    experiment.check()
    experiment.disk.make_folder(out)
    reading = Reading(experiment, keep_short=keep_short)
    runs_parquet, runs_csv = out / "runs.parquet", out / "runs.csv"
    steps_parquet, schema_json = out / "steps.parquet", out / "schema.json"

    # The steps first: what follows from them is in the table of runs. Memory does not grow with
    # the experiment, parts are written and joined on disk.
    def write(path: Path) -> None:
        write_parts(reading.parts(progress), path, fields=reading.step_columns)

    replace_whole(steps_parquet, write)
    table = reading.table()
    replace_whole(runs_parquet, table.write_parquet)
    replace_whole(runs_csv, table.write_csv)
    schema = encode(reading.schema(table))
    replace_whole(schema_json, lambda path: path.write_bytes(schema))
    return Collected(
        runs_parquet=runs_parquet,
        runs_csv=runs_csv,
        steps_parquet=steps_parquet,
        schema_json=schema_json,
        runs=reading.runs,
        done=reading.done,
        steps=reading.steps,
        without_steps=reading.without_steps,
        notes=reading.notes,
        short=reading.short,
        mixed=reading.mixed,
    )
