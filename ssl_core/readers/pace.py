"""How long a read takes: by reader, practice, sitting, hint, and how the case was chosen.

The logarithm of a read's seconds, cut at the idle cut, is modelled as a sum of effects and of the
reader's own level: a linear mixed model (Laird and Ware 1982). Readers are shrunk to their common
mean by as much as the data say, effects to none, so a column that the data say little about does
little. What is left over is not taken to be normal: predictions draw from the residuals
themselves (Duan 1983, smearing).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from ssl_core.evidence import Estimate

Floats = npt.NDArray[np.float64]

LEAST = 20  # timed reads; with fewer nothing is said
DRAWS = 1000
RESIDUALS = 200
SEED = 0  # of the draws alone: the same reads give the same answer
SHORTEST = 0.5  # seconds: a read is no shorter, whatever a clock said
LEVEL, SPREAD = 3.0, 0.5  # prior spread of the mean level; of the readers' (half-normal)
SMOOTH, STEP = 0.15, 0.5  # prior spreads of effects: a doubling of practice; a yes or no
SPREADS = np.linspace(0.02, 1.5, 30)


@dataclass(frozen=True, slots=True)
class Case:
    """A read as far as its time depends on it.

    `practice`: how many reads of theirs came before. `sitting`: how many since the last pause;
    None where not known. `chosen` is the strategy that asked for the item, "" for the random slice
    and what measures; `rank` its score's place among those of its round, 0 (lowest) to 1 (highest).
    """

    reader: str
    practice: int = 0
    sitting: int | None = None
    hinted: bool = False
    chosen: str = ""
    rank: float = 0.5


@dataclass(frozen=True, slots=True)
class TimedRead:
    """A read that took this many seconds, uncut."""

    case: Case
    seconds: float


@dataclass(frozen=True, slots=True)
class Effect:
    """How many times as long a read takes, with its 95 % interval: "practice" and "sitting" for
    each doubling; "hint" against blind; "chosen by …" against the random slice; "score", the
    highest of a batch against the lowest. `n` counts the reads that differ in it from the rest.
    """

    name: str
    times: Estimate


@dataclass(frozen=True, slots=True, eq=False)
class PaceModel:
    """The fitted model as draws `(B, P + R)` of P effects and R readers' levels.

    `spread` `(B,)` is the readers' spread, `residuals` are in log-seconds. `practice` counts each
    reader's reads. `sitting` is the usual log2(1 + place in a sitting). `n` counts reads.
    """

    readers: tuple[str, ...]
    columns: tuple[str, ...]
    draws: Floats
    spread: Floats
    residuals: Floats
    sitting: float
    practice: dict[str, int]
    idle_cut: float
    effects: tuple[Effect, ...]
    n: int


def fit_pace(reads: Sequence[TimedRead], idle_cut: float) -> PaceModel | None:
    """Fit the model; None where fewer than `LEAST` reads have a time.

    In simulation (see the tests) the 95 % interval of a queue's minutes covered .93 and more with
    two to five readers and 40 to 300 reads.
    """
    if len(reads) < LEAST:
        return None
    cases = [one.case for one in reads]
    readers = tuple(sorted({case.reader for case in cases}))
    known = [_log2(case.sitting) for case in cases if case.sitting is not None]
    sitting = float(np.mean(known)) if known else 0.0
    chosen = sorted({case.chosen for case in cases if case.chosen})
    names = ("level", "practice", "sitting", "hint", "score", *(f"chosen by {s}" for s in chosen))
    y = np.log(np.clip([one.seconds for one in reads], SHORTEST, idle_cut))
    design = _design(cases, names, readers, sitting)
    draws, spread, residuals = _posterior(design, y, len(names))
    counts = {reader: sum(case.reader == reader for case in cases) for reader in readers}
    effects = tuple(_effect(name, c, design, draws) for c, name in enumerate(names) if c)
    return PaceModel(
        readers=readers,
        columns=names,
        draws=draws,
        spread=spread,
        residuals=residuals,
        sitting=sitting,
        practice=counts,
        idle_cut=idle_cut,
        effects=tuple(e for e in effects if e.times.n),
        n=len(reads),
    )


def seconds_of(model: PaceModel, case: Case) -> Estimate:
    """The expected seconds of such a read, with the 95 % interval of that mean."""
    return _estimate(expected(model, case), model.n)


def expected(model: PaceModel, case: Case) -> Floats:
    """Draws `(B,)` of the expected seconds of such a read."""
    middle = _middle(model, [case], _strangers(model, [case]))[:, 0]
    grid = np.quantile(model.residuals, (np.arange(RESIDUALS) + 0.5) / RESIDUALS)
    draws: Floats = _seconds(middle[:, None] + grid, model.idle_cut).mean(axis=1)
    return draws


def minutes_of(model: PaceModel, queue: Sequence[Case]) -> Estimate:
    """The minutes that a queue takes in all, with a 95 % interval for what will be measured.

    A reader whom the model does not know is drawn from the readers' spread.
    """
    rng, total = np.random.default_rng(SEED), np.zeros(len(model.draws))
    strangers = _strangers(model, queue)
    for start in range(0, len(queue), 200):
        middle = _middle(model, queue[start : start + 200], strangers)
        middle += rng.choice(model.residuals, size=middle.shape)
        total += _seconds(middle, model.idle_cut).sum(axis=1)
    return _estimate(total / 60, len(queue))


def times_as_long(model: PaceModel, strategy: str, slice_share: float = 0.0) -> Floats:
    """Draws `(B,)` of how many times as long a strategy's read takes as one drawn at random.

    `slice_share` in [0, 1] of its batch is the random slice. A strategy that the model never saw
    is as likely faster as slower: its draws are the prior's.
    """
    name = f"chosen by {strategy}"
    if name in model.columns:
        effect = model.draws[:, model.columns.index(name)]
    else:
        effect = STEP * np.random.default_rng(SEED).standard_normal(len(model.draws))
    return np.asarray(slice_share + (1 - slice_share) * np.exp(effect))


def _log2(place: int | None) -> float:
    return math.log2(1 + (place or 0))


def _design(
    cases: Sequence[Case], names: Sequence[str], readers: Sequence[str], sitting: float
) -> Floats:
    """`(n, P + R)`: effects, then one column a reader."""
    columns = {
        "level": [1.0] * len(cases),
        "practice": [_log2(case.practice) for case in cases],
        "sitting": [0.0 if c.sitting is None else _log2(c.sitting) - sitting for c in cases],
        "hint": [float(case.hinted) for case in cases],
        "score": [case.rank - 0.5 if case.chosen else 0.0 for case in cases],
    }
    for name in names[len(columns) :]:
        columns[name] = [float(name == f"chosen by {case.chosen}") for case in cases]
    mine = [[float(case.reader == reader) for case in cases] for reader in readers]
    return np.array([*columns.values(), *mine]).T.reshape(len(cases), -1)


def _posterior(design: Floats, y: Floats, effects: int) -> tuple[Floats, Floats, Floats]:
    """Draws of the coefficients and of the readers' spread, and residuals.

    The spread is on a grid, weighted by its marginal likelihood; given it, all is normal
    (Lindley and Smith 1972). The residual variance is that of the least-squares fit.
    """
    n, width = design.shape
    ridge = np.linalg.lstsq(design.T @ design + 1e-6 * np.eye(width), design.T @ y, rcond=None)[0]
    freedom = max(n - int(np.linalg.matrix_rank(design)), 1)
    variance = max(float(((y - design @ ridge) ** 2).sum()) / freedom, 1e-4)
    gram, cross = design.T @ design / variance, design.T @ y / variance
    prior = np.array([LEVEL, SMOOTH, SMOOTH, *[STEP] * (effects - 3)]) ** -2.0
    centre = np.zeros(width)
    centre[0] = float(np.mean(y))  # the level's prior is wide; its centre only spares rounding
    weights, means, roots = [], [], []
    for spread in SPREADS:
        precision = np.concatenate([prior, np.full(width - effects, spread**-2.0)])
        whole = gram + np.diag(precision)
        mean = np.linalg.solve(whole, cross + precision * centre)
        fit = y - design @ mean
        away = float(fit @ fit) / variance + float(precision @ (mean - centre) ** 2)
        size = np.log(precision).sum() - np.linalg.slogdet(whole)[1]
        weights.append(0.5 * (size - away) - 0.5 * (spread / SPREAD) ** 2)
        means.append(mean)
        roots.append(np.linalg.inv(np.linalg.cholesky(whole)).T)
    chance = np.exp(np.array(weights) - logsumexp(weights))
    rng = np.random.default_rng(SEED)
    which = rng.choice(len(SPREADS), size=DRAWS, p=chance)
    noise = rng.standard_normal((DRAWS, width))
    scale = np.sqrt(freedom / rng.chisquare(freedom, size=DRAWS))  # the variance is estimated too
    away_: Floats = np.einsum("bij,bj->bi", np.array(roots)[which], noise) * scale[:, None]
    draws: Floats = np.array(means)[which] + away_
    left: Floats = y - design @ (chance @ np.array(means))
    # Least squares leave too little over: as many degrees of freedom as were fitted are gone.
    return (
        draws,
        np.asarray(SPREADS[which], dtype=np.float64),
        np.asarray((left - left.mean()) * math.sqrt(n / freedom)),
    )


def _strangers(model: PaceModel, cases: Sequence[Case]) -> dict[str, Floats]:
    """Draws of the level of each reader that the model does not know."""
    rng = np.random.default_rng(SEED + 1)
    names = sorted({case.reader for case in cases} - {*model.readers})
    return {name: model.spread * rng.standard_normal(len(model.spread)) for name in names}


def _middle(model: PaceModel, cases: Sequence[Case], strangers: Mapping[str, Floats]) -> Floats:
    """`(B, n)` log-seconds less the residual."""
    design = _design(cases, model.columns, model.readers, model.sitting)
    middle: Floats = model.draws @ design.T
    for i, case in enumerate(cases):
        if case.reader in strangers:
            middle[:, i] += strangers[case.reader]
    return middle


def _seconds(logs: Floats, idle_cut: float) -> Floats:
    cut: Floats = np.minimum(np.exp(np.minimum(logs, 20.0)), idle_cut)
    return cut


def _estimate(draws: Floats, n: int) -> Estimate:
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(draws.mean()), float(low), float(high), n)


def _effect(name: str, column: int, design: Floats, draws: Floats) -> Effect:
    told = design[:, column]
    usual = float(np.median(told))
    n = int((told != usual).sum())
    value = np.exp(draws[:, column])
    return Effect(name, _estimate(value, n))
