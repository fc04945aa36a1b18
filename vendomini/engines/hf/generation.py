"""One batch through the model: drawing replies with `generate`, and scoring prompts."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from vendomini.engines.hf.grammar import GrammarMask
from vendomini.engines.hf.loading import Loaded
from vendomini.engines.hf.sampling import Aborted, Row, Sampler, TokenScores

SCORING_BYTES = 1 << 28
"""Of log-probabilities over the whole vocabulary at once, while prompts are scored."""

BYTES_PER_SCORE = 12
"""A logit, its float32 copy and its log-probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a row became. `tokens` has its end token; `prompt_scores` begins at token 1."""

    tokens: list[int]
    stopped: bool  # by an end token, a stop string or a complete grammar; else by its length
    logprobs: list[TokenScores] | None = None
    prompt_scores: list[TokenScores] | None = None


class Generation:
    """Runs batches on a loaded model, one at a time. `halt` may come from any thread."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self._halted = False

    def halt(self) -> None:
        """Give up what is under way, and all that comes."""
        self._halted = True

    def run(self, rows: Sequence[Row]) -> list[Drawn]:
        """The rows' outcomes, in their order. All of them are scored, or none is.

        Raises `Aborted` when halted, and torch's errors, such as `OutOfMemoryError`.
        """
        with torch.inference_mode():
            return self._run(rows)

    def _run(self, rows: Sequence[Row]) -> list[Drawn]:
        if self._halted:
            raise Aborted("the server is ending")
        sampler = self._sampler(rows)
        scores: list[list[TokenScores]] | None = None
        if rows[0].prompt_logprobs is not None:
            scores, last = self._score(rows)
            if max(row.max_tokens for row in rows) == 1:
                sampler.draw(last)
            else:
                self._generate(rows, sampler)
        else:
            self._generate(rows, sampler)
        if self._halted:
            raise Aborted("the server is ending")
        logprobs = sampler.logprobs()
        ends = set(self.loaded.end_ids)
        return [
            Drawn(
                tokens=tokens,
                stopped=sampler.stopped_by_string(index)
                or (rows[index].ends and bool(tokens) and tokens[-1] in ends),
                logprobs=logprobs.get(index),
                prompt_scores=None if scores is None else scores[index],
            )
            for index, tokens in enumerate(sampler.tokens())
        ]

    def _sampler(self, rows: Sequence[Row]) -> Sampler:
        loaded = self.loaded
        matchers = [
            None if row.grammar is None else loaded.grammars.matcher(row.grammar) for row in rows
        ]
        return Sampler(
            rows,
            end_ids=loaded.end_ids,
            pad_id=loaded.pad_id,
            device=loaded.model.device,
            text_of=loaded.text_of,
            mask=GrammarMask(matchers, vocabulary=loaded.vocabulary) if any(matchers) else None,
            halted=lambda: self._halted,
        )

    def _generate(self, rows: Sequence[Row], sampler: Sampler) -> None:
        longest = max(len(row.prompt) for row in rows)
        pad = self.loaded.pad_id
        device = self.loaded.model.device
        ids = [[pad] * (longest - len(row.prompt)) + row.prompt for row in rows]
        seen = [[0] * (longest - len(row.prompt)) + [1] * len(row.prompt) for row in rows]
        self.loaded.model.generate(
            torch.tensor(ids, device=device),
            attention_mask=torch.tensor(seen, device=device),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max(row.max_tokens for row in rows),
                pad_token_id=pad,
                eos_token_id=None,  # ends are the sampler's: a row may go without
                use_cache=True,
            ),
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=StoppingCriteriaList([sampler.stops]),
        )

    def _score(self, rows: Sequence[Row]) -> tuple[list[list[TokenScores]], Any]:
        """Each prompt's tokens from the second on, and the logits (rows, vocabulary) after it.

        Padded on the right, where causal attention cannot see it, and in pieces, so that the
        logits of long prompts over large vocabularies are never all there at once.
        """
        loaded = self.loaded
        device = loaded.model.device
        longest = max(len(row.prompt) for row in rows)
        ids = torch.tensor(
            [row.prompt + [loaded.pad_id] * (longest - len(row.prompt)) for row in rows],
            device=device,
        )
        piece = max(1, SCORING_BYTES // (BYTES_PER_SCORE * len(rows) * loaded.vocabulary))
        top = max(row.prompt_logprobs or 0 for row in rows)
        parts: list[tuple[Any, ...]] = []
        last = torch.empty(len(rows), loaded.vocabulary, device=device)
        cache = None
        for begin in range(0, longest, piece):
            if self._halted:
                raise Aborted("the server is ending")
            end = min(begin + piece, longest)
            output = loaded.model(
                input_ids=ids[:, begin:end],
                attention_mask=torch.ones(len(rows), end, dtype=torch.long, device=device),
                past_key_values=cache,
                use_cache=end < longest or begin > 0,
            )
            cache = output.past_key_values
            logits = output.logits.float()
            for index, row in enumerate(rows):
                if begin < len(row.prompt) <= end:
                    last[index] = logits[index, len(row.prompt) - 1 - begin]
            targets = ids[:, begin + 1 : end + 1]
            found = logits[:, : targets.shape[1]].log_softmax(-1)
            own = found.gather(2, targets[:, :, None])
            best = found.topk(min(top, found.shape[-1]), dim=-1)
            ranks = (found > own).sum(-1) + 1
            parts.append((own.squeeze(2), ranks, best.indices, best.values))
        own, ranks, ids_of_best, of_best = (
            torch.cat(part, dim=1).tolist() for part in zip(*parts, strict=True)
        )
        return [
            [
                TokenScores(
                    token=row.prompt[place + 1],
                    logprob=own[index][place],
                    rank=ranks[index][place],
                    others=tuple(
                        zip(
                            ids_of_best[index][place][: row.prompt_logprobs],
                            of_best[index][place][: row.prompt_logprobs],
                            strict=True,
                        )
                    ),
                )
                for place in range(len(row.prompt) - 1)
            ]
            for index, row in enumerate(rows)
        ], last


def is_out_of_memory(error: BaseException) -> bool:
    """On a GPU torch has a type for it, on the CPU only words."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def run_halving(
    rows: Sequence[Row],
    run: Callable[[Sequence[Row]], list[Drawn]],
    *,
    told_halved: Callable[[], None],
) -> list[Drawn | Exception]:
    """Each row's outcome or error. A batch that does not fit memory is halved, down to one row.

    What is no error of torch's is raised.
    """
    try:
        return list(run(rows))
    except (RuntimeError, MemoryError) as error:  # torch's own are RuntimeErrors
        if not is_out_of_memory(error) or len(rows) == 1:
            return [error] * len(rows)
    # Outside of the handler: the error's traceback holds the tensors that did not fit.
    told_halved()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(rows) // 2
    return [
        *run_halving(rows[:middle], run, told_halved=told_halved),
        *run_halving(rows[middle:], run, told_halved=told_halved),
    ]
