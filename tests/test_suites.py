"""How the tests are shared out over processes, which nothing else would notice."""

import subprocess
import sys
from pathlib import Path

GROUPED = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(6))
@pytest.mark.xdist_group("one")
def test_where(number: int) -> None:
    with pathlib.Path("pids").open("a") as file:
        print(os.getpid(), file=file)

def test_another() -> None:
    pass
"""


def test_tests_of_a_group_are_run_by_one_process(tmp_path: Path) -> None:
    """They share a Slurm or an engine, of which each further process would start its own.

    pytest-xdist 3.8 marks groups in a way that pytest 9.2 overlooks, without a word.
    """
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = xdist_group: of xdist\n")
    words = ("-q", "-p", "no:cacheprovider", "--numprocesses", "2", "--dist", "loadgroup")
    subprocess.run(
        [sys.executable, "-m", "pytest", *words, "."],
        cwd=tmp_path,
        check=True,
        timeout=60,
        capture_output=True,
    )
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 6
    assert len(set(pids)) == 1
