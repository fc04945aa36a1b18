"""vLLM that cannot start, and transformers in its place: each edge, with the real engines.

A worker falls back, says so, pins it and stamps its runs; a sibling that comes later follows.
"""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.harness import job_for, make_worker
from tests.live.conftest import Models
from tests.live.engines import spec_for
from tests.live.place import RUNS, Place
from tests.product import vendomini
from tests.toy import toy_experiment
from vendomini.engines.registry import engine_for
from vendomini.serving import EngineSpec
from vendomini.store.experiment import Experiment
from vendomini.store.records import Pin, Served
from vendomini.worker.worker import Ended

WARNING = "[WARNING] vLLM initialization failed: "
FALLING_BACK = "[*] Falling back to standard HuggingFace Transformers"
ATTENTION = "[*] Flash Attention needs a GPU, using sdpa attention (slower)"
LOADING_VLLM = "[*] Loading model with vLLM (optimized inference)"
BYTES_A_TOKEN = 2 * 2 * 2 * 32 * 4
"""Keys and values of the tiny model: layers, key-value heads, their width, in float32."""

Edge: TypeAlias = Callable[[Models], tuple[EngineSpec, EngineSpec]]
"""vLLM as it cannot start, and transformers as they do in its place."""


def by_absence(models: Models) -> tuple[EngineSpec, EngineSpec]:
    """In an interpreter that does not have it."""
    hf = spec_for("hf", models.get())
    absent = replace(hf.settings, backend="vllm", python=sys.executable)
    return replace(hf, settings=absent), hf


def by_architecture(models: Models) -> tuple[EngineSpec, EngineSpec]:
    model = models.unknown_to_vllm()
    return spec_for("vllm", model), spec_for("hf", model)


def by_memory(models: Models) -> tuple[EngineSpec, EngineSpec]:
    """A cache for one conversation to the token: too little for vLLM, whose blocks are whole."""
    room = {"max_model_len": 2000, "kv_cache_memory_bytes": 2000 * BYTES_A_TOKEN}
    vllm = spec_for("vllm", models.get(), block_size=128, enforce_eager=True, **room)
    return vllm, spec_for("hf", models.get(), **room)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How a worker ended, and what it said."""

    ended: Ended
    said: list[str]


def play(
    experiment: Experiment, engine: EngineSpec, fallback: EngineSpec | None, *, runs: range
) -> Played:
    """A worker of the group, with the runs of these numbers."""
    ids = tuple(run.id for run in experiment.runs())[runs.start : runs.stop]
    job = job_for(experiment, engine=engine, fallback=fallback, only=ids)
    said: list[str] = []
    log = experiment.engine_log_path(f"w{runs.start}")
    opened, instead = (
        None if spec is None else engine_for(spec, log=log, said=said.append)
        for spec in (engine, fallback)
    )
    worker = make_worker(experiment, job, opened, fallback=instead, said=said.append)
    return Played(ended=asyncio.run(worker.work()), said=said)


def stamps(experiment: Experiment) -> set[tuple[str | None, ...]]:
    """By what the finished runs were served, in whose place, and why."""
    return {
        (each.backend, each.attention, each.fell_back_from, each.fell_back_why)
        for each in served(experiment)
    }


def served(experiment: Experiment) -> list[Served]:
    results = [experiment.result(run.id) for run in experiment.runs()]
    return [each.served for each in results if each is not None]


def assert_fell_back(experiment: Experiment, played: Played, *, cause: str) -> str:
    """It said so, in this order; the group and its run are marked. Returns why."""
    assert (played.ended.runs, played.ended.exit_status) == (1, 0), played
    at = played.said.index(FALLING_BACK)
    why = played.said[at - 1].removeprefix(WARNING)
    assert played.said[at - 1].startswith(WARNING)
    assert cause in why
    assert ATTENTION in played.said[at + 1 :]
    pin = Pin(backend="hf", dtype="float32", quantization=None, instead_of="vllm", why=why)
    assert experiment.pinned("toy") == pin
    assert stamps(experiment) == {("hf", "sdpa", "vllm", why)}
    return why


@pytest.mark.vllm
@pytest.mark.parametrize(
    ("edge", "cause"),
    [
        pytest.param(by_architecture, "internlm3", id="architecture", marks=pytest.mark.long),
        pytest.param(by_memory, "KV cache is needed", id="memory", marks=pytest.mark.long),
    ],
)
def test_transformers_take_the_place_of_a_vllm_that_cannot_serve_the_model(
    edge: Edge, cause: str, models: Models, tmp_path: Path
) -> None:
    vllm, hf = edge(models)
    experiment = toy_experiment(tmp_path, 1, steps=2)
    assert_fell_back(experiment, play(experiment, vllm, hf, runs=range(1)), cause=cause)


def test_transformers_take_the_place_of_a_vllm_that_is_not_there_and_a_sibling_follows(
    models: Models, tmp_path: Path
) -> None:
    vllm, hf = by_absence(models)
    experiment = toy_experiment(tmp_path, 2, steps=2)
    first = play(experiment, vllm, hf, runs=range(1))
    why = assert_fell_back(experiment, first, cause="No module named 'vllm")

    sibling = play(experiment, vllm, hf, runs=range(1, 2))
    assert (sibling.ended.runs, sibling.ended.exit_status) == (1, 0), sibling
    assert LOADING_VLLM not in sibling.said
    assert sibling.said[0].startswith("[*] `hf` serves this group in place of `vllm`")
    assert stamps(experiment) == {("hf", "sdpa", "vllm", why)}
    assert len(experiment.finished()) == 2


def test_a_worker_that_may_not_fall_back_ends_with_the_cause(
    models: Models, tmp_path: Path
) -> None:
    vllm, _ = by_absence(models)
    experiment = toy_experiment(tmp_path, 1)
    played = play(experiment, vllm, None, runs=range(1))
    assert played.ended.exit_status == 3
    assert played.ended.problem is not None
    assert "the engine did not start: No module named 'vllm" in played.ended.problem
    assert FALLING_BACK not in played.said
    assert experiment.pinned("toy") is None


# -- the whole program ------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, models: Models) -> Iterator[Place]:
    """A phase that asks for vLLM, in an interpreter that does not have it."""
    made = Place(tmp_path, models.warehouse(), "vllm", python=sys.executable)
    yield made
    made.clear()


def test_a_phase_that_asks_for_vllm_where_there_is_none_is_played_and_nobody_is_left_in_doubt(
    place: Place,
) -> None:
    ended = place.run("--n-jobs", "2")
    assert ended.status == 0, ended.said
    assert "`vllm` is not there: no `vllm` in " in ended.said
    assert "if `vllm` cannot start: `hf` in its place" in ended.said
    assert "`hf` serves it in place of `vllm`, which could not start: No module" in ended.said
    place.assert_complete()
    assert {each.fell_back_from for each in served(place.experiment)} == {"vllm"}
    logs = [log.read_text() for log in place.experiment.path("jobs").rglob("*.err")]
    assert len(logs) == 2
    for log in logs:  # whoever comes second falls back as well, or follows
        assert FALLING_BACK in log or "`hf` serves this group in place of `vllm`" in log
    status = vendomini("status", place.experiment.folder, "--json")
    (pin,) = json.loads(status.stdout)["pins"].values()
    assert (pin["backend"], pin["instead_of"]) == ("hf", "vllm")
    collected = vendomini("collect", place.experiment.folder)
    assert f"{RUNS} runs were answered by `hf` in place of `vllm`" in collected.stderr
