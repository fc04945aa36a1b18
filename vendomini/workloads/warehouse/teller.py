"""What a step of the warehouse means to a reader."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vendomini.transcript import Exchange, Line, Values, as_json
from vendomini.workloads.warehouse.belief import Belief
from vendomini.workloads.warehouse.crash import PRIMARY
from vendomini.workloads.warehouse.derived import COLUMN, MAIN, SIGNS, LoggedCall, Watch
from vendomini.workloads.warehouse.goods import cents
from vendomini.workloads.warehouse.reading import FormatFailure, Reader
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.shocks import NOTICE_DELAY_DAYS, STRENGTHS

KNOWN = frozenset(
    {
        "action", "belief", "card", "day", "events", "ewma", "inbox_count", "parse_status",
        "re_asks", "resolved", "result", "run", "shock_applied", "shock_drawn", "shock_dropped",
        "signs", "step", "truth",
    }
)  # fmt: skip
"""Fields of a step that are told below; any other is shown as it is. `signs` are in older logs."""

LONGEST_RESULT = 600  # characters

PE_COLUMNS = {"predicted": 10, "resolved": 9, "unresolved": 11, "mean": 10, "sd": 10, "max": 10}
"""Columns of the table of errors and their widths."""


class WarehouseTeller:
    """Implements `transcript.Teller`; remembers the day before, and looks for the signs itself."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self._settings = settings
        self._reader = Reader(settings.agent.interface)
        self._last: Values = {}  # the step before
        self._watch = Watch(settings.crash_detector.window_size)
        self._has_crashed = False

    def who(self) -> str:
        agent = self._settings.agent
        return f"llm, model {agent.model.name}" if agent.kind == "llm" else agent.kind

    def heading(self, step: Values) -> str:
        if step.get("day") in (None, step.get("step")):
            return f"day {step.get('step')}"
        return f"day {step['day']}, step {step.get('step')}"

    def saw(self, step: Values) -> list[Line]:
        seen = self.saw_json(step)
        waiting = seen["inbox_count"]
        last = seen["last_result"]
        result = "none: it is the first day" if last is None else as_json(last)
        inbox = "" if waiting is None else f"inbox {waiting}; "
        return [
            Line(label="saw", text=f"{inbox}result of its last call: {result}", most=LONGEST_RESULT)
        ]

    def saw_json(self, step: Values) -> dict[str, Any]:
        return {"last_result": self._last.get("result"), "inbox_count": step.get("inbox_count")}

    def step(self, step: Values, exchanges: Sequence[Exchange]) -> list[Line]:
        lines = self._done(step, exchanges)
        if step.get("action") is not None:
            lines += _predicted(step.get("card"))
        result = step.get("result")
        if result is not None:
            lines.append(_result(result))
        happened = "; ".join(self._happened(step))
        if happened:
            lines.append(Line(label="happened", text=happened))
        lines += self._shocks(step)
        errors = ", ".join(
            f"{error['type']} {error['error']:g}"
            + ("" if error["of"] == step.get("step") else f" (card of step {error['of']})")
            for error in step.get("resolved") or ()
        )
        if errors:
            lines.append(Line(label="errors", text=errors))
        lines += _belief(step.get("belief"))
        lines += self._signs(step)
        if step.get("truth"):
            lines.append(_truth(step["truth"]))
        others = {key: value for key, value in step.items() if key not in KNOWN}
        if any(value is not None for value in others.values()):
            lines.append(Line(label="also", text=as_json(others)))
        self._last = step
        return lines

    def outcome(self, outcome: Values, derived: Values) -> list[Line]:
        lines = [
            Line(
                label="end",
                text=f"{outcome['end']} after {outcome['steps']} of {outcome['max_steps']} steps",
            )
        ]
        if derived:
            lines += _crashes(derived)
        lines.append(Line(label="measures", text=_listed(outcome["measures"])))
        shocks = [f"{type} {_listed(counts)}" for type, counts in outcome["shocks"].items()]
        lines.append(Line(label="shocks", text="\n".join(shocks)))
        lines.append(Line(label="PE", text=_pe_table(outcome["pe"])))
        told = {"end", "steps", "max_steps", "measures", "shocks", "pe"}
        plain: dict[str, Any] = {}
        for key, value in outcome.items():
            if key not in told and isinstance(value, dict):
                lines.append(Line(label=key, text=_listed(value)))
            elif key not in told:
                plain[key] = value
        lines.append(Line(label="also", text=_listed(plain)))
        return lines

    def _done(self, step: Values, exchanges: Sequence[Exchange]) -> list[Line]:
        re_asks = step.get("re_asks") or 0
        asked = f"asked again {re_asks} time{'s' if re_asks != 1 else ''}" if re_asks else ""
        action = step.get("action")
        if action is not None:
            lines = [Line(label="did", text=_call(action), tone="strong")]
            if asked:
                lines.append(Line(label="", text=f"({asked}, then readable)", tone="dim"))
            return lines
        why = self._why_unreadable(exchanges)
        text = "nothing: no reply could be read" + (f" ({asked})" if asked else "")
        if why:
            text += f"; the last one: {why}"
        return [Line(label="did", text=text, tone="bad")]

    def _why_unreadable(self, exchanges: Sequence[Exchange]) -> str | None:
        """Why the last reply of the step was no call; None where there was none."""
        if not exchanges:
            return None
        choice = exchanges[-1].reply.choices[0]
        read = self._reader.read(choice.text, choice.finish_reason)
        return read.why if isinstance(read, FormatFailure) else None

    def _happened(self, step: Values) -> list[str]:
        """What the world did by itself: the morning's events, then what the day made of it."""
        now: Values = step.get("truth") or {}
        before: Values = self._last.get("truth") or {}
        happened = [_event(event) for event in step.get("events") or ()]
        if not now:
            return happened
        failed = _since(now, before, "failed")
        came = _since(now, before, "customers") + _since(now, before, "shipped") + failed
        if came:
            happened.append(_counted(came, "customer order came", "customer orders came"))
        fee = cents(self._settings.simulation.storage_fee * now["storage"]) / 100
        if fee:
            happened.append(f"storage fee {fee:.2f}")
        if failed:
            happened.append(_counted(failed, "customer order lost", "customer orders lost"))
        return happened

    def _shocks(self, step: Values) -> list[Line]:
        lines = []
        drawn, dropped = step.get("shock_drawn"), step.get("shock_dropped")
        applied = step.get("shock_applied") or ()
        today = step.get("day")
        if dropped is not None:
            lines.append(f"{dropped} drawn and dropped: one of its type waits for an order already")
        elif drawn is not None and not any(
            each["type"] == drawn and each["drawn"] == today for each in applied
        ):
            lines.append(f"{drawn} drawn: it waits for an order that it can strike")
        for each in applied:
            since = "" if each["drawn"] == today else f" (drawn on day {each['drawn']})"
            lines.append(f"{each['type']} strikes{since}: {self._strike(each)}; {self._told(step)}")
        return [Line(label="shock", text=text, tone="bad") for text in lines]

    def _strike(self, shock: Values) -> str:
        target, amount = shock["target"], shock["amount"]
        days = _counted(amount, "day", "days")
        match shock["type"]:
            case "temporal":
                return f"{target} comes {days} later"
            case "quantity":
                units = _counted(abs(amount), "unit", "units")
                return f"{target} brings {units} {'more' if amount > 0 else 'less'}"
            case "causal":
                strength = STRENGTHS[self._settings.pe_induction.pe_mag]
                said = f"the payment of {target} posts {days} late"
                if strength.raise_by:
                    said += (
                        f", another supplier's prices rise by {strength.raise_by:.0%} for "
                        f"{_counted(strength.raise_days, 'day', 'days')}"
                    )
                return said
            case "rule":
                return f"{target} takes {days} longer for orders from now on"
            case _:
                return f"{target}, {amount}"

    def _told(self, step: Values) -> str:
        match self._settings.pe_induction.observability:
            case "full":
                return "a notice is in the inbox"
            case "partial":
                return "a notice without the amount is in the inbox"
            case "delayed":
                return f"a notice comes on day {step['day'] + NOTICE_DELAY_DAYS}"
            case "hidden":
                return "the agent is not told"

    def _signs(self, step: Values) -> list[Line]:
        """Those that set in with the step."""
        action, result = step.get("action"), step.get("result")
        belief = step.get("belief")
        called = None
        if action is not None:
            failure = None if result is None else result.get("code")
            called = LoggedCall(action["tool"], action.get("args"), result, failure)
        signs = self._watch.after_step(
            step["step"],
            called,
            next_tool=(step.get("card") or {}).get("next_tool"),
            belief=None if belief is None else msgspec.convert(belief, Belief),
        )
        lines = []
        for sign in signs:
            said = f"{sign} sets in"
            if sign not in PRIMARY:
                said += " (secondary: never the crash)"
            elif not self._has_crashed:
                self._has_crashed = True
                said += ": this is the run's crash"
            lines.append(Line(label="sign", text=said, tone="bad"))
        return lines


def _crashes(derived: Values) -> list[Line]:
    """The crash, that of the other thresholds where it is another, and the signs."""
    crash = _crash(derived, COLUMN[MAIN])
    if crash is None and derived["censored"]:
        said = "none: censored"
    elif crash is None:
        said = f"none: {derived['competing.type']} came first"
        said += f", at step {derived['competing.onset']}"
    else:
        said = crash
    others = [
        f"by the {threshold} threshold {other or 'none'}"
        for threshold, column in COLUMN.items()
        if (other := _crash(derived, column)) != crash
    ]
    onsets = {sign: derived[f"signs.{sign}"] for sign in SIGNS}
    set_in = {sign: onset for sign, onset in onsets.items() if onset is not None}
    signs = ", ".join(
        f"{sign} at step {onset}" + ("" if sign in PRIMARY else " (secondary)")
        for sign, onset in sorted(set_in.items(), key=lambda each: each[1])
    )
    return [
        Line(label="crash", text=said, tone="plain" if crash is None else "bad"),
        *([Line(label="", text="; ".join(others))] if others else []),
        Line(label="signs", text=signs or "none"),
    ]


def _crash(derived: Values, column: str) -> str | None:
    """What a table says of the crash by a threshold, in words; None: there was none."""
    type = derived[f"{column}.type"]
    if type is None or derived[f"{column}.onset"] is None:
        return None if type is None else str(type)
    said = f"{type} at step {derived[f'{column}.onset']}"
    return f"{said}, severity {derived[f'{column}.severity']}"


def _event(event: Values) -> str:
    if event["type"] == "payment":
        return f"{event['amount']:.2f} paid for {event['order_id']}"
    units = _counted(event["accepted"], "unit", "units")
    said = f"{event['order_id']} arrived: {units} of {event['sku']} into storage"
    return said + (f", {event['returned']} went back" if event["returned"] else "")


def _call(action: Values) -> str:
    arguments = action.get("args")
    if isinstance(arguments, Mapping):
        parts = [f"{name}={_word(value)}" for name, value in arguments.items()]
        return " ".join([_word(action.get("tool")), *parts])
    return f"{_word(action.get('tool'))} {as_json(arguments)}"


def _predicted(card: Values | None) -> list[Line]:
    if card is None:
        return [Line(label="predicted", text="nothing", tone="dim")]
    said = []
    for name, value in card.items():
        if value is None or name == "reflection":
            continue
        short = name.removeprefix("expected_").replace("_", " ")
        said.append(f"{short} {_word(value)}")
    lines = [Line(label="predicted", text=", ".join(said) or "nothing")]
    reflection = card.get("reflection") or {}
    for name, value in reflection.items():
        if value is not None:
            text = value if isinstance(value, str) else as_json(value)
            lines.append(Line(label="", text=f"{name.replace('_', ' ')}: {text}", tone="dim"))
    return lines


def _result(result: Values) -> Line:
    others = {key: value for key, value in result.items() if key not in ("success", "error")}
    if result.get("success"):
        text = f"ok: {as_json(others)}" if others else "ok"
        return Line(label="result", text=text, tone="good", most=LONGEST_RESULT)
    text = f"failed ({others.get('code')}): {result.get('error')}"
    return Line(label="result", text=text, tone="bad", most=LONGEST_RESULT)


def _belief(belief: Values | None) -> list[Line]:
    if belief is None:
        return []
    parts = []
    for name in ("storage", "budget"):
        believed = belief.get(name)
        said = "could not be read" if believed is None else f"{believed:g}"
        parts.append(f"{name} {said} (truth {belief.get(f'true_{name}')})")
    return [Line(label="believed", text=f"of the morning: {', '.join(parts)}")]


def _truth(truth: Values) -> Line:
    """The world at the day's end, of which the agent is told nothing."""
    pending, owed = truth.get("pending", 0), truth.get("owed", 0)
    said = [f"budget {truth.get('budget', 0):.2f}"]
    if owed:
        said.append(f"owed for deliveries {owed:.2f}")
    said.append(f"storage {truth.get('storage')}")
    on_way = _counted(pending, "order on its way", "orders on their way")
    said.append(on_way + (f" ({truth.get('pending_units')} units)" if pending else ""))
    said.append(_counted(truth.get("customers", 0), "open customer order", "open customer orders"))
    said.append(f"inbox {truth.get('inbox')}")
    return Line(label="truth", text=", ".join(said))


def _pe_table(pe: Values) -> str:
    """Coverage and size of the errors of each type, in columns."""
    rows = [f"{'':<8}" + "".join(f"{name:>{width}}" for name, width in PE_COLUMNS.items())]
    for type, summary in pe.items():
        figures = [f"{_figure(summary.get(name)):>{width}}" for name, width in PE_COLUMNS.items()]
        rows.append(f"{type:<8}" + "".join(figures))
    return "\n".join(rows)


def _figure(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(values: Values) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_word(value)}" for name, value in values.items())


def _word(value: object) -> str:
    """A value as a word: texts as they are, whole numbers without a point."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    return f"{value:.10g}" if isinstance(value, float) else as_json(value)


def _since(now: Values, before: Values, key: str) -> Any:
    return now.get(key, 0) - before.get(key, 0)


def _counted(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"
