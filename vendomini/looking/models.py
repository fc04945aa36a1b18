"""A phase's models as far as they are known here: their files, their sizes, the window they share.

Looked at only for a phase whose runs will ask a model, and nothing is loaded.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vendomini.chat import MODEL
from vendomini.config import Phase, engines_of, models_of, windowless
from vendomini.engines.registry import backend_named
from vendomini.entrypoints import AUTO
from vendomini.errors import ConfigError
from vendomini.hardware import GIB
from vendomini.identity import absolute, is_local
from vendomini.models import ModelFacts, ModelIncomplete, find_folder, read_model
from vendomini.models.gguf import refuse_gguf
from vendomini.models.lookup import is_listed, model_spec, nearest_names
from vendomini.models.spec import ModelSpec
from vendomini.phase import Run
from vendomini.prepare import ModelName
from vendomini.store.experiment import Experiment
from vendomini.workloads.registry import asked_by

YES = ("1", "true", "yes", "on")
WINDOW = f"{MODEL}.context_length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """A phase's models as far as they are on this machine, and the window they all allow.

    `known` are those whose files are here; `sizes` is what is known of every model, or why
    nothing is. `strange` are names that nobody here knows: no file, no entry of the catalogue.
    `missing` may not be downloaded, and are not here. `window` is what a context length of ``auto``
    means, in tokens; None: nobody asks, or it is not known here. `limited_by` are the models that
    allow no more.
    """

    known: Mapping[ModelName, ModelFacts] = field(default_factory=dict)
    sizes: Mapping[ModelName, ModelSpec | ConfigError] = field(default_factory=dict)
    strange: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    window: int | None = None
    limited_by: tuple[str, ...] = ()

    def exceed(self, memory_gb: float) -> bool:
        """Whether the weights of one of them alone are more than so many GiB."""
        known = [size for size in self.sizes.values() if isinstance(size, ModelSpec)]
        return any(size.weight_bytes > memory_gb * GIB for size in known)

    @property
    def doubts(self) -> list[str]:
        """What a reader should know before anything else: which models may be a slip."""
        return [
            *map(strange_name, self.strange),
            *(
                f"model `{name}` is not on this machine, and HF_HUB_OFFLINE forbids to download "
                "it: `run` refuses that here"
                for name in self.missing
            ),
        ]

    @property
    def notes(self) -> list[str]:
        if self.window is None:
            return []
        return [
            f"{WINDOW}: auto is {self.window} tokens, the largest window that all models of this "
            f"phase share (set by {', '.join(self.limited_by)})"
        ]


def strange_name(name: str) -> str:
    """Of a name that nobody here knows, what was perhaps meant."""
    near = ", ".join(f"`{each}`" for each in nearest_names(name))
    return (
        f"model `{name}` is neither on this machine nor in the catalogue, and its sizes are a "
        f"guess at best: did you mean {near}?"
    )


def look_at_models(phase: Phase, *, is_here: bool, only_plan: bool = False) -> Models:
    """Read what is on this machine of a phase's models.

    `is_here`: the engines will run on this machine. `only_plan`: nothing will be loaded. Raises
    `ConfigError` for a model that no engine could load.
    """
    needs_files = needs_model(phase)
    asks_window = any(map(windowless, phase.arms))
    if not needs_files and not asks_window:
        return Models()
    names = names_of(phase)
    found, sizes = {}, {}
    missing: list[str] = []
    for name, revision in names:
        try:
            model = _read(name, revision, is_here=is_here)
        except NotHere:
            if needs_files and not only_plan:
                raise
            model = None
            missing += [name] if needs_files else []
        except ConfigError:
            if needs_files:
                raise
            continue
        if model is not None:
            found[name, revision] = model
        sizes[name, revision] = _size(name, revision)
    strange = [name for name, revision in names if needs_files and _is_strange(name, revision)]
    looked = Models(
        known=found,
        sizes=sizes,
        strange=tuple(dict.fromkeys(strange)),
        missing=tuple(missing),
    )
    lengths = {name: _allows(found.get(name), sizes.get(name)) for name in names}
    shared = [length for length in lengths.values() if length is not None]
    if not asks_window or len(shared) < len(lengths):
        return looked
    window = min(shared)
    limited_by = tuple(name for (name, _), length in lengths.items() if length == window)
    return replace(looked, window=window, limited_by=limited_by)


def needs_model(phase: Phase) -> bool:
    """Whether an engine of ours may have to load the phase's models."""
    asked = {arm.asks for arm in phase.arms} - {"nobody"}
    backends = {engine.backend for engine in engines_of(phase)}
    if "model" in asked and AUTO in backends:
        return True
    named = (backend_named(name) for name in backends - {AUTO})
    return bool(asked) and any(backend.planned_as is not None for backend in named)


def names_of(phase: Phase) -> list[ModelName]:
    """The models that the phase names, in the grid's order."""
    return list(dict.fromkeys((model.name, model.revision) for model in models_of(phase)))


def window_note(experiment: Experiment, every_run: Sequence[Run], models: Models) -> list[str]:
    """What a reader must know if ``auto`` meant another number when runs were played."""
    if models.window is None or not experiment.exists():
        return []
    older = [run for run in experiment.runs() if run.in_grid and asked_by(run) == "model"]
    windows = {str(_window(run)) for run in older} - {str(_window(run)) for run in every_run}
    if not windows:
        return []
    added = sorted(_names(every_run) - _names(older))
    why = f"adding {', '.join(added)} makes" if added else "the change makes"
    return [
        f"{WINDOW}: auto is {models.window} and was {', '.join(sorted(windows))} in the runs "
        f"there; {why} them other runs (to go on with those, give their number)"
    ]


# -- private -------------------------------------------------------------------------------


class NotHere(ConfigError):
    """A model that would have to be downloaded, and must not be."""


def _is_strange(name: str, revision: str | None) -> bool:
    return find_folder(name, revision) is None and not is_listed(name)


def _read(name: str, revision: str | None, *, is_here: bool) -> ModelFacts | None:
    """None for a model of the hub that is not here, or not all of it: it can be downloaded."""
    refuse_gguf(Path(absolute(name)))  # a name without a slash may be a file's, too
    folder = find_folder(name, revision)
    offline = is_here and os.environ.get("HF_HUB_OFFLINE", "").lower() in YES
    if folder is None:
        if offline:
            raise NotHere(
                f"model `{name}` is not in the hub's cache on this machine, and HF_HUB_OFFLINE "
                "forbids to download it",
                hint=f"download it first, or name its folder as {MODEL}.name",
            )
        return None
    try:
        return read_model(folder)
    except ModelIncomplete as error:
        if is_local(name):
            raise
        if offline:
            raise NotHere(str(error), hint=error.hint) from error
        return None


def _size(name: str, revision: str | None) -> ModelSpec | ConfigError:
    """The model's sizes, or why they are not known."""
    try:
        return model_spec(name, revision)
    except ConfigError as error:
        return error


def _allows(model: ModelFacts | None, size: ModelSpec | ConfigError | None) -> int | None:
    """The longest context of a model, by its files or else its own entry in the catalogue."""
    if model is not None:
        return model.max_model_len
    return size.max_model_len if isinstance(size, ModelSpec) and size.knows_context else None


def _names(runs: Sequence[Run]) -> set[str]:
    return {run.model.name for run in runs}


def _window(run: Run) -> object:
    return run.model.context_length
