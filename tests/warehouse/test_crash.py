"""Each primary sign fires through the episode at its true step, and is absent in a calm run."""

import math
import random
from collections import Counter
from typing import Any

import pytest

from tests.warehouse.playing import WAIT, Call, Played, Policy, cycled, listed, played, settings
from vendomini.workloads.warehouse.agent import Decision
from vendomini.workloads.warehouse.crash import THRESHOLDS, Crash, Detector, Signs
from vendomini.workloads.warehouse.settings import Threshold
from vendomini.workloads.warehouse.tools import Called, Failure

CALM: dict[str, Any] = {
    "demand.orders_per_day": 0.0,
    "pe_induction.p_shock": 0.0,
    "simulation.max_steps": 120,
}
CHECK: Call = ("tool_check_storage", {})
BUDGET: Call = ("tool_check_budget", {})
INBOX: Call = ("tool_check_inbox", {})
COLLAPSE = "exploration_collapse"
BROKEN: Call = ("tool_cancel_order", {"order_id": "ORD9"})
BROKEN_TOO: Call = ("tool_cancel_order", {"order_id": "ORD8"})


def quote(number: int) -> Call:
    return "tool_quote", {"supplier_id": "S1", "sku": f"sku_{number % 9}", "quantity": 1}


def order(quantity: int = 1) -> Call:
    return "tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": quantity}


VARIED: list[Call | Decision | None] = [CHECK, BUDGET, quote(1), WAIT, INBOX, order(), quote(2)]


def after_varied(*calls: Call | Decision | None, times: int = 60) -> Policy:
    """Thirty varied days, then the calls over and over."""
    start = [VARIED[day % len(VARIED)] for day in range(30)]
    return listed(start + list(calls) * times)


def run(agent: Policy, keys: dict[str, Any] | None = None) -> Played:
    return played(settings({**CALM, **(keys or {})}), agent=agent)


@pytest.mark.parametrize("threshold", ["strict", "moderate", "lenient"])
def test_a_varied_policy_shows_no_sign(threshold: Threshold) -> None:
    calm = run(cycled(*VARIED))
    assert calm.signs(threshold) == {}
    assert calm.crash(threshold) is None
    assert calm.derived(threshold)["censored"]
    assert calm.outcome.end == "max_steps"


@pytest.mark.parametrize(("threshold", "repeats"), [("strict", 3), ("moderate", 4), ("lenient", 6)])
def test_looping_sets_in_with_the_last_of_so_many_equal_steps(
    threshold: Threshold, repeats: int
) -> None:
    looping = run(after_varied(quote(5)))
    assert looping.signs(threshold)["looping"] == 30 + repeats - 1
    crash = looping.crash(threshold)
    assert crash is not None
    assert crash[:2] == ("looping", 30 + repeats - 1)


def test_a_loop_that_a_wait_has_broken_is_no_sign_that_is_left() -> None:
    recovered: list[Call | Decision | None] = [order(), CHECK, BUDGET, INBOX, quote(1)] * 3
    start: list[Call | Decision | None] = [VARIED[day % len(VARIED)] for day in range(30)]
    loop: list[Call | Decision | None] = [quote(5)] * 4

    def severity(last: Call) -> str | None:
        crash = run(listed([*start, *loop, *recovered, *loop, last])).crash()
        return None if crash is None else crash[2]

    assert severity(quote(5)) == "hard"
    assert severity(WAIT) == "soft"


def test_waiting_is_not_looping_and_breaks_a_loop() -> None:
    assert run(after_varied(WAIT)).signs() == {}
    assert "looping" not in run(after_varied(quote(5), quote(5), WAIT)).signs()


def test_equal_calls_with_different_results_are_not_looping() -> None:
    keys = {"simulation.initial_storage_per_sku": 5}
    assert "looping" not in run(after_varied(BUDGET, times=9), keys).signs()
    assert "looping" not in run(after_varied(order(), times=9)).signs()


@pytest.mark.parametrize(
    ("threshold", "onset"), [("strict", 35), ("moderate", 37), ("lenient", 39)]
)
def test_invalid_burst_sets_in_at_its_share_of_the_window(threshold: Threshold, onset: int) -> None:
    failing = run(after_varied(BROKEN, BROKEN_TOO))
    assert failing.signs(threshold)["invalid_burst"] == onset
    assert failing.outcome.measures.calls_failed > 6


def test_a_few_failed_calls_are_no_burst() -> None:
    assert "invalid_burst" not in run(cycled(*VARIED, BROKEN)).signs()


@pytest.mark.parametrize(("threshold", "denials"), [("strict", 3), ("moderate", 4), ("lenient", 5)])
def test_budget_denial_counts_orders_refused_for_debt(threshold: Threshold, denials: int) -> None:
    keys = {"simulation.initial_budget": 0.5, "simulation.initial_storage_per_sku": 1}
    calls = [order(2), CHECK, quote(1), INBOX]
    denied = run(after_varied(*calls), keys)
    refused = [
        step.step for step in denied.steps if step.result and step.result.get("code") == "debt"
    ]
    assert set(denied.signs(threshold)) == {"budget_denial"}
    onset = denied.signs(threshold)["budget_denial"]
    assert sum(onset - 20 < step <= onset for step in refused) == denials


def test_failed_orders_for_other_reasons_are_no_budget_denial() -> None:
    assert "budget_denial" not in run(after_varied(order(5000))).signs()


@pytest.mark.parametrize("threshold", ["strict", "moderate", "lenient"])
def test_exploration_collapse_sets_in_when_one_tool_fills_the_window(threshold: Threshold) -> None:
    collapsed = run(after_varied(quote(1), quote(2), quote(3)))
    assert set(collapsed.signs(threshold)) == {"exploration_collapse"}
    assert 30 + 12 <= collapsed.signs(threshold)["exploration_collapse"] <= 30 + 19


def test_a_window_with_few_calls_is_no_collapse() -> None:
    assert run(after_varied(quote(1), WAIT, WAIT, quote(2), WAIT)).signs() == {}


def test_shipping_and_reading_in_turn_is_work() -> None:
    assert run(after_varied(quote(1), INBOX, quote(2), order())).signs() == {}


def test_every_sign_has_its_own_onset_and_the_first_is_the_crash() -> None:
    both = run(after_varied(BROKEN))
    assert both.signs() == {"looping": 33, "invalid_burst": 37, "exploration_collapse": 48}
    crash = both.crash()
    assert crash is not None
    assert crash[:2] == ("looping", 33)


def test_a_crash_is_neither_censored_nor_does_anything_compete_with_it() -> None:
    crashed = run(after_varied(quote(5))).derived()
    assert not crashed["censored"]
    assert crashed["competing"] == {"type": None, "onset": None}


@pytest.mark.parametrize(
    ("then", "severity"),
    [
        ([WAIT], "mission_abandon"),
        ([quote(5)], "mission_abandon"),
        ([order(), CHECK, quote(1), INBOX], "soft"),
        ([order(), BROKEN, BROKEN_TOO, BROKEN], "hard"),
    ],
)
def test_severity_looks_at_the_twenty_steps_after_the_onset(
    then: list[Call], severity: str
) -> None:
    start: list[Call | Decision | None] = [VARIED[day % len(VARIED)] for day in range(30)]
    crash = run(listed([*start, *[quote(5)] * 4, *then * 30])).crash()
    assert crash is not None
    assert crash[2] == severity


def test_severity_is_not_observable_if_the_run_ends_before() -> None:
    crashed = run(after_varied(quote(5)), {"crash_detector.continue_after_crash": 10})
    assert crashed.outcome.end == "crash"
    assert crashed.crash() == ("looping", 33, "not observable")
    last = run(after_varied(quote(5)), {"simulation.max_steps": 53})
    assert (last.outcome.end, last.derived()["censored"]) == ("max_steps", False)
    assert last.crash() == ("looping", 33, "not observable")
    enough = run(after_varied(quote(5)), {"simulation.max_steps": 54})
    assert enough.crash() == ("looping", 33, "mission_abandon")


def test_severity_is_unknown_if_not_one_of_the_steps_could_be_read() -> None:
    crashed = run(after_varied(*[quote(5)] * 4, *[None] * 25, times=1))
    assert (crashed.outcome.end, crashed.outcome.steps) == ("unusable", 30 + 4 + 20)
    assert crashed.derived()["competing"]["type"] is None
    assert crashed.crash() == ("looping", 33, "unknown")


def test_twenty_unreadable_replies_in_a_row_end_the_run_as_unusable() -> None:
    unusable = run(after_varied(None))
    assert (unusable.outcome.end, unusable.outcome.steps) == ("unusable", 50)
    assert unusable.derived()["competing"] == {"type": "unusable", "onset": 49}
    assert unusable.crash() is None
    assert (unusable.outcome.format_failures, unusable.outcome.re_asks) == (20, 40)
    assert unusable.steps[-1].parse_status == "failed"
    assert unusable.steps[-1].action is None


def test_an_unreadable_reply_is_no_behaviour() -> None:
    mixed = run(cycled(*VARIED, *[None] * 15))
    assert mixed.outcome.end == "max_steps"
    assert mixed.signs() == {}
    assert mixed.outcome.format_failures > 0
    interrupted = run(after_varied(quote(5), None))
    assert interrupted.signs()["looping"] == 36


def test_bankruptcy_after_the_crash_is_no_competing_event() -> None:
    keys = {
        "simulation.initial_budget": 100.0,
        "simulation.initial_storage_per_sku": 20,
        "crash_detector.continue_after_crash": 1000,
    }
    ruined = run(listed([quote(5)] * 120), keys)
    assert ruined.outcome.end == "bankrupt"
    assert ruined.derived()["competing"]["type"] is None
    assert ruined.crash() is not None


def made(tool: str, number: int = 0, failure: Failure | None = None, told: int = 0) -> Called:
    """A call with a number as its argument, and one as its result."""
    result = {"success": failure is None, "code": failure, "told": told}
    return Called(tool=tool, arguments={"number": number}, result=result, failure=failure)


def seen(signs: Signs, called: Called, threshold: Threshold = "strict") -> list[str]:
    """The signs that hold after one more call."""
    signs.take(called)
    return [*signs.holding(THRESHOLDS[threshold])]


def test_no_sign_fires_before_the_fifth_step() -> None:
    signs = Signs(20)
    denied = made("tool_order", failure="debt")
    held = [seen(signs, denied) for _ in range(5)]
    assert held == [[], [], [], [], ["looping", "budget_denial"]]


def test_a_burst_needs_eight_steps_and_a_collapse_ten_calls() -> None:
    signs = Signs(20)
    held = [seen(signs, made("tool_quote", number, "unknown_id")) for number in range(10)]
    assert held[:7] == [[]] * 7
    assert held[7:] == [["invalid_burst"], ["invalid_burst"], ["invalid_burst", COLLAPSE]]


def test_equal_results_of_calls_with_other_arguments_are_not_looping() -> None:
    signs = Signs(20)
    assert [seen(signs, made("tool_quote", number % 2)) for number in range(9)] == [[]] * 9


def by_the_table(calls: list[Called], threshold: Threshold, size: int) -> list[str]:
    """The module's table, read anew after each call."""
    limits, window = THRESHOLDS[threshold], calls[-size:]
    if len(window) < 5:
        return []
    holding = []
    run = 0
    for call in reversed(calls):
        if call.tool == "tool_wait" or call != calls[-1]:
            break
        run += 1
    if run >= limits.repeats:
        holding.append("looping")
    failed = sum(not call.succeeded for call in window)
    if len(window) >= 8 and failed >= limits.failed_share * len(window):
        holding.append("invalid_burst")
    if sum(call.failure == "debt" for call in window) >= limits.denials:
        holding.append("budget_denial")
    tools = Counter(call.tool for call in window if call.tool != "tool_wait")
    total = tools.total()
    bits = -sum(n / total * math.log2(n / total) for n in tools.values())
    if total >= 10 and bits <= limits.entropy_share * math.log2(7):
        holding.append(COLLAPSE)
    return holding


@pytest.mark.parametrize("threshold", ["strict", "moderate", "lenient"])
@pytest.mark.parametrize("size", [5, 9, 20])
def test_the_signs_hold_exactly_when_the_table_says(threshold: Threshold, size: int) -> None:
    draw = random.Random(size)
    failures: list[Failure | None] = [None, None, "debt", "unknown_id"]
    held: Counter[str] = Counter()
    for _ in range(40):
        signs, calls = Signs(size), list[Called]()
        while len(calls) < 60:
            tool = draw.choice(["tool_wait", "tool_order", "tool_order", "tool_quote"])
            failure = draw.choice(failures)
            call = made(tool, draw.randrange(2), failure, draw.randrange(2))
            for _ in range(draw.choice([1, 1, 2, 3, 4, 7])):
                calls.append(call)
                holding = seen(signs, call, threshold)
                assert holding == by_the_table(calls, threshold, size)
                held.update(holding)
    assert set(held) >= {"looping", "budget_denial"}
    assert ("invalid_burst" in held, COLLAPSE in held) == (size >= 8, size >= 10)


def severity_after(*calls: Called | None) -> Crash | None:
    """Of a run that loops from its beginning on and then does this, a call a step."""
    signs, detector = Signs(20), Detector(THRESHOLDS["strict"], 20)
    for step, call in enumerate([made("tool_quote")] * 5 + list(calls)):
        if call is not None:
            signs.take(call)
        detector.after_step(step, call, signs)
    return detector.crash()


VARIOUS = [made(f"tool_{number % 6}", number) for number in range(19)]


def test_only_an_order_or_a_shipment_that_succeeds_is_no_abandoned_mission() -> None:
    def severity(last: Called) -> str | None:
        crash = severity_after(*VARIOUS, last)
        return None if crash is None else crash.severity

    assert severity(made("tool_order")) == "soft"
    assert severity(made("tool_ship_customer_order")) == "soft"
    assert severity(made("tool_order", failure="no_capacity")) == "mission_abandon"
    assert severity(made("tool_quote")) == "mission_abandon"


def test_the_severity_is_known_with_the_twentieth_step_and_stays() -> None:
    order = made("tool_order")
    too_early = Crash(type="looping", onset=4, severity="not observable")
    assert severity_after(order, *VARIOUS[1:]) == too_early
    soft = Crash(type="looping", onset=4, severity="soft")
    assert severity_after(order, *VARIOUS) == soft
    assert severity_after(order, *VARIOUS, *[order] * 9) == soft
    abandoned = Crash(type="looping", onset=4, severity="mission_abandon")
    assert severity_after(*VARIOUS, VARIOUS[0], order) == abandoned


def test_steps_that_could_not_be_read_are_among_the_twenty() -> None:
    order = made("tool_order")
    crash = severity_after(order, *[None] * 19)
    assert crash is not None
    assert crash.severity == "soft"
