"""Where engines may run, as it is asked of this machine, of Slurm or of a profile."""

import os
import shutil
import subprocess
from collections.abc import Collection
from dataclasses import dataclass, replace
from importlib.resources import as_file, files

from vendomini.cluster import Profile, rule_for
from vendomini.engines.gpus import NVIDIA_S
from vendomini.errors import PlanError, SubmitError
from vendomini.partitions import partition_of
from vendomini.planner.pool import Pool, pools_of_cluster, pools_of_machine, pools_of_profile
from vendomini.profile import load_profile
from vendomini.slurm import cluster_facts

GIB = 1024**3

QUERY = ("--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Nodes that engines may run on, and what a reader should know of how they were found."""

    pools: tuple[Pool, ...] = ()
    notes: tuple[str, ...] = ()


def pools_here(gpus: tuple[str, ...]) -> Pools:
    """This machine's GPUs, of which the caller may use those that CUDA_VISIBLE_DEVICES names."""
    if not gpus:
        return Pools()
    try:
        listed = subprocess.run(
            ["nvidia-smi", "-i", ",".join(gpus), *QUERY],
            capture_output=True,
            text=True,
            timeout=NVIDIA_S,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return Pools()
    pools, notes = pools_of_machine(listed, cpus=os.cpu_count() or 1, memory_gb=memory_gb())
    return Pools(pools=tuple(pools), notes=tuple(notes))


def pools_there(profile: Profile, models: Collection[str], *, ask_slurm: bool) -> Pools:
    """A cluster's nodes: as its profile describes them, else as Slurm does, where it can be asked.

    Raises `SubmitError` if Slurm does not answer, `PlanError` if it tells of no GPU that can be
    planned on, unless the profile has a rule for all `models`; `ConfigError` for a partition that
    there is not.
    """
    if profile.nodes:
        return Pools(pools=tuple(pools_of_profile(profile)))
    if not ask_slurm or shutil.which("sinfo") is None:
        return Pools()
    are_ruled = all(rule_for(profile, model) is not None for model in models)
    try:
        facts = cluster_facts()
    except SubmitError as error:
        if not are_ruled:
            raise
        said = str(error).splitlines()[0]
        return Pools(notes=(f"{said}: nothing is computed of what the profile's rules ask for",))
    pools, notes = pools_of_cluster(facts, profile.gpus)
    if not pools and not are_ruled:
        raise PlanError(
            "Slurm tells of no GPU in a partition that takes jobs"
            + (f", as far as they are known: {'; '.join(notes)}" if notes else ""),
            hint="describe the cluster's `nodes` in a profile",
        )
    if profile.partition is not None:
        partition_of(replace(profile.engineless, partition=None), profile, facts)  # it exists
        own = [pool for pool in pools if pool.partition == profile.partition]
        if pools and not own:
            notes.append(
                f"partition `{profile.partition}` of the profile has no GPUs to plan on, or takes "
                "no jobs now: planned on the others"
            )
        pools = own or pools
    return Pools(pools=tuple(pools), notes=tuple(notes))


def example_cluster() -> Profile:
    """The profile of a cluster as there are many, to plan for where there is none."""
    with as_file(files("vendomini") / "data" / "example_cluster.yaml") as path:
        return load_profile(path)


def memory_gb() -> float:
    """This machine's memory, in GiB."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
