"""Who plays which run: claims that are never rewritten, and heartbeats that tell who lives.

A claim is `claims/<run>.<attempt>`, a link to a finished file that names the incarnation. The
highest attempt owns the run. An attempt is over when its run has a result, when it has an
error or a `.released` marker, or when its incarnation has ended or died. Where runs were set aside
(`store/aside.py`), `.aside` stands for the attempts that there were: the numbers go on.
"""

import os
import re
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from vendomini.errors import DiskError
from vendomini.store.card import Card
from vendomini.store.clock import now_s
from vendomini.store.disk import NO_FILE, is_passing
from vendomini.store.experiment import ERROR, Experiment
from vendomini.store.process import Process, is_gone, this_process
from vendomini.store.records import UNREADABLE, AsideRecord, ClaimRecord, WorkerRecord, encode

Verdict: TypeAlias = Literal["ended", "dead", "alive", "unknown"]
AskSlurm: TypeAlias = Callable[[str, int], bool | None]
"""Whether job `id`, started for the n-th time, is over; None if Slurm cannot be asked."""


CLAIM = re.compile(r"([^.]+)\.(\d{1,9})(\.released|\.aside)?")
RELEASED, ASIDE = ".released", ".aside"
UNKNOWN = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The highest attempt at a run. `over` says that it was released, set aside, or ended in an
    error. `incarnation` is empty where the claim is damaged, and begins with `?` where it cannot be
    read."""

    run: str
    attempt: int
    incarnation: str
    over: bool


class Claims:
    """The claims of an experiment, as one process sees and makes them."""

    def __init__(self, experiment: Experiment, incarnation: str) -> None:
        self._experiment = experiment
        self._disk = experiment.disk
        self._owners: dict[tuple[str, int], str] = {}
        card = ClaimRecord(incarnation=incarnation)
        self._card = Card(self._disk, experiment.path("claims"), encode(card))
        self._taken = self._synced = 0  # claims made, and how many of them are on the disk
        self._syncing = threading.Lock()

    def survey(self, runs: Collection[str]) -> dict[str, Claim]:
        """The highest claim of each of `runs` that has one, by a listing, which may be late."""
        highest: dict[str, int] = {}
        over: set[tuple[str, int]] = set()
        aside: set[tuple[str, int]] = set()
        wanted = runs if isinstance(runs, set | frozenset) else set(runs)
        for name in self._disk.names(self._experiment.path("claims")):
            match = CLAIM.fullmatch(name)
            if match is None:
                path = self._experiment.path("claims", name)
                self._experiment.note_odd(path, "it is nothing of this experiment")
                continue
            run, attempt = match[1], int(match[2])
            if run not in wanted:
                continue
            if match[3] == RELEASED:
                over.add((run, attempt))
                continue
            if match[3] == ASIDE:
                aside.add((run, attempt))
            highest[run] = max(attempt, highest.get(run, 0))
        for run, attempt in self._experiment.named("errors", ERROR):
            if highest.get(run) == attempt:
                over.add((run, attempt))
        return {
            run: Claim(
                run=run,
                attempt=attempt,
                incarnation="" if (run, attempt) in aside else self._owner(run, attempt),
                over=(run, attempt) in over | aside,
            )
            for run, attempt in highest.items()
        }

    def look(self, run: str, *, at_least: int = 0) -> Claim | None:
        """The highest claim of one run, asked of the files themselves, from `at_least` up."""
        attempt = at_least
        while self._disk.exists(self._path(run, attempt + 1)):
            attempt += 1
        if attempt == 0:
            return None
        over = self._disk.exists(self._released(run, attempt)) or self._disk.exists(
            self._experiment.path("errors", f"{run}.{attempt}.json")
        )
        owner = self._owner(run, attempt)
        return Claim(run=run, attempt=attempt, incarnation=owner, over=over)

    def take(self, run: str, attempt: int) -> bool:
        """Claim an attempt; False if somebody has it already."""
        is_mine = self._card.link(self._path(run, attempt))
        self._taken += is_mine
        return is_mine

    def sync(self) -> None:
        """The claims made so far are there after a crash of the machine, too: what is logged is
        found by them."""
        with self._syncing:  # whoever comes while another is at it waits until it is done
            taken = self._taken
            if taken > self._synced:
                self._disk.sync_folder(self._experiment.path("claims"))
                self._synced = taken

    def is_mine(self, run: str, attempt: int) -> bool:
        """Whether nobody has claimed a later attempt."""
        return not self._disk.exists(self._path(run, attempt + 1), waits=True)

    def release(self, run: str, attempt: int) -> None:
        """Let anybody take the run at once."""
        self._disk.publish(self._released(run, attempt), b"", lasts=False)

    def close(self) -> None:
        self._card.close()

    def earlier(self, run: str, attempt: int) -> list[tuple[int, str]]:
        """The attempts before this one whose replies count, and who played them, latest first."""
        found: list[tuple[int, str]] = []
        for number in range(attempt - 1, 0, -1):
            owner = self._owner(run, number)
            if owner.startswith(UNKNOWN) and (aside := self._aside(run, number)) is not None:
                return [*found, *aside]  # those below were set aside with it
            found.append((number, owner))
        return found

    def _owner(self, run: str, attempt: int) -> str:
        """Empty if the claim is damaged: it was whole once. Where it cannot be read (yet), a name
        that begins with `?`, for somebody whom only time can tell to be gone."""
        key = (run, attempt)
        if key not in self._owners:
            path = self._path(run, attempt)
            try:
                content = self._disk.read(path)
            except DiskError as error:
                self._experiment.note_odd(path, str(error))
                return "" if error.errno in NO_FILE else f"{UNKNOWN}{path.name}"
            if content is None:
                # A listing may show a name before the file can be opened.
                if not self._disk.leads_nowhere(path):
                    return f"{UNKNOWN}{path.name}"
                self._experiment.note_odd(path, "it leads nowhere")
                return ""
            try:
                self._owners[key] = _CLAIM.decode(content).incarnation
            except UNREADABLE as error:
                self._experiment.note_odd(path, f"it cannot be read: {error}")
                return ""
        return self._owners[key]

    def _aside(self, run: str, attempt: int) -> list[tuple[int, str]] | None:
        """None: no attempt of this number was set aside."""
        path = self._path(run, attempt)
        try:
            content = self._disk.read(path.with_name(path.name + ASIDE))
            if content is None:
                return None
            record = _ASIDE.decode(content)
        except (DiskError, *UNREADABLE) as error:  # what was logged is asked again
            self._experiment.note_odd(path, f"it cannot be read: {error}")
            return []
        return list(record.owners.get(run, ())) if record.keeps_replies else []

    def _path(self, run: str, attempt: int) -> Path:
        return self._experiment.path("claims", f"{run}.{attempt}")

    def _released(self, run: str, attempt: int) -> Path:
        return self._experiment.path("claims", f"{run}.{attempt}{RELEASED}")


class Watch:
    """Judges incarnations: by their process where it can be seen, else by Slurm, else by time.

    `dead_after_s` is how long a heartbeat may stand still on this observer's own clock; the
    clocks of other machines, and the times on files, are never compared.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        dead_after_s: float,
        ask_slurm: AskSlurm | None = None,
        clock: Callable[[], float] = now_s,
    ) -> None:
        self._experiment = experiment
        self._dead_after_s = dead_after_s
        self._ask_slurm = ask_slurm
        self._clock = clock
        self._me: Process = this_process()
        self._over: dict[str, Verdict] = {}
        self._seen: dict[str, _Seen] = {}

    def verdict(self, incarnation: str) -> Verdict:
        """`unknown` until a heartbeat has moved or stood still for long enough; of an owner as
        `Claim` names it."""
        if incarnation in self._over:
            return self._over[incarnation]
        if not incarnation:
            return "dead"
        if incarnation.startswith(UNKNOWN):
            return self._by_time(incarnation, beat=-1)
        try:
            record = self._experiment.heartbeat(incarnation)
        except DiskError as error:
            if is_passing(error):
                return "unknown"  # which is no silence of its writer
            record = None
        if record is None:
            # A claim is made after the first heartbeat: its file is on its way, was removed, or
            # cannot be read.
            return self._by_time(incarnation, beat=-1)
        verdict = self._judge(record)
        if verdict in ("ended", "dead"):
            self._over[incarnation] = verdict
        return verdict

    def _judge(self, record: WorkerRecord) -> Verdict:
        if record.state == "ended":
            return "ended"
        gone = is_gone(record.process, seen_from=self._me)
        if gone is not None:
            return "dead" if gone else "alive"
        if (
            record.slurm is not None
            # Many sites hide the jobs of others: not to see one says nothing of it.
            and record.slurm.user == os.getuid()
            and self._ask_slurm is not None
            and self._ask_slurm(record.slurm.job, record.slurm.restarts)
        ):
            return "dead"
        return self._by_time(record.incarnation, record.beat)

    def _by_time(self, incarnation: str, beat: int) -> Verdict:
        now = self._clock()
        seen = self._seen.get(incarnation)
        if seen is None:
            seen = _Seen(beat=beat, since=now, looked=now, moved=False)
        elif seen.beat != beat:
            # After a long look away a new beat is no life: it may have been the last one.
            moved = now - seen.looked < self._dead_after_s
            seen = _Seen(beat=beat, since=now, looked=now, moved=moved)
        else:
            seen = replace(seen, looked=now)
        self._seen[incarnation] = seen
        if now - seen.since >= self._dead_after_s:
            return "dead"
        return "alive" if seen.moved else "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A heartbeat as one observer saw it, in seconds on its clock."""

    beat: int
    since: float  # when this beat was seen first
    looked: float  # when it was looked at last
    moved: bool  # whether it was written less than `dead_after_s` before it was seen first


_CLAIM = msgspec.json.Decoder(ClaimRecord)
_ASIDE = msgspec.json.Decoder(AsideRecord)
