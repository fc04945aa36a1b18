"""What engines can run on here, and as what: interpreters, containers, GPUs, pins.

All of it is looked at only for a phase whose runs will ask a model, and nothing is loaded.
"""

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from vendomini.cluster import Profile
from vendomini.config import Phase, engines_of
from vendomini.engines.gpus import visible_gpus
from vendomini.engines.memory import available_memory
from vendomini.engines.registry import backend_named
from vendomini.entrypoints import AUTO, ENGINES
from vendomini.errors import ConfigError, EngineError
from vendomini.identity import absolute
from vendomini.looking.models import YES, Models, needs_model
from vendomini.looking.places import Pools, memory_gb
from vendomini.phase import pin_key
from vendomini.planner.deployment import BACKENDS
from vendomini.prepare import EngineFacts
from vendomini.store.experiment import Experiment
from vendomini.store.measurements import read_measurements
from vendomini.store.records import Pin
from vendomini.workloads.registry import module_of
from vendomini.workloads.workload import Workload

ANSWER_S = 30.0
"""An interpreter answers in tenths of a second; a cold file system of a cluster takes longer."""

PROBE = """
import importlib.util, sys
for name in sys.argv[1:]:
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # of the package that it is in; of what is no file
        continue
    if found is not None and found.origin is not None:
        print(name)
"""


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
    modules = _modules(phase, workload)
    pins = _pins(experiment, restarted)
    if not needs_model(phase):
        here = not is_sketch and os.access(python, os.X_OK)
        return EngineFacts(
            python=python,
            modules=modules,
            packages={python: _ask(python, modules, _needed(phase))} if here else {},
            models=models.known,
            sizes=models.sizes,
            pins={name: pin for name, pin in pins.items() if pin.instead_of is not None},
        )
    if profile is None:
        _check_containers(phase)
    return EngineFacts(
        python=python,
        modules=modules,
        packages={} if is_sketch else _packages(phase, python, profile, modules),
        models=models.known,
        sizes=models.sizes,
        pins=pins,
        gpus=len(visible_gpus(os.environ)) if profile is None else 0,
        pools=pools.pools,
        memory_gb=memory_gb() if profile is None else None,
        available_bytes=_available_bytes() if profile is None else None,
        measured=read_measurements(experiment.folder.parent),
        wants_vllm=os.environ.get("VENDOMINI_USE_VLLM", "").lower() in YES,
    )


# -- private -------------------------------------------------------------------------------


def _packages(
    phase: Phase, python: str, profile: Profile | None, modules: Iterable[str]
) -> dict[str, frozenset[str]]:
    """By interpreter, what it has; those that are not on this machine are left out."""
    asked = {python}
    engines = engines_of(phase)
    if all(engine.container is None for engine in engines):
        asked |= {absolute(engine.python) for engine in engines if engine.python}
    if profile is not None:
        own = profile.engines.values()
        asked |= {each.python for each in own if each.python and not each.container}
    needed = _needed(phase)
    found = {}
    for path in sorted(asked):
        if os.path.isfile(path) and os.access(path, os.X_OK):
            found[path] = _ask(path, modules, needed)
        elif profile is None:
            raise ConfigError(
                f"`engine.python` is `{path}`, which is no program that can be run",
                hint="name the interpreter of the engine's environment, such as env/bin/python",
            )
    return found


def _needed(phase: Phase) -> set[str]:
    """The packages of all backends that may serve it."""
    backends = {*BACKENDS, *(engine.backend for engine in engines_of(phase))} - {AUTO}
    return {name for backend in backends for name in backend_named(backend).packages}


def _modules(phase: Phase, workload: Workload) -> dict[str, str]:
    """The modules that workers load, each with what is in it: of the workload, and of engines."""
    names = {engine.backend for engine in engines_of(phase)} - {AUTO, *ENGINES.own}
    theirs = {type(backend_named(name)).__module__: f"engine `{name}`" for name in names}
    return {module_of(workload): f"workload `{workload.name}`", **theirs}


def _ask(python: str, modules: Iterable[str], needed: AbstractSet[str]) -> frozenset[str]:
    """Which packages an interpreter has, and which modules of workloads and engines. They are
    looked for; of a module inside a package, the package is loaded."""
    names = {*modules, *needed}
    if python != sys.executable:
        return _told(python, names)
    # What is found here, by a script's own folder for example, a worker need not find.
    theirs = {name for name in modules if name.partition(".")[0] != "vendomini"}
    sure = frozenset(name for name in names - theirs if _is_here(name))
    return sure | _told(python, theirs) if theirs else sure


def _told(python: str, names: Iterable[str]) -> frozenset[str]:
    """Which modules an interpreter finds that is started as a worker is."""
    try:
        done = subprocess.run(
            [python, "-c", PROBE, *sorted(names)],
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


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # of the package that it is in
        return False


def _check_containers(phase: Phase) -> None:
    images = [engine.container for engine in engines_of(phase) if engine.container]
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


def _pins(experiment: Experiment, restarted: Sequence[str]) -> dict[str, Pin]:
    if not experiment.exists():
        return {}
    anew = {pin_key(group) for group in restarted}
    names = (name.removesuffix(".json") for name in experiment.disk.names(experiment.path("pins")))
    found = {name: experiment.pinned(name) for name in names if name not in anew}
    return {name: pin for name, pin in found.items() if pin is not None}


def _available_bytes() -> int | None:
    """None where the kernel does not say: an engine that needs to know asks there."""
    try:
        return available_memory().bytes
    except EngineError:
        return None
