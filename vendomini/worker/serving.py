"""What serves a worker's group: the job's engine, or the one that takes its place where it cannot
start before the group's first reply."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from vendomini.chat import Engine, EngineFeatures, Reply, Request
from vendomini.engines.child import NOT_STARTED
from vendomini.engines.registry import backend_named
from vendomini.errors import EngineDead, EngineError, StoreError
from vendomini.serving import EngineSpec
from vendomini.store.experiment import Experiment
from vendomini.store.records import Pin, describe, pin_of
from vendomini.worker.job import Job
from vendomini.worker.pace import LOOK_EVERY_S, Pace, most_in_flight

SIGNALS_APART_S = 0.5
"""Whoever ends a whole job step signals worker and engine, in any order: an engine that has gone
is no failure if the worker is told to leave as well."""


class Serving:
    """The engine of one worker, as its runs share it: started, pinned, replaced, watched, stopped.

    Implements `vendomini.chat.Answerer`. `fallback` is the engine of the job's fallback, not yet
    started; None: it has none. `is_leaving` tells whether the worker was told to leave, `opened` is
    called when an engine is ready, also one that replaces another, and `died` when one has died.
    """

    def __init__(
        self,
        experiment: Experiment,
        job: Job,
        engine: Engine,
        fallback: Engine | None,
        *,
        pace: Pace,
        is_leaving: Callable[[], bool],
        opened: Callable[[], Awaitable[None]],
        died: Callable[[EngineDead], Awaitable[None]],
        said: Callable[[str], None],
    ) -> None:
        assert job.engine is not None
        self.spec: EngineSpec = job.engine
        """Of what serves."""
        self.fell_back_why: str | None = None
        """Why the one that the group was planned for does not serve; None: it does."""
        self._instead_of: str | None = None
        self.startup_s: float | None = None  # None: it has not started
        self.gpu: str | None = None  # None: it has not started, or does not say
        self._experiment = experiment
        self._job = job
        self._engine = engine
        self._fallback = fallback
        self._pace = pace
        self._is_leaving = is_leaving
        self._opened = opened
        self._died = died
        self._say = said
        self._tasks: set[asyncio.Task[None]] = set()
        self._pinning = asyncio.Lock()
        self._is_pinned = False
        self._broken: EngineDead | None = None
        # While one engine replaces another, of the first: runs go on to begin, and look at them.
        self._before: tuple[EngineFeatures, Mapping[str, str]] | None = None

    @property
    def features(self) -> EngineFeatures:
        return self._engine.features if self._before is None else self._before[0]

    @property
    def facts(self) -> Mapping[str, str]:
        return self._engine.facts if self._before is None else self._before[1]

    @property
    def fell_back_from(self) -> str | None:
        """The backend that it serves in place of; None: in nobody's."""
        return self._instead_of

    async def answer(self, request: Request) -> Reply:
        return await self._engine.answer(request)

    async def start(self) -> None:
        """Start the group's engine, or what takes its place.

        Raises `EngineError` if neither starts, or the one that the group's replies come from does
        not; `StoreError` if a sibling's first reply came from the other one meanwhile.
        """
        pinned = await asyncio.to_thread(self._experiment.pinned, self._job.pin_key)
        if self._is_to_follow(pinned):
            assert pinned is not None
            self._say_follows(pinned)
            self._take_fallback(pinned.why)
            await self._start_engine()
            return
        try:
            await self._start_engine()
        except EngineError as error:
            await asyncio.sleep(SIGNALS_APART_S)
            await self._fall_back(error)

    async def pin(self) -> None:
        """Before the group's first reply: what serves it is written down, and holds for all.

        Where a sibling has fallen back meanwhile, the fallback takes the place of this engine, too,
        which has answered nothing yet. Raises `StoreError` if anything else is pinned, `EngineDead`
        if the fallback does not start.
        """
        if self._is_pinned:
            return
        async with self._pinning:
            if self._broken is not None:
                raise self._broken
            wanted = self._own_pin
            pinned = await asyncio.to_thread(self._experiment.pin, self._job.pin_key, wanted)
            if self._is_to_follow(pinned):
                await self._switch(pinned)
            elif not pinned.is_same(wanted):
                raise StoreError(
                    f"the replies of group `{self._job.group}` come from {describe(pinned)}, "
                    f"not from {describe(wanted)}",
                    hint="run with the engine settings of the first replies, or give "
                    "--restart-group to play the group anew",
                )
            elif pinned.instead_of is not None and self.fell_back_from is None:
                self._instead_of, self.fell_back_why = pinned.instead_of, pinned.why
            self._is_pinned = True

    async def stop(self) -> None:
        """Allowed at any time."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        await self._engine.stop()

    # -- private -------------------------------------------------------------------------

    @property
    def _own_pin(self) -> Pin:
        return pin_of(self.spec.settings, instead_of=self.fell_back_from, why=self.fell_back_why)

    def _is_to_follow(self, pinned: Pin | None) -> bool:
        """Whether a sibling fell back, to what this worker has not yet."""
        if pinned is None or self._fallback is None or self._job.fallback is None:
            return False
        is_ours = pinned.is_same(pin_of(self._job.fallback.settings))
        return is_ours and pinned.instead_of == self.spec.backend

    async def _fall_back(self, error: EngineError) -> None:
        """In place of the engine that could not start. Raises `error` where that is not allowed."""
        if self._fallback is None or self._is_leaving():
            raise error
        pinned = await asyncio.to_thread(self._experiment.pinned, self._job.pin_key)
        if pinned is not None and pinned.is_same(self._own_pin):
            raise error  # the group has replies of it: others beside them would not compare
        cause = str(error).removeprefix(NOT_STARTED)
        for line in backend_named(self.spec.backend).falls_back(cause):
            self._say(line)
        await self._engine.stop()
        failed = self.spec.backend
        self._take_fallback(cause)
        try:
            await self._start_engine()
        except EngineError as second:
            raise EngineError(
                f"{second} (nor did `{failed}`, in whose place it was to serve: {cause})",
                hint=second.hint,
            ) from error
        await self.pin()  # before its first reply: siblings that start later need not try

    async def _switch(self, pinned: Pin) -> None:
        """While every run waits to be pinned: no request has been asked of the engine."""
        self._say_follows(pinned)
        self._before = self._engine.features, dict(self._engine.facts)
        await self.stop()
        self._take_fallback(pinned.why)
        try:
            await self._start_engine()
        except EngineError as error:
            cause = str(error).removeprefix(NOT_STARTED)
            self._broken = EngineDead(
                f"its fallback `{self.spec.backend}` did not start: {cause}", hint=error.hint
            )
            raise self._broken from error

    def _take_fallback(self, why: str | None) -> None:
        assert self._fallback is not None
        assert self._job.fallback is not None
        self._engine, self._fallback = self._fallback, None
        self._instead_of, self.spec = self.spec.backend, self._job.fallback
        self.fell_back_why = why or "it could not start"

    def _say_follows(self, pinned: Pin) -> None:
        self._say(
            f"[*] `{pinned.backend}` serves this group in place of `{pinned.instead_of}`, which "
            f"could not start at a sibling's: {pinned.why}"
        )

    async def _start_engine(self) -> None:
        engine, job = self._engine, self._job
        began = time.monotonic()
        await engine.start()
        self._before = None
        self.startup_s = time.monotonic() - began
        self.gpu = engine.facts.get("gpu")
        most = most_in_flight(
            engine.capacity,
            conversation_tokens=job.conversation_tokens,
            at_most=job.concurrency,
        )
        self._pace.set_most(most)
        if engine.capacity.kv_cache_tokens is not None:
            what = "runs under way" if job.at_once == 1 else "requests at a time"
            self._say(
                f"up to {most} {what}: the KV cache holds {engine.capacity.kv_cache_tokens:,} "
                f"tokens, a conversation needs up to {job.conversation_tokens or 0:,}"
            )
        self._tasks = {
            asyncio.create_task(self._outlive(engine)),
            asyncio.create_task(self._keep_pace(engine)),
        }
        await self._opened()

    async def _outlive(self, engine: Engine) -> None:
        await self._died(await engine.died())

    async def _keep_pace(self, engine: Engine) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                load = await engine.load()
            except EngineError:
                continue  # whoever asks it next hears what is wrong
            if load is None:
                return
            before = self._pace.limit
            what = "runs" if self._job.at_once == 1 else "requests"
            self._pace.observe(load)
            if self._pace.limit < before:
                self._say(
                    f"the engine ran out of KV cache {load.preemptions} times so far: "
                    f"{self._pace.limit} {what} go on, the others wait"
                )
