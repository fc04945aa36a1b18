"""Where engines may run: nodes that are alike, as far as a job can tell them apart."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vendomini.cluster import MB_PER_GB, ClusterFacts, Partition, Profile, Resources
from vendomini.hardware import GpuSpec, ambiguous, gpu_named, gpu_of_site, is_slice, usable_gib

# As slow as the slowest cards in use: a plan for a GPU that nobody knows promises little.
UNKNOWN_BANDWIDTH_GB_S = 250.0
UNKNOWN_TFLOPS = 15.0
PCIE_GB_S = 16.0
BFLOAT16_CAPABILITY = 8.0
NOTABLE_SHARE = 0.03
"""A card that shows so much less memory than the table's is planned by what it shows."""


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


def pools_of_cluster(facts: ClusterFacts, names: Mapping[str, str]) -> tuple[list[Pool], list[str]]:
    """The pools of all partitions that take jobs, in their order, and what to know of them.

    `names` are the site's GPU types in our names, from its profile. A type that nobody knows makes
    no pool but a note; one that fits several GPUs is taken for the smallest, with a note.
    """
    pools: list[Pool] = []
    notes: dict[str, None] = {}
    for partition in facts.partitions:
        if partition.is_up:
            for kind, count in sorted(_kinds(partition).items(), key=lambda item: item[0].order):
                gpu, note = _gpu_of_type(kind.gpu_type, names)
                if note is not None:
                    notes[note] = None
                if gpu is not None:
                    pools.append(kind.pool(gpu, partition, nodes=count))
    return pools, list(notes)


def pools_of_profile(profile: Profile) -> list[Pool]:
    """The pools that a profile's `nodes:` describe, in its order."""
    return [
        Pool(
            gpu=gpu_named(nodes.gpu),
            gpus_per_node=nodes.gpus,
            nodes=nodes.count,
            cpus=nodes.cpus,
            memory_gb=nodes.memory_gb,
            partition=nodes.partition if nodes.partition is not None else profile.partition,
            max_minutes=nodes.max_minutes,
            gpu_type=nodes.gpu_type,
            constraint=nodes.constraint,
        )
        for nodes in profile.nodes
    ]


def pools_of_rule(resources: Resources, profile: Profile, pools: Sequence[Pool]) -> list[Pool]:
    """Where a rule's workers may run: those of the pools that it does not rule out, or the GPUs it
    names itself; empty if it asks for none, or for what nobody knows."""
    if not resources.gpus:
        return []
    partition = resources.partition or profile.partition
    matching = [
        pool
        for pool in pools
        if resources.gpu_type in (None, pool.gpu_type) and partition in (None, pool.partition)
    ]
    if matching or resources.gpu_type is None:
        return matching
    gpu, _ = _gpu_of_type(resources.gpu_type, profile.gpus)
    if gpu is None:
        return []
    return [
        Pool(
            gpu=gpu,
            gpus_per_node=resources.gpus,
            nodes=resources.workers,
            cpus=resources.cpus,
            memory_gb=resources.memory_gb,
            partition=resources.partition,
            gpu_type=resources.gpu_type,
            constraint=resources.constraint,
        )
    ]


def pools_of_machine(listed: str, *, cpus: int, memory_gb: float) -> tuple[list[Pool], list[str]]:
    """One machine's GPUs, alike ones together, and what to know of them.

    `listed` is what ``nvidia-smi --query-gpu=name,memory.total,compute_cap
    --format=csv,noheader,nounits`` prints: ``NVIDIA A100-SXM4-80GB, 81920, 8.0`` for each GPU.
    A GPU that nobody knows is made of these numbers, with a low bandwidth. Lines that say no
    memory (``[N/A]``: a slice, or memory shared with the host) make no pool but a note.
    """
    notes: dict[str, None] = {}
    counts: Counter[GpuSpec] = Counter()
    for line in listed.splitlines():
        if line.strip():
            gpu, note = _gpu_of_line(line)
            if note is not None:
                notes[note] = None
            if gpu is not None:
                counts[gpu] += 1
    pools = [
        Pool(gpu=gpu, gpus_per_node=count, nodes=1, cpus=cpus, memory_gb=memory_gb)
        for gpu, count in counts.items()
    ]
    return pools, list(notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What makes nodes of one partition alike."""

    gpu_type: str | None
    gpus: int
    cpus: int
    memory_mb: int

    @property
    def order(self) -> tuple[str, int, int, int]:
        """So that pools do not depend on the order in which Slurm names the nodes."""
        return (self.gpu_type or "", self.gpus, self.cpus, self.memory_mb)

    def pool(self, gpu: GpuSpec, partition: Partition, *, nodes: int) -> Pool:
        return Pool(
            gpu=gpu,
            gpus_per_node=self.gpus,
            nodes=nodes,
            cpus=self.cpus,
            memory_gb=self.memory_mb / MB_PER_GB,
            partition=partition.name,
            max_minutes=partition.max_minutes,
            gpu_type=self.gpu_type,
        )


def _kinds(partition: Partition) -> Counter[_Kind]:
    """How many nodes of each kind; one with two types of GPU counts for both."""

    def found() -> Iterator[_Kind]:
        for node in partition.nodes:
            for gpu_type in dict.fromkeys(gpus.type for gpus in node.gpus):
                count = sum(gpus.count for gpus in node.gpus if gpus.type == gpu_type)
                if count:
                    yield _Kind(
                        gpu_type=gpu_type, gpus=count, cpus=node.cpus, memory_mb=node.memory_mb
                    )

    return Counter(found())


def _gpu_of_type(
    gpu_type: str | None, names: Mapping[str, str]
) -> tuple[GpuSpec | None, str | None]:
    if gpu_type is None:
        return None, (
            "Slurm names no type for some GPUs: describe their nodes in the profile's `nodes:`"
        )
    if gpu_type in names:
        return gpu_named(names[gpu_type]), None
    if is_slice(gpu_type):
        return None, f"`{gpu_type}` are slices of GPUs (MIG), on which nothing is planned"
    gpu, several = gpu_of_site(gpu_type), ambiguous(gpu_type)
    if gpu is None:
        return None, (
            f"GPU type `{gpu_type}` is not known: name it in the profile, "
            f"such as `gpus: {{{gpu_type}: A100-80}}`"
        )
    if several:
        return gpu, (
            f"GPU type `{gpu_type}` may be {' or '.join(other.name for other in several)}: planned "
            f"as {gpu.name}; say which in the profile, `gpus: {{{gpu_type}: {several[-1].name}}}`"
        )
    return gpu, None


def _gpu_of_line(line: str) -> tuple[GpuSpec | None, str | None]:
    name, *numbers = (part.strip() for part in line.rsplit(",", 2))
    memory_text, capability_text = (*numbers, "", "")[:2]
    if not memory_text.isdigit() or int(memory_text) == 0:
        return None, f"GPU `{name}` does not say its memory: nothing is planned on it"
    memory_mib = int(memory_text)
    if is_slice(name):
        return None, f"`{name}` is a slice of a GPU (MIG), on which nothing is planned"
    known = gpu_of_site(name, memory_mib)
    if known is not None:
        # ECC takes a sixteenth of some cards: what this one has is what counts.
        seen = round(usable_gib(memory_mib), 1)
        has_less = seen < known.memory_gib * (1 - NOTABLE_SHARE)
        return (replace(known, memory_gib=seen) if has_less else known), None
    try:
        capability = float(capability_text)
    except ValueError:
        return None, f"GPU `{name}` is not known and does not say its compute capability"
    has_tensor_cores = capability >= BFLOAT16_CAPABILITY
    gpu = GpuSpec(
        name=name,
        compute_capability=capability,
        memory_gib=round(usable_gib(memory_mib), 1),
        bandwidth_gb_s=UNKNOWN_BANDWIDTH_GB_S,
        tflops=UNKNOWN_TFLOPS if has_tensor_cores else UNKNOWN_TFLOPS / 2,
        link_gb_s=PCIE_GB_S,
        source="nvidia-smi; its speed is assumed, and low",
    )
    return gpu, (
        f"GPU `{name}` is not known: planned by its memory ({gpu.memory_gib:g} GiB) and compute "
        f"capability ({capability:g}), and as slow as the slowest"
    )
