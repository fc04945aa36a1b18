"""Phases of models that are planned, or played, on the private Slurm by what it says of itself."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.product import COMMAND, ROOT
from tests.slurm_cluster.cluster import SlurmCluster
from vendomini.store.experiment import Experiment
from vendomini.worker.job import Job, read_job

SMALL, LARGE = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.3-70B-Instruct"
"""Their sizes are in the catalogue: nothing of them is on this machine."""

GPU_NODES = "gpu-a1,gpu-a2,gpu-h1,gpu-v1,gpu-x1"


@dataclass(frozen=True, slots=True)
class Desk:
    """Someone's shell: a phase file, perhaps a profile, and commands given to the cluster."""

    cluster: SlurmCluster
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def experiment(self) -> Experiment:
        return Experiment(self.root / "planned")

    @property
    def environment(self) -> dict[str, str]:
        """Without models of the hub that this machine may have."""
        return {"HF_HOME": str(self.folder / "hub"), "OMP_NUM_THREADS": "1"}

    def write_phase(
        self,
        *models: str | Path,
        replications: int = 40,
        steps: int = 100,
        phase: int | None = 1,
        grid: dict[str, Any] | None = None,
        **engine: Any,
    ) -> None:
        """A phase of these models; `engine` are its settings."""
        model = {"max_tokens_per_call": 40, "context_length": 8192}
        written = {
            "inherit": str(ROOT / "configs" / "base.yaml"),
            "experiment": {
                "name": "planned",
                "replications": replications,
                "seed": 3,
                "phase": phase,
            },
            "agent": {"kind": "llm", "model": model},
            "engine": {"backend": "hf", **engine},
            "fixed": {"simulation.max_steps": steps},
            "grid": {"agent.model.name": [str(model) for model in models], **(grid or {})},
        }
        (self.folder / "planned.yaml").write_text(json.dumps(written))  # JSON is YAML

    def write_profile(self, **settings: Any) -> tuple[str, ...]:
        """Options that name the profile."""
        file = self.folder / "site.yaml"
        file.write_text(json.dumps(settings))
        return ("--profile", str(file))

    def words(self, command: str, *options: str) -> list[str]:
        """A command as a user would type it."""
        config, root = str(self.folder / "planned.yaml"), str(self.root)
        return [*COMMAND, command, "--config", config, "--root", root, *options]

    def plan(self, *options: str, **environment: str) -> dict[str, Any]:
        """What `plan --json` says."""
        told: dict[str, Any] = json.loads(
            self.cluster.run(
                self.words("plan", "--json", *options),
                extra_env={**self.environment, **environment},
            ).stdout
        )
        return told

    def refused(self, command: str, *options: str, status: int, **environment: str) -> str:
        """The one error that a command ends with, of which nothing is left on disk or in Slurm."""
        done = self.cluster.run(
            self.words(command, *options),
            extra_env={**self.environment, **environment},
            check=False,
        )
        assert done.returncode == status, done.stderr
        assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == 1
        assert "Traceback" not in done.stderr
        assert not self.root.exists()
        return done.stderr

    def run(self, *options: str) -> str:
        """`run --cluster`; what it said to whoever reads along."""
        words = self.words("run", "--cluster", *options)
        return self.cluster.run(words, extra_env=self.environment).stderr

    # -- what was submitted -----------------------------------------------------------------

    def jobs(self) -> dict[str, Job]:
        """By group, what its workers are told."""
        files = sorted(self.experiment.path("jobs").glob("*/job.json"))
        return {job.group: job for job in map(read_job, files)}

    def ids(self) -> dict[str, tuple[str, ...]]:
        """By group, the ids of its Slurm jobs."""
        return {jobs.group: jobs.ids for jobs in self.experiment.slurm_jobs()}

    def shown(self, job: str) -> dict[str, str]:
        """What Slurm says of a job that waits, by its own words."""
        text = self.cluster.run(["scontrol", "--oneliner", "show", "job", job]).stdout
        return dict(pair.partition("=")[::2] for pair in text.splitlines()[0].split())

    def workers_waiting(self, job: str) -> int:
        rows = self.cluster.run(["squeue", "--noheader", "--array", f"--jobs={job}"]).stdout
        return len(rows.splitlines())

    def status_waiting(self) -> dict[str, int]:
        """By group, how many workers `status` says wait in Slurm's queue."""
        done = self.cluster.run([*COMMAND, "status", self.experiment.folder, "--json"])
        jobs = json.loads(done.stdout)["slurm"]
        return dict(Counter(job["group"] for job in jobs if job["state"] == "PENDING"))


def by_model(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A plan's groups by what they are called."""
    return {group["group"]: group for group in plan["groups"]}
