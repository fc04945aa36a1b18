"""From runs, a profile and what is known of models to a plan: pure, with the reasons in it."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from vendomini.chat import MODEL
from vendomini.cluster import Profile
from vendomini.errors import ConfigError, PlanError
from vendomini.identity import is_local
from vendomini.phase import ENGINELESS, Run, group_key, has_model, settings_of
from vendomini.planner.choice import Candidate
from vendomini.planner.pool import Pool
from vendomini.planner.work import RunWork
from vendomini.prepare.backends import check_all_act, refuse_unready
from vendomini.prepare.deciding import decide_group
from vendomini.prepare.facts import EngineFacts
from vendomini.prepare.group import GroupPlan, Plan
from vendomini.prepare.opening import window_of
from vendomini.prepare.unplanned import Place, models_of, workers_of
from vendomini.prepare.writing import writes_of
from vendomini.workloads.registry import asked_by
from vendomini.workloads.workload import Demand, Length, Workload

ENGINELESS_CONCURRENCY = 4
"""Runs under way of a worker that never asks: they take turns on one core, their writes overlap."""

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
    overridden: Sequence[str] = (),
    done: AbstractSet[str] = frozenset(),
    folder: str | None = None,
    is_preregistered: bool = False,
) -> Plan:
    """Decide for each group. With a profile the jobs are Slurm's, without they are local.

    `done` are the ids of runs that are finished and write nothing any more, `folder` is the
    experiment's; both act on nothing but what the plan says is written. Of settings `overridden` by
    the command line a note says which do nothing. `is_preregistered`: the
    phase names a preregistration, so nothing takes an engine's place unless it says so.

    Raises `ConfigError` if a run's settings are impossible together or for its model, `PlanError`
    if the profile has no resources for a group that needs an engine.
    """
    by_key: dict[str, list[Run]] = {}
    typed: dict[str, Any] = {}
    arms: list[Any] = []
    lengths: dict[str, tuple[int, Length]] = {}
    works: dict[str, dict[RunWork, int]] = {}
    log_bytes: dict[str, int] = {}
    # The runs of an arm share their settings.
    known: dict[int, tuple[str, RunWork | None, int]] = {}
    for run in runs:
        found = known.get(id(run.settings))
        if found is None:
            settings: Any = settings_of(run.settings, workload.settings_type)
            workload.check(settings)
            key = group_key(run, asked_by(run))
            typed.setdefault(key, settings)
            arms.append(settings)
            demand = None if key == ENGINELESS else workload.demand(settings)
            requests = 0 if demand is None else demand.requests
            if key != ENGINELESS and requests > lengths.get(key, (-1,))[0]:
                lengths[key] = requests, workload.length(settings, phase=phase)
            arm_work = None if demand is None else _work(demand, run)
            found = key, arm_work, workload.written(settings)
            known[id(run.settings)] = found
        key, work, written = found
        by_key.setdefault(key, []).append(run)
        log_bytes[key] = log_bytes.get(key, 0) + written
        if work is not None:
            counts = works.setdefault(key, {})
            counts[work] = counts.get(work, 0) + 1
    place = Place(
        profile=profile,
        local_workers=local_workers,
        facts=facts,
        is_preregistered=is_preregistered,
    )
    decided = (
        decide_group(key, members, place, works.get(key, {}), lengths[key][1])
        if key != ENGINELESS
        else _plan_engineless(key, members, place)
        for key, members in by_key.items()
    )
    groups = tuple(replace(group, log_bytes=log_bytes[group.key]) for group in decided)
    check_all_act(
        (group.instead_of or group.backend, by_key[group.key][0].engine)
        for group in groups
        if group.backend is not None
    )
    heard = [
        *_inert_notes(by_key, typed, workload),
        *_idle_notes(by_key, typed, workload, overridden),
        *dict.fromkeys(workload.notes(arms)),
        *_download_notes(groups, facts, is_here=profile is None),
        *([] if profile is None else _crowd_notes(groups)),
        *_node_notes(groups),
    ]
    return Plan(
        name=name,
        phase=phase,
        runs=len(runs),
        groups=groups,
        notes=(*notes, *heard),
        writes=writes_of(groups, done=done, folder=folder),
    )


def refuse_costly(plan: Plan, most: float, *, done: AbstractSet[str] = frozenset()) -> None:
    """Raise `PlanError` if what is left of the plan is expected to take more GPU-hours than `most`,
    or if that cannot be known. `done` are the ids of runs that are finished."""
    hours: dict[str, float] = {}
    for group in plan.groups:
        left = sum(run not in done for run in group.run_ids) / len(group.run_ids)
        if left and group.gpu_hours is None:
            raise PlanError(
                f"--max-gpu-hours is `{most:g}`, but the GPU-hours of group `{group.key}` "
                "are not known: its model's sizes or its GPUs are not",
                hint="name a model that is known (`vendomini models`), and describe the cluster's "
                "`nodes` in a profile",
            )
        hours[group.key] = (group.gpu_hours or 0.0) * left
    total = sum(hours.values())
    if total > most:
        dearest = max(hours, key=lambda key: hours[key])
        raise PlanError(
            f"the plan is expected to take `{total:,.3g}` GPU-hours, more than --max-gpu-hours "
            f"`{most:g}`; {hours[dearest]:,.3g} of them are group `{dearest}`'s",
            hint="play fewer runs (--limit, or a smaller grid), or raise the limit",
        )


def refuse_unplayable(plan: Plan, runs: Sequence[Run]) -> None:
    """Raise `ConfigError` if the plan has a run that can be planned but not played."""
    seen: set[int] = set()  # the runs of an arm share their settings
    for run in runs:
        if id(run.settings) in seen:
            continue
        seen.add(id(run.settings))
        if asked_by(run) == "model" and run.model.context_length == "auto":
            raise ConfigError(
                f"`{MODEL}.context_length` is `auto`, but the longest window that all models "
                "of this phase allow is not known: some of them are not on this machine",
                hint=f"give a number, such as {MODEL}.context_length=8192",
            )
    for group in plan.groups:
        if group.resources is not None and group.resources.nodes > 1:
            raise ConfigError(
                f"group `{group.key}` needs {group.resources.nodes} nodes for one engine: this "
                "version can plan that, but not play it",
                hint="use a quantised checkpoint or a shorter window that fits one node: see "
                f"`vendomini plan --explain {group.model}`",
            )


def refuse_missing(
    plan: Plan, *, profile: Profile | None, facts: EngineFacts, falls_back: bool = True
) -> None:
    """Raise `ConfigError` for a workload or an engine that cannot be loaded where it would be: it
    is not installed. `falls_back`: an engine in whose place another may serve is no obstacle."""
    has = facts.packages.get(facts.python, frozenset(facts.modules))
    for module, what in facts.modules.items():
        if module not in has:
            raise ConfigError(
                f"{what} is in module `{module}`, which `{facts.python}`, the interpreter of the "
                "workers, does not find",
                hint="install its package there, or name another interpreter as `python` in the "
                "profile",
            )
    for group in plan.groups:
        if group.asks and (group.fallback is None or not falls_back):
            refuse_unready(group.backend, group.settings, profile, facts)


# -- private -------------------------------------------------------------------------------


def _plan_engineless(key: str, members: Sequence[Run], place: Place) -> GroupPlan:
    resources = None if place.profile is None else place.profile.engineless
    return GroupPlan(
        key=key,
        models=models_of([run for run in members if has_model(run.settings)]),
        run_ids=tuple(run.id for run in members),
        engine=None,
        resources=resources,
        concurrency=ENGINELESS_CONCURRENCY,
        workers=workers_of(resources, place, most=len(members)),
        reasons=("these runs ask nothing: they need no engine and no GPU, whatever the model",),
    )


def _work(demand: Demand, run: Run) -> RunWork:
    """What a run asks, in the planner's words, given its window."""
    return RunWork(
        requests=demand.requests,
        side_requests=demand.side_requests,
        prefix_tokens=demand.prefix_tokens,
        growth_tokens=demand.growth_tokens,
        output_tokens=demand.output_tokens,
        window_tokens=window_of([run]),
        kept_share=demand.kept_share,
        at_once=demand.at_once,
        own_tokens=demand.own_tokens,
    )


def _download_notes(groups: Sequence[GroupPlan], facts: EngineFacts, *, is_here: bool) -> list[str]:
    known = {name for name, _ in facts.models}
    named = [group.model for group in groups if group.backend is not None and group.loads_model]
    unknown = [name for name in dict.fromkeys(named) if name not in known and not is_local(name)]
    if not unknown:
        return []
    follows = (
        "so the engine will download it" if is_here else "and not looked for on the workers' nodes"
    )
    return [f"not on this machine, {follows}: {', '.join(unknown)}"]


def _node_notes(groups: Sequence[GroupPlan]) -> list[str]:
    return [
        f"group `{group.key}` needs {group.resources.nodes} nodes for one engine: `run` of this "
        "version refuses it"
        for group in groups
        if group.resources is not None and group.resources.nodes > 1
    ]


def _crowd_notes(groups: Sequence[GroupPlan]) -> list[str]:
    """Where groups together want more GPUs than there are: each group's time is its own, as if it
    were alone, and the phase takes longer than the longest of them."""
    by_pool: dict[Pool, list[Candidate]] = {}
    for group in groups:
        if group.choice is not None:
            candidate = group.choice.candidate
            by_pool.setdefault(candidate.pool, []).append(candidate)
    notes = []
    for pool, chosen in by_pool.items():
        there = pool.nodes * pool.gpus_per_node
        wanted = sum(each.estimate.at_once * each.deployment.gpus for each in chosen)
        least = sum(each.estimate.gpu_hours for each in chosen) / there
        if wanted > there and least > max(each.estimate.wall_hours for each in chosen):
            hours = f"{least:.2g}" if least < 10 else f"{least:,.0f}"
            notes.append(
                f"the groups want {wanted} x {pool.gpu.name} at a time, and there are {there}: "
                f"they take turns, so the phase takes about {hours} h or more"
            )
    return notes


def _inert_notes(
    by_key: Mapping[str, Sequence[Run]], typed: Mapping[str, Any], workload: Workload
) -> list[str]:
    notes: dict[str, None] = {}
    for key, members in by_key.items():
        for axis, why in workload.inert(typed[key], tuple(members[0].arm)).items():
            notes[f"axis `{axis}` does nothing here: {why}"] = None
    return list(notes)


def _idle_notes(
    by_key: Mapping[str, Sequence[Run]],
    typed: Mapping[str, Any],
    workload: Workload,
    overridden: Sequence[str],
) -> list[str]:
    """Of what the command line set, what acts on no run at all."""
    idle: dict[str, str] = {}
    for at, (key, members) in enumerate(by_key.items()):
        arm = tuple(members[0].arm)
        asked = tuple(name for name in overridden if name not in arm)
        found = workload.inert(typed[key], (*arm, *asked))
        here = {name: found[name] for name in asked if name in found}
        idle = here if at == 0 else {name: why for name, why in idle.items() if name in here}
    return [f"`{name}` does nothing here: {why}" for name, why in idle.items()]
