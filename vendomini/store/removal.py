"""Deletes an experiment, so that one that is cut off leaves no half experiment under its name.

The folder is renamed to a hidden one beside it, which is all or nothing; then its marker goes,
without which no folder is an experiment; then the rest.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vendomini.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a folder holds: files and links by all their names, and bytes, each file's once."""

    files: int
    bytes: int


def contents(folder: Path) -> Contents:
    """Count what is in a folder; links are not followed. Raises `OSError` for what may not be
    read."""
    files = 0
    sizes: dict[tuple[int, int], int] = {}
    for entry in _entries(folder):
        status = entry.stat(follow_symlinks=False)
        files += 1
        sizes[status.st_dev, status.st_ino] = status.st_size
    return Contents(files=files, bytes=sum(sizes.values()))


def put_away(folder: Path) -> Path:
    """Rename an experiment's folder to a hidden one beside it, which is returned.

    Raises `StoreError` if that cannot be; then nothing has changed.
    """
    away = folder.with_name(f".removed-{folder.name}-{secrets.token_hex(4)}")
    try:
        os.rename(folder, away)
    except OSError as error:
        raise StoreError(
            f"cannot remove `{folder}`: {error.strerror}",
            hint=f"nothing was removed; whoever may write in `{folder.parent}` can remove it",
        ) from error
    return away


def delete(away: Path) -> None:
    """Delete what `put_away` returned; links in it are deleted, and not followed.

    Raises `OSError`, or whatever interrupts it: then a part is left.
    """
    _marker(away).unlink(missing_ok=True)
    shutil.rmtree(away)


def put_back(away: Path, folder: Path) -> bool:
    """Undo `put_away` while nothing has been deleted yet; whether that was so."""
    try:
        if _marker(away).exists():
            os.rename(away, folder)
            return True
    except OSError:
        pass  # what is told is then where it is
    return False


# -- private -------------------------------------------------------------------------------


def _marker(folder: Path) -> Path:
    return folder / "experiment.json"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """All that is no folder, at any depth."""
    waiting = [os.fspath(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry
