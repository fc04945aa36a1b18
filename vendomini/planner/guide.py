"""The guide's table of Flash Attention and vLLM, by horizon and size: pure.

The guide decides by the length of the runs and the size of the model. Its table is
kept as it was (`advice`, and `policy: guide`), and what it only assumed, whether a model fits, is
computed (`policy: auto`).
"""

from dataclasses import dataclass

from vendomini.planner.deployment import Backend

LARGE_PARAMS = 40_000_000_000
"""Above it a model counts as large."""

MANY_GPUS = 8
FEW_RUNS = 10
MANY_RUNS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """How many runs a group has, and how long they are by their workload's word: `words` say it,
    such as ``long runs (5000 requests)``."""

    is_short: bool
    words: str
    runs: int


def is_large(params: int) -> bool:
    return params > LARGE_PARAMS


def advice(horizon: Horizon, params: int, *, gpus_per_node: int) -> str:
    """What the guide says of such runs of a model with so many parameters, on such nodes."""
    if not horizon.is_short:
        return "vLLM strongly; Flash Attention as fallback"
    if not is_large(params):
        return "Flash Attention; vLLM if maximum speed is wanted"
    if gpus_per_node >= MANY_GPUS:
        return "Flash Attention; vLLM with 8 GPUs or more"
    return f"Flash Attention; no vLLM on {gpus_per_node} GPUs (too large)"


def backends_by_guide(horizon: Horizon, params: int, *, gpus_per_node: int) -> tuple[Backend, ...]:
    """With `policy: guide`, the backends to take, the first that can be used."""
    if not horizon.is_short or (is_large(params) and gpus_per_node >= MANY_GPUS):
        return "vllm", "hf"
    return ("hf",)
