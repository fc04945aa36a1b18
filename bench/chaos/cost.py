"""What a change costs: one phase played by two checkouts alternately, in one run."""

from pathlib import Path
from statistics import median
from typing import Any

from bench.chaos.injected import Faults
from bench.chaos.playing import ROOT, Program, run_command
from bench.chaos.suffering import somewhere, write_shim

PHASE = "phase1_small_models"
PLACES: dict[str, float] = {"local disk": 0.0, "10 ms an operation": 0.01}
"""How long each file operation waits before it is carried out, in seconds."""
WORKERS = 2


def compare(other: Path, *, pairs: int, limit: int | None) -> dict[str, Any]:
    """Seconds of `other` and of this checkout, and this one's share of the other's, by place."""
    figures: dict[str, Any] = {
        "phase": f"{PHASE}, heuristic" + ("" if limit is None else f", {limit} runs"),
        "other": str(other),
    }
    for place, delay_s in PLACES.items():
        seconds: dict[Path, list[float]] = {other: [], ROOT: []}
        for number in range(pairs):
            # Each comes first as often as the other: what the machine does meanwhile hits both.
            for checkout in (other, ROOT) if number % 2 == 0 else (ROOT, other):
                seconds[checkout].append(played(checkout, delay_s=delay_s, limit=limit))
        ratios = [mine / its for mine, its in zip(seconds[ROOT], seconds[other], strict=True)]
        figures[place] = {
            "other, s": seconds[other],
            "this, s": seconds[ROOT],
            "ratio": round(median(seconds[ROOT]) / median(seconds[other]), 3),
            "ratios of pairs": [round(each, 3) for each in ratios],
        }
        print(f"cost on {place}: {figures[place]}", flush=True)
    return figures


def played(checkout: Path, *, delay_s: float, limit: int | None) -> float:
    """Seconds a checkout takes for the phase."""
    with somewhere() as place, Program(place, checkout=checkout) as program:
        folder = place / "root" / PHASE
        phase = checkout / "configs" / "phases" / f"{PHASE}.yaml"
        more = [] if limit is None else ["--limit", str(limit)]
        slow = Faults(folder=str(folder), noted=str(place / "notes"), delay_s=delay_s)
        said = program(
            *run_command(
                phase, place / "root", workers=WORKERS, more=[*more, "agent.kind=heuristic"]
            ),
            env=slow.variable() if delay_s else None,
            shim=write_shim(place) if delay_s else None,
            timeout_s=3600,
        )
        if said.exit != 0:
            raise RuntimeError(f"{checkout}: {said.text[-800:]}")
        return said.seconds
