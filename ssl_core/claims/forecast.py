"""How many labels an AUROC will take: a fitted learning curve that is held against its own past.

The curve is the inverse power law a - b·(n + d)^-c (Figueroa et al. 2012, BMC Medical Informatics
and Decision Making 12:8, who weight each point as here; the offset d, for curves that bend late,
is POW4 of Viering & Loog 2022, whose review says where power laws fail). It is not fitted once:
every curve that the points allow is kept with its weight, so what they do not settle, the bend
and the ceiling, widens the interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_core.evidence import Estimate, Floats

FEWEST = 4  # points of a history that may be forecast from
FURTHEST = 100.0  # times the labels at hand: further out, "never" and "not yet" are one
_FIRST = 3  # points that the first forecast of the back-test rests on
_COVERED = 0.75  # of the back-test's points, the share that must lie in their intervals
# What is taken for likely before any point is seen. `_BENDS`: exponents as they act at the newest
# point, published ones lie around 0.1 to 1; 0 is the logarithm, which bends not at all. `_OFFSETS`
# in units of the newest point's labels: 0 the plain power law, the largest nearly exponential.
_BENDS = np.concatenate([[0.0], np.geomspace(0.05, 4.0, 16)])
_BEND_SPREAD = (math.log(0.4), 1.0)
_STRAIGHT = 0.15
_OFFSETS = {0.0: 0.4, 0.25: 0.1, 4.0: 0.1, 16.0: 0.4}
_NESTED = (0.0, 0.5, 0.9)  # how much of a point's luck stays in the next: its labels contain them
_TRUST = 4.0  # degrees of freedom that the errors given with the points are worth
_ROUGH = 0.002  # standard deviation of a true mean AUROC around such a curve: none is exact
_TEMPER = 0.5  # power of the shapes' evidence: no shape is the true one (Grünwald & van Ommen 2017)
_DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Observed:
    """A point of the history: AUROC at so many training labels, and its standard error."""

    labels: float
    auroc: float
    error: float


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """Curves that the history allows, equally likely; each array is `(M,)`.

    a - b·((n + d) / (n0 + d))^-c: `a` is the ceiling, `b` >= 0 the gap to it at `n0` labels (the
    newest point). Where c is 0 the curve is a + b·log(n / n0), and reaches 1. `scale` is what the
    errors given with the points are to be multiplied by, 1 or more.
    """

    a: Floats
    b: Floats
    c: Floats
    d: Floats
    scale: Floats
    n0: float

    def at(self, labels: float) -> Floats:
        """The AUROC of every curve at so many labels, `(M,)`, 1 at the most."""
        return np.minimum(self.a - self.b * _falling(labels, self.n0, self.c, self.d), 1.0)

    def reaching(self, target: float) -> Floats:
        """The labels with which every curve reaches the target, `(M,)`; infinite if never."""
        found = np.full(self.a.shape, math.inf)
        straight = self.c == 0
        able = np.flatnonzero((self.b > 0) & (straight | (self.a > target)))
        b, c, d = self.b[able], np.where(straight, 1.0, self.c)[able], self.d[able]
        gap = self.a[able] - target
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            bent = (self.n0 + d) * (b / gap) ** (1 / c) - d
            found[able] = np.where(straight[able], self.n0 * np.exp(-gap / b), bent)
        found[found > FURTHEST * self.n0] = math.inf
        return found.clip(0.0)


@dataclass(frozen=True, slots=True)
class Tried:
    """One step of the back-test: a point as it was forecast from those before it."""

    labels: float
    forecast: Estimate
    measured: float

    @property
    def covered(self) -> bool:
        """Whether the 95 % interval held what was then measured."""
        return self.forecast.low <= self.measured <= self.forecast.high


@dataclass(frozen=True, slots=True)
class Forecast:
    """Labels to a target AUROC, in all (not further ones), with a 95 % interval.

    `labels` is None where `refused` says why nothing is forecast; its ends are infinite where the
    curves stay below the target up to 100 times the labels at hand. `back_test` stands beside it.
    """

    target: float
    labels: Estimate | None
    back_test: tuple[Tried, ...]
    refused: str


def forecast(history: Sequence[Observed], target: float, rng: np.random.Generator) -> Forecast:
    """Forecast the labels at which the mean AUROC reaches `target`, on the same test cases.

    Refuses, by one sentence, with fewer than four points, where the points before did not foretell
    those after, and where no rising curve fits.
    """
    tried, found, refused = examined(history, rng)
    if found is None:
        return Forecast(target, None, tried, refused)
    low, middle, high = np.quantile(
        found.reaching(target), (0.025, 0.5, 0.975), method="inverted_cdf"
    )
    labels = Estimate(float(middle), float(low), float(high), len(history))
    return Forecast(target, labels, tried, "")


def examined(
    history: Sequence[Observed], rng: np.random.Generator
) -> tuple[tuple[Tried, ...], Fit | None, str]:
    """The back-test, and the curves if they may be spoken of, else None and the reason."""
    points = usable(history)
    if len(points) < FEWEST:
        return (), None, f"a forecast needs {FEWEST} measured budgets, and there are {len(points)}"
    tried = back_test(points, rng)
    hits = sum(one.covered for one in tried)
    if hits < _COVERED * len(tried):
        told = f"only {hits} of {len(tried)} earlier points lay where they were forecast"
        return tried, None, f"the learning curve does not foretell itself: {told}"
    found = fit(points, rng)
    if found is None:
        return (
            tried,
            None,
            "what was measured does not rise with the labels, so no learning curve fits",
        )
    return tried, found, ""


def usable(history: Sequence[Observed]) -> list[Observed]:
    """The points that have a value and an error, by rising labels."""
    known = [o for o in history if o.labels > 0 and o.error >= 0 and math.isfinite(o.auroc)]
    return sorted(known, key=lambda one: one.labels)


def back_test(points: Sequence[Observed], rng: np.random.Generator) -> tuple[Tried, ...]:
    """Walk forward: each point from the fourth on, forecast from those before it alone."""
    tried = []
    for k in range(_FIRST, len(points)):
        found, at = fit(points[:k], rng), points[k]
        told = Estimate(math.nan, math.nan, math.nan, k)
        if found is not None:
            noise = rng.standard_normal(found.a.size) * found.scale * at.error
            low, middle, high = np.quantile(found.at(at.labels) + noise, (0.025, 0.5, 0.975))
            told = Estimate(float(middle), float(low), float(high), k)
        tried.append(Tried(at.labels, told, at.auroc))
    return tuple(tried)


def fit(points: Sequence[Observed], rng: np.random.Generator) -> Fit | None:
    """The curves that the points allow; None where hardly any of them rises.

    For each shape (c, d, and how much neighbouring points share their luck) a and b are linear:
    generalised least squares, the scale of the errors integrated out (inverse gamma, 4 degrees of
    freedom around 1), so each shape has a weight and a Student's t; curves are drawn from the
    mixture and kept where 0 <= b and a <= 1.
    """
    n, y = np.array([p.labels for p in points]), np.array([p.auroc for p in points])
    c, d, shared, prior = _shapes(float(n[-1]))
    design = np.stack([np.ones((len(c), len(n))), -_falling(n, n[-1], c[:, None], d[:, None])], 2)
    error = np.hypot(_smoothed(n, np.array([p.error for p in points])), _ROUGH)
    log, means, roots, misfit = _solved(design, y, _whiteners(n, error)[shared])
    log = prior + _TEMPER * log
    weights = np.exp(log - log.max())
    chosen = rng.choice(len(c), size=_DRAWS, p=weights / weights.sum())
    freedom = _TRUST + len(n) - 2
    scale = np.sqrt((_TRUST + misfit[chosen]) / rng.chisquare(freedom, _DRAWS))
    noise = rng.standard_normal((_DRAWS, 2)) * scale.clip(1.0)[:, None]
    a, b = (means[chosen] + np.einsum("mij,mj->mi", roots[chosen], noise)).T
    kept = (b >= 0) & ((a <= 1) | (c[chosen] == 0))
    if kept.sum() < _DRAWS / 100:
        return None
    picked = chosen[kept]
    return Fit(a[kept], b[kept], c[picked], d[picked], scale.clip(1.0)[kept], float(n[-1]))


def _falling(n: Floats | float, n0: float, c: Floats, d: Floats) -> Floats:
    """((n + d) / (n0 + d))^-c, and -log(n / n0) where c is 0."""
    bent = ((n + d) / (n0 + d)) ** -c
    return np.where(c == 0, -np.log(n / n0), bent)


def _shapes(
    newest: float,
) -> tuple[Floats, Floats, np.ndarray[tuple[int], np.dtype[np.intp]], Floats]:
    """Exponent, offset, place in `_NESTED` and log prior of every shape."""
    bends, offsets, shared = np.meshgrid(
        _BENDS, list(_OFFSETS), np.arange(len(_NESTED)), indexing="ij"
    )
    with np.errstate(divide="ignore"):
        density = -(((np.log(bends) - _BEND_SPREAD[0]) / _BEND_SPREAD[1]) ** 2) / 2
    shares = np.exp(density) * np.array(list(_OFFSETS.values()))[:, None]
    shares = shares / shares.sum() * (1 - _STRAIGHT)
    shares[0, 0] = _STRAIGHT / len(_NESTED)
    used = shares > 0
    d = offsets[used] * newest
    return bends[used] * (newest + d) / newest, d, shared[used], np.log(shares[used])


def _smoothed(n: Floats, error: Floats) -> Floats:
    """Errors on a line over log-log: those of a few seeds are too rough to be weights."""
    error = error.clip(1e-4)  # two seeds that agree by chance say nothing of luck
    x, y = np.log(n / n[0]), np.log(error)
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * y).sum()) / spread if spread > 0 else 0.0
    slope = min(0.0, max(-1.0, slope))
    level = math.log(float(np.mean(error**2))) / 2
    line = np.exp(slope * x)
    return np.asarray(line * math.exp(level) / math.sqrt(float(np.mean(line**2))))


def _whiteners(n: Floats, error: Floats) -> Floats:
    """For each entry of `_NESTED` the matrix that makes the points' luck independent."""
    luck = np.sqrt(np.minimum.outer(n, n) / np.maximum.outer(n, n))
    eye, size = np.eye(len(n)), np.outer(error, error)
    return np.array(
        [np.linalg.inv(np.linalg.cholesky(((1 - r) * eye + r * luck) * size)) for r in _NESTED]
    )


def _solved(design: Floats, y: Floats, white: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Of every shape: log evidence, mean of (a, b), root of their covariance, squared misfit."""
    x, z = white @ design, white @ y
    inverse = np.linalg.inv(x.transpose(0, 2, 1) @ x + 1e-9 * np.eye(2))
    means = np.einsum("sij,snj,sn->si", inverse, x, z)
    misfit = ((z - np.einsum("snj,sj->sn", x, means)) ** 2).sum(axis=1)
    log = np.linalg.slogdet(white)[1] + np.linalg.slogdet(inverse)[1] / 2
    log -= (_TRUST + len(y) - 2) / 2 * np.log(_TRUST + misfit)
    return log, means, np.linalg.cholesky(inverse), misfit
