"""The guide's table, row by row, as it was written: by horizon, size and GPUs of a node."""

import pytest

from tests.planner.cases import horizon_of
from vendomini.errors import ConfigError
from vendomini.planner.guide import Horizon, advice, backends_by_guide, is_large
from vendomini.workloads import Demand, Length, Workload

SMALL, AT_THE_EDGE, LARGE = 8_000_000_000, 40_000_000_000, 72_000_000_000


def horizon(phase: int | None = None, steps: int = 500, runs: int = 50) -> Horizon:
    return horizon_of(phase=phase, steps=steps, runs=runs)


@pytest.mark.parametrize(
    ("phase", "steps", "is_short"),
    [
        (1, 500, True), (2, 1000, True), (3, 2500, True),  # the phase decides, whatever its steps
        (4, 1000, False), (5, 5000, False), (4, 10, False),
        (None, 1000, True), (None, 1001, False),
    ],
)  # fmt: skip
def test_the_phase_says_how_long_runs_are_and_without_one_their_steps(
    phase: int | None, steps: int, is_short: bool
) -> None:
    assert horizon(phase, steps).is_short is is_short
    assert horizon(phase, steps).words.startswith("short" if is_short else "long")


def test_the_study_has_five_phases() -> None:
    with pytest.raises(ConfigError, match=r"`experiment\.phase` is `6`"):
        horizon(6)


class Scores(Workload):
    """Asks batches of scores, many at once."""

    def demand(self, settings: int) -> Demand | None:
        if not settings:
            return None
        return Demand(
            requests=settings, prefix_tokens=100, growth_tokens=0, output_tokens=1, at_once=256
        )


@pytest.mark.parametrize(
    ("requests", "length"),
    [
        (0, Length(is_short=True, words="short runs")),  # it says nothing of what it asks
        (768, Length(is_short=True, words="short runs (768 requests)")),
        (5120, Length(is_short=False, words="long runs (5120 requests)")),
    ],
)
def test_elsewhere_all_requests_count_whether_or_not_they_are_asked_at_once(
    requests: int, length: Length
) -> None:
    assert Scores().length(requests, phase=None) == length


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
