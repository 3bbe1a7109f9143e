"""A first batch without a model: typical items of as many regions of feature space as asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssl_core.strategies.view import (
    Array,
    Floats,
    PoolView,
    Rows,
    Scores,
    in_order,
    need_features,
    place,
)

MAX_CLUSTERS = 500  # as in TypiClust: more cost more time and hold too few items to be typical of
FIT = 20_000  # points that k-means looks at: more move the centres little, and cost minutes
NEIGHBOURS = 20  # TypiClust's K


def cold_start(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """Typical items of as many regions of feature space as asked: a first batch without a model.

    TypiClust (Hacohen, Dekel and Weinshall, ICML 2022): k-means into n + L clusters
    (at most `MAX_CLUSTERS`); then, again and again, from the cluster with the fewest items labeled
    or asked, the largest first, the item with the highest typicality: 1 / the mean distance to its
    20 nearest neighbours within the cluster. Small clusters, where odd images gather, thus
    come last in each turn. Ties are broken by `rng`. Scores are N, N-1, ..., 1 in that order.

    In a larger pool, centres come from a random `FIT` items. Time grows with
    N · D · (clusters + items a cluster).
    """
    features = need_features(view, "cold_start")
    if view.size == 0:
        return np.zeros(0)
    points = _centred(features, view.labeled_features)
    clusters = k_means(points, n + view.labeled, rng)
    pool = clusters[: view.size]
    distance = _mean_neighbour_distance(points[: view.size], pool)
    return _in_turns(pool, clusters[view.size :], distance, rng)


def kmeans_start(view: PoolView, n: int, rng: np.random.Generator) -> Scores:
    """The items nearest to the centres of n + L clusters of k-means, the largest cluster first.

    At most `MAX_CLUSTERS`. Clusters with labeled items wait, and a cluster is asked again (its
    next nearest item) when all others have been asked as often: the turns of `cold_start`. Ties
    are broken by `rng`. Scores are N, N-1, ..., 1 in that order. In a larger pool, the clusters
    come from a random `FIT` items. Time grows with N · D · clusters.

    Source: the clustering step of Zhdanov, Diverse mini-batch Active Learning, 2019, over all of
    the pool and without weights, since there is no model yet to give any.
    """
    features = need_features(view, "kmeans_start")
    if view.size == 0:
        return np.zeros(0)
    points = _centred(features, view.labeled_features)
    clusters = k_means(points, n + view.labeled, rng)
    distance = _centre_distance(points, clusters)[: view.size]
    return _in_turns(clusters[: view.size], clusters[view.size :], distance, rng)


def cold_start_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Its place in the order, and what that order is."""
    return (
        f"place {place(view, score)} of {view.size} in an order that asks typical images "
        "of each cluster first, of clusters without labeled images before others"
    )


def kmeans_start_reason(view: PoolView, i: int, score: float, findings: Sequence[str]) -> str:
    """Its place in the order, and what that order is."""
    return (
        f"place {place(view, score)} of {view.size} in an order that asks the images nearest to "
        "the centre of each cluster first, of clusters without labeled images before others"
    )


def k_means(points: Floats, wanted: int, rng: np.random.Generator, starts: int = 1) -> Rows:
    """Cluster number of each point, below `MAX_CLUSTERS`; k-means cannot part equal points.

    The best of some `starts`. More than `FIT` points go to the nearest centre of that many,
    drawn at random.
    """
    from sklearn.cluster import KMeans  # slow to import, and few strategies need it

    some = points if len(points) <= FIT else points[rng.choice(len(points), FIT, replace=False)]
    distinct = len({row.tobytes() for row in some + np.float32(0)})  # + 0 turns -0.0 into 0.0
    k = min(max(wanted, 1), MAX_CLUSTERS, distinct)
    seed = int(rng.integers(2**31))
    found = KMeans(k, n_init=starts, max_iter=50, random_state=seed).fit(some)
    labels = found.labels_ if some is points else found.predict(points)
    return np.asarray(labels, dtype=np.int64)


def _in_turns(
    pool: Rows, labeled: Rows, distance: npt.NDArray[np.floating], rng: np.random.Generator
) -> Scores:
    """Scores by the turns that clusters take, within each by least `distance`.

    pool, labeled: cluster numbers `(N,)` and `(L,)`. distance: `(N,)`.
    """
    held = np.bincount(pool, minlength=MAX_CLUSTERS)
    covered = np.bincount(labeled, minlength=MAX_CLUSTERS)
    by_cluster = np.lexsort((rng.random(len(pool)), distance, pool))
    turn = np.empty(len(pool), dtype=np.int64)
    turn[by_cluster] = np.arange(len(pool)) - (np.cumsum(held) - held)[pool[by_cluster]]
    return in_order(np.lexsort((pool, -held[pool], covered[pool] + turn)))


def _centred(features: Array, labeled: Array | None) -> Floats:
    """Pool, then labeled rows, less the pool's mean before float32 rounds differences off."""
    mean = features.mean(axis=0, dtype=np.float64)
    parts = [features] if labeled is None else [features, labeled]
    return np.concatenate([(part - mean).astype(np.float32) for part in parts])


def _centre_distance(points: Floats, clusters: Rows) -> Scores:
    """`(N + L,)` squared distance of each point from the mean of its cluster."""
    found = np.zeros(len(points))
    for cluster in np.unique(clusters):
        members = np.flatnonzero(clusters == cluster)
        some = points[members].astype(np.float64)
        found[members] = ((some - some.mean(axis=0)) ** 2).sum(axis=1)
    return found


def _mean_neighbour_distance(points: Floats, clusters: Rows) -> Scores:
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
