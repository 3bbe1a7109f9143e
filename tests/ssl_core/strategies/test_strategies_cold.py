"""Cold starts: typical items and centres of clusters."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.strategies import NEIGHBOURS, PoolView, cold
from tests.ssl_core.strategies import strategies_reference as naive
from tests.ssl_core.strategies.strategies_views import (
    planted,
    rng,
    scores_of,
)


def cold_order(features, n, labeled=None, seed=0):
    view = PoolView(size=len(features), features=features, labeled_features=labeled)
    return np.argsort(-scores_of("cold_start", view, n, seed))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labeled_count", [0, 5])
def test_cold_start_is_the_greedy_algorithm_of_the_paper(seed, labeled_count):
    features = rng(seed).normal(size=(60, 3))
    labeled = rng(seed + 100).normal(size=(labeled_count, 3))
    points = cold._centred(features, labeled)
    found = cold.k_means(points, 6 + labeled_count, rng(seed))
    covered = {int(c): int((found[60:] == c).sum()) for c in found[60:]}
    distance, expected = naive.typiclust(features, found[:60], covered, NEIGHBOURS)
    order = cold_order(features, 6, labeled, seed)
    assert sorted(order.tolist()) == list(range(60))
    np.testing.assert_array_equal(found[order], found[expected])
    np.testing.assert_allclose(
        [distance[i] for i in order], [distance[i] for i in expected], rtol=1e-5
    )


def test_cold_start_scores_count_down_from_n():
    features = rng(0).normal(size=(17, 3))
    scores = scores_of("cold_start", PoolView(size=17, features=features))
    assert sorted(scores.tolist()) == list(range(1, 18))


def test_cold_start_takes_one_of_each_planted_cluster_the_largest_first():
    features, truth = planted([3, 40, 7, 20, 12])
    order = cold_order(features, 5)
    assert truth[order[:5]].tolist() == [1, 3, 4, 2, 0]
    assert truth[order[5:10]].tolist() == [1, 3, 4, 2, 0]


def test_cold_start_starts_where_the_items_are_dense():
    features, truth = planted([60, 30], spread=1.0)
    order = cold_order(features, 2)
    for cluster, first in enumerate(order[:2]):
        members = np.flatnonzero(truth == cluster)
        away = np.linalg.norm(features[members] - features[members].mean(axis=0), axis=1)
        assert np.linalg.norm(features[first] - features[members].mean(axis=0)) < np.median(away)


def test_cold_start_passes_over_clusters_that_are_labeled():
    features, truth = planted([30, 20, 10])
    labeled = features[truth == 0][:2] + 0.01
    # 1 asked and 2 labeled: three clusters, of which the largest is covered.
    assert truth[cold_order(features, 1, labeled)[:2]].tolist() == [1, 2]


def test_no_labeled_items_is_the_same_as_an_empty_table_of_them():
    features, _ = planted([9, 8, 7])
    np.testing.assert_array_equal(
        cold_order(features, 3), cold_order(features, 3, np.zeros((0, 8)))
    )


@pytest.mark.parametrize("seed", range(3))
def test_cold_start_is_equivariant_on_planted_clusters(seed):
    features, _ = planted([30, 20, 10, 6], seed=seed)
    shuffle = rng(seed).permutation(len(features))
    straight = cold_order(features, 4)
    np.testing.assert_array_equal(straight, shuffle[cold_order(features[shuffle], 4, seed=7)])


def test_cold_start_does_not_depend_on_where_zero_is():
    features, _ = planted([30, 20, 10])
    np.testing.assert_array_equal(cold_order(features, 3), cold_order(features + 4096.0, 3))


@pytest.mark.parametrize("copies", [2, 10])
@pytest.mark.parametrize("n", [1, 3, 8, 200])
def test_cold_start_with_fewer_distinct_points_than_asked(copies, n):
    distinct = rng(4).normal(size=(6, 3))
    features = np.tile(distinct, (copies, 1))
    order = cold_order(features, n)
    assert sorted(order.tolist()) == list(range(6 * copies))
    if n >= 6:
        assert len({int(i) % 6 for i in order[:6]}) == 6


def test_negative_zero_is_no_other_point():
    """A dead feature holds both zeros; k-means would warn of three clusters for two points."""
    assert 2 in cold_order(np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 5.0]]), 3)[:2]


def test_equal_items_are_asked_in_random_order():
    firsts = {int(cold_order(np.ones((5, 2)), 1, seed=seed)[0]) for seed in range(60)}
    assert firsts == set(range(5))


def test_cold_start_caps_its_clusters(monkeypatch):
    monkeypatch.setattr(cold, "MAX_CLUSTERS", 3)
    features, truth = planted([12, 9, 6])
    assert truth[cold_order(features, 20)[:6]].tolist() == [0, 1, 2, 0, 1, 2]


def test_cold_start_covers_planted_clusters_better_than_random():
    """Ten clusters of unequal size, ten items asked, noise of one tenth of the distance."""
    sizes = [60, 40, 30, 20, 15, 12, 10, 8, 6, 5]
    typical, chance = [], []
    for seed in range(8):
        features, truth = planted(sizes, width=16, spread=0.7, seed=seed)
        typical.append(len(set(truth[cold_order(features, 10, seed=seed)[:10]])))
        chance.append(len(set(truth[rng(seed).permutation(len(truth))[:10]])))
    assert min(typical) > max(chance)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labeled_count", [0, 5])
def test_kmeans_start_takes_the_items_nearest_to_the_centres_in_turns(seed, labeled_count):
    features = rng(seed).normal(size=(60, 3))
    labeled = rng(seed + 100).normal(size=(labeled_count, 3))
    found = cold.k_means(cold._centred(features, labeled), 6 + labeled_count, rng(seed))
    covered = {int(c): int((found[60:] == c).sum()) for c in found[60:]}
    everything = np.concatenate([features, labeled])
    distance = naive.centre_distances(features, found[:60], everything, found)
    view = PoolView(size=60, features=features, labeled_features=labeled)
    order = np.argsort(-scores_of("kmeans_start", view, 6, seed))
    expected = naive.by_turns(found[:60], covered, distance)
    np.testing.assert_array_equal(found[order], found[expected])
    np.testing.assert_allclose(
        [distance[i] for i in order], [distance[i] for i in expected], rtol=1e-4
    )


def test_kmeans_start_takes_the_middle_of_each_planted_cluster_the_largest_first():
    features, truth = planted([3, 40, 7, 20, 12])
    view = PoolView(size=len(features), features=features)
    order = np.argsort(-scores_of("kmeans_start", view, 5))
    assert truth[order[:5]].tolist() == [1, 3, 4, 2, 0]
    for first in order[:5]:
        members = features[truth == truth[first]]
        away = np.linalg.norm(members - members.mean(axis=0), axis=1)
        own = np.linalg.norm(features[first] - members.mean(axis=0))
        assert own == pytest.approx(away.min())


@pytest.mark.parametrize("name", ["cold_start", "kmeans_start"])
def test_a_large_pool_is_clustered_by_a_part_of_it(name, monkeypatch):
    monkeypatch.setattr(cold, "FIT", 40)
    features, truth = planted([30, 200, 70, 100])
    view = PoolView(size=400, features=features)
    assert truth[np.argsort(-scores_of(name, view, 4))[:4]].tolist() == [1, 3, 2, 0]
    found = cold.k_means(cold._centred(features, None), 4, rng(0))
    assert len(set(zip(found.tolist(), truth.tolist(), strict=True))) == 4
