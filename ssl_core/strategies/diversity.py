"""Items far apart in feature space: k-center."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl_core.strategies.spread import (
    BLOCK,
    approach,
    blocks,
    centred,
    farthest_first,
    points,
)
from ssl_core.strategies.view import (
    Array,
    Floats,
    PoolView,
    Rows,
    Scores,
    in_order,
    need_features,
    place,
)


def k_center(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Again and again the item farthest from everything labeled or asked: greedy k-center.

    The largest distance of an item from its nearest labeled one falls as fast as a greedy choice
    can make it: at most twice the least there is. Without labeled items the first is the one
    nearest to the pool's mean. Only the first n are picked this way; the others follow by
    their distance from all picked. Ties are broken by `rng`. Scores are N, N-1, ..., 1 in that
    order. Odd images are far from all others, and are asked early.

    Source: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set
    Approach, ICLR 2018, algorithm 1. Time grows with N · D · (n + L), memory with N · D.
    """
    features = need_features(view, "k_center")
    return in_order(k_center_order(features, view.labeled_features, n, rng))


def k_center_order(
    features: Array, labeled: Array | None, n: int, rng: np.random.Generator
) -> Rows:
    """Positions `(N,)` of features `(N, D)` in the order of `k_center`."""
    shuffle = rng.permutation(len(features))
    if not len(shuffle):
        return shuffle
    pool, known = (points(rows) for rows in centred(features, shuffle, labeled))
    nearest = np.full(len(shuffle), np.inf, np.float32)
    first: list[int] = []
    if len(known.squares):
        approach(nearest, pool, known)
    else:
        first = [_most_central(pool.rows)]
        approach(nearest, pool, pool.at(np.array(first)))
        nearest[first] = -1.0
    picks = [*first, *farthest_first(pool, nearest, n - len(first)).tolist()]
    order = np.argsort(-nearest, kind="stable")
    return shuffle[np.concatenate([picks, order[: len(order) - len(picks)]]).astype(np.int64)]


def k_center_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Its place in the order, and what that order is."""
    if view.labeled == 0 and score == view.size:
        return "the most central image of the pool: none is labeled yet to be far from"
    return (
        f"place {place(view, score)} of {view.size} in an order that asks first "
        "what is farthest from all labeled and asked images"
    )


def _most_central(rows: Floats) -> int:
    mean = rows.mean(axis=0, dtype=np.float64)
    away = [((rows[some] - mean) ** 2).sum(axis=1) for some in blocks(len(rows), BLOCK)]
    return int(np.concatenate(away).argmin())
