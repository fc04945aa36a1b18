"""Computed decode speeds against published ones: `python -m bench.decode_speed`.

`data/bench_facts.csv` holds measurements of vLLM by others: 24 models and formats on ten types of
GPU. Where a row tells the time of an output token (TPOT) that is compared, else tokens a second.

Servers were kept at a constant number of requests: while a sequence writes its reply, each of the
others ends and the next one's prompt is read in between. So a token takes a decode step and the
others' share of prompts::

    tpot = step + (under_way - 1) * prompt / output_len

A single stream's tokens a second are of the whole request, its prompt included. Requests for
which the KV cache has no room wait, so `under_way` is at most what fits.

GPUs beyond those of tensor parallelism (and of attention data parallelism) are stages of a
pipeline. Rows with attention data parallelism state the requests of one rank: with the same
number their times equal those of a single rank. They are taken as that rank.

The figures without a model or a type of GPU are what the constants reach there when they are set
again on all other rows. Exit code 1 if the median misses the goal.
"""

import argparse
import csv
import json
import math
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from vendomini import __version__
from vendomini.hardware import gpu_named
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner import roofline
from vendomini.planner.deployment import Deployment
from vendomini.planner.gpu_memory import sequences_that_fit
from vendomini.planner.speed import VLLM, VLLM_V0, Overheads, prefill_s, step_s

RESULTS = Path(__file__).parent / "results"
DATA = Path(__file__).parent / "data" / "bench_facts.csv"
GOAL = 0.25  # of the median of |log(computed / measured)|

CHECKPOINTS = {
    ("moonshotai/Kimi-K2.5", "nvfp4"): "nvidia/Kimi-K2.5-NVFP4",
    ("MiniMaxAI/MiniMax-M2.5", "nvfp4"): "nvidia/MiniMax-M2.5-NVFP4",
    ("meta-llama/Llama-3.1-70B", "fp8"): "nvidia/Llama-3.1-70B-Instruct-FP8",
}
"""What was served where the row names the original."""

METHODS = {"int4-awq": "awq", "int4-gptq": "gptq", "int8-gptq": "int8"}
STORED = ("int4", "mxfp4")  # as the checkpoint itself is


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measurement, and the deployment it is of. Times in seconds."""

    model: ModelSpec
    deployment: Deployment
    overheads: Overheads
    labels: Mapping[str, str]
    concurrency: int
    under_way: int
    input_len: int
    output_len: int
    tpot_s: float | None  # None: not told
    tokens_s: float  # of all requests together


@cache
def spec(name: str, quantization: str) -> ModelSpec:
    known = CHECKPOINTS.get((name, quantization))
    found = model_spec(known or name)
    stored = found.quantization
    if quantization in STORED or (stored is not None and stored.method.endswith(quantization)):
        return found
    if known is not None and stored is not None:
        return found
    return requantized(found, METHODS.get(quantization, quantization))


def rows(path: Path = DATA) -> tuple[list[Row], int]:
    """The measurements, and how many were left out: those that do not say under which load."""
    found, unsaid = [], 0
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if line["concurrency"] and line["output_len"]:
                found.append(_row(line))
            else:
                unsaid += 1
    return found, unsaid


_NOTED = re.compile(r"attention_dp=(\d+)")


def _row(line: Mapping[str, str]) -> Row:
    model = spec(line["model"], line["dtype_or_quant"])
    prompt, reply = int(line["input_len"] or 1), int(line["output_len"])
    ranks = int(line["tp"]) * int(_NOTED.findall(f"{line['note']} attention_dp=1")[0])
    deployment = Deployment(
        backend="vllm",
        gpu=gpu_named(line["gpu"].removesuffix("-MaxQ")),
        tensor_parallel_size=int(line["tp"]),
        pipeline_parallel_size=int(line["gpus"]) // ranks,
        max_model_len=prompt + reply,
    )
    concurrency = int(line["concurrency"])
    fit = sequences_that_fit(model, deployment, prompt + reply)
    return Row(
        model=model,
        deployment=deployment,
        overheads=VLLM_V0 if line["engine_version"].startswith("0.6") else VLLM,
        labels={
            "model": line["model"],
            "GPU": line["gpu"],
            "quantization": line["dtype_or_quant"],
            "concurrency": _power_of_two(concurrency),
            "TP": line["tp"],
            "source": line["source"].split("/")[-1],
        },
        concurrency=concurrency,
        under_way=max(1, min(concurrency, fit)),
        input_len=prompt,
        output_len=reply,
        tpot_s=float(line["tpot_ms"]) / 1000 if line["tpot_ms"] else None,
        tokens_s=float(line["tok_s"]),
    )


def _power_of_two(number: int) -> str:
    return f"to {2 ** math.ceil(math.log2(number))}"


def error_of_step(row: Row) -> float:
    """``log(computed / measured)`` of the time of an output token; of a request's, where the row
    has only tokens a second."""
    if row.tpot_s is None:
        return -error_of_throughput(row)
    step, prompt = _parts(row)
    return math.log((step + (row.under_way - 1) * prompt / row.output_len) / row.tpot_s)


def error_of_throughput(row: Row) -> float:
    """``log(computed / measured)`` of the tokens a second of all requests."""
    step, prompt = _parts(row)
    computed = row.under_way / (step + row.under_way * prompt / row.output_len)
    return math.log(computed / row.tokens_s)


def _parts(row: Row) -> tuple[float, float]:
    step = step_s(
        row.model,
        row.deployment,
        sequences=row.under_way,
        context=row.input_len + row.output_len / 2,
        overheads=row.overheads,
    )
    return step, prefill_s(row.model, row.deployment, row.input_len, overheads=row.overheads)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of ``|log(computed / measured)|``; `bias` is the median with its sign."""

    rows: int
    median: float
    p90: float
    bias: float


def figures(errors: Sequence[float]) -> Figures:
    sizes = [abs(error) for error in errors]
    return Figures(
        rows=len(sizes),
        median=round(median(sizes), 3),
        p90=round(
            quantiles(sizes, n=10, method="inclusive")[-1] if len(sizes) > 1 else sizes[0], 3
        ),
        bias=round(median(errors), 3),
    )


def by(label: str, found: Sequence[Row], errors: Sequence[float]) -> dict[str, Figures]:
    groups: dict[str, list[float]] = {}
    for row, error in zip(found, errors, strict=True):
        groups.setdefault(row.labels[label], []).append(error)
    return {name: figures(groups[name]) for name in sorted(groups, key=_numbers_by_size)}


def _numbers_by_size(name: str) -> tuple[int, str]:
    digits = name.removeprefix("to ")
    return (int(digits), "") if digits.isdigit() else (0, name)


# -- are the constants those of single rows? -------------------------------------------------

FITTED = ("MEMORY_EFFICIENCY", "EXPERT_EFFICIENCY", "COMPUTE_EFFICIENCY", "ALL_REDUCE_S")
"""Constants of `roofline`; with them go the seconds of a layer, of vLLM today."""

FACTORS = (0.7, 0.85, 0.95, 1.05, 1.18, 1.4)


@contextmanager
def constants(values: Mapping[str, float]) -> Iterator[None]:
    """Compute with other constants of `roofline` for a while."""
    own = {name: getattr(roofline, name) for name in values}
    try:
        for name, value in values.items():
            setattr(roofline, name, value)
        yield
    finally:
        for name, value in own.items():
            setattr(roofline, name, value)


def refitted(found: Sequence[Row], *, rounds: int = 2) -> tuple[dict[str, float], Overheads]:
    """The constants that make the mean error of these rows least, from ours step by step."""
    values = {name: float(getattr(roofline, name)) for name in FITTED}
    overheads = VLLM
    best = _mean_error(found, values, overheads)
    for _ in range(rounds):
        for name in (*FITTED, "layer_s", "experts_s"):
            for factor in FACTORS:
                tried, over = dict(values), overheads
                if name in values:
                    tried[name] = values[name] * factor
                else:
                    over = replace(overheads, **{name: getattr(overheads, name) * factor})
                error = _mean_error(found, tried, over)
                if error < best:
                    best, values, overheads = error, tried, over
    return values, overheads


def _mean_error(found: Sequence[Row], values: Mapping[str, float], overheads: Overheads) -> float:
    return sum(map(abs, errors_with(found, values, overheads))) / len(found)


def errors_with(
    found: Sequence[Row], values: Mapping[str, float], overheads: Overheads
) -> list[float]:
    with constants(values):
        return [
            error_of_step(replace(row, overheads=overheads if row.overheads == VLLM else VLLM_V0))
            for row in found
        ]


def left_out(
    label: str, found: Sequence[Row], said: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Of each value of the label: its rows' error with constants set on all the other rows."""
    result = {}
    every: list[float] = []
    for name in sorted({row.labels[label] for row in found}):
        here = [row for row in found if row.labels[label] == name]
        # A fifth of the rows says as much of six constants, in a fifth of the time.
        others = [row for row in found if row.labels[label] != name][::5]
        values, overheads = refitted(others)
        errors = errors_with(here, values, overheads)
        every += errors
        result[name] = {**_plain(figures(errors)), "constants": _shown(values, overheads)}
        said(f"without {name}: {result[name]}")
    return {"all rows together": _plain(figures(every)), **result}


def _shown(values: Mapping[str, float], overheads: Overheads) -> dict[str, float]:
    every = {**values, "layer_s": overheads.layer_s, "experts_s": overheads.experts_s}
    return {name: float(f"{value:.3g}") for name, value in every.items()}


def _plain(of: Figures) -> dict[str, Any]:
    return {"rows": of.rows, "median": of.median, "p90": of.p90, "bias": of.bias}


def main() -> None:
    parser = argparse.ArgumentParser(description="computed decode speeds against published ones")
    parser.add_argument("--leave-out", action="store_true", help="refit without each model and GPU")
    parser.add_argument("--write", action="store_true", help="to bench/results, too")
    parser.add_argument("--worst", type=int, default=0, help="show so many of the worst rows")
    chosen = parser.parse_args()
    found, unsaid = rows()
    errors = [error_of_step(row) for row in found]
    throughput = [error_of_throughput(row) for row in found]
    result: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "vendomini": __version__,
        "goal of the median": GOAL,
        "left out, no load told": unsaid,
        "time of an output token": _plain(figures(errors)),
        "tokens a second": _plain(figures(throughput)),
    }
    for label in ("model", "GPU", "quantization", "concurrency", "TP", "source"):
        result[f"by {label}"] = {name: _plain(of) for name, of in by(label, found, errors).items()}
    for name in ("time of an output token", "tokens a second"):
        print(f"{name}: {result[name]}")
    for label in ("model", "GPU", "quantization", "concurrency", "TP", "source"):
        print(f"\n{label}")
        for name, line in result[f"by {label}"].items():
            print(
                f"  {name:42} {line['rows']:5} {line['median']:7} {line['p90']:7} {line['bias']:7}"
            )
    worst = sorted(zip(errors, found, strict=True), key=lambda each: -abs(each[0]))
    for error, row in worst[: chosen.worst]:
        print(f"{error:+.2f} {row.labels} {row.concurrency} {row.input_len}/{row.output_len}")
    if chosen.leave_out:
        for label in ("model", "GPU"):
            result[f"without each {label}"] = left_out(
                label, found, lambda text: print(text, file=sys.stderr)
            )
    if chosen.write:
        path = RESULTS / f"decode-speed-{result['date']}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if result["time of an output token"]["median"] > GOAL:
        print("the median misses the goal", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
