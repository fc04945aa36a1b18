"""What is played again: groups and runs that are asked for, and runs that are short."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial

from vendomini.errors import ConfigError
from vendomini.looking.runs import id_of
from vendomini.phase import Run, pin_key
from vendomini.prepare import Plan
from vendomini.running.voice import Voice
from vendomini.standing import find_short, states
from vendomini.store.aside import set_aside
from vendomini.store.experiment import Experiment

NAMED = 3  # runs of which each is said
LONG_BYTES = 1 << 29  # of logs to count: seconds, in which nothing is to be seen


def restart(
    experiment: Experiment,
    plan: Plan,
    runs: Sequence[Run],
    *,
    groups: Sequence[str],
    named: Sequence[str],
    voice: Voice,
) -> None:
    """Set groups aside, each as a whole, and single runs, each named by the beginning of its id.

    Raises `ConfigError`, before anything moves, for one of either that there is not, or that is
    being played.
    """
    by_key = {group.key: set(group.run_ids) for group in plan.groups}
    for key in groups:
        if key not in by_key:
            raise ConfigError(
                f"--restart-group: the plan has no group `{key}`",
                hint=f"there are: {', '.join(f'`{name}`' for name in by_key)}",
            )
    ids = {id_of([run.id for run in runs], each, "--restart-run") for each in named}

    def refuse_group(key: str) -> None:
        _refuse_playing(experiment, by_key[key], f"--restart-group: workers are playing `{key}`")

    def refuse_runs() -> None:
        _refuse_playing(experiment, ids, "--restart-run: workers are playing one of these runs")

    for key in groups:
        refuse_group(key)
    if ids:
        refuse_runs()
    for key in dict.fromkeys(groups):  # all of it is possible: from here on files move
        kept_in = set_aside(
            experiment,
            dict.fromkeys(by_key[key], "asked for"),
            reason=f"--restart-group {key}",
            pin=pin_key(key),
            refuse=partial(refuse_group, key),
        )
        voice.say(f"group `{key}` starts anew; what there was of it is in {kept_in}")
    if ids:
        kept_in = set_aside(
            experiment, dict.fromkeys(ids, "asked for"), reason="--restart-run", refuse=refuse_runs
        )
        for run in sorted(ids):
            voice.say(f"run {run} starts anew; what there was of it is in {kept_in}")


def restart_short(experiment: Experiment, runs: Sequence[Run], voice: Voice) -> None:
    """Set those of the runs aside that are short; they go on from the replies that are left."""

    def progress(done: int, total: int) -> None:
        if done == 0 and total >= LONG_BYTES:
            voice.meanwhile(f"counting the steps of finished runs ({total / 1e9:.1f} GB of logs)")

    in_grid = {run.id for run in runs}
    short = {run: why for run, why in find_short(experiment, progress).items() if run in in_grid}
    if not short:
        return
    kept_in = set_aside(
        experiment,
        short,
        reason="short",
        keeps_replies=True,
        still=lambda: find_short(experiment, progress),
    )
    if kept_in is None:
        return  # another `run` came first
    _say_short(short, voice)
    voice.say(f"they are played again; what there was of them is in {kept_in}")


def say_odd(experiment: Experiment, voice: Voice) -> None:
    """Files that stopped nobody."""
    for name, why in experiment.odd.items():
        voice.say(f"passed over: {name}: {why}")


# -- private -------------------------------------------------------------------------------


def _say_short(short: Mapping[str, str], voice: Voice) -> None:
    for run, why in list(short.items())[:NAMED]:
        voice.say(f"run {run} is short: {why}")
    if len(short) > NAMED:
        voice.say(f"... and {len(short) - NAMED} more runs are short")


def _refuse_playing(experiment: Experiment, ids: Collection[str], message: str) -> None:
    members = [run for run in experiment.runs() if run.id in ids]
    if "running" in states(experiment, members).values():
        raise ConfigError(message, hint="stop them first; `vendomini status` names them")
