"""A tiny model that plays the warehouse on a real Slurm, from `run --cluster` to `collect`.

The nodes' GPUs are fake: Slurm hands them out, and no driver is behind them.
"""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars
import pytest

from tests.harness import assert_every_log_is_a_prefix
from tests.live.engines import vllm_python
from tests.product import COMMAND, ROOT, write_profile
from tests.slurm.lab import Lab
from tests.slurm_cluster.cluster import SlurmCluster
from tests.tiny_models import tiny_model
from vendomini.workloads.warehouse import prompt

pytestmark = pytest.mark.slurm

REPLICATIONS = 2
STEPS = 2
WINDOW = 8192
ONE_GPU = {"gpus": 1, "gpu_type": "a100", "cpus": 2, "memory": "4G", "minutes": 10}
START_S = 300  # with two engines at a time, and other tests, on two cores


@dataclass(frozen=True, slots=True)
class Site(Lab):
    """A lab whose workers have a temporary folder of their own."""

    temporary: Path = Path()

    def play(self) -> list[str]:
        """`vendomini run --cluster`; the ids of the jobs."""
        # All nodes share this machine's cores: engines with more threads would only spin.
        return self.submit(TMPDIR=str(self.temporary), OMP_NUM_THREADS="1")

    def run_to_the_end(self) -> list[str]:
        jobs = self.play()
        self.wait_until_over(*jobs, timeout=START_S)
        return jobs

    def wait_until_replies_are_kept(self, *jobs: str) -> None:
        """Until a worker of the jobs plays, and its log has something to go on from."""

        def kept() -> bool:
            logs = (self.experiment.replies_path(each.incarnation) for each in self.workers(*jobs))
            return any(log.exists() and log.stat().st_size for log in logs)

        self.cluster.wait_until(kept, START_S, what="a reply in the log")

    def engine_processes(self) -> list[str]:
        """Titles of what lives and writes to an engine's log: servers, guards, their children.

        A process that names itself, as vLLM's do, may lose the environment that tells its job.
        """
        found = []
        for output in Path("/proc").glob("[0-9]*/fd/1"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                written = output.readlink()
                if written.suffixes == [".engine", ".log"] and self.root in written.parents:
                    found.append((output.parent.parent / "cmdline").read_text().replace("\0", " "))
        return found

    def engine_folders(self) -> list[Path]:
        """What engines have their sockets in."""
        return list(self.temporary.glob("vendomini-*"))

    def collected(self) -> polars.DataFrame:
        """The table that `vendomini collect` writes, a row a run."""
        done = self.cluster.run([*COMMAND, "collect", self.experiment.folder, "--json"])
        return polars.read_parquet(json.loads(done.stdout)["runs_parquet"])


MakeSite = Callable[..., Site]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two models; their tokenizers know the rules' words, so that a conversation fits."""
    folder = tmp_path_factory.mktemp("models")
    words = Path(prompt.__file__).read_text()
    shape: dict[str, Any] = {"vocabulary": 2048, "max_position_embeddings": WINDOW, "text": words}
    return tiny_model(folder / "one", **shape), tiny_model(folder / "two", layers=1, **shape)


@pytest.fixture
def make_site(
    slurm_cluster: SlurmCluster, models: tuple[Path, Path], tmp_path: Path
) -> Iterator[MakeSite]:
    """Makes a site and a phase: engine settings by name, `engines` are the profile's."""
    made: list[Site] = []

    def make(
        backend: str,
        *,
        models: tuple[Path, ...] = models[:1],
        steps: int = STEPS,
        engines: dict[str, Any] | None = None,
        **engine: Any,
    ) -> Site:
        phase = {
            "inherit": str(ROOT / "configs" / "base.yaml"),
            "experiment": {"name": "played", "replications": REPLICATIONS, "seed": 3},
            "agent": {"kind": "llm", "model": {"max_tokens_per_call": 32}},
            "engine": {"backend": backend, "kv_cache_memory_bytes": 1 << 27, **engine},
            "fixed": {"simulation.max_steps": steps},
            "grid": {"agent.model.name": [str(model) for model in models]},
        }
        (tmp_path / "played.yaml").write_text(json.dumps(phase))  # JSON is YAML
        rule = {"model": "*", "workers": 1, **ONE_GPU}
        profile = write_profile(
            tmp_path,
            partition="gpu",
            dead_after_s=60,
            resources=[rule],
            engines=engines or {},
        )
        made.append(
            Site(
                cluster=slurm_cluster,
                folder=tmp_path,
                phase=tmp_path / "played.yaml",
                profile=profile,
                # Short: an engine's socket is in there.
                temporary=Path(tempfile.mkdtemp(prefix="vmt-")),
            )
        )
        return made[-1]

    yield make
    for site in made:
        site.leave()
        shutil.rmtree(site.temporary, ignore_errors=True)


def assert_played_on_the_cluster(site: Site, jobs: list[str], *, backend: str, runs: int) -> None:
    """From the logs of the workers to the table; nothing is left of the engines."""
    endings = {ending for job in jobs for ending in site.endings(job).values()}
    assert endings == {"COMPLETED 0:0"}
    assert site.experiment.errors() == {}
    workers = site.workers(*jobs)
    assert len(workers) == len(jobs)
    for worker in workers:
        assert worker.slurm is not None
        assert worker.gpus is not None  # Slurm gave it one, as it was asked to
        assert worker.engine_facts["device"] == "cpu"
        said = site.log(worker.slurm.job)
        assert "the engine runs on the CPU: no GPU is here, though 1 are in the plan" in said
        assert site.experiment.replies_path(worker.incarnation).stat().st_size > 0
    served = site.served()
    assert len(served) == runs
    assert {each.backend for each in served.values()} == {backend}
    assert {each.node for each in served.values()} <= {node.name for node in site.cluster.nodes}
    assert all(each.replies >= STEPS and each.tokens_out for each in served.values())
    table = site.collected()
    assert sorted(table["run_id"]) == sorted(served)
    assert site.engine_processes() == []
    assert site.engine_folders() == []


def test_two_models_are_played_by_transformers_on_nodes_without_a_driver(
    make_site: MakeSite, models: tuple[Path, Path]
) -> None:
    site = make_site("hf", models=models)
    jobs = site.run_to_the_end()
    assert len(jobs) == 2
    assert_played_on_the_cluster(site, jobs, backend="hf", runs=2 * REPLICATIONS)
    assert site.status()["runs"]["done"] == 2 * REPLICATIONS


@pytest.mark.vllm
def test_a_model_is_played_by_the_vllm_of_the_profiles_environment(make_site: MakeSite) -> None:
    site = make_site("vllm", engines={"vllm": {"python": vllm_python()}})
    jobs = site.play()
    site.cluster.wait_until(
        lambda: any("EngineCore" in title for title in site.engine_processes()), START_S
    )
    site.wait_until_over(*jobs, timeout=START_S)
    assert_played_on_the_cluster(site, jobs, backend="vllm", runs=REPLICATIONS)
    (worker,) = site.workers(*jobs)
    assert worker.engine is not None
    assert worker.engine["settings"]["python"] == vllm_python()
    assert "vllm" in worker.engine_facts


def test_an_engine_told_to_leave_in_the_middle_leaves_in_order_and_the_rest_is_played(
    make_site: MakeSite,
) -> None:
    site = make_site("hf", steps=12)
    kept: dict[Path, bytes] = {}
    # What Slurm sends before the time limit, and what `scancel` sends to all of a step.
    for options, reason, ending in (
        (["--signal=USR2"], "SIGUSR2", "COMPLETED 0:0"),
        ([], "SIGTERM", "CANCELLED 0:0"),
    ):
        (job,) = site.play()
        site.wait_until_replies_are_kept(job)
        assert any("vendomini.engines.hf" in title for title in site.engine_processes())
        assert site.engine_folders() != []
        site.cluster.run(["scancel", *options, job])
        site.wait_until_over(job)
        assert site.engine_processes() == []
        assert site.engine_folders() == []
        assert site.endings(job) == {job: ending}
        assert f"told to by {reason}" in site.log(job)
        (worker,) = site.workers(job)
        assert (worker.state, worker.problem) == ("ended", None)
        assert site.experiment.errors() == {}
        counts = site.status()["runs"]
        assert counts["waiting"] > 0
        assert counts["running"] == counts["failed"] == 0
        log = site.experiment.replies_path(worker.incarnation)
        kept[log] = log.read_bytes()
    site.run_to_the_end()
    assert len(site.served()) == REPLICATIONS
    assert {log: log.read_bytes() for log in kept} == kept
    assert_every_log_is_a_prefix(site.experiment)
    assert sum(served.replayed for served in site.served().values()) > 0


def test_an_engine_told_to_leave_while_it_starts_leaves_nothing_behind(
    make_site: MakeSite,
) -> None:
    site = make_site("hf")
    (job,) = site.play()
    site.cluster.wait_until(lambda: site.engine_processes() != [], what="an engine's process")
    site.cluster.run(["scancel", job])
    site.wait_until_over(job)
    assert site.engine_processes() == []
    assert site.engine_folders() == []
    assert site.endings(job) == {job: "CANCELLED 0:0"}
    (worker,) = site.workers(job)
    assert (worker.state, worker.problem) == ("ended", None)
    assert list(site.experiment.path("claims").iterdir()) == []


def test_status_tells_why_an_engine_cannot_start_and_its_job_ends_with_3(
    make_site: MakeSite,
) -> None:
    site = make_site("hf", quantization="bitsandbytes-4bit")
    (job,) = site.run_to_the_end()
    assert site.endings(job) == {job: "FAILED 3:0"}
    assert site.engine_processes() == []
    assert site.engine_folders() == []
    told = site.status()
    (worker,) = told["workers"]
    assert "`bitsandbytes-4bit` needs a GPU" in worker["problem"]
    assert told["runs"]["waiting"] == REPLICATIONS  # nothing was begun, so nothing has failed
    shown = site.cluster.run([*COMMAND, "status", site.experiment.folder]).stdout
    assert f"worker {worker['incarnation']} ended: {worker['problem']}" in shown
    assert "Traceback" not in shown
