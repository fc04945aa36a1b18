"""The seam between what is played and everything that plays it.

A workload is a subclass of `Workload`, in this package or in any that is installed beside it: an
entry point of the group ``vendomini.workloads`` names it (`registry.py`). `settings_type`,
`outcome_type` and `play` are all that it must have.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from vendomini.chat import Episode
from vendomini.errors import ConfigError
from vendomini.phase import Asked
from vendomini.transcript import PlainTeller, Teller

if TYPE_CHECKING:  # reading phase files takes a while to load, and a worker reads none
    from vendomini.config import Translator

RecordStep: TypeAlias = Callable[[Any], None]
"""Takes one step of a run, anything msgspec can encode as a JSON object, in order, from step 0."""

OutcomeKind: TypeAlias = Literal["time to event", "share", "number"]

REPLY_BYTES, TOKEN_BYTES = 300, 5
"""Of a line in the log of replies: what surrounds the text (289 to 291, by the scripted engine,
2026-11-29), and a token of the text, quoted as JSON has it."""

SHORT_REQUESTS = 1000
"""Runs are short up to so many requests, where their workload says nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What one run asks of an engine, for the planner. Token counts are estimates per run.

    `side_requests` are asked beside `requests` and add nothing to the conversation. Where it
    fills its window, the oldest part leaves and `kept_share` of it stays, to be read anew.
    `at_once` of the requests are asked at the same time, such as all scores of one batch, and
    `own_tokens` of each one's prompt are in no other, such as the item that is scored.
    """

    requests: int
    side_requests: int = 0
    prefix_tokens: int  # shared by every request of every run of the arm
    growth_tokens: int  # added to the conversation by each request and its reply
    output_tokens: int  # drawn by each request
    kept_share: float = 0.0
    at_once: int = 1
    own_tokens: int = 0


def reply_bytes(demand: Demand | None) -> int:
    """What the replies of one run add to their log, about."""
    if demand is None:
        return 0
    replies = demand.requests + demand.side_requests
    return replies * (REPLY_BYTES + TOKEN_BYTES * demand.output_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """Whether runs are short, as the guide's table means it, and how a plan says so:
    ``short runs (500 requests)``."""

    is_short: bool
    words: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A column of the table of runs that an analysis may rest on.

    `time to event`: the column is the time of the event and null where it did not come. `share`:
    a part of a whole from 0 to 1, or true or false. `unit` is empty for what has none.
    """

    column: str
    kind: OutcomeKind
    meaning: str
    unit: str = ""


class Imported(Protocol):
    """Tables of results that another program left."""

    @property
    def runs_parquet(self) -> Path: ...

    @property
    def runs_csv(self) -> Path: ...

    @property
    def steps_parquet(self) -> Path: ...

    def words(self) -> Sequence[str]:
        """What was found and what is missing, a line each."""
        ...

    def as_json(self) -> dict[str, Any]:
        """The same for scripts."""
        ...


class Workload:
    """Something that can be played, one run at a time, as an episode.

    `settings_type` is a frozen dataclass of frozen dataclasses: the workload's sections of a
    phase file with their defaults and bounds. A workload that asks a model has the section
    ``agent.model`` among them, a `vendomini.phase.ModelSettings`. `outcome_type` is the dataclass
    of an outcome: the table of runs has its columns, whatever happened.

    `version` is part of every run's id: raise it when a default, or what is played, changes its
    meaning. `derive_version` is that of `derive`, and no part of any id.
    """

    name: str = ""
    """As phase files and records have it; the registry sets it."""
    version: ClassVar[int] = 1
    derive_version: ClassVar[int] = 1
    settings_type: ClassVar[type]
    outcome_type: Any  # a class, or a property where its module takes a while to load

    unit: ClassVar[tuple[str, ...]] = ()
    """Dotted keys of the settings that name what is played on (a task, a data set) rather than a
    treatment: they make the column ``world``, by which runs are paired. Without any it is the
    replication."""

    not_tried: ClassVar[tuple[str, ...]] = ()
    """Beginnings of dotted keys that a trial can tell nothing of, such as who plays."""

    once_in_id: ClassVar[tuple[str, ...]] = ()
    """Dotted keys that left the ids of runs: those that older versions wrote are still known."""

    measures: ClassVar[tuple[Measure, ...]] = ()

    base_file: ClassVar[Path | None] = None
    """The phase file that ``inherit: NAME`` means, shipped beside the code; None: there is none."""

    step_type: Any = dict[str, Any]
    """As what `derive` is given a logged step: anything msgspec can decode a JSON object to. One
    that names only the fields that count is read faster."""

    # -- what it must have ------------------------------------------------------------------

    def play(
        self, settings: Any, *, seed: int, replication: int, record: RecordStep
    ) -> Episode[Any]:
        """The episode of one run. Its value is the outcome, anything msgspec can encode as JSON.

        The same seeds and the same replies give the same steps and the same outcome, byte for byte.
        """
        raise NotImplementedError

    # -- before it is played ----------------------------------------------------------------

    @property
    def translator(self) -> "Translator | None":
        """Today's words for what older phase files say; None: there are no older ones."""
        return None

    def asks(self, settings: Any) -> Asked:
        """Whether such a run asks a model, anything that answers, or nobody."""
        return "model"

    def derive_settings(self, settings: Any) -> Any:
        """The settings with those set that follow from others: these are played and hashed."""
        return settings

    def check(self, settings: Any) -> None:
        """Raise `ConfigError` if values that are fine alone are impossible together."""

    def inert(self, settings: Any, keys: tuple[str, ...]) -> Mapping[str, str]:
        """Of the grid's dotted keys those that cannot act on these runs, each with the reason."""
        return {}

    def notes(self, arms: Sequence[Any]) -> Iterable[str]:
        """What a reader of a plan should know of these settings, one per arm, beside `inert`'s."""
        return ()

    def demand(self, settings: Any) -> Demand | None:
        """None: it never asks, or nothing is known of what it asks."""
        return None

    def written(self, settings: Any) -> int:
        """Bytes that such a run, played to its end, adds to the logs, about: its replies, and its
        steps, of which nothing is known here."""
        return reply_bytes(self.demand(settings))

    def length(self, settings: Any, *, phase: int | None) -> Length:
        """How long such a run is to the guide's table. `phase` is `experiment.phase`."""
        demand = self.demand(settings)
        if demand is None:
            return Length(is_short=True, words="short runs")
        requests = demand.requests + demand.side_requests
        is_short = requests <= SHORT_REQUESTS
        return Length(
            is_short=is_short, words=f"{'short' if is_short else 'long'} runs ({requests} requests)"
        )

    def trial(self, settings: Any, *, seed: int, replication: int = 0) -> Trial | None:
        """What a short trial of such a run shows, with no engine: the same for equal settings.

        What the model's settings say is left out. What can happen in such a run should happen in
        its trial: what is rare may come often there. None: it cannot be tried.
        """
        return None

    # -- after it was played ----------------------------------------------------------------

    def derive(
        self, settings: Any, steps: Sequence[Any], outcome: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Columns of a finished run that follow from its logged steps: pure, and no part of what
        the run is. Nested mappings become dotted columns under ``outcome.``.

        What would need steps after the run's end is ``"not observable"`` or null, never "no".
        """
        return {}

    def derived_columns(self) -> tuple[str, ...]:
        """The dotted names of all that `derive` may give: the table has them, whatever happened."""
        return ()

    def teller(self, settings: Any) -> Teller:
        """Tells one run step by step, for `vendomini play`. `settings` None: those of a version
        that is not known any more."""
        return PlainTeller()

    # -- records of older versions ----------------------------------------------------------

    def replay(
        self,
        settings: Any,
        *,
        seed: int,
        replication: int,
        record: RecordStep,
        outcome: Mapping[str, Any],
    ) -> Episode[Any]:
        """The episode of a finished run once more; `outcome` is what it left. Differs from `play`
        where an older version ended runs by another rule."""
        return self.play(settings, seed=seed, replication=replication, record=record)

    def import_results(
        self, folder: Path, out: Path, progress: Callable[[int, int], None]
    ) -> Imported:
        """Write the results of an older program as tables like those of `collect` into `out`.
        `progress` is told how many of how many runs have been read. Raises `StoreError`."""
        raise ConfigError(
            f"workload `{self.name}` has no older results that could be read",
            hint="`vendomini collect` writes the tables of an experiment",
        )

    def todays_step(self, step: dict[str, Any]) -> dict[str, Any]:
        """A logged step as this version would have logged it."""
        return step

    def todays_outcome(self, outcome: dict[str, Any], settings: Any) -> dict[str, Any]:
        """A logged outcome as this version would have written it."""
        return outcome
