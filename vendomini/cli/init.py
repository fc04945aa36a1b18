"""`init`: a package to start from, as files that work as they are."""

import importlib.util
import keyword
import os
import re
import shlex
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from string import Template

from vendomini import shipped
from vendomini.cli import show
from vendomini.entrypoints import WORKLOADS
from vendomini.errors import ConfigError
from vendomini.store.trying import explained

TEMPLATES = files("vendomini.data") / "workload"

NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?", re.ASCII)
"""What can name an entry point, a package and, with `_` for `-`, a module."""

LONGEST_NAME = 60
"""Characters: it becomes part of the names of files and of an experiment's folder."""


def init(workload: str | None, *, out: Path | None, as_json: bool) -> int:
    """Write a package with such a workload, and say what to do with it; the exit status.

    `out` None: a folder of the workload's name, here. Raises `ConfigError`, before anything is
    written, for a name that cannot be one and for a folder that holds something.
    """
    if workload is None:
        raise ConfigError(
            "`init` is not told what to write",
            hint="it writes the package of a workload: vendomini init --workload my_task",
        )
    name = _checked_name(workload)
    folder = Path(name) if out is None else out
    _refuse_used(folder)
    texts = _texts(name)
    for path, text in texts.items():
        file = folder / path
        with explained("write", file):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    here = shlex.quote(str(folder))
    commands = [
        f"pip install -e {here}",
        f"pytest {here}",
        f"vendomini run {shlex.quote(str(folder / f'{name}.yaml'))}",
    ]
    if as_json:
        written = [str(folder / path) for path in texts]
        show.print_json(
            {"workload": name, "folder": str(folder), "files": written, "next": commands}
        )
        return 0
    show.say(f"wrote a package with the workload `{name}`; next:")
    for command in commands:
        show.say(f"  {command}")
    show.say_out(str(folder))
    return 0


# -- private -------------------------------------------------------------------------------


def _checked_name(name: str) -> str:
    """Raises `ConfigError` for one that cannot name a package and its module, or is taken."""
    module = _module(name)
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise ConfigError(
            f"--workload is `{name}`, which cannot name a package and its module",
            hint=f"at most {LONGEST_NAME} letters, digits, `_` and `-`, of them a letter first "
            "and no sign last, such as my_task",
        )
    if keyword.iskeyword(module):
        raise ConfigError(
            f"--workload is `{name}`, which is a word of Python and cannot name a module",
            hint=f"choose another name, such as my_{module.lower()}",
        )
    if name in (shipped.BASE, *shipped.phases()):
        raise ConfigError(
            f"--workload is `{name}`, and a file of that name is shipped",
            hint=f"choose another name, such as my_{module.lower()}",
        )
    if name in entry_points(group=WORKLOADS.group).names:
        raise ConfigError(
            f"--workload is `{name}`, and an installed package has a workload of that name",
            hint="choose another name, or uninstall that package",
        )
    found = importlib.util.find_spec(module)
    if found is not None and found.origin is not None:  # without one it is only a folder
        raise ConfigError(
            f"--workload is `{name}`, and there is a module `{module}` already ({found.origin})",
            hint=f"choose another name, such as my_{module.lower()}",
        )
    return name


def _refuse_used(folder: Path) -> None:
    with explained("read", folder):
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return
    what = "a folder with files in it" if folder.is_dir() else "a file"
    raise ConfigError(
        f"`{folder}` is there already: {what}", hint="name a new or an empty folder with --out"
    )


def _texts(name: str) -> dict[str, str]:
    """What is written, by its path in the folder."""
    module = _module(name)
    # With its last word it is no name that the module uses, or Python does.
    cls = "".join(part.capitalize() for part in module.split("_")) + "Workload"
    words = {
        "name": name,
        "module": module,
        "cls": cls,
        "imported": ", ".join(sorted([cls, "Game", "Outcome", "Settings"])),
    }
    paths = {
        "pyproject.toml": "pyproject.toml",
        "module.py": f"src/{module}.py",
        "phase.yaml": f"{name}.yaml",
        "test_module.py": f"tests/test_{module}.py",
    }
    return {
        path: Template((TEMPLATES / f"{template}.template").read_text("utf-8")).substitute(words)
        for template, path in paths.items()
    }


def _module(name: str) -> str:
    return name.replace("-", "_")
