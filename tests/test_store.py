"""The experiment on disk: what is written whole, what is refused, what survives."""

import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from tests.faults import Faults
from tests.toy import toy_experiment, toy_runs
from vendomini.chat import CompletionRequest
from vendomini.engines.scripted import echo
from vendomini.errors import DiskError, StoreError
from vendomini.store.aside import set_aside
from vendomini.store.disk import Disk
from vendomini.store.experiment import Experiment
from vendomini.store.logs import Appender, ReplyIndex
from vendomini.store.records import (
    ErrorRecord,
    Pin,
    ReplyEntry,
    ResultRecord,
    Served,
    encode,
)

REPLY = echo(CompletionRequest(prompt="x", seed=1))


def served(attempt: int = 1) -> Served:
    return Served(
        attempt=attempt,
        incarnation="i",
        submission="s",
        backend=None,
        node="n",
        job=None,
        seconds=0.0,
        replies=0,
        replayed=0,
        tokens_in=0,
        tokens_out=0,
        tokens_cached=0,
    )


def result(run: str, attempt: int = 1) -> ResultRecord:
    import msgspec

    return ResultRecord(run=run, outcome=msgspec.Raw(b'{"total":1}'), served=served(attempt))


def entry(run: str, attempt: int, ask: int, position: int = 0) -> bytes:
    return encode(
        ReplyEntry(run=run, attempt=attempt, ask=ask, position=position, hash="h", reply=REPLY)
    )


def test_a_phase_run_twice_changes_nothing(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, count=3)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = experiment.extend("name: toy\n", toy_runs(3))
    assert (len(again.kept), len(again.new), len(again.orphaned)) == (3, 0, 0)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_an_edited_phase_keeps_adds_and_marks_runs(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path, count=3)
    edited = experiment.extend("name: toy2\n", toy_runs(5)[2:])
    assert len(edited.kept) == 1
    assert len(edited.new) == 2
    assert len(edited.orphaned) == 2
    assert [run.in_grid for run in experiment.runs()] == [True, True, True, False, False]
    back = experiment.extend("name: toy\n", toy_runs(3))
    assert len(back.kept) == 3
    assert sum(run.in_grid for run in experiment.runs()) == 3


def extend_in_a_process(folder: Path, first: int) -> None:
    Experiment(folder).extend("name: toy\n", toy_runs(first + 20)[first:])


def test_two_runs_at_once_lose_no_run(tmp_path: Path) -> None:
    # Whoever comes second marks the other's runs as no longer in the grid, but keeps them.
    context = multiprocessing.get_context("spawn")
    both = [
        context.Process(target=extend_in_a_process, args=(tmp_path / "toy", first))
        for first in (0, 20)
    ]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    runs = Experiment(tmp_path / "toy").runs()
    assert len(runs) == 40
    assert sum(run.in_grid for run in runs) == 20


def test_the_lock_of_a_dead_process_is_broken(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    context = multiprocessing.get_context("spawn")
    dead = context.Process(target=lock_and_die, args=(experiment.folder,))
    dead.start()
    dead.join(60)
    with experiment.locked():
        pass


def lock_and_die(folder: Path) -> None:
    with Experiment(folder).locked():
        os._exit(1)


def test_the_first_result_of_a_run_wins(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    run = experiment.runs()[0].id
    assert experiment.publish_result(run, result(run, 1))
    assert not experiment.publish_result(run, result(run, 2))
    found = experiment.result(run)
    assert found is not None
    assert found.served.attempt == 1


def test_a_result_is_published_once_by_many_at_the_same_time(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    run = experiment.runs()[0].id
    won: list[int] = []
    start = threading.Barrier(8)

    def publish(attempt: int) -> None:
        start.wait()
        if experiment.publish_result(run, result(run, attempt)):
            won.append(attempt)

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = experiment.result(run)
    assert found is not None
    assert won == [found.served.attempt]


def test_a_link_whose_answer_was_lost_counts_as_published(tmp_path: Path) -> None:
    disk = Disk()
    finished = disk.write_temporary(tmp_path / "x", b"content")
    assert disk.link(finished, tmp_path / "x")
    assert disk.link(finished, tmp_path / "x")  # a network file system asks again
    other = disk.write_temporary(tmp_path / "x", b"content")
    assert not disk.link(other, tmp_path / "x")


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    Faults(monkeypatch, tmp_path).room = 2
    with pytest.raises(DiskError, match="No space"):
        Disk().write_atomic(path, b"new content")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="is no experiment"):
        toy_experiment(tmp_path)
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy").write_text("a file")
    with pytest.raises(StoreError, match="toy"):
        toy_experiment(tmp_path)


def test_another_store_format_is_refused_with_both_numbers(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    experiment.path("experiment.json").write_text('{"store_format":99,"made_by":"7.0"}')
    with pytest.raises(StoreError, match=r"store format 99 .*7\.0.*reads format 1"):
        experiment.extend("name: toy\n", toy_runs(4))


def test_a_start_that_was_cut_short_can_be_gone_on_with(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    for folder in ("claims", "results"):
        experiment.path(folder).rmdir()
    experiment.path("runs.jsonl").unlink()
    assert len(toy_experiment(tmp_path).runs()) == 4


def test_a_number_that_is_not_finite_is_refused_before_it_reaches_a_file() -> None:
    assert encode({"a": None}) == b'{"a":null}'
    with pytest.raises(StoreError, match="nan"):
        encode({"a": [1.0, {"b": float("nan")}]})


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    whole = entry("r1", 1, 0) + b"\n" + entry("r1", 1, 1) + b"\n"
    torn = entry("r1", 1, 2)
    for cut in range(len(torn) + 1):
        experiment.replies_path("i").write_bytes(whole + torn[:cut])
        index = ReplyIndex(experiment, is_wanted=lambda run: True)
        assert list(index.longest("r1", [(1, "i")])) == [(0, 0), (1, 0)]


def test_the_attempt_that_got_furthest_is_gone_on_with(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    first = [entry("r1", 1, ask) for ask in range(5)]
    copied = [entry("r1", 2, ask) for ask in range(2)]  # died while it copied
    experiment.replies_path("a").write_bytes(b"\n".join(first) + b"\n")
    experiment.replies_path("b").write_bytes(b"\n".join(copied) + b"\n")
    index = ReplyIndex(experiment, is_wanted=lambda run: True)
    assert len(index.longest("r1", [(2, "b"), (1, "a")])) == 5


def test_a_log_that_has_grown_is_read_again(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    index = ReplyIndex(experiment, is_wanted=lambda run: run == "r1")
    path = experiment.replies_path("a")
    path.write_bytes(entry("r1", 1, 0) + b"\n" + entry("r2", 1, 0) + b"\n")
    assert len(index.longest("r1", [(1, "a")])) == 1
    assert index.longest("r2", [(1, "a")]) == {}  # nobody wants it
    with path.open("ab") as file:
        file.write(entry("r1", 1, 1) + b"\n")
    assert len(index.longest("r1", [(1, "a")])) == 2


def test_when_there_is_space_again_a_log_goes_on_where_it_was_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    faults = Faults(monkeypatch, tmp_path)
    faults.room = 10
    log = Appender(path, Disk())
    log.add(b"12345")
    log.flush()
    log.add(b"67890abc")
    with pytest.raises(DiskError, match="No space"):
        log.flush()
    assert path.read_bytes() == b"12345\n6789"
    faults.room = None
    log.add(b"more")
    log.close()
    assert path.read_bytes() == b"12345\n67890abc\nmore\n"


def test_a_log_that_nothing_was_written_to_is_no_file(tmp_path: Path) -> None:
    log = Appender(tmp_path / "log", Disk())
    log.flush()
    log.close()
    assert not (tmp_path / "log").exists()


def test_the_first_pin_holds_for_all(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    first = Pin(backend="vllm", dtype=None, quantization=None)
    second = Pin(backend="hf", dtype="float16", quantization=None)
    assert experiment.pinned("g") is None
    assert experiment.pin("g", first) == first
    assert experiment.pin("g", second) == first
    assert experiment.pinned("g") == first


def test_setting_a_group_aside_deletes_nothing(tmp_path: Path) -> None:
    experiment = toy_experiment(tmp_path)
    mine, other = (run.id for run in experiment.runs()[:2])
    for run in (mine, other):
        experiment.publish_result(run, result(run))
    experiment.publish_error(
        ErrorRecord(run=mine, attempt=1, incarnation="i", submission="s", kind="bug", message="m")
    )
    experiment.pin("g", Pin(backend="hf", dtype=None, quantization=None))
    archive = set_aside(experiment, {mine: "asked for"}, reason="a test", pin="g")
    assert archive is not None
    assert experiment.finished() == {other}
    assert experiment.errors() == {}
    assert experiment.pinned("g") is None
    assert (archive / "results" / f"{mine}.json").exists()
    assert (archive / "errors" / f"{mine}.1.json").exists()
