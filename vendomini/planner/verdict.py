"""What there is to say of whether a model fits: values only."""

from dataclasses import dataclass

from vendomini.planner.deployment import Deployment, MemoryUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A deployment that was weighed and not taken, and why."""

    deployment: Deployment
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether a deployment works, and what it leaves.

    `deployment` is what was judged: one that works if there is one. `memory` is that of its
    fullest GPU. `max_model_len_that_fits` is in tokens, 0 where not one does; `concurrency` is
    how many conversations of `max_model_len` are held at once. `rejected` has what is smaller,
    the smallest first.
    """

    feasible: bool
    deployment: Deployment | None  # None: no shape is legal, or the engine cannot run it there
    memory: MemoryUse | None
    max_model_len_that_fits: int = 0
    concurrency: int = 0
    reasons: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
