"""The three ways a plan is played: here, as jobs of Slurm, or inside a job of the user's own."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from vendomini.cli import show
from vendomini.cli.local import play_locally
from vendomini.cluster import Allocation, ClusterFacts, Profile
from vendomini.errors import SubmitError
from vendomini.partitions import check_against
from vendomini.phase import Run
from vendomini.prepare import GroupPlan, Plan
from vendomini.slurm import allocation, cluster_facts
from vendomini.store.experiment import Experiment
from vendomini.submit import groups_that_fit, job_for, refuse_place, submit_slurm
from vendomini.worker.entry import be_worker

Way: TypeAlias = Callable[[Plan, str, Sequence[str] | None], int]
"""Plays a plan's groups under a submission's name, only some ids or all; the exit status."""


def way_to_play(
    experiment: Experiment, plan: Plan, runs: Sequence[Run], profile: Profile | None
) -> Way:
    """Choose the way: without a profile here, inside a job in place, else as jobs of Slurm.

    What would refuse the plan refuses it here, before a file is written: raises `ConfigError`
    or `SubmitError`.
    """
    if profile is None:
        return partial(_here, experiment, runs)
    place = allocation(os.environ)
    if place is None:
        refuse_place(experiment.folder)
        facts = cluster_facts()
        wanted = {group.key: group.resources for group in plan.groups if group.resources}
        check_against(profile, facts, wanted=wanted)
        return partial(_as_jobs, experiment, profile, facts)
    if place.node is None:
        raise SubmitError(
            f"inside Slurm job {place.queue_id}, but not on one of its nodes",
            hint="start the worker on its nodes: srun vendomini run --cluster ...",
        )
    _fitting(plan, place)
    return partial(_in_place, experiment, profile, place)


def _here(
    experiment: Experiment,
    runs: Sequence[Run],
    plan: Plan,
    submission: str,
    only: Sequence[str] | None,
) -> int:
    return play_locally(experiment, plan, runs=runs, submission=submission, only=only)


def _as_jobs(
    experiment: Experiment,
    profile: Profile,
    facts: ClusterFacts,
    plan: Plan,
    submission: str,
    only: Sequence[str] | None,
) -> int:
    submitted = submit_slurm(
        experiment, plan, profile=profile, facts=facts, submission=submission, only=only
    )
    show.submitted(submitted, experiment)
    return 0


def _in_place(
    experiment: Experiment,
    profile: Profile,
    place: Allocation,
    plan: Plan,
    submission: str,
    only: Sequence[str] | None,
) -> int:
    """Be a worker for one group after another, in this process."""
    fitting, reasons = _fitting(plan, place)  # of the groups that are left: fewer may fit
    show.say(
        f"inside Slurm job {place.queue_id}: joining as a worker for "
        f"{len(fitting)} of {len(plan.groups)} groups"
        + (f" ({'; '.join(reasons)})" if reasons else "")
    )
    # Those who share the work are the tasks that joined like this one, not the profile's workers.
    tasks = ("SLURM_ARRAY_TASK_COUNT", "SLURM_NTASKS")
    together = int(os.environ.get(tasks[0], "1")) * int(os.environ.get(tasks[1], "1"))
    status = 0
    for group in fitting:
        ended = be_worker(
            job_for(
                experiment,
                group,
                submission=submission,
                profile=profile,
                only=only,
                workers=together,
            )
        )
        status = max(status, ended.exit_status)
        if ended.reason is not None:
            break
    return status


def _fitting(plan: Plan, place: Allocation) -> tuple[list[GroupPlan], list[str]]:
    """Groups that fit the allocation, and why others do not; `SubmitError` if none does."""
    fitting, reasons = groups_that_fit(plan, place)
    if not fitting:
        raise SubmitError(
            f"inside Slurm job {place.queue_id}: this job can serve no group: {'; '.join(reasons)}",
            hint="ask Slurm for more, or run outside of a job to have jobs submitted",
        )
    return fitting, reasons
