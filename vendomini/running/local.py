"""A run on this machine: start workers, show how it goes, end clean on Ctrl-C."""

import os
import shlex
import signal
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

from vendomini.errors import DiskError
from vendomini.phase import Run
from vendomini.prepare import Plan
from vendomini.running import interruptions
from vendomini.running.interruptions import INTERRUPTED
from vendomini.running.voice import Progress, Voice
from vendomini.standing import (
    count,
    fallbacks,
    group_of,
    pins_of,
    states,
    unwritable,
    workers,
)
from vendomini.store.disk import is_passing
from vendomini.store.experiment import Experiment
from vendomini.store.records import WorkerRecord
from vendomini.submit import submit_local

LOOK_EVERY_S = 1.0
POLL_S = 0.05
ASK_AGAIN_S = 3.0
STILL_S = 3.0
"""After so long without a step it is asked whether anybody can write."""
CANNOT_WORK = "cannot work: "
"""How a worker's log begins to say why, in the words of `worker.entry`."""


def play_locally(
    experiment: Experiment,
    plan: Plan,
    *,
    runs: Sequence[Run],
    submission: str,
    only: Sequence[str] | None,
    voice: Voice,
) -> int:
    """Exit status: 0 all done, 1 some runs failed or are unfinished, 3 a worker could not go on,
    130 interrupted."""
    handles: list[Any] = []
    older = experiment.disk.names(experiment.path("workers"))
    try:
        with interruptions.later():
            for _, started in submit_local(experiment, plan, submission=submission, only=only):
                handles.extend(started)
        _watch(experiment, handles, runs, submission, older=older, voice=voice)
    except KeyboardInterrupt:
        return _interrupt(experiment, handles, voice)
    return _judge(experiment, runs, submission, handles, voice)


def _watch(
    experiment: Experiment,
    handles: Sequence[Any],
    runs: Sequence[Run],
    submission: str,
    *,
    older: Collection[str],
    voice: Voice,
) -> None:
    """Return when nobody plays the runs any more: neither our workers nor those of others."""
    ids = {run.id for run in runs}
    # What earlier commands have played says nothing of the speed of this one.
    done = len(ids & experiment.finished())
    with voice.playing(done=done, total=len(ids)) as tell:
        progress = _Progress(tell, experiment, voice)
        while True:
            ours_end = all(handle.done() for handle in handles)
            try:
                done = len(ids & experiment.finished())
                progress.show(done, _records(experiment, submission, older))
                if ours_end and (done == len(ids) or "running" not in _states(experiment, runs)):
                    return
            except DiskError as error:
                # The workers have more patience, and go on.
                if not is_passing(error):
                    raise
                voice.say(f"{error}: looks again")
            # Files are looked at every second: a listing of thousands is no small thing.
            look_at = time.monotonic() + LOOK_EVERY_S
            while time.monotonic() < look_at:
                time.sleep(POLL_S)
                if not ours_end and all(handle.done() for handle in handles):
                    break


class _Progress:
    """How far the workers of a submission are, and why they stand still."""

    def __init__(self, tell: Progress, experiment: Experiment, voice: Voice) -> None:
        self._tell = tell
        self._experiment = experiment
        self._voice = voice
        self._started = self._moved = time.monotonic()
        self._last = (-1, -1)

    def show(self, done: int, records: Sequence[WorkerRecord]) -> None:
        """Tell how many runs are done, and what the workers say of themselves."""
        now = time.monotonic()
        steps = sum(each.steps for each in records)
        loading = [each.doing for each in records if each.doing and each.state == "starting"]
        self._tell(
            done=done,
            steps_per_s=steps / max(now - self._started, 0.001),
            doing=None if steps or not loading else loading[0],
        )
        if (done, steps) != self._last:
            self._last, self._moved = (done, steps), now
        elif not loading and now - self._moved > STILL_S:
            self._moved = float("inf")  # until it moves again it is said once
            full = unwritable(self._experiment)
            if full is not None:
                self._voice.say(f"workers wait: {full} ({full.hint})")


def _records(experiment: Experiment, submission: str, older: Collection[str]) -> list[WorkerRecord]:
    """What the workers of a submission say of themselves; `older` files are not theirs."""
    names = set(experiment.disk.names(experiment.path("workers"))).difference(older)
    records = (experiment.worker(name.removesuffix(".json")) for name in names)
    return [each for each in records if each and each.submission == submission]


def _states(experiment: Experiment, runs: Sequence[Run]) -> set[str]:
    return set(states(experiment, runs).values())


def _interrupt(experiment: Experiment, handles: Sequence[Any], voice: Voice) -> int:
    """Ask the workers to drain; a second Ctrl-C lets them stop at once."""

    def ask(*_: object) -> None:
        _terminate(handles)

    interruptions.answer(ask)
    ask()
    voice.say("interrupted: workers are leaving, Ctrl-C again to stop them at once")
    asked_at = time.monotonic()
    while not all(handle.done() for handle in handles):
        time.sleep(0.1)
        if time.monotonic() - asked_at > ASK_AGAIN_S:
            # A worker that was just starting may not have heard it.
            ask()
            asked_at = time.monotonic()
    voice.say(
        f"nothing is lost: the same command goes on where this one stopped ({experiment.folder})"
    )
    return INTERRUPTED


def _terminate(handles: Sequence[Any]) -> None:
    """submitit's launcher hands TERM on to the worker; its `cancel` would send INT, which the
    launcher ignores so that Ctrl-C reaches this process alone."""
    for handle in handles:
        if not handle.done():
            with suppress(ProcessLookupError):
                os.kill(int(handle.job_id), signal.SIGTERM)


def _judge(
    experiment: Experiment,
    runs: Sequence[Run],
    submission: str,
    handles: Sequence[Any],
    voice: Voice,
) -> int:
    counts = count(states(experiment, runs).values())
    voice.say(f"{counts.done} of {counts.total} runs are done, {counts.failed} failed")
    for told in fallbacks(pins_of(experiment, dict.fromkeys(map(group_of, runs)))):
        voice.say(told)
    if counts.failed:
        voice.say(f"why: vendomini status {shlex.quote(str(experiment.folder))}")
    if counts.done == counts.total:
        return 0
    ours = [each for each in workers(experiment) if each.record.submission == submission]
    problems = {
        f"a worker {'ended' if each.record.beat else 'could not start'}: {each.record.problem}"
        for each in ours
        if each.record.problem
    }
    if len(ours) < len(handles):
        problems |= {why for handle in handles if (why := _why_it_never_worked(handle))}
    full = unwritable(experiment)  # then a worker could not even say so
    if full is not None:
        problems.add(f"{full} ({full.hint})")
    for problem in sorted(problems):
        voice.say(problem)
    killed = sum(each.record.state != "ended" and not each.is_alive for each in ours)
    if killed and not problems:
        voice.say(f"{killed} of {len(handles)} workers were killed, perhaps because memory ran out")
    unfinished = counts.waiting + counts.running
    if unfinished:
        mended = "solve that, then " if problems else ""
        voice.say(f"{unfinished} runs are unfinished: {mended}give the same command again to go on")
    return 3 if problems else 1


def _why_it_never_worked(handle: Any) -> str | None:
    """The last line a process wrote that did not become a worker; None if it left in order."""
    log = handle.paths.stderr
    text = log.read_text(errors="replace") if log.exists() else ""
    if CANNOT_WORK in text:
        return f"a worker could not start: {text.rpartition(CANNOT_WORK)[2].splitlines()[0]}"
    if "Traceback" in text:
        return f"a worker could not start: {text.strip().splitlines()[-1]} (all of it: {log})"
    return None
