"""The phase files that are shipped: each loads, counts and says what the study means by it."""

from importlib.resources import files
from pathlib import Path

import pytest

from vendomini.config import Phase, expand, load_phase
from vendomini.phase import setting, settings_of
from vendomini.schema import setting_keys
from vendomini.serving import EngineSettings
from vendomini.workloads.registry import workload_named
from vendomini.yamlfile import load_yaml

CONFIGS = Path(__file__).parent.parent / "configs"
COUNTS = {
    "phase1_core_hypothesis": 1320,
    "phase1_small_models": 660,
    "phase1_large_models": 660,
    "phase2_pe_type": 4950,
    "phase2_small_models": 2475,
    "phase2_large_models": 3300,
    "phase3_complexity": 1980,
    "phase3_small_models": 990,
    "phase3_large_models": 1320,
    "phase4_model_arch": 990,
    "phase4_small_models": 495,
    "phase4_large_models": 660,
    "phase5_long_horizon": 1320,
    "phase5_small_models": 660,
    "phase5_large_models": 880,
}
MODELS = {
    "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "deepseek-ai/DeepSeek-V2.5",
    "meta-llama/Llama-3.1-8B-Instruct",
    "allenai/OLMo-2-1124-13B-Instruct",
    "Qwen/Qwen3-32B",
    "deepseek-ai/deepseek-llm-7b-chat",
    "meta-llama/Llama-3.3-70B-Instruct",
    "openai/gpt-oss-20b",
    "Qwen/Qwen2.5-72B-Instruct",
}


def phase_of(name: str) -> Phase:
    return load_phase(CONFIGS / f"{name}.yaml", workload_named=workload_named)


def test_the_table_above_names_every_shipped_phase_file() -> None:
    assert {path.stem for path in (CONFIGS / "phases").glob("*.yaml")} == set(COUNTS)


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_a_phase_file_has_the_runs_of_the_study(name: str) -> None:
    phase = phase_of(f"phases/{name}")
    runs = expand(phase)
    assert phase.run_count == len(runs) == len({run.id for run in runs}) == COUNTS[name]
    assert phase.experiment.name == name
    assert phase.experiment.phase == int(name[5])
    assert phase.experiment.description
    assert phase.notes == ()
    axes = dict(phase.axes)
    assert set(axes["agent.model.name"]) <= MODELS
    assert axes["pe_induction.p_shock"] == tuple(tenths / 10 for tenths in range(11))
    workload = workload_named(phase.workload)
    for run in runs[:: len(runs) // 20]:
        workload.check(settings_of(run.settings, workload.settings_type))


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_a_phase_file_says_only_what_it_changes_from_the_base(name: str) -> None:
    document = load_yaml(CONFIGS / "phases" / f"{name}.yaml")
    assert document.data["inherit"] == "../base.yaml"
    assert set(document.data) <= {"inherit", "experiment", "fixed", "grid", "max_steps_by_level"}


def test_phase_3_gives_harder_worlds_more_days() -> None:
    runs = expand(phase_of("phases/phase3_small_models"))
    level, steps = "simulation.complexity_level", "simulation.max_steps"
    found = {(setting(run.settings, level), setting(run.settings, steps)) for run in runs}
    assert found == {(1, 500), (2, 1000), (3, 2500)}


def test_phase_5_says_how_many_days_it_has_by_a_reference() -> None:
    for name in ("phase5_long_horizon", "phase5_small_models", "phase5_large_models"):
        phase = phase_of(f"phases/{name}")
        assert "over 5000 days" in phase.experiment.description
        file = load_yaml(CONFIGS / "phases" / f"{name}.yaml")
        assert "${simulation.max_steps}" in file.data["experiment"]["description"]


def test_a_shared_cell_is_one_run_in_every_phase_file_that_has_it() -> None:
    core, small = (
        expand(phase_of(f"phases/phase1_{n}")) for n in ("core_hypothesis", "small_models")
    )
    assert {run.id for run in small} < {run.id for run in core}


def test_the_base_file_states_every_setting_with_its_default() -> None:
    warehouse = workload_named("warehouse")
    settings_type = warehouse.settings_type
    assert warehouse.base_file is not None
    document = load_yaml(warehouse.base_file)
    unstated = [key for key in setting_keys(settings_type) if document.line(key) is None]
    assert unstated == []
    phase = phase_of("base")
    assert settings_of(phase.base, settings_type) == settings_type()


def test_what_every_workload_inherits_states_every_setting_of_the_engine() -> None:
    document = load_yaml(Path(str(files("vendomini.data") / "base.yaml")))
    assert set(document.data["engine"]) == set(setting_keys(EngineSettings))
    assert EngineSettings(**document.data["engine"]) == EngineSettings()


@pytest.mark.parametrize("word", ["../base.yaml", "warehouse"])
def test_the_warehouse_is_inherited_by_its_file_or_by_its_name(tmp_path: Path, word: str) -> None:
    (tmp_path / "phases").mkdir()
    (tmp_path / "base.yaml").write_text("inherit: warehouse\n")
    file = tmp_path / "phases" / "mine.yaml"
    file.write_text(f"inherit: {word}\nexperiment: {{name: mine}}\n")
    phase = load_phase(file, workload_named=workload_named)
    usual = phase_of("base")
    assert {**phase.base, "experiment": None} == {**usual.base, "experiment": None}


def test_a_file_beside_the_phase_wins_over_what_is_shipped_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("inherit: warehouse\nsimulation: {max_steps: 7}\n")
    file = tmp_path / "mine.yaml"
    file.write_text("inherit: base\n")
    phase = load_phase(file, workload_named=workload_named)
    assert setting(phase.base, "simulation.max_steps") == 7


def test_the_demo_is_30_short_runs_without_a_model() -> None:
    runs = expand(phase_of("demo"))
    assert len(runs) == 30
    assert {setting(run.settings, "agent.kind") for run in runs} == {"heuristic"}
    assert {setting(run.settings, "simulation.max_steps") for run in runs} == {120}
