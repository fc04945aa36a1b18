"""The three ways a plan is played: here, as jobs of Slurm, or inside a job of the user's own."""

import os
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from vendomini.cluster import Allocation, ClusterFacts, Profile
from vendomini.errors import SubmitError
from vendomini.partitions import check_against
from vendomini.phase import Run
from vendomini.prepare import GroupPlan, Plan
from vendomini.running.local import play_locally
from vendomini.running.voice import Voice
from vendomini.slurm import allocation, cluster_facts
from vendomini.store.experiment import Experiment
from vendomini.submit import Submitted, groups_that_fit, job_for, refuse_place, submit_slurm
from vendomini.worker.entry import be_worker

Way: TypeAlias = Callable[[Plan, str, Sequence[str] | None], int]
"""Plays a plan's groups under a submission's name, only some ids or all; the exit status."""


def way_to_play(
    experiment: Experiment,
    plan: Plan,
    runs: Sequence[Run],
    profile: Profile | None,
    *,
    voice: Voice,
    joins: bool,
) -> Way:
    """Choose the way: without a profile here, inside a job in place, else as jobs of Slurm.

    `joins`: this process may become a worker of the job that it is in. What would refuse the plan
    refuses it here, before a file is written: raises `ConfigError` or `SubmitError`.
    """
    if profile is None:
        return partial(_here, experiment, runs, voice)
    place = allocation(os.environ)
    if place is None:
        refuse_place(experiment.folder)
        facts = cluster_facts()
        wanted = {group.key: group.resources for group in plan.groups if group.resources}
        check_against(profile, facts, wanted=wanted)
        return partial(_as_jobs, experiment, profile, facts, voice)
    if not joins:
        raise SubmitError(
            f"inside Slurm job {place.queue_id}, where this process would become a worker",
            hint="give the command there, `vendomini run --cluster`, or call this outside of a job",
        )
    if place.node is None:
        raise SubmitError(
            f"inside Slurm job {place.queue_id}, but not on one of its nodes",
            hint="start the worker on its nodes: srun vendomini run --cluster ...",
        )
    _fitting(plan, place)
    return partial(_in_place, experiment, profile, place, voice)


def _here(
    experiment: Experiment,
    runs: Sequence[Run],
    voice: Voice,
    plan: Plan,
    submission: str,
    only: Sequence[str] | None,
) -> int:
    return play_locally(experiment, plan, runs=runs, submission=submission, only=only, voice=voice)


def _as_jobs(
    experiment: Experiment,
    profile: Profile,
    facts: ClusterFacts,
    voice: Voice,
    plan: Plan,
    submission: str,
    only: Sequence[str] | None,
) -> int:
    submitted = submit_slurm(
        experiment, plan, profile=profile, facts=facts, submission=submission, only=only
    )
    _say_submitted(submitted, experiment, voice)
    return 0


def _in_place(
    experiment: Experiment,
    profile: Profile,
    place: Allocation,
    voice: Voice,
    plan: Plan,
    submission: str,
    only: Sequence[str] | None,
) -> int:
    """Be a worker for one group after another, in this process."""
    fitting, reasons = _fitting(plan, place)  # of the groups that are left: fewer may fit
    voice.say(
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


def _say_submitted(submitted: Sequence[Submitted], experiment: Experiment, voice: Voice) -> None:
    """Which jobs there are now."""
    for job in submitted:
        if not job.ids:
            voice.say(
                f"group `{job.group}` has all its workers in Slurm's queue already: none added"
            )
            continue
        count = f"{job.workers} worker{'s' if job.workers > 1 else ''}"
        voice.say(f"submitted group `{job.group}`: {count}, Slurm job {', '.join(job.ids)}")
    voice.say(f"see how it goes with: vendomini status {shlex.quote(str(experiment.folder))}")
