"""Who plays which run: claims that are never rewritten, and heartbeats that tell who lives.

A claim is `claims/<run>.<attempt>`, a link to a finished file that names the incarnation. The
highest attempt owns the run. An attempt is over when its run has a result, when it has an
error or a `.released` marker, or when its incarnation has ended or died.
"""

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from vendomini.store.experiment import Experiment
from vendomini.store.process import Process, is_gone, this_process
from vendomini.store.records import ClaimRecord, WorkerRecord, encode

Verdict: TypeAlias = Literal["ended", "dead", "alive", "unknown"]
AskSlurm: TypeAlias = Callable[[str, int], bool | None]
"""Whether job `id`, started for the n-th time, is over; None if Slurm cannot be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The highest attempt at a run. `over` says that it was released or ended in an error."""

    run: str
    attempt: int
    incarnation: str
    over: bool


class Claims:
    """The claims of an experiment, as one process sees and makes them."""

    def __init__(self, experiment: Experiment, incarnation: str) -> None:
        self._experiment = experiment
        self._disk = experiment.disk
        self._incarnation = incarnation
        self._owners: dict[tuple[str, int], str] = {}
        self._card: Path | None = None

    def survey(self, runs: Collection[str]) -> dict[str, Claim]:
        """The highest claim of each of `runs` that has one, by a listing, which may be late."""
        highest: dict[str, int] = {}
        over: set[tuple[str, int]] = set()
        wanted = runs if isinstance(runs, set | frozenset) else set(runs)
        for name in self._disk.names(self._experiment.path("claims")):
            run, _, rest = name.partition(".")
            if run not in wanted:
                continue  # or no claim at all: somebody else's file
            attempt, *marker = rest.split(".")
            if marker:
                over.add((run, int(attempt)))
            else:
                highest[run] = max(int(attempt), highest.get(run, 0))
        for name in self._disk.names(self._experiment.path("errors")):
            run, _, rest = name.partition(".")
            if run in highest and rest == f"{highest[run]}.json":
                over.add((run, highest[run]))
        return {
            run: Claim(
                run=run,
                attempt=attempt,
                incarnation=self._owner(run, attempt),
                over=(run, attempt) in over,
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
        if self._card is None:
            # One file for all claims of this incarnation: a claim costs a name, not an inode.
            card = ClaimRecord(incarnation=self._incarnation)
            folder = self._experiment.path("claims")
            self._card = self._disk.write_temporary(folder / self._incarnation, encode(card))
        return self._disk.link(self._card, self._path(run, attempt))

    def is_mine(self, run: str, attempt: int) -> bool:
        """Whether nobody has claimed a later attempt."""
        return not self._disk.exists(self._path(run, attempt + 1))

    def release(self, run: str, attempt: int) -> None:
        """Let anybody take the run at once."""
        self._disk.publish(self._released(run, attempt), b"")

    def close(self) -> None:
        if self._card is not None:
            self._disk.remove(self._card)
            self._card = None

    def earlier(self, run: str, attempt: int) -> list[tuple[int, str]]:
        """The attempts before this one and who played them, latest first."""
        return [(number, self._owner(run, number)) for number in range(attempt - 1, 0, -1)]

    def _owner(self, run: str, attempt: int) -> str:
        key = (run, attempt)
        if key not in self._owners:
            content = self._disk.read(self._path(run, attempt))
            # A listing may show a name before the file can be opened: then nobody is known.
            self._owners[key] = "" if content is None else _CLAIM.decode(content).incarnation
            if content is None:
                return self._owners.pop(key)
        return self._owners[key]

    def _path(self, run: str, attempt: int) -> Path:
        return self._experiment.path("claims", f"{run}.{attempt}")

    def _released(self, run: str, attempt: int) -> Path:
        return self._experiment.path("claims", f"{run}.{attempt}.released")


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._experiment = experiment
        self._dead_after_s = dead_after_s
        self._ask_slurm = ask_slurm
        self._clock = clock
        self._me: Process = this_process()
        self._over: dict[str, Verdict] = {}
        self._seen: dict[str, _Seen] = {}

    def verdict(self, incarnation: str) -> Verdict:
        """`unknown` until a heartbeat has moved or stood still for long enough."""
        if incarnation in self._over:
            return self._over[incarnation]
        record = self._experiment.worker(incarnation)
        if record is None:
            # A claim is made after the first heartbeat: its file is on its way, or was removed.
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
