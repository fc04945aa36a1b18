"""From a phase file to runs: load, compose, check, expand."""

from vendomini.config.expand import expand, values_of
from vendomini.config.load import Phase, load_phase

__all__ = ["Phase", "expand", "load_phase", "values_of"]
