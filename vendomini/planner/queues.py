"""Which partition a job goes to, where several lead to the same nodes: pure."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf

from vendomini.planner.pool import Pool


def without_shorter(pools: Sequence[Pool]) -> list[Pool]:
    """The pools to plan on: of those that are alike, none that another one makes needless, with at
    least as many nodes and at least as long a limit."""
    return [
        pool
        for index, pool in enumerate(pools)
        if not any(
            _makes_needless(other, pool, is_before=place < index)
            for place, other in enumerate(pools)
            if place != index
        )
    ]


def shortest_that_holds(pools: Sequence[Pool], chosen: Pool, *, minutes: int) -> Pool:
    """The pool like `chosen` with the shortest limit that a job of so many minutes keeps to.

    Schedulers start jobs of short partitions first, and a partition without a limit is often one
    whose jobs make room for others. One with fewer nodes is none: fewer workers would play at a
    time.
    """
    holding = [
        pool
        for pool in pools
        if _are_alike(pool, chosen) and pool.nodes >= chosen.nodes and _limit(pool) >= minutes
    ]
    return min(holding, key=_limit, default=chosen)


# -- private -------------------------------------------------------------------------------


def _limit(pool: Pool) -> float:
    return inf if pool.max_minutes is None else pool.max_minutes


def _are_alike(one: Pool, other: Pool) -> bool:
    def node(pool: Pool) -> Pool:
        return replace(pool, partition=None, max_minutes=None, nodes=0)

    return node(one) == node(other)


def _makes_needless(other: Pool, pool: Pool, *, is_before: bool) -> bool:
    if not _are_alike(other, pool):
        return False
    mine, its = (pool.nodes, _limit(pool)), (other.nodes, _limit(other))
    return its[0] >= mine[0] and its[1] >= mine[1] and (its != mine or is_before)
