"""Real models, GPUs and work of the study, which several files ask the planner about."""

import functools
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from vendomini.hardware import GpuSpec, gpu_named
from vendomini.models.lookup import model_spec
from vendomini.models.spec import ModelSpec
from vendomini.planner.choice import Candidates, Limits, Wanted, candidates
from vendomini.planner.decision import Choice, choose
from vendomini.planner.guide import Horizon
from vendomini.planner.pool import Pool
from vendomini.planner.work import RunWork, Work, work_of
from vendomini.serving import EngineSettings
from vendomini.workloads.warehouse.settings import SimulationSettings, WarehouseSettings
from vendomini.workloads.warehouse.workload import Warehouse

SMALL = "Qwen/Qwen2.5-7B-Instruct"
MIDDLE = "Qwen/Qwen3-32B"
LARGE = "meta-llama/Llama-3.3-70B-Instruct"
EXPERTS = "Qwen/Qwen3-30B-A3B-Instruct-2507"
LATENT = "deepseek-ai/DeepSeek-V2.5"
PACKED = "openai/gpt-oss-20b"
MODELS = (SMALL, MIDDLE, LARGE, EXPERTS, LATENT, PACKED)
GPUS = ("T4", "V100-32", "L4", "A10G", "L40S", "A100-40", "A100-80", "H100", "H200")


@functools.cache
def known(name: str) -> ModelSpec:
    """By the catalogue alone, whatever this machine has."""
    return model_spec(name, environ={})


def pool(
    gpu: str | GpuSpec, *, per_node: int = 4, nodes: int = 4, minutes: int | None = 2880
) -> Pool:
    return Pool(
        gpu=gpu_named(gpu) if isinstance(gpu, str) else gpu,
        gpus_per_node=per_node,
        nodes=nodes,
        cpus=64,
        memory_gb=512,
        max_minutes=minutes,
    )


def run(steps: int = 500, *, window: int | None = 4096, output: int = 60) -> RunWork:
    """What a run of the warehouse asks: rules first, then a growing conversation."""
    return RunWork(
        requests=steps,
        side_requests=steps // 10,
        prefix_tokens=1160,
        growth_tokens=output + 70,
        output_tokens=output,
        window_tokens=window,
        kept_share=0.75,
    )


def work(runs: int = 220, steps: int = 500, *, window: int | None = 4096) -> Work:
    return work_of({run(steps, window=window): runs})


def wishes(window: int, **wanted: Any) -> Wanted:
    """What a phase wants: settings of its engine, and the planner's own."""
    names = {field.name for field in fields(EngineSettings)} - {"backend"}
    engine = {name: value for name, value in wanted.items() if name in names}
    own = {name: value for name, value in wanted.items() if name not in names}
    return Wanted(engine=EngineSettings(max_model_len=window, **engine), **own)


def found(
    model: str | ModelSpec,
    pools: Sequence[Pool],
    *,
    runs: int = 220,
    steps: int = 500,
    window: int = 4096,
    limits: Limits | None = None,
    **wanted: Any,
) -> Candidates:
    return candidates(
        known(model) if isinstance(model, str) else model,
        work(runs, steps, window=window),
        pools,
        wishes(window, **wanted),
        limits or Limits(),
    )


def horizon_of(*, phase: int | None, steps: int, runs: int) -> Horizon:
    """As the warehouse says it."""
    settings = WarehouseSettings(simulation=SimulationSettings(max_steps=steps))
    length = Warehouse().length(settings, phase=phase)
    return Horizon(is_short=length.is_short, words=length.words, runs=runs)


def chosen(
    model: str | ModelSpec,
    pools: Sequence[Pool],
    *,
    runs: int = 220,
    steps: int = 500,
    phase: int | None = None,
    window: int = 4096,
    limits: Limits | None = None,
    **wanted: Any,
) -> Choice:
    return choose(
        known(model) if isinstance(model, str) else model,
        work(runs, steps, window=window),
        pools,
        horizon=horizon_of(phase=phase, steps=steps, runs=runs),
        wanted=wishes(window, **wanted),
        limits=limits or Limits(),
    )
