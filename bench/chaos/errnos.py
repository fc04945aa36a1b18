"""Errors of the file system, by operation: injected into each process by `injected`."""

import errno
from collections.abc import Generator
from typing import Any

from bench.chaos import injected
from bench.chaos.playing import Phase, Program, run_command
from bench.chaos.suffering import (
    Undisturbed,
    noted_faults,
    somewhere,
    suffer,
    write_shim,
)

PASSING = ("ESTALE", "EIO", "ETIMEDOUT", "EAGAIN", "EINTR", "EBUSY", "ENOLCK", "ESHUTDOWN")
ONE_IN = 1000
SPELL_S = 3.0
"""Long enough that a worker writes in it, shorter than what a worker may wait."""
LINKS = 20


def kinds(*, short: bool) -> dict[str, dict[str, Any]]:
    """What fails, by the kind's name: arguments of `Faults`."""
    one_in = 100 if short else ONE_IN  # a short phase has fewer operations
    all_: dict[str, dict[str, Any]] = {
        **{
            f"{name} 1 in {one_in}": {"errno": _number(name), "probability": 1 / one_in}
            for name in PASSING
        },
        "ESTALE 2 % of reads of heartbeats": {
            "errno": errno.ESTALE,
            "probability": 0.02,
            "pattern": r"^workers/[^.].*\.json$",
            "reading": True,
        },
        **{
            f"{name} for {SPELL_S:.0f} s": {
                "errno": _number(name),
                "probability": 1.0,
                "writing": True,
                "spell_s": SPELL_S,
            }
            for name in ("ENOSPC", "EDQUOT", "EROFS")
        },
        f"EMLINK after {LINKS} links": {"links": LINKS},
        "10 ms an operation": {"delay_s": 0.01},
    }
    if short:
        return {name: all_[name] for name in (f"ESTALE 1 in {one_in}", f"EIO 1 in {one_in}")}
    return all_


def play(
    wholes: list[Undisturbed], *, short: bool, seed: int
) -> Generator[dict[str, Any], None, None]:
    """The figures of each kind on each phase, as they come."""
    for name, arguments in kinds(short=short).items():
        for whole in wholes:
            yield {"kind": name, **suffer(whole, {"seed": seed, **arguments})}
    if not short:
        yield {"kind": "EPERM for every link", **without_links(wholes[0].phase)}


def without_links(phase: Phase) -> dict[str, Any]:
    """A file system without hard links is refused: one error, and nothing half written."""
    with somewhere() as place, Program(place) as program:
        root, notes = place / "root", place / "notes"
        faults = injected.Faults(
            folder=str(root / phase.kind),
            noted=str(notes),
            errno=errno.EPERM,
            probability=1.0,
            operations=("link",),
        )
        said = program(
            *run_command(phase.write(place), root, workers=2),
            env=faults.variable(),
            shim=write_shim(place),
        )
        left = [str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file()]
        errors = said.err.count("error:")
        return {
            "engine": phase.kind,
            "faults": noted_faults(notes),
            "exit": said.exit,
            "errors": errors,
            "says links": "link" in said.err.lower(),
            "tracebacks": said.tracebacks,
            "hung": int(said.exit is None),
            "left": left,
            "last words": said.err.strip()[:300],
            "good": said.exit == 2 and errors == 1 and not said.tracebacks and not left,
        }


def _number(name: str) -> int:
    return int(getattr(errno, name))
