"""From teacher scores to pseudo-labels: what is kept, as what, and in which class ratio."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating]

# A share of a count that is a whole number in exact arithmetic may come out as 31145.999…: the
# class prior is itself a rounded quotient. Anything this close to the next integer is that integer.
_WHOLE = 1e-9


def _floor(share: float, count: int) -> int:
    return math.floor(share * count * (1 + _WHOLE) + _WHOLE)


def keep_most_confident(
    scores: FloatArray, class_prior: FloatArray, keep_fraction: float
) -> npt.NDArray[np.float64]:
    """Pseudo-label the most confident scores of each finding, in the ratio of the class prior.

    Martins & Silva (S0), "class-balanced keep fraction": of the N scores of a finding with prior π,
    the ⌊κ·π·N⌋ highest become 1 and the ⌊κ·(1-π)·N⌋ + 1 lowest become 0; those between are dropped.
    The `+ 1` is the authors' own rounding: with it their published lists are reproduced row by row.
    Findings are treated each on its own, so an item may be kept for one and dropped for another.

    Args:
        scores: `(N, C)` in [0, 1]. NaN means "not scored": it is never kept and not counted in N.
        class_prior: `(C,)` in [0, 1], share of positives expected. NaN keeps nothing of a finding.
        keep_fraction: κ in [0, 1]; 0 keeps nothing.

    Returns:
        `(N, C)` float64 of 1 (present), 0 (absent), NaN (dropped).

    Rounding: both counts are floors, with products within 1e-9 of a whole number taken as that
    number. If they overlap (κ = 1), positives go first and negatives take the rest. A class whose
    prior is 0 gets nothing. Ties: equal scores at a border are told apart by row; the negatives
    take the earlier rows and the positives the later ones, so counts are exact.

    Raises:
        ValueError: shapes do not match, or a score, prior or fraction is outside [0, 1].
    """
    scores, prior = _checked(scores, class_prior, keep_fraction)
    kept = np.full(scores.shape, np.nan)
    for c in range(scores.shape[1]):
        rows = np.flatnonzero(~np.isnan(scores[:, c]))
        if np.isnan(prior[c]) or keep_fraction == 0 or rows.size == 0:
            continue
        positives = _floor(keep_fraction * prior[c], rows.size)
        negatives = _floor(keep_fraction * (1 - prior[c]), rows.size) + 1 if prior[c] < 1 else 0
        order = rows[np.argsort(scores[rows, c], kind="stable")]
        kept[order[: min(negatives, rows.size - positives)], c] = 0.0
        kept[order[rows.size - positives :], c] = 1.0
    return kept


def keep_most_confident_class(
    scores: FloatArray, class_prior: FloatArray, keep_fraction: float
) -> npt.NDArray[np.float64]:
    """Pseudo-label the most confident scores of exclusive classes: one class an item at the most.

    The multi-class sibling of `keep_most_confident`: class k takes at most ⌊κ·π_k·N⌋ items. Pairs
    of item and class are visited from the highest score down; a pair is taken when its item has no
    class yet and its class has room. Equal scores are visited in row order, then class order.

    Args:
        scores: `(N, C)` in [0, 1], C ≥ 2, rows summing to about 1. A row with a NaN is not kept.
        class_prior: `(C,)` in [0, 1]; NaN keeps nothing of a class.
        keep_fraction: κ in [0, 1].

    Returns:
        `(N, C)` float64: a kept row is 1 for its class and 0 elsewhere; a dropped row is NaN.

    Raises:
        ValueError: shapes do not match, or a score, prior or fraction is outside [0, 1].
    """
    scores, prior = _checked(scores, class_prior, keep_fraction)
    n, classes = scores.shape
    scored = np.asarray(~np.isnan(scores).any(axis=1))
    count = int(scored.sum())
    room = [0 if np.isnan(p) else _floor(keep_fraction * p, count) for p in prior]
    kept = np.full((n, classes), np.nan)
    taken = ~scored
    # Visiting all pairs in one sorted pass is O(N·C log N·C); the quotas end it early.
    for pair in np.argsort(-scores, axis=None, kind="stable"):
        item, k = divmod(int(pair), classes)
        if taken[item] or room[k] == 0:
            continue
        taken[item] = True
        room[k] -= 1
        kept[item] = 0.0
        kept[item, k] = 1.0
        if not any(room):
            break
    return kept


def soften(kept: FloatArray, scores: FloatArray) -> npt.NDArray[np.float64]:
    """Replace the 1 / 0 of kept pseudo-labels by the teacher's scores; dropped ones stay NaN.

    Args:
        kept: `(N, C)` of 1 / 0 / NaN.
        scores: `(N, C)` in [0, 1].

    Returns:
        `(N, C)` float64 in [0, 1] or NaN.
    """
    return np.where(np.isnan(kept), np.nan, scores).astype(np.float64)


def class_prior(random_labels: FloatArray, *, exclusive: bool = False) -> npt.NDArray[np.float64]:
    """Share of positives among labels that were drawn at random (design, rule 3).

    Never call it with labels that a query strategy chose: a queue of hard cases is a biased sample.
    The share is shrunk by half a count a class (Jeffreys' prior), so that ten random labels without
    a positive do not claim that there is none; with many labels it is the plain ratio.

    Args:
        random_labels: `(M, C)` of 1 / 0 / NaN.
        exclusive: the C columns are classes of which an item has one; the priors then sum to 1.

    Returns:
        `(C,)` in (0, 1), NaN for a finding without a random label.
    """
    known = ~np.isnan(random_labels)
    count = known.sum(axis=0).astype(np.float64)
    positives = np.where(known, random_labels, 0.0).sum(axis=0)
    spread = random_labels.shape[1] / 2 if exclusive else 1.0
    prior = (positives + 0.5) / (count + spread)
    return np.where(count > 0, prior, np.nan)


def _checked(
    raw_scores: FloatArray, raw_prior: FloatArray, keep_fraction: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    scores = np.asarray(raw_scores, dtype=np.float64)
    prior = np.asarray(raw_prior, dtype=np.float64)
    if scores.ndim != 2 or prior.shape != (scores.shape[1],):
        raise ValueError(
            f"scores must be (N, C) and class_prior (C,), not {scores.shape} and {prior.shape}"
        )
    for name, values in (("scores", scores), ("class_prior", prior)):
        if np.any((values < 0) | (values > 1)):
            raise ValueError(f"{name} must lie in [0, 1]")
    if not 0 <= keep_fraction <= 1:
        raise ValueError(f"keep_fraction must lie in [0, 1], not {keep_fraction}")
    return scores, prior
