"""What a group that asks a model gets: by a profile's rule, by the planner, or on this machine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from vendomini.chat import EngineSpec
from vendomini.cluster import Profile, Resources, rule_for
from vendomini.errors import ConfigError
from vendomini.models.spec import ModelSpec
from vendomini.phase import Asked, EngineSettings, Run, one_an_arm
from vendomini.planner.choice import Limits, Wanted
from vendomini.planner.decision import choose
from vendomini.planner.deployment import Backend
from vendomini.planner.gates import attention, runtime_dtype
from vendomini.planner.guide import Horizon
from vendomini.planner.loading import as_loaded
from vendomini.planner.pool import Pool, pools_of_rule
from vendomini.planner.queues import without_shorter
from vendomini.planner.work import RunWork, work_of
from vendomini.prepare.engine import (
    PACKAGES,
    PINNED,
    USE_VLLM,
    Shape,
    check_model,
    choose_backend,
    real_spec,
    unavailable,
    window_of,
)
from vendomini.prepare.group import GroupPlan, pin_key
from vendomini.prepare.resources import job_resources
from vendomini.prepare.unplanned import (
    Place,
    engine_of,
    model_name,
    models_of,
    ruled_resources,
    unplanned,
    workers_of,
)
from vendomini.workloads.registry import asked_by
from vendomini.workloads.workload import Length

DEFAULT_CONCURRENCY = 256
"""Runs under way on one engine where the phase does not say how many, and at most. An engine whose
KV cache holds fewer whole conversations gets fewer; that is known when it has started."""

EAGER = "eager"
"""The plain attention, which the engine is told to use where it has no other for a model."""

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
    engine = engine_of(members[0])
    backend, reasons = choose_backend(
        engine,
        asks=_asked(key, members, engine),
        pinned=place.facts.pins.get(pin_key(key)),
        profile=place.profile,
        facts=place.facts,
    )
    check_model(members, engine, backend, place.facts)
    tokens = max((run.conversation_tokens for run in demands), default=None)
    most_at_once = max((run.at_once for run in demands), default=1)
    group = GroupPlan(
        key=key,
        models=models_of(members),
        run_ids=tuple(run.id for run in members),
        backend=backend,
        dtype=engine.dtype,
        quantization=engine.quantization,
        resources=None,
        tensor_parallel_size=engine.tensor_parallel_size,
        pipeline_parallel_size=engine.pipeline_parallel_size,
        max_model_len=engine.max_model_len,
        concurrency=engine.concurrency,
        workers=1,
        asks=True,
        spec=None,
        context_length=window_of(members),
        conversation_tokens=tokens,
        at_once=math.ceil(work_of(demands).at_once) if demands else 1,
        reasons=(*reasons, *_batches(most_at_once)),
    )
    if backend == "scripted":
        return _scripted(group, members, engine, place)
    if backend == "openai":
        return _elsewhere(group, members, engine, place)
    name = model_name(members[0])
    rule = None if place.profile is None else rule_for(place.profile, name[0])
    pools = list(place.facts.pools)
    if rule is not None and place.profile is not None:
        pools = pools_of_rule(rule.resources, place.profile, pools)
    if engine.device == "cpu" or not pools:
        resources, why = ruled_resources(name[0], place)
        return unplanned(group, members, engine, place, resources=resources, why=why)
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
    return unplanned(group, members, engine, place, resources=resources, why=why)


# -- private -------------------------------------------------------------------------------


def _asked(key: str, members: Sequence[Run], engine: EngineSettings) -> Asked:
    """Whom the runs of a group ask. Raises `ConfigError` if that differs, and nobody says who is to
    answer: what answers a script would be taken for a model."""
    asked = {asked_by(run) for run in one_an_arm(members)}
    if len(asked) > 1 and engine.backend == "auto":
        raise ConfigError(
            f"some runs of group `{key}` ask a model, and others are content with a script, but "
            "`engine.backend` is `auto`",
            hint="say what answers them all, such as engine.backend=vllm, or make two phases of it",
        )
    return "model" if "model" in asked else "script"


def _batches(at_once: int) -> list[str]:
    """What a reader should know of runs that ask several requests at the same time."""
    if at_once == 1:
        return []
    return [
        f"each run asks up to {at_once} requests at once: no more of them are in the engine at a "
        "time than its KV cache holds, the others wait in the worker"
    ]


def _scripted(
    group: GroupPlan, members: Sequence[Run], engine: EngineSettings, place: Place
) -> GroupPlan:
    name, revision = model_name(members[0])
    resources = None if place.profile is None else place.profile.engineless
    spec = EngineSpec(
        backend="scripted",
        model=name,
        revision=revision,
        dtype=engine.dtype,
        quantization=engine.quantization,
        max_model_len=engine.max_model_len,
        concurrency=engine.concurrency,
        script=engine.script,
        latency_s=engine.latency_s,
    )
    return replace(
        group,
        resources=resources,
        concurrency=engine.concurrency or DEFAULT_CONCURRENCY,
        workers=workers_of(resources, place, most=len(members)),
        spec=spec,
        reasons=(*group.reasons, "the scripted engine runs inside the worker: no GPU"),
    )


def _elsewhere(
    group: GroupPlan, members: Sequence[Run], engine: EngineSettings, place: Place
) -> GroupPlan:
    resources = None if place.profile is None else place.profile.engineless
    spec = real_spec(
        members, engine, "openai", shape=None, profile=place.profile, facts=place.facts
    )
    return replace(
        group,
        resources=resources,
        max_model_len=spec.max_model_len,
        workers=workers_of(resources, place, most=len(members)),
        spec=spec,
        reasons=(*group.reasons, f"the openai engine runs at {engine.base_url}: no GPU"),
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
    choice = choose(
        model,
        work,
        without_shorter(pools),
        horizon=horizon,
        wanted=_wanted(
            group,
            members,
            engine,
            place,
            model=model,
            demands=demands,
            ruled=ruled,
            cannot=cannot,
        ),
        limits=_limits(place.profile, ruled),
        measured=place.facts.measured,
    )
    candidate = choice.candidate
    resources = ruled
    if resources is None and place.profile is not None:
        resources = job_resources(model, candidate, place.profile, pools)
    deployment = candidate.deployment
    dtype = runtime_dtype(model, candidate.pool.gpu)
    kernels = attention(model, candidate.pool.gpu, choice.backend)
    shape = Shape(
        gpus=deployment.gpus,
        tensor_parallel_size=deployment.tensor_parallel_size if choice.backend == "vllm" else 1,
        pipeline_parallel_size=deployment.pipeline_parallel_size if choice.backend == "vllm" else 1,
        most_workers=None,
        enable_expert_parallel=deployment.enable_expert_parallel,
        dtype=dtype if dtype != model.dtype and model.dtype == "bfloat16" else None,
        attn_implementation=EAGER if choice.backend == "hf" and kernels == EAGER else None,
    )
    spec = real_spec(
        members, engine, choice.backend, shape=shape, profile=place.profile, facts=place.facts
    )
    missing = unavailable(engine, place.profile, place.facts).get(choice.backend)
    return replace(
        group,
        backend=choice.backend,
        dtype=engine.dtype or dtype,
        quantization=engine.quantization or _stored(model),
        resources=resources,
        tensor_parallel_size=shape.tensor_parallel_size,
        pipeline_parallel_size=shape.pipeline_parallel_size,
        max_model_len=spec.max_model_len or deployment.max_model_len,
        concurrency=engine.concurrency or candidate.estimate.under_way * group.at_once,
        in_flight=candidate.estimate.in_flight,
        workers=candidate.estimate.workers if resources is None else resources.workers,
        spec=spec,
        model_spec=model,
        choice=choice,
        reasons=(
            *_batches(max(run.at_once for run in demands)),
            *(ruled_resources(group.models[0], place)[1] if ruled is not None else ()),
            *([f"cannot be played as it is: {missing}"] if missing else ()),
            *choice.reasons,
        ),
        rejected=choice.rejected,
    )


def _stored(model: ModelSpec) -> str | None:
    """How the checkpoint is quantised; None: it is not."""
    return None if model.quantization is None else model.quantization.method


def _wanted(
    group: GroupPlan,
    members: Sequence[Run],
    engine: EngineSettings,
    place: Place,
    *,
    model: ModelSpec,
    demands: Mapping[RunWork, int],
    ruled: Resources | None,
    cannot: Mapping[Backend, str],
) -> Wanted:
    backend, why = _asked_backend(group, engine, place)
    missing = unavailable(engine, place.profile, place.facts)
    if backend in missing or len({**missing, **cannot}) == len(PACKAGES):
        missing = {}  # it is planned as if it were there; `run` refuses
    return Wanted(
        backend=backend,
        backend_reason=why,
        policy=engine.policy,
        unavailable={**missing, **cannot},
        gpu=engine.gpu,
        gpus=engine.gpus if ruled is None else ruled.gpus,
        gpus_from="`engine.gpus`" if ruled is None else "the `gpus` of the profile's rule",
        tensor_parallel_size=engine.tensor_parallel_size,
        pipeline_parallel_size=engine.pipeline_parallel_size,
        max_model_len=_window(members, engine, model, demands),
        dtype=None if engine.dtype == "auto" else engine.dtype,
        gpu_memory_utilization=engine.gpu_memory_utilization,
        enforce_eager=engine.enforce_eager,
        attn_implementation=engine.attn_implementation,
        concurrency=engine.concurrency,
        workers=_fixed_workers(members, place, ruled),
        minutes=None if ruled is None else ruled.minutes,
        workers_wait=place.profile is not None,
    )


def _asked_backend(
    group: GroupPlan, engine: EngineSettings, place: Place
) -> tuple[Backend | None, str]:
    """Who has the last word on the backend, if it is not the planner."""
    pinned: Any = place.facts.pins.get(pin_key(group.key))
    if engine.backend in ("vllm", "hf"):
        asked: Any = engine.backend
        return asked, f"`engine.backend` is `{engine.backend}`"
    if pinned in ("vllm", "hf"):
        return pinned, PINNED
    if place.facts.wants_vllm:
        return "vllm", USE_VLLM
    return None, ""


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
