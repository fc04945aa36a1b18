"""A file operation that failed, by its error number: tried again, waited for, or given up.

The one place that knows error numbers. On a shared file system most failures pass: a server
restarts, a file is replaced under a reader, a quota is raised. An engine that took half an hour to
load is not to end for one of them.
"""

import errno
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from vendomini.errors import DiskError
from vendomini.store.clock import now_s

T = TypeVar("T")

PASSING = frozenset(
    {
        errno.ESTALE,
        errno.EIO,
        errno.EREMOTEIO,
        errno.ETIMEDOUT,
        errno.EAGAIN,
        errno.EINTR,
        errno.EBUSY,
        errno.ENOLCK,
        errno.ESHUTDOWN,
        errno.ENOTCONN,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOBUFS,
    }
)
"""What may be gone a moment later."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""What somebody else has to mend, while writers wait."""

NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What `link` says on a file system that has none."""

QUICK_S = 5.0
"""For how long everything that may pass is tried again."""
FIRST_WAIT_S = 0.02
LONGEST_WAIT_S = 2.0

ELSEWHERE = "choose another folder (--root, or --out of `collect`)"
AGAIN = "run the same command again when it works: nothing is lost"
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
        frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL}),
        f"something of that name is in the way: {ELSEWHERE}",
    ),
    (frozenset({errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP}), ELSEWHERE),
    (PASSING, f"the file system fails: {AGAIN}"),
)
"""What a user does about a failed file operation, by its error number."""


class Patience:
    """How long operations that fail are tried again: some seconds, and writes of a worker for as
    long as its lease lives, since nobody may take its runs meanwhile.

    `lives` says whether it does; `say` is told, once a spell, what is waited for.
    """

    def __init__(
        self,
        *,
        lives: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
        clock: Callable[[], float] = now_s,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._lives = lives
        self._say = say
        self._clock = clock
        self._sleep = sleep
        self._in_vain = 0  # spells that did not pass, in a row

    def tried(self, deed: str, path: Path, work: Callable[[], T], *, writes: bool) -> T:
        """What `work` returns, which may be called many times. Raises `DiskError`."""
        began: float | None = None  # None: nothing has failed
        wait, said = FIRST_WAIT_S, False
        while True:
            try:
                result = work()
            except OSError as error:
                now = self._clock()
                began = now if began is None else began
                if not self._goes_on(error.errno or 0, now - began, writes=writes):
                    self._in_vain += error.errno in PASSING
                    raise explanation(deed, path, error) from error
                if not said and (error.errno in FULL or now - began > QUICK_S / 2):
                    said = True
                    self._say(f"waits: {explanation(deed, path, error)}")
            else:
                if began is not None:
                    self._in_vain = 0
                if said:
                    self._say(f"goes on: can {deed} `{path}` again")
                return result
            # Not in step with all the others that have met the same failure.
            self._sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, LONGEST_WAIT_S)

    def _goes_on(self, number: int, failing_s: float, *, writes: bool) -> bool:
        # A disk that is broken for good is not waited for at each of a thousand files.
        if number in PASSING and failing_s < QUICK_S / 2 ** min(self._in_vain, 10):
            return True
        return writes and number in PASSING | FULL and self._lives()


def explanation(deed: str, path: Path, error: OSError) -> DiskError:
    """A failed operation in words, with what to do about it."""
    number = error.errno or 0
    hint = next((hint for numbers, hint in MENDED_BY if number in numbers), AGAIN)
    return DiskError(f"cannot {deed} `{path}`: {error.strerror or error}", errno=number, hint=hint)


@contextmanager
def explained(deed: str, path: Path) -> Iterator[None]:
    """Turn a failed file operation into a `DiskError`, which says which and what to do."""
    try:
        yield
    except OSError as error:
        raise explanation(deed, path, error) from error
