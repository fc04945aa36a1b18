"""Phases and profiles that come with the program, found by their names.

They are the files in `configs/` and `slurm/` of a clone. A wheel has copies of both folders inside
the package (`force-include` in pyproject.toml), so that a name means the same file everywhere.
"""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from vendomini.errors import ConfigError

NEAREST = 3
"""Names that an error suggests."""

PACKAGE = Path(__file__).parent


BASE = "base"
"""The file with every setting is no phase: `inherit: base` has other settings."""


def phases() -> dict[str, Path]:
    """Each shipped phase file, by its name."""
    found = _by_name(_folder("configs"), "*.yaml", "phases/*.yaml")
    return {name: file for name, file in found.items() if name != BASE}


def profiles() -> dict[str, Path]:
    """Each shipped cluster profile, by its name."""
    return _by_name(_folder("slurm"), "*.yaml")


def phase_file(given: Path) -> Path:
    """The phase file that is meant by a path, or by the name of a shipped phase.

    A file that exists wins over a name. What else exists is returned as it is, for its reader to
    refuse. Raises `ConfigError` where there is neither a file nor such a name.
    """
    return _file(given, phases(), "phase")


def profile_file(given: Path) -> Path:
    """As `phase_file`, for a cluster profile."""
    return _file(given, profiles(), "profile")


# -- private -------------------------------------------------------------------------------


def _folder(name: str) -> Path:
    packed = PACKAGE / "data" / name
    return packed if packed.is_dir() else PACKAGE.parent / name


def _by_name(folder: Path, *patterns: str) -> dict[str, Path]:
    files = (file for pattern in patterns for file in folder.glob(pattern))
    return {file.stem: file for file in sorted(files, key=lambda file: file.stem)}


def _file(given: Path, shipped: Mapping[str, Path], kind: str) -> Path:
    if os.path.isfile(given):
        return given
    if (file := shipped.get(str(given))) is not None:
        return file
    is_name = given.name == str(given) and not given.suffix
    if os.path.lexists(given) or not (is_name or given.stem in shipped):
        return given
    how = "`vendomini run --help` names all that are shipped"
    if not is_name:
        raise ConfigError(
            f"there is no file `{given}`",
            hint=f"did you mean the shipped {kind} `{given.stem}`? {how}",
        )
    raise ConfigError(
        f"`{given}` is neither a file nor the name of a shipped {kind}",
        hint=f"{_nearest(given.name, shipped)}name a file such as `{given}.yaml`; {how}",
    )


def _nearest(name: str, shipped: Mapping[str, Path]) -> str:
    """A question, for the beginning of a hint; nothing if no name is near."""
    near = difflib.get_close_matches(name, shipped, n=NEAREST)
    return f"did you mean {' or '.join(f'`{each}`' for each in near)}? " if near else ""
