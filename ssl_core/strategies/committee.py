"""Where predictions of one item part ways: over augmented views, or between two models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssl_core.errors import SelectionError
from ssl_core.strategies.uncertainty import shares
from ssl_core.strategies.view import PoolView, Scores, float64, need_probabilities


def augmentation(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Disagreement over augmented views: mean over findings of the variance over views, [0, 1/4].

    The consistency metric of Gao et al., Consistency-Based Semi-Supervised Active Learning, ECCV
    2020 (which sums over classes: the same order), on S1's augmented views.
    """
    return float64(_view_variance(view).mean(axis=1))


def bald(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """What a model's draws disagree on: entropy of their mean less the mean of their entropies.

    The V views stand for draws of the model: test-time augmentation, or dropout passes, whatever
    the view was made with. H(mean_v p_v) - mean_v H(p_v), H as a share of the most there can be
    (see `entropy`), so in [0, 1]: 0 where all views agree, 1 where they are certain and C of them
    say C different things. High entropy on which all views agree counts for nothing.

    Source: Houlsby et al., Bayesian Active Learning for Classification and Preference Learning,
    2011, eq. 2; over stochastic passes of a network: Gal, Islam and Ghahramani, ICML 2017.
    """
    views = _need_views(view, "bald")
    mean = views[0] + (views - views[0]).mean(axis=0)  # equal views give exactly 0
    each = shares(views, view.exclusive)
    inner = each[0] + (each - each[0]).mean(axis=0)
    gained = shares(np.clip(mean, 0.0, 1.0), view.exclusive) - inner
    return float64(np.maximum(gained, 0.0))


def disagreement(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Distance between what student and teacher predict, in [0, 1]: 0 where they agree.

    Independent: mean over findings of |p - t|. Exclusive: total variation, ½ Σ |p - t|.
    A committee of two (Seung, Opper and Sompolinsky, Query by Committee, 1992), measured on
    probabilities rather than on votes.
    """
    apart = _apart(view)
    return float64(apart.sum(axis=1) / 2.0 if view.exclusive else apart.mean(axis=1))


def augmentation_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """How far the finding with the largest variance went."""
    top = int(_view_variance(view, slice(i, i + 1))[0].argmax())
    return _went(view, i, top, findings)


def bald_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """The information that views hold apart, and how far the most moved finding went."""
    top = int(_view_variance(view, slice(i, i + 1))[0].argmax())
    return f"views disagree by {score:.2f} (1 = the most they can); {_went(view, i, top, findings)}"


def disagreement_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """What the two models say of the finding on which they are furthest apart."""
    p, t = need_probabilities(view)[i], _need_teacher(view)[i]
    top = int(np.abs(p - t).argmax())
    one = f"teacher {t[top]:.2f} and student {p[top]:.2f} for {findings[top]}"
    if len(p) == 1:
        return one
    return f"teacher and student differ by {score:.2f} over {len(p)} findings; most: {one}"


def _went(view: PoolView, i: int, finding: int, findings: Sequence[str]) -> str:
    seen = _need_views(view, "augmentation")[:, i, finding]
    return (
        f"over {len(seen)} augmented views the probability of {findings[finding]} "
        f"went from {seen.min():.2f} to {seen.max():.2f}"
    )


def _need_views(view: PoolView, name: str) -> Scores:
    if view.views is None:
        raise SelectionError(
            f"strategy '{name}' needs predictions under augmented views and there are none: "
            "train a model first, or choose 'cold_start' or 'random'"
        )
    return np.clip(float64(view.views), 0.0, 1.0)


def _need_teacher(view: PoolView) -> Scores:
    if view.teacher_probabilities is None:
        raise SelectionError(
            "strategy 'disagreement' needs the probabilities of a second model and there are none: "
            "choose a recipe that makes a teacher and a student, or choose 'margin' or 'random'"
        )
    return np.clip(float64(view.teacher_probabilities), 0.0, 1.0)


def _apart(view: PoolView) -> Scores:
    return np.abs(need_probabilities(view) - _need_teacher(view))


def _view_variance(view: PoolView, rows: slice = slice(None)) -> Scores:
    """`(N, C)` variance over views, about the first view so that equal views give exactly 0."""
    views = _need_views(view, "augmentation")[:, rows]
    return float64(np.var(views - views[0], axis=0))
