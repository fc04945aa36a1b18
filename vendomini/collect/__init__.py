"""From the files of an experiment to tables: one row a run, one row a step."""

from vendomini.collect.loaded import Tables
from vendomini.collect.measures import Measured, measured
from vendomini.collect.runs import (
    known_settings,
    run_rows,
    todays_outcome,
    varying_settings,
    world_of,
)
from vendomini.collect.steps import derived, steps_by_run
from vendomini.collect.written import Collected, collect

__all__ = [
    "Collected",
    "Measured",
    "Tables",
    "collect",
    "derived",
    "known_settings",
    "measured",
    "run_rows",
    "steps_by_run",
    "todays_outcome",
    "varying_settings",
    "world_of",
]
