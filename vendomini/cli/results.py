"""What `collect` and `import-results` do: tables written, and what was found in words."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from vendomini.cli import show
from vendomini.cli.standing import experiment_named

if TYPE_CHECKING:
    from vendomini.predecessor import Imported

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


def collect_tables(folder: Path, *, root: Path, out: Path | None, as_json: bool) -> int:
    """`collect`."""
    from vendomini.collect import collect

    experiment = experiment_named(folder, root)
    with show.counting("reading steps") as progress:
        collected = collect(experiment, out=out or experiment.path("collected"), progress=progress)
    if as_json:
        show.print_json(
            {name: str(v) if isinstance(v, Path) else v for name, v in asdict(collected).items()}
        )
    else:
        show.collected(collected)
    return 0


def import_results(folder: Path, *, out: Path | None, as_json: bool) -> int:
    """`import-results`."""
    from vendomini.predecessor import import_results

    with show.counting("reading runs") as progress:
        imported = import_results(folder, out=out or folder / "collected", progress=progress)
    if as_json:
        plain = {n: str(v) if isinstance(v, Path) else v for n, v in asdict(imported).items()}
        show.print_json(plain)
        return 0
    for line in words(imported):
        show.say(line)
    for path in (imported.runs_parquet, imported.runs_csv, imported.steps_parquet):
        show.OUT.print(str(path), markup=False, soft_wrap=True)
    return 0


def words(imported: "Imported") -> Sequence[str]:
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
