"""`run`: refuse what cannot be done, then write, then play."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vendomini.errors import ConfigError
from vendomini.looking.prepared import Request, checked, prepare
from vendomini.phase import Run, pin_key
from vendomini.prepare import Plan, plan_as_json, refuse_missing, refuse_unplayable
from vendomini.running.again import restart, restart_short, say_odd
from vendomini.running.interruptions import INTERRUPTED, like_ctrl_c
from vendomini.running.voice import Voice
from vendomini.running.ways import way_to_play
from vendomini.standing import Counts, count, states
from vendomini.store.aside import finish_cut, is_under_way
from vendomini.store.experiment import Experiment, Extension
from vendomini.store.records import describe, encode, pin_of
from vendomini.submit import new_submission, one_model_at_a_time


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What `run` came to, when it returned.

    `folder` is the experiment's. `submission` is the name under which workers were started; None:
    nothing was left to do. `runs` are those of the grid by state, also the ones that `--limit`
    left out. `exit_status` is that of the command: 0 all was played, or submitted; 1 some runs
    failed or are unfinished; 3 a worker could not go on; 130 interrupted.
    """

    folder: Path
    submission: str | None
    runs: Counts
    exit_status: int


def run(request: Request, voice: Voice, *, joins: bool) -> Played:
    """Play a phase: what is done stays, what is missing is played.

    `joins`: inside a Slurm job, where the cluster is asked for, this process becomes its worker.
    Raises `VendoMiniError` for what cannot be done, before anything is written; that runs fail is
    no error.
    """
    with like_ctrl_c():
        return _run(request, voice, joins=joins)


# -- private -------------------------------------------------------------------------------


def _run(request: Request, voice: Voice, *, joins: bool) -> Played:
    if request.profile is not None and not request.cluster:
        raise ConfigError(
            "--profile says what to ask Slurm for, but this run is local",
            hint="add --cluster, or remove --profile",
        )
    prepared = prepare(request)
    refuse_unplayable(prepared.plan, prepared.runs)
    refuse_missing(prepared.plan, profile=prepared.profile, facts=prepared.facts)
    prepared, _ = checked(request, prepared, meanwhile=voice.meanwhile)
    if prepared.left_out is not None and not request.replace_grid:
        raise ConfigError(
            f"in experiment `{prepared.plan.name}` {prepared.left_out.words}",
            hint="play this beside them, as experiment.name=NEW; or take them out of the grid with "
            "--replace-grid: they are kept, and marked in the tables",
        )
    experiment = Experiment(request.root / prepared.plan.name)
    play = way_to_play(
        experiment, prepared.plan, prepared.runs, prepared.profile, voice=voice, joins=joins
    )
    if experiment.exists():
        experiment.check()
        if is_under_way(experiment):
            finish_cut(experiment)
        _refuse_other_engine(experiment, prepared.plan, anew=request.restart_groups)
        restart(
            experiment,
            prepared.plan,
            prepared.every_run,
            groups=request.restart_groups,
            named=request.restart_runs,
            voice=voice,
        )
    elif request.restart_groups or request.restart_runs:
        option = "--restart-group" if request.restart_groups else "--restart-run"
        raise ConfigError(f"{option}: nothing was played yet", hint=f"remove {option}")
    extension = experiment.extend(prepared.text, prepared.every_run)
    restart_short(experiment, prepared.runs, voice)
    say_odd(experiment, voice)
    finished = experiment.finished()
    done = sum(run.id in finished for run in prepared.runs)
    _say_extension(experiment, extension, voice, done=done)
    if done == len(prepared.runs):
        voice.say(f"finished: all {done} runs are done; nothing to do")
        return _played(experiment, submission=None, exit_status=0)
    voice.plan(prepared.plan)
    for warning in prepared.plan.warnings:
        voice.say(f"warning: {warning}")
    # What is left to write is another each time, and the plan the same.
    kept = replace(prepared.plan, writes=None, warnings=())
    experiment.add_plan(encode(plan_as_json(kept)))
    only = None if request.limit is None else [run.id for run in prepared.runs]
    submission = new_submission(experiment)
    left = _only_unfinished(prepared.plan, finished)
    if prepared.profile is None and len(parts := one_model_at_a_time(left)) > 1:
        status = _play_in_turn(experiment, parts, prepared.runs, submission, only, voice)
    else:
        status = play(left, submission, only)
    return _played(experiment, submission=submission, exit_status=status)


def _played(experiment: Experiment, *, submission: str | None, exit_status: int) -> Played:
    in_grid = [run for run in experiment.runs() if run.in_grid]
    return Played(
        folder=experiment.folder,
        submission=submission,
        runs=count(states(experiment, in_grid).values()),
        exit_status=exit_status,
    )


def _play_in_turn(
    experiment: Experiment,
    parts: Sequence[Plan],
    runs: Sequence[Run],
    submission: str,
    only: Sequence[str] | None,
    voice: Voice,
) -> int:
    """Play parts of a plan here, each once the last has ended; the worst exit status."""
    worst = 0
    for part in parts:
        ids = {run for group in part.groups for run in group.run_ids}
        members = [run for run in runs if run.id in ids]
        voice.say(f"playing {', '.join(f'`{group.key}`' for group in part.groups)}")
        play = way_to_play(experiment, part, members, None, voice=voice, joins=False)
        status = play(part, submission, only)
        worst = max(worst, status)
        if status == INTERRUPTED:
            break
    return worst


def _only_unfinished(plan: Plan, finished: set[str]) -> Plan:
    """The plan without groups that have nothing left to play."""
    left = [group for group in plan.groups if not finished.issuperset(group.run_ids)]
    return replace(plan, groups=tuple(left))


def _refuse_other_engine(experiment: Experiment, plan: Plan, *, anew: Sequence[str]) -> None:
    for group in plan.groups:
        if group.key in anew:
            continue
        pinned = experiment.pinned(pin_key(group.key))
        if pinned is None or group.spec is None:
            continue
        wanted = pin_of(group.spec.settings)
        if not pinned.is_same(wanted):
            raise ConfigError(
                f"the replies of group `{group.key}` come from {describe(pinned)}; this run asks "
                f"for {describe(wanted)}",
                hint="use the engine settings of the first replies, or play the group anew with "
                f"--restart-group '{group.key}'",
            )


def _say_extension(
    experiment: Experiment, extension: Extension, voice: Voice, *, done: int
) -> None:
    """What `run` found and added."""
    kept, new, gone = len(extension.kept), len(extension.new), len(extension.orphaned)
    voice.say(
        f"{experiment.folder}: {done} done and kept, {kept - done} unfinished, {new} new"
        + (f", {gone} no longer in the grid (kept, marked)" if gone else "")
    )
