"""The tables in memory, each made when it is first asked for."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vendomini.collect.reading import Reading
from vendomini.store.experiment import Experiment
from vendomini.tables import joined_parts

if TYPE_CHECKING:  # polars takes a while to load: it is when a table is asked for
    import polars


class Tables:
    """What `collect` would write of an experiment, without writing it.

    Each table is as the files are when it is first asked for, and stays so; `load` again for what
    has been played since. Raises `StoreError` if the experiment cannot be read.
    """

    def __init__(self, experiment: Experiment, *, keep_short: bool = False) -> None:
        experiment.check()
        self._experiment = experiment
        self._keep_short = keep_short

    def __repr__(self) -> str:
        return f"<tables of experiment {self.name!r} in {str(self.folder)!r}>"

    @property
    def name(self) -> str:
        return self._experiment.name

    @property
    def folder(self) -> Path:
        return self._experiment.folder

    @property
    def runs(self) -> "polars.DataFrame":
        """One row a run, whatever its state; what its columns mean is in `schema`."""
        return self._read[0]

    @property
    def steps(self) -> "polars.DataFrame":
        """One row a logged step, of the runs that are finished."""
        return self._read_steps[0]

    @property
    def without_steps(self) -> tuple[str, ...]:
        """Finished runs that `steps` has nothing of, of a version that did not say whether there
        were some."""
        return self._read_steps[1]

    @property
    def short(self) -> Mapping[str, str]:
        """Runs that have a result, but not all that it rests on, each with why: `vendomini run`
        plays them again. Their outcomes are left out, unless they were asked for."""
        return self._read[3]

    @property
    def schema(self) -> Mapping[str, Any]:
        """What is in `schema.json`: the workload and its version, and under ``runs``, by column,
        its ``type`` and what the workload says of those it measures."""
        return self._read[1]

    @property
    def notes(self) -> tuple[str, ...]:
        """What the table of runs lacks, and why."""
        return self._read[2]

    @cached_property
    def _read(
        self,
    ) -> "tuple[polars.DataFrame, Mapping[str, Any], tuple[str, ...], Mapping[str, str]]":
        reading = Reading(self._experiment, keep_short=self._keep_short)
        if reading.derives:
            for _ in reading.lines(_in_silence):
                pass
        table = reading.table()
        return table, reading.schema(table), reading.notes, reading.short

    @cached_property
    def _read_steps(self) -> "tuple[polars.DataFrame, tuple[str, ...]]":
        reading = Reading(self._experiment, keep_short=self._keep_short)
        table = joined_parts(reading.parts(_in_silence), fields=reading.step_columns)
        return table, reading.without_steps


def _in_silence(done: int, total: int) -> None:
    """Nobody waits for it."""
