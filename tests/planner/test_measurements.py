"""Speeds seen: how they are written, read, and what plans make of them."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from tests.harness import SPEC, Said, job_for, make_worker
from tests.specs import engine_spec
from tests.toy import toy_experiment
from vendomini.chat import Engine, Reply, Request
from vendomini.engines.gpus import gpu_name
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.errors import EngineDead
from vendomini.hardware import gpu_named
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import requantized
from vendomini.planner.deployment import Deployment
from vendomini.planner.speed import prefill_s, speed, step_s
from vendomini.serving import EngineSpec
from vendomini.store.experiment import Experiment
from vendomini.store.measurements import FILE, Measured, add_measurement, read_measurements
from vendomini.worker.meter import Meter
from vendomini.worker.worker import Ended

MODEL = model_spec("meta-llama/Llama-3.1-8B-Instruct", environ={})
DEPLOYMENT = Deployment(backend="vllm", gpu=gpu_named("H100"), max_model_len=8192)
SEEN = Measured(
    model=MODEL.id,
    backend="vllm",
    gpu="NVIDIA H100 80GB HBM3",
    concurrency=32,
    context=2000,
    tokens_in=200_000_000,
    tokens_cached=150_000_000,
    tokens_out=10_000_000,
    seconds=6000,
    startup_s=80,
    requests=100_000,
)


def changed(**values: object) -> Measured:
    return msgspec.structs.replace(SEEN, **values)


# -- the file --------------------------------------------------------------------------------


def test_what_workers_append_at_once_is_all_read(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    seen = [changed(requests=count) for count in range(1, 41)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: add_measurement(folder, each), seen))
    assert sorted(each.requests for each in read_measurements(tmp_path)) == list(range(1, 41))


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    add_measurement(folder, SEEN)
    whole = (folder / FILE).read_bytes()
    for end in range(1, len(whole)):
        (folder / FILE).write_bytes(whole[:end])
        add_measurement(folder, changed(requests=7))
        assert read_measurements(tmp_path)[-1].requests == 7
        assert len(read_measurements(tmp_path)) == (2 if end == len(whole) - 1 else 1)


def test_all_experiments_below_the_root_are_read_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b", "a", "empty"):
        (tmp_path / name).mkdir()
    add_measurement(tmp_path / "b", changed(requests=2))
    add_measurement(tmp_path / "a", changed(requests=1))
    (tmp_path / FILE).write_text("not an experiment's")
    assert [each.requests for each in read_measurements(tmp_path)] == [1, 2]
    assert read_measurements(tmp_path / "nowhere") == ()


# -- the worker ------------------------------------------------------------------------------


class OnH100(ScriptedEngine):
    """Answers after a moment, as an engine on a GPU would say that it is."""

    facts: ClassVar[Mapping[str, str]] = {"device": "cuda", "gpu": "NVIDIA H100 80GB HBM3"}

    async def answer(self, request: Request) -> Reply:
        await asyncio.sleep(0.001)
        reply = await super().answer(request)
        return replace(reply, tokens_in=100, tokens_cached=60, tokens_out=10)


VLLM = engine_spec(backend="vllm", model="toy/model", tensor_parallel_size=2, gpus=2)


def work(
    experiment: Experiment, engine: Engine, spec: EngineSpec, said: Said = lambda text: None
) -> Ended:
    worker = make_worker(experiment, job_for(experiment, engine=spec), engine, said=said)
    return asyncio.run(worker.work())


def test_a_worker_leaves_what_its_engine_did(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 4)
    engine = OnH100(echo)
    assert work(experiment, engine, VLLM).exit_status == 0
    (seen,) = read_measurements(experiment.folder.parent)
    assert (seen.model, seen.backend, seen.gpu) == ("toy/model", "vllm", "NVIDIA H100 80GB HBM3")
    assert (seen.tensor_parallel_size, seen.pipeline_parallel_size) == (2, 1)
    assert seen.requests == engine.answered > 0
    assert seen.tokens_in == 100 * seen.requests
    assert seen.tokens_cached == 60 * seen.requests
    assert seen.tokens_out == 10 * seen.requests
    assert seen.context == 100
    assert seen.seconds > 0
    assert seen.startup_s is not None
    assert 1 <= seen.concurrency <= 4 * 2  # a toy asks two things at once


class Mortal(OnH100):
    """Dies of its sixth request."""

    async def answer(self, request: Request) -> Reply:
        if self.answered >= 5:
            raise EngineDead("it was ended by SIGKILL")
        return await super().answer(request)


def test_each_worker_leaves_a_line_and_what_was_replayed_counts_for_nothing(
    tmp_path: Path,
) -> None:
    experiment = toy_experiment(tmp_path, 4)
    mortal = Mortal(echo)
    assert work(experiment, mortal, VLLM).exit_status == 3
    engine = OnH100(echo)
    assert work(experiment, engine, VLLM).exit_status == 0
    results = [experiment.result(run.id) for run in experiment.runs()]
    assert sum(result.served.replayed for result in results if result is not None) > 0
    first, second = read_measurements(experiment.folder.parent)
    assert first.requests == mortal.answered > 0
    assert second.requests == engine.answered


def test_an_engine_that_never_answered_leaves_nothing_and_a_scripted_one_neither(
    tmp_path: Path,
) -> None:
    experiment = toy_experiment(tmp_path, 2)
    assert work(experiment, OnH100(echo), SPEC).exit_status == 0
    assert work(experiment, OnH100(echo), VLLM).runs == 0
    assert not experiment.path(FILE).exists()


def test_a_measurement_that_cannot_be_kept_fails_no_worker(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 2)
    experiment.path(FILE).mkdir()  # in the way
    said: list[str] = []
    ended = work(experiment, OnH100(echo), VLLM, said=said.append)
    assert (ended.exit_status, ended.runs) == (0, 2)
    assert any("the engine's speed is not kept" in line for line in said)


def test_the_meter_counts_only_time_with_requests_under_way() -> None:
    now = 0.0
    meter = Meter(clock=lambda: now)
    with meter.under_way():
        now = 2.0
        with meter.under_way():
            now = 3.0
    now = 100.0
    with meter.under_way():
        now = 101.0
    assert meter.busy_s == pytest.approx(4.0)
    assert meter.concurrency == pytest.approx((2 * 1 + 1 * 2 + 1 * 1) / 4)


def test_transformers_on_four_gpus_is_measured_as_four_stages(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 2)
    work(experiment, OnH100(echo), engine_spec(backend="hf", model="toy/model", gpus=4))
    (seen,) = read_measurements(experiment.folder.parent)
    assert (seen.backend, seen.tensor_parallel_size, seen.pipeline_parallel_size) == ("hf", 1, 4)


# -- the GPU's name --------------------------------------------------------------------------


def driver(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        gpu = folder / f"0000:0{number}:00.0"
        gpu.mkdir(parents=True)
        text = f"Model: \t\t {name}\nIRQ:   \t 42\nGPU UUID: \t GPU-{number}abc-9\n"
        (gpu / "information").write_text(text)
    return folder


def test_a_node_of_equal_gpus_says_their_name(tmp_path: Path) -> None:
    where = driver(tmp_path, "NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB")
    assert gpu_name({"CUDA_VISIBLE_DEVICES": "1"}, where) == "NVIDIA A100-SXM4-80GB"


def test_of_unequal_gpus_only_a_uuid_says_which_is_in_use(tmp_path: Path) -> None:
    where = driver(tmp_path, "NVIDIA A100-SXM4-80GB", "Tesla T4")
    assert gpu_name({"CUDA_VISIBLE_DEVICES": "1"}, where) is None
    assert gpu_name({"CUDA_VISIBLE_DEVICES": "GPU-1abc-9"}, where) == "Tesla T4"
    assert gpu_name({}, tmp_path / "nothing") is None


# -- the plan --------------------------------------------------------------------------------


def computed_seconds(seen: Measured) -> float:
    """What the model expects the measured work to take."""
    step = step_s(MODEL, DEPLOYMENT, sequences=seen.concurrency, context=seen.context)
    new = (seen.tokens_in - seen.tokens_cached) / seen.requests
    read = prefill_s(MODEL, DEPLOYMENT, new, cached=seen.tokens_cached / seen.requests)
    return seen.tokens_out * step / seen.concurrency + seen.requests * read


def test_an_engine_that_was_seen_twice_as_slow_is_planned_twice_as_slow() -> None:
    slow = changed(seconds=2 * computed_seconds(SEEN))
    plain = speed(MODEL, DEPLOYMENT, sequences=64, context=4000)
    found = speed(MODEL, DEPLOYMENT, sequences=64, context=4000, measured=[slow])
    assert found.step_s == pytest.approx(2 * plain.step_s)
    assert found.decode_tokens_s == pytest.approx(plain.decode_tokens_s / 2)
    assert found.prefill_tokens_s == pytest.approx(plain.prefill_tokens_s / 2)
    assert (plain.source, plain.is_measured, found.is_measured) == ("computed", False, True)
    assert (
        found.source
        == "1 measurement with about 32 requests under way: 2.00 times the computed time"
    )


@pytest.mark.parametrize(
    "other",
    [
        {"model": "meta-llama/Llama-3.1-70B-Instruct"},
        {"backend": "hf"},
        {"gpu": "NVIDIA A100-SXM4-80GB"},
        {"gpu": None},
        {"gpu": "NVIDIA Something New"},
        {"tensor_parallel_size": 2},
        {"pipeline_parallel_size": 2},
        {"quantization": "fp8"},
        {"quantization": "of tomorrow"},
        {"dtype": "float32"},
        {"seconds": 3.0},
        {"requests": 3},
    ],
    ids=str,
)
def test_what_was_seen_of_something_else_or_too_briefly_changes_nothing(
    other: dict[str, object],
) -> None:
    plain = speed(MODEL, DEPLOYMENT, sequences=64, context=4000)
    assert (
        speed(MODEL, DEPLOYMENT, sequences=64, context=4000, measured=[changed(**other)]) == plain
    )


def test_what_was_quantised_on_loading_is_told_from_a_checkpoint() -> None:
    asked = requantized(MODEL, "fp8")
    eight = changed(quantization="fp8")
    assert speed(asked, DEPLOYMENT, sequences=8, context=100, measured=[eight]).is_measured
    assert not speed(asked, DEPLOYMENT, sequences=8, context=100, measured=[SEEN]).is_measured


def test_the_nearest_concurrency_decides_and_one_outlier_among_equals_does_not() -> None:
    crowd = [changed(concurrency=30 + n, seconds=SEEN.seconds * (1 + n)) for n in (0, 0.01, 9)]
    far = changed(concurrency=2, seconds=SEEN.seconds / 50)
    found = speed(MODEL, DEPLOYMENT, sequences=32, context=2000, measured=[far, *crowd])
    near = speed(MODEL, DEPLOYMENT, sequences=32, context=2000, measured=crowd[:2])
    assert found.source.startswith("3 measurements")
    assert found.step_s == pytest.approx(near.step_s, rel=0.05)
