"""`docs/python.md` works as it is written: in an empty folder, and in a notebook."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

from tests.product import ROOT, wait_until, write_phase
from vendomini.store.experiment import Experiment

CELLS = re.findall(
    r"^```python\n(.*?)^```",
    (ROOT / "docs" / "python.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
PATIENCE_S = 120


@pytest.fixture
def notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A kernel in an empty folder, as a notebook starts it, with settings of its own."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "empty").mkdir()
    manager, client = start_new_kernel(cwd=str(tmp_path / "empty"), kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def execute(client: BlockingKernelClient, code: str) -> tuple[dict[str, Any], str]:
    """The kernel's answer to a cell, and what the cell wrote."""
    written = []

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            written.append(message["content"]["text"])

    reply = client.execute_interactive(code, output_hook=hear, timeout=PATIENCE_S)
    return reply["content"], "".join(written)


def test_its_blocks_run_as_they_are_written(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(CELLS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "experiments/first 9 done 0 failed" in done.stdout
    assert "did you mean `simulation.max_steps`?" in done.stdout
    assert sorted(os.listdir(tmp_path)) == ["experiments", "first.yaml"]


def test_its_blocks_are_cells_of_a_notebook(
    notebook: tuple[KernelManager, BlockingKernelClient],
) -> None:
    _, client = notebook
    written = ""
    for cell in CELLS:
        content, said = execute(client, cell)
        assert content["status"] == "ok", (cell, content)
        written += said
    assert "experiments/first 9 done 0 failed" in written
    assert "9 of 9 runs are done, 0 failed" in written


def test_a_notebook_that_is_stopped_has_the_workers_leave_and_goes_on_when_told_again(
    notebook: tuple[KernelManager, BlockingKernelClient], tmp_path: Path
) -> None:
    manager, client = notebook
    write_phase(tmp_path / "empty", replications=3, steps=30, latency_s=0.1)
    experiment = Experiment(tmp_path / "empty" / "experiments" / "small")
    slow = "import vendomini\nplayed = vendomini.run('small.yaml')"
    asked = client.execute(slow)
    wait_until(lambda: any(experiment.path("claims").glob("*.1")))
    manager.interrupt_kernel()
    while (reply := client.get_shell_msg(timeout=PATIENCE_S))["parent_header"]["msg_id"] != asked:
        pass
    assert reply["content"]["ename"] == "KeyboardInterrupt"
    assert [worker.state for worker in experiment.workers().values()] == ["ended"]
    fast = "played = vendomini.run('small.yaml', overrides={'engine.latency_s': 0}, quiet=True)"
    content, _ = execute(client, f"{fast}; print(played.runs.done)")
    assert content["status"] == "ok"
    assert len(experiment.finished()) == 6
