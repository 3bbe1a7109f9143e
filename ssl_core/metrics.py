"""What one model is worth on one split: each metric per finding and over all findings.

Everywhere: `scores` `(N, C)` in [0, 1], higher = more likely present; `labels` `(N, C)` of 1, 0
or NaN, where NaN is unknown and left out for that finding; `groups` `(N,)`, the patients, or
None when items are independent. Wrong shapes or values raise ValueError. A metric is NaN for a
finding where it is undefined. Intervals are 95 %, by patient when groups are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from ssl_core.evidence import (
    Estimate,
    Floats,
    PerFinding,
    Statistic,
    Z,
    macro,
    statistic,
    undefined,
    wilson,
)

Codes = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]
Column = Callable[[Floats, Floats, Codes], Statistic]

ECE_BINS = 15


def auroc(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike | None = None
) -> PerFinding:
    """Area under the ROC curve with DeLong's variance (DeLong et al. 1988); ties count one half.

    The structural components are found by counting in sorted order, O(N log N), which is the
    difference of midranks of Sun and Xu (2014, eq. 8). By patient the variance is Obuchowski's
    (1997): components summed within the patient. Positives carry I/(I-1), with I the patients
    that have a positive, negatives likewise; her cross term has one such factor for all patients
    where this has the geometric mean of the two, so the variance cannot be negative. With one
    item a patient it is DeLong's exactly. Interval: on the logit scale; see
    `evidence.exact_interval` for perfect separation. NaN for a finding without both classes.
    """
    return _per_finding(_auroc, *_check(scores, labels, groups))


def brier(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike | None = None
) -> PerFinding:
    """Mean squared error of the scores, in [0, 1], lower is better (Brier 1950).

    For exclusive findings the macro is Brier's own multi-class sum divided by C.
    """
    return _per_finding(_brier, *_check(scores, labels, groups))


def ece(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike | None = None
) -> PerFinding:
    """Expected calibration error, in [0, 1], lower is better: mean over items of a bin's gap.

    15 bins of equal mass (Nixon et al. 2019): by midrank, so items with one score share a bin.
    A bin's gap is |mean score - mean label|. Its noise can only add on average, so the lower end
    takes that away: [ECE - b - z·se, ECE + z·se] within [0, 1], b = sqrt(2/π) Σ w_b se_b, the
    ECE that a calibrated model would show. Bounds are NaN where a bin rests on one patient.
    """
    x, y, codes = _check(scores, labels, groups)
    parts = [_gaps(x[:, c], y[:, c], codes) for c in range(x.shape[1])]
    used = [p for p in parts if not math.isnan(p[0])]
    findings = tuple(_calibration(*p) for p in parts)
    if len(used) < 2:
        return PerFinding(findings, macro(findings, _known(y)))
    value, bias = (float(np.mean([p[i] for p in used])) for i in (0, 2))
    influence = np.mean([p[1] for p in used], axis=0)
    return PerFinding(findings, _calibration(value, influence, bias, _known(y)))


def prevalence(labels: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> PerFinding:
    """Share of the known labels that are positive; no more than that where labels were chosen."""
    known = np.asarray(labels, dtype=np.float64)
    _, y, codes = _check(np.zeros_like(known), known, groups)
    return _shares(y == 1, ~np.isnan(y), codes)


def choose_thresholds(
    scores: npt.ArrayLike, labels: npt.ArrayLike, rule: Literal["youden", "accuracy"] = "youden"
) -> Floats:
    """The best threshold of each finding, `(C,)`, present when score >= threshold.

    "youden": largest sensitivity + specificity - 1 (Youden 1950); "accuracy": most labels right.
    Candidates lie halfway between neighbouring scores, plus one that calls every item present
    (0) and one that calls none (just above 1). Of equals the one nearest 0.5 wins, then the
    lower. A finding without both classes, or with one score for all items, gets 0.5. Meant for
    validation labels; never show the numbers at a threshold on the labels that chose it.
    """
    if rule not in ("youden", "accuracy"):
        raise ValueError(f"rule is {rule!r}, not 'youden' or 'accuracy'")
    x, y, _ = _check(scores, labels, None)
    return np.array([_threshold(x[:, c], y[:, c], rule) for c in range(x.shape[1])])


def decide(
    scores: npt.ArrayLike, *, exclusive: bool = False, thresholds: npt.ArrayLike | None = None
) -> Bools:
    """Which findings the model calls present, `(N, C)`.

    Exclusive: the finding with the highest score alone, the first of equals; thresholds play no
    part. Otherwise score >= threshold, `(C,)`, 0.5 when none are given.
    """
    x = np.asarray(scores, dtype=np.float64)
    if exclusive:
        if x.shape[1] < 2:
            raise ValueError("exclusive findings need at least two columns")
        return np.asarray(x.argmax(axis=1)[:, None] == np.arange(x.shape[1]))
    cut = np.full(x.shape[1], 0.5) if thresholds is None else np.asarray(thresholds, np.float64)
    if cut.shape != (x.shape[1],):
        raise ValueError(f"thresholds have shape {cut.shape}, not {(x.shape[1],)}")
    return np.asarray(x >= cut)


def operating_points(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    exclusive: bool = False,
    thresholds: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
) -> dict[str, PerFinding]:
    """Accuracy, sensitivity, specificity, precision and F1 of what `decide` calls present.

    Wilson's interval, by patient with the sample size divided by the design effect (Korn and
    Graubard 1998). F1 = 2J/(1+J) of J = tp/(tp+fp+fn), a proportion, whose interval it takes
    over. `n` counts the denominator: known labels, positives, negatives, calls, tp+fp+fn.
    The macro is the mean over findings, except that the accuracy of exclusive findings is the
    share of items whose one finding was called. Raises ValueError on an item with two.
    """
    x, y, codes = _check(scores, labels, groups)
    called = decide(x, exclusive=exclusive, thresholds=thresholds)
    known, present, absent = ~np.isnan(y), y == 1, y == 0
    hit = called & present
    points = {
        "accuracy": _shares(hit | (~called & absent), known, codes),
        "sensitivity": _shares(hit, present, codes),
        "specificity": _shares(~called & absent, absent, codes),
        "precision": _shares(hit, called & known, codes),
        "f1": _shares(hit, (called & known) | present, codes, _f1),
    }
    if exclusive:
        if (present.sum(axis=1) > 1).any():
            raise ValueError("exclusive findings, but an item has more than one")
        whole = _share(hit.any(axis=1), present.any(axis=1), codes)
        points["accuracy"] = PerFinding(points["accuracy"].findings, whole)
    return points


def accuracy(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    exclusive: bool = False,
    thresholds: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
) -> Estimate:
    """The macro accuracy of `operating_points`: for exclusive findings, of the highest score."""
    points = operating_points(
        scores, labels, exclusive=exclusive, thresholds=thresholds, groups=groups
    )
    return points["accuracy"].macro.estimate


def describe(
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    exclusive: bool = False,
    groups: npt.ArrayLike | None = None,
    thresholds: npt.ArrayLike | None = None,
) -> list[tuple[int | None, str, Estimate]]:
    """All numbers of one model on one split: (finding's column, or None for macro; name; number).

    Names: auroc, accuracy, sensitivity, specificity, precision, f1, brier, ece, prevalence; each
    for columns 0 to C-1, then the macro.
    """
    metrics = {
        "auroc": auroc(scores, labels, groups),
        **operating_points(
            scores, labels, exclusive=exclusive, thresholds=thresholds, groups=groups
        ),
        "brier": brier(scores, labels, groups),
        "ece": ece(scores, labels, groups),
        "prevalence": prevalence(labels, groups),
    }
    rows: list[tuple[int | None, str, Estimate]] = []
    for name, metric in metrics.items():
        rows += [(c, name, s.estimate) for c, s in enumerate(metric.findings)]
        rows.append((None, name, metric.macro.estimate))
    return rows


def _check(
    scores: npt.ArrayLike, labels: npt.ArrayLike, groups: npt.ArrayLike | None
) -> tuple[Floats, Floats, Codes]:
    """Arrays as float64 and groups as 0..G-1; each item is its own group when none are given."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"scores {x.shape} and labels {y.shape} must both be (N, C)")
    if not ((x >= 0) & (x <= 1)).all():
        raise ValueError("scores must lie in [0, 1]")
    if not ((y == 0) | (y == 1) | np.isnan(y)).all():
        raise ValueError("labels must be 1, 0 or NaN")
    if groups is None:
        return x, y, np.arange(len(x))
    if np.shape(groups) != (len(x),):
        raise ValueError(f"groups have shape {np.shape(groups)}, not {(len(x),)}")
    return x, y, np.unique(np.asarray(groups), return_inverse=True)[1]


def _known(labels: Floats) -> int:
    return int((~np.isnan(labels)).any(axis=1).sum())


def _per_finding(column: Column, scores: Floats, labels: Floats, codes: Codes) -> PerFinding:
    findings = tuple(column(x, y, codes) for x, y in zip(scores.T, labels.T, strict=True))
    return PerFinding(findings, macro(findings, _known(labels)))


def _sums(items: Floats, codes: Codes, groups: int) -> Floats:
    """Sum of each group's items, times sqrt(G/(G-1)) of the G `groups` the estimate rests on.

    Zeros for a single group: it tells nothing of how groups differ.
    """
    sums = _total(items, codes)
    return sums * math.sqrt(groups / (groups - 1)) if groups > 1 else np.zeros_like(sums)


def _total(items: Floats, codes: Codes, size: int = 0) -> Floats:
    return np.asarray(np.bincount(codes, weights=items, minlength=size), dtype=np.float64)


def _count(codes: Codes) -> int:
    return int(np.count_nonzero(np.bincount(codes)))


def _groups(codes: Codes) -> int:
    return int(codes.max()) + 1 if codes.size else 0


def _auroc(scores: Floats, labels: Floats, codes: Codes) -> Statistic:
    present, absent = labels == 1, labels == 0
    pos, neg = scores[present], scores[absent]
    m, n = pos.size, neg.size
    if not m or not n:
        return undefined(_groups(codes), m + n)
    # Twice the pairs that each item wins, ties counting one: whole numbers, so nothing is rounded.
    won = _below(pos, neg)
    lost = _below(neg, pos)
    value = float(won.sum() / (2 * m * n))
    has_pos, has_neg = _count(codes[present]), _count(codes[absent])
    trials = min(has_pos, has_neg, _count(codes[present | absent]) // 2)
    items = np.zeros((2, scores.size))
    items[0, present] = (won / (2 * n) - value) / m
    items[1, absent] = (1 - lost / (2 * m) - value) / n
    influence = _sums(items[0], codes, has_pos) + _sums(items[1], codes, has_neg)
    if min(has_pos, has_neg) < 2:
        influence[:] = 0
    return statistic(value, influence, 0.0, trials, m + n)


def _below(these: Floats, those: Floats) -> npt.NDArray[np.intp]:
    """For each of these, twice how many of those lie below it, plus how many equal it."""
    ordered = np.sort(those)
    return np.searchsorted(ordered, these, "left") + np.searchsorted(ordered, these, "right")


def _brier(scores: Floats, labels: Floats, codes: Codes) -> Statistic:
    known = ~np.isnan(labels)
    n = int(known.sum())
    if not n:
        return undefined(_groups(codes), 0)
    errors = (scores - labels) ** 2
    value = float(errors[known].mean())
    groups = _count(codes[known])
    items = np.where(known, errors - value, 0.0) / n
    return statistic(value, _sums(items, codes, groups), 0.0, groups, n)


def _shares(
    hit: Bools, of: Bools, codes: Codes, bend: Callable[[Statistic], Statistic] = lambda s: s
) -> PerFinding:
    findings = tuple(bend(_share(hit[:, c], of[:, c], codes)) for c in range(hit.shape[1]))
    return PerFinding(findings, macro(findings, int(of.any(axis=1).sum())))


def _share(hit: Bools, of: Bools, codes: Codes) -> Statistic:
    """The share of the items `of` that are `hit`, with Wilson's interval."""
    n = int(of.sum())
    if not n:
        return undefined(_groups(codes), 0)
    value = float(hit.sum() / n)
    groups = _count(codes[of])
    influence = _sums(np.where(of, hit - value, 0.0) / n, codes, groups)
    if not 0 < value < 1 or groups < 2:
        low, high = wilson(value, groups)
        hidden = ((high - low) / (2 * Z)) ** 2
        return Statistic(Estimate(value, low, high, n), np.zeros_like(influence), hidden, groups)
    # n over the design effect: variance by patient against that of independent items
    spread = float(influence @ influence) * (n - 1)
    worth = min(float(n), value * (1 - value) * n / spread) if spread > 0 else float(n)
    return Statistic(Estimate(value, *wilson(value, worth), n), influence, 0.0, groups)


def _f1(jaccard: Statistic) -> Statistic:
    """F1 = 2J/(1+J) rises with J, so the ends of the interval map as the value does."""
    e = jaccard.estimate
    value, low, high = (2 * j / (1 + j) for j in (e.value, e.low, e.high))
    slope = 2 / (1 + e.value) ** 2
    influence = np.nan_to_num(slope * jaccard.influence)
    return Statistic(
        Estimate(value, low, high, e.n), influence, slope**2 * jaccard.hidden, jaccard.trials
    )


def _gaps(scores: Floats, labels: Floats, codes: Codes) -> tuple[float, Floats, float, int]:
    """Calibration error of one finding, its influence `(G,)`, its bias, and the known labels."""
    groups, known = _groups(codes), ~np.isnan(labels)
    n = int(known.sum())
    if not n:
        return math.nan, np.zeros(groups), math.nan, 0
    x, y, codes = scores[known], labels[known], codes[known]
    bins = ((rankdata(x) - 0.5) * ECE_BINS / n).astype(np.intp)
    size = np.bincount(bins, minlength=ECE_BINS)
    gap = _total(x - y, bins, ECE_BINS) / np.maximum(size, 1)
    cells, cell = np.unique(bins * groups + codes, return_inverse=True)  # a patient in a bin
    patients = np.bincount(cells // groups, minlength=ECE_BINS)
    scale = np.sqrt(patients / np.maximum(patients - 1, 1))
    rest = (x - y - gap[bins]) * scale[bins] / n
    noise = np.sqrt(_total(_total(rest, cell) ** 2, cells // groups))
    bias = math.sqrt(2 / math.pi) * float(noise.sum())
    influence = _total(np.where(gap[bins] < 0, -rest, rest), codes, groups)
    alone = bool((patients[size > 0] < 2).any())
    return float(np.abs(gap) @ size / n), influence, math.nan if alone else bias, n


def _calibration(value: float, influence: Floats, bias: float, n: int) -> Statistic:
    reach = Z * math.sqrt(float(influence @ influence))
    ends = (math.nan, math.nan)
    if not math.isnan(bias):
        ends = max(0.0, value - bias - reach), min(1.0, value + reach)
    return Statistic(Estimate(value, *ends, n), influence, 0.0, 0)


def _threshold(scores: Floats, labels: Floats, rule: str) -> float:
    pos, neg = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    levels = np.unique(np.concatenate([pos, neg]))
    if not pos.size or not neg.size or levels.size < 2:
        return 0.5
    middle = (levels[:-1] + levels[1:]) / 2
    middle = np.where(middle > levels[:-1], middle, levels[1:])  # neighbours in floating point
    cuts = np.concatenate([[0.0], middle, [np.nextafter(1.0, 2.0)]])
    true = pos.size - np.searchsorted(pos, cuts)
    false = neg.size - np.searchsorted(neg, cuts)
    gain = true * neg.size - false * pos.size if rule == "youden" else true - false
    best = cuts[gain == gain.max()]
    return float(best[np.abs(best - 0.5).argmin()])
