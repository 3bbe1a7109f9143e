"""Query strategies: what is known of the pool in, one score an item out (higher = ask first).

Every strategy has the signature `(view, n, rng) -> scores`: a `PoolView` of N items, the number
of items that will be taken, and a generator; the scores are `(N,)` float64 and finite. A strategy
that builds an order one item after the other returns that order as descending scores, N for the
first. Nothing is modified, and the same generator state gives the same scores.

A read answers all C findings of an item at once, so the score of an item with independent
findings is the mean over its findings: in proportion to the whole uncertainty that one read
settles, comparable between tasks, and not ruled by one finding that the model never learned
(its probabilities sit at 0.5 everywhere), as a maximum would be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from ssl_core.errors import SelectionError

Array = npt.NDArray[np.floating[Any]]
Scores = npt.NDArray[np.float64]

MAX_CLUSTERS = 500  # as in TypiClust: more cost more time and hold too few items to be typical of
NEIGHBOURS = 20  # TypiClust's K
# Half precision keeps three digits: softmax rows sum to 1 only about.
ROW_SUM_TOLERANCE = 1e-2
# A float32 mean over crops may pass 1 by its last digit.
RANGE_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class PoolView:
    """What a strategy may look at: arrays aligned by row to the `size` unlabeled items (N).

    `exclusive`: exactly one finding holds (softmax rows that sum to 1) rather than C independent
    ones (sigmoids; a binary task has C = 1). `probabilities` `(N, C)` in [0, 1], None before the
    first model. `views` `(V, N, C)`: the same under V >= 2 augmented views. `features` `(N, D)`,
    compared by Euclidean distance: scale the rows to unit length where cosine is meant.
    `labeled_features` `(L, D)` of the items already labeled. Any float type.

    Raises ValueError for shapes that do not fit, NaN or infinite values, probabilities outside
    [0, 1], and rows of an exclusive task that do not sum to 1.
    """

    size: int
    exclusive: bool = False
    probabilities: Array | None = None
    views: Array | None = None
    features: Array | None = None
    labeled_features: Array | None = None

    def __post_init__(self) -> None:
        """Refuse, once and here, what no strategy should meet."""
        columns = None if self.probabilities is None else self.probabilities.shape[-1]
        width = None if self.features is None else self.features.shape[-1]
        _check_shape("probabilities", self.probabilities, (self.size, None))
        _check_shape("views", self.views, (None, self.size, columns))
        _check_shape("features", self.features, (self.size, None))
        _check_shape("labeled_features", self.labeled_features, (None, width))
        _check_probabilities("probabilities", self.probabilities, self.exclusive)
        _check_probabilities("views", self.views, self.exclusive)
        if self.views is not None and len(self.views) < 2:
            raise ValueError(f"views holds {len(self.views)} views: give at least 2 to compare")


Strategy = Callable[[PoolView, int, np.random.Generator], Scores]


def random(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Uniform in [0, 1): every order is equally likely. The control that others must beat."""
    return rng.random(view.size)


def entropy(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Entropy of the prediction as a share of the most there can be: 0 certain, 1 no idea.

    Exclusive: -Σ p ln p / ln C. Independent: mean over findings of -(p ln p + q ln q) / ln 2
    with q = 1 - p. Source: Shannon 1948; Settles, Active Learning Literature Survey 2009, sec. 3.1.
    """
    p = _need_probabilities(view)
    if view.exclusive:
        return _float64(entr(p).sum(axis=1) / np.log(p.shape[1]))
    return _float64(_binary_entropy(p).mean(axis=1))


def margin(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """One less the margin, in [0, 1]: 1 where the two likeliest answers are equally likely.

    Exclusive: margin = largest less second largest probability. Independent: mean over findings
    of |p - (1 - p)|. Source: Scheffer, Decomain and Wrobel 2001; Settles 2009, sec. 3.1.
    """
    p = _need_probabilities(view)
    if view.exclusive:
        top = np.partition(p, -2, axis=1)
        return _float64(1.0 - (top[:, -1] - top[:, -2]))
    return _float64(1.0 - _binary_margin(p).mean(axis=1))


def augmentation(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Disagreement over augmented views: mean over findings of the variance over views, [0, 1/4].

    The consistency metric of Gao et al., Consistency-Based Semi-Supervised Active Learning, ECCV
    2020 (which sums over classes: the same order), on S1's augmented views.
    """
    return _float64(_view_variance(view).mean(axis=1))


def cold_start(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Typical items of as many regions of feature space as asked: a first batch without a model.

    TypiClust (Hacohen, Dekel and Weinshall, ICML 2022): k-means into n + L clusters
    (at most `MAX_CLUSTERS`); then, again and again, from the cluster with the fewest items labeled
    or asked, the largest first, the item with the highest typicality: 1 / the mean distance to its
    20 nearest neighbours within the cluster. Small clusters, where odd images gather, thus
    come last in each turn. Ties are broken by `rng`. Scores are N, N-1, ..., 1 in that order.

    Time grows with N · D · (clusters + items a cluster).
    """
    if view.features is None:
        raise SelectionError(
            "strategy 'cold_start' needs features of the pool and there are none: "
            "compute them with a backbone, or choose 'random'"
        )
    if view.size == 0:
        return np.zeros(0)
    points = _centred(view.features, view.labeled_features)
    clusters = _clusters(points, n + len(points) - view.size, rng)
    pool, labeled = clusters[: view.size], clusters[view.size :]
    distance = _mean_neighbour_distance(points[: view.size], pool)
    held = np.bincount(pool, minlength=MAX_CLUSTERS)
    covered = np.bincount(labeled, minlength=MAX_CLUSTERS)
    by_cluster = np.lexsort((rng.random(view.size), distance, pool))
    turn = np.empty(view.size, dtype=np.int64)
    turn[by_cluster] = np.arange(view.size) - (np.cumsum(held) - held)[pool[by_cluster]]
    order = np.lexsort((pool, -held[pool], covered[pool] + turn))
    scores = np.empty(view.size)
    scores[order] = np.arange(view.size, 0, -1)
    return scores


STRATEGIES: dict[str, Strategy] = {
    "random": random,
    "entropy": entropy,
    "margin": margin,
    "augmentation": augmentation,
    "cold_start": cold_start,
}

NEEDS: dict[str, frozenset[str]] = {
    "random": frozenset(),
    "entropy": frozenset({"probabilities"}),
    "margin": frozenset({"probabilities"}),
    "augmentation": frozenset({"probabilities", "views"}),
    "cold_start": frozenset({"features"}),
}
"""The fields of `PoolView` that each strategy looks at: what the loop has to compute for it."""


def reason(name: str, view: PoolView, position: int, score: float, findings: Sequence[str]) -> str:
    """Why strategy `name` asks for the item at `position`: one plain sentence, true of the view.

    `findings` names the C columns. Numbers are read from the item's row, rounded to two digits
    (only an order, as of cold_start, reads `score`: the one that the strategy gave this item).
    With several independent findings the sentence gives the mean and the finding that weighs most.
    """
    return _REASONS[name](view, position, score, findings)


def _random_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    return "drawn at random from the whole pool"


def _entropy_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    p = _need_probabilities(view)[i]
    if view.exclusive:
        whole, top = entr(p).sum() / np.log(len(p)), int(p.argmax())
        return (
            f"entropy {whole:.2f} over {len(p)} findings (1 = all equally likely), "
            f"likeliest {findings[top]} ({p[top]:.2f})"
        )
    each = _binary_entropy(p)
    top = int(each.argmax())
    one = f"entropy {each[top]:.2f} (1 = no idea) for {findings[top]} ({p[top]:.2f})"
    if len(p) == 1:
        return one
    return f"mean entropy {each.mean():.2f} over {len(p)} findings; highest: {one}"


def _margin_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    p = _need_probabilities(view)[i]
    if view.exclusive:
        second, first = (int(c) for c in np.argsort(p, kind="stable")[-2:])
        return (
            f"margin {p[first] - p[second]:.2f} between {findings[first]} ({p[first]:.2f}) "
            f"and {findings[second]} ({p[second]:.2f})"
        )
    each = _binary_margin(p)
    low = int(each.argmin())
    one = f"margin {each[low]:.2f} between present and absent for {findings[low]} ({p[low]:.2f})"
    if len(p) == 1:
        return one
    return f"mean margin {each.mean():.2f} over {len(p)} findings; smallest: {one}"


def _augmentation_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    top = int(_view_variance(view, slice(i, i + 1))[0].argmax())
    seen = _need_views(view)[:, i, top]
    return (
        f"over {len(seen)} augmented views the probability of {findings[top]} "
        f"went from {seen.min():.2f} to {seen.max():.2f}"
    )


def _cold_start_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    place = view.size - int(score) + 1
    return (
        f"place {place} of {view.size} in an order that asks typical images of each cluster first"
    )


_REASONS: dict[str, Callable[[PoolView, int, float, Sequence[str]], str]] = {
    "random": _random_reason,
    "entropy": _entropy_reason,
    "margin": _margin_reason,
    "augmentation": _augmentation_reason,
    "cold_start": _cold_start_reason,
}


def _need_probabilities(view: PoolView) -> Scores:
    if view.probabilities is None:
        raise SelectionError(
            "this strategy needs a model's probabilities and there is no model yet: "
            "start with 'cold_start' or 'random'"
        )
    return np.clip(_float64(view.probabilities), 0.0, 1.0)


def _need_views(view: PoolView) -> Scores:
    if view.views is None:
        raise SelectionError(
            "strategy 'augmentation' needs predictions under augmented views and there are none: "
            "train a model first, or choose 'cold_start' or 'random'"
        )
    return np.clip(_float64(view.views), 0.0, 1.0)


def _binary_entropy(p: Scores) -> Scores:
    return _float64((entr(p) + entr(1.0 - p)) / np.log(2.0))


def _binary_margin(p: Scores) -> Scores:
    return np.abs(2.0 * p - 1.0)


def _view_variance(view: PoolView, rows: slice = slice(None)) -> Scores:
    """`(N, C)` variance over views, about the first view so that equal views give exactly 0."""
    views = _need_views(view)[:, rows]
    return _float64(np.var(views - views[0], axis=0))


def _centred(features: Array, labeled: Array | None) -> npt.NDArray[np.float32]:
    """Pool, then labeled rows, less the pool's mean before float32 rounds differences off."""
    mean = features.mean(axis=0, dtype=np.float64)
    parts = [features] if labeled is None else [features, labeled]
    return np.concatenate([(part - mean).astype(np.float32) for part in parts])


def _clusters(
    points: npt.NDArray[np.float32], wanted: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Cluster number of each point, below `MAX_CLUSTERS`; k-means cannot part equal points."""
    from sklearn.cluster import KMeans  # slow to import, and only this strategy needs it

    distinct = len({row.tobytes() for row in points + np.float32(0)})  # + 0 turns -0.0 into 0.0
    k = min(max(wanted, 1), MAX_CLUSTERS, distinct)
    seed = int(rng.integers(2**31))
    found = KMeans(k, n_init=1, max_iter=50, random_state=seed).fit_predict(points)
    return np.asarray(found, dtype=np.int64)


def _mean_neighbour_distance(
    points: npt.NDArray[np.float32], clusters: npt.NDArray[np.int64]
) -> Scores:
    """`(N,)` mean distance to the nearest points of the same cluster; 0 where there is no other."""
    from sklearn.neighbors import NearestNeighbors

    mean = np.zeros(len(points))
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        k = min(NEIGHBOURS, len(members) - 1)
        if k > 0:
            search = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(points[members])
            mean[members] = search.kneighbors()[0].mean(axis=1)
    return mean


def _float64(values: Any) -> Scores:
    return np.asarray(values, dtype=np.float64)


def _check_shape(name: str, array: Array | None, expected: tuple[int | None, ...]) -> None:
    if array is None:
        return
    fits = len(array.shape) == len(expected) and all(
        want is None or want == have for want, have in zip(expected, array.shape, strict=True)
    )
    if not fits or array.shape[-1] == 0:
        wanted = ", ".join("any" if want is None else str(want) for want in expected)
        raise ValueError(
            f"{name} has shape {array.shape}, expected ({wanted}) with a last axis > 0"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values")


def _check_probabilities(name: str, array: Array | None, exclusive: bool) -> None:
    if array is None or array.size == 0:
        return
    if array.min() < -RANGE_TOLERANCE or array.max() > 1.0 + RANGE_TOLERANCE:
        raise ValueError(f"{name} holds values outside [0, 1]: give probabilities, not logits")
    if not exclusive:
        return
    if array.shape[-1] < 2:
        raise ValueError(f"{name} has one column: exclusive findings need at least two")
    if np.abs(array.sum(axis=-1, dtype=np.float64) - 1.0).max() > ROW_SUM_TOLERANCE:
        raise ValueError(f"{name} has rows that do not sum to 1: exclusive findings need a softmax")
