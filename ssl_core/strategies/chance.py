"""Drawing by lot: from the whole pool, or evenly from what the model predicts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl_core.strategies.view import PoolView, Rows, Scores, in_order, need_probabilities


def random(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Uniform in [0, 1): every order is equally likely. The control that others must beat."""
    return rng.random(view.size)


def class_balanced_random(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Random, with each predicted class asked as often as any other while it lasts.

    The class of an item is its likeliest finding (exclusive) or, of the findings with p >= 0.5,
    the one that the fewest items of the pool have (independent; none is a class of its own). The
    order goes round the classes that are left, in random order, and takes a random item of each.
    Scores are N, N-1, ..., 1 in that order. The classes are the model's: a finding that it never
    predicts is asked as rarely as by `random`.

    A stratified draw (Cochran, Sampling Techniques, ch. 5) of equal sizes, with the model's
    classes as strata: they are not the true ones.
    """
    classes = _predicted(view)
    chance = rng.permutation(view.size)
    by_class = np.lexsort((chance, classes))
    held = np.bincount(classes, minlength=1)
    turn = np.empty(view.size, dtype=np.int64)
    turn[by_class] = np.arange(view.size) - (np.cumsum(held) - held)[classes[by_class]]
    return in_order(np.lexsort((rng.random(view.size), turn)))


def random_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """All items are alike to it."""
    return "drawn at random from the whole pool"


def class_balanced_random_reason(
    view: PoolView, i: int, score: float, findings: Sequence[str]
) -> str:
    """The class that the item was drawn from, and how many share it."""
    classes = _predicted(view)
    own = int(classes[i])
    among = f"drawn at random among the {int((classes == own).sum())} of {view.size} images"
    if view.exclusive:
        return f"{among} whose likeliest finding is {findings[own]}"
    if own == need_probabilities(view).shape[1]:
        return f"{among} that are predicted to show no finding"
    return f"{among} whose rarest predicted finding is {findings[own]}"


def _predicted(view: PoolView) -> Rows:
    """Class `(N,)` of each item: a finding's column, or C where none is predicted."""
    p = need_probabilities(view)
    if view.exclusive:
        return np.asarray(p.argmax(axis=1), dtype=np.int64)
    present = p >= 0.5
    frequency = present.sum(axis=0)
    rarity = np.where(present, frequency, view.size + 1)
    rarest = rarity.argmin(axis=1)
    return np.where(present.any(axis=1), rarest, p.shape[1]).astype(np.int64)
