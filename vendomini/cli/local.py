"""A run on this machine: start workers, show how it goes, end clean on Ctrl-C."""

import os
import shlex
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from vendomini.cli import show
from vendomini.errors import StoreError
from vendomini.phase import Run
from vendomini.prepare import Plan
from vendomini.standing import count, states, workers
from vendomini.store.experiment import Experiment
from vendomini.store.records import WorkerRecord
from vendomini.submit import submit_local

LOOK_EVERY_S = 1.0
POLL_S = 0.05
ASK_AGAIN_S = 3.0
WIDE = 60
PROBE_BYTES = 1 << 16
CANNOT_WORK = "cannot work: "
"""How a worker's log begins to say why, in the words of `worker.entry`."""


def play_locally(
    experiment: Experiment,
    plan: Plan,
    *,
    runs: Sequence[Run],
    submission: str,
    only: Sequence[str] | None,
) -> int:
    """Exit status: 0 all done, 1 some runs failed or are unfinished, 3 a worker could not go on,
    130 interrupted."""
    handles: list[Any] = []
    older = experiment.disk.names(experiment.path("workers"))
    try:
        with _interruptions_later():
            for _, started in submit_local(experiment, plan, submission=submission, only=only):
                handles.extend(started)
        _watch(experiment, handles, runs, submission, older=older)
    except KeyboardInterrupt:
        return _interrupt(experiment, handles)
    return _judge(experiment, runs, submission, handles)


@contextmanager
def _interruptions_later() -> Iterator[None]:
    """Ctrl-C and TERM wait until the end of the block: no worker is started and not known of.

    Ctrl-C is blocked rather than handled: processes that are started inherit the block, and are
    not to hear it anyway.
    """
    terms: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: terms.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if terms:
        raise KeyboardInterrupt


def _watch(
    experiment: Experiment,
    handles: Sequence[Any],
    runs: Sequence[Run],
    submission: str,
    *,
    older: Collection[str],
) -> None:
    """Return when nobody plays the runs any more: neither our workers nor those of others."""
    ids = {run.id for run in runs}
    with _progress() as progress:
        # What earlier commands have played says nothing of the speed of this one.
        done = len(ids & experiment.finished())
        task = progress.add_task("", total=len(ids), completed=done, rate="-", doing="playing")
        started = time.monotonic()
        while True:
            ours_end = all(handle.done() for handle in handles)
            done = len(ids & experiment.finished())
            seconds = max(time.monotonic() - started, 0.001)
            records = _records(experiment, submission, older)
            steps = sum(each.steps for each in records)
            loading = [each.doing for each in records if each.doing and each.state == "starting"]
            progress.update(
                task,
                completed=done,
                rate=f"{steps / seconds:,.0f}",
                doing="playing" if steps or not loading else _short(loading[0]),
            )
            if ours_end and (done == len(ids) or "running" not in _states(experiment, runs)):
                return
            # Files are looked at every second: a listing of thousands is no small thing.
            look_at = time.monotonic() + LOOK_EVERY_S
            while time.monotonic() < look_at:
                time.sleep(POLL_S)
                if not ours_end and all(handle.done() for handle in handles):
                    break


def _records(experiment: Experiment, submission: str, older: Collection[str]) -> list[WorkerRecord]:
    """What the workers of a submission say of themselves; `older` files are not theirs."""
    names = set(experiment.disk.names(experiment.path("workers"))).difference(older)
    records = (experiment.worker(name.removesuffix(".json")) for name in names)
    return [each for each in records if each and each.submission == submission]


def _short(text: str) -> str:
    """What an engine says while it starts, in the width a bar leaves it."""
    text = text.removeprefix("[*] ")
    return text if len(text) <= WIDE else text[: WIDE - 3] + "..."


def _progress() -> Progress:
    """Runs done, steps a second, time left; without the steps where the terminal is narrow."""
    rate = TextColumn("{task.fields[rate]} steps/s,")
    return Progress(
        TextColumn("{task.fields[doing]}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("runs,"),
        *([rate] if show.ERR.width >= WIDE else []),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=show.ERR,
        expand=True,
    )


def _states(experiment: Experiment, runs: Sequence[Run]) -> set[str]:
    return set(states(experiment, runs).values())


def _interrupt(experiment: Experiment, handles: Sequence[Any]) -> int:
    """Ask the workers to drain; a second Ctrl-C lets them stop at once."""

    def ask(*_: object) -> None:
        _terminate(handles)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    ask()
    show.say("interrupted: workers are leaving, Ctrl-C again to stop them at once")
    asked_at = time.monotonic()
    while not all(handle.done() for handle in handles):
        time.sleep(0.1)
        if time.monotonic() - asked_at > ASK_AGAIN_S:
            # A worker that was just starting may not have heard it.
            ask()
            asked_at = time.monotonic()
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


def _judge(
    experiment: Experiment, runs: Sequence[Run], submission: str, handles: Sequence[Any]
) -> int:
    counts = count(states(experiment, runs).values())
    show.say(f"{counts.done} of {counts.total} runs are done, {counts.failed} failed")
    if counts.failed:
        show.say(f"why: vendomini status {shlex.quote(str(experiment.folder))}")
    if counts.done == counts.total:
        return 0
    ours = [each for each in workers(experiment) if each.record.submission == submission]
    problems = {f"a worker ended: {each.record.problem}" for each in ours if each.record.problem}
    if len(ours) < len(handles):
        problems |= {why for handle in handles if (why := _why_it_never_worked(handle))}
    problems |= _full(experiment)
    for problem in sorted(problems):
        show.say(problem)
    killed = sum(each.record.state != "ended" and not each.is_alive for each in ours)
    if killed and not problems:
        show.say(f"{killed} of {len(handles)} workers were killed, perhaps for want of memory")
    unfinished = counts.waiting + counts.running
    if unfinished:
        mended = "when that is mended, " if problems else ""
        show.say(f"{unfinished} runs are unfinished: {mended}give the same command again to go on")
    return 3 if problems else 1


def _full(experiment: Experiment) -> set[str]:
    """Why nothing can be written: then a worker could not even say so."""
    probe = experiment.path("workers", f".probe.{os.getpid()}")
    try:
        experiment.disk.write_atomic(probe, bytes(PROBE_BYTES))
    except StoreError as error:
        return {f"{error} ({error.hint})"}
    experiment.disk.remove(probe)
    return set()


def _why_it_never_worked(handle: Any) -> str | None:
    """The last line a process wrote that did not become a worker; None if it left in order."""
    log = handle.paths.stderr
    text = log.read_text(errors="replace") if log.exists() else ""
    if CANNOT_WORK in text:
        return f"a worker could not start: {text.rpartition(CANNOT_WORK)[2].splitlines()[0]}"
    if "Traceback" in text:
        return f"a worker could not start: {text.strip().splitlines()[-1]} (all of it: {log})"
    return None
