"""What an experiment survives: ``python -m bench.chaos [kinds...] [--short] [--json FILE]``.

Phases are played while something happens to their files, gone on with, and compared with an
undisturbed play of the same phase: runs lost, doubled, different, short of steps, and tables.

- `power`: power cuts, ten of a phase of 25 s and three of one of 3 minutes (root only);
- `errnos`: failing, slow and lost file operations, and short spells of a full disk;
- `strace`: failing system calls;
- `odd`: files that are empty, damaged, missing, or not ours;
- `cost`: seconds of a phase by two checkouts, alternately (`--against`); not among the others.

Exit status: 0 all is well, 1 something is not, 2 something could not be done here (with --short: a
skip that is told).
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.chaos import cost, errnos, odd, power, straced
from bench.chaos.playing import Kind
from bench.chaos.suffering import FAULTY, SHORT, WORKERS, WORKERS_SHORT, Undisturbed, undisturbed

KINDS = ("power", "errnos", "strace", "odd")
ENGINES: tuple[Kind, ...] = ("heuristic", "scripted")
SHOWN = (
    "kind", "engine", "at, s", "faults", "exit", "workers ended", "finished at the cut",
    "short at the cut", "status exit", "lost", "doubled", "different", "short", "runs table",
    "steps table", "tracebacks", "hung", "good",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join((*KINDS, "cost")))
    parser.add_argument("--short", action="store_true", help="a sample, within a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--engines", default=",".join(ENGINES), help="which phases (default: both)")
    parser.add_argument("--only", default="", help="odd cases whose names have this in them")
    parser.add_argument("--length", choices=list(power.CUTS), help="power: phases of one length")
    parser.add_argument("--timeout-s", type=float, default=60.0, help="odd: what counts as a hang")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="cost: the other checkout")
    parser.add_argument("--pairs", type=int, default=3, help="cost: how often each plays")
    parser.add_argument("--limit", type=int, default=None, help="cost: only the first N runs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # like Ctrl-C: what is mounted goes
    kinds = options.kinds or list(KINDS)
    if unknown := set(kinds) - {*KINDS, "cost"}:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}")
    figures: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "short": options.short,
        "seed": options.seed,
        "results": [],
        "not done": [],
    }
    began = time.monotonic()
    try:
        if "cost" in kinds:
            if options.against is None:
                parser.error("cost needs --against, the other checkout")
            figures["cost"] = cost.compare(
                options.against.resolve(), pairs=options.pairs, limit=options.limit
            )
        # Closed whatever comes: disks are unmounted and processes ended.
        with closing(results(kinds, options, figures["not done"])) as rows:
            for row in rows:
                figures["results"].append(row)
                tell(row)
    finally:
        figures["seconds"] = round(time.monotonic() - began, 1)
        if options.json is not None:
            options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    bad = [row for row in figures["results"] if not row["good"]]
    print(f"\n{len(figures['results'])} rounds, {len(bad)} not good, {figures['seconds']:.0f} s")
    for reason in figures["not done"]:
        print(f"{'skipped' if options.short else 'NOT DONE'}: {reason}")
    sys.exit(1 if bad else 2 if figures["not done"] and not options.short else 0)


def results(
    kinds: list[str], options: argparse.Namespace, not_done: list[str]
) -> Generator[dict[str, Any], None, None]:
    engines: list[Kind] = [each for each in ENGINES if each in options.engines.split(",")]
    if "power" in kinds:
        if reason := power.why_not_here():
            not_done.append(reason)
        else:
            yield from _cuts(engines, options)
    if options.short:
        engines = engines[:1]
    wholes: list[Undisturbed] = []
    if {"errnos", "strace"} & set(kinds):
        phases, workers = (SHORT, WORKERS_SHORT) if options.short else (FAULTY, WORKERS)
        wholes = [undisturbed(phases[each], workers=workers) for each in engines]
    if "errnos" in kinds:
        yield from errnos.play(wholes, short=options.short, seed=options.seed)
    if "strace" in kinds:
        if reason := straced.why_not_here():
            not_done.append(reason)
        else:
            yield from straced.play(wholes, short=options.short)
    if "odd" in kinds:
        yield from odd.play(
            short=options.short,
            only=options.only,
            timeout_s=options.timeout_s,
            not_done=not_done,
        )


def _cuts(
    engines: list[Kind], options: argparse.Namespace
) -> Generator[dict[str, Any], None, None]:
    if options.short:
        yield from power.play(power.PHASES["sample"]["scripted"], [], about_s=10.0, at_done=20)
        return
    for length, (about_s, count) in power.CUTS.items():
        for engine in engines:
            if options.length not in (None, length):
                continue
            yield from power.play(
                power.PHASES[length][engine],
                power.moments_of(about_s, count, seed=options.seed),
                about_s=about_s,
                slowed_s=power.SLOWED_S if (length, engine) == ("long", "heuristic") else 0.0,
            )


def tell(row: dict[str, Any]) -> None:
    said = ", ".join(f"{name} {row[name]}" for name in SHOWN[1:-1] if name in row)
    print(f"{'ok ' if row['good'] else 'BAD'} {row['kind']}: {said}", flush=True)
    for what in row.get("wrong", ()):
        print(f"      {what}", flush=True)


if __name__ == "__main__":
    main()
