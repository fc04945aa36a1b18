"""How a plan looks in a terminal: what each group gets, what it costs, and why."""

from collections.abc import Sequence

from rich.console import Console

from vendomini.cli import show
from vendomini.cli.gpu_memory import show_memory
from vendomini.cli.known import billions, show_facts
from vendomini.errors import ConfigError
from vendomini.planner.deployment import VLLM
from vendomini.planner.estimate import Estimate
from vendomini.prepare import GroupPlan, Plan, writes_in_words
from vendomini.schema import nearest


def plan(plan: Plan, *, to: Console) -> None:
    """The plan by group, the same phase in other ways, then why, then what to know."""
    phase = f", phase {plan.phase}" if plan.phase is not None else ""
    runs = "1 run" if plan.runs == 1 else f"{plan.runs} runs"
    _line(to, f"{plan.name}{phase}: {runs}")
    rows = [_columns(group) for group in plan.groups]
    # A local plan books nothing: a column that says nothing of any group is left out.
    kept = [name for name in rows[0] if any(row[name] != "-" for row in rows)]
    show.table([{name: row[name] for name in kept} for row in rows], to=to)
    if ways := _ways(plan):
        show.table(ways, to=to)
    for group in plan.groups:
        for reason in (*_asks_slurm(group), *group.reasons):
            _line(to, f"  {group.key}: {reason}")
    if plan.writes is not None:
        _line(to, f"  {writes_in_words(plan.writes)}")
    for note in plan.notes:
        _line(to, f"  note: {note}")


def explain(plan: Plan, model: str) -> None:
    """All that decided for one model: its sizes, its memory on a GPU, what was rejected.

    Raises `ConfigError` if the plan has no such model.
    """
    wanted = [
        group
        for group in plan.groups
        if any(model.casefold() in each.casefold() for each in (group.key, *group.models))
    ]
    if not wanted:
        names = sorted({name for group in plan.groups for name in group.models})
        raise ConfigError(
            f"--explain: the plan has no model `{model}`",
            hint=f"did you mean `{nearest(model, names)}`? There are: {', '.join(names)}",
        )
    for group in wanted:
        show.say_out(f"\n{group.key}")
        if group.model_spec is not None:
            show_facts(group.model_spec)
        if group.choice is not None:
            show.say_out(f"\neach of {group.choice.candidate.place}")
            show_memory(group.choice.candidate.memory)
        for title, lines in (("why", group.reasons), ("rejected", group.rejected)):
            if lines:
                show.say_out(f"\n{title}")
            for text in lines:
                show.say_out(f"- {text}")


def hours(estimate: Estimate) -> tuple[str, str]:
    """GPU-hours and wall time, each with its range."""
    return (
        _range(estimate.gpu_hours, estimate.gpu_hours_range),
        _range(estimate.wall_hours, estimate.wall_hours_range) + " h",
    )


# -- private -------------------------------------------------------------------------------


def _line(to: Console, text: str) -> None:
    to.print(text, markup=False, soft_wrap=True)


def _columns(group: GroupPlan) -> dict[str, str]:
    """What the plan says of a group, by column; a dash where it is not known, or means nothing."""
    gpu_hours, wall = ("-", "-") if group.estimate is None else hours(group.estimate)
    return {
        "group": group.key,
        "runs": str(len(group.run_ids)),
        "params": "-" if group.model_spec is None else billions(group.model_spec.params),
        "backend": (group.backend or "auto") if group.asks else "none",
        "dtype": _dtype(group),
        "GPUs": _gpus(group),
        "TP x PP": _shape(group),
        "context": "-" if group.max_model_len is None else f"{group.max_model_len}",
        "under way": "-" if group.under_way is None else str(group.under_way),
        "workers": str(group.workers),
        "GPU-hours": gpu_hours,
        "wall": wall,
        "USD": "-" if group.usd is None else f"{group.usd:,.2f}",
        "start-up": "-" if group.estimate is None else _share(group.estimate.startup_share),
    }


def _dtype(group: GroupPlan) -> str:
    return group.quantization or group.dtype or "-"


def _gpus(group: GroupPlan) -> str:
    """The GPUs of a worker."""
    if group.choice is not None:
        return group.choice.candidate.place
    resources = group.resources
    if resources is not None:
        return f"{resources.gpus}" + (f" x {resources.gpu_type}" if resources.gpu_type else "")
    return "?" if group.asks and group.spec is None else "0"


def _shape(group: GroupPlan) -> str:
    if group.choice is None or group.choice.backend != VLLM:
        return "-"
    deployment = group.choice.candidate.deployment
    expert = " + EP" if deployment.enable_expert_parallel else ""
    return f"{deployment.tensor_parallel_size} x {deployment.pipeline_parallel_size}{expert}"


def _range(value: float, ends: tuple[float, float]) -> str:
    return f"{_short(value)} ({_short(ends[0])}-{_short(ends[1])})"


def _share(value: float) -> str:
    return "<1%" if 0 < value < 0.005 else f"{value:.0%}"


def _short(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def _asks_slurm(group: GroupPlan) -> list[str]:
    """What each worker of the group asks Slurm for."""
    resources = group.resources
    if resources is None:
        return []
    gpus = ""
    if resources.gpus:
        kind = f"{resources.gpu_type}:" if resources.gpu_type else ""
        gpus = f"gpu:{kind}{resources.gpus}, "
    where = "".join(
        f"{name} {value}, "
        for name, value in (
            ("partition", resources.partition),
            ("constraint", resources.constraint),
            ("nodes", resources.nodes if resources.nodes > 1 else None),
        )
        if value is not None
    )
    return [
        f"each worker asks for {where}{gpus}{resources.cpus} CPUs, {resources.memory_gb:.3g}G, "
        f"{resources.minutes} minutes"
    ]


def _ways(plan: Plan) -> list[dict[str, str]]:
    """What the phase costs as it is planned, and in other ways; nothing where nothing is known."""
    planned = [group for group in plan.groups if group.choice is not None]
    if not planned:
        return []
    rows = [_way("this plan", [_estimate(group) for group in planned], planned)]
    rows[0]["jobs"] = f"{sum(group.workers for group in planned):,}"  # with those that take turns
    names = dict.fromkeys(
        name for group in planned if group.choice for name in group.choice.alternatives
    )
    for name in names:
        there = [
            (group, group.choice.alternatives[name])
            for group in planned
            if group.choice is not None and name in group.choice.alternatives
        ]
        rows.append(_way(name, [each for _, each in there], [group for group, _ in there], planned))
    return rows


def _estimate(group: GroupPlan) -> Estimate:
    assert group.estimate is not None
    return group.estimate


def _way(
    name: str,
    estimates: Sequence[Estimate],
    groups: Sequence[GroupPlan],
    of: Sequence[GroupPlan] | None = None,
) -> dict[str, str]:
    total = sum(each.gpu_hours for each in estimates)
    ends = [sum(each.gpu_hours_range[end] for each in estimates) for end in (0, 1)]
    longest = max(each.wall_hours for each in estimates)
    walls = [max(each.wall_hours_range[end] for each in estimates) for end in (0, 1)]
    some = "" if of is None or len(of) == len(groups) else f" ({len(groups)} of {len(of)} groups)"
    return {
        "the same runs with": name + some,
        "jobs": f"{sum(each.workers for each in estimates):,}",
        "GPU-hours": _range(total, (ends[0], ends[1])),
        "longest group": _range(longest, (walls[0], walls[1])) + " h",
    }
