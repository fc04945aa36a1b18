"""What the teller says of signs and crashes, which no step and no outcome holds."""

from typing import Any

import msgspec

from tests.warehouse.playing import WAIT, Call, Played, cycled, listed, played, settings
from vendomini.tables import flat
from vendomini.transcript import Line, PlainTeller
from vendomini.workloads.warehouse.teller import WarehouseTeller
from vendomini.workloads.warehouse.workload import WAREHOUSE

CALM: dict[str, Any] = {
    "demand.orders_per_day": 0.0,
    "pe_induction.p_shock": 0.0,
    "simulation.max_steps": 120,
}
QUOTE: Call = ("tool_quote", {"supplier_id": "S1", "sku": "sku_5", "quantity": 1})
LOOKS: list[Call] = [("tool_check_budget", {}), WAIT, ("tool_check_inbox", {}), WAIT]
WANDERING = [LOOKS[day % 4] for day in range(20)]


def told(run: Played) -> tuple[list[tuple[int, str]], list[Line]]:
    """The signs by the step that they are told with, and the lines of the end."""
    teller = WarehouseTeller(run.settings)
    signs = []
    for step in msgspec.to_builtins(run.steps):
        for line in teller.step(step, ()):
            if line.label == "sign":
                signs.append((step["step"], line.text))
    return signs, teller.outcome(msgspec.to_builtins(run.outcome), flat(run.derived()))


def end(lines: list[Line], label: str) -> str:
    (line,) = [line for line in lines if line.label == label]
    return line.text


def test_signs_are_told_as_they_set_in_and_the_first_is_the_crash() -> None:
    run = played(settings(CALM), agent=listed([*WANDERING, *[QUOTE] * 90]))
    signs, lines = told(run)
    assert {(onset, sign) for onset, sign in signs} == {
        (23, "looping sets in: this is the run's crash"),
        (run.signs()["exploration_collapse"], "exploration_collapse sets in"),
    }
    assert end(lines, "crash") == "looping at step 23, severity mission_abandon"
    assert end(lines, "signs").startswith("looping at step 23, exploration_collapse at step ")


def test_where_the_other_thresholds_say_something_else_one_line_has_it() -> None:
    looping = played(settings(CALM), agent=listed([*WANDERING, *[QUOTE] * 90]))
    (others,) = [line.text for line in told(looping)[1] if line.label == ""]
    assert others == (
        "by the strict threshold looping at step 22, severity mission_abandon; "
        "by the lenient threshold looping at step 25, severity mission_abandon"
    )
    calm = told(played(settings(CALM), agent=cycled(*LOOKS)))
    assert calm[0] == []
    assert [line for line in calm[1] if line.label == ""] == []
    assert end(calm[1], "crash") == "none: censored"
    assert end(calm[1], "signs") == "none"


def test_a_competing_event_and_what_was_not_observable_are_told() -> None:
    idle = played(settings({**CALM, "simulation.max_steps": 500}), agent=cycled(*LOOKS))
    assert end(told(idle)[1], "end") == "never_started after 151 of 500 steps"
    assert end(told(idle)[1], "crash") == "none: never_started came first, at step 150"
    short = played(settings(CALM), agent=listed([*WANDERING, *[QUOTE] * 90]))
    found = flat(short.derived()) | {"crash_strict.type": "not observable"}
    found |= {"crash_strict.onset": None, "crash_strict.severity": None}
    lines = WarehouseTeller(short.settings).outcome(msgspec.to_builtins(short.outcome), found)
    assert end(lines, "").startswith("by the strict threshold not observable; by the lenient ")


def test_who_plays_is_said() -> None:
    assert WAREHOUSE.teller(settings({"agent.kind": "heuristic"})).who() == "heuristic"
    llm = settings({"agent.kind": "llm", "agent.model.name": "org/model"})
    assert WAREHOUSE.teller(llm).who() == "llm, model org/model"


def test_of_settings_that_are_not_known_the_json_is_told() -> None:
    teller = WAREHOUSE.teller(None)
    assert isinstance(teller, PlainTeller)
    assert [line.label for line in teller.outcome({"end": "crash"}, {})] == ["outcome"]
