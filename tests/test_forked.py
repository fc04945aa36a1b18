"""`tests/forked.py`: a command that is forked is as good as one that is started."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.forked import Forked
from tests.product import ROOT, vendomini, wait_until, write_phase


def environment(**changed: str) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "88", **changed}


@pytest.fixture(scope="module")
def program() -> Iterator[Forked]:
    with Forked(environment()) as forked:
        yield forked


@pytest.mark.parametrize(
    "words",
    [("plan", "--config", "small.yaml"), ("run", "--config", "small.yaml", "agent.kind=nobody")],
    ids=" ".join,
)
def test_a_command_says_and_returns_what_a_new_interpreter_does(
    words: tuple[str, ...], program: Forked, tmp_path: Path
) -> None:
    write_phase(tmp_path, replications=1, steps=2, latency_s=0)
    forked = program(*words, env=environment(), cwd=tmp_path)
    new = vendomini(*words, env=environment(), cwd=tmp_path)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        new.returncode,
        new.stdout,
        new.stderr,
    )


def test_each_command_has_the_environment_and_the_folder_it_is_given(
    program: Forked, tmp_path: Path
) -> None:
    for name in ("here", "there"):
        folder = tmp_path / name
        folder.mkdir()
        write_phase(folder, replications=1, steps=2, latency_s=0, name=name)
        assert program("plan", "--config", f"{name}.yaml", cwd=folder).returncode == 0
        done = program("status", "nothing", env=environment(VENDOMINI_ROOT=name), cwd=folder)
        assert f"there is none below `{name}`" in done.stderr


def test_what_is_read_while_loading_cannot_be_given_later(program: Forked) -> None:
    assert program.can_give(environment(PATH="/bin", SLURM_JOB_ID="7"))
    for other in ({"COLUMNS": "100"}, {"PYTHONUTF8": "0"}, {"LC_ALL": "C"}, {"NO_COLOR": "1"}):
        assert not program.can_give(environment(**other))
    with pytest.raises(AssertionError):
        program("--version", env=environment(COLUMNS="100"))


def test_a_command_that_takes_too_long_is_ended_and_the_next_is_heard(
    program: Forked, tmp_path: Path
) -> None:
    write_phase(tmp_path, replications=1, steps=50, latency_s=60)
    with pytest.raises(subprocess.TimeoutExpired):
        program("play", "small.yaml", env=environment(), cwd=tmp_path, timeout=1)
    assert program("--version", env=environment()).returncode == 0


def test_it_is_gone_when_the_process_that_started_it_is_killed() -> None:
    starts = (
        "import os, time; from tests.forked import Forked\n"
        "with Forked(os.environ) as program:\n"
        "    assert program('--version').returncode == 0\n"
        "    print(program.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", starts], cwd=ROOT, stdout=subprocess.PIPE) as test:
        assert test.stdout is not None
        pid = int(test.stdout.readline())
        os.kill(test.pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only what is left of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
