"""The predecessor's phase files are read as what they say, and each translation is told."""

import copy
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.product import ROOT, vendomini
from vendomini.config import Phase, expand, leaves, load_phase
from vendomini.errors import ConfigError
from vendomini.phase import setting
from vendomini.workloads import Workload
from vendomini.workloads.registry import workload_named
from vendomini.workloads.warehouse.old.words import (
    NEVER_ACTED,
    RENAMED,
    todays_key,
    todays_model,
    translate,
)
from vendomini.workloads.warehouse.settings import AgentSettings
from vendomini.yamlfile import Document, dump_yaml, parse_yaml

BASE = """\
experiment:
  name: vendo_mini_base
  description: Base configuration for all experiments
  replications: 1
  seed: null

env:
  max_steps: 1000
  complexity_level: 1
  initial_budget: 10000
  pressure_level: medium

agent:
  model:
    name: meta-llama/Llama-2-7b-chat-hf
    context_length: 32000
    temperature: 0.3
    max_tokens_per_call: 2000
  interface:
    prediction_mode: required
    prediction_format: structured
    memory_tools: full
    recovery_tools: none

crash_detector:
  threshold: moderate
  window_size: 20
  continue_after_crash: 50

pe_induction:
  p_shock: 0.10
  pe_mag: medium
  pe_type_mix: realistic
  observability: full

measurement:
  crash_threshold: moderate
  pe_windows: [10, 100, 500]
  success_metric: time_to_crash
  log_every_n_steps: 1
  checkpoint_every_n_steps: 100

paths:
  logs_dir: logs
  checkpoints_dir: checkpoints
  results_dir: results
"""

PHASE_3 = """\
inherit: ../base.yaml

experiment:
  name: phase3_small_models
  replications: 5
  seed: null

grid:
  agent.model.name:
    - meta-llama/Llama-3.1-8B-Instruct
    - allenai/OLMo-2-1124-13B-Instruct
  pe_induction.p_shock: [0.0, 0.5, 1.0]
  simulation.complexity_level: [1, 2, 3]
  agent.interface.recovery_tools: [none, all]

fixed:
  pe_induction.pe_mag: medium
  agent.interface.prediction_mode: required+full

max_steps_by_level: {"1": 500, "2": 1000, "3": 2500}
"""

OLDER_PHASE_3 = """\
inherit: ../base.yaml

experiment:
  name: phase3_small_models
  replications: 5
  seed: null

grid:
  model.name:
    - meta-llama--Llama-3.1-8B-Instruct
    - allenai--OLMo-2-1124-13B-Instruct
  pe_induction.p_shock: [0.0, 0.5, 1.0]
  env.complexity_level: [1, 2, 3]
  interface.recovery_tools: [none, all]

fixed:
  pe_induction.pe_mag: medium
  interface.prediction_mode: required+full

max_steps_by_level: {"1": 500, "2": 1000, "3": 2500}
"""

DEMO = """\
experiment:
  name: demo_run
  seed: 42
max_steps: 15
simulation:
  complexity_level: 0
  initial_budget: 500
  max_steps: 15
  pressure_level: low
  initial_storage_per_sku: 20
model:
  name: mock-demo-model
  temperature: 0
  max_tokens_per_call: 200
  context_length: 2048
interface:
  prediction_mode: required
  prediction_format: minimal
  memory_tools: basic
  recovery_tools: none
pe_induction: {p_shock: 0.0, pe_mag: low, pe_type_mix: uniform, observability: full}
demand:
  p_customer_order: 0.60
  due_days: 5
  sale_markup: 2.0
  late_penalty: 0.0
  expire_after_days: 8
  max_failures: 10
crash_detector:
  window_size: 10
  continue_after_crash: 5
"""

LOCAL_TEST = """\
experiment: {name: local_test}
environment:
  shock_config: {frequency: 0.1}
model: {name: TinyLlama/TinyLlama-1.1B-Chat-v1.0}
interface: {prediction_mode: required}
pe_tracking:
  ewma: {alpha: 0.3}
crash_detection: {window: 20}
logging: {level: INFO}
grid:
  environment.shock_config.frequency: [0.1, 0.2]
  runs_per_config: 2
"""

Load: TypeAlias = Callable[..., Phase]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a phase file beside the predecessor's base file, and loads it."""
    (tmp_path / "phases").mkdir()
    (tmp_path / "base.yaml").write_text(BASE)

    def loaded(text: str, *overrides: str) -> Phase:
        path = tmp_path / "phases" / "phase.yaml"
        path.write_text(text)
        return load_phase(path, overrides, workload_named=workload_named)

    return loaded


def refused(load: Load, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return f"{caught.value} | {caught.value.hint}"


def notes_of(phase: Phase) -> str:
    return "\n".join(phase.notes)


# whole files


def test_the_old_base_file_is_todays_base_file_with_its_own_model_and_window(load: Load) -> None:
    old = load("inherit: ../base.yaml")
    today = load_phase(ROOT / "configs" / "base.yaml", workload_named=workload_named)
    differing = {
        key: value
        for key, value in leaves(old.base)
        if value != setting(today.base, key) and not key.startswith("experiment.")
    }
    assert differing == {
        "agent.model.name": "meta-llama/Llama-2-7b-chat-hf",
        "agent.model.context_length": 32000,
    }


@pytest.mark.parametrize("text", [PHASE_3, OLDER_PHASE_3], ids=["late words", "early words"])
def test_an_old_phase_has_the_runs_of_the_same_phase_in_todays_words(
    load: Load, tmp_path: Path, text: str
) -> None:
    runs = expand(load(text))
    written = tmp_path / "today.yaml"
    written.write_text(
        PHASE_3.replace("../base.yaml", str(ROOT / "configs" / "base.yaml")).replace(
            "fixed:", "fixed:\n  agent.model.context_length: 32000"
        )
    )
    today = load_phase(written, workload_named=workload_named)
    assert not [note for note in today.notes if "predecessor" in note or " means " in note]
    assert [run.id for run in runs] == [run.id for run in expand(today)]
    assert len({run.id for run in runs}) == 2 * 3 * 3 * 2 * 5
    steps = {
        (
            setting(run.settings, "simulation.complexity_level"),
            setting(run.settings, "simulation.max_steps"),
        )
        for run in runs
    }
    assert steps == {(1, 500), (2, 1000), (3, 2500)}


def test_the_old_demo_says_what_it_said(load: Load) -> None:
    phase = load(DEMO)
    assert setting(phase.base, "simulation.max_steps") == 15
    assert setting(phase.base, "agent.model.name") == "mock-demo-model"
    assert setting(phase.base, "agent.model.context_length") == 2048
    assert setting(phase.base, "agent.interface.memory_tools") == "basic"
    assert setting(phase.base, "demand.p_customer_order") == 0.6
    assert phase.seed == 42


def test_a_model_that_was_a_mock_is_told_and_how_to_play_without_one(load: Load) -> None:
    said = "line 12: `mock-demo-model` was no model but five replies in turn"
    assert said in notes_of(load(DEMO))
    assert "mock" not in notes_of(load("agent: {model: {name: mock-x}}"))
    assert "no model" in notes_of(load("model: {name: mock-x}"))
    assert "no model" not in notes_of(load("model: {name: org/mock-x}"))


def test_every_translation_is_a_note_with_its_file_and_line(load: Load) -> None:
    said = notes_of(load(OLDER_PHASE_3))
    assert (
        "base.yaml, line 8: `env.*` means `simulation.*`: `max_steps`, `complexity_level`, "
        "`initial_budget`, `pressure_level`"
    ) in said
    assert (
        "base.yaml, line 37: left out, since they never acted: `measurement.crash_threshold`, "
        "`measurement.success_metric`, `measurement.log_every_n_steps`, "
        "`measurement.checkpoint_every_n_steps`, `paths`"
    ) in said
    assert "phase.yaml, line 9: in `grid`, `model.name` means `agent.model.name`" in said
    assert "line 18: in `fixed`, `interface.prediction_mode` means `agent.interface.pre" in said
    assert (
        "phase.yaml, line 9: `meta-llama--Llama-3.1-8B-Instruct` means "
        "`meta-llama/Llama-3.1-8B-Instruct`, `allenai--OLMo-2"
    ) in said
    (acts,) = [note for note in load(OLDER_PHASE_3).notes if note.startswith("acts here")]
    assert re.findall(r"`([a-z_.]+)` \(", acts) == [
        "fixed",
        "max_steps_by_level",
        "env",
        "agent.interface",
        "agent.model.context_length",
    ]
    assert "`fixed` (" in acts
    assert "phase.yaml, line 16)" in acts
    assert "`max_steps_by_level` (" in acts
    assert "`env` (" in acts
    assert len(load(OLDER_PHASE_3).notes) == 8
    assert "phase.yaml, line 4: `max_steps` means `simulation.max_steps`" in notes_of(load(DEMO))


def test_a_file_in_todays_words_is_not_translated(load: Load) -> None:
    assert load("fixed: {simulation.max_steps: 5}\nexperiment: {seed: 0}").notes == ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    max_steps: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSettings:
    agent: AgentSettings = field(default_factory=AgentSettings)
    env: Env = field(default_factory=Env)
    max_steps: int = 1


class OwnWorkload(Workload):
    name = "own"
    settings_type = OwnSettings


@pytest.mark.parametrize("in_file", [True, False])
def test_a_workload_of_ones_own_may_have_sections_of_old_names(
    tmp_path: Path, in_file: bool
) -> None:
    path = tmp_path / "own.yaml"
    workload = "experiment: {workload: own}\n"
    path.write_text((workload if in_file else "") + "env: {max_steps: 4}\nmax_steps: 5\n")
    overrides = ["env.max_steps=6"] if in_file else ["experiment.workload=own"]
    phase = load_phase(path, overrides, workload_named=lambda name: OwnWorkload())
    assert (phase.workload, phase.notes) == ("own", ())
    assert setting(phase.base, "env.max_steps") == (6 if in_file else 4)
    assert setting(phase.base, "max_steps") == 5


def test_an_old_section_that_is_no_section_is_refused(load: Load) -> None:
    said = refused(load, "experiment: {seed: 0}\nenv: 5")
    assert "line 2: `env` is `5`, but it is a section of settings" in said
    assert load("env:\nexperiment: {seed: 0}").notes == ()


# overrides


def test_overrides_are_translated_and_win_over_old_words_and_new(load: Load) -> None:
    overrides = (
        "env.complexity_level=2",
        "grid.interface.prediction_mode=[required,optional]",
        "max_steps=70",
        "env={initial_budget: 300, pressure_level: high}",
        "fixed.env.initial_storage_per_sku=4",
        "model.name=Qwen--Qwen3-32B",
        "paths.logs_dir=elsewhere",
    )
    phase = load(OLDER_PHASE_3.replace("max_steps_by_level", "#"), *overrides)
    assert {key: len(values) for key, values in phase.axes} == {
        "pe_induction.p_shock": 3,
        "agent.interface.recovery_tools": 2,
        "agent.interface.prediction_mode": 2,
    }
    assert setting(phase.base, "agent.model.name") == "Qwen/Qwen3-32B"
    assert phase.base["simulation"] == {
        "max_steps": 70,
        "complexity_level": 2,
        "initial_budget": 300.0,
        "pressure_level": "high",
        "initial_storage_per_sku": 4,
        "storage_capacity": 500,
        "storage_fee": 0.1,
    }
    said = notes_of(phase)
    assert "override `max_steps=70`: `max_steps` means `simulation.max_steps`" in said
    assert "`Qwen--Qwen3-32B` means `Qwen/Qwen3-32B`" in said
    assert "override `paths.logs_dir=elsewhere`: left out" in said
    assert "replaces the axis of 3 values" in said


def test_an_override_in_todays_words_wins_over_old_words(load: Load) -> None:
    phase = load("inherit: ../base.yaml\nmax_steps: 9", "simulation.max_steps=8")
    assert setting(phase.base, "simulation.max_steps") == 8


# said twice


def test_across_files_the_later_wins_in_whatever_words(load: Load) -> None:
    phase = load("inherit: ../base.yaml\nmax_steps: 40\nsimulation: {initial_budget: 7}")
    assert setting(phase.base, "simulation.max_steps") == 40
    assert setting(phase.base, "simulation.initial_budget") == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "env: {max_steps: 5}\nsimulation:\n  max_steps: 6",
            "line 3: `simulation.max_steps` is `6`, but `env.max_steps`, which means the same, "
            "is `5` (PATH, line 1)",
        ),
        (
            "max_steps: 5\nenv:\n  max_steps: 6",
            "line 3: `env.max_steps` is `6`, but `max_steps`, which means the same, is `5` "
            "(PATH, line 1)",
        ),
        (
            "env: {complexity_level: 1}\nsimulation: {complexity_level: true}",
            "line 2: `simulation.complexity_level` is `true`, but `env.complexity_level`, which",
        ),
        (
            "agent:\n  model: {name: a/b}\nmodel: {name: a/c}",
            "line 2: `agent.model.name` is `a/b`, but `model.name`, which means the same, is `a/c`",
        ),
        (
            "grid:\n  env.complexity_level: [1]\n  simulation.complexity_level: [2]",
            "line 2: `env.complexity_level` is `[1]`, but `simulation.complexity_level`, which",
        ),
        (
            "fixed:\n  interface: {memory_tools: none}\n  agent.interface.memory_tools: full",
            "line 2: `interface.memory_tools` is `none`, but `agent.interface.memory_tools`",
        ),
    ],
)
def test_one_setting_with_two_values_in_a_file_names_both_places(
    load: Load, text: str, said: str, tmp_path: Path
) -> None:
    message = refused(load, text)
    assert said.replace("PATH", str(tmp_path / "phases" / "phase.yaml")) in message


def test_one_setting_said_twice_alike_is_fine(load: Load) -> None:
    phase = load(
        "max_steps: 5\nenv: {max_steps: 5}\nsimulation: {max_steps: 5}\n"
        "grid: {env.complexity_level: [1, 2], simulation.complexity_level: [1, 2]}"
    )
    assert setting(phase.base, "simulation.max_steps") == 5
    assert phase.run_count == 2


def test_a_section_without_settings_says_nothing_against_its_old_name(load: Load) -> None:
    phase = load("agent:\nsimulation:\nmodel: {name: a/b}\nenv: {max_steps: 3}")
    assert setting(phase.base, "agent.model.name") == "a/b"
    assert setting(phase.base, "simulation.max_steps") == 3


def test_a_key_in_old_words_twice_in_a_part_is_refused(load: Load) -> None:
    assert "has `env.max_steps` twice" in refused(
        load, "fixed: {env.max_steps: 5, env: {max_steps: 5}}"
    )


def test_an_axis_in_old_words_that_is_fixed_in_todays_is_refused(load: Load) -> None:
    said = refused(
        load, "grid: {env.complexity_level: [1, 2]}\nfixed: {simulation.complexity_level: 1}"
    )
    assert "`simulation.complexity_level` is in `grid` and in `fixed`" in said
    assert "line 1" in said
    assert "line 2" in said


# what is no setting


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("env:\n  max_stps: 5", "line 2: there is no setting `simulation.max_stps` | did you"),
        ("interface: {memory: full}", "did you mean `agent.interface.memory_tools`"),
        ("grid: {interface.p_mode: [a]}", "line 1: there is no setting `agent.interface.p_mode`"),
        ("measurement: {windows: [1]}", "there is no setting `measurement.windows`"),
        ("demands: {due_days: 1}", "did you mean `demand"),
        ("env: {max_steps: many}", "line 1: `simulation.max_steps` is `many`"),
        ("logs_dir: logs", "experiments are kept below --root"),
        ("grid: {runs_per_config: 2}", "`experiment.replications`"),
        (
            "grid: {measurement.crash_threshold: [strict, lenient]}",
            "line 1: the axis `measurement.crash_threshold` never acted",
        ),
    ],
)
def test_any_other_unknown_key_is_an_error_with_the_nearest_key(
    load: Load, text: str, said: str
) -> None:
    assert said in refused(load, text)


def test_the_layout_of_local_test_gets_one_error_that_says_what_to_do(load: Load) -> None:
    said = refused(load, LOCAL_TEST)
    assert "phase.yaml, line 2: there is no setting `environment`, nor `pe_tracking`" in said
    assert "`crash_detection`, `logging`" in said
    for hint in ("as `simulation`", "as `crash_detector`", "`measurement.pe_windows`", "leave"):
        assert hint in said
    # As written by somebody who follows the hint half way.
    half_way = "\n".join(LOCAL_TEST.splitlines()[-3:])
    assert "line 2: there is no setting `environment` | write" in refused(load, half_way)


def test_a_model_folder_of_an_old_name_stays_that_folder(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org--name").mkdir()
    phase = load("model: {name: org--name}")
    assert setting(phase.base, "agent.model.name") == str(tmp_path / "org--name")
    assert "`org--name` means" not in notes_of(phase)


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("openai--gpt-oss-20b", "openai/gpt-oss-20b"),
        ("models--Qwen--Qwen3-32B", "Qwen/Qwen3-32B"),
        ("Qwen/Qwen3-32B", "Qwen/Qwen3-32B"),
        ("org/a--b", "org/a--b"),
        ("mock-demo-model", "mock-demo-model"),
        ("--name", "--name"),
        ("a--b--c", "a--b--c"),
    ],
)
def test_a_folders_name_is_a_hub_id_where_it_can_be_one(name: str, today: str) -> None:
    assert todays_model(name, is_folder=lambda name: False) == today
    assert todays_model(name, is_folder=lambda name: True) == name


# laws

VALUES = st.integers(0, 3) | st.sampled_from(["a", "b"]) | st.none()
NAMES = st.sampled_from(["max_steps", "p", "q"])
OLD_SECTIONS = st.sampled_from([name for name in RENAMED if name != "max_steps"])
OLD_FILES = st.dictionaries(
    OLD_SECTIONS | st.sampled_from(["simulation", "demand"]),
    st.dictionaries(NAMES, VALUES, min_size=1, max_size=3),
    max_size=4,
)


def document_of(data: dict[str, Any]) -> Document:
    return parse_yaml(dump_yaml({"experiment": {"name": "x"}, **data}), Path("old.yaml"))


def is_consistent(data: dict[str, Any]) -> bool:
    said: dict[str, Any] = {}
    return all(said.setdefault(todays_key(key), v) == v for key, v in leaves(data))


@settings(max_examples=300, deadline=None)
@given(data=OLD_FILES, in_part=st.sampled_from(["", "fixed", "grid"]))
def test_a_translation_says_what_was_said_at_the_line_where_it_was_said(
    data: dict[str, Any], in_part: str
) -> None:
    document = document_of({in_part: data} if in_part else data)
    before = copy.deepcopy(document.data)
    if not is_consistent(data):
        with pytest.raises(ConfigError, match="which means the same"):
            translate(document, parts=("fixed", "grid"))
        return
    translated = translate(document, parts=("fixed", "grid"))
    assert document.data == before
    now = translated.document
    found = now.data.get(in_part, {}) if in_part else now.data
    flat = {key: v for key, v in leaves(found) if not key.startswith("experiment.")}
    assert flat == {todays_key(key): value for key, value in leaves(data)}
    prefix = f"{in_part}." if in_part else ""
    for key in flat:
        said_at = {
            document.line(f"{prefix}{old}") for old, _ in leaves(data) if todays_key(old) == key
        }
        assert now.line(f"{prefix}{key}") in said_at
    assert bool(translated.notes) == any(todays_key(key) != key for key, _ in leaves(data))
    again = translate(now, parts=("fixed", "grid"))
    assert again.notes == ()
    assert again.document.data == now.data


def test_each_value_of_an_axis_in_old_words_is_at_its_own_line() -> None:
    text = "grid:\n  max_steps:\n    - 5\n    - 6\n"
    now = translate(parse_yaml(text, Path("old.yaml")), parts=("fixed", "grid")).document
    assert now.line("grid.simulation.max_steps[1]") == 4


@given(key=st.lists(st.sampled_from(["env", "model", "max_steps", "a", "b[0]"]), min_size=1))
def test_a_key_of_today_stays(key: list[str]) -> None:
    today = todays_key(".".join(key))
    assert todays_key(today) == today


def test_no_key_that_is_left_out_is_a_setting_of_today() -> None:
    schema = dict(
        leaves(load_phase(ROOT / "configs/base.yaml", workload_named=workload_named).base)
    )
    assert not [key for key in schema if key.startswith(NEVER_ACTED)]
    assert not [key for key in schema if key.split(".")[0] in RENAMED]


# the whole program


def test_an_old_file_is_planned_and_played_by_the_plain_commands(tmp_path: Path) -> None:
    (tmp_path / "configs" / "phases").mkdir(parents=True)
    (tmp_path / "configs" / "base.yaml").write_text(BASE)
    phase = tmp_path / "configs" / "phases" / "phase3_small_models.yaml"
    phase.write_text(OLDER_PHASE_3)
    given = (
        "--config",
        str(phase),
        "agent.kind=heuristic",
        "experiment.replications=1",
        "max_steps_by_level=null",
        "env.max_steps=30",
    )
    planned = vendomini("plan", *given, "--json", cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert plan["runs"] == 36
    assert any("`env.*` means `simulation.*`" in note for note in plan["notes"])
    assert any(note.startswith("acts here") for note in plan["notes"])
    played = vendomini("run", *given, "--limit", "6", "--json", cwd=tmp_path)
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["runs"]["done"] == 6
    assert "`env.*` means `simulation.*`" in played.stderr
    # What was kept of the phase is in today's words, and is the same phase.
    kept = tmp_path / "experiments" / "phase3_small_models" / "phase.yaml"
    old = load_phase(phase, given[2:], workload_named=workload_named)
    assert load_phase(kept, workload_named=workload_named) == old
    assert not load_phase(kept, workload_named=workload_named).notes


def test_a_layout_that_was_never_read_ends_with_one_error_and_nothing_written(
    tmp_path: Path,
) -> None:
    (tmp_path / "local_test.yaml").write_text(LOCAL_TEST)
    done = vendomini("run", "--config", "local_test.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "local_test.yaml, line 2: there is no setting `environment`" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["local_test.yaml"]
