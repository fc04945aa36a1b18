"""What an engine needs of its nodes beside GPUs: processors and memory. Pure."""

from dataclasses import dataclass
from math import ceil

from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Deployment
from vendomini.planner.pool import Pool

LEAST_CPUS = 8
CPUS_PER_GPU = 4
CPUS_OF_SERVER = 2
"""vLLM has a process for its API, one for the engine and one a GPU, which never sleep; the worker
itself and tokenizing take what is left."""

LEAST_MEMORY_GB = 32.0
MEMORY_GB_PER_GPU = 8.0
"""Pinned buffers, CUDA's context and the process itself, a GPU."""

MAPPED_SHARE = 0.25
"""Of a node's weights that are in memory at a time: checkpoints are mapped, shard by shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostResources:
    """What a job asks of each node: `cpus`, and `memory_gb` in 2**30 bytes."""

    cpus: int
    memory_gb: float

    def within(self, pool: Pool) -> "HostResources":
        """The same, but no more than a node of the pool has."""
        return HostResources(
            cpus=min(self.cpus, pool.cpus), memory_gb=min(self.memory_gb, pool.memory_gb)
        )


def host_resources(model: ModelSpec, deployment: Deployment) -> HostResources:
    """Of each node, for one replica.

    ``cpus = max(8, 2 + 4 * GPUs)`` and
    ``memory = max(32, weights / 4) + 8 * GPUs`` GiB, with the weights and GPUs of that node.
    """
    gpus = ceil(deployment.gpus / deployment.nodes)
    weights = model.weight_bytes / deployment.nodes / 2**30
    memory = max(LEAST_MEMORY_GB, MAPPED_SHARE * weights) + MEMORY_GB_PER_GPU * gpus
    return HostResources(
        cpus=max(LEAST_CPUS, CPUS_OF_SERVER + CPUS_PER_GPU * gpus), memory_gb=float(ceil(memory))
    )
