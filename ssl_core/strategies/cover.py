"""The most items within reach of what is asked: ProbCover."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ssl_core.strategies.cold import k_means
from ssl_core.strategies.spread import (
    BLOCK,
    Points,
    approach,
    blocks,
    centred,
    points,
    squared_distances,
)
from ssl_core.strategies.view import (
    PoolView,
    Rows,
    Scores,
    in_order,
    need_features,
    place,
)

ITEMS = 20_000  # of a larger pool take part: the neighbours of all would cost N² · D
EDGES = 20_000_000  # pairs of neighbours at most, 160 MB; in denser spaces fewer items take part
PROBES = 1_000  # items from which the radius is estimated
PURITY = 0.95  # the paper's alpha
STARTS = 5  # of k-means: one that splits a region shrinks the radius
PSEUDO_CLASSES = 10  # where the task does not say how many classes there are


def prob_cover(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Again and again the item with the most uncovered items closer than delta: maximum coverage.

    An item is covered when a labeled or asked one is closer than delta. Delta is the largest
    radius at which balls about 95 % of the items are pure: hold one pseudo-class only. Those
    come from k-means with as many clusters as there are classes (exclusive findings, once there
    is a model), else `PSEUDO_CLASSES`. Only the first n are picked this way; what covers
    nothing new follows in random order. Ties are broken by `rng`. Scores are N, N-1, ..., 1.

    Exact on a random `ITEMS` of the pool, or as many as have `EDGES` pairs of neighbours, and
    with delta from a random `PROBES` of them; the items left out come last, in random order.

    Source: Yehuda, Dekel, Hacohen and Weinshall, Active Learning Through a Covering Lens,
    NeurIPS 2022, algorithm 1 and the estimate of delta by purity 0.95.
    """
    features = need_features(view, "prob_cover")
    shuffle = rng.permutation(view.size)
    if view.size == 0:
        return np.zeros(0)
    some = centred(features, shuffle[:ITEMS], view.labeled_features)
    pool, known = (points(rows) for rows in some)
    classes = k_means(pool.rows, _classes(view), rng, STARTS)
    reach, share = purity_radius(pool, classes)
    size = min(len(pool.rows), max(1, math.isqrt(int(EDGES / max(share, 1e-12)))))
    pool = pool.at(slice(0, size))
    nearest = np.full(size, np.inf, np.float32)
    approach(nearest, pool, known)
    order = _greedy(neighbours(pool, reach), nearest >= reach, n)
    return in_order(shuffle[np.concatenate([order, np.arange(size, view.size)])])


def prob_cover_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Its place in the order, and what that order is."""
    return (
        f"place {place(view, score)} of {view.size} in an order that asks first the images with "
        "the most others near them that no labeled or asked one is near to"
    )


def purity_radius(pool: Points, classes: Rows) -> tuple[float, float]:
    """Delta², and the share of pairs closer than delta, from the first `PROBES` points.

    A ball about an item is pure while its radius is at most the distance to the nearest item of
    another class, so delta is the (1 - `PURITY`) quantile of those distances: the largest one
    that `PURITY` of the items reach. Infinite where there is one class only.
    """
    probes = pool.at(slice(0, PROBES))
    count = len(probes.rows)
    other = np.full(count, np.inf, np.float32)
    for rows in blocks(len(pool.rows), BLOCK):
        found = squared_distances(probes, pool.at(rows))
        found[classes[:count, None] == classes[rows]] = np.inf
        np.minimum(other, found.min(axis=1), out=other)
    reach = float(np.sort(other)[int((1.0 - PURITY) * count + 1e-9)])
    within = sum(
        int((squared_distances(probes, pool.at(rows)) < reach).sum())
        for rows in blocks(len(pool.rows), BLOCK)
    )
    return reach, within / (count * len(pool.rows))


def neighbours(pool: Points, reach: float) -> sparse.csr_array:
    """`(N, N)` of ones where two different points are closer than the root of `reach`."""
    parts = []
    for rows in blocks(len(pool.rows), BLOCK):
        after = slice(rows.start, len(pool.rows))
        near = squared_distances(pool.at(rows), pool.at(after)) < reach
        near[:, : len(near)] &= np.triu(np.ones((len(near), len(near)), bool), 1)  # a pair once
        i, j = np.nonzero(near)
        parts.append(np.stack([i + rows.start, j + rows.start]).astype(np.int32))
    i, j = np.concatenate(parts, axis=1)
    shape = (len(pool.rows), len(pool.rows))
    half = sparse.csr_array((np.ones(len(i), np.int8), (i, j)), shape=shape)
    whole: sparse.csr_array = (half + half.T).tocsr()
    return whole


def _greedy(graph: sparse.csr_array, uncovered: npt.NDArray[np.bool_], n: int) -> Rows:
    """Positions `(N,)`: n picks by uncovered neighbours (oneself is one), then all others."""
    start, end = graph.indptr[:-1], graph.indptr[1:]
    size = len(uncovered)
    gain = graph.astype(np.int64) @ uncovered.astype(np.int64) + uncovered
    picks: list[int] = []
    while len(picks) < min(n, size):
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        near = np.append(graph.indices[start[best] : end[best]], best)
        new = near[uncovered[near]]
        uncovered[new] = False
        gain[new] -= 1
        for item in new.tolist():
            gain[graph.indices[start[item] : end[item]]] -= 1
        gain[best] = -1
        picks.append(best)
    gain[picks] = -1
    rest = np.argsort(-gain, kind="stable")[: size - len(picks)]
    return np.concatenate([np.array(picks, np.int64), rest])


def _classes(view: PoolView) -> int:
    if view.exclusive and view.probabilities is not None:
        return view.probabilities.shape[1]
    return PSEUDO_CLASSES
