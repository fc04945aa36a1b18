"""The file operations an experiment is made of, each safe against a crash at any moment.

All others of this package go through a `Disk`: what fails is tried again there as its error number
deserves, and tests can make one slow, stale or full.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vendomini.errors import DiskError
from vendomini.store.trying import NO_LINKS, PASSING, Patience

T = TypeVar("T")

PART_BYTES = 4 << 20  # of a log that is read from its beginning to its end
CANNOT_SYNC_FOLDERS = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES})
"""What `open` and `fsync` of a folder say where its names cannot be synced, or need not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What a listing tells of a file: `size` in bytes, `changed` in ns since 1970."""

    size: int
    changed: int


NO_FILE = frozenset({errno.EISDIR, errno.EINVAL, errno.ELOOP})
"""What reading says where a folder, a pipe or a circle of links stands in the place of a file."""

NOWHERE = Stamp(size=0, changed=0)
"""The stamp of a link that leads nowhere."""


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
    fresh listings, clocks that agree, locks. Every method raises `DiskError` for what trying again
    did not mend.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        """For how long operations that fail are tried again. A worker sets its own."""

    # -- reading -------------------------------------------------------------------------

    def names(self, folder: Path) -> list[str]:
        """What a listing shows, perhaps late; temporary files are left out."""
        return [name for name in self._listing(folder) if not name.startswith(".")]

    def _listing(self, folder: Path) -> list[str]:
        def list_it() -> list[str]:
            try:
                return os.listdir(folder)
            except (FileNotFoundError, NotADirectoryError):
                return []

        return self._read("read", folder, list_it)

    def stamps(self, folder: Path) -> dict[str, Stamp]:
        """What a listing shows, as `names`, with each file's stamp."""

        def list_them() -> dict[str, Stamp]:
            found = {}
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not entry.name.startswith("."):
                            found[entry.name] = NOWHERE
                            try:
                                found[entry.name] = _stamp(entry.stat())
                            except OSError as error:
                                if error.errno not in (errno.ENOENT, errno.ELOOP):
                                    raise
            except (FileNotFoundError, NotADirectoryError):
                return {}
            return found

        return self._read("read", folder, list_them)

    def read(self, path: Path, *, waits: bool = False) -> bytes | None:
        """The whole file, opened anew; None if there is none. `waits` as of `exists`."""

        def read_it() -> bytes | None:
            try:
                with _opened(path) as handle:
                    size = os.fstat(handle).st_size
                    parts = []
                    while part := os.read(handle, max(size + 1, 1 << 12)):
                        parts.append(part)
                    return b"".join(parts)
            except FileNotFoundError:
                return None

        return self.patience.tried("read", path, read_it, writes=waits)

    def blocks(self, path: Path) -> Iterator[bytes]:
        """A file from its beginning to its end, in parts; nothing if there is none.

        Not mapped into memory: a file that is cut meanwhile, or whose disk fails, would kill.
        """
        at = 0
        while part := self.read_at(path, at, PART_BYTES):
            yield part
            at += len(part)

    def read_at(self, path: Path, start: int, size: int) -> bytes:
        """At most so many bytes from `start` on; none beyond the end, or if there is no file."""

        def read_it() -> bytes:
            try:
                with _opened(path) as handle:
                    return os.pread(handle, size, start)
            except FileNotFoundError:
                return b""

        return self._read("read", path, read_it)

    def read_pieces(self, path: Path, starts: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """The pieces of a file that begin there and have these sizes, in bytes."""

        def read_them() -> list[bytes]:
            with _opened(path) as handle:
                return [os.pread(handle, *each) for each in zip(sizes, starts, strict=True)]

        return self._read("read", path, read_them)

    def exists(self, path: Path, *, waits: bool = False) -> bool:
        """By opening rather than listing: an open asks the server, a listing may be old.

        `waits`: it is tried for as long as a write, of which it is a part.
        """

        def open_it() -> bool:
            try:
                _close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
            except (FileNotFoundError, NotADirectoryError):
                return False
            except PermissionError:
                os.lstat(path)  # another user's: that it may not be read says that it is there
            return True

        return self.patience.tried("read", path, open_it, writes=waits)

    def stamp(self, path: Path) -> Stamp | None:
        """None if there is no such file."""

        def look_at_it() -> Stamp | None:
            try:
                return _stamp(os.stat(path))
            except (FileNotFoundError, NotADirectoryError):
                return None

        return self._read("read", path, look_at_it)

    def leads_nowhere(self, path: Path) -> bool:
        """Whether it is a link to what is not there, which is not late: it never comes."""
        return self._read("read", path, lambda: os.path.islink(path) and not os.path.exists(path))

    def size(self, path: Path) -> int:
        """In bytes; 0 if there is no such file."""
        found = self.stamp(path)
        return 0 if found is None else found.size

    # -- writing -------------------------------------------------------------------------

    def make_folder(self, folder: Path) -> None:
        """With those above it; none of it is lost in a crash."""

        def make_it() -> None:
            for new in reversed([each for each in (folder, *folder.parents) if not each.is_dir()]):
                new.mkdir(exist_ok=True)
                self._sync_once(new.parent)

        self._write("make the folder", folder, make_it)

    def make_new_folder(self, folder: Path) -> bool:
        """False if it exists."""

        def make_it() -> bool:
            try:
                folder.mkdir()
            except FileExistsError:
                return False
            return True

        return self._write("make the folder", folder, make_it)

    def sync_folder(self, folder: Path) -> None:
        """The names in it, as they are now, are on the disk when this returns."""
        self._write("write", folder, lambda: self._sync_once(folder))

    def write_atomic(self, path: Path, content: bytes, *, lasts: bool = True) -> None:
        """Replace `path` so that readers see the old content or the new, never a part.

        `lasts`: a crash of the machine does not bring the old content back.
        """

        def write_it() -> None:
            # From its beginning each time: a rename whose answer was lost has taken the file away.
            temporary = _write_temporary(path, content)
            try:
                os.replace(temporary, path)
            except FileNotFoundError as error:
                # A server that has restarted is asked twice, and its first answer was lost.
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path)) from error
            except BaseException:
                _unlink(temporary)
                raise
            if lasts:
                self._sync_once(path.parent)

        self._write("write", path, write_it)

    def write_temporary(self, path: Path, content: bytes) -> Path:
        """A finished file beside `path`: renaming and linking work only within a file system."""
        return self._write("write", path, lambda: _write_temporary(path, content))

    def link(self, finished: Path, path: Path) -> bool:
        """Publish a finished file under a name that must be new; False if it was taken.

        A network file system may carry out a link and lose the answer: then the name is
        taken, but by this very file, which counts as published.
        """

        def link_it() -> bool:
            try:
                os.link(finished, path)
            except FileExistsError:
                try:
                    return os.path.samefile(finished, path)
                except FileNotFoundError:
                    return False  # taken by another, who has let go of it since, or leads nowhere
            return True

        try:
            return self._write("write", path, link_it)
        except DiskError as error:
            if error.errno in NO_LINKS:
                raise DiskError(
                    f"cannot link `{path}`: its file system has no hard links, by which runs are "
                    "claimed and results published",
                    errno=error.errno,
                    hint="choose a folder on another file system with --root",
                ) from error
            raise

    def publish(self, path: Path, content: bytes, *, lasts: bool = True) -> bool:
        """Write `path` whole, once for all; False if somebody else had.

        `lasts`: it is there after a crash of the machine, too.
        """
        temporary = self.write_temporary(path, content)
        try:
            is_mine = self.link(temporary, path)
        finally:
            _unlink(temporary)
        if is_mine and lasts:
            self.sync_folder(path.parent)
        return is_mine

    def move(self, path: Path, to: Path) -> bool:
        """Rename; False if it is not there (any more)."""

        def move_it() -> bool:
            try:
                os.rename(path, to)
            except FileNotFoundError:
                return False
            return True

        return self._write("move", path, move_it)

    def remove(self, path: Path) -> None:
        def remove_it() -> None:
            path.unlink(missing_ok=True)

        self._write("remove", path, remove_it)

    # -- private -------------------------------------------------------------------------

    def _read(self, deed: str, path: Path, work: Callable[[], T]) -> T:
        return self.patience.tried(deed, path, work, writes=False)

    def _write(self, deed: str, path: Path, work: Callable[[], T]) -> T:
        return self.patience.tried(deed, path, work, writes=True)

    @staticmethod
    def _sync_once(folder: Path) -> None:
        handle = -1
        try:
            handle = os.open(folder, os.O_RDONLY)
            os.fsync(handle)
        except OSError as error:
            if error.errno not in CANNOT_SYNC_FOLDERS:
                raise
        finally:
            if handle >= 0:
                _close(handle)


def write_all(handle: int, content: bytes, at: int) -> None:
    """Write to a place of a file; raises `OSError`."""
    view = memoryview(content)
    while view:
        written = os.pwrite(handle, view, at)
        if not written:  # no file system may; one that did would be asked without end
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        view, at = view[written:], at + written


# -- private -------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A pipe in the place of a file would be waited for without end, and a device may have none."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG((found := os.fstat(handle)).st_mode):
            number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.EINVAL
            raise OSError(number, "it is no file", str(path))
        yield handle
    finally:
        _close(handle)


def _write_temporary(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        try:
            write_all(handle, content, 0)
            os.fsync(handle)
        finally:
            _close(handle)
    except BaseException:
        _unlink(temporary)
        raise
    return temporary


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(size=found.st_size, changed=found.st_mtime_ns)


def _close(handle: int) -> None:
    """What was to be kept is synced by now: nothing follows from a close that fails."""
    with suppress(OSError):
        os.close(handle)


def _unlink(temporary: Path) -> None:
    """One that stays is hidden, and in nobody's way."""
    with suppress(OSError):
        os.unlink(temporary)


def is_passing(error: DiskError) -> bool:
    """Whether the same operation may well succeed later."""
    return error.errno in PASSING
