"""`init`: what it writes works as it is, and what it cannot write it refuses whole."""

import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked import Forked
from tests.installing import install_editable
from tests.product import vendomini
from tests.test_cli_bad_input import everything_in

# Loaded once, also where several processes share the tests.
pytestmark = pytest.mark.xdist_group("init")


def environment_in(folder: Path) -> Path:
    """The interpreter of a new environment that has all that this one has."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = sysconfig.get_path("purelib")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
    return folder / "bin" / "python"


def test_what_it_writes_is_installed_passes_its_own_tests_and_is_played(tmp_path: Path) -> None:
    made = vendomini("init", "--workload", "my_task", "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    assert said["next"] == [
        "pip install -e my_task",
        "pytest my_task",
        "vendomini run my_task/my_task.yaml",
    ]
    assert [Path(file) for file in said["files"]] == [
        Path("my_task", name)
        for name in ("pyproject.toml", "src/my_task.py", "my_task.yaml", "tests/test_my_task.py")
    ]
    python = environment_in(tmp_path / "environment")
    install_editable(tmp_path / "my_task", python)
    for words in (
        ("pytest", "-p", "no:cacheprovider", "-q", "my_task"),
        ("vendomini.cli.main", "run", "my_task/my_task.yaml"),
        ("vendomini.cli.main", "play", "my_task", "--steps", "0"),
        ("ruff", "check", "--isolated", "--select", "E,F,B,UP", "--line-length=100", "my_task"),
        ("ruff", "format", "--isolated", "--check", "--line-length=100", "my_task"),
    ):
        done = subprocess.run(
            [python, "-m", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # ours, which are many
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"


# -- refused ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program() -> Iterator[Forked]:
    """For what ends at once."""
    with Forked({}) as forked:
        yield forked


NAMES = {
    "a path": ("../there", "`../there`, which cannot name a package", "such as my_task"),
    "a number first": ("2tasks", "`2tasks`, which cannot name a package", "a letter first"),
    "a dash last": ("task-", "`task-`, which cannot name a package", "no sign last"),
    "letters of another script": ("aufgäbe", "cannot name a package", "letters, digits"),
    "nothing": ("", "``, which cannot name a package", "such as my_task"),
    "too long": ("a" * 61, "cannot name a package", "at most 60 letters"),
    "a word of Python": ("class", "which is a word of Python", "such as my_class"),
    "another word of Python": ("None", "which is a word of Python", "such as my_none"),
    "a workload that is there": ("warehouse", "has a workload of that name", "another name"),
    "a module of Python's": ("json", "there is a module `json` already", "such as my_json"),
    "ours": ("vendomini", "there is a module `vendomini` already", "such as my_vendomini"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_that_cannot_be_one_is_refused_and_nothing_written(
    case: str, program: Forked, tmp_path: Path
) -> None:
    name, problem, hint = NAMES[case]
    assert_refused(program, tmp_path, f"--workload={name}", problem=problem, hint=hint)


def test_a_folder_that_holds_something_is_refused_and_an_empty_one_filled(
    program: Forked, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    for name, problem in (
        ("full", "`full` is there already: a folder with files in it"),
        ("full/notes.txt", "`full/notes.txt` is there already: a file"),
    ):
        words = ("--workload", "task", "--out", name)
        assert_refused(program, tmp_path, *words, problem=problem, hint="an empty folder")
    done = program("init", "--workload", "task", "--out", "empty", env={}, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "empty\n"), done.stderr
    assert (tmp_path / "empty" / "src" / "task.py").exists()


def test_without_a_word_of_what_it_says_what_it_can_write(program: Forked, tmp_path: Path) -> None:
    problem, hint = "is not told what to write", "vendomini init --workload my_task"
    assert_refused(program, tmp_path, problem=problem, hint=hint)


def assert_refused(program: Forked, folder: Path, *words: str, problem: str, hint: str) -> None:
    """One error with its hint, status 2, and nothing written."""
    before = everything_in(folder)
    done = program("init", *words, env={}, cwd=folder)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    said, _, advice = done.stderr.partition("\nhint: ")
    assert said.startswith("error: ")
    assert problem in said
    assert hint in advice
    assert "Traceback" not in done.stderr
    assert everything_in(folder) == before
