"""How an experiment stands."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vendomini.cli import show
from vendomini.errors import ConfigError, StoreError, SubmitError
from vendomini.looking.experiments import experiment_named, names_below
from vendomini.standing import Counts, Status, counts_of, status_of
from vendomini.store.experiment import Experiment

if TYPE_CHECKING:  # tables take a while to load, and most who ask how it stands want none
    from vendomini.collect import Measured

STILL_THERE = frozenset({"PENDING", "RUNNING", "REQUEUED", "COMPLETING"})
"""States of a job that was started again since: its earlier start has no ending of its own."""


def show_status(folder: Path, *, root: Path, measures: bool = False, as_json: bool) -> int:
    """`status`. The exit status is 1 if runs are short."""
    experiment = experiment_named(folder, root)
    with show.counting("counting steps", in_bytes=True) as progress:
        status = status_of(experiment, progress)
    slurm = _ask_slurm(experiment, status) if status.runs.waiting else show.SlurmWords()
    measured = _measured(experiment) if measures else None
    if as_json:
        show.print_json(
            {
                "experiment": str(status.folder),
                "runs": asdict(status.runs),
                "groups": {key: asdict(counts) for key, counts in status.groups.items()},
                "workers": [
                    {
                        **msgspec.to_builtins(worker.record),
                        "alive": worker.is_alive,
                        "silent_s": round(worker.silent_s, 1),
                    }
                    for worker in status.workers
                ],
                "errors": [msgspec.to_builtins(error) for error in status.errors],
                "orphaned": status.orphaned,
                "short": dict(status.short),
                "odd": dict(status.odd),
                "pins": {key: msgspec.to_builtins(pin) for key, pin in status.pins.items()},
                "unwritable": None if status.unwritable is None else str(status.unwritable),
                "slurm": [
                    {"group": group, "job": job.id, "state": job.state, "reason": job.reason}
                    for group, jobs in slurm.queue.items()
                    for job in jobs
                ],
                "ended_by_slurm": {name: end.state for name, end in slurm.endings.items()},
                "last_words": {n: end.words for n, end in slurm.endings.items() if end.words},
                **({} if measured is None else {"measures": [asdict(each) for each in measured]}),
            }
        )
    else:
        show.status(status, slurm)
        if measured is not None:
            show.measures(measured)
    return 1 if status.short else 0


def show_every(root: Path, *, measures: bool, as_json: bool) -> int:
    """`status` of all experiments below `root`, without a look at the steps of their runs."""
    if measures:
        raise ConfigError("--measures is of one experiment", hint="name it")
    found, told = {}, {}
    for name in names_below(root):
        try:
            found[name] = counts_of(Experiment(root / name))
        except StoreError as error:
            told[name] = str(error)
    if as_json:
        show.print_json({name: asdict(counts) for name, counts in found.items()})
    elif found:
        rows = [
            {"experiment": name, **{state: str(n) for state, n in _without_short(counts).items()}}
            for name, counts in found.items()
        ]
        show.table(rows, to=show.OUT)
    elif not told:
        show.say_out(f"there is no experiment below `{root}`: `vendomini run demo` makes one")
    for name, why in told.items():
        show.say(f"`{name}` cannot be read: {why}")
    return 0


# -- private -------------------------------------------------------------------------------


def _without_short(counts: Counts) -> dict[str, int]:
    return {state: number for state, number in asdict(counts).items() if state != "short"}


def _measured(experiment: Experiment) -> "list[Measured]":
    from vendomini.collect import measured

    with show.counting("reading steps") as progress:
        return measured(experiment, progress=progress)


def _ask_slurm(experiment: Experiment, status: Status) -> show.SlurmWords:
    """What Slurm says of workers that wait, and of those that ended without a word.

    The files have told everything else: a Slurm that does not answer takes nothing away.
    """
    silent = {
        worker.record.slurm.job: worker.record.incarnation
        for worker in status.workers
        if worker.record.slurm and not worker.is_alive and worker.record.state != "ended"
    }
    if not silent and not experiment.slurm_jobs():
        return show.SlurmWords()
    from vendomini.slurm import endings
    from vendomini.submit import workers_in_queue

    words = show.SlurmWords()
    try:
        words = replace(words, queue=workers_in_queue(experiment))
        ended = {
            silent[job]: ending
            for job, ending in endings(silent).items()
            if job in silent and ending.state not in STILL_THERE
        }
    except SubmitError as error:
        return replace(words, silence=str(error))
    return replace(words, endings=ended)
