"""Asks Slurm, one line a question.

The only module that runs sinfo, scontrol, squeue, sacct and scancel. Whatever cannot be asked
raises `SubmitError`: an empty answer always means that Slurm said so. Written against 22.05,
with options that older and newer versions share.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping

from vendomini.cluster import Allocation, ClusterFacts
from vendomini.errors import SubmitError
from vendomini.slurm.answers import (
    COMMENT_FORMAT,
    ENDING_FORMAT,
    NODE_FORMAT,
    QUEUE_FORMAT,
    REPORT,
    Ending,
    QueuedJob,
    parse_allocation,
    parse_comment,
    parse_comments,
    parse_config,
    parse_endings,
    parse_job,
    parse_partitions,
    parse_queue,
    with_words,
)

TIMEOUT_S = 30
"""A controller that is down is reported by Slurm's own commands after 9 to 18 s."""

UNKNOWN_JOB = "Invalid job id specified"


def cluster_facts() -> ClusterFacts:
    """What the cluster says of itself; asks twice."""
    config = parse_config(ask("scontrol", "show", "config"))
    return ClusterFacts(
        partitions=parse_partitions(
            ask("sinfo", "--noheader", "--Node", f"--format={NODE_FORMAT}")
        ),
        max_array_size=_max_array_size(config),
    )


def jobs_in_queue(job_ids: Iterable[str]) -> dict[str, QueuedJob]:
    """Those of the jobs that Slurm has not finished with, by id: ``75``, or ``75_3``.

    An array's main id stands for all of its tasks. A job that is not in the answer has ended,
    or never was; `has_left` also tells a requeued one from its earlier start. Ask only about
    jobs of this user: many sites hide those of others.
    """
    wanted = tuple(dict.fromkeys(job_ids))
    mains = ",".join(dict.fromkeys(_main_id(job_id) for job_id in wanted))
    if not mains:
        return {}
    text = ask(
        "squeue",
        "--noheader",
        "--array",
        f"--jobs={mains}",
        f"--Format={QUEUE_FORMAT}",
        unless_said=UNKNOWN_JOB,
    )
    return {
        job.id: job for job in parse_queue(text) if job.id in wanted or _main_id(job.id) in wanted
    }


def jobs_with_comment(comment: str) -> list[str]:
    """This user's jobs with that comment, arrays by main id, oldest first.

    Finds ended ones too for as long as the controller remembers them (MinJobAge, 5 minutes by
    default), so that a submission whose answer was lost is found although it was quick.
    """
    text = ask(
        "squeue",
        "--noheader",
        f"--user={os.getuid()}",
        "--states=all",
        f"--format={COMMENT_FORMAT}",
    )
    return sorted({job_id for job_id, its in parse_comments(text) if its == comment}, key=int)


def endings(job_ids: Iterable[str]) -> dict[str, Ending]:
    """How jobs ended, by id, as far as accounting knows; it may lag by a second.

    An array's main id stands for all of its tasks. A task that never started has no row of its
    own. Raises `SubmitError` where accounting cannot be asked.
    """
    wanted = tuple(dict.fromkeys(job_ids))
    if not wanted:
        return {}
    text = ask(
        "sacct",
        "--noheader",
        "--allocations",
        "--parsable2",
        f"--jobs={','.join(wanted)}",
        f"--format={ENDING_FORMAT}",
    )
    return parse_endings(text)


def cancel(job_ids: Iterable[str]) -> None:
    """Cancel jobs, arrays by main id in one go. Those that have ended already are no error."""
    wanted = tuple(dict.fromkeys(job_ids))
    if wanted:
        ask("scancel", "--quiet", *wanted, unless_said=UNKNOWN_JOB)


def requeue_if_preempted(environ: Mapping[str, str]) -> bool:
    """Put the job that a process with this environment runs in back into the queue, if it is to
    make room for another; True if so. Slurm then ends it, and starts it again later.

    A job that ends by itself within its time of grace has ended, for Slurm, and is not requeued.
    Raises `SubmitError` if Slurm cannot be asked, or does not requeue this job.
    """
    if not environ.get("SLURM_JOB_ID"):
        return False
    job_id = _queue_id(environ)
    text = _show_job(job_id)
    if not text or not parse_job(text).is_being_preempted:
        return False
    ask("scontrol", "requeue", job_id)
    return True


def leave_words(environ: Mapping[str, str], words: str) -> bool:
    """Keep words of the job that a process with this environment runs in, as the end of its
    comment, where `endings` finds them; False if it is in none.

    For what cannot be said in a file. Raises `SubmitError` if Slurm does not take them.
    """
    if not environ.get("SLURM_JOB_ID"):
        return False
    job_id = _queue_id(environ)
    comment = with_words(parse_comment(_show_job(job_id)), words)
    ask("scontrol", "update", f"jobid={job_id}", f"comment={comment}")
    return True


def allocation(environ: Mapping[str, str]) -> Allocation | None:
    """The Slurm job that a process with this environment runs in; None if in none.

    Asks Slurm for what the environment does not say (the memory, the GPUs' type, the end) and
    raises `SubmitError` if it does not answer.
    """
    job_id = environ.get("SLURM_JOB_ID")
    if not job_id:
        return None
    # The last task of an array has the main id for its own, and that one shows all tasks.
    text = _show_job(_queue_id(environ))
    if not text:
        raise SubmitError(
            f"the environment says Slurm job `{job_id}`, but Slurm knows no such job",
            hint="a shell that outlived its job keeps its variables: unset SLURM_JOB_ID",
        )
    return parse_allocation(environ, parse_job(text))


def ask(program: str, *arguments: str, unless_said: str | None = None) -> str:
    """What a Slurm command prints. Raises `SubmitError` with its own words if it fails.

    A failure whose words contain `unless_said` is the empty answer.
    """
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            env=_query_environment(os.environ),
            check=False,
        )
    except FileNotFoundError:
        raise SubmitError(
            f"no Slurm here: `{program}` is not on PATH",
            hint="run without --cluster, or log in to the cluster",
        ) from None
    except OSError as error:
        raise SubmitError(
            f"`{program}` could not be run: {error.strerror}",
            hint="`which` tells which file that is; ask whoever installed it",
        ) from None
    except subprocess.TimeoutExpired:
        raise SubmitError(
            f"`{program}` did not answer within {TIMEOUT_S} s",
            hint="the controller may be busy or down: `scontrol ping` tells; try again later",
        ) from None
    if done.returncode == 0:
        return done.stdout
    if unless_said is not None and unless_said in done.stderr:
        return ""
    said = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
    raise SubmitError(
        f"`{program} {' '.join(arguments)}` failed: {said}",
        hint="`scontrol ping` tells whether Slurm's controller is up",
    )


def _show_job(job_id: str) -> str:
    return ask(
        "scontrol", "--oneliner", "--details", "show", "job", job_id, unless_said=UNKNOWN_JOB
    )


def _queue_id(environ: Mapping[str, str]) -> str:
    main, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    return f"{main}_{task}" if main and task else environ["SLURM_JOB_ID"]


def _query_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment for a question: people set formats and filters for their own eyes there."""
    taste = re.compile(r"(SINFO|SQUEUE|SACCT|SCANCEL)_(?!CLUSTERS$)")
    kept = {name: value for name, value in environ.items() if not taste.match(name)}
    # Seconds since the epoch: nothing depends on the time zone of who asks.
    return {**kept, "SLURM_TIME_FORMAT": "%s"}


def _max_array_size(config: Mapping[str, str]) -> int:
    try:
        return int(config["MaxArraySize"])
    except (KeyError, ValueError):
        raise SubmitError(
            f"scontrol names no MaxArraySize: `{config.get('MaxArraySize')}`", hint=REPORT
        ) from None


def _main_id(job_id: str) -> str:
    """``75`` of ``75_3``."""
    return job_id.partition("_")[0]
