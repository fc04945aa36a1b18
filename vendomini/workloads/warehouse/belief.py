"""What an agent believed of a morning beside the truth, and how far the two are apart."""

import msgspec

LEAST_TRUTH = 10


class Belief(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an agent believed of a morning, beside the truth. Units and currency units.

    `storage` and `budget` are None if the reply could not be read.
    """

    storage: float | None
    budget: float | None
    true_storage: int
    true_budget: float


def divergence(belief: float, truth: float) -> float:
    """|belief - truth| / max(|truth|, 10)."""
    return abs(belief - truth) / max(abs(truth), LEAST_TRUTH)
