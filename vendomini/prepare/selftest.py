"""Arms that do nothing: each axis of a grid is tried before anything is played.

Two values of an axis are *told apart* by a context, which is one combination of the other
axes' values, if short trials of the two runs (`Workload.trial`) differ in the world, the prompt
or the checks. Values that no context tells apart are the same arm under two names: whoever
compares them measures noise.

A false refusal is worse than a missed one. So an axis is only refused when all contexts were
tried; what cannot be played yet counts as told apart; and numbers that are alike are let pass
where the end of the setting's range acts, for then they are only too close, or too large, for
a short trial: a limit of 1000 steps, a dose of 0.001 beside one of 0.002.

The order of axes and values in the file decides nothing.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

from vendomini.chat import MODEL
from vendomini.errors import ConfigError
from vendomini.phase import Run, Scalar, one_an_arm, settings_of, without_model
from vendomini.schema import find_setting, shown
from vendomini.workloads.registry import asked_by
from vendomini.workloads.workload import Trial, Workload

Component: TypeAlias = Literal["world", "prompt", "checks"]
Arm: TypeAlias = Mapping[str, Scalar]
COMPONENTS: tuple[Component, ...] = get_args(Component)

NOT_TRIED = (f"{MODEL}.", "engine.")
"""Beginnings of axes that are compared and not tried: which model plays, and how it is served."""

MOST_CONTEXTS = 200
"""Contexts tried for one axis; an axis that has more and was not seen to act is let pass."""

PROBED_CONTEXTS = 4

Try: TypeAlias = Callable[[Arm], Trial | None]
"""What a trial of an arm shows; None: there is no such arm, or it cannot be played."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedAxis:
    """What the trials say of one axis.

    `changes` are the parts in which any two of its values differ. `alike` are sets of values
    that were not told apart in the `tried` contexts; `left` is how many were not tried. `later`:
    some of its numbers act, but beyond what a short trial can show. `why` is the workload's own
    word on why the axis cannot act; None: it has none.
    """

    axis: str
    values: tuple[Scalar, ...]
    changes: tuple[Component, ...]
    alike: tuple[tuple[Scalar, ...], ...] = ()
    later: bool = False
    tried: int = 0
    left: int = 0
    why: str | None = None

    @property
    def is_idle(self) -> bool:
        """Whether all, or some, of its values are the same arm."""
        return bool(self.alike) and self.left == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """What the trials say of a phase. `refuses`: an idle axis is an error, not a remark."""

    axes: tuple[TriedAxis, ...]
    trials: int
    refuses: bool


def tried_axes(runs: Sequence[Run], workload: Workload) -> tuple[str, ...]:
    """The axes of the runs that have several values and are tried, by name; none of a workload
    that can try nothing."""
    if type(workload).trial is Workload.trial:
        return ()
    not_tried = (*NOT_TRIED, *workload.not_tried)
    values: dict[str, set[Scalar]] = {}
    for run in runs:
        for axis, value in run.arm.items():
            values.setdefault(axis, set()).add(value)
    return tuple(
        sorted(
            axis
            for axis, several in values.items()
            if len(several) > 1 and axis not in workload.unit and not axis.startswith(not_tried)
        )
    )


def what_is_tried(runs: Sequence[Run], workload: Workload) -> str:
    """All that a self-test of these runs depends on, as text, but for the program itself."""
    cells = {name: _own(cell.settings) for name, cell in _cells(runs, workload).items()}
    asked = sorted({asked_by(run) for run in one_an_arm(runs)})
    return _name([workload.name, workload.version, runs[0].seed, asked, cells])


def self_test(
    runs: Sequence[Run], workload: Workload, *, tick: Callable[[], None] = lambda: None
) -> SelfTest:
    """Try every axis of the runs of one phase; `tick` is called before each trial."""
    cells = _cells(runs, workload)
    made: dict[str, Trial | None] = {}

    def trial_of(settings: Mapping[str, Any]) -> Trial | None:
        name = _name(_own(settings))
        if name not in made:
            tick()
            made[name] = _trial(workload, settings, seed=runs[0].seed)
        return made[name]

    def tried(arm: Arm) -> Trial | None:
        cell = cells.get(_name(arm))
        return None if cell is None else trial_of(cell.settings)

    def probed(arm: Arm, axis: str, value: Scalar) -> Trial | None:
        return trial_of(_with(cells[_name(arm)].settings, axis, value))

    def asks(arm: Arm) -> bool:
        return cells[_name(arm)].asks

    arms = [cell.arm for cell in cells.values()]
    axes = []
    for axis in tried_axes(runs, workload):
        ends = _ends(workload, axis)
        verdict = judge(axis, arms, tried, ends=ends, probed=probed, asks=asks)
        axes.append(_explained(verdict, [cell.settings for cell in cells.values()], workload))
    return SelfTest(
        axes=tuple(axes),
        trials=len(made),
        refuses=any(asked_by(run) == "model" for run in one_an_arm(runs)),
    )


def judge(
    axis: str,
    arms: Sequence[Arm],
    tried: Try,
    *,
    ends: Sequence[Scalar] = (),
    probed: Callable[[Arm, str, Scalar], Trial | None] = lambda arm, axis, value: None,
    asks: Callable[[Arm], bool] = lambda arm: True,
) -> TriedAxis:
    """Which values of an axis no context tells apart. `ends` are those of the setting's range,
    which `probed` tries in the place of an arm's own value; `asks` says whether an arm asks a
    model."""
    values = sorted({arm[axis] for arm in arms if axis in arm}, key=_rank)
    contexts = _contexts(axis, arms, asks)
    classes = [values]
    changes: set[Component] = set()
    count = 0
    for context in contexts[:MOST_CONTEXTS]:
        if all(len(members) == 1 for members in classes):
            break
        count += 1
        told = []
        for members in classes:
            told += _told_apart(axis, members, context, tried, changes)
        classes = told
    alike, later = [], False
    for members in classes:
        if len(members) == 1:
            continue
        acting = _acting_end(axis, members, contexts, tried, ends, probed)
        if acting is None:
            alike.append(tuple(members))
        else:
            later = True
            changes |= acting
    return TriedAxis(
        axis=axis,
        values=tuple(values),
        changes=tuple(part for part in COMPONENTS if part in changes),
        alike=tuple(alike),
        later=later,
        tried=count,
        left=len(contexts) - count if alike else 0,
    )


def refuse_idle(test: SelfTest) -> None:
    """Raise `ConfigError` naming each axis that does nothing, where that is an error."""
    idle = [axis for axis in test.axes if axis.is_idle]
    if not idle or not test.refuses:
        return
    whole = [axis for axis in idle if len(axis.alike[0]) == len(axis.values)]
    hint = "; ".join(dict.fromkeys(axis.why for axis in idle if axis.why))
    remove = "remove the axis" if whole else "remove all but one of the values that are alike"
    raise ConfigError(
        "; ".join(_said(axis) for axis in idle),
        hint=f"{hint}: {remove}, or change that" if hint else remove,
    )


def idle_notes(test: SelfTest) -> tuple[str, ...]:
    """What a reader should know of axes that do nothing, and are not refused."""
    return tuple(
        _said(axis)
        for axis in test.axes
        if axis.alike and axis.why is None and not (axis.is_idle and test.refuses)
    )


# -- private -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """An arm without its models, engines and what it is played on, and the settings of a run."""

    arm: Arm
    settings: Mapping[str, Any]
    asks: bool  # a model


def _cells(runs: Sequence[Run], workload: Workload) -> dict[str, _Cell]:
    """Each different one, by name."""
    cells: dict[str, _Cell] = {}
    for run in one_an_arm(runs):
        arm = {
            axis: value
            for axis, value in run.arm.items()
            if axis not in workload.unit and not axis.startswith(NOT_TRIED)
        }
        cell = _Cell(arm=arm, settings=run.settings, asks=asked_by(run) == "model")
        cells.setdefault(_name(arm), cell)
    return cells


def _own(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without model and engine, which are left out of a trial."""
    return {**without_model(settings), "engine": None}


def _trial(workload: Workload, settings: Mapping[str, Any], *, seed: int) -> Trial | None:
    typed: Any = settings_of(settings, workload.settings_type)
    try:
        workload.check(typed)
    except ConfigError:
        return None
    return workload.trial(typed, seed=seed)


def _contexts(axis: str, arms: Sequence[Arm], asks: Callable[[Arm], bool]) -> list[Arm]:
    """The other axes' values, in the order they are tried in.

    First every axis at its first value by `_rank`, the largest dose, which shows most; then
    mixed by name, so that each value of each axis comes early. Runs that ask a model come first.
    """
    found: dict[str, Arm] = {}
    silent: dict[str, bool] = {}
    for arm in arms:
        context = {other: value for other, value in arm.items() if other != axis}
        name = _name(context)
        found.setdefault(name, context)
        silent[name] = silent.get(name, True) and not asks(arm)
    ranked = sorted(found, key=lambda name: hashlib.sha256(name.encode()).digest())
    ranked.sort(key=silent.__getitem__)
    first = min(found, key=lambda name: (silent[name], _place(found[name])))
    return [found[first], *(found[name] for name in ranked if name != first)]


def _place(context: Arm) -> tuple[object, ...]:
    return tuple(_rank(value) for _, value in sorted(context.items()))


def _rank(value: Scalar) -> tuple[int, float, str]:
    """Numbers first, large before small, then text and truth values, then nothing."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, -value, ""
    return (2, 0, "") if value is None else (1, 0, str(value))


def _told_apart(
    axis: str, members: list[Scalar], context: Arm, tried: Try, changes: set[Component]
) -> list[list[Scalar]]:
    """A class of values, parted by one context; notes in which components they differ."""
    if len(members) == 1:
        return [members]
    parts: dict[Trial | int, list[Scalar]] = {}
    for place, value in enumerate(members):
        trial = tried({**context, axis: value})
        parts.setdefault(place if trial is None else trial, []).append(value)
    seen = [trial for trial in parts if isinstance(trial, Trial)]
    for other in seen[1:]:
        changes |= _differing(seen[0], other)
    return list(parts.values())


def _acting_end(
    axis: str,
    members: Sequence[Scalar],
    contexts: Sequence[Arm],
    tried: Try,
    ends: Sequence[Scalar],
    probed: Callable[[Arm, str, Scalar], Trial | None],
) -> set[Component] | None:
    """In what an end of the range differs from these values; None: in nothing, or no numbers."""
    numbers = [value for value in members if isinstance(value, int | float)]
    if not numbers:
        return None
    for context in contexts[:PROBED_CONTEXTS]:
        arm = {**context, axis: numbers[0]}
        here = tried(arm)
        for end in ends if here is not None else ():
            there = probed(arm, axis, end)
            if here is not None and there is not None and (changes := _differing(here, there)):
                return changes
    return None


def _differing(one: Trial, other: Trial) -> set[Component]:
    return {part for part in COMPONENTS if getattr(one, part) != getattr(other, part)}


def _ends(workload: Workload, axis: str) -> tuple[Scalar, ...]:
    metadata = find_setting(workload.settings_type, axis, "the grid").metadata
    return tuple(metadata[bound] for bound in ("ge", "le") if bound in metadata)


def _explained(
    verdict: TriedAxis, settings: Sequence[Mapping[str, Any]], workload: Workload
) -> TriedAxis:
    """With the workload's own word on why an axis that does nothing cannot act."""
    if not verdict.alike:
        return verdict
    for one in settings:
        typed: Any = settings_of(one, workload.settings_type)
        why = workload.inert(typed, (verdict.axis,)).get(verdict.axis)
        if why is None:
            return verdict
    return replace(verdict, why=why)


def _said(axis: TriedAxis) -> str:
    nothing = "neither the world, nor the prompt, nor the checks of a short trial"
    if axis.tried > 1:
        nothing += f", in {axis.tried} combinations of the other axes"
    if axis.left:
        nothing += f" ({axis.left} were not tried)"
    if len(axis.alike[0]) == len(axis.values):
        return f"axis `{axis.axis}` does nothing: {_listed(axis.values)} change {nothing}"
    same = " and ".join(_listed(values) for values in axis.alike)
    return f"values of axis `{axis.axis}` are the same arm: {same} differ in {nothing}"


def _listed(values: Sequence[Scalar]) -> str:
    return ", ".join(f"`{shown(value)}`" for value in values)


def _name(value: object) -> str:
    return json.dumps(value, sort_keys=True)


def _with(settings: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    name, _, inner = key.partition(".")
    return {**settings, name: _with(settings[name], inner, value) if inner else value}
