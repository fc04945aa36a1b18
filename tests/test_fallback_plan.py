"""What a plan says of an engine that may not start: what takes its place, at what cost, or why
nothing does; and how a group goes on that another engine serves."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.product import ROOT, write_phase
from tests.stranger_engines import FAILING, Failing
from tests.test_engine_plan import HERE, HF, VLLM, facts, group_of, plan_of, site
from vendomini.cli.running import run
from vendomini.cluster import EngineEnvironment, Profile
from vendomini.collect import collect
from vendomini.config import load_phase
from vendomini.errors import ConfigError
from vendomini.hardware import gpu_named
from vendomini.looking.prepared import Request
from vendomini.models.lookup import model_spec
from vendomini.phase import pin_key
from vendomini.planner.pool import Pool
from vendomini.prepare import EngineFacts, GroupPlan, plan_as_json, refuse_missing
from vendomini.profile import load_profile
from vendomini.serving import EngineSpec
from vendomini.standing import fallbacks, status_of
from vendomini.store.experiment import Experiment
from vendomini.store.records import Pin
from vendomini.submit import job_for
from vendomini.worker.job import read_job, write_job
from vendomini.workloads.registry import workload_named

ASKS_VLLM = "engine.backend=vllm"
BASE = ROOT / "configs" / "base.yaml"
CAUSE = "CUDA out of memory"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
FEW = ("fixed.simulation.max_steps=4", f"agent.model.name={LLAMA}")
"""So little that what takes longer ends in the same time limit, too."""


def fallback_of(*overrides: str, known: EngineFacts, **others: Any) -> EngineSpec:
    group = group_of(ASKS_VLLM, *overrides, known=known, **others)
    assert group.fallback is not None, group.reasons
    return group.fallback


def last_reason(*overrides: str, known: EngineFacts, **others: Any) -> str:
    return group_of(ASKS_VLLM, *overrides, known=known, **others).reasons[-1]


def here(*packages: frozenset[str], gpu: str = "H100", **changes: Any) -> EngineFacts:
    """A machine with GPUs, on which the model's sizes are known."""
    pool = Pool(gpu=gpu_named(gpu), gpus_per_node=8, nodes=1, cpus=64, memory_gb=512)
    sizes = {(LLAMA, None): model_spec(LLAMA, environ={})}
    return facts(*packages, sizes=sizes, pools=(pool,), gpus=8, **changes)


def cluster(**changes: Any) -> tuple[EngineFacts, Profile]:
    profile = replace(load_profile(ROOT / "slurm" / "h100.yaml"), **changes)
    return here(VLLM, HF), profile


# -- whether another may serve ----------------------------------------------------------------


def test_vllm_is_replaced_by_transformers_and_the_plan_says_so() -> None:
    group = group_of(ASKS_VLLM, known=facts(VLLM, HF))
    assert group.settings.on_failure == "fallback"
    assert group.fallback is not None
    assert group.fallback.backend == "hf"
    assert group.reasons[-1] == (
        "if `vllm` cannot start: `hf` in its place, at a cost that is not known"
    )


@pytest.mark.parametrize(
    ("overrides", "is_preregistered", "why"),
    [
        (("engine.on_failure=fail",), False, "`engine.on_failure` is `fail`"),
        ((), True, "the phase names a preregistration"),
        (("engine.on_failure=fallback",), True, None),
        ((), False, None),
    ],
)
def test_nothing_takes_its_place_where_the_phase_says_so(
    overrides: tuple[str, ...], is_preregistered: bool, why: str | None
) -> None:
    group = group_of(
        ASKS_VLLM, *overrides, known=facts(VLLM, HF), is_preregistered=is_preregistered
    )
    assert group.settings.on_failure == ("fallback" if why is None else "fail")
    assert (group.fallback is None) == (why is not None)
    if why is not None:
        assert group.reasons[-1] == f"if `vllm` cannot start, the worker fails: {why}"


def test_transformers_that_are_not_installed_take_nobodys_place() -> None:
    assert last_reason(known=facts(VLLM)) == (
        "if `vllm` cannot start, the worker fails: `hf` cannot take its place: no `torch`, "
        "`transformers`, `xgrammar`, `vendomini` in `here/python`"
    )


@pytest.mark.parametrize("axis", ["engine.backend=[vllm,hf]", "engine.enforce_eager=[true,false]"])
def test_a_phase_that_compares_engines_compares_what_it_says(axis: str) -> None:
    overrides = (f"grid.{axis}",) if "backend" in axis else (ASKS_VLLM, f"grid.{axis}")
    for group in plan_of(*overrides, known=facts(VLLM, HF)).groups:
        assert group.fallback is None
        if group.backend == "vllm":
            named = axis.partition("=")[0]
            assert group.reasons[-1].endswith(f"fails: the phase compares values of `{named}`")


def test_an_axis_that_acts_on_both_engines_is_no_obstacle() -> None:
    plan = plan_of(ASKS_VLLM, "grid.engine.dtype=[float32,float16]", known=facts(VLLM, HF))
    found = [group.fallback.settings.dtype for group in plan.groups if group.fallback is not None]
    assert found == ["float32", "float16"]


@pytest.mark.parametrize("backend", ["hf", "scripted"])
def test_what_has_no_fallback_has_none_and_nothing_is_said(backend: str) -> None:
    group = group_of(f"engine.backend={backend}", known=facts(VLLM, HF))
    assert group.fallback is None
    assert not any("cannot start" in reason for reason in group.reasons)


def test_the_setting_is_refused_where_it_does_nothing_but_to_fail_is_what_all_do() -> None:
    with pytest.raises(ConfigError, match=r"`engine.on_failure` is `fallback`, but has no effect"):
        group_of("engine.backend=hf", "engine.on_failure=fallback", known=facts(HF))
    group_of("engine.backend=hf", "engine.on_failure=fail", known=facts(HF))


# -- how it is opened -------------------------------------------------------------------------


def test_the_fallback_has_what_acts_on_it_and_runs_where_the_workers_do() -> None:
    known = facts(VLLM, HF, packages={HERE: HF, "/opt/vllm/python": VLLM})
    spec = fallback_of(
        "engine.python=/opt/vllm/python",
        "engine.gpu_memory_utilization=0.8",
        "engine.enforce_eager=true",
        "engine.dtype=float32",
        "engine.concurrency=7",
        "engine.start_timeout_s=99",
        "agent.model.thinking=on",
        known=known,
    )
    settings = spec.settings
    assert (settings.python, settings.container) == (None, None)
    assert (settings.gpu_memory_utilization, settings.enforce_eager) == (None, False)
    assert (settings.dtype, settings.concurrency, settings.start_timeout_s) == ("float32", 7, 99)
    assert settings.max_model_len == 4096
    assert spec.thinking


def test_the_profiles_own_environment_for_it_is_used() -> None:
    own = site(
        1,
        vllm=EngineEnvironment(container="/vllm.sif"),
        hf=EngineEnvironment(python="/site/hf/python"),
    )
    spec = fallback_of(known=facts(), profile=own)
    assert (spec.settings.python, spec.settings.container) == ("/site/hf/python", None)
    assert spec.gpus == 1


def test_an_environment_that_is_known_to_have_both_serves_both() -> None:
    known = facts(packages={HERE: frozenset(), "/both/python": VLLM | HF})
    assert fallback_of("engine.python=/both/python", known=known).settings.python == "/both/python"


def test_workers_are_told_of_it_in_their_job(tmp_path: Path) -> None:
    group = group_of(ASKS_VLLM, known=facts(VLLM, HF))
    job = job_for(Experiment(tmp_path), group, submission="s", profile=None, only=None)
    assert job.fallback == group.fallback
    assert job.fallback is not None
    assert read_job(write_job(tmp_path, job)) == job


# -- what it costs ----------------------------------------------------------------------------


def test_a_plan_says_what_the_fallback_would_cost_on_the_same_gpus() -> None:
    known, profile = cluster()
    group = group_of(ASKS_VLLM, *FEW, known=known, profile=profile)
    assert group.fallback is not None, group.reasons
    assert group.fallback.gpus == group.settings.gpus
    assert group.fallback.settings.tensor_parallel_size == 1
    assert group.fallback_estimate is not None
    assert group.gpu_hours is not None
    told = f"{group.fallback_estimate.gpu_hours:.2g} GPU-hours instead of {group.gpu_hours:.2g}"
    assert group.reasons[-1] == f"if `vllm` cannot start: `hf` on the same GPUs, {told}"
    plan = plan_as_json(plan_of(ASKS_VLLM, *FEW, known=known, profile=profile))
    (shown,) = cast("list[dict[str, object]]", plan["groups"])
    assert shown["on_failure"] == "fallback"
    assert shown["fallback"] == {
        "backend": "hf",
        "gpu_hours": group.fallback_estimate.gpu_hours,
        "wall_hours": group.fallback_estimate.wall_hours,
    }


def test_a_fallback_that_would_not_end_in_its_time_limit_is_refused() -> None:
    known, profile = cluster()
    model = f"agent.model.name={LLAMA}"
    group = group_of(ASKS_VLLM, model, "experiment.replications=200", known=known, profile=profile)
    assert group.resources is not None
    assert (group.fallback, group.settings.on_failure) == (None, "fail")
    assert group.reasons[-1].startswith(
        "if `vllm` cannot start, the worker fails: `hf` on the same GPUs would take "
    )
    assert group.reasons[-1].endswith(
        f", and not end in the time limit of {group.resources.minutes} minutes"
    )
    # Here there is no such limit.
    assert group_of(ASKS_VLLM, model, "experiment.replications=200", known=known).fallback


def test_a_fallback_that_cannot_load_the_model_as_asked_is_refused() -> None:
    model = f"agent.model.name={LLAMA}"
    assert last_reason(model, "engine.quantization=fp8", known=here(VLLM, HF)) == (
        "if `vllm` cannot start, the worker fails: `hf` cannot take its place: it cannot quantise "
        "to `fp8` while it loads"
    )


# -- what is not there ------------------------------------------------------------------------


def test_vllm_that_is_not_there_is_no_obstacle_to_a_run_where_transformers_are() -> None:
    plan = plan_of(ASKS_VLLM, known=facts(HF))
    refuse_missing(plan, profile=None, facts=facts(HF))
    (group,) = plan.groups
    assert group.backend == "vllm"
    assert group.reasons[0] == "`vllm` is not there: no `vllm` in `here/python`"
    assert group.reasons[-1].startswith("if `vllm` cannot start: `hf` ")
    with pytest.raises(ConfigError, match="backend `vllm` needs `vllm`"):
        refuse_missing(plan, profile=None, facts=facts(HF), falls_back=False)


def test_vllm_that_is_not_there_is_refused_where_nothing_may_take_its_place() -> None:
    for plan in (
        plan_of(ASKS_VLLM, "engine.on_failure=fail", known=facts(HF)),
        plan_of(ASKS_VLLM, known=facts(HF), is_preregistered=True),
    ):
        assert plan.groups[0].reasons[0].startswith("cannot be played as it is: no `vllm`")
        with pytest.raises(ConfigError, match="backend `vllm` needs `vllm`"):
            refuse_missing(plan, profile=None, facts=facts(HF))


# -- how it goes on ---------------------------------------------------------------------------


def taken_over(*overrides: str, known: EngineFacts, **others: Any) -> GroupPlan:
    """The plan of a group that `hf` serves in place of `vllm`."""
    key = group_of(*overrides, known=known, **others).key
    pin = Pin(backend="hf", dtype=None, quantization=None, instead_of="vllm", why=CAUSE)
    return group_of(*overrides, known=replace(known, pins={pin_key(key): pin}), **others)


@pytest.mark.parametrize("asked", [(ASKS_VLLM,), ()], ids=["vllm", "auto"])
@pytest.mark.parametrize("is_planned", [False, True], ids=["on a CPU", "on GPUs"])
def test_a_group_goes_on_with_what_took_its_engines_place(
    asked: tuple[str, ...], is_planned: bool
) -> None:
    known = here(VLLM, HF) if is_planned else facts(VLLM, HF)
    group = taken_over(*asked, f"agent.model.name={LLAMA}", known=known)
    assert (group.backend, group.instead_of, group.fallback) == ("hf", "vllm", None)
    reasons = "\n".join(group.reasons)
    assert f"it took the place of `vllm`, which could not start: {CAUSE}" in reasons
    assert f"--restart-group '{group.key}' tries that one again" in reasons


def test_a_group_goes_on_without_the_environment_and_the_settings_of_its_first_engine() -> None:
    known = facts(packages={HERE: HF, "/opt/vllm/python": VLLM})
    group = taken_over(
        ASKS_VLLM,
        "engine.python=/opt/vllm/python",
        "engine.gpu_memory_utilization=0.8",
        "engine.on_failure=fallback",
        known=known,
    )
    assert group.spec is not None
    assert (group.backend, group.spec.settings.python) == ("hf", None)
    assert not any("cannot be played" in reason for reason in group.reasons)


def test_who_says_that_nothing_may_take_its_place_gets_the_engine_that_was_asked_for() -> None:
    group = taken_over(ASKS_VLLM, "engine.on_failure=fail", known=facts(VLLM, HF))
    assert (group.backend, group.instead_of) == ("vllm", None)


# -- the phase file ---------------------------------------------------------------------------


def test_a_preregistration_is_a_path_that_is_not_opened() -> None:
    named = load_phase(
        BASE, ("experiment.preregistration=no/such/plan.md",), workload_named=workload_named
    )
    assert named.experiment.preregistration == "no/such/plan.md"


@pytest.mark.parametrize("value", ["''", "'  '"])
def test_a_preregistration_without_a_name_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=r"`experiment.preregistration` is empty"):
        load_phase(BASE, (f"experiment.preregistration={value}",), workload_named=workload_named)


def test_a_preregistration_that_is_no_text_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"experiment.preregistration"):
        load_phase(BASE, ("experiment.preregistration=3",), workload_named=workload_named)


# -- the whole program ------------------------------------------------------------------------


@pytest.fixture
def failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A phase whose engine cannot start; a script takes its place."""
    monkeypatch.setenv(Failing.FAILS, CAUSE)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    file = write_phase(tmp_path, replications=2, steps=5, latency_s=0)
    phase = json.loads(file.read_text())
    phase["engine"] = {"backend": FAILING, "concurrency": 4}
    file.write_text(json.dumps(phase))
    return Request(
        config=file,
        overrides=(),
        cluster=False,
        profile=None,
        root=tmp_path / "root",
        limit=None,
        n_jobs=2,
    )


def test_a_phase_whose_engine_cannot_start_is_played_by_what_takes_its_place(
    failing: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing) == 0
    told = f"`scripted` serves it in place of `{FAILING}`, which could not start: {CAUSE}"
    assert told in " ".join(capsys.readouterr().err.split())
    experiment = Experiment(failing.root / "small")
    logs = "".join(log.read_text() for log in experiment.path("jobs").rglob("*.err"))
    assert f"[WARNING] {FAILING} initialization failed: {CAUSE}" in logs
    assert "[*] Falling back to scripted" in logs
    (said,) = fallbacks(status_of(experiment).pins)
    assert said.endswith(told)
    collected = collect(experiment, out=failing.root / "out", progress=lambda done, total: None)
    assert any("were answered by `scripted` in place of" in note for note in collected.notes)
    assert collected.mixed == {}


def test_a_later_run_goes_on_with_what_took_its_place_until_the_group_starts_anew(
    failing: Request, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing) == 0
    monkeypatch.delenv(Failing.FAILS)  # it could start again
    more = replace(failing, overrides=("experiment.replications=3",))
    assert run(more) == 0
    experiment = Experiment(failing.root / "small")
    assert backends(experiment) == {"scripted": 6}
    assert f"it took the place of `{FAILING}`" in " ".join(capsys.readouterr().err.split())
    strict = replace(more, overrides=("experiment.replications=4", "engine.on_failure=fail"))
    with pytest.raises(ConfigError, match=r"come from scripted in place of .*; this run asks for"):
        run(strict)
    (group,) = status_of(experiment).groups
    assert run(replace(strict, restart_groups=(group,))) == 0
    assert backends(experiment) == {FAILING: 8}


def test_a_preregistered_phase_ends_with_the_cause(
    failing: Request, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(replace(failing, overrides=("experiment.preregistration=plan.md",))) == 3
    assert f"a worker ended: {CAUSE}" in " ".join(capsys.readouterr().err.split())
    assert backends(Experiment(failing.root / "small")) == {}


def backends(experiment: Experiment) -> dict[str | None, int]:
    found: dict[str | None, int] = {}
    for each in experiment.runs():
        if (result := experiment.result(each.id)) is not None:
            found[result.served.backend] = found.get(result.served.backend, 0) + 1
    return found
