"""Records of before the rule for stopping was one: they are replayed, and told in today's words.

tests/data/earlier.tar.xz is an experiment that an older version played: each run ended by its own
`crash_detector.threshold`, which was strict, and its signs were in its steps and outcome.
"""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.warehouse.playing import settings
from vendomini.chat import Choice, Reply, Request, request_seed, seeded
from vendomini.phase import Run, settings_of
from vendomini.store.experiment import Experiment
from vendomini.store.hashing import request_hash
from vendomini.store.logs import Logged, ReplyIndex, lines_by_run
from vendomini.store.records import ResultRecord
from vendomini.workloads.warehouse.derived import COLUMN
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.workload import WAREHOUSE

ARCHIVE = Path(__file__).parent.parent / "data" / "earlier.tar.xz"
ENDS = {
    "218b31dde1b08ea4": "crash",
    "4fd51efb9d71e444": "max_steps",
    "9ed23bfc3094896a": "crash",
    "9f678be4be5dd473": "max_steps",
    "d4dc3c5fb1af3fe5": "max_steps",
}
"""The runs that were finished, and how they ended."""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return Experiment(folder / "earlier")


class Finished:
    """One finished run of the archive, as its files hold it."""

    def __init__(self, earlier: Experiment, id: str) -> None:
        (self.run,) = [run for run in earlier.runs() if run.id == id]
        found = earlier.result(id)
        assert found is not None
        self.result: ResultRecord = found
        self.settings = settings_of(self.run.settings, WarehouseSettings)
        self.outcome: dict[str, Any] = msgspec.json.decode(found.outcome)
        served = found.served
        self.lines = lines_by_run(earlier.steps_path(served.incarnation).read_bytes())[id]
        index = ReplyIndex(earlier, is_wanted=lambda run: run == id)
        self.replies = index.longest(id, [(served.attempt, served.incarnation)])

    def todays_outcome(self) -> dict[str, Any]:
        return WAREHOUSE.todays_outcome(self.outcome, self.settings)


def answered(
    run: Run, replies: Mapping[tuple[int, int], Logged], ask: int, asked: tuple[Request, ...]
) -> tuple[Reply, ...]:
    """The logged replies to requests that are those of then."""
    for position, request in enumerate(asked):
        seed = request_seed(run.seed, run.replication, ask, position)
        assert request_hash(seeded(request, seed)) == replies[ask, position].hash
    return tuple(replies[ask, position].reply for position in range(len(asked)))


def replayed(finished: Finished, outcome: Mapping[str, Any]) -> tuple[list[bytes], bytes]:
    """The lines of the steps and the outcome of a run, played once more from its replies."""
    lines: list[bytes] = []
    run = finished.run
    episode = WAREHOUSE.replay(
        finished.settings,
        seed=run.seed,
        replication=run.replication,
        record=lambda step: lines.append(msgspec.json.encode(step)),
        outcome=outcome,
    )
    ask = 0
    try:
        asked = next(episode)
        while True:
            replies = answered(run, finished.replies, ask, asked)
            ask += bool(asked)
            asked = episode.send(replies)
    except StopIteration as stop:
        return lines, msgspec.json.encode(stop.value)


def test_the_archive_has_the_runs_that_are_tested(earlier: Experiment) -> None:
    assert earlier.finished() == set(ENDS)
    kinds = {run.settings["agent"]["kind"] for run in earlier.runs() if run.id in ENDS}
    assert kinds >= {"heuristic", "random"}


@pytest.mark.parametrize("id", ENDS)
def test_an_earlier_run_is_replayed_to_the_same_bytes_in_today_s_words(
    earlier: Experiment, id: str
) -> None:
    finished = Finished(earlier, id)
    steps = [WAREHOUSE.todays_step(msgspec.json.decode(line)) for line in finished.lines]
    for step in steps:
        assert step.pop("run") == id
    lines, outcome = replayed(finished, finished.outcome)
    assert lines == [msgspec.json.encode(step) for step in steps]
    assert outcome == msgspec.json.encode(finished.todays_outcome())
    assert finished.todays_outcome()["stop_rule"] == "strict"
    assert finished.outcome["end"] == ENDS[id]


@pytest.mark.parametrize("id", ENDS)
def test_what_is_derived_of_an_earlier_run_is_what_its_outcome_said(
    earlier: Experiment, id: str
) -> None:
    finished = Finished(earlier, id)
    steps = [msgspec.json.decode(line, type=WAREHOUSE.step_type) for line in finished.lines]
    found = WAREHOUSE.derive(finished.settings, steps, finished.todays_outcome())
    then = finished.outcome["crash"]
    strict = found["crash_strict"]
    assert strict["type"] == (None if then is None else then["type"])
    assert strict["onset"] == (None if then is None else then["onset"])
    if then is not None:
        assert then["severity"] == "unknown"
        assert strict["severity"] == "not observable"
        assert finished.outcome["end"] == "crash"
        assert not found["censored"]
    for column in COLUMN.values():
        assert (found[column]["type"] is None) == (then is None)


def test_an_outcome_that_names_its_rule_is_today_s_as_it_is(earlier: Experiment) -> None:
    finished = Finished(earlier, "9ed23bfc3094896a")
    once = finished.todays_outcome()
    assert WAREHOUSE.todays_outcome(once, finished.settings) == once
    assert not {"crash", "competing", "censored", "signs"} & set(once)
    assert list(once)[:4] == ["steps", "max_steps", "end", "stop_rule"]


def test_an_outcome_s_rule_is_the_one_that_is_replayed(earlier: Experiment) -> None:
    """The strict rule ended this run, and the lenient one would have let it go on for longer."""
    finished = Finished(earlier, "9ed23bfc3094896a")
    lines, _ = replayed(finished, finished.outcome)
    more, outcome = replayed(finished, {"stop_rule": "lenient"})
    assert len(more) > len(lines) == finished.outcome["steps"]
    assert more[: len(lines)] == lines
    assert msgspec.json.decode(outcome)["stop_rule"] == "lenient"


@pytest.mark.parametrize(
    ("outcome", "end"), [({}, "max_steps"), ({"stop_rule": "lenient"}, "never_started")]
)
def test_a_run_of_before_did_not_have_to_start(outcome: dict[str, str], end: str) -> None:
    chosen = settings({"agent.kind": "probe", "simulation.max_steps": 160})
    wait = Reply(choices=(Choice(text='{"tool": "tool_wait", "args": {}}'),))
    episode = WAREHOUSE.replay(
        chosen, seed=0, replication=0, record=lambda step: None, outcome=outcome
    )
    next(episode)
    ended = None
    while ended is None:
        try:
            episode.send((wait,))
        except StopIteration as stop:
            ended = stop.value.end
    assert ended == end
