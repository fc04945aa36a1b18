"""Phases to be played under faults, and the program that plays them: its command line alone."""

import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

ROOT = Path(__file__).parent.parent.parent
TOKEN = "VENDOMINI_CHAOS_TOKEN"
"""In the environment of every process of an experiment: so they are found and ended by their ids,
and no others."""

TRACEBACK = "Traceback (most recent call last)"
Kind: TypeAlias = Literal["heuristic", "scripted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase of so many runs. `latency_s` is the scripted engine's, `under_way` its requests."""

    kind: Kind
    runs: int
    steps: int
    latency_s: float = 0.0
    under_way: int = 8

    def write(self, folder: Path) -> Path:
        engine = (
            "agent: {kind: heuristic}\n"
            if self.kind == "heuristic"
            else "agent: {kind: probe}\n"
            f"engine: {{backend: scripted, latency_s: {self.latency_s}, "
            f"concurrency: {self.under_way}}}\n"
        )
        path = folder / f"{self.kind}.yaml"
        path.write_text(
            "inherit: warehouse\n"
            f"experiment: {{name: {self.kind}, replications: {self.runs}, seed: 0}}\n"
            f"simulation: {{max_steps: {self.steps}}}\n"
            "pe_induction: {p_shock: 0.3}\n" + engine,
            encoding="utf-8",
        )
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a command said and how it ended. `exit` is None if it hung and was ended."""

    exit: int | None
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return f"{self.out}\n{self.err}"

    @property
    def tracebacks(self) -> int:
        return self.text.count(TRACEBACK)


class Program:
    """A checkout's `vendomini`, started anew for each command.

    `env` is added to what processes have. Leaving the context ends all that it started and left.
    """

    def __init__(self, folder: Path, *, checkout: Path = ROOT, env: Mapping[str, str] = {}) -> None:
        self.folder = folder
        self.token = secrets.token_hex(8)
        self._checkout = checkout
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("SLURM_")},
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",  # or a table breaks the names that are looked for
            "NO_COLOR": "1",
            TOKEN: self.token,
            **env,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end_all()

    def start(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        shim: Path | None = None,
        prefix: Sequence[str] = (),
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
    ) -> "subprocess.Popen[str]":
        """`shim` is a folder in front of PYTHONPATH, `prefix` a command that starts the command."""
        path = [str(self._checkout)] if shim is None else [str(shim), str(self._checkout)]
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", "vendomini.cli.main", *map(str, arguments)],
            cwd=self.folder,
            env={**self._env, "PYTHONPATH": os.pathsep.join(path), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def __call__(self, *arguments: object, timeout_s: float = 120.0, **how: Any) -> Said:
        """Give a command and wait for its end; after `timeout_s` all processes are ended."""
        began = time.monotonic()
        process = self.start(*arguments, **how)
        try:
            out, err = process.communicate(timeout=timeout_s)
            status: int | None = process.returncode
        except subprocess.TimeoutExpired:
            self.end_all()
            out, err = process.communicate()
            status = None
        except BaseException:
            self.end_all()
            process.wait()
            raise
        return Said(exit=status, out=out, err=err, seconds=round(time.monotonic() - began, 2))

    def end_all(self) -> None:
        """KILL every process that bears this program's token, until there is none."""
        for _ in range(200):
            mine = processes_of(self.token)
            if not mine:
                return
            for pid in mine:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def processes_of(token: str) -> list[int]:
    """Process ids whose environment has the token; zombies have none."""
    wanted = f"{TOKEN}={token}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with suppress(OSError):
                if wanted in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                    found.append(int(name))
    return found


def run_command(phase: Path, root: Path, *, workers: int, more: Sequence[str] = ()) -> list[object]:
    return ["run", "--config", phase, "--root", root, "--n-jobs", workers, *more]


def tracebacks_in(folder: Path) -> int:
    """In the logs of an experiment's workers, and in its error records."""
    logs = [*folder.glob("jobs/*/*_log.err"), *folder.glob("jobs/*/*_log.out")]
    errors = [each for each in folder.glob("errors/*") if each.is_file()]
    return sum(each.read_text(errors="replace").count(TRACEBACK) for each in (*logs, *errors))


def last_line_of(text: str) -> str:
    lines = [line for line in _ESCAPE.sub("", text).splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
