"""Whether an experiment may be removed: nobody plays it, and Slurm has no workers for it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from vendomini.errors import StoreError, SubmitError
from vendomini.looking.experiments import experiment_named
from vendomini.standing import WorkerStatus, workers
from vendomini.store.experiment import Experiment
from vendomini.store.removal import Contents, contents

NAMED = 5  # workers or jobs that an error names


@dataclass(frozen=True, slots=True, kw_only=True)
class Removable:
    """An experiment that may be removed, and what would go. `done` and `runs` count those of the
    grid; `place` is its folder with no link in its path."""

    experiment: Experiment
    place: Path
    done: int
    runs: int
    contents: Contents


def removable(folder: Path, root: Path) -> Removable:
    """By folder, or by name below the root.

    Raises `StoreError` if there is no such experiment, its folder is a link, this version cannot
    read it, workers of it live, or Slurm has some in its queue or does not answer.
    """
    experiment = experiment_named(folder, root)
    if experiment.folder.is_symlink():
        raise StoreError(
            f"`{experiment.folder}` is a link to `{os.path.realpath(experiment.folder)}`",
            hint="name the folder itself; a link is removed with `rm`",
        )
    experiment.check()
    refuse_played(experiment)
    refuse_queued(experiment)
    in_grid = {run.id for run in experiment.runs() if run.in_grid}
    try:
        there = contents(experiment.folder)
    except OSError as error:
        raise StoreError(
            f"cannot read `{error.filename}`: {error.strerror}",
            hint="whoever may read and write all of it can remove it",
        ) from error
    return Removable(
        experiment=experiment,
        place=Path(os.path.realpath(experiment.folder)),
        done=len(in_grid & experiment.finished()),
        runs=len(in_grid),
        contents=there,
    )


def refuse_played(experiment: Experiment) -> None:
    """Raise `StoreError` if a worker of the experiment lives."""
    living = [worker for worker in workers(experiment) if worker.is_alive]
    if living:
        raise StoreError(
            f"`{experiment.folder}` is being played: {_some([_named(each) for each in living])}",
            hint="stop them first (Ctrl-C where they were started, `kill` or `scancel`), then try "
            "again; `vendomini status` names those that live",
        )


def refuse_queued(experiment: Experiment) -> None:
    """Raise `StoreError` if Slurm has workers of the experiment waiting or running, or cannot say.

    Where there is no Slurm it is not asked: those that run are known by their heartbeats.
    """
    if not experiment.slurm_jobs() or shutil.which("squeue") is None:
        return
    from vendomini.submit import workers_in_queue  # loads the planner

    try:
        queued = workers_in_queue(experiment)
    except SubmitError as error:
        raise StoreError(
            f"whether Slurm still has workers of `{experiment.folder}` is not known: {error}",
            hint="try again when Slurm answers: a worker that starts later finds nothing to play",
        ) from error
    jobs = [job for members in queued.values() for job in members]
    if jobs:
        mains = dict.fromkeys(job.id.partition("_")[0] for job in jobs)
        workers_of = "a worker" if len(jobs) == 1 else f"{len(jobs)} workers"
        raise StoreError(
            f"Slurm still has {workers_of} of `{experiment.folder}`: "
            f"{_some([f'job {job.id}, {job.state}' for job in jobs])}",
            hint=f"cancel them first: `scancel {' '.join(mains)}`",
        )


# -- private -------------------------------------------------------------------------------


def _named(worker: WorkerStatus) -> str:
    record = worker.record
    if record.slurm is not None:
        return f"worker {record.incarnation} (job {record.slurm.job} on {record.slurm.node})"
    process = record.process
    return f"worker {record.incarnation} (process {process.pid} on {process.host})"


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return "; ".join(names[:NAMED]) + (f"; and {more} more" if more > 0 else "")
