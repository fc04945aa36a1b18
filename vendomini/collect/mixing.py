"""Which engines answered the runs of a table: arms that mix them, and what fell back. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

SHOWN_ARMS = 5

Mixed = Mapping[str, Mapping[str, int]]
"""By arm, how many of its runs each engine answered."""


def mixed_arms(rows: Iterable[Mapping[str, Any]]) -> Mixed:
    """The arms whose runs were answered by several engines: backends, or ways of one to compute its
    attention. What a run does not say of its attention tells no engines apart."""
    by_arm: dict[str, list[tuple[str, str | None]]] = defaultdict(list)
    for row in rows:
        if (backend := row.get("served.backend")) is not None:
            by_arm[_arm_of(row)].append((backend, row.get("served.attention")))
    counted = {arm: _counted(engines) for arm, engines in by_arm.items()}
    return {arm: counts for arm, counts in counted.items() if len(counts) > 1}


def mixing_notes(mixed: Mixed) -> list[str]:
    """The first of them, in words."""
    said = []
    for arm, counts in list(mixed.items())[:SHOWN_ARMS]:
        engines = ", ".join(f"{count} by {engine}" for engine, count in counts.items())
        said.append(f"arm {arm} mixes engines: of its runs were answered {engines}")
    if len(mixed) > SHOWN_ARMS:
        said.append(f"... and {len(mixed) - SHOWN_ARMS} more arms mix engines")
    return said


def fallback_notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """How many runs were answered by what took the place of their engine, and why."""
    counts = Counter(
        (row["served.backend"], row["served.fell_back_from"], row["served.fell_back_why"])
        for row in rows
        if row.get("served.fell_back_from") is not None
    )
    return [
        f"{count} runs were answered by `{backend}` in place of `{planned}`, which could not "
        f"start: {why}"
        for (backend, planned, why), count in counts.items()
    ]


# -- private -------------------------------------------------------------------------------


def _arm_of(row: Mapping[str, Any]) -> str:
    """Its settings that vary within the experiment, as text."""
    settings = (
        f"{name.removeprefix('arm.')}={value}"
        for name, value in row.items()
        if name.startswith("arm.") and value is not None
    )
    return ", ".join(settings) or "of the whole phase"


def _counted(engines: Iterable[tuple[str, str | None]]) -> dict[str, int]:
    engines = list(engines)
    told: dict[str, set[str]] = defaultdict(set)
    for backend, attention in engines:
        if attention is not None:
            told[backend].add(attention)
    counts = Counter(
        f"{backend} ({attention or 'attention not known'})" if len(told[backend]) > 1 else backend
        for backend, attention in engines
    )
    return dict(sorted(counts.items()))
