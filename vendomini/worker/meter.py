"""What an engine did for a worker: tokens, and the time in which it had requests."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from vendomini.chat import Reply
from vendomini.engines.registry import backend_named
from vendomini.serving import EngineSpec
from vendomini.store.measurements import Measured


class Meter:
    """Counts requests and their tokens; its clock runs while at least one is under way."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.startup_s: float | None = None  # None: it did not start here
        self.requests = 0
        self.tokens_in = 0
        self.tokens_cached = 0
        self.tokens_out = 0
        self.busy_s = 0.0
        self._request_s = 0.0  # of all requests together
        self._clock = clock
        self._under_way = 0
        self._since = 0.0

    @property
    def concurrency(self) -> float:
        """Requests under way, on average while there were any."""
        return self._request_s / self.busy_s if self.busy_s else 0.0

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Around one request to the engine, whether or not it is answered."""
        self._pass(1)
        try:
            yield
        finally:
            self._pass(-1)

    def add(self, reply: Reply) -> None:
        self.requests += 1
        self.tokens_in += reply.tokens_in
        self.tokens_cached += reply.tokens_cached
        self.tokens_out += reply.tokens_out

    def measured(self, spec: EngineSpec, *, gpu: str | None) -> Measured | None:
        """The record of it; None if there is nothing that a plan could use."""
        backend, settings = backend_named(spec.backend), spec.settings
        if backend.planned_as is None or not self.tokens_out or not self.busy_s:
            return None
        return Measured(
            model=spec.model,
            revision=spec.revision,
            backend=spec.backend,
            dtype=settings.dtype,
            quantization=settings.quantization,
            gpu=gpu,
            tensor_parallel_size=settings.tensor_parallel_size or 1,
            pipeline_parallel_size=backend.stages(spec),
            concurrency=round(self.concurrency, 3),
            context=round(self.tokens_in / self.requests, 1),
            tokens_in=self.tokens_in,
            tokens_cached=self.tokens_cached,
            tokens_out=self.tokens_out,
            seconds=round(self.busy_s, 3),
            startup_s=None if self.startup_s is None else round(self.startup_s, 3),
            requests=self.requests,
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _pass(self, change: int) -> None:
        now = self._clock()
        if self._under_way:
            self.busy_s += now - self._since
            self._request_s += (now - self._since) * self._under_way
        self._since = now
        self._under_way += change
