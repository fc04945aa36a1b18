"""Keyed randomness: every draw is a function of its place, never of the draws before it.

The key of a stream is the first 8 bytes (big-endian) of
``sha256("vendomini/warehouse/1/<phase seed>/<replication>/<stream>")``. The draw of a stream
at (day, entity) is output number ``65536 * day + entity`` (from 0) of SplitMix64 seeded with
that key:

    z = key + (65536 * day + entity + 1) * 0x9E3779B97F4A7C15      modulo 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9                         modulo 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB                         modulo 2**64
    z ^ z >> 31

and the uniform number of a draw is its upper 53 bits over 2**53, in [0, 1). So a draw that is
added to a stream, or a stream that is added, changes no other draw.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeAlias, TypeVar

StreamName: TypeAlias = Literal[
    "catalogue", "drift", "demand", "reliability", "shock when", "shock what", "random agent"
]

MASK = (1 << 64) - 1
ENTITIES = 1 << 16  # entities a day; a day's counter must not run into the next day's

T = TypeVar("T")


class Stream:
    """The draws of one stream of one run."""

    __slots__ = ("key",)

    def __init__(self, name: StreamName, *, seed: int, replication: int) -> None:
        place = f"vendomini/warehouse/1/{seed}/{replication}/{name}"
        self.key = int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big")

    def uniform(self, day: int, entity: int = 0) -> float:
        """A number in [0, 1)."""
        z = (self.key + (day * ENTITIES + entity + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53

    def between(self, low: float, high: float, day: int, entity: int = 0) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.uniform(day, entity)

    def integer(self, low: int, high: int, day: int, entity: int = 0) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + int((high - low + 1) * self.uniform(day, entity))

    def choice(self, options: Sequence[T], day: int, entity: int = 0) -> T:
        """One of `options`, each as likely; their order matters and must be stable."""
        return options[int(len(options) * self.uniform(day, entity))]
