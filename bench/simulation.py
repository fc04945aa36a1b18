"""Steps a second of the warehouse with the heuristic agent and the step log on, one core.

    python -m bench.simulation [STEPS]

Each step is encoded as JSON and appended to a file in a temporary folder, as a worker does
it, flushed at the end. One line for each complexity level: the best of three runs.
"""

import sys
import tempfile
import time
from pathlib import Path

import msgspec

from vendomini.workloads.warehouse.records import Step
from vendomini.workloads.warehouse.settings import (
    AgentSettings,
    SimulationSettings,
    WarehouseSettings,
)
from vendomini.workloads.warehouse.workload import WAREHOUSE

TRIES = 3


def steps_a_second(level: int, *, steps: int, log: Path) -> tuple[float, float]:
    """Steps played a second, and bytes a step in the log."""
    settings = WarehouseSettings(
        agent=AgentSettings(kind="heuristic"),
        simulation=SimulationSettings(max_steps=steps, complexity_level=level),
    )
    encoder = msgspec.json.Encoder()
    started = time.perf_counter()
    with log.open("wb") as file:

        def record(step: Step) -> None:
            file.write(encoder.encode(step) + b"\n")

        for _pause in WAREHOUSE.play(settings, seed=0, replication=0, record=record):
            pass
    taken = time.perf_counter() - started
    return steps / taken, log.stat().st_size / steps


def main() -> None:
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    print(f"{'complexity':>10} {'steps/s':>9} {'bytes/step':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for level in range(5):
            tries = [
                steps_a_second(level, steps=steps, log=Path(folder) / "steps.jsonl")
                for _ in range(TRIES)
            ]
            fastest, size = max(tries)
            print(f"{level:>10} {fastest:>9.0f} {size:>11.0f}")


if __name__ == "__main__":
    main()
