"""What a strategy saved against its random control: area, labels to a target, hours and money.

Everything is a linear function of the AUROC at the budgets, so its error has two known parts that
are never mixed up: what other test cases would change (the influences of the mean over seeds, see
`evidence`) and what other seeds would change (their sample covariance). Strategy and control share
the test cases and the seeds, and their covariance counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from ssl_core.evidence import Difference, Estimate, Floats, Labels, Statistic

ALPHA = 0.05
_GRID = 801  # budgets between the first and the last that an interval of labels is looked up on


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """One strategy's replays on the same G test groups: S seeds at B budgets, rising.

    `budgets` `(B,)`; `values` `(S, B)` AUROC; `influence` `(S, B, G)` and `hidden` `(S, B)` as in
    `evidence.Statistic`.
    """

    strategy: str
    budgets: Floats
    values: Floats
    influence: Floats
    hidden: Floats


@dataclass(frozen=True, slots=True)
class Saved:
    """What the strategy spared of the labels that the control needed for the same AUROC.

    `target` is the control's mean AUROC at `control` labels (its largest budget, or where its mean
    reaches the target that was asked for); `labels` is what the strategy needs for it. `ratio` is
    the one over the other, `spared` their difference, both with the ends of `labels`; where that
    end is a bound the interval is open: ratio from 0 (reached with the first budget already) or up
    to infinity (not reached with the last). `hours` and `money` are `spared` at the price of a
    label, None where that is not known.
    """

    target: float
    control: float
    labels: Labels
    ratio: Estimate
    spared: Estimate
    hours: Estimate | None
    money: Estimate | None


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """Means over `runs` seeds of K numbers, and the covariance of these means by source.

    `mean` `(K,)`; `cases` `(K, K)` what other test cases would change; `seeds` `(K, K)` what other
    seeds would, NaN with one seed; `n` counts the test groups.
    """

    mean: Floats
    cases: Floats
    seeds: Floats
    runs: int
    n: int

    def estimates(self, weights: npt.ArrayLike, alpha: float = ALPHA) -> tuple[Floats, Floats]:
        """Values and half widths `(M,)` of the linear functions `(M, K)` of the numbers.

        half² = z² · Var over cases + t² · Var over seeds, z normal and t Student's with runs - 1
        degrees of freedom: the exact interval where one of the two is all there is, and with few
        seeds no plug-in freedom that is estimated as badly as the variance (Zou & Donner 2008).
        """
        w = np.atleast_2d(np.asarray(weights, dtype=np.float64))
        by_case = np.einsum("mk,kl,ml->m", w, self.cases, w)
        by_seed = np.einsum("mk,kl,ml->m", w, self.seeds, w)
        z, t = ndtri(alpha / 2), stdtrit(max(self.runs - 1, 1), alpha / 2)
        return w @ self.mean, np.sqrt(z**2 * by_case.clip(0) + t**2 * by_seed.clip(0))

    def difference(self, weights: npt.ArrayLike) -> Difference:
        """One such function with its 95 % interval and p-value; NaN ends with one seed."""
        (value,), (half,) = self.estimates(weights)
        low, high = max(value - half, -1.0), min(value + half, 1.0)  # NaN stays
        return Difference(float(value), float(low), float(high), self._p(weights), self.n)

    def _p(self, weights: npt.ArrayLike) -> float:
        """The largest level at which the interval still holds 0, by bisection of its logarithm."""
        low, high = -40.0, 0.0
        if math.isnan(self.estimates(weights)[1][0]):
            return math.nan
        for _ in range(50):
            middle = (low + high) / 2
            value, half = self.estimates(weights, math.exp(middle))
            low, high = (middle, high) if half[0] >= abs(value[0]) else (low, middle)
        return math.exp(high)


def paths(strategy: str, budgets: Sequence[float], found: Sequence[Sequence[Statistic]]) -> Paths:
    """Statistics by seed and budget as arrays. Raises ValueError on a ragged table."""
    if not found or any(len(row) != len(budgets) for row in found):
        raise ValueError(f"{strategy}: every seed needs a statistic at each of its budgets")
    return Paths(
        strategy,
        np.asarray(budgets, dtype=np.float64),
        np.array([[s.estimate.value for s in row] for row in found]),
        np.array([[s.influence for s in row] for row in found]),
        np.array([[s.hidden for s in row] for row in found]),
    )


def joint(*all_paths: Paths) -> Joint:
    """The numbers of several strategies one after the other, seed by seed and case by case.

    Raises ValueError where they were not measured with the same seeds on the same test groups.
    """
    if len({(len(p.values), p.influence.shape[2]) for p in all_paths}) > 1:
        raise ValueError("strategies can only be paired on the same seeds and test groups")
    values = np.concatenate([p.values for p in all_paths], axis=1)
    change = np.concatenate([p.influence.mean(axis=0) for p in all_paths])
    hidden = np.concatenate([p.hidden.mean(axis=0) for p in all_paths])
    runs, size = values.shape
    seeds: Floats = np.full((size, size), math.nan)
    if runs > 1:
        centred = values - values.mean(axis=0)
        seeds = centred.T @ centred / (runs * (runs - 1))
    cases = change @ change.T + np.diag(hidden)
    return Joint(values.mean(axis=0), cases, seeds, runs, change.shape[1])


# Area under the budget curve ----------------------------------------------------------------------


def area(ours: Paths) -> Estimate:
    """Mean AUROC over the logarithm of the budget, with its 95 % interval over seeds and cases."""
    found = joint(ours).difference(_area(ours.budgets, *_range(ours)))
    return Estimate(found.value, found.low, found.high, found.n)


def area_difference(ours: Paths, theirs: Paths) -> Difference:
    """The strategy's area less the control's, over the budgets that both have, paired."""
    low, high = _range(ours, theirs)
    weights = [_area(ours.budgets, low, high), -_area(theirs.budgets, low, high)]
    return joint(ours, theirs).difference(np.concatenate(weights))


def differences(ours: Paths, theirs: Paths) -> tuple[Difference, ...]:
    """The paired difference at each budget of the strategy that the control's range holds."""
    both = joint(ours, theirs)
    return tuple(both.difference(row) for row in difference_weights(ours, theirs))


def difference_weights(ours: Paths, theirs: Paths) -> Floats:
    """Those differences as weights `(M, K)` of the numbers of `joint(ours, theirs)`."""
    low, high = theirs.budgets[0], theirs.budgets[-1]
    inside = [k for k, b in enumerate(ours.budgets) if low <= b <= high]
    here, other = np.eye(len(ours.budgets))[inside], _between(theirs.budgets, ours.budgets[inside])
    return np.hstack([here, -other])


def _range(*all_paths: Paths) -> tuple[float, float]:
    low = max(float(p.budgets[0]) for p in all_paths)
    high = min(float(p.budgets[-1]) for p in all_paths)
    if low > high:
        raise ValueError("the strategies have no budget in common")
    return low, high


def _area(budgets: Floats, low: float, high: float) -> Floats:
    """Weights `(B,)`, sum 1: the trapezoid rule over log budget, divided by the range."""
    inside = budgets[(budgets > low) & (budgets < high)]
    at = np.unique(np.concatenate([[low], inside, [high]]))
    if len(at) == 1:
        return np.asarray(_between(budgets, at)[0])
    steps = np.diff(np.log(at))
    heights = np.zeros(len(at))
    heights[:-1] += steps / 2
    heights[1:] += steps / 2
    return np.asarray(heights / heights.sum() @ _between(budgets, at))


def _between(budgets: Floats, at: npt.ArrayLike) -> Floats:
    """Weights `(M, B)` that interpolate straight over log budget, as `curve.reach` does."""
    x, points = np.log(np.asarray(at, dtype=np.float64)), np.log(budgets)
    columns = [np.interp(x, points, unit) for unit in np.eye(len(budgets))]
    return np.stack(columns, axis=1)


# Labels to a target -------------------------------------------------------------------------------


def saved(
    ours: Paths,
    theirs: Paths,
    target: float | None = None,
    hours: float | None = None,
    money: float | None = None,
) -> Saved:
    """What the strategy needs for the AUROC that the control has at its largest budget.

    Args:
        ours: the strategy.
        theirs: the control.
        target: an AUROC instead: the control's budget is then where its mean reaches it, and the
            interval takes that budget as given. One that the control never reaches counts as
            reached with more than its largest budget: the ratio is then an upper bound.
        hours: reader-hours of one label; None where not known.
        money: price of one label; None where not known.
    """
    both = joint(ours, theirs)
    mine = slice(0, len(ours.budgets))
    control = float(theirs.budgets[-1])
    if target is not None:
        means = both.mean[len(ours.budgets) :]
        control = reach(theirs.budgets, means, target)
    if math.isinf(control):
        own = Joint(both.mean[mine], both.cases[mine, mine], both.seeds[mine, mine], both.runs, 0)
        constant = target if target is not None else math.nan
        found = _labels(own, ours.budgets, np.empty(0), constant)
        goal, control = constant, float(theirs.budgets[-1])
    else:
        other = _between(theirs.budgets, [control])[0]
        goal = float(other @ both.mean[len(ours.budgets) :])
        found = _labels(both, ours.budgets, other, 0.0)
    low = 0.0 if found.low <= found.first else found.low
    ratio = Estimate(found.value / control, low / control, found.high / control, both.n)
    spared = Estimate(control - found.value, control - found.high, control - low, both.n)
    return Saved(
        goal, control, found, ratio, spared, _priced(spared, hours), _priced(spared, money)
    )


def labels_to(ours: Paths, target: float) -> Labels:
    """The labels with which a strategy reaches a given AUROC."""
    return _labels(joint(ours), ours.budgets, np.empty(0), target)


def reach(budgets: npt.ArrayLike, values: npt.ArrayLike, target: float) -> float:
    """The first budget at which the line over log budget has the target; infinite if none does."""
    x, y = np.asarray(budgets, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if y[0] >= target:
        return float(x[0])
    for k in np.flatnonzero(y[1:] >= target)[:1]:
        share = (target - y[k]) / (y[k + 1] - y[k])
        return float(x[k] * (x[k + 1] / x[k]) ** share)
    return math.inf


def _labels(both: Joint, budgets: Floats, other: Floats, target: float) -> Labels:
    """Where the first numbers of `both`, at `budgets`, less `other` of the rest reach `target`.

    The interval holds every budget at which the difference cannot be told from the target
    (inversion of the test, as Fieller's 1954), so it has the test's coverage however flat the
    curve is: it grows to a bound instead of becoming a wild number.
    """
    first, last = float(budgets[0]), float(budgets[-1])
    at = np.asarray(np.geomspace(first, last, _GRID if last > first else 1), dtype=np.float64)
    here = _between(budgets, at)
    weights = np.hstack([here, -np.broadcast_to(other, (len(at), len(other)))])
    value, half = both.estimates(weights)
    if np.isnan(half).any():
        return Labels(reach(at, value, target), math.nan, math.nan, first, last)
    return Labels(
        reach(at, value, target),
        reach(at, value + half, target),
        _last_below(at, value - half, target),
        first,
        last,
    )


def _last_below(at: Floats, values: Floats, target: float) -> float:
    """The budget after which the values stay at the target or above; infinite if they do not."""
    below = np.flatnonzero(values < target)
    if not below.size:
        return float(at[0])
    return float(at[below[-1] + 1]) if below[-1] + 1 < len(at) else math.inf


def _priced(spared: Estimate, price: float | None) -> Estimate | None:
    if price is None:
        return None
    return Estimate(spared.value * price, spared.low * price, spared.high * price, spared.n)
