"""The law of resuming, on the warehouse: killed and resumed equals undisturbed, byte for byte."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import (
    assert_every_log_is_a_prefix,
    job_for,
    kill_after,
    make_worker,
    outcomes,
    play,
    steps,
)
from vendomini.config import expand, load_phase
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.store.experiment import Experiment
from vendomini.worker.drain import Drain
from vendomini.workloads.registry import workload_named

BASE = Path(__file__).parent.parent / "configs" / "base.yaml"
STEPS = 12
REPLIES = STEPS  # the probe asks once a step


def warehouse(folder: Path, *overrides: str) -> Experiment:
    phase = load_phase(
        BASE,
        [
            "agent.kind=probe",
            "engine.backend=scripted",
            f"simulation.max_steps={STEPS}",
            "pe_induction.p_shock=0.6",
            *overrides,
        ],
        workload_named=workload_named,
    )
    experiment = Experiment(folder)
    experiment.extend(phase.text, expand(phase))
    return experiment


def run_of(experiment: Experiment) -> str:
    return experiment.runs()[0].id


@pytest.mark.parametrize("replies", range(REPLIES))
def test_a_kill_at_any_logged_reply_changes_neither_outcome_nor_steps(
    tmp_path: Path, replies: int
) -> None:
    expected = warehouse(tmp_path / "undisturbed")
    play(expected)
    killed = warehouse(tmp_path / "killed")
    kill_after(killed, replies, torn=0)
    assert outcomes(killed) == {}
    engine = ScriptedEngine(echo)
    assert play(killed, engine).problem is None
    assert engine.answered == REPLIES - replies  # nothing that was logged is asked again
    assert outcomes(killed) == outcomes(expected)
    assert steps(killed, run_of(killed)) == steps(expected, run_of(expected))
    assert_every_log_is_a_prefix(killed)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(kills=st.lists(st.tuples(st.integers(0, REPLIES), st.integers(0, 900)), max_size=5))
def test_any_number_of_kills_with_torn_logs_changes_nothing(
    kills: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("kills")
    expected = warehouse(folder / "undisturbed", "experiment.replications=2")
    play(expected)
    killed = warehouse(folder / "killed", "experiment.replications=2")
    for replies, torn in kills:
        kill_after(killed, replies, torn)
    assert play(killed).problem is None
    assert outcomes(killed) == outcomes(expected)
    for run in outcomes(killed):
        assert steps(killed, run) == steps(expected, run)
    assert_every_log_is_a_prefix(killed)


def test_a_run_that_never_asks_starts_again_and_ends_the_same(tmp_path: Path) -> None:
    heuristic = ("agent.kind=heuristic", "engine.backend=auto", "simulation.max_steps=3000")
    expected = warehouse(tmp_path / "undisturbed", *heuristic)
    play(expected)
    drained = warehouse(tmp_path / "drained", *heuristic)
    drain = Drain(deadline=None, drain_s=10)

    async def interrupted() -> None:
        worker = make_worker(drained, job_for(drained), None, drain=drain)
        asyncio.get_running_loop().call_later(0.1, drain.within, 0.0, "told to")
        await worker.work()

    asyncio.run(interrupted())
    assert outcomes(drained) == {}
    play(drained)
    assert outcomes(drained) == outcomes(expected)
    assert steps(drained, run_of(drained)) == steps(expected, run_of(expected))


def test_the_order_and_company_of_runs_changes_no_outcome(tmp_path: Path) -> None:
    together = warehouse(tmp_path / "together", "experiment.replications=6")
    play(together)
    alone = warehouse(tmp_path / "alone", "experiment.replications=6")
    for run in reversed(alone.runs()):
        play(alone, only=(run.id,), concurrency=1)
    assert outcomes(alone) == outcomes(together)
