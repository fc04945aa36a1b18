"""The whole program, as its users have it: files written, commands given."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vendomini.store.experiment import Experiment

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-m", "vendomini.cli.main")
PATIENCE_S = 60


def vendomini(
    *arguments: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Give a command and wait for it."""
    return subprocess.run(
        [*COMMAND, *(str(argument) for argument in arguments)],
        env=dict(os.environ if env is None else env),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def write_phase(
    folder: Path, *, replications: int, steps: int, latency_s: float, name: str = "small"
) -> Path:
    """A phase of two arms whose agent asks a scripted engine once a step."""
    file = folder / f"{name}.yaml"
    phase = {
        "inherit": str(ROOT / "configs" / "base.yaml"),
        "experiment": {"name": name, "replications": replications, "seed": 3},
        "agent": {"kind": "probe"},
        "engine": {"backend": "scripted", "latency_s": latency_s, "concurrency": 4},
        "fixed": {"simulation.max_steps": steps},
        "grid": {"pe_induction.p_shock": [0.0, 0.5]},
    }
    file.write_text(json.dumps(phase))  # JSON is YAML
    return file


def write_profile(folder: Path, name: str = "site", **settings: Any) -> Path:
    """A profile whose workers are small and beat often; `engineless` is merged key by key."""
    file = folder / f"{name}.yaml"
    small = {"cpus": 1, "memory": "500M", "minutes": 10, "workers": 2}
    profile = {
        "heartbeat_s": 0.5,
        "dead_after_s": 3,
        "signal_delay_s": 30,
        **settings,
        "engineless": {**small, **settings.get("engineless", {})},
    }
    file.write_text(json.dumps(profile))
    return file


def attempts(experiment: Experiment) -> Counter[str]:
    """How many attempts there were at each run."""
    names = (path.name for path in experiment.path("claims").iterdir())
    return Counter(name.split(".")[0] for name in names if name[0] != "." and name.count(".") == 1)


def wait_until(predicate: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
    """Return once it is true; fail if that takes unreasonably long."""
    deadline = time.monotonic() + patience_s
    while not predicate():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
