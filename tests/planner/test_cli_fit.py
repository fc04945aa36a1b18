"""`vendomini fit` as it is typed: answers, JSON, many at once, and what it refuses."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from bench.planner import DATA
from vendomini.cli.fit_batch import COLUMNS
from vendomini.cli.fit_command import register
from vendomini.errors import ConfigError
from vendomini.hardware import USUAL

KEYS = (
    "feasible",
    "gpus",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "nodes",
    "weights_gib_per_gpu",
    "kv_gib_per_gpu",
    "margin_gib_per_gpu",
    "max_model_len_that_fits",
    "concurrency",
    "reasons",
    "rejected",
)

ON_H100 = ("Qwen/Qwen3-32B", "--gpu", "H100")
TP, PP = ("--tensor-parallel-size",), ("--pipeline-parallel-size",)

Ask = Callable[..., str]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ask:
    """Run the command; a `ConfigError` is raised as the program's `main` would see it."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    app = typer.Typer(pretty_exceptions_enable=False)
    register(app)

    def run(*words: str | Path) -> str:
        done = CliRunner().invoke(app, [str(word) for word in words])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.stdout

    return run


@pytest.fixture
def batch(ask: Ask, tmp_path: Path) -> Callable[[Sequence[dict[str, str]]], list[dict[str, Any]]]:
    def run(rows: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
        file = tmp_path / "questions.csv"
        with file.open("w", encoding="utf-8", newline="") as out:
            names = list(dict.fromkeys(name for row in rows for name in row))
            writer = csv.DictWriter(out, names, restval="")
            writer.writeheader()
            writer.writerows(rows)
        return [json.loads(line) for line in ask("--batch", file).splitlines()]

    return run


Batch = Callable[[Sequence[dict[str, str]]], list[dict[str, Any]]]


# -- one question ------------------------------------------------------------------------------


def test_the_smallest_and_the_recommended_are_told(ask: Ask) -> None:
    said = ask("Qwen/Qwen2.5-72B-Instruct", "--gpu", "A100-80")
    assert "smallest that works with vllm: 2 A100-80 (TP 2)" in said
    assert "recommended: 4 A100-80 (TP 4)" in said
    assert "not 1 A100-80" in said


def test_the_memory_of_a_gpu_is_drawn_with_all_its_parts(ask: Ask) -> None:
    said = ask("Qwen/Qwen3-32B", "--gpu", "H100", "--gpus", "1")
    for part in ("weights", "activations", "NCCL", "graphs", "reserve", "KV cache", "free"):
        assert part in said
    (line,) = (line for line in said.splitlines() if line.startswith("██"))
    assert set(line) == set("█▓▒░■·")
    assert "79.10 GiB" in said


def test_json_has_the_keys_that_scripts_read(ask: Ask) -> None:
    answer = json.loads(ask("Qwen/Qwen3-32B", "--gpu", "H100", "--json"))
    assert tuple(answer)[: len(KEYS)] == KEYS
    assert answer["feasible"] is True
    assert answer["gpus"] == answer["tensor_parallel_size"] == 1
    assert answer["weights_gib_per_gpu"] == pytest.approx(61.0, abs=0.1)
    assert answer["margin_gib_per_gpu"] < answer["kv_gib_per_gpu"]
    assert answer["recommended"]["gpus"] >= 1
    assert answer["max_model_len"] == 8192


def test_no_is_an_answer_too(ask: Ask) -> None:
    answer = json.loads(
        ask("Qwen/Qwen3-32B", "--gpu", "H100", "--gpus", "1", "--max-model-len", "32000", "--json")
    )
    assert answer["feasible"] is False
    assert answer["margin_gib_per_gpu"] < 0
    assert 16_000 <= answer["max_model_len_that_fits"] < 32_000
    assert "does not work" in ask(
        "Qwen/Qwen3-32B", "--gpu", "H100", "--gpus", "1", "--max-model-len", "32000"
    )


def test_what_fits_on_nothing_says_what_it_needs(ask: Ask) -> None:
    answer = json.loads(ask("moonshotai/Kimi-K2-Instruct", "--gpu", "T4", "--json"))
    assert answer["feasible"] is False
    assert any("for the weights alone" in reason for reason in answer["reasons"])


def test_a_quantisation_is_taken_as_if_the_checkpoint_were_stored_so(ask: Ask) -> None:
    plain, small = (
        json.loads(ask("Qwen/Qwen3-32B", "--gpu", "L40S", "--json", *more))
        for more in ((), ("--quantization", "awq"))
    )
    assert (plain["gpus"], small["gpus"]) == (2, 1)
    assert small["quantization"] == "awq"


def test_transformers_is_taken_where_vllm_cannot_run(ask: Ask) -> None:
    answer = json.loads(ask("Qwen/Qwen2.5-7B-Instruct", "--gpu", "V100-32", "--json"))
    assert answer["backend"] == "hf"
    assert answer["feasible"] is True


def test_a_config_json_of_ones_own_is_read(ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(LLAMA), encoding="utf-8")
    answer = json.loads(ask("my/model", "--config-json", file, "--gpu", "L4", "--json"))
    assert answer["model"] == "my/model"
    assert answer["weights_gib_per_gpu"] == pytest.approx(14.96, abs=0.05)


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


def test_without_a_gpu_the_usual_ones_are_told(ask: Ask) -> None:
    head, *lines, last = ask("Qwen/Qwen3-32B").splitlines()
    assert head.startswith("Qwen/Qwen3-32B: 32.8e9 parameters")
    assert [line.split()[1] for line in lines] == [*USUAL]
    assert all(": works, and holds" in line for line in lines)
    assert last.startswith("--gpu NAME")
    told = json.loads(ask("Qwen/Qwen3-32B", "--json"))
    assert [each["gpu"] for each in told] == [*USUAL]
    assert told[0] == json.loads(ask("Qwen/Qwen3-32B", "--gpu", USUAL[0], "--json"))


# -- bad questions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("Qwen/Qwen3-32B", "--gpu", "H10O"), "H10O", "`H100`"),
        (("Qwen/Qwen3-32B", "--gpu", "cerebras"), "no GPU `cerebras`", "docs/planner.md has the"),
        (("--gpu", "H100"), "which model", "vendomini fit"),
        (("nobody/knows-this", "--gpu", "H100"), "nobody/knows-this", "known"),
        (("Qwen/Qwen3-32B", "--gpu", "H100", "--backend", "onnx"), "onnx", "vllm"),
        (("Qwen/Qwen3-32B", "--gpu", "H100", "--quantization", "fp7"), "fp7", "fp8"),
        (
            ("Qwen/Qwen2.5-7B", "--gpu", "H100", "--tensor-parallel-size", "8"),
            "heads 28, TP 8",
            "legal sizes: 1, 2, 4",
        ),
        (
            (*ON_H100, "--gpus", "4", *TP, "2", *PP, "1"),
            "`--gpus 4` is not TP 2 x PP 1 = 2",
            "give the two sizes",
        ),
        (
            ("meta-llama/Llama-2-7b-hf", "--gpu", "H100", "--max-model-len", "5000"),
            "beyond the 4096 tokens",
            "at most 4096",
        ),
        (("Qwen/Qwen3-32B", "--batch", "some.csv"), "not from MODEL", "columns"),
        (("--batch", "no/such.csv"), "no/such.csv", "CSV"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_question_that_makes_no_sense_is_refused_with_the_choices(
    ask: Ask, words: tuple[str, ...], said: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        ask(*words)
    assert said in str(refused.value)
    assert hint in refused.value.hint
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"hidden_size": 4096}', '"llama"'])
def test_a_damaged_config_json_is_refused(ask: Ask, tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        ask("my/model", "--config-json", file, "--gpu", "L4")


# -- many at once --------------------------------------------------------------------------------


def test_real_deployments_are_judged_line_by_line_in_their_order(ask: Ask) -> None:
    file = DATA / "planner_truth.csv"
    lines = [json.loads(line) for line in ask("--batch", file).splitlines()]
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert len(lines) == len(rows)
    assert [line["gpu"] for line in lines] == [row["gpu_type"] for row in rows]
    assert all(tuple(line)[: len(KEYS)] == KEYS for line in lines)
    assert sum(line["feasible"] is True for line in lines) >= 498


def test_an_empty_number_of_gpus_asks_for_the_smallest(batch: Batch) -> None:
    (line,) = batch(
        [{"hf_id": "Qwen/Qwen2.5-72B-Instruct", "gpu_type": "A100-80", "gpus_total": ""}]
    )
    assert line["feasible"] is True
    assert line["gpus"] == 2
    assert line["rejected"][0]["gpus"] == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"hf_id": "nobody/knows-this", "gpu_type": "H100"}, "nobody/knows-this"),
        ({"hf_id": "Qwen/Qwen3-32B", "gpu_type": "Z9000"}, "Z9000"),
        ({"hf_id": "Qwen/Qwen3-32B", "gpu_type": ""}, "gpu_type"),
        ({"hf_id": "", "gpu_type": "H100"}, "names no model"),
        ({"hf_id": "Qwen/Qwen3-32B", "gpu_type": "H100", "gpus_total": "two"}, "`two`"),
        ({"hf_id": "Qwen/Qwen3-32B", "gpu_type": "H100", "gpus_total": "0"}, "more than 0"),
        ({"hf_id": "Qwen/Qwen3-32B", "gpu_type": "H100", "tp": "1.5", "gpus_total": "1"}, "1.5"),
        ({"hf_id": "Qwen/Qwen3-32B", "gpu_type": "H100", "dtype_or_quant": "fp7"}, "fp7"),
    ],
)
def test_a_row_that_cannot_be_judged_is_null_with_a_reason_and_stops_nothing(
    batch: Batch, row: dict[str, str], said: str
) -> None:
    good = {"hf_id": "Qwen/Qwen3-32B", "gpu_type": "H100"}
    lines = batch([good, row, good])
    assert [line["feasible"] for line in lines] == [True, None, True]
    assert said in lines[1]["reasons"][0]
    assert tuple(lines[1])[: len(KEYS)] == KEYS


@pytest.mark.parametrize(
    ("row", "gpus"),
    [
        ({"model": "Qwen3-32B", "hf_id": ""}, 1),
        ({"model": "a model of ours", "hf_id": "", "params_b": "70"}, 2),
        ({"params_b": "7"}, 1),
    ],
)
def test_a_name_or_a_size_says_which_model(batch: Batch, row: dict[str, str], gpus: int) -> None:
    (line,) = batch([{**row, "gpu_type": "H100"}])
    assert line["feasible"] is True
    assert line["gpus"] == gpus


def test_memory_that_differs_much_is_another_variant_of_the_card(batch: Batch) -> None:
    rows = [
        {"hf_id": "Qwen/Qwen2.5-32B", "gpu_type": "A100", "gpu_mem_gib": gib}
        for gib in ("39.4", "79.2")
    ]
    assert [line["gpus"] for line in batch(rows)] == [2, 1]


@pytest.mark.parametrize(
    ("said", "method"),
    [
        ("fp8", "fp8"),
        ("FP8 (block)", "fp8"),
        ("int4-awq", "awq"),
        ("int8-gptq", "gptq"),
        ("bf16", None),
        ("fp16", None),
        ("fp32", None),
        ("int4-autoround", "compressed-tensors"),
    ],
)
def test_a_row_says_how_the_weights_are_stored(batch: Batch, said: str, method: str | None) -> None:
    (line,) = batch([{"hf_id": "Qwen/Qwen3-32B", "gpu_type": "H100", "dtype_or_quant": said}])
    assert line["quantization"] == method


def test_a_checkpoint_keeps_its_mixture_where_a_row_names_its_method(batch: Batch) -> None:
    row = {"hf_id": "deepseek-ai/DeepSeek-V4-Flash", "gpu_type": "H200", "gpus_total": "2"}
    named, unnamed = batch([{**row, "dtype_or_quant": "fp8"}, row])
    assert named["weights_gib_per_gpu"] == unnamed["weights_gib_per_gpu"]
    assert named["feasible"]


def test_where_no_context_is_asked_for_a_shorter_one_than_planned_will_do(batch: Batch) -> None:
    row = {"hf_id": "Qwen/Qwen1.5-7B-Chat", "gpu_type": "L4", "gpus_total": "1"}
    open_, asked, none = batch(
        [row, {**row, "max_model_len": "8192"}, {**row, "hf_id": "Qwen/Qwen1.5-14B-Chat"}]
    )
    assert (open_["feasible"], asked["feasible"], none["feasible"]) == (True, False, False)
    assert open_["max_model_len"] == open_["max_model_len_that_fits"] < 8192
    assert f"`--max-model-len {open_['max_model_len']}`" in open_["reasons"][-1]


def test_a_method_that_only_an_older_vllm_loads_is_judged_by_memory(batch: Batch) -> None:
    row = {"hf_id": "unsloth/llama-3-8b-bnb-4bit", "gpu_type": "T4", "gpus_total": "1"}
    small, large = batch([row, {**row, "hf_id": "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"}])
    assert (small["feasible"], large["feasible"]) == (True, False)
    assert small["quantization"] == "bitsandbytes"
    assert "an older one must serve" in small["reasons"][-1]


def test_what_a_row_leaves_open_is_read_and_told(batch: Batch) -> None:
    row = {"hf_id": "Qwen/Qwen3-32B", "gpu_type": "A100", "engine": "tgi"}
    (line,) = batch([row])
    assert line["gpu"] == "A100-40"
    said = "\n".join(line["reasons"])
    assert "`tgi` is judged as vLLM's" in said
    assert "`A100` may be one of several" in said


def test_a_note_of_the_flags_counts(batch: Batch) -> None:
    row = {
        "hf_id": "Qwen/Qwen3-32B",
        "gpu_type": "H100",
        "gpus_total": "1",
        "max_model_len": "32000",
    }
    lines = batch([row, {**row, "note": "max-num-seqs 64"}, {**row, "note": "DP=1, enforce-eager"}])
    assert [line["feasible"] for line in lines] == [False, True, False]


def test_illegal_sizes_are_a_verdict_in_a_file(batch: Batch) -> None:
    row = {"hf_id": "Qwen/Qwen2.5-7B", "gpu_type": "H100", "gpus_total": "8", "tp": "8", "pp": "1"}
    (line,) = batch([row])
    assert line["feasible"] is False
    assert "28" in line["reasons"][0]


def test_a_file_without_the_columns_is_refused(ask: Ask, tmp_path: Path) -> None:
    file = tmp_path / "other.csv"
    file.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="lacks a column"):
        ask("--batch", file)
