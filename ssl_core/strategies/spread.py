"""Picking items that lie far from all picked before, without a table of N² distances.

`farthest_first` updates distances only where they could matter: those that are out of date are
too large, never too small, so an item that is ahead of all others with its exact distance is ahead
of them with theirs. The rest catch up in blocks of matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ssl_core.strategies.view import Array, Floats, Rows, Scores

BLOCK = 4_096  # items at a time
CENTRES = 256  # picked or labeled items at a time
PENDING = 64  # picks that all items may be behind: fewer fill no matrix product
SHORTLISTS = (64, 2_048)  # items brought up to date before all are
SAMPLE = 1_001  # rows for the median; odd, so that it is a value of the data


@dataclass(frozen=True, slots=True)
class Points:
    """N points in one space: `rows` `(N, D)`, or the outer products scale ⊗ row, never built.

    `scale` `(N, C)` or None; `squares` `(N,)` are the squared lengths, |scale|² · |row|².
    """

    rows: Floats
    scale: Floats | None
    squares: Floats

    def at(self, index: Rows | slice) -> Points:
        """Those at some positions."""
        scale = None if self.scale is None else self.scale[index]
        return Points(self.rows[index], scale, self.squares[index])


def points(rows: Floats, scale: Floats | None = None) -> Points:
    """The points of rows `(N, D)`, or of scale `(N, C)` ⊗ rows."""
    squares = np.einsum("ij,ij->i", rows, rows)
    if scale is not None:
        squares = squares * np.einsum("ij,ij->i", scale, scale)
    return Points(rows, scale, squares)


def squared_distances(some: Points, centres: Points) -> Floats:
    """Squared Euclidean distances `(R, K)`, at least 0.

    |a⊗b - c⊗d|² = |a|²|b|² + |c|²|d|² - 2 (a·c)(b·d).
    """
    found: Floats = some.rows @ centres.rows.T
    if some.scale is not None and centres.scale is not None:
        found *= some.scale @ centres.scale.T
    found *= -2.0
    found += some.squares[:, None]
    found += centres.squares
    np.maximum(found, 0.0, out=found)
    return found


def approach(nearest: Floats, all_points: Points, centres: Points) -> None:
    """Lower `nearest` `(N,)`, in place, to the squared distance from the nearest of K centres."""
    for rows in blocks(len(nearest), BLOCK):
        some, lowest = all_points.at(rows), nearest[rows]
        for part in blocks(len(centres.squares), CENTRES):
            distances = squared_distances(some, centres.at(part))
            np.minimum(lowest, distances.min(axis=1), out=lowest)


def farthest_first(
    all_points: Points, nearest: Floats, n: int, clocks: Callable[[], Scores] | None = None
) -> Rows:
    """Positions of min(n, N) points, each the one with the largest `nearest` / clock at its turn.

    `nearest` `(N,)` holds squared distances from what is picked already. It is updated in place;
    what is picked has -1 in the end, and must have from the beginning. `clocks()` gives `(N,)`
    positive numbers for one turn, all 1 if None. With standard exponential clocks each turn is a
    draw with chances in proportion to the squared distance (the first of N Poisson processes).
    """
    picks = np.empty(max(0, min(n, int((nearest >= 0).sum()))), dtype=np.int64)
    settled = 0
    for turn in range(len(picks)):
        clock = None if clocks is None else clocks()
        best = None
        if turn - settled < PENDING:
            best = _surely_first(all_points, nearest, clock, all_points.at(picks[settled:turn]))
        if best is None:
            approach(nearest, all_points, all_points.at(picks[settled:turn]))
            settled = turn
            best = int(_timed(nearest, clock).argmax())
        picks[turn] = best
        nearest[best] = -1.0
    approach(nearest, all_points, all_points.at(picks[settled:]))
    return picks


def _surely_first(
    all_points: Points, nearest: Floats, clock: Scores | None, pending: Points
) -> int | None:
    """The first, if a shortlist brought up to date beats what the others had at best."""
    for size in SHORTLISTS:
        if size >= len(nearest):
            return None
        values = _timed(nearest, clock)
        order = np.argpartition(values, -size - 1)
        top, bar = order[-size:], values[order[-size - 1]]
        lowest = nearest[top]
        approach(lowest, all_points.at(top), pending)
        nearest[top] = lowest
        fresh = _timed(lowest, None if clock is None else clock[top])
        best = int(fresh.argmax())
        if fresh[best] >= bar:
            return int(top[best])
    return None


def _timed(nearest: Floats, clock: Scores | None) -> Floats | Scores:
    return nearest if clock is None else nearest / clock


def exponential_clocks(rng: np.random.Generator, size: int) -> Callable[[], Scores]:
    """Standard exponential numbers `(size,)`, new ones at each call; never 0."""
    return lambda: np.maximum(rng.standard_exponential(size), 1e-200)


def centred(features: Array, order: Rows, *others: Array | None) -> Iterator[Floats]:
    """Rows of `features` in this order, then all of each of `others`, about the pool's median.

    Float32 would round differences off far from zero. The median of an odd number of rows is a
    value of the data: whole numbers stay whole, and their distances exact.
    """
    count = min(SAMPLE, len(order))
    sample = features[order[: count - 1 + count % 2]].astype(np.float64)
    centre = np.median(sample, axis=0)
    found = np.empty((len(order), features.shape[1]), np.float32)
    for rows in blocks(len(order), BLOCK):
        found[rows] = features[order[rows]] - centre
    yield found
    for other in others:
        if other is None:
            yield np.zeros((0, features.shape[1]), np.float32)
        else:
            yield (other - centre).astype(np.float32)


def blocks(size: int, step: int) -> Iterator[slice]:
    """Slices that cover 0 … size - 1."""
    return (slice(start, min(start + step, size)) for start in range(0, size, step))
