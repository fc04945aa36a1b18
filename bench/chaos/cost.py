"""What a change costs: one phase played by two checkouts alternately, in one run."""

import resource
from dataclasses import dataclass
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
    checkouts = {"other": other, "this": ROOT}
    for place, delay_s in PLACES.items():
        taken: dict[str, list[Taken]] = {"other": [], "this": []}
        for number in range(pairs):
            # Each comes first as often as the other: what the machine does meanwhile hits both.
            for name in ("other", "this") if number % 2 == 0 else ("this", "other"):
                taken[name].append(played(checkouts[name], delay_s=delay_s, limit=limit))
        figures[place] = {
            **{f"{name}, s": [each.wall_s for each in taken[name]] for name in taken},
            **{f"{name}, CPU s": [each.cpu_s for each in taken[name]] for name in taken},
            "ratio": _ratio(*([each.wall_s for each in taken[name]] for name in taken)),
            "ratio of CPU": _ratio(*([each.cpu_s for each in taken[name]] for name in taken)),
        }
        print(f"cost on {place}: {figures[place]}", flush=True)
    return figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Seconds of a play. `cpu_s` is of the command and its workers, whatever else goes on."""

    wall_s: float
    cpu_s: float


def played(checkout: Path, *, delay_s: float, limit: int | None) -> Taken:
    """What a checkout takes for the phase."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
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
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Taken(wall_s=said.seconds, cpu_s=round(cpu_s, 2))


def _ratio(other: list[float], this: list[float]) -> float:
    return round(median(this) / median(other), 3)
