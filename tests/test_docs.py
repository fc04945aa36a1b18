"""What the documents show is what happens: every command in them is run, in an empty folder."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.slurm import FakeSlurm
from tests.forked import Forked
from tests.installing import install

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^```(python|toml|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXAMPLES = {
    "engines.md": {"python": "parrot.py", "toml": "pyproject.toml"},
    "workloads.md": {"python": "shout.py", "toml": "pyproject.toml", "yaml": "shout.yaml"},
}
"""Documents whose one block of a language each is a file of a package, and what it is called."""

LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
CHANGES_WITH_THE_MACHINE = "steps/s"


def commands_of(text: str) -> list[tuple[str, list[str]]]:
    """Each command of a document's console blocks, with the output lines shown for it."""
    found: list[tuple[str, list[str]]] = []
    for block in BLOCK.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif line.strip():
                found[-1][1].append(line.strip())
    return found


def write_example(document: Path, folder: Path) -> None:
    """The package that a document shows, exactly as it shows it."""
    names = EXAMPLES[document.name]
    blocks = FILE.findall(document.read_text(encoding="utf-8"))
    assert sorted(language for language, _ in blocks) == sorted(names)
    for language, text in blocks:
        (folder / names[language]).write_text(text, encoding="utf-8")


def environment(packages: Path) -> dict[str, str]:
    """The packages, and the clone whose documents these are."""
    path = f"{packages}{os.pathsep}{ROOT}"
    return {**os.environ, "COLUMNS": "88", "PYTHONPATH": path}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages of documents are installed."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="module")
def program(packages: Path) -> Iterator[Forked]:
    """For 40 commands, most of whose time was the loading of the program."""
    with Forked(environment(packages)) as forked:
        yield forked


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_does_what_it_shows(
    document: Path, tmp_path: Path, fake_slurm: FakeSlurm, program: Forked, packages: Path
) -> None:
    if document.name in EXAMPLES:
        write_example(document, tmp_path)
        install(tmp_path, packages)
    for command, shown in commands_of(document.read_text(encoding="utf-8")):
        name, *arguments = shlex.split(command)
        assert name == "vendomini"
        done = program(*arguments, env=environment(packages), cwd=tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        missing = [
            line for line in shown if line not in printed and CHANGES_WITH_THE_MACHINE not in line
        ]
        assert not missing, f"{command} does not print {missing}, but\n" + "\n".join(printed)


def test_what_the_guide_does_with_tables_runs(
    tmp_path: Path, program: Forked, packages: Path
) -> None:
    """But for R, which no machine is asked to have."""
    for words in ("run demo --limit 12", "collect demo"):
        done = program(*words.split(), env=environment(packages), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    blocks = [text for language, text in FILE.findall(guide) if language == "python"]
    assert len(blocks) == 2
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert "0.0" in done.stdout


def test_the_documents_show_commands() -> None:
    shown = [command for path in DOCUMENTS for command, _ in commands_of(path.read_text("utf-8"))]
    for name in ("plan", "run", "status", "collect"):
        assert any(command.startswith(f"vendomini {name} ") for command in shown)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target
