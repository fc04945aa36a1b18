"""How long a group's work takes on some engines, and what it costs: pure.

A *round* is one request of each run under way, or as many as it asks at once: their prompts are
read one after another, their replies are written together. A worker plays its runs in waves of as
many as are under way at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Deployment, Speed
from vendomini.planner.gpu_memory import sequences_that_fit
from vendomini.planner.speed import speed
from vendomini.planner.startup import startup_s
from vendomini.planner.work import Work
from vendomini.store.measurements import Measured

MOST_UNDER_WAY = 256
"""Requests in flight on one engine at most, where the phase does not say how many: so many
runs under way, where each asks one at a time."""

SPREAD = 1.6
"""By which factor a computed time may be wrong either way: about the 90th percentile of computed
over published decode speeds (`bench/decode_speed.py`)."""

MEASURED_SPREAD = 1.25
"""The same where the speed was measured here: what is left is how long the replies are."""


HASTE = 1.25
"""How much dearer a group may get so that its workers end in the time that the scheduler
backfills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a group costs, if every run plays all its steps. Hours are the expected ones.

    `gpu_hours` are booked, of all workers; `wall_hours` go from the first worker's start to the
    last one's end, with `at_once` of the workers at a time. Both may be wrong by the factor
    `spread` either way. `startup_share` is the part of the time in which engines load, `worker_s`
    the seconds that one worker needs, its start included. `under_way` runs share an engine, which
    holds `in_flight` requests at a time.
    """

    workers: int
    at_once: int
    under_way: int
    in_flight: int
    gpu_hours: float
    wall_hours: float
    startup_share: float
    worker_s: float
    spread: float
    speed: Speed

    @property
    def gpu_hours_range(self) -> tuple[float, float]:
        return self.gpu_hours / self.spread, self.gpu_hours * self.spread

    @property
    def wall_hours_range(self) -> tuple[float, float]:
        return self.wall_hours / self.spread, self.wall_hours * self.spread


class Pace:
    """The times of one group's work on one deployment; what was computed is remembered."""

    def __init__(
        self,
        model: ModelSpec,
        deployment: Deployment,
        work: Work,
        *,
        most_under_way: int | None = None,
        measured: Sequence[Measured] = (),
    ) -> None:
        """`most_under_way` is the phase's own limit of requests in flight; None:
        `MOST_UNDER_WAY`."""
        self.deployment = deployment
        self.startup_s = startup_s(model, deployment, measured=measured)
        self._model, self._work, self._measured = model, work, measured
        self._speeds: dict[int, Speed] = {}
        tokens = min(work.conversation_tokens, deployment.max_model_len)
        fit = sequences_that_fit(model, deployment, tokens)
        self.most_in_flight = max(1, min(most_under_way or MOST_UNDER_WAY, fit))
        self.most_under_way = max(1, min(int(self.most_in_flight / work.at_once), work.runs))

    def speed(self, under_way: int) -> Speed:
        """The engine's speed with so many runs under way, in the middle of their conversations."""
        if under_way not in self._speeds:
            context = min(round(self._work.mean_context_tokens), self.deployment.max_model_len)
            self._speeds[under_way] = speed(
                self._model,
                self.deployment,
                sequences=self._in_flight(under_way),
                context=context,
                measured=self._measured,
            )
        return self._speeds[under_way]

    def round_s(self, under_way: int) -> float:
        """Seconds in which each of so many runs under way has the requests answered that it asks
        at once; what has no room waits for the first to be answered."""
        if not under_way:
            return 0.0
        at = self.speed(under_way)
        # A state (Mamba, linear attention) is none of a prefix: transformers reads it all again.
        is_kept = self.deployment.backend == "vllm" or not self._model.state_bytes
        read = self._work.new_tokens if is_kept else self._work.mean_context_tokens
        asked = under_way * self._work.at_once
        batches = asked / self._in_flight(under_way)
        return batches * self._work.output_tokens * at.step_s + asked * read / at.prefill_tokens_s

    def _in_flight(self, under_way: int) -> int:
        """How many requests of so many runs under way the engine answers at a time."""
        return max(under_way, min(round(under_way * self._work.at_once), self.most_in_flight))

    def playing_s(self, runs: int) -> float:
        """Seconds in which one worker plays so many runs: full waves and a rest, but no less than
        its longest run takes."""
        waves, rest = divmod(runs, self.most_under_way)
        rounds = waves * self.round_s(self.most_under_way) + self.round_s(rest)
        longest = self._work.longest_run_requests * self.round_s(min(runs, self.most_under_way))
        return max(self._work.mean_run_rounds * rounds, longest)

    def worker_s(self, workers: int) -> float:
        """Seconds that each of so many workers needs, its engine's start included."""
        return self.startup_s + self.playing_s(-(-self._work.runs // workers))

    def workers_for(self, wanted_s: float, *, at_once: int, limit_s: float | None = None) -> int:
        """How many workers to start: the fewest that end in `wanted_s`, and in `limit_s` where one
        is set. No more than `at_once` have GPUs.

        As long as an engine has more than one wave to play, further workers cost only their start.
        Beyond that each has fewer runs under way, so the tokens get dearer: that is worth it for
        the limit, but for the wish only up to `HASTE` times the GPU-hours.
        """
        most = max(1, min(at_once, self._work.runs))
        waves = min(most, -(-self._work.runs // self.most_under_way))
        cheap = self._fewest(wanted_s, 1, waves)
        if self.worker_s(cheap) <= wanted_s:
            return cheap
        if limit_s is not None and self.worker_s(cheap) > limit_s:
            return self._fewest(limit_s, cheap, most)
        hasty = self._fewest(wanted_s, cheap, most)
        dearer = hasty * self.worker_s(hasty) / (cheap * self.worker_s(cheap))
        return hasty if dearer <= HASTE and self.worker_s(hasty) <= wanted_s else cheap

    def _fewest(self, seconds: float, low: int, high: int) -> int:
        """The fewest workers from `low` to `high` that end in so many seconds; else `high`.

        More workers never take longer, so halving finds it.
        """
        while low < high:
            middle = (low + high) // 2
            if self.worker_s(middle) <= seconds:
                high = middle
            else:
                low = middle + 1
        return low

    def estimate(self, workers: int, *, at_once: int) -> Estimate:
        """What the work costs with so many workers, of which `at_once` have GPUs at a time."""
        under_way = min(self.most_under_way, -(-self._work.runs // workers))
        return self._estimate(workers, at_once, self.worker_s(workers), under_way)

    def one_run_a_job(self, *, at_once: int) -> Estimate:
        """What it costs to start an engine for each run, as one job each."""
        worker_s = self.startup_s + self._work.mean_run_rounds * self.round_s(1)
        return self._estimate(self._work.runs, at_once, worker_s, 1)

    def _estimate(self, workers: int, at_once: int, worker_s: float, under_way: int) -> Estimate:
        waves = -(-workers // max(at_once, 1))
        at = self.speed(under_way)
        return Estimate(
            workers=workers,
            at_once=min(workers, at_once),
            under_way=under_way,
            in_flight=self.most_in_flight,
            gpu_hours=workers * self.deployment.gpus * worker_s / 3600,
            wall_hours=waves * worker_s / 3600,
            startup_share=self.startup_s / worker_s,
            worker_s=worker_s,
            spread=MEASURED_SPREAD if at.is_measured else SPREAD,
            speed=at,
        )
