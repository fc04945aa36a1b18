"""From a plan to workers: submitit launches them, here or through Slurm."""

import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vendomini.cluster import Allocation, ClusterFacts, Profile, Resources, fits, split_array
from vendomini.engines.gpus import visible_gpus
from vendomini.errors import ConfigError, SubmitError
from vendomini.phase import pin_key
from vendomini.prepare import GroupPlan, Plan
from vendomini.prepare.deciding import DEFAULT_CONCURRENCY
from vendomini.slurm import QueuedJob, cancel, jobs_in_queue, jobs_with_comment
from vendomini.store.experiment import Experiment
from vendomini.store.records import SlurmJobs
from vendomini.store.trying import explanation
from vendomini.worker.entry import work
from vendomini.worker.job import Job, write_job

LOCAL_HEARTBEAT_S = 1.0
"""Local workers tell their progress by their heartbeats, so they beat often."""

LOCAL_DEAD_AFTER_S = 180.0

LOCAL_TIMEOUT_MINUTES = 60 * 24 * 365
"""submitit stops local jobs after two minutes unless told otherwise; a worker ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """One job as it was handed over. `ids` are Slurm's job ids, or process ids of launchers.

    Without ids nothing was handed over: the group has workers enough.
    """

    group: str
    folder: Path
    ids: tuple[str, ...]
    workers: int


def new_submission(experiment: Experiment) -> str:
    """A name for everything one `run` submits, which Slurm keeps as the jobs' comment."""
    return f"vendomini:{experiment.name}:{secrets.token_hex(6)}"


def job_for(
    experiment: Experiment,
    group: GroupPlan,
    *,
    submission: str,
    profile: Profile | None,
    only: Sequence[str] | None,
    workers: int | None = None,
) -> Job:
    """What the workers of one group are told."""
    slurm_resources = None if profile is None else group.resources
    return Job(
        experiment=str(experiment.folder.absolute()),
        submission=submission,
        group=group.key,
        pin_key=pin_key(group.key),
        engine=group.spec,
        fallback=group.fallback,
        concurrency=group.in_flight or group.concurrency or DEFAULT_CONCURRENCY,
        conversation_tokens=group.conversation_tokens,
        at_once=group.at_once,
        workers=workers or group.workers,
        only=None if only is None else tuple(only),
        minutes=None if slurm_resources is None else slurm_resources.minutes,
        heartbeat_s=LOCAL_HEARTBEAT_S if profile is None else profile.heartbeat_s,
        dead_after_s=LOCAL_DEAD_AFTER_S if profile is None else profile.dead_after_s,
        # No claims from before Slurm's warning on: then the signal finds little under way.
        drain_s=120.0 if profile is None else profile.signal_delay_s + 30.0,
    )


def submit_local(
    experiment: Experiment, plan: Plan, *, submission: str, only: Sequence[str] | None
) -> list[tuple[Submitted, list[Any]]]:
    """Start local workers; with each submission, submitit's handles of its processes.

    Ctrl-C reaches the caller alone: it is for the caller to ask the workers to drain.
    """
    import submitit

    started = []
    for group in plan.groups:
        folder = experiment.add_job_folder().absolute()
        job = job_for(experiment, group, submission=submission, profile=None, only=only)
        path = write_job(folder, job)
        executor = submitit.LocalExecutor(folder=folder)
        executor.update_parameters(timeout_min=LOCAL_TIMEOUT_MINUTES)
        own_gpus = _shared_out(group)
        with _held(signal.SIGINT):
            handles = []
            for gpus in own_gpus:
                # Set past submitit's check, which takes numbers only: a GPU may have a name.
                executor.parameters.update(gpus_per_node=len(gpus), visible_gpus=gpus)
                # A launcher whose file submitit could not write finds none, and ends by itself.
                handles.append(
                    experiment.disk.patience.tried(
                        "write", folder, partial(executor.submit, work, str(path)), writes=True
                    )
                )
        started.append(
            (
                Submitted(
                    group=group.key,
                    folder=folder,
                    ids=tuple(handle.job_id for handle in handles),
                    workers=group.workers,
                ),
                handles,
            )
        )
    return started


def one_model_at_a_time(plan: Plan) -> list[Plan]:
    """A local plan in parts that are played in turn: two models would share one machine's memory
    and GPUs. What loads no model here is one part, the first."""
    light = tuple(group for group in plan.groups if not group.loads_model)
    heavy = [(group,) for group in plan.groups if group.loads_model]
    return [replace(plan, groups=groups) for groups in ([light] if light else []) + heavy]


def submit_slurm(
    experiment: Experiment,
    plan: Plan,
    *,
    profile: Profile,
    facts: ClusterFacts,
    submission: str,
    only: Sequence[str] | None,
) -> list[Submitted]:
    """Submit one array of identical workers per group (several where the site's limit is lower).

    Workers of earlier submissions that wait or run count: only those that are missing are
    added, and a group that has enough gets a `Submitted` without ids. Raises `SubmitError`
    with Slurm's own words, and with the jobs it had taken before.
    """
    submitted: list[Submitted] = []
    queued = workers_in_queue(experiment)
    for group in plan.groups:
        assert group.resources is not None
        missing = group.workers - len(queued.get(group.key, ()))
        if missing <= 0:
            submitted.append(
                Submitted(group=group.key, folder=experiment.path("jobs"), ids=(), workers=0)
            )
            continue
        folder = experiment.add_job_folder().absolute()
        path = write_job(
            folder,
            job_for(experiment, group, submission=submission, profile=profile, only=only),
        )
        ids: list[str] = []
        for number, size in enumerate(split_array(missing, facts.max_array_size)):
            comment = f"{submission}:{folder.name}:{number}"
            parameters = sbatch_parameters(
                experiment.name, group.resources, profile=profile, workers=size, comment=comment
            )
            try:
                ids.append(_sbatch(folder / str(number), path, parameters, size, profile, comment))
                experiment.keep_slurm_jobs(
                    folder, SlurmJobs(group=group.key, submission=submission, ids=tuple(ids))
                )
            except SubmitError as error:
                taken = [*(number for job in submitted for number in job.ids), *ids]
                if not taken:
                    raise
                raise SubmitError(
                    f"{error} (group `{group.key}`; jobs {', '.join(taken)} were submitted "
                    "before and go on)",
                    hint=error.hint,
                ) from error
        submitted.append(Submitted(group=group.key, folder=folder, ids=tuple(ids), workers=missing))
    return submitted


def refuse_place(folder: Path) -> None:
    """Raise what submitit and Slurm would only show as something else: `SubmitError` where a
    command is missing, `ConfigError` for a folder that Slurm cannot log into."""
    for program in ("sbatch", "srun"):
        if shutil.which(program) is None:
            raise SubmitError(
                f"no Slurm here: `{program}` is not on PATH",
                hint="run without --cluster, or log in to the cluster",
            )
    if "%" in str(folder.absolute()):
        raise ConfigError(
            f"`{folder}` has a `%` in it, which Slurm replaces in the names of logs",
            hint="choose another `experiment.name`, or another folder with --root",
        )


def workers_in_queue(experiment: Experiment) -> dict[str, list[QueuedJob]]:
    """By group, the workers that Slurm still has waiting or running for an experiment.

    Raises `SubmitError` if Slurm cannot be asked.
    """
    group_of = {number: jobs.group for jobs in experiment.slurm_jobs() for number in jobs.ids}
    found: dict[str, list[QueuedJob]] = {}
    for job in jobs_in_queue(group_of).values():
        if job.state != "COMPLETING":
            found.setdefault(group_of[job.id.partition("_")[0]], []).append(job)
    return found


def sbatch_parameters(
    name: str, resources: Resources, *, profile: Profile, workers: int, comment: str
) -> dict[str, Any]:
    """What submitit is told about one array, in its own words; times in whole minutes."""
    additional: dict[str, Any] = {"requeue": True}
    gpus: dict[str, Any] = {}
    if resources.gpus:
        kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
        if profile.gpu_request == "gres":
            gpus["gres"] = f"gpu:{kind}{resources.gpus}"
        else:
            additional["gpus-per-node"] = f"{kind}{resources.gpus}"
    optional = {
        "partition": resources.partition or profile.partition,
        "constraint": resources.constraint or profile.constraint,
        "account": profile.account,
        "qos": profile.qos,
        "exclude": profile.exclude,
    }
    return {
        "job_name": f"vendomini-{name}",
        "time": resources.minutes,
        "nodes": resources.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": resources.cpus,
        "mem": f"{round(resources.memory_gb * 1024)}M",
        "signal_delay_s": profile.signal_delay_s,
        "array_parallelism": profile.array_parallelism or workers,
        "comment": comment,
        "wckey": None,  # submitit's own default is one that a site with keys would refuse
        # Slurm 22.05 to 23.02 no longer hand a job's CPUs to its steps by themselves.
        "srun_args": [f"--cpus-per-task={resources.cpus}"],
        "additional_parameters": additional,
        **gpus,
        **{key: value for key, value in optional.items() if value is not None},
    }


def groups_that_fit(plan: Plan, place: Allocation) -> tuple[list[GroupPlan], list[str]]:
    """The groups a worker inside this allocation can play, and why it cannot play the others."""
    fitting, reasons = [], []
    for group in plan.groups:
        why = None if group.resources is None else fits(group.resources, place)
        if why is None:
            fitting.append(group)
        else:
            reasons.append(f"group `{group.key}` {why}")
    return fitting, reasons


# -- private -------------------------------------------------------------------------------


def _shared_out(group: GroupPlan) -> list[tuple[str, ...]]:
    """The GPUs of each local worker of a group. Without any of its own a worker sees none."""
    each = 0 if group.spec is None else group.spec.gpus
    gpus = visible_gpus(os.environ) if each else ()
    return [tuple(gpus[each * n : each * (n + 1)]) for n in range(group.workers)]


def _sbatch(
    folder: Path,
    job_file: Path,
    parameters: Mapping[str, Any],
    size: int,
    profile: Profile,
    comment: str,
) -> str:
    """Submit one array; its job id."""
    import submitit
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = submitit.SlurmExecutor(folder=folder, python=profile.python)
    executor.update_parameters(**parameters)
    for tries_left in (1, 0):
        try:
            # One worker is a plain job, several are one array.
            jobs = executor.map_array(work, [str(job_file)] * size)
        except (FailedSubmissionError, FailedJobError) as error:
            # An sbatch whose answer was lost has submitted; submitit has not handed its workers
            # their files, so they could do nothing: they are cancelled, and it is tried again.
            lost = jobs_with_comment(comment)
            cancel(lost)
            if not lost or not tries_left:
                raise SubmitError(
                    f"Slurm refused the job: {_own_words(str(error))}",
                    hint="change the profile's partition, account, qos, GPUs, memory or minutes",
                ) from error
        except OSError as error:
            # Submitted, and submitit could not write what its workers wait for.
            cancel(jobs_with_comment(comment))
            if not tries_left:
                raise explanation("write", folder, error) from error
        else:
            return str(jobs[0].job_id).split("_")[0]
    raise AssertionError("the last try returns or raises")


def _own_words(text: str) -> str:
    """What sbatch itself said, out of submitit's account of it."""
    said = [line.strip() for line in text.splitlines() if "sbatch: error" in line]
    return "; ".join(said) if said else text.strip().splitlines()[-1]


@contextmanager
def _held(number: signal.Signals) -> Iterator[None]:
    """This signal waits until the end of the block, and processes started inside never hear it:
    a block is inherited.

    It is not ignored: what waits already would be discarded, and a Ctrl-C be lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
