"""How whoever has a phase played is told how it goes."""

from contextlib import AbstractContextManager
from typing import Protocol

from vendomini.prepare import Plan


class Progress(Protocol):
    """Is told, about once a second, how far the runs are."""

    def __call__(self, *, done: int, steps_per_s: float, doing: str | None) -> None:
        """`done` runs of all; steps a second since the beginning. `doing` is what an engine says
        while it starts; None: they are being played."""


class Voice(Protocol):
    """Words for whoever waits: in a terminal, in a notebook, or for nobody."""

    def say(self, text: str) -> None:
        """One line about what happens."""

    def meanwhile(self, text: str) -> None:
        """Why nothing is to be seen for a while: of use only where somebody watches."""

    def plan(self, plan: Plan) -> None:
        """The plan that is about to be carried out."""

    def playing(self, *, done: int, total: int) -> AbstractContextManager[Progress]:
        """While runs are played here: `done` of `total` are finished when it begins."""
