"""What a group's work costs on another engine, on the GPUs that it was planned for: pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vendomini.hardware import GIB
from vendomini.models.spec import ModelSpec
from vendomini.planner.choice import Candidate, Wanted, shapes
from vendomini.planner.deployment import Backend, Deployment
from vendomini.planner.estimate import Estimate, Pace
from vendomini.planner.gates import cannot_run, refused_dtype
from vendomini.planner.gpu_memory import memory_use
from vendomini.planner.work import Work
from vendomini.store.measurements import Measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Instead:
    """A deployment in another's place: its GPUs, its workers, its time limit.

    `ends` tells whether the expected time, with the other's failed start before it, is within that.
    """

    deployment: Deployment
    estimate: Estimate
    ends: bool


def instead(
    model: ModelSpec,
    work: Work,
    of: Candidate,
    wanted: Wanted,
    backend: Backend,
    *,
    minutes: int | None,
    measured: Sequence[Measured] = (),
) -> Instead | str:
    """The work of a group by `backend` on the GPUs of `of`; or why that is not possible.

    `minutes` is the time limit of a worker; None: it has none.
    """
    gpu, gpus = of.pool.gpu, of.deployment.gpus
    why = wanted.unavailable.get(backend) or cannot_run(model, gpu, backend)
    if why is None and wanted.engine.dtype is not None:
        why = refused_dtype(model, gpu, backend, wanted.engine.dtype)
    if why is not None:
        return why
    alike = replace(
        wanted.engine,
        gpu=gpu.name,
        gpus=gpus,
        tensor_parallel_size=None,
        pipeline_parallel_size=None,
    )
    found = shapes(model, of.pool, backend, replace(wanted, engine=alike))
    deployment = next((each for each in found if each.nodes == of.deployment.nodes), None)
    if deployment is None and of.deployment.nodes > 1:
        return f"it stays on one node, and would have to run on {of.place}"
    if deployment is None:
        return f"it cannot be laid out on {of.place}"
    memory = memory_use(model, deployment)
    if not memory.fits:
        return f"{of.place} are {-memory.margin / GIB:.1f} GiB a GPU too small for it"
    pace = Pace(
        model, deployment, work, most_under_way=wanted.engine.concurrency, measured=measured
    )
    workers = of.estimate.workers
    estimate = pace.estimate(workers, at_once=of.estimate.at_once)
    if minutes is None:
        return Instead(deployment=deployment, estimate=estimate, ends=True)
    turns = max(1, of.tasks // workers)  # workers that follow one another, each with its own start
    playing_s = turns * (minutes * 60 - pace.startup_s) - of.startup_s
    ends = estimate.worker_s - pace.startup_s <= playing_s
    return Instead(deployment=deployment, estimate=estimate, ends=ends)
