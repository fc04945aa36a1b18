"""What a model takes, or whether it works on given GPUs: the verdict of `vendomini fit`."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from vendomini.cli import show
from vendomini.cli.fit_batch import Row, answers, read_rows
from vendomini.cli.gpu_memory import show_memory
from vendomini.errors import ConfigError
from vendomini.hardware import GIB, USUAL, gpu_named
from vendomini.models.lookup import model_spec, spec_of_file
from vendomini.models.quantization import requantized
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Backend, Deployment
from vendomini.planner.fit import named
from vendomini.planner.gates import cannot_run
from vendomini.planner.question import Answer, Question, answered, refuse_illegal
from vendomini.planner.verdict import Fit

BACKENDS: Final = ("auto", "vllm", "hf")
MOST_REJECTED: Final = 4  # where nothing works, the first tell enough


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the command line says; None: it does not."""

    model: str | None = None
    gpu: str | None = None
    gpus: int | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    quantization: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    backend: str = "auto"
    gpus_per_node: int | None = None
    config_json: Path | None = None
    batch: Path | None = None
    as_json: bool = False


def fit(request: Request) -> None:
    """Print the verdict, or a file's verdicts as JSON lines. Raises `ConfigError`."""
    if request.batch is not None:
        _refuse_beside_batch(request)
        rows = read_rows(request.batch)
        for row, found in zip(rows, answers(rows), strict=True):
            print(json.dumps(row_values(row, found), ensure_ascii=False))
        return
    if request.gpu is None:
        _fit_usual(request)
        return
    question = question_of(request)
    refuse_illegal(question)
    answer = answered(question)
    if request.as_json:
        print(json.dumps(values(question, answer), indent=1, ensure_ascii=False))
    else:
        _print(question, answer)


def question_of(request: Request) -> Question:
    """What a command line asks of its GPU. Raises `ConfigError` for what nobody knows."""
    assert request.gpu is not None
    gpu = gpu_named(request.gpu)
    model = _model(request)
    if request.backend not in BACKENDS:
        raise ConfigError(
            f"`--backend {request.backend}` is unknown", hint=f"it is one of {', '.join(BACKENDS)}"
        )
    backend: Backend = "hf" if request.backend == "hf" else "vllm"
    if (
        request.backend == "auto"
        and cannot_run(model, gpu, "vllm") is not None
        and cannot_run(model, gpu, "hf") is None
    ):
        backend = "hf"
    return Question(
        model=model,
        gpu=gpu,
        backend=backend,
        gpus_per_node=request.gpus_per_node or gpu.gpus_per_node,
        gpus=request.gpus,
        tensor_parallel_size=request.tensor_parallel_size,
        pipeline_parallel_size=request.pipeline_parallel_size,
        max_model_len=request.max_model_len,
        max_num_seqs=request.max_num_seqs,
    )


def values(question: Question, answer: Answer) -> dict[str, Any]:
    """The verdict as JSON; sizes are GiB, lengths tokens. None: no deployment was weighed."""
    best = answer.recommended
    return {
        **_verdict(answer.fit),
        "recommended": None if best is None else _shape(best),
        "model": question.model.id,
        "gpu": question.gpu.name,
        "backend": question.backend,
        "quantization": question.model.quantization.method if question.model.quantization else None,
        "max_model_len": answer.fit.deployment.max_model_len if answer.fit.deployment else None,
    }


def row_values(row: Row, found: tuple[Question, Answer] | ConfigError) -> dict[str, Any]:
    """The JSON line of a row; ``"feasible": null`` where it could not be judged."""
    if not isinstance(found, ConfigError):
        return values(*found)
    reason = f"{found}; {found.hint}" if found.hint else str(found)
    unjudged = Fit(feasible=False, deployment=None, memory=None, reasons=(reason,))
    return {
        **_verdict(unjudged),
        "feasible": None,
        "recommended": None,
        "model": row.get("hf_id") or row.get("model") or row.get("params_b") or None,
        "gpu": row.get("gpu_type") or None,
        "backend": None,
        "quantization": None,
        "max_model_len": None,
    }


def _refuse_beside_batch(request: Request) -> None:
    beside = {
        "MODEL": request.model,
        "--gpu": request.gpu,
        "--gpus": request.gpus,
        "--tensor-parallel-size": request.tensor_parallel_size,
        "--pipeline-parallel-size": request.pipeline_parallel_size,
        "--quantization": request.quantization,
        "--max-model-len": request.max_model_len,
        "--max-num-seqs": request.max_num_seqs,
        "--gpus-per-node": request.gpus_per_node,
        "--config-json": request.config_json,
    }
    given = [name for name, value in beside.items() if value is not None]
    if given or request.backend != "auto":
        said = ", ".join(given) or "--backend"
        raise ConfigError(
            f"`--batch` takes its questions from the file, not from {said}",
            hint="remove these options, or put their values into the file's columns",
        )


def _model(request: Request) -> ModelSpec:
    if request.config_json is not None:
        model = spec_of_file(request.config_json, id=request.model or str(request.config_json))
    elif request.model is not None:
        model = model_spec(request.model)
    else:
        raise ConfigError(
            "which model? neither MODEL nor `--config-json` is given",
            hint="such as `vendomini fit Qwen/Qwen3-32B --gpu H100`",
        )
    return requantized(model, request.quantization) if request.quantization else model


def _verdict(fit: Fit) -> dict[str, Any]:
    memory = fit.memory
    return {
        "feasible": fit.feasible,
        **_sizes(fit.deployment),
        "weights_gib_per_gpu": None if memory is None else _gib(memory.weights),
        "kv_gib_per_gpu": None if memory is None else _gib(memory.kv),
        "margin_gib_per_gpu": None if memory is None else _gib(memory.margin),
        "max_model_len_that_fits": None if memory is None else fit.max_model_len_that_fits,
        "concurrency": None if memory is None else fit.concurrency,
        "reasons": list(fit.reasons),
        "rejected": [
            {**_sizes(rejected.deployment), "why": rejected.why} for rejected in fit.rejected
        ],
    }


def _sizes(deployment: Deployment | None) -> dict[str, int | None]:
    if deployment is None:
        names = ("gpus", "tensor_parallel_size", "pipeline_parallel_size", "nodes")
        return dict.fromkeys(names)
    return {
        "gpus": deployment.gpus,
        "tensor_parallel_size": deployment.tensor_parallel_size,
        "pipeline_parallel_size": deployment.pipeline_parallel_size,
        "nodes": deployment.nodes,
    }


def _shape(fit: Fit) -> dict[str, Any]:
    return {**_sizes(fit.deployment), "concurrency": fit.concurrency}


def _gib(bytes_: int) -> float:
    return round(bytes_ / GIB, 2)


def _fit_usual(request: Request) -> None:
    """A line, or a JSON object, for each of the usual cards."""
    questions = [question_of(replace(request, gpu=name)) for name in USUAL]
    for question in questions:
        refuse_illegal(question)
    found = [(question, answered(question)) for question in questions]
    if request.as_json:
        print(json.dumps([values(*each) for each in found], indent=1, ensure_ascii=False))
        return
    _print_model(questions[0].model)
    for question, answer in found:
        fit = answer.fit
        if fit.feasible and fit.deployment is not None:
            tokens = fit.deployment.max_model_len
            said = f"{named(fit.deployment)} with {question.backend}: works, and holds "
            said += f"{fit.concurrency} conversations of {tokens:,} tokens at once"
        else:
            why = fit.reasons[0] if fit.reasons else "nothing that was tried"
            said = f"{question.gpu.name} with {question.backend}: does not work: {why}"
        show.OUT.print(Text(said, style="green" if fit.feasible else "red"), soft_wrap=True)
    show.OUT.print(Text("--gpu NAME tells more of one, and asks of any other", style="dim"))


def _print(question: Question, answer: Answer) -> None:
    fit, model = answer.fit, question.model
    _print_model(model)
    word = "works" if fit.feasible else "does not work"
    what = "nothing" if fit.deployment is None else named(fit.deployment)
    if question.names_a_deployment:
        line = f"{what} with {question.backend}: {word}"
    elif fit.feasible:
        line = f"smallest that works with {question.backend}: {what}"
    else:
        line = f"no number of {question.gpu.name} that was tried works with {question.backend}"
    show.OUT.print(Text(line, style="green" if fit.feasible else "red"), soft_wrap=True)
    best = answer.recommended
    if best is not None and best.deployment is not None:
        tokens = best.deployment.max_model_len
        show.OUT.print(
            Text(
                f"recommended: {named(best.deployment)}, which holds {best.concurrency} "
                f"conversations of {tokens:,} tokens at once"
            ),
            soft_wrap=True,
        )
    if fit.memory is not None:
        show.OUT.print()
        show_memory(fit.memory)
        show.OUT.print(
            Text(
                f"longest conversation that fits: {fit.max_model_len_that_fits:,} tokens; at once: "
                f"{fit.concurrency}"
            )
        )
    if fit.reasons:
        show.OUT.print()
    for reason in fit.reasons:
        show.OUT.print(Text(f"- {reason}"), soft_wrap=True)
    shown = fit.rejected if fit.feasible else fit.rejected[:MOST_REJECTED]
    for rejected in shown:
        line = f"- not {named(rejected.deployment)}: {rejected.why}"
        show.OUT.print(Text(line, style="dim"), soft_wrap=True)


def _print_model(model: ModelSpec) -> None:
    quantization = f", {model.quantization.method}" if model.quantization else ""
    head = (
        f"{model.id}: {model.params / 1e9:,.1f}e9 parameters{quantization}, "
        f"{model.weight_bytes / GIB:,.1f} GiB of weights"
    )
    show.OUT.print(Text(head, style="bold"), soft_wrap=True)
