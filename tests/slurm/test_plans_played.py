"""Tiny models that play by a plan made from what a real Slurm says of itself.

The nodes' GPUs are fake: Slurm hands them out, and no driver is behind them. One model claims to be
large in its index, so that it is planned on several.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from safetensors import safe_open

from tests.product import COMMAND
from tests.slurm.planning import Desk, by_model
from tests.slurm_cluster.cluster import SlurmCluster
from tests.tiny_models import tiny_model
from vendomini.hardware import GIB
from vendomini.store.measurements import Measured, add_measurement, read_measurements
from vendomini.workloads.warehouse import prompt

pytestmark = pytest.mark.slurm

END_S = 300  # with two engines at a time, and other tests, on two cores
CLAIMED = 280 * GIB
H100_BY_DRIVER = "NVIDIA H100 80GB HBM3"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small model, and one whose index says that it has 280 GiB."""
    folder = tmp_path_factory.mktemp("models")
    words = Path(prompt.__file__).read_text()
    small, large = (
        tiny_model(folder / name, vocabulary=2048, max_position_embeddings=8192, text=words)
        for name in ("small", "large")
    )
    with safe_open(large / "model.safetensors", "pt") as file:
        tensors = dict.fromkeys(file.keys(), "model.safetensors")
    index = {"metadata": {"total_size": CLAIMED}, "weight_map": tensors}
    (large / "model.safetensors.index.json").write_text(json.dumps(index))
    return small, large


@pytest.fixture
def desk(slurm_cluster: SlurmCluster, tmp_path: Path) -> Iterator[Desk]:
    yield Desk(slurm_cluster, tmp_path)
    slurm_cluster.cancel_all()


def longer(measured: Measured, *, gpu: str) -> Measured:
    """The same record as from a node with a driver, of a longer life."""
    return msgspec.structs.replace(measured, gpu=gpu, seconds=300.0, requests=500)


def wait_until_over(desk: Desk, *jobs: str) -> None:
    def over() -> bool:
        states = [state for job in jobs for state in desk.cluster.states(job).values()]
        return not {"PENDING", "RUNNING", "COMPLETING"} & set(states)

    desk.cluster.wait_until(over, END_S, what="the end of the jobs")


def test_each_model_is_played_as_it_was_planned_and_measured_for_what_it_ran_on(
    desk: Desk, models: tuple[Path, Path]
) -> None:
    small, large = map(str, models)
    desk.write_phase(small, large, replications=1, steps=2, kv_cache_memory_bytes=1 << 27)
    planned = by_model(desk.plan("--cluster"))
    assert planned[small]["resources"]["gpus"] == 1
    assert planned[large]["resources"]["gpus"] == 2
    desk.run()
    wait_until_over(desk, *(job for ids in desk.ids().values() for job in ids))
    assert desk.experiment.errors() == {}
    assert len(desk.experiment.finished()) == 2
    told = desk.jobs()
    assert {name: job.engine.gpus for name, job in told.items() if job.engine} == {
        small: 1,
        large: 2,
    }
    workers = {worker.group: worker for worker in desk.experiment.workers().values()}
    for name, group in planned.items():
        worker = workers[name]
        assert worker.gpus is not None
        assert len(worker.gpus.split(",")) == group["resources"]["gpus"]  # Slurm gave them
        assert worker.engine_facts["device"] == "cpu"

    # Its workers measured a CPU: that says nothing of the GPUs that a plan is for.
    seen = {each.model: each for each in read_measurements(desk.root)}
    assert seen.keys() == {small, large}
    assert {each.gpu for each in seen.values()} == {None}
    assert all(each.tokens_out and each.seconds and each.requests for each in seen.values())
    assert all("speed: computed" in group["reasons"] for group in planned.values())
    for each in seen.values():  # and those of another GPU as little
        add_measurement(desk.experiment.folder, longer(each, gpu="NVIDIA L40S"))
    assert by_model(desk.plan("--cluster")) == planned

    for each in seen.values():
        add_measurement(desk.experiment.folder, longer(each, gpu=H100_BY_DRIVER))
    measured = by_model(desk.plan("--cluster", "engine.gpu=H100"))
    for name in (small, large):
        assert measured[name]["resources"]["gpu_type"] == "h100"
        assert any("speed: 1 measurement" in reason for reason in measured[name]["reasons"])


def test_a_job_of_ones_own_takes_the_groups_that_fit_what_it_was_given(
    desk: Desk, models: tuple[Path, Path]
) -> None:
    small, _ = map(str, models)
    desk.write_phase(
        small,
        replications=1,
        steps=2,
        kv_cache_memory_bytes=1 << 27,
        grid={"engine.gpu": ["A100-40", "H100"]},
    )
    on_a100, on_h100 = (f"{small} engine.gpu={name}" for name in ("A100-40", "H100"))
    planned = by_model(desk.plan("--cluster"))
    assert planned[on_a100]["resources"]["gpu_type"] == "a100"
    assert planned[on_h100]["resources"]["gpu_type"] == "h100"
    command = desk.words("run", "--cluster")
    memory = planned[on_a100]["resources"]["memory_gb"]
    cpus = planned[on_a100]["resources"]["cpus"]
    salloc = ["salloc", "--quiet", "--partition=gpu", "--gres=gpu:a100:1", "--time=10"]
    poor = desk.cluster.run(
        [*salloc, f"--cpus-per-task={cpus}", "--mem=2G", "--", "srun", *command],
        extra_env=desk.environment,
        check=False,
    )
    assert poor.returncode == 3
    assert f"group `{on_a100}` needs {memory:g} GB of memory, the job has 2 GB" in poor.stderr
    assert f"group `{on_h100}` needs `h100` GPUs, the job has `a100`" in poor.stderr
    assert not desk.root.exists()
    done = desk.cluster.run(
        [*salloc, f"--cpus-per-task={cpus}", f"--mem={memory:g}G", "--", "srun", *command],
        extra_env=desk.environment,
        timeout=END_S,
    )
    assert "joining as a worker for 1 of 2 groups" in done.stderr
    assert f"group `{on_h100}` needs `h100` GPUs, the job has `a100`" in done.stderr
    told = desk.cluster.run([*COMMAND, "status", desk.experiment.folder, "--json"])
    groups = json.loads(told.stdout)["groups"]
    assert (groups[on_a100]["done"], groups[on_h100]["done"]) == (1, 0)
    assert desk.experiment.slurm_jobs() == []  # nothing was submitted
