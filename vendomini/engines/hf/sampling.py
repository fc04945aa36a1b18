"""Drawing tokens: each row with its own seed, temperature, top_p, grammar and end.

A row is drawn by inverting its distribution's cumulative sum at its own uniform numbers, which
are made ahead. So a step costs the same few kernels for 1 row and for 256, and what a row gets
depends on its own logits and seed alone, never on which rows are beside it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vendomini.engines.hf.grammar import keep_to_grammar

GREEDY_BELOW = 1e-5
"""Temperatures below are 0, as in vLLM."""


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One choice of one request.

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


@dataclass(slots=True, eq=False)
class Drawing:
    """A row, and what it has been given so far: `tokens` with its end token.

    `matcher` is its place in its grammar; None: it has none. `stopped` says that it ended by an
    end token, a stop string or a complete grammar, not by its length; `prompt_scores` begin at
    token 1 of the prompt; `kept` of the prompt's tokens had been read before.
    """

    row: Row
    matcher: Any = None
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenScores] = field(default_factory=list)
    prompt_scores: list[TokenScores] = field(default_factory=list)
    kept: int = 0
    is_done: bool = False
    stopped: bool = False
    is_constrained: bool = False
    uniforms: Any = None

    def __post_init__(self) -> None:
        row = self.row
        self.is_constrained = self.matcher is not None and row.think_end is None
        if row.temperature >= GREEDY_BELOW:
            generator = torch.Generator()
            if row.seed is None:
                generator.seed()
            else:
                generator.manual_seed(row.seed)
            self.uniforms = torch.rand(row.max_tokens, generator=generator, dtype=torch.float64)


class Sampler:
    """Draws for one model. `end_ids` end a row, `text_of` gives the text of token ids."""

    def __init__(self, *, end_ids: Sequence[int], text_of: Callable[[Sequence[int]], str]) -> None:
        self._end_ids = frozenset(end_ids)
        self._text_of = text_of

    def draw(self, drawings: Sequence[Drawing], scores: Any) -> None:
        """Give each of some drawings that are not done its next token, from its scores (drawings,
        vocabulary), float32, which are not used by anyone else."""
        asked = [i for i, each in enumerate(drawings) if each.row.top_logprobs is not None]
        raw = scores[asked].log_softmax(-1) if asked else None
        bound = {i: each.matcher for i, each in enumerate(drawings) if each.is_constrained}
        if bound:
            keep_to_grammar(scores, bound)
        drawn = scores.argmax(-1)
        warm = [i for i, each in enumerate(drawings) if each.uniforms is not None]
        if warm:
            drawn[warm] = _inverted([drawings[i] for i in warm], scores[warm])
        tokens = drawn.tolist()
        if raw is not None:
            _note_logprobs([drawings[i] for i in asked], raw, [tokens[i] for i in asked])
        for drawing, token in zip(drawings, tokens, strict=True):
            self._take(drawing, token)

    def _take(self, drawing: Drawing, token: int) -> None:
        row = drawing.row
        drawing.tokens.append(token)
        if drawing.is_constrained:
            taken = drawing.matcher.accept_token(token)
            assert taken, f"token {token} is outside the grammar it was drawn from"
            drawing.stopped = bool(drawing.matcher.is_terminated())
        elif drawing.matcher is not None and token == row.think_end:
            drawing.is_constrained = True
        drawing.stopped = (
            drawing.stopped
            or (row.ends and token in self._end_ids)
            or (bool(row.stop) and self._has_stop(drawing))
        )
        drawing.is_done = drawing.stopped or len(drawing.tokens) == row.max_tokens

    def _has_stop(self, drawing: Drawing) -> bool:
        """Whether a stop string has come up with the last token."""
        stop = drawing.row.stop
        # A token is at least one byte of text: so many hold any stop string that ends here.
        reach = max(len(text.encode()) for text in stop) + 4
        tail = self._text_of(drawing.tokens[-reach:])
        if not any(text in tail for text in stop):
            return False
        # The tail is decoded out of its context: what it seems to say is looked up in the whole.
        whole = self._text_of(drawing.tokens)
        return any(text in whole for text in stop)


def prompt_scores(row: Row, begin: int, logits: Any) -> list[TokenScores]:
    """Those of the prompt's tokens that follow the places from `begin` on, by the logits there."""
    targets = row.prompt[begin + 1 : begin + 1 + logits.shape[0]]
    found = logits[: len(targets)].log_softmax(-1)
    own = found.gather(1, torch.tensor(targets, device=found.device)[:, None])
    best = found.topk(min(row.prompt_logprobs or 0, found.shape[-1]), dim=-1)
    parts = (own[:, 0], (found > own).sum(-1) + 1, best.indices, best.values)
    return [
        TokenScores(
            token=token, logprob=logprob, rank=rank, others=tuple(zip(ids, values, strict=True))
        )
        for token, logprob, rank, ids, values in zip(
            targets, *(part.tolist() for part in parts), strict=True
        )
    ]


def _note_logprobs(drawings: Sequence[Drawing], raw: Any, tokens: Sequence[int]) -> None:
    most = max(each.row.top_logprobs or 0 for each in drawings)
    own = raw.gather(1, torch.tensor(tokens, device=raw.device)[:, None])[:, 0].tolist()
    top = raw.topk(min(most, raw.shape[-1]), dim=-1)
    likeliest = list(zip(top.indices.tolist(), top.values.tolist(), strict=True))
    for place, drawing in enumerate(drawings):
        ids = list(drawing.row.logprob_ids)
        if ids:
            others = zip(ids, raw[place, ids].tolist(), strict=True)
        else:
            k = drawing.row.top_logprobs
            others = zip(*(each[:k] for each in likeliest[place]), strict=True)
        drawing.logprobs.append(
            TokenScores(token=tokens[place], logprob=own[place], others=tuple(others))
        )


def _inverted(drawings: Sequence[Drawing], scores: Any) -> Any:
    """Tokens drawn from the distributions of `scores` (drawings, vocabulary)."""
    device = scores.device
    temperatures = torch.tensor([each.row.temperature for each in drawings], device=device)
    scaled = scores / temperatures[:, None]
    narrow = [i for i, each in enumerate(drawings) if each.row.top_p < 1.0]
    if narrow:
        top_p = torch.tensor([drawings[i].row.top_p for i in narrow], device=device)
        scaled[narrow] = _keep_top_p(scaled[narrow], top_p)
    # float64: over a large vocabulary float32 sums would lose the unlikely tokens.
    reached = scaled.softmax(-1).double().cumsum(-1)
    numbers = torch.stack([each.uniforms[len(each.tokens)] for each in drawings]).to(device)
    aims = numbers[:, None] * reached[:, -1:]
    # `right`: the first token past the aim, which therefore has a probability above 0.
    found = torch.searchsorted(reached, aims, right=True)
    return found.squeeze(1).clamp_(max=scores.shape[-1] - 1)


def _keep_top_p(scores: Any, top_p: Any) -> Any:
    """Scores (rows, vocabulary) with all but the likeliest tokens, which hold `top_p` of the
    probability together, at -inf; at least one is left."""
    ascending, order = scores.sort(dim=-1)
    below = ascending.softmax(-1).cumsum(-1) <= 1 - top_p[:, None]
    below[:, -1] = False
    return scores.masked_fill(torch.zeros_like(below).scatter_(1, order, below), -torch.inf)
