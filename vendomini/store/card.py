"""One file that goes by many names, such as all the claims of a worker."""

import errno
from pathlib import Path

from vendomini.errors import DiskError
from vendomini.store.disk import Disk


class Card:
    """One finished file with any number of names: a name more costs no inode."""

    def __init__(self, disk: Disk, folder: Path, content: bytes) -> None:
        self._disk = disk
        self._folder = folder
        self._content = content
        self._file: Path | None = None

    def link(self, path: Path) -> bool:
        """Give it this name; False if the name was taken."""
        for _ in range(2):
            if self._file is None:
                self._file = self._disk.write_temporary(self._folder / "card", self._content)
            try:
                return self._disk.link(self._file, path)
            except DiskError as error:
                # A file may have 65,000 names on ext4; and somebody may have tidied this one away.
                if error.errno not in (errno.EMLINK, errno.ENOENT):
                    raise
                last = error
                self.close()
        raise last

    def close(self) -> None:
        """Its names stay."""
        if self._file is not None:
            self._disk.remove(self._file)
            self._file = None
