"""What is known before anything is planned: of models, and of where engines may run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from vendomini.cluster import EngineEnvironment
from vendomini.engines.backend import Backend
from vendomini.errors import ConfigError
from vendomini.models import ModelFacts
from vendomini.models.spec import ModelSpec
from vendomini.planner.pool import Pool
from vendomini.store.measurements import Measured
from vendomini.store.records import Pin

ModelName: TypeAlias = tuple[str, str | None]
"""A model's name and revision, as the phase file has them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What is known here and now of engines and models; what is missing is not known.

    `python` is the interpreter of the workers, and `modules` those that it must have, each with
    what is in it.
    `packages` are by interpreter those that backends need, and those modules, that it has; one that
    is not listed cannot be asked from here. `models` are those whose files
    are here, `sizes` what is known of every model's sizes, or why nothing is. `pins` are what
    gave groups their first replies, or took the place of what could not, by pin key. `gpus` is how
    many GPUs local workers may use, `pools` the nodes that engines may run on, `memory_gb` this
    machine's memory, and `available_bytes` what of it can be had now. `measured` are speeds seen
    before. `wants_vllm`: VENDOMINI_USE_VLLM asks for it.
    """

    python: str = "python"
    modules: Mapping[str, str] = field(default_factory=dict)
    packages: Mapping[str, frozenset[str]] = field(default_factory=dict)
    models: Mapping[ModelName, ModelFacts] = field(default_factory=dict)
    sizes: Mapping[ModelName, ModelSpec | ConfigError] = field(default_factory=dict)
    pins: Mapping[str, Pin] = field(default_factory=dict)
    gpus: int = 0
    pools: tuple[Pool, ...] = ()
    memory_gb: float | None = None  # None, as the next: not asked
    available_bytes: int | None = None
    measured: tuple[Measured, ...] = ()
    wants_vllm: bool = False

    def size_of(self, name: ModelName) -> ModelSpec | None:
        """The model's sizes; None if they are not known."""
        found = self.sizes.get(name)
        return found if isinstance(found, ModelSpec) else None

    def lacks(self, backend: Backend, environment: EngineEnvironment) -> tuple[str, ...] | None:
        """Which packages of a backend an environment lacks; None if it cannot be asked here."""
        found = self.packages.get(environment.python or self.python)
        if environment.container is not None or found is None:
            return None
        return tuple(name for name in backend.packages if name not in found)
