"""Values of settings that had another word once: of any workload, by the metadata of a field."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tests.toy import Toy, ToyAgent, ToySettings
from vendomini.config import Phase, expand, load_phase
from vendomini.errors import ConfigError
from vendomini.phase import Run, setting, settings_of, todays_run
from vendomini.workloads import Workload
from vendomini.workloads.registry import todays_runs

Pace = Literal["slow", "quick"]
NOW = {"swift": "quick", "fast": "quick"}
"""It was `swift` first, then `fast`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    pace: Literal["slow", "swift"] = "slow"
    paces: tuple[Literal["slow", "swift"], ...] = ()
    by_level: dict[str, Literal["slow", "swift"]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Before(ToySettings):
    clock: Clock = field(default_factory=Clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class TodaysClock:
    pace: Pace = field(default="slow", metadata={"once": NOW})
    paces: tuple[Pace, ...] = field(default=(), metadata={"once": NOW})
    by_level: dict[str, Pace] | None = field(default=None, metadata={"once": NOW})


@dataclass(frozen=True, slots=True, kw_only=True)
class Today(ToySettings):
    clock: TodaysClock = field(default_factory=TodaysClock)


NAME = "tests.test_once:Renamed"


class Renamed(Toy):
    name = NAME
    settings_type = Today


class AsItWas(Toy):
    name = NAME
    settings_type = Before


def phase_of(workload: Workload, folder: Path, *overrides: str, text: str = "") -> Phase:
    file = folder / "phase.yaml"
    file.write_text(text or "agent: {kind: probe}\n")
    named = [f"experiment.workload={NAME}", *overrides]
    return load_phase(file, named, workload_named=lambda name: workload)


@pytest.mark.parametrize(
    "override",
    [
        "clock.pace={}",
        "fixed.clock.pace={}",
        "grid.clock.pace=[slow, {}]",
        "clock.paces=[slow, {}]",
        "clock.by_level={{1: {}, 2: slow}}",
        "clock={{pace: {}, by_level: {{1: {}}}}}",
        "grid.clock.by_level.1=[slow, {}]",
    ],
)
def test_ids_go_on_with_the_first_word(override: str, tmp_path: Path) -> None:
    def runs(workload: Workload, word: str) -> list[Run]:
        return expand(phase_of(workload, tmp_path, override.format(word, word)))

    then = [run.id for run in runs(AsItWas(), "swift")]
    now, *others = (runs(Renamed(), word) for word in ("quick", "fast", "swift"))
    assert [run.id for run in now] == then
    assert others == [now, now]


def test_records_are_read_in_todays_words(tmp_path: Path) -> None:
    words = ("grid.clock.pace=[slow, swift]", "clock.paces=[swift]", "clock.by_level={1: swift}")
    slow, swift = expand(phase_of(AsItWas(), tmp_path, *words))
    assert settings_of(swift.settings, Today).clock == TodaysClock(
        pace="quick", paces=("quick",), by_level={"1": "quick"}
    )
    quick = todays_run(swift, Today)
    assert (quick.id, quick.arm) == (swift.id, {"clock.pace": "quick"})
    assert setting(quick.settings, "clock.by_level.1") == "quick"
    assert todays_run(quick, Today) is quick
    assert todays_run(slow, Today).arm == {"clock.pace": "slow"}
    assert todays_runs([swift, quick]) == [quick, quick]


def test_a_run_of_before_the_setting_or_of_no_workload_here_is_as_it_was(tmp_path: Path) -> None:
    (run,) = expand(phase_of(Toy(), tmp_path))
    assert todays_run(run, Today) is run
    elsewhere = Run(
        id="0" * 16,
        workload="tests.no_such_module:Gone",
        workload_version=1,
        seed=0,
        replication=0,
        arm={"clock.pace": "swift"},
        settings={"clock": {"pace": "swift"}},
    )
    assert todays_runs([elsewhere, elsewhere]) == [elsewhere, elsewhere]


def test_a_file_with_an_older_word_is_read_with_a_note(tmp_path: Path) -> None:
    text = "clock:\n  pace: fast\n  paces: [slow, swift, fast]\n"
    phase = phase_of(Renamed(), tmp_path, "grid.clock.by_level.1=[swift, slow]", text=text)
    file = tmp_path / "phase.yaml"
    assert list(phase.notes) == [
        f"{file}, line 2: `fast` means `quick`",
        f"{file}, line 3: `swift` means `quick`, `fast` means `quick`",
        "override `grid.clock.by_level.1=[swift, slow]`: `swift` means `quick`",
    ]
    file.write_text(phase.text)
    again = load_phase(file, workload_named=lambda name: Renamed())
    assert (again, again.notes) == (phase, ())


def test_an_older_word_that_an_override_replaces_is_not_worth_a_note(tmp_path: Path) -> None:
    phase = phase_of(Renamed(), tmp_path, "clock.pace=slow", text="clock: {pace: swift}")
    assert phase.notes == ()


def test_an_older_word_beside_todays_is_one_value_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has `quick` twice"):
        phase_of(Renamed(), tmp_path, "grid.clock.pace=[swift, quick]")


def test_what_is_offered_is_todays_word(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        phase_of(Renamed(), tmp_path, "clock.pace=swiftly")
    assert "It takes `slow` or `quick`" in caught.value.hint


@pytest.mark.parametrize(
    "once",
    [
        {"probe": "llm"},
        {"scripted": "prob"},
        {"a": "b", "b": "probe"},
        "scripted",
        None,
        {"scripted": ["probe"]},
        {1: "probe"},
    ],
    ids=str,
)
def test_older_words_that_could_not_be_told_from_todays_are_refused(
    once: Mapping[str, str], tmp_path: Path
) -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Agent(ToyAgent):
        who: Literal["llm", "probe"] = field(default="llm", metadata={"once": once})

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Confused:
        agent: Agent = field(default_factory=Agent)

    class Unclear(Workload):
        name = NAME
        settings_type = Confused

    with pytest.raises(ConfigError, match=r"`once` of its setting `agent\.who` (says that|is `)"):
        phase_of(Unclear(), tmp_path, text="experiment: {name: confused}")
