"""What serves a group where its engine cannot start, and whether that is allowed: pure."""

from collections.abc import Callable, Collection
from dataclasses import fields, replace
from typing import Any, TypeAlias

from vendomini.cluster import Profile
from vendomini.engines.backend import Backend
from vendomini.engines.registry import backend_named
from vendomini.entrypoints import AUTO
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Backend as Planned
from vendomini.planner.instead import Instead
from vendomini.prepare.backends import FOR_EVERY_BACKEND, acts_on, environment_of, missing_packages
from vendomini.prepare.facts import EngineFacts
from vendomini.prepare.group import GroupPlan
from vendomini.prepare.opening import on_gpus
from vendomini.prepare.unplanned import Place
from vendomini.serving import EngineSettings
from vendomini.store.records import Pin

Cost: TypeAlias = Callable[[Planned], Instead | str]
"""What a group takes as another backend has it, on its GPUs; or why it cannot."""


def goes_on_with(engine: EngineSettings, pinned: Pin | None, place: Place) -> str | None:
    """The backend that a group's pinned engine took the place of, where that is to go on; None:
    what the phase says of the backend is to be followed."""
    if pinned is None or pinned.instead_of is None:
        return None
    asked = engine.backend == pinned.instead_of and _fails(engine, place) is None
    return pinned.instead_of if asked or engine.backend == AUTO else None


def took_over(pinned: Pin, group: str) -> str:
    """Why a group's engine is another one than was planned at first."""
    return (
        f"it took the place of `{pinned.instead_of}`, which could not start: {pinned.why}; "
        f"--restart-group '{group}' tries that one again"
    )


def in_place(
    engine: EngineSettings, other: Backend, profile: Profile | None, facts: EngineFacts
) -> tuple[EngineSettings, str | None]:
    """A phase's settings for the backend that its own falls back to: those that act on it. And what
    that lacks where it would run; None: nothing, as far as it is known.

    An environment that the phase names is its own backend's: the other one is looked for where
    it is without that, and there only if it is known to have what it needs.
    """
    kept = acts_on(other)
    values: dict[str, Any] = {
        field.name: getattr(engine, field.name) if field.name in kept else field.default
        for field in fields(EngineSettings)
    }
    own = EngineSettings(**{**values, "backend": other.name})
    elsewhere = replace(own, python=None, container=None)
    missing = missing_packages(other, elsewhere, profile, facts)
    if missing is not None and facts.lacks(other, environment_of(own, other, profile)) == ():
        return own, None
    return elsewhere, missing


def settled(
    group: GroupPlan,
    engine: EngineSettings,
    place: Place,
    *,
    axes: Collection[str],
    model: ModelSpec | None = None,
    cost: Cost | None = None,
) -> GroupPlan:
    """The group with what takes its engine's place, and with what a reader should know of that.

    `engine` is what the phase says of it, `axes` are the keys of the grid. `model` and `cost` are
    those of a group that was planned; None: nobody knows what it takes.
    """
    if group.spec is None:
        return group
    backend = backend_named(group.spec.backend)
    lacks = missing_packages(backend, engine, place.profile, place.facts)
    if backend.fallback is not None:
        group = _with_fallback(group, backend, engine, place, axes=axes, model=model, cost=cost)
    if lacks is None:
        return group
    said = (
        "cannot be played as it is" if group.fallback is None else f"`{backend.name}` is not there"
    )
    return replace(group, reasons=(f"{said}: {lacks}", *group.reasons))


# -- private -------------------------------------------------------------------------------


def _fails(engine: EngineSettings, place: Place) -> str | None:
    """Why nothing may take an engine's place; None: something may."""
    if engine.on_failure == "fail":
        return "`engine.on_failure` is `fail`"
    if engine.on_failure is None and place.is_preregistered:
        return "the phase names a preregistration"
    return None


def _compares(other: Backend, axes: Collection[str]) -> str | None:
    """Why runs would not be what their ids say, by another backend; None: they would."""
    acting = {f"engine.{name}" for name in acts_on(other) - FOR_EVERY_BACKEND}
    named = [key for key in axes if key.startswith("engine.") and key not in acting]
    return f"the phase compares values of `{named[0]}`" if named else None


def _with_fallback(
    group: GroupPlan,
    backend: Backend,
    engine: EngineSettings,
    place: Place,
    *,
    axes: Collection[str],
    model: ModelSpec | None,
    cost: Cost | None,
) -> GroupPlan:
    assert group.engine is not None
    assert backend.fallback is not None
    other = backend_named(backend.fallback)
    settings, missing = in_place(engine, other, place.profile, place.facts)
    found = None
    why = _fails(engine, place) or _compares(other, axes)
    if why is None and missing is not None:
        why = f"`{other.name}` cannot take its place: {missing}"
    if why is None and cost is not None and other.planned_as is not None:
        found = cost(other.planned_as)
        if isinstance(found, str):
            why = f"`{other.name}` cannot take its place: {found}"
        elif not found.ends:
            why = (
                f"`{other.name}` on the same GPUs would take {_hours(group, found)}, and not end "
                f"in {_limit(group)}"
            )
    if why is not None:
        ended = replace(group.engine, settings=replace(group.settings, on_failure="fail"))
        said = f"if `{backend.name}` cannot start, the worker fails: {why}"
        return replace(group, engine=ended, reasons=(*group.reasons, said))
    assert not isinstance(found, str)
    if found is not None and model is not None:
        settings = on_gpus(settings, other, model, found.deployment)
    else:
        settings = replace(
            settings, gpus=group.engine.gpus, tensor_parallel_size=1, pipeline_parallel_size=1
        )
    environment = environment_of(settings, other, place.profile)
    fallback = replace(
        group.engine,
        settings=replace(
            settings,
            max_model_len=group.settings.max_model_len,
            python=environment.python,
            container=environment.container,
        ),
        enable_expert_parallel=False,
    )
    unknown = "in its place, at a cost that is not known" if group.loads_model else "in its place"
    how = unknown if found is None else f"on the same GPUs, {_hours(group, found)}"
    return replace(
        group,
        engine=replace(group.engine, settings=replace(group.settings, on_failure="fallback")),
        fallback=fallback,
        fallback_estimate=None if found is None else found.estimate,
        reasons=(*group.reasons, f"if `{backend.name}` cannot start: `{other.name}` {how}"),
    )


def _hours(group: GroupPlan, found: Instead) -> str:
    booked = 0.0 if group.gpu_hours is None else group.gpu_hours
    return f"{_number(found.estimate.gpu_hours)} GPU-hours instead of {_number(booked)}"


def _number(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


def _limit(group: GroupPlan) -> str:
    minutes = None if group.resources is None else group.resources.minutes
    return f"the time limit of {minutes} minutes"
