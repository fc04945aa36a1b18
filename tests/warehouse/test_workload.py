"""What the workload says of itself: checks, inert keys, demand, what it cannot play."""

from typing import Any

import pytest

from tests.warehouse.modelled import call
from tests.warehouse.playing import played, settings
from vendomini.errors import ConfigError
from vendomini.tables import outcome_columns
from vendomini.workloads.registry import workload_named
from vendomini.workloads.warehouse.cards import ERROR_TYPES
from vendomini.workloads.warehouse.settings import WarehouseSettings
from vendomini.workloads.warehouse.workload import WAREHOUSE
from vendomini.workloads.workload import Workload

PHASE1 = (
    "pe_induction.p_shock",
    "pe_induction.pe_mag",
    "agent.model.name",
    "agent.interface.prediction_mode",
)


def notes(*arms: dict[str, Any]) -> tuple[str, ...]:
    return tuple(WAREHOUSE.notes([settings(keys) for keys in arms]))


def test_it_is_registered_under_its_name_and_version() -> None:
    workload: Workload = workload_named("warehouse")
    assert (workload.name, workload.version) == ("warehouse", 2)
    assert workload.settings_type is WarehouseSettings


def test_a_window_nobody_decided_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"`agent\.model\.context_length` is `auto`") as refused:
        played(settings({"agent.kind": "llm"}))
    assert "agent.model.context_length" in refused.value.hint


@pytest.mark.parametrize("kind", ["probe", "heuristic", "random"])
def test_nothing_is_noted_of_agents_without_a_conversation(kind: str) -> None:
    assert notes({"agent.model.context_length": 4096, "agent.kind": "llm"})
    assert not notes({"agent.model.context_length": 4096, "agent.kind": kind})


@pytest.mark.parametrize(
    ("keys", "word"),
    [
        ({"demand.orders_per_day": 11.0}, "demand.orders_per_day"),
        (
            {"demand.p_customer_order": 0.9, "simulation.pressure_level": "high"},
            "demand.p_customer_order",
        ),
        ({"simulation.initial_storage_per_sku": 51}, "initial_storage_per_sku"),
        ({"measurement.pe_windows": ()}, "pe_windows"),
        ({"measurement.pe_windows": (10, 10)}, "pe_windows"),
        ({"measurement.pe_windows": (0, 10)}, "pe_windows"),
        (
            {"agent.kind": "llm", "agent.model.context_length": 3999},
            "`agent.model.max_tokens_per_call` `2000`",
        ),
        ({"measurement.pe_windows": (10, 10**30)}, "pe_windows"),
    ],
)
def test_values_that_are_impossible_together_are_refused(keys: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as refused:
        WAREHOUSE.check(settings(keys))
    assert refused.value.hint


@pytest.mark.parametrize(
    "keys",
    [
        {"demand.orders_per_day": 10.0},
        {"simulation.initial_storage_per_sku": 50},
        {"measurement.pe_windows": (1,)},
        {"measurement.pe_windows": (1, 2, 10**6)},
        {"agent.kind": "llm", "agent.model.context_length": 4000},
        {"agent.kind": "probe", "agent.model.context_length": 3999},
    ],
)
def test_values_at_their_common_bound_are_taken(keys: dict[str, Any]) -> None:
    WAREHOUSE.check(settings(keys))


def test_every_axis_of_phase_1_acts_on_the_heuristic_or_is_reported() -> None:
    inert = WAREHOUSE.inert(settings(), PHASE1)
    assert set(inert) == {"agent.model.name", "agent.interface.prediction_mode"}
    assert all("never asks" in reason for reason in inert.values())
    for key, values in (("p_shock", (0.1, 0.2)), ("pe_mag", ("low", "high"))):
        runs = {played(settings({f"pe_induction.{key}": value})).bytes for value in values}
        assert len(runs) == 2


@pytest.mark.parametrize(
    ("kind", "keys", "inert"),
    [
        ("llm", PHASE1, set()),
        (
            "llm",
            ("agent.interface.memory_tools", "agent.interface.recovery_tools", "engine.dtype"),
            set(),
        ),
        (
            "probe",
            ("agent.interface.memory_tools", "agent.interface.recovery_tools"),
            set(),
        ),
        ("llm", ("agent.interface.beliefs_every",), set()),
        ("probe", PHASE1, {"agent.interface.prediction_mode"}),
        (
            "probe",
            ("agent.model.temperature", "agent.model.context_length"),
            {"agent.model.context_length"},
        ),
        ("random", ("measurement.pe_windows", "simulation.max_steps"), {"measurement.pe_windows"}),
        ("heuristic", ("engine.backend", "simulation.complexity_level"), {"engine.backend"}),
    ],
)
def test_inert_keys_are_told_by_kind_of_agent(
    kind: str, keys: tuple[str, ...], inert: set[str]
) -> None:
    assert set(WAREHOUSE.inert(settings({"agent.kind": kind}), keys)) == inert


def test_what_concerns_cards_is_inert_where_no_card_is_asked_for() -> None:
    no_card = settings({"agent.kind": "llm", "agent.interface.prediction_mode": "none"})
    keys = ("agent.interface.prediction_format", "measurement.pe_windows")
    told = WAREHOUSE.inert(no_card, keys)
    assert set(told) == set(keys)
    assert all("`agent.interface.prediction_mode` is `none`" in why for why in told.values())
    assert WAREHOUSE.inert(no_card, (*keys, "agent.interface.prediction_mode")) == {}
    assert WAREHOUSE.inert(settings({"agent.kind": "llm"}), keys) == {}


def test_the_shape_of_shocks_is_inert_without_shocks() -> None:
    calm = settings({"pe_induction.p_shock": 0.0})
    assert set(WAREHOUSE.inert(calm, ("pe_induction.pe_mag",))) == {"pe_induction.pe_mag"}
    assert WAREHOUSE.inert(calm, ("pe_induction.pe_mag", "pe_induction.p_shock")) == {}


def test_demand_is_told_for_agents_that_ask_and_only_for_them() -> None:
    asks = {"llm": "model", "probe": "script", "heuristic": "nobody", "random": "nobody"}
    for kind, asked in asks.items():
        chosen = settings({"agent.kind": kind})
        assert WAREHOUSE.asks(chosen) == asked
        demand = WAREHOUSE.demand(chosen)
        assert (demand is None) is (asked == "nobody")
        if demand is not None:
            assert demand.requests >= chosen.simulation.max_steps
            assert 0 < demand.output_tokens <= chosen.agent.model.max_tokens_per_call


@pytest.mark.parametrize("every", [None, 1, 7, 10, 1000])
def test_the_demand_counts_belief_questions_apart_from_the_conversation(every: int | None) -> None:
    keys = {
        "agent.kind": "llm",
        "agent.model.context_length": 32000,
        "agent.interface.beliefs_every": every,
        "simulation.max_steps": 21,
    }
    demand = WAREHOUSE.demand(settings(keys))
    assert demand is not None
    run = played(settings(keys), reply=lambda request: call("tool_check_inbox"))
    assert (demand.requests, demand.side_requests) == (len(run.requests), len(run.questions))


def test_the_probes_demand_covers_its_requests() -> None:
    chosen = settings({"agent.kind": "probe", "simulation.max_steps": 150})
    demand = WAREHOUSE.demand(chosen)
    assert demand is not None
    run = played(chosen)
    assert len(run.requests) == demand.requests


def test_a_plan_says_when_conversations_hold_only_a_few_days() -> None:
    def noted(**model: Any) -> tuple[str, ...]:
        keys = {f"agent.model.{name}": value for name, value in model.items()}
        return notes({"agent.kind": "llm", **keys})

    (note,) = noted(context_length=4096, max_tokens_per_call=2000)
    assert "about 7 days" in note
    assert "`agent.model.max_tokens_per_call` `2000`" in note
    assert "about 18 days" in noted(context_length=4096, max_tokens_per_call=512)[0]
    assert noted(context_length=8192, max_tokens_per_call=2000) == ()
    assert noted(context_length="auto") == ()
    assert notes({"agent.model.context_length": 4096}) == ()


def test_each_note_on_conversations_is_given_once_and_of_a_model_s_first_arm() -> None:
    def arm(name: str, window: int, kind: str = "llm") -> dict[str, Any]:
        model = {"agent.model.name": name, "agent.model.context_length": window}
        return {"agent.kind": kind, **model}

    assert len(notes(arm("a", 4096), arm("b", 4096))) == 1
    assert len(notes(arm("a", 4096), arm("b", 4100))) == 2
    assert notes(arm("a", 8192), arm("a", 4096)) == ()
    assert len(notes(arm("a", 8192, "heuristic"), arm("a", 4096))) == 1


def test_steps_by_level_set_those_of_the_run_s_level() -> None:
    def steps(level: int, by_level: dict[str, int] | None) -> int:
        keys = {"simulation.complexity_level": level, "max_steps_by_level": by_level}
        return WAREHOUSE.derive_settings(settings(keys)).simulation.max_steps

    assert steps(1, None) == 200
    assert steps(1, {"1": 70, "3": 90}) == 70
    assert steps(2, {"1": 70, "3": 90}) == 200
    assert steps(3, {"1": 70, "3": 90}) == 90
    chosen = settings({"max_steps_by_level": {"1": 70}})
    once = WAREHOUSE.derive_settings(chosen)
    assert WAREHOUSE.derive_settings(once) == once


def test_levels_that_have_steps_and_no_run_are_noted() -> None:
    by_level = {"max_steps_by_level": {"0": 50, "1": 70, "3": 90}}
    arms = [{"simulation.complexity_level": level, **by_level} for level in (1, 2)]
    assert notes(*arms) == ("`max_steps_by_level` names level 0, 3, which no run has",)
    assert notes(*arms, *[{"simulation.complexity_level": n, **by_level} for n in (0, 3)]) == ()


@pytest.mark.parametrize(
    ("steps", "phase", "is_short", "words"),
    [
        (5000, 1, True, "short runs (phase 1)"),
        (5000, 3, True, "short runs (phase 3)"),
        (500, 4, False, "long runs (phase 4)"),
        (500, 5, False, "long runs (phase 5)"),
        (500, None, True, "short runs (500 steps)"),
        (1000, None, True, "short runs (1000 steps)"),
        (1001, None, False, "long runs (1001 steps)"),
    ],
)
def test_the_phase_of_the_study_decides_how_long_runs_are_and_else_their_steps(
    steps: int, phase: int | None, is_short: bool, words: str
) -> None:
    length = WAREHOUSE.length(settings({"simulation.max_steps": steps}), phase=phase)
    assert (length.is_short, length.words) == (is_short, words)


def test_what_is_measured_are_columns_of_the_table() -> None:
    outcome_type: Any = WAREHOUSE.outcome_type
    outcome = outcome_columns(outcome_type)
    derived = {f"outcome.{name}" for name in WAREHOUSE.derived_columns()}
    measured = [measure.column for measure in WAREHOUSE.measures]
    assert set(measured) <= derived.union(outcome)
    assert [name for name in measured if name.startswith("pe.")] == [
        f"pe.{type}.mean" for type in ERROR_TYPES
    ]
