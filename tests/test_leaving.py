"""When a worker may claim, when it must let go, and what it may claim: pure decisions."""

from hypothesis import given
from hypothesis import strategies as st

from vendomini.store.claims import Claim, Verdict
from vendomini.store.records import ErrorKind, ErrorRecord
from vendomini.worker.claimable import ENGINE_TRIES, Found, sort_out
from vendomini.worker.drain import Drain


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_without_a_deadline_nothing_ends_by_itself() -> None:
    clock = Clock()
    drain = Drain(deadline=None, drain_s=120, clock=clock)
    clock.now += 1e9
    assert drain.reason is None
    assert not drain.is_over
    assert drain.seconds_to_next_stage(at_most=5) == 5


@given(st.floats(1, 1e6), st.floats(0.1, 1e4))
def test_claims_stop_before_runs_are_let_go_and_both_before_the_deadline(
    length: float, drain_s: float
) -> None:
    clock = Clock()
    drain = Drain(deadline=clock.now + length, drain_s=drain_s, clock=clock)
    start = clock.now
    stages = []
    for _ in range(3):
        stages.append((drain.reason is None, drain.is_over))
        clock.now += drain.seconds_to_next_stage(at_most=2 * length) + 1e-3 * min(length, drain_s)
    assert stages == [(True, False), (False, False), (False, True)]
    assert clock.now <= start + length * 1.01


def test_a_short_job_works_for_most_of_its_time() -> None:
    clock = Clock()
    drain = Drain(deadline=clock.now + 60, drain_s=600, clock=clock)
    clock.now += 47
    assert drain.reason is None


def test_the_first_reason_is_kept_and_the_earliest_end_holds() -> None:
    clock = Clock()
    drain = Drain(deadline=None, drain_s=10, clock=clock)
    asked = []
    drain.changed = lambda: asked.append(1)
    drain.within(5.0, "SIGTERM")
    drain.within(50.0, "SIGUSR2")
    assert drain.reason == "SIGTERM"
    assert not drain.is_over
    clock.now += 5
    assert drain.is_over
    assert len(asked) == 2
    assert drain.problem is None


def test_a_failure_stops_at_once_and_the_first_problem_is_kept() -> None:
    drain = Drain(deadline=None, drain_s=10, clock=Clock())
    drain.fail("disk full")
    drain.fail("heartbeat lost")
    assert drain.is_over
    assert (drain.reason, drain.problem) == ("disk full", "disk full")


def claim(run: str, incarnation: str, *, attempt: int = 1, over: bool = False) -> Claim:
    return Claim(run=run, attempt=attempt, incarnation=incarnation, over=over)


def error(run: str, attempt: int, kind: ErrorKind, submission: str = "now") -> ErrorRecord:
    return ErrorRecord(
        run=run, attempt=attempt, incarnation="i", submission=submission, kind=kind, message="m"
    )


def found(claims: list[Claim], errors: list[ErrorRecord] | None = None) -> Found:
    verdicts: dict[str, Verdict] = {
        "alive": "alive",
        "dead": "dead",
        "ended": "ended",
        "unknown": "unknown",
    }
    by_run: dict[str, list[ErrorRecord]] = {}
    for record in errors or []:
        by_run.setdefault(record.run, []).append(record)
    return sort_out(
        ["a", "b", "c"],
        claims={claim.run: claim for claim in claims},
        errors=by_run,
        submission="now",
        verdict=lambda incarnation: verdicts[incarnation],
    )


def test_a_run_is_open_if_nobody_claimed_it_or_its_owner_is_gone() -> None:
    sorted_out = found([claim("b", "dead", attempt=4), claim("c", "ended")])
    assert sorted_out.open == (("a", 1), ("b", 5), ("c", 2))


def test_a_run_of_a_living_owner_is_busy_and_of_a_silent_one_unsure() -> None:
    sorted_out = found([claim("a", "alive"), claim("b", "unknown"), claim("c", "alive", over=True)])
    assert sorted_out.busy == ("a",)
    assert sorted_out.unsure == ("b",)
    assert sorted_out.open == (("c", 2),)  # its living owner has let it go
    assert sorted_out.remaining == 3


def test_a_bug_is_tried_once_and_an_engine_error_three_times_by_one_submission() -> None:
    over = [claim(run, "alive", attempt=3, over=True) for run in "abc"]
    tries = [error("a", attempt, "engine") for attempt in range(1, ENGINE_TRIES + 1)]
    sorted_out = found(over, [*tries, error("b", 3, "bug"), error("c", 3, "engine")])
    assert sorted_out.failed == ("a", "b")
    assert sorted_out.open == (("c", 4),)
    assert sorted_out.remaining == 1


def test_errors_of_an_earlier_run_of_the_command_do_not_count() -> None:
    over = [claim("a", "ended", attempt=1, over=True)]
    assert ("a", 2) in found(over, [error("a", 1, "bug", "before")]).open
