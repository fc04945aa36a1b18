"""`tools/demo.py`: what `make demo` does where it has all that a real model needs, and where not.

In a folder that looks like a clone, whose commands only note that they were called.
"""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.product import ROOT
from tools.demo import COLUMNS, downloads, table
from tools.environment import NO_CPU_STATUS

NOTES = '#!/bin/sh\necho "$(basename $0) $*" >> called\n'


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """All it takes, and a table of one run that was collected."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "demo.py", tmp_path / "tools")
    environment_ends(tmp_path, 0)
    bin = tmp_path / ".venv" / "bin"
    bin.mkdir(parents=True)
    for name in ("python", "vendomini"):
        (bin / name).write_text(NOTES)
        (bin / name).chmod(0o755)
    collected = tmp_path / "experiments" / "demo_model" / "collected"
    collected.mkdir(parents=True)
    with (collected / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS.values())
        writer.writeheader()
        writer.writerow({name: "17" for name in COLUMNS.values()})
    return tmp_path


def environment_ends(clone: Path, status: int) -> None:
    (clone / "tools" / "environment.py").write_text(
        "import pathlib, sys\n"
        "pathlib.Path('called').write_text(f'environment.py {\" \".join(sys.argv[1:])}\\n')\n"
        f"sys.exit({status})\n"
    )


def demo(clone: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(clone / "tools" / "demo.py"), "--extra", "hf"]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)


def called(clone: Path) -> list[str]:
    return (clone / "called").read_text().splitlines()


def test_the_model_is_made_played_and_its_table_shown(clone: Path) -> None:
    done = demo(clone)
    assert done.returncode == 0, done.stderr
    assert called(clone) == [
        "environment.py .venv --extra hf",
        "python tools/make_smollm2.py",
        "vendomini run demo_model",
        "vendomini collect demo_model",
    ]
    assert "17" in done.stdout
    assert "vendomini play demo_model" in done.stdout


def test_where_torch_is_only_for_cuda_it_ends_well_with_the_command_that_goes_on(
    clone: Path,
) -> None:
    environment_ends(clone, NO_CPU_STATUS)
    done = demo(clone)
    assert done.returncode == 0
    assert len(called(clone)) == 1
    assert "download.pytorch.org/whl/cpu make demo" in done.stdout.splitlines()[-1]


def test_what_fails_ends_it_with_its_status(clone: Path) -> None:
    environment_ends(clone, 1)
    assert demo(clone).returncode == 1
    assert len(called(clone)) == 1


def test_what_will_be_downloaded_is_said_unless_it_is_there() -> None:
    both = downloads(has_packages=False, has_model=False)
    assert "torch for the CPU (250 MB) and SmolLM2-135M (93 MB)" in both
    assert "torch" not in downloads(has_packages=True, has_model=False)
    assert downloads(has_packages=True, has_model=True) == ""


def test_a_value_that_is_not_there_is_a_dash() -> None:
    lines = table([{name: "" for name in COLUMNS.values()}]).splitlines()
    assert lines[1].split() == ["-"] * len(COLUMNS)
    assert len({len(line) for line in lines}) == 1
