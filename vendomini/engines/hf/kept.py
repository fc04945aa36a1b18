"""Keys and values of conversations, kept between their steps: no token is read twice."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

LEAST_SHARED = 16
"""Tokens; a shorter prefix is read again sooner than it is copied."""

ROOM_STEP = 64
"""Tokens in which an arena grows."""

Layers = dict[int, tuple[Any, Any]]
"""By layer, keys and values of shape (rows, heads, room, head size)."""


class Conversation:
    """What the model has read of one sequence of tokens: the first `read` of `tokens`.

    They are in row `row` of `layers`, which is an arena's while a reply is drawn.
    """

    __slots__ = ("layers", "read", "row", "tokens")

    def __init__(self, tokens: list[int], layers: Layers, row: int = 0) -> None:
        self.tokens = tokens
        self.layers = layers
        self.row = row
        self.read = 0

    def upto(self, layer: int, end: int) -> tuple[Any, Any]:
        """Keys and values (1, heads, end, head size) of its first tokens."""
        keys, values = (each[self.row : self.row + 1, :, :end] for each in self.layers[layer])
        return keys, values

    def at_rest(self) -> "Conversation":
        """What was read, in tensors of its own."""
        layers = {}
        for layer in self.layers:
            keys, values = self.upto(layer, self.read)
            layers[layer] = keys.clone(), values.clone()
        rests = Conversation(self.tokens[: self.read], layers)
        rests.read = self.read
        return rests


class Arena:
    """The conversations whose replies are drawn, side by side in `rows` of `room` tokens.

    So one kernel attends for all of them. The model tells a layer's shape and device when it first
    writes to it.
    """

    def __init__(self) -> None:
        self.rows = self.room = 0
        self.layers: Layers = {}
        self._under_way: dict[int, Conversation] = {}

    def size_with(self, need: int, *, most: int) -> tuple[int, int]:
        """Rows and room that it has with one more conversation, of so many tokens at its end.

        It grows by half at a time, while it has at most `most` tokens, and gives up rows that
        nobody uses where it has to be made anew.
        """
        wanted = -(-need // ROOM_STEP) * ROOM_STEP
        if not self._under_way and self.room >= 2 * wanted:
            return 1, wanted  # what came before was longer
        room, rows = max(self.room, wanted), self.rows
        if room != self.room or rows * room > most:
            rows = max(self._under_way, default=-1) + 1
        if len(self._under_way) == rows:
            rows = max(rows + 1, min(rows + rows // 2, most // room))
        return rows, room

    def begin(
        self,
        tokens: list[int],
        size: tuple[int, int],
        best: Conversation | None = None,
        shared: int = 0,
    ) -> Conversation:
        """A conversation that has read the first `shared` tokens, which are those of `best`.

        `size` is by `size_with`.
        """
        if size != (self.rows, self.room):
            self._resize(size)
        row = min(set(range(self.rows)) - self._under_way.keys())
        begun = Conversation(tokens, self.layers, row)
        if best is not None:
            for layer in best.layers:
                parts = best.upto(layer, shared)
                for old, new in zip(parts, self.of(layer, *parts), strict=True):
                    new[row, :, :shared] = old[0]
            begun.read = shared
        self._under_way[row] = begun
        return begun

    def _resize(self, size: tuple[int, int]) -> None:
        used = max((each.read for each in self._under_way.values()), default=0)
        before = max(self._under_way, default=-1) + 1
        self.rows, self.room = size
        for layer, parts in list(self.layers.items()):
            del self.layers[layer]
            for old, new in zip(parts, self.of(layer, *parts), strict=True):
                new[:before, :, :used] = old[:before, :, :used]

    def of(self, layer: int, keys: Any, values: Any) -> tuple[Any, Any]:
        """A layer's keys and values, which are like these."""
        if layer not in self.layers:
            # Zeros: what a row does not see is multiplied by zero, and must be a number.
            made = [
                torch.zeros(
                    (self.rows, like.shape[1], self.room, like.shape[3]),
                    dtype=like.dtype,
                    device=like.device,
                )
                for like in (keys, values)
            ]
            self.layers[layer] = made[0], made[1]
        return self.layers[layer]

    def leave(self, conversation: Conversation) -> None:
        del self._under_way[conversation.row]


class Kept:
    """Conversations at rest, by how long ago they were used."""

    def __init__(self) -> None:
        self._at_rest: list[Conversation] = []  # the one used last is the last

    def __iter__(self) -> Iterator[Conversation]:
        return iter(self._at_rest)

    @property
    def tokens(self) -> int:
        return sum(each.read for each in self._at_rest)

    def longest(
        self, tokens: list[int], under_way: Iterable[Conversation]
    ) -> tuple[Conversation | None, int]:
        """Who has read most of the tokens, and how many; never the last: what follows is wanted.

        One at rest that is gone on with to its end rests no more.
        """
        best, count = None, LEAST_SHARED - 1
        for other in (*self._at_rest, *under_way):
            shared = min(common(tokens[:-1], other.tokens), other.read)
            if shared > count:
                best, count = other, shared
        if best is None:
            return None, 0
        if best in self._at_rest:
            self._at_rest.remove(best)
            if count < best.read:  # its end is another's, who may come back
                self._at_rest.append(best)
        return best, count

    def keep(self, conversation: Conversation) -> None:
        """Put it to rest; those that it goes on from are let go."""
        tokens = conversation.tokens[: conversation.read]
        if len(tokens) < LEAST_SHARED:
            return
        self._at_rest = [
            each for each in self._at_rest if common(each.tokens, tokens) < len(each.tokens)
        ]
        self._at_rest.append(conversation.at_rest())

    def shrink_to(self, tokens: int) -> None:
        """Let go of those that were used longest ago until at most so many tokens are left."""
        while self._at_rest and self.tokens > tokens:
            del self._at_rest[0]


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # alike up to low, not up to high
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low
