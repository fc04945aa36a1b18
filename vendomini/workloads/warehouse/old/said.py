"""What was found of the predecessor's results, in words."""

from collections.abc import Mapping, Sequence
from typing import Protocol

WHY = {
    "empty": ("empty folder", "empty folders"),
    "exception": ("ended by an exception",) * 2,
    "inconsistent": ("whose summary does not fit its steps",) * 2,
    "merged": (
        "folder into which several runs were written: whose steps are whose is not known",
        "folders into which several runs were written: whose steps are whose is not known",
    ),
    "model_error": ("ended by an error of the model",) * 2,
    "model_load_failed": ("whose model could not be loaded",) * 2,
    "no_steps": ("with a summary and no steps",) * 2,
    "summary": ("whose summary cannot be read",) * 2,
    "unfinished": ("without a summary: ended from outside",) * 2,
}
"""Runs without an outcome, by the kind in `error.kind`: of one, of several."""


class Found(Protocol):
    """What there is to say: see `tables.Imported`."""

    @property
    def runs(self) -> int: ...

    @property
    def done(self) -> int: ...

    @property
    def failed(self) -> Mapping[str, int]: ...

    @property
    def runs_in_merged(self) -> int: ...

    @property
    def steps(self) -> int: ...

    @property
    def unreadable_lines(self) -> int: ...

    @property
    def replies(self) -> int: ...

    @property
    def actions_by_parser(self) -> int: ...

    @property
    def idle(self) -> tuple[str, ...]: ...

    @property
    def missing(self) -> Mapping[str, str]: ...


def words(imported: Found) -> Sequence[str]:
    """What was found, then what is missing and why, a line each."""
    without = imported.runs - imported.done
    said = [
        f"{_counted(imported.runs, 'folder', 'folders')}: "
        f"{_counted(imported.done, 'run', 'runs')} with an outcome, {without} without; "
        f"{_counted(imported.steps, 'step', 'steps')}"
    ]
    for kind, count in imported.failed.items():
        at_least = f" ({imported.runs_in_merged} runs or more)" if kind == "merged" else ""
        said.append(f"  {_counted(count, *WHY[kind])}{at_least}")
    if lines := imported.unreadable_lines:
        several = "lines of steps cannot be read and are left out"
        said.append(_counted(lines, "line of steps cannot be read and is left out", several))
    if imported.replies:
        share = imported.actions_by_parser / imported.replies
        said.append(
            f"{imported.actions_by_parser} of {imported.replies} actions ({share:.0%}) were not "
            "named by the reply: the predecessor's parser chose them"
        )
    if silent := imported.steps - imported.replies:
        several = "steps were logged without their replies"
        said.append(_counted(silent, "step was logged without its reply", several))
    if imported.idle:
        axes = ", ".join(f"`{key}`" for key in imported.idle)
        said.append(f"axes that had no effect when they were played: {axes}")
    said.append("missing in every run (null in the tables):")
    return [*said, *(f"  {columns}: {why}" for columns, why in imported.missing.items())]


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
