"""What Slurm knows: questions to its commands, and pure readings of their answers."""

from vendomini.slurm.answers import Ending, QueuedJob, ShownJob, has_left, parse_allocation
from vendomini.slurm.questions import (
    allocation,
    cancel,
    cluster_facts,
    endings,
    jobs_in_queue,
    jobs_with_comment,
    leave_words,
    requeue_if_preempted,
)

__all__ = [
    "Ending",
    "QueuedJob",
    "ShownJob",
    "allocation",
    "cancel",
    "cluster_facts",
    "endings",
    "has_left",
    "jobs_in_queue",
    "jobs_with_comment",
    "leave_words",
    "parse_allocation",
    "requeue_if_preempted",
]
