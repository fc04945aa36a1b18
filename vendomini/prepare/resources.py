"""What the workers of a planned group ask Slurm for: pure."""

from collections.abc import Sequence

from vendomini.cluster import Profile, Resources
from vendomini.errors import PlanError
from vendomini.models.spec import ModelSpec
from vendomini.planner.choice import Candidate
from vendomini.planner.host import CPUS_OF_SERVER, host_resources
from vendomini.planner.pool import Pool
from vendomini.planner.queues import shortest_that_holds

LEAST_PLAYING_S = 300.0
"""A worker that played for less would mostly have loaded its model."""

LEAST_MEMORY_GB = 16.0
"""A node's memory for one job at least: the engine's own, with its weights read as they come."""


def job_resources(
    model: ModelSpec, candidate: Candidate, profile: Profile, pools: Sequence[Pool]
) -> Resources:
    """What each worker asks Slurm for: the GPUs as the site names them, and what feeds them.

    Raises `PlanError` if no job may be long enough to start the engine.
    """
    deployment = candidate.deployment
    host = host_resources(model, deployment).within(candidate.pool)
    least = _least_minutes(candidate, profile)
    minutes = max(candidate.minutes, least)
    pool = shortest_that_holds(pools, candidate.pool, minutes=minutes)
    _refuse_short(model, pool, profile, least=least)
    gpus = deployment.gpus // deployment.nodes
    # More than their share would leave other GPUs of the node without processors or memory, idle.
    share = max(pool.cpus * gpus // pool.gpus_per_node, CPUS_OF_SERVER + gpus)
    share_gb = max(pool.memory_gb * gpus // pool.gpus_per_node, LEAST_MEMORY_GB)
    return Resources(
        gpus=gpus,
        gpu_type=pool.gpu_type,
        cpus=max(1, min(host.cpus, share)),
        memory_gb=min(host.memory_gb, share_gb),
        minutes=minutes,
        workers=candidate.tasks,
        partition=pool.partition,
        constraint=pool.constraint,
        nodes=deployment.nodes,
    )


# -- private -------------------------------------------------------------------------------


def _least_minutes(candidate: Candidate, profile: Profile) -> int:
    """The shortest time limit in which a worker starts its engine, plays, and leaves in order."""
    seconds = candidate.startup_s + LEAST_PLAYING_S + profile.signal_delay_s
    return -(-int(seconds) // 60)


def _refuse_short(model: ModelSpec, pool: Pool, profile: Profile, *, least: int) -> None:
    limits = {
        f"partition `{pool.partition}`": pool.max_minutes,
        f"`max_minutes` of profile `{profile.name}`": profile.max_minutes,
    }
    for whose, limit in limits.items():
        if limit is not None and limit < least:
            raise PlanError(
                f"a worker for `{model.id}` needs at least {least} minutes to load it, play and "
                f"stop cleanly, but {whose} allows {limit}",
                hint="name another `partition` in the profile, raise its `max_minutes`, or lower "
                "its `signal_delay_s`",
            )
