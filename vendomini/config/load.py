"""Loads a phase file and checks it whole, so that nothing is written before all of it is right."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vendomini.chat import MODEL
from vendomini.config.arms import Arm, Axes, resolve
from vendomini.config.draft import (
    FIXED,
    GRID,
    PARTS,
    Draft,
    Tree,
    compose,
    put_in_todays_words,
)
from vendomini.config.inheriting import inherited
from vendomini.config.translation import leaves
from vendomini.config.workload import (
    Named,
    WorkloadNamed,
    WorkloadType,
    inherited_by_name,
    sections_named,
    sections_type,
    workload_of,
)
from vendomini.errors import ConfigError
from vendomini.identity import absolute, is_local
from vendomini.interpolation import resolved
from vendomini.phase import (
    ExperimentSettings,
    Scalar,
    has_model,
    setting,
    settings_of,
)
from vendomini.schema import (
    check_value,
    complete,
    defaults,
    find_setting,
    nullable_mappings,
    settings_out_of_id,
    shown,
    words_once,
)
from vendomini.yamlfile import Document, dump_yaml

MOST_RUNS = 100_000
"""A larger grid is a slip in the file: the studies this is for have some thousands of runs."""

LONGEST_NAME = 100
"""Bytes of an experiment's name: it becomes part of folder and job names, which end at 255."""

MODEL_NAME = f"{MODEL}.name"

NOT_GIVEN = "???"


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase file, composed and checked.

    `axes` are the grid's, in the file's order, `arms` its cells. `base` holds every setting,
    resolved, by section: `experiment`, `engine`, and the workload's; `fixed` is applied to it.
    `text` is all of it as a phase file of its own, which loads as the same phase. `overridden` are
    the settings that the command line named, and `notes` what a reader of the plan should know: no
    part of what the phase is.
    """

    path: Path = field(compare=False)
    experiment: ExperimentSettings
    workload: str
    workload_version: int
    settings_type: type
    once_in_id: tuple[str, ...]
    axes: Axes
    arms: tuple[Arm, ...] = field(compare=False, repr=False)
    fixed: Mapping[str, Any]
    base: Mapping[str, Any]
    run_count: int
    text: str
    overridden: tuple[str, ...] = field(default=(), compare=False)
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
    path: Path, overrides: Sequence[str] = (), *, workload_named: WorkloadNamed
) -> Phase:
    """The phase that a file and command-line overrides (``KEY=VALUE``) say.

    Later wins: a file over what it inherits, `fixed` over the sections, an override over all of
    them, and what the workload derives from other settings over whatever set it. An override of a
    key that is an axis replaces the axis; ``grid.KEY=[a, b]`` makes or replaces one. Raises
    `ConfigError` at the first thing that cannot be.
    """
    documents = inherited(
        path,
        shipped=functools.partial(inherited_by_name, workload_named=workload_named),
        sections_of=lambda below: sections_named(below, overrides, workload_named),
    )
    workload = workload_of(documents, overrides, workload_named)
    schema = sections_type(workload.settings_type)
    draft = compose(
        documents,
        overrides,
        translator=workload.translator,
        mappings=nullable_mappings(schema),
    )
    _name_by_file(draft, documents[-1])
    put_in_todays_words(draft, words_once(workload.settings_type))
    _refuse_not_given(draft)
    axes = _axes(draft, schema)
    for key in draft.overridden:
        find_setting(schema, key, draft.place(key), also=PARTS)
    for key, value in draft.fixed.items():
        _refuse_experiment(draft, FIXED, key)
        where = draft.place(f"{FIXED}.{key}")
        find_setting(schema, key, where)
        draft.put(key, value, where)
    sections = resolved(draft.sections, defaults(schema), varying=[*axes], place=draft.place)
    base = complete(sections, schema, source=draft, also=PARTS)
    base["experiment"]["workload"] = workload.name
    fixed = {key: setting(base, key) for key in draft.fixed}
    experiment = settings_of(base, Named).experiment
    _check_name(experiment.name, draft.place("experiment.name"))
    if experiment.preregistration is not None and not experiment.preregistration.strip():
        raise ConfigError(
            f"{draft.place('experiment.preregistration')}: `experiment.preregistration` is empty",
            hint="name the file, or remove the key",
        )
    count = _count(draft, axes, experiment.replications)
    checked = {key: _checked_axis(draft, schema, key, values) for key, values in axes.items()}
    _name_folders_absolutely(checked, fixed, base)
    played = tuple((key, tuple(values)) for key, values in checked.items())
    arms = _arms(draft, base, played, workload)
    # What is derived differs between runs: nothing may refer to it.
    varying = {*axes, *(key for arm in arms for key in arm.derived)}
    resolved(draft.sections, defaults(schema), varying=varying, place=draft.place)
    return Phase(
        path=path,
        experiment=experiment,
        workload=workload.name,
        workload_version=workload.version,
        settings_type=workload.settings_type,
        once_in_id=workload.once_in_id,
        axes=played,
        arms=arms,
        fixed=fixed,
        base=base,
        run_count=count,
        text=_text(base, fixed, checked),
        overridden=tuple(dict.fromkeys(draft.overridden)),
        notes=tuple(draft.notes),
    )


def _arms(
    draft: Draft, base: Mapping[str, Any], axes: Axes, workload: WorkloadType
) -> tuple[Arm, ...]:
    """The cells of the grid; refuses an axis, and notes an override, that other settings decide."""
    sections = {name: section for name, section in base.items() if name != "experiment"}
    try:
        arms = tuple(resolve(sections, axes, workload))
    except ConfigError as error:
        raise ConfigError(f"{draft.path}: {error}", hint=error.hint) from None
    mute = [arm for arm in arms if arm.asks != "nobody" and not has_model(arm.settings)]
    if mute:
        raise ConfigError(
            f"{draft.path}: workload `{workload.name}` asks, and its settings have no section "
            f"`{MODEL}`",
            hint="give its settings_type an `agent` with a `model: ModelSettings`, or let its "
            '`asks` return "nobody"',
        )
    derived = {key for arm in arms for key in arm.derived}
    by = ", ".join(
        f"`{key}`"
        for key in settings_out_of_id(workload.settings_type)
        if setting(base, key) != setting(defaults(workload.settings_type), key)
    )
    for key in dict(axes):
        if key in derived:
            raise ConfigError(
                f"{draft.place(f'{GRID}.{key}')}: `{key}` is an axis, but {by or 'the workload'} "
                "decides it, so its values would give the same runs several times",
                hint="remove the axis, or what decides it" + (f": {by}" if by else ""),
            )
    for key in draft.overridden:
        if key in derived:
            draft.notes.append(
                f"{draft.place(key)} does not act where {by or 'the workload'} decides `{key}`"
            )
    return arms


def _name_by_file(draft: Draft, document: Document) -> None:
    """A name is not inherited, or two phases that set none would share a folder."""
    section = draft.sections.get("experiment")
    own = draft.places.get("experiment.name", "").startswith((f"{document.path}, ", "override "))
    if not own and (section is None or isinstance(section, dict)):
        draft.put("experiment.name", document.path.stem, f"{document.path}")


def _refuse_not_given(draft: Draft) -> None:
    """``???`` is OmegaConf's word for what is still to be given, in a file that others inherit."""
    parts = (("", draft.sections), (f"{FIXED}.", draft.fixed), (f"{GRID}.", draft.grid))
    for prefix, tree in parts:
        for key, value in leaves(tree):
            if value == NOT_GIVEN or (isinstance(value, list) and NOT_GIVEN in value):
                raise ConfigError(
                    f"{draft.place(f'{prefix}{key}')}: `{key}` is `{NOT_GIVEN}`: it must be given",
                    hint=f"write its value there, or on the command line: {key}=VALUE",
                )


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
        found = find_setting(schema, key, where)
        if (why := found.metadata.get("not_in_id")) is not None:
            raise ConfigError(
                f"{where}: `{key}` cannot be an axis: {why}",
                hint="remove the axis: its arms would be the same runs",
            )
        if found.holds_several:
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

    if not has_model(base):
        return
    setting(base, MODEL)["name"] = placed(setting(base, MODEL_NAME))
    if MODEL_NAME in fixed:
        fixed[MODEL_NAME] = placed(fixed[MODEL_NAME])
    if MODEL_NAME in axes:
        axes[MODEL_NAME] = [placed(name) for name in axes[MODEL_NAME]]


def _text(
    base: Mapping[str, Any], fixed: Mapping[str, Any], axes: Mapping[str, list[Scalar]]
) -> str:
    parts = {FIXED: dict(fixed), GRID: dict(axes)}
    return dump_yaml({**base, **{name: part for name, part in parts.items() if part}})
