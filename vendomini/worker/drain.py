"""When a worker stops claiming, when it lets go of what is under way, and why."""

from collections.abc import Callable

from vendomini.store.clock import now_s

DRAIN_SHARE = 0.2
"""A job so short that `drain_s` would eat it drains in the last fifth of its time."""


class Drain:
    """The stages of leaving: claiming, then finishing only, then stopped.

    Times are on the clock of `store.clock`, in seconds. Requests to drain come from signals, from
    the deadline, and from whatever makes going on useless.
    """

    def __init__(
        self,
        *,
        deadline: float | None,
        drain_s: float,
        clock: Callable[[], float] = now_s,
    ) -> None:
        self._clock = clock
        now = clock()
        self._stop_at: float | None = None
        self._claim_until: float | None = None
        self.changed: Callable[[], None] = lambda: None  # called when somebody asks to drain
        self._asked: str | None = None  # None: nobody asked it to drain
        self.problem: str | None = None  # None: leaving is not a failure
        if deadline is not None:
            ahead = min(drain_s, max(deadline - now, 0.0) * DRAIN_SHARE)
            self._claim_until = deadline - ahead
            # The last quarter of the margin is for flushing, and for an engine to end.
            self._stop_at = deadline - ahead / 4

    @property
    def reason(self) -> str | None:
        """Why no new runs may be begun; None while they may."""
        if self._asked is not None:
            return self._asked
        if self._claim_until is not None and self._clock() >= self._claim_until:
            return "its time is nearly up"
        return None

    @property
    def is_over(self) -> bool:
        """Whether runs under way have to be let go."""
        return self._stop_at is not None and self._clock() >= self._stop_at

    def seconds_to_next_stage(self, *, at_most: float) -> float:
        """How long a worker may look away."""
        if self.is_over:
            return 0.0
        now = self._clock()
        stages = (at for at in (self._claim_until, self._stop_at) if at is not None and at > now)
        return min(at_most, *(at - now for at in stages), at_most)

    def within(self, seconds: float, reason: str) -> None:
        """Claim no more, and let go of everything in at most `seconds`."""
        self._asked = self._asked or reason
        wanted = self._clock() + seconds
        self._stop_at = wanted if self._stop_at is None else min(self._stop_at, wanted)
        self.changed()

    def fail(self, problem: str) -> None:
        """Stop at once: going on is useless or harmful."""
        self.problem = self.problem or problem
        self.within(0.0, problem)
