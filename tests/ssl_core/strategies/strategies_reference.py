"""Query strategies written out naively in double precision, one item at a time."""

from __future__ import annotations

import math

import numpy as np


def entropy(p, exclusive):
    def part(x):
        return -x * math.log(x) if x > 0 else 0.0

    if exclusive:
        return sum(part(x) for x in p) / math.log(len(p))
    return sum((part(x) + part(1 - x)) / math.log(2) for x in p) / len(p)


def margin(p, exclusive):
    if exclusive:
        first, second = sorted(p, reverse=True)[:2]
        return 1 - (first - second)
    return sum(1 - abs(x - (1 - x)) for x in p) / len(p)


def least_confidence(p, exclusive):
    if exclusive:
        return (1 - max(p)) * len(p) / (len(p) - 1)
    return sum(2 * (1 - max(x, 1 - x)) for x in p) / len(p)


def variance(views):
    """Of one item's `(V, C)`."""
    total = 0.0
    for column in views.T:
        mean = sum(column) / len(column)
        total += sum((x - mean) ** 2 for x in column) / len(column)
    return total / views.shape[1]


def bald(views, exclusive):
    """Of one item's `(V, C)`: mutual information of answer and view, from the joint table."""
    if exclusive:
        joint = np.asarray(views) / len(views)
        return information(joint) / math.log(views.shape[1])
    found = []
    for column in np.asarray(views).T:
        found.append(information(np.stack([column, 1 - column], axis=1) / len(column)))
    return sum(found) / len(found) / math.log(2)


def information(joint):
    """Σ p(v, c) ln [p(v, c) / (p(v) p(c))]."""
    view, answer = joint.sum(axis=1), joint.sum(axis=0)
    return sum(
        joint[v, c] * math.log(joint[v, c] / (view[v] * answer[c]))
        for v in range(joint.shape[0])
        for c in range(joint.shape[1])
        if joint[v, c] > 0
    )


def disagreement(p, t, exclusive):
    total = sum(abs(a - b) for a, b in zip(p, t, strict=True))
    return total / 2 if exclusive else total / len(p)


def squared(a, b):
    return float(((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2).sum())


def typiclust(features, clusters, covered, neighbours):
    """Algorithm of the paper, one pick at a time: the mean distances and the order.

    The two items of a cluster of two are equally typical: compare distances, not items.
    """
    typical = {}
    for i, own in enumerate(clusters):
        others = [j for j in range(len(clusters)) if clusters[j] == own and j != i]
        distances = sorted(math.sqrt(squared(features[i], features[j])) for j in others)
        near = distances[:neighbours]
        typical[i] = sum(near) / len(near) if near else 0.0
    return typical, by_turns(clusters, covered, typical)


def centre_distances(features, clusters, everything, all_clusters):
    """Squared distance of each pool item from the mean of its cluster, labeled items counted."""
    centres = {c: everything[all_clusters == c].mean(axis=0) for c in set(clusters.tolist())}
    return {i: squared(features[i], centres[int(c)]) for i, c in enumerate(clusters)}


def by_turns(clusters, covered, key):
    """The least covered cluster, then the largest: its item with the smallest key."""
    covered = dict(covered)
    sizes = {c: int((clusters == c).sum()) for c in set(clusters.tolist())}
    order = []
    while len(order) < len(clusters):
        left = [i for i in range(len(clusters)) if i not in order]
        live = {int(clusters[i]) for i in left}
        pick = min(live, key=lambda c: (covered.get(c, 0), -sizes[c], c))
        item = min((i for i in left if clusters[i] == pick), key=key.__getitem__)
        covered[pick] = covered.get(pick, 0) + 1
        order.append(item)
    return order


def k_center(features, labeled, n):
    """Greedy k-center: the picks, and each one's squared distance from all before it."""
    known = [np.float64(row) for row in labeled]
    picks, gaps = [], []
    if not known:
        mean = np.float64(features).mean(axis=0)
        picks = [min(range(len(features)), key=lambda i: squared(features[i], mean))]
        gaps = [math.inf]
    while len(picks) < min(n, len(features)):
        centres = known + [features[i] for i in picks]
        left = [i for i in range(len(features)) if i not in picks]
        gap = {i: min(squared(features[i], c) for c in centres) for i in left}
        best = max(left, key=gap.__getitem__)
        picks.append(best)
        gaps.append(gap[best])
    return picks, gaps


def gradients(p, features, exclusive):
    """`(N, C·D)`: the gradient of each item, built in full."""
    likeliest = np.eye(p.shape[1])[p.argmax(axis=1)]
    error = np.float64(p) - (likeliest if exclusive else p >= 0.5)
    return np.einsum("nc,nd->ncd", error, np.float64(features)).reshape(len(p), -1)


def badge(p, features, exclusive, n, rng):
    """k-means++ on full gradients, by the same draws: a shuffle, then exponential clocks."""
    shuffle = rng.permutation(len(p))
    points = gradients(p, features, exclusive)[shuffle]
    picks = [int((points**2).sum(axis=1).argmax())]
    while len(picks) < min(n, len(p)):
        gap = ((points[:, None] - points[picks]) ** 2).sum(axis=2).min(axis=1)
        clock = rng.standard_exponential(len(p))
        value = gap / clock
        value[picks] = -1.0
        picks.append(int(value.argmax()))
    return shuffle[picks].tolist()


def purity_radius(features, classes, purity):
    """The largest distance, of those at which a ball can turn impure, that keeps enough pure."""
    ring = [
        min(
            (squared(a, b) for b, k in zip(features, classes, strict=True) if k != own),
            default=math.inf,
        )
        for a, own in zip(features, classes, strict=True)
    ]
    return max(d for d in ring if np.mean([one >= d for one in ring]) >= purity - 1e-12)


def gains(features, reach, uncovered):
    """How many uncovered items each item has closer than the root of `reach`, itself too."""
    return [
        sum(squared(a, b) < reach for b, open_ in zip(features, uncovered, strict=True) if open_)
        for a in features
    ]


def suppress_duplicates(order, features, labeled, threshold):
    def cosine(a, b):
        lengths = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
        return float(a @ b) / lengths if lengths > 0 else 0.0

    kept, behind = [], []
    for i in order:
        others = [*labeled, *(features[j] for j in kept)]
        like = any(cosine(features[i], other) > threshold for other in others)
        (behind if like else kept).append(i)
    return kept + behind
