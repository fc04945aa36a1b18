"""Puts the fake Slurm's commands on PATH, and sets how they behave."""

import contextlib
import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol", "sinfo")
PROGRAM = Path(__file__).with_name("fake_slurm.py")


@dataclass(frozen=True, slots=True)
class FakeSlurm:
    """A Slurm of shell wrappers whose jobs are real processes on this machine. See `PROGRAM`.

    `bin` belongs in front of PATH, and `home` in ``FAKE_SLURM``.
    """

    bin: Path
    home: Path

    def install(self) -> None:
        """Write the commands."""
        self.bin.mkdir(parents=True)
        (self.home / "jobs").mkdir(parents=True)
        for name in COMMANDS:
            wrapper = self.bin / name
            wrapper.write_text(
                f'#!/bin/sh\nexec "{sys.executable}" -I -S "{PROGRAM}" {name} "$@"\n'
            )
            wrapper.chmod(0o755)

    def remove(self, command: str) -> None:
        """As on a machine where that command is not installed."""
        (self.bin / command).unlink()

    def refuse(self, words: str) -> None:
        """From now on sbatch takes no job, and says this."""
        (self.home / "refuse").write_text(words)

    def lose_answers(self, *, times: int | None = None) -> None:
        """From now on sbatch takes jobs but fails, as when its answer is lost on the way.

        None: every time.
        """
        (self.home / "lose_answer").write_text("" if times is None else str(times))

    def go_down(self) -> None:
        """From now on every command fails, as without a controller."""
        (self.home / "down").touch()

    def recover(self) -> None:
        """From now on everything works again."""
        for name in ("refuse", "lose_answer", "down"):
            (self.home / name).unlink(missing_ok=True)

    def limit_arrays(self, max_array_size: int) -> None:
        """From now on an array has at most so many tasks."""
        (self.home / "max_array_size").write_text(str(max_array_size))

    def jobs(self) -> list[dict[str, Any]]:
        """What sbatch was given, oldest first: id, arguments, options, tasks, throttle, directory.

        `options` are those of the command line and of the script's #SBATCH lines, without dashes.
        """
        files = sorted(
            (self.home / "jobs").glob("*/job.json"), key=lambda file: int(file.parent.name)
        )
        return [json.loads(file.read_text()) for file in files]

    def script(self, job_id: str) -> str:
        """The text of the script that was submitted."""
        return (self.home / "jobs" / job_id / "script.sh").read_text()

    def is_idle(self) -> bool:
        """Whether every task of every job has ended."""
        for job in self.jobs():
            folder = self.home / "jobs" / job["id"]
            if (folder / "cancelled").exists():
                tasks = [file.stem for file in folder.glob("[0-9]*.pid")]
            else:
                tasks = [str(task) for task in job["tasks"]] or ["0"]
            if not all((folder / f"{task}.exit").exists() for task in tasks):
                return False
        return True

    def stop(self) -> None:
        """End every process of every job, by process id."""
        for file in (self.home / "jobs").glob("*/*.pid"):
            # A player first: it starts no more tasks. A task that has ended is left alone.
            if file.stem != "player" and file.with_suffix(".exit").exists():
                continue
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.killpg(int(file.read_text()), signal.SIGKILL)
