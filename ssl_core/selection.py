"""Drawing a batch from scores: a random slice of known probability, the rest by the strategy."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom

from ssl_core.records import SelectionKind

RANDOM_REASON = "drawn at random from the whole pool, as control"


@dataclass(frozen=True, slots=True)
class Drawn:
    """One item of a drawn batch, by its `position` in the pool; the rest as in `Selection`."""

    position: int
    rank: int
    kind: SelectionKind
    score: float
    probability: float
    slice_probability: float
    reason: str


def draw(
    scores: npt.ArrayLike,
    groups: Sequence[str],
    n: int,
    *,
    random_share: float = 0.15,
    group_cap: int | None = None,
    rng: np.random.Generator,
    strategy_name: str,
    reasons: Callable[[int], str],
) -> list[Drawn]:
    """Draw min(n, N) items of the pool, in the order of asking (rank 0 first).

    `scores` `(N,)`, finite, higher = ask first; `groups` names the N items' patients;
    `reasons(position)` gives the sentence for an item that the strategy chose. The pool holds no
    labeled item: that is the caller's duty.

    1. The walk: items by descending score, equal scores in random order, no more than `group_cap`
       of one group; items beyond the cap come after all others (a second helping of `group_cap`
       each, then a third), so that a pool of few groups still fills the batch.
    2. The random slice: `slice_size` items, uniformly without replacement from the whole pool.
       It ignores the cap, which would bias the control.
    3. The strategy fills up the batch: the first of the walk that are not in the slice.
    4. The slice's items stand at random places among the others, which keep the walk's order:
       the order of asking does not tell control from query.

    `slice_probability` is m/N for every item. `probability` is exact for the slice's draw, given
    the walk: see `inclusion_probability`. Strategy "random" is all slice: both are n/N.

    Raises ValueError for scores that are not finite, lengths that differ, a negative n, a cap
    below 1, or a share outside [0, 1].
    """
    values = np.asarray(scores, dtype=np.float64)
    _check(values, groups, n, random_share, group_cap)
    total = len(values)
    n = min(n, total)
    if n == 0:
        return []
    m = n if strategy_name == "random" else slice_size(n, random_share)
    walk = _walk(values, groups, group_cap, rng)
    probability = inclusion_probability(np.arange(1, total + 1), total, n, m)
    place = np.empty(total, dtype=np.int64)  # of each position in the walk, from 0
    place[walk] = np.arange(total)

    in_slice = np.zeros(total, dtype=bool)
    in_slice[rng.choice(total, size=m, replace=False, shuffle=False)] = True
    batch = np.empty(n, dtype=np.int64)
    control_ranks = np.zeros(n, dtype=bool)
    control_ranks[rng.choice(n, size=m, replace=False, shuffle=False)] = True
    batch[control_ranks] = rng.permutation(np.flatnonzero(in_slice))
    batch[~control_ranks] = walk[~in_slice[walk]][: n - m]
    return [
        Drawn(
            position=position,
            rank=rank,
            kind="random" if control else "strategy",
            score=math.nan if control else float(values[position]),
            probability=float(probability[place[position]]),
            slice_probability=m / total,
            reason=RANDOM_REASON if control else reasons(position),
        )
        for rank, (position, control) in enumerate(
            zip(batch.tolist(), control_ranks.tolist(), strict=True)
        )
    ]


def slice_size(n: int, random_share: float) -> int:
    """Items of the random slice in a batch of n: `random_share` of it, halves up.

    At least 1 when the share is above 0 and n is at least 1: without a random item, the items
    that the strategy cannot reach would have probability 0, and no weighting could mend that.
    """
    if n == 0 or random_share == 0.0:
        return 0
    # 0.145 * 100 is 14.499999999999998; nine digits bring the half back.
    return max(1, math.floor(round(random_share * n, 9) + 0.5))


def inclusion_probability(
    place: npt.ArrayLike, total: int, n: int, m: int
) -> npt.NDArray[np.float64]:
    """Chance that the item at `place` (from 1) of the walk enters a batch of n with a slice of m.

    It is in the slice with m/N. If not, the strategy takes it when fewer than n - m of the k - 1
    items before it are left over by the slice, that is when at least k - n + m of them are in it:
    P = m/N + (1 - m/N) · P[X >= k - n + m], X hypergeometric: k - 1 draws from N - 1 with m.
    """
    k = np.asarray(place, dtype=np.int64)
    if m == total:
        return np.ones(k.shape)
    by_strategy = np.zeros(k.shape)
    by_strategy[k <= n - m] = 1.0
    open_to_chance = (k > n - m) & (k <= n)  # beyond n, even a slice all before it is too small
    at = k[open_to_chance]
    by_strategy[open_to_chance] = hypergeom.sf(at - n + m - 1, total - 1, m, at - 1)
    return np.minimum(m / total + (1.0 - m / total) * by_strategy, 1.0)


def inclusion_weighted_mean(values: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean of the pool, estimated from a batch drawn from it: Hájek's Σ(v/π) / Σ(1/π).

    `values` `(n,)` of the batch's items (strategy and random alike), NaN where unknown: left out,
    as is its weight. `probabilities` `(n,)` in (0, 1] are their `Drawn.probability`. NaN when no
    value is known. Source: Hájek 1971, in Särndal, Swensson and Wretman 1992, section 5.7.
    """
    v = np.asarray(values, dtype=np.float64)
    p = np.asarray(probabilities, dtype=np.float64)
    if v.shape != p.shape or v.ndim != 1:
        raise ValueError(f"values {v.shape} and probabilities {p.shape} must be one row each")
    if not ((p > 0.0) & (p <= 1.0)).all():
        raise ValueError("probabilities must lie in (0, 1]")
    known = ~np.isnan(v)
    if not known.any():
        return math.nan
    return float(np.average(v[known], weights=1.0 / p[known]))


def _walk(
    scores: npt.NDArray[np.float64],
    groups: Sequence[str],
    group_cap: int | None,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    order: npt.NDArray[np.int64] = np.lexsort((rng.random(len(scores)), -scores))
    if group_cap is None:
        return order
    seen: Counter[str] = Counter()
    helping = np.empty(len(order), dtype=np.int64)
    for place, position in enumerate(order):
        group = groups[position]
        helping[place] = seen[group] // group_cap
        seen[group] += 1
    walk: npt.NDArray[np.int64] = order[np.argsort(helping, kind="stable")]
    return walk


def _check(
    scores: npt.NDArray[np.float64],
    groups: Sequence[str],
    n: int,
    random_share: float,
    group_cap: int | None,
) -> None:
    if scores.ndim != 1 or len(scores) != len(groups):
        raise ValueError(f"scores {scores.shape} and {len(groups)} groups must be one row each")
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinite values")
    if n < 0:
        raise ValueError(f"n is {n}: ask for 0 items or more")
    if not 0.0 <= random_share <= 1.0:
        raise ValueError(f"random_share is {random_share}: give a share in [0, 1]")
    if group_cap is not None and group_cap < 1:
        raise ValueError(f"group_cap is {group_cap}: give at least 1, or None for no cap")
