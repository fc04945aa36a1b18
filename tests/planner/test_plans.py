"""The plans of all shipped phases on three example clusters, as the command line prints them.

They are kept as text that a person has read: four A100 of 40 GB a node, eight H100 of 80 GB, and a
mixed site with V100, T4, A100 and L40S. What changes them is to be read, too, and then kept:

    python -m tests.planner.test_plans

writes them all anew; `git diff tests/data/plans` shows what changed. Nothing of this machine is in
them: a plan for a profile alone knows no installed engines, and models are those of the catalogue.
"""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from bench.planning import WINDOW, facts_of, plan_of
from tests.product import COMMAND, ROOT
from vendomini.cli import show
from vendomini.cli.main import main
from vendomini.config import expand, load_phase
from vendomini.errors import PlanError
from vendomini.prepare import GroupPlan, Plan, refuse_costly
from vendomini.workloads.registry import workload_named

PHASES = sorted(path.stem for path in (ROOT / "configs" / "phases").glob("*.yaml"))
CLUSTERS = ("a100", "h100", "mixed")
KEPT = ROOT / "tests" / "data" / "plans"
COLUMNS = 200


def words_of(cluster: str, phase: str) -> tuple[str, ...]:
    config, profile = ROOT / "configs" / "phases" / f"{phase}.yaml", ROOT / "slurm"
    return "plan", "--config", str(config), "--profile", str(profile / f"{cluster}.yaml")


def elsewhere(folder: Path) -> Mapping[str, str]:
    """What is to be set so that this machine has no models, and its terminal is wide enough."""
    return {"HF_HOME": str(folder / "no_models"), "COLUMNS": str(COLUMNS)}


UNSET = ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "VENDOMINI_USE_VLLM", "VENDOMINI_ROOT")


def tidied(text: str) -> str:
    """Without the blanks at the ends of a table's lines, which are no part of what is said."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.mark.parametrize(("cluster", "phase"), list(product(CLUSTERS, PHASES)))
def test_the_plan_of_a_shipped_phase_is_the_one_that_was_read(
    cluster: str,
    phase: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in elsewhere(tmp_path).items():
        monkeypatch.setenv(name, value)
    # A console takes its width from the environment when it is made, which may be long ago.
    monkeypatch.setattr(show.OUT, "width", COLUMNS)
    monkeypatch.setattr(sys, "argv", ["vendomini", *words_of(cluster, phase)])
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr()
    assert (exit_.value.code, said.err) == (0, "")
    kept = (KEPT / cluster / f"{phase}.txt").read_text(encoding="utf-8")
    assert tidied(said.out) == kept


def test_there_is_a_text_for_every_phase_and_cluster_and_no_other() -> None:
    assert len(PHASES) == 15
    there = {path.relative_to(KEPT).as_posix() for path in KEPT.rglob("*.*")}
    assert there == {f"{cluster}/{phase}.txt" for cluster, phase in product(CLUSTERS, PHASES)}


# -- plans, apart from their words -------------------------------------------------------------


def small_phase(*overrides: str) -> Plan:
    phase = load_phase(
        ROOT / "configs" / "phases" / "phase1_core_hypothesis.yaml",
        ("experiment.replications=1", *overrides),
        workload_named=workload_named,
    )
    runs = expand(phase, window=WINDOW)
    return plan_of(runs, facts_of(runs))


def decided(group: GroupPlan) -> GroupPlan:
    """A group's plan without the order of its runs, and of what was rejected."""
    assert group.choice is not None
    rejected = tuple(sorted(group.rejected))
    return replace(
        group,
        run_ids=tuple(sorted(group.run_ids)),
        rejected=rejected,
        choice=replace(group.choice, rejected=rejected),
    )


def test_a_plan_does_not_depend_on_the_order_of_the_grid() -> None:
    phase = load_phase(
        ROOT / "configs" / "phases" / "phase3_complexity.yaml",
        ("experiment.replications=2",),
        workload_named=workload_named,
    )
    runs = expand(phase, window=WINDOW)
    facts = facts_of(runs)
    expected = {group.key: decided(group) for group in plan_of(runs, facts).groups}
    for seed in range(3):
        shuffled = random.Random(seed).sample(runs, len(runs))
        pools = random.Random(seed).sample(facts.pools, len(facts.pools))
        plan = plan_of(shuffled, replace(facts, pools=tuple(pools)))
        assert {group.key: decided(group) for group in plan.groups} == expected


def test_a_budget_counts_only_what_is_left() -> None:
    plan = small_phase()
    assert plan.gpu_hours is not None
    refuse_costly(plan, plan.gpu_hours * 1.01)
    with pytest.raises(PlanError, match="more than --max-gpu-hours"):
        refuse_costly(plan, plan.gpu_hours * 0.99)
    half = {run for group in plan.groups for run in group.run_ids[: len(group.run_ids) // 2]}
    refuse_costly(plan, plan.gpu_hours * 0.51, done=half)
    with pytest.raises(PlanError):
        refuse_costly(plan, plan.gpu_hours * 0.49, done=half)
    refuse_costly(plan, 0, done={run for group in plan.groups for run in group.run_ids})


def test_a_budget_refuses_what_cannot_be_known_unless_it_is_done() -> None:
    plan = small_phase()
    unknown = replace(plan.groups[0], choice=None)
    unsure = replace(plan, groups=(unknown, *plan.groups[1:]))
    assert unsure.gpu_hours is None
    with pytest.raises(PlanError, match="cannot be known"):
        refuse_costly(unsure, 1e9)
    refuse_costly(unsure, 1e9, done=set(unknown.run_ids))


# -- writing them ------------------------------------------------------------------------------


def write_all() -> None:
    """Write every plan anew, each by a program of its own."""
    with tempfile.TemporaryDirectory() as name:
        environment = {key: value for key, value in os.environ.items() if key not in UNSET}
        environment |= elsewhere(Path(name))
        for cluster, phase in product(CLUSTERS, PHASES):
            done = subprocess.run(
                [*COMMAND, *words_of(cluster, phase)],
                env=environment,
                cwd=name,
                capture_output=True,
                text=True,
                check=True,
            )
            path = KEPT / cluster / f"{phase}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(tidied(done.stdout), encoding="utf-8")
            print(path.relative_to(ROOT))


if __name__ == "__main__":
    write_all()
