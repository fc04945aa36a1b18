"""The plans of the shipped phases on the example clusters as one table, a line for each group.

The figures are the plan's own, as `plan --json` gives them, and no sentence of it is in them, but
for what the groups together make of a cluster.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from tests.product import ROOT
from vendomini.config import expand, load_phase
from vendomini.errors import ConfigError
from vendomini.looking.engines import look_at_engines
from vendomini.looking.models import look_at_models, names_of
from vendomini.looking.places import pools_there
from vendomini.phase import Run
from vendomini.prepare import GroupPlan, Plan, make_plan, refuse_unplayable
from vendomini.profile import load_profile
from vendomini.store.experiment import Experiment
from vendomini.workloads.registry import workload_named

PHASES = sorted(path.stem for path in (ROOT / "configs" / "phases").glob("*.yaml"))
CLUSTERS = ("a100", "h100", "mixed")
GAP = "  "
LEFT = frozenset({"cluster", "phase", "group", "backend", "dtype", "GPUs", "partition", "run"})
CROWD = re.compile(r"the groups want (.+) at a time, and there are (\d+): .* about (\S+) h or more")

Row = Mapping[str, str]


def config_of(phase: str) -> Path:
    return ROOT / "configs" / "phases" / f"{phase}.yaml"


def profile_of(cluster: str) -> Path:
    return ROOT / "slurm" / f"{cluster}.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A phase's plan on a cluster; `first_runs` is a run of each group."""

    cluster: str
    phase: str
    plan: Plan
    first_runs: Mapping[str, Run]


def plans_of(phase: str) -> Iterator[Planned]:
    """A phase's plan on each cluster, from one reading of the phase and its models.

    It is what `prepare` does for a profile, less what does not depend on the cluster: expanding
    a phase of thousands of runs takes longer than planning it.
    """
    asked = load_phase(config_of(phase), workload_named=workload_named)
    models = look_at_models(asked, is_here=False)
    runs = expand(asked, window=models.window)
    by_id = {run.id: run for run in runs}
    workload = workload_named(asked.workload)
    names = [name for name, _ in names_of(asked)]
    for cluster in CLUSTERS:
        profile = load_profile(profile_of(cluster))
        pools = pools_there(profile, names, ask_slurm=False)
        facts = look_at_engines(
            asked,
            models,
            workload=workload,
            profile=profile,
            experiment=Experiment(Path("experiments") / asked.experiment.name),
            restarted=(),
            pools=pools,
            is_sketch=True,
        )
        plan = make_plan(
            runs,
            workload_named(asked.experiment.workload),
            name=asked.experiment.name,
            phase=asked.experiment.phase,
            profile=profile,
            local_workers=1,
            facts=facts,
            notes=[*pools.notes, *asked.notes, *models.notes],
            folder=f"experiments/{asked.experiment.name}",
        )
        first = {group.key: by_id[group.run_ids[0]] for group in plan.groups}
        yield Planned(cluster=cluster, phase=phase, plan=plan, first_runs=first)


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def row_of(group: GroupPlan, planned: Planned) -> Row:
    """What is decided of a group, by column. The last four are GPU-hours of other ways.

    A model is named without its owner, which is in the phase file, and leaves the table narrow.
    """
    assert group.choice is not None
    assert group.estimate is not None
    assert group.resources is not None
    asks = group.resources
    shape = group.settings.tensor_parallel_size, group.settings.pipeline_parallel_size
    others = {how: number(each.gpu_hours) for how, each in group.choice.alternatives.items()}
    return {
        "cluster": planned.cluster,
        "phase": planned.phase,
        "group": group.key.rpartition("/")[2],
        "runs": str(len(group.run_ids)),
        "backend": str(group.backend),
        "dtype": str(group.quantization or group.dtype),
        "GPUs": group.choice.candidate.place,
        "TP x PP": " x ".join(map(str, shape)),
        "context": str(group.max_model_len),
        "under way": str(group.concurrency),
        "workers": str(group.workers),
        "GPU-hours": number(group.estimate.gpu_hours),
        "wall h": number(group.estimate.wall_hours),
        "partition": str(asks.partition),
        "CPUs": str(asks.cpus),
        "GB": f"{asks.memory_gb:.3g}",
        "minutes": str(asks.minutes),
        "run": "plays" if is_played(group, planned) else "refuses",
        "hf": others.get("transformers", "-"),
        "hf eager": others.get("transformers, eager attention", "-"),
        "vllm x1": others.get("one run per job, vLLM", "-"),
        "hf x1": others.get("one run per job, transformers", "-"),
    }


def is_played(group: GroupPlan, planned: Planned) -> bool:
    """Whether `run` would play a group, or refuse what can only be planned."""
    plan, run = replace(planned.plan, groups=(group,)), planned.first_runs[group.key]
    try:
        refuse_unplayable(plan, [run])
    except ConfigError:
        return False
    return True


def row_of_all(planned: Planned) -> Row:
    """What a plan says of its groups together: they may have to take turns on too few GPUs."""
    plan = planned.plan
    assert plan.gpu_hours is not None
    crowds = [found for note in plan.notes if (found := CROWD.fullmatch(note))]
    wanted, there, hours = crowds[0].groups() if crowds else ("", "", "")
    longest = max(group.wall_hours or 0.0 for group in plan.groups)
    return {
        "cluster": planned.cluster,
        "phase": planned.phase,
        "group": "(all)",
        "runs": str(plan.runs),
        "GPUs": f"{wanted} of {there}" if crowds else "",
        "workers": str(sum(group.workers for group in plan.groups)),
        "GPU-hours": number(plan.gpu_hours),
        "wall h": hours or number(longest),
    }


def rows_of(planned: Planned) -> list[Row]:
    """A plan's lines: one for each group, and one for all of them."""
    return [*(row_of(group, planned) for group in planned.plan.groups), row_of_all(planned)]


def drawn(rows: Sequence[Row]) -> list[str]:
    """The table's lines: aligned, a blank line between the plans."""
    names = list(rows[0])
    assert all(set(row) <= set(names) for row in rows)
    widths = {name: max(len(name), *(len(row.get(name, "")) for row in rows)) for name in names}

    def line(row: Row) -> str:
        return GAP.join(
            (str.ljust if name in LEFT else str.rjust)(row.get(name, ""), widths[name])
            for name in names
        ).rstrip()

    lines = [line({name: name for name in names})]
    for _, plan in groupby(rows, key=lambda row: (row["cluster"], row["phase"])):
        lines += ["", *map(line, plan)]
    return lines
