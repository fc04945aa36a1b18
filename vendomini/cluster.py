"""What is known of a cluster, what a job asks of it, and what a job was given: values only.

Memory is counted as Slurm counts it: 1 GB is 1024 MB, a power of two in spite of its name.
"""

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

GpuRequest: TypeAlias = Literal["gres", "gpus"]
"""How GPUs are asked for: ``--gres=gpu:a100:2``, or ``--gpus-per-node=a100:2``."""

MB_PER_GB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """Some GPUs of one type on one node."""

    type: str | None  # None: the site does not tell types apart
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one node has in all, whether or not it is free."""

    name: str
    cpus: int
    memory_mb: int
    gpus: tuple[Gpus, ...] = ()

    def gpu_count(self, gpu_type: str | None) -> int:
        """How many GPUs of that type it has; of any type together if None."""
        return sum(gpus.count for gpus in self.gpus if gpu_type is None or gpus.type == gpu_type)


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A queue of a cluster and the nodes behind it."""

    name: str
    is_default: bool
    is_up: bool
    max_minutes: int | None  # None: no limit
    default_minutes: int | None  # None: the partition names none, and jobs get its limit
    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """What a cluster says of itself.

    `max_array_size` is the largest number of tasks in one array; 0 or 1 means no arrays.
    """

    partitions: tuple[Partition, ...]
    max_array_size: int

    def partition(self, name: str | None) -> Partition | None:
        """The partition of that name, or the default one if None; None if there is no such."""
        for partition in self.partitions:
            if partition.name == name or (name is None and partition.is_default):
                return partition
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What each worker of a group gets, and how many workers there are.

    `gpus`, `cpus` and `memory_gb` are a worker's, on each of its `nodes`; `minutes` is its time
    limit.
    """

    gpus: int
    cpus: int
    memory_gb: float
    minutes: int
    workers: int
    gpu_type: str | None = None  # None: any
    partition: str | None = None  # None: the profile's
    constraint: str | None = None  # node features; None: the profile's
    nodes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRule:
    """Resources for the models whose id matches `model`, a pattern as ``*Llama-3.?-8B*``."""

    model: str
    resources: Resources


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKind:
    """Nodes that are alike, as a profile describes them. `gpu` is the name in our own table.

    `gpus`, `cpus` and `memory_gb` are one node's.
    """

    count: int
    gpu: str
    gpus: int
    cpus: int
    memory_gb: float
    gpu_type: str | None = None  # None: the site does not name its types
    partition: str | None = None  # None: the profile's
    max_minutes: int | None = None  # None: no limit
    constraint: str | None = None  # node features that lead to them; None: the profile's


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEnvironment:
    """Where an engine's process finds its packages. With both, `python` is inside the image."""

    python: str | None = None  # None: the worker's own interpreter, or the image's
    container: str | None = None  # None: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How jobs are asked for at one site. See ``slurm/example.yaml`` for what each setting means.

    `engineless` is for runs that never ask an engine, whatever their model.
    """

    name: str
    engineless: Resources
    resources: tuple[ResourceRule, ...] = ()
    partition: str | None = None  # None: the cluster's default
    account: str | None = None  # None: the user's default; so for qos
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gpu_request: GpuRequest = "gres"
    gpus: Mapping[str, str] = field(default_factory=dict)  # the site's GPU types in our names
    nodes: tuple[NodeKind, ...] = ()  # what there is, to plan on; empty: ask Slurm
    max_gpus: int | None = None  # most GPUs that a group holds at a time; None: no limit
    max_minutes: int | None = None  # longest time limit to ask for; None: the partition's
    worker_minutes: int = 240  # time limit that a worker should keep to, to start early
    array_parallelism: int | None = None  # most workers of one array at a time; None: all
    signal_delay_s: int = 120
    heartbeat_s: float = 30
    dead_after_s: float = 180
    python: str | None = None  # None: the one that runs us
    # A site's own environments by backend, for engines that cannot share the workers' packages.
    engines: Mapping[str, EngineEnvironment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """What the Slurm job that we run in was given, on this node (or on its first, outside).

    `job_id` is a task's own number, `restarts` how often the job has been requeued,
    `end_time_s` when it is stopped, in seconds since the epoch.
    """

    job_id: str
    node: str | None  # None: outside its nodes, as in salloc's shell; only srun leads into them
    restarts: int
    gpus: int
    cpus: int
    array_job_id: str | None = None  # None, as the next: not a task of an array
    array_task_id: int | None = None
    gpu_type: str | None = None  # None: no GPU, or Slurm does not say which
    memory_mb: int | None = None  # None: not limited
    end_time_s: int | None = None  # None: no time limit

    @property
    def queue_id(self) -> str:
        """The job's name in the queue: ``75_3`` for a task of an array, else the job's id."""
        if self.array_job_id is None:
            return self.job_id
        return f"{self.array_job_id}_{self.array_task_id}"


def rule_for(profile: Profile, model: str) -> ResourceRule | None:
    """The first rule whose pattern matches the model's id, ignoring case; None if none does."""
    for rule in profile.resources:
        if fnmatch.fnmatchcase(model.lower(), rule.model.lower()):
            return rule
    return None


def fits(resources: Resources, allocation: Allocation) -> str | None:
    """Why a worker with `resources` cannot run inside `allocation`; None if it can.

    Time is not asked: a worker leaves before its time is up, and the next one goes on.
    """
    if resources.gpus > allocation.gpus:
        return f"needs {resources.gpus} GPUs, the job has {allocation.gpus}"
    known_type = allocation.gpu_type
    if resources.gpus and resources.gpu_type and known_type not in (None, resources.gpu_type):
        return f"needs `{resources.gpu_type}` GPUs, the job has `{known_type}`"
    if resources.cpus > allocation.cpus:
        return f"needs {resources.cpus} CPUs, the job has {allocation.cpus}"
    needed_mb = resources.memory_gb * MB_PER_GB
    if allocation.memory_mb is not None and needed_mb > allocation.memory_mb:
        has_gb = allocation.memory_mb / MB_PER_GB
        return f"needs {resources.memory_gb:g} GB of memory, the job has {has_gb:.4g} GB"
    return None


def split_array(workers: int, max_array_size: int) -> list[int]:
    """Sizes of the fewest arrays that hold `workers` tasks, as equal as they can be.

    ``split_array(10, 4)`` is ``[4, 3, 3]``. A site without arrays gets one job each.
    """
    if workers < 1:
        raise ValueError(f"an array of {workers} workers")
    arrays = -(-workers // max(max_array_size, 1))
    size, larger = divmod(workers, arrays)
    return [size + 1] * larger + [size] * (arrays - larger)
