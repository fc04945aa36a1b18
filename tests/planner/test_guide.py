"""The guide's table, row by row, as it was written: by horizon, size and GPUs of a node."""

import pytest

from vendomini.planner.guide import Horizon, advice, backends_by_guide, is_large

SMALL, AT_THE_EDGE, LARGE = 8_000_000_000, 40_000_000_000, 72_000_000_000


def horizon(phase: int | None = None, steps: int | None = 500, runs: int = 50) -> Horizon:
    return Horizon(phase=phase, max_steps=steps, runs=runs)


@pytest.mark.parametrize(
    ("phase", "steps", "is_short"),
    [
        (1, 500, True), (2, 1000, True), (3, 2500, True),  # the phase decides, whatever its steps
        (4, 1000, False), (5, 5000, False), (4, 10, False),
        (None, 1000, True), (None, 1001, False), (None, None, True),
    ],
)  # fmt: skip
def test_the_phase_says_how_long_runs_are_and_without_one_their_steps(
    phase: int | None, steps: int | None, is_short: bool
) -> None:
    assert horizon(phase, steps).is_short is is_short
    assert horizon(phase, steps).words.startswith("short" if is_short else "long")


def test_a_model_is_large_above_40_billion_parameters() -> None:
    assert [is_large(params) for params in (SMALL, AT_THE_EDGE, AT_THE_EDGE + 1, LARGE)] == [
        False, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("phase", "params", "gpus", "says", "order"),
    [
        (1, SMALL, 4, "Flash Attention; vLLM if maximum speed is wanted", ("hf",)),
        (1, SMALL, 8, "Flash Attention; vLLM if maximum speed is wanted", ("hf",)),
        (3, AT_THE_EDGE, 8, "Flash Attention; vLLM if maximum speed is wanted", ("hf",)),
        (1, LARGE, 4, "Flash Attention; no vLLM on 4 GPUs (too large)", ("hf",)),
        (1, LARGE, 8, "Flash Attention; vLLM with 8 GPUs or more", ("vllm", "hf")),
        (2, LARGE, 16, "Flash Attention; vLLM with 8 GPUs or more", ("vllm", "hf")),
        (4, SMALL, 4, "vLLM strongly; Flash Attention as fallback", ("vllm", "hf")),
        (5, LARGE, 4, "vLLM strongly; Flash Attention as fallback", ("vllm", "hf")),
    ],
)
def test_the_table_says_what_the_guide_says(
    phase: int, params: int, gpus: int, says: str, order: tuple[str, ...]
) -> None:
    assert advice(horizon(phase), params, gpus_per_node=gpus) == says
    assert backends_by_guide(horizon(phase), params, gpus_per_node=gpus) == order
