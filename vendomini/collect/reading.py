"""An experiment read for its tables: its runs, and the steps of those that are finished."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec

from vendomini.collect.labels import labels_of_steps
from vendomini.collect.mixing import Mixed, fallback_notes, mixed_arms, mixing_notes
from vendomini.collect.runs import Row, run_rows, workers_of, workload_of
from vendomini.collect.steps import derived_columns, steps_by_run
from vendomini.errors import WorkloadError
from vendomini.standing import find_short
from vendomini.store.experiment import Experiment
from vendomini.tables import (
    STEP_ROWS_AT_ONCE,
    Step,
    field_names,
    labelled,
    run_columns,
    run_labels,
    step_columns,
)
from vendomini.workloads.registry import todays_runs
from vendomini.workloads.workload import Workload

if TYPE_CHECKING:  # polars takes a while to load, and `import vendomini.cli` must not
    import polars


class Reading:
    """An experiment as its files tell it when this is made, for its tables.

    What follows from steps is in the table of runs: `table`, `schema`, `notes` and `without_steps`
    are of what `lines` has come to. Runs that are short are told of, and with `keep_short` their
    outcomes and what there is of their steps; `short` are those of the grid, which `run` plays
    again, and of others there is a note. Raises `StoreError` if it is no experiment.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        keep_short: bool = False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        experiment.check()
        runs = todays_runs(experiment.runs())
        short = find_short(experiment, progress)
        in_grid = {run.id for run in runs if run.in_grid}
        self.short = {run: why for run, why in short.items() if run in in_grid}
        self._every_short = short  # also those that no `run` plays again
        self._experiment = experiment
        self._runs = {run.id: run for run in runs}
        self._workload, note = workload_of(runs)
        # Each with the first run that it is about.
        self._notes = {"": (note, "")} if note else {}
        if gone := [run for run in short if run not in in_grid]:
            told = "as they are" if keep_short else "left out (--keep-short takes them as they are)"
            text = f"outcomes of short runs that are not in the grid ({len(gone)}) are {told}"
            self._notes["gone"] = (f"{text}: {short[gone[0]]}", gone[0])
        rows = run_rows(experiment, runs, self._workload, short=short, keep_short=keep_short)
        self._rows = {row["run_id"]: row for row in rows}
        self._played_by = workers_of(self._rows)
        self._found: set[str] = set()
        self.steps = 0

    @property
    def runs(self) -> int:
        return len(self._rows)

    @property
    def done(self) -> int:
        return sum(row["state"] == "done" for row in self._rows.values())

    @property
    def step_columns(self) -> tuple[str, ...]:
        """The fields of a step, in the order in which its workload names them."""
        return () if self._workload is None else field_names(self._workload.step_type)

    @property
    def derives(self) -> bool:
        """Whether anything follows from steps."""
        return self._workload is not None and type(self._workload).derive is not Workload.derive

    def lines(self, progress: Callable[[int, int], None]) -> Iterator[list[bytes]]:
        """The logged steps of one finished run after the other; `progress` is told how many of
        how many have been read."""
        progress(0, len(self._played_by))
        for id, lines in steps_by_run(self._experiment, self._played_by):
            try:
                self._rows[id] |= derived_columns(
                    self._experiment, self._runs[id], self._workload, lines
                )
            except WorkloadError as error:
                # One note for all runs in which it is the same: messages may name what was there.
                self._notes.setdefault(type(error.__cause__).__name__, (str(error), id))
            wanted = self._rows[id]["served.steps"]
            if id not in self._every_short and wanted is not None and len(lines) != wanted:
                text = f"{len(lines)} of {wanted} steps can be read so far: its worker lives"
                self._notes.setdefault("behind", (text, id))
            self.steps += len(lines)
            yield lines
            self._found.add(id)
            progress(len(self._found), len(self._played_by))

    def parts(self, progress: Callable[[int, int], None]) -> "Iterator[list[polars.Series]]":
        """The same as columns, some thousand rows at a time, each with its run's model and arm."""
        waiting: list[Step] = []
        told = run_labels(labels_of_steps(self._rows))
        for lines in self.lines(progress):
            waiting += map(_decode_step, lines)
            if len(waiting) >= STEP_ROWS_AT_ONCE:
                yield labelled(step_columns(waiting), told)
                waiting = []
        if waiting:
            yield labelled(step_columns(waiting), told)

    def table(self) -> "polars.DataFrame":
        """One row a run, whatever its state."""
        import polars

        return polars.DataFrame(run_columns(list(self._rows.values())))

    def schema(self, table: "polars.DataFrame") -> Row:
        """What the columns of the table of runs are: their type, and what the workload says of
        those it measures."""
        workload = self._workload
        measures = {} if workload is None else {each.column: each for each in workload.measures}
        columns: Row = {name: {"type": str(type)} for name, type in table.schema.items()}
        for name, measure in measures.items():
            if name in columns:
                columns[name] |= {k: v for k, v in asdict(measure).items() if k != "column"}
        if workload is None:
            return {"runs": columns}
        return {
            "workload": workload.name,
            "version": workload.version,
            "derive_version": workload.derive_version,
            "runs": columns,
        }

    @property
    def without_steps(self) -> tuple[str, ...]:
        """Finished runs of which there is no step, and nobody knows whether there were some."""
        return tuple(
            id
            for id in self._played_by
            if id not in self._found and self._rows[id]["served.steps"] is None
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the tables lack, and why; what answered, where that is no single engine."""
        odd = (f"passed over: {name}: {why}" for name, why in self._experiment.odd.items())
        told = (f"{note} (first in run {id})" if id else note for note, id in self._notes.values())
        rows = self._rows.values()
        return (*told, *mixing_notes(self.mixed), *fallback_notes(rows), *odd)

    @property
    def mixed(self) -> Mixed:
        """The arms whose runs were answered by several engines."""
        return mixed_arms(self._rows.values())


_decode_step = msgspec.json.Decoder(Step).decode
