"""A phase, decided: values, and their form for scripts."""

import math
from dataclasses import asdict, dataclass

from vendomini.cluster import Resources
from vendomini.hardware import GIB
from vendomini.models.spec import ModelSpec
from vendomini.planner.decision import Choice
from vendomini.planner.estimate import Estimate
from vendomini.planner.gates import runtime_dtype
from vendomini.planner.work import Work
from vendomini.serving import EngineSettings, EngineSpec

NOTHING_SET = EngineSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPlan:
    """What one group gets, and why. `None` says that it is not known yet, or does not apply.

    `resources` are those of one worker. `engine` is its engine, as far as it is decided; None if
    the group never asks. `choice` is what the planner found from `model_spec`, the model's sizes;
    None where there was nothing to choose or to compute from. `work` is what its runs ask in all,
    `context_length` the longest window that a run allows its conversation. `concurrency` counts
    requests in flight, of which a run has up to `at_once`. `usd` is what a provider asks for it,
    in US dollars. `log_bytes` is what its runs add to the logs in all, if none ends early.
    """

    key: str
    models: tuple[str, ...]
    run_ids: tuple[str, ...]
    engine: EngineSpec | None
    resources: Resources | None
    concurrency: int | None
    workers: int
    fallback: EngineSpec | None = None  # what takes its place where it cannot start
    fallback_estimate: Estimate | None = None  # of its work by that one, on the same GPUs
    instead_of: str | None = None  # the backend in whose place its engine serves it already
    loads_model: bool = False  # a worker's engine loads it, and takes its GPUs
    model_spec: ModelSpec | None = None
    choice: Choice | None = None
    context_length: int | None = None
    work: Work | None = None
    usd: float | None = None
    in_flight: int | None = None
    log_bytes: int = 0
    reasons: tuple[str, ...] = ()
    rejected: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        return self.engine is not None

    @property
    def spec(self) -> EngineSpec | None:
        """What opens its engine; None if it never asks, or nobody knows yet what answers."""
        return self.engine if self.engine is not None and self.engine.is_decided else None

    @property
    def settings(self) -> EngineSettings:
        """Those of its engine, as far as they are decided."""
        return NOTHING_SET if self.engine is None else self.engine.settings

    @property
    def backend(self) -> str | None:
        return None if self.spec is None else self.spec.backend

    @property
    def dtype(self) -> str | None:
        """What it computes in: as it is set, else what the model has on these GPUs."""
        if self.choice is None or self.model_spec is None:
            return self.settings.dtype
        gpu = self.choice.candidate.pool.gpu
        return self.settings.dtype or runtime_dtype(self.model_spec, gpu)

    @property
    def quantization(self) -> str | None:
        """As it is set, else as the checkpoint that was planned for has it."""
        stored = None if self.choice is None or self.model_spec is None else self.model_spec
        if self.settings.quantization is not None or stored is None:
            return self.settings.quantization
        return None if stored.quantization is None else stored.quantization.method

    @property
    def max_model_len(self) -> int | None:
        """The longest conversation that its engine holds, in tokens."""
        if self.settings.max_model_len is not None or self.choice is None:
            return self.settings.max_model_len
        return self.choice.candidate.deployment.max_model_len

    @property
    def model(self) -> str:
        """The model's id, or how many models share the group."""
        return self.models[0] if len(self.models) == 1 else f"any of {len(self.models)} models"

    @property
    def under_way(self) -> int | None:
        """Most runs that share an engine; None: not known before it has started."""
        if self.concurrency is None:
            return None
        return max(1, self.concurrency // self.at_once)

    @property
    def books_no_gpu(self) -> bool:
        """Whether it takes none: it never asks, or asks what is elsewhere."""
        return not self.asks or (self.spec is not None and not self.loads_model)

    @property
    def conversation_tokens(self) -> int | None:
        """The longest conversation of a run."""
        return None if self.work is None else self.work.conversation_tokens

    @property
    def at_once(self) -> int:
        """Most requests that a run has in flight at a time."""
        return 1 if self.work is None else math.ceil(self.work.at_once)

    @property
    def estimate(self) -> Estimate | None:
        return None if self.choice is None else self.choice.candidate.estimate

    @property
    def gpu_hours(self) -> float | None:
        """Expected, for all its workers."""
        if self.books_no_gpu:
            return 0.0
        return None if self.estimate is None else self.estimate.gpu_hours

    @property
    def wall_hours(self) -> float | None:
        """Expected, from the first worker's start to the last one's end."""
        return None if self.estimate is None else self.estimate.wall_hours


@dataclass(frozen=True, slots=True, kw_only=True)
class Writes:
    """What is written, about, if every run that is left is played to its end and none is tried
    twice. Runs that break down early write less.

    `names` is what a listing shows as files. `files` is what a file system and a quota count: a
    claim is one more name for a file that is there. `bytes` are those on disk, where a small file
    takes a whole block. `folder` is the experiment's; None: nobody said.
    """

    names: int
    files: int
    bytes: int
    folder: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A phase, decided. `notes` are what a reader should know before booking anything, `warnings`
    what will go wrong if nothing is done. `writes` is None if no run is left to be played."""

    name: str
    phase: int | None
    runs: int
    groups: tuple[GroupPlan, ...]
    notes: tuple[str, ...]
    writes: Writes | None = None
    warnings: tuple[str, ...] = ()

    @property
    def gpu_hours(self) -> float | None:
        """Expected, of all groups; None if one of them is not known."""
        hours = [group.gpu_hours for group in self.groups]
        known = [each for each in hours if each is not None]
        return sum(known) if len(known) == len(hours) else None

    @property
    def usd(self) -> float | None:
        """What providers ask for all groups, in US dollars; None: nobody is billed."""
        asked = [group.usd for group in self.groups if group.usd is not None]
        return sum(asked) if asked else None


def plan_as_json(plan: Plan) -> dict[str, object]:
    """The plan for scripts; null where something is not known yet."""
    return {
        "phase": plan.name,
        "phase_number": plan.phase,
        "runs": plan.runs,
        "gpu_hours": plan.gpu_hours,
        "usd": plan.usd,
        "groups": [_group_as_json(group) for group in plan.groups],
        "notes": list(plan.notes),
        "writes": None if plan.writes is None else asdict(plan.writes),
        "warnings": list(plan.warnings),
    }


# -- private -------------------------------------------------------------------------------


def _group_as_json(group: GroupPlan) -> dict[str, object]:
    resources, candidate = group.resources, None if group.choice is None else group.choice.candidate
    return {
        "group": group.key,
        "model": group.models[0] if len(group.models) == 1 else None,
        "models": list(group.models),
        "params": None if group.model_spec is None else group.model_spec.params,
        "runs": len(group.run_ids),
        "asks": group.asks,
        "backend": group.backend,
        "dtype": group.dtype,
        "quantization": group.quantization,
        "gpu": None if candidate is None else candidate.pool.gpu.name,
        "gpu_type": resources.gpu_type if resources else None,
        "gpus": _gpus(group),
        "nodes": None if resources is None else resources.nodes,
        "tensor_parallel_size": group.settings.tensor_parallel_size,
        "pipeline_parallel_size": group.settings.pipeline_parallel_size,
        "max_model_len": group.max_model_len,
        "context_length": group.context_length,
        "conversation_tokens": group.conversation_tokens,
        "concurrency": group.concurrency,
        "at_once": group.at_once,
        "workers": group.workers,
        "resources": None if resources is None else asdict(resources),
        "gpu_hours": group.gpu_hours,
        "wall_hours": group.wall_hours,
        "usd": group.usd,
        "on_failure": group.settings.on_failure,
        "fallback": _fallback(group),
        **_costs(group),
        "guide": None if group.choice is None else group.choice.guide,
        "reasons": list(group.reasons),
        "rejected": list(group.rejected),
    }


def _costs(group: GroupPlan) -> dict[str, object]:
    """Ranges, shares, memory and alternatives: what is known only of a planned group."""
    if group.choice is None:
        return {
            "gpu_hours_range": None,
            "wall_hours_range": None,
            "startup_share": None,
            "memory_gib_per_gpu": None,
            "alternatives": [],
        }
    candidate = group.choice.candidate
    estimate = candidate.estimate
    return {
        "gpu_hours_range": list(estimate.gpu_hours_range),
        "wall_hours_range": list(estimate.wall_hours_range),
        "startup_share": estimate.startup_share,
        "memory_gib_per_gpu": {
            name: value / GIB for name, value in asdict(candidate.memory).items()
        },
        "alternatives": [
            {
                "how": how,
                "gpu_hours": each.gpu_hours,
                "wall_hours": each.wall_hours,
                "jobs": each.workers,
            }
            for how, each in group.choice.alternatives.items()
        ],
    }


def _fallback(group: GroupPlan) -> dict[str, object] | None:
    """What takes its engine's place; null: nothing does."""
    if group.fallback is None:
        return None
    costs = group.fallback_estimate
    return {
        "backend": group.fallback.backend,
        "gpu_hours": None if costs is None else costs.gpu_hours,
        "wall_hours": None if costs is None else costs.wall_hours,
    }


def _gpus(group: GroupPlan) -> int | None:
    """Of one worker, on all its nodes."""
    if group.resources is not None:
        return group.resources.gpus * group.resources.nodes
    if not group.asks:
        return 0
    return None if group.spec is None else group.spec.gpus
