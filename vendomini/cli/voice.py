"""How a phase that is played looks in the terminal while it is."""

from collections.abc import Iterator
from contextlib import contextmanager

from vendomini.cli import planned, show
from vendomini.prepare import Plan
from vendomini.running.voice import Progress

WIDE = 60  # columns


class Terminal:
    """Lines and a bar on stderr, as wide as the terminal is."""

    def say(self, text: str) -> None:
        show.say(text)

    def meanwhile(self, text: str) -> None:
        show.meanwhile(text)

    def plan(self, plan: Plan) -> None:
        planned.plan(plan, to=show.ERR)

    @contextmanager
    def playing(self, *, done: int, total: int) -> Iterator[Progress]:
        """Runs done, steps a second, time left; without the steps where it is narrow."""
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        rate = TextColumn("{task.fields[rate]} steps/s,")
        with Progress(
            TextColumn("{task.fields[doing]}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("runs,"),
            *([rate] if show.ERR.width >= WIDE else []),
            TextColumn("left:"),
            TimeRemainingColumn(),
            console=show.ERR,
            expand=True,
        ) as progress:
            task = progress.add_task("", total=total, completed=done, rate="-", doing="playing")

            def tell(*, done: int, steps_per_s: float, doing: str | None) -> None:
                progress.update(
                    task,
                    completed=done,
                    rate=f"{steps_per_s:,.0f}",
                    doing="playing" if doing is None else _short(doing),
                )

            yield tell


# -- private -------------------------------------------------------------------------------


def _short(text: str) -> str:
    """What an engine says while it starts, in the width a bar leaves it."""
    text = text.removeprefix("[*] ")
    return text if len(text) <= WIDE else text[: WIDE - 3] + "..."
