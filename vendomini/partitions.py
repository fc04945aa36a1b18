"""Whether the partitions of a cluster can serve what jobs are to ask of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vendomini.cluster import MB_PER_GB, ClusterFacts, Partition, Profile, Resources
from vendomini.errors import ConfigError
from vendomini.schema import nearest


def check_against(
    profile: Profile, facts: ClusterFacts, *, wanted: Mapping[str, Resources] | None = None
) -> None:
    """Raise `ConfigError` at the first resources that no node of their partition can ever serve.

    Slurm itself takes many such jobs and leaves them waiting for ever. `wanted` are those of the
    groups that are played now, by group: the profile's rules among them, and what was planned,
    which may be for `nodes` that the cluster does not have. None: all rules.
    """
    for place, resources in _demands(profile):
        if wanted is None or resources in wanted.values():
            partition = _open_partition(
                resources, profile, facts, f"profile `{profile.name}`, {place}"
            )
            misfit = _misfit(resources, partition)
            if misfit is not None:
                raise ConfigError(
                    f"profile `{profile.name}`, {place}: {misfit.what}", hint=misfit.hint
                )
    ruled = [resources for _, resources in _demands(profile)]
    for group, resources in (wanted or {}).items():
        if resources not in ruled:
            _check_planned(group, resources, profile, facts)


def partition_of(resources: Resources, profile: Profile, facts: ClusterFacts) -> Partition:
    """The partition that a worker's job goes to.

    Raises `ConfigError` naming the nearest one if there is no such, or no default to fall to.
    """
    name = resources.partition or profile.partition
    found = facts.partition(name)
    if found is not None:
        return found
    names = [partition.name for partition in facts.partitions]
    listed = ", ".join(names) or "none"
    if name is None:
        raise ConfigError(
            f"profile `{profile.name}` names no partition, and the cluster has no default one",
            hint=f"set `partition:` to one of: {listed}",
        )
    meant = f"did you mean `{nearest(name, names)}`? " if names else ""
    raise ConfigError(
        f"profile `{profile.name}`: the cluster has no partition `{name}`",
        hint=f"{meant}There are: {listed}",
    )


# -- private -------------------------------------------------------------------------------


def _demands(profile: Profile) -> Iterator[tuple[str, Resources]]:
    for rule in profile.resources:
        yield f"the rule for `{rule.model}`", rule.resources
    yield "`engineless`", profile.engineless


def _open_partition(
    resources: Resources, profile: Profile, facts: ClusterFacts, place: str
) -> Partition:
    partition = partition_of(resources, profile, facts)
    if not partition.is_up:
        up = ", ".join(other.name for other in facts.partitions if other.is_up)
        raise ConfigError(
            f"{place}: partition `{partition.name}` takes no jobs now",
            hint=f"partitions that take jobs: {up or 'none'}",
        )
    return partition


def _check_planned(group: str, resources: Resources, profile: Profile, facts: ClusterFacts) -> None:
    place = f"group `{group}`, as it is planned for the `nodes` of profile `{profile.name}`"
    remedy = "correct the profile's `nodes`, or remove them: then Slurm says what there is"
    if not profile.nodes:
        place, remedy = (
            f"group `{group}`, as it is planned",
            "name another `partition` in a profile",
        )
    try:
        partition = _open_partition(resources, profile, facts, place)
    except ConfigError as error:
        raise ConfigError(str(error), hint=f"{error.hint}; {remedy}") from None
    misfit = _misfit(resources, partition)
    if misfit is not None:
        there = f"{misfit.there_is}; " if misfit.there_is else ""
        raise ConfigError(f"{place}: {misfit.what}", hint=f"{there}{remedy}")
    types = _gpu_types(partition)
    told_apart = resources.gpu_type or resources.constraint or profile.constraint
    if resources.gpus and not told_apart and len(types) > 1:
        raise ConfigError(
            f"{place}: its jobs name no type of GPU, but partition `{partition.name}` has "
            f"{' and '.join(f'`{each}`' for each in types)}: they could get any of them",
            hint="in the profile's `nodes`, set `gpu_type` to the cluster's name of the GPU, or "
            "`constraint` to a feature of its nodes",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Misfit:
    """What no node can serve, and how a rule that asks for it could be mended."""

    what: str
    remedy: str
    there_is: str = ""

    @property
    def hint(self) -> str:
        return f"{self.there_is}; {self.remedy}" if self.there_is else self.remedy


def _gpu_types(partition: Partition) -> list[str]:
    return sorted({gpus.type for node in partition.nodes for gpus in node.gpus if gpus.type})


def _misfit(resources: Resources, partition: Partition) -> _Misfit | None:
    where = f"partition `{partition.name}`"
    if partition.max_minutes is not None and resources.minutes > partition.max_minutes:
        return _Misfit(
            what=f"`minutes` is `{resources.minutes}`, but {where} allows at most "
            f"{partition.max_minutes}",
            remedy=f"set `minutes: {partition.max_minutes}` or less: the next worker goes on "
            "with what is not finished then",
        )
    kind = f"`{resources.gpu_type}` GPUs" if resources.gpu_type else "GPUs"
    most_gpus = max((node.gpu_count(resources.gpu_type) for node in partition.nodes), default=0)
    if resources.gpus > most_gpus:
        return _Misfit(
            what=f"`gpus` is `{resources.gpus}`, but no node of {where} has more than "
            f"{most_gpus} {kind}",
            there_is=f"types of GPU there: {', '.join(_gpu_types(partition)) or 'none named'}",
            remedy="lower `gpus`, or name another `gpu_type` or `partition`",
        )
    # Only nodes with the GPUs count: a large CPU node is no help to a GPU job.
    nodes = [n for n in partition.nodes if n.gpu_count(resources.gpu_type) >= resources.gpus]
    most_cpus = max((node.cpus for node in nodes), default=0)
    beside = f" with {resources.gpus} {kind}" if resources.gpus else ""
    if resources.cpus > most_cpus:
        return _Misfit(
            what=f"`cpus` is `{resources.cpus}`, but no node of {where}{beside} has more than "
            f"{most_cpus}",
            remedy="lower `cpus`, or name another `partition`",
        )
    most_gb = max((node.memory_mb for node in nodes), default=0) / MB_PER_GB
    if resources.memory_gb > most_gb:
        return _Misfit(
            what=f"`memory` is `{resources.memory_gb:g}G`, but no node of {where}{beside} has "
            f"more than {most_gb:.4g}G",
            remedy="lower `memory`, or name another `partition`",
        )
    if not any(
        node.cpus >= resources.cpus and node.memory_mb >= resources.memory_gb * MB_PER_GB
        for node in nodes
    ):
        return _Misfit(
            what=f"no single node of {where}{beside} has both `{resources.cpus}` CPUs and "
            f"`{resources.memory_gb:g}G` of memory",
            remedy="lower `cpus` or `memory`, or name another `partition`",
        )
    return None
