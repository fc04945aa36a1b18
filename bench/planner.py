"""The planner's verdicts against real deployments: `python -m bench.planner`.

`data/planner_truth.csv` are deployments that people run or document, each with its source; rows
marked `min` are said to be the smallest. `planner_negatives.csv` are documented failures,
`planner_refusals.csv` ones that cannot work by arithmetic, each with the reason.

Every row is judged as `vendomini fit --batch` judges it; rows marked `min` a second time without
their GPUs, when the smallest is looked for. Then each constant of the memory model is moved by
30 % either way: no result may hang on one of them. Exit code 1 if a goal is missed: 99 % of the
deployments feasible, 90 % of the minima equal and none larger, every failure refused.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from unittest import mock

from vendomini import __version__
from vendomini.cli.fit_batch import Row, answers, read_rows
from vendomini.errors import ConfigError
from vendomini.hardware import GIB
from vendomini.planner import fit, gpu_memory
from vendomini.planner.question import Answer, Question

HERE = Path(__file__).parent
DATA, RESULTS = HERE / "data", HERE / "results"
GOAL_FEASIBLE, GOAL_EQUAL = 0.99, 0.90
TIGHT_GIB = 1.0

# Why a real deployment is refused, or a stated minimum undercut; by model and GPU.
EXPLANATIONS: Final[Mapping[tuple[str, str], str]] = {
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "L40S"): (
        "27.5 GiB of weights and 12.0 of cache leave 1.3 of 40.8 GiB for all else, where the "
        "sampler alone takes 1.4; at the utilisation of 0.9 of its time it would be 0.4"
    ),
    ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "A40"): "as on the L40S",
    ("moonshotai/Kimi-K2-Instruct", "H800"): (
        "with DP 16 each GPU holds 59 GiB of experts and 13 of all that is not routed: 72.2 of "
        "the 72.8 GiB that vLLM may take, before any activation"
    ),
    ("meta-llama/Llama-2-70b-chat-hf", "L40S"): "the vendor's table rounds up: 4 hold it",
    ("meta-llama/Llama-2-70b-chat-hf", "A100-80"): "the vendor's table rounds up: 2 hold it",
    ("meta-llama/Llama-2-70b-chat-hf", "H100"): "the vendor's table rounds up: 2 hold it",
    ("Qwen/Qwen2.5-32B-Instruct", "A100-80"): (
        "measured with vLLM 0.6, which read a prompt of 32k tokens at once: its activations took "
        "what reading it in parts leaves to the cache"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A row and its verdict; None where nothing is known of the model or the GPU."""

    row: Row
    question: Question | None
    answer: Answer | None
    reason: str

    @property
    def is_feasible(self) -> bool:
        return self.answer is not None and self.answer.fit.feasible

    @property
    def gpus(self) -> int | None:
        """Of what was judged, where it works."""
        if self.answer is None or not self.is_feasible or self.answer.fit.deployment is None:
            return None
        return self.answer.fit.deployment.gpus

    @property
    def margin_gib(self) -> float | None:
        if self.answer is None or self.answer.fit.memory is None:
            return None
        return self.answer.fit.memory.margin / GIB

    @property
    def name(self) -> str:
        row = self.row
        length = row.get("max_model_len") or "-"
        return (
            f"{row.get('hf_id') or row.get('model')} {row.get('dtype_or_quant')} on "
            f"{row.get('gpus_total') or '?'} {row['gpu_type']}, {length} tokens"
        )


def judged(rows: list[Row]) -> list[Judged]:
    found = []
    for row, answer in zip(rows, answers(rows), strict=True):
        if isinstance(answer, ConfigError):
            found.append(Judged(row=row, question=None, answer=None, reason=str(answer)))
        else:
            reason = (answer[1].fit.reasons or ("",))[0]
            found.append(Judged(row=row, question=answer[0], answer=answer[1], reason=reason))
    return found


def without_gpus(rows: list[Row]) -> list[Row]:
    """The rows marked `min`, asking for the smallest."""
    asked = {"gpus_total": "", "tp": "", "pp": "", "nodes": ""}
    return [{**row, **asked} for row in rows if row.get("mark") == "min"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Counts over the files."""

    deployments: int
    feasible: int
    minima: int
    equal: int
    fewer: int
    more: int
    failures: int
    refused: int

    @property
    def reaches_goals(self) -> bool:
        return (
            self.feasible >= GOAL_FEASIBLE * self.deployments
            and self.equal >= GOAL_EQUAL * self.minima
            and self.more == 0
            and self.refused == self.failures
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """All rows, judged."""

    truth: list[Judged]
    stated: list[int]  # GPUs of each row of `minima`
    minima: list[Judged]
    failures: list[Judged]

    @property
    def score(self) -> Score:
        pairs = [(one.gpus, stated) for one, stated in zip(self.minima, self.stated, strict=True)]
        return Score(
            deployments=len(self.truth),
            feasible=sum(one.is_feasible for one in self.truth),
            minima=len(pairs),
            equal=sum(gpus == stated for gpus, stated in pairs),
            fewer=sum(gpus is not None and gpus < stated for gpus, stated in pairs),
            more=sum(gpus is None or gpus > stated for gpus, stated in pairs),
            failures=len(self.failures),
            refused=sum(one.answer is not None and not one.is_feasible for one in self.failures),
        )


def bench() -> Bench:
    truth = read_rows(DATA / "planner_truth.csv")
    failures = [
        *read_rows(DATA / "planner_negatives.csv"),
        *read_rows(DATA / "planner_refusals.csv"),
    ]
    return Bench(
        truth=judged(truth),
        stated=[int(row["gpus_total"]) for row in truth if row.get("mark") == "min"],
        minima=judged(without_gpus(truth)),
        failures=judged(failures),
    )


def moved() -> dict[str, Callable[[], AbstractContextManager[Any]]]:
    """Each constant of the memory model at 70 % and 130 %, and what is chosen, otherwise."""
    names = (
        "SAMPLER_BYTES_PER_LOGIT",
        "LEAST_ACTIVATIONS",
        "LIVE_HIDDEN_STATES",
        "ENCODER_BYTES",
        "CONTEXT_BYTES",
        "NCCL_BYTES_OF_MORE",
        "GRAPH_BYTES",
        "HF_CONTEXT_BYTES",
        "HF_LIVE_HIDDEN_STATES",
    )
    changes: dict[str, Callable[[], AbstractContextManager[Any]]] = {}
    for name in names:
        for share in (0.7, 1.3):
            value = getattr(gpu_memory, name) * share
            changes[f"{name} x {share}"] = _set(gpu_memory, name, value)
    for utilization in (0.90, 0.94):
        changes[f"GPU_MEMORY_UTILIZATION {utilization}"] = _set(
            gpu_memory, "GPU_MEMORY_UTILIZATION", utilization
        )
    for tokens in (4096, 16384):
        changes[f"DEFAULT_MAX_MODEL_LEN {tokens}"] = _set(fit, "DEFAULT_MAX_MODEL_LEN", tokens)
    return changes


def _set(module: object, name: str, value: object) -> Callable[[], AbstractContextManager[Any]]:
    return lambda: mock.patch.object(module, name, value)


def sensitivity() -> dict[str, Score]:
    found = {}
    for name, change in moved().items():
        with change():
            found[name] = bench().score
    return found


def misses(all_: Bench) -> list[dict[str, str]]:
    """Every row that comes out otherwise than stated, with the reason and its explanation."""
    wrong = [("refused", one) for one in all_.truth if not one.is_feasible]
    for one, stated in zip(all_.minima, all_.stated, strict=True):
        if one.gpus != stated:
            wrong.append((f"smallest {one.gpus}, stated {stated}", one))
    wrong += [("not refused", one) for one in all_.failures if one.is_feasible]
    return [
        {
            "row": one.name,
            "miss": what,
            "reason": one.reason,
            "explanation": EXPLANATIONS.get(
                (one.row.get("hf_id", ""), one.row["gpu_type"]), "unexplained"
            ),
        }
        for what, one in wrong
    ]


def tight(all_: Bench) -> list[dict[str, Any]]:
    """Rows whose verdict turns with less than 1 GiB, either way."""
    rows = [
        {"row": one.name, "margin GiB": round(one.margin_gib, 2), "feasible": one.is_feasible}
        for one in (*all_.truth, *all_.failures)
        if one.margin_gib is not None and abs(one.margin_gib) < TIGHT_GIB
    ]
    return sorted(rows, key=lambda row: (row["margin GiB"], row["row"]))


def _line(score: Score) -> str:
    return (
        f"feasible {score.feasible} of {score.deployments} "
        f"({score.feasible / score.deployments:.1%}); minima equal {score.equal} of "
        f"{score.minima} ({score.equal / score.minima:.1%}), fewer {score.fewer}, more "
        f"{score.more}; failures refused {score.refused} of {score.failures}"
    )


def _values(score: Score) -> dict[str, int]:
    return {name: getattr(score, name) for name in Score.__dataclass_fields__}


def main() -> None:
    parser = argparse.ArgumentParser(description="the planner's verdicts on real deployments")
    parser.add_argument("--quick", action="store_true", help="do not move the constants")
    parser.add_argument("--write", action="store_true", help="to bench/results, too")
    chosen = parser.parse_args()
    started = time.perf_counter()
    all_ = bench()
    seconds = time.perf_counter() - started
    print(_line(all_.score))
    for miss in misses(all_):
        print(f"\n{miss['row']}: {miss['miss']}\n  {miss['reason']}\n  {miss['explanation']}")
    print("\nverdicts that turn with less than 1 GiB:")
    for row in tight(all_):
        print(f"  {row['margin GiB']:+.2f}  {row['row']}")
    scores = {} if chosen.quick else sensitivity()
    for name, score in scores.items():
        print(f"\n{name}\n  {_line(score)}")
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "vendomini": __version__,
        "seconds": round(seconds, 2),
        "goals": {"feasible": GOAL_FEASIBLE, "equal": GOAL_EQUAL, "more": 0},
        "score": _values(all_.score),
        "misses": misses(all_),
        "tight": tight(all_),
        "sensitivity": {name: _values(score) for name, score in scores.items()},
    }
    if chosen.write:
        path = RESULTS / f"planner-{figures['date']}.json"
        path.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if not all_.score.reaches_goals:
        print("a goal is missed", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
