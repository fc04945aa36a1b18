"""The file operations an experiment is made of, each safe against a crash at any moment.

All others of this package go through a `Disk`, so that tests can make one slow, stale or full.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vendomini.errors import StoreError

ELSEWHERE = "choose another folder (--root, or --out of `collect`)"
MENDED_BY: tuple[tuple[frozenset[int], str], ...] = (
    (
        frozenset({errno.ENOSPC, errno.EDQUOT}),
        "free space or quota, then run the same command again: nothing is lost",
    ),
    (
        frozenset({errno.EACCES, errno.EPERM, errno.EROFS}),
        f"{ELSEWHERE}, or ask for the right to use this one",
    ),
    (
        frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR}),
        f"something of that name is in the way: {ELSEWHERE}",
    ),
    (frozenset({errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP}), ELSEWHERE),
    (
        frozenset({errno.EIO, errno.ESTALE}),
        "the file system fails: run the same command again when it works",
    ),
)
"""What a user does about a failed file operation, by its error number."""


BLOCK_BYTES = 4096
"""What a file takes at least, on ext4, XFS and Lustre as they are made; others take more."""

UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def size_in_words(size: int) -> str:
    """Bytes with two digits, or those before the point: ``0.42 GB``, ``310 MB``, ``12 bytes``."""
    for unit, name in UNITS:
        if size >= unit // 10 and size >= 1000:
            value = size / unit
            return f"{value:,.0f} {name}" if value >= 9.95 else f"{value:.2g} {name}"
    return f"{size} bytes"


class Disk:
    """A shared file system, as little of it as is needed.

    Relied on: `os.link` fails if the name exists, and `os.replace` is atomic. Not relied on:
    a directory listing that shows what another machine did a moment ago.
    """

    def names(self, folder: Path) -> list[str]:
        """What a listing shows, perhaps late; temporary files are left out."""
        with explained("read", folder):
            try:
                return [name for name in os.listdir(folder) if not name.startswith(".")]
            except (FileNotFoundError, NotADirectoryError):
                return []

    def read(self, path: Path) -> bytes | None:
        """The whole file, opened anew; None if there is none."""
        with explained("read", path):
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

    def exists(self, path: Path) -> bool:
        """By opening rather than listing: an open asks the server, a listing may be old."""
        with explained("read", path):
            try:
                os.close(os.open(path, os.O_RDONLY))
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True

    def size(self, path: Path) -> int:
        """In bytes; 0 if there is no such file."""
        with explained("read", path):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return 0

    def make_folder(self, folder: Path) -> None:
        with explained("make the folder", folder):
            folder.mkdir(parents=True, exist_ok=True)

    def make_new_folder(self, folder: Path) -> bool:
        """False if it exists."""
        with explained("make the folder", folder):
            try:
                folder.mkdir()
            except FileExistsError:
                return False
            return True

    def write_atomic(self, path: Path, content: bytes) -> None:
        """Replace `path` so that readers see the old content or the new, never a part."""
        with explained("write", path):
            temporary = self.write_temporary(path, content)
            try:
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise

    def write_temporary(self, path: Path, content: bytes) -> Path:
        """A finished file beside `path`: renaming and linking work only within a file system."""
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with explained("write", path):
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            try:
                try:
                    view = memoryview(content)
                    while view:
                        view = view[os.write(handle, view) :]
                    os.fsync(handle)
                finally:
                    os.close(handle)
            except BaseException:
                os.unlink(temporary)
                raise
        return temporary

    def link(self, finished: Path, path: Path) -> bool:
        """Publish a finished file under a name that must be new; False if it was taken.

        A network file system may carry out a link and lose the answer: then the name is
        taken, but by this very file, which counts as published.
        """
        with explained("write", path):
            try:
                os.link(finished, path)
            except FileExistsError:
                return os.path.samefile(finished, path)
            return True

    def publish(self, path: Path, content: bytes) -> bool:
        """Write `path` whole, once for all; False if somebody else had."""
        temporary = self.write_temporary(path, content)
        try:
            return self.link(temporary, path)
        finally:
            self.remove(temporary)

    def append(self, handle: int, content: bytes, path: Path) -> None:
        """Write to a file opened for appending; raises `StoreError` when the disk is full."""
        with explained("write", path):
            view = memoryview(content)
            while view:
                view = view[os.write(handle, view) :]

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)


@contextmanager
def explained(deed: str, path: Path) -> Iterator[None]:
    """Turn what a user can mend (a full disk, missing rights) into a `StoreError`."""
    try:
        yield
    except OSError as error:
        for numbers, hint in MENDED_BY:
            if error.errno in numbers:
                raise StoreError(f"cannot {deed} `{path}`: {error.strerror}", hint=hint) from error
        raise
