"""`run`: refuse what cannot be done, then write, then play."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import typer

from vendomini.cli import planned, show
from vendomini.cli.preparing import Request, checked, prepare
from vendomini.cli.ways import way_to_play
from vendomini.engines.launch import PLAYABLE
from vendomini.errors import ConfigError
from vendomini.phase import Run
from vendomini.prepare import Plan, pin_key, plan_as_json, refuse_missing, refuse_unplayable
from vendomini.standing import states, status_of
from vendomini.store.experiment import Experiment
from vendomini.store.records import Pin, describe, encode
from vendomini.submit import new_submission, one_model_at_a_time

INTERRUPTED = 130


def run(request: Request) -> int:
    """`run`; the exit status."""
    if request.profile is not None and not request.cluster:
        raise ConfigError(
            "--profile says what to ask Slurm for, but this run is local",
            hint="add --cluster, or leave --profile away",
        )
    prepared = prepare(request)
    refuse_unplayable(prepared.plan, prepared.runs, playable=PLAYABLE)
    refuse_missing(
        prepared.plan,
        prepared.runs,
        prepared.workload,
        profile=prepared.profile,
        facts=prepared.facts,
    )
    prepared, _ = checked(request, prepared)
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


# -- private -------------------------------------------------------------------------------


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
        show.print_json(
            {
                "experiment": str(experiment.folder),
                "submission": submission,
                "runs": asdict(counts),
            }
        )
    else:
        typer.echo(str(experiment.folder))
