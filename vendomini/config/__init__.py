"""From a phase file to runs: load, compose, check, expand."""

from vendomini.config.arms import Arm
from vendomini.config.expand import expand, values_of, windowless
from vendomini.config.load import Phase, load_phase
from vendomini.config.translation import Translation, Translator, leaves

__all__ = [
    "Arm",
    "Phase",
    "Translation",
    "Translator",
    "expand",
    "leaves",
    "load_phase",
    "values_of",
    "windowless",
]
