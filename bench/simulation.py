"""Speed and memory of the warehouse with the heuristic agent and the step log on, one core.

    python -m bench.simulation [--steps N] [--under-way N] [--write]

Each step is encoded as JSON and appended to a file in a temporary folder, as a worker does it,
flushed at the end.

Speed: steps a second at each complexity level, the best of three runs.

Memory: what so many runs under way take at the highest level, in a fresh process that holds nothing
else: resident memory with all of them advanced to a step, less that before the first was made.
At the first step shown the windows of the errors that come every day are full; those of orders
fill until about three times as many. Shocks strike every other day, so that all is in use.

Speed is by the clock and by the process's CPU time; they differ where others use the machine.
"""

import argparse
import gc
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from vendomini import __version__
from vendomini.workloads.warehouse.settings import (
    AgentSettings,
    InductionSettings,
    MeasurementSettings,
    SimulationSettings,
    WarehouseSettings,
)
from vendomini.workloads.warehouse.workload import WAREHOUSE

RESULTS = Path(__file__).parent / "results"
LEVELS = range(5)
TRIES = 3
GOAL_STEPS, LEAST_STEPS = 10_000, 5_000  # a second
GOAL_BYTES = 200_000_000  # of 1,000 runs under way
P_SHOCK = 0.5  # of the runs whose memory is measured
PAUSE_STEPS = 100  # between two pauses of an episode
MEASURED_AT = (500, 600, 700)  # steps


def settings_of(level: int, *, steps: int, p_shock: float | None = None) -> WarehouseSettings:
    """The defaults, with the dose given if one is."""
    dose = InductionSettings() if p_shock is None else InductionSettings(p_shock=p_shock)
    return WarehouseSettings(
        agent=AgentSettings(kind="heuristic"),
        simulation=SimulationSettings(max_steps=steps, complexity_level=level),
        pe_induction=dose,
    )


def steps_a_second(level: int, *, steps: int, log: Path) -> tuple[float, float, float]:
    """Steps played a second of CPU time, and of the clock, and bytes a step in the log."""
    encoder = msgspec.json.Encoder()
    settings = settings_of(level, steps=steps)
    started, worked = time.perf_counter(), time.process_time()
    with log.open("wb") as file:

        def record(step: object) -> None:
            file.write(encoder.encode(step) + b"\n")

        for _pause in WAREHOUSE.play(settings, seed=0, replication=0, record=record):
            pass
    taken, work = time.perf_counter() - started, time.process_time() - worked
    return steps / work, steps / taken, log.stat().st_size / steps


def under_way_bytes(runs: int, log: Path) -> dict[int, int]:
    """Resident bytes that runs under way add, by the step they have all reached."""
    encoder = msgspec.json.Encoder()
    settings = settings_of(LEVELS[-1], steps=5000, p_shock=P_SHOCK)
    with log.open("wb") as file:

        def record(step: object) -> None:
            file.write(encoder.encode(step) + b"\n")

        # One run played and dropped: code, caches and buffers are no part of a run.
        warm = WAREHOUSE.play(settings, seed=1, replication=0, record=record)
        next(warm)
        warm.close()
        before = resident_bytes()
        episodes = [
            WAREHOUSE.play(settings, seed=0, replication=number, record=record)
            for number in range(runs)
        ]
        added = {}
        for step in range(PAUSE_STEPS, MEASURED_AT[-1] + 1, PAUSE_STEPS):
            for episode in episodes:
                next(episode)
            file.seek(0)  # the log of one round is as good as another's
            file.truncate()
            if step in MEASURED_AT:
                added[step] = resident_bytes() - before
        return added


def resident_bytes() -> int:
    """Of this process, after a collection; Linux only."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def processor() -> str:
    """The model of the CPU, as Linux names it."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description="steps a second, and memory of runs under way")
    parser.add_argument("--steps", type=int, default=5000, help="of a run whose speed is measured")
    parser.add_argument(
        "--under-way", type=int, default=1000, help="runs under way at once; 0 skips memory"
    )
    parser.add_argument("--write", action="store_true", help="to bench/results, too")
    chosen = parser.parse_args()
    speed: list[dict[str, Any]] = []
    memory: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "steps.jsonl"
        print(f"{'complexity':>10} {'steps/s':>9} {'/CPU s':>9} {'bytes/step':>11}")
        for level in LEVELS:
            tries = [steps_a_second(level, steps=chosen.steps, log=log) for _ in range(TRIES)]
            by_cpu, by_clock = max(cpu for cpu, _, _ in tries), max(clock for _, clock, _ in tries)
            size = tries[0][2]
            print(f"{level:>10} {by_clock:>9.0f} {by_cpu:>9.0f} {size:>11.0f}", flush=True)
            speed.append(
                {
                    "complexity": level,
                    "steps a second": round(by_clock),
                    "steps a second of CPU time": round(by_cpu),
                    "bytes a step": round(size),
                }
            )
        if chosen.under_way:
            with multiprocessing.get_context("spawn").Pool(1) as fresh:
                added = fresh.apply(under_way_bytes, (chosen.under_way, log))
            print(f"\n{'under way':>10} {'at step':>9} {'MB/1000':>11}")
            for step, grown in added.items():
                per_thousand = round(grown / chosen.under_way * 1000 / 1e6, 1)
                print(f"{chosen.under_way:>10} {step:>9} {per_thousand:>11}")
                memory.append({"step": step, "MB of 1000 runs under way": per_thousand})
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "msgspec": msgspec.__version__,
        "vendomini": __version__,
        "warehouse": WAREHOUSE.version,
        "cores": os.cpu_count(),
        "processor": processor(),
        "steps of a run": chosen.steps,
        "pe_windows": MeasurementSettings().pe_windows,
        "goals": {"steps a second": GOAL_STEPS, "at least": LEAST_STEPS, "MB": GOAL_BYTES / 1e6},
        "speed": speed,
        "runs under way": chosen.under_way,
        "memory at complexity": LEVELS[-1],
        "memory": memory,
    }
    if chosen.write:
        path = RESULTS / f"simulation-{figures['date']}.json"
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    slow = any(line["steps a second of CPU time"] < LEAST_STEPS for line in speed)
    large = any(line["MB of 1000 runs under way"] * 1e6 > GOAL_BYTES for line in memory)
    if slow or large:
        sys.exit("a goal is missed")


if __name__ == "__main__":
    main()
