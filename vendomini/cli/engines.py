"""What a command asks of this machine before it plans: models, interpreters, GPUs, pins.

All of it is looked at only for a phase whose runs will ask a model, and nothing is loaded.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from vendomini.chat import MODEL
from vendomini.cli.places import Pools, memory_gb
from vendomini.cluster import Profile
from vendomini.config import Phase, values_of, windowless
from vendomini.engines.gpus import visible_gpus
from vendomini.engines.registry import backend_named
from vendomini.errors import ConfigError
from vendomini.hardware import GIB
from vendomini.identity import absolute, is_local
from vendomini.models import ModelFacts, ModelIncomplete, find_folder, read_model
from vendomini.models.lookup import model_spec
from vendomini.models.spec import ModelSpec
from vendomini.phase import Run, has_model, model_settings, setting
from vendomini.planner.deployment import BACKENDS
from vendomini.prepare import EngineFacts, ModelName, pin_key
from vendomini.serving import AUTO
from vendomini.store.experiment import Experiment
from vendomini.store.measurements import read_measurements
from vendomini.workloads.registry import asked_by, module_of
from vendomini.workloads.workload import Workload

YES = ("1", "true", "yes", "on")
WINDOW = f"{MODEL}.context_length"
ANSWER_S = 30.0
"""An interpreter answers in tenths of a second; a cold file system of a cluster takes longer."""

PROBE = """
import importlib.util, sys
for name in sys.argv[1:]:
    try:
        found = importlib.util.find_spec(name)
    except ImportError:  # of the package that it is in
        continue
    if found is not None and found.origin is not None:
        print(name)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """A phase's models as far as they are on this machine, and the window they all allow.

    `known` are those whose files are here; `sizes` is what is known of every model, or why
    nothing is. `window` is what a context length of ``auto`` means, in tokens; None: nobody asks,
    or it is not known here. `limited_by` are the models that allow no more.
    """

    known: Mapping[ModelName, ModelFacts] = field(default_factory=dict)
    sizes: Mapping[ModelName, ModelSpec | ConfigError] = field(default_factory=dict)
    window: int | None = None
    limited_by: tuple[str, ...] = ()

    def exceed(self, memory_gb: float) -> bool:
        """Whether the weights of one of them alone are more than so many GiB."""
        known = [size for size in self.sizes.values() if isinstance(size, ModelSpec)]
        return any(size.weight_bytes > memory_gb * GIB for size in known)

    @property
    def notes(self) -> list[str]:
        if self.window is None:
            return []
        return [
            f"{WINDOW}: auto is {self.window} tokens, the largest window that all models of this "
            f"phase share (set by {', '.join(self.limited_by)})"
        ]


def look_at_models(phase: Phase, *, is_here: bool) -> Models:
    """Read what is on this machine of a phase's models.

    `is_here`: the engines will run on this machine. Raises `ConfigError` for a model that no
    engine could load.
    """
    needs_files = needs_model(phase)
    asks_window = any(map(windowless, phase.arms))
    if not needs_files and not asks_window:
        return Models()
    names = models_of(phase)
    found, sizes = {}, {}
    for name, revision in names:
        try:
            model = _read(name, revision, is_here=is_here)
        except ConfigError:
            if needs_files:
                raise
            continue
        if model is not None:
            found[name, revision] = model
        sizes[name, revision] = _size(name, revision)
    lengths = {name: _allows(found.get(name), sizes.get(name)) for name in names}
    shared = [length for length in lengths.values() if length is not None]
    if not asks_window or len(shared) < len(lengths):
        return Models(known=found, sizes=sizes)
    window = min(shared)
    limited_by = tuple(name for (name, _), length in lengths.items() if length == window)
    return Models(known=found, sizes=sizes, window=window, limited_by=limited_by)


def look_at_engines(
    phase: Phase,
    models: Models,
    *,
    workload: Workload,
    profile: Profile | None,
    experiment: Experiment,
    restarted: Sequence[str],
    pools: Pools,
    is_sketch: bool = False,
) -> EngineFacts:
    """What is known of the engines that a phase's runs will ask. Without a profile they run here.

    `restarted` groups start anew: what served them says nothing. `pools` are where they may run.
    `is_sketch`: this machine is not said to be of the cluster, so its packages say nothing of it.
    Raises `ConfigError` for an interpreter or a container that cannot be used.
    """
    python = sys.executable
    if profile is not None and profile.python is not None:
        words = shlex.split(profile.python)  # it may be a command, and is quoted like one
        python = words[0] if len(words) == 1 else profile.python
    module = module_of(workload)
    if not needs_model(phase):
        here = not is_sketch and os.access(python, os.X_OK)
        return EngineFacts(
            python=python,
            workload=module,
            packages={python: _ask(python, module)} if here else {},
            models=models.known,
            sizes=models.sizes,
        )
    if profile is None:
        _check_containers(phase)
    return EngineFacts(
        python=python,
        workload=module,
        packages={} if is_sketch else _packages(phase, python, profile, module),
        models=models.known,
        sizes=models.sizes,
        pins=_pins(experiment, restarted),
        gpus=len(visible_gpus(os.environ)) if profile is None else 0,
        pools=pools.pools,
        memory_gb=memory_gb() if profile is None else None,
        measured=read_measurements(experiment.folder.parent),
        wants_vllm=os.environ.get("VENDOMINI_USE_VLLM", "").lower() in YES,
    )


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


def needs_model(phase: Phase) -> bool:
    """Whether an engine of ours may have to load the phase's models."""
    asked = {arm.asks for arm in phase.arms} - {"nobody"}
    backends = set(values_of(phase, "engine.backend"))
    if "model" in asked and AUTO in backends:
        return True
    named = (backend_named(str(name)) for name in backends - {AUTO})
    return bool(asked) and any(backend.planned_as is not None for backend in named)


def models_of(phase: Phase) -> list[ModelName]:
    """The models that the phase names, in the grid's order."""
    settings = [arm.settings for arm in phase.arms if has_model(arm.settings)]
    found = map(model_settings, {id(setting(one, MODEL)): one for one in settings}.values())
    return list(dict.fromkeys((model.name, model.revision) for model in found))


def _read(name: str, revision: str | None, *, is_here: bool) -> ModelFacts | None:
    """None for a model of the hub that is not here, or not all of it: it can be downloaded."""
    folder = find_folder(name, revision)
    offline = is_here and os.environ.get("HF_HUB_OFFLINE", "").lower() in YES
    if folder is None:
        if offline:
            raise ConfigError(
                f"model `{name}` is not in the hub's cache on this machine, and HF_HUB_OFFLINE "
                "forbids to download it",
                hint=f"download it first, or name its folder as {MODEL}.name",
            )
        return None
    try:
        return read_model(folder)
    except ModelIncomplete:
        if is_local(name) or offline:
            raise
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


def _packages(
    phase: Phase, python: str, profile: Profile | None, workload: str
) -> dict[str, frozenset[str]]:
    """By interpreter, what it has; those that are not on this machine are left out."""
    asked = {python}
    if set(values_of(phase, "engine.container")) == {None}:
        asked |= {absolute(str(path)) for path in values_of(phase, "engine.python") if path}
    if profile is not None:
        own = profile.engines.values()
        asked |= {each.python for each in own if each.python and not each.container}
    backends = {*BACKENDS, *map(str, values_of(phase, "engine.backend"))} - {AUTO}
    needed = {name for backend in backends for name in backend_named(backend).packages}
    found = {}
    for path in sorted(asked):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            found[path] = _ask(path, workload, needed)
        elif profile is None:
            raise ConfigError(
                f"`engine.python` is `{path}`, which is no program that can be run",
                hint="name the interpreter of the engine's environment, such as env/bin/python",
            )
    return found


def _ask(python: str, workload: str, needed: AbstractSet[str] = frozenset()) -> frozenset[str]:
    """Which packages an interpreter has, and whether the module of a workload. They are looked
    for; of a module inside a package, the package is loaded."""
    names = sorted({workload, *needed})
    if python == sys.executable:
        own = frozenset({workload})  # it is loaded here
        return own | {n for n in names if n not in own and importlib.util.find_spec(n) is not None}
    try:
        done = subprocess.run(
            [python, "-c", PROBE, *names],
            capture_output=True,
            text=True,
            timeout=ANSWER_S,
            check=False,
        )
        problem = done.stderr.strip().splitlines()[-1:] if done.returncode else []
        failed = done.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        problem, failed = [str(error)], True
    if failed:
        raise ConfigError(
            f"`{python}` is no Python that works: {problem[0] if problem else 'it says nothing'}",
            hint="name the interpreter of the engine's environment as engine.python",
        )
    return frozenset(done.stdout.split())


def _check_containers(phase: Phase) -> None:
    images = [str(image) for image in values_of(phase, "engine.container") if image]
    if images and not (shutil.which("apptainer") or shutil.which("singularity")):
        raise ConfigError(
            f"`engine.container` is `{images[0]}`, but neither apptainer nor singularity is on "
            "PATH",
            hint="load its module, or use engine.python instead",
        )
    for image in images:
        if "://" not in image and not Path(image).expanduser().exists():
            raise ConfigError(
                f"`engine.container` is `{image}`, and there is no such file",
                hint="name an image file, or one to fetch, such as docker://vllm/vllm-openai",
            )


def _pins(experiment: Experiment, restarted: Sequence[str]) -> dict[str, str]:
    if not experiment.exists():
        return {}
    anew = {pin_key(group) for group in restarted}
    names = (name.removesuffix(".json") for name in experiment.disk.names(experiment.path("pins")))
    found = {name: experiment.pinned(name) for name in names if name not in anew}
    return {name: pin.backend for name, pin in found.items() if pin is not None}


def _names(runs: Sequence[Run]) -> set[str]:
    return {run.model.name for run in runs}


def _window(run: Run) -> object:
    return run.model.context_length
