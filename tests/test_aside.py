"""Runs set aside: all of them or none, whatever is cut, and whoever starts meanwhile."""

import json
import os
from pathlib import Path

import pytest

from tests.faults import Faults
from tests.harness import job_for, make_worker, outcomes, play
from tests.toy import toy_experiment
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.errors import ConfigError, StoreError
from vendomini.store.aside import PLAN, finish_cut, is_under_way, set_aside
from vendomini.store.claims import Claims
from vendomini.store.experiment import Experiment

MOVES = ("link", "rename", "replace", "unlink", "open")


class Cut(BaseException):
    """The machine's end: nothing that follows is done."""


def played(folder: Path) -> Experiment:
    experiment = toy_experiment(folder, 3)
    assert play(experiment).exit_status == 0
    return experiment


def aside(experiment: Experiment, runs: list[str], *, keeps_replies: bool = False) -> Path:
    archive = set_aside(
        experiment,
        dict.fromkeys(runs, "asked for"),
        reason="a test",
        pin="toy",
        keeps_replies=keeps_replies,
    )
    assert archive is not None
    return archive


def attempt_of(experiment: Experiment, run: str) -> int:
    result = experiment.result(run)
    assert result is not None
    return result.served.attempt


@pytest.mark.parametrize("keeps_replies", [False, True])
def test_numbers_go_on_and_replies_count_if_they_are_to(
    tmp_path: Path, keeps_replies: bool
) -> None:
    experiment = played(tmp_path)
    expected = outcomes(experiment)
    runs = list(expected)
    for times in range(1, 4):
        aside(experiment, runs[:2], keeps_replies=keeps_replies)
        assert set(outcomes(experiment)) == {runs[2]}
        engine = ScriptedEngine(echo)
        assert play(experiment, engine).exit_status == 0
        assert engine.answered == (0 if keeps_replies else 30)
        assert [attempt_of(experiment, run) for run in runs] == [1 + times, 1 + times, 1]
        assert outcomes(experiment) == expected


def test_replies_that_were_to_be_forgotten_stay_forgotten(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    runs = list(outcomes(experiment))
    aside(experiment, runs[:1], keeps_replies=True)
    aside(experiment, runs[:1])  # nothing was played in between
    engine = ScriptedEngine(echo)
    play(experiment, engine)
    assert engine.answered == 15


def test_cut_anywhere_it_is_carried_out_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its operations in turn, until it comes through."""
    for cut_at in range(1, 400):
        experiment = played(tmp_path / f"{cut_at}")
        expected = outcomes(experiment)
        runs = list(expected)
        count = 0

        def cut(operation: str, path: str, at: int = cut_at) -> None:
            nonlocal count
            count += operation in MOVES
            if count >= at:
                raise Cut

        came_through = True
        with monkeypatch.context() as patch:
            Faults(patch, experiment.folder).decide = cut
            try:
                aside(experiment, runs[:2])
            except Cut:
                came_through = False
        left = set(outcomes(experiment))
        if not came_through:
            was_begun = is_under_way(experiment)
            _let_go_of_the_lock(experiment)
            finish_cut(experiment)
            assert not is_under_way(experiment)
            # All or none: what had been begun is done, and what had not been has changed nothing.
            assert set(outcomes(experiment)) in ({runs[2]}, set(runs))
            assert left >= set(outcomes(experiment))
            if was_begun:
                assert set(outcomes(experiment)) == {runs[2]}
        assert play(experiment).exit_status == 0
        assert outcomes(experiment) == expected
        if came_through:
            break
    else:
        raise AssertionError("it never came through")
    assert cut_at > 30


def _let_go_of_the_lock(experiment: Experiment) -> None:
    """Its holder is this process, which is not gone as the cut one would be."""
    for path in experiment.path("locks").glob("*.json"):
        path.write_bytes(path.read_bytes().replace(b'"released":false', b'"released":true'))


def test_a_worker_that_starts_meanwhile_claims_nothing_and_then_plays(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    expected = outcomes(experiment)
    claimed: list[list[tuple[str, int]]] = []

    def refuse() -> None:  # it is called when `aside.json` is there, and nothing has moved
        finder = make_worker(experiment, job_for(experiment), ScriptedEngine(echo))._finder
        finder.load()
        finder.queue = [(run, 2) for run in expected]
        for run in expected:
            experiment.result_path(run).rename(tmp_path / run)
        claimed.append(finder.claim_some(8))
        for run in expected:
            (tmp_path / run).rename(experiment.result_path(run))

    set_aside(experiment, dict.fromkeys(expected, "x"), reason="a test", refuse=refuse)
    assert claimed == [[]]
    assert play(experiment).exit_status == 0
    assert outcomes(experiment) == expected


def test_a_worker_finishes_what_a_crash_has_cut_before_it_claims(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    expected = outcomes(experiment)
    record = experiment.path("archive", "1", "reason.json")
    aside(experiment, list(expected)[:1])
    plan = record.read_bytes()
    assert play(experiment).runs == 1
    # As if the machine had crashed just after the plan was written.
    experiment.path(PLAN).write_bytes(plan)
    assert play(experiment).exit_status == 0
    assert not is_under_way(experiment)
    assert outcomes(experiment) == expected


def test_a_refusal_moves_nothing(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    expected = outcomes(experiment)

    def refuse() -> None:
        raise ConfigError("somebody plays them")

    with pytest.raises(ConfigError, match="somebody plays"):
        set_aside(experiment, dict.fromkeys(expected, "x"), reason="a test", refuse=refuse)
    assert outcomes(experiment) == expected
    assert not is_under_way(experiment)
    assert os.listdir(experiment.path("archive")) == []


def test_a_zombie_of_before_does_not_own_what_is_played_anew(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    run = experiment.runs()[0].id
    aside(experiment, [run])
    play(experiment)
    assert not Claims(experiment, "zombie").is_mine(run, 1)


def test_the_reason_names_the_runs(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    run = experiment.runs()[0].id
    archive = aside(experiment, [run])
    reason = json.loads((archive / "reason.json").read_bytes())
    assert (reason["runs"], reason["last"]) == ({run: "asked for"}, {run: 1})
    assert sorted(os.listdir(archive)) == ["claims", "errors", "pins", "reason.json", "results"]


def test_of_two_that_find_the_same_the_second_moves_nothing(tmp_path: Path) -> None:
    """Between its look and its lock the runs were set aside and played again."""
    experiment = played(tmp_path)
    expected = outcomes(experiment)
    found = dict.fromkeys(expected, "short")
    assert set_aside(experiment, found, reason="short", still=lambda: ()) is None
    assert outcomes(experiment) == expected
    first, *_ = expected
    assert set_aside(experiment, found, reason="short", still=lambda: {first}) is not None
    assert set(outcomes(experiment)) == set(expected) - {first}


def test_one_that_lost_the_lock_moves_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = played(tmp_path)
    expected = outcomes(experiment)

    def refuse() -> None:  # this process stood still, and another took the lock
        experiment.path("locks", "99.json").write_bytes(b"")
        for path in experiment.path("locks").glob("*.json"):
            path.with_name(f"{int(path.stem) + 1}.json").write_bytes(b"")

    with pytest.raises(StoreError, match="was taken over"):
        set_aside(experiment, dict.fromkeys(expected, "x"), reason="a test", refuse=refuse)
    assert outcomes(experiment) == expected


def test_a_claim_that_came_too_late_to_be_set_aside_stays_and_is_free(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    run = experiment.runs()[0].id
    late = make_worker(experiment, job_for(experiment), ScriptedEngine(echo))._finder

    def refuse() -> None:
        late.load()
        late.queue = [(run, 2)]
        experiment.result_path(run).rename(tmp_path / run)
        assert late.claim_some(8) == []
        (tmp_path / run).rename(experiment.result_path(run))

    set_aside(experiment, {run: "x"}, reason="a test", refuse=refuse)
    assert experiment.path("claims", f"{run}.2").exists()
    assert experiment.path("claims", f"{run}.2.released").exists()
    assert play(experiment).exit_status == 0
    assert attempt_of(experiment, run) == 3
