"""Which runs with results an edited phase takes out of the grid: `prepare/left_out.py`."""

from dataclasses import replace
from typing import Any

from vendomini.phase import Run
from vendomini.prepare.left_out import NO_SETTING, left_out


def a_run(id: str, *, replication: int = 0, **settings: Any) -> Run:
    sections: dict[str, Any] = {"game": settings, "engine": {"backend": "hf"}}
    return Run(
        id=id,
        workload="toy",
        workload_version=1,
        seed=0,
        replication=replication,
        arm={},
        settings=sections,
    )


def differences(known: list[Run], wanted: list[Run], **how: Any) -> tuple[str, ...]:
    found = left_out(known, wanted, finished={run.id for run in known}, **how)
    assert found is not None
    return found.differences


def test_nothing_leaves_that_was_not_played_left_before_or_is_wanted() -> None:
    known = [a_run("a"), a_run("b"), replace(a_run("c"), in_grid=False)]
    assert left_out(known, [a_run("a")], finished={"a", "c"}) is None
    found = left_out(known, [a_run("a")], finished={"a", "b", "c"})
    assert found is not None
    assert found.runs == 1


def test_what_differs_is_told_and_nothing_else() -> None:
    known = [a_run("a", shock=0.1, days=5), a_run("b", shock=0.2, days=5)]
    wanted = [a_run("b", shock=0.2, days=5), a_run("c", shock=0.3, days=5)]
    assert differences(known, wanted) == ("`game.shock` was `0.1`, and is `0.2`, `0.3`",)


def test_fewer_replications_are_told_and_more_are_no_difference() -> None:
    first, second = a_run("a"), a_run("b", replication=1)
    assert differences([first, second], [first]) == (
        "`experiment.replications` was `2`, and is `1`",
    )
    other = [a_run("c", shock=1), a_run("d", shock=1, replication=1)]
    assert differences([a_run("a", shock=0)], other) == ("`game.shock` was `0`, and is `1`",)


def test_another_version_of_the_workload_is_said_as_that() -> None:
    after = replace(a_run("b"), workload_version=2)
    assert differences([a_run("a")], [after]) == (
        "the workload was `toy` version 1, and is `toy` version 2",
    )


def test_what_is_no_part_of_an_id_is_no_difference() -> None:
    before, after = a_run("a", limit=1), a_run("b", limit=2)
    after = replace(after, settings={**after.settings, "engine": {"backend": "vllm"}})
    assert differences([before], [after], out_of_id=["game.limit"]) == (NO_SETTING,)


def test_a_setting_that_is_gone_or_has_many_values_is_told_in_short() -> None:
    known = [a_run(f"a{n}", shock=n) for n in range(6)]
    assert differences(known, [a_run("b")]) == (
        "`game.shock` was `0`, `1`, `2`, 3 more, and is not there",
    )
    many = [a_run("a", **{f"x{n}": 1 for n in range(5)})]
    found = left_out(many, [a_run("b")], finished={"a"})
    assert found is not None
    assert found.words.endswith("; and 2 settings more")
