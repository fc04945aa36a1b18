"""The plans of all shipped phases on three example clusters: every decision, and six plans in full.

The clusters are four A100 of 40 GB a node, eight H100 of 80 GB, and a mixed site with V100, T4,
A100 and L40S. A person has read what is kept. What changes it is to be read, too, and then kept:

    python -m tests.planner.test_plans

writes all of it anew; `git diff tests/data/plans` shows what changed. Nothing of this machine is
in it: a plan for a profile alone knows no installed engines, and models are the catalogue's.

`table.txt` has what is decided of each group of all 45 plans: where it runs, how, what that takes
beside other ways, and whether `run` would play it. Six texts hold the words, as the command line
prints them. Together they have every kind of sentence that the 45 have, and two that these lack:

- a100/phase1_core_hypothesis: an engine over four nodes, which `run` refuses; a model that
  Transformers cannot hold; fewer GPUs that were rejected or are dearer; short runs;
- h100/phase1_large_models: MXFP4, one worker a group, a model above 40B on eight GPUs;
- mixed/phase5_large_models: long runs, workers that take turns, groups that take turns;
- mixed/phase5_long_horizon: a partition by its name, and two nodes of it;
- h100/phase1_small_models-hf: Transformers, because the phase says so;
- mixed/phase1_core_hypothesis-hf: the same of a model that is too large: the error.
"""

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench.planning import WINDOW, facts_of, plan_of
from tests.planner.plan_table import (
    CLUSTERS,
    PHASES,
    Row,
    config_of,
    drawn,
    plans_of,
    profile_of,
    rows_of,
)
from tests.product import COMMAND, ROOT
from vendomini.cli import show
from vendomini.cli.main import main
from vendomini.config import expand, load_phase
from vendomini.errors import PlanError
from vendomini.looking import prepared
from vendomini.looking.prepared import Request, prepare
from vendomini.prepare import GroupPlan, Plan, refuse_costly
from vendomini.workloads.registry import workload_named

KEPT = ROOT / "tests" / "data" / "plans"
TABLE = KEPT / "table.txt"
TERMINAL = 200
UNSET = ("HF_HUB_CACHE", "HF_HUB_OFFLINE", "VENDOMINI_USE_VLLM", "VENDOMINI_ROOT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A plan that is kept in full, and the exit status of its command."""

    cluster: str
    phase: str
    changed: str = ""  # to the name of its text
    overrides: tuple[str, ...] = ()
    exit_code: int = 0

    @property
    def name(self) -> str:
        return f"{self.cluster}/{self.phase}{self.changed}.txt"

    @property
    def words(self) -> tuple[str, ...]:
        options = (
            "--config",
            str(config_of(self.phase)),
            "--profile",
            str(profile_of(self.cluster)),
        )
        return "plan", *options, *self.overrides


HF = ("engine.backend=hf",)
SHOWN = (
    Shown(cluster="a100", phase="phase1_core_hypothesis"),
    Shown(cluster="h100", phase="phase1_large_models"),
    Shown(cluster="mixed", phase="phase5_large_models"),
    Shown(cluster="mixed", phase="phase5_long_horizon"),
    Shown(cluster="h100", phase="phase1_small_models", changed="-hf", overrides=HF),
    Shown(
        cluster="mixed", phase="phase1_core_hypothesis", changed="-hf", overrides=HF, exit_code=2
    ),
)


def elsewhere(folder: Path) -> Mapping[str, str]:
    """What is to be set so that this machine has no models, and its terminal is wide enough."""
    return {"HF_HOME": str(folder / "no_models"), "COLUMNS": str(TERMINAL)}


@pytest.fixture(autouse=True)
def _bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    for name, value in elsewhere(tmp_path).items():
        monkeypatch.setenv(name, value)
    # A warning of a full disk is this machine's.
    monkeypatch.setattr(prepared, "rooms", lambda folder: [])


# -- six plans in full -------------------------------------------------------------------------


def tidied(text: str) -> str:
    """Without the blanks at the ends of a table's lines, which are no part of what is said."""
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: shown.name)
def test_the_words_of_a_plan_are_the_ones_that_were_read(
    shown: Shown, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A console takes its width from the environment when it is made, which may be long ago.
    for console in (show.OUT, show.ERR):
        monkeypatch.setattr(console, "width", TERMINAL)
    monkeypatch.setattr(sys, "argv", ["vendomini", *shown.words])
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr()
    assert exit_.value.code == shown.exit_code
    # Only one of the two says anything: the plan, or the error.
    assert "" in (said.out, said.err)
    assert tidied(said.out + said.err) == (KEPT / shown.name).read_text(encoding="utf-8")


def test_nothing_is_kept_that_no_test_reads() -> None:
    there = {path.relative_to(KEPT).as_posix() for path in KEPT.rglob("*.*")}
    assert there == {"table.txt", *(shown.name for shown in SHOWN)}
    assert {shown.cluster for shown in SHOWN} == set(CLUSTERS)


# -- every decision of all of them -------------------------------------------------------------


def table_of(rows: Sequence[Row]) -> list[str]:
    return drawn(sorted(rows, key=lambda row: (row["cluster"], row["phase"])))


@pytest.mark.parametrize("phase", PHASES)
def test_what_is_decided_of_a_shipped_phase_is_what_was_read(phase: str) -> None:
    rows = [row for planned in plans_of(phase) for row in rows_of(planned)]
    kept = TABLE.read_text(encoding="utf-8").splitlines()
    # The widths of the columns are the whole table's: a line is compared by its words.
    found = [line.split() for line in table_of(rows) if line]
    expected = [line.split() for line in kept if line.split()[1:2] in (["phase"], [phase])]
    assert found == expected


def test_the_table_has_every_shipped_phase_on_every_cluster_and_no_other() -> None:
    assert len(PHASES) == 15
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    plans = [tuple(line.split()[:2]) for line in lines if "(all)" in line]
    assert plans == [(cluster, phase) for cluster in CLUSTERS for phase in PHASES]
    assert {tuple(line.split()[:2]) for line in lines[1:] if line} == set(plans)


def test_the_table_is_of_what_the_command_line_plans() -> None:
    """It is made without `prepare`, which reads the phase anew for each cluster."""
    phase = "phase1_large_models"
    for planned in plans_of(phase):
        request = Request(
            config=config_of(phase),
            overrides=(),
            cluster=False,
            profile=profile_of(planned.cluster),
            root=Path("experiments"),
            limit=None,
            n_jobs=1,
            restart_groups=(),
        )
        assert prepare(request, only_plan=True).plan == planned.plan


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
    with pytest.raises(PlanError, match="are not known"):
        refuse_costly(unsure, 1e9)
    refuse_costly(unsure, 1e9, done=set(unknown.run_ids))


# -- writing them ------------------------------------------------------------------------------


def write_all() -> None:
    """Write the table, and each text by a program of its own."""
    with tempfile.TemporaryDirectory() as name:
        for variable in UNSET:
            os.environ.pop(variable, None)
        os.environ.update(elsewhere(Path(name)))
        os.chdir(name)
        rows = [row for phase in PHASES for planned in plans_of(phase) for row in rows_of(planned)]
        write(TABLE, "".join(f"{line}\n" for line in table_of(rows)))
        for shown in SHOWN:
            done = subprocess.run(
                [*COMMAND, *shown.words], capture_output=True, text=True, check=False
            )
            assert done.returncode == shown.exit_code, done.stderr
            write(KEPT / shown.name, tidied(done.stdout + done.stderr))


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    write_all()
