"""What each command does: values in, one function of the product called, words out."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import typer

from vendomini.cli import planned, show
from vendomini.cli.engines import look_at_engines, look_at_models, needs_model, window_note
from vendomini.cli.places import Pools, example_cluster, memory_gb, pools_here, pools_there
from vendomini.cli.runs import of_file
from vendomini.cli.selftest import Checked, axes_as_json, check_axes, show_axes
from vendomini.cli.standing import experiment_named, print_json
from vendomini.cli.ways import way_to_play
from vendomini.cluster import Profile
from vendomini.config import expand, load_phase, values_of
from vendomini.engines.launch import PLAYABLE
from vendomini.errors import ConfigError
from vendomini.phase import Run
from vendomini.prepare import (
    EngineFacts,
    Plan,
    idle_notes,
    make_plan,
    pin_key,
    plan_as_json,
    refuse_costly,
    refuse_idle,
    refuse_missing,
    refuse_unplayable,
)
from vendomini.profile import default_profile, load_profile
from vendomini.status import states, status_of
from vendomini.store.experiment import Experiment
from vendomini.store.records import Pin, describe, encode
from vendomini.submit import (
    new_submission,
    one_model_at_a_time,
    visible_gpus,
)
from vendomini.workloads.registry import workload_named
from vendomini.workloads.workload import Workload

INTERRUPTED = 130
NO_GPU_HERE = (
    "this machine has no GPU and {memory:.0f} GiB of memory, too little for these models: this is "
    "the plan for an example of a cluster (nodes of 8 H100); give --profile FILE, or --cluster "
    "where Slurm is, for yours"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of `run` and `plan`."""

    config: Path
    overrides: tuple[str, ...]
    cluster: bool
    profile: Path | None
    root: Path
    limit: int | None
    n_jobs: int
    restart_groups: tuple[str, ...]
    as_json: bool
    check: bool = False  # `plan` tries the axes, as `run` does
    explain: str | None = None  # `plan` tells all that decided for this model
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


def prepare(request: Request, *, only_plan: bool = False) -> Prepared:
    """With `only_plan`, what this machine cannot hold is planned for an example of a cluster.

    Raises `ConfigError` or `PlanError`, and `SubmitError` if Slurm is asked and does not answer.
    """
    _refuse_options(request)
    phase = load_phase(request.config, request.overrides, workload_named=workload_named)
    workload = workload_named(phase.experiment.workload)
    profile = None
    notes_of_place: list[str] = []
    if request.profile is not None:
        profile = load_profile(request.profile)
    elif request.cluster:
        profile = default_profile()
    with of_file(request.config):
        models = look_at_models(phase, is_here=profile is None)
    needs = needs_model(phase)
    pools = Pools()
    if profile is None and needs:
        pools = pools_here(visible_gpus(os.environ))
        if only_plan and not pools.pools and models.exceed(memory_gb()):
            profile = example_cluster()
            notes_of_place = [NO_GPU_HERE.format(memory=memory_gb())]
    if profile is not None and needs:
        names = [str(name) for name in values_of(phase, "agent.model.name")]
        pools = pools_there(profile, names, ask_slurm=request.cluster)
    every = expand(phase, window=models.window)
    runs = every if request.limit is None else every[: request.limit]
    notes = [*notes_of_place, *pools.notes, *phase.notes, *models.notes]
    if phase.seed_is_default:
        notes.append("`experiment.seed` is not set: 0 is used")
    if request.limit is not None and len(runs) < len(every):
        notes.append(f"--limit: the first {len(runs)} of {len(every)} runs")
    experiment = Experiment(request.root / phase.experiment.name)
    notes += window_note(experiment, every, models)
    with of_file(request.config):
        facts = look_at_engines(
            phase,
            models,
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
        )
    if request.max_gpu_hours is not None:
        done = experiment.finished() if experiment.exists() else set()
        refuse_costly(plan, request.max_gpu_hours, done=done)
    return Prepared(
        text=phase.text,
        every_run=every,
        runs=runs,
        plan=plan,
        workload=workload,
        profile=profile if request.cluster else None,
        facts=facts,
    )


def show_plan(request: Request) -> int:
    """`plan`, and `run --dry-run`."""
    prepared = prepare(request, only_plan=True)
    checked = None
    if request.check:
        prepared, checked = _checked(request, prepared)
    if request.explain is not None:
        planned.explain(prepared.plan, request.explain)
    elif request.as_json:
        axes = {} if checked is None else {"self_test": axes_as_json(checked)}
        print_json(plan_as_json(prepared.plan) | axes)
    else:
        planned.plan(prepared.plan, to=show.OUT)
        if checked is not None:
            show_axes(checked)
    return 0


def run(request: Request) -> int:
    """`run`: refuse what cannot be done, then write, then play."""
    if request.profile is not None and not request.cluster:
        raise ConfigError(
            "--profile says what to ask Slurm for, but this run is local",
            hint="add --cluster, or leave --profile away",
        )
    prepared = prepare(request)
    refuse_unplayable(prepared.plan, prepared.runs, prepared.workload, playable=PLAYABLE)
    refuse_missing(prepared.plan, prepared.runs, prepared.profile, prepared.facts)
    prepared, _ = _checked(request, prepared)
    experiment = Experiment(request.root / prepared.plan.name)
    play = way_to_play(experiment, prepared.plan, prepared.runs, prepared.profile)
    if experiment.exists():
        experiment.check()
        _refuse_other_engine(experiment, prepared.plan, anew=request.restart_groups)
        _restart(experiment, prepared.plan, request.restart_groups)
    elif request.restart_groups:
        raise ConfigError("--restart-group: nothing was played yet", hint="leave the option away")
    extension = experiment.extend(prepared.text, prepared.every_run)
    finished = experiment.finished()
    done = sum(run.id in finished for run in prepared.runs)
    show.extension(experiment, extension, done=done)
    if done == len(prepared.runs):
        show.say(f"finished: all {done} runs are done; nothing to do")
        _print_outcome(request, experiment, submission=None)
        return 0
    planned.plan(prepared.plan, to=show.ERR)
    experiment.add_plan(encode(plan_as_json(prepared.plan)))
    only = None if request.limit is None else [run.id for run in prepared.runs]
    submission = new_submission(experiment)
    left = _only_unfinished(prepared.plan, finished)
    if prepared.profile is None and len(parts := one_model_at_a_time(left)) > 1:
        status = _play_in_turn(experiment, parts, prepared.runs, submission, only)
    else:
        status = play(left, submission, only)
    _print_outcome(request, experiment, submission=submission)
    return status


def collect_tables(folder: Path, *, root: Path, out: Path | None, as_json: bool) -> int:
    """`collect`."""
    from vendomini.collect import collect

    experiment = experiment_named(folder, root)
    with show.counting("reading steps") as progress:
        collected = collect(experiment, out=out or experiment.path("collected"), progress=progress)
    if as_json:
        print_json(
            {name: str(v) if isinstance(v, Path) else v for name, v in asdict(collected).items()}
        )
    else:
        show.collected(collected)
    return 0


# -- private -------------------------------------------------------------------------------


def _checked(request: Request, prepared: Prepared) -> tuple[Prepared, Checked]:
    """With the axes tried, and noted in the plan those that do nothing; raises `ConfigError` for
    one where that is an error."""
    checked = check_axes(prepared.every_run, prepared.workload)
    with of_file(request.config):
        refuse_idle(checked.test)
    notes = (*prepared.plan.notes, *idle_notes(checked.test))
    return replace(prepared, plan=replace(prepared.plan, notes=notes)), checked


def _play_in_turn(
    experiment: Experiment,
    parts: Sequence[Plan],
    runs: Sequence[Run],
    submission: str,
    only: Sequence[str] | None,
) -> int:
    """Play parts of a plan here, each once the last has ended; the worst exit status."""
    worst = 0
    for part in parts:
        ids = {run for group in part.groups for run in group.run_ids}
        members = [run for run in runs if run.id in ids]
        show.say(f"playing {', '.join(f'`{group.key}`' for group in part.groups)}")
        status = way_to_play(experiment, part, members, None)(part, submission, only)
        worst = max(worst, status)
        if status == INTERRUPTED:
            break
    return worst


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


def _only_unfinished(plan: Plan, finished: set[str]) -> Plan:
    """The plan without groups that have nothing left to play."""
    left = [group for group in plan.groups if not finished.issuperset(group.run_ids)]
    return replace(plan, groups=tuple(left))


def _restart(experiment: Experiment, plan: Plan, wanted: Sequence[str]) -> None:
    by_key = {group.key: group for group in plan.groups}
    for key in wanted:
        group = by_key.get(key)
        if group is None:
            raise ConfigError(
                f"--restart-group: the plan has no group `{key}`",
                hint=f"there are: {', '.join(f'`{name}`' for name in by_key)}",
            )
        members = [run for run in experiment.runs() if run.id in set(group.run_ids)]
        if "running" in states(experiment, members).values():
            raise ConfigError(
                f"--restart-group: workers are playing group `{key}`",
                hint="stop them first; `vendomini status` names them",
            )
    for key in dict.fromkeys(wanted):  # all of them are possible: from here on files move
        kept_in = experiment.set_aside(set(by_key[key].run_ids), pin_key(key))
        show.say(f"group `{key}` starts anew; what there was of it is in {kept_in}")


def _refuse_other_engine(experiment: Experiment, plan: Plan, *, anew: Sequence[str]) -> None:
    for group in plan.groups:
        if group.key in anew:
            continue
        pinned = experiment.pinned(pin_key(group.key))
        if pinned is None or group.spec is None:
            continue
        spec = group.spec
        wanted = Pin(backend=spec.backend, dtype=spec.dtype, quantization=spec.quantization)
        if pinned != wanted:
            raise ConfigError(
                f"the replies of group `{group.key}` come from {describe(pinned)}; this run asks "
                f"for {describe(wanted)}",
                hint="use the engine settings of the first replies, or play the group anew with "
                f"--restart-group '{group.key}'",
            )


def _print_outcome(request: Request, experiment: Experiment, *, submission: str | None) -> None:
    if request.as_json:
        counts = status_of(experiment).runs
        print_json(
            {
                "experiment": str(experiment.folder),
                "submission": submission,
                "runs": asdict(counts),
            }
        )
    else:
        typer.echo(str(experiment.folder))
