"""docs/simulation.md is true: its tables are the program's numbers, and its formulas draw the
same world in a second implementation."""

import hashlib
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.warehouse.playing import played, settings
from vendomini.workloads.warehouse.cards import ERROR_TYPES
from vendomini.workloads.warehouse.crash import PRIMARY, THRESHOLDS
from vendomini.workloads.warehouse.derived import COLUMNS, COMPETING
from vendomini.workloads.warehouse.goods import Catalogue
from vendomini.workloads.warehouse.records import Outcome, Step
from vendomini.workloads.warehouse.secondary import SECONDARY, SECONDARY_THRESHOLDS
from vendomini.workloads.warehouse.settings import SKUS, SUPPLIERS, PredictionMode
from vendomini.workloads.warehouse.shocks import MIXES, STRENGTHS, TYPES
from vendomini.workloads.warehouse.stop import (
    RULES,
    STARTED_BY_DAY,
    STARTED_BY_PAIRS,
    UNREADABLE_STEPS,
    End,
)
from vendomini.workloads.warehouse.tools import TOOLS
from vendomini.workloads.warehouse.world import World

TEXT = (Path(__file__).parent.parent.parent / "docs" / "simulation.md").read_text("utf-8")
LEVELS: tuple[Any, ...] = ("strict", "moderate", "lenient")
MAGNITUDES: tuple[Any, ...] = ("low", "medium", "high")


def row(first: str) -> list[str]:
    """The cells behind the first one of the only table row that begins with `first`."""
    found = [line for line in TEXT.splitlines() if line.startswith(f"| {first}")]
    assert len(found) == 1, first
    return [cell.strip() for cell in found[0].strip("|").split("|")][1:]


def section(title: str) -> str:
    """The text under a heading, up to the next."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def numbers(cells: list[str]) -> list[float]:
    return [float(number) for cell in cells for number in re.findall(r"\d*\.?\d+", cell)]


def test_the_levels_are_those_of_the_program() -> None:
    assert tuple(numbers(row("SKUs"))) == SKUS
    assert tuple(numbers(row("suppliers"))) == SUPPLIERS
    assert numbers(row("lead days")) == [5 + level for level in range(5)]
    for level, cell in enumerate(row("`tool_expedite` |")):
        world = World(settings({"simulation.complexity_level": level}), seed=0, replication=0)
        assert (cell == "yes") is world.expedites
    for level, cell in enumerate(row("prices drift")):
        catalogue = Catalogue(
            settings({"simulation.complexity_level": level}), seed=0, replication=0
        )
        assert (cell == "yes") is catalogue.drifts


def test_the_thresholds_of_the_signs_are_those_of_the_program() -> None:
    for sign, name in zip(
        PRIMARY, ("repeats", "failed_share", "denials", "entropy_share"), strict=True
    ):
        assert numbers(row(sign)[1:]) == [getattr(THRESHOLDS[level], name) for level in LEVELS]
    for secondary, name in zip(SECONDARY, ("decoupled_share", "divergence"), strict=True):
        assert numbers(row(secondary)[1:]) == [
            getattr(SECONDARY_THRESHOLDS[level], name) for level in LEVELS
        ]


def test_what_ends_a_run_is_what_the_program_looks_for() -> None:
    ends = re.findall(r"^\| (\w+) \| .* \| (yes|no) \|$", section("What ends a run"), re.MULTILINE)
    assert {name for name, _ in ends} == set(get_args(End))
    assert {name for name, competes in ends if competes == "yes"} == COMPETING
    assert numbers(row("never_started")) == [STARTED_BY_DAY]
    assert "twice" in row("never_started")[0]
    assert "twenty" in row("unusable")[0]
    assert (STARTED_BY_PAIRS, UNREADABLE_STEPS) == (2, 20)
    for sign, name in zip(
        PRIMARY, ("repeats", "failed_share", "denials", "entropy_share"), strict=True
    ):
        assert numbers(row(sign)[1:]) == [getattr(RULES[level], name) for level in LEVELS]


def test_the_derived_columns_are_those_of_the_program() -> None:
    told = section("What a run leaves")
    named = re.findall(r"`((?:crash|competing|censored)\w*(?:\.[\w*]+)?)`", told)
    columns = [name for name in COLUMNS if not name.startswith("signs.")]
    assert [name for name in columns if not any(fnmatch(name, each) for each in named)] == []
    assert [each for each in named if not any(fnmatch(name, each) for name in columns)] == []
    assert "`signs.<sign>`" in told


def test_the_shocks_are_those_of_the_program() -> None:
    strengths = [STRENGTHS[magnitude] for magnitude in MAGNITUDES]
    delays = [day for s in strengths for day in dict.fromkeys(s.delay)]
    assert numbers(row("temporal:")[:3]) == delays
    assert numbers(row("quantity:")[:3]) == [bound for s in strengths for bound in s.factor]
    causal = [[s.payment_lag, 100 * s.raise_by, s.raise_days] for s in strengths]
    assert numbers(row("causal:")[:3]) == [number for part in causal for number in part if number]
    rule = [[s.lead_extra, s.lead_days] for s in strengths]
    assert numbers(row("rule:")[:3]) == [n for part in rule for n in part if n is not None]
    assert tuple(numbers(row("`realistic`"))) == MIXES["realistic"]
    assert tuple(numbers(row("`uniform`"))) == MIXES["uniform"]
    for type in TYPES:
        assert f"`{type}_only`" in TEXT


@pytest.mark.parametrize(
    "names",
    [
        list(TOOLS),
        list(Step.__struct_fields__),
        list(Outcome.__dataclass_fields__),
        list(ERROR_TYPES),
        list(get_args(PredictionMode)),
    ],
    ids=["tools", "step", "outcome", "errors", "modes"],
)
def test_nothing_is_left_out(names: list[str]) -> None:
    missing = [name for name in names if not re.search(rf"\b{re.escape(name)}\b", TEXT)]
    assert missing == []


# -- a second implementation ---------------------------------------------------------------


def u(stream: str, day: int, entity: int, *, seed: int, replication: int) -> float:
    place = f"vendomini/warehouse/1/{seed}/{replication}/{stream}"
    key = int.from_bytes(hashlib.sha256(place.encode()).digest()[:8], "big")
    z = (key + (65536 * day + entity + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    z = z ^ z >> 31
    return z // 2**11 / 2**53


def binomial_at(trials: int, chance: float, at: float) -> int:
    """The inverse of the binomial distribution."""
    cumulative, count, weight = 0.0, 0, (1 - chance) ** trials
    while True:
        cumulative += weight
        if at < cumulative or count == trials:
            return count
        weight *= (trials - count) / (count + 1) * chance / (1 - chance)
        count += 1


@pytest.mark.parametrize(("seed", "replication", "level"), [(0, 0, 1), (7, 3, 4), (12345, 1, 0)])
def test_the_formulas_draw_the_same_world(seed: int, replication: int, level: int) -> None:
    chosen = settings({"simulation.complexity_level": level, "demand.orders_per_day": 1.5})
    catalogue = Catalogue(chosen, seed=seed, replication=replication)

    def draw(stream: str, day: int, entity: int) -> float:
        return u(stream, day, entity, seed=seed, replication=replication)

    skus, suppliers = SKUS[level], SUPPLIERS[level]
    reliability = [0.85 + 0.14 * draw("catalogue", 0, 256 * i + 255) for i in range(suppliers)]
    price = [
        [5 + 45 * draw("catalogue", 0, 256 * i + 3 * j) for j in range(skus)]
        for i in range(suppliers)
    ]
    cents = [[int(100 * amount + 0.5) for amount in amounts] for amounts in price]
    g = [1.0] * suppliers
    for day in range(60):
        if level >= 3 and day:
            steps = [0.02 * (2 * draw("drift", day, i) - 1) for i in range(suppliers)]
            g = [min(2.0, max(0.5, g[i] * (1 + steps[i]))) for i in range(suppliers)]
        today = [[int(cents[i][j] * g[i] + 0.5) for j in range(skus)] for i in range(suppliers)]
        for i in range(suppliers):
            for j in range(skus):
                name = f"S{i + 1}", f"sku_{j}"
                assert catalogue.price(*name, day) == today[i][j]
                lead = 1 + int((5 + level) * draw("catalogue", 0, 256 * i + 3 * j + 1))
                assert catalogue.lead_days(*name) == lead
                late = 0
                if draw("reliability", day, 512 * i + 2 * j) >= reliability[i]:
                    late = 1 + int(3 * draw("reliability", day, 512 * i + 2 * j + 1))
                assert catalogue.days_late(*name, day) == late
        left = list(range(skus))
        expected = []
        for m in range(binomial_at(skus, 1.5 / skus, draw("demand", day, 0))):
            j = left.pop(int((skus - m) * draw("demand", day, 1 + 2 * m)))
            units = 1 + int(20 * draw("demand", day, 2 + 2 * m))
            sale = int(1.6 * min(prices[j] for prices in today) + 0.5)
            expected.append((f"sku_{j}", units, sale, day + 3))
        heard = catalogue.customer_orders(day, 0)
        assert [(o.sku, o.quantity, o.price, o.due) for o in heard] == expected


def test_a_step_s_shock_is_the_one_that_the_formulas_draw() -> None:
    shaken = played(settings({"pe_induction.p_shock": 0.4}), seed=5, replication=2)
    up_to = [0.4, 0.7, 0.9, 1.0]
    for step in shaken.steps:
        drawn = None
        if u("shock when", step.day, 0, seed=5, replication=2) < 0.4:
            kind = u("shock what", step.day, 0, seed=5, replication=2)
            drawn = next(type for type, most in zip(TYPES, up_to, strict=True) if kind < most)
        assert step.shock_drawn == drawn
