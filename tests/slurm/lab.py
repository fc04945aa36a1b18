"""The product on the private Slurm: its commands given, and deaths arranged for its workers."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.product import COMMAND
from tests.slurm_cluster.cluster import SlurmCluster
from vendomini.store.experiment import Experiment
from vendomini.store.records import Served, WorkerRecord

OTHER_MACHINES = """\
import os, socket
if node := os.environ.get("SLURMD_NODENAME"):
    socket.gethostname = lambda: node
"""
"""A `sitecustomize` for workers. All nodes of the private cluster share this machine; on a real
one each has its own name, and nobody can see the processes of another."""


@dataclass(frozen=True, slots=True)
class Lab:
    """One experiment on the cluster. All of its files are below `folder`."""

    cluster: SlurmCluster
    folder: Path
    phase: Path
    profile: Path
    overrides: tuple[str, ...] = ()

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def experiment(self) -> Experiment:
        return Experiment(self.root / self.phase.stem)

    @property
    def words(self) -> list[str]:
        """What follows `vendomini run`, apart from --cluster."""
        return ["--config", str(self.phase), *self.overrides, "--root", str(self.root)]

    @property
    def command(self) -> list[str]:
        """`vendomini run --cluster`, as a user would type it."""
        return [*COMMAND, "run", *self.words, "--cluster", "--profile", str(self.profile)]

    def submit(self, **environment: str) -> list[str]:
        """`vendomini run --cluster`; the ids of the jobs, which inherit the environment."""
        machines = self.folder / "machines"
        machines.mkdir(exist_ok=True)
        (machines / "sitecustomize.py").write_text(OTHER_MACHINES)
        environment["PYTHONPATH"] = str(machines)
        done = self.cluster.run(self.command, extra_env=environment)
        assert done.stdout == f"{self.experiment.folder}\n"
        listed = re.findall(r"Slurm job (.*)", done.stderr)
        return [job for jobs in listed for job in jobs.split(", ")]

    def sbatch(self, *options: str, start: str = "exec") -> str:
        """The same command inside a script of the user's own; the job's id."""
        script = self.folder / "own.sh"
        script.write_text(f"#!/bin/bash\n{start} {shlex.join(self.command)}\n")
        return self.cluster.sbatch(
            f"--job-name=vendomini-{self.experiment.name}",
            f"--output={self.folder}/own-%j",
            *options,
            script,
        )

    def said(self) -> str:
        """What the processes of such jobs printed."""
        return "".join(file.read_text() for file in sorted(self.folder.glob("own-*")))

    def status(self) -> dict[str, Any]:
        """What another shell is told."""
        done = self.cluster.run([*COMMAND, "status", self.experiment.folder, "--json"])
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def run_here(self) -> subprocess.CompletedProcess[str]:
        """`vendomini run` on this machine, outside of Slurm."""
        return self.cluster.run([*COMMAND, "run", *self.words, "--n-jobs", "2"], timeout=300)

    # -- what is known of workers -----------------------------------------------------------

    def workers(self, *jobs: str) -> list[WorkerRecord]:
        """Those of some jobs (all, if none are named), oldest first."""
        found = sorted(self.experiment.workers().values(), key=lambda each: each.incarnation)
        return [
            each
            for each in found
            if not jobs or (each.slurm is not None and each.slurm.job.split("_")[0] in jobs)
        ]

    def served(self) -> dict[str, Served]:
        """How each finished run was played."""
        results = ((run, self.experiment.result(run)) for run in self.experiment.finished())
        return {run: result.served for run, result in results if result is not None}

    def log(self, job: str) -> str:
        """What the worker of a task (``75_3``) or of a plain job has said."""
        files = sorted(self.experiment.path("jobs").glob(f"*/*/{job}_0_log.err"))
        return "".join(file.read_text() for file in files)

    def endings(self, job: str) -> dict[str, str]:
        """State and exit status by task, as accounting has them."""
        words = ["sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job}"]
        done = self.cluster.run([*words, "--format=JobID,State,ExitCode"])
        rows = (line.split("|") for line in done.stdout.splitlines())
        return {row[0]: f"{row[1].split()[0]} {row[2]}" for row in rows}

    # -- waiting ----------------------------------------------------------------------------

    def wait_until_at_work(self, *jobs: str, workers: int) -> list[WorkerRecord]:
        """Until so many workers of the jobs have runs under way."""

        def at_work() -> list[WorkerRecord]:
            return [
                each for each in self.workers(*jobs) if each.state == "working" and each.under_way
            ]

        self.cluster.wait_until(lambda: len(at_work()) >= workers, what="workers at work")
        return at_work()

    def wait_until_over(self, *jobs: str, timeout: float = 120) -> None:
        """Until the jobs have left the queue and accounting knows how."""

        def over() -> bool:
            states = {task: s for job in jobs for task, s in self.cluster.states(job).items()}
            if {"PENDING", "RUNNING", "COMPLETING"} & set(states.values()):
                return False
            # Accounting is behind: tasks get their rows, and then their ends, a little later.
            endings = {task: s for job in jobs for task, s in self.endings(job).items()}
            alive = ("PENDING", "RUNNING", "REQUEUED")
            return endings.keys() == states.keys() and not any(
                ending.startswith(alive) for ending in endings.values()
            )

        self.cluster.wait_until(over, timeout, what=f"the end of {', '.join(jobs)}")

    def leave(self) -> None:
        """Nothing of this experiment goes on when this returns."""
        name = f"--name=vendomini-{self.experiment.name}"
        self.cluster.run(["scancel", "--quiet", name], check=False)
        for worker in self.workers():
            if worker.state != "ended":
                send(worker, signal.SIGKILL)  # a stopped one cannot end by itself
        queue = ["squeue", "--noheader", name]
        self.cluster.wait_until(lambda: not self.cluster.run(queue).stdout.strip())


def send(worker: WorkerRecord, number: signal.Signals) -> None:
    """A signal to a worker's process, which may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker.process.pid, number)
