"""Loads a phase file and checks it whole, so that nothing is written before all of it is right."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, get_type_hints

from vendomini.config.draft import (
    FIXED,
    GRID,
    PARTS,
    STEPS_BY_LEVEL,
    Draft,
    Tree,
    compose,
)
from vendomini.errors import ConfigError
from vendomini.identity import absolute, is_local
from vendomini.interpolation import resolved
from vendomini.phase import EngineSettings, ExperimentSettings, Scalar, setting, settings_of
from vendomini.schema import check_value, complete, defaults, find_setting, shown
from vendomini.yamlfile import dump_yaml, parse_value

MOST_RUNS = 100_000
"""A larger grid is a slip in the file: the studies this is for have some thousands of runs."""

LONGEST_NAME = 100
"""Bytes of an experiment's name: it becomes part of folder and job names, which end at 255."""

MODEL = "agent.model.name"
STEPS = "simulation.max_steps"
LEVEL = "simulation.complexity_level"


class WorkloadType(Protocol):
    """What must be known of a workload to read its phase files."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def settings_type(self) -> type: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase file, composed and checked.

    `axes` are the grid's, in the file's order. `base` holds every setting, resolved, by section:
    `experiment`, `engine`, and the workload's; `fixed` is applied to it. `text` is all of it as a
    phase file of its own, which loads as the same phase. `notes` are what a reader of the plan
    should know, and no part of what the phase is.
    """

    path: Path = field(compare=False)
    experiment: ExperimentSettings
    workload: str
    workload_version: int
    settings_type: type
    axes: tuple[tuple[str, tuple[Scalar, ...]], ...]
    fixed: Mapping[str, Any]
    max_steps_by_level: Mapping[str, int]
    base: Mapping[str, Any]
    run_count: int
    text: str
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def seed(self) -> int:
        """The seed of every run; `experiment.seed: null` means 0."""
        return self.experiment.seed or 0

    @property
    def seed_is_default(self) -> bool:
        """Whether the file left the seed open, so that the plan must say which one it is."""
        return self.experiment.seed is None


def load_phase(
    path: Path, overrides: Sequence[str] = (), *, workload_named: Callable[[str], WorkloadType]
) -> Phase:
    """The phase that a file and command-line overrides (``KEY=VALUE``) say.

    Later wins: a file over what it inherits, `fixed` over the sections, an override over all of
    them. An override of a key that is an axis replaces the axis; ``grid.KEY=[a, b]`` makes or
    replaces one. `max_steps_by_level` wins over `simulation.max_steps`, whatever set it.
    Raises `ConfigError` at the first thing that cannot be.
    """
    draft = compose(path, overrides)
    workload = _workload(draft, workload_named)
    schema = sections_type(workload.settings_type)
    axes = _axes(draft, schema)
    for key in draft.overridden:
        find_setting(schema, key, draft.place(key), also=PARTS)
    for key, value in draft.fixed.items():
        _refuse_experiment(draft, FIXED, key)
        where = draft.place(f"{FIXED}.{key}")
        find_setting(schema, key, where)
        draft.put(key, value, where)
    varying = [*axes, *([STEPS] if draft.steps_by_level else [])]
    sections = resolved(draft.sections, defaults(schema), varying=varying, place=draft.place)
    base = complete(sections, schema, source=draft, also=PARTS)
    fixed = {key: setting(base, key) for key in draft.fixed}
    experiment = settings_of(base, _Experiment).experiment
    _check_name(experiment.name, draft.place("experiment.name"))
    count = _count(draft, axes, experiment.replications)
    checked = {key: _checked_axis(draft, schema, key, values) for key, values in axes.items()}
    steps_by_level = _steps_by_level(draft, schema, checked, base)
    _name_folders_absolutely(checked, fixed, base)
    return Phase(
        path=path,
        experiment=experiment,
        workload=workload.name,
        workload_version=workload.version,
        settings_type=workload.settings_type,
        axes=tuple((key, tuple(values)) for key, values in checked.items()),
        fixed=fixed,
        max_steps_by_level=steps_by_level,
        base=base,
        run_count=count,
        text=_text(base, fixed, steps_by_level, checked),
        notes=tuple(draft.notes),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Experiment:
    """The section every phase file has, whatever its workload."""

    experiment: ExperimentSettings = field(default_factory=ExperimentSettings)


@functools.cache
def sections_type(settings_type: type) -> type:
    """The schema of a phase file's sections: everybody's, then the workload's."""
    hints = get_type_hints(settings_type)
    own = []
    for part in dataclasses.fields(settings_type):
        default = part.default_factory
        if default is dataclasses.MISSING:
            copy = field(default=part.default, metadata=part.metadata)
        else:
            copy = field(default_factory=default, metadata=part.metadata)
        own.append((part.name, hints[part.name], copy))
    shared = [
        ("experiment", ExperimentSettings, field(default_factory=ExperimentSettings)),
        ("engine", EngineSettings, field(default_factory=EngineSettings)),
    ]
    return dataclasses.make_dataclass("Sections", [*shared, *own], frozen=True, kw_only=True)


def _workload(draft: Draft, workload_named: Callable[[str], WorkloadType]) -> WorkloadType:
    key = "experiment.workload"
    written = draft.sections.get("experiment")
    name = written.get("workload") if isinstance(written, Mapping) else None
    if name is None:
        return workload_named(ExperimentSettings().workload)
    checked: str = check_value(_Experiment, key, name, draft.place(key))
    try:
        return workload_named(checked)
    except ConfigError as error:
        raise ConfigError(f"{draft.place(key)}: {error}", hint=error.hint) from None


def _refuse_experiment(draft: Draft, part: str, key: str) -> None:
    if key.split(".")[0] == "experiment":
        raise ConfigError(
            f"{draft.place(f'{part}.{key}')}: `{key}` cannot be in `{part}`",
            hint="it is one value for the whole phase: write it in the section `experiment`",
        )


def _axes(draft: Draft, schema: type) -> dict[str, list[Any]]:
    """The grid's axes, as yet without a look at each value."""
    for key, values in draft.grid.items():
        where = draft.place(f"{GRID}.{key}")
        _refuse_experiment(draft, GRID, key)
        if find_setting(schema, key, where).holds_several:
            raise ConfigError(
                f"{where}: `{key}` takes a list, so it cannot be an axis",
                hint="make one phase file for each list",
            )
        if not isinstance(values, list) or not values:
            what = "empty" if values == [] or values is None else "one value, no list"
            raise ConfigError(
                f"{where}: the axis `{key}` is {what}: `{shown(values)}`",
                hint=f"list its values, or write the one value under `{FIXED}`",
            )
        if key in draft.fixed:
            raise ConfigError(
                f"{where}: `{key}` is in `{GRID}` and in `{FIXED}` "
                f"({draft.place(f'{FIXED}.{key}')})",
                hint="remove it from one of the two",
            )
    return dict(draft.grid)


def _checked_axis(draft: Draft, schema: type, key: str, values: list[Any]) -> list[Scalar]:
    checked: list[Scalar] = []
    for index, value in enumerate(values):
        where = draft.place(f"{GRID}.{key}[{index}]")
        if isinstance(value, str) and "${" in value:
            raise ConfigError(
                f"{where}: the axis `{key}` has `{value}`, but an axis takes plain values",
                hint="write the value itself",
            )
        scalar: Scalar = check_value(schema, key, value, where)
        if scalar in checked:
            raise ConfigError(
                f"{where}: the axis `{key}` has `{shown(scalar)}` twice",
                hint="remove one; to repeat an arm, raise `experiment.replications`",
            )
        checked.append(scalar)
    return checked


def _count(draft: Draft, axes: Mapping[str, Sequence[Any]], replications: int) -> int:
    """The number of runs, counted without expanding the grid."""
    count = math.prod(len(values) for values in axes.values()) * replications
    if count > MOST_RUNS:
        sizes = [f"{len(values)} of {key}" for key, values in axes.items()]
        raise ConfigError(
            f"{draft.place(GRID)}: the phase has `{count}` runs, but at most `{MOST_RUNS}` are "
            f"allowed: {' x '.join([*sizes, f'{replications} replications'])}",
            hint="shorten an axis, lower `experiment.replications`, or split the phase",
        )
    return count


def _steps_by_level(
    draft: Draft, schema: type, axes: Mapping[str, Sequence[Scalar]], base: Mapping[str, Any]
) -> dict[str, int]:
    if not draft.steps_by_level:
        return {}
    steps_by_level: dict[str, int] = {}
    for name, steps in draft.steps_by_level.items():
        where = draft.place(f"{STEPS_BY_LEVEL}.{name}")
        level = check_value(schema, LEVEL, parse_value(name, where, STEPS_BY_LEVEL), where)
        steps_by_level[str(level)] = check_value(schema, STEPS, steps, where)
    played = {str(level) for level in axes.get(LEVEL, [setting(base, LEVEL)])}
    decided = sorted(played & set(steps_by_level))
    said = f"`{STEPS_BY_LEVEL}` sets the steps of complexity level {', '.join(decided)}"
    if STEPS in axes and decided:
        raise ConfigError(
            f"{draft.place(f'{GRID}.{STEPS}')}: `{STEPS}` is an axis, but {said}, "
            "so its values would give the same runs several times",
            hint=f"remove the axis or those levels of `{STEPS_BY_LEVEL}`",
        )
    if STEPS in draft.overridden and decided:
        draft.notes.append(f"{draft.place(STEPS)} does not act where {said}")
    if idle := sorted(set(steps_by_level) - played):
        draft.notes.append(f"`{STEPS_BY_LEVEL}` names level {', '.join(idle)}, which no run has")
    return steps_by_level


def _check_name(name: str, where: str) -> None:
    problem = None
    if not name:
        problem = "is empty"
    elif "/" in name or "\\" in name:
        problem = "is a path"
    elif name[0] in ".-" or name != name.strip() or not name.isprintable():
        problem = "begins with a dot or dash, or has spaces around it or a control character"
    elif len(name.encode()) > LONGEST_NAME:
        problem = f"is {len(name.encode())} bytes long, but at most {LONGEST_NAME} are allowed"
    if problem:
        raise ConfigError(
            f"{where}: `experiment.name` is `{shown(name)}`, which {problem}",
            hint="it names a folder below --root: letters, digits, `_` and `-` are safe",
        )


def _name_folders_absolutely(
    axes: dict[str, list[Scalar]], fixed: Tree, base: Mapping[str, Any]
) -> None:
    """Workers start in folders of their own: a local model must be found from there."""

    def placed(name: Any) -> Any:
        return absolute(name) if isinstance(name, str) and is_local(name) else name

    base["agent"]["model"]["name"] = placed(setting(base, MODEL))
    if MODEL in fixed:
        fixed[MODEL] = placed(fixed[MODEL])
    if MODEL in axes:
        axes[MODEL] = [placed(name) for name in axes[MODEL]]


def _text(
    base: Mapping[str, Any],
    fixed: Mapping[str, Any],
    steps_by_level: Mapping[str, int],
    axes: Mapping[str, list[Scalar]],
) -> str:
    parts = {FIXED: dict(fixed), STEPS_BY_LEVEL: dict(steps_by_level), GRID: dict(axes)}
    return dump_yaml({**base, **{name: part for name, part in parts.items() if part}})
