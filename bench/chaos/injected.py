"""Faults in the file operations of a Python process: what `sitecustomize` loads into each of an
experiment's processes, told by the variable VENDOMINI_CHAOS_FAULTS (JSON of `Faults`).

Only operations on paths below the experiment's folder fail, and none below its `jobs/`, which are
submitit's. An operation fails before it is carried out or, where an answer can be lost (link,
rename, mkdir, unlink), half of the time after it was. Every fault is a line of a file outside the
experiment. It imports nothing of VendoMini, so that it serves any checkout.
"""

import builtins
import dataclasses
import errno as errnos
import io
import json
import os
import random
import re
import time
from collections.abc import Callable
from typing import Any

VARIABLE = "VENDOMINI_CHAOS_FAULTS"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What fails. `noted` is a folder for the counts.

    `errno` is drawn with `probability` for each of `operations` (all, if empty) on a path, as it is
    below `folder`, that `pattern` finds. With a `spell_s` that is only so many seconds from the
    first published result on, for all processes alike. `links` is how many names a file may have
    before `link` says EMLINK. `delay_s` comes before every operation, failing or not. `reading`:
    only opens that write nothing fail. `writing`: only operations that change something fail.
    `dead_after_s` replaces that of job files: tests need not wait three minutes.
    """

    folder: str
    noted: str
    errno: int = 0
    probability: float = 0.0
    seed: int = 0
    operations: tuple[str, ...] = ()
    pattern: str = ""
    spell_s: float = 0.0
    links: int = 0
    delay_s: float = 0.0
    reading: bool = False
    writing: bool = False
    dead_after_s: float = 0.0

    def variable(self) -> dict[str, str]:
        return {VARIABLE: json.dumps(dataclasses.asdict(self))}


BY_PATH = ("open", "stat", "lstat", "listdir", "scandir", "mkdir", "unlink", "remove", "rmdir")
BY_HANDLE = ("read", "write", "pread", "pwrite", "fsync", "fdatasync", "close", "ftruncate")
BY_TWO = ("link", "rename", "replace")
LOSES_ITS_ANSWER = frozenset({"link", "rename", "replace", "mkdir", "unlink", "remove"})
CHANGES = frozenset({"write", "pwrite", "fsync", "fdatasync", "mkdir", "ftruncate", *BY_TWO})
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Injector:
    """Wraps the file operations of this process."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._real: dict[str, Callable[..., Any]] = {}
        self._below = faults.folder.rstrip("/") + "/"
        self._pattern = re.compile(faults.pattern)
        self._sleep = time.sleep
        self._open, self._write, self._link = os.open, os.write, os.readlink
        self._read = os.read
        self._began: float | None = None  # None: the spell has not begun, as far as is known
        self._random = random.Random(f"{faults.seed}:{self._number()}")
        self._notes: int | None = None

    def install(self) -> None:
        for name in BY_PATH:
            self._wrap(name, self._by_path)
        for name in BY_HANDLE:
            self._wrap(name, self._by_handle)
        for name in BY_TWO:
            self._wrap(name, self._by_two)
        self._real["io.open"] = io.open
        builtins.open = io.open = self._opened

    def _wrap(self, name: str, kind: Callable[[str], Callable[..., Any]]) -> None:
        real = getattr(os, name)
        self._real[name] = real
        wrapped = kind(name)
        setattr(os, name, wrapped)
        for supported in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
            if real in supported:
                supported.add(wrapped)

    def _by_path(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if isinstance(path, int):
                return real(path, *args, **kwargs)
            relative = self._relative(path)
            if relative is None:
                return real(path, *args, **kwargs)
            flags = args[0] if name == "open" and args else kwargs.get("flags", 0)
            return self._carry_out(
                name,
                relative,
                lambda: real(path, *args, **kwargs),
                (path,),
                changes=name in CHANGES or bool(name == "open" and flags & WRITE_FLAGS),
            )

        return call

    def _by_handle(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(handle: Any, *args: Any) -> Any:
            relative = self._of_handle(handle)
            if relative is None:
                return real(handle, *args)
            if self._faults.dead_after_s and name in ("write", "pwrite") and args:
                args = (_sooner(bytes(args[0]), self._faults.dead_after_s), *args[1:])
            return self._carry_out(
                name, relative, lambda: real(handle, *args), (), changes=name in CHANGES
            )

        return call

    def _by_two(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(source: Any, target: Any, **kwargs: Any) -> Any:
            relative = self._relative(target)
            if relative is None:
                return real(source, target, **kwargs)
            if name == "link" and self._faults.links and not self._is_spared(relative):
                names = self._real["stat"](source).st_nlink
                if names > self._faults.links:
                    self._note("link", relative, "before", errnos.EMLINK)
                    raise self._error(errnos.EMLINK, (source, None, target))
            return self._carry_out(
                name,
                relative,
                lambda: real(source, target, **kwargs),
                (source, None, target),
                changes=True,
            )

        return call

    def _opened(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        real = self._real["io.open"]
        relative = None if isinstance(file, int) else self._relative(file)
        if relative is None:
            return real(file, mode, *args, **kwargs)
        return self._carry_out(
            "open",
            relative,
            lambda: real(file, mode, *args, **kwargs),
            (file,),
            changes=bool(set(mode) & set("wax+")),
        )

    def _carry_out(
        self,
        name: str,
        relative: str,
        real: Callable[[], Any],
        paths: tuple[Any, ...],
        *,
        changes: bool,
    ) -> Any:
        if self._is_spared(relative):
            return real()
        if self._faults.delay_s:
            self._sleep(self._faults.delay_s)
        if not self._is_drawn(name, relative, changes):
            return real()
        # Linux closes a file whatever `close` says.
        is_after = name == "close" or (name in LOSES_ITS_ANSWER and self._random.random() < 0.5)
        if is_after:
            real()
        self._note(name, relative, "after" if is_after else "before", self._faults.errno)
        raise self._error(self._faults.errno, paths)

    def _is_drawn(self, name: str, relative: str, changes: bool) -> bool:
        faults = self._faults
        if not faults.probability or (faults.operations and name not in faults.operations):
            return False
        if (faults.reading and changes) or (faults.writing and not changes):
            return False
        if self._pattern.search(relative) is None:
            return False
        if faults.spell_s and not self._is_in_spell(name, relative):
            return False
        return faults.probability >= 1 or self._random.random() < faults.probability

    def _is_in_spell(self, name: str, relative: str) -> bool:
        if self._began is None:
            path = os.path.join(self._faults.noted, "spell")
            try:
                handle = self._open(path, os.O_RDONLY)
            except FileNotFoundError:
                if name not in BY_TWO or not relative.startswith("results/"):
                    return False
                handle = self._open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
                self._write(handle, b"%16.6f\n" % time.monotonic())
                os.close(handle)
                return False
            text = self._read(handle, 16)
            os.close(handle)
            if len(text) < 16:
                return False
            self._began = float(text)
        return time.monotonic() < self._began + self._faults.spell_s

    def _relative(self, path: Any) -> str | None:
        """The path below the experiment's folder; "" for itself, None elsewhere."""
        try:
            text = os.fsdecode(path)
        except TypeError:
            return None
        if not text.startswith("/") or ".." in text:
            text = os.path.abspath(text)
        if text.startswith(self._below):
            return text[len(self._below) :]
        return "" if text + "/" == self._below else None

    def _of_handle(self, handle: Any) -> str | None:
        try:
            return self._relative(self._link(f"/proc/self/fd/{handle}"))
        except (OSError, ValueError, TypeError):
            return None

    def _is_spared(self, relative: str) -> bool:
        return relative == "jobs" or relative.startswith("jobs/")

    def _error(self, number: int, paths: tuple[Any, ...]) -> OSError:
        named = paths if paths else ()
        return OSError(number, os.strerror(number), *named)

    def _note(self, name: str, relative: str, when: str, number: int) -> None:
        if self._notes is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._notes = self._open(os.path.join(self._faults.noted, "faults"), flags, 0o666)
        what = errnos.errorcode.get(number, str(number))
        self._write(self._notes, f"{os.getpid()} {what} {name} {when} {relative}\n".encode())

    def _number(self) -> int:
        """Which process of the experiment this is, counted: so each draws otherwise."""
        number = 0
        while True:
            try:
                path = os.path.join(self._faults.noted, f"process.{number}")
                os.close(self._open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                return number
            except FileExistsError:
                number += 1


def _sooner(content: bytes, seconds: float) -> bytes:
    """A job file's `dead_after_s` replaced, in as many bytes: the caller counts them."""

    def shorter(match: "re.Match[bytes]") -> bytes:
        return match[1] + f"{seconds:.9f}"[: len(match[2])].encode()

    return DEAD_AFTER.sub(shorter, content, count=1)


DEAD_AFTER = re.compile(rb'("dead_after_s":)(\d+\.\d+)')


def install() -> None:
    told = os.environ.get(VARIABLE)
    if told is not None:
        known = json.loads(told)
        Injector(Faults(**{**known, "operations": tuple(known["operations"])})).install()
