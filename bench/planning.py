"""How long the planning of a large phase takes: 10,560 runs over 6 models on 4 types of GPU.

    python -m bench.planning [--tries N] [--write]

The phase is `configs/phases/phase1_core_hypothesis.yaml` with 40 replications, the cluster
`slurm/mixed.yaml` (V100, T4, A100, L40S). Timed apart, by the clock and in this process: reading
and expanding the phase, reading the models' sizes from the catalogue, and planning: demand of
every run, every deployment of each model on each GPU, the choice. The best of some tries; the
first one, in which data files are read, is given beside it.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.simulation import processor
from vendomini import __version__
from vendomini.config import expand, load_phase
from vendomini.models.lookup import model_spec
from vendomini.phase import Run
from vendomini.planner.pool import pools_of_profile
from vendomini.prepare import EngineFacts, Plan, make_plan
from vendomini.profile import load_profile
from vendomini.workloads.registry import workload_named

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PHASE = ROOT / "configs" / "phases" / "phase1_core_hypothesis.yaml"
CLUSTER = ROOT / "slurm" / "mixed.yaml"
REPLICATIONS = 40
WINDOW = 4096  # tokens: the largest that these models share
GOAL_S = 1.0


def runs_of_phase() -> list[Run]:
    overrides = (f"experiment.replications={REPLICATIONS}",)
    return expand(load_phase(PHASE, overrides, workload_named=workload_named), window=WINDOW)


def facts_of(runs: list[Run]) -> EngineFacts:
    """What is known of the models by the catalogue alone, and of the cluster by its profile."""
    names = dict.fromkeys(str(run.settings["agent"]["model"]["name"]) for run in runs)
    return EngineFacts(
        sizes={(name, None): model_spec(name, environ={}) for name in names},
        pools=tuple(pools_of_profile(load_profile(CLUSTER))),
    )


def plan_of(runs: list[Run], facts: EngineFacts) -> Plan:
    return make_plan(
        runs,
        workload_named("warehouse"),
        name=PHASE.stem,
        phase=1,
        profile=load_profile(CLUSTER),
        local_workers=1,
        facts=facts,
    )


def timed(action: Callable[[], Any], *, tries: int) -> tuple[float, float, Any]:
    """Seconds of the first try and of the best one, and what the last one gave."""
    taken, result = [], None
    for _ in range(tries):
        started = time.perf_counter()
        result = action()
        taken.append(time.perf_counter() - started)
    return taken[0], min(taken), result


def main() -> None:
    parser = argparse.ArgumentParser(description="seconds that planning takes")
    parser.add_argument("--tries", type=int, default=7, help="of which the best counts")
    parser.add_argument("--write", action="store_true", help="to bench/results, too")
    chosen = parser.parse_args()
    seconds: dict[str, dict[str, float]] = {}

    def note(what: str, action: Callable[[], Any]) -> Any:
        first, best, result = timed(action, tries=chosen.tries)
        seconds[what] = {"first": round(first, 4), "best": round(best, 4)}
        print(f"{what:<28} {first:>8.3f} s first {best:>8.3f} s best", flush=True)
        return result

    runs = note("reading and expanding", runs_of_phase)
    facts = note("models of the catalogue", lambda: facts_of(runs))
    plan = note("planning", lambda: plan_of(runs, facts))
    gpus = {pool.gpu.name for pool in facts.pools}
    print(
        f"\n{plan.runs:,} runs, {len(plan.groups)} models, {len(gpus)} types of GPU; "
        f"the goal is {GOAL_S:g} s"
    )
    if chosen.write:
        today = datetime.now(UTC).date().isoformat()
        found = {
            "date": today,
            "python": platform.python_version(),
            "vendomini": __version__,
            "cores": os.cpu_count(),
            "processor": processor(),
            "runs": plan.runs,
            "models": len(plan.groups),
            "types of GPU": len(gpus),
            "tries": chosen.tries,
            "goal for planning, seconds": GOAL_S,
            "seconds": seconds,
        }
        path = RESULTS / f"planning-{today}.json"
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path.relative_to(ROOT)}")
    if seconds["planning"]["first"] > GOAL_S:
        sys.exit("a goal is missed")


if __name__ == "__main__":
    main()
