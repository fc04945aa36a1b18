"""From what is asked of `run` and `plan` to a plan."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vendomini.cluster import Profile
from vendomini.config import expand, load_phase
from vendomini.engines.gpus import visible_gpus
from vendomini.errors import ConfigError
from vendomini.looking.engines import look_at_engines
from vendomini.looking.models import (
    look_at_models,
    names_of,
    needs_model,
    strange_name,
    window_note,
)
from vendomini.looking.places import Pools, example_cluster, memory_gb, pools_here, pools_there
from vendomini.looking.runs import of_file, runs_in
from vendomini.looking.space import rooms
from vendomini.phase import Run
from vendomini.prepare import (
    EngineFacts,
    Plan,
    make_plan,
    refuse_costly,
    refuse_environments,
    shortages,
)
from vendomini.prepare.left_out import LeftOut, left_out
from vendomini.profile import default_profile, load_profile
from vendomini.schema import settings_out_of_id
from vendomini.shipped import phase_file, profile_file
from vendomini.store.experiment import Experiment
from vendomini.store.measurements import read_measurements
from vendomini.workloads.registry import workload_named
from vendomini.workloads.workload import Workload

if TYPE_CHECKING:  # the self-test plays runs: a plan without it loads no world
    from vendomini.looking.axes import Checked

NO_GPU_HERE = (
    "this machine has no GPU and {memory:.0f} GiB of memory, too little for these models: this is "
    "the plan for an example of a cluster (nodes of 8 H100); give --profile FILE, or --cluster "
    "where Slurm is, for yours"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which phase `run` and `plan` are about, and where it is to be played.

    `config` and `profile` are paths of files, or names of shipped ones.
    """

    config: Path
    overrides: tuple[str, ...]
    cluster: bool
    profile: Path | None
    root: Path
    limit: int | None
    n_jobs: int
    restart_groups: tuple[str, ...] = ()
    restart_runs: tuple[str, ...] = ()  # each the beginning of an id
    trust_names: bool = False  # a model that nobody here knows may be submitted to Slurm
    replace_grid: bool = False  # runs with results may leave the grid
    max_gpu_hours: float | None = None  # a plan that is expected to take more is refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A phase, expanded and planned; nothing was written or asked yet."""

    text: str
    every_run: list[Run]
    runs: list[Run]  # those that are played: all, or the first ones
    plan: Plan
    workload: Workload
    profile: Profile | None  # None: local
    facts: EngineFacts
    left_out: LeftOut | None  # runs with results that are not in its grid; None: there are none


def prepare(request: Request, *, only_plan: bool = False) -> Prepared:
    """With `only_plan`, what this machine cannot hold is planned for an example of a cluster.

    Raises `ConfigError` or `PlanError`, and `SubmitError` if Slurm is asked and does not answer.
    """
    _refuse_options(request)
    file = phase_file(request.config)
    phase = load_phase(file, request.overrides, workload_named=workload_named)
    workload = workload_named(phase.workload)
    profile = None
    notes_of_place: list[str] = []
    if request.profile is not None:
        profile = load_profile(profile_file(request.profile))
        refuse_environments(profile)
    elif request.cluster:
        profile = default_profile()
    with of_file(request.config):
        models = look_at_models(phase, is_here=profile is None, only_plan=only_plan)
    served = {each.model for each in read_measurements(request.root)}
    models = replace(models, strange=tuple(n for n in models.strange if n not in served))
    if request.cluster and models.strange and not (only_plan or request.trust_names):
        raise ConfigError(
            strange_name(models.strange[0]),
            hint="correct it; or, if the workers' nodes have it or can download it, give "
            "--trust-names",
        )
    needs = needs_model(phase)
    experiment = Experiment(request.root / phase.experiment.name)
    pools = Pools()
    if profile is None and needs:
        pools = pools_here(visible_gpus(os.environ))
        if only_plan and not pools.pools and models.exceed(memory_gb()):
            profile = example_cluster()
            notes_of_place = [NO_GPU_HERE.format(memory=memory_gb())]
    if profile is not None and needs:
        names = [name for name, _ in names_of(phase)]
        pools = pools_there(profile, names, ask_slurm=request.cluster)
    every = expand(phase, window=models.window, known=runs_in(experiment))
    runs = every if request.limit is None else every[: request.limit]
    notes = [*models.doubts, *notes_of_place, *pools.notes, *phase.notes, *models.notes]
    if phase.seed_is_default:
        notes.append("`experiment.seed` is not set: 0 is used")
    if request.limit is not None and len(runs) < len(every):
        notes.append(f"--limit: the first {len(runs)} of {len(every)} runs")
    notes += window_note(experiment, every, models)
    done = experiment.finished() if experiment.exists() else set()
    gone = left_out(
        runs_in(experiment)().values() if done else (),
        every,
        finished=done,
        out_of_id=settings_out_of_id(workload.settings_type),
    )
    if gone is not None and not request.replace_grid:
        notes.append(f"{gone.words}: `run` refuses that without --replace-grid")
    with of_file(request.config):
        facts = look_at_engines(
            phase,
            models,
            workload=workload,
            profile=profile,
            experiment=experiment,
            restarted=request.restart_groups,
            pools=pools,
            is_sketch=profile is not None and not request.cluster,
        )
        plan = make_plan(
            runs,
            workload,
            name=phase.experiment.name,
            phase=phase.experiment.phase,
            profile=profile,
            local_workers=request.n_jobs,
            facts=facts,
            notes=notes,
            overridden=phase.overridden,
            done=done,
            folder=str(experiment.folder),
            is_preregistered=phase.experiment.preregistration is not None,
        )
    if plan.writes is not None:
        plan = replace(plan, warnings=shortages(plan.writes, rooms(experiment.folder)))
    if request.max_gpu_hours is not None:
        refuse_costly(plan, request.max_gpu_hours, done=done)
    return Prepared(
        text=phase.text,
        every_run=every,
        runs=runs,
        plan=plan,
        workload=workload,
        profile=profile if request.cluster else None,
        facts=facts,
        left_out=gone,
    )


def checked(
    request: Request, prepared: Prepared, *, meanwhile: Callable[[str], None] | None = None
) -> tuple[Prepared, "Checked"]:
    """With the axes tried, and noted in the plan those that do nothing; raises `ConfigError` for
    one where that is an error. `meanwhile` is told if it takes a while; None: nobody watches."""
    from vendomini.looking.axes import check_axes
    from vendomini.prepare.selftest import idle_notes, refuse_idle

    checked = check_axes(prepared.every_run, prepared.workload, meanwhile=meanwhile)
    with of_file(request.config):
        refuse_idle(checked.test)
    notes = (*prepared.plan.notes, *idle_notes(checked.test))
    return replace(prepared, plan=replace(prepared.plan, notes=notes)), checked


# -- private -------------------------------------------------------------------------------


def _refuse_options(request: Request) -> None:
    for option, value in (("--limit", request.limit), ("--n-jobs", request.n_jobs)):
        if value is not None and value < 1:
            raise ConfigError(f"{option} is `{value}`", hint="give a whole number from 1 on")
    if request.max_gpu_hours is not None and not request.max_gpu_hours >= 0:
        raise ConfigError(
            f"--max-gpu-hours is `{request.max_gpu_hours}`", hint="give a number from 0 on"
        )
    try:
        str(request.root.absolute()).encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"--root is {str(request.root)!a}, which is not UTF-8 text",
            hint="choose a folder whose path is",
        ) from None
