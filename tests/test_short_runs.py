"""Runs that have a result and not all that it rests on: found, told of, and played again."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.harness import outcomes, play, steps
from tests.toy import toy_experiment
from vendomini.engines.scripted import ScriptedEngine, echo
from vendomini.running.again import restart_short
from vendomini.running.plain import Silence
from vendomini.standing import find_short, status_of
from vendomini.store.audit import FILE, Audit, Known, judged
from vendomini.store.disk import Stamp
from vendomini.store.experiment import Experiment
from vendomini.store.steps import step_lines

STEPS = 5


def played(folder: Path, count: int = 4) -> Experiment:
    experiment = toy_experiment(folder, count)
    assert play(experiment, concurrency=1).exit_status == 0
    return experiment


def the_log(experiment: Experiment) -> Path:
    (log,) = experiment.path("logs").glob("*.steps.jsonl")
    return log


def lines_of(log: Path, run: str) -> list[bytes]:
    return [line for line in log.read_bytes().splitlines(True) if run.encode() in line]


Damage = Callable[[Path, str], None]


def last_line_cut(log: Path, run: str) -> None:
    last = lines_of(log, run)[-1]
    log.write_bytes(log.read_bytes().replace(last, last[: len(last) // 2] + b"\n"))


def line_removed(log: Path, run: str) -> None:
    log.write_bytes(log.read_bytes().replace(lines_of(log, run)[2], b""))


def first_line_removed(log: Path, run: str) -> None:
    log.write_bytes(log.read_bytes().replace(lines_of(log, run)[0], b""))


def block_of_nul(log: Path, run: str) -> None:
    third = lines_of(log, run)[2]
    log.write_bytes(log.read_bytes().replace(third, b"\0" * len(third)))


def garbage(log: Path, run: str) -> None:
    third = lines_of(log, run)[2]
    log.write_bytes(log.read_bytes().replace(third, os.urandom(len(third) - 1) + b"\n"))


def lines_swapped(log: Path, run: str) -> None:
    second, third = lines_of(log, run)[1:3]
    content = log.read_bytes().replace(second, b"@").replace(third, second).replace(b"@", third)
    log.write_bytes(content)


def log_emptied(log: Path, run: str) -> None:
    log.write_bytes(b"")


def log_gone(log: Path, run: str) -> None:
    log.unlink()


DAMAGES = (
    last_line_cut,
    line_removed,
    first_line_removed,
    block_of_nul,
    garbage,
    lines_swapped,
    log_emptied,
    log_gone,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda each: each.__name__)
def test_a_run_whose_steps_are_not_all_there_is_short_and_is_played_again(
    tmp_path: Path, damage: Damage
) -> None:
    experiment = played(tmp_path)
    expected = outcomes(experiment)
    logged = {run: steps(experiment, run) for run in expected}
    victim = experiment.runs()[1].id
    assert find_short(experiment) == {}
    damage(the_log(experiment), victim)
    short = find_short(experiment)
    others_too = damage in (log_emptied, log_gone)
    assert set(short) == (set(expected) if others_too else {victim})
    assert short[victim].startswith(f"logs/{the_log_name(experiment, victim)}")
    again(experiment)
    assert victim not in experiment.finished()
    engine = ScriptedEngine(echo)
    assert play(experiment, engine).problem is None
    assert engine.answered == 0  # its replies are all there: nothing is asked again
    assert find_short(experiment) == {}
    assert outcomes(experiment) == expected
    assert {run: steps(experiment, run) for run in expected} == logged


def the_log_name(experiment: Experiment, run: str) -> str:
    result = experiment.result(run)
    assert result is not None
    return experiment.steps_path(result.served.incarnation).name


def again(experiment: Experiment) -> None:
    restart_short(experiment, experiment.runs(), Silence())


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 900, b"[]", b'{"run":"x"}'])
def test_a_result_that_is_none_is_said_and_played_again(tmp_path: Path, content: bytes) -> None:
    experiment = played(tmp_path)
    expected = outcomes(experiment)
    victim = experiment.runs()[2].id
    experiment.result_path(victim).write_bytes(content)
    status = status_of(experiment)
    assert (status.runs.done, status.runs.short) == (3, 1)
    assert status.short[victim].startswith(f"results/{victim}.json cannot be read")
    again(experiment)
    play(experiment)
    assert outcomes(experiment) == expected


def test_a_result_of_another_run_and_one_that_leads_nowhere_are_none(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    expected = outcomes(experiment)
    first, second, third, _ = (run.id for run in experiment.runs())
    experiment.result_path(second).write_bytes(experiment.result_path(first).read_bytes())
    experiment.result_path(third).unlink()
    experiment.result_path(third).symlink_to("nowhere")
    assert find_short(experiment) == {
        second: f"results/{second}.json is of run {first}",
        third: f"results/{third}.json leads nowhere",
    }
    again(experiment)
    play(experiment)
    assert outcomes(experiment) == expected


def test_replies_that_are_left_are_taken_over_and_the_rest_is_asked(tmp_path: Path) -> None:
    """After a power cut both logs end somewhere."""
    experiment = played(tmp_path, 1)
    expected = outcomes(experiment)
    (run,) = expected
    (replies,) = experiment.path("logs").glob("*.replies.jsonl")
    kept = replies.read_bytes().splitlines(True)[:7]
    replies.write_bytes(b"".join(kept) + b'{"run":"' + b"\0" * 50)
    log_gone(the_log(experiment), run)
    again(experiment)
    engine = ScriptedEngine(echo)
    assert play(experiment, engine).exit_status == 0
    result = experiment.result(run)
    assert result is not None
    assert result.served.attempt == 2  # the numbers go on
    assert result.served.replayed == 7
    assert engine.answered == 3 * STEPS - 7
    assert outcomes(experiment) == expected


def test_what_was_set_aside_is_kept_with_the_reason(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    victim = experiment.runs()[1].id
    before = experiment.result_path(victim).read_bytes()
    line_removed(the_log(experiment), victim)
    again(experiment)
    (archive,) = experiment.path("archive").iterdir()
    assert (archive / "results" / f"{victim}.json").read_bytes() == before
    assert (archive / "claims" / f"{victim}.1").exists()
    assert not experiment.path("claims", f"{victim}.1").exists()
    reason = json.loads((archive / "reason.json").read_bytes())
    assert reason["reason"] == "short"
    assert f"has {STEPS - 1} of its {STEPS} steps" in reason["runs"][victim]


def test_runs_of_a_worker_that_lives_are_not_counted(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    line_removed(the_log(experiment), experiment.runs()[1].id)
    (record,) = experiment.workers().values()
    alive = msgspec.structs.replace(record, state="working")
    path = experiment.worker_path(record.incarnation)
    experiment.disk.write_atomic(path, msgspec.json.encode(alive))
    assert find_short(experiment) == {}


def test_a_workload_that_logs_no_step_is_never_short(tmp_path: Path) -> None:
    known = Known(stamp=Stamp(size=1, changed=1), incarnation="i", steps=0)
    assert judged(Audit(results={"r": known})) == {}


def test_a_result_of_before_steps_were_counted_is_short_only_with_a_gap(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    for run in experiment.runs():
        path = experiment.result_path(run.id)
        path.write_bytes(path.read_bytes().replace(b',"steps":5', b""))
        found = experiment.result(run.id)
        assert found is not None
        assert found.served.steps is None
    assert find_short(experiment) == {}
    line_removed(the_log(experiment), (victim := experiment.runs()[0].id))
    short = find_short(experiment)
    assert list(short) == [victim]
    assert short[victim].endswith("has a gap in its steps")


def test_a_log_that_has_not_changed_is_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vendomini.store.audit.KEPT_BYTES", 1)
    experiment = played(tmp_path)
    read: list[Path] = []
    real = experiment.disk.blocks

    def blocks(path: Path) -> Iterator[bytes]:
        read.append(path)
        return real(path)

    monkeypatch.setattr(experiment.disk, "blocks", blocks)
    for _ in range(3):
        assert find_short(experiment) == {}
    assert len(read) == 1
    line_removed(the_log(experiment), experiment.runs()[0].id)
    assert len(find_short(experiment)) == 1
    assert len(find_short(experiment)) == 1
    assert len(read) == 2
    for content in (b"", b"{}", b"{", b"\0" * 100):  # it is a help, and nothing rests on it
        experiment.path(FILE).write_bytes(content)
        assert len(find_short(experiment)) == 1


def test_steps_are_found_wherever_blocks_are_cut(tmp_path: Path) -> None:
    experiment = played(tmp_path)
    content = the_log(experiment).read_bytes()
    whole = step_lines([content])
    for size in (1, 7, 100, 1000):
        cut = step_lines(content[at : at + size] for at in range(0, len(content), size))
        assert cut == whole
    for run, lines in whole.items():
        found = [
            content[start : start + size]
            for start, size in zip(lines.starts, lines.sizes, strict=True)
        ]
        assert found == steps(experiment, run)


def test_the_last_beginning_of_a_run_counts() -> None:
    def line(run: str, step: int) -> bytes:
        return b'{"run":"%s","step":%d,"x":1}\n' % (run.encode(), step)

    log = [line("a", 0), line("b", 0), line("a", 1), line("a", 0), b"\0\0" + line("a", 1)]
    found = step_lines([b"".join(log)])
    assert (found["a"].count, found["a"].is_broken) == (2, False)
    assert found["a"].starts[0] == len(b"".join(log[:3]))
    assert found["b"].count == 1
