"""From what a workload asks at once to what a worker is told."""

from pathlib import Path
from typing import Any

from tests.planner.cases import SMALL, pool
from tests.test_engine_plan import BASE, VLLM, facts
from vendomini.config import expand, load_phase
from vendomini.models.lookup import model_spec
from vendomini.planner.estimate import MOST_UNDER_WAY
from vendomini.prepare import make_plan
from vendomini.prepare.group import GroupPlan
from vendomini.store.experiment import Experiment
from vendomini.submit import job_for
from vendomini.worker.job import Job
from vendomini.workloads import Demand
from vendomini.workloads.registry import workload_named
from vendomini.workloads.warehouse.workload import Warehouse

SCORES = Demand(requests=5120, prefix_tokens=800, growth_tokens=1, output_tokens=1, at_once=256)


class Batches(Warehouse):
    """Scores batches, whatever its settings are."""

    def demand(self, settings: Any) -> Demand | None:
        return SCORES


def told(*overrides: str, **known: Any) -> tuple[GroupPlan, Job]:
    """The one group of a phase, and its workers' job."""
    settings = (f"agent.model.name={SMALL}", "agent.model.context_length=4096", *overrides)
    phase = load_phase(BASE, settings, workload_named=workload_named)
    plan = make_plan(
        expand(phase),
        Batches(),
        name="p",
        phase=None,
        profile=None,
        local_workers=1,
        facts=facts(VLLM, **known),
    )
    (group,) = plan.groups
    job = job_for(Experiment(Path("nowhere")), group, submission="s", profile=None, only=None)
    return group, job


def test_a_worker_is_told_how_many_requests_a_run_has_in_flight() -> None:
    for overrides in ((), ("engine.backend=scripted",)):
        _, job = told(*overrides)
        assert (job.at_once, job.conversation_tokens) == (256, 800 + 5120 // 256)


def test_a_planned_worker_may_have_all_requests_of_its_runs_under_way_in_flight() -> None:
    group, job = told(sizes={(SMALL, None): model_spec(SMALL)}, pools=(pool("A100-80"),))
    assert group.estimate is not None
    assert (group.estimate.under_way, group.concurrency, job.concurrency) == (
        1,
        MOST_UNDER_WAY,
        MOST_UNDER_WAY,
    )
