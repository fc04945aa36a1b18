"""From a phase file to runs: load, compose, check, expand."""

from vendomini.config.arms import Arm
from vendomini.config.expand import engines_of, expand, models_of, windowless
from vendomini.config.load import Phase, load_phase
from vendomini.config.translation import Translation, Translator, leaves

__all__ = [
    "Arm",
    "Phase",
    "Translation",
    "Translator",
    "engines_of",
    "expand",
    "leaves",
    "load_phase",
    "models_of",
    "windowless",
]
