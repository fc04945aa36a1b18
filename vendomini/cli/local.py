"""A run on this machine: start workers, show how it goes, end clean on Ctrl-C."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from vendomini.cli import show
from vendomini.phase import Run
from vendomini.prepare import Plan
from vendomini.status import count, states, workers
from vendomini.store.experiment import Experiment
from vendomini.submit import submit_local

LOOK_EVERY_S = 0.25


def play_locally(
    experiment: Experiment,
    plan: Plan,
    *,
    runs: Sequence[Run],
    submission: str,
    only: Sequence[str] | None,
) -> int:
    """Exit status: 0 all done, 1 some runs failed or are unfinished, 3 a worker could not go on."""
    handles: list[Any] = []
    try:
        for _, started in submit_local(experiment, plan, submission=submission, only=only):
            handles.extend(started)
        _watch(experiment, handles, runs, submission)
    except KeyboardInterrupt:
        return _interrupt(experiment, handles)
    return _judge(experiment, runs, submission)


def _watch(
    experiment: Experiment, handles: Sequence[Any], runs: Sequence[Run], submission: str
) -> None:
    """Return when nobody plays the runs any more: neither our workers nor those of others."""
    ids = {run.id for run in runs}
    with Progress(
        TextColumn("playing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]} steps/s, left:"),
        TimeRemainingColumn(),
        console=show.ERR,
    ) as progress:
        task = progress.add_task("", total=len(ids), rate="-")
        started = time.monotonic()
        while True:
            ours_end = all(handle.done() for handle in handles)
            done = len(ids & experiment.finished())
            steps = sum(
                record.steps
                for record in experiment.workers().values()
                if record.submission == submission
            )
            seconds = max(time.monotonic() - started, 0.001)
            progress.update(task, completed=done, rate=f"{steps / seconds:,.0f}")
            if ours_end and (done == len(ids) or "running" not in _states(experiment, runs)):
                return
            time.sleep(LOOK_EVERY_S)


def _states(experiment: Experiment, runs: Sequence[Run]) -> set[str]:
    return set(states(experiment, runs).values())


def _interrupt(experiment: Experiment, handles: Sequence[Any]) -> int:
    """Ask the workers to drain; a second Ctrl-C lets them stop at once."""
    _terminate(handles)
    show.say("interrupted: workers are leaving, Ctrl-C again to stop them at once")
    while not all(handle.done() for handle in handles):
        try:
            time.sleep(0.1)
        except KeyboardInterrupt:
            _terminate(handles)
    show.say(
        f"nothing is lost: the same command goes on where this one stopped ({experiment.folder})"
    )
    return 130


def _terminate(handles: Sequence[Any]) -> None:
    """submitit's launcher hands TERM on to the worker; its `cancel` would send INT, which the
    launcher ignores so that Ctrl-C reaches this process alone."""
    for handle in handles:
        if not handle.done():
            with suppress(ProcessLookupError):
                os.kill(int(handle.job_id), signal.SIGTERM)


def _judge(experiment: Experiment, runs: Sequence[Run], submission: str) -> int:
    counts = count(states(experiment, runs).values())
    show.say(f"{counts.done} of {counts.total} runs are done, {counts.failed} failed")
    if counts.failed:
        show.say(f"why: vendomini status {experiment.folder}")
    if counts.done == counts.total:
        return 0
    ours = [each.record for each in workers(experiment) if each.record.submission == submission]
    problems = {record.problem for record in ours if record.problem}
    for problem in sorted(problems):
        show.say(f"a worker ended: {problem}")
    unfinished = counts.waiting + counts.running
    if unfinished:
        show.say(f"{unfinished} runs are unfinished: give the same command again to go on")
        if len(ours) == 0:
            show.say(f"no worker came up; their logs are in {experiment.path('jobs')}")
    return 3 if problems else 1
