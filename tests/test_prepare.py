"""Runs and a profile in, a plan with its reasons out."""

from pathlib import Path
from typing import Any

import pytest

from vendomini.cluster import Profile, ResourceRule, Resources
from vendomini.config import expand, load_phase
from vendomini.errors import ConfigError, PlanError
from vendomini.phase import ENGINELESS, pin_key
from vendomini.prepare import Plan, make_plan, plan_as_json, refuse_unplayable
from vendomini.workloads.registry import workload_named

CONFIGS = Path(__file__).parent.parent / "configs"
SMALL = CONFIGS / "phases" / "phase1_small_models.yaml"
WAREHOUSE = workload_named("warehouse")
CPU = Resources(gpus=0, cpus=1, memory_gb=2, minutes=60, workers=3)
GPU = Resources(gpus=1, cpus=8, memory_gb=48, minutes=240, workers=2, gpu_type="a100")


def profile_for(*patterns: str) -> Profile:
    rules = tuple(ResourceRule(model=pattern, resources=GPU) for pattern in patterns)
    return Profile(name="site", engineless=CPU, resources=rules)


def plan_of(*overrides: str, profile: Profile | None = None, path: Path = SMALL) -> Plan:
    phase = load_phase(path, overrides, workload_named=workload_named)
    return make_plan(
        expand(phase),
        WAREHOUSE,
        name=phase.experiment.name,
        phase=phase.experiment.phase,
        profile=profile,
        local_workers=2,
    )


def test_a_phase_has_a_group_for_each_model() -> None:
    plan = plan_of()
    assert [len(group.run_ids) for group in plan.groups] == [220, 220, 220]
    assert [group.model for group in plan.groups] == [
        "meta-llama/Llama-3.1-8B-Instruct",
        "allenai/OLMo-2-1124-13B-Instruct",
        "deepseek-ai/deepseek-llm-7b-chat",
    ]
    assert {run for group in plan.groups for run in group.run_ids} == set(
        run.id for run in expand(load_phase(SMALL, workload_named=workload_named))
    )


def test_a_model_and_a_script_are_not_answered_by_the_same_unless_somebody_says_what_it_is() -> (
    None
):
    mixed = ("grid.agent.kind=[probe, llm]", "agent.model.context_length=8192")
    with pytest.raises(ConfigError, match=r"some runs of group .* need a model and others"):
        plan_of(*mixed)
    groups = plan_of(*mixed, "engine.backend=scripted").groups
    assert {group.backend for group in groups} == {"scripted"}


def test_runs_that_never_ask_are_one_group_without_engine_or_gpu_whatever_their_model() -> None:
    plan = plan_of("agent.kind=heuristic", profile=profile_for())
    (group,) = plan.groups
    assert (group.key, len(group.run_ids), group.backend) == (ENGINELESS, 660, None)
    assert group.resources == CPU
    assert group.workers == 3
    assert "ask nothing" in group.reasons[0]


def test_resources_come_from_the_first_rule_that_matches_the_model() -> None:
    plan = plan_of(profile=profile_for("*Llama*", "*"))
    assert all(group.resources == GPU for group in plan.groups)
    assert "`*Llama*`" in plan.groups[0].reasons[0]
    assert "`*`" in plan.groups[1].reasons[0]


def test_a_model_without_a_rule_is_refused_with_the_rules_there_are() -> None:
    with pytest.raises(PlanError, match="no `resources` for model `allenai/OLMo-2") as caught:
        plan_of(profile=profile_for("*Llama*"))
    assert "`*Llama*`" in caught.value.hint


def test_axes_that_cannot_act_are_reported() -> None:
    notes = "\n".join(plan_of("agent.kind=heuristic").notes)
    assert "axis `agent.interface.prediction_mode` does nothing here" in notes
    assert "axis `agent.model.name` does nothing here" in notes
    assert "p_shock" not in notes


def test_engine_settings_tell_groups_apart_only_as_axes() -> None:
    plan = plan_of("grid.engine.dtype=[float16, bfloat16]", "agent.model.name=a/b")
    assert [(group.key, group.dtype) for group in plan.groups] == [
        ("a/b engine.dtype=float16", "float16"),
        ("a/b engine.dtype=bfloat16", "bfloat16"),
    ]
    assert len(plan_of("engine.dtype=float16", "agent.model.name=a/b").groups) == 1


def test_there_are_never_more_workers_than_runs() -> None:
    plan = plan_of(
        "agent.kind=heuristic",
        "agent.model.name=a/b",
        "pe_induction.p_shock=0.1",
        "pe_induction.pe_mag=low",
        "agent.interface.prediction_mode=required",
        "experiment.replications=1",
    )
    assert plan.runs == 1
    assert plan.groups[0].workers == 1


def test_values_that_are_impossible_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="initial_storage_per_sku"):
        plan_of("simulation.initial_storage_per_sku=400")


def test_a_language_model_needs_a_window_in_tokens_to_be_played() -> None:
    phase = load_phase(SMALL, ("engine.backend=vllm",), workload_named=workload_named)
    with pytest.raises(ConfigError, match=r"`agent.model.context_length` is `auto`") as caught:
        refuse_unplayable(plan_of(), expand(phase))
    assert "agent.model.context_length=8192" in caught.value.hint
    refuse_unplayable(plan_of(), expand(phase, window=8192))


def test_the_probe_gets_the_scripted_engine() -> None:
    (group, *_) = plan_of("agent.kind=probe", "engine.latency_s=0.5").groups
    assert group.spec is not None
    assert (group.backend, group.spec.settings.latency_s) == ("scripted", 0.5)


def test_json_has_null_where_nothing_is_known_yet() -> None:
    plan: dict[str, Any] = plan_as_json(plan_of())
    assert plan["runs"] == 660
    group = plan["groups"][0]
    for key in ("backend", "dtype", "gpus", "max_model_len", "gpu_hours", "wall_hours"):
        assert group[key] is None, key
    known: dict[str, Any] = plan_as_json(plan_of(profile=profile_for("*")))
    assert (known["groups"][0]["gpus"], known["groups"][0]["gpu_type"]) == (1, "a100")


def test_groups_have_different_file_names_for_their_pins() -> None:
    names = {pin_key(group) for group in ("a/b", "a_b", "a/b@main", "a/b" + "x" * 300)}
    assert len(names) == 4
    assert all("/" not in name and len(name) < 150 for name in names)
