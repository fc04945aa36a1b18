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
from vendomini.collect import collect
from vendomini.config import load_phase
from vendomini.errors import ConfigError
from vendomini.store.experiment import Experiment
from vendomini.store.logs import Appender, StepWriter
from vendomini.worker.drive import Answers, drive
from vendomini.workloads import RecordStep, Workload
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
    with pytest.raises(ConfigError, match="asks a model, and its settings have no section"):
        load_phase(file, workload_named=workload_named)
