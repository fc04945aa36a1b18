"""From a phase file to how its engines are opened: backend, GPUs, environment, window."""

import json
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.model_folders import hub_snapshot, model_folder
from tests.stranger_engines import FORK
from vendomini import shipped
from vendomini.cluster import EngineEnvironment, Profile, ResourceRule, Resources
from vendomini.config import expand, load_phase
from vendomini.engines.commands import engine_command
from vendomini.engines.gpus import visible_gpus
from vendomini.errors import ConfigError, PlanError
from vendomini.hardware import gpu_named
from vendomini.identity import model_identity, run_id
from vendomini.looking.prepared import Prepared, Request, prepare
from vendomini.models import ModelFacts, read_model
from vendomini.models.lookup import model_spec
from vendomini.phase import pin_key, setting, settings_of
from vendomini.planner.pool import Pool
from vendomini.prepare import EngineFacts, GroupPlan, Plan, make_plan, refuse_missing
from vendomini.serving import EngineSpec
from vendomini.store.experiment import Experiment
from vendomini.store.measurements import Measured, add_measurement
from vendomini.store.records import Pin, encode
from vendomini.submit import job_for, one_model_at_a_time
from vendomini.workloads.registry import workload_named

BASE = Path(__file__).parent.parent / "configs" / "base.yaml"
WAREHOUSE = workload_named("warehouse")
CPU = Resources(gpus=0, cpus=1, memory_gb=2, minutes=60, workers=3)
HERE = "here/python"
HF = frozenset({"torch", "transformers", "xgrammar", "vendomini"})
VLLM = frozenset({"vllm"})


def facts(*packages: frozenset[str], **changes: Any) -> EngineFacts:
    """What is known where the workers' interpreter has these packages."""
    has = frozenset[str]().union(*packages)
    return EngineFacts(**{"python": HERE, "packages": {HERE: has}, **changes})


def site(gpus: int, **engines: EngineEnvironment) -> Profile:
    given = Resources(gpus=gpus, cpus=8, memory_gb=48, minutes=240, workers=2)
    rule = ResourceRule(model="*", resources=given)
    return Profile(name="site", engineless=CPU, resources=(rule,), engines=engines)


def plan_of(
    *overrides: str,
    known: EngineFacts,
    profile: Profile | None = None,
    local_workers: int = 1,
    is_preregistered: bool = False,
) -> Plan:
    settings = ("agent.model.context_length=4096", *overrides)
    phase = load_phase(BASE, settings, workload_named=workload_named)
    return make_plan(
        expand(phase),
        WAREHOUSE,
        name="p",
        phase=None,
        profile=profile,
        local_workers=local_workers,
        facts=known,
        is_preregistered=is_preregistered,
    )


def group_of(*overrides: str, known: EngineFacts, **others: Any) -> GroupPlan:
    (group,) = plan_of(*overrides, known=known, **others).groups
    return group


def spec_of(*overrides: str, known: EngineFacts, **others: Any) -> EngineSpec:
    spec = group_of(*overrides, known=known, **others).spec
    assert spec is not None
    return spec


# -- which backend ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "backend", "why"),
    [
        ((VLLM, HF), "vllm", "backend `vllm`: its packages are in `here/python`"),
        ((HF,), "hf", "not `vllm`: no `vllm` in `here/python`"),
        ((), None, "not `hf`: no `torch`, `transformers`, `xgrammar`, `vendomini` in"),
    ],
)
def test_auto_takes_vllm_where_it_is_else_transformers(
    installed: Sequence[frozenset[str]], backend: str | None, why: str
) -> None:
    group = group_of(known=facts(*installed))
    assert group.backend == backend
    assert (group.spec is None) == (backend is None)
    assert why in "\n".join(group.reasons)


def test_auto_keeps_what_gave_the_first_reply() -> None:
    key = group_of(known=facts()).key
    pin = Pin(backend="hf", dtype=None, quantization=None)
    known = facts(VLLM, HF, pins={pin_key(key): pin})
    group = group_of(known=known)
    assert group.backend == "hf"
    assert "it gave this group its first reply" in group.reasons[0]


def test_memory_that_is_taken_just_now_refuses_no_group_that_was_served_before(
    tmp_path: Path,
) -> None:
    """It may be this group's own workers who take it."""
    name = str(model_folder(tmp_path / "m"))
    model = f"agent.model.name={name}"
    sizes = {(name, None): model_spec(name)}
    known = facts(HF, sizes=sizes, available_bytes=1 << 20)
    with pytest.raises(PlanError, match="one conversation of model"):
        group_of(model, known=known)
    pin = Pin(backend="hf", dtype=None, quantization=None)
    key = group_of(model, known=facts(HF)).key
    group = group_of(model, known=replace(known, pins={pin_key(key): pin}))
    assert "this group has been served all the same" in "\n".join(group.reasons)


def test_an_interpreter_that_cannot_be_asked_decides_nothing() -> None:
    known = EngineFacts(python="elsewhere/python")
    assert group_of(known=known, profile=site(1)).backend is None
    named = site(1, vllm=EngineEnvironment(python="/opt/vllm/bin/python"))
    assert spec_of(known=known, profile=named).settings.python == "/opt/vllm/bin/python"


def test_what_is_not_installed_is_refused_when_it_is_to_be_played() -> None:
    for overrides, missing, hint in (
        ((), "neither vLLM nor transformers is in `here/python`", "vendomini[hf]"),
        (("engine.backend=vllm",), "backend `vllm` needs `vllm`", "engine.python=PATH"),
        (("engine.backend=hf",), "backend `hf` needs `torch`", 'pip install "vendomini[hf]"'),
    ):
        plan = plan_of(*overrides, known=facts())
        with pytest.raises(ConfigError, match=missing) as caught:
            refuse_missing(plan, profile=None, facts=facts())
        assert hint in caught.value.hint


def test_a_remote_interpreter_is_for_the_worker_to_judge() -> None:
    asked = ("engine.backend=vllm", "engine.python=/elsewhere/python")
    plan = plan_of(*asked, known=facts(), profile=site(1))
    refuse_missing(plan, profile=site(1), facts=facts())


# -- its environment --------------------------------------------------------------------------


def test_the_phases_environment_wins_over_the_profiles() -> None:
    own = site(
        1,
        vllm=EngineEnvironment(container="/site.sif", python="python3"),
        hf=EngineEnvironment(python="/site/python"),
    )
    spec = spec_of("engine.backend=vllm", known=facts(), profile=own)
    assert (spec.settings.container, spec.settings.python) == ("/site.sif", "python3")
    assert (
        spec_of("engine.backend=hf", known=facts(), profile=own).settings.python == "/site/python"
    )
    spec = spec_of("engine.backend=vllm", "engine.python=/mine", known=facts(), profile=own)
    assert (spec.settings.container, spec.settings.python) == (None, "/mine")
    image = ("engine.backend=hf", "engine.container=docker://hf")
    spec = spec_of(*image, known=facts(), profile=own)
    assert (spec.settings.container, spec.settings.python) == ("docker://hf", None)


def test_an_interpreter_is_found_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = spec_of("engine.backend=vllm", "engine.python=env/bin/python", known=facts())
    assert spec.settings.python == str(tmp_path / "env/bin/python")


def test_every_setting_of_an_engine_reaches_its_spec() -> None:
    settings: dict[str, Any] = {
        "dtype": "float32",
        "quantization": "fp8",
        "device": "cpu",
        "max_model_len": 8192,
        "concurrency": 300,
        "gpu_memory_utilization": 0.5,
        "kv_cache_memory_bytes": 1 << 26,
        "block_size": 32,
        "enable_prefix_caching": False,
        "enforce_eager": True,
        "start_timeout_s": 10.0,
        "request_timeout_s": 20.0,
    }
    words = [f"engine.{name}={json.dumps(value)}" for name, value in settings.items()]
    spec = spec_of("engine.backend=vllm", *words, known=facts())
    assert {name: getattr(spec.settings, name) for name in settings} == settings
    spec = spec_of("engine.backend=hf", "engine.attn_implementation=eager", known=facts())
    assert spec.settings.attn_implementation == "eager"
    spec = spec_of("engine.backend=openai", "engine.base_url=http://h/v1", known=facts())
    assert spec.settings.base_url == "http://h/v1"


def test_an_engine_holds_the_longest_window_of_its_runs_unless_it_is_told_more() -> None:
    axis = ("grid.agent.model.context_length=[4096, 6000]", "engine.backend=hf")
    group = group_of(*axis, known=facts())
    assert group.spec is not None
    assert (group.spec.settings.max_model_len, group.context_length) == (6000, 6000)
    assert spec_of(*axis, "engine.max_model_len=7000", known=facts()).settings.max_model_len == 7000


def test_an_engine_is_told_of_thinking_if_a_run_asks_for_it() -> None:
    axis = "grid.agent.model.thinking=[default, 'on']"
    assert spec_of(axis, "engine.backend=hf", known=facts()).thinking
    assert not spec_of("agent.model.thinking='off'", "engine.backend=hf", known=facts()).thinking


# -- its GPUs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "gpus", "shape"),
    [
        ((), 4, (4, 4, 1)),
        (("engine.pipeline_parallel_size=2",), 4, (4, 2, 2)),
        (("engine.tensor_parallel_size=2", "engine.pipeline_parallel_size=2"), 4, (4, 2, 2)),
        ((), 0, (0, 1, 1)),
        (("engine.tensor_parallel_size=2",), 0, (0, 2, 1)),
    ],
)
def test_vllm_spreads_over_the_gpus_of_its_rule(
    overrides: Sequence[str], gpus: int, shape: tuple[int, int, int]
) -> None:
    spec = spec_of("engine.backend=vllm", *overrides, known=facts(), profile=site(gpus))
    assert (
        spec.gpus,
        spec.settings.tensor_parallel_size,
        spec.settings.pipeline_parallel_size,
    ) == shape


def test_as_many_jobs_fit_a_small_node_as_it_has_gpus() -> None:
    nodes = Pool(gpu=gpu_named("T4"), gpus_per_node=4, nodes=2, cpus=16, memory_gb=64)
    name = "Qwen/Qwen2.5-1.5B-Instruct"
    known = facts(VLLM, sizes={(name, None): model_spec(name)}, pools=(nodes,))
    asked = (f"agent.model.name={name}", "experiment.replications=400")
    (group,) = plan_of(*asked, known=known, profile=Profile(name="site", engineless=CPU)).groups
    assert group.resources is not None
    assert group.resources.gpus == 1
    assert 4 * group.resources.cpus <= nodes.cpus
    assert 4 * group.resources.memory_gb <= nodes.memory_gb


def test_sizes_that_do_not_use_the_rules_gpus_are_refused() -> None:
    asked = ("engine.backend=vllm", "engine.tensor_parallel_size=2")
    with pytest.raises(ConfigError, match=r"is `2` GPUs, but the profile's rule gives .* `4`"):
        plan_of(*asked, known=facts(), profile=site(4))


def test_the_rules_gpus_must_divide_the_models_heads(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model", num_attention_heads=6)
    known = facts(models={(str(folder), None): read_model(folder)})
    asked = ("engine.backend=vllm", f"agent.model.name={folder}")
    assert spec_of(*asked, known=known, profile=site(3)).settings.tensor_parallel_size == 3
    with pytest.raises(ConfigError, match="is `4`, which does not divide the `6`") as caught:
        plan_of(*asked, known=known, profile=site(4))
    assert "1, 2, 3, 6" in caught.value.hint


def test_transformers_gets_the_rules_gpus_without_parallelism() -> None:
    spec = spec_of("engine.backend=hf", known=facts(), profile=site(2))
    assert (spec.gpus, spec.settings.tensor_parallel_size) == (2, 1)


def test_local_workers_share_the_machines_gpus() -> None:
    asked = ("engine.backend=vllm", "engine.tensor_parallel_size=2", "experiment.replications=9")
    group = group_of(*asked, known=facts(VLLM, gpus=5), local_workers=4)
    assert group.spec is not None
    assert (group.spec.gpus, group.workers) == (2, 2)
    reasons = "\n".join(group.reasons)
    assert "each worker has 2 GPUs of the 5 of this machine" in reasons
    assert "only 2 of 4 workers" in reasons
    with pytest.raises(ConfigError, match="`2` GPUs, but this machine has `1`"):
        plan_of(*asked, known=facts(VLLM, gpus=1))


def test_without_a_gpu_an_engine_runs_on_the_cpu_and_says_so() -> None:
    group = group_of("engine.backend=hf", known=facts(HF), local_workers=2)
    assert "the engine runs on the CPU: this machine has no GPU" in group.reasons
    told = group_of("engine.backend=hf", "engine.device=cpu", known=facts(HF, gpus=4))
    assert "the engine runs on the CPU: as `engine.device` says" in told.reasons
    assert told.spec is not None
    assert told.spec.gpus == 0
    for profile, why in ((None, "this machine has no GPU"), (site(0), "asks for no GPU")):
        with pytest.raises(ConfigError, match=why):
            plan_of("engine.backend=hf", "engine.device=cuda", known=facts(), profile=profile)


def test_a_model_that_is_served_elsewhere_books_no_gpu() -> None:
    asked = ("engine.backend=openai", "engine.base_url=http://h/v1")
    group = group_of(*asked, known=facts(), profile=site(4))
    assert (group.resources, group.gpu_hours) == (CPU, 0)
    assert "http://h/v1" in group.reasons[0]


def test_groups_that_load_a_model_are_played_here_one_after_another() -> None:
    plan = plan_of("grid.agent.model.name=[a/b, a/c]", "engine.backend=hf", known=facts())
    assert [[group.key for group in part.groups] for part in one_model_at_a_time(plan)] == [
        ["a/b"],
        ["a/c"],
    ]
    mixed = plan_of(
        "grid.agent.kind=[heuristic, probe]",
        "grid.engine.backend=[scripted, hf]",
        known=facts(),
    )
    parts = one_model_at_a_time(mixed)
    assert [len(part.groups) for part in parts] == [2, 1]


def test_the_gpus_of_this_machine_are_the_callers_or_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-5f"}) == ("3", "GPU-5f")
    for nothing in ("", "-1", "NoDevFiles"):
        assert visible_gpus({"CUDA_VISIBLE_DEVICES": nothing}) == ()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus({}) == ()
    listing = "GPU 0: A100 (UUID: x)\n  MIG 1g.5gb Device 0: (UUID: y)\nGPU 1: A100 (UUID: z)"
    program(tmp_path / "nvidia-smi", f"echo '{listing}'")
    assert visible_gpus({}) == ("0", "1")
    program(tmp_path / "nvidia-smi", "exit 9")
    assert visible_gpus({}) == ()


# -- what a conversation needs ----------------------------------------------------------------


def test_a_job_knows_how_long_a_conversation_gets_and_how_many_there_are_at_most() -> None:
    asked = ("engine.backend=hf", "simulation.max_steps=5", "agent.interface.beliefs_every=null")
    group = group_of(*asked, "agent.model.context_length=100000", known=facts())
    demand = WAREHOUSE.demand(settings_typed(*asked))
    assert demand is not None
    grown = demand.prefix_tokens + demand.requests * demand.growth_tokens
    assert group.conversation_tokens == grown
    long = group_of("engine.backend=hf", known=facts())
    assert (long.conversation_tokens, long.concurrency) == (4096, None)
    experiment = Experiment(Path("nowhere"))
    job = job_for(experiment, long, submission="s", profile=None, only=None)
    assert (job.conversation_tokens, job.concurrency) == (4096, 256)
    few = group_of("engine.backend=hf", "engine.concurrency=3", known=facts())
    assert job_for(experiment, few, submission="s", profile=None, only=None).concurrency == 3


def settings_typed(*overrides: str) -> Any:
    phase = load_phase(BASE, overrides, workload_named=workload_named)
    return settings_of(expand(phase)[0].settings, WAREHOUSE.settings_type)


# -- the window of all models -----------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub; the current directory is empty too, and there is no GPU."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path / "hub"


def prepared(
    *overrides: str, cluster: bool = False, config: Path = BASE, only_plan: bool = False
) -> Prepared:
    return prepare(
        Request(
            config=config,
            overrides=overrides,
            cluster=cluster,
            profile=None,
            root=Path("experiments"),
            limit=None,
            n_jobs=1,
            restart_groups=(),
        ),
        only_plan=only_plan,
    )


def windows(found: Prepared) -> set[Any]:
    return {setting(run.settings, "agent.model.context_length") for run in found.every_run}


def test_auto_is_the_largest_window_that_all_models_share(cache: Path) -> None:
    model_folder(hub_snapshot(cache, "org/long"), max_position_embeddings=9000)
    model_folder(hub_snapshot(cache, "org/short"), max_position_embeddings=5000)
    found = prepared("grid.agent.model.name=[org/long, org/short]", "engine.backend=hf")
    assert windows(found) == {5000}
    assert found.plan.notes[0] == (
        "agent.model.context_length: auto is 5000 tokens, the largest window that all models of "
        "this phase share (set by org/short)"
    )
    assert {group.max_model_len for group in found.plan.groups} == {5000}


def test_a_run_is_named_by_the_windows_tokens_and_not_by_the_word(cache: Path) -> None:
    model_folder(hub_snapshot(cache, "org/short"), max_position_embeddings=5000)
    asked = ("agent.model.name=org/short", "engine.backend=hf")
    ids = [run.id for run in prepared(*asked).every_run]
    assert ids == [run.id for run in prepared(*asked, "agent.model.context_length=5000").every_run]
    assert ids == [
        run_id(
            workload="warehouse",
            workload_version=WAREHOUSE.version,
            seed=0,
            replication=0,
            model=model_identity("org/short", None),
            settings={"agent.model.context_length": 5000},
        )
    ]


def test_a_run_that_never_asks_a_model_is_named_as_ever(cache: Path) -> None:
    model_folder(hub_snapshot(cache, "org/short"))
    name = "agent.model.name=org/short"
    both = prepared(name, "grid.agent.kind=[heuristic, llm]", "engine.backend=hf")
    heuristic, llm = both.every_run
    (alone,) = prepared(name, "grid.agent.kind=[heuristic]").every_run
    assert heuristic.id == alone.id
    assert setting(heuristic.settings, "agent.model.context_length") == "auto"
    assert setting(llm.settings, "agent.model.context_length") == 8192


@pytest.mark.parametrize("rest", ["absent", "incomplete", "says nothing"])
def test_the_word_stays_while_a_model_is_not_known_here(cache: Path, rest: str) -> None:
    model_folder(hub_snapshot(cache, "org/known"))
    if rest != "absent":
        sizes: dict[str, Any] = {"max_position_embeddings": None}
        other = model_folder(hub_snapshot(cache, "org/other"), **sizes)
        if rest == "incomplete":
            (other / "model.safetensors").unlink()
    found = prepared("grid.agent.model.name=[org/known, org/other]", "engine.backend=hf")
    assert windows(found) == {"auto"}
    said = "\n".join(found.plan.notes)
    assert ("will download it: org/other" in said) == (rest != "says nothing")


def test_a_plain_folder_of_the_cache_is_opened_as_a_folder(cache: Path) -> None:
    folder = model_folder(cache / "org--name")
    (group,) = prepared("agent.model.name=org/name", "engine.backend=hf").plan.groups
    assert group.spec is not None
    assert (group.key, group.spec.model) == ("org/name", str(folder))


def test_a_model_that_may_not_be_downloaded_must_be_there(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="`org/name` is not in the hub's cache"):
        prepared("agent.model.name=org/name", "engine.backend=hf")
    prepared("agent.model.name=org/name", "agent.kind=heuristic")


@pytest.mark.parametrize(
    "phase", [name for name in shipped.phases() if not name.startswith("demo")]
)
def test_offline_a_shipped_phase_is_planned_and_what_is_missing_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    file = shipped.phases()[phase]
    plan = prepared(config=file, only_plan=True).plan
    models = {group.model for group in plan.groups if group.loads_model}
    assert models
    for model in models:
        assert any(note.startswith(f"model `{model}` is not on this") for note in plan.notes)
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE forbids"):
        prepared(config=file)


def test_a_name_that_nobody_knows_is_the_first_thing_that_is_said(cache: Path) -> None:
    def first_note(name: str) -> str:
        overrides = (f"agent.model.name={name}", "engine.backend=hf")
        return prepared(*overrides, only_plan=True).plan.notes[0]

    said = (
        "model `Qwen/Qwen3-33B` is neither on this machine nor in the catalogue, and its sizes are "
        "a guess at best: did you mean `Qwen/Qwen3-32B`"
    )
    assert first_note("Qwen/Qwen3-33B").startswith(said)
    assert "catalogue" not in first_note("Qwen/Qwen3-32B")
    # A worker has served it: it is somewhere.
    folder = Path("experiments/base")
    folder.mkdir(parents=True)
    add_measurement(folder, served("Qwen/Qwen3-33B"))
    assert "catalogue" not in first_note("Qwen/Qwen3-33B")


def served(model: str) -> Measured:
    return Measured(
        model=model,
        backend="hf",
        gpu=None,
        requests=1,
        tokens_in=1,
        tokens_out=1,
        tokens_cached=0,
        seconds=1.0,
        concurrency=1.0,
        context=1.0,
        startup_s=1.0,
        ended="2026-01-01T00:00:00+00:00",
    )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("agent.model.name=Qwen/Qwen3-32", "the `heuristic` agent never asks a model"),
        ("engine.concurrency=7", "the `heuristic` agent never asks a model"),
    ],
)
def test_an_override_that_does_nothing_is_said(cache: Path, override: str, said: str) -> None:
    notes = prepared("agent.kind=heuristic", override).plan.notes
    key = override.partition("=")[0]
    assert f"`{key}` does nothing here: {said}" in notes
    scripted = ("grid.agent.kind=[heuristic, llm]", "engine.backend=scripted")
    both = prepared(*scripted, override).plan.notes
    assert not any(f"`{key}` does nothing here" in note for note in both)


def test_a_window_that_a_new_model_changes_is_said(cache: Path) -> None:
    model_folder(hub_snapshot(cache, "org/long"), max_position_embeddings=9000)
    model_folder(hub_snapshot(cache, "org/short"), max_position_embeddings=5000)
    first = prepared("agent.model.name=org/long", "engine.backend=hf")
    assert not any("was" in note for note in first.plan.notes)
    Experiment(Path("experiments/base")).extend(first.text, first.every_run)
    again = prepared("agent.model.name=org/long", "engine.backend=hf")
    assert not any("was" in note for note in again.plan.notes)
    more = prepared("grid.agent.model.name=[org/long, org/short]", "engine.backend=hf")
    (said,) = (note for note in more.plan.notes if "was" in note)
    assert said.startswith(
        "agent.model.context_length: auto is 5000 and was 9000 in the runs there; adding "
        "org/short makes them other runs"
    )


# -- what this machine is asked ---------------------------------------------------------------


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def known_model(cache: Path) -> ModelFacts:
    return read_model(model_folder(hub_snapshot(cache, "org/name")))


def test_each_interpreter_is_asked_what_it_has(cache: Path, tmp_path: Path) -> None:
    known_model(cache)
    python = program(tmp_path / "python", "echo vllm")
    name = "agent.model.name=org/name"
    (group,) = prepared(name, f"engine.python={python}").plan.groups
    assert (group.backend, group.spec and group.spec.settings.python) == ("vllm", str(python))
    bare = program(tmp_path / "bare", "exit 0")
    (group,) = prepared(name, f"engine.python={bare}").plan.groups
    assert group.backend is None
    assert f"not `vllm`: no `vllm` in `{bare}`" in group.reasons


def test_an_interpreter_that_does_not_work_is_refused_with_its_words(
    cache: Path, tmp_path: Path
) -> None:
    known_model(cache)
    name = "agent.model.name=org/name"
    broken = program(tmp_path / "python", "echo 'libc is missing' >&2; exit 127")
    with pytest.raises(ConfigError, match="no Python that works: libc is missing"):
        prepared(name, f"engine.python={broken}")
    with pytest.raises(ConfigError, match=r"`engine.python` is `.*/gone`, which is no program"):
        prepared(name, f"engine.python={tmp_path / 'gone'}")
    prepared(name, f"engine.python={broken}", "agent.kind=heuristic")


def test_a_real_interpreter_says_what_it_has_without_loading_it(
    cache: Path, tmp_path: Path
) -> None:
    known_model(cache)
    packages = tmp_path / "packages"
    for name, text in (("vllm", "raise SystemExit('loaded')"), ("torch", "")):
        (packages / name).mkdir(parents=True)
        (packages / name / "__init__.py").write_text(text)
    (packages / "transformers").mkdir()  # what an uninstalled package may leave
    other = program(tmp_path / "python", f'PYTHONPATH={packages} exec {sys.executable} -S "$@"')
    found = prepared("agent.model.name=org/name", f"engine.python={other}").facts
    assert found.packages[str(other)] == {"vllm", "torch"}


def test_a_container_needs_a_program_that_runs_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_model(cache)
    image = tmp_path / "vllm.sif"
    asked = ("agent.model.name=org/name", "engine.backend=vllm", f"engine.container={image}")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="neither apptainer nor singularity"):
        prepared(*asked)
    prepared(*asked[:2], "agent.model.name=org/name")
    program(tmp_path / "singularity", "exit 0")
    with pytest.raises(ConfigError, match="there is no such file"):
        prepared(*asked)
    image.touch()
    (group,) = prepared(*asked).plan.groups
    assert group.spec is not None
    assert group.spec.settings.container == str(image)


def test_the_engine_that_served_a_group_is_known_from_its_pin(cache: Path) -> None:
    known_model(cache)
    name = "agent.model.name=org/name"
    first = prepared(name)
    experiment = Experiment(Path("experiments/base"))
    experiment.extend(first.text, first.every_run)
    pin = Pin(backend="vllm", dtype=None, quantization=None)
    experiment.path("pins", f"{pin_key('org/name')}.json").write_bytes(encode(pin))
    (group,) = prepared(name).plan.groups
    assert group.backend == "vllm"
    assert os.listdir("experiments") == ["base"]


# -- engines of others ------------------------------------------------------------------------


def test_an_engine_of_others_is_planned_as_the_one_that_it_is_like() -> None:
    name = "meta-llama/Llama-3.3-70B-Instruct"
    nodes = Pool(
        gpu=gpu_named("H100"), gpus_per_node=8, nodes=2, gpu_type="h100", cpus=64, memory_gb=512
    )
    known = facts(VLLM, sizes={(name, None): model_spec(name)}, pools=(nodes,))
    own, theirs = (
        group_of(f"agent.model.name={name}", f"engine.backend={backend}", known=known)
        for backend in ("vllm", FORK)
    )
    assert own.spec is not None
    assert theirs.spec is not None
    assert theirs.backend == FORK
    assert theirs.spec.settings.tensor_parallel_size == own.spec.settings.tensor_parallel_size
    assert theirs.gpu_hours == own.gpu_hours
    reasons = "\n".join(theirs.reasons)
    assert f"`engine.backend` is `{FORK}`, planned as vllm" in reasons
    assert "cannot be played as it is: no `fork_of_vllm` in `here/python`" in reasons
    assert f"if `{FORK}` cannot start, the worker fails: `hf` cannot take its place: no " in reasons


def test_an_engine_of_others_that_gave_the_first_reply_goes_on_with_its_group() -> None:
    name = "meta-llama/Llama-3.3-70B-Instruct"
    nodes = Pool(gpu=gpu_named("H100"), gpus_per_node=8, nodes=2, cpus=64, memory_gb=512)
    known = facts(VLLM, HF, sizes={(name, None): model_spec(name)}, pools=(nodes,))
    key = group_of(f"agent.model.name={name}", known=known).key
    pin = Pin(backend=FORK, dtype=None, quantization=None)
    known = replace(known, pins={pin_key(key): pin})
    group = group_of(f"agent.model.name={name}", known=known)
    assert group.backend == FORK
    assert f"`{FORK}` gave this group its first reply, planned as vllm" in "\n".join(group.reasons)


def test_an_engine_without_gpus_carries_none(tmp_path: Path) -> None:
    spec = spec_of("engine.backend=scripted", "engine.gpus=2", known=facts())
    assert spec.gpus == 0


def test_the_command_of_an_engine_of_others_is_its_own() -> None:
    spec = spec_of(f"engine.backend={FORK}", "engine.python=/theirs", known=facts())
    command = engine_command(spec, device="cpu", socket=Path("s"), key="k")
    assert command.argv[0] == "/theirs"
