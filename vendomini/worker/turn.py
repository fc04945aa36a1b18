"""The engine that a group shares, as one of its runs has it."""

from collections.abc import Awaitable, Callable, Mapping

from vendomini.chat import Answerer, EngineFeatures, Reply, Request, choices_of
from vendomini.worker.meter import Meter
from vendomini.worker.pace import Pace


class InTurn:
    """The engine that the runs of a group share, as one of them has it: pinned before it is asked,
    asked when it is the run's turn, and measured."""

    def __init__(
        self,
        engine: Answerer,
        run: str,
        *,
        pin: Callable[[], Awaitable[None]],
        pace: Pace,
        meter: Meter,
    ) -> None:
        self._engine = engine
        self._run = run
        self._pin = pin
        self._pace = pace
        self._meter = meter

    @property
    def features(self) -> EngineFeatures:
        return self._engine.features

    @property
    def facts(self) -> Mapping[str, str]:
        return self._engine.facts

    async def answer(self, request: Request) -> Reply:
        await self._pin()
        held = await self._pace.turn(self._run, choices_of(request))
        try:
            with self._meter.under_way():
                reply = await self._engine.answer(request)
        finally:
            self._pace.give_back(held)
        self._meter.add(reply)
        return reply
