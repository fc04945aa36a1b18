"""The clock by which leases are judged: it goes on while a machine is suspended or moved."""

import time


def now_s() -> float:
    """Seconds since boot, those of a suspension included.

    `time.monotonic` stands still while a virtual machine is suspended, and whoever wakes would take
    a lease for its own that ran out meanwhile.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)
