"""Near-duplicates of what is labeled or asked are asked last."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ssl_core.strategies.spread import BLOCK, blocks
from ssl_core.strategies.view import Array, Floats, PoolView, Rows, Scores, need_features, unit_rows

DUPLICATE = 0.995  # cosine above which two images are one, if nothing else is said
AT_A_TIME = 1_024  # items of the order that are compared in one matrix product


def suppress_duplicates(
    order: Rows,
    features: Array,
    labeled_features: Array | None,
    threshold: float,
    n: int | None = None,
) -> Rows:
    """The order with every near-duplicate behind all others, else unchanged.

    order: positions `(N,)`, first to ask first. features: `(N, D)`. labeled_features: `(L, D)` or
    None. An item is a near-duplicate when its cosine to a labeled item, or to one before it that
    is not a near-duplicate itself, is above `threshold`, in [-1, 1]. Rows of zeros have no
    direction and are none. With n given, items are compared until n are found that are no
    near-duplicates; those further back stay as they are, before the near-duplicates.

    Time grows with N · D · (N + L), or N · D · (n + L) in the worst case and n · D · (n + L) in
    the usual one; memory with D · (n + L) on top of the inputs.

    Raises ValueError for a threshold outside [-1, 1].
    """
    if not -1.0 <= threshold <= 1.0:
        raise ValueError(f"threshold is {threshold}: give a cosine in [-1, 1]")
    return np.concatenate(_parted(order, features, labeled_features, threshold, n))


def demote_duplicates(
    scores: Scores, view: PoolView, threshold: float, n: int, rng: np.random.Generator
) -> Scores:
    """The scores `(N,)` of any strategy, with near-duplicates moved below all others.

    By `suppress_duplicates` on the order of the scores, equal ones in random order. Items that
    stay keep their scores; the others lose more than the range of all scores, and so keep their
    order.

    Raises:
        SelectionError: the view has no features.
    """
    features = need_features(view, "without near-duplicates")
    found = scores.copy()
    if view.size:
        order = np.lexsort((rng.random(view.size), -scores))
        behind = _parted(order, features, view.labeled_features, threshold, n)[1]
        found[behind] -= scores.max() - scores.min() + 1.0
    return found


def _parted(
    order: Rows, features: Array, labeled_features: Array | None, threshold: float, n: int | None
) -> tuple[Rows, Rows]:
    """The order without near-duplicates, and these."""
    wanted = len(order) if n is None else n
    width = features.shape[1]
    known = unit_rows(np.zeros((0, width)) if labeled_features is None else labeled_features)
    kept: Rows = np.zeros(0, np.int64)
    behind: Rows = np.zeros(0, np.int64)
    kept_rows, seen = [known], 0
    for part in blocks(len(order), AT_A_TIME):
        if len(kept) >= wanted:
            break
        some, seen = order[part], part.stop
        rows = unit_rows(features[some])
        single = _singles(rows, kept_rows, threshold)
        kept, behind = np.append(kept, some[single]), np.append(behind, some[~single])
        kept_rows.append(rows[single])
    return np.concatenate([kept, order[seen:]]), behind


def _singles(rows: Floats, kept: list[Floats], threshold: float) -> npt.NDArray[np.bool_]:
    """Which of the rows `(B, D)` are like none that is kept, and like no single one before."""
    single = np.ones(len(rows), dtype=bool)
    for other in kept:
        for part in blocks(len(other), BLOCK):
            single &= ~(rows @ other[part].T > threshold).any(axis=1)
    alike = rows @ rows.T > threshold
    for i in np.flatnonzero(single).tolist():
        single[i] = not (alike[i, :i] & single[:i]).any()
    return single
