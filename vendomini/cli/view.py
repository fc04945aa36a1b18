"""Where a transcript is printed: text for people, or JSON lines for scripts."""

import json
import signal
import sys
from collections.abc import Mapping, Sequence

from rich.text import Text

from vendomini.cli import show
from vendomini.looking.runs import Found, place_of
from vendomini.transcript import (
    Exchange,
    Line,
    Teller,
    Tone,
    Values,
    exchange_lines,
    exchanges_json,
    shortened,
    system_line,
    visible,
)

LABEL = 11  # characters of the column of labels
NARROWEST = 20  # of the column of texts

STYLES: Mapping[Tone, str] = {
    "plain": "",
    "dim": "dim",
    "good": "green",
    "bad": "red",
    "strong": "bold",
}


def list_runs(found: Found, *, as_json: bool) -> None:
    """Each run's id, whether it is finished, and where in the grid it stands."""
    finished = found.experiment.finished() if found.experiment.exists() else set()
    for run in found.runs:
        if as_json:
            known = {"run": run.id, "finished": run.id in finished, "in_grid": run.in_grid}
            line = json.dumps({**known, "replication": run.replication, "arm": run.arm})
        else:
            state = "finished" if run.id in finished else "-"
            line = f"{run.id}  {state:<8}  {place_of(run)}"
        sys.stdout.write(visible(line) + "\n")


class View:
    """Prints the steps of a range and the outcome; is given every step from the first on."""

    def __init__(
        self, teller: Teller, *, steps: range, full: bool, as_json: bool, pause: bool
    ) -> None:
        self._teller = teller
        self._steps = steps
        self._full = full
        self._as_json = as_json
        self._is_first = True  # no step has been printed
        is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._pauses = pause and is_terminal and not as_json
        if pause and not self._pauses:
            show.say("--pause: nobody sits at a terminal here, so nothing waits")

    def begin(self, title: Mapping[str, str]) -> None:
        if not self._as_json:
            self._print([Line(label=label, text=text) for label, text in title.items()])

    def step(self, step: Values, exchanges: Sequence[Exchange] | None) -> bool:
        """Show the next step; `exchanges` None: they are not known. False: no more is wanted."""
        number = step["step"]
        is_shown = number in self._steps
        if self._as_json:
            self._step_as_json(step, exchanges, is_shown=is_shown)
        else:
            self._step_as_text(step, exchanges, is_shown=is_shown)
        return bool(number + 1 < self._steps.stop)

    def outcome(self, outcome: Values, derived: Values) -> None:
        """What the run left, and what follows from its steps."""
        if self._as_json:
            self._print_json({"outcome": outcome, "derived": derived})
        else:
            self._head("outcome")
            self._print(self._teller.outcome(outcome, derived))

    def note(self, text: str) -> None:
        """What a reader of the transcript must know: in it, or beside the JSON."""
        if self._as_json:
            show.say(text)
        else:
            self._print([Line(label="", text=""), Line(label="NOTE", text=text, tone="bad")])

    def _step_as_text(
        self, step: Values, exchanges: Sequence[Exchange] | None, *, is_shown: bool
    ) -> None:
        seen = self._teller.saw(step) if exchanges is not None and not exchanges else []
        did = self._teller.step(step, exchanges or ())
        if not is_shown:
            return
        system = system_line(exchanges or ())
        if self._is_first and system is not None:
            self._print([system])
        elif not self._is_first:
            self._pause()
        self._is_first = False
        self._head(self._teller.heading(step))
        self._print([*seen, *exchange_lines(exchanges or ()), *did])

    def _step_as_json(
        self, step: Values, exchanges: Sequence[Exchange] | None, *, is_shown: bool
    ) -> None:
        saw = self._teller.saw_json(step)
        self._teller.step(step, exchanges or ())
        if not is_shown:
            return
        if exchanges is None:
            self._print_json({**step, "saw": None, "said": None})
            return
        asked = exchanges_json(exchanges)
        said = asked.pop("said")
        self._print_json({**step, "saw": {**saw, **asked}, "said": said})

    def _head(self, text: str) -> None:
        show.OUT.print()
        show.OUT.print(Text(visible(text), style="bold"), soft_wrap=True)

    def _print(self, lines: Sequence[Line]) -> None:
        width = max(NARROWEST, show.OUT.width - LABEL)
        rows = []
        for line in lines:
            text = Text(visible(line.text if self._full else shortened(line)))
            text.stylize(STYLES[line.tone])
            for number, row in enumerate(text.wrap(show.OUT, width)):
                row.rstrip()
                label = line.label if number == 0 else ""
                whole = Text.assemble((f"{visible(label):<{LABEL}}", "dim"), row)
                whole.rstrip()
                rows.append(whole)
        if rows:
            show.OUT.print(Text("\n").join(rows), soft_wrap=True)

    def _pause(self) -> None:
        """Wait for Enter; Ctrl-C here leaves at once, though asyncio has its own way with it."""
        if not self._pauses:
            return
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            show.ERR.print("-- Enter: next step, Ctrl-C: leave --", end="", style="dim")
            sys.stdin.readline()
        finally:
            signal.signal(signal.SIGINT, before)

    def _print_json(self, value: Values) -> None:
        # In ASCII: no terminal obeys anything that a model has said.
        sys.stdout.write(json.dumps(value) + "\n")
        sys.stdout.flush()
