"""What the documents show is what happens: every command in them is run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.slurm import FakeSlurm

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_a_document_does_what_it_shows(
    document: Path, tmp_path: Path, fake_slurm: FakeSlurm
) -> None:
    for folder in ("configs", "slurm"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    environment = {**os.environ, "COLUMNS": "88"}
    for command, shown in commands_of(document.read_text(encoding="utf-8")):
        program, *arguments = shlex.split(command)
        assert program == "vendomini"
        done = subprocess.run(
            [sys.executable, "-m", "vendomini.cli.main", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        printed = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
        missing = [
            line for line in shown if line not in printed and CHANGES_WITH_THE_MACHINE not in line
        ]
        assert not missing, f"{command} does not print {missing}, but\n" + "\n".join(printed)


def test_the_documents_show_commands() -> None:
    shown = [command for path in DOCUMENTS for command, _ in commands_of(path.read_text("utf-8"))]
    for name in ("plan", "run", "status", "collect"):
        assert any(command.startswith(f"vendomini {name} ") for command in shown)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (document.parent / target).exists(), target
