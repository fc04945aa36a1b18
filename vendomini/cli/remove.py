"""`remove`: an experiment is shown, asked about, and deleted."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path

import typer

from vendomini.cli import show
from vendomini.errors import ConfigError, StoreError
from vendomini.looking.removable import Removable, refuse_played, removable
from vendomini.store.disk import size_in_words
from vendomini.store.experiment import Experiment
from vendomini.store.removal import contents, delete, put_away, put_back

KEPT = 1
"""The exit status of who answers no."""


def remove(folder: Path, *, root: Path, yes: bool, as_json: bool) -> int:
    """Delete an experiment, if whoever is asked says yes; the exit status.

    Raises `StoreError` for one that may not be removed and for a removal that fails midway,
    `ConfigError` where nobody can be asked. Interrupted midway, it says what is left.
    """
    found = removable(folder, root)
    if not yes and not _is_terminal():
        raise ConfigError(
            f"`remove` would ask before it deletes `{found.experiment.folder}`, and this is no "
            "terminal",
            hint="give --yes to delete it without a question",
        )
    what = (
        f"{found.experiment.folder}: {found.done} of {found.runs} runs done, "
        f"{found.contents.files:,} files, {size_in_words(found.contents.bytes)}"
    )
    (show.say if as_json else show.say_out)(what)
    agreed = yes or typer.confirm("delete all of it?", err=True)
    if agreed:
        _remove(found)
    if as_json:
        show.print_json(
            {
                "experiment": str(found.experiment.folder),
                "runs": {"done": found.done, "total": found.runs},
                **asdict(found.contents),
                "removed": agreed,
            }
        )
    else:
        show.say_out("removed" if agreed else "kept")
    return 0 if agreed else KEPT


# -- private -------------------------------------------------------------------------------


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _remove(found: Removable) -> None:
    away = put_away(found.place)
    try:
        refuse_played(Experiment(away))  # one may have begun while the question was read
        delete(away)
    except (OSError, StoreError, KeyboardInterrupt) as error:
        is_whole = put_back(away, found.place)
        after = "nothing was removed" if is_whole else _left(found, away)
        folder = f"`{found.experiment.folder}`"
        if isinstance(error, KeyboardInterrupt):
            show.say(f"interrupted: {after}")
            raise
        if isinstance(error, OSError):
            what = folder if is_whole else f"all of {folder}"
            raise StoreError(
                f"cannot remove {what}: {error.strerror} (`{error.filename}`)", hint=after
            ) from error
        said = str(error).replace(f"`{away}`", folder)
        raise StoreError(said, hint=error.hint if is_whole else after) from None


def _left(found: Removable, away: Path) -> str:
    try:
        there = contents(away)
        size = f"{there.files:,} of {found.contents.files:,} files"
    except OSError:
        size = "a part"
    return (
        f"{size} of `{found.experiment.folder}` are left, and of no more use: "
        f"`rm -r {shlex.quote(str(away))}`"
    )
