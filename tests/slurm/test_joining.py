"""Workers that join from inside a job of the user's own, on a real Slurm."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.product import COMMAND, ROOT, write_phase, write_profile
from tests.slurm.lab import Lab
from tests.slurm_cluster.cluster import SlurmCluster

pytestmark = pytest.mark.slurm

LIMIT = 60
SMALL = ("--cpus-per-task=1", "--mem=600M")

MakeLab = Callable[..., Lab]


@pytest.fixture
def make_lab(slurm_cluster: SlurmCluster, tmp_path: Path) -> Iterator[MakeLab]:
    labs = []

    def make(
        *overrides: str, name: str = "small", latency_s: float = 0.01, **profile: object
    ) -> Lab:
        phase = write_phase(tmp_path, replications=4, steps=20, latency_s=latency_s, name=name)
        site = write_profile(tmp_path, engineless=profile)
        labs.append(Lab(slurm_cluster, tmp_path, phase, site, overrides=overrides))
        return labs[-1]

    yield make
    for lab in labs:
        lab.leave()


def test_the_shipped_script_joins_with_each_task_whatever_its_index(
    make_lab: MakeLab, tmp_path: Path
) -> None:
    lab = make_lab(name="phase1_large_models")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "vendomini").write_text(f'#!/bin/sh\nexec {" ".join(COMMAND)} "$@"\n')
    (tmp_path / "bin" / "vendomini").chmod(0o755)
    script = ROOT / "slurm" / "run_phase1_large.sh"
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{lab.cluster.env['PATH']}",
        "VENDOMINI_PROFILE": str(lab.profile),
    }
    done = lab.cluster.run(
        [
            *("sbatch", "--parsable", "--array=3,5", "--gres=none", "--time=5", *SMALL),
            *(f"--output={tmp_path}/own-%a", "--job-name=vendomini-phase1_large_models", script),
            *("agent.kind=heuristic", "--root", lab.root, "--limit", str(LIMIT)),
        ],
        cwd=ROOT,
        extra_env=environment,
    )
    job = done.stdout.strip()
    lab.wait_until_over(job)
    assert lab.endings(job) == {f"{job}_3": "COMPLETED 0:0", f"{job}_5": "COMPLETED 0:0"}
    for task in ("3", "5"):
        lines = (tmp_path / f"own-{task}").read_text().splitlines()
        joined = [line for line in lines if "joining" in line]
        assert joined == [
            f"inside Slurm job {job}_{task}: joining as a worker for 1 of 1 groups"
        ] or any("nothing to do" in line for line in lines)
    runs = lab.experiment.runs()
    assert lab.experiment.finished() == {run.id for run in runs[:LIMIT]}
    assert lab.experiment.slurm_jobs() == []  # nothing was submitted
    assert {served.attempt for served in lab.served().values()} == {1}


def test_a_join_ends_with_the_status_of_its_runs(make_lab: MakeLab) -> None:
    lab = make_lab("experiment.replications=3")
    clean = lab.sbatch("--time=5", *SMALL)
    lab.wait_until_over(clean)
    assert lab.endings(clean) == {clean: "COMPLETED 0:0"}
    (log,) = lab.experiment.path("logs").glob("*.replies.jsonl")
    # The recorded engine has no answers to the fourth replication.
    lab = make_lab(f"engine.script={log}")
    failing = lab.sbatch("--time=5", *SMALL)
    lab.wait_until_over(failing)
    assert lab.endings(failing) == {failing: "FAILED 1:0"}
    assert lab.status()["runs"] == {
        "total": 8,
        "done": 6,
        "running": 0,
        "waiting": 0,
        "failed": 2,
        "short": 0,
    }


def test_a_job_that_fits_no_group_says_what_the_group_needs(make_lab: MakeLab) -> None:
    lab = make_lab(cpus=3, memory="2G")
    job = lab.sbatch("--time=5", *SMALL)
    lab.wait_until_over(job)
    assert lab.endings(job) == {job: "FAILED 3:0"}
    assert re.search(r"group `\S+` needs 3 CPUs, the job has 1", lab.said())
    assert "Traceback" not in lab.said()
    assert lab.workers() == []


def test_srun_in_a_script_starts_several_workers(make_lab: MakeLab) -> None:
    lab = make_lab(latency_s=0.1)
    options = ("--ntasks=2", "--nodes=2", "--partition=gpu", *SMALL, "--time=5")
    job = lab.sbatch(*options, start="srun")
    lab.wait_until_over(job)
    assert lab.endings(job) == {job: "COMPLETED 0:0"}
    assert lab.said().count(f"inside Slurm job {job}: joining as a worker") == 2
    assert len({worker.slurm.node for worker in lab.workers() if worker.slurm}) == 2
    assert len(lab.served()) == 8
    assert {served.attempt for served in lab.served().values()} == {1}


def test_salloc_joins_through_srun_and_says_so_without(make_lab: MakeLab) -> None:
    lab = make_lab()
    name = f"--job-name=vendomini-{lab.experiment.name}"
    salloc = ["salloc", "--quiet", name, "--partition=gpu", *SMALL, "--time=5", "--"]
    outside = lab.cluster.run([*salloc, *lab.command], check=False)
    assert outside.returncode == 3
    assert "not on one of its nodes" in outside.stderr
    assert "srun vendomini run --cluster" in outside.stderr
    assert not lab.root.exists()
    inside = lab.cluster.run([*salloc, "srun", *lab.command])
    assert "joining as a worker for 1 of 1 groups" in inside.stderr
    assert inside.stdout == f"{lab.experiment.folder}\n"
    assert len(lab.served()) == 8
