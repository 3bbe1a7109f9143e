"""A strategy against its control, looked at after every round, without being fooled by looking.

Two things make a single look at p < .05 worth little here: there is a look a round, and one run of
each side says nothing of what another training or another draw of labels would have given. Against
the first, a look is tested at a level of its own, and the levels of all looks add up to 5 % (alpha
spending, Lan & DeMets 1983, with the union bound, which holds however the looks depend on each
other: they share their test cases and most of their labels). Against the second, the variance of
luck is estimated from the looks themselves, together with what is taken for likely before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.special import ndtr

from ssl_core.evidence import Difference, Floats

ALPHA = 0.05
FIRST = 4  # looks before anything is said: fewer say too little of luck
# Standard deviations of an AUROC difference that luck may have: of the labels that were drawn (as
# at the first look, or at `_MANY` labels where that has fewer: a dozen labels are up to .08 of
# luck; it shrinks and stays nested, as the labels do), and of each training.
_LUCK = (0.002, 0.005, 0.01, 0.02, 0.04)
_MANY = 50.0
_SHARED = (0.5, 1.0)  # correlation of the looks' luck with their test cases, which are the same


@dataclass(frozen=True, slots=True)
class Look:
    """One round's difference in AUROC, ours less the control's, where both had `labels` labels.

    `error` is its standard error over test cases. Looks at unequal budgets are no looks: more
    labels are no better strategy.
    """

    round: int
    labels: float
    difference: float
    error: float


def spent(look: int) -> float:
    """The level of the k-th look: .05 · 4 / (k (k + 1)) from the fourth on, which add up to .05."""
    return ALPHA * FIRST / (look * (look + 1)) if look >= FIRST else 0.0


def so_far(looks: Sequence[Look]) -> Difference | None:
    """The mean difference over the looks so far, valid however often one looked; None too early.

    Its interval holds the mean true difference at every look at once with 95 %, and `p` is the
    probability over all looks (1 at the most), so `better` may be read off it after every round.
    """
    known = [x for x in looks if math.isfinite(x.difference) and x.error > 0 and x.labels > 0]
    if len(known) < FIRST:
        return None
    d = np.array([x.difference for x in known])
    mean = float(d.mean())
    weights, errors = _luck(known, d)
    level = spent(len(known))
    half = _quantile(weights, errors, level / 2)
    p = 2 * float(weights @ ndtr(-abs(mean) / errors)) * ALPHA / level
    return Difference(mean, max(-1.0, mean - half), min(1.0, mean + half), min(1.0, p), len(known))


def _luck(looks: Sequence[Look], d: Floats) -> tuple[Floats, Floats]:
    """Standard errors of the mean under every size of luck, and how likely the looks make each.

    The weights are the restricted likelihood, which looks at how the differences scatter around
    their mean and not at the mean (Patterson & Thompson 1971), with all sizes alike before.
    """
    n = np.array([x.labels for x in looks])
    e = np.array([x.error for x in looks])
    nested = max(float(n.min()), _MANY) / np.maximum.outer(n, n)
    eye, ones = np.eye(len(n)), np.ones(len(n))
    cases = [np.outer(e, e) * (s + (1 - s) * eye) for s in _SHARED]
    every = np.array(
        [
            case + label**2 * nested + train**2 * eye
            for case, label, train in product(cases, _LUCK, _LUCK)
        ]
    )
    every += 1e-10 * eye
    inverse = np.linalg.inv(every)
    total = inverse.sum(axis=(1, 2))
    centred = d - (inverse @ d).sum(axis=1)[:, None] / total[:, None]
    misfit = np.einsum("hi,hij,hj->h", centred, inverse, centred)
    log = -(np.linalg.slogdet(every)[1] + np.log(total) + misfit) / 2
    weights = np.exp(log - log.max())
    errors = np.sqrt(np.einsum("i,hij,j->h", ones, every, ones)) / len(n)
    return weights / weights.sum(), errors


def _quantile(weights: Floats, errors: Floats, tail: float) -> float:
    """Where the mixture of normals with these errors leaves `tail` above, by bisection."""
    low, high = 0.0, 40.0 * float(errors.max())
    for _ in range(60):
        middle = (low + high) / 2
        above = float(weights @ ndtr(-middle / errors))
        low, high = (middle, high) if above > tail else (low, middle)
    return high
