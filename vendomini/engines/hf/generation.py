"""Rows through the model, all of them side by side: who may begin, what is read, what is drawn.

A row begins as soon as the KV cache has room for its prompt and its longest reply, and leaves when
it is done. Every pass of the model reads one token of each row that draws, and as much of the
prompts of others as a pass holds. What a row has read is kept, and rows that begin alike go on
from it (`kept.py`). Models of other layers than attention are batched by `generate` instead.
"""

import gc
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

from vendomini.engines.hf.attention import Part, Reader
from vendomini.engines.hf.kept import LEAST_SHARED, Arena, Conversation, Kept, common
from vendomini.engines.hf.loading import Loaded
from vendomini.engines.hf.sampling import Aborted, Drawing, Row, Sampler, prompt_scores

MOST_TOKENS = 2048
"""Of prompts, read in one pass. More is no faster, and holds up the rows that draw."""

RISE_AFTER = 64
"""Rows that are done, and then one more may be under way than last fitted the memory."""

SCORING_BYTES = 1 << 28
"""Of log-probabilities over the whole vocabulary at once, while prompts are scored."""

BYTES_PER_SCORE = 12
"""A logit, its float32 copy and its log-probability."""


@dataclass(slots=True, eq=False)
class Task:
    """A row on its way. `told` hears its end, once."""

    drawing: Drawing
    told: Callable[[Drawing | Exception], None]
    conversation: Conversation | None = None  # None: it has not begun

    @property
    def row(self) -> Row:
        return self.drawing.row

    @property
    def need(self) -> int:
        """Of the KV cache, in tokens."""
        return len(self.row.prompt) + self.row.max_tokens

    @property
    def unread(self) -> int:
        """Tokens that the model has not read yet; one of a row that draws."""
        assert self.conversation is not None
        return len(self.conversation.tokens) - self.conversation.read


@dataclass(slots=True)
class Counters:
    """Since the server started. `kept_tokens` of the `prompt_tokens` were not read again."""

    preemptions: int = 0
    prompt_tokens: int = 0
    kept_tokens: int = 0
    generated_tokens: int = 0
    passes: int = 0


class Generation:
    """All of it happens on one thread, but for `task` and `halt`."""

    def __init__(self, loaded: Loaded, *, max_rows: int, keeps: bool = True) -> None:
        self.waiting: deque[Task] = deque()
        self.running: list[Task] = []
        self.counters = Counters()
        self._loaded = loaded
        self._reader = loaded.reader
        self._sampler = Sampler(end_ids=loaded.end_ids, text_of=loaded.text_of)
        self._max_rows = self._most_rows = max_rows  # the first falls where memory is short
        self._kv_tokens = loaded.kv_tokens
        self._keeps = keeps
        self._kept = Kept()
        self._halted = False
        self._done = 0

    def task(self, row: Row, told: Callable[[Drawing | Exception], None]) -> Task:
        matcher = None if row.grammar is None else self._loaded.grammars.matcher(row.grammar)
        return Task(Drawing(row, matcher), told)

    def halt(self) -> None:
        """Give up what is under way, and all that comes."""
        self._halted = True

    def step(self) -> None:
        """One pass of the model, for those that are under way or wait."""
        if self._halted:
            self._fail([*self.running, *self.waiting], Aborted("the server is ending"))
            self.waiting.clear()
            return
        self.waiting = deque(task for task in self.waiting if not task.row.abandoned)
        for task in [task for task in self.running if task.row.abandoned]:
            self.running.remove(task)
            self._let_go(task)
        try:
            with torch.inference_mode():
                if self._reader is not None:
                    self._admit(self._reader.arena)
                    self._read_on(self._reader)
                else:
                    self._admit_alike()
                    self._generate()
        except Exception as error:
            failed = error.with_traceback(None)  # which holds the tensors that did not fit
        else:
            return
        self._recover(failed)

    # -- kept conversations ----------------------------------------------------------------

    def _admit(self, arena: Arena) -> None:
        while self.waiting and len(self.running) < self._max_rows:
            task = self.waiting[0]
            rows, room = arena.size_with(task.need, most=self._kv_tokens)
            if self.running and rows * room > self._kv_tokens:
                return
            tokens = list(task.row.prompt)
            best, shared = None, 0
            if self._keeps and task.row.prompt_logprobs is None:
                others = [each.conversation for each in self.running if each.conversation]
                best, shared = self._kept.longest(tokens, others)
                soon = max((common(tokens[:-1], each.tokens) for each in others), default=0)
                if soon >= shared + LEAST_SHARED:
                    return  # another reads just now what it begins with
            self._kept.shrink_to(max(0, self._kv_tokens - rows * room))
            task.conversation = arena.begin(tokens, (rows, room), best, shared)
            task.drawing.kept = shared
            self.running.append(self.waiting.popleft())

    def _read_on(self, reader: Reader) -> None:
        """One pass, and a token for each row whose prompt is read."""
        parts: list[Part] = []
        places: list[int] = []
        read: list[tuple[Task, int, slice]] = []  # where its part begins, and what of the logits
        at, room, scored_room = 0, MOST_TOKENS, self._piece
        for task in sorted(self.running, key=lambda task: task.unread > 1):
            conversation, unread = task.conversation, task.unread
            assert conversation is not None
            is_scored = task.row.prompt_logprobs is not None and not task.drawing.tokens
            count = min(unread, scored_room if is_scored else unread, max(room, 0))
            if not count:
                continue
            scored_room -= count if is_scored else 0
            part = Part(conversation, count)
            wanted = range(at if is_scored else at + count - 1, at + count)
            if is_scored or count == unread:
                read.append(
                    (task, conversation.read, slice(len(places), len(places) + len(wanted)))
                )
                places += wanted
            parts.append(part)
            at, room = at + count, room - count
        if not parts:
            return
        logits = reader.read(parts, places or [0])
        self.counters.passes += 1
        drawn, last = [], []
        for task, begin, of_logits in read:
            if task.row.prompt_logprobs is not None and not task.drawing.tokens:
                task.drawing.prompt_scores += prompt_scores(task.row, begin, logits[of_logits])
            conversation = task.conversation
            assert conversation is not None
            if conversation.read == len(conversation.tokens):
                drawn.append(task)
                last.append(of_logits.stop - 1)
        if drawn:
            self._sampler.draw([task.drawing for task in drawn], logits[last])
        for task in drawn:
            assert task.conversation is not None
            task.conversation.tokens.append(task.drawing.tokens[-1])
        for task in drawn:
            if task.drawing.is_done:
                self._finish(task)

    @property
    def _piece(self) -> int:
        """Tokens of prompts that are scored which are read in one pass."""
        return max(1, SCORING_BYTES // (BYTES_PER_SCORE * self._loaded.vocabulary))

    def _finish(self, task: Task) -> None:
        self.running.remove(task)
        self._done += 1
        if self._done % RISE_AFTER == 0:
            self._max_rows = min(self._max_rows + 1, self._most_rows)
        counters, drawing = self.counters, task.drawing
        counters.prompt_tokens += len(task.row.prompt)
        counters.kept_tokens += drawing.kept
        counters.generated_tokens += len(drawing.tokens)
        task.told(drawing)
        try:
            self._put_to_rest(task)
        finally:
            self._let_go(task)

    def _put_to_rest(self, task: Task) -> None:
        """Within what the rows under way leave. Where memory ends, nothing is kept."""
        conversation = task.conversation
        if conversation is None or not self._keeps or task.row.prompt_logprobs is not None:
            return
        assert self._reader is not None
        arena = self._reader.arena
        room = self._kv_tokens - arena.rows * arena.room
        self._kept.shrink_to(max(0, room - conversation.read))
        if conversation.read > room:
            return
        try:
            self._kept.keep(conversation)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._kept.shrink_to(0)

    def _let_go(self, task: Task) -> None:
        if task.conversation is not None:
            assert self._reader is not None
            self._reader.arena.leave(task.conversation)
            task.conversation = None

    # -- by generate -----------------------------------------------------------------------

    def _admit_alike(self) -> None:
        """A batch in the order of its coming: it is padded to its longest prompt."""
        longest = reply = 0
        while self.waiting and len(self.running) < self._max_rows:
            row = self.waiting[0].row
            longest, reply = max(longest, len(row.prompt)), max(reply, row.max_tokens)
            if self.running and (len(self.running) + 1) * (longest + reply) > self._kv_tokens:
                return
            self.running.append(self.waiting.popleft())

    def _generate(self) -> None:
        batch = list(self.running)
        if not batch:
            return
        for task in batch:
            if task.row.prompt_logprobs is not None:
                self._score(task.drawing)
        device, pad = self._loaded.model.device, self._loaded.pad_id
        longest = max(len(task.row.prompt) for task in batch)
        lacks = [longest - len(task.row.prompt) for task in batch]
        ids = [[pad] * n + task.row.prompt for n, task in zip(lacks, batch, strict=True)]
        seen = [[0] * n + [1] * (longest - n) for n in lacks]

        def draw(_: Any, scores: Any) -> Any:
            going = [place for place, task in enumerate(batch) if not task.drawing.is_done]
            self._sampler.draw([batch[place].drawing for place in going], scores[going].float())
            for place in going:
                if batch[place].drawing.is_done:
                    self._finish(batch[place])
            tokens = [task.drawing.tokens[-1] for task in batch]
            drawn = torch.tensor(tokens, device=scores.device)
            return torch.zeros_like(scores).scatter_(1, drawn[:, None], 1.0)

        def ends(*_: Any, **__: Any) -> Any:
            if self._halted:
                raise Aborted("the server is ending")
            for task in batch:
                task.drawing.is_done |= task.row.abandoned
            return torch.tensor([task.drawing.is_done for task in batch], device=device)

        self._loaded.model.generate(
            torch.tensor(ids, device=device),
            attention_mask=torch.tensor(seen, device=device),
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=max(task.row.max_tokens for task in batch),
                pad_token_id=pad,
                eos_token_id=None,  # ends are the sampler's: a row may go without
                use_cache=True,
            ),
            logits_processor=LogitsProcessorList([draw]),
            stopping_criteria=StoppingCriteriaList([ends]),
        )
        self.counters.passes += 1

    def _score(self, drawing: Drawing) -> None:
        row, cache, model = drawing.row, None, self._loaded.model
        drawing.prompt_scores.clear()
        for begin in range(0, len(row.prompt), self._piece):
            piece = torch.tensor([row.prompt[begin : begin + self._piece]], device=model.device)
            output = model(input_ids=piece, past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            drawing.prompt_scores += prompt_scores(row, begin, output.logits[0].float())

    # -- what goes wrong -------------------------------------------------------------------

    def _recover(self, error: Exception) -> None:
        """Fail those under way; where memory has ended, begin them again, later and fewer.

        Nobody knows what of the arena is sound, so it is made anew.
        """
        back, had = self.running, self._kept.tokens
        if self._reader is not None:
            self._reader.arena = Arena()
            for task in back:
                task.conversation = None
        self.running = []
        self._kept.shrink_to(0)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not back and self.waiting:  # it did not get so far
            back = [self.waiting.popleft()]
        if not is_out_of_memory(error) or (len(back) == 1 and not had):
            self._fail(back, error)
            return
        if not had:
            self._max_rows = max(1, len(back) // 2)
        self.counters.preemptions += len(back)
        # From the beginning: with the same seeds they get the same tokens.
        self.waiting.extendleft(self.task(task.row, task.told) for task in reversed(back))

    def _fail(self, tasks: Sequence[Task], error: Exception) -> None:
        for task in tasks:
            task.told(error)
        self.running = []


OUT_OF_MEMORY = (
    "can't allocate memory",  # the CPU
    "out of memory",  # the driver, past torch's allocator
    "STATUS_ALLOC_FAILED",  # cuBLAS and cuDNN, for their own workspaces
)


def is_out_of_memory(error: BaseException) -> bool:
    """torch has a type for its own allocations on a GPU; for all others only words."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    )
