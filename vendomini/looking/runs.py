"""Which run a command is about: by phase file or experiment, and by the beginning of its id."""

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vendomini.config import Phase, expand, load_phase
from vendomini.errors import ConfigError, StoreError
from vendomini.looking.models import look_at_models
from vendomini.phase import Run
from vendomini.shipped import phases
from vendomini.store.experiment import Experiment
from vendomini.workloads.registry import todays_runs, workload_named

LISTED = 3  # ids that an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The runs that were asked for, and where results of them would be.

    `phase` reads the phase file; an experiment's runs are known without it.
    """

    runs: list[Run]
    experiment: Experiment
    phase: Callable[[], Phase]


def find_runs(
    config: Path, overrides: Sequence[str], *, root: Path, say: Callable[[str], None]
) -> Found:
    """The runs of a phase file, of an experiment by its folder or its name below `root`, or of a
    shipped phase by its name; the experiment wins over a shipped phase of its name.

    `say` is told what a reader of the phase must know. Raises `ConfigError` or `StoreError` if
    there is no such thing.
    """
    if os.path.isfile(config) or config.suffix in (".yaml", ".yml"):
        return _in_phase(config, overrides, lambda name: Experiment(root / name), say)
    places = [Experiment(place) for place in dict.fromkeys((config, root / config))]
    for experiment in places:
        if experiment.exists():
            return _in_experiment(experiment, overrides, say)
    if (file := phases().get(str(config))) is not None:
        return _in_phase(file, overrides, lambda name: Experiment(root / name), say)
    names = sorted(path.parent.name for path in root.glob("*/experiment.json"))
    near = difflib.get_close_matches(config.name, {*names, *phases()}, n=1)
    there_are = f"experiments there are: {', '.join(names)}" if names else f"`{root}` has none"
    raise ConfigError(
        f"`{config}` is neither a phase file nor an experiment",
        hint=(f"did you mean `{near[0]}`? " if near else "")
        + f"name a phase file, a shipped phase such as demo, or an experiment; {there_are}",
    )


def chosen(found: Found, wanted: str | None) -> Run:
    """The run whose id begins so; the first one if None. Raises `ConfigError` unless it is one."""
    runs = found.runs
    if not runs:
        raise StoreError(
            f"`{found.experiment.folder}` has no runs",
            hint="give the phase to `vendomini run` again",
        )
    if wanted is None:
        return runs[0]
    id = id_of([run.id for run in runs], wanted, "--run")
    return next(run for run in runs if run.id == id)


def id_of(ids: Sequence[str], wanted: str, option: str) -> str:
    """The id that begins so. Raises `ConfigError`, which names the option, unless it is one."""
    matching = [id for id in ids if id.startswith(wanted)] if wanted else []
    if len(matching) == 1:
        return matching[0]
    if matching:
        some = ", ".join(f"`{id}`" for id in matching[:LISTED])
        raise ConfigError(
            f"{option}: the ids of {len(matching)} runs begin with `{wanted}`",
            hint=f"give more of it: {some}{', ...' if len(matching) > LISTED else ''}",
        )
    near = difflib.get_close_matches(wanted, ids, n=LISTED, cutoff=0.5) or ids[:LISTED]
    listed = "--list" if option == "--run" else "`vendomini play --list`"
    raise ConfigError(
        f"{option}: no run's id begins with `{wanted}`",
        hint=f"there are {', '.join(f'`{id}`' for id in near)}; {listed} shows all {len(ids)}",
    )


def place_of(run: Run) -> str:
    """Where in the grid a run stands."""
    parts = [f"replication {run.replication}", *(f"{key}={run.arm[key]}" for key in run.arm)]
    return ", ".join(parts) + ("" if run.in_grid else " (no longer in the grid)")


def runs_in(experiment: Experiment) -> Callable[[], dict[str, Run]]:
    """Asks, when it is called, which runs an experiment has, if it is there."""
    return lambda: {run.id: run for run in experiment.runs()} if experiment.exists() else {}


@contextmanager
def of_file(file: Path) -> Iterator[None]:
    """Errors inside say which phase file they are about."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}", hint=error.hint) from None


# -- private -------------------------------------------------------------------------------


def _in_experiment(
    experiment: Experiment, overrides: Sequence[str], say: Callable[[str], None]
) -> Found:
    experiment.check()
    file = experiment.path("phase.yaml")
    if overrides:
        return _in_phase(file, overrides, lambda name: experiment, say)
    runs = sorted(todays_runs(experiment.runs()), key=lambda run: not run.in_grid)
    return Found(runs=runs, experiment=experiment, phase=lambda: _load(file, ()))


def _in_phase(
    file: Path,
    overrides: Sequence[str],
    experiment_of: Callable[[str], Experiment],
    say: Callable[[str], None],
) -> Found:
    phase = _load(file, overrides)
    for note in phase.notes:
        say(f"note: {note}")
    experiment = experiment_of(phase.experiment.name)
    with of_file(file):
        window = look_at_models(phase, is_here=True).window
        runs = expand(phase, window=window, known=runs_in(experiment))
    return Found(runs=runs, experiment=experiment, phase=lambda: phase)


def _load(file: Path, overrides: Sequence[str]) -> Phase:
    return load_phase(file, overrides, workload_named=workload_named)
