"""Which of the ways a group takes, by the guide's table and the phase's own word: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vendomini.hardware import GIB
from vendomini.models.spec import ModelSpec
from vendomini.planner.choice import (
    Candidate,
    Candidates,
    How,
    Limits,
    Wanted,
    candidates,
    cheapest,
)
from vendomini.planner.deployment import Backend
from vendomini.planner.estimate import Estimate
from vendomini.planner.gates import advice as advised
from vendomini.planner.guide import (
    FEW_RUNS,
    MANY_RUNS,
    Horizon,
    advice,
    backends_by_guide,
    is_large,
)
from vendomini.planner.pool import Pool
from vendomini.planner.refusals import nothing_fits, refuse_impossible, with_gpu_of_pools
from vendomini.planner.work import Work
from vendomini.store.measurements import Measured

FAVOUR = 3.0
"""How much dearer a favoured backend may be. Few short runs favour transformers, which needs no
environment of its own; many favour vLLM, whose speed holds as the batch grows."""

WORDS: Mapping[How, str] = {
    "vllm": "vLLM",
    "hf": "transformers",
    "eager": "transformers, eager attention",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a group gets. `alternatives` are what the same work would cost in other ways.

    `guide` is what the guide's table says of the group, beside what was chosen and why.
    """

    candidate: Candidate
    backend: Backend
    guide: str
    reasons: tuple[str, ...]
    rejected: tuple[str, ...]
    alternatives: Mapping[str, Estimate]


def choose(
    model: ModelSpec,
    work: Work,
    pools: Sequence[Pool],
    *,
    horizon: Horizon,
    wanted: Wanted,
    limits: Limits,
    measured: Sequence[Measured] = (),
) -> Choice:
    """The deployment with the fewest GPU-hours that the policy and the phase's settings allow.

    Raises `ConfigError` for settings that no deployment can have, `PlanError` if the model fits
    on nothing that may be used.
    """
    wanted = with_gpu_of_pools(pools, wanted)
    refuse_impossible(model, pools, wanted)
    found = candidates(model, work, pools, wanted, limits, measured=measured)
    usable: dict[How, Candidate] = {
        how: best
        for how, best in found.best.items()
        if how != "eager" and _backend(how) not in wanted.unavailable
    }
    if wanted.backend is not None:
        usable = {how: best for how, best in usable.items() if how == wanted.backend}
    if not usable:
        raise nothing_fits(model, pools, wanted, found.rejected)
    backend, best, why = _by_policy(model, usable, found, horizon, wanted)
    said = advice(horizon, model.params, gpus_per_node=best.pool.gpus_per_node)
    return Choice(
        candidate=best,
        backend=backend,
        guide=said,
        reasons=(
            f"backend `{backend}`: {why}",
            f"the guide says for {horizon.words} of a model {_size(model)}: {said}",
            *_reasons(model, best, work, found),
        ),
        rejected=(
            *(f"`{name}`: {why}" for name, why in wanted.unavailable.items()),
            *found.rejected,
        ),
        alternatives=_alternatives(found),
    )


# -- private -------------------------------------------------------------------------------


def _size(model: ModelSpec) -> str:
    return "above 40B" if is_large(model.params) else "of up to 40B"


def _backend(how: How) -> Backend:
    return "vllm" if how == "vllm" else "hf"


def _by_policy(
    model: ModelSpec,
    usable: Mapping[How, Candidate],
    found: Candidates,
    horizon: Horizon,
    wanted: Wanted,
) -> tuple[Backend, Candidate, str]:
    """The backend, its cheapest deployment, and why it is this one."""
    if wanted.backend is not None:
        return wanted.backend, usable[wanted.backend], wanted.backend_reason
    if wanted.engine.policy == "guide":
        return _by_guide(model, usable, found, horizon)
    vllm, hf = usable.get("vllm"), usable.get("hf")
    if vllm is None or hf is None:
        best, other = (hf, "vllm") if vllm is None else (vllm, "hf")
        assert best is not None
        why = wanted.unavailable.get(_backend(other)) or "it fits on nothing that may be used"  # type: ignore[arg-type]
        return _backend("hf" if vllm is None else "vllm"), best, f"not `{other}`: {why}"
    dearer = hf.estimate.gpu_hours / vllm.estimate.gpu_hours
    cost = (
        f"{vllm.estimate.gpu_hours:,.1f} GPU-hours with vLLM, {hf.estimate.gpu_hours:,.1f} with "
        "transformers, start-up included"
    )
    if not horizon.is_short:
        return "vllm", vllm, f"long runs, and the model fits on {vllm.place} ({cost})"
    if horizon.runs < FEW_RUNS and dearer <= FAVOUR:
        return "hf", hf, f"fewer than {FEW_RUNS} short runs favour transformers ({cost})"
    if is_large(model.params):
        return "vllm", vllm, f"the model fits wholly on {vllm.place} ({cost})"
    if dearer > 1:
        return "vllm", vllm, f"fewer GPU-hours ({cost})"
    if horizon.runs > MANY_RUNS and dearer * FAVOUR >= 1:
        return "vllm", vllm, f"more than {MANY_RUNS} runs favour vLLM ({cost})"
    return "hf", hf, f"no more GPU-hours ({cost})"


def _by_guide(
    model: ModelSpec, usable: Mapping[How, Candidate], found: Candidates, horizon: Horizon
) -> tuple[Backend, Candidate, str]:
    """As the guide's table says, pool by pool; the cheapest of what it allows."""
    for rank in (0, 1):
        allowed = []
        for each in found.every:
            order = backends_by_guide(horizon, model.params, gpus_per_node=each.pool.gpus_per_node)
            backend = each.deployment.backend
            if backend in usable and rank < len(order) and order[rank] == backend:
                allowed.append(each)
        if allowed:
            best = cheapest(allowed)
            fallback = ", as its fallback" if rank else ""
            return best.deployment.backend, best, f"`policy: guide` says so{fallback}"
    best = cheapest(list(usable.values()))
    return (
        best.deployment.backend,
        best,
        "what `policy: guide` says fits on nothing that may be used",
    )


def _reasons(model: ModelSpec, best: Candidate, work: Work, found: Candidates) -> list[str]:
    memory, deployment, estimate = best.memory, best.deployment, best.estimate
    each = f"{best.place}: {memory.weights / GIB:.1f} GiB of weights on each"
    room = (
        f"{memory.kv / GIB:.1f} GiB for conversations, runs under way per engine: "
        f"{estimate.under_way}, of up to {work.conversation_tokens:,} tokens"
    )
    said = [f"{each}, {room}, {memory.margin / GIB:.1f} GiB to spare for the longest one"]
    if (other := _smaller(best, found)) is not None:
        said.append(
            f"{other.place} would hold {other.estimate.under_way} runs under way per engine and "
            f"take {other.estimate.gpu_hours:,.1f} GPU-hours, not {estimate.gpu_hours:,.1f}"
        )
    elif (why := _why_not_fewer(best, found)) is not None:
        said.append(f"not fewer GPUs: {why}")
    if model.is_guess:
        said.append(
            f"the model's sizes are guessed from its name, give or take {model.weight_margin:.0%}: "
            "download its config.json, or leave a wide margin"
        )
    if deployment.enable_expert_parallel:
        said.append("expert parallel: its experts cannot be cut this way")
    said.append(_time(best))
    if (needs := advised(best.pool.gpu, deployment.backend)) is not None:
        said.append(needs)
    said.append(f"speed: {estimate.speed.source}")
    return said


def _time(best: Candidate) -> str:
    """How long the workers take, and may take."""
    estimate = best.estimate
    count = f"{estimate.workers} worker{'s' if estimate.workers > 1 else ''}"
    hours = estimate.worker_s / 3600
    said = (
        f"{count} of about {hours:,.3g} h" if hours < 1000 else f"{count} of about {hours:,.0f} h"
    )
    said += f", {estimate.startup_share:.1%} of it start-up; time limit {best.minutes} minutes"
    if best.tasks > estimate.workers:
        return f"{said}: {best.tasks} workers take turns, for no job may be longer"
    return said


def _smaller(best: Candidate, found: Candidates) -> Candidate | None:
    """The next smaller deployment on the same GPUs that works too; None if there is none."""
    smaller = [
        each
        for each in found.every
        if each.pool == best.pool
        and each.deployment.backend == best.deployment.backend
        and each.deployment.flash_attention == best.deployment.flash_attention
        and each.deployment.gpus < best.deployment.gpus
    ]
    return max(smaller, key=lambda each: each.deployment.gpus, default=None)


def _why_not_fewer(best: Candidate, found: Candidates) -> str | None:
    """Why the next smaller number of the same GPUs does not do; None if one is enough."""
    for gpus in range(best.deployment.gpus - 1, 0, -1):
        shape = f"{gpus} x {best.pool.gpu.name}"
        for text in found.rejected:
            if text.startswith(shape) and f", {best.deployment.backend}: " in text:
                return text
    return None


def _alternatives(found: Candidates) -> dict[str, Estimate]:
    """What the same runs cost in each way; and as one job a run, as it is mostly done by hand."""
    costs = {WORDS[how]: found.best[how].estimate for how in WORDS if how in found.best}
    for how in ("vllm", "hf"):
        if how in found.best:
            costs[f"one run per job, {WORDS[how]}"] = min(
                (each.one_run_a_job for each in found.every if _same(each, found.best[how])),
                key=lambda estimate: estimate.gpu_hours,
            )
    return costs


def _same(one: Candidate, other: Candidate) -> bool:
    return one.deployment == other.deployment and one.pool == other.pool
