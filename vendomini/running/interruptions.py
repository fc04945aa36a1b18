"""Ctrl-C and TERM while runs are played, wherever the one who calls is.

Only the main thread may handle signals, and only there they interrupt anything: in another
thread all of this leaves the handlers alone.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""The exit status of what was interrupted, as shells have it."""

STOPS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def like_ctrl_c() -> Iterator[None]:
    """A TERM that would end this process interrupts it instead; at the end of the block all
    handlers are those of before."""
    if not _is_main():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPS}
    if before[signal.SIGTERM] is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: of C code, which cannot be put back
                signal.signal(number, handler)


@contextmanager
def later() -> Iterator[None]:
    """Ctrl-C and TERM wait until the end of the block: no worker is started and not known of.

    Ctrl-C is blocked rather than handled: processes that are started inherit the block, and are
    not to hear it anyway.
    """
    terms: list[int] = []
    handler = signal.getsignal(signal.SIGTERM) if _is_main() else None
    if handler is not None:
        signal.signal(signal.SIGTERM, lambda number, _: terms.append(number))
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if terms:
        raise KeyboardInterrupt


def answer(ask: Callable[..., None]) -> None:
    """From now on both do no more than call this."""
    if _is_main():
        for number in STOPS:
            signal.signal(number, ask)


# -- private -------------------------------------------------------------------------------


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
