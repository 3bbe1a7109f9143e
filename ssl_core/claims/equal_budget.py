"""A strategy against its control where both had spent as many labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ssl_core.evidence import Differences, PerFinding, Statistic, compare, statistic, undefined


def stand_ins(budget: int, labels: Mapping[int, int]) -> dict[int, float]:
    """The rounds whose models together stand for a budget, with weights that sum to 1.

    A control knows few labels when the strategy's own model already knows many, so it is held
    against the models of earlier rounds: of the round with just as many training labels, else of
    the nearest below and above, straight over the logarithm of the budget as in `curve.reach`.

    budget: R >= 1, labels of the control. labels: training labels by round. Of rounds with as
    many labels the newest counts. Empty where R lies outside of what the rounds span: a curve is
    not drawn on beyond its ends.
    """
    rounds = {count: number for number, count in sorted(labels.items()) if count > 0}
    if budget in rounds:
        return {rounds[budget]: 1.0}
    below = max((count for count in rounds if count < budget), default=None)
    above = min((count for count in rounds if count > budget), default=None)
    if below is None or above is None:
        return {}
    share = math.log(budget / below) / math.log(above / below)
    return {rounds[below]: 1.0 - share, rounds[above]: share}


def against_control(ours: Sequence[tuple[float, PerFinding]], control: PerFinding) -> Differences:
    """The strategy's weighted models less the control, paired by the patients of one test set.

    ours: weights that sum to 1 and the metric of each model, as `stand_ins` chose them. All were
    measured on the same items and groups as the control. The interval is `evidence.compare`'s:
    what other patients would change, for these models; that trainings differ is not in it.
    """
    return compare(mixed(ours), control)


def mixed(parts: Sequence[tuple[float, PerFinding]]) -> PerFinding:
    """The weighted mean of one metric over models; NaN where one of them is undefined.

    Influences add up (see `evidence`). Variance that they do not show is taken to move together.
    """
    if len(parts) == 1:
        return parts[0][1]
    weights = [weight for weight, _ in parts]
    columns = zip(*(found.findings for _, found in parts), strict=True)
    findings = tuple(_mean(weights, column) for column in columns)
    gaps = {tuple(math.isnan(s.estimate.value) for s in found.findings) for _, found in parts}
    macros = [found.macro for _, found in parts]
    if len(gaps) > 1:  # means over different findings
        macro = undefined(macros[0].influence.size, macros[0].estimate.n)
    else:
        macro = _mean(weights, macros)
    return PerFinding(findings, macro)


def _mean(weights: Sequence[float], parts: Sequence[Statistic]) -> Statistic:
    n = min(part.estimate.n for part in parts)
    value = sum(w * part.estimate.value for w, part in zip(weights, parts, strict=True))
    if math.isnan(value):
        return undefined(parts[0].influence.size, n)
    influence = np.sum([w * p.influence for w, p in zip(weights, parts, strict=True)], axis=0)
    hidden = sum(w * math.sqrt(p.hidden) for w, p in zip(weights, parts, strict=True)) ** 2
    return statistic(value, influence, hidden, min(part.trials for part in parts), n)
