"""From runs, a profile and what is known of models to a plan: pure, with the reasons in it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from vendomini.chat import EngineSpec
from vendomini.cluster import Profile, Resources, rule_for
from vendomini.errors import ConfigError, PlanError
from vendomini.identity import is_local
from vendomini.models.checks import check_all_act
from vendomini.phase import ENGINELESS, EngineSettings, Run, group_key, settings_of
from vendomini.prepare.engine import (
    PACKAGES,
    EngineFacts,
    check_model,
    choose_backend,
    real_spec,
    refuse_unready,
    shape_of,
    window_of,
)
from vendomini.workloads.workload import Demand, Workload

ENGINELESS_CONCURRENCY = 4
"""Live runs of a worker that never asks: they take turns on one core, and their writes overlap."""

DEFAULT_CONCURRENCY = 256
"""Live runs on one engine where the phase does not say how many, and at most. An engine whose KV
cache holds fewer whole conversations gets fewer; that is known when it has started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """What one group gets, and why. `None` says that it is not known yet, or does not apply.

    `gpu_hours` and `wall_hours` are expected, for the whole group; `resources` are those of one
    worker. `spec` opens the group's engine; None if it never asks or cannot be played yet.
    `conversation_tokens` is the longest conversation of a run, `context_length` the longest
    window that a run allows it.
    """

    key: str
    models: tuple[str, ...]
    run_ids: tuple[str, ...]
    backend: str | None
    dtype: str | None
    quantization: str | None
    resources: Resources | None
    tensor_parallel_size: int | None
    pipeline_parallel_size: int | None
    max_model_len: int | None
    concurrency: int | None
    workers: int
    asks: bool
    spec: EngineSpec | None
    context_length: int | None = None
    conversation_tokens: int | None = None
    gpu_hours: float | None = None
    wall_hours: float | None = None
    reasons: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """The model's id, or how many models share the group."""
        return self.models[0] if len(self.models) == 1 else f"any of {len(self.models)} models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A phase, decided. `notes` are what a reader should know before booking anything."""

    name: str
    phase: int | None
    runs: int
    groups: tuple[GroupPlan, ...]
    notes: tuple[str, ...]


NOTHING_KNOWN = EngineFacts()


def make_plan(
    runs: Sequence[Run],
    workload: Workload,
    *,
    name: str,
    phase: int | None,
    profile: Profile | None,
    local_workers: int,
    facts: EngineFacts = NOTHING_KNOWN,
    notes: Sequence[str] = (),
) -> Plan:
    """Decide for each group. With a profile the jobs are Slurm's, without they are local.

    Raises `ConfigError` if a run's settings are impossible together or for its model, `PlanError`
    if the profile has no resources for a group that needs an engine.
    """
    by_key: dict[str, list[Run]] = {}
    typed: dict[str, Any] = {}
    demands: dict[str, int] = {}
    for run in runs:
        settings: Any = settings_of(run.settings, workload.settings_type)
        workload.check(settings)
        key = group_key(run, asks=workload.asks(settings))
        by_key.setdefault(key, []).append(run)
        typed.setdefault(key, settings)
        if key != ENGINELESS and (demand := workload.demand(settings)) is not None:
            tokens = _conversation_tokens(demand, window_of([run]))
            demands[key] = max(tokens, demands.get(key, 0))
    place = _Place(profile=profile, local_workers=local_workers, facts=facts)
    groups = tuple(
        _plan_asking(key, members, place, demands.get(key))
        if key != ENGINELESS
        else _plan_engineless(key, members, place)
        for key, members in by_key.items()
    )
    check_all_act(
        (group.spec.backend, _engine_of(by_key[group.key][0]))
        for group in groups
        if group.spec is not None and group.spec.backend != "scripted"
    )
    heard = [
        *_inert_notes(by_key, typed, workload),
        *dict.fromkeys(note for settings in typed.values() for note in workload.notes(settings)),
        *_download_notes(groups, facts),
    ]
    return Plan(name=name, phase=phase, runs=len(runs), groups=groups, notes=(*notes, *heard))


def refuse_unplayable(
    plan: Plan, runs: Sequence[Run], workload: Workload, *, playable: frozenset[str]
) -> None:
    """Raise `ConfigError` if the plan has a run that can be planned but not played."""
    seen: set[tuple[bytes, str]] = set()
    for run in runs:
        # Agent and engine decide; thousands of runs share a few combinations of them.
        agent = run.settings["agent"]
        what = (msgspec.json.encode(agent), str(run.settings["engine"]["backend"]))
        if what in seen:
            continue
        seen.add(what)
        kind, window = str(agent["kind"]), str(agent["model"].get("context_length"))
        workload.refuse_unplayable(settings_of(run.settings, workload.settings_type))
        if kind == "llm" and window == "auto":
            raise ConfigError(
                "`agent.model.context_length` is `auto`, but how long the windows of all models "
                "of this phase may be is not known here: not all of them are on this machine",
                hint="give a number, such as agent.model.context_length=8192",
            )
    for group in plan.groups:
        if group.asks and group.backend is not None and group.backend not in playable:
            raise ConfigError(
                f"`engine.backend` `{group.backend}` can be planned, but not played by this "
                "version",
                hint=f"it plays {', '.join(f'`{name}`' for name in sorted(playable))}",
            )


def refuse_missing(
    plan: Plan, runs: Sequence[Run], profile: Profile | None, facts: EngineFacts
) -> None:
    """Raise `ConfigError` for an engine that cannot start where it would: it is not installed."""
    by_id = {run.id: run for run in runs}
    for group in plan.groups:
        if group.asks:
            refuse_unready(group.backend, _engine_of(by_id[group.run_ids[0]]), profile, facts)


def plan_as_json(plan: Plan) -> dict[str, object]:
    """The plan for scripts; null where something is not known yet."""
    return {
        "phase": plan.name,
        "phase_number": plan.phase,
        "runs": plan.runs,
        "groups": [_group_as_json(group) for group in plan.groups],
        "notes": list(plan.notes),
    }


def pin_key(group: str) -> str:
    """A file name for what serves a group: readable, and different for each."""
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in group)
    return f"{safe[:80]}-{hashlib.sha256(group.encode()).hexdigest()[:8]}"


# -- private -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a phase will be played, and what is known there."""

    profile: Profile | None  # None: here
    local_workers: int
    facts: EngineFacts


def _plan_engineless(key: str, members: Sequence[Run], place: _Place) -> GroupPlan:
    kind = members[0].settings["agent"]["kind"]
    resources = None if place.profile is None else place.profile.engineless
    return GroupPlan(
        key=key,
        models=_models_of(members),
        run_ids=tuple(run.id for run in members),
        backend=None,
        dtype=None,
        quantization=None,
        resources=resources,
        tensor_parallel_size=None,
        pipeline_parallel_size=None,
        max_model_len=None,
        concurrency=ENGINELESS_CONCURRENCY,
        workers=_workers(resources, place, most=len(members)),
        asks=False,
        spec=None,
        gpu_hours=0.0,
        reasons=(f"`agent.kind` `{kind}` never asks: no engine and no GPU, whatever the model",),
    )


def _plan_asking(
    key: str, members: Sequence[Run], place: _Place, conversation_tokens: int | None
) -> GroupPlan:
    engine = _engine_of(members[0])
    backend, reasons = choose_backend(
        engine,
        kind=str(members[0].settings["agent"]["kind"]),
        pinned=place.facts.pins.get(pin_key(key)),
        profile=place.profile,
        facts=place.facts,
    )
    check_model(members, engine, backend, place.facts)
    models = _models_of(members)
    most = len(members)
    if backend in ("scripted", "openai"):
        where = "inside the worker" if backend == "scripted" else f"at {engine.base_url}"
        resources = None if place.profile is None else place.profile.engineless
        reasons = [*reasons, f"the {backend} engine runs {where}: no GPU"]
        shape = None
    else:
        resources, why = _resources_of(models[0], place.profile, wanted=backend is None)
        reasons = [*why, *reasons]
        shape = None
        if backend is not None:
            shape = shape_of(
                engine,
                backend,
                name=models[0],
                model=place.facts.models.get(_model_name(members[0])),
                resources=resources,
                facts=place.facts,
            )
            reasons = [*reasons, *shape.reasons]
            most = min(most, shape.most_workers or most)
    spec = None
    if backend == "scripted":
        spec = _scripted_spec(members[0], engine)
    elif backend is not None:
        spec = real_spec(
            members, engine, backend, shape=shape, profile=place.profile, facts=place.facts
        )
    workers = _workers(resources, place, most=most)
    if resources is None and workers < min(place.local_workers, len(members)):
        reasons.append(f"no more than {workers} of {place.local_workers} workers: no GPU is left")
    return GroupPlan(
        key=key,
        models=models,
        run_ids=tuple(run.id for run in members),
        backend=backend,
        dtype=engine.dtype,
        quantization=engine.quantization,
        resources=resources,
        tensor_parallel_size=shape.tensor_parallel_size if shape else engine.tensor_parallel_size,
        pipeline_parallel_size=(
            shape.pipeline_parallel_size if shape else engine.pipeline_parallel_size
        ),
        max_model_len=spec.max_model_len if spec else engine.max_model_len,
        concurrency=engine.concurrency or (DEFAULT_CONCURRENCY if backend == "scripted" else None),
        workers=workers,
        asks=True,
        spec=spec,
        context_length=window_of(members),
        conversation_tokens=conversation_tokens,
        gpu_hours=0.0 if backend in ("scripted", "openai") else None,
        reasons=tuple(reasons),
    )


def _engine_of(run: Run) -> EngineSettings:
    return EngineSettings(**run.settings["engine"])


def _model_name(run: Run) -> tuple[str, str | None]:
    model = run.settings["agent"]["model"]
    return model["name"], model["revision"]


def _models_of(members: Sequence[Run]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_model_name(run)[0] for run in members))


def _workers(resources: Resources | None, place: _Place, *, most: int) -> int:
    wanted = place.local_workers if resources is None else resources.workers
    return max(1, min(wanted, most))


def _conversation_tokens(demand: Demand, window: int | None) -> int:
    """The longest that a run's conversation gets, in tokens."""
    grown = demand.prefix_tokens + demand.requests * demand.growth_tokens
    return grown if window is None else min(window, grown)


def _scripted_spec(run: Run, engine: EngineSettings) -> EngineSpec:
    name, revision = _model_name(run)
    return EngineSpec(
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


def _resources_of(
    model: str, profile: Profile | None, *, wanted: bool
) -> tuple[Resources | None, list[str]]:
    """What a profile's rule gives the workers of a model; `wanted`: the lack of one is said."""
    if profile is None:
        return None, ["its GPUs are in a cluster profile: give --profile FILE"] if wanted else []
    rule = rule_for(profile, model)
    if rule is None:
        patterns = ", ".join(f"`{rule.model}`" for rule in profile.resources) or "none"
        raise PlanError(
            f"profile `{profile.name}` has no `resources` for model `{model}`",
            hint=f"add a rule whose `model` pattern matches it; there are: {patterns}",
        )
    return rule.resources, [f"resources by rule `{rule.model}` of profile `{profile.name}`"]


def _download_notes(groups: Sequence[GroupPlan], facts: EngineFacts) -> list[str]:
    known = {name for name, _ in facts.models}
    named = [group.model for group in groups if group.backend in PACKAGES]
    unknown = [name for name in dict.fromkeys(named) if name not in known and not is_local(name)]
    if not unknown:
        return []
    return [f"not on this machine, so the engine will download it: {', '.join(unknown)}"]


def _inert_notes(
    by_key: Mapping[str, Sequence[Run]], typed: Mapping[str, Any], workload: Workload
) -> list[str]:
    notes: dict[str, None] = {}
    for key, members in by_key.items():
        for axis, why in workload.inert(typed[key], tuple(members[0].arm)).items():
            notes[f"axis `{axis}` does nothing here: {why}"] = None
    return list(notes)


def _group_as_json(group: GroupPlan) -> dict[str, object]:
    resources = group.resources
    return {
        "group": group.key,
        "model": group.models[0] if len(group.models) == 1 else None,
        "models": list(group.models),
        "runs": len(group.run_ids),
        "asks": group.asks,
        "backend": group.backend,
        "dtype": group.dtype,
        "quantization": group.quantization,
        "gpu_type": resources.gpu_type if resources else None,
        "gpus": resources.gpus if resources else _local_gpus(group),
        "nodes": None if resources is None else 1,
        "tensor_parallel_size": group.tensor_parallel_size,
        "pipeline_parallel_size": group.pipeline_parallel_size,
        "max_model_len": group.max_model_len,
        "context_length": group.context_length,
        "conversation_tokens": group.conversation_tokens,
        "concurrency": group.concurrency,
        "workers": group.workers,
        "resources": None if resources is None else asdict(resources),
        "gpu_hours": group.gpu_hours,
        "wall_hours": group.wall_hours,
        "reasons": list(group.reasons),
        "rejected": list(group.rejected),
    }


def _local_gpus(group: GroupPlan) -> int | None:
    if not group.asks:
        return 0
    return None if group.spec is None else group.spec.gpus
