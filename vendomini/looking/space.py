"""How much room there is for an experiment: its file system's, and what quotas leave.

`statvfs` tells of the file system. Quotas are told by `quota` (ext4, XFS, NFS) and by `lfs quota`
(Lustre), where these are on PATH. One that is missing, fails or does not answer says nothing: what
is to be written is then not compared with a quota.
"""

import os
import re
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from vendomini.prepare import Room

TIMEOUT_S = 5
"""Quotas are asked of file servers, which may be down."""

KIB = 1024  # both tools count blocks of so many bytes

# ``Disk quotas for user anna (uid 1000): none``, ``usr`` and ``grp`` by Lustre.
HEADER = re.compile(r"Disk quotas for (user|usr|group|grp) (.+) \((?:uid|gid) (\d+)\)")
# used, quota, limit, grace; of bytes, then of files. A star marks what is exceeded, brackets what
# Lustre is not sure of. The name of the file system may stand in a line of its own.
HALF = r"\[?(\d+)\]?\*?\s+(\d+)\s+(\d+)\s+\S+"
ROW = re.compile(rf"(?:^|\s){HALF}\s+{HALF}\s*$")


def rooms(folder: Path) -> list[Room]:
    """What there is room for in a folder, which need not be there yet."""
    there = folder.absolute()
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        free = os.statvfs(there)
        group = _group_of(there)
        mount = _mount_of(there)
    except OSError:
        return []  # it may not be looked at, which whoever writes there will be told
    return [
        Room(
            whose=f"the file system of `{there}`",
            bytes=free.f_bavail * free.f_frsize if free.f_blocks else None,
            files=free.f_favail if free.f_files else None,  # btrfs has no fixed number of them
        ),
        *_quotas(mount, user=os.getuid(), group=group),
    ]


def quota_rooms(text: str, *, mount: Path, group: int) -> list[Room]:
    """What `quota` and `lfs quota` say of the one file system they were asked about: the user's
    room, and that of the group with this id. The lower limit of two counts: the other may be
    exceeded for some days only."""
    found: list[Room] = []
    whose: str | None = None
    for line in text.splitlines():
        if (header := HEADER.search(line)) is not None:
            kind, name, id = header.groups()
            whose = f"your quota on `{mount}`"
            if kind in ("group", "grp"):
                whose = f"the quota of group `{name}` on `{mount}`" if int(id) == group else None
        elif whose is not None and (row := ROW.search(line)) is not None:
            blocks, files = _left(row.groups()[:3]), _left(row.groups()[3:])
            if blocks is not None or files is not None:
                size = None if blocks is None else blocks * KIB
                found.append(Room(whose=whose, bytes=size, files=files))
    return found


# -- private -------------------------------------------------------------------------------


def _left(numbers: Sequence[str]) -> int | None:
    """Of used, quota and limit; a limit of 0 is none."""
    used, *limits = map(int, numbers)
    lowest = min((limit for limit in limits if limit), default=None)
    return None if lowest is None else max(0, lowest - used)


def _quotas(mount: Path, *, user: int, group: int) -> list[Room]:
    asked = (
        ("quota", "-w", "-p", "-u", "-g", "-f", f"{mount}"),
        ("lfs", "quota", "-u", f"{user}", f"{mount}"),
        ("lfs", "quota", "-g", f"{group}", f"{mount}"),
    )
    return [room for words in asked for room in quota_rooms(_said(words), mount=mount, group=group)]


def _said(words: Sequence[str]) -> str:
    """What a program prints; its status is no error where a quota is exceeded."""
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _group_of(folder: Path) -> int:
    """The group of files that are made in a folder."""
    status = folder.stat()
    return status.st_gid if status.st_mode & stat.S_ISGID else os.getegid()


def _mount_of(folder: Path) -> Path:
    place = folder.resolve()
    while not os.path.ismount(place):
        place = place.parent
    return place
