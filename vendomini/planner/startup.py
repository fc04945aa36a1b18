"""How long an engine takes until it answers: pure."""

from collections.abc import Sequence
from statistics import median

from vendomini.models.spec import ModelSpec
from vendomini.planner.deployment import Deployment
from vendomini.planner.observed import those_of
from vendomini.store.measurements import Measured

READ_GB_S = 1.0
"""What a node reads of a shared file system, in 10**9 bytes a second: 0.5 to 2 are usual."""

VLLM_INIT_S = 45.0
"""Imports, CUDA, the profiling run: vLLM, with the weights left out."""

VLLM_COMPILE_S = 30.0
"""torch.compile, cold, of a model of 32 layers; it grows with them."""

VLLM_GRAPHS_S = 15.0
"""Capturing the CUDA graphs."""

HF_INIT_S = 20.0
"""Imports and CUDA: transformers, with the weights left out."""

RANK_S = 3.0
"""Each further process of an engine: its start and its place in NCCL's ring."""


def startup_s(
    model: ModelSpec, deployment: Deployment, *, measured: Sequence[Measured] = ()
) -> float:
    """Seconds from starting an engine to its first answer.

    ``weights / read rate + engine's own``: the weights come from a shared file system, each node
    reads its part of them; vLLM adds 40 to 120 s for its start, compilation and graphs,
    transformers less. Starts of this very deployment that were measured replace it: their median.
    """
    seen = [
        each.startup_s
        for each in those_of(model, deployment, measured)
        if each.startup_s is not None
    ]
    if seen:
        return median(seen)
    read = model.weight_bytes / deployment.nodes / (READ_GB_S * 1e9)
    ranks = RANK_S * (deployment.gpus - 1)
    if deployment.backend == "hf":
        return read + HF_INIT_S
    start = VLLM_INIT_S + ranks
    if not deployment.enforce_eager:
        start += VLLM_COMPILE_S * model.layers / 32 + VLLM_GRAPHS_S
    return read + start
