"""Which measurements are of a deployment, and the nearest of them: pure."""

from collections.abc import Sequence
from functools import cache
from math import log

from vendomini.errors import ConfigError
from vendomini.hardware import gpu_of_site
from vendomini.models.quantization import quantization_named
from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Deployment
from vendomini.store.measurements import Measured

LEAST_SECONDS = 30.0
LEAST_REQUESTS = 20
"""With less, an engine's first requests, which compile and warm up, would be most of it."""

ALIKE = 1.25
"""Measurements whose concurrency is within this factor of the nearest one's count with it."""


def those_of(
    model: ModelSpec, deployment: Deployment, measured: Sequence[Measured]
) -> list[Measured]:
    """The measurements of this very deployment: model, weights, backend, GPU, and its shape."""
    return [each for each in measured if _is_of(each, model, deployment)]


def nearest(found: Sequence[Measured], *, sequences: float) -> list[Measured]:
    """Those long enough to tell a speed, and of them those whose concurrency is nearest."""
    enough = [
        each
        for each in found
        if each.seconds >= LEAST_SECONDS and each.requests >= LEAST_REQUESTS and each.tokens_out
    ]
    if not enough:
        return []

    def distance(each: Measured) -> float:
        return abs(log(max(each.concurrency, 1.0) / max(sequences, 1.0)))

    least = min(map(distance, enough))
    return [each for each in enough if distance(each) <= least + log(ALIKE)]


def _is_of(measured: Measured, model: ModelSpec, deployment: Deployment) -> bool:
    return (
        measured.model == model.id
        and measured.backend == deployment.backend
        and measured.tensor_parallel_size == deployment.tensor_parallel_size
        and measured.pipeline_parallel_size == deployment.pipeline_parallel_size
        and (measured.dtype != "float32" or model.dtype == "float32")
        and _has_weights(measured.quantization, model)
        and _is_on(measured.gpu, deployment)
    )


def _has_weights(quantization: str | None, model: ModelSpec) -> bool:
    """Whether weights that were loaded so are those of `model`; None: as the checkpoint is."""
    if quantization is None:
        return model.sources.get("quantization") != "asked for"
    try:
        asked = quantization_named(quantization)
    except ConfigError:
        return False
    stored = model.quantization
    return (asked and asked.method) == (stored and stored.method)


def _is_on(name: str | None, deployment: Deployment) -> bool:
    if name is None:
        return deployment.gpu.vendor == "cpu"
    return _gpu_name(name) == deployment.gpu.name


@cache
def _gpu_name(name: str) -> str | None:
    found = gpu_of_site(name)
    return found.name if found is not None else None
