"""What Slurm knows: questions to its commands, and pure readings of their answers."""

from vendomini.slurm.answers import Ending, QueuedJob, ShownJob, has_left, parse_allocation
from vendomini.slurm.questions import (
    accounting_is_usable,
    allocation,
    cancel,
    cluster_facts,
    endings,
    job_end_time,
    jobs_in_queue,
    jobs_with_comment,
    max_array_size,
    pending_reasons,
    requeue_if_preempted,
)

__all__ = [
    "Ending",
    "QueuedJob",
    "ShownJob",
    "accounting_is_usable",
    "allocation",
    "cancel",
    "cluster_facts",
    "endings",
    "has_left",
    "job_end_time",
    "jobs_in_queue",
    "jobs_with_comment",
    "max_array_size",
    "parse_allocation",
    "pending_reasons",
    "requeue_if_preempted",
]
