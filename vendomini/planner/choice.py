"""Which deployment serves a group: pure, with the reasons and what was rejected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from vendomini.hardware import GIB
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Backend, Deployment, MemoryUse
from vendomini.planner.estimate import MOST_UNDER_WAY, Estimate, Pace
from vendomini.planner.fit import deployments
from vendomini.planner.gates import attention, cannot_run, refused_dtype
from vendomini.planner.gpu_memory import memory_use
from vendomini.planner.pool import Pool
from vendomini.planner.work import Work
from vendomini.serving import EngineSettings
from vendomini.store.measurements import Measured

FLASH = "flash_attention_2"

SAFETY = 1.5
"""A worker's time limit is so many times what it is expected to need."""

STARTUP_SAFETY = 3.0
"""The same for its engine's start: a cold file system is slower by far."""

SAME = 1.1
"""GPU-hours within this factor count as equal, for the estimates are no better: then the simpler
deployment is taken."""

ONE_GPU = 1.5
"""How much dearer one GPU may be than several: its jobs start sooner, and more of them make up for
what each holds less, as long as it holds `FEW_UNDER_WAY` runs."""

FEW_UNDER_WAY = 8

MINUTES_STEP = 10
"""Time limits are whole multiples of it."""

How: TypeAlias = Literal["vllm", "hf", "eager"]
"""The ways that are compared: vLLM; transformers with the best attention that the GPU has; and with
the plain one, which is never chosen unless it is asked for."""

WAYS: tuple[How, ...] = ("vllm", "hf", "eager")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one group may take. None: no limit."""

    max_gpus: int | None = None  # held at a time by all workers of a group
    max_minutes: int | None = None
    worker_minutes: int = 240  # the time limit that the scheduler still backfills


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the phase says itself of its engine, and what else narrows the choice.

    `engine` are its settings, where None leaves the choice to the planner; the window is decided.
    `unavailable` are the backends that cannot be used where the workers run, each with why.
    """

    engine: EngineSettings
    backend: Backend | None = None  # that has the last word
    backend_reason: str = ""  # who asked for it
    unavailable: Mapping[Backend, str] = field(default_factory=dict)
    gpus_from: str = "`engine.gpus`"  # who says how many GPUs an engine has
    workers: int | None = None  # how many there are to be
    minutes: int | None = None  # their time limit
    workers_wait: bool = True  # more of them than have GPUs at a time may be started

    @property
    def max_model_len(self) -> int:
        """The longest conversation that has to fit, in tokens."""
        assert self.engine.max_model_len is not None, "the window is decided before a deployment"
        return self.engine.max_model_len


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A deployment that works, and what the group's work costs on it."""

    pool: Pool
    deployment: Deployment
    memory: MemoryUse
    estimate: Estimate
    one_run_a_job: Estimate
    startup_s: float
    minutes: int  # a worker's time limit
    tasks: int  # workers in all, where one after another is needed

    @property
    def is_one_gpu(self) -> bool:
        """Whether it is one GPU, with room enough to be worth its while."""
        return self.deployment.gpus == 1 and self.estimate.under_way >= FEW_UNDER_WAY

    @property
    def place(self) -> str:
        """Such as ``2 x A100-80``."""
        nodes = f" on {self.deployment.nodes} nodes" if self.deployment.nodes > 1 else ""
        return f"{self.deployment.gpus} x {self.pool.gpu.name}{nodes}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What a group can run on: the cheapest deployment of each way, and why others do not do."""

    best: Mapping[How, Candidate]
    every: tuple[Candidate, ...]
    rejected: tuple[str, ...]


def candidates(
    model: ModelSpec,
    work: Work,
    pools: Sequence[Pool],
    wanted: Wanted,
    limits: Limits,
    *,
    measured: Sequence[Measured] = (),
) -> Candidates:
    """Every legal deployment that fits, in every pool, as the phase wants it."""
    found: dict[How, list[Candidate]] = {}
    rejected: dict[str, None] = {}
    for pool in pools:
        for how in WAYS:
            backend: Backend = "vllm" if how == "vllm" else "hf"
            why = cannot_run(model, pool.gpu, backend)
            if why is None and wanted.engine.dtype is not None:
                why = refused_dtype(model, pool.gpu, backend, wanted.engine.dtype)
            if why is not None:
                rejected[why] = None
                continue
            for deployment in shapes(model, pool, how, wanted):
                fitting = [each for each in found.get(how, ()) if each.pool is pool]
                if fitting and deployment.nodes > fitting[-1].deployment.nodes:
                    break  # fewer nodes are enough: more are neither cheaper nor simpler
                if fitting and deployment.gpus == fitting[-1].deployment.gpus:
                    continue  # these GPUs are enough with fewer stages
                memory = memory_use(model, deployment)
                if not memory.fits:
                    rejected[_too_small(deployment, memory)] = None
                    continue
                at_once = _at_once(pool, deployment, limits)
                if at_once < 1:
                    rejected[
                        f"{deployment.gpus} x {pool.gpu.name}: more than there are, or than "
                        "`max_gpus` allows"
                    ] = None
                    continue
                pace = Pace(
                    model,
                    deployment,
                    work,
                    most_under_way=wanted.engine.concurrency,
                    measured=measured,
                )
                made = _candidate(pool, pace, memory, at_once, limits, wanted)
                found.setdefault(how, []).append(made)
                if deployment.gpus == 1 and pace.most_under_way >= min(MOST_UNDER_WAY, work.runs):
                    break  # it holds all that it may: further GPUs are for further workers
    return Candidates(
        best={how: cheapest(several) for how, several in found.items()},
        every=tuple(each for several in found.values() for each in several),
        rejected=tuple(rejected),
    )


def cheapest(several: Sequence[Candidate]) -> Candidate:
    """The one with the fewest GPU-hours; of those that are about equal the simplest: one GPU, then
    fewest nodes, then fewest GPUs, then the one that ends first."""
    least = min(each.estimate.gpu_hours for each in several)
    equal = [
        each
        for each in several
        if each.estimate.gpu_hours <= least * (ONE_GPU if each.is_one_gpu else SAME)
    ]
    return min(
        equal,
        key=lambda each: (
            each.deployment.nodes,
            each.deployment.gpus,
            each.deployment.pipeline_parallel_size,
            each.estimate.wall_hours,
        ),
    )


# -- private -------------------------------------------------------------------------------


def shapes(model: ModelSpec, pool: Pool, how: How, wanted: Wanted) -> Iterator[Deployment]:
    """Deployments in a pool that are as the phase wants them, smallest first."""
    if wanted.engine.gpu is not None and wanted.engine.gpu != pool.gpu.name:
        return
    plain = how == "eager" or wanted.engine.attn_implementation in ("eager", "sdpa")
    plain = plain or wanted.engine.dtype == "float32"  # Flash Attention is for 16 bits
    for deployment in deployments(
        model,
        pool.gpu,
        backend="vllm" if how == "vllm" else "hf",
        gpus_per_node=pool.gpus_per_node,
        nodes=pool.nodes,
        max_model_len=wanted.max_model_len,
        gpu_memory_utilization=wanted.engine.gpu_memory_utilization,
        max_num_seqs=wanted.engine.concurrency or MOST_UNDER_WAY,
        enforce_eager=wanted.engine.enforce_eager,
        flash_attention=not plain and attention(model, pool.gpu, "hf") == FLASH,
    ):
        asked = {
            "gpus": wanted.engine.gpus,
            "tensor_parallel_size": wanted.engine.tensor_parallel_size if how == "vllm" else None,
            "pipeline_parallel_size": wanted.engine.pipeline_parallel_size
            if how == "vllm"
            else None,
        }
        if all(value in (None, getattr(deployment, name)) for name, value in asked.items()):
            yield replace(deployment, dtype=wanted.engine.dtype)


def _at_once(pool: Pool, deployment: Deployment, limits: Limits) -> int:
    """How many such engines the pool's nodes hold together, within the limit on GPUs."""
    if deployment.nodes > 1:
        there = pool.nodes // deployment.nodes
    else:
        there = pool.nodes * (pool.gpus_per_node // deployment.gpus)
    if limits.max_gpus is None:
        return there
    return min(there, limits.max_gpus // deployment.gpus)


def _candidate(
    pool: Pool, pace: Pace, memory: MemoryUse, at_once: int, limits: Limits, wanted: Wanted
) -> Candidate:
    """With as few workers as end within the time that backfills, or as their longest run allows."""
    caps = [each for each in (pool.max_minutes, limits.max_minutes) if each is not None]
    cap = min(caps, default=None)
    if wanted.workers is None:
        workers = pace.workers_for(
            limits.worker_minutes * 60 / SAFETY,
            at_once=at_once,
            limit_s=None if cap is None else cap * 60 / SAFETY,
        )
    else:
        workers = wanted.workers if wanted.workers_wait else min(wanted.workers, at_once)
    estimate = pace.estimate(workers, at_once=at_once)
    needed = (STARTUP_SAFETY - SAFETY) * pace.startup_s + SAFETY * estimate.worker_s
    minutes = -(-int(needed / 60 + 1) // MINUTES_STEP) * MINUTES_STEP
    longest = minutes if cap is None else cap
    return Candidate(
        pool=pool,
        deployment=pace.deployment,
        memory=memory,
        estimate=estimate,
        one_run_a_job=pace.one_run_a_job(at_once=at_once),
        startup_s=pace.startup_s,
        minutes=wanted.minutes or min(minutes, longest),
        tasks=workers * -(-minutes // longest),
    )


def _too_small(deployment: Deployment, memory: MemoryUse) -> str:
    parts = f"{deployment.gpus} x {deployment.gpu.name}"
    if deployment.pipeline_parallel_size > 1 and deployment.backend == "vllm":
        parts += f" (TP {deployment.tensor_parallel_size}, PP {deployment.pipeline_parallel_size})"
    short = -memory.margin / GIB
    return (
        f"{parts}, {deployment.backend}: {short:.1f} GiB a GPU too small for the weights and one "
        f"conversation of {deployment.max_model_len:,} tokens"
    )
