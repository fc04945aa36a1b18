"""The short trial of a run: every setting of the warehouse shows in it, where it must."""

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.warehouse.playing import settings
from vendomini.schema import setting_keys, settings_out_of_id
from vendomini.workloads.warehouse.llm import MOST_RE_ASKS
from vendomini.workloads.warehouse.reading import ReadCall, Reader
from vendomini.workloads.warehouse.recorded import CALLS, CONVERSATION_STEPS, said
from vendomini.workloads.warehouse.settings import (
    InterfaceSettings,
    Magnitude,
    Observability,
    PredictionFormat,
    PredictionMode,
    Threshold,
    TypeMix,
    WarehouseSettings,
)
from vendomini.workloads.warehouse.workload import WAREHOUSE
from vendomini.workloads.workload import Trial

MODE, FORMAT = "agent.interface.prediction_mode", "agent.interface.prediction_format"
LLM = {"agent.kind": "llm", "simulation.max_steps": 500}

ACTS: dict[str, tuple[Any, Any, str]] = {
    "simulation.max_steps": (500, 1000, "prompt"),
    "simulation.complexity_level": (1, 2, "world prompt checks"),
    "simulation.initial_budget": (10000.0, 9000.0, "world prompt checks"),
    "simulation.pressure_level": ("medium", "high", "world prompt checks"),
    "simulation.initial_storage_per_sku": (0, 5, "world prompt checks"),
    "simulation.storage_capacity": (500, 400, "world prompt"),
    "simulation.storage_fee": (0.1, 0.2, "world prompt checks"),
    "demand.orders_per_day": (0.6, 0.7, "world prompt checks"),
    "demand.p_customer_order": (None, 0.1, "world prompt checks"),
    "demand.due_days": (3, 4, "world prompt"),
    "demand.sale_markup": (1.6, 1.7, "world prompt checks"),
    "demand.late_penalty": (0.0, 0.1, "world prompt checks"),
    "demand.expire_after_days": (10, 12, "world prompt checks"),
    "demand.max_failures": (None, 25, "world prompt checks"),
    "agent.interface.prediction_mode": ("required", "optional", "prompt checks"),
    "agent.interface.prediction_format": ("minimal", "structured", "prompt checks"),
    "agent.interface.memory_tools": ("none", "full", "prompt checks"),
    "agent.interface.recovery_tools": ("none", "all", "prompt checks"),
    "agent.interface.reply_format": ("schema", "text", "prompt"),
    "agent.interface.beliefs_every": (None, 10, "prompt checks"),
    "pe_induction.p_shock": (0.1, 0.2, "world checks"),
    "pe_induction.pe_mag": ("low", "high", "world prompt checks"),
    "pe_induction.pe_type_mix": ("realistic", "uniform", "world prompt checks"),
    "pe_induction.observability": ("full", "partial", "world prompt"),
    "crash_detector.window_size": (20, 25, "checks"),
    "crash_detector.continue_after_crash": (50, 60, "checks"),
    "measurement.pe_windows": ((10, 100, 500), (10, 50), "checks"),
}
"""Each setting that is tried, two values of it, and the parts in which these must differ."""

SILENT = {"agent.interface.", "crash_detector.", "measurement."}
"""Sections that no world knows."""


def changed(keys: Mapping[str, Any]) -> WarehouseSettings:
    return settings({**LLM, **keys})


@cache
def tried(items: tuple[tuple[str, Any], ...]) -> Trial:
    return WAREHOUSE.trial(changed(dict(items)), seed=0)


def trial(keys: Mapping[str, Any]) -> Trial:
    return tried(tuple(sorted(keys.items())))


def test_the_table_names_every_setting_but_those_of_the_model_and_those_that_define_no_run() -> (
    None
):
    keys = {key for key in setting_keys(WarehouseSettings) if not key.startswith("agent.model.")}
    assert set(ACTS) == keys - {"agent.kind", *settings_out_of_id(WarehouseSettings)}


@pytest.mark.parametrize("key", sorted(ACTS))
def test_a_setting_shows_in_the_parts_it_acts_on(key: str) -> None:
    one, other, parts = ACTS[key]
    before, after = trial({key: one}), trial({key: other})
    for part in parts.split():
        assert getattr(before, part) != getattr(after, part), part
    if key.startswith(tuple(SILENT)):
        assert before.world == after.world
    if key.startswith(("crash_detector.", "measurement.")):
        assert before.prompt == after.prompt


@pytest.mark.parametrize("dose", [0.001, 0.1, 1.0])
@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("pe_induction.pe_mag", get_args(Magnitude)),
        ("pe_induction.pe_type_mix", get_args(TypeMix)),
        ("pe_induction.observability", get_args(Observability)),
    ],
)
def test_every_kind_of_shock_shows_however_rare_and_short_the_run(
    key: str, values: tuple[str, ...], dose: float
) -> None:
    keys = {"pe_induction.p_shock": dose, "simulation.max_steps": 5}
    assert len({trial({**keys, key: value}).world for value in values}) == len(values)


@pytest.mark.parametrize("mix", get_args(TypeMix))
@pytest.mark.parametrize("observability", ["full", "hidden"])
def test_magnitudes_show_where_there_is_hardly_money_or_room(mix: str, observability: str) -> None:
    keys = {
        "pe_induction.p_shock": 0.01,
        "pe_induction.pe_type_mix": mix,
        "pe_induction.observability": observability,
        "simulation.initial_budget": 0.0,
        "simulation.storage_capacity": 1,
    }
    values = get_args(Magnitude)
    shown = {trial({**keys, "pe_induction.pe_mag": value}).world for value in values}
    assert len(shown) == len(values)


@pytest.mark.parametrize(
    "rare", [{"demand.orders_per_day": 0.001}, {"demand.p_customer_order": 0.0001}]
)
@pytest.mark.parametrize("key", ["demand.sale_markup", "demand.due_days"])
def test_what_customers_offer_shows_however_rarely_one_comes(
    key: str, rare: dict[str, float]
) -> None:
    one, other, _ = ACTS[key]
    assert trial({**rare, key: one}).world != trial({**rare, key: other}).world
    never = dict.fromkeys(rare, 0.0)
    assert trial({**never, key: one}).world == trial({**never, key: other}).world


@pytest.mark.parametrize("key", ["pe_mag", "pe_type_mix", "observability"])
def test_no_kind_of_shock_shows_where_none_is_drawn(key: str) -> None:
    one, other, _ = ACTS[f"pe_induction.{key}"]
    calm = {"pe_induction.p_shock": 0.0}
    key = f"pe_induction.{key}"
    assert trial({**calm, key: one}) == trial({**calm, key: other})


def test_doses_differ_in_the_world() -> None:
    doses = [twentieths / 20 for twentieths in range(21)]
    assert len({trial({"pe_induction.p_shock": dose}).world for dose in doses}) == len(doses)


def test_window_sizes_differ_in_the_checks() -> None:
    sizes = range(10, 101, 10)
    shown = {trial({"crash_detector.window_size": size}).checks for size in sizes}
    assert len(shown) == len(sizes)


@pytest.mark.parametrize("threshold", get_args(Threshold))
def test_the_threshold_of_older_files_shows_in_nothing(threshold: str) -> None:
    assert trial({"crash_detector.threshold": threshold}) == trial({})


def test_every_length_after_a_crash_differs_that_ends_within_the_trial() -> None:
    lengths = [0, 1, 10, 20, 50, 100, 200]
    key = "crash_detector.continue_after_crash"
    assert len({trial({key: length}).checks for length in lengths}) == len(lengths)


def test_prediction_modes_and_formats_differ_in_prompt_and_checks() -> None:
    """But where no card is asked for, and where all that a rich card may say is demanded."""
    asked = {
        (mode, format): trial({MODE: mode, FORMAT: format})
        for mode in get_args(PredictionMode)
        for format in get_args(PredictionFormat)
    }
    nothing = {asked["none", format] for format in get_args(PredictionFormat)}
    assert len(nothing) == 1
    assert asked["required+full", "structured"] == asked["required+full", "rich"]
    assert len(set(asked.values())) == len(asked) - 3
    for (one, first), (other, second) in itertools.combinations(asked.items(), 2):
        if first != second:
            assert first.prompt != second.prompt, (one, other)
            assert first.checks != second.checks, (one, other)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("agent.interface.memory_tools", ("none", "basic", "full")),
        ("agent.interface.recovery_tools", ("none", "reset", "audit", "help", "all")),
        ("agent.interface.beliefs_every", (None, 1, 2, 5, 10, 20, 50)),
    ],
)
def test_tools_and_questions_differ_in_prompt_and_checks(key: str, values: tuple[Any, ...]) -> None:
    shown = [trial({key: value}) for value in values]
    assert len({one.prompt for one in shown}) == len(values)
    assert len({one.checks for one in shown}) == len(values)


@pytest.mark.parametrize("kind", ["heuristic", "random", "probe"])
def test_agents_that_are_not_asked_by_the_interface_show_nothing_of_it(kind: str) -> None:
    keys = {"agent.kind": kind}
    plain = trial(keys)
    for key, (one, other, _) in ACTS.items():
        if key.startswith("agent.interface."):
            assert trial({**keys, key: one}) == trial({**keys, key: other}) == plain
    assert plain.world != trial({**keys, "pe_induction.p_shock": 0.5}).world


def test_the_model_is_left_out_of_a_trial() -> None:
    plain = trial({})
    for key, value in {
        "agent.model.name": "org/another",
        "agent.model.context_length": 4096,
        "agent.model.temperature": 1.0,
        "agent.model.max_tokens_per_call": 99,
        "agent.model.thinking": "on",
    }.items():
        assert trial({key: value}) == plain


def test_each_agent_that_asks_no_model_is_tried_as_itself() -> None:
    worlds = {kind: trial({"agent.kind": kind}).world for kind in ("heuristic", "random", "probe")}
    assert worlds["random"] != worlds["heuristic"] == worlds["probe"]


def test_replications_and_seeds_are_other_worlds() -> None:
    one = WAREHOUSE.trial(changed({}), seed=0)
    assert WAREHOUSE.trial(changed({}), seed=1).world != one.world
    assert WAREHOUSE.trial(changed({}), seed=0, replication=1).world != one.world


@pytest.mark.parametrize("mode", get_args(PredictionMode))
@pytest.mark.parametrize("format", get_args(PredictionFormat))
def test_in_every_mode_and_format_every_call_of_the_recorded_conversation_is_read(
    mode: PredictionMode, format: PredictionFormat
) -> None:
    reader = Reader(InterfaceSettings(prediction_mode=mode, prediction_format=format))
    read, unread = set(), 0
    for step in range(CONVERSATION_STEPS):
        for attempt in range(1 + MOST_RE_ASKS):
            reply = reader.read(said(step, attempt))
            if isinstance(reply, ReadCall):
                read.add(reply.tool)
                break
            unread += 1
    assert read == {tool for tool, _ in CALLS}
    assert unread > CONVERSATION_STEPS / 4


@st.composite
def any_settings(draw: st.DrawFn) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(sorted(ACTS)), unique=True, max_size=6))
    return {key: draw(st.sampled_from(ACTS[key][:2])) for key in keys}


@given(keys=any_settings(), kind=st.sampled_from(["llm", "heuristic", "random", "probe"]))
@examples(max_examples=15, deadline=None)
def test_equal_settings_give_equal_digests(keys: dict[str, Any], kind: str) -> None:
    chosen = changed({**keys, "agent.kind": kind})
    assert WAREHOUSE.trial(chosen, seed=3) == WAREHOUSE.trial(chosen, seed=3)


@given(keys=any_settings(), seed=st.integers(0, 1000))
@examples(max_examples=15, deadline=None)
def test_a_trial_comes_to_its_end_whatever_the_settings(keys: dict[str, Any], seed: int) -> None:
    small = {"simulation.initial_budget": 0.0, "demand.max_failures": 1, "simulation.max_steps": 1}
    shown = WAREHOUSE.trial(changed({**small, **keys}), seed=seed)
    assert len({len(part) for part in (shown.world, shown.prompt, shown.checks)}) == 1
