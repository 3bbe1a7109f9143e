"""Do scores mean what they say: a reliability curve, its error, and a test that fits few reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssl_core.auditing.weighted import clopper_pearson
from ssl_core.evidence import Estimate
from ssl_core.metrics import ece

Floats = npt.NDArray[np.float64]

BINS = 5
DRAWS = 4000
SEED = 0  # of the test alone: the same reads give the same p


@dataclass(frozen=True, slots=True)
class Bin:
    """Reads of neighbouring scores: their mean score, and the share that is present."""

    score: float
    present: Estimate


@dataclass(frozen=True, slots=True)
class Reliability:
    """How the scores of one finding fit its reads.

    `score` is the mean score and `present` the share of the `n` reads that are present. `error`
    is the expected calibration error of `metrics.ece`. `p` is the chance that scores which are
    true probabilities fit as badly (Spiegelhalter's statistic); NaN without reads.
    """

    finding: str
    n: int
    score: float
    present: float
    error: Estimate
    p: float
    bins: tuple[Bin, ...]


def reliability(
    finding: str, scores: Floats, labels: Floats, groups: npt.NDArray[np.str_]
) -> Reliability:
    """Hold scores `(N,)` in [0, 1] against labels `(N,)` of 1 / 0 / NaN (left out).

    Bins hold equal numbers of reads, 5 bins at the most and 5 reads in each at the least.
    """
    known = ~np.isnan(labels)
    x, y = np.asarray(scores, np.float64)[known], np.asarray(labels, np.float64)[known]
    if not x.size:
        nothing = Estimate(math.nan, math.nan, math.nan, 0)
        return Reliability(finding, 0, math.nan, math.nan, nothing, math.nan, ())
    error = ece(x[:, None], y[:, None], groups[known]).findings[0].estimate
    order = np.argsort(x, kind="stable")
    parts = np.array_split(order, max(1, min(BINS, x.size // 5)))
    bins = tuple(Bin(float(x[part].mean()), _present(y[part])) for part in parts)
    fit = spiegelhalter(x, y, np.random.default_rng(SEED))
    return Reliability(finding, x.size, float(x.mean()), float(y.mean()), error, fit, bins)


def spiegelhalter(scores: Floats, labels: Floats, rng: np.random.Generator) -> float:
    """Two-sided p of calibration: Z = Σ (y - p)(1 - 2p) / sqrt(Σ (1 - 2p)² p (1 - p)).

    Spiegelhalter 1986, equation 13. Z is normal for many reads; for few, it is held against the
    Z of 4,000 sets of labels that the scores themselves draw, reads taken as independent. 1 where
    all scores are 1/2, about which the statistic says nothing.
    """
    p = np.clip(np.asarray(scores, np.float64), 0.0, 1.0)
    spread = math.sqrt(float(((1 - 2 * p) ** 2 * p * (1 - p)).sum()))
    told = abs(float(((labels - p) * (1 - 2 * p)).sum()))
    if spread == 0.0:
        return 1.0 if told < 1e-12 else 1 / (DRAWS + 1)
    drawn = rng.random((DRAWS, p.size)) < p
    others = np.abs((drawn - p) @ (1 - 2 * p))
    return float((1 + (others >= told - 1e-12).sum()) / (DRAWS + 1))


def _present(labels: Floats) -> Estimate:
    share = float(labels.mean())
    return Estimate(share, *clopper_pearson(share, labels.size), labels.size)
