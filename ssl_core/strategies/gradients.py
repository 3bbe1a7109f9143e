"""Items that would each move the model's last layer far, and in different directions: BADGE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl_core.strategies.spread import (
    approach,
    exponential_clocks,
    farthest_first,
    points,
)
from ssl_core.strategies.view import (
    PoolView,
    Scores,
    float64,
    in_order,
    need_features,
    need_probabilities,
    place,
)


def badge(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """k-means++ over the gradients that each item would have if the model were right about it.

    The gradient of the loss to the last layer's weights is (p - y) ⊗ h, with features h and the
    model's own answer y: one-hot at the likeliest finding (exclusive), or 1 where p >= 0.5
    (independent). The first item is the one with the longest gradient, as in the authors' code;
    each later one is drawn with chances in proportion to the squared distance from the nearest
    one drawn before. Only the first n are drawn this way; the others follow in one such draw
    without updates. Labeled items take no part. Scores are N, N-1, ..., 1 in that order.

    N x C·D numbers are never built: |a⊗b - c⊗d|² = |a|²|b|² + |c|²|d|² - 2 (a·c)(b·d).

    Source: Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds,
    ICLR 2020, algorithm 1. Time grows with N · (C + D) · n, memory with N · (C + D).
    """
    error, features = _errors(view), need_features(view, "badge")
    shuffle = rng.permutation(view.size)
    if view.size == 0:
        return np.zeros(0)
    rows = features[shuffle].astype(np.float32)
    pool = points(rows, error[shuffle].astype(np.float32))
    first = np.array([int(pool.squares.argmax())])
    nearest = np.full(view.size, np.inf, np.float32)
    approach(nearest, pool, pool.at(first))
    nearest[first] = -1.0
    clocks = exponential_clocks(rng, view.size)
    picks = np.concatenate([first, farthest_first(pool, nearest, n - 1, clocks)])
    rest = np.argsort(-(nearest / clocks()), kind="stable")[: view.size - len(picks)]
    return in_order(shuffle[np.concatenate([picks, rest])])


def _errors(view: PoolView, rows: slice = slice(None)) -> Scores:
    """p - y `(N, C)`: what the model would still have to learn if its own answer were right."""
    p = need_probabilities(view)[rows]
    if not view.exclusive:
        return p - (p >= 0.5)
    answer = np.zeros(p.shape)
    answer[np.arange(len(p)), p.argmax(axis=1)] = 1.0
    return p - answer


def badge_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """The first: its gradient and the finding that is most of it. Others: their place."""
    if score < view.size:
        return (
            f"place {place(view, score)} of {view.size} in a draw that favors images that would "
            "change the last layer otherwise than those drawn before"
        )
    features, error = need_features(view, "badge"), _errors(view, slice(i, i + 1))[0]
    length = float(np.linalg.norm(error)) * float(np.linalg.norm(float64(features[i])))
    return (
        f"place 1 of {view.size}: of all images it would change the last layer most (a gradient "
        f"of length {length:.3g}, most of it for {findings[int(np.abs(error).argmax())]})"
    )
