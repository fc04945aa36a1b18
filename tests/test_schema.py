"""Checking plain data against dataclasses: every slip is named with its place and its remedy."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vendomini.errors import ConfigError
from vendomini.schema import (
    Place,
    check_value,
    complete,
    conform,
    defaults,
    find_setting,
    nearest,
    setting_keys,
)
from vendomini.yamlfile import parse_yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    name: str
    memory_gib: float = field(default=80.0, metadata={"gt": 0})
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    name: str = "org/model"
    window: int | str = field(default="auto", metadata={"ge": 1, "choices": ("auto",)})
    thinking: Literal["default", "off", "on"] = "default"
    temperature: float = field(default=0.3, metadata={"ge": 0, "le": 2})
    tokens: int = field(default=2000, metadata={"ge": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    kind: Literal["llm", "rule"] = "llm"
    model: Model = field(default_factory=lambda: Model(tokens=99))


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    agent: Agent = field(default_factory=Agent)
    p_shock: float = field(default=0.1, metadata={"ge": 0, "le": 1})
    steps: int | None = field(default=None, metadata={"gt": 0, "lt": 100})
    note: str | None = None
    flag: bool = False
    windows: tuple[int, ...] = field(default=(10, 100), metadata={"ge": 1})
    pair: tuple[int, int] = (1, 2)
    gpus: tuple[Gpu, ...] = ()
    by_name: dict[str, Gpu] = field(default_factory=dict)
    spare: Gpu | None = None


def load(text: str) -> File:
    document = parse_yaml(text, Path("x.yaml"))
    return conform(document.data, File, source=document)


def refusal_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text)
    return f"{caught.value} | {caught.value.hint}"


def test_what_is_not_written_has_its_default() -> None:
    assert load("flag: true") == File(flag=True)
    assert load("agent: {model: {name: a}}").agent.model == Model(name="a", tokens=99)


def test_a_section_with_nothing_in_it_is_its_default() -> None:
    assert load("agent:") == File()


def test_values_arrive_in_the_types_of_the_schema() -> None:
    found = load(
        "p_shock: 1\nwindows: [5]\nagent: {model: {window: 8192}}\n"
        "gpus: [{name: a, memory_gib: 40}]\nby_name: {b: {name: b}}\nspare: {name: c}\n"
    )
    assert found == File(
        p_shock=1.0,
        windows=(5,),
        agent=Agent(model=Model(window=8192, tokens=99)),
        gpus=(Gpu(name="a", memory_gib=40.0),),
        by_name={"b": Gpu(name="b")},
        spare=Gpu(name="c"),
    )
    assert type(found.p_shock) is float


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flag: true\nagent:\n  kin: llm", "line 3: there is no setting `agent.kin`"),
        ("agent: {kin: llm}", "did you mean `agent.kind`"),
        ("temperature: 1", "did you mean `agent.model.temperature`"),
        ("model: {name: a}", "did you mean `agent.model`"),
        ("agent.kind: llm", "one key with dots"),
        ("gpus: [{name: a}, {nam: b}]", "did you mean `gpus[1].name`"),
        ("agent: 3", "`agent` is `3`, but it is a section"),
        ("agent: {kind: lllm}", "among its choices | did you mean `llm`? It takes `llm` or"),
        ("agent: {model: {thinking: true}}", "put it in quotes"),
        ("agent: {model: {window: wide}}", "did you mean `auto`"),
        ("agent: {model: {window: '5'}}", "remove the quotes"),
        ("agent: {model: {window: 0}}", "outside its range"),
        ("agent: {model: {tokens: 1.5}}", "a number with a fraction"),
        ("agent: {model: {tokens: 2.0}}", "a number with a fraction"),
        ("agent: {model: {tokens: '5'}}", "remove the quotes"),
        ("agent: {model: {tokens: true}}", "`agent.model.tokens` is `true`"),
        ("agent: {model: {temperature: true}}", "`agent.model.temperature` is `true`"),
        ("agent: {model: {temperature: 2.1}}", "at least 0, at most 2"),
        ("agent: {model: {temperature: null}}", "`null`, which is no value"),
        ("p_shock: -0.1", "`-0.1`, which is outside its range"),
        ("p_shock: [0.1, 0.2]", "`grid.p_shock`"),
        ("steps: 0", "more than 0, less than 100"),
        ("steps: 100", "outside its range"),
        ("flag: yes", "it takes `true` or `false`"),
        ("flag: 1", "`flag` is `1`"),
        ("note: 5", "put it in quotes"),
        ("windows: 5", "a list, each item a whole number"),
        ("windows: [5, a]", "`windows[1]` is `a`"),
        ("windows: [5, 0]", "`windows[1]` is `0`, which is outside its range"),
        ("pair: [1, 2, 3]", "has 3 items, but takes 2"),
        ("gpus:\n  - name: a\n  - count: 3", "line 3: `gpus[1].name` is missing"),
        ("by_name: {a: {name: x, count: many}}", "`by_name.a.count`"),
        ("spare: {}", "`spare.name` is missing"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_error_with_place_and_remedy(text: str, said: str) -> None:
    refusal = refusal_of(text)
    assert refusal.startswith("x.yaml")
    assert said in refusal


def test_a_misspelt_part_of_a_file_is_recognised_though_it_is_no_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        complete({"gird": {}}, File, source=Place("x"), also=("grid", "inherit"))
    assert "did you mean `grid`" in caught.value.hint


def test_the_keys_are_listed_in_the_order_of_the_schema() -> None:
    assert setting_keys(Agent)[:2] == ("kind", "model.name")


def test_the_defaults_are_plain_data() -> None:
    assert defaults(File)["windows"] == [10, 100]
    assert defaults(File)["agent"]["model"]["tokens"] == 99
    assert complete({}, File, source=Place("x")) == defaults(File)


def test_one_value_is_checked_like_a_whole_file() -> None:
    assert check_value(File, "p_shock", 1, "here") == 1.0
    assert math.copysign(1, check_value(File, "p_shock", -0.0, "here")) == 1
    for key, value, said in [
        ("p_shock", math.nan, "not a finite number"),
        ("p_shock", math.inf, "not a finite number"),
        ("p_shok", 0.1, "no setting `p_shok`"),
        ("p_shock.x", 0.1, "no setting `p_shock.x`"),
        ("agent", 1, "`agent` is a section, not a setting"),
        ("agent.kind", "x", "among its choices"),
    ]:
        with pytest.raises(ConfigError, match=f"^here: .*{said}"):
            check_value(File, key, value, "here")


def test_a_setting_knows_whether_it_holds_several_values() -> None:
    assert find_setting(File, "windows", "").holds_several
    assert find_setting(File, "by_name", "").holds_several
    assert not find_setting(File, "agent.model.window", "").holds_several


@settings(deadline=None)
@given(st.sampled_from(setting_keys(File)), st.data())
def test_one_wrong_letter_still_finds_the_key(key: str, data: st.DataObject) -> None:
    keys = setting_keys(File)
    at = data.draw(st.integers(0, len(key) - 1))
    misspelt = key[:at] + "#" + key[at + 1 :]
    assert nearest(misspelt, keys) == key


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 10**9), st.sampled_from(["off", "on"]), st.booleans())
def test_a_checked_section_checks_again_to_itself(
    p_shock: float, tokens: int, thinking: str, flag: bool
) -> None:
    data: dict[str, Any] = {
        "p_shock": p_shock,
        "flag": flag,
        "agent": {"model": {"tokens": tokens, "thinking": thinking}},
    }
    once = complete(data, File, source=Place("x"))
    assert complete(once, File, source=Place("x")) == once
    assert conform(data, File, source=Place("x")).agent.model.tokens == tokens
