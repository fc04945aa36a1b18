"""Workloads of people who got something wrong: one message that says what, and nothing lost."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars
import pytest

from tests.harness import play
from tests.toy import TOY, Toy, ToySettings, toy_experiment
from vendomini.chat import Episode
from vendomini.collect import collect, measured
from vendomini.config import load_phase
from vendomini.errors import ConfigError
from vendomini.store.experiment import Experiment
from vendomini.store.logs import Appender, StepWriter
from vendomini.worker.drive import Answers, drive
from vendomini.workloads import Measure, RecordStep, Workload
from vendomini.workloads.registry import workload_named


class Underivable(Toy):
    """Its table cannot be made, because of a run that it did not expect."""

    name = "tests.test_odd_workloads:Underivable"

    def derive(
        self, settings: ToySettings, steps: Sequence[Any], outcome: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        if outcome["total"] % 2:
            raise ZeroDivisionError("by nothing")
        return {"half": outcome["total"] // 2}

    def derived_columns(self) -> tuple[str, ...]:
        return ("half",)


def test_a_derive_that_fails_costs_its_own_columns_and_no_table(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 8)
    assert play(experiment).exit_status == 0
    _rename(experiment, Underivable.name)
    said = collect(experiment, out=tmp_path / "tables", progress=lambda done, of: None)
    table = polars.read_parquet(said.runs_parquet)
    totals, halves = table["outcome.total"].to_list(), table["outcome.half"].to_list()
    assert halves == [None if total % 2 else total // 2 for total in totals]
    assert 0 < table["outcome.half"].null_count() < 8
    (note,) = said.notes
    assert "cannot derive anything from the steps of a run: ZeroDivisionError: by nothing" in note
    assert (said.done, said.steps) == (8, 40)


def _rename(experiment: Experiment, workload: str) -> None:
    file = experiment.path("runs.jsonl")
    file.write_text(file.read_text().replace(TOY, workload))


class _Lines(Appender):
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def add(self, line: bytes) -> None:
        self.lines.append(line)


@dataclass
class Numbered:
    step: int
    said: str = ""


@pytest.mark.parametrize(
    ("steps", "logged"),
    [
        ([Numbered(0), Numbered(1, "b")], [{"step": 0, "said": ""}, {"step": 1, "said": "b"}]),
        ([{}, {"a": 1}], [{"step": 0}, {"step": 1, "a": 1}]),
        ([{"a": [1], "step": 0}], [{"step": 0, "a": [1]}]),
    ],
)
def test_a_step_has_its_number_whether_or_not_it_says_it(
    steps: list[object], logged: list[dict[str, Any]]
) -> None:
    log = _Lines()
    write = StepWriter(log, "f" * 16)
    for step in steps:
        write(step)
    assert [json.loads(line) for line in log.lines] == [
        {"run": "f" * 16, **each} for each in logged
    ]
    assert all(line.startswith(b'{"run":"ffffffffffffffff","step":') for line in log.lines)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (7, "no JSON object: 7"),
        ({"step": 3}, "step 0 says that it is step 3"),
        ({"step": False}, "step 0 says that it is step False"),
        ({"run": 3}, "a field `run`"),
        ({"run_id": 3}, "a field `run_id`"),
        ({"step": 0, "a": 1, "run": 3}, "a field `run`"),
    ],
)
def test_what_is_no_step_is_refused_before_it_is_in_the_log(step: object, said: str) -> None:
    log = _Lines()
    with pytest.raises((TypeError, ValueError), match=said):
        StepWriter(log, "f" * 16)(step)
    assert log.lines == []


def _plain() -> int:
    return 5


def _yields_one_request() -> Iterator[Any]:
    yield 5


@pytest.mark.parametrize(
    ("episode", "said"),
    [
        (_plain, "`play` gives a `int`, no generator: it has to yield"),
        (_yields_one_request, "an episode yields a tuple of requests, not a `int`"),
    ],
)
def test_an_episode_that_is_none_is_told_so(episode: Callable[[], Any], said: str) -> None:
    answers: Any = object.__new__(Answers)
    with pytest.raises(TypeError, match=said):
        asyncio.run(drive(episode(), answers))


class Forgets(Toy):
    """Its `play` returns nothing."""

    name = "tests.test_odd_workloads:Forgets"

    def play(
        self, settings: ToySettings, *, seed: int, replication: int, record: RecordStep
    ) -> Episode[Any]:
        yield ()


def test_a_run_without_an_outcome_is_failed_and_not_done(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 2)
    _rename(experiment, Forgets.name)
    assert play(experiment).exit_status == 1
    assert experiment.finished() == set()
    (error, *_) = next(iter(experiment.errors().values()))
    assert "the outcome is no JSON object: null; does `play` return one?" in error.message


def test_what_cannot_be_derived_takes_no_other_measure_away(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, 8)
    play(experiment)
    _rename(experiment, Measuring.name)
    total, half, text = measured(experiment, progress=lambda done, of: None)
    assert total.runs == 8
    assert 0 < half.runs < 8
    assert (text.runs, text.events, text.mean) == (8, 0, None)


class Measuring(Underivable):
    """Also says in words what could not be seen."""

    name = "tests.test_odd_workloads:Measuring"
    measures = (
        Measure(column="outcome.total", kind="number", meaning="all"),
        Measure(column="outcome.half", kind="number", meaning="half of it"),
        Measure(column="outcome.onset", kind="time to event", meaning="never seen"),
    )

    def derive(
        self, settings: ToySettings, steps: Sequence[Any], outcome: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        return {**super().derive(settings, steps, outcome), "onset": "not observable"}


def test_runs_of_another_workload_that_left_the_grid_are_collected_as_they_were(
    tmp_path: Path,
) -> None:
    experiment = toy_experiment(tmp_path, 4)
    play(experiment)
    lines = experiment.path("runs.jsonl").read_text().splitlines()
    lines[2:] = [line.replace(TOY, Forgets.name) for line in lines[2:]]
    lines[:2] = [line.replace(TOY, OnTasks.name) for line in lines[:2]]
    experiment.path("runs.jsonl").write_text("\n".join(lines) + "\n")
    said = collect(experiment, out=tmp_path / "tables", progress=lambda done, of: None)
    table = polars.read_parquet(said.runs_parquet)
    assert table["outcome.total"].null_count() == 0
    assert table["world"].to_list() == [None] * 4  # older than the settings it is made of


class OnTasks(Toy):
    name = "tests.test_odd_workloads:OnTasks"
    unit = ("game.breaks",)


class Wordless(Toy):
    name = "tests.test_odd_workloads:Wordless"

    def asks(self, settings: ToySettings) -> Any:
        return True


class Lost(Toy):
    name = "tests.test_odd_workloads:Lost"

    def derive_settings(self, settings: ToySettings) -> Any:
        return None


@pytest.mark.parametrize(
    ("workload", "said"),
    [
        (Wordless, "`asks` of the workload gives `True`"),
        (Lost, "`derive_settings` of the workload gives a `NoneType`"),
    ],
)
def test_hooks_that_give_the_wrong_thing_are_told_so_before_anything_is_written(
    tmp_path: Path, workload: type[Toy], said: str
) -> None:
    file = tmp_path / "odd.yaml"
    file.write_text("inherit: base\n")
    with pytest.raises(ConfigError, match=said):
        load_phase(file, workload_named=lambda name: workload())


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    steps: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class NoModel:
    game: Game = field(default_factory=Game)


class Mute(Workload):
    """Asks, as it says by default, and has no model to ask."""

    settings_type = NoModel
    outcome_type = Game

    def play(
        self, settings: NoModel, *, seed: int, replication: int, record: RecordStep
    ) -> Episode[Game]:
        yield ()
        return settings.game


def test_a_workload_that_asks_and_has_no_model_is_refused_when_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mute.yaml"
    file.write_text("inherit: base\nexperiment: {workload: tests.test_odd_workloads:Mute}\n")
    with pytest.raises(ConfigError, match="asks, and its settings have no section"):
        load_phase(file, workload_named=workload_named)
