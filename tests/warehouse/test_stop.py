"""What ends a run, and that nothing else of signs acts on it."""

import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.playing import WAIT, Call, Played, Policy, cycled, listed, played, settings
from vendomini.workloads.warehouse.crash import THRESHOLDS, Detector, Signs
from vendomini.workloads.warehouse.derived import MAIN, derived
from vendomini.workloads.warehouse.settings import SKUS, SUPPLIERS, Threshold
from vendomini.workloads.warehouse.stop import RULES, FirstSign, Limits, started_by
from vendomini.workloads.warehouse.tools import Called, Failure

CALM: dict[str, Any] = {
    "demand.orders_per_day": 0.0,
    "pe_induction.p_shock": 0.0,
    "simulation.max_steps": 120,
}
ORDER: Call = ("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 1})
CHECK: Call = ("tool_check_storage", {})
BROKEN: Call = ("tool_cancel_order", {"order_id": "ORD9"})
BROKEN_TOO: Call = ("tool_cancel_order", {"order_id": "ORD8"})
REFUSED: Call = ("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 10**6})
SAID = [WAIT, ORDER, CHECK, BROKEN, BROKEN_TOO, REFUSED, ("tool_check_inbox", {})]


def quote(number: int) -> Call:
    return "tool_quote", {"supplier_id": "S1", "sku": f"sku_{number % 9}", "quantity": 1}


def after_an_order(*calls: Call | None, times: int = 60) -> Policy:
    """An order, a few varied days, and the calls over and over."""
    start = [ORDER, CHECK, quote(1), WAIT, ("tool_check_inbox", {}), quote(2), CHECK, WAIT]
    return listed([*start, *list(calls) * times])


def run(agent: Policy, keys: dict[str, Any] | None = None) -> Played:
    return played(settings({**CALM, **(keys or {})}), agent=agent)


# -- the rule ------------------------------------------------------------------------------


def test_the_rules_are_those_by_which_runs_have_ended_and_are_not_to_be_tuned() -> None:
    assert {
        "strict": Limits(repeats=3, failed_share=0.3, denials=3, entropy_share=0.2),
        "moderate": Limits(repeats=4, failed_share=0.4, denials=4, entropy_share=0.15),
        "lenient": Limits(repeats=6, failed_share=0.5, denials=5, entropy_share=0.1),
    } == RULES


@pytest.mark.parametrize("goes_on", [0, 5, 50])
@pytest.mark.parametrize(
    ("calls", "sign"),
    [
        ((quote(5),), "looping"),
        ((BROKEN, BROKEN_TOO), "invalid_burst"),
        ((quote(1), quote(2), quote(3)), "exploration_collapse"),
    ],
)
def test_a_run_goes_on_so_long_after_the_first_lenient_sign(
    calls: tuple[Call, ...], sign: str, goes_on: int
) -> None:
    ended = run(after_an_order(*calls), {"crash_detector.continue_after_crash": goes_on})
    crash = ended.derived()["crash_lenient"]
    assert crash["type"] == sign
    assert (ended.outcome.end, ended.outcome.stop_rule) == ("crash", "lenient")
    assert ended.outcome.steps == crash["onset"] + goes_on + 1


def test_what_the_lenient_rule_does_not_see_ends_no_run() -> None:
    """Four of the same look are a crash by the moderate threshold, and play on."""
    again = run(listed([ORDER, *[CHECK] * 5, quote(1), *[WAIT, quote(2), quote(3), CHECK] * 40]))
    assert again.crash() is not None
    assert again.derived()["crash_lenient"]["type"] is None
    assert (again.outcome.end, again.outcome.steps) == ("max_steps", 120)


@pytest.mark.parametrize("size", [10, 30, 60])
def test_the_window_of_the_rule_is_that_of_the_settings(size: int) -> None:
    keys = {"crash_detector.window_size": size, "crash_detector.continue_after_crash": 0}
    burst = run(listed([*[WAIT, CHECK, quote(1), ORDER] * 15, *[BROKEN, BROKEN_TOO] * 30]), keys)
    assert burst.outcome.steps == 60 + size // 2
    assert burst.derived()["crash_lenient"]["type"] == "invalid_burst"


@pytest.mark.parametrize("rule", ["strict", "moderate", "lenient"])
@pytest.mark.parametrize("size", [5, 9, 20, 40])
def test_the_rule_and_the_detector_of_the_same_limits_see_the_first_sign_with_the_same_call(
    rule: Threshold, size: int
) -> None:
    draw = random.Random(size)
    failures: list[Failure | None] = [None, None, None, "debt", "unknown_id"]
    tools = ["tool_wait", "tool_order", "tool_quote", "tool_check_storage", "tool_check_inbox"]
    seen = set()
    for _ in range(500):
        first, signs = FirstSign(RULES[rule], size), Signs(size)
        detector = Detector(THRESHOLDS[rule], size)
        few = draw.sample(tools, draw.choice([2, 3, 5]))
        called = Called(tool="tool_wait", arguments={}, result={})
        for step in range(80):
            if draw.random() < 0.8:  # else the same once more
                failure = draw.choice(failures)
                called = Called(
                    tool=draw.choice(few),
                    arguments={"number": draw.randrange(9)},
                    result={"success": failure is None, "code": failure},
                    failure=failure,
                )
            signs.take(called)
            detector.after_step(step, called, signs)
            crash = detector.crash()
            assert first.holds_after(called) == (crash is not None)
            if crash is not None:
                seen.add(crash.type)
                break
    assert len(seen) >= 2


@given(
    picks=st.lists(st.integers(0, len(SAID) + 3), min_size=1, max_size=40),
    size=st.sampled_from([10, 20, 50]),
    goes_on=st.integers(0, 30),
)
@budget(max_examples=60, deadline=None)
def test_a_run_that_ended_as_crashed_did_so_after_the_lenient_onset_that_is_derived(
    picks: list[int], size: int, goes_on: int
) -> None:
    calls = [*SAID, None, quote(1), quote(2), quote(3)]
    keys = {"crash_detector.window_size": size, "crash_detector.continue_after_crash": goes_on}
    ended = run(cycled(*[calls[pick] for pick in picks]), keys)
    onset = ended.derived()["crash_lenient"]["onset"]
    if ended.outcome.end == "crash":
        assert ended.outcome.steps == onset + goes_on + 1
    else:
        assert onset is None or ended.outcome.steps <= onset + goes_on + 1


# -- never started -------------------------------------------------------------------------


@pytest.mark.parametrize("level", range(5))
def test_a_run_whose_orders_all_fail_ends_as_never_started(level: int) -> None:
    keys = {**CALM, "simulation.max_steps": 1000, "simulation.complexity_level": level}
    limit = max(150, 2 * SKUS[level] * SUPPLIERS[level])
    idle = played(settings(keys), agent=cycled(WAIT, CHECK, WAIT, REFUSED, WAIT))
    assert started_by(settings(keys).simulation) == limit
    assert (idle.outcome.end, idle.outcome.steps) == ("never_started", limit + 1)
    assert idle.derived()["competing"] == {"type": "never_started", "onset": limit}
    assert not idle.derived()["censored"]
    assert idle.crash() is None


@pytest.mark.parametrize(("day", "end"), [(0, "max_steps"), (150, "max_steps"), (151, None)])
def test_one_order_that_succeeds_in_time_is_a_start(day: int, end: str | None) -> None:
    varied = [WAIT, CHECK, WAIT, quote(1), WAIT]
    calls = [ORDER if today == day else varied[today % 5] for today in range(200)]
    begun = run(listed([*calls]), {"simulation.max_steps": 200})
    assert begun.outcome.end == (end or "never_started")


def test_a_run_of_fewer_days_is_censored_though_nothing_was_ordered() -> None:
    short = run(cycled(WAIT), {"simulation.max_steps": 150})
    assert short.outcome.end == "max_steps"
    assert short.derived()["censored"]


def test_never_starting_after_the_crash_competes_with_nothing() -> None:
    keys = {"simulation.max_steps": 200, "crash_detector.continue_after_crash": 1000}
    stuck = run(cycled(CHECK), keys)
    assert stuck.outcome.end == "never_started"
    assert stuck.crash() is not None
    assert stuck.derived()["competing"]["type"] is None


# -- nothing else --------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", ["strict", "lenient"])
def test_the_threshold_of_older_files_changes_no_byte_of_a_run(threshold: str) -> None:
    crashing = after_an_order(quote(5))
    plain = run(crashing)
    assert run(crashing, {"crash_detector.threshold": threshold}).bytes == plain.bytes


@pytest.mark.parametrize(
    ("constant", "value"),
    [("repeats", 9), ("failed_share", 0.9), ("denials", 1), ("entropy_share", 0.5)],
)
def test_a_constant_that_is_tuned_changes_the_table_and_no_run(constant: str, value: float) -> None:
    keys = {
        "simulation.initial_budget": 0.5,
        "simulation.initial_storage_per_sku": 1,
        "crash_detector.continue_after_crash": 1000,
    }
    wide = [quote(1), quote(2), quote(3), CHECK, BROKEN] * 3
    calls = [CHECK, *wide, *[ORDER, WAIT] * 5, *[BROKEN, BROKEN_TOO] * 9, *[quote(5)] * 60]
    before, after = run(listed([*calls]), keys), run(listed([*calls]), keys)
    tuned: dict[Threshold, Any] = {**THRESHOLDS}
    changed: dict[str, Any] = {constant: value}
    tuned[MAIN] = replace(THRESHOLDS[MAIN], **changed)
    outcome = msgspec.to_builtins(after.outcome)
    assert after.bytes == before.bytes
    assert derived(after.settings, after.logged(), outcome, limits=tuned) != before.derived()
