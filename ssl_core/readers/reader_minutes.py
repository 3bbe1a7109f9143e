"""AUROC for a reader's time: what an hour of reading brought, and strategies at equal time.

Uncertain cases take longer. A strategy that wins at the same number of labels may lose in the same
minutes, so each is compared where its own reads have taken as long as the control's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ssl_core.claims.curve import MACRO, Curve, Line
from ssl_core.evidence import Estimate, Z
from ssl_core.readers.pace import Case, PaceModel, expected, times_as_long
from ssl_core.records import METRICS

Floats = npt.NDArray[np.float64]

DRAWS = 1000  # as many as the pace model has


@dataclass(frozen=True, slots=True)
class Step:
    """What the reads between two rounds brought.

    `hours` of training reads were spent between them for `labels` more. `gain` is of AUROC, and
    `per_hour` the same for each hour; NaN where no time passed. Their 95 % intervals take the two
    measurements as independent; both are of the same vault, so they err to the wide side.
    """

    since: int
    until: int
    labels: int
    hours: float
    gain: Estimate
    per_hour: Estimate


@dataclass(frozen=True, slots=True)
class PerMinute:
    """A strategy less its control at one budget of the control's: per label and per minute.

    `times` is how long its read takes against one of the control's. `minutes` is what the control's
    `labels` take. `per_label` compares AUROC at as many labels, `per_minute` after as many minutes.
    All with 95 % intervals; NaN where the strategy's curve does not reach so far.
    """

    strategy: str
    labels: int
    minutes: Estimate
    times: Estimate
    per_label: Estimate
    per_minute: Estimate


def steps(line: Line) -> list[Step]:
    """From each round to the next one, and last from the first to the newest; hours are known."""
    points = [p for p in line.points if p.hours is not None]
    pairs = list(pairwise(points))
    if len(points) > 2:
        pairs.append((points[0], points[-1]))
    found = []
    for a, b in pairs:
        hours = (b.hours or 0.0) - (a.hours or 0.0)
        gain = _difference(b.auroc, a.auroc)
        found.append(Step(a.round, b.round, b.labels - a.labels, hours, gain, _each(gain, hours)))
    return found


def steps_sentence(found: Sequence[Step], metric: str = METRICS["auroc"]) -> str:
    """What an hour of reading brought from the first round to the newest, in words."""
    told = [one for one in found if not math.isnan(one.per_hour.value)]
    if not told:
        return (
            f"No two rounds with timed reads between them: {metric} per reader-hour is not known."
        )
    whole = told[-1]
    gain = f"{whole.per_hour.value:+.3f} [{whole.per_hour.low:+.3f}, {whole.per_hour.high:+.3f}]"
    verdict = "" if whole.gain.low > 0 else "; this cannot be told from none"
    return (
        f"From round {whole.since} to round {whole.until}, {whole.labels:,} labels took "
        f"{whole.hours:.1f} reader-hours: {gain} of {metric} an hour{verdict}."
    )


def per_minute(
    strategy: str,
    labels: Sequence[int],
    ours: Floats,
    control_labels: Sequence[int],
    control: Floats,
    times: Floats,
    seconds: Floats,
) -> list[PerMinute]:
    """Compare a strategy with its control at each of the control's budgets.

    Args:
        strategy: its name.
        labels: `(K,)` budgets of ours, rising, above 0.
        ours: `(B, K)` draws of AUROC.
        control_labels: `(L,)` budgets of the control, rising.
        control: `(B, L)` draws of AUROC.
        times: `(B,)` draws of how many times as long our read takes.
        seconds: `(B,)` draws of the control's seconds a read.
    """
    found = []
    for k, budget in enumerate(control_labels):
        same = _at(labels, ours, np.full(len(times), float(budget))) - control[:, k]
        after = _at(labels, ours, budget / times) - control[:, k]
        found.append(
            PerMinute(
                strategy=strategy,
                labels=int(budget),
                minutes=_estimate(budget * seconds / 60),
                times=_estimate(times),
                per_label=_estimate(same),
                per_minute=_estimate(after),
            )
        )
    return found


def per_minute_of(curve: Curve, model: PaceModel, slice_share: float) -> list[PerMinute]:
    """Strategies of the curve that were replayed beside a control and whose reads were timed.

    The curve gives each line's own interval, so strategies and control count as independent: the
    intervals err to the wide side. `draws_of_seeds` is for whoever has the seeds.
    """
    control = curve.line("control", "replay")
    if control is None or len(control.points) < 2:
        return []
    reader = max(model.practice, key=lambda name: model.practice[name])
    seconds = expected(model, Case(reader, model.practice[reader]))
    found: list[PerMinute] = []
    for line in curve.lines:
        mine = (line.role, line.origin, line.finding) == ("student", "replay", MACRO)
        if mine and f"chosen by {line.strategy}" in model.columns and len(line.points) > 1:
            rng = np.random.default_rng(0)
            found += per_minute(
                line.strategy,
                [p.labels for p in line.points],
                draws_of([p.auroc for p in line.points], rng),
                [p.labels for p in control.points],
                draws_of([p.auroc for p in control.points], rng),
                times_as_long(model, line.strategy, slice_share),
                seconds,
            )
    return found


def per_minute_sentence(found: Sequence[PerMinute], metric: str = METRICS["auroc"]) -> str:
    """The largest budget at which both are known, in words."""
    told = [one for one in found if not math.isnan(one.per_minute.value)]
    if not told:
        return (
            "Strategies cannot be compared by the minute yet: it takes a replay beside random and "
            "timed reads of what the strategy chose."
        )
    one = told[-1]
    if one.per_label.low > 0 and not one.per_minute.low > 0:
        verdict = "it wins by the label, and by the minute it is not told from random"
        if one.per_minute.high < 0:
            verdict = "it wins by the label and loses by the minute"
    elif one.per_minute.low > 0:
        verdict = "it wins by the minute"
    elif one.per_minute.high < 0:
        verdict = "it loses by the minute"
    else:
        verdict = "by the minute it is not told from random"
    return (
        f"A case chosen by {one.strategy} takes {_told(one.times, '.2f')} times as long as a "
        f"random one. At {one.labels:,} labels it is {_told(one.per_label, '+.3f')} of {metric} "
        f"ahead of random, and after the same {one.minutes.value:,.0f} minutes "
        f"{_told(one.per_minute, '+.3f')}: {verdict}."
    )


def draws_of(points: Sequence[Estimate], rng: np.random.Generator) -> Floats:
    """Independent normal draws `(B, K)` of estimates, by their intervals; NaN without one."""
    value = np.array([p.value for p in points])
    error = np.array([(p.high - p.low) / (2 * Z) for p in points])
    draws: Floats = value + error * rng.standard_normal((DRAWS, len(points)))
    return draws


def draws_of_seeds(values: Floats, rng: np.random.Generator) -> Floats:
    """Draws `(B, K)` of the mean over S seeds of `(S, K)`, with Student's t spread.

    Put the strategy's and the control's budgets side by side in one array, and the pairing by seed
    is kept.
    """
    x = np.asarray(values, dtype=np.float64)
    seeds = len(x)
    away = rng.standard_normal((DRAWS, seeds)) @ (x - x.mean(axis=0))
    wide = np.sqrt((seeds - 1) / rng.chisquare(seeds - 1, size=(DRAWS, 1)))
    draws: Floats = x.mean(axis=0) + away * wide / math.sqrt(seeds * (seeds - 1))
    return draws


def _at(budgets: Sequence[int], draws: Floats, where: Floats) -> Floats:
    """`(B,)`: each curve at its own budget, straight over the logarithm; NaN outside it."""
    x, at = np.log(np.asarray(budgets, dtype=np.float64)), np.log(where)
    right = np.clip(np.searchsorted(x, at), 1, len(x) - 1)
    left, rows = right - 1, np.arange(len(draws))
    share = (at - x[left]) / (x[right] - x[left])
    found = (1 - share) * draws[rows, left] + share * draws[rows, right]
    slack = 1e-9
    return np.where((at < x[0] - slack) | (at > x[-1] + slack), np.nan, found)


def _estimate(draws: Floats) -> Estimate:
    """NaN where more than one draw in twenty is."""
    known = draws[~np.isnan(draws)]
    if len(known) < 0.95 * len(draws):
        return Estimate(math.nan, math.nan, math.nan, 0)
    low, high = np.quantile(known, [0.025, 0.975])
    return Estimate(float(known.mean()), float(low), float(high), len(known))


def _difference(ours: Estimate, theirs: Estimate) -> Estimate:
    """Of independent estimates, from their intervals (Zou and Donner 2008)."""
    d = ours.value - theirs.value
    down = math.hypot(ours.value - ours.low, theirs.high - theirs.value)
    up = math.hypot(ours.high - ours.value, theirs.value - theirs.low)
    return Estimate(d, d - down, d + up, min(ours.n, theirs.n))


def _each(gain: Estimate, hours: float) -> Estimate:
    if hours <= 0:
        return Estimate(math.nan, math.nan, math.nan, gain.n)
    return Estimate(gain.value / hours, gain.low / hours, gain.high / hours, gain.n)


def _told(one: Estimate, form: str) -> str:
    return f"{one.value:{form}} [{one.low:{form}}, {one.high:{form}}]"
