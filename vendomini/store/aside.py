"""Runs set aside, so that they are played again: all of them are, or none.

What is to be moved is written down first (`aside.json`). Workers claim nothing while that is there;
whoever takes the experiment's lock, or wants to claim, finishes what a crash has cut.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from vendomini.errors import DiskError
from vendomini.store.card import Card
from vendomini.store.claims import ASIDE, CLAIM, Claims
from vendomini.store.disk import NO_FILE
from vendomini.store.experiment import ERROR, RESULT, Experiment
from vendomini.store.locks import Lock
from vendomini.store.records import UNREADABLE, AsideRecord, encode

PLAN = "aside.json"


def is_under_way(experiment: Experiment) -> bool:
    """Whether runs are being set aside just now, or were when the machine crashed."""
    return experiment.disk.exists(experiment.path(PLAN))


def set_aside(
    experiment: Experiment,
    runs: Mapping[str, str],
    *,
    reason: str,
    pin: str | None = None,
    keeps_replies: bool = False,
    refuse: Callable[[], None] = lambda: None,
    still: Callable[[], Collection[str]] | None = None,
) -> Path | None:
    """Move claims, results and errors of runs, each given with why, out of the way.

    Nothing is deleted: all of it stays in the folder that is returned. With `pin`, what serves that
    group goes, too. `keeps_replies`: the next attempt goes on from what these had logged. `refuse`
    is called when no worker begins any more, and raises if one plays them. `still` says, under the
    lock, of which runs the reason still holds: another command may have come first. Returns None if
    it holds of none.
    """
    with experiment.locked() as lock:
        finish(experiment, lock)
        if still is not None:
            holds = still()
            runs = {run: why for run, why in runs.items() if run in holds}
            if not runs:
                return None
        archive = experiment.new_archive()
        claims = Claims(experiment, "")
        last = {run: claim.attempt for run, claim in claims.survey(set(runs)).items()}
        record = AsideRecord(
            archive=int(archive.name),
            reason=reason,
            runs=dict(runs),
            pin=pin,
            last=last,
            owners={run: tuple(claims.earlier(run, n + 1)) for run, n in last.items()},
            keeps_replies=keeps_replies,
            made=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        experiment.disk.write_atomic(archive / "reason.json", encode(record))
        experiment.disk.write_atomic(experiment.path(PLAN), encode(record))
        try:
            refuse()
        except BaseException:
            experiment.disk.remove(experiment.path(PLAN))
            experiment.disk.remove(archive / "reason.json")
            with suppress(OSError):
                archive.rmdir()
            raise
        _carry_out(experiment, record, lock)
    return archive


def finish(experiment: Experiment, lock: Lock) -> None:
    """Carry out what a crash has cut."""
    try:
        content = experiment.disk.read(experiment.path(PLAN))
        if content is None:
            return
        record = _ASIDE.decode(content)
    except (DiskError, *UNREADABLE) as error:
        if isinstance(error, DiskError) and error.errno not in NO_FILE:
            raise
        experiment.note_odd(experiment.path(PLAN), f"it cannot be read: {error}")
        experiment.disk.move(experiment.path(PLAN), experiment.new_archive() / PLAN)
        return
    _carry_out(experiment, record, lock)


def finish_cut(experiment: Experiment) -> None:
    """As `finish`, when the lock is free."""
    with experiment.locked() as lock:
        finish(experiment, lock)


# -- private -------------------------------------------------------------------------------


def _carry_out(experiment: Experiment, record: AsideRecord, lock: Lock) -> None:
    """Any part of it may have been done already."""
    disk, archive = experiment.disk, experiment.path("archive", str(record.archive))
    for folder in ("claims", "errors", "results", "pins"):
        disk.make_folder(archive / folder)
    # The numbers go on: a worker that wakes from long ago takes no new attempt for its own.
    card = Card(disk, experiment.path("claims"), encode(record))
    for run, attempt in record.last.items():
        marker = experiment.path("claims", f"{run}.{attempt}{ASIDE}")
        if not card.link(marker):  # of an earlier time, when others may have counted
            disk.remove(marker)
            card.link(marker)
    card.close()
    for folder, pattern in (("results", RESULT), ("errors", ERROR), ("claims", CLAIM)):
        for name in disk.names(experiment.path(folder)):
            match = pattern.fullmatch(name)
            if match is None or match[1] not in record.runs:
                continue
            last = record.last.get(match[1], 0)
            is_later = folder != "results" and int(match[2]) > last
            is_later &= folder == "claims" or last > 0  # an error alone, its claim was lost
            if not is_later and name != f"{match[1]}.{last}{ASIDE}":
                lock.check()
                disk.move(experiment.path(folder, name), archive / folder / name)
    if record.pin is not None:
        name = f"{record.pin}.json"
        disk.move(experiment.path("pins", name), archive / "pins" / name)
    for name in ("claims", "errors", "results", "pins"):
        disk.sync_folder(archive / name)
        disk.sync_folder(experiment.path(name))
    disk.remove(experiment.path(PLAN))


_ASIDE = msgspec.json.Decoder(AsideRecord)
