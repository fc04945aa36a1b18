"""Runs with results that an edited phase takes out of its experiment's grid: pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from vendomini.phase import Run
from vendomini.schema import shown

MOST_NAMED = 3
"""Settings that differ, and values of one, that are told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """How many runs with results would leave, and in what they differ from those of the phase."""

    runs: int
    differences: tuple[str, ...]

    @property
    def words(self) -> str:
        several = (
            f"{self.runs} runs with results are" if self.runs > 1 else "1 run with a result is"
        )
        named = "; ".join(self.differences[:MOST_NAMED])
        more = len(self.differences) - MOST_NAMED
        return f"{several} not in the grid of this phase: {named}" + (
            f"; and {more} settings more" if more > 0 else ""
        )


def left_out(
    known: Iterable[Run],
    wanted: Sequence[Run],
    *,
    finished: AbstractSet[str],
    out_of_id: Iterable[str] = (),
) -> LeftOut | None:
    """What is played of `known` and not wanted any more; None: nothing.

    `out_of_id` are settings that tell no runs apart. Runs that left the grid before leave no more.
    """
    ids = {run.id for run in wanted}
    gone = [run for run in known if run.in_grid and run.id in finished and run.id not in ids]
    if not gone:
        return None
    # An engine's settings tell runs apart only as axes.
    axes = {f"`{key}`" for run in gone for key in run.arm}
    ignored = tuple(f"`{key}" for key in ("engine.", *out_of_id))
    before, after = _values(gone), _values(wanted)
    differences = tuple(
        f"{key} was {_some(values)}, and is {_some(after.get(key, []))}"
        for key, values in before.items()
        if (key in axes or not key.startswith(ignored)) and set(values) - set(after.get(key, []))
    )
    most, now = (max(run.replication for run in runs) + 1 for runs in (gone, wanted))
    if most > now:
        differences = (*differences, f"`experiment.replications` was `{most}`, and is `{now}`")
    return LeftOut(runs=len(gone), differences=differences or (NO_SETTING,))


# -- private -------------------------------------------------------------------------------

NO_SETTING = "they differ in what is no setting, such as the files of a local model"


def _values(runs: Sequence[Run]) -> dict[str, list[str]]:
    """What tells runs apart, and each value that it has in these, as they are shown."""
    found: dict[str, dict[str, None]] = {"the workload": {}, "`experiment.seed`": {}}
    for run in runs:
        found["the workload"][f"`{run.workload}` version {run.workload_version}"] = None
        found["`experiment.seed`"][f"`{run.seed}`"] = None
    # The runs of an arm share their settings.
    for settings in {id(run.settings): run.settings for run in runs}.values():
        for key, value in _leaves(settings):
            found.setdefault(f"`{key}`", {})[f"`{shown(value)}`"] = None
    return {key: [*values] for key, values in found.items()}


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _some(values: Sequence[str]) -> str:
    more = [f"{len(values) - MOST_NAMED} more"] if len(values) > MOST_NAMED else []
    return ", ".join([*values[:MOST_NAMED], *more]) or "not there"
