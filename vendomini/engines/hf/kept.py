"""Keys and values of conversations, kept between their steps: no token is read twice."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

LEAST_SHARED = 16
"""Tokens; a shorter prefix is read again sooner than it is copied."""


class Conversation:
    """What the model has read of one sequence of tokens.

    The first `read` of `tokens` are in `layers`: by layer, keys and values of shape (1, heads,
    room, head size). They are made when the model first tells a layer's shape and device.
    """

    __slots__ = ("layers", "read", "room", "tokens")

    def __init__(self, tokens: list[int], *, room: int) -> None:
        self.tokens = tokens
        self.room = room
        self.read = 0
        self.layers: dict[int, tuple[Any, Any]] = {}

    def write(self, layer: int, keys: Any, values: Any) -> None:
        """What the model computed of the tokens after `read`; `read` itself is the caller's."""
        if layer not in self.layers:
            self.layers[layer] = _with_room(keys, self.room), _with_room(values, self.room)
        end = self.read + keys.shape[2]
        for kept, added in zip(self.layers[layer], (keys, values), strict=True):
            kept[:, :, self.read : end] = added

    def upto(self, layer: int, end: int) -> tuple[Any, Any]:
        keys, values = self.layers[layer]
        return keys[:, :, :end], values[:, :, :end]

    def begin_with(self, other: "Conversation", count: int) -> None:
        """Take over the first `count` tokens of another conversation, which has read them."""
        for layer in other.layers:
            for_layer = other.upto(layer, count)
            self.layers[layer] = tuple(_with_room(each, self.room, each) for each in for_layer)
        self.read = count

    def trimmed(self) -> "Conversation":
        """What was read, without room for more."""
        kept = Conversation(self.tokens[: self.read], room=self.read)
        kept.begin_with(self, self.read)
        return kept


class Kept:
    """Conversations at rest, by how long ago they were used; `tokens` of them in all."""

    def __init__(self) -> None:
        self._at_rest: list[Conversation] = []  # the one used last is the last

    def __iter__(self) -> Iterator[Conversation]:
        return iter(self._at_rest)

    @property
    def tokens(self) -> int:
        return sum(each.room for each in self._at_rest)

    def begin(self, begun: Conversation, under_way: Iterable[Conversation]) -> None:
        """Let it go on from the one that has read most of its tokens, but not the last one: what
        follows that is wanted."""
        best, count = None, LEAST_SHARED - 1
        for other in (*self._at_rest, *under_way):
            shared = _had(begun.tokens, other)
            if shared > count:
                best, count = other, shared
        if best is None:
            return
        begun.begin_with(best, count)
        if best in self._at_rest:
            self._at_rest.remove(best)
            if count < best.read:  # its end is another's, who may come back
                self._at_rest.append(best)

    def coming(self, tokens: list[int], under_way: Sequence[Conversation]) -> int:
        """How many more of `tokens` will have been read soon, by those under way."""
        had = max((_had(tokens, other) for other in (*self._at_rest, *under_way)), default=0)
        soon = max((common(tokens[:-1], other.tokens) for other in under_way), default=0)
        return soon - had

    def keep(self, conversation: Conversation) -> None:
        """Put it to rest; what it goes on from is let go."""
        kept = conversation.trimmed()
        if kept.read < LEAST_SHARED:
            return
        self._at_rest = [
            each for each in self._at_rest if common(each.tokens, kept.tokens) < len(each.tokens)
        ]
        self._at_rest.append(kept)

    def shrink_to(self, tokens: int) -> None:
        """Let go of those that were used longest ago until at most so many tokens are left."""
        while self._at_rest and self.tokens > tokens:
            del self._at_rest[0]


def _had(tokens: list[int], other: Conversation) -> int:
    return min(common(tokens[:-1], other.tokens), other.read)


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


def _with_room(like: Any, room: int, begins: Any = None) -> Any:
    """An empty tensor of `room` tokens, or one that begins with what is given."""
    made = torch.empty((*like.shape[:2], room, like.shape[3]), dtype=like.dtype, device=like.device)
    if begins is not None:
        made[:, :, : begins.shape[2]] = begins
    return made
