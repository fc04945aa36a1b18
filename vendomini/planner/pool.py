"""Where engines may run: nodes that are alike, as far as a job can tell them apart."""

from dataclasses import dataclass

from vendomini.hardware import GpuSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Nodes of one partition with the same GPUs. `cpus` and `memory_gb` are one node's.

    `gpu_type` and `constraint` are how the site tells these GPUs from others when a job asks.
    """

    gpu: GpuSpec
    gpus_per_node: int
    nodes: int
    cpus: int
    memory_gb: float
    partition: str | None = None  # None: this machine, or the cluster's default
    max_minutes: int | None = None  # None: no limit
    gpu_type: str | None = None  # None: the site does not name its types
    constraint: str | None = None  # None: none is needed
