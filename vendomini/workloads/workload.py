"""The seam between what is played and everything that plays it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from vendomini.chat import Episode

RecordStep: TypeAlias = Callable[[Any], None]
"""Takes one step of a run, anything msgspec can encode as a JSON object, in order, from step 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one run asks of an engine, for the planner. Token counts are estimates per run.

    `side_requests` are asked beside `requests` and add nothing to the conversation. Where it
    fills its window, the oldest part leaves and `kept_share` of it stays, to be read anew.
    """

    requests: int
    side_requests: int = 0
    prefix_tokens: int  # shared by every request of every run of the arm
    growth_tokens: int  # added to the conversation by each request and its reply
    output_tokens: int  # drawn by each request
    kept_share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What a short trial of a run showed, as digests in hexadecimal: of two runs that differ in
    one setting, each digest that differs is a part of the experiment that the setting acts on.

    `world` is what happened, `prompt` what a model was asked, `checks` what was made of it:
    what counts as a failure, an error, a sign, an end.
    """

    world: str
    prompt: str
    checks: str


class Workload(Protocol):
    """Something that can be played, one run at a time, as an episode.

    `settings_type` is a frozen dataclass of frozen dataclasses: the workload's sections of a
    phase file with their defaults and bounds; it has at least ``agent.kind`` and
    ``agent.model``. A change of what a default means raises `version`, and with it every id.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def settings_type(self) -> type: ...

    @property
    def outcome_type(self) -> type:
        """The dataclass of an outcome: the table of runs has its columns, whatever happened."""
        ...

    def check(self, settings: Any) -> None:
        """Raise `ConfigError` if values that are fine alone are impossible together."""
        ...

    def refuse_unplayable(self, settings: Any) -> None:
        """Raise `ConfigError` if such a run can be planned but not played by this version."""
        ...

    def asks(self, settings: Any) -> bool:
        """Whether a run with these settings ever asks an engine."""
        ...

    def inert(self, settings: Any, keys: tuple[str, ...]) -> Mapping[str, str]:
        """Of the grid's dotted keys those that cannot act on these runs, each with the reason."""
        ...

    def notes(self, settings: Any) -> tuple[str, ...]:
        """What a reader of a plan should know of these settings beside `inert`'s axes."""
        ...

    def demand(self, settings: Any) -> Demand | None:
        """None for a run that never asks."""
        ...

    def trial(self, settings: Any, *, seed: int, replication: int = 0) -> Trial:
        """What a short trial of such a run shows, with no engine: the same for equal settings.

        What `agent.model` says is left out. What can happen in such a run should happen in its
        trial: what is rare may come often there.
        """
        ...

    def play(
        self, settings: Any, *, seed: int, replication: int, record: RecordStep
    ) -> Episode[Any]:
        """The episode of one run. Its value is the outcome, anything msgspec can encode as JSON.

        The same seeds and the same replies give the same steps and the same outcome, byte for byte.
        """
        ...
