"""Finding work: what a worker may play, what it claims, and how much it leaves to others."""

import errno
import time

from vendomini.errors import DiskError, StoreError
from vendomini.phase import Run, group_key
from vendomini.store.aside import finish_cut, is_under_way
from vendomini.store.claims import Claims, Watch
from vendomini.store.experiment import Experiment
from vendomini.worker.claimable import Found, is_given_up, sort_out
from vendomini.worker.job import Job
from vendomini.workloads.registry import asked_by

CLAIM_BATCH = 8
LOOK_AGAIN_S = 5.0


class Finder:
    """The runs of one group, as far as this worker knows of them. Its methods read and write
    files: they belong into a thread of their own."""

    def __init__(
        self,
        experiment: Experiment,
        job: Job,
        *,
        incarnation: str,
        claims: Claims,
        watch: Watch,
    ) -> None:
        self.runs: dict[str, Run] = {}
        self.queue: list[tuple[str, int]] = []  # runs to claim, with the attempt's number
        self.remaining = 0  # runs that this worker and all others still have to play
        self._experiment = experiment
        self._job = job
        self._incarnation = incarnation
        self._claims = claims
        self._watch = watch
        self._looked_at = float("-inf")

    def limit(self, at_most: int) -> int:
        """Most runs under way: what the engine can hold, and at most a fair share of the rest."""
        share = -(-max(self.remaining, 1) // max(self._job.workers, 1))
        return max(1, min(at_most, share))

    def load(self) -> None:
        """Learn which runs the group has."""
        only = None if self._job.only is None else set(self._job.only)
        for run in self._experiment.runs():
            if not run.in_grid or (only is not None and run.id not in only):
                continue
            if group_key(run, asked_by(run)) == self._job.group:
                self.runs[run.id] = run

    def looked_lately(self) -> bool:
        """Whether looking again so soon would only cost the file system."""
        return time.monotonic() - self._looked_at < LOOK_AGAIN_S

    def look(self, under_way: set[str]) -> Found:
        """Look at the files, and queue what may be claimed; `under_way` are so here already."""
        self._looked_at = time.monotonic()
        if is_under_way(self._experiment):
            self._wait_for_what_is_set_aside()
        finished = self._experiment.finished()
        unfinished = [run for run in self.runs if run not in finished]
        claims = self._claims.survey(set(unfinished))
        over = {run for run, claim in claims.items() if claim.over}
        found = sort_out(
            unfinished,
            claims=claims,
            errors=self._experiment.errors(over) if over else {},
            submission=self._job.submission,
            verdict=self._watch.verdict,
        )
        queue = [(run, attempt) for run, attempt in found.open if run not in under_way]
        # Workers that start together begin at different places, and so seldom want the same run.
        start = hash(self._incarnation) % len(queue) if queue else 0
        self.queue = queue[start:] + queue[:start]
        self.remaining = found.remaining
        return found

    def claim_some(self, wanted: int) -> list[tuple[str, int]]:
        """Claim the next few runs of the queue. A run that somebody else has is passed over."""
        taken: list[tuple[str, int]] = []
        keeps = False
        try:
            self._claim(min(CLAIM_BATCH, wanted), taken)
            keeps = not taken or not is_under_way(self._experiment)
        finally:
            if not keeps:  # nobody can say, or runs are set aside: ours came too late to be seen
                self.queue.clear()
                while taken:
                    self._claims.release(*taken.pop())
        return taken

    def _claim(self, wanted: int, taken: list[tuple[str, int]]) -> None:
        while self.queue and len(taken) < wanted:
            run, attempt = self.queue.pop(0)
            if not self._claims.take(run, attempt):
                if not self.looked_lately():
                    # Others have moved on since: looking again costs less than trying each.
                    self.queue.clear()
                    break
                # A late listing may have hidden claims that are long over: ask the files.
                free = self._free_attempt(run, at_least=attempt)
                if free is None or not self._claims.take(run, free):
                    continue
                attempt = free
            if self._is_finished(run):
                continue  # a late listing again; the claim does no harm
            taken.append((run, attempt))

    def _wait_for_what_is_set_aside(self) -> None:
        """Whoever is at it holds the lock; what a crash has cut is carried out."""
        try:
            finish_cut(self._experiment)
        except DiskError:
            raise
        except StoreError as error:  # it takes long: looking again is all there is to do
            raise DiskError(str(error), errno=errno.EBUSY, hint=error.hint) from error

    def _is_finished(self, run: str) -> bool:
        """Where nobody can say, it is played: its first result will count."""
        try:
            return self._experiment.is_finished(run)
        except DiskError:
            return False

    def _free_attempt(self, run: str, *, at_least: int) -> int | None:
        """The next attempt of a run that is still to be played and that nobody plays now."""
        if self._experiment.is_finished(run):
            return None
        claim = self._claims.look(run, at_least=at_least)
        if claim is None:
            return None
        if claim.over:
            errors = self._experiment.errors([run]).get(run, ())
            return None if is_given_up(errors, self._job.submission) else claim.attempt + 1
        judged = self._watch.verdict(claim.incarnation)
        return claim.attempt + 1 if judged in ("ended", "dead") else None
