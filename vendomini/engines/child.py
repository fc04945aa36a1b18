"""The life of an engine's process: started, waited for, watched, stopped, nothing left behind."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from vendomini.engines.cause import hint_for, progress_in, root_cause
from vendomini.engines.commands import Command
from vendomini.errors import EngineDead, EngineError

NOT_STARTED = "the engine did not start: "
"""How the error of a start that failed begins, before its cause."""

POLL_S = 0.2
SAY_EVERY_S = 30.0
STOP_S = 20.0
"""More than the guard's own time: it leaves when everything below it has."""

LONGEST_SOCKET_PATH = 100
"""The kernel allows 107 bytes."""

LOG_TAIL_BYTES = 1 << 20


def new_folder() -> Path:
    """A private folder for a socket, short enough for one, on a local disk."""
    folder = Path(tempfile.mkdtemp(prefix="vendomini-"))
    if len(os.fsencode(folder)) > LONGEST_SOCKET_PATH - len("/engine.sock"):
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="vendomini-", dir="/tmp"))
    return folder


class Child:
    """One engine process below its guard (`engines.guard`).

    `folder` holds its socket and is removed with it; what it writes is added to `log`, where an
    earlier one's words may stand.
    """

    def __init__(self, *, folder: Path, log: Path, said: Callable[[str], None]) -> None:
        self.folder = folder
        self.log = log
        self._say = said
        self._guard: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[int] | None = None
        self._is_stopping = False
        self._said_lines = 0
        self._begins_at = 0  # where its own words begin in the log

    async def start(self, command: Command) -> None:
        """Returns at once; raises `EngineError` if not even the guard can be started."""
        environment = {**os.environ, **command.environment, "PYTHONUNBUFFERED": "1"}
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("ab") as log:
                self._begins_at = log.tell()
                self._guard = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "vendomini.engines.guard",
                    str(self.folder),
                    *command.argv,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    # Not in the terminal's group: Ctrl-C is for whoever asked for the run.
                    start_new_session=True,
                )
        except OSError as error:
            raise EngineError(
                f"the engine could not be started: {error.strerror}",
                hint=f"free memory or processes on this machine (its log is {self.log})",
            ) from error
        self._watch = asyncio.create_task(self._guard.wait())

    async def wait_until(
        self, is_ready: Callable[[], Awaitable[bool]], *, timeout_s: float
    ) -> None:
        """Wait until it is ready, and say how far it has come.

        Raises `EngineError` with the root cause if it ends before, and after `timeout_s` seconds.
        """
        started = said_at = time.monotonic()
        last: str | None = None
        while True:
            ready = await is_ready()
            for line in self._own_lines():
                self._say(line)
            if ready:
                return
            if self._watch is None or self._watch.done():
                error = self.why_it_ended()
                raise EngineError(f"{NOT_STARTED}{error}", hint=error.hint)
            seconds = time.monotonic() - started
            if seconds > timeout_s:
                raise EngineError(
                    f"the engine was not ready after {seconds:.0f} s"
                    + (f"; the last it said: {last}" if last else ""),
                    hint=f"raise `engine.start_timeout_s`, or see its log: {self.log}",
                )
            progress = progress_in(self.tail())
            if progress != last or time.monotonic() - said_at > SAY_EVERY_S:
                said_at, last = time.monotonic(), progress
                self._say(f"the engine starts, {seconds:.0f} s: {last or 'loading'}")
            await asyncio.wait({self._watch}, timeout=POLL_S)

    async def died(self) -> EngineDead:
        """Wait until it ends without having been told to."""
        assert self._watch is not None
        await asyncio.shield(self._watch)
        if self._is_stopping:
            await asyncio.Future()  # it did as it was told: that is no death
        return self.why_it_ended()

    async def death_within(self, seconds: float) -> EngineDead | None:
        """None if it still lives then."""
        if self._watch is None:
            return None
        await asyncio.wait({self._watch}, timeout=seconds)
        return self.why_it_ended() if self._watch.done() and not self._is_stopping else None

    def why_it_ended(self) -> EngineDead:
        """In one line, with what its log says."""
        cause = root_cause(self.tail())
        status = self._guard.returncode if self._guard is not None else None
        if cause is None:
            number = -status if status is not None and status < 0 else (status or 0) - 128
            names = {each.value: each.name for each in signal.Signals}
            if number in names:
                memory = ", perhaps because memory ran out" if names[number] == "SIGKILL" else ""
                cause = f"it was ended by {names[number]}{memory}"
            else:
                cause = f"it ended with exit status {status}"
        return EngineDead(cause, hint=hint_for(cause) or f"its log is {self.log}")

    async def stop(self) -> None:
        """End it and all of its processes, and remove its folder. Allowed at any time."""
        self._is_stopping = True
        if self._guard is not None and self._watch is not None and not self._watch.done():
            assert self._guard.stdin is not None
            self._guard.stdin.close()  # the guard's sign
            await asyncio.wait({self._watch}, timeout=STOP_S)
            if not self._watch.done():
                self._guard.kill()  # its child has asked the kernel to be killed with it
                await self._watch
        shutil.rmtree(self.folder, ignore_errors=True)

    def tail(self) -> str:
        """The end of what it has written."""
        try:
            with self.log.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(self._begins_at, log.tell() - LOG_TAIL_BYTES))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _own_lines(self) -> list[str]:
        """New lines of the log that an engine of ours writes for people to read."""
        text = self.tail()
        own = [line for line in text.splitlines() if line.startswith("[*] ")]
        new = own[self._said_lines :]
        self._said_lines = len(own)
        return new
