"""The everyday question: what does this model take, or does it work on these GPUs?"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from vendomini.errors import ConfigError
from vendomini.hardware import GIB, GpuSpec
from vendomini.models.spec import ModelSpec
from vendomini.models.support import versions, vllm_knows
from vendomini.planner.deployment import Backend, Deployment
from vendomini.planner.fit import (
    MOST_NODES,
    check,
    deployments,
    named,
    nearest,
    planned_max_model_len,
    recommended,
    smallest,
)
from vendomini.planner.gates import cannot_run
from vendomini.planner.gpu_memory import batch_of, memory_use
from vendomini.planner.parallel import legal_sizes, refusal
from vendomini.planner.verdict import Fit

FEWER_SEQUENCES = 256
"""Replies at once with which VendoMini starts vLLM unless told otherwise; vLLM's own default on
large cards is 1024, and the sampler's memory grows with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked. `gpus`, or the parallel sizes, name one deployment; without them the smallest
    is looked for on up to `nodes` nodes. `data_parallel_size` groups share routed experts.
    """

    model: ModelSpec
    gpu: GpuSpec
    backend: Backend
    gpus_per_node: int
    gpus: int | None = None  # None, as the next four: not said
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    data_parallel_size: int | None = None
    nodes: int | None = None
    max_model_len: int | None = None  # None: the model's own, at most 8192
    max_num_seqs: int | None = None  # None, as the next: the engine's default
    gpu_memory_utilization: float | None = None
    enforce_eager: bool = False
    any_version: bool = False  # of the engine: an architecture that ours lacks is no obstacle

    @property
    def names_a_deployment(self) -> bool:
        return (
            self.gpus is not None
            or self.tensor_parallel_size is not None
            or (self.pipeline_parallel_size is not None)
        )


LEAST_MAX_MODEL_LEN: Final = 1024
"""Tokens that a deployment must hold to work at all, where nobody says how many are needed."""

ONCE_IN_VLLM: Final = frozenset({"bitsandbytes", "gguf"})
"""Methods that older versions of vLLM load (0.20 does), and ours does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`fit` is the verdict on what was named, else the smallest that works."""

    fit: Fit
    recommended: Fit | None = None  # None: a deployment was named, or none works


def answered(question: Question) -> Answer:
    """The verdict. Shapes that are illegal are a verdict too; `refuse_illegal` is stricter."""
    model, gpu, backend = question.model, question.gpu, question.backend
    if question.any_version and not _is_known(model, backend):
        answer = answered(replace(question, model=replace(model, architecture=None)))
        missing = (
            f"vLLM {versions()['vllm']} does not know {model.architecture}: another must serve"
        )
        fit = replace(answer.fit, reasons=(*answer.fit.reasons, missing))
        return replace(answer, fit=fit)
    if question.any_version and (older := _as_before(model, backend)) is not None:
        answer = answered(replace(question, model=older))
        fit = replace(answer.fit, reasons=(*answer.fit.reasons, _missing_method(model)))
        return replace(answer, fit=fit)
    why = cannot_run(model, gpu, backend)
    if why is not None:
        return Answer(fit=Fit(feasible=False, deployment=None, memory=None, reasons=(why,)))
    if question.names_a_deployment:
        return Answer(fit=_with_offers(question, _named(question), tuple(_layouts(question))))
    shapes = tuple(_searched(question))
    fit = smallest(model, shapes)
    if not fit.feasible:
        return Answer(fit=_with_offers(question, fit, shapes))
    fit = replace(fit, reasons=(*fit.reasons, *_assumed(question)))
    best = recommended(model, shapes)
    return Answer(fit=fit, recommended=best if best.feasible else None)


def _is_known(model: ModelSpec, backend: Backend) -> bool:
    return backend != "vllm" or model.architecture is None or vllm_knows(model.architecture)


def _as_before(model: ModelSpec, backend: Backend) -> ModelSpec | None:
    """The model with a quantisation that only an older vLLM loads, free of our rules; None: it
    has no such."""
    method = model.quantization
    if backend != "vllm" or method is None or method.method not in ONCE_IN_VLLM:
        return None
    return replace(model, quantization=replace(method, method="older", group_size=None))


def _missing_method(model: ModelSpec) -> str:
    assert model.quantization is not None
    method = model.quantization.method
    return f"vLLM {versions()['vllm']} does not load {method} checkpoints: an older one must serve"


def refuse_illegal(question: Question) -> None:
    """Raise `ConfigError`, with the legal choices, for sizes that contradict each other or the
    model, and for a context beyond the model's own."""
    model = question.model
    own = model.max_model_len
    if question.max_model_len is not None and own is not None and question.max_model_len > own:
        raise ConfigError(
            f"`--max-model-len {question.max_model_len}` is beyond the {own} tokens that "
            f"`{model.id}` was made for",
            hint=f"ask for at most {own}",
        )
    tp, pp = question.tensor_parallel_size, question.pipeline_parallel_size
    if question.backend == "hf" and (tp or 1) > 1:
        raise ConfigError(
            f"`--tensor-parallel-size {tp}`: transformers spreads layers over GPUs and cuts none",
            hint="remove it and give `--gpus`, or use `--backend vllm`",
        )
    if question.backend == "hf" and (question.gpus or pp or 1) > question.gpus_per_node:
        raise ConfigError(
            f"transformers stays on one node, which has {question.gpus_per_node} GPUs",
            hint="ask for at most so many, give `--gpus-per-node`, or use `--backend vllm`",
        )
    if tp is not None:
        _refuse_size(question, tp)
    if pp is not None and pp > model.layers:
        raise ConfigError(
            f"`--pipeline-parallel-size {pp}`: `{model.id}` has {model.layers} layers",
            hint=f"ask for at most {model.layers}",
        )
    if question.gpus is None:
        return
    named_gpus = (tp or 1) * (pp or 1)
    if question.gpus % named_gpus or (tp and pp and named_gpus != question.gpus):
        raise ConfigError(
            f"`--gpus {question.gpus}` is not TP {tp or 1} x PP {pp or 1} = {named_gpus}",
            hint="give the two sizes, or `--gpus` alone",
        )
    if question.gpus > question.gpus_per_node and question.gpus % question.gpus_per_node:
        raise ConfigError(
            f"`--gpus {question.gpus}` is more than a node's {question.gpus_per_node}, but no "
            "whole nodes",
            hint=f"ask for a multiple of {question.gpus_per_node}, or give `--gpus-per-node`",
        )


def _refuse_size(question: Question, tp: int) -> None:
    model = question.model
    shape = Deployment(
        backend=question.backend,
        gpu=question.gpu,
        tensor_parallel_size=tp,
        enable_expert_parallel=model.is_moe,
        max_model_len=1,
    )
    why = refusal(model, shape, gpus_per_node=tp)
    if why is not None:
        legal = legal_sizes(model, most=2 * question.gpus_per_node, expert_parallel=model.is_moe)
        raise ConfigError(
            f"`--tensor-parallel-size {tp}` does not divide `{model.id}`: {why}",
            hint=f"legal sizes: {', '.join(map(str, legal))}",
        )


def _named(question: Question) -> Fit:
    """The first layout of the named GPUs that works, else the verdict on the first.

    Where no context is asked for, a shorter one than planned will do: as long as fits.
    """
    first: Fit | None = None
    shorter: Fit | None = None
    for shape in _layouts(question):
        if shape.backend == "hf" and shape.nodes > 1:
            why = f"transformers stays on one node, which has {question.gpus_per_node} GPUs"
            return Fit(feasible=False, deployment=None, memory=None, reasons=(why,))
        per_node = max(question.gpus_per_node, math.ceil(shape.gpus / shape.nodes))
        fit = check(question.model, shape, gpus_per_node=per_node)
        if fit.feasible:
            return replace(
                fit, reasons=(*fit.reasons, *_assumed(question), *_crossing(shape, question))
            )
        if first is None or (first.memory is None and fit.memory is not None):
            first = fit
        if fit.max_model_len_that_fits > (shorter.max_model_len_that_fits if shorter else 0):
            shorter = fit
    if shorter is not None and question.max_model_len is None:
        tokens = shorter.max_model_len_that_fits
        if tokens >= LEAST_MAX_MODEL_LEN:
            fit = _named(replace(question, max_model_len=tokens))
            return replace(fit, reasons=(*fit.reasons, _shortened(question.model, tokens)))
    if first is None:
        why = f"no shape divides `{question.model.id}` on {question.gpus} GPUs"
        first = Fit(feasible=False, deployment=None, memory=None, reasons=(why,))
    return replace(first, reasons=(*first.reasons, *_assumed(question)))


def _shortened(model: ModelSpec, tokens: int) -> str:
    return (
        f"conversations of {planned_max_model_len(model):,} tokens do not fit, and none were asked "
        f"for: start it with `--max-model-len {tokens}`"
    )


def _layouts(question: Question) -> Iterator[Deployment]:
    """The ways in which an engine lays out what was named, the likeliest first.

    GPUs beyond TP x PP: with experts, groups with an attention each that share the experts, as
    vLLM and SGLang do with data parallelism; without, replicas of one deployment, of which one is
    judged; and over several nodes pipeline stages. A size of tensor parallelism that cannot cut
    the attention of a model with experts may be SGLang's, which counts the attention's groups in.
    """
    tp, pp = question.tensor_parallel_size, question.pipeline_parallel_size
    if tp is None:
        stages = pp
        for shape in _of_count(question, question.gpus or pp or 1):
            if stages in (None, shape.pipeline_parallel_size):
                yield shape
        return
    gpus = question.gpus or tp * (pp or 1) * (question.data_parallel_size or 1)
    stages = pp or 1
    if question.pipeline_parallel_size is None and question.data_parallel_size is None:
        stages = max(1, gpus // tp)
    if question.backend == "hf":
        yield _shape(question, 1, gpus, 1)
        return
    groups = gpus // (tp * stages)
    if groups <= 1:
        yield _shape(question, tp, stages, 1)
    elif question.model.is_moe:
        yield _shape(question, tp, stages, groups)
    else:
        yield _shape(question, tp, stages, 1)
        if question.model.is_guess:  # it may well have experts: a dense one that large is cut
            yield _shape(question, tp * groups, stages, 1)
    if groups > 1 and question.data_parallel_size is None and _nodes(question, gpus) > 1:
        yield _shape(question, tp, stages * groups, 1)
    if question.model.is_moe and groups <= 1:
        for attention in range(tp - 1, 0, -1):
            if tp % attention == 0:
                yield _shape(question, attention, stages, tp // attention)


def _shape(question: Question, tp: int, pp: int, groups: int) -> Deployment:
    return Deployment(
        backend=question.backend,
        gpu=question.gpu,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        data_parallel_size=groups,
        enable_expert_parallel=groups > 1,
        nodes=_nodes(question, tp * pp * groups),
        max_model_len=question.max_model_len or planned_max_model_len(question.model),
        gpu_memory_utilization=question.gpu_memory_utilization,
        max_num_seqs=question.max_num_seqs,
        enforce_eager=question.enforce_eager,
    )


def _nodes(question: Question, gpus: int) -> int:
    return max(question.nodes or 1, math.ceil(gpus / question.gpus_per_node))


def _of_count(question: Question, gpus: int) -> Iterator[Deployment]:
    """Shapes of exactly so many GPUs, tensor parallelism first; never across nodes."""
    if question.backend == "hf":
        yield _shape(question, 1, gpus, 1)
        return
    for tp in range(min(gpus, question.gpus_per_node), 0, -1):
        if gpus % tp == 0:
            yield _shape(question, tp, gpus // tp, 1)


def _searched(question: Question) -> Iterator[Deployment]:
    return deployments(
        question.model,
        question.gpu,
        backend=question.backend,
        gpus_per_node=question.gpus_per_node,
        nodes=question.nodes or MOST_NODES,
        max_model_len=question.max_model_len or planned_max_model_len(question.model),
        gpu_memory_utilization=question.gpu_memory_utilization,
        max_num_seqs=question.max_num_seqs,
        enforce_eager=question.enforce_eager,
    )


def _assumed(question: Question) -> Iterator[str]:
    model, asked = question.model, question.max_model_len
    if asked is None:
        yield (
            f"planned for conversations of {planned_max_model_len(model):,} tokens, as no "
            "`--max-model-len` was given"
        )
    elif model.max_model_len is not None and asked > model.max_model_len:
        yield (
            f"{asked:,} tokens are beyond the {model.max_model_len:,} that the model was made "
            "for: judged by memory alone, and to be had only with rope scaling"
        )


def _crossing(shape: Deployment, question: Question) -> Iterator[str]:
    if shape.tensor_parallel_size > question.gpus_per_node:
        yield (
            f"TP {shape.tensor_parallel_size} crosses nodes of {question.gpus_per_node}: every "
            "layer waits for the network, which only InfiniBand or the like bears"
        )


def _with_offers(question: Question, fit: Fit, shapes: tuple[Deployment, ...]) -> Fit:
    """Where it does not fit: what would."""
    if fit.feasible or fit.memory is None or fit.deployment is None:
        return fit
    model, judged = question.model, fit.deployment
    offers = []
    if judged.backend == "vllm" and batch_of(judged)[1] > FEWER_SEQUENCES:
        fewer = replace(judged, max_num_seqs=FEWER_SEQUENCES)
        if memory_use(model, fewer).fits:
            offers.append(
                f"it would fit with `--max-num-seqs {FEWER_SEQUENCES}`: vLLM's default here is "
                f"{batch_of(judged)[1]}"
            )
    legal = tuple(s for s in shapes if refusal(model, s, gpus_per_node=s.gpus) is None)
    offers += nearest(model, legal)
    if question.names_a_deployment:
        search = replace(
            question, gpus=None, tensor_parallel_size=None, pipeline_parallel_size=None
        )
        larger = smallest(model, _searched(search))
        if larger.feasible and larger.deployment is not None:
            offers.append(f"the smallest that works: {named(larger.deployment)}")
            return replace(fit, reasons=(*fit.reasons, *offers))
    offers.append(
        f"needed: {model.weight_bytes / GIB:,.0f} GiB for the weights alone, in parts that each "
        "leave a GPU room for activations and cache: GPUs with more memory"
        + ("" if question.nodes is None else ", or more nodes")
    )
    return replace(fit, reasons=(*fit.reasons, *offers))
