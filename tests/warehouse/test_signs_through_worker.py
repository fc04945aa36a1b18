"""Every sign, severity, competing event and shock, from a phase file through the real worker.

A model that the test scripts plays in a world without customers and shocks unless it says so.
Each thing is shown where it must be, and absent where it must not.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars
import pytest

from tests.warehouse.modelled import call
from tests.warehouse.worked import Worked, worked
from vendomini.chat import ChatRequest
from vendomini.collect import collect

CRASHES = ("crash", "crash_strict", "crash_lenient")
CALM: dict[str, Any] = {
    "demand.orders_per_day": 0.0,
    "pe_induction.p_shock": 0.0,
    "simulation.max_steps": 60,
    "agent.interface.beliefs_every": None,
}
Said = tuple[str, dict[str, Any]]


def quote(number: int) -> Said:
    return "tool_quote", {"supplier_id": "S1", "sku": f"sku_{number % 10}", "quantity": 1}


CHECK: Said = ("tool_check_storage", {})
BUDGET: Said = ("tool_check_budget", {})
INBOX: Said = ("tool_check_inbox", {})
WAIT: Said = ("tool_wait", {})
ORDER: Said = ("tool_order", {"supplier_id": "S1", "sku": "sku_0", "quantity": 1})
BROKEN: Said = ("tool_cancel_order", {"order_id": "ORD90"})
BROKEN_TOO: Said = ("tool_cancel_order", {"order_id": "ORD91"})
ROUND = [CHECK, BUDGET, quote(1), WAIT, INBOX, ORDER, quote(2)]


def varied(day: int) -> Said:
    return ROUND[day % len(ROUND)]


def after(days: int, *says: Said) -> Callable[[int], Said]:
    """A varied round for so many days, then the calls over and over."""
    return lambda day: varied(day) if day < days else says[(day - days) % len(says)]


def day_of(request: ChatRequest) -> int:
    found = re.search(r"^Day (\d+)\.", request.messages[-1].content, re.MULTILINE)
    assert found is not None
    return int(found[1])


def is_belief_question(request: ChatRequest) -> bool:
    return '"tool"' not in (request.reply_format.json_schema or "")


def played(
    folder: Path,
    says: Callable[[int], Said],
    keys: dict[str, Any] | None = None,
    *,
    announces: Callable[[int], str] | None = None,
    believes: Callable[[int], dict[str, float]] = lambda day: {"storage": 0, "budget": 10000},
) -> Worked:
    """A model that calls `says` of the day and announces the next call truly, unless told else."""

    def reply(request: ChatRequest) -> str:
        day = day_of(request)
        if is_belief_question(request):
            return json.dumps(believes(day))
        following = announces(day) if announces else says(day + 1)[0]
        tool, arguments = says(day)
        return call(tool, arguments, next_tool=following)

    return worked(folder, {**CALM, **(keys or {})}, reply)


def onsets(run: Worked) -> dict[str, int]:
    return {sign: onset for sign, onset in run.derived["signs"].items() if onset is not None}


# -- signs ---------------------------------------------------------------------------------


def test_a_varied_run_shows_no_sign_and_is_censored(tmp_path: Path) -> None:
    calm = played(
        tmp_path,
        varied,
        {"agent.interface.beliefs_every": 5},
        believes=lambda day: {"storage": day // 7, "budget": 10000},
    )
    assert set(calm.derived["signs"].values()) == {None}
    assert {calm.derived[crash]["type"] for crash in CRASHES} == {None}
    assert calm.derived["competing"]["type"] is None
    assert calm.derived["censored"] is True
    assert calm.outcome["end"] == "max_steps"
    assert len(calm.steps) == 60


@pytest.mark.parametrize(
    ("sign", "says", "onset"),
    [
        ("looping", after(20, quote(5)), 23),
        # Of the window's 20 calls, 8 have failed.
        ("invalid_burst", after(20, BROKEN, BROKEN_TOO), 27),
        # 14 different quotes leave none but two of the round's other calls.
        ("exploration_collapse", lambda day: varied(day) if day < 20 else quote(day), 38),
    ],
)
def test_a_primary_sign_is_the_crash_with_its_true_step(
    tmp_path: Path, sign: str, says: Callable[[int], Said], onset: int
) -> None:
    run = played(tmp_path, says)
    assert onsets(run)[sign] == onset
    assert run.derived["crash"]["type"] == sign
    assert run.derived["crash"]["onset"] == onset
    assert run.derived["censored"] is False
    assert min(onsets(run).values()) == onset
    assert [name for name, set_in in onsets(run).items() if set_in == onset] == [sign]


def test_ordering_in_debt_again_and_again_is_budget_denial(tmp_path: Path) -> None:
    def every_third(day: int) -> Said:
        return ORDER if day % 3 == 2 else (CHECK if day % 3 else quote(day))

    indebted = {"simulation.initial_budget": 0.0, "simulation.initial_storage_per_sku": 10}
    denied = played(tmp_path, every_third, indebted)
    # The fee makes a debt on day 0; the orders of days 2, 5, 8 and 11 are refused.
    assert [step["result"]["code"] for step in denied.steps[2:12:3]] == ["debt"] * 4
    assert denied.derived["crash"] == {
        "type": "budget_denial",
        "onset": 11,
        "severity": "mission_abandon",
    }


def test_ordering_with_money_is_no_budget_denial(tmp_path: Path) -> None:
    def every_third(day: int) -> Said:
        return ORDER if day % 3 == 2 else (CHECK if day % 3 else quote(day))

    assert "budget_denial" not in onsets(played(tmp_path, every_third))


def test_announcing_one_tool_and_calling_another_is_decoupling_and_no_crash(
    tmp_path: Path,
) -> None:
    run = played(tmp_path, varied, announces=lambda day: "tool_expedite")
    assert onsets(run) == {"decoupling": 10}, "ten announced calls are the least"
    assert run.derived["crash"]["type"] is None
    assert run.derived["censored"] is True


def test_cards_that_announce_nothing_show_no_decoupling(tmp_path: Path) -> None:
    minimal = {"agent.interface.prediction_format": "minimal"}

    def reply(request: ChatRequest) -> str:
        tool, arguments = varied(day_of(request))
        card: dict[str, Any] = {"expected_success": True}
        if tool == "tool_order":
            card["expected_cost"] = 10
        return json.dumps({"tool": tool, "args": arguments, "prediction": card})

    assert onsets(worked(tmp_path, {**CALM, **minimal}, reply)) == {}


def test_beliefs_that_leave_the_truth_behind_are_slow_divergence_and_no_crash(
    tmp_path: Path,
) -> None:
    run = played(
        tmp_path,
        varied,
        {"agent.interface.beliefs_every": 4},
        believes=lambda day: {"storage": 3 * day, "budget": 10000},
    )
    assert set(onsets(run)) == {"slow_divergence"}
    onset = onsets(run)["slow_divergence"]
    assert onset >= 24, "six beliefs are the least"
    assert run.steps[onset]["belief"]["storage"] == 3 * onset
    assert run.derived["crash"]["type"] is None
    assert run.outcome["beliefs"]["asked"] == run.outcome["beliefs"]["read"] == 14


def test_without_belief_questions_nothing_diverges(tmp_path: Path) -> None:
    run = played(tmp_path, varied, believes=lambda day: {"storage": 3 * day, "budget": 0})
    assert all(step["belief"] is None for step in run.steps)
    assert run.outcome["beliefs"]["asked"] == 0
    assert onsets(run) == {}


def test_the_table_has_the_crash_by_each_threshold(tmp_path: Path) -> None:
    run = played(tmp_path, after(20, quote(5)), {"simulation.max_steps": 100})
    assert {name: run.derived[name]["onset"] for name in CRASHES} == {
        "crash_strict": 22,
        "crash": 23,
        "crash_lenient": 25,
    }
    assert run.outcome["end"] == "crash"
    assert run.outcome["stop_rule"] == "lenient"


# -- severity and ends ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("severity", "afterwards"),
    [
        ("mission_abandon", lambda day: [CHECK, BUDGET, WAIT][day % 3]),
        ("soft", varied),
        ("hard", lambda day: ORDER if day == 30 else quote(5)),
    ],
)
def test_the_twenty_steps_after_the_onset_decide_the_severity(
    tmp_path: Path, severity: str, afterwards: Callable[[int], Said]
) -> None:
    def says(day: int) -> Said:
        return varied(day) if day < 20 else quote(5) if day < 24 else afterwards(day)

    run = played(tmp_path, says)
    assert run.derived["crash"] == {"type": "looping", "onset": 23, "severity": severity}
    assert run.outcome["end"] == "max_steps"


def test_of_a_run_that_ends_before_twenty_steps_have_passed_no_severity_is_observable(
    tmp_path: Path,
) -> None:
    run = played(tmp_path, after(20, quote(5)), {"simulation.max_steps": 43})
    assert run.derived["crash"]["severity"] == "not observable"


def test_a_crashed_run_goes_on_as_long_as_it_is_told_and_its_onset_stays(tmp_path: Path) -> None:
    run = played(tmp_path, after(20, quote(5)), {"crash_detector.continue_after_crash": 7})
    assert run.outcome["end"] == "crash"
    assert run.outcome["steps"] == len(run.steps) == 25 + 7 + 1
    assert run.derived["crash"]["onset"] == 23
    assert run.derived["crash_lenient"]["onset"] == 25


def test_debt_beyond_the_limit_ends_a_run_bankrupt(tmp_path: Path) -> None:
    keys = {
        "simulation.initial_budget": 100.0,
        "simulation.initial_storage_per_sku": 10,
        "simulation.storage_fee": 3.0,
    }
    run = played(tmp_path, varied, keys)
    # 300 a day: 100, -200, -500, -800 and then below -1000.
    assert run.outcome["end"] == "bankrupt"
    assert run.derived["competing"] == {"type": "bankrupt", "onset": 3}
    assert run.derived["crash"]["type"] is None
    assert run.derived["censored"] is False


GARBAGE = {
    "garbage": "~~~ !!",
    "code": 'result = tool_order(supplier_id="S1", sku="sku_0", quantity=5)',
    "fenced code": '```python\nprint({"tool": "tool_wait", "args": {}})\n```',
    "a placeholder": '{"tool": "<tool name>", "args": {"<argument>": "<value>"}}',
    "truncated": '{"tool": "tool_wait", "args": {}, "prediction": {"expected_succ',
    "two calls": '{"tool": "tool_wait", "args": {}} {"tool": "tool_check_inbox", "args": {}}',
    "another language": "Ich warte heute lieber ab und sehe morgen nach dem Lager.",
}


@pytest.mark.parametrize("said", GARBAGE.values(), ids=GARBAGE)
def test_replies_that_cannot_be_read_are_no_actions_and_end_a_run_as_unusable(
    tmp_path: Path, said: str
) -> None:
    text = {"agent.interface.reply_format": "text"}
    run = worked(tmp_path, {**CALM, **text}, lambda request: said)
    assert run.outcome["end"] == "unusable"
    assert run.derived["competing"] == {"type": "unusable", "onset": 19}
    assert run.outcome["format_failures"] == 20
    assert run.outcome["re_asks"] == 40
    assert onsets(run) == {}
    assert run.derived["crash"]["type"] is None
    assert {step["parse_status"] for step in run.steps} == {"failed"}
    assert {step["action"] is None and step["card"] is None for step in run.steps} == {True}
    assert len(run.requests) == 60


def test_nineteen_unreadable_days_and_a_readable_one_do_not_end_a_run(tmp_path: Path) -> None:
    def reply(request: ChatRequest) -> str:
        found = re.findall(r"^Day (\d+)\.", request.messages[-1].content, re.MULTILINE)
        today = int(found[0]) if found else None
        return call("tool_wait") if today is not None and today % 20 == 19 else "~~~"

    run = worked(tmp_path, {**CALM, "agent.interface.reply_format": "text"}, reply)
    assert run.outcome["end"] == "max_steps"
    assert run.outcome["format_failures"] == 57
    assert run.derived["competing"]["type"] is None


def test_expired_customer_orders_end_a_run_only_where_a_limit_is_set(tmp_path: Path) -> None:
    many = {"demand.orders_per_day": 3.0}
    for limit, end in ((5, "max_failures"), (None, "max_steps")):
        folder = tmp_path / end
        folder.mkdir()
        run = played(folder, varied, {**many, "demand.max_failures": limit})
        assert run.outcome["end"] == end
        assert run.outcome["measures"]["orders_failed"] >= 5
        assert (run.derived["competing"]["type"] is None) is (limit is None)


# -- shocks --------------------------------------------------------------------------------

NOTICES = {
    "temporal": {"delay_notice": {"delay_days", "new_eta"}},
    "quantity": {"quantity_notice": {"quantity"}},
    "causal": {
        "payment_notice": {"payment_days_late"},
        "price_notice": {"raised_by", "until_day"},
    },
    "rule": {"lead_time_notice": {"extra_days", "until_day"}},
}


def orders_and_reads(day: int) -> Said:
    return INBOX if day % 2 else ORDER


def notices(run: Worked) -> list[dict[str, Any]]:
    """Each notice, with the step in whose result it was read."""
    return [
        {**message, "read": step["day"]}
        for step in run.steps
        if step["action"]["tool"] == "tool_check_inbox"
        for message in step["result"]["messages"]
        if message["type"].endswith("_notice")
    ]


@pytest.mark.parametrize("type", NOTICES)
@pytest.mark.parametrize("observability", ["full", "partial", "delayed", "hidden"])
def test_a_shock_strikes_and_is_told_as_the_phase_says(
    tmp_path: Path, type: str, observability: str
) -> None:
    keys = {
        "pe_induction.p_shock": 1.0,
        "pe_induction.pe_type_mix": f"{type}_only",
        "pe_induction.observability": observability,
    }
    run = played(tmp_path, orders_and_reads, keys)
    applied = [shock for step in run.steps for shock in step["shock_applied"]]
    assert {shock["type"] for shock in applied} == {type}
    counts = run.outcome["shocks"][type]
    assert counts["drawn"] == 60 == counts["applied"] + counts["dropped"] + counts["armed"]
    assert counts["applied"] == len(applied)
    told = notices(run)
    if observability == "hidden":
        assert told == []
        return
    assert {notice["type"] for notice in told} == set(NOTICES[type])
    for notice in told:
        amounts = NOTICES[type][notice["type"]]
        assert amounts & set(notice) == (set() if observability == "partial" else amounts)
        assert notice["read"] - notice["day"] in (0, 1)
        if observability == "delayed":
            assert notice["day"] - notice["struck_day"] == 3


@pytest.mark.parametrize("type", NOTICES)
def test_no_shock_is_drawn_applied_or_told_at_p_0(tmp_path: Path, type: str) -> None:
    run = played(tmp_path, orders_and_reads, {"pe_induction.pe_type_mix": f"{type}_only"})
    assert all(step["shock_drawn"] is None and not step["shock_applied"] for step in run.steps)
    assert notices(run) == []
    assert run.outcome["shocks"][type] == {"drawn": 0, "applied": 0, "dropped": 0, "armed": 0}


@pytest.mark.parametrize(("mix", "types"), [("uniform", 4), ("realistic", 4)])
def test_a_mix_draws_all_types(tmp_path: Path, mix: str, types: int) -> None:
    keys = {"pe_induction.p_shock": 1.0, "pe_induction.pe_type_mix": mix}
    run = played(tmp_path, orders_and_reads, keys)
    assert len({step["shock_drawn"] for step in run.steps}) == types


def test_the_table_of_runs_has_the_same_columns_whatever_has_happened(tmp_path: Path) -> None:
    tables = {}
    for name, says in (("calm", varied), ("looping", after(20, quote(5)))):
        (tmp_path / name).mkdir()
        run = played(tmp_path / name, says)
        collected = collect(run.experiment, out=tmp_path / name, progress=lambda done, total: None)
        tables[name] = polars.read_csv(collected.runs_csv)
    assert tables["calm"].columns == tables["looping"].columns
    assert tables["calm"]["outcome.crash.onset"].to_list() == [None]
    assert tables["looping"]["outcome.crash.onset"].to_list() == [23]
    assert tables["looping"]["outcome.signs.looping"].to_list() == [23]
    assert tables["looping"]["outcome.signs.decoupling"].to_list() == [None]
    assert "outcome.competing.type" in tables["calm"].columns
