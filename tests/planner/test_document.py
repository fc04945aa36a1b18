"""docs/planner.md is true: its tables are the program's rules and numbers."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vendomini.config import expand, load_phase
from vendomini.hardware import GpuSpec, known_gpus
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import METHODS, quantization_named
from vendomini.planner import (
    choice,
    decision,
    deployment,
    estimate,
    gates,
    gpu_memory,
    guide,
    host,
    roofline,
    speed,
    startup,
)
from vendomini.planner.fit import DEFAULT_MAX_MODEL_LEN, TYPICAL_SEQUENCES, TYPICAL_TOKENS
from vendomini.planner.gates import attention, cannot_run, runtime_dtype, usable_quantizations
from vendomini.planner.observed import LEAST_REQUESTS, LEAST_SECONDS
from vendomini.workloads.registry import workload_named
from vendomini.workloads.warehouse.workload import SHORT_STEPS

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "planner.md").read_text("utf-8")
MODULES = (gpu_memory, roofline, speed, startup, estimate, choice, decision)
UNITS = {
    "": 1.0,
    "GiB": 2.0**30,
    "MiB": 2.0**20,
    "bytes": 1.0,
    "us": 1e-6,
    "s": 1.0,
    "GB/s": 1.0,
    "tokens": 1.0,
    "minutes": 1.0,
}
PLAIN = model_spec("meta-llama/Llama-3.1-8B-Instruct", environ={})


def rows_of(first: str) -> list[list[str]]:
    """The rows below the table head that begins with `first`."""
    lines = TEXT.splitlines()
    starts = [n for n, line in enumerate(lines) if line.startswith(f"| {first} |")]
    assert starts, first
    rows = []
    for start in starts:
        for line in lines[start + 2 :]:
            if not line.startswith("|"):
                break
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def constant(name: str) -> Any:
    """The program's value of a constant, of whichever module has it."""
    name, _, field = name.partition(".")
    module = next(each for each in MODULES if hasattr(each, name))
    value = getattr(module, name)
    return getattr(value, field) if field else value


CONSTANTS = {row[0].strip("`"): row[1] for row in rows_of("constant")}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_of_the_document_is_the_program_s(name: str) -> None:
    said, value = CONSTANTS[name], constant(name)
    if isinstance(value, tuple):
        assert tuple(map(int, re.findall(r"\d+", said))) == value
        return
    if isinstance(value, dict):
        value = value[2]
    number, _, unit = said.partition(" ")
    assert value == pytest.approx(float(number) * UNITS[unit], rel=0.01)


def _numbers_of(module: types.ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        if name.isupper() and isinstance(value, int | float) and not isinstance(value, bool):
            yield name


ELSEWHERE = {
    "GIB", "MIB",  # units
    "LARGE_CARD_BYTES", "SMALL_CARD_BYTES", "LONGEST",  # told in words, or no claim
    "UNFOLDED_WIDTH", "VLLM_V0", "FEW_RUNS", "MANY_RUNS",
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_no_constant_is_left_out(module: types.ModuleType) -> None:
    missing = [name for name in _numbers_of(module) if name not in CONSTANTS]
    assert sorted(set(missing) - ELSEWHERE) == []


def _gpu_of(capability: str, name: str) -> GpuSpec:
    (gpu,) = [gpu for gpu in known_gpus() if gpu.name == name]
    assert capability == (gpu.gfx or str(gpu.compute_capability))
    return gpu


@pytest.mark.parametrize(
    "row", rows_of("compute capability"), ids=[row[1] for row in rows_of("compute capability")]
)
def test_the_table_of_gates_is_the_program_s(row: list[str]) -> None:
    capability, name, dtype, vllm, kernels, *packed = row
    gpu = _gpu_of(capability, name)
    assert dtype == runtime_dtype(PLAIN, gpu)
    assert (vllm == "yes") is (cannot_run(PLAIN, gpu, "vllm") is None)
    assert kernels == attention(PLAIN, gpu, "hf")
    for backend, listed in zip(("vllm", "hf"), packed, strict=True):
        methods = [word for word in listed.split(", ") if word]
        meant = tuple(getattr(quantization_named(word), "method", word) for word in methods)
        assert meant == usable_quantizations(gpu, backend)  # type: ignore[arg-type]


def test_cards_that_differ_in_their_gates_have_a_row_each() -> None:
    """Every card of the table permits what the row of its capability, or the one below, says."""
    rows = rows_of("compute capability")
    told = {row[0]: row[2:] for row in rows}
    steps = sorted(float(key) for key in told if not key.startswith("gfx"))
    for gpu in known_gpus():
        if gpu.compute_capability is None:
            continue
        below = max(step for step in steps if step <= gpu.compute_capability)
        dtype, vllm, kernels, *_ = told[str(below)]
        assert runtime_dtype(PLAIN, gpu) == dtype, gpu.name
        assert (cannot_run(PLAIN, gpu, "vllm") is None) is (vllm == "yes"), gpu.name
        assert attention(PLAIN, gpu, "hf") == kernels, gpu.name


def test_the_figures_are_those_of_the_last_measurements() -> None:
    results = ROOT / "bench" / "results"
    speeds = json.loads(max(results.glob("decode-speed-*.json")).read_text("utf-8"))
    token = speeds["time of an output token"]
    assert f"{token['rows']:,} rows" in TEXT
    assert f"median is {token['median']:.3f} and the 90th percentile {token['p90']:.3f}" in TEXT
    for without in ("model", "GPU"):
        all_rows = speeds[f"without each {without}"]["all rows together"]
        assert f"{all_rows['median']:.3f} and {all_rows['p90']:.3f}" in TEXT
    score = json.loads(max(results.glob("planner-*.json")).read_text("utf-8"))["score"]
    for said in (
        f"{score['feasible']} of {score['deployments']} are called feasible",
        f"of {score['minima']} that are said to be the smallest {score['equal']}",
        f"of {score['failures']} failures",
    ):
        assert said in TEXT
    assert (score["more"], score["refused"]) == (0, score["failures"])


def test_numbers_in_the_prose_are_the_program_s() -> None:
    for said in (
        f"holds {TYPICAL_SEQUENCES} conversations of {TYPICAL_TOKENS:,} tokens",
        f"at most {DEFAULT_MAX_MODEL_LEN:,} tokens",
        f"at least {LEAST_SECONDS:g} seconds and {LEAST_REQUESTS} requests",
        f"fewer than {guide.FEW_RUNS} short runs",
        f"more than {guide.MANY_RUNS} favour vLLM",
        f"up to {SHORT_STEPS:,} steps",
        f"max({host.LEAST_CPUS}, {host.CPUS_OF_SERVER} + {host.CPUS_PER_GPU} GPUs)",
        f"{host.MEMORY_GB_PER_GPU:g} GPUs` GiB of memory",
        f"below {gates.VLLM_CAPABILITY}",
        f"heads of at most {gates.FLASH_HEAD_DIM} elements",
    ):
        assert said in TEXT
    low, high = gpu_memory.SMALL_CARD_BYTES >> 30, gpu_memory.LARGE_CARD_BYTES >> 30
    assert f"Between {low} and {high} GiB" in TEXT
    for method, words in (("fp8", "FP8"), ("int8", "INT8"), ("mxfp4", "MXFP4"), ("nvfp4", "NVFP4")):
        assert f"{words} {METHODS[method].weight_bytes_each:.2g}" in TEXT
    assert f"AWQ and GPTQ {METHODS['awq'].weight_bytes_each:.2g}" in TEXT


def test_the_parts_of_a_gpu_s_memory_are_named() -> None:
    parts = set(deployment.MemoryUse.__dataclass_fields__) - {"kv", "kv_bytes_per_sequence"}
    assert all(re.search(rf"\b{part}\b", TEXT) for part in parts)


PICTURE = re.compile(r"^```console\n\$ vendomini (plan .*)\n```\n\n```text\n(.*?)^```", re.M | re.S)


def test_the_picture_of_a_plan_is_what_the_program_prints(tmp_path: Path) -> None:
    """README's plan is that of a wide terminal, without blank lines and what follows it."""
    ((command, shown),) = PICTURE.findall((ROOT / "README.md").read_text("utf-8"))
    done = subprocess.run(
        [sys.executable, "-m", "vendomini.cli.main", *shlex.split(command)],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=True,
    )
    printed, wanted = (
        [line.rstrip() for line in text.splitlines() if line.strip()]
        for text in (done.stdout, shown)
    )
    assert printed[: len(wanted)] == wanted


def test_the_guide_s_phase_is_one(tmp_path: Path) -> None:
    (text,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs" / "guide.md").read_text("utf-8"), re.S
    )
    (tmp_path / "phases").mkdir()
    shutil.copy(ROOT / "configs" / "base.yaml", tmp_path)
    file = tmp_path / "phases" / "my_phase.yaml"
    file.write_text(text, encoding="utf-8")
    runs = expand(load_phase(file, (), workload_named=workload_named), window=None)
    assert len(runs) == 5 * 2 * 3
