"""Which backend a group gets: the guide's table by both policies, and who overrules it."""

import pytest

from tests.planner.cases import EXPERTS, LARGE, LATENT, MIDDLE, PACKED, SMALL, chosen, known, pool
from vendomini.errors import PlanError
from vendomini.models.lookup import model_spec
from vendomini.planner.decision import FAVOUR, Choice
from vendomini.planner.guide import FEW_RUNS, MANY_RUNS

A100 = pool("A100-80", per_node=4)
H100 = pool("H100", per_node=8)


def said(choice: Choice) -> str:
    return "\n".join(choice.reasons)


# -- `policy: auto` ----------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [1, 2, 3])
@pytest.mark.parametrize("model", [SMALL, MIDDLE])
def test_short_runs_of_up_to_40b_get_vllm_where_it_takes_fewer_gpu_hours(
    phase: int, model: str
) -> None:
    choice = chosen(model, [A100], phase=phase)
    assert choice.backend == "vllm"
    costs = choice.alternatives
    assert costs["vLLM"].gpu_hours < costs["transformers"].gpu_hours
    assert "fewer GPU-hours" in choice.reasons[0]


def test_short_runs_get_transformers_where_vllm_would_mostly_start_up() -> None:
    choice = chosen(SMALL, [A100], runs=20, steps=1, phase=1)
    assert choice.backend == "hf"
    assert choice.candidate.deployment.flash_attention
    costs = choice.alternatives
    assert costs["transformers"].gpu_hours <= costs["vLLM"].gpu_hours
    assert "no more GPU-hours" in choice.reasons[0]


@pytest.mark.parametrize("per_node", [4, 8])
@pytest.mark.parametrize("model", [LARGE, LATENT])
def test_short_runs_above_40b_get_vllm_if_it_fits_whatever_the_number_of_gpus(
    model: str, per_node: int
) -> None:
    choice = chosen(model, [pool("A100-80", per_node=per_node)], phase=1)
    assert choice.backend == "vllm"
    guide = "no vLLM on 4 GPUs (too large)" if per_node == 4 else "vLLM with 8 GPUs or more"
    assert choice.guide == f"Flash Attention; {guide}"
    assert choice.guide in choice.reasons[1]
    assert "above 40B" in choice.reasons[1]


@pytest.mark.parametrize(("phase", "steps"), [(4, 1000), (5, 5000), (None, 1001)])
@pytest.mark.parametrize("model", [SMALL, LARGE, PACKED])
def test_long_runs_get_vllm_if_it_fits(model: str, phase: int | None, steps: int) -> None:
    choice = chosen(model, [H100], phase=phase, steps=steps, runs=5)
    assert choice.backend == "vllm"
    assert choice.guide == "vLLM strongly; Flash Attention as fallback"
    assert "long runs" in choice.reasons[0]


def test_without_a_phase_the_steps_say_whether_runs_are_short() -> None:
    assert "short runs (1000 steps)" in said(chosen(SMALL, [A100], steps=1000))
    assert "long runs (1001 steps)" in said(chosen(SMALL, [A100], steps=1001))
    assert "short runs (phase 3)" in said(chosen(SMALL, [A100], steps=2500, phase=3))


def test_few_short_runs_favour_transformers_up_to_a_factor() -> None:
    few = chosen(SMALL, [A100], runs=FEW_RUNS - 1, steps=5, phase=1)
    costs = few.alternatives
    assert costs["vLLM"].gpu_hours <= costs["transformers"].gpu_hours * FAVOUR
    assert few.backend == "hf"
    long = chosen(EXPERTS, [H100], runs=FEW_RUNS - 1, steps=1000, phase=1)
    costs = long.alternatives
    assert costs["transformers"].gpu_hours > costs["vLLM"].gpu_hours * FAVOUR
    assert long.backend == "vllm"


def test_many_runs_favour_vllm_even_where_it_starts_up_longer() -> None:
    """The same work, told as more runs of one request."""
    some = chosen(SMALL, [H100], runs=MANY_RUNS, steps=1, phase=1)
    many = chosen(SMALL, [H100], runs=MANY_RUNS + 1, steps=1, phase=1)
    costs = many.alternatives
    assert costs["transformers"].gpu_hours < costs["vLLM"].gpu_hours
    assert costs["vLLM"].gpu_hours < costs["transformers"].gpu_hours * FAVOUR
    assert (some.backend, many.backend) == ("hf", "vllm")
    assert f"more than {MANY_RUNS} runs favour vLLM" in many.reasons[0]


# -- `policy: guide` ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "per_node", "phase", "backend"),
    [
        (SMALL, 4, 1, "hf"),
        (SMALL, 8, 3, "hf"),
        (MIDDLE, 8, 2, "hf"),
        (EXPERTS, 4, 1, "hf"),
        (LARGE, 4, 1, "hf"),
        (LARGE, 8, 1, "vllm"),
        (LATENT, 8, 2, "vllm"),
        (SMALL, 4, 4, "vllm"),
        (LARGE, 4, 5, "vllm"),
    ],
)
def test_with_policy_guide_the_table_alone_decides(
    model: str, per_node: int, phase: int, backend: str
) -> None:
    choice = chosen(model, [pool("A100-80", per_node=per_node)], phase=phase, policy="guide")
    assert choice.backend == backend
    assert "`policy: guide` says so" in choice.reasons[0]


def test_with_policy_guide_what_does_not_fit_falls_back_and_says_so() -> None:
    old = pool("V100-32", per_node=8)
    choice = chosen(SMALL, [old], phase=5, steps=5000, policy="guide")
    assert choice.backend == "hf"
    assert "as its fallback" in choice.reasons[0]
    too_large = chosen(LATENT, [pool("A100-80", per_node=4)], phase=1, policy="guide")
    assert too_large.backend == "vllm"
    assert "fits on nothing" in too_large.reasons[0]


def test_the_plan_says_what_the_guide_says_beside_what_was_chosen_and_why() -> None:
    choice = chosen(LARGE, [A100], phase=1)
    assert choice.reasons[0].startswith("backend `vllm`: the model fits wholly on 4 x A100-80")
    assert choice.reasons[1] == (
        "the guide says for short runs (phase 1) of a model above 40B: Flash Attention; no vLLM on "
        "4 GPUs (too large)"
    )


# -- what the cards permit ---------------------------------------------------------------------


@pytest.mark.parametrize("phase", [1, 5])
def test_a_v100_has_neither_vllm_nor_flash_attention(phase: int) -> None:
    choice = chosen(SMALL, [pool("V100-32")], phase=phase)
    assert choice.backend == "hf"
    assert not choice.candidate.deployment.flash_attention
    assert "not `vllm`" in choice.reasons[0]
    assert any("compute capability 7.5" in why for why in choice.rejected)


def test_a_t4_runs_vllm_without_flash_attention() -> None:
    choice = chosen(SMALL, [pool("T4")], phase=1)
    assert choice.backend == "vllm"
    hf = chosen(SMALL, [pool("T4")], phase=1, backend="hf")
    assert not hf.candidate.deployment.flash_attention


def test_newer_cards_have_flash_attention() -> None:
    hf = chosen(SMALL, [A100], phase=1, backend="hf")
    assert hf.candidate.deployment.flash_attention
    plain = chosen(SMALL, [A100], phase=1, backend="hf", attn_implementation="sdpa")
    assert not plain.candidate.deployment.flash_attention


# -- who overrules -----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["auto", "guide"])
@pytest.mark.parametrize("backend", ["vllm", "hf"])
@pytest.mark.parametrize("phase", [1, 5])
def test_a_backend_that_is_asked_for_is_taken_with_its_reason(
    backend: str, phase: int, policy: str
) -> None:
    choice = chosen(
        SMALL, [A100], phase=phase, backend=backend, backend_reason="so it was asked", policy=policy
    )
    assert choice.backend == choice.candidate.deployment.backend == backend
    assert choice.reasons[0] == f"backend `{backend}`: so it was asked"


@pytest.mark.parametrize(("missing", "left"), [("vllm", "hf"), ("hf", "vllm")])
def test_what_is_not_installed_is_not_chosen_but_said(missing: str, left: str) -> None:
    choice = chosen(SMALL, [A100], phase=1, unavailable={missing: "no such package"})
    assert choice.backend == left
    assert f"not `{missing}`: no such package" in choice.reasons[0]
    assert f"`{missing}`: no such package" in choice.rejected


def test_a_backend_that_is_asked_for_and_missing_is_refused_with_the_other() -> None:
    with pytest.raises(PlanError, match="backend `vllm` cannot serve") as caught:
        chosen(SMALL, [A100], backend="vllm", unavailable={"vllm": "no such package"})
    assert caught.value.hint == "use engine.backend=hf"


def test_every_way_is_costed_beside_the_chosen_one() -> None:
    choice = chosen(SMALL, [A100], phase=1)
    assert list(choice.alternatives) == [
        "vLLM",
        "transformers",
        "transformers, eager attention",
        "one run per job, vLLM",
        "one run per job, transformers",
    ]
    costs = choice.alternatives
    assert costs["vLLM"].gpu_hours == choice.candidate.estimate.gpu_hours
    assert costs["transformers"].gpu_hours <= costs["transformers, eager attention"].gpu_hours
    for how in ("vLLM", "transformers"):
        alone = costs[f"one run per job, {how}"]
        assert (alone.workers, alone.under_way) == (220, 1)
        assert alone.gpu_hours > costs[how].gpu_hours


def test_a_guessed_model_is_planned_with_a_warning() -> None:
    guess = model_spec("nobody/has-this-13b", environ={})
    choice = chosen(guess, [A100], phase=1)
    assert "guessed from its name" in said(choice)
    assert "guessed" not in said(chosen(known(SMALL), [A100], phase=1))
