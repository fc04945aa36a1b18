"""Dose laws of the heuristic agent: what a shock moves, how far, and what it leaves alone.

Means are over the resolved errors of a few replications, the same for every arm that is
compared: worlds, demand and the shock uniform are shared, so little is left to chance.
"""

import math
from functools import cache
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from tests.warehouse.playing import Played, played, settings
from vendomini.workloads.warehouse.cards import ERROR_TYPES, ErrorSummary, Track
from vendomini.workloads.warehouse.shocks import TYPES

LEVELS = (0, 2, 4)  # level 1 is in test_shocks.py
STEPS, REPLICATIONS = 400, 5
MAGNITUDES = ("low", "medium", "high")
OBSERVABILITIES = ("full", "delayed", "partial", "hidden")
MOVES = [
    ("temporal_only", "temporal"),
    ("quantity_only", "quantity"),
    ("quantity_only", "cost"),
    ("causal_only", "budget"),
    ("causal_only", "causal"),
    ("causal_only", "cost"),
    ("rule_only", "temporal"),
]


def arm(level: int, dose: float, mix: str, magnitude: str, observability: str) -> dict[str, Any]:
    return {
        "simulation.complexity_level": level,
        "simulation.max_steps": STEPS,
        "pe_induction.p_shock": dose,
        "pe_induction.pe_type_mix": mix,
        "pe_induction.pe_mag": magnitude,
        "pe_induction.observability": observability,
    }


@cache
def errors(
    level: int, dose: float, mix: str, magnitude: str, observability: str = "hidden"
) -> dict[str, float]:
    """Mean error by type, over all resolved errors of the replications."""
    keys = arm(level, dose, mix, magnitude, observability)
    runs = [played(settings(keys), seed=7, replication=k).outcome.pe for k in range(REPLICATIONS)]
    means = {}
    for type in ERROR_TYPES:
        resolved = sum(pe[type].resolved for pe in runs)
        total = sum(pe[type].resolved * (pe[type].mean or 0.0) for pe in runs)
        means[str(type)] = total / resolved
    return means


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("mix", "error"), MOVES)
def test_a_type_moves_its_errors_with_every_step_of_the_dose(
    mix: str, error: str, level: int
) -> None:
    # At most every order is struck once, and a raised price that lasts becomes the known one,
    # so single types level off at high doses.
    doses = (0.0, 0.05, 0.15, 0.4)
    magnitude = "high"
    if mix == "rule_only":
        # At high a change lasts until the next: a few shocks and every supplier is slow for good.
        doses, magnitude = (0.0, 0.01, 0.05, 0.3), "medium"
    means = [errors(level, dose, mix, magnitude)[error] for dose in doses]
    assert all(less < more for less, more in pairwise(means)), means


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(("mix", "error"), MOVES)
def test_a_type_moves_its_errors_with_the_magnitude(mix: str, error: str, level: int) -> None:
    means = [errors(level, 0.4, mix, magnitude)[error] for magnitude in MAGNITUDES]
    assert means[0] < means[1] < means[2], means
    calm = errors(level, 0.0, mix, "low")[error]
    if (mix, error) == ("causal_only", "cost"):
        assert means[1] > 1.2 * calm  # at low no price is raised
    else:
        assert means[0] > 1.2 * calm


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("mix", ["temporal_only", "causal_only", "rule_only"])
def test_only_quantity_shocks_change_what_arrives(mix: str, level: int) -> None:
    assert errors(level, 0.4, mix, "high")["quantity"] == 0


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("mix", ["temporal_only", "rule_only"])
def test_what_moves_time_alone_moves_no_cost(mix: str, level: int) -> None:
    assert errors(level, 0.4, mix, "high")["cost"] == 0


@pytest.mark.parametrize("level", LEVELS)
def test_a_late_delivery_moves_storage_and_budget_too(level: int) -> None:
    calm, late = (errors(level, dose, "temporal_only", "high") for dose in (0.0, 0.4))
    assert late["storage"] > calm["storage"]
    assert late["budget"] > calm["budget"]


@pytest.mark.parametrize("level", LEVELS)
def test_without_shocks_only_lateness_drift_and_what_hangs_on_them_surprise(level: int) -> None:
    calm = errors(level, 0.0, "realistic", "high")
    assert 0 < calm["temporal"] < 0.15
    assert calm["quantity"] == 0
    assert (calm["cost"] > 0) is (level >= 3)
    assert calm["cost"] < 0.1
    assert calm["causal"] < 0.05


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("mix", "error", "share"),
    [("rule_only", "temporal", 0.1), ("causal_only", "cost", 0.8), ("causal_only", "causal", 0.5)],
)
def test_a_notice_of_lead_times_prices_or_payments_lowers_the_error(
    mix: str, error: str, share: float, level: int
) -> None:
    full, hidden = (errors(level, 0.3, mix, "high", told)[error] for told in ("full", "hidden"))
    assert full < share * hidden


@pytest.mark.parametrize("level", LEVELS)
def test_a_notice_without_its_amount_helps_less_than_a_full_one_and_more_than_none(
    level: int,
) -> None:
    full, partial, hidden = (
        errors(level, 0.3, "rule_only", "high", told)["temporal"]
        for told in ("full", "partial", "hidden")
    )
    assert full < partial < hidden


@budget(max_examples=10, deadline=None)
@given(
    level=st.integers(0, 4),
    mix=st.sampled_from(["realistic", *(f"{type}_only" for type in TYPES)]),
    magnitude=st.sampled_from(MAGNITUDES),
    observability=st.sampled_from(OBSERVABILITIES),
    replication=st.integers(0, 1000),
)
def test_the_shape_of_shocks_that_are_never_drawn_changes_nothing(
    level: int, mix: str, magnitude: str, observability: str, replication: int
) -> None:
    shape = arm(level, 0.0, mix, magnitude, observability) | {"simulation.max_steps": 60}
    plain = {"simulation.complexity_level": level, "simulation.max_steps": 60}
    calm = played(settings({**plain, "pe_induction.p_shock": 0.0}), replication=replication)
    assert played(settings(shape), replication=replication).bytes == calm.bytes


@cache
def long_run(level: int, dose: float, replication: int) -> Played:
    keys = arm(level, dose, "realistic", "high", "hidden") | {"simulation.max_steps": 150}
    return played(settings(keys), replication=replication)


@budget(max_examples=40, deadline=None)
@given(
    level=st.sampled_from(LEVELS),
    dose=st.sampled_from([0.0, 0.3, 1.0]),
    replication=st.integers(0, 5),
    cut=st.integers(5, 149),
)
def test_a_run_cut_short_leaves_what_has_not_happened_unresolved_and_out_of_the_mean(
    level: int, dose: float, replication: int, cut: int
) -> None:
    whole = long_run(level, dose, replication)
    keys = arm(level, dose, "realistic", "high", "hidden") | {"simulation.max_steps": cut}
    run = played(settings(keys), replication=replication)
    # The agent does not see max_steps: a shorter run is the beginning of a longer one.
    assert msgspec.json.encode(run.steps) == msgspec.json.encode(whole.steps[:cut])
    last = run.steps[-1].truth
    pe = run.outcome.pe
    for type in ("temporal", "quantity"):
        assert pe[type].unresolved == last.pending
    assert (pe["cost"].unresolved > last.pending) is (last.owed > 0)
    for type in ERROR_TYPES:
        assert_over_resolved(
            pe[type], [e.error for s in run.steps for e in s.resolved if e.type == type]
        )


def assert_over_resolved(summary: ErrorSummary, logged: list[float]) -> None:
    """Assert that a summary counts and averages what was logged, and only that."""
    assert summary.resolved == len(logged)
    assert summary.predicted >= summary.resolved
    if logged:
        assert summary.mean == pytest.approx(sum(logged) / len(logged), abs=2e-6)
        assert summary.max == pytest.approx(max(logged), abs=2e-6)
    else:
        assert (summary.mean, summary.sd, summary.max, summary.ewma_fast) == (None,) * 4


@given(
    logged=st.lists(st.floats(0, 1e12), max_size=40),
    windows=st.sets(st.integers(1, 15), min_size=1, max_size=3),
)
def test_windows_are_over_the_last_resolved_errors_however_many_there_were(
    logged: list[float], windows: set[int]
) -> None:
    sizes = tuple(sorted(windows))
    track = Track(sizes[-1])
    for error in logged:
        track.predicted += 1
        track.add(error)
    for window in track.summary(sizes).windows:
        last = logged[-window.size :]
        if last:
            assert window.mean == round(math.fsum(last) / len(last), 6)
            assert window.max == round(max(last), 6)
        else:
            assert (window.mean, window.sd, window.max) == (None, None, None)
