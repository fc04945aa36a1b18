"""How likely each continuation of a prompt is, asked of a server.

A continuation's tokens are those of prompt + continuation after those of the prompt alone. Where
the two do not part at the prompt's end, because a token reaches over it, all tokens count from
the first that differs: then the score holds a part of the prompt, too.

A token's probability is read where it would be drawn (`logprob_token_ids`), which finds the
prompt in the server's prefix cache; of continuations of several tokens it is read from the
prompt (`prompt_logprobs`), which computes the whole prompt once each. No more of them are asked
at a time than the server's KV cache holds: else it would throw some out and begin them again.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from vendomini.chat import Choice, Reply, ScoreRequest
from vendomini.engines.client import Client, Refused
from vendomini.engines.habits import lacks
from vendomini.engines.protocol import context_reply, decode, decode_tokens, tokenize_body
from vendomini.engines.together import all_or_none
from vendomini.errors import EngineError

MOST_IDS = 128
"""vLLM's limit on `logprob_token_ids` of one request."""

BLOCK_TOKENS = 32
"""A prompt fills whole blocks of the KV cache; those of our servers are no larger."""

TEXTS_AT_ONCE = 256
"""Texts in tokenization at a time: each has a socket of its own."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A continuation as tokens: those of prompt and continuation, and where the scored ones
    begin."""

    tokens: tuple[int, ...]
    start: int

    @property
    def count(self) -> int:
        return len(self.tokens) - self.start


def scored(prompt: tuple[int, ...], whole: tuple[int, ...]) -> Scored:
    """Raises `EngineError` if the first token of all would have to be scored."""
    start = 0
    for known, token in zip(prompt, whole, strict=False):
        if known != token:
            break
        start += 1
    if start == 0 and whole:
        raise EngineError(
            "a score needs a token before the continuation: the first one has no probability",
            hint="give the score request a longer prompt",
        )
    return Scored(whole, start)


def one_token_bodies(
    prompt: tuple[int, ...], continuations: list[Scored], *, model: str
) -> list[bytes] | None:
    """Bodies of completions that tell all scores at once; None if a continuation has not
    exactly one token after the whole prompt."""
    if not all(each.count == 1 and each.start == len(prompt) for each in continuations):
        return None
    ids = list(dict.fromkeys(each.tokens[-1] for each in continuations))
    return [
        msgspec.json.encode(
            {
                "model": model,
                "prompt": prompt,
                "max_tokens": 1,
                "temperature": 0.0,
                "logprobs": 1,
                "logprob_token_ids": ids[first : first + MOST_IDS],
                # By id, because different tokens may look alike.
                "return_tokens_as_token_ids": True,
            }
        )
        for first in range(0, len(ids), MOST_IDS)
    ]


def token_logprobs(raw: bytes) -> tuple[dict[int, float], "Usage"]:
    """Log-probabilities by token id, of an answer to one of `one_token_bodies`.

    Empty if the server names its tokens by text.
    """
    answer = decode(_DECODER.decode, raw)
    logprobs = answer.choices[0].logprobs if answer.choices else None
    found: dict[int, float] = {}
    for top in (logprobs.top_logprobs if logprobs is not None else None) or ():
        for name, logprob in (top or {}).items():
            if name.startswith(_ID):
                found[int(name.removeprefix(_ID))] = logprob
    return found, answer.usage


def prompt_body(continuation: Scored, *, model: str) -> bytes:
    """The body of a completion that tells the probabilities of its prompt's tokens."""
    return msgspec.json.encode(
        {
            "model": model,
            "prompt": continuation.tokens,
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
    )


def prompt_score(raw: bytes, continuation: Scored) -> tuple[float, "Usage"]:
    """The summed natural-log probability of an answer to `prompt_body`."""
    answer = decode(_DECODER.decode, raw)
    told = answer.choices[0].prompt_logprobs if answer.choices else None
    if told is None or len(told) != len(continuation.tokens):
        raise lacks("scores", "it ignores `prompt_logprobs`")
    total = 0.0
    for place in range(continuation.start, len(continuation.tokens)):
        entry = (told[place] or {}).get(str(continuation.tokens[place]))
        if entry is None:
            raise lacks("scores", f"token {place} of a prompt has no log-probability")
        total += entry.logprob
    return total, answer.usage


class Scorer:
    """Answers score requests.

    `at_most` is how many completions of one it may ask for at a time; None: what the KV cache
    holds.
    """

    def __init__(
        self,
        client: Client,
        *,
        model: str,
        said: Callable[[str], None],
        at_most: int | None = None,
    ) -> None:
        self._client = client
        self._model = model
        self._say = said
        self._at_most = at_most
        self._names_ids = True  # whether the server names tokens by id where it is asked to

    async def reply(
        self, request: ScoreRequest, *, window: int | None, room: int | None, started: float
    ) -> Reply:
        """One choice a continuation, in order; its token counts are of all that was asked.

        `window` is the model's longest conversation in tokens, `room` what its KV cache holds;
        None: not known. `started` is by `time.perf_counter`.
        """
        texts = [request.prompt, *(request.prompt + each for each in request.continuations)]
        prompt, *wholes = await all_or_none(
            (self._tokens(text) for text in texts), at_once=min(len(texts), TEXTS_AT_ONCE)
        )
        longest = max(map(len, wholes), default=0)
        if window is not None and longest + 1 > window:  # one new token is always drawn
            seconds = time.perf_counter() - started
            return replace(context_reply(request, refusal="", seconds=seconds), tokens_in=longest)
        parts = [scored(prompt, whole) for whole in wholes]
        at_once = self._at_once(len(parts), longest=longest, room=room)
        found = await self._from_one_token(prompt, parts, at_once) if self._names_ids else None
        scores, usages = found or await self._from_prompts(parts, at_once)
        return Reply(
            choices=tuple(
                Choice(text=text, score=score)
                for text, score in zip(request.continuations, scores, strict=True)
            ),
            tokens_in=sum(usage.prompt_tokens for usage in usages),
            tokens_out=sum(usage.completion_tokens for usage in usages),
            tokens_cached=sum(usage.cached for usage in usages),
            seconds=time.perf_counter() - started,
            seed_support="best_effort",
        )

    def _at_once(self, asked: int, *, longest: int, room: int | None) -> int:
        """How many completions of `longest` tokens and a new one may be under way; at least 1."""
        blocks = longest // BLOCK_TOKENS + 1
        fitting = asked if room is None else room // (blocks * BLOCK_TOKENS)
        return max(1, min(asked, fitting, self._at_most or asked))

    async def _from_one_token(
        self, prompt: tuple[int, ...], parts: list[Scored], at_once: int
    ) -> "tuple[list[float], list[Usage]] | None":
        bodies = one_token_bodies(prompt, parts, model=self._model)
        if bodies is None:
            return None
        found: dict[int, float] = {}
        usages = []
        try:
            answers = await all_or_none(
                (self._client.post(_PATH, body) for body in bodies), at_once=at_once
            )
        except Refused as refused:
            if "return_tokens_as_token_ids" not in refused.message:
                raise
            answers = []
        for raw in answers:
            logprobs, usage = token_logprobs(raw)
            found |= logprobs
            usages.append(usage)
        if all(part.tokens[-1] in found for part in parts):
            return [found[part.tokens[-1]] for part in parts], usages
        if self._names_ids:
            self._names_ids = False
            self._say("the server does not tell chosen tokens by id: scores take longer")
        return None

    async def _from_prompts(
        self, parts: list[Scored], at_once: int
    ) -> "tuple[list[float], list[Usage]]":
        # What adds no token is certain, and is not asked.
        asked = [place for place, part in enumerate(parts) if part.count]
        bodies = [prompt_body(parts[place], model=self._model) for place in asked]
        answers = await all_or_none(
            (self._client.post(_PATH, body) for body in bodies), at_once=at_once
        )
        scores = [0.0] * len(parts)
        usages = []
        for place, raw in zip(asked, answers, strict=True):
            scores[place], usage = prompt_score(raw, parts[place])
            usages.append(usage)
        return scores, usages

    async def _tokens(self, text: str) -> tuple[int, ...]:
        body = tokenize_body(text, model=self._model)
        return decode_tokens(await self._client.post("/tokenize", body))


class _Details(msgspec.Struct, frozen=True):
    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """What an answer took, in tokens."""

    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None

    @property
    def cached(self) -> int:
        """How many of the prompt's were in the server's prefix cache."""
        details = self.prompt_tokens_details
        return (details.cached_tokens or 0) if details is not None else 0


class _Logprobs(msgspec.Struct):
    top_logprobs: list[dict[str, float] | None] | None = None


class _Probability(msgspec.Struct):
    logprob: float


class _Choice(msgspec.Struct):
    logprobs: _Logprobs | None = None
    prompt_logprobs: list[dict[str, _Probability] | None] | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]
    usage: Usage


_PATH = "/v1/completions"
_ID = "token_id:"
_DECODER = msgspec.json.Decoder(_Answer)
