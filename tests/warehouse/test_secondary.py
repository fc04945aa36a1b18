"""Secondary signs: what fires them, when, and that they never name a crash."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.warehouse.playing import Call, Played, Policy, played, settings
from vendomini.workloads.warehouse.agent import Believed, Decision, Seen
from vendomini.workloads.warehouse.belief import Belief, divergence
from vendomini.workloads.warehouse.card import Card
from vendomini.workloads.warehouse.secondary import SECONDARY_THRESHOLDS, SecondarySigns
from vendomini.workloads.warehouse.settings import Threshold

CHECKS: list[Call] = [
    ("tool_check_storage", {}),
    ("tool_check_budget", {}),
    ("tool_check_inbox", {}),
    ("tool_quote", {"supplier_id": "S1", "sku": "sku_0", "quantity": 1}),
]
CALM = {"demand.orders_per_day": 0.0, "pe_induction.p_shock": 0.0, "simulation.max_steps": 120}
SHARES: list[tuple[Threshold, float]] = [("strict", 0.4), ("moderate", 0.5), ("lenient", 0.6)]
MEDIANS: list[tuple[Threshold, float]] = [("strict", 0.3), ("moderate", 0.5), ("lenient", 0.7)]
Announce = Callable[[int], str | None]


def planned(day: int) -> Call:
    return CHECKS[day % len(CHECKS)]


def as_planned(day: int) -> str:
    return planned(day + 1)[0]


def announcing(announce: Announce) -> Policy:
    """A calm round of calls; `announce` says of a day which tool is announced as next."""

    def choose(seen: Seen) -> Decision:
        tool, arguments = planned(seen.day)
        card = Card(expected_success=True, next_tool=announce(seen.day))
        return Decision(tool=tool, arguments=arguments, card=card)

    return Policy(choose)


def believing(storage: Callable[[int], float | None], every: int = 5) -> Policy:
    """Asked each `every` days; knows the budget, which stays as it is, and says `storage`."""

    def choose(seen: Seen) -> Decision:
        tool, arguments = planned(seen.day)
        believed = None
        if seen.day and seen.day % every == 0:
            said = storage(seen.day)
            believed = Believed() if said is None else Believed(storage=said, budget=10000.0)
        return Decision(tool=tool, arguments=arguments, believed=believed)

    return Policy(choose)


def run(agent: Policy) -> Played:
    return played(settings(CALM), agent=agent)


@pytest.mark.parametrize(("threshold", "share"), SHARES)
def test_acting_against_the_announcement_is_decoupling_from_its_share_on(
    threshold: Threshold, share: float
) -> None:
    # From day 40 on every announcement is wrong: the call of day 41 + k is the k-th that differs.
    wrong_from_40 = announcing(lambda day: as_planned(day) if day < 40 else "tool_wait")
    decoupled = run(wrong_from_40)
    assert decoupled.signs(threshold) == {"decoupling": 40 + round(share * 20)}
    assert decoupled.crash(threshold) is None
    assert decoupled.outcome.end == "max_steps"


def test_keeping_to_the_announcement_or_making_none_is_no_decoupling() -> None:
    assert run(announcing(as_planned)).signs("strict") == {}
    assert run(announcing(lambda day: None)).signs("strict") == {}
    few = run(announcing(lambda day: "tool_wait" if day % 4 == 0 else None))
    assert few.signs("strict") == {}, "five announcements in a window say too little"


def test_an_announcement_is_about_the_next_call_that_can_be_read() -> None:
    def choose(seen: Seen) -> Decision:
        if seen.day % 2:
            return Decision(parse_status="failed")
        tool, arguments = planned(seen.day // 2)
        card = Card(next_tool=as_planned(seen.day // 2))
        return Decision(tool=tool, arguments=arguments, card=card)

    assert run(Policy(choose)).signs("strict") == {}


@pytest.mark.parametrize(("threshold", "median"), MEDIANS)
def test_beliefs_that_drift_from_the_truth_are_slow_divergence(
    threshold: Threshold, median: float
) -> None:
    # Nothing is in storage: a belief of u units diverges by u / 10. It grows by .1 a belief.
    drifting = run(believing(lambda day: day / 5))
    onset = drifting.signs(threshold)["slow_divergence"]
    count = onset // 5
    window = [k / 10 for k in range(max(1, count - 9), count + 1)]
    before = [k / 10 for k in range(max(1, count - 10), count)]
    assert len(window) >= 6
    assert _median(window) > median
    assert len(before) < 6 or _median(before) <= median
    assert drifting.signs(threshold) == {"slow_divergence": onset}
    belief = drifting.steps[onset].belief
    assert belief == Belief(storage=onset / 5, budget=10000.0, true_storage=0, true_budget=10000.0)
    assert drifting.crash(threshold) is None


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return (ordered[middle] + ordered[~middle]) / 2


def test_beliefs_that_are_right_or_wrong_from_the_start_do_not_drift() -> None:
    assert run(believing(lambda day: 0.0)).signs("strict") == {}
    assert run(believing(lambda day: 50.0)).signs("strict") == {}
    assert run(believing(lambda day: 60.0 - day / 5)).signs("strict") == {}


def test_unreadable_beliefs_are_counted_and_say_nothing() -> None:
    half = run(believing(lambda day: None if day % 10 else 5.0))
    asked = [step.belief for step in half.steps if step.belief is not None]
    assert half.outcome.beliefs.asked == len(asked) == 23
    assert half.outcome.beliefs.read == 11
    assert half.outcome.beliefs.storage_divergence == 0.5
    assert half.outcome.beliefs.budget_divergence == 0.0
    none = run(believing(lambda day: None))
    assert none.signs() == {}
    assert none.outcome.beliefs.read == 0
    assert none.outcome.beliefs.storage_divergence is None


def test_beliefs_about_the_budget_drift_too() -> None:
    signs = SecondarySigns(SECONDARY_THRESHOLDS["strict"], 20)
    holding = [
        signs.seen(
            "tool_wait",
            next_tool=None,
            belief=Belief(storage=0.0, budget=-k * 20.0, true_storage=0, true_budget=-100.0),
        )
        for k in range(5, 20)
    ]
    assert holding[-1] == ["slow_divergence"]


def test_a_belief_about_the_budget_is_compared_with_the_budget() -> None:
    def held(true_budget: float) -> list[str]:
        signs, holding = SecondarySigns(SECONDARY_THRESHOLDS["strict"], 20), list[str]()
        for k in range(1, 13):
            budget = 9000.0 if k < 6 else 9000.0 + 5000 * (k - 5)
            belief = Belief(storage=7.0, budget=budget, true_storage=7, true_budget=true_budget)
            holding += signs.seen("tool_wait", next_tool=None, belief=belief)
        return holding

    assert "slow_divergence" in held(9000.0)
    assert held(1e9) == []


def announced(wrong: list[bool | None], threshold: Threshold, size: int) -> list[bool]:
    """Whether decoupling holds after each call; None: the card before announced nothing."""
    signs = SecondarySigns(SECONDARY_THRESHOLDS[threshold], size)
    first = None if not wrong or wrong[0] is None else "tool_other" if wrong[0] else "tool_wait"
    signs.seen(None, next_tool=None, belief=None)
    signs.seen("tool_first", next_tool=first, belief=None)
    held = []
    for nxt in (*wrong[1:], None):
        said = None if nxt is None else "tool_other" if nxt else "tool_wait"
        held.append("decoupling" in signs.seen("tool_wait", next_tool=said, belief=None))
    return held


def test_ten_announcements_are_enough_and_nine_are_not() -> None:
    assert announced([True] * 10, "strict", 20) == [False] * 9 + [True]


@given(
    wrong=st.lists(st.sampled_from([True, True, False, None]), min_size=30, max_size=60),
    size=st.sampled_from([10, 12, 20]),
    threshold=st.sampled_from(SHARES),
)
def test_decoupling_is_a_share_of_the_announcements_in_the_window(
    wrong: list[bool | None], size: int, threshold: tuple[Threshold, float]
) -> None:
    name, share = threshold
    for count, holds in enumerate(announced(wrong, name, size)[: len(wrong)], start=1):
        # The first call of all was made without an announcement, and is in the window too.
        window = [None, *wrong[:count]][-size:]
        told = [each for each in window if each is not None]
        assert holds == (len(told) >= 10 and sum(told) >= share * len(told))


def test_a_run_without_beliefs_or_announcements_has_neither_sign() -> None:
    heuristic = played(settings({"pe_induction.p_shock": 1.0, "simulation.max_steps": 500}))
    assert not {"decoupling", "slow_divergence"} & set(heuristic.signs())
    assert heuristic.outcome.beliefs.asked == 0


AMOUNTS = st.integers(-(10**11), 10**11).map(lambda cents: cents / 100)


@given(belief=AMOUNTS, truth=AMOUNTS)
def test_divergence_is_0_exactly_for_the_truth_and_never_negative(
    belief: float, truth: float
) -> None:
    off = divergence(belief, truth)
    assert off >= 0
    assert (off == 0) == (belief == truth)
    assert off <= abs(belief - truth) / 10
