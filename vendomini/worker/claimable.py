"""What a worker could do next: a pure reading of claims, errors and verdicts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vendomini.store.claims import Claim, Verdict
from vendomini.store.records import ErrorRecord

ENGINE_TRIES = 3
"""How often one submission tries a run whose engine fails; a `run` given again tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Runs of a group by what can be done about them, in the grid's order."""

    open: tuple[tuple[str, int], ...]  # may be claimed, with the attempt's number
    busy: tuple[str, ...]  # somebody alive plays them
    unsure: tuple[str, ...]  # somebody claimed them, and may be dead
    failed: tuple[str, ...]  # not to be tried again by this submission

    @property
    def remaining(self) -> int:
        """How many runs this and all other workers still have to play."""
        return len(self.open) + len(self.busy) + len(self.unsure)


def sort_out(
    unfinished: Iterable[str],
    *,
    claims: Mapping[str, Claim],
    errors: Mapping[str, Sequence[ErrorRecord]],
    submission: str,
    verdict: Callable[[str], Verdict],
) -> Found:
    """Which of the unfinished runs may be claimed now."""
    open_, busy, unsure, failed = [], [], [], []
    for run in unfinished:
        claim = claims.get(run)
        if claim is not None and not claim.over:
            judged = verdict(claim.incarnation)
            if judged == "alive":
                busy.append(run)
                continue
            if judged == "unknown":
                unsure.append(run)
                continue
        if is_given_up(errors.get(run, ()), submission):
            failed.append(run)
        else:
            open_.append((run, 1 if claim is None else claim.attempt + 1))
    return Found(open=tuple(open_), busy=tuple(busy), unsure=tuple(unsure), failed=tuple(failed))


def is_given_up(errors: Sequence[ErrorRecord], submission: str) -> bool:
    """Whether this submission has tried a run often enough: once if trying again is no use."""
    mine = [error for error in errors if error.submission == submission]
    return any(error.kind != "engine" for error in mine) or len(mine) >= ENGINE_TRIES
