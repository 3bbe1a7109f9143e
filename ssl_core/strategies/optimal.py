"""Items that would settle most of what a linear model leaves open about the whole pool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssl_core.strategies.spread import BLOCK, blocks
from ssl_core.strategies.uncertainty import entropy
from ssl_core.strategies.view import Array, PoolView, Rows, Scores, in_order, need_features, place

COMPONENTS = 64  # principal components that stand for the features: more are noise, and time
PRIOR = 0.04  # precision of the linear model's weights, before it sees labels


def design(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Again and again the item that lowers the pool's mean predictive variance most.

    Of a Bayesian linear model on features x (centred, `COMPONENTS` principal components, length 1):
    with the posterior covariance A of what is labeled or asked, one more item x lowers the variance
    summed over the pool by |X A x|² / (1 + xᵀ A x). Typical items of large regions come first, and
    what is like the labeled comes late; an odd item counts for itself alone. No model and no
    clusters are needed, and nothing is drawn but ties. Only the first n are picked this way; the
    others follow by what they would lower then. Scores are N, N-1, ..., 1 in that order.

    Source: Yu, Bi and Tresp, Active Learning via Transductive Experimental Design, ICML 2006,
    the sequential algorithm. Time grows with N · (D² + COMPONENTS · n), memory with N · D.
    """
    return design_order(view, np.ones(view.size), n, rng, "design")


def design_order(
    view: PoolView, open_: Scores, n: int, rng: np.random.Generator, name: str
) -> Scores:
    """`design` where the variance of pool item i counts `open_[i]` ≥ 0; not all are 0."""
    features = need_features(view, name)
    if view.size == 0:
        return np.zeros(0)
    shuffle = rng.permutation(view.size)
    pool, labeled = components(features[shuffle], view.labeled_features)
    picks, rest = _greedy(pool, labeled, open_[shuffle], n)
    return in_order(shuffle[np.concatenate([picks, rest])])


def design_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Its place in the order, and what that order is."""
    return (
        f"place {place(view, score)} of {view.size} in an order that asks first what tells most "
        "about all images of the pool, given what is labeled or asked"
    )


def components(features: Array, labeled: Array | None) -> tuple[Scores, Scores]:
    """Principal components of the pool `(N, d)` and of the labeled `(L, d)`, d ≤ `COMPONENTS`.

    Centred by the pool, then of length 1: odd images, far from all others, would lead otherwise.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    width = features.shape[1]
    scatter = np.zeros((width, width))
    for rows in blocks(len(features), BLOCK):
        some = features[rows] - mean
        scatter += some.T @ some
    axes = np.linalg.eigh(scatter)[1][:, ::-1][:, :COMPONENTS]
    pool = (features - mean) @ axes
    known = np.zeros((0, axes.shape[1])) if labeled is None else (labeled - mean) @ axes
    return _directions(pool), _directions(known)


def _directions(rows: Scores) -> Scores:
    """Rows of length 1; a row at the centre has none and stays 0."""
    length = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.where(length > 1e-9, rows / np.maximum(length, 1e-9), 0.0)


def _greedy(pool: Scores, labeled: Scores, open_: Scores, n: int) -> tuple[Rows, Rows]:
    """The first n picks, and the others by their gain after them.

    own: xᵀ A x. seen: xᵀ A S A x, with S the scatter of the pool weighted by what is open; both
    `(N,)` and brought up to date by rank-one terms.
    """
    scatter = (pool * open_[:, None]).T @ pool / max(open_.sum(), 1e-12)
    width = pool.shape[1]
    cover = np.linalg.inv(PRIOR * np.eye(width) + labeled.T @ labeled)
    own = np.einsum("ij,ij->i", pool @ cover, pool)
    seen = np.einsum("ij,ij->i", pool @ (cover @ scatter @ cover), pool)
    picks: list[int] = []
    free = np.ones(len(pool), dtype=np.bool_)
    gain = _gain(own, seen, free)
    for _ in range(min(n, len(pool))):
        best = int(gain.argmax())
        picks.append(best)
        free[best] = False
        to = cover @ pool[best]
        through = cover @ (scatter @ to)
        known = 1.0 + pool[best] @ to
        near, far = pool @ to, pool @ through
        own -= near**2 / known
        seen += near * (near * (to @ scatter @ to) / known - 2.0 * far) / known
        cover -= np.outer(to, to) / known
        gain = _gain(own, seen, free)
    order = np.argsort(-gain, kind="stable")[: len(pool) - len(picks)]
    return np.array(picks, dtype=np.int64), order


def _gain(own: Scores, seen: Scores, free: npt.NDArray[np.bool_]) -> Scores:
    return np.where(free, np.maximum(seen, 0.0) / (1.0 + np.maximum(own, 0.0)), -1.0)


def still_open(view: PoolView) -> Scores:
    """`(N,)` in (0, 1]: the share of each item's answer that the model leaves open (entropy)."""
    if view.probabilities is None:
        return np.ones(view.size)
    return np.maximum(entropy(view, 0, np.random.default_rng(0)), 1e-6)
