"""Tokens of several conversations side by side in one pass, each attending to its own.

They are packed without padding: every layer but attention takes each token by itself. Attention
is computed for all conversations together that read one token, over their rows of the arena, and
for each of the others by itself.
"""

import inspect
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vendomini.engines.hf.kept import Arena, Conversation

TRIAL = 24
"""Tokens on which a model has to say the same as by its own attention ..."""

SAME = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.3}
"""... up to so many standard deviations of its logits, which is rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The next `count` tokens of a conversation, to be read in one pass."""

    conversation: Conversation
    count: int

    @property
    def end(self) -> int:
        return self.conversation.read + self.count

    @property
    def ids(self) -> list[int]:
        return self.conversation.tokens[self.conversation.read : self.end]


class Reader:
    """Reads for one model, one pass at a time. `attention` is the one it was loaded with.

    While it reads it stands in for that attention, which transformers finds by its name. Some
    models work on what their cache gives back, as those with latent attention, which expand it:
    these get all of a conversation from it, which is a copy; others find the kept tensors in their
    attention.
    """

    def __init__(self, model: Any, attention: str) -> None:
        """Raises `Unkept` if the model is none whose conversations can be kept."""
        self.arena = Arena()
        self.token_bytes = 0  # of the keys and values of a token, in all layers
        self._model = model
        self._attention = attention
        self._inner = ALL_ATTENTION_FUNCTIONS.get(attention)  # None: the model's own code
        layers = DynamicCache(config=model.config).layers
        if odd := {type(each) for each in layers} - {DynamicLayer, DynamicSlidingWindowLayer}:
            raise Unkept(f"its layers are not all attention ({odd.pop().__name__})")
        config = model.config.get_text_config()
        if getattr(config, "attention_chunk_size", None):
            raise Unkept("it attends in chunks")
        if (
            "longrope" in (text := str(getattr(config, "rope_parameters", None)))
            or "dynamic" in text
        ):
            raise Unkept("its rotation of a token depends on how long the others are")
        self._windows = [getattr(each, "sliding_window", None) for each in layers]
        self._masks: dict[int | None, Any] = {}  # of the single ones, by window
        self._places: dict[Any, tuple[Any, Any]] = {}  # their rows and where they write, by device
        self._gives_back = False  # whether the cache gives back all of the conversations
        self._parts: Sequence[Part] = ()  # what it reads just now ...
        self._single: Sequence[Part] = ()  # ... and the first of these, of one token each
        self._takes_places = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._try()

    def read(self, parts: Sequence[Part], places: Sequence[int]) -> Any:
        """Read on. The logits (places, vocabulary), float32, that follow the tokens at `places` of
        all the parts' tokens, one part after the other.

        Where it raises, the conversations are as before.
        """
        device = self._model.device
        ids = [token for part in parts for token in part.ids]
        positions = [at for part in parts for at in range(part.conversation.read, part.end)]
        wanted = torch.tensor(places, dtype=torch.long)  # the last layer may be on another device
        self._parts = parts
        single = list(takewhile(lambda part: part.count == 1, parts))
        self._single = single if len(single) > 1 and not self._gives_back else []
        self._masks.clear()
        self._places.clear()
        try:
            output = self._model(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.tensor([positions], device=device),
                past_key_values=_Packed(self),
                use_cache=True,
                **({"logits_to_keep": wanted} if self._takes_places else {}),
            )
        finally:
            self._parts = ()
        for part in parts:
            part.conversation.read = part.end
        logits = output.logits[0] if self._takes_places else output.logits[0, wanted]
        return logits.float()

    def write(self, layer: int, keys: Any, values: Any) -> tuple[Any, Any]:
        """Keep what the model has computed of a pass, and what it is given back."""
        kept = self.arena.of(layer, keys, values)
        begin = len(self._single)
        for store, added in zip(kept, (keys, values), strict=True):
            if begin:
                rows, places = self._where(store.device)
                store[rows, :, places] = added[0, :, :begin].transpose(0, 1)
            at = begin
            for part in self._parts[begin:]:
                new = added[0, :, at : at + part.count]
                store[part.conversation.row, :, part.conversation.read : part.end] = new
                at += part.count
        if not self._gives_back:
            return keys, values
        whole = [part.conversation.upto(layer, part.end) for part in self._parts]
        keys, values = (torch.cat(each, dim=2) for each in zip(*whole, strict=True))
        return keys, values

    def _attend(
        self, module: Any, query: Any, key: Any, value: Any, mask: Any, **given: Any
    ) -> tuple[Any, Any]:
        """The attention of each conversation by itself: (1, tokens of all, heads, head size)."""
        inner = self._inner or sys.modules[type(module).__module__].eager_attention_forward
        if not self._parts:
            whole: tuple[Any, Any] = inner(module, query, key, value, mask, **given)
            return whole
        given.pop("position_ids", None)  # Flash Attention would look for packed sequences in them
        window = self._windows[module.layer_idx]
        begin, before, outputs = len(self._single), 0, []
        if self._single:
            outputs.append(self._attend_single(inner, module, query[:, :, :begin], given))
        for part in self._parts[begin:]:
            if self._gives_back:
                after = before + part.end
                keys, values = key[:, :, before:after], value[:, :, before:after]
                before = after
            else:
                keys, values = part.conversation.upto(module.layer_idx, part.end)
            if window is not None:  # what no query of these reaches
                far = max(0, part.conversation.read + 1 - window)
                keys, values = keys[:, :, far:], values[:, :, far:]
            queries = query[:, :, begin : begin + part.count]
            mask = self._mask(queries, keys, window)
            outputs.append(inner(module, queries, keys, values, mask, **given)[0])
            begin += part.count
        return torch.cat(outputs, dim=1), None

    def _attend_single(self, inner: Any, module: Any, query: Any, given: dict[str, Any]) -> Any:
        """All rows of the arena up to the last that is meant and the longest."""
        keys, values = self.arena.layers[module.layer_idx]
        rows, places = self._where(query.device)
        top = max(part.conversation.row for part in self._single) + 1
        longest = max(part.end for part in self._single)
        queries = query.new_zeros(top, query.shape[1], 1, query.shape[3])
        queries[rows] = query[0].transpose(0, 1)[:, :, None]
        window = self._windows[module.layer_idx]
        if window not in self._masks:  # the same for all layers of a kind
            # Of a row that is not meant, one key.
            last = torch.ones(top, 1, dtype=torch.long, device=query.device)
            last[rows, 0] = places + 1
            at = torch.arange(longest, device=query.device)[None]
            seen = at < last
            if window is not None:
                seen &= at >= last - window
            self._masks[window] = self._as_mask(seen, query)
        mask = self._masks[window]
        keys, values = keys[:top, :, :longest], values[:top, :, :longest]
        output = inner(module, queries, keys, values, mask.to(keys.device), **given)[0]
        return output[rows].transpose(0, 1)

    def _where(self, device: Any) -> tuple[Any, Any]:
        """The single ones' rows and how much of each is read; told to a device once a pass."""
        if device not in self._places:
            rows = [part.conversation.row for part in self._single]
            read = [part.conversation.read for part in self._single]
            self._places[device] = torch.tensor(rows).to(device), torch.tensor(read).to(device)
        return self._places[device]

    def _as_mask(self, seen: Any, like: Any) -> Any:
        """The keys (rows, m) that are seen, as the attention is told."""
        seen = seen.to(like.device)
        if self._attention.startswith("flash"):
            return seen
        return (
            self._bias(seen[:, None, None], like)
            if self._attention == "eager"
            else seen[:, None, None]
        )

    @staticmethod
    def _bias(seen: Any, like: Any) -> Any:
        """What eager attention adds to what it weighs."""
        least = torch.finfo(like.dtype).min
        return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill(
            ~seen, least
        )

    def _mask(self, query: Any, key: Any, window: int | None) -> Any:
        """Which of m keys (1, 1, n, m) each of the last n tokens sees, itself included and at most
        `window` of them; None where the attention does the same without."""
        n, m = query.shape[2], key.shape[2]
        is_wide = window is None or m <= window
        is_plain = is_wide and (n == 1 or n == m)
        is_eager = self._attention == "eager"
        if not is_eager and (is_plain or self._attention.startswith("flash")):
            return None
        own = torch.arange(m - n, m, device=query.device)[:, None]
        at = torch.arange(m, device=query.device)[None]
        seen = at <= own
        if not is_wide:
            seen &= at > own - window
        return self._bias(seen, query)[None, None] if is_eager else seen[None, None]

    def _try(self) -> None:
        """Take the place of the model's attention, if it then says what it says without."""
        model, size = self._model, self._model.config.get_text_config().vocab_size
        ids = [[(31 * at + 7 * row) % size for at in range(TRIAL)] for row in range(2)]
        with torch.inference_mode():
            plain = model(input_ids=torch.tensor(ids, device=model.device)).logits[:, -1].float()
            AttentionInterface.register(self._attention, self._attend)
            for self._gives_back in (False, True):
                differs = self._differs(ids, plain)
                if differs is None:
                    return
        if self._inner is None:
            del AttentionInterface._global_mapping[self._attention]
        else:
            AttentionInterface.register(self._attention, self._inner)
        raise Unkept(differs)

    def _differs(self, ids: list[list[int]], plain: Any) -> str | None:
        """What is wrong with the logits after `ids` if they are read in pieces, side by side."""
        try:
            read = [self.arena.begin(each, (2, TRIAL)) for each in ids]
            for counts in ((10, 3), (1, 19), (1, 1), (12, 1)):
                parts = [Part(each, n) for each, n in zip(read, counts, strict=True)]
                kept = self.read(parts, (counts[0] - 1, sum(counts) - 1))
        except Exception as error:
            return f"read in pieces it fails with {type(error).__name__}"
        finally:
            tensors = [each for layer in self.arena.layers.values() for each in layer]
            self.token_bytes = sum(each.nbytes for each in tensors) // (2 * TRIAL)
            self.arena = Arena()
        differs = float((kept - plain).abs().max() / plain.std())
        if differs <= SAME.get(self._model.dtype, max(SAME.values())):
            return None
        return f"it says something else with them (by {differs:.2g} deviations)"


class Unkept(Exception):
    """Why a model's conversations cannot be kept."""


class _Packed(Cache):  # type: ignore[misc]
    """transformers' view of a pass: where layers leave the keys and values of its tokens."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(layer_class_to_replicate=DynamicLayer)
        self._reader = reader

    def update(
        self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Any, Any]:
        return self._reader.write(layer_idx, key_states, value_states)
