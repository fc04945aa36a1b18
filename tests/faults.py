"""File operations that fail, in this process: below one folder, as a test decides.

What is replaced are functions of `os`: everything above them is the program's own.
"""

import errno
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ON_PATHS = ("open", "link", "replace", "rename", "unlink", "listdir", "scandir", "stat", "mkdir")
ON_FILES = ("read", "pread", "pwrite", "fsync", "fdatasync")
Decide = Callable[[str, str], int | None]
"""From an operation and its path to an error number; None: it works."""


class Faults:
    """While it is there, operations below `folder` fail as `decide` says.

    `lost`: the operations that are carried out before they fail, as a server does whose answer is
    lost. `room`: how many bytes may still be written; None: any number.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.decide: Decide = lambda operation, path: None
        self.lost: frozenset[str] = frozenset()
        self.room: int | None = None
        self.failed: Counter[str] = Counter()
        self.done: list[tuple[str, str]] = []
        self._folder = str(folder)
        self._lock = threading.Lock()
        for name in (*ON_PATHS, *ON_FILES):
            monkeypatch.setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(first: Any, *others: Any, **named: Any) -> Any:
            path = self._path(name, first)
            if path is None:
                return real(first, *others, **named)
            number = self.decide(name, path)
            if number is not None:
                self.failed[name] += 1
                if name in self.lost:
                    real(first, *others, **named)
                raise OSError(number, os.strerror(number), path)
            self.done.append((name, path))
            if name == "pwrite" and self.room is not None:
                return self._within(real, path, first, *others)
            return real(first, *others, **named)

        return operation

    def _within(
        self, real: Callable[..., int], path: str, handle: int, content: Any, at: int
    ) -> int:
        with self._lock:  # two threads that take the same room would leave less than none
            room = self.room
            if room is None:
                return real(handle, content, at)
            if not room and len(content):
                self.failed["pwrite"] += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            written = real(handle, content[:room], at)
            if self.room is not None:  # nobody has made room meanwhile
                self.room = room - written
            return written

    def _path(self, name: str, first: Any) -> str | None:
        """None: it is none of ours."""
        try:
            path = os.readlink(f"/proc/self/fd/{first}") if name in ON_FILES else os.fspath(first)
        except (OSError, TypeError):
            return None
        return path if isinstance(path, str) and path.startswith(self._folder) else None


def every(nth: int, number: int, *operations: str) -> Decide:
    """Each nth of these operations fails (of all, without any)."""
    count = 0

    def decide(operation: str, path: str) -> int | None:
        nonlocal count
        if operations and operation not in operations:
            return None
        count += 1
        return number if count % nth == 0 else None

    return decide


def sometimes(share: float, number: int, *, seed: int) -> Decide:
    """That share of all operations fails."""
    drawn = random.Random(seed)
    return lambda operation, path: number if drawn.random() < share else None
