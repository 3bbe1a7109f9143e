"""How far the edges of two masks lie apart, in pixels of the working size.

An edge is the pixels of a mask that touch, on one of four sides, a pixel outside it or the border
of the picture. Every edge pixel has its distance to the other mask's nearest edge pixel
(Euclidean, between centres). Symmetric: both masks' edges are measured.

Empty masks are defined. Both empty: 0. One of the two empty: the diagonal √(H² + W²) of the
picture, more than any two pixels of it lie apart, so a finding that was missed is never better
than one that was misplaced, and the mean over items stays finite and comparable between models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, distance_transform_edt

from ssl_core.evidence import Estimate, Floats, PerFinding
from ssl_core.masks.overlap import Bools, average, checked


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """Distances of N items and C findings, `(N, C)` pixels, 0 to `diagonal`, NaN where unknown.

    `mean`: over all edge pixels of both masks (average symmetric surface distance). `worst`: the
    larger of the two directions' 95th percentiles (HD95, Taha and Hanbury 2015).
    """

    mean: Floats
    worst: Floats
    diagonal: float


def surface_distances(
    predicted: npt.ArrayLike, truth: npt.ArrayLike, known: npt.ArrayLike | None = None
) -> Surface:
    """Distances between the edges of two masks `(N, C, H, W)`; arguments as in `overlap`."""
    a, b, seen = checked(predicted, truth, known)
    diagonal = math.hypot(*a.shape[2:])
    found = np.full((2, *seen.shape), np.nan)
    for n, c in zip(*np.nonzero(seen), strict=True):
        found[:, n, c] = _apart(a[n, c], b[n, c], diagonal)
    return Surface(found[0], found[1], diagonal)


def share_of_diagonal(
    distances: Floats, diagonal: float, groups: npt.ArrayLike | None = None
) -> PerFinding:
    """The mean over items of distances `(N, C)` as a share of the diagonal, so within [0, 1].

    Shares and not pixels, because intervals and differences in `evidence` are of numbers within
    [0, 1]; `in_pixels` puts what is shown back. Lower is better.
    """
    return average(np.minimum(distances / diagonal, 1.0), groups)


def in_pixels(share: Estimate, diagonal: float) -> Estimate:
    """A share of the diagonal as pixels."""
    value, low, high = (end * diagonal for end in (share.value, share.low, share.high))
    return Estimate(value, low, high, share.n)


def _apart(a: Bools, b: Bools, diagonal: float) -> tuple[float, float]:
    """Mean and 95th percentile of one pair of masks `(H, W)`."""
    if not (a.any() and b.any()):
        return (diagonal, diagonal) if a.any() or b.any() else (0.0, 0.0)
    rows, columns = np.nonzero(a | b)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]  # no edge outside
    ours, theirs = _edge(a)[box], _edge(b)[box]
    there = distance_transform_edt(~theirs)[ours]
    back = distance_transform_edt(~ours)[theirs]
    mean = (there.sum() + back.sum()) / (there.size + back.size)
    return float(mean), float(max(np.percentile(there, 95), np.percentile(back, 95)))


def _edge(mask: Bools) -> Bools:
    return np.asarray(mask & ~binary_erosion(mask))
