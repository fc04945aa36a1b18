"""From runs, a profile and what is known of models to a plan: pure, with the reasons in it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vendomini.chat import EngineSpec
from vendomini.cluster import Profile, Resources, rule_for
from vendomini.errors import ConfigError, PlanError
from vendomini.phase import ENGINELESS, EngineSettings, Run, group_key, setting, settings_of
from vendomini.workloads.workload import Workload

ENGINELESS_CONCURRENCY = 4
"""Live runs of a worker that never asks: they take turns on one core, and their writes overlap."""

DEFAULT_CONCURRENCY = 256
"""Live runs on one engine where neither the phase nor the engine says how many it can hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """What one group gets, and why. `None` says that it is not known yet, or does not apply.

    `gpu_hours` and `wall_hours` are expected, for the whole group; `resources` are those of one
    worker. `spec` opens the group's engine; None if it never asks or cannot be played yet.
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


def make_plan(
    runs: Sequence[Run],
    workload: Workload,
    *,
    name: str,
    phase: int | None,
    profile: Profile | None,
    local_workers: int,
    notes: Sequence[str] = (),
) -> Plan:
    """Decide for each group. With a profile the jobs are Slurm's, without they are local.

    Raises `ConfigError` if a run's settings are impossible together, `PlanError` if the profile
    has no resources for a group that needs an engine.
    """
    by_key: dict[str, list[Run]] = {}
    typed: dict[str, Any] = {}
    for run in runs:
        settings: Any = settings_of(run.settings, workload.settings_type)
        workload.check(settings)
        key = group_key(run, asks=workload.asks(settings))
        by_key.setdefault(key, []).append(run)
        typed.setdefault(key, settings)
    groups = tuple(
        _plan_group(
            key, members, asks=key != ENGINELESS, profile=profile, local_workers=local_workers
        )
        for key, members in by_key.items()
    )
    heard = _inert_notes(by_key, typed, workload)
    return Plan(name=name, phase=phase, runs=len(runs), groups=groups, notes=(*notes, *heard))


def refuse_unplayable(
    plan: Plan, runs: Sequence[Run], workload: Workload, *, playable: frozenset[str]
) -> None:
    """Raise `ConfigError` if the plan has a run that this version can plan but not play."""
    seen: set[tuple[str, str]] = set()
    for run in runs:
        # The agent and the engine decide; thousands of runs share a few of them.
        what = (str(setting(run.settings, "agent.kind")), str(run.settings["engine"]["backend"]))
        if what not in seen:
            seen.add(what)
            workload.refuse_unplayable(settings_of(run.settings, workload.settings_type))
    for group in plan.groups:
        if group.asks and group.backend not in playable:
            raise ConfigError(
                f"`engine.backend` `{group.backend or 'auto'}` can be planned, but not played "
                "by this version",
                hint="use `agent.kind=heuristic`, or `agent.kind=scripted engine.backend=scripted`",
            )


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


def _plan_group(
    key: str, members: Sequence[Run], *, asks: bool, profile: Profile | None, local_workers: int
) -> GroupPlan:
    models = tuple(dict.fromkeys(str(setting(run.settings, "agent.model.name")) for run in members))
    engine = _engine_of(members[0])
    spec = _spec_of(members[0], engine) if asks else None
    needs_gpu = asks and spec is None
    resources, reasons = _resources_of(
        models[0] if needs_gpu else None, profile, agent=str(members[0].settings["agent"]["kind"])
    )
    if asks:
        concurrency = engine.concurrency or (DEFAULT_CONCURRENCY if spec else None)
    else:
        concurrency = ENGINELESS_CONCURRENCY
    wanted = local_workers if profile is None or resources is None else resources.workers
    return GroupPlan(
        key=key,
        models=models,
        run_ids=tuple(run.id for run in members),
        backend=_backend_of(engine, spec) if asks else None,
        dtype=engine.dtype if asks else None,
        quantization=engine.quantization if asks else None,
        resources=resources,
        tensor_parallel_size=engine.tensor_parallel_size if asks else None,
        pipeline_parallel_size=engine.pipeline_parallel_size if asks else None,
        max_model_len=engine.max_model_len if asks else None,
        concurrency=concurrency,
        workers=max(1, min(wanted, len(members))),
        asks=asks,
        spec=spec,
        gpu_hours=None if needs_gpu else 0.0,
        reasons=tuple(reasons),
    )


def _engine_of(run: Run) -> EngineSettings:
    return EngineSettings(**run.settings["engine"])


def _backend_of(engine: EngineSettings, spec: EngineSpec | None) -> str | None:
    """What will serve; None while `auto` cannot be decided."""
    if spec is not None:
        return spec.backend
    return None if engine.backend == "auto" else engine.backend


def _spec_of(run: Run, engine: EngineSettings) -> EngineSpec | None:
    """How to open the engine; None where the choice needs more than a phase file says."""
    is_scripted_agent = setting(run.settings, "agent.kind") == "scripted"
    if engine.backend != "scripted" and not (engine.backend == "auto" and is_scripted_agent):
        return None
    model = run.settings["agent"]["model"]
    return EngineSpec(
        backend="scripted",
        model=model["name"],
        revision=model["revision"],
        dtype=engine.dtype,
        quantization=engine.quantization,
        max_model_len=engine.max_model_len,
        concurrency=engine.concurrency,
        script=engine.script,
        latency_s=engine.latency_s,
    )


def _resources_of(
    model: str | None, profile: Profile | None, *, agent: str
) -> tuple[Resources | None, list[str]]:
    if model is None:
        why = (
            f"`agent.kind` `{agent}` never asks: no engine and no GPU, whatever the model"
            if agent != "scripted"
            else "the scripted engine runs inside the worker: no GPU"
        )
        return (None if profile is None else profile.engineless), [why]
    if profile is None:
        return None, ["its GPUs are in a cluster profile: give --profile FILE"]
    rule = rule_for(profile, model)
    if rule is None:
        patterns = ", ".join(f"`{rule.model}`" for rule in profile.resources) or "none"
        raise PlanError(
            f"profile `{profile.name}` has no `resources` for model `{model}`",
            hint=f"add a rule whose `model` pattern matches it; there are: {patterns}",
        )
    return rule.resources, [f"resources by rule `{rule.model}` of profile `{profile.name}`"]


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
        "gpus": resources.gpus if resources else (None if group.asks and not group.spec else 0),
        "nodes": None if resources is None else 1,
        "tensor_parallel_size": group.tensor_parallel_size,
        "pipeline_parallel_size": group.pipeline_parallel_size,
        "max_model_len": group.max_model_len,
        "concurrency": group.concurrency,
        "workers": group.workers,
        "resources": None if resources is None else asdict(resources),
        "gpu_hours": group.gpu_hours,
        "wall_hours": group.wall_hours,
        "reasons": list(group.reasons),
        "rejected": list(group.rejected),
    }
