"""A phase file as it is shipped, played on several nodes of a real Slurm."""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.harness import outcomes
from tests.product import ROOT, write_profile
from tests.slurm.lab import Lab
from tests.slurm_cluster.cluster import SlurmCluster
from vendomini.store.experiment import Experiment
from vendomini.store.logs import lines_by_run

pytestmark = pytest.mark.slurm

PHASE = ROOT / "configs" / "phases" / "phase1_small_models.yaml"
RUNS = 660
STEPS = 200
WORKERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The phase, played once on Slurm and once on this machine."""

    here: Experiment
    lab: Lab
    jobs: tuple[str, ...]
    told: tuple[dict[str, Any], ...]  # what `status --json` said while it went on


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((f"simulation.max_steps={STEPS}",), id=f"{STEPS} steps"),
        pytest.param((), id="as shipped", marks=pytest.mark.long),
    ],
)
def played(
    request: pytest.FixtureRequest,
    slurm_cluster: SlurmCluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Played]:
    folder = tmp_path_factory.mktemp("phase")
    # 12 CPUs: no node has room for all, and each of the five takes some.
    profile = write_profile(
        folder, partition="short", engineless={"workers": WORKERS, "cpus": 12, "memory": "1G"}
    )
    here = Lab(
        slurm_cluster, folder, PHASE, profile, overrides=("agent.kind=heuristic", *request.param)
    )
    begun = time.monotonic()
    here.run_here()
    here_s = time.monotonic() - begun
    (folder / "slurm").mkdir()
    lab = replace(here, folder=folder / "slurm")
    begun = time.monotonic()
    jobs = lab.submit()
    told: list[dict[str, Any]] = []
    while not told or told[-1]["runs"]["done"] < RUNS:
        assert time.monotonic() - begun < 500, told[-1]["runs"]
        told.append(lab.status())
    print(f"\n{RUNS} runs: {here_s:.1f} s here, {time.monotonic() - begun:.1f} s through Slurm")
    lab.wait_until_over(*jobs)
    yield Played(here=here.experiment, lab=lab, jobs=tuple(jobs), told=tuple(told))
    lab.leave()


def test_every_run_of_the_phase_has_one_result_and_one_id(played: Played) -> None:
    experiment = played.lab.experiment
    assert len({run.id for run in experiment.runs()}) == RUNS
    assert experiment.finished() == {run.id for run in experiment.runs()}
    assert experiment.errors() == {}


def test_outcomes_and_steps_are_byte_for_byte_those_of_a_local_run(played: Played) -> None:
    assert outcomes(played.lab.experiment) == outcomes(played.here)
    assert steps_by_run(played.lab.experiment) == steps_by_run(played.here)


def test_the_workers_were_spread_over_nodes_by_arrays_no_larger_than_allowed(
    played: Played,
) -> None:
    workers = played.lab.workers(*played.jobs)
    assert len(workers) == WORKERS
    assert len(played.jobs) == 2  # 8 workers, and no array above 6
    nodes = {worker.slurm.node for worker in workers if worker.slurm}
    assert len(nodes) >= 3
    assert {served.node for served in played.lab.served().values()} == nodes


def test_status_from_another_shell_shows_it_going_on(played: Played) -> None:
    done = [told["runs"]["done"] for told in played.told]
    assert done == sorted(done)
    assert any(0 < count < RUNS for count in done)
    under_way = [told for told in played.told if 0 < told["runs"]["done"] < RUNS]
    assert any(told["runs"]["running"] for told in under_way)
    assert any(
        sum(worker["alive"] and worker["state"] == "working" for worker in told["workers"]) > 1
        for told in under_way
    )
    last = played.lab.status()
    none = dict.fromkeys(("running", "waiting", "failed", "short"), 0)
    assert last["runs"] == {"total": RUNS, "done": RUNS, **none}
    assert not any(worker["alive"] for worker in last["workers"])


def test_clean_workers_are_completed_for_accounting(played: Played) -> None:
    endings = [state for job in played.jobs for state in played.lab.endings(job).values()]
    assert endings == ["COMPLETED 0:0"] * WORKERS


def test_a_run_leaves_two_names_and_a_worker_a_handful(played: Played) -> None:
    files = [path for path in played.lab.experiment.folder.rglob("*") if path.is_file()]
    inodes = {path.stat().st_ino for path in files}
    print(f"\n{RUNS} runs by {WORKERS} workers left {len(files)} files in {len(inodes)} inodes")
    # A claim and a result; the claims of a worker are names of one file.
    assert len(files) < 2.05 * RUNS + 10 * WORKERS
    assert len(inodes) < RUNS + 10 * WORKERS


def steps_by_run(experiment: Experiment) -> dict[str, str]:
    """A hash of each run's steps, of the attempt that finished."""
    player = {}
    for run in experiment.finished():
        result = experiment.result(run)
        assert result is not None
        player[run] = result.served.incarnation
    found = {}
    for incarnation in set(player.values()):
        content = experiment.steps_path(incarnation).read_bytes()
        for run, lines in lines_by_run(content).items():
            if player.get(run) == incarnation:
                found[run] = hashlib.sha256(b"\n".join(lines)).hexdigest()
    assert found.keys() == player.keys()
    return found
