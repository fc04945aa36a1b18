"""A phase of a tiny model, played by the whole program, and what it leaves on the machine."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.harness import assert_every_log_is_a_prefix, outcomes
from tests.live.engines import KV_CACHE_BYTES, vllm_python
from tests.product import COMMAND, ROOT, wait_until
from vendomini.store.experiment import Experiment

RUNS = 8
STEPS = 5
REPLY_TOKENS = 32
MORE_REPLIES = 2
MARK = "VENDOMINI_TEST_PLACE"
GUARD = "vendomini.engines.guard"
START_PATIENCE_S = 240

Running: TypeAlias = subprocess.Popen[str]


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the machine; `started` tells it from a later one of the same number."""

    pid: int
    parent: int
    started: int
    command: str

    @property
    def is_alive(self) -> bool:
        now = _process(self.pid)
        return now is not None and now.started == self.started

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended; `said` is its standard error as one line."""

    status: int
    said: str


class Place:
    """Where one phase is run. Every process that comes of it is known by a mark it inherits."""

    def __init__(self, folder: Path, model: Path, backend: str, **engine: Any) -> None:
        self.folder = folder
        self.experiment = Experiment(folder / "experiments" / "deaths")
        self._model = str(model)
        self._mark = secrets.token_hex(8)
        # Short: it holds sockets.
        self._temporary = Path(tempfile.mkdtemp(prefix="deaths-"))
        self._memory: set[str] = set()
        self._seen: set[Process] = set()
        self._running: Running | None = None
        settings = {"backend": backend, "device": "cpu", "dtype": "float32", **engine}
        settings.setdefault("kv_cache_memory_bytes", KV_CACHE_BYTES)
        settings.setdefault("concurrency", RUNS)
        if backend == "vllm":
            settings.setdefault("python", vllm_python())
            settings.setdefault("enforce_eager", True)  # what dies here need not be compiled first
        model_settings = {"name": str(model), "max_tokens_per_call": REPLY_TOKENS}
        phase = {
            "inherit": str(ROOT / "configs" / "base.yaml"),
            "experiment": {"name": "deaths", "replications": RUNS // 2, "seed": 5},
            "agent": {"kind": "llm", "model": {**model_settings, "temperature": 1.0}},
            "engine": settings,
            "fixed": {"simulation.max_steps": STEPS},
            "grid": {"pe_induction.p_shock": [0.0, 0.5]},
        }
        (folder / "deaths.yaml").write_text(json.dumps(phase))  # JSON is YAML

    # -- commands -------------------------------------------------------------------------

    def start(self, *overrides: str) -> None:
        """`run` in the background, in a session of its own as in a terminal."""
        environment = {
            **os.environ,
            MARK: self._mark,
            "TMPDIR": str(self._temporary),
            "OMP_NUM_THREADS": "1",  # more would fight for the cores with other tests
        }
        self._running = subprocess.Popen(
            [*COMMAND, "run", "--config", "deaths.yaml", *overrides],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def end(self, *, timeout_s: float = START_PATIENCE_S) -> Ended:
        """Wait for it; it never shows a trace."""
        assert self._running is not None
        _, said = self._running.communicate(timeout=timeout_s)
        assert "Traceback" not in said
        return Ended(status=self._running.returncode, said=" ".join(said.split()))

    def run(self, *overrides: str) -> Ended:
        self.start(*overrides)
        return self.end()

    def press_ctrl_c(self) -> None:
        """A terminal tells every process of the group."""
        assert self._running is not None
        os.killpg(self._running.pid, signal.SIGINT)

    def clear(self) -> None:
        """End everything, whatever became of the test."""
        for process in self.processes():
            if process.is_alive:
                process.send(signal.SIGKILL)
        if self._running is not None and self._running.poll() is None:
            self._running.communicate(timeout=30)
        shutil.rmtree(self._temporary)

    # -- its processes --------------------------------------------------------------------

    def processes(self) -> list[Process]:
        """All that live. One that has written over its own environment, and with it the mark,
        as vLLM's do to rename themselves, is known by its parents, or was seen before."""
        everyone = _processes()
        ours = {
            pid
            for pid, each in everyone.items()
            if self._model in each.command or self._is_marked(pid)
        }
        while more := {p for p, each in everyone.items() if each.parent in ours} - ours:
            ours |= more
        self._seen |= {everyone[pid] for pid in ours}
        self._memory |= _shared_memory(ours)
        return [each for each in self._seen if everyone.get(each.pid) == each or each.is_alive]

    def find(self, is_it: Callable[[Process], bool]) -> Process:
        """The one such process, once there is one."""
        wait_until(lambda: any(map(is_it, self.processes())), patience_s=START_PATIENCE_S)
        return next(filter(is_it, self.processes()))

    @property
    def guard(self) -> Process:
        return self.find(lambda each: f"-m {GUARD} " in each.command)

    @property
    def server(self) -> Process:
        """What the guard has started."""
        guard = self.guard
        return self.find(lambda each: each.parent == guard.pid and GUARD not in each.command)

    @property
    def worker(self) -> Process:
        guard = self.guard
        return self.find(lambda each: each.pid == guard.parent)

    @property
    def engine_core(self) -> Process:
        """The process of vLLM's that computes."""
        return self.find(lambda each: each.command.startswith("VLLM::EngineCore"))

    def assert_nothing_is_left(self) -> None:
        """Neither a process nor a socket nor shared memory."""
        assert self._seen, "nothing was looked at while it lived"
        wait_until(lambda: not self.processes())
        wait_until(lambda: not list(self._temporary.glob("vendomini-*")))
        wait_until(lambda: not any(map(os.path.exists, self._memory)))

    # -- its logs -------------------------------------------------------------------------

    def logged(self) -> int:
        """Replies that are not lost any more: of each run those of the longest attempt."""
        counts: dict[tuple[str, int], int] = {}
        for log in self.experiment.path("logs").glob("*.replies.jsonl"):
            for line in log.read_bytes().split(b"\n")[:-1]:
                entry = json.loads(line)
                key = (entry["run"], entry["attempt"])
                counts[key] = counts.get(key, 0) + 1
        runs = {run for run, _ in counts}
        return sum(max(n for (its, _), n in counts.items() if its == run) for run in runs)

    def wait_for_replies(self) -> None:
        """Until some more replies are on disk, and others are under way."""
        before = self.logged()
        wait_until(lambda: self.logged() >= before + MORE_REPLIES, patience_s=START_PATIENCE_S)
        self.processes()  # to be known again when they have lost their parents
        assert self._running is not None
        assert self._running.poll() is None, "it ended before it could be disturbed"

    def kept(self) -> "Kept":
        logs = self.experiment.path("logs").glob("*.replies.jsonl")
        return Kept(
            outcomes=outcomes(self.experiment), logs={path: path.read_bytes() for path in logs}
        )

    def assert_only_grew(self, before: "Kept") -> None:
        """What was finished or logged is still there, byte for byte."""
        assert outcomes(self.experiment).items() >= before.outcomes.items()
        for path, content in before.logs.items():
            assert path.read_bytes() == content
        assert_every_log_is_a_prefix(self.experiment)

    def assert_complete(self) -> None:
        assert len(outcomes(self.experiment)) == RUNS
        assert len(self.experiment.finished()) == RUNS

    def replayed(self) -> int:
        """How many logged replies finished runs have not asked again."""
        results = (self.experiment.result(run.id) for run in self.experiment.runs())
        return sum(result.served.replayed for result in results if result is not None)

    def _is_marked(self, pid: int) -> bool:
        try:
            return f"{MARK}={self._mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What no later command may change."""

    outcomes: Mapping[str, bytes]
    logs: Mapping[Path, bytes]


def _process(pid: int) -> Process | None:
    """None for one that has ended, also if nobody has asked for its status yet."""
    folder = Path(f"/proc/{pid}")
    try:
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    if fields[0] == "Z":
        return None
    return Process(pid, int(fields[1]), int(fields[19]), command)


def _processes() -> dict[int, Process]:
    pids = (
        int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()
    )
    return {pid: found for pid in pids if (found := _process(pid)) is not None}


def _shared_memory(pids: Iterable[int]) -> set[str]:
    """What these processes have mapped of it: other tests, with theirs, run beside this one."""
    found: set[str] = set()
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:
            continue
        found.update(line.split(maxsplit=5)[5] for line in lines if "/dev/shm/" in line)
    return found
