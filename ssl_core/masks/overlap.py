"""How well predicted masks cover the true ones: Dice, IoU, pixel accuracy, presence.

Everywhere: `predicted` and `truth` `(N, C, H, W)` boolean, at the working size; `known` `(N, C)`
boolean, or None where every mask is known: an unknown mask gives NaN and is left out (unknown is
not empty); `groups` `(N,)`, the patients, or None when items are independent. Wrong shapes or
types raise ValueError. Black borders of padded images count as pixels.

Empty masks are defined. Both empty: the model rightly shows nothing, Dice and IoU 1. One of the
two empty: 0. So on normal items Dice is the share that stays empty; read it beside `presence`.
Of a finding that no item shows it would be nothing else, and no overlap: see `shown`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ssl_core import metrics
from ssl_core.evidence import Estimate, Floats, PerFinding, Statistic, macro, statistic, undefined

Bools = npt.NDArray[np.bool_]

SAME = 0.5
"""The Dice from which two masks are taken to be of the same thing."""


class Truth(NamedTuple):
    """True masks: `inside` and `sure` `(N, C, H, W)`, `known` `(N, C)`, all boolean.

    `inside`: the pixels in the mask. `sure`: those of which is known whether they are.
    """

    inside: Bools
    sure: Bools
    known: Bools


def as_truth(masks: npt.NDArray[np.floating], present: npt.NDArray[np.floating]) -> Truth:
    """True masks `(N, C, H, W)` of 1, 0 and NaN as what a model's masks are held against.

    present: `(N, C)` of 1, 0 and NaN, whether the item shows the finding. A mask is known where a
    pixel is in it, or where the finding is absent. What readers call present without a pixel in
    common, or are even on, has pixels that nobody drew, and is not normal for that: it is unknown.
    """
    sure = ~np.isnan(masks)
    inside = np.asarray(sure & (masks == 1))
    return Truth(inside, sure, sure.any(axis=(2, 3)) & (inside.any(axis=(2, 3)) | (present == 0)))


def shown(truth: npt.ArrayLike, known: npt.ArrayLike | None = None) -> Bools:
    """`known` `(N, C)` without the findings that no known item shows: no mask is there to cover.

    Their Dice is not measured, as AUROC has no value without positives either; a mean over findings
    would else mix overlap with the share of normal items.
    """
    _, inside, seen = checked(truth, truth, known)
    return np.asarray(seen & (inside.any(axis=(2, 3)) & seen).any(axis=0))


def dice(
    predicted: npt.ArrayLike, truth: npt.ArrayLike, known: npt.ArrayLike | None = None
) -> Floats:
    """Dice coefficient 2|A∩B| / (|A|+|B|) of each item and finding, `(N, C)` in [0, 1] or NaN."""
    both, either, seen = _areas(predicted, truth, known)
    return _shares(2 * both, both + either, seen)


def iou(
    predicted: npt.ArrayLike, truth: npt.ArrayLike, known: npt.ArrayLike | None = None
) -> Floats:
    """Intersection over union (Jaccard), `(N, C)` in [0, 1] or NaN: Dice / (2 - Dice)."""
    return _shares(*_areas(predicted, truth, known))


def pixel_accuracy(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    known: npt.ArrayLike | None = None,
    sure: npt.ArrayLike | None = None,
) -> Floats:
    """Share of the pixels called rightly, `(N, C)` in [0, 1] or NaN; high on any small lesion.

    sure: `(N, C, H, W)` boolean; the other pixels are left out.
    """
    a, b, seen = checked(predicted, truth, known)
    counted = np.ones(a.shape, bool) if sure is None else checked(a, sure, known)[1]
    right, of = ((a == b) & counted).sum(axis=(2, 3)), counted.sum(axis=(2, 3))
    return _shares(right, of, seen & (of > 0))


def average(values: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> PerFinding:
    """The mean over items of what `dice` and its like give, with 95 % intervals by patient.

    values: `(N, C)` in [0, 1], NaN where unknown. The influence of a patient is the sum of
    (value - mean) / n over its items, times √(G/(G-1)) of G patients, so `evidence.compare` pairs
    two models and `macro` means findings as they do everywhere else. NaN without a known item.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or not ((np.isnan(x)) | ((x >= 0) & (x <= 1))).all():
        raise ValueError(f"values must be (N, C) in [0, 1] or NaN, not {x.shape}")
    codes = _codes(groups, len(x))
    ones = np.where(np.isnan(x), 0.0, 1.0)
    findings = [_ratio(np.nan_to_num(x[:, c]), ones[:, c], codes) for c in range(x.shape[1])]
    return PerFinding(tuple(findings), macro(findings, int((~np.isnan(x)).any(axis=1).sum())))


def pooled_iou(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    known: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
) -> PerFinding:
    """IoU of all items' pixels together, Σ|A∩B| / Σ|A∪B|: what S4's authors' code reports.

    Large masks weigh more, normal items count by what is wrongly drawn on them alone. Influence:
    that of a ratio of sums. NaN where no known item has a pixel in either mask.
    """
    both, either, seen = _areas(predicted, truth, known)
    codes = _codes(groups, len(both))
    findings = [
        _ratio(b * s, e * s, codes) for b, e, s in zip(both.T, either.T, seen.T, strict=True)
    ]
    return PerFinding(tuple(findings), macro(findings, int(seen.any(axis=1).sum())))


def presence(
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike,
    known: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    *,
    least: int = 1,
) -> dict[str, PerFinding]:
    """Accuracy, sensitivity, specificity, precision and F1 of whole images.

    An image is called abnormal for a finding where at least `least` ≥ 1 pixels are predicted; it
    is abnormal where its true mask has any. Intervals: see `metrics.operating_points`.
    """
    a, b, seen = checked(predicted, truth, known)
    called = a.sum(axis=(2, 3)) >= least
    labels = np.where(seen, b.any(axis=(2, 3)), np.nan)
    return metrics.operating_points(called.astype(np.float64), labels, groups=groups)


def bootstrap(
    values: npt.ArrayLike,
    groups: npt.ArrayLike | None,
    rng: np.random.Generator,
    *,
    draws: int = 2000,
) -> list[Estimate]:
    """Means over items with percentile intervals of a bootstrap by patient; macro last.

    values: `(N, C)`, any number, NaN where unknown. Patients are drawn with replacement, all their
    items with them (Efron and Tibshirani 1993, ch. 13; clusters: Davison and Hinkley 1997, 3.8);
    the findings are drawn together. Bounds are NaN with fewer than two patients, and draws that
    hold no known item of a finding are left out of its bounds.
    """
    x = np.asarray(values, dtype=np.float64)
    codes = _codes(groups, len(x))
    size = int(codes.max(initial=-1)) + 1
    sums, counts = np.zeros((2, size, x.shape[1]))
    np.add.at(sums, codes, np.nan_to_num(x))
    np.add.at(counts, codes, ~np.isnan(x))
    weights = rng.multinomial(size, np.full(size, 1 / max(size, 1)), draws).astype(np.float64)
    with np.errstate(invalid="ignore"):
        drawn, whole = (weights @ sums) / (weights @ counts), sums.sum(0) / counts.sum(0)
    used = ~np.isnan(whole)
    drawn = np.column_stack([drawn, _row_means(drawn[:, used])])
    whole = np.append(whole, whole[used].mean() if used.any() else math.nan)
    n = [*(~np.isnan(x)).sum(axis=0), (~np.isnan(x)).any(axis=1).sum()]
    ends = _percentiles(drawn) if size > 1 else np.full((2, len(whole)), math.nan)
    return [
        Estimate(float(mean), float(low), float(high), int(k))
        for mean, low, high, k in zip(whole, *ends, n, strict=True)
    ]


def checked(
    predicted: npt.ArrayLike, truth: npt.ArrayLike, known: npt.ArrayLike | None
) -> tuple[Bools, Bools, Bools]:
    """Both masks `(N, C, H, W)` and what is known `(N, C)`. Raises ValueError for anything else."""
    a, b = np.asarray(predicted), np.asarray(truth)
    if a.ndim != 4 or a.shape != b.shape:
        raise ValueError(f"masks {a.shape} and {b.shape} must both be (N, C, H, W)")
    if a.dtype != np.bool_ or b.dtype != np.bool_:
        raise ValueError(f"masks must be boolean, not {a.dtype} and {b.dtype}")
    if not a.shape[2] * a.shape[3]:
        raise ValueError("masks have no pixels")
    seen = np.ones(a.shape[:2], bool) if known is None else np.asarray(known)
    if seen.shape != a.shape[:2] or seen.dtype != np.bool_:
        raise ValueError(f"known is {seen.dtype} {seen.shape}, not bool {a.shape[:2]}")
    return a, b, seen


def _areas(
    predicted: npt.ArrayLike, truth: npt.ArrayLike, known: npt.ArrayLike | None
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Bools]:
    """Pixels in both masks and in either, and what is known: `(N, C)` each."""
    a, b, seen = checked(predicted, truth, known)
    return (a & b).sum(axis=(2, 3)), (a | b).sum(axis=(2, 3)), seen


def _shares(part: npt.NDArray[np.intp], whole: npt.NDArray[np.intp], seen: Bools) -> Floats:
    shares = np.where(whole > 0, part / np.maximum(whole, 1), 1.0)
    return np.where(seen, shares, np.nan)


def _codes(groups: npt.ArrayLike | None, size: int) -> npt.NDArray[np.intp]:
    if groups is None:
        return np.arange(size)
    if np.shape(groups) != (size,):
        raise ValueError(f"groups have shape {np.shape(groups)}, not {(size,)}")
    return np.asarray(np.unique(np.asarray(groups), return_inverse=True)[1])


def _ratio(
    part: npt.NDArray[np.number], of: npt.NDArray[np.number], codes: npt.NDArray[np.intp]
) -> Statistic:
    """Σ part / Σ of, with each patient's influence (Cochran 1977, Sampling Techniques, ch. 6)."""
    used, groups = of > 0, int(codes.max(initial=-1)) + 1
    whole = float(of.sum())
    if not whole:
        return undefined(groups, 0)
    value = min(1.0, float(part.sum()) / whole)  # the mean of ones may pass 1 by its last digit
    patients = int(np.unique(codes[used]).size)
    scale = math.sqrt(patients / (patients - 1)) if patients > 1 else 0.0
    influence = np.bincount(codes, (part - value * of) * scale / whole, groups).astype(np.float64)
    return statistic(value, influence, 0.0, patients, int(used.sum()))


def _row_means(columns: Floats) -> Floats:
    return columns.mean(axis=1) if columns.shape[1] else np.full(len(columns), math.nan)


def _percentiles(drawn: Floats) -> Sequence[Floats]:
    """2.5 and 97.5 % of each column's numbers; NaN of a column that has none."""
    columns = [c[~np.isnan(c)] for c in drawn.T]
    ends = [np.percentile(c, [2.5, 97.5]) if c.size else [math.nan] * 2 for c in columns]
    return list(np.array(ends, dtype=np.float64).reshape(-1, 2).T)
