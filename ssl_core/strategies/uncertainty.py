"""What one prediction leaves open: entropy, margin, least confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import entr

from ssl_core.strategies.view import PoolView, Scores, float64, need_probabilities


def entropy(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Entropy of the prediction as a share of the most there can be: 0 certain, 1 no idea.

    Exclusive: -Σ p ln p / ln C. Independent: mean over findings of -(p ln p + q ln q) / ln 2
    with q = 1 - p. Source: Shannon 1948; Settles, Active Learning Literature Survey 2009, sec. 3.1.
    """
    return shares(need_probabilities(view), view.exclusive)


def shares(p: Scores, exclusive: bool) -> Scores:
    """Entropy of predictions `(..., C)` as a share of the most there can be, `(...)`."""
    if exclusive:
        return float64(entr(p).sum(axis=-1) / np.log(p.shape[-1]))
    return float64(_binary_entropy(p).mean(axis=-1))


def margin(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """One less the margin, in [0, 1]: 1 where the two likeliest answers are equally likely.

    Exclusive: margin = largest less second largest probability. Independent: mean over findings
    of |p - (1 - p)|. Source: Scheffer, Decomain and Wrobel 2001; Settles 2009, sec. 3.1.
    """
    p = need_probabilities(view)
    if view.exclusive:
        top = np.partition(p, -2, axis=1)
        return float64(1.0 - (top[:, -1] - top[:, -2]))
    return float64(1.0 - _binary_margin(p).mean(axis=1))


def least_confidence(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """How far the likeliest answer is from certain, as a share of the most there can be, [0, 1].

    Exclusive: (1 - max p) · C / (C - 1). Independent: mean over findings of
    2 · (1 - max(p, 1 - p)), which is `margin`'s score: with two answers they are one thing.
    Source: Lewis and Gale 1994 (the answer nearest 0.5); Settles 2009, sec. 3.1 (1 - max p).
    """
    p = need_probabilities(view)
    if view.exclusive:
        return float64((1.0 - p.max(axis=1)) * (p.shape[1] / (p.shape[1] - 1)))
    return float64(1.0 - _binary_margin(p).mean(axis=1))


def entropy_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Its entropy, and the finding that weighs most."""
    p = need_probabilities(view)[i]
    if view.exclusive:
        whole, top = entr(p).sum() / np.log(len(p)), int(p.argmax())
        return (
            f"entropy {whole:.2f} over {len(p)} findings (1 = all equally likely), "
            f"likeliest {findings[top]} ({p[top]:.2f})"
        )
    each = _binary_entropy(p)
    top = int(each.argmax())
    one = f"entropy {each[top]:.2f} (1 = no idea) for {findings[top]} ({p[top]:.2f})"
    if len(p) == 1:
        return one
    return f"mean entropy {each.mean():.2f} over {len(p)} findings; highest: {one}"


def margin_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Its margin, and the finding or pair of findings that is closest."""
    p = need_probabilities(view)[i]
    if view.exclusive:
        second, first = (int(c) for c in np.argsort(p, kind="stable")[-2:])
        return (
            f"margin {p[first] - p[second]:.2f} between {findings[first]} ({p[first]:.2f}) "
            f"and {findings[second]} ({p[second]:.2f})"
        )
    each = _binary_margin(p)
    low = int(each.argmin())
    one = f"margin {each[low]:.2f} between present and absent for {findings[low]} ({p[low]:.2f})"
    if len(p) == 1:
        return one
    return f"mean margin {each.mean():.2f} over {len(p)} findings; smallest: {one}"


def least_confidence_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """How likely its likeliest answer is: of the findings, or of the one that is least sure."""
    p = need_probabilities(view)[i]
    if view.exclusive:
        top = int(p.argmax())
        return f"the likeliest of {len(p)} findings, {findings[top]}, has only {p[top]:.2f}"
    sure = np.maximum(p, 1.0 - p)
    low = int(sure.argmin())
    answer = "present" if p[low] >= 0.5 else "absent"
    one = f"{findings[low]} is {answer} with only {sure[low]:.2f}"
    if len(p) == 1:
        return one
    return f"mean confidence {sure.mean():.2f} over {len(p)} findings; lowest: {one}"


def _binary_entropy(p: Scores) -> Scores:
    return float64((entr(p) + entr(1.0 - p)) / np.log(2.0))


def _binary_margin(p: Scores) -> Scores:
    return np.abs(2.0 * p - 1.0)
