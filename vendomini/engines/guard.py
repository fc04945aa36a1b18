"""Stands between a worker and its engine's processes, so that none of them outlives the worker.

    python -m vendomini.engines.guard FOLDER COMMAND...

It runs the command, and waits for the first of two ends: the command's own, or that of its
standard input, whose other end only the worker holds. A worker that is killed in any way closes
it. Then every process the command has left behind is ended, FOLDER (sockets) is removed, and the
guard exits as the command did.

Signals that Slurm sends to a whole job step do not reach the engine: the worker has to drain
first. They are blocked here, and a block is inherited. Only TERM may come through: Python's
`multiprocessing` unblocks it, and vLLM uses that. So a worker that is told to leave takes its
engine's end for a part of it.
"""

import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

FOR_THE_WORKER = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)
"""What a job step is sent as a whole, and what only the worker answers."""

STOP_S = 10.0
"""How long an engine may take to end in order. Slurm kills 30 s after TERM."""

SWEEP_S = 5.0
TRACKER_S = 2.0
TRACKER = b"multiprocessing.resource_tracker"
"""Its process frees shared memory when those that used it have gone: it is ended last."""
SHARED_MEMORY = "/dev/shm/"

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(arguments: list[str]) -> int:
    """Exit status of the command, or 128 and the number of the signal that ended it."""
    folder, command = Path(arguments[0]), arguments[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    # Orphans of the engine become ours, so that they can be found.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, FOR_THE_WORKER)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def prepare_child() -> None:
        # SIGINT is how it is stopped, whatever this process was started with: a local worker is
        # started while Ctrl-C is blocked, and inherits the block.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    worker_is_gone, is_gone = os.pipe()
    try:
        try:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, preexec_fn=prepare_child, close_fds=True
            )
        except OSError as error:
            print(f"[!] {command[0]}: {error.strerror}", file=sys.stderr)
            return 127
        threading.Thread(target=_tell_end, args=(child, is_gone), daemon=True).start()
        ready, _, _ = select.select([sys.stdin.fileno(), worker_is_gone], [], [])
        shared = _shared_memory(_descendants(os.getpid()))
        if worker_is_gone not in ready:
            _stop(child)
        sweep()
        _free(shared)
        status = child.wait()
        return 128 - status if status < 0 else status
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _tell_end(child: subprocess.Popen[bytes], pipe: int) -> None:
    child.wait()
    os.write(pipe, b".")


def _stop(child: subprocess.Popen[bytes]) -> None:
    """Ask all of its processes to end in order, and give them time."""
    for process in _descendants(os.getpid()):
        _send(process, signal.SIGINT)
        _send(process, signal.SIGCONT)  # one that was stopped would not hear it
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        print(f"[!] killed: it did not end within {STOP_S:g} s", file=sys.stderr)


def sweep() -> None:
    """Kill every process below this one."""
    started = time.monotonic()
    while time.monotonic() - started < SWEEP_S:
        left = _descendants(os.getpid())
        if not left:
            return
        trackers = {process for process in left if TRACKER in _command_line(process)}
        others = set(left) - trackers
        for process in others:
            _send(process, signal.SIGKILL)
        if not others and time.monotonic() - started > TRACKER_S:
            for process in trackers:
                _send(process, signal.SIGKILL)
        time.sleep(0.02)


def _free(shared: Collection[str]) -> None:
    """Remove shared memory that no process has any more.

    vLLM leaves hundreds of MB of it where it is killed, and at times where it ends in order.
    """
    everyone = (int(name) for name in os.listdir("/proc") if name.isdigit())
    for path in set(shared) - _shared_memory(everyone):
        with suppress(OSError):
            os.unlink(path)


def _shared_memory(processes: Iterable[int]) -> set[str]:
    """Paths that these processes have mapped; what cannot be read is another user's."""
    found: set[str] = set()
    for process in processes:
        with suppress(OSError):
            maps = Path("/proc", str(process), "maps").read_text(errors="replace")
            found.update(
                line.split(maxsplit=5)[5] for line in maps.splitlines() if SHARED_MEMORY in line
            )
    return found


def _descendants(root: int) -> Collection[int]:
    """Living processes below `root`, by the parents that /proc tells."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                # The name, in brackets, may hold anything: what counts is behind it.
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # gone meanwhile
            if fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.extend(below)
        waiting.extend(below)
    return found


def _command_line(process: int) -> bytes:
    try:
        return Path("/proc", str(process), "cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


def _send(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
