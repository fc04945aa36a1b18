"""What the runs of a group will ask of an engine, added up: pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWork:
    """What one run asks, if it plays all its steps. Lengths are in tokens.

    `requests` follow one another, or `at_once` of them are asked at the same time. The conversation
    grows by `growth_tokens` with each that follows, after the `prefix_tokens` that all runs share;
    `side_requests` add nothing to it. It may take up `window_tokens` (None: without limit); at that
    length the oldest part leaves, and `kept_share` of it stays and is read anew. `own_tokens` of a
    request's prompt are its alone, such as the item that a score is about.
    """

    requests: int
    side_requests: int = 0
    prefix_tokens: int
    growth_tokens: int
    output_tokens: int
    window_tokens: int | None = None
    kept_share: float = 0.0
    at_once: int = 1
    own_tokens: int = 0

    @property
    def all_requests(self) -> int:
        return self.requests + self.side_requests

    @property
    def requests_in_a_row(self) -> int:
        """How many of all requests are asked one after another."""
        return -(-self.all_requests // self.at_once)

    @property
    def conversation_tokens(self) -> int:
        """The longest that the conversation gets."""
        grown = self.prefix_tokens + self._asks * self.growth_tokens + self.own_tokens
        if self.at_once > 1:
            # The replies to a batch need not stay in the conversation, but room to be written in.
            grown = max(grown, self.prefix_tokens + self.own_tokens + self.output_tokens)
        return grown if self.window_tokens is None else min(grown, self.window_tokens)

    @property
    def mean_context_tokens(self) -> float:
        """The length of the prompt of a request, on average over the run.

        It climbs evenly to the window, then swings between what a truncation keeps and the window.
        """
        top = self.conversation_tokens
        climb = (self.prefix_tokens + self.own_tokens + top) / 2
        if not self._truncated_asks:
            return climb
        swing = top * (1 + self.kept_share) / 2
        share = self._truncated_asks / self._asks
        return climb * (1 - share) + swing * share

    @property
    def new_tokens(self) -> float:
        """Tokens of a request's prompt that a prefix cache cannot have, on average.

        What was added since the last request, without the reply, which the engine wrote itself;
        after the window is full, also what each truncation makes it read again.
        """
        added = max(self.growth_tokens - self.output_tokens, 0) + self.own_tokens
        if not self._truncated_asks:
            return added
        top = self.conversation_tokens
        leaves = max(top * (1 - self.kept_share), self.growth_tokens)
        again = max(top * self.kept_share - self.prefix_tokens, 0) * self.growth_tokens / leaves
        return added + again * self._truncated_asks / self._asks

    @property
    def _asks(self) -> int:
        """How often the conversation grows."""
        return -(-self.requests // self.at_once)

    @property
    def _truncated_asks(self) -> int:
        """Asks that come after the conversation has filled its window."""
        if self.window_tokens is None or self.growth_tokens <= 0:
            return 0
        climbing = max(self.window_tokens - self.prefix_tokens, 0) // self.growth_tokens
        return max(self._asks - climbing, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a group asks in all. Means are over its requests.

    `requests` is the sum over all runs, and `rounds` counts those that are asked at once as one;
    `longest_run_requests` is what its longest run asks, one after another. `conversation_tokens` is
    the longest conversation of any run.
    """

    runs: int
    requests: int
    longest_run_requests: int
    output_tokens: float
    new_tokens: float
    mean_context_tokens: float
    conversation_tokens: int
    rounds: int

    @property
    def tokens_in(self) -> float:
        """Of all prompts together, whether or not a cache has them."""
        return self.requests * self.mean_context_tokens

    @property
    def tokens_out(self) -> float:
        """Of all replies together."""
        return self.requests * self.output_tokens

    @property
    def mean_run_rounds(self) -> float:
        return self.rounds / self.runs

    @property
    def at_once(self) -> float:
        """Requests that a run has in flight, on average over the rounds of all runs."""
        return self.requests / self.rounds if self.rounds else 1.0


def work_of(runs: Mapping[RunWork, int]) -> Work:
    """The work of some runs, given how many there are of each kind; at least one."""
    requests = sum(run.all_requests * count for run, count in runs.items())

    def mean(of: str) -> float:
        # Exactly, so that the order of the grid's arms does not tell in the last digit.
        total = fsum(getattr(run, of) * run.all_requests * count for run, count in runs.items())
        return total / max(requests, 1)

    return Work(
        runs=sum(runs.values()),
        requests=requests,
        longest_run_requests=max(run.requests_in_a_row for run in runs),
        output_tokens=mean("output_tokens"),
        new_tokens=mean("new_tokens"),
        mean_context_tokens=mean("mean_context_tokens"),
        conversation_tokens=max(run.conversation_tokens for run in runs),
        rounds=sum(run.requests_in_a_row * count for run, count in runs.items()),
    )
