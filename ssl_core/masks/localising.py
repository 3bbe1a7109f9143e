"""D-AUC: an AUROC of images in which a lesion counts as found only where its mask is hit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssl_core import metrics
from ssl_core.evidence import Floats, PerFinding
from ssl_core.masks.overlap import Bools, checked

HIT = 0.2
"""The Dice from which a lesion counts as found: an IoU of 1/9, about the 0.1 from which Wang et
al. 2017 (ChestX-ray8, Section 5) count a box as found."""


def d_auc(
    maps: npt.ArrayLike,
    truth: npt.ArrayLike,
    known: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    hit: float = HIT,
) -> PerFinding:
    """Dice-based AUROC per finding, in [0, 1], with DeLong's interval by patient.

    Derivation. S3 reports a "D-AUC" beside Dice; its text was not at hand, so this is a
    definition of ours that fits what S3 reports. Lower a threshold t on the map from 1. At t an
    abnormal image is *found* if Dice(map ≥ t, truth) ≥ `hit` at t or at a higher threshold; a
    normal one is a *false alarm* if its mask is no longer empty, which is where its Dice with the
    empty truth falls from 1 to 0. Both are Dice against `hit`, and both only rise as t falls, so
    they are the axes of a curve, and the area below it is the probability that an abnormal image
    is found at a higher threshold than a normal one raises an alarm, ties counting one half:
    an ordinary AUROC of the scores of `found_at`. It is an LROC area (Swensson 1996) in which the
    place is right when the masks overlap enough. It is at most the AUROC of the map's maximum, and
    equals the AUROC of the maximum within the lesion as `hit` goes to 0. The mean Dice bounds it
    from neither side; an area that weighs each find by its Dice would be at most the mean Dice,
    while S3 has 97.0 beside a Dice of 76.4: it cannot be that one.

    Limits. The number hangs on `hit`: compare only equal ones, and not S3's absolute numbers. A
    never-found lesion loses every pair, so chance is below one half and the curve does not reach
    the upper right corner. Normal images count by their one brightest pixel: smooth or threshold
    small specks first if they should not count. Several lesions of one finding in one image count
    as one mask. Dice at the threshold of use is another question: see `overlap.dice`.

    Args:
        maps: `(N, C, H, W)` probabilities in [0, 1].
        truth: `(N, C, H, W)` boolean.
        known: `(N, C)` boolean; unknown ones are left out.
        groups: `(N,)` patients.
        hit: Dice from which a lesion is found, above 0 to 1.

    Raises:
        ValueError: shapes, types or ranges that do not fit.
    """
    scores, labels = found_at(maps, truth, known, hit=hit)
    # Half of [0, 1] for real thresholds leaves room below for lesions that are never found.
    return metrics.auroc(np.where(np.isnan(scores), 0.0, (1 + scores) / 2), labels, groups)


def found_at(
    maps: npt.ArrayLike, truth: npt.ArrayLike, known: npt.ArrayLike | None = None, *, hit: float
) -> tuple[Floats, Floats]:
    """The highest threshold at which each image is found or raises an alarm, and its label.

    Returns scores `(N, C)` in [0, 1], NaN where a lesion is found at no threshold, and labels
    `(N, C)`: 1 abnormal, 0 normal, NaN unknown. Arguments as in `d_auc`.
    """
    p = np.asarray(maps)
    b, _, seen = checked(truth, truth, known)
    if p.shape != b.shape or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"maps {p.shape} must be probabilities in [0, 1] of shape {b.shape}")
    if not 0 < hit <= 1:
        raise ValueError(f"hit is {hit}: give a Dice above 0 and up to 1")
    scores = p.max(axis=(2, 3)).astype(np.float64)
    abnormal = b.any(axis=(2, 3))
    for n, c in zip(*np.nonzero(abnormal & seen), strict=True):
        scores[n, c] = _found(p[n, c].ravel().astype(np.float64), b[n, c].ravel(), hit)
    return scores, np.where(seen, abnormal, np.nan)


def _found(p: Floats, truth: Bools, hit: float) -> float:
    """The highest threshold at which Dice reaches `hit`; NaN if none does."""
    order = np.argsort(-p)
    p, right = p[order], np.cumsum(truth[order])
    dice = 2 * right / (np.arange(1, p.size + 1) + right[-1])
    last = np.append(p[:-1] != p[1:], True)  # pixels of one value come into the mask together
    reached = np.flatnonzero(last & (dice >= hit))
    return float(p[reached[0]]) if reached.size else np.nan
