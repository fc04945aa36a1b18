"""What `vendomini plan` says of engines, and what it refuses, as its users have it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.model_folders import model_folder
from tests.product import ROOT, write_profile
from vendomini.cli import show
from vendomini.cli.main import main
from vendomini.engines.commands import engine_command
from vendomini.looking.prepared import Request, prepare

SMALL = ROOT / "configs" / "phases" / "phase1_small_models.yaml"
LARGE = ROOT / "configs" / "phases" / "phase1_large_models.yaml"
LONG = ROOT / "configs" / "phases" / "phase5_small_models.yaml"
A100, H100, MIXED = (ROOT / "slurm" / f"{name}.yaml" for name in ("a100", "h100", "mixed"))
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
OF_LLAMA = (f"agent.model.name={LLAMA}", "agent.model.context_length=4096")
GROUP_KEYS = {
    "group", "model", "models", "params", "runs", "asks", "backend", "dtype", "quantization", "gpu",
    "gpu_type", "gpus", "nodes", "tensor_parallel_size", "pipeline_parallel_size", "max_model_len",
    "context_length", "conversation_tokens", "concurrency", "workers", "resources", "gpu_hours",
    "wall_hours", "gpu_hours_range", "wall_hours_range", "startup_share", "memory_gib_per_gpu",
    "alternatives", "guide", "reasons", "rejected", "at_once", "usd", "on_failure", "fallback",
}  # fmt: skip
MEMORY_KEYS = {
    "total", "weights", "activations", "overhead", "graphs", "reserve", "kv",
    "kv_bytes_per_sequence",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def plan(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def group(self) -> Any:
        (group,) = self.plan["groups"]
        return group


class Plan(Protocol):
    """Give `vendomini plan` in this process."""

    def __call__(self, phase: Path, profile: Path, *words: str) -> Said: ...


@pytest.fixture
def plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Plan:
    """In an empty folder, on a machine that has no models; nothing may be written."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "no_models"))
    for name in ("HF_HUB_CACHE", "VENDOMINI_USE_VLLM", "VENDOMINI_ROOT", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)

    def give(phase: Path, profile: Path, *words: str) -> Said:
        command = ["vendomini", "plan", "--config", str(phase), "--profile", str(profile), *words]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as exit_:
            main()
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert list(here.iterdir()) == []
        code = exit_.value.code
        return Said(code=code if isinstance(code, int) else 0, out=said.out, err=said.err)

    return give


def refused(said: Said) -> str:
    """The one error, with its hint."""
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error: ")
    assert said.err.count("error: ") == 1
    assert "\nhint: " in said.err
    return said.err


def nodes(folder: Path, *kinds: tuple[str, int, int], **settings: Any) -> Path:
    """A profile of some kinds of nodes: GPU, GPUs of a node, nodes."""
    described = [
        {"gpu": gpu, "gpus": gpus, "count": count, "cpus": 64, "memory": "512G"}
        for gpu, gpus, count in kinds
    ]
    return write_profile(folder, nodes=described, **settings)


# -- overrides ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("engine.backend=hf",), {"backend": "hf", "gpus": 1}),
        (("engine.backend=vllm",), {"backend": "vllm"}),
        (
            ("engine.tensor_parallel_size=2", "engine.backend=vllm"),
            {"gpus": 2, "tensor_parallel_size": 2},
        ),
        (
            ("engine.pipeline_parallel_size=2", "engine.tensor_parallel_size=2"),
            {"gpus": 4, "pipeline_parallel_size": 2, "backend": "vllm"},
        ),
        (("engine.gpus=4",), {"gpus": 4}),
        (("engine.gpu=L40S",), {"gpu": "L40S"}),
        (("engine.gpu=l40s",), {"gpu": "L40S"}),
        (("engine.quantization=fp8",), {"quantization": "fp8", "backend": "vllm"}),
        (("engine.quantization=bitsandbytes-4bit",), {"backend": "hf"}),
        (("engine.max_model_len=8192",), {"max_model_len": 8192, "context_length": 4096}),
        (("engine.dtype=float16",), {"dtype": "float16"}),
        (("engine.concurrency=7",), {"concurrency": 7}),
    ],
)
def test_what_the_phase_says_of_its_engine_acts_on_the_plan(
    plan: Plan, words: tuple[str, ...], expected: dict[str, object]
) -> None:
    group = plan(SMALL, MIXED, *OF_LLAMA, *words, "--json").group
    assert {key: group[key] for key in expected} == expected
    plain = plan(SMALL, MIXED, *OF_LLAMA, "--json").group
    changed = {key for key in expected if plain[key] != expected[key]}
    assert changed or words[0] == "engine.backend=vllm"


def test_what_the_phase_says_of_its_engine_opens_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("engine.tensor_parallel_size=2", "engine.dtype=float16", "engine.max_model_len=8192")
    request = Request(
        config=SMALL,
        overrides=(*OF_LLAMA, "engine.quantization=fp8", "engine.backend=vllm", *words),
        cluster=False,
        profile=H100,
        root=Path("experiments"),
        limit=None,
        n_jobs=1,
        restart_groups=(),
    )
    (group,) = prepare(request, only_plan=True).plan.groups
    spec = group.spec
    assert spec is not None
    assert (spec.gpus, spec.settings.tensor_parallel_size, spec.settings.dtype) == (2, 2, "float16")
    assert (spec.settings.quantization, spec.settings.max_model_len) == ("fp8", 8192)


def test_whole_experts_are_told_to_vllm(plan: Plan) -> None:
    request = Request(
        config=SMALL,
        overrides=(
            "agent.model.name=Qwen/Qwen3-30B-A3B-FP8",
            "agent.model.context_length=4096",
            "engine.backend=vllm",
            "engine.tensor_parallel_size=4",
        ),
        cluster=False,
        profile=H100,
        root=Path("experiments"),
        limit=None,
        n_jobs=1,
        restart_groups=(),
    )
    (group,) = prepare(request, only_plan=True).plan.groups
    assert group.spec is not None
    assert group.spec.enable_expert_parallel
    command = engine_command(group.spec, device="cuda", socket=Path("s"), key="k")
    assert "--enable-expert-parallel" in command.argv
    said = plan(SMALL, H100, *request.overrides)
    assert "4 x 1 + EP" in said.out


@pytest.mark.parametrize(
    ("words", "wrong", "choices"),
    [
        (("engine.tensor_parallel_size=3",), "is `3`", "possible: 1, 2, 4"),
        (("engine.tensor_parallel_size=8",), "nodes of up to 4 GPUs", "possible: 1, 2, 4"),
        (
            ("engine.tensor_parallel_size=2", "engine.gpus=4"),
            "is `4`",
            "remove one of these settings",
        ),
        (("engine.gpu=H100",), "no node that may be used has it", "A100-40"),
        (("engine.gpu=V100-23",), "no node that may be used has it", "did you mean `V100-32`"),
        (("engine.quantization=fp9",), "`fp9`", "did you mean `fp8`"),
        (("engine.quantization=awq",), "`awq`", "name a checkpoint that is stored so"),
        (("engine.dtype=fp16",), "`fp16`", "did you mean `float16`"),
        (("engine.max_model_len=200000",), "`131072`", "engine.max_model_len=131072"),
        (("engine.max_model_len=2048",), "less than", "remove `engine.max_model_len`"),
        (("agent.model.context_length=200000",), "`131072`", "context_length=131072"),
        (
            ("engine.gpus=3", "engine.backend=vllm"),
            "fits on nothing",
            "without these settings, 1 x A100-40",
        ),
        (
            ("engine.backend=vllm", "engine.gpu=V100-32"),
            "vLLM needs compute capability 7.5",
            "without these settings, 1 x A100-40, vllm",
        ),
        (
            ("engine.quantization=mxfp4", "engine.gpu=V100-32"),
            "it cannot quantise to `mxfp4`",
            "without `engine.quantization`, 1 x V100-32, hf",
        ),
        (("engine.tensor_parallel_size=2", "engine.backend=hf"), "has no effect", "spreads"),
        (("--max-gpu-hours", "nan"), "`nan`", "from 0 on"),
        (("--max-gpu-hours=-1",), "`-1.0`", "from 0 on"),
        (("--max-gpu-hours", "0.5"), "more than --max-gpu-hours `0.5`", "play fewer runs"),
        (("--explain", "Mistral"), "no model `Mistral`", "Llama-3.1-8B-Instruct"),
    ],
)
def test_what_cannot_be_is_one_error_with_what_can(
    plan: Plan, tmp_path: Path, words: tuple[str, ...], wrong: str, choices: str
) -> None:
    site = nodes(tmp_path, ("A100-40", 4, 4), ("V100-32", 4, 4))
    error, _, hint = refused(plan(SMALL, site, *OF_LLAMA, *words)).partition("\nhint: ")
    assert wrong in error
    assert choices in hint


def test_a_rule_whose_gpus_do_not_hold_the_model_is_refused(plan: Plan, tmp_path: Path) -> None:
    rule = {"model": "*", "gpus": 1, "cpus": 8, "memory": "64G", "minutes": 60, "workers": 2}
    site = nodes(tmp_path, ("A100-40", 4, 4), resources=[rule])
    words = ("agent.model.name=Qwen/Qwen2.5-72B-Instruct", "agent.model.context_length=4096")
    said = refused(plan(LARGE, site, *words))
    assert "given that the `gpus` of the profile's rule is `1`" in said
    assert "engine.gpus" not in said
    assert "without these settings, 4 x A100-40" in said
    assert plan(SMALL, site, *OF_LLAMA, "--json").group["workers"] == 2


# -- who decides the backend -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wins"), [("1", True), ("true", True), ("0", False), ("", False)]
)
def test_the_predecessors_variable_asks_for_vllm(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, value: str, wins: bool
) -> None:
    monkeypatch.setenv("VENDOMINI_USE_VLLM", value)
    words = (*OF_LLAMA, "engine.policy=guide", "--json")
    group = plan(SMALL, H100, *words).group
    assert group["backend"] == ("vllm" if wins else "hf")
    assert ("VENDOMINI_USE_VLLM asks for it" in "".join(group["reasons"])) is wins
    settled = plan(SMALL, H100, *words, "engine.backend=hf").group
    assert settled["backend"] == "hf"
    assert any("`engine.backend` is `hf`" in reason for reason in settled["reasons"])


def test_the_variable_where_vllm_cannot_be_is_named_in_the_error(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOMINI_USE_VLLM", "1")
    said = refused(plan(SMALL, nodes(tmp_path, ("V100-32", 4, 4)), *OF_LLAMA))
    assert "VENDOMINI_USE_VLLM asks for it" in said
    assert "compute capability 7.5" in said


def test_the_guides_word_stands_beside_what_was_chosen(plan: Plan) -> None:
    said = plan(LARGE, A100, "agent.model.name=Qwen/Qwen2.5-72B-Instruct", "--json")
    group = said.group
    assert (group["backend"], group["gpus"], group["nodes"]) == ("vllm", 8, 2)
    assert any("needs 2 nodes for one engine" in note for note in said.plan["notes"])
    assert group["guide"] == "Flash Attention; no vLLM on 4 GPUs (too large)"
    shown = plan(LARGE, A100, "agent.model.name=Qwen/Qwen2.5-72B-Instruct").out
    assert "the guide says for short runs (phase 1) of a model above 40B: Flash Att" in shown
    long = plan(LONG, H100, *OF_LLAMA, "--json").group
    assert long["guide"] == "vLLM strongly; Flash Attention as fallback"


def test_an_old_card_gets_transformers_with_sdpa_and_float16(plan: Plan, tmp_path: Path) -> None:
    group = plan(SMALL, nodes(tmp_path, ("V100-32", 4, 4)), *OF_LLAMA, "--json").group
    assert (group["backend"], group["dtype"]) == ("hf", "float16")
    assert any("vLLM needs compute capability 7.5" in why for why in group["rejected"])
    turing = plan(SMALL, nodes(tmp_path, ("T4", 4, 4)), *OF_LLAMA, "--json").group
    assert (turing["backend"], turing["dtype"]) == ("vllm", "float16")


# -- models and clusters that are not as they should be ----------------------------------------


def test_a_model_without_a_size_anywhere_is_refused_with_the_nearest(plan: Plan) -> None:
    said = refused(plan(SMALL, A100, "agent.model.name=meta-llama/Lama-3.1-Instruct"))
    assert "nothing is known of the model `meta-llama/Lama-3.1-Instruct`" in said
    assert "`vendomini models` lists all" in said


def test_a_model_known_by_the_size_in_its_name_is_planned_with_a_warning(plan: Plan) -> None:
    group = plan(SMALL, A100, "agent.model.name=nobody/has-this-13b", "--json").group
    assert group["params"] == pytest.approx(13e9)
    assert any("guessed from its name" in reason for reason in group["reasons"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "config.json"),
        ('{"architectures": ["NobodyForCausalLM"], "model_type": "nobody"}', "config.json"),
    ],
)
def test_a_damaged_config_is_refused_by_its_path(
    plan: Plan, tmp_path: Path, text: str, said: str
) -> None:
    folder = model_folder(tmp_path / "model")
    (folder / "config.json").write_text(text)
    assert said in refused(plan(SMALL, A100, f"agent.model.name={folder}"))


def test_an_unknown_architecture_is_refused_with_the_nearest(plan: Plan, tmp_path: Path) -> None:
    folder = model_folder(
        tmp_path / "model",
        architectures=["LlamaaForCausalLM"],
        model_type="llamaa",
        vocab_size=1000,
        intermediate_size=1024,
    )
    said = refused(plan(SMALL, A100, f"agent.model.name={folder}"))
    assert "`LlamaaForCausalLM`, which neither vLLM" in said
    assert "`LlamaForCausalLM`" in said


def test_a_model_that_fits_on_nothing_is_told_what_would_be_needed(
    plan: Plan, tmp_path: Path
) -> None:
    site = nodes(tmp_path, ("A100-40", 4, 2))
    words = ("agent.model.name=deepseek-ai/DeepSeek-V2.5", "agent.model.context_length=4096")
    said = refused(plan(LARGE, site, *words))
    assert "(439 GiB of weights)" in said
    assert "2 nodes of 4 x A100-40" in said
    assert "a checkpoint quantised as fp8" in said
    assert "more nodes: 16 x A100-40 on 4 nodes" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "does not describe the cluster's GPUs"),
        ({"nodes": []}, "does not describe the cluster's GPUs"),
        (
            {"nodes": [{"gpu": "A1000", "gpus": 4, "count": 1, "cpus": 8, "memory": "64G"}]},
            "A1000",
        ),
        (
            {"nodes": [{"gpu_type": "our", "gpus": 4, "count": 1, "cpus": 8, "memory": "64G"}]},
            "our",
        ),
    ],
)
def test_a_cluster_whose_gpus_nobody_knows_is_refused(
    plan: Plan, tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    assert said in refused(plan(SMALL, write_profile(tmp_path, **settings), *OF_LLAMA))


# -- the budget --------------------------------------------------------------------------------


def test_a_budget_is_kept_before_anything_is_written(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hours = plan(SMALL, H100, *OF_LLAMA, "--json").plan["gpu_hours"]
    assert plan(SMALL, H100, *OF_LLAMA, "--max-gpu-hours", str(hours * 1.01)).code == 0
    refused(plan(SMALL, H100, *OF_LLAMA, "--max-gpu-hours", str(hours * 0.99)))
    words = ["run", "--cluster", "--config", str(SMALL), "--profile", str(H100), *OF_LLAMA]
    monkeypatch.setattr(sys, "argv", ["vendomini", *words, "--max-gpu-hours", "0.01"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "--max-gpu-hours" in capsys.readouterr().err
    assert list(Path.cwd().iterdir()) == []


def test_a_budget_of_nothing_allows_what_books_nothing(plan: Plan) -> None:
    words = ("agent.kind=heuristic", "--max-gpu-hours", "0", "--json")
    assert plan(SMALL, H100, *words).plan["gpu_hours"] == 0


# -- how it is told ----------------------------------------------------------------------------


def test_json_has_the_keys_that_scripts_build_on(plan: Plan) -> None:
    said = plan(LARGE, H100, "--json").plan
    assert said.keys() == {
        *("phase", "phase_number", "runs", "gpu_hours", "usd", "groups", "notes"),
        *("writes", "warnings"),
    }
    assert said["gpu_hours"] == pytest.approx(sum(g["gpu_hours"] for g in said["groups"]))
    for group in said["groups"]:
        assert group.keys() == GROUP_KEYS
        assert group["memory_gib_per_gpu"].keys() == MEMORY_KEYS
        low, high = group["gpu_hours_range"]
        assert low < group["gpu_hours"] < high
        assert 0 < group["startup_share"] < 1
        for way in group["alternatives"]:
            assert way.keys() == {"how", "gpu_hours", "wall_hours", "jobs"}
        resources = group["resources"]
        assert group["gpus"] == resources["gpus"] * resources["nodes"]
        assert resources["workers"] == group["workers"]
    quiet = plan(LARGE, H100, "agent.kind=heuristic", "--json").group
    assert quiet.keys() == GROUP_KEYS


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_plan_loses_nothing_in_a_terminal_of_any_width(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr(show.OUT, "width", columns)
    group = plan(LARGE, MIXED, "agent.model.name=Qwen/Qwen2.5-72B-Instruct", "--json").group
    out = plan(LARGE, MIXED, "agent.model.name=Qwen/Qwen2.5-72B-Instruct").out
    said = " ".join(out.split())
    for text in (
        "Qwen/Qwen2.5-72B-Instruct", "220", "72.71B", "vllm", "bfloat16", "4 x A100-80", "4 x 1",
        str(group["max_model_len"]), "one run per job, vLLM", "transformers, eager attention",
        *(" ".join(reason.split()) for reason in group["reasons"]),
    ):  # fmt: skip
        assert text in said


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_explain_tells_all_that_decided(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setattr(show.OUT, "width", columns)
    group = plan(LARGE, MIXED, "--json").plan["groups"][2]
    said = " ".join(plan(LARGE, MIXED, "--explain", "qwen2.5-72b").out.split())
    assert "Qwen3-32B" not in said
    assert "parameters 72.71B (72,706,203,648)" in said
    memory = group["memory_gib_per_gpu"]
    for part, word in (("weights", "weights"), ("activations", "activations"), ("total", "in all")):
        assert f"{word} {memory[part]:.2f} GiB" in said
    for text in (*group["reasons"], *group["rejected"]):
        assert " ".join(text.split()) in said


def test_the_parts_of_a_gpus_memory_add_up(plan: Plan) -> None:
    for group in plan(LARGE, A100, "--json").plan["groups"]:
        memory = group["memory_gib_per_gpu"]
        parts = ("weights", "activations", "overhead", "graphs", "reserve", "kv")
        assert sum(memory[part] for part in parts) == pytest.approx(memory["total"], rel=0.01)


def test_a_phase_of_several_models_has_a_job_for_each_and_its_own_size(plan: Plan) -> None:
    groups = plan(LARGE, H100, "--json").plan["groups"]
    assert [group["gpus"] for group in groups] == [4, 1, 8]
    assert {group["resources"]["gpu_type"] for group in groups} == {"h100"}
    assert {group["resources"]["partition"] for group in groups} == {"h100"}
    for group in groups:
        used = group["resources"]
        assert used["memory_gb"] <= 2048
        assert used["cpus"] <= 96
        assert used["minutes"] <= 1440


def test_a_worker_asks_for_its_gpus_share_of_a_nodes_cpus(plan: Plan, tmp_path: Path) -> None:
    """8 workers of one GPU each have to find place on a node."""
    node = {"gpu": "A100-80", "gpus": 8, "count": 4, "cpus": 48, "memory": "1T"}
    site = write_profile(tmp_path, nodes=[node])
    assert plan(SMALL, site, *OF_LLAMA, "--json").group["resources"]["cpus"] == 6
    roomy = write_profile(tmp_path, nodes=[{**node, "cpus": 128}])
    assert plan(SMALL, roomy, *OF_LLAMA, "--json").group["resources"]["cpus"] == 8


def test_groups_that_want_more_gpus_than_there_are_take_turns(plan: Plan) -> None:
    phase = ROOT / "configs" / "phases" / "phase2_large_models.yaml"
    notes = plan(phase, A100, "--json").plan["notes"]
    (turns,) = [note for note in notes if "they take turns" in note]
    assert "there are 64" in turns
    assert not [note for note in plan(SMALL, A100, "--json").plan["notes"] if "turns" in note]
