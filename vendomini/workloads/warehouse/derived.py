"""What follows from the steps of a run and is no part of it: its crash, by three thresholds.

All of it is found out from the logged steps alone, so that a threshold can be changed, and a sign
added, with no run played anew. What would need steps after the run's end is not observable, which
is not the same as that it did not come.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from vendomini.workloads.warehouse.belief import Belief
from vendomini.workloads.warehouse.crash import (
    PRIMARY,
    THRESHOLDS,
    Call,
    Crash,
    Detector,
    PrimarySign,
    Signs,
    Thresholds,
)
from vendomini.workloads.warehouse.logged import LoggedStep
from vendomini.workloads.warehouse.secondary import (
    SECONDARY,
    SECONDARY_THRESHOLDS,
    SecondarySign,
    SecondarySigns,
    SecondaryThresholds,
)
from vendomini.workloads.warehouse.settings import Threshold, WarehouseSettings
from vendomini.workloads.warehouse.stop import Competing

Sign: TypeAlias = PrimarySign | SecondarySign
SIGNS: tuple[Sign, ...] = (*PRIMARY, *SECONDARY)

MAIN: Threshold = "moderate"
"""The threshold whose crash is `crash`, and of which the signs and competing events are."""

COLUMN: Mapping[Threshold, str] = {
    "moderate": "crash",
    "strict": "crash_strict",
    "lenient": "crash_lenient",
}
NOT_OBSERVABLE: Literal["not observable"] = "not observable"
COLUMNS: tuple[str, ...] = (
    *(f"{crash}.{name}" for crash in COLUMN.values() for name in ("type", "onset", "severity")),
    *("competing.type", "competing.onset", "censored"),
    *(f"signs.{sign}" for sign in SIGNS),
)
"""The dotted names of all that `derived` gives."""

COMPETING: frozenset[str] = frozenset(get_args(Competing))


class Json:
    """A value of JSON that is decoded only where its text does not decide: two are equal if what
    they say is, as 1 and 1.0, or the same keys in another order."""

    __slots__ = ("_text",)

    def __init__(self, text: msgspec.Raw) -> None:
        self._text = text

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Json):
            return NotImplemented
        mine, its = self._text, other._text
        return mine == its or bool(msgspec.json.decode(mine) == msgspec.json.decode(its))

    __hash__ = None  # type: ignore[assignment]  # equal ones may have different texts


class LoggedCall(msgspec.Struct, frozen=True, gc=False):
    """A call as a detector sees it."""

    tool: str
    arguments: object
    result: object
    failure: str | None  # None: it succeeded


class Watch:
    """Looks for the signs in one run's steps, which it is shown one after the other."""

    __slots__ = ("_detectors", "_last", "_secondary", "_signs", "onsets")

    def __init__(
        self,
        window_size: int,
        *,
        limits: Mapping[Threshold, Thresholds] = THRESHOLDS,
        secondary: SecondaryThresholds = SECONDARY_THRESHOLDS[MAIN],
    ) -> None:
        self.onsets: dict[Sign, int] = {}
        """Of each sign, by the main threshold, the step after which it held for the first time."""
        self._signs = Signs(window_size)
        self._detectors = {name: Detector(limits[name], window_size) for name in COLUMN}
        self._secondary = SecondarySigns(secondary, window_size)
        self._last = -1

    def after_step(
        self,
        step: int,
        called: Call | None,
        *,
        next_tool: str | None,
        belief: Belief | None,
    ) -> list[Sign]:
        """Look at a step, `called` None for one without a readable call; signs that set in, by
        the main threshold. `next_tool` is what the call's card announces."""
        self._last = step
        if called is not None:
            self._signs.take(called)
        new: list[Sign] = []
        for name, detector in self._detectors.items():
            primary = detector.after_step(step, called, self._signs)
            if primary and name == MAIN:
                new += primary
        secondary = self._secondary.seen(
            None if called is None else called.tool, next_tool=next_tool, belief=belief
        )
        if secondary:
            new += [sign for sign in secondary if sign not in self.onsets]
        for sign in new:
            self.onsets[sign] = step
        return new

    def crash(self, threshold: Threshold = MAIN) -> Crash | None:
        """None: none was seen so far."""
        return self._detectors[threshold].crash()

    def columns(self, end: str) -> dict[str, Any]:
        """What the table says of a run whose steps were all shown and that ended so."""
        crashes = {name: _crash(self.crash(name), end) for name in COLUMN}
        crash = crashes[MAIN]["type"]
        competes = crash is None and end in COMPETING
        return {
            **{COLUMN[name]: crash for name, crash in crashes.items()},
            "competing": {
                "type": end if competes else None,
                "onset": self._last if competes else None,
            },
            "censored": crash is None and not competes,
            "signs": {sign: self.onsets.get(sign) for sign in SIGNS},
        }


def derived(
    settings: WarehouseSettings,
    steps: Sequence[LoggedStep],
    outcome: Mapping[str, Any],
    *,
    limits: Mapping[Threshold, Thresholds] = THRESHOLDS,
    secondary: SecondaryThresholds = SECONDARY_THRESHOLDS[MAIN],
) -> dict[str, Any]:
    """The columns of a finished run, nested, by the thresholds of the table or those given."""
    watch = Watch(settings.crash_detector.window_size, limits=limits, secondary=secondary)
    for step in steps:
        look(watch, step)
    return watch.columns(outcome["end"])


def look(watch: Watch, step: LoggedStep) -> list[Sign]:
    """Show a logged step to a watch; the signs that set in."""
    return watch.after_step(
        step.step,
        _call(step),
        next_tool=None if step.card is None else step.card.next_tool,
        belief=step.belief,
    )


# -- private ------------------------------------------------------------------------------


class _Verdict(msgspec.Struct, gc=False):
    """Of a result, whether and why the call failed."""

    code: str | None = None


_verdict = msgspec.json.Decoder(_Verdict).decode


def _call(step: LoggedStep) -> LoggedCall | None:
    if step.action is None:
        return None
    return LoggedCall(
        step.action.tool,
        Json(step.action.args),
        Json(step.result),
        _verdict(step.result).code,
    )


def _crash(crash: Crash | None, end: str) -> dict[str, str | int | None]:
    if crash is not None:
        return {"type": crash.type, "onset": crash.onset, "severity": crash.severity}
    # A rule for stopping ended the run before this threshold had anything to see.
    type = NOT_OBSERVABLE if end == "crash" else None
    return {"type": type, "onset": None, "severity": None}
