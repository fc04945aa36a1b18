"""What a group gets without computing it: a rule's GPUs, this machine's first ones, or its CPU."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vendomini.chat import MODEL
from vendomini.cluster import Profile, Resources, rule_for
from vendomini.engines.registry import backend_named
from vendomini.errors import PlanError
from vendomini.hardware import GIB
from vendomini.phase import Run, one_an_arm, pin_key
from vendomini.prepare.cpu_memory import CpuMemory, cpu_cache_reasons
from vendomini.prepare.facts import EngineFacts, ModelName
from vendomini.prepare.group import GroupPlan
from vendomini.prepare.opening import placed, spec_of
from vendomini.serving import EngineSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a phase will be played, and what is known there."""

    profile: Profile | None  # None: here
    local_workers: int
    facts: EngineFacts
    is_preregistered: bool = False  # an engine that cannot start fails, where nobody says otherwise


def model_name(run: Run) -> ModelName:
    return run.model.name, run.model.revision


def models_of(members: Sequence[Run]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run.model.name for run in one_an_arm(members)))


def workers_of(resources: Resources | None, place: Place, *, most: int) -> int:
    """How many workers there are: those of the resources, or as many as are wanted here."""
    wanted = place.local_workers if resources is None else resources.workers
    return max(1, min(wanted, most))


def ruled_resources(model: str, place: Place) -> tuple[Resources | None, list[str]]:
    """What a profile's rule gives the workers of a model; None without a profile."""
    profile = place.profile
    if profile is None:
        return None, []
    rule = rule_for(profile, model)
    if rule is None:
        patterns = ", ".join(f"`{rule.model}`" for rule in profile.resources) or "none"
        raise PlanError(
            f"profile `{profile.name}` has no `resources` for model `{model}`, and does not "
            "describe the cluster's GPUs",
            hint="describe the cluster's `nodes` there, or plan with --cluster on a machine with "
            f"Slurm, or add a rule whose `model` pattern matches the model; there are: {patterns}",
        )
    return rule.resources, [f"resources by rule `{rule.model}` of profile `{profile.name}`"]


def unplanned(
    group: GroupPlan,
    members: Sequence[Run],
    place: Place,
    *,
    resources: Resources | None,
    why: Sequence[str],
) -> GroupPlan:
    """The plan of a group where there is nothing to compute with. Raises as `make_plan`."""
    if resources is None and group.backend is None:
        why = [*why, "its GPUs are in a cluster profile: give --profile FILE"]
    reasons = [*why, *group.reasons]
    name = model_name(members[0])
    spec, most = group.engine, len(members)
    if group.backend is not None:
        at = placed(
            group.settings,
            backend_named(group.backend),
            name=name[0],
            model=place.facts.models.get(name),
            resources=resources,
            facts=place.facts,
        )
        _refuse_small_machine(name, at.settings, resources, place)
        reasons += at.reasons
        most = min(most, at.most_workers or most)
        spec = spec_of(members, at.settings, profile=place.profile, facts=place.facts)
        key = f"{MODEL}.context_length"
        if group.settings.max_model_len is not None:
            key = "engine.max_model_len"
        try:
            reasons += _cpu_reasons(name, spec.settings, key, resources, place)
        except PlanError as error:
            if place.facts.pins.get(pin_key(group.key)) is None:
                raise
            # It has been served here. What is free this second may be taken by its own workers.
            reasons.append(f"memory on the CPU: {error}; this group has been served all the same")
    workers = workers_of(resources, place, most=most)
    if resources is None and workers < min(place.local_workers, len(members)):
        reasons.append(f"only {workers} of {place.local_workers} workers: there are no more GPUs")
    return replace(
        group,
        engine=spec,
        resources=resources,
        workers=workers,
        model_spec=place.facts.size_of(name),
        reasons=tuple(reasons),
    )


# -- private -------------------------------------------------------------------------------


def _cpu_reasons(
    name: ModelName,
    settings: EngineSettings,
    key: str,
    resources: Resources | None,
    place: Place,
) -> list[str]:
    """How memory will be shared out where the engine runs on a CPU."""
    planned_as = backend_named(settings.backend).planned_as
    if planned_as is None or (settings.gpus and settings.device != "cpu"):
        return []
    memory = None
    if resources is not None:
        memory = CpuMemory(bytes=int(resources.memory_gb * GIB), of="each job makes")
    elif place.facts.available_bytes is not None:
        workers = max(1, place.local_workers)
        each = "this machine has" if workers == 1 else f"each of {workers} workers here has"
        memory = CpuMemory(bytes=place.facts.available_bytes // workers, of=each)
    return cpu_cache_reasons(
        name[0],
        place.facts.size_of(name),
        settings,
        planned_as=planned_as,
        key=key,
        memory=memory,
    )


def _refuse_small_machine(
    name: ModelName, settings: EngineSettings, resources: Resources | None, place: Place
) -> None:
    """Refuse to load a model on a CPU whose memory its weights alone exceed."""
    size, memory_gb = place.facts.size_of(name), place.facts.memory_gb
    if resources is not None or settings.gpus or size is None or memory_gb is None:
        return
    if size.weight_bytes > memory_gb * GIB:
        raise PlanError(
            f"model `{name[0]}` has {size.weight_bytes / GIB:,.0f} GiB of weights; this machine "
            f"has no GPU and {memory_gb:,.0f} GiB of memory",
            hint="play it on a cluster: --cluster, with --profile FILE to say what yours is",
        )
