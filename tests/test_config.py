"""From a phase file to runs: composing, checking, expanding, and the ids of runs."""

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vendomini.config import Phase, expand, load_phase
from vendomini.errors import ConfigError
from vendomini.identity import model_identity
from vendomini.phase import Asked, ModelSettings, Run, setting, settings_of
from vendomini.workloads import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    max_steps: int = field(default=1000, metadata={"ge": 1})
    complexity_level: int = field(default=1, metadata={"ge": 0, "le": 4})
    budget: float = field(default=100.0, metadata={"ge": 0})


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    kind: Literal["llm", "heuristic", "random", "probe"] = "llm"
    model: ModelSettings = field(default_factory=ModelSettings)
    mode: Literal["required", "optional"] = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    simulation: Simulation = field(default_factory=Simulation)
    agent: Agent = field(default_factory=Agent)
    p_shock: float = field(default=0.1, metadata={"ge": 0, "le": 1})
    windows: tuple[int, ...] = (10, 100)
    max_steps_by_level: dict[Literal["0", "1", "2", "3", "4"], int] | None = field(
        default=None, metadata={"ge": 1, "not_in_id": "it sets simulation.max_steps"}
    )
    threshold: Literal["strict", "lenient"] = field(
        default="lenient", metadata={"not_in_id": "both are in the table"}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterSettings(Settings):
    """What a later version has: one more setting with a default."""

    patience: int = 3


class Toy(Workload):
    name = "toy"
    settings_type = Settings

    def asks(self, settings: Settings) -> Asked:
        return "model" if settings.agent.kind == "llm" else "nobody"

    def derive_settings(self, settings: Settings) -> Settings:
        simulation, by_level = settings.simulation, dict(settings.max_steps_by_level or {})
        steps = by_level.get(f"{simulation.complexity_level}", simulation.max_steps)  # type: ignore[call-overload]
        return replace(settings, simulation=replace(simulation, max_steps=steps))


class LaterToy(Toy):
    settings_type = LaterSettings


class NewToy(Toy):
    version = 2


def toy_named(name: str | None) -> Workload:
    if name != "toy":
        raise ConfigError(f"`{name}` is no workload", hint="did you mean `toy`?")
    return Toy()


Load: TypeAlias = Callable[..., Phase]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a phase file of the toy workload, and other files beside it, and loads it."""

    def loaded(text: str = "", *overrides: str, **files: str) -> Phase:
        for name, content in files.items():
            (tmp_path / f"{name}.yaml").write_text(content)
        path = tmp_path / "phase.yaml"
        path.write_text(text)
        workload = [] if "workload:" in text else ["experiment.workload=toy"]
        return load_phase(path, [*workload, *overrides], workload_named=toy_named)

    return loaded


Refuse: TypeAlias = Callable[..., str]


@pytest.fixture
def refusal(load: Load) -> Refuse:
    def refused(text: str, *overrides: str, **files: str) -> str:
        with pytest.raises(ConfigError) as caught:
            expand(load(text, *overrides, **files))
        assert caught.value.exit_code == 2
        return f"{caught.value} | {caught.value.hint}"

    return refused


def ids(phase: Phase) -> list[str]:
    return [run.id for run in expand(phase)]


def cells(phase: Phase) -> list[tuple[Any, ...]]:
    return [(*run.arm.values(), run.replication) for run in expand(phase)]


SMALL = "p_shock: 0.5\n"


# composing


def test_a_file_wins_over_what_it_inherits_and_mappings_merge(load: Load) -> None:
    phase = load(
        "inherit: middle.yaml\nagent: {mode: optional}\nwindows: [7]",
        middle="inherit: base.yaml\nagent: {mode: required, kind: random}\np_shock: 0.2",
        base="p_shock: 0.9\nsimulation: {max_steps: 5, budget: 1}\nwindows: [1, 2, 3]",
    )
    assert setting(phase.base, "agent.mode") == "optional"
    assert setting(phase.base, "agent.kind") == "random"
    assert setting(phase.base, "p_shock") == 0.2
    assert setting(phase.base, "simulation.max_steps") == 5
    assert setting(phase.base, "windows") == [7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agent:\n  mode: ???", "phase.yaml, line 2: `agent.mode` is `???`: it must be given"),
        ("p_shock: '???'", "phase.yaml, line 1: `p_shock` is `???`: it must be given"),
        ("grid:\n  p_shock: [0.1, '???']", "phase.yaml, line 2: `p_shock` is `???`"),
        ("fixed:\n  p_shock: ???", "phase.yaml, line 2: `p_shock` is `???`"),
        (
            "experiment:\n  name: t_${experiment.description}\n  description: ???",
            "phase.yaml, line 3: `experiment.description` is `???`",
        ),
    ],
)
def test_what_is_still_to_be_given_is_an_error_where_it_stands(
    refusal: Refuse, text: str, said: str
) -> None:
    assert said in refusal(text)


def test_what_an_inherited_file_leaves_open_a_file_or_an_override_gives(load: Load) -> None:
    base = "p_shock: ???"
    assert setting(load("inherit: base.yaml\np_shock: 0.2", base=base).base, "p_shock") == 0.2
    given = load("inherit: base.yaml", "p_shock=0.3", base=base)
    assert setting(given.base, "p_shock") == 0.3


def test_one_file_gives_a_setting_once(refusal: Refuse, load: Load) -> None:
    said = refusal("p_shock: 0.1\nfixed:\n  p_shock: 0.2")
    assert "phase.yaml, line 3: `p_shock` is `0.2` under `fixed`, and `0.1` in its section" in said
    assert "(" in said
    assert "phase.yaml, line 1)" in said
    assert load("p_shock: 0.2\nfixed: {p_shock: 0.2}").fixed == {"p_shock": 0.2}
    other = load("inherit: base.yaml\nfixed: {p_shock: 0.2}", base="p_shock: 0.1")
    assert other.fixed == {"p_shock": 0.2}


@pytest.mark.parametrize("form", ["[{}]", "\n  - {}"])
def test_an_axis_of_far_too_many_values_is_refused_by_its_count_at_once(
    refusal: Refuse, form: str
) -> None:
    between = ", " if form[0] == "[" else "\n  - "
    values = form.format(between.join("1" for _ in range(130_000)))
    began = time.process_time()
    said = refusal(f"grid:\n  p_shock: {values}\n")
    assert "phase.yaml, line 2: `p_shock` has about 130,000 values" in said
    assert time.process_time() - began < 1


def test_inherit_is_relative_to_the_file_that_says_it(tmp_path: Path) -> None:
    (tmp_path / "phases").mkdir()
    (tmp_path / "base.yaml").write_text("experiment: {workload: toy}\np_shock: 0.9")
    path = tmp_path / "phases" / "one.yaml"
    path.write_text("inherit: ../base.yaml")
    assert setting(load_phase(path, workload_named=toy_named).base, "p_shock") == 0.9


def test_a_missing_or_circular_inherit_is_refused_where_it_stands(refusal: Refuse) -> None:
    said = refusal("p_shock: 0\ninherit: bse.yaml", base="p_shock: 0.9")
    assert "phase.yaml, line 2: `inherit: bse.yaml`: there is no file" in said
    assert "base.yaml`?" in said
    assert "circle" in refusal("inherit: phase.yaml")
    said = refusal("inherit: a.yaml", a="inherit: b.yaml", b="inherit: ./phase.yaml")
    assert "b.yaml, line 1" in said
    assert "circle" in said
    assert "`inherit` is `[" in refusal("inherit: [a.yaml]")


def test_an_error_in_an_inherited_file_names_that_file(refusal: Refuse) -> None:
    said = refusal("inherit: base.yaml\np_shock: 0.1", base="agent:\n  mod: required")
    assert "base.yaml, line 2: there is no setting `agent.mod` | did you mean `agent.mode`?" in said


def test_interpolation_refers_to_other_settings(load: Load) -> None:
    phase = load(
        "experiment: {workload: toy, seed: 7, description: 'seed ${experiment.seed}'}\n"
        "simulation: {max_steps: '${experiment.seed}', budget: '${simulation.max_steps}'}"
    )
    assert phase.experiment.description == "seed 7"
    assert setting(phase.base, "simulation.max_steps") == 7
    assert setting(phase.base, "simulation.budget") == 7.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("experiment: {name: '${oc.env:HOME}'}", "calls a resolver"),
        ("experiment: {name: '${${experiment.description}:HOME}'}", "calls a resolver"),
        ("experiment: {name: '${experiment.nam}'}", "'experiment.nam' not found"),
        ("experiment: {name: '${experiment.name}'}", "Recursive"),
        ("experiment: {name: '${'}", "cannot be read"),
        ("experiment: {name: '${agent}'}", "refers to a section"),
        ("experiment: {description: '\\${agent}'}", "`${`"),
        ("simulation: {budget: '${p_shock}'}\ngrid: {p_shock: [0, 1]}", "differs between runs"),
        ("experiment: {phase: '${p_shock}'}", "a number with a fraction"),
        ("grid: {agent.model.name: ['${experiment.name}']}", "takes plain values"),
    ],
)
def test_an_interpolation_that_hides_something_is_refused(
    refusal: Refuse, text: str, said: str
) -> None:
    assert said in refusal(text)


# bad input


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("p_shok: 1", "line 1: there is no setting `p_shok` | did you mean `p_shock`?"),
        ("gird: {p_shock: [0]}", "did you mean `grid`?"),
        ("max_steps: 5", "did you mean `simulation.max_steps`?"),
        ("simulation:\n  max_steps: many", "line 2: `simulation.max_steps` is `many`"),
        ("agent: {kind: heuristik}", "did you mean `heuristic`?"),
        ("p_shock: 1.5", "outside its range"),
        ("p_shock: .nan", "not a finite number"),
        ("p_shock: 0:30", "line 1: `p_shock` is `0:30`"),
        ("experiment: {replications: 0}", "outside its range"),
        ("experiment: {phase: 0}", "outside its range"),
        ("experiment: {workload: toi}", "line 1: `toi` is no workload"),
        ("experiment: {workload: 3}", "`experiment.workload` is `3`"),
        ("experiment: 3", "line 1: `experiment` is `3`, no section"),
        ("agent: 3", "line 1: `agent` is `3`, but it is a section"),
        ("grid: [p_shock]", "`grid` is"),
        ("grid: {p_shock: []}", "is empty"),
        ("grid: {p_shock: }", "is empty"),
        ("grid: {p_shock: 0.1}", "one value, no list: `0.1` | list its values"),
        ("grid: {p_shock: [0.1, 0.2, 0.1]}", "has `0.1` twice"),
        ("grid: {p_shock: [1, 0.5, 1.0]}", "has `1.0` twice"),
        ("grid: {p_shock: [0, -0.0]}", "has `0.0` twice"),
        ("grid:\n  p_shock:\n    - 0\n    - 2", "line 4: `p_shock` is `2`, which is outside"),
        ("grid: {agent.kind: [llm, heuristik]}", "did you mean `heuristic`?"),
        ("grid: {simulation.max_steps: [5, 5.5]}", "a number with a fraction"),
        ("grid: {agent.mod: [required]}", "did you mean `agent.mode`?"),
        ("grid: {agent.model: [a]}", "`agent.model` is a section"),
        ("grid: {windows: [[1], [2]]}", "takes a list, so it cannot be an axis"),
        ("grid: {experiment.seed: [1, 2]}", "cannot be in `grid`"),
        ("fixed: {experiment.seed: 1}", "cannot be in `fixed`"),
        ("fixed: {agent.mod: required}", "did you mean `agent.mode`?"),
        ("fixed: {agent.mode: [required, optional]}", "`grid.agent.mode`"),
        ("fixed: {agent.model: {}}", "`agent.model` is a section"),
        ("fixed:\n  p_shock: 7", "line 2: `p_shock` is `7`, which is outside its range"),
        ("fixed: {p_shock: 0}\ngrid: {p_shock: [0, 1]}", "in `grid` and in `fixed`"),
        ("grid: {agent.mode: [required], agent: {mode: [optional]}}", "`agent.mode` twice"),
        ("max_steps_by_level: {9: 5}", "line 1: `max_steps_by_level` has no entry `9`"),
        ("max_steps_by_level: {low: 5}", "Its entries are 0, 1, 2, 3, 4"),
        ("max_steps_by_level: {1: 0}", "`max_steps_by_level.1` is `0`"),
        ("grid: {threshold: [strict, lenient]}", "cannot be an axis: both are in the table"),
        ("grid: {max_steps_by_level: [{}]}", "cannot be an axis: it sets simulation.max_steps"),
        (
            "max_steps_by_level: {1: 5}\nsimulation: {budget: '${simulation.max_steps}'}",
            "refers to a setting that differs between runs",
        ),
        ("max_steps_by_level: 500", "`max_steps_by_level` is `500`"),
        ("max_steps_by_level: {1: 5}\ngrid: {simulation.max_steps: [5, 6]}", "is an axis, but"),
        ("agent: {model: {name: /no/such/folder}}", "there is no such folder"),
        ("agent: {model: {name: ''}}", "is empty"),
    ],
)  # fmt: skip
def test_bad_input_is_one_error_that_says_where_and_what_instead(
    refusal: Refuse, text: str, said: str
) -> None:
    refused = refusal(text)
    assert said in refused
    assert "phase.yaml" in refused or "agent.model.name" in refused


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "/a", "a\\b", "-rf", " a", "a\tb", "x" * 101]
)
def test_a_name_that_is_no_folder_name_is_refused(refusal: Refuse, name: str) -> None:
    said = refusal(f"experiment: {{name: {json.dumps(name)}}}")
    assert "phase.yaml, line 1: `experiment.name` is" in said


@pytest.mark.parametrize("name", ["a", "phase_1.small-models", "x" * 100, "étude"])
def test_an_ordinary_name_is_taken(load: Load, name: str) -> None:
    assert load(f"experiment: {{name: {name}}}").experiment.name == name


def test_a_grid_of_a_billion_runs_is_refused_without_expanding_it(refusal: Refuse) -> None:
    values = [n / 1000 for n in range(1000)]
    budgets = list(range(1000))
    steps = list(range(1, 1001))
    said = refusal(
        f"grid: {{p_shock: {values}, simulation.budget: {budgets}, simulation.max_steps: {steps}}}"
    )
    assert "`1000000000` runs" in said
    assert "`100000`" in said
    assert "`2000000000` runs" in refusal(SMALL, "experiment.replications=2000000000")


# overrides


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("p_shock", "not of the form KEY=VALUE"),
        ("=5", "not of the form KEY=VALUE"),
        ("a..b=5", "not of the form KEY=VALUE"),
        ("p_shok=1", "did you mean `p_shock`?"),
        ("agent.kind.x=1", "no setting `agent.kind.x`"),
        ("agent=llm", "`agent` is a section"),
        ("agent.kind=", "`agent.kind` is `null`"),
        ("agent.kind=heuristik", "did you mean `heuristic`?"),
        ("p_shock=2", "outside its range"),
        ("p_shock=0:30", "`0:30`"),
        ("p_shock=[0, 1]", "`grid.p_shock`"),
        ("grid.p_shock=0.5", "one value, no list"),
        ("grid.p_shok=[0.5]", "did you mean `p_shock`?"),
        ("grid=5", "`grid` is a mapping"),
        ("grid.p_shock=[0.5", "not YAML"),
        ("inherit=other.yaml", "acts in files only"),
        ("experiment.name=a/b", "is a path"),
        ("experiment.workload=toi", "`toi` is no workload"),
    ],
)
def test_a_wrong_override_is_one_error_that_quotes_it(
    refusal: Refuse, override: str, said: str
) -> None:
    refused = refusal(SMALL, override)
    assert f"override `{override}`" in refused
    assert said in refused


def test_an_override_sets_a_setting_whatever_set_it_before(load: Load) -> None:
    text = "p_shock: 0.2\nfixed: {simulation.budget: 5}\ngrid: {agent.mode: [required, optional]}"
    phase = load(text, "p_shock=0.3", "simulation.budget=6", "agent.mode=optional")
    (run,) = expand(phase)
    found = settings_of(run.settings, Settings)
    assert (found.p_shock, found.simulation.budget, found.agent.mode) == (0.3, 6.0, "optional")
    assert run.arm == {}
    assert any("replaces the axis of 2 values" in note for note in phase.notes)


def test_an_override_makes_and_replaces_an_axis_in_its_place(load: Load) -> None:
    text = (
        "fixed: {simulation.budget: 5}\ngrid: {p_shock: [0, 1], agent.mode: [required, optional]}"
    )
    phase = load(text, "grid.p_shock=[0.5]", "grid.simulation.budget=[1, 2]")
    assert phase.axes == (
        ("p_shock", (0.5,)),
        ("agent.mode", ("required", "optional")),
        ("simulation.budget", (1.0, 2.0)),
    )


def test_a_part_can_be_emptied_or_given_as_a_mapping(load: Load) -> None:
    text = "grid: {p_shock: [0, 1]}\nmax_steps_by_level: {1: 5}"
    phase = load(text, "grid=null", "max_steps_by_level=null", "agent={mode: optional}")
    assert phase.run_count == 1
    assert phase.base["max_steps_by_level"] is None
    assert setting(phase.base, "agent.mode") == "optional"


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("inherit: below.yaml\nmax_steps_by_level: null", ()),
        ("inherit: below.yaml", ("max_steps_by_level=null",)),
        ("inherit: below.yaml", ("max_steps_by_level={}",)),
        ("inherit: below.yaml\nmax_steps_by_level: null", ("p_shock=0.1",)),
    ],
)
def test_a_mapping_that_may_be_null_is_emptied_by_null_unlike_a_section(
    load: Load, text: str, overrides: tuple[str, ...]
) -> None:
    below = "max_steps_by_level: {1: 5}\nsimulation: {max_steps: 9}\nagent: {mode: optional}"
    (run,) = expand(load(f"{text}\nagent:", *overrides, below=below))
    assert setting(run.settings, "simulation.max_steps") == 9
    assert setting(run.settings, "agent.mode") == "optional"


@pytest.mark.parametrize(
    "override",
    ["experiment.workload='toy'", 'experiment.workload="toy"', "experiment={workload: toy}"],
)
def test_the_workload_is_read_from_an_override_like_any_other_value(
    tmp_path: Path, override: str
) -> None:
    path = tmp_path / "phase.yaml"
    path.write_text("experiment: {workload: other}\n")
    assert load_phase(path, [override], workload_named=toy_named).workload == "toy"


def test_an_axis_inside_a_mapping_that_is_null_makes_it(load: Load) -> None:
    with pytest.raises(ConfigError, match="cannot be an axis"):
        load("grid: {max_steps_by_level.1: [5, 6]}")


def test_the_text_of_an_override_is_not_cut_at_a_hash_or_colon(load: Load) -> None:
    phase = load(SMALL, "experiment.description=a: b #3=c")
    assert phase.experiment.description == "a: b #3=c"


def test_a_word_like_off_stays_a_word(load: Load) -> None:
    assert setting(load("agent: {model: {thinking: off}}").base, "agent.model.thinking") == "off"
    phase = load(SMALL, "agent.model.thinking=off")
    assert setting(phase.base, "agent.model.thinking") == "off"


# expanding


def test_the_last_axis_is_fastest_and_replications_are_innermost(load: Load) -> None:
    phase = load(
        "experiment: {workload: toy, replications: 2}\n"
        "grid: {p_shock: [0.5, 0.1], agent.mode: [optional, required]}"
    )
    assert cells(phase) == [
        (0.5, "optional", 0), (0.5, "optional", 1), (0.5, "required", 0), (0.5, "required", 1),
        (0.1, "optional", 0), (0.1, "optional", 1), (0.1, "required", 0), (0.1, "required", 1),
    ]  # fmt: skip
    assert phase.run_count == 8


def test_a_grid_may_be_written_nested_as_well(load: Load) -> None:
    nested = load("grid: {agent: {mode: [required, optional]}, p_shock: [0, 1]}")
    assert nested.axes == load("grid: {agent.mode: [required, optional], p_shock: [0, 1]}").axes


def test_a_run_has_its_cell_in_its_settings_and_shares_the_rest(load: Load) -> None:
    phase = load("fixed: {simulation.budget: 5}\ngrid: {agent.mode: [required, optional]}")
    first, second = expand(phase)
    assert settings_of(second.settings, Settings) == Settings(
        simulation=Simulation(budget=5.0), agent=Agent(mode="optional")
    )
    assert settings_of(first.settings, Settings).agent.mode == "required"
    assert first.settings["simulation"] is second.settings["simulation"]
    assert "experiment" not in first.settings
    assert first.settings["engine"]["backend"] == "auto"


def test_steps_by_level_win_over_whatever_set_max_steps(load: Load) -> None:
    text = (
        "fixed: {simulation.max_steps: 77}\nmax_steps_by_level: {1: 500, 2: 900}\n"
        "grid: {simulation.complexity_level: [1, 2, 3]}"
    )
    steps = [setting(run.settings, "simulation.max_steps") for run in expand(load(text))]
    assert steps == [500, 900, 77]
    phase = load(text, "simulation.max_steps=33", "max_steps_by_level.2=901")
    assert [setting(run.settings, "simulation.max_steps") for run in expand(phase)] == [
        500,
        901,
        33,
    ]
    assert any("does not act" in note for note in phase.notes)


def test_a_null_seed_means_0_and_the_plan_can_say_so(load: Load) -> None:
    null, zero = load("experiment: {workload: toy, seed: null}"), load("experiment: {seed: 0}")
    assert (null.seed, zero.seed) == (0, 0)
    assert null.seed_is_default
    assert not zero.seed_is_default
    assert ids(null) == ids(zero)


def test_the_composed_text_loads_as_the_same_phase(load: Load, tmp_path: Path) -> None:
    phase = load(
        "inherit: base.yaml\nexperiment: {workload: toy, seed: null, name: r, replications: 2}\n"
        "agent: {model: {name: a/b, thinking: off, revision: '1e-3'}}\n"
        "fixed: {simulation.budget: 5}\nmax_steps_by_level: {1: 500, 2: 900}\n"
        "grid: {simulation.complexity_level: [1, 2], agent: {mode: [required, optional]}}",
        "p_shock=1e-05",
        base="experiment: {description: 'seed ${experiment.name}'}",
    )
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "phase.yaml"
    copy.write_text(phase.text)
    again = load_phase(copy, workload_named=toy_named)
    assert again == phase
    assert expand(again) == expand(phase)


# ids


def run_of(load: Load, text: str, *overrides: str) -> Run:
    (run,) = expand(load(text, *overrides))
    return run


def test_the_shared_window_is_that_of_runs_with_a_language_model_alone(load: Load) -> None:
    axes = "grid: {agent: {kind: [llm, random], model: {context_length: [auto, 100]}}}"
    phase = load(f"experiment: {{workload: toy}}\n{axes}")
    key = "agent.model.context_length"
    assert [setting(run.settings, key) for run in expand(phase, window=4096)] == [
        4096,
        100,
        "auto",
        100,
    ]
    plain, shared = ([run.id for run in expand(phase, window=w)] for w in (None, 4096))
    assert [before == now for before, now in zip(plain, shared, strict=True)] == [
        False,
        True,
        True,
        True,
    ]
    with pytest.raises(ConfigError, match="two cells of the grid are the same run"):
        expand(phase, window=100)


def test_an_id_is_16_hexadecimal_digits_and_does_not_change_with_time(load: Load) -> None:
    # Of results on disk: a change here orphans every run that was ever played.
    assert run_of(load, SMALL).id == "a913f30d39eb2948"


@pytest.mark.parametrize(
    "override",
    [
        "experiment.name=other",
        "experiment.description=other",
        "experiment.phase=3",
        "experiment.seed=0",
        "engine.backend=vllm",
        "engine.dtype=float16",
        "simulation.max_steps=1000",
        "simulation.budget=100",
        "agent.model.context_length=auto",
    ],
)
def test_what_does_not_define_the_outcome_is_not_in_the_id(load: Load, override: str) -> None:
    assert run_of(load, SMALL, override).id == run_of(load, SMALL).id


@pytest.mark.parametrize(
    "override",
    [
        "experiment.seed=1",
        "p_shock=0.6",
        "windows=[10]",
        "simulation.max_steps=999",
        "simulation.budget=101",
        "agent.kind=heuristic",
        "agent.mode=optional",
        "agent.model.name=org/other",
        "agent.model.revision=main",
        "agent.model.temperature=0.4",
        "agent.model.context_length=8192",
        "max_steps_by_level={1: 7}",
    ],
)
def test_what_defines_the_outcome_is_in_the_id(load: Load, override: str) -> None:
    assert run_of(load, SMALL, override).id != run_of(load, SMALL).id


def test_the_same_cell_has_one_id_however_it_is_written(load: Load) -> None:
    ways = [
        run_of(load, "simulation: {budget: 5}\np_shock: 1"),
        run_of(load, "p_shock: 1.0\nsimulation: {max_steps: 1000, budget: 5.0}"),
        run_of(load, "fixed: {p_shock: 1, simulation.budget: 5}"),
        run_of(load, "grid: {simulation.budget: [5.0], p_shock: [1]}"),
        run_of(load, "p_shock: 0.2", "p_shock=1e0", "simulation.budget=5"),
    ]
    assert len({run.id for run in ways}) == 1


def test_steps_by_level_give_the_id_of_the_steps_they_set(load: Load) -> None:
    by_level = run_of(load, "max_steps_by_level: {1: 5}\nsimulation: {max_steps: 9}")
    assert by_level.id == run_of(load, "simulation: {max_steps: 5}").id
    usual = run_of(load, "max_steps_by_level: {1: 1000}\nsimulation: {max_steps: 9}")
    assert usual.id == run_of(load, "p_shock: 0.1").id


def test_more_replications_keep_the_old_ids_and_add_new_ones(load: Load) -> None:
    text = "grid: {p_shock: [0, 1]}"
    few = ids(load(text, "experiment.replications=2"))
    many = ids(load(text, "experiment.replications=5"))
    assert set(few) < set(many)
    assert len(set(many)) == 10


def test_a_new_setting_with_a_default_orphans_nothing(load: Load) -> None:
    phase = load("grid: {p_shock: [0, 1]}")
    later = load_phase(
        phase.path,
        ["experiment.workload=toy"],
        workload_named=lambda name: LaterToy(),
    )
    assert ids(later) == ids(phase)


def test_a_new_version_of_the_workload_renames_every_run(load: Load) -> None:
    phase = load("grid: {p_shock: [0, 1]}")
    later = load_phase(
        phase.path, ["experiment.workload=toy"], workload_named=lambda name: NewToy()
    )
    assert not set(ids(later)) & set(ids(phase))


def test_an_engine_setting_is_in_the_id_exactly_when_it_is_an_axis(load: Load) -> None:
    plain = run_of(load, SMALL).id
    phase = load(SMALL, "grid.engine.dtype=[null, bfloat16]")
    assert len({plain, *ids(phase)}) == 3


def model_folder(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def test_a_local_model_is_named_by_its_content_not_its_path(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"config__json": "{}", "model__safetensors": "weights"}
    folder = model_folder(tmp_path / "here" / "m", **files)
    moved = model_folder(tmp_path / "there" / "m", **files)
    other = model_folder(tmp_path / "other", config__json="{}", model__safetensors="longer weights")
    here = run_of(load, SMALL, f"agent.model.name={folder}")
    assert run_of(load, SMALL, f"agent.model.name={moved}").id == here.id
    assert run_of(load, SMALL, f"agent.model.name={other}").id != here.id
    assert run_of(load, SMALL).id != here.id
    monkeypatch.chdir(tmp_path / "here")
    for name in ("./m", "m", "../here/m"):
        near = run_of(load, SMALL, f"agent.model.name={name}")
        assert near.id == here.id
        assert setting(near.settings, "agent.model.name") == str(folder)


@pytest.mark.parametrize(
    "changed",
    ["config__json", "model__safetensors__index__json", "chat_template__jinja", "a__safetensors"],
)
def test_another_fine_tune_of_the_same_shape_is_another_model(tmp_path: Path, changed: str) -> None:
    files = {
        "config__json": "{}",
        "model__safetensors__index__json": "index",
        "chat_template__jinja": "template",
        "a__safetensors": "x" * 200_000,
    }
    one = model_folder(tmp_path / "1", **files)
    same = model_folder(tmp_path / "2", **files)
    # As long as before: neither the size nor the shape tells.
    tuned = {**files, changed: "y" * len(files[changed])}
    other = model_folder(tmp_path / "3", **tuned)
    assert model_identity(str(one), None) == model_identity(str(same), None)
    assert model_identity(str(one), None) != model_identity(str(other), None)


def test_a_local_model_without_its_config_is_refused(refusal: Refuse, tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", model__safetensors="x")
    assert "which lacks `config.json`" in refusal(SMALL, f"agent.model.name={folder}")
    assert "there is no such folder" in refusal(SMALL, f"agent.model.name={tmp_path / 'none'}")
    assert "there is no such folder" in refusal(SMALL, "agent.model.name=~/no/such/model")


def test_two_folders_with_one_model_are_not_two_arms(refusal: Refuse, tmp_path: Path) -> None:
    one, two = (model_folder(tmp_path / name, config__json="{}") for name in ("a", "b"))
    assert "the same run" in refusal(f"grid: {{agent.model.name: [{one}, {two}]}}")


# laws

# A busy machine is slow: how long one example takes is no claim here.
LAW = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "p_shock": st.floats(0, 1),
    "simulation.budget": st.integers(0, 50) | st.floats(0, 50),
    "simulation.max_steps": st.integers(1, 50),
    "simulation.complexity_level": st.integers(0, 4),
    "agent.mode": st.sampled_from(["required", "optional"]),
    "agent.kind": st.sampled_from(["llm", "heuristic", "random", "probe"]),
    "agent.model.name": st.sampled_from(["org/a", "org/b", "off", "1e-3"]),
    "agent.model.revision": st.none() | st.sampled_from(["main", "off"]),
    "agent.model.context_length": st.just("auto") | st.integers(1, 9),
    "engine.dtype": st.none() | st.sampled_from(["bfloat16", "float16"]),
}


@st.composite
def grids(draw: st.DrawFn) -> dict[str, list[Any]]:
    keys = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=4))
    return {key: draw(st.lists(VALUES[key], min_size=1, max_size=3, unique=True)) for key in keys}


def loaded(folder: Path, grid: Mapping[str, Any], replications: int) -> Phase:
    path = folder / "law.yaml"
    # JSON is YAML: the file's reader sees exactly these values.
    path.write_text(
        json.dumps(
            {"experiment": {"workload": "toy", "replications": replications}, "grid": dict(grid)}
        )
    )
    return load_phase(path, workload_named=toy_named)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("laws")


@LAW
@given(grid=grids(), replications=st.integers(1, 3))
def test_the_count_is_the_product_and_every_run_has_its_own_id(
    folder: Path, grid: dict[str, list[Any]], replications: int
) -> None:
    phase = loaded(folder, grid, replications)
    runs = expand(phase)
    product = replications
    for values in grid.values():
        product *= len(values)
    assert phase.run_count == len(runs) == product == len({run.id for run in runs})


@LAW
@given(grid=grids(), replications=st.integers(1, 2), seed=st.integers())
def test_ids_do_not_depend_on_the_order_of_keys_or_values(
    folder: Path, grid: dict[str, list[Any]], replications: int, seed: int
) -> None:
    shuffled = list(grid.items())
    random.Random(seed).shuffle(shuffled)
    turned = {key: list(reversed(values)) for key, values in shuffled}
    before = {run.id: dict(run.arm) for run in expand(loaded(folder, grid, replications))}
    after = {run.id: dict(run.arm) for run in expand(loaded(folder, turned, replications))}
    assert before == after


@LAW
@given(grid=grids(), replications=st.integers(1, 2))
def test_the_composed_text_is_the_phase(
    folder: Path, grid: dict[str, list[Any]], replications: int
) -> None:
    phase = loaded(folder, grid, replications)
    copy = folder / "copy.yaml"
    copy.write_text(phase.text)
    again = load_phase(copy, workload_named=toy_named)
    assert again == phase
    assert expand(again) == expand(phase)
    assert replace(again, path=phase.path).text == phase.text
