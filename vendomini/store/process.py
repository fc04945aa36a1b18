"""Who is who among processes: identities that outlive process ids."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, named so that neither a reused id nor another machine is taken for it.

    `started` is in clock ticks since boot (field 22 of /proc/PID/stat). `namespace` tells
    containers apart that share a host's name and boot.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int


def this_process() -> Process:
    """The identity of the calling process."""
    pid = os.getpid()
    started = _started(pid)
    assert started is not None
    return Process(
        host=socket.gethostname(),
        boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        namespace=os.readlink("/proc/self/ns/pid"),
        pid=pid,
        started=started,
    )


def is_gone(process: Process, *, seen_from: Process) -> bool | None:
    """Whether it has ended; None where that cannot be known from here (another machine)."""
    place = (process.host, process.boot, process.namespace)
    if place != (seen_from.host, seen_from.boot, seen_from.namespace):
        return None
    return _started(process.pid) != process.started


def _started(pid: int) -> int | None:
    """Start time in ticks since boot; None if there is no such process, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name may hold blanks and brackets: the fields after it begin at the last one.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
