"""Which axes do nothing: decided from trials, here of toys."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.toy import Toy, ToySettings, toy_runs
from vendomini.errors import ConfigError
from vendomini.phase import Run, Scalar
from vendomini.prepare.selftest import (
    MOST_CONTEXTS,
    Arm,
    TriedAxis,
    idle_notes,
    judge,
    refuse_idle,
    self_test,
    tried_axes,
    what_is_tried,
)
from vendomini.workloads.workload import Trial

Key = tuple[tuple[str, Scalar], ...]


def key_of(arm: Arm) -> Key:
    return tuple(sorted(arm.items()))


def grid(**axes: Sequence[Scalar]) -> list[Arm]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def shows(world: object = "", prompt: object = "", checks: object = "") -> Trial:
    return Trial(world=str(world), prompt=str(prompt), checks=str(checks))


@dataclass(slots=True)
class Table:
    """Trials by arm, and which of them were asked for."""

    trials: Mapping[Key, Trial | None]

    def __call__(self, arm: Arm) -> Trial | None:
        return self.trials[key_of(arm)]


# -- one axis ---------------------------------------------------------------------------------


def test_an_axis_that_acts_in_one_context_alone_acts() -> None:
    arms = grid(size=["low", "high"], dose=[0.0, 0.5, 1.0])

    def tried(arm: Arm) -> Trial:
        return shows(world=(arm["dose"], arm["size"] if arm["dose"] == 0.5 else ""))

    verdict = judge("size", arms, tried)
    assert not verdict.is_idle
    assert verdict.changes == ("world",)


def test_an_axis_that_acts_nowhere_is_idle_once_all_contexts_were_tried() -> None:
    arms = grid(size=["low", "high"], dose=[0.0, 0.5, 1.0])
    verdict = judge("size", arms, lambda arm: shows(world=arm["dose"]))
    assert verdict.is_idle
    assert verdict.alike == (("high", "low"),)
    assert (verdict.tried, verdict.left, verdict.changes) == (3, 0, ())


def test_two_values_that_are_alike_among_others_are_named() -> None:
    arms = grid(tool=["none", "help", "reset", "all"], dose=[0.0, 1.0])
    same = {"none": "none", "help": "none", "reset": "reset", "all": "all"}
    verdict = judge("tool", arms, lambda arm: shows(prompt=same[str(arm["tool"])]))
    assert verdict.is_idle
    assert verdict.alike == (("help", "none"),)
    assert verdict.changes == ("prompt",)


def test_trying_ends_as_soon_as_all_values_differ() -> None:
    arms = grid(dose=[0.0, 0.5, 1.0], size=["low", "high"], mode=["a", "b", "c"])
    asked: set[Key] = set()

    def tried(arm: Arm) -> Trial:
        asked.add(key_of(arm))
        return shows(world=key_of(arm))

    for axis in ("dose", "size", "mode"):
        assert judge(axis, arms, tried).tried == 1
    # One arm is common to the three axes' first contexts.
    assert len(asked) == 1 + 2 + 1 + 2


def test_the_first_context_has_the_largest_dose() -> None:
    arms = grid(size=["low", "high"], dose=[0.0, 0.5, 1.0])
    asked: list[Arm] = []

    def tried(arm: Arm) -> Trial:
        asked.append(arm)
        return shows(world=arm["size"])

    judge("size", arms, tried)
    assert [arm["dose"] for arm in asked] == [1.0, 1.0]


def test_runs_that_ask_a_model_are_tried_first() -> None:
    axes: dict[str, list[Scalar]] = {"agent.kind": ["heuristic", "llm", "random"], "mode": [1, 2]}
    arms = grid(**axes)
    asked: list[Arm] = []

    def tried(arm: Arm) -> Trial:
        asked.append(arm)
        return shows(prompt=arm["mode"])

    judge("mode", arms, tried, asks=lambda arm: arm["agent.kind"] == "llm")
    assert {arm["agent.kind"] for arm in asked} == {"llm"}


def test_what_cannot_be_played_counts_as_told_apart() -> None:
    arms = grid(mode=["a", "b", "c"])
    same = shows(prompt="the same")
    verdict = judge("mode", arms, lambda arm: None if arm["mode"] == "c" else same)
    assert verdict.alike == (("a", "b"),)
    assert judge("mode", arms, lambda arm: None).alike == ()


def test_numbers_too_close_for_a_trial_are_let_pass_where_an_end_of_their_range_acts() -> None:
    arms = grid(limit=[1000, 2000, 5])

    def within(limit: Scalar) -> Trial:
        return shows(world=min(int(str(limit)), 240))

    verdict = judge(
        "limit",
        arms,
        lambda arm: within(arm["limit"]),
        ends=(1,),
        probed=lambda arm, axis, value: within(value),
    )
    assert not verdict.alike
    assert verdict.later
    assert verdict.changes == ("world",)
    far = judge(
        "limit",
        grid(limit=[1000, 2000]),
        lambda arm: within(arm["limit"]),
        ends=(1,),
        probed=lambda arm, axis, value: within(value),
    )
    assert (far.alike, far.later, far.changes) == ((), True, ("world",))


def test_numbers_that_act_nowhere_in_their_range_are_idle() -> None:
    arms = grid(limit=[1000, 2000])
    nothing = shows()
    verdict = judge(
        "limit",
        arms,
        lambda arm: nothing,
        ends=(1, 10**6),
        probed=lambda arm, axis, value: nothing,
    )
    assert verdict.is_idle


def test_words_are_never_excused_by_the_ends_of_a_range() -> None:
    arms = grid(size=["low", "high"])
    verdict = judge(
        "size",
        arms,
        lambda arm: shows(),
        ends=(1,),
        probed=lambda arm, axis, value: shows(world="another"),
    )
    assert verdict.is_idle


def test_an_axis_with_too_many_contexts_is_let_pass_and_noted() -> None:
    arms = grid(size=["low", "high"], other=list(range(MOST_CONTEXTS + 1)))
    verdict = judge("size", arms, lambda arm: shows(world=arm["other"]))
    assert (verdict.alike, verdict.left) == ((("high", "low"),), 1)
    assert not verdict.is_idle


AXES: dict[str, list[Scalar]] = {"a": ["x", "y", "z"], "b": [0.0, 0.5, 1.0], "c": [None, 1]}


@st.composite
def tables(draw: st.DrawFn, *, playable: bool = True) -> dict[Key, Trial | None]:
    """Trials of a whole grid, drawn so that many of them are alike."""
    part = st.sampled_from(["", "", "", "1"])
    trial: st.SearchStrategy[Trial | None] = st.builds(shows, part, part, part)
    if not playable:
        trial = st.one_of(trial, st.none())
    return {key_of(arm): draw(trial) for arm in grid(**AXES)}


@given(trials=tables(), axis=st.sampled_from(sorted(AXES)))
@examples(max_examples=300, deadline=None)
def test_values_are_alike_exactly_if_no_context_tells_them_apart(
    trials: dict[Key, Trial | None], axis: str
) -> None:
    contexts = grid(**{name: values for name, values in AXES.items() if name != axis})

    def told_apart(one: Scalar, other: Scalar) -> bool:
        return any(
            trials[key_of({**context, axis: one})] != trials[key_of({**context, axis: other})]
            for context in contexts
        )

    verdict = judge(axis, grid(**AXES), Table(trials))
    group = {value: place for place, values in enumerate(verdict.alike) for value in values}
    for one, other in itertools.combinations(AXES[axis], 2):
        alike = one in group and group[one] == group.get(other)
        assert alike == (not told_apart(one, other))


@given(trials=tables(playable=False), axis=st.sampled_from(sorted(AXES)))
@examples(max_examples=200, deadline=None)
def test_an_axis_that_acts_in_one_context_is_never_refused_as_a_whole(
    trials: dict[Key, Trial | None], axis: str
) -> None:
    verdict = judge(axis, grid(**AXES), Table(trials))
    for values in verdict.alike:
        for one, other in itertools.combinations(values, 2):
            for context in grid(**{name: v for name, v in AXES.items() if name != axis}):
                first = trials[key_of({**context, axis: one})]
                assert first is not None
                assert first == trials[key_of({**context, axis: other})]


@given(
    trials=tables(playable=False),
    axis=st.sampled_from(sorted(AXES)),
    order=st.permutations(sorted(AXES)),
    shuffle=st.randoms(use_true_random=False),
)
@examples(max_examples=200, deadline=None)
def test_the_order_of_axes_and_values_decides_nothing(
    trials: dict[Key, Trial | None], axis: str, order: list[str], shuffle: Any
) -> None:
    def shuffled(values: list[Scalar]) -> list[Scalar]:
        copy = list(values)
        shuffle.shuffle(copy)
        return copy

    other = grid(**{name: shuffled(AXES[name]) for name in order})
    assert judge(axis, other, Table(trials)) == judge(axis, grid(**AXES), Table(trials))


# -- the runs of a phase ----------------------------------------------------------------------


def runs_of(kind: str = "llm", **axes: Sequence[Scalar]) -> list[Run]:
    """Toy runs, two of each arm; an axis names a setting of the game, or of the model."""
    base = toy_runs(1, steps=5, breaks=False, needs_engine=True)[0]
    runs = []
    for number, chosen in enumerate(grid(**axes)):
        model = {"name": chosen.get("model", "toy/model"), "revision": None}
        game = {**base.settings["game"], **{k: v for k, v in chosen.items() if k != "model"}}
        settings = {**base.settings, "game": game, "agent": {"kind": kind, "model": model}}
        arm = {
            "agent.model.name" if name == "model" else f"game.{name}": value
            for name, value in chosen.items()
        }
        runs += [
            replace(base, id=f"{number}-{replication}", arm=arm, settings=settings)
            for replication in range(2)
        ]
    return runs


class CountedToy(Toy):
    def __init__(self) -> None:
        self.trials = 0

    def trial(self, settings: ToySettings, *, seed: int, replication: int = 0) -> Trial:
        self.trials += 1
        return Toy.trial(self, settings, seed=seed, replication=replication)


def verdicts(runs: Sequence[Run]) -> dict[str, TriedAxis]:
    return {axis.axis: axis for axis in self_test(runs, Toy()).axes}


def test_models_engines_and_axes_of_one_value_are_not_tried() -> None:
    runs = runs_of(model=["a", "b"], steps=[1, 2], breaks=[False])
    assert tried_axes(runs, Toy()) == ("game.steps",)
    assert set(verdicts(runs)) == {"game.steps"}


def test_a_trial_is_made_once_for_all_models_and_replications() -> None:
    toy = CountedToy()
    runs = runs_of(model=["a", "b", "c"], steps=[1, 2, 3], breaks=[False, True])
    assert self_test(runs, toy).trials == toy.trials == 1 + 2 + 1


def test_a_result_is_kept_for_all_that_decides_it_and_nothing_else() -> None:
    runs = runs_of(steps=[1, 2], breaks=[False, True])

    def name(runs: list[Run]) -> str:
        return what_is_tried(runs, Toy())

    assert name(runs[::2]) == name(runs) == name(runs[::-1])
    assert name(runs_of(steps=[1, 2], breaks=[False, True], model=["a", "b"])) == name(runs)
    others = [
        runs[:-2],
        runs_of(steps=[1, 3], breaks=[False, True]),
        runs_of("random", steps=[1, 2], breaks=[False, True]),
        [replace(run, seed=run.seed + 1) for run in runs],
        runs + runs_of("random", steps=[1, 2], breaks=[False, True]),
    ]
    names = [name(runs), *map(name, others)]
    assert len(set(names)) == len(names)


def test_one_run_that_asks_a_model_makes_an_idle_axis_an_error() -> None:
    axes: dict[str, list[Scalar]] = {"steps": [1, 2], "needs_engine": [False, True]}
    mixed = runs_of("heuristic", **axes) + runs_of("llm", **axes)
    test = self_test(mixed, Toy())
    assert idle_notes(test) == ()
    with pytest.raises(ConfigError, match=r"game\.needs_engine"):
        refuse_idle(test)


def test_each_axis_says_what_it_changes() -> None:
    found = verdicts(runs_of(steps=[1, 2], breaks=[False, True]))
    assert found["game.steps"].changes == ("world",)
    assert found["game.breaks"].changes == ("checks",)


def test_an_idle_axis_is_refused_by_name_with_its_values() -> None:
    test = self_test(runs_of(steps=[1, 2], needs_engine=[False, True]), Toy())
    with pytest.raises(ConfigError) as refused:
        refuse_idle(test)
    assert str(refused.value).startswith("axis `game.needs_engine` does nothing: `false`, `true`")
    assert "game.steps" not in str(refused.value)
    assert refused.value.hint == "remove the axis"


def test_all_idle_axes_are_named_at_once() -> None:
    test = self_test(runs_of(needs_engine=[False, True], kindless=[1, 2]), _Loose())
    with pytest.raises(ConfigError, match=r"game\.kindless.*game\.needs_engine"):
        refuse_idle(test)


class _Loose(Toy):
    """A toy that takes a setting nobody reads."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Game:
        steps: int = 5
        breaks: bool = False
        needs_engine: bool = True
        kindless: int = 1

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Settings:
        game: "_Loose.Game"

    settings_type = Settings  # type: ignore[assignment]


@pytest.mark.parametrize("kind", ["heuristic", "random", "probe"])
def test_for_agents_that_ask_no_model_it_is_a_remark(kind: str) -> None:
    test = self_test(runs_of(kind, steps=[1, 2], needs_engine=[False, True]), Toy())
    refuse_idle(test)
    (note,) = idle_notes(test)
    assert note.startswith("axis `game.needs_engine` does nothing")


def test_a_phase_whose_axes_all_act_is_not_remarked_upon() -> None:
    test = self_test(runs_of(steps=[1, 2], breaks=[False, True]), Toy())
    refuse_idle(test)
    assert idle_notes(test) == ()


def test_values_that_are_alike_are_refused_beside_others_that_are_not() -> None:
    runs = runs_of(steps=[1, 2, 3])
    with pytest.raises(
        ConfigError, match=r"values of axis `game\.steps` are the same arm: `3`, `2`"
    ):
        refuse_idle(self_test(runs, _Pairs()))


class _Pairs(Toy):
    def trial(self, settings: ToySettings, *, seed: int, replication: int = 0) -> Trial:
        return shows(world=min(settings.game.steps, 2))


def test_what_cannot_be_played_is_not_tried_and_not_refused() -> None:
    runs = runs_of(needs_engine=[False, True])
    test = self_test(runs, _Unplayable())
    refuse_idle(test)
    assert [(axis.changes, axis.alike) for axis in test.axes] == [((), ())]


class _Unplayable(Toy):
    def check(self, settings: ToySettings) -> None:
        raise ConfigError("not yet")

    def trial(self, settings: ToySettings, *, seed: int, replication: int = 0) -> Trial:
        raise AssertionError("it cannot be played")
