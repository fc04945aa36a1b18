"""What a group that asks a model gets: by a profile's rule, by the planner, or on this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from vendomini.cluster import Profile, Resources, rule_for
from vendomini.engines.backend import Backend
from vendomini.engines.registry import asked, backend_named, usd_of
from vendomini.entrypoints import AUTO
from vendomini.errors import ConfigError
from vendomini.models.spec import ModelSpec
from vendomini.phase import Asked, Run, one_an_arm, pin_key
from vendomini.planner.choice import Limits, Wanted
from vendomini.planner.decision import choose
from vendomini.planner.deployment import BACKENDS, VLLM
from vendomini.planner.deployment import Backend as Planned
from vendomini.planner.guide import Horizon
from vendomini.planner.instead import instead
from vendomini.planner.loading import as_loaded
from vendomini.planner.pool import Pool, pools_of_rule
from vendomini.planner.queues import without_shorter
from vendomini.planner.work import RunWork, work_of
from vendomini.prepare.backends import (
    PINNED,
    USE_VLLM,
    choose_backend,
    unavailable,
)
from vendomini.prepare.fallback import goes_on_with, in_place, settled, took_over
from vendomini.prepare.group import GroupPlan
from vendomini.prepare.opening import check_model, on_gpus, spec_of, window_of
from vendomini.prepare.resources import job_resources
from vendomini.prepare.unplanned import (
    Place,
    model_name,
    models_of,
    ruled_resources,
    unplanned,
    workers_of,
)
from vendomini.serving import EngineSettings, EngineSpec
from vendomini.workloads.registry import asked_by
from vendomini.workloads.workload import Length

DEFAULT_CONCURRENCY = 256
"""Runs under way on one engine where the phase does not say how many, and at most. An engine whose
KV cache holds fewer whole conversations gets fewer; that is known when it has started."""

UNKNOWN_CONTEXT = 32_768
"""The window to plan for, in tokens, where neither the phase nor the model names one."""


def decide_group(
    key: str,
    members: Sequence[Run],
    place: Place,
    demands: Mapping[RunWork, int],
    length: Length,
) -> GroupPlan:
    """Decide for the runs of one group, which all ask. `demands` counts them by what they ask,
    `length` is that of the longest.

    Raises `ConfigError` or `PlanError`, as `prepare.make_plan`.
    """
    engine, pinned = members[0].engine, place.facts.pins.get(pin_key(key))
    asks = _asked(key, members, engine)
    taken = goes_on_with(engine, pinned, place)
    backend: Backend | None
    if pinned is not None and taken is not None:
        other = backend_named(pinned.backend)
        engine, _ = in_place(engine, other, place.profile, place.facts)
        backend, reasons = other, [f"backend `{other.name}`: {took_over(pinned, key)}"]
    else:
        backend, reasons = choose_backend(
            engine, asks=asks, pinned=pinned, profile=place.profile, facts=place.facts
        )
    check_model(members, engine, backend, place.facts)
    most_at_once = max((run.at_once for run in demands), default=1)
    name = model_name(members[0])
    group = GroupPlan(
        key=key,
        models=models_of(members),
        run_ids=tuple(run.id for run in members),
        engine=EngineSpec(
            settings=engine if backend is None else replace(engine, backend=backend.name),
            model=name[0],
            revision=name[1],
        ),
        resources=None,
        concurrency=engine.concurrency,
        workers=1,
        instead_of=taken,
        loads_model=backend is None or backend.planned_as is not None,
        context_length=window_of(members),
        work=work_of(demands) if demands else None,
        reasons=(*reasons, *_batches(most_at_once)),
    )
    if backend is not None and backend.planned_as is None:
        group = _without_gpus(group, members, backend, place)
        return settled(group, engine, place, axes=members[0].arm)
    rule = None if place.profile is None else rule_for(place.profile, name[0])
    pools = list(place.facts.pools)
    if rule is not None and place.profile is not None:
        pools = pools_of_rule(rule.resources, place.profile, pools)
    if engine.device == "cpu" or not pools:
        resources, why = ruled_resources(name[0], place)
        group = unplanned(group, members, place, resources=resources, why=why)
        return settled(group, engine, place, axes=members[0].arm)
    size = place.facts.sizes.get(name)
    if isinstance(size, ModelSpec) and demands:
        return _planned(
            group,
            members,
            engine,
            place,
            model=size,
            demands=demands,
            pools=pools,
            ruled=None if rule is None else rule.resources,
            horizon=Horizon(is_short=length.is_short, words=length.words, runs=len(members)),
        )
    if rule is None and place.profile is not None and isinstance(size, ConfigError):
        raise size
    resources, why = ruled_resources(name[0], place)
    group = unplanned(group, members, place, resources=resources, why=why)
    return settled(group, engine, place, axes=members[0].arm)


# -- private -------------------------------------------------------------------------------


def _asked(key: str, members: Sequence[Run], engine: EngineSettings) -> Asked:
    """Whom the runs of a group ask. Raises `ConfigError` if that differs, and nobody says who is to
    answer: what answers a script would be taken for a model."""
    asked = {asked_by(run) for run in one_an_arm(members)}
    if len(asked) > 1 and engine.backend == "auto":
        raise ConfigError(
            f"some runs of group `{key}` need a model and others only a script, but "
            "`engine.backend` is `auto`",
            hint="choose one backend for all, such as engine.backend=vllm, or make two phases",
        )
    return "model" if "model" in asked else "script"


def _batches(at_once: int) -> list[str]:
    """What a reader should know of runs that ask several requests at the same time."""
    if at_once == 1:
        return []
    return [
        f"each run asks up to {at_once} requests at once: the engine takes as many as its KV cache "
        "holds, the others wait in the worker"
    ]


def _without_gpus(
    group: GroupPlan, members: Sequence[Run], backend: Backend, place: Place
) -> GroupPlan:
    resources = None if place.profile is None else place.profile.engineless
    spec = spec_of(members, group.settings, profile=place.profile, facts=place.facts)
    spec = replace(spec, settings=replace(spec.settings, gpus=0))
    where, work = asked(backend, "where", partial(backend.where, spec.settings)), group.work
    return replace(
        group,
        engine=spec,
        resources=resources,
        concurrency=spec.settings.concurrency or DEFAULT_CONCURRENCY,
        workers=workers_of(resources, place, most=len(members)),
        usd=None
        if work is None
        else usd_of(spec, tokens_in=work.tokens_in, tokens_out=work.tokens_out),
        reasons=(*group.reasons, f"the {backend.name} engine runs {where}: no GPU"),
    )


def _planned(
    group: GroupPlan,
    members: Sequence[Run],
    engine: EngineSettings,
    place: Place,
    *,
    model: ModelSpec,
    demands: Mapping[RunWork, int],
    pools: Sequence[Pool],
    ruled: Resources | None,
    horizon: Horizon,
) -> GroupPlan:
    """What the planner chooses among the pools; a profile's rule narrows them and wins."""
    model, cannot = as_loaded(model, engine.quantization)
    work = work_of(demands)
    wanted = _wanted(
        group,
        members,
        engine,
        place,
        model=model,
        demands=demands,
        ruled=ruled,
        cannot=cannot,
    )
    choice = choose(
        model,
        work,
        without_shorter(pools),
        horizon=horizon,
        wanted=wanted,
        limits=_limits(place.profile, ruled),
        measured=place.facts.measured,
    )
    candidate = choice.candidate
    resources = ruled
    if resources is None and place.profile is not None:
        resources = job_resources(model, candidate, place.profile, pools)
    named, _ = _last_word(group, engine, place)
    backend = backend_named(choice.backend) if named is None else named
    spec = spec_of(
        members,
        on_gpus(engine, backend, model, candidate.deployment),
        profile=place.profile,
        facts=place.facts,
        enable_expert_parallel=candidate.deployment.enable_expert_parallel,
    )
    planned = replace(
        group,
        engine=spec,
        resources=resources,
        concurrency=engine.concurrency or candidate.estimate.under_way * group.at_once,
        in_flight=candidate.estimate.in_flight,
        workers=candidate.estimate.workers if resources is None else resources.workers,
        loads_model=True,
        model_spec=model,
        choice=choice,
        reasons=(
            *_batches(max(run.at_once for run in demands)),
            *(ruled_resources(group.models[0], place)[1] if ruled is not None else ()),
            *choice.reasons,
        ),
        rejected=choice.rejected,
    )
    return settled(
        planned,
        engine,
        place,
        axes=members[0].arm,
        model=model,
        cost=partial(
            instead,
            model,
            work,
            candidate,
            replace(wanted, unavailable=cannot),
            minutes=None if resources is None else resources.minutes,
            measured=place.facts.measured,
        ),
    )


def _wanted(
    group: GroupPlan,
    members: Sequence[Run],
    engine: EngineSettings,
    place: Place,
    *,
    model: ModelSpec,
    demands: Mapping[RunWork, int],
    ruled: Resources | None,
    cannot: Mapping[Planned, str],
) -> Wanted:
    named, why = _last_word(group, engine, place)
    backend = None if named is None else named.planned_as
    missing = unavailable(engine, place.profile, place.facts)
    if backend in missing or len({**missing, **cannot}) == len(BACKENDS):
        missing = {}  # it is planned as if it were there; `run` refuses
    return Wanted(
        engine=replace(
            engine,
            gpus=engine.gpus if ruled is None else ruled.gpus,
            max_model_len=_window(members, engine, model, demands),
            dtype=None if engine.dtype == "auto" else engine.dtype,
        ),
        backend=backend,
        backend_reason=why,
        unavailable={**missing, **cannot},
        gpus_from="`engine.gpus`" if ruled is None else "the `gpus` of the profile's rule",
        workers=_fixed_workers(members, place, ruled),
        minutes=None if ruled is None else ruled.minutes,
        workers_wait=place.profile is not None,
    )


def _last_word(
    group: GroupPlan, engine: EngineSettings, place: Place
) -> tuple[Backend | None, str]:
    """Which backend it is, if that is not for the planner to choose, and who says so."""
    pinned = place.facts.pins.get(pin_key(group.key))
    if group.instead_of is not None and pinned is not None:
        backend, why = backend_named(pinned.backend), took_over(pinned, group.key)
    elif engine.backend != AUTO:
        backend, why = backend_named(engine.backend), f"`engine.backend` is `{engine.backend}`"
    elif pinned is not None:
        backend, why = backend_named(pinned.backend), PINNED
        if backend.name != backend.planned_as:
            why = f"`{backend.name}` gave this group its first reply"
    elif place.facts.wants_vllm:
        backend, why = backend_named(VLLM), USE_VLLM
    else:
        return None, ""
    if backend.name != backend.planned_as:
        why += f", planned as {backend.planned_as}"
    return backend, why


def _fixed_workers(members: Sequence[Run], place: Place, ruled: Resources | None) -> int | None:
    if ruled is not None:
        return min(ruled.workers, len(members))
    if place.profile is None:
        return min(place.local_workers, len(members))
    return None


def _window(
    members: Sequence[Run], engine: EngineSettings, model: ModelSpec, demands: Mapping[RunWork, int]
) -> int:
    """The longest conversation that has to fit, in tokens."""
    told = engine.max_model_len or window_of(members)
    if told is not None:
        return told
    longest = max(run.conversation_tokens for run in demands)
    return min(longest, model.max_model_len or UNKNOWN_CONTEXT)


def _limits(profile: Profile | None, ruled: Resources | None) -> Limits:
    if profile is None:
        return Limits()
    return Limits(
        max_gpus=profile.max_gpus,
        max_minutes=profile.max_minutes if ruled is None else ruled.minutes,
        worker_minutes=profile.worker_minutes,
    )
