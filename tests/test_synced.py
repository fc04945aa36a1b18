"""What is on the disk before something else is said: the order of writes, syncs and names."""

import errno
from pathlib import Path

import pytest

from tests.faults import Faults
from tests.harness import play
from tests.toy import toy_experiment
from vendomini.errors import DiskError
from vendomini.store.aside import set_aside
from vendomini.store.claims import Claims
from vendomini.store.disk import Disk

Done = list[tuple[str, str]]


def last(done: Done, operation: str, path: str) -> int:
    """Where the operation was done last on what has this in its path; -1: it was not."""
    found = [at for at, (name, of) in enumerate(done) if name == operation and path in of]
    return found[-1] if found else -1


def results_in(done: Done) -> list[int]:
    return [at for at, (name, of) in enumerate(done) if name == "link" and "/results/" in of]


def test_a_result_appears_when_its_logs_and_claims_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = toy_experiment(tmp_path, count=3)
    faults = Faults(monkeypatch, experiment.folder)
    assert play(experiment, concurrency=1).exit_status == 0
    published = results_in(faults.done)
    assert len(published) == 3
    for at in published:
        before = faults.done[:at]
        for log in (".replies.jsonl", ".steps.jsonl"):
            written = last(before, "pwrite", log)
            assert 0 <= written < last(before, "fdatasync", log)
            # Its name, too.
            named = last(before, "fsync", str(experiment.path("logs")))
            assert last(before, "open", log) < named
        claimed = last(before, "link", "/claims/")
        assert 0 <= claimed < last(before, "fsync", str(experiment.path("claims")))
        assert last(before, "pwrite", "/results/") < last(before, "fsync", "/results/.")


def test_a_run_is_done_when_the_name_of_its_result_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = toy_experiment(tmp_path, count=1)
    faults = Faults(monkeypatch, experiment.folder)
    play(experiment)
    (published,) = results_in(faults.done)
    assert ("fsync", str(experiment.path("results"))) in faults.done[published:]


def test_a_failed_sync_of_claims_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = toy_experiment(tmp_path, count=1)
    claims = Claims(experiment, "me")
    faults = Faults(monkeypatch, experiment.folder)
    assert claims.take(experiment.runs()[0].id, 1)
    faults.decide = lambda operation, path: errno.ENOSPC if operation == "fsync" else None
    with pytest.raises(DiskError):
        claims.sync()
    faults.decide = lambda operation, path: None
    claims.sync()
    assert ("fsync", str(experiment.path("claims"))) in faults.done


@pytest.mark.parametrize("way", ["publish", "write_atomic"])
def test_a_file_that_lasts_is_synced_before_it_has_its_name_and_the_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    faults = Faults(monkeypatch, tmp_path)
    getattr(Disk(), way)(tmp_path / "x", b"content")
    order = [name for name, _ in faults.done if name in ("pwrite", "fsync", "link", "replace")]
    assert order == ["pwrite", "fsync", "link" if way == "publish" else "replace", "fsync"]
    assert [path for name, path in faults.done if name == "fsync"][-1] == str(tmp_path)


def test_the_plan_to_set_aside_goes_when_all_that_moved_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = toy_experiment(tmp_path, count=2)
    play(experiment)
    faults = Faults(monkeypatch, experiment.folder)
    run = experiment.runs()[0].id
    archive = set_aside(experiment, {run: "asked for"}, reason="a test")
    assert archive is not None
    gone = faults.done.index(("unlink", str(experiment.path("aside.json"))))
    moved = last(faults.done, "rename", "")
    for folder in ("claims", "errors", "results", "pins"):
        for place in (experiment.path(folder), archive / folder):
            synced = [at for at, each in enumerate(faults.done) if each == ("fsync", str(place))]
            assert any(moved < at < gone for at in synced)
