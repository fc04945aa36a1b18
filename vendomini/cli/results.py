"""What `import-results` does: the predecessor's results to tables, and what was found in words."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from vendomini.cli import show

if TYPE_CHECKING:
    from vendomini.predecessor import Imported

WHY = {
    "empty": "empty folders: ended before the first step",
    "exception": "ended by an exception",
    "inconsistent": "a summary that does not fit the steps",
    "merged": "folders into which several runs were written: whose steps are whose is not known",
    "model_error": "ended by an error of the model",
    "model_load_failed": "the model could not be loaded",
    "no_steps": "a summary without steps",
    "summary": "a summary that cannot be read",
    "unfinished": "no summary: ended from outside",
}
"""Runs without an outcome, by the kind in `error.kind`."""


def import_results(folder: Path, *, out: Path | None, as_json: bool) -> int:
    """`import-results`."""
    from vendomini.predecessor import import_results

    with show.counting("reading runs") as progress:
        imported = import_results(folder, out=out or folder / "collected", progress=progress)
    if as_json:
        plain = {n: str(v) if isinstance(v, Path) else v for n, v in asdict(imported).items()}
        text = msgspec.json.format(msgspec.json.encode(plain), indent=2).decode()
        sys.stdout.write(text + "\n")
        return 0
    for line in words(imported):
        show.say(line)
    for path in (imported.runs_parquet, imported.runs_csv, imported.steps_parquet):
        show.OUT.print(str(path), markup=False, soft_wrap=True)
    return 0


def words(imported: "Imported") -> Sequence[str]:
    """What was found, then what is missing and why, a line each."""
    said = [
        f"{imported.runs} folders: {imported.done} runs with an outcome, "
        f"{imported.runs - imported.done} without; {imported.steps} steps"
    ]
    for kind, count in imported.failed.items():
        at_least = f" ({imported.runs_in_merged} runs or more)" if kind == "merged" else ""
        said.append(f"  {count} {WHY[kind]}{at_least}")
    if imported.unreadable_lines:
        said.append(f"{imported.unreadable_lines} lines of steps cannot be read and are left out")
    if imported.replies:
        share = imported.actions_by_parser / imported.replies
        said.append(
            f"{imported.actions_by_parser} of {imported.replies} actions ({share:.0%}) were not "
            "named by the reply: the predecessor's parser chose them"
        )
    if imported.steps > imported.replies:
        said.append(f"{imported.steps - imported.replies} steps were logged without their reply")
    if imported.idle:
        axes = ", ".join(f"`{key}`" for key in imported.idle)
        said.append(f"axes that had no effect when they were played: {axes}")
    said.append("missing in every run (null in the tables):")
    return [*said, *(f"  {columns}: {why}" for columns, why in imported.missing.items())]
