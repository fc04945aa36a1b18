"""Whether the crash detector leaves the heuristic agent alone: `python -m bench.calibration`.

A rule policy cannot break down. If it "crashes", the detector measures the world.

For each complexity level the sample crosses every dose with every type mix and magnitude, and
goes round the four observabilities so that each meets every dose, mix and magnitude alike
often. No two runs share a world: each is a replication of its own. A run is played once, over
the longest horizon and past any crash; one detector for each threshold watches its steps. That
is sound because the agent sees neither the detector nor `max_steps`; every fortieth run is
played again with both as a phase file would set them, and must come to the same.

The policy and the thresholds were set with seeds 1000 and 2000, and the figures to quote are
those of another one. Exit code 1 if a threshold crashes more than 1 % of the runs of a level,
or a run without shocks ends early.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from vendomini import __version__
from vendomini.workloads.warehouse.crash import PRIMARY, THRESHOLDS, Detector, Signs
from vendomini.workloads.warehouse.records import Outcome, Step
from vendomini.workloads.warehouse.settings import (
    AgentSettings,
    DetectorSettings,
    InductionSettings,
    Magnitude,
    Observability,
    Pressure,
    SimulationSettings,
    Threshold,
    TypeMix,
    WarehouseSettings,
)
from vendomini.workloads.warehouse.tools import Called
from vendomini.workloads.warehouse.workload import WAREHOUSE

RESULTS = Path(__file__).parent / "results"
LEVELS = range(5)
DOSES = tuple(tenth / 10 for tenth in range(11))  # those of the phase files
MIXES: tuple[TypeMix, ...] = get_args(TypeMix)
MAGNITUDES: tuple[Magnitude, ...] = get_args(Magnitude)
OBSERVABILITIES: tuple[Observability, ...] = get_args(Observability)

SEEDS_OF_CALIBRATING, SEED_OF_CONFIRMING = (1000, 2000), 3000
GOAL = 0.01  # crashed, of the runs of a level
PLAYED_AGAIN = 40  # every so many runs
CERTAINTY = 0.95  # of the upper bound of a share


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One run of the sample."""

    level: int
    dose: float
    mix: TypeMix
    magnitude: Magnitude
    observability: Observability
    pressure: Pressure
    seed: int
    replication: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a run came to within one horizon under one threshold."""

    arm: Arm
    horizon: int
    threshold: Threshold
    crash: tuple[str, int] | None  # the first primary sign and its onset
    ended: str | None  # why the run ended before the horizon; None: it did not
    fulfilled: float | None


def sample(
    level: int, *, replications: int, pressure: Pressure, seed: int = SEED_OF_CONFIRMING
) -> Iterator[Arm]:
    """The runs of a level: doses x mixes x magnitudes x replications."""
    number = 0
    for k in range(replications):
        for d, dose in enumerate(DOSES):
            for t, mix in enumerate(MIXES):
                for m, magnitude in enumerate(MAGNITUDES):
                    yield Arm(
                        level=level,
                        dose=dose,
                        mix=mix,
                        magnitude=magnitude,
                        observability=OBSERVABILITIES[(d + t + m + k) % len(OBSERVABILITIES)],
                        pressure=pressure,
                        seed=seed,
                        replication=number,
                    )
                    number += 1


def settings_of(arm: Arm, *, steps: int, detector: DetectorSettings) -> WarehouseSettings:
    return WarehouseSettings(
        agent=AgentSettings(kind="heuristic"),
        simulation=SimulationSettings(
            max_steps=steps, complexity_level=arm.level, pressure_level=arm.pressure
        ),
        pe_induction=InductionSettings(
            p_shock=arm.dose,
            pe_type_mix=arm.mix,
            pe_mag=arm.magnitude,
            observability=arm.observability,
        ),
        crash_detector=detector,
    )


class Watch:
    """Detectors of all thresholds on one stream of steps, and orders at each horizon."""

    def __init__(self, horizons: tuple[int, ...]) -> None:
        self._horizons = horizons
        window = DetectorSettings().window_size
        self._signs = Signs(window)
        self._detectors = {name: Detector(limits, window) for name, limits in THRESHOLDS.items()}
        self._last: Step | None = None
        self._fulfilled: dict[int, float | None] = {}

    def step(self, step: Step) -> None:
        assert step.action is not None
        assert step.result is not None
        called = Called(
            tool=step.action.tool,
            arguments=step.action.args,
            result=step.result,
            failure=step.result.get("code"),
        )
        self._signs.take(called)
        for detector in self._detectors.values():
            detector.after_step(step.step, called, self._signs)
        self._last = step
        if step.step + 1 in self._horizons:
            self._fulfilled[step.step + 1] = _fulfilled(step)

    def came_to(self, arm: Arm, outcome: Outcome) -> Iterator[Watched]:
        assert self._last is not None
        for horizon in self._horizons:
            early = outcome.steps < horizon
            for threshold, detector in self._detectors.items():
                crash = detector.crash()
                crashed = crash is not None and crash.onset < horizon
                yield Watched(
                    arm=arm,
                    horizon=horizon,
                    threshold=threshold,
                    crash=(crash.type, crash.onset) if crash is not None and crashed else None,
                    ended=outcome.end if early else None,
                    fulfilled=_fulfilled(self._last) if early else self._fulfilled[horizon],
                )


def _fulfilled(step: Step) -> float | None:
    """Customer orders shipped over requested by the end of a step; None: none was requested."""
    truth = step.truth
    requested = truth.shipped + truth.failed + truth.customers
    return truth.shipped / requested if requested else None


def watched(arm: Arm, horizons: tuple[int, ...]) -> list[Watched]:
    """Play a run over the longest horizon, past any crash."""
    longest = max(horizons)
    watch = Watch(horizons)
    blind = DetectorSettings(continue_after_crash=longest)
    outcome = _played(arm, settings_of(arm, steps=longest, detector=blind), watch)
    found = list(watch.came_to(arm, outcome))
    if arm.replication % PLAYED_AGAIN == 0:
        _play_again(arm, found)
    return found


def _play_again(arm: Arm, found: list[Watched]) -> None:
    """Play a run as a phase file would; raise `AssertionError` if it comes to something else."""
    shortest = min(row.horizon for row in found)
    again = Watch((shortest,))
    settings = settings_of(arm, steps=shortest, detector=DetectorSettings())
    outcome = _played(arm, settings, again)
    is_whole = outcome.end != "crash"  # else it was stopped, and thresholds saw less of it
    for now in again.came_to(arm, outcome):
        (row,) = (
            each for each in found if (each.horizon, each.threshold) == (shortest, now.threshold)
        )
        assert now.crash == row.crash, (arm, now.crash, row.crash)
        if is_whole:
            assert outcome.measures.fulfilled == _rounded(row.fulfilled), arm
            assert outcome.end == (row.ended or "max_steps"), arm


def _played(arm: Arm, settings: WarehouseSettings, watch: Watch | None) -> Outcome:
    def record(step: object) -> None:
        assert isinstance(step, Step)
        if watch is not None:
            watch.step(step)

    episode = WAREHOUSE.play(settings, seed=arm.seed, replication=arm.replication, record=record)
    while True:
        try:
            next(episode)
        except StopIteration as stop:
            outcome = stop.value
            assert isinstance(outcome, Outcome)
            return outcome


def table(rows: list[Watched]) -> list[dict[str, Any]]:
    """A line for each level, threshold and horizon."""
    groups: dict[tuple[int, Threshold, int], list[Watched]] = {}
    for row in rows:
        groups.setdefault((row.arm.level, row.threshold, row.horizon), []).append(row)
    lines = []
    for (level, threshold, horizon), group in groups.items():
        crashes = [row.crash[0] for row in group if row.crash is not None]
        signs = Counter(crashes)
        lines.append(
            {
                "complexity": level,
                "threshold": threshold,
                "horizon": horizon,
                "runs": len(group),
                "crashed": len(crashes),
                "share": round(len(crashes) / len(group), 5),
                "share at most": round(upper_bound(len(crashes), len(group)), 5),
                "signs": {sign: signs[sign] for sign in PRIMARY if signs[sign]},
                "fulfilled": _mean(group),
                "bankrupt": sum(row.ended == "bankrupt" for row in group if row.crash is None),
            }
        )
    return lines


def doses(rows: list[Watched]) -> list[dict[str, Any]]:
    """A line for each level and dose over the longest horizon: how the business went."""
    longest = max(row.horizon for row in rows)
    groups: dict[tuple[int, float], list[Watched]] = {}
    for row in rows:
        if row.horizon == longest and row.threshold == next(iter(THRESHOLDS)):
            groups.setdefault((row.arm.level, row.arm.dose), []).append(row)
    return [
        {
            "complexity": level,
            "p_shock": dose,
            "horizon": longest,
            "runs": len(group),
            "reached the horizon": sum(row.ended is None for row in group),
            "fulfilled": _mean(group),
            "least fulfilled": _rounded(min(row.fulfilled or 0.0 for row in group)),
        }
        for (level, dose), group in groups.items()
    ]


def upper_bound(crashed: int, runs: int) -> float:
    """The one-sided upper Clopper-Pearson bound of a share: where P(at most so many) is 5 %."""
    low, high = crashed / runs, 1.0
    for _ in range(60):
        share = (low + high) / 2
        term = total = (1 - share) ** runs
        for k in range(crashed):
            term *= (runs - k) / (k + 1) * share / (1 - share)
            total += term
        low, high = (share, high) if total > 1 - CERTAINTY else (low, share)
    return high


def _mean(group: list[Watched]) -> float | None:
    known = [row.fulfilled for row in group if row.fulfilled is not None]
    return _rounded(sum(known) / len(known)) if known else None


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 6)


def show(lines: list[dict[str, Any]]) -> None:
    """The lines as a table, columns as wide as their widest cell."""
    names = list(lines[0])
    cells = [[_cell(line[name]) for name in names] for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(names, *cells, strict=True)]
    for row in (names, *cells):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "-"
    return str(value)


def _watched(job: tuple[Arm, tuple[int, ...]]) -> list[Watched]:
    return watched(*job)


def main() -> None:
    parser = argparse.ArgumentParser(description="how often the heuristic agent crashes")
    parser.add_argument("--steps", type=int, default=5000, help="the longest horizon")
    parser.add_argument("--levels", type=int, nargs="+", default=list(LEVELS))
    parser.add_argument("--replications", type=int, default=2, help="of each dose, mix, magnitude")
    parser.add_argument("--pressure", choices=get_args(Pressure), default="medium")
    parser.add_argument("--seed", type=int, default=SEED_OF_CONFIRMING)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--write", action="store_true", help="to bench/results, too")
    chosen = parser.parse_args()
    horizons = tuple(sorted({min(500, chosen.steps), chosen.steps}))
    jobs = [
        (replace(arm, seed=chosen.seed), horizons)
        for level in chosen.levels
        for arm in sample(level, replications=chosen.replications, pressure=chosen.pressure)
    ]
    started = time.perf_counter()
    rows: list[Watched] = []
    with ProcessPoolExecutor(chosen.workers) as pool:
        for done, found in enumerate(pool.map(_watched, jobs, chunksize=4), start=1):
            rows += found
            if done % 50 == 0:
                print(f"{done} of {len(jobs)} runs", file=sys.stderr)
    lines, by_dose = table(rows), doses(rows)
    show(lines)
    print()
    show(by_dose)
    figures = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "vendomini": __version__,
        "warehouse": WAREHOUSE.version,
        "cores": os.cpu_count(),
        "minutes": round((time.perf_counter() - started) / 60, 1),
        "runs": len(jobs),
        "steps": chosen.steps,
        "seed": chosen.seed,
        "seeds of calibrating": SEEDS_OF_CALIBRATING,
        "pressure": chosen.pressure,
        "doses": DOSES,
        "goal": GOAL,
        "table": lines,
        "by dose": by_dose,
    }
    if chosen.write:
        path = RESULTS / f"calibration-{figures['date']}.json"
        path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    calm = [line for line in by_dose if line["p_shock"] == 0]
    missed = [line for line in lines if line["share"] > GOAL] + [
        line for line in calm if line["reached the horizon"] < line["runs"]
    ]
    if missed:
        print(f"{len(missed)} lines miss the goal", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
