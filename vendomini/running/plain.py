"""Voices without a terminal: plain lines, as in a notebook or a log, and silence."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from vendomini.prepare import Plan, writes_in_words
from vendomini.running.voice import Progress

LONGER = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Lines on stderr, whatever that is when they are said.

    Progress is told after `first_s` seconds, and then each time that half as much again has
    passed: some twenty lines in four hours.
    """

    first_s: float = 5.0

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def meanwhile(self, text: str) -> None:
        self.say(text)

    def plan(self, plan: Plan) -> None:
        self.say(f"{plan.name}: {plan.runs} runs")
        for group in plan.groups:
            served = (group.backend or "auto") if group.asks else "none"
            workers = "1 worker" if group.workers == 1 else f"{group.workers} workers"
            self.say(f"  {group.key}: {len(group.run_ids)} runs, backend {served}, {workers}")
        if plan.writes is not None:
            self.say(f"  {writes_in_words(plan.writes)}")
        for note in plan.notes:
            self.say(f"  note: {note}")

    @contextmanager
    def playing(self, *, done: int, total: int) -> Iterator[Progress]:
        started = time.monotonic()
        next_s = self.first_s

        def tell(*, done: int, steps_per_s: float, doing: str | None) -> None:
            nonlocal next_s
            seconds = time.monotonic() - started
            if seconds < next_s:
                return
            next_s = LONGER * seconds
            self.say(f"{done} of {total} runs, {doing or f'{steps_per_s:,.0f} steps/s'}")

        yield tell


class Silence:
    """Says nothing."""

    def say(self, text: str) -> None:
        pass

    def meanwhile(self, text: str) -> None:
        pass

    def plan(self, plan: Plan) -> None:
        pass

    @contextmanager
    def playing(self, *, done: int, total: int) -> Iterator[Progress]:
        def tell(*, done: int, steps_per_s: float, doing: str | None) -> None:
            pass

        yield tell
