"""`vendomini fit --batch`: many questions from a CSV file, one JSON line each."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from vendomini.errors import ConfigError
from vendomini.hardware import GpuSpec, ambiguous, gpu_named, gpu_of_site
from vendomini.models.lookup import model_spec
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Backend
from vendomini.planner.question import Answer, Question, answered

COLUMNS: Final = (
    "model", "hf_id", "params_b", "gpu_type", "gpu_mem_gib", "gpus_total", "tp", "pp", "nodes",
    "dtype_or_quant", "max_model_len", "source", "mark", "engine", "note",
)  # fmt: skip

TRANSFORMERS: Final = ("transformers", "hf")
KNOWN_ENGINES: Final = ("", "vllm", "sglang", *TRANSFORMERS)
"""Any other engine is judged as vLLM, and the row says so."""

SGLANG_SEQUENCES: Final = 256
"""SGLang weighs weights and cache as vLLM does, but samples without sorting the vocabulary and
captures graphs for at most 256 sequences: its own needs are those of so many."""

OTHER_CARD: Final = 0.05
"""By which share a card's memory must differ from the table's to be another card: what is sold
as 80 GB shows 79.1 to 79.3 GiB."""

QUANTIZATIONS: Final[Mapping[str, str]] = {
    "int8-gptq": "gptq_int8",
    "int4-gptq": "gptq",
    "int4-awq": "awq",
    "fp32": "bf16",  # what engines make of it
    "float32": "bf16",
}

_FLAGS: Final[Mapping[str, re.Pattern[str]]] = {
    "max_num_seqs": re.compile(r"max[-_]num[-_]seqs[ =](\d+)", re.IGNORECASE),
    "gpu_memory_utilization": re.compile(
        r"gpu[-_]memory[-_]utilization[ =]([\d.]+)", re.IGNORECASE
    ),
    "enforce_eager": re.compile(r"enforce[-_]eager(?![ =]*false)", re.IGNORECASE),
    "data_parallel_size": re.compile(r"\b(?:DP|attention_dp|data[-_]parallel[-_]size)[ =](\d+)"),
}

Row = Mapping[str, str]


def read_rows(file: Path) -> list[Row]:
    """The rows of a CSV file. Raises `ConfigError` if it cannot be read as one."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read `{file}`: {error}", hint="give a CSV file in UTF-8"
        ) from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [name.strip() for name in reader.fieldnames or ()]
    if "gpu_type" not in columns or not {"model", "hf_id", "params_b"} & set(columns):
        raise ConfigError(
            f"`{file}` lacks a column: `gpu_type`, and one of `model`, `hf_id` and `params_b`",
            hint=f"its first line names the columns, of {', '.join(COLUMNS)}",
        )
    try:
        return [_stripped(row) for row in reader]
    except csv.Error as error:
        raise ConfigError(f"`{file}` line {reader.line_num}: {error}", hint="is it CSV?") from error


def _stripped(row: Mapping[str | None, str | list[str] | None]) -> Row:
    return {
        name.strip(): value.strip()
        for name, value in row.items()
        if name is not None and isinstance(value, str)
    }


def answers(rows: list[Row]) -> Iterator[tuple[Question, Answer] | ConfigError]:
    """A verdict for each row, in their order, or why there is none."""
    models: dict[tuple[str, ...], ModelSpec | ConfigError] = {}
    for row in rows:
        try:
            question = question_of(row, models)
            answer = answered(question)
            reasons = (*answer.fit.reasons, *_read_as(row, question))
            yield question, replace(answer, fit=replace(answer.fit, reasons=reasons))
        except ConfigError as error:
            yield error


def question_of(row: Row, models: dict[tuple[str, ...], ModelSpec | ConfigError]) -> Question:
    """What a row asks; `models` remembers those that were looked up.

    Raises `ConfigError` where the model or the GPU is unknown or a number is none.
    """
    engine = row.get("engine", "").lower()
    gpu = gpu_of_row(row)
    nodes = _count(row, "nodes")
    flags = {name: pattern.search(row.get("note", "")) for name, pattern in _FLAGS.items()}
    gpus = _count(row, "gpus_total")
    per_node = gpu.gpus_per_node
    if gpus is not None and nodes is not None and gpus % nodes == 0 and nodes > 1:
        per_node = gpus // nodes
    sequences = flags["max_num_seqs"]
    utilization = flags["gpu_memory_utilization"]
    groups = flags["data_parallel_size"]
    return Question(
        model=_model_of_row(row, models),
        gpu=gpu,
        backend=_backend(engine),
        gpus_per_node=per_node,
        gpus=gpus,
        tensor_parallel_size=None if gpus is None else _count(row, "tp"),
        pipeline_parallel_size=None if gpus is None else _count(row, "pp"),
        data_parallel_size=int(groups[1]) if groups and gpus is not None else None,
        nodes=None if gpus is None else nodes,
        max_model_len=_count(row, "max_model_len"),
        max_num_seqs=int(sequences[1])
        if sequences
        else SGLANG_SEQUENCES
        if engine == "sglang"
        else None,
        gpu_memory_utilization=float(utilization[1]) if utilization else None,
        enforce_eager=flags["enforce_eager"] is not None,
        any_version=True,
    )


def _backend(engine: str) -> Backend:
    return "hf" if engine in TRANSFORMERS else "vllm"


def _read_as(row: Row, question: Question) -> Iterator[str]:
    """What a row left open, and how it was read."""
    engine = row.get("engine", "")
    if engine.lower() not in KNOWN_ENGINES:
        yield f"the memory of `{engine}` is judged as vLLM's"
    if not row.get("gpu_mem_gib") and ambiguous(row["gpu_type"]):
        yield (
            f"`{row['gpu_type']}` may be one of several, and was read as {question.gpu.name}, "
            "the smallest: `gpu_mem_gib` tells them apart"
        )


def gpu_of_row(row: Row) -> GpuSpec:
    """The GPU of a row; its `gpu_mem_gib` tells variants apart, and counts where it differs."""
    name = row.get("gpu_type", "")
    said = _number(row, "gpu_mem_gib")
    if not name:
        raise ConfigError("no `gpu_type` is given")
    try:
        gpu = gpu_named(name)
    except ConfigError:
        found = gpu_of_site(name, None if said is None else round(said * 1024))
        if found is None:
            raise
        gpu = found
    if said is not None and abs(said / gpu.memory_gib - 1) > OTHER_CARD:
        return replace(gpu, memory_gib=said)
    return gpu


def _model_of_row(row: Row, models: dict[tuple[str, ...], ModelSpec | ConfigError]) -> ModelSpec:
    asked = tuple(row.get(name, "") for name in ("hf_id", "model", "params_b", "dtype_or_quant"))
    if asked not in models:
        try:
            models[asked] = _looked_up(row)
        except ConfigError as error:
            models[asked] = error
    found = models[asked]
    if isinstance(found, ConfigError):
        raise found
    return found


def _looked_up(row: Row) -> ModelSpec:
    params_b = _number(row, "params_b")
    name = row.get("hf_id") or row.get("model")
    if not name:
        if params_b is None:
            raise ConfigError("the row names no model: `hf_id`, `model` and `params_b` are empty")
        name = f"{params_b:g}B"
    model = model_spec(name, params_b=params_b)
    method = row.get("dtype_or_quant", "")
    return served_as(model, method) if method else model


def served_as(model: ModelSpec, method: str) -> ModelSpec:
    """The model stored as `method` says; as it is where that is what its checkpoint says."""
    other = _requantized(model, method.lower())
    own, asked = model.quantization, other.quantization
    if own is None and asked is None:
        return model
    if own is not None and asked is not None and own.method == asked.method and "fp" in own.method:
        return model  # its own mixture: DeepSeek-V4's FP8 has its experts in four bits
    if (
        own is not None
        and asked is not None
        and _kind(own.method, own.weight_bytes_each) == _kind(asked.method, asked.weight_bytes_each)
    ):
        return model
    return other


def _requantized(model: ModelSpec, method: str) -> ModelSpec:
    """As the whole entry says, or as its first word that is a method: ``fp8 (block)``."""
    words = [word for word in re.split(r"[^\w-]+", method) if word]
    parts = [part for part in re.split(r"\W+", method) if part]
    for word in (QUANTIZATIONS.get(method, method), *words, *parts):
        try:
            return requantized(model, QUANTIZATIONS.get(word, word))
        except ConfigError:
            continue
    return requantized(model, method)


def _kind(method: str, bytes_each: float) -> str:
    """Bits, and whether they are floating: what a table says of a checkpoint in one word."""
    bits = "4" if bytes_each < 0.75 else "8"
    return bits + ("f" if "fp" in method else "i")


def _number(row: Row, column: str) -> float | None:
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"`{column}` is `{text}`, which is no number") from None
    if not 0 < value < float("inf"):
        raise ConfigError(f"`{column}` is `{text}`, and must be more than 0")
    return value


def _count(row: Row, column: str) -> int | None:
    value = _number(row, column)
    if value is None:
        return None
    if value != int(value):
        raise ConfigError(f"`{column}` is `{row[column]}`, which is no whole number")
    return int(value)
