"""Errors of system calls, injected by strace into every process, whatever language it speaks.

`when=n+n` counts by thread: of each thread's calls every nth fails. --seccomp-bpf lets all other
calls pass at full speed.
"""

import shutil
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.chaos.suffering import Undisturbed, suffer

EVERY = {"fsync": 10, "fdatasync": 10, "link": 10, "rename": 3}  # heartbeats are one a second
EVERY_SHORT = 4  # a short phase makes few calls in each thread
CALLS = {
    "fsync": "fsync",
    "fdatasync": "fdatasync",
    "link": "link,linkat",
    "rename": "rename,renameat,renameat2",
}
SLOWED = "fsync,fdatasync,link,linkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"


def why_not_here() -> str | None:
    if shutil.which("strace") is None:
        return "strace is not installed: apt-get install strace"
    return None


def play(wholes: list[Undisturbed], *, short: bool) -> Generator[dict[str, Any], None, None]:
    kinds = {}
    for name, calls in CALLS.items():
        every = EVERY_SHORT if short else EVERY[name]
        what = f"error=EIO:when={every}+{every}"
        kinds[f"strace: EIO every {every}th {name}"] = _injecting(calls, what)
    kinds["strace: 10 ms a call that writes"] = _injecting(SLOWED, "delay_exit=10ms")
    if short:
        kinds = dict(list(kinds.items())[:1])
    for name, arguments in kinds.items():
        for whole in wholes:
            with TemporaryDirectory(prefix="chaos.") as folder:
                log = Path(folder) / "strace"
                prefix = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", str(log), *arguments]
                yield {"kind": name, **suffer(whole, None, prefix=prefix, injected_by_strace=log)}


def _injecting(calls: str, what: str) -> list[str]:
    return ["-e", f"trace={calls}", "-e", f"inject={calls}:{what}"]
