"""The anchoring meter: do readers follow the model's opinion where they are shown it?

Hints are dealt at random to half of the random slice and half of the strategy's choice of each
round (see `reading`), so the hinted and the blind items of one of these strata differ by chance
alone. The meter compares how often an answer is the model's opinion, shown or hidden, and how long
the read took. It says how far readers move towards the model, not whether they are right to.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from ssl_core.evidence import Estimate, Z, wilson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

LEAST = 10  # patients of reads, hinted and blind each: with fewer nothing is said
NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


@dataclass(frozen=True, slots=True)
class HintedOrBlind:
    """One read of an item that chance hinted or left blind.

    `stratum` names what chance was halved in. `agrees` in [0, 1] is the share of the findings the
    reader answered on which they said what the model does; NaN where they could tell none.
    """

    reader: str
    group: str
    stratum: str
    hinted: bool
    agrees: float
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Anchoring:
    """Hinted against blind reads of one reader, or of all (`reader` "").

    `shown` and `hidden` are the shares of answers that are the model's opinion, `shift` the one
    less the other. `times` is how many times as long a hinted read takes. All with 95 % intervals,
    NaN where there is too little; `hinted` and `blind` count reads. `sentence` says it in words.
    """

    reader: str
    hinted: int
    blind: int
    shown: Estimate
    hidden: Estimate
    shift: Estimate
    times: Estimate
    sentence: str


def anchoring(reads: Sequence[HintedOrBlind], idle_cut: float) -> list[Anchoring]:
    """The meter for all readers together, then for each; empty without a hinted read."""
    if not any(read.hinted for read in reads):
        return []
    names = sorted({read.reader for read in reads})
    whole = _meter("", reads, idle_cut)
    if len(names) < 2:
        return [whole]
    return [whole, *(_meter(n, [r for r in reads if r.reader == n], idle_cut) for n in names)]


def shift(
    agrees: Floats, hinted: npt.NDArray[np.bool_], strata: Ints, groups: Ints
) -> tuple[Estimate, Estimate, Estimate]:
    """Share shown, share hidden, and their difference, over strata.

    Strata are weighted by n1 n0 / (n1 + n0) (Cochran 1954), the same in both arms. Each arm has
    Wilson's interval at the number of independent answers that its variance by patient is worth,
    and the difference Newcombe's hybrid of the two (Yan and Su 2010, stratified). A stratum with
    one arm alone says nothing and is left out.

    Args:
        agrees: `(n,)` in [0, 1].
        hinted: `(n,)`.
        strata: `(n,)` codes from 0.
        groups: `(n,)` codes of patients from 0.
    """
    arms = [_arm(agrees, side, hinted, strata, groups) for side in (True, False)]
    if any(math.isnan(arm.value) for arm in arms):
        return NOTHING, NOTHING, NOTHING
    ours, theirs = arms
    d = ours.value - theirs.value
    down = math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    up = math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return ours, theirs, Estimate(d, d - down, d + up, ours.n + theirs.n)


def ratio(logs: Floats, hinted: npt.NDArray[np.bool_], strata: Ints, groups: Ints) -> Estimate:
    """How many times as long a hinted read takes, from log-seconds `(n,)`; strata as in `shift`.

    The ratio of geometric means; Student's interval with the variance by patient.
    """
    coefficients = _weights(hinted, strata)
    if not coefficients.any():
        return NOTHING
    d = float(coefficients @ logs)
    sums = _sums(coefficients * _residuals(logs, hinted, strata), groups)
    used = np.bincount(groups, weights=np.abs(coefficients)) > 0
    cells = len(np.unique(2 * strata[coefficients != 0] + hinted[coefficients != 0]))
    freedom = max(int(used.sum()) - cells, 1)
    spread = float(sums @ sums) * used.sum() / freedom
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(spread)
    low, high = math.exp(min(d - half, 50)), math.exp(min(d + half, 50))
    return Estimate(math.exp(d), low, high, int((coefficients != 0).sum()))


def _meter(reader: str, reads: Sequence[HintedOrBlind], idle_cut: float) -> Anchoring:
    told = [read for read in reads if not math.isnan(read.agrees)]
    hinted, blind = (_patients(told, side) for side in (True, False))
    counts = Counter(read.hinted for read in told)
    found = NOTHING, NOTHING, NOTHING
    if min(hinted, blind) >= LEAST:
        agrees = np.array([read.agrees for read in told])
        found = shift(agrees, _hinted(told), _strata(told, False), _groups(told))
    timed = [read for read in reads if read.seconds is not None]
    times = NOTHING
    if min(_patients(timed, True), _patients(timed, False)) >= LEAST:
        seconds = [min(max(r.seconds or 0.0, 0.5), idle_cut) for r in timed]
        times = ratio(np.log(seconds), _hinted(timed), _strata(timed, True), _groups(timed))
    who = reader or "Readers"
    said = _sentence(who, found, times, counts[True], counts[False])
    return Anchoring(reader, counts[True], counts[False], *found, times, said)


def _patients(reads: Sequence[HintedOrBlind], hinted: bool) -> int:
    return len({read.group for read in reads if read.hinted == hinted})


def _hinted(reads: Sequence[HintedOrBlind]) -> npt.NDArray[np.bool_]:
    return np.array([read.hinted for read in reads], dtype=bool)


def _strata(reads: Sequence[HintedOrBlind], by_reader: bool) -> Ints:
    """Codes; times are compared within a reader, since readers differ more than hints do."""
    names = [f"{r.stratum}\n{r.reader if by_reader else ''}" for r in reads]
    return np.unique(names, return_inverse=True)[1]


def _groups(reads: Sequence[HintedOrBlind]) -> Ints:
    return np.unique([read.group for read in reads], return_inverse=True)[1]


def _counts(hinted: npt.NDArray[np.bool_], strata: Ints) -> tuple[Floats, Floats]:
    """Hinted and blind reads of each stratum."""
    size = int(strata.max()) + 1
    n1 = np.bincount(strata, weights=hinted, minlength=size)
    n = np.bincount(strata, minlength=size).astype(np.float64)
    return n1.astype(np.float64), n - n1


def _weights(hinted: npt.NDArray[np.bool_], strata: Ints) -> Floats:
    """`(n,)`: what each read counts in the difference of the arms; those of an arm sum to ±1."""
    n1, n0 = _counts(hinted, strata)
    weight = n1 * n0 / (n1 + n0)
    if not weight.sum():
        return np.zeros(len(strata))
    weight = weight / weight.sum()
    found: Floats = np.where(
        hinted,
        weight[strata] / np.maximum(n1, 1)[strata],
        -weight[strata] / np.maximum(n0, 1)[strata],
    )
    return found


def _residuals(values: Floats, hinted: npt.NDArray[np.bool_], strata: Ints) -> Floats:
    cell = 2 * strata + hinted
    mean = np.bincount(cell, weights=values) / np.maximum(np.bincount(cell), 1)
    return np.asarray(values - mean[cell])


def _sums(values: Floats, groups: Ints) -> Floats:
    return np.bincount(groups, weights=values).astype(np.float64)


def _arm(
    agrees: Floats,
    side: bool,
    hinted: npt.NDArray[np.bool_],
    strata: Ints,
    groups: Ints,
) -> Estimate:
    coefficients = np.where(hinted == side, np.abs(_weights(hinted, strata)), 0.0)
    n = int((coefficients > 0).sum())
    if not n:
        return NOTHING
    value = min(max(float(coefficients @ agrees), 0.0), 1.0)
    weights = _sums(coefficients, groups)
    most = 1 / float(weights @ weights)  # independent answers, were patients all alike (Kish)
    sums = _sums(coefficients * _residuals(agrees, hinted, strata), groups)
    cells = len(np.unique(strata[coefficients > 0]))
    patients = int((weights > 0).sum())
    freedom = max(patients - cells, 1)
    spread = float(sums @ sums) * patients / freedom
    if np.isin(agrees, (0.0, 1.0)).all():  # no more than that many tosses of a coin
        worth = min(value * (1 - value) / spread, most) if spread > 1e-12 else most
    else:  # means over findings: a smaller spread, which is estimated
        spread *= (float(stdtrit(freedom, 0.975)) / Z) ** 2
        worth = value * (1 - value) / spread if spread > 1e-12 else most
    return Estimate(value, *wilson(value, worth), n)


def _sentence(
    who: str, found: tuple[Estimate, Estimate, Estimate], times: Estimate, hinted: int, blind: int
) -> str:
    shown, hidden, moved = found
    if math.isnan(moved.value):
        return (
            f"{who}: too few to tell ({hinted:,} hinted and {blind:,} blind reads; {LEAST} patients"
            " of each are needed, in one half of a batch)."
        )
    if moved.low > 0:
        verdict = "the hint draws answers towards the model"
    elif moved.high < 0:
        verdict = "the hint drives answers away from the model"
    else:
        verdict = "no anchoring can be told from chance"
    points = f"{100 * moved.value:+.0f} points [{100 * moved.low:+.0f}, {100 * moved.high:+.0f}]"
    said = (
        f"{who}: {100 * shown.value:.0f} % of answers are the model's where it is shown, "
        f"{100 * hidden.value:.0f} % where it is hidden: {points}, {verdict}."
    )
    if math.isnan(times.value):
        return said
    return (
        f"{said} A hinted read takes {times.value:.2f} [{times.low:.2f}, {times.high:.2f}] times "
        "as long."
    )
