"""Drawing tokens: each row of a batch with its own seed, temperature, top_p, grammar and end.

A row is drawn by inverting its distribution's cumulative sum at its own uniform numbers, which
are made ahead. So a step costs the same few kernels for 1 row and for 256, and what a row gets
depends on its own logits and seed alone, never on which rows are beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vendomini.engines.hf.grammar import GrammarMask

GREEDY_BELOW = 1e-5
"""Temperatures below are 0, as in vLLM."""


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One choice of one request, on its way through a batch.

    `seed` None stands for a random one. `top_logprobs` None: no log-probabilities;
    `logprob_ids`: those of these tokens instead of the likeliest. `prompt_logprobs` None: the
    prompt is not scored. `think_end` is the token id after which `grammar` applies; None: at once.
    `ends` says whether an end token ends the row.
    """

    prompt: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int | None = None
    logprob_ids: tuple[int, ...] = ()
    prompt_logprobs: int | None = None
    grammar: Any = None  # compiled; None: free text
    think_end: int | None = None
    ends: bool = True
    abandoned: bool = False  # set by the server when nobody waits for it any more


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """Natural-log probabilities at one position: of the token that is there, with its rank
    (1: the likeliest; 0: not counted), and of others, as (token id, log-probability)."""

    token: int
    logprob: float
    others: tuple[tuple[int, float], ...]
    rank: int = 0


class Aborted(Exception):
    """The server is ending: what is under way is given up."""


class Sampler:
    """A logits processor and a stopping criterion for greedy `generate`, in one.

    As a processor it draws each row's token and returns scores whose largest is that token.
    `halted()` true ends the batch at the next step. `text_of` gives the text of token ids.
    """

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        end_ids: Sequence[int],
        pad_id: int,
        device: Any,
        text_of: Callable[[Sequence[int]], str],
        mask: GrammarMask | None,
        halted: Callable[[], bool],
    ) -> None:
        self._rows = rows
        self._text_of = text_of
        self._mask = mask
        self._halted = halted
        self._pad_id = pad_id
        self._step = 0
        self._drawn: list[Any] = []  # one tensor (rows,) a step
        self._stopped: set[int] = set()

        def tensor(values: Sequence[Any], dtype: Any) -> Any:
            return torch.tensor(list(values), dtype=dtype, device=device)

        self._end_ids = tensor(end_ids, torch.long)
        self._may_end = tensor([row.ends for row in rows], torch.bool)
        self._max_tokens = tensor([row.max_tokens for row in rows], torch.long)
        self._done = torch.zeros(len(rows), dtype=torch.bool, device=device)
        self._lengths = torch.zeros(len(rows), dtype=torch.long, device=device)

        warm = [index for index, row in enumerate(rows) if row.temperature >= GREEDY_BELOW]
        self._warm = tensor(warm, torch.long)
        self._temperatures = tensor([rows[index].temperature for index in warm], torch.float32)
        narrow = [place for place, index in enumerate(warm) if rows[index].top_p < 1.0]
        self._narrow = tensor(narrow, torch.long)
        self._top_p = tensor([rows[warm[place]].top_p for place in narrow], torch.float32)
        self._uniforms = _uniforms([rows[index] for index in warm]).to(device)

        self._asked = [i for i, row in enumerate(rows) if row.top_logprobs is not None]
        self._asked_rows = tensor(self._asked, torch.long)
        self._top = max((rows[index].top_logprobs or 0 for index in self._asked), default=0)
        named = max((len(rows[index].logprob_ids) for index in self._asked), default=0)
        self._named_ids = tensor(
            [_padded(rows[index].logprob_ids, named) for index in self._asked], torch.long
        ).reshape(len(self._asked), named)
        self._logprobs: list[tuple[Any, ...]] = []  # a step: see _note_logprobs

        # Rows that need a look at each of their tokens; all others never leave the device.
        self._watched = [i for i, row in enumerate(rows) if row.stop or row.grammar is not None]
        self._constrained = {
            i for i in self._watched if rows[i].grammar is not None and rows[i].think_end is None
        }
        self._seen: dict[int, list[int]] = {i: [] for i in self._watched if rows[i].stop}
        self._alive = set(self._watched)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores (rows, vocabulary), float32 and not used by anyone else, to one-hot scores."""
        tokens = self.draw(scores)
        return scores.zero_().scatter_(1, tokens[:, None], 1.0)

    def draw(self, scores: Any) -> Any:
        """The next token of each row (rows,); those that are done get the padding token."""
        raw = scores[self._asked_rows].log_softmax(-1) if self._asked else None
        if self._mask is not None:
            self._mask.apply(scores, sorted(self._constrained & self._alive))
        tokens = scores.argmax(-1)
        if len(self._warm):
            tokens = tokens.index_copy(0, self._warm, self._invert(scores[self._warm]))
        tokens = torch.where(self._done, self._pad_id, tokens)
        if raw is not None:
            self._note_logprobs(raw, tokens[self._asked_rows])
        self._drawn.append(tokens)
        self._lengths += ~self._done
        self._step += 1
        ended = torch.isin(tokens, self._end_ids) & self._may_end
        self._done = self._done | ended | (self._lengths >= self._max_tokens)
        if self._alive:
            self._look_at(tokens.tolist())
        return tokens

    def stops(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """The stopping criterion (rows,)."""
        if self._halted():
            return torch.ones_like(self._done)
        abandoned = [index for index, row in enumerate(self._rows) if row.abandoned]
        if abandoned:
            self._done[abandoned] = True
        return self._done

    def tokens(self) -> list[list[int]]:
        """What each row was given, its end token included."""
        if not self._drawn:
            return [[] for _ in self._rows]
        drawn = torch.stack(self._drawn, dim=1).tolist()
        lengths = self._lengths.tolist()
        return [row[:length] for row, length in zip(drawn, lengths, strict=True)]

    def stopped_by_string(self, row: int) -> bool:
        return row in self._stopped

    def logprobs(self) -> dict[int, list[TokenScores]]:
        """Of the rows that asked: one entry for each of their tokens."""
        if not self._logprobs:
            return {}
        drawn, of_drawn, top_ids, of_top, of_named = (
            torch.stack(parts, dim=1).tolist() for parts in zip(*self._logprobs, strict=True)
        )
        lengths = self._lengths.tolist()
        found: dict[int, list[TokenScores]] = {}
        for place, index in enumerate(self._asked):
            row = self._rows[index]
            k = row.top_logprobs or 0
            found[index] = [
                TokenScores(
                    token=drawn[place][step],
                    logprob=of_drawn[place][step],
                    others=tuple(zip(row.logprob_ids, of_named[place][step], strict=False))
                    if row.logprob_ids
                    else tuple(zip(top_ids[place][step][:k], of_top[place][step][:k], strict=True)),
                )
                for step in range(lengths[index])
            ]
        return found

    def _invert(self, scores: Any) -> Any:
        """Draw from the distributions of `scores` (warm rows, vocabulary)."""
        scaled = scores / self._temperatures[:, None]
        if len(self._narrow):
            scaled[self._narrow] = _keep_top_p(scaled[self._narrow], self._top_p)
        # float64: over a large vocabulary float32 sums would lose the unlikely tokens.
        reached = scaled.softmax(-1).double().cumsum(-1)
        step = min(self._step, self._uniforms.shape[1] - 1)
        aims = self._uniforms[:, step, None] * reached[:, -1:]
        # `right`: the first token past the aim, which therefore has a probability above 0.
        found = torch.searchsorted(reached, aims, right=True)
        return found.squeeze(1).clamp_(max=scores.shape[-1] - 1)

    def _note_logprobs(self, raw: Any, drawn: Any) -> None:
        """Keep, of the rows that asked: drawn ids, theirs, likeliest ids, theirs, the named."""
        top = raw.topk(min(self._top, raw.shape[-1]), dim=-1)
        own = raw.gather(1, drawn[:, None]).squeeze(1)
        named = raw.gather(1, self._named_ids)
        self._logprobs.append((drawn, own, top.indices, top.values, named))

    def _look_at(self, tokens: list[int]) -> None:
        """Follow grammars and look for stop strings in this step's tokens."""
        done = self._done.tolist()
        finished: list[int] = []
        for index in list(self._alive):
            row, token = self._rows[index], tokens[index]
            if index in self._constrained:
                assert self._mask is not None
                if self._mask.accept(index, token) and not done[index]:
                    self._stopped.add(index)
                    finished.append(index)
            elif row.grammar is not None and token == row.think_end:
                self._constrained.add(index)
            if row.stop and self._has_stop(index, token):
                self._stopped.add(index)
                finished.append(index)
            if done[index] or index in self._stopped:
                self._alive.discard(index)
        if finished:
            self._done[finished] = True

    def _has_stop(self, index: int, token: int) -> bool:
        """Whether a stop string has come up with this token."""
        seen, stop = self._seen[index], self._rows[index].stop
        seen.append(token)
        # A token is at least one byte of text: so many hold any stop string that ends here.
        reach = max(len(text.encode()) for text in stop) + 4
        tail = self._text_of(seen[-reach:])
        if not any(text in tail for text in stop):
            return False
        # The tail is decoded out of its context: what it seems to say is looked up in the whole.
        whole = self._text_of(seen)
        return any(text in whole for text in stop)


def _uniforms(rows: Sequence[Row]) -> Any:
    """Numbers in [0, 1) to draw with (rows, longest row), each row's from its own generator."""
    longest = max((row.max_tokens for row in rows), default=1)
    numbers = torch.zeros(len(rows), longest, dtype=torch.float64)
    for index, row in enumerate(rows):
        generator = torch.Generator()
        if row.seed is None:
            generator.seed()
        else:
            generator.manual_seed(row.seed)
        numbers[index, : row.max_tokens] = torch.rand(
            row.max_tokens, generator=generator, dtype=torch.float64
        )
    return numbers


def _keep_top_p(scores: Any, top_p: Any) -> Any:
    """Scores (rows, vocabulary) with all but the likeliest tokens, which hold `top_p` of the
    probability together, at -inf; at least one is left."""
    ascending, order = scores.sort(dim=-1)
    below = ascending.softmax(-1).cumsum(-1) <= 1 - top_p[:, None]
    below[:, -1] = False
    return scores.masked_fill(torch.zeros_like(below).scatter_(1, order, below), -torch.inf)


def _padded(ids: Sequence[int], length: int) -> list[int]:
    return [*ids, *[0] * (length - len(ids))]
