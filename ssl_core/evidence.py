"""How sure a number is: 95 % intervals, means over findings, paired comparisons, seeds.

Every metric is a `Statistic`: an estimate and its influence, one number a group (patient, or
item where no groups are given), scaled so that the sum of squares is the estimate's variance.
Influences of the same items add up: the mean over findings, the difference of two models and
the mean over seeds have the influence that is the mean or the difference of theirs, so every
correlation between findings, models and seeds is counted without naming it (Hampel 1974).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, expit, logit, ndtr, ndtri, stdtr, stdtrit

Floats = npt.NDArray[np.float64]

Z = float(ndtri(0.975))
_ROUNDING = 1e-30  # a variance below this is float noise around zero


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; NaN where undefined; `n` counts what it rests on."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Ours minus theirs with its 95 % interval and two-sided p-value; NaN where undefined."""

    value: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True, slots=True)
class Labels:
    """How many labels reach an AUROC, with a 95 % interval.

    Each number is `first` where it is reached with the first budget already (so many or fewer),
    and infinite where it is not reached with `last`. NaN ends: the seeds are too few to know.
    """

    value: float
    low: float
    high: float
    first: float
    last: float


@dataclass(frozen=True, slots=True, eq=False)
class Statistic:
    """An estimate and what its error is made of.

    `influence` `(G,)`: the sum of its squares is the sampling variance. `hidden`: variance that
    the influence cannot show, above 0 only where the data look perfect (see `exact_interval`).
    `trials`: independent yes/no trials that the estimate is worth at the least.
    """

    estimate: Estimate
    influence: Floats
    hidden: float
    trials: int

    @property
    def variance(self) -> float:
        """Sampling variance over test patients."""
        return float(self.influence @ self.influence) + self.hidden


@dataclass(frozen=True, slots=True, eq=False)
class PerFinding:
    """One metric for each of C findings, and over all of them."""

    findings: tuple[Statistic, ...]
    macro: Statistic

    @property
    def left_out(self) -> int:
        """Findings where the metric is undefined: they are not in the macro."""
        return sum(math.isnan(s.estimate.value) for s in self.findings)


@dataclass(frozen=True, slots=True)
class Differences:
    """The difference for each of C findings, and over all of them."""

    findings: tuple[Difference, ...]
    macro: Difference


def wilson(value: float, n: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a proportion seen in `n` trials; NaN when `n` is 0."""
    if n <= 0:
        return math.nan, math.nan
    centre = (value + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(value * (1 - value) / n + Z**2 / (4 * n**2))
    low = 0.0 if value == 0 else max(0.0, centre - half)
    return low, 1.0 if value == 1 else min(1.0, centre + half)


def exact_interval(value: float, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's interval of `value * trials` successes in `trials`.

    The bound where the estimated variance is zero or undefined. For an AUROC of 1, take k
    disjoint pairs of a positive and a negative, no patient in two pairs. The pairs are
    independent, and each is ordered rightly with probability θ, the true AUROC. Perfect
    separation orders all k, so it has probability θ^k at the most; the θ for which this is
    2.5 %, θ = 0.025^(1/k), is the lower end, and the upper end is 1. For a mean of K findings
    that are all perfect, k is the smallest of theirs: the chance is at most the least of the
    θ_c^k, hence at most (mean θ)^k. Elsewhere (all scores tied, one positive patient) it rests
    on Var <= θ(1-θ)/k (Birnbaum and Klose 1957), the variance of k trials. No trial at all
    gives [0, 1].
    """
    hits, misses = value * trials, (1 - value) * trials
    low = float(betaincinv(hits, misses + 1, 0.025)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, misses, 0.975)) if misses > 0 else 1.0
    return low, high


def statistic(value: float, influence: Floats, hidden: float, trials: int, n: int) -> Statistic:
    """A statistic in [0, 1] with the interval expit(logit v ± z·se / (v(1-v))), inside (0, 1).

    Where the variance is zero `exact_interval` answers, and its half width over z stands in as
    the standard error wherever this statistic enters a mean or a difference.
    """
    variance = float(influence @ influence) + hidden
    if 0 < value < 1 and variance > _ROUNDING:
        half = Z * math.sqrt(variance) / (value * (1 - value))
        low, high = (float(end) for end in expit(logit(value) + np.array([-half, half])))
        return Statistic(Estimate(value, low, high, n), influence, hidden, trials)
    low, high = exact_interval(value, trials)
    hidden = ((high - low) / (2 * Z)) ** 2
    return Statistic(Estimate(value, low, high, n), np.zeros_like(influence), hidden, trials)


def undefined(groups: int, n: int) -> Statistic:
    """What a metric says of a finding that it is not defined for: NaN, from `n` items."""
    return Statistic(Estimate(math.nan, math.nan, math.nan, n), np.zeros(groups), 0.0, 0)


def macro(findings: Sequence[Statistic], n: int) -> Statistic:
    """The unweighted mean over the findings that are defined, from `n` items.

    One defined finding is its own mean, interval included; none gives NaN.
    """
    used = [s for s in findings if not math.isnan(s.estimate.value)]
    if len(used) == 1:
        return used[0]
    if not used:
        return undefined(findings[0].influence.size if findings else 0, n)
    value = float(np.mean([s.estimate.value for s in used]))
    influence = np.mean([s.influence for s in used], axis=0)
    hidden = sum(s.hidden for s in used) / len(used) ** 2
    return statistic(value, influence, hidden, min(s.trials for s in used), n)


def compare(ours: PerFinding, theirs: PerFinding) -> Differences:
    """Two models on the same items and groups: `compare(auroc(a, y, g), auroc(b, y, g))`.

    For AUROC this is the paired test of DeLong et al. (1988), by patient that of Obuchowski
    (1997): z = (a - b) / se with se² = Var a + Var b - 2 Cov(a, b) = sum over patients of
    (influence of a - influence of b)². The interval is d ± 1.96 se within [-1, 1]. Two models
    that treat every item alike give [0, 0] and p = 1. NaN where one side is undefined, where the
    two macros leave out different findings, and where se = 0 although d ≠ 0 (a few items only).
    Raises ValueError where the two were not measured on the same groups.
    """
    pairs = _pairs(ours, theirs)
    found = [_difference(*_subtract(a, b), math.inf, _n(a, b)) for a, b in pairs]
    return Differences(tuple(found[:-1]), found[-1])


def paired_over_seeds(ours: Sequence[PerFinding], theirs: Sequence[PerFinding]) -> Differences:
    """The mean over S seeds of the paired differences d_s, all measured on the same test items.

    Var = sum over patients of (mean over seeds of the difference's influence)² + s²/S, where s²
    is the sample variance of the d_s. The first term is what other test patients would change: a
    patient's luck that all seeds share does not average out. The second is what other seeds would
    change (law of total variance; the luck that a seed has with a patient is counted in both, so
    the interval errs to the wide side). Student's t with Satterthwaite's degrees of freedom,
    (S-1) (Var / (s²/S))². One seed has a mean, but NaN as bounds and p: `compare` speaks of two
    given models, not of two ways to make them. Raises ValueError where seeds or groups differ.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"paired seeds needed, but there are {len(ours)} and {len(theirs)}")
    seeds = [_pairs(a, b) for a, b in zip(ours, theirs, strict=True)]
    if len({(len(pairs), pairs[0][0].influence.size) for pairs in seeds}) > 1:
        raise ValueError("the seeds were measured on different findings or groups")
    found = [_over_seeds([pairs[c] for pairs in seeds]) for c in range(len(seeds[0]))]
    return Differences(tuple(found[:-1]), found[-1])


def mean_interval(values: Sequence[float]) -> Estimate:
    """Mean over seeds with Student's t interval; `n` counts seeds; one seed has NaN bounds."""
    x = np.asarray(values, dtype=np.float64)
    if x.size < 2:
        return Estimate(float(x[0]) if x.size else math.nan, math.nan, math.nan, x.size)
    mean = float(x.mean())
    half = float(stdtrit(x.size - 1, 0.975) * x.std(ddof=1)) / math.sqrt(x.size)
    return Estimate(mean, mean - half, mean + half, x.size)


def mean_of_shares(values: Sequence[float]) -> Estimate:
    """`mean_interval` of values in [0, 1], as AUROC and accuracy are: the bounds lie there too."""
    found = mean_interval(values)
    low, high = (float(np.clip(bound, 0.0, 1.0)) for bound in (found.low, found.high))
    return Estimate(found.value, low, high, found.n)


def paired_mean_interval(ours: Sequence[float], theirs: Sequence[float]) -> Estimate:
    """Mean over seeds of ours minus theirs, seed by seed. Raises ValueError on unequal lengths."""
    return mean_interval([a - b for a, b in zip(ours, theirs, strict=True)])


def _pairs(ours: PerFinding, theirs: PerFinding) -> list[tuple[Statistic, Statistic]]:
    """Findings side by side, the macro last (undefined where the two mean different findings)."""
    a, b = [*ours.findings, ours.macro], [*theirs.findings, theirs.macro]
    if [s.influence.size for s in a] != [s.influence.size for s in b]:
        raise ValueError("the two models were measured on different findings or groups")
    gaps = [[math.isnan(s.estimate.value) for s in side.findings] for side in (ours, theirs)]
    if gaps[0] != gaps[1]:
        a[-1] = undefined(a[-1].influence.size, a[-1].estimate.n)
    return list(zip(a, b, strict=True))


def _subtract(ours: Statistic, theirs: Statistic) -> tuple[float, float]:
    """Difference and variance, from one pair."""
    change = ours.influence - theirs.influence
    variance = float(change @ change) + ours.hidden + theirs.hidden
    return ours.estimate.value - theirs.estimate.value, variance


def _n(ours: Statistic, theirs: Statistic) -> int:
    return min(ours.estimate.n, theirs.estimate.n)


def _over_seeds(pairs: Sequence[tuple[Statistic, Statistic]]) -> Difference:
    d = np.array([a.estimate.value - b.estimate.value for a, b in pairs])
    change = np.mean([a.influence - b.influence for a, b in pairs], axis=0)
    hidden = float(np.mean([a.hidden + b.hidden for a, b in pairs]))
    n = min(_n(a, b) for a, b in pairs)
    if d.size < 2 or np.isnan(d).any():
        return Difference(float(d.mean()), math.nan, math.nan, math.nan, n)
    seeds = float(d.var(ddof=1)) / d.size
    variance = float(change @ change) + hidden + seeds
    freedom = (d.size - 1) * (variance / seeds) ** 2 if seeds > _ROUNDING else math.inf
    return _difference(float(d.mean()), variance, freedom, n)


def _difference(value: float, variance: float, freedom: float, n: int) -> Difference:
    if math.isnan(value):
        return Difference(math.nan, math.nan, math.nan, math.nan, n)
    if variance <= _ROUNDING:
        same = abs(value) < math.sqrt(_ROUNDING)
        end = 0.0 if same else math.nan
        return Difference(value, end, end, 1.0 if same else math.nan, n)
    error = math.sqrt(variance)
    normal = freedom > 1e6  # where Student's t is the normal to 1e-6
    half = error * (Z if normal else float(stdtrit(freedom, 0.975)))
    tail = ndtr(-abs(value) / error) if normal else stdtr(freedom, -abs(value) / error)
    return Difference(value, max(-1.0, value - half), min(1.0, value + half), float(2 * tail), n)
