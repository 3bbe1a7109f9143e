"""ProbCover: the radius and the greedy cover against references over all pairs."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.strategies import PoolView, cover, reason, spread
from tests.ssl_core.strategies import strategies_reference as naive
from tests.ssl_core.strategies.strategies_views import FINDINGS, planted, rng, scores_of


def order_of(view, n, seed=0):
    return np.argsort(-scores_of("prob_cover", view, n, seed)).tolist()


def pool_of(features):
    return spread.points(features.astype(np.float32))


def grid(size, seed=0):
    """Whole numbers, whose distances single precision holds exactly."""
    return rng(seed).integers(-20, 20, size=(size, 3)).astype(float)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [19, 60, 100])
def test_the_radius_keeps_nineteen_in_twenty_balls_pure(seed, size, monkeypatch):
    monkeypatch.setattr(cover, "BLOCK", 13)
    features, classes = grid(size, seed), rng(seed).integers(3, size=size)
    reach, share = cover.purity_radius(pool_of(features), classes)
    assert reach == naive.purity_radius(features, classes, cover.PURITY)
    pairs = [naive.squared(a, b) < reach for a in features for b in features]
    assert share == pytest.approx(np.mean(pairs))


def test_one_class_has_no_border():
    reach, share = cover.purity_radius(pool_of(grid(9)), np.zeros(9, np.int64))
    assert reach == np.inf
    assert share == 1.0


@pytest.mark.parametrize("block", [7, 4096])
def test_neighbours_are_the_pairs_within_reach(block, monkeypatch):
    monkeypatch.setattr(cover, "BLOCK", block)
    features = grid(40)
    graph = cover.neighbours(pool_of(features), 150.0).toarray()
    expected = [[naive.squared(a, b) < 150.0 for b in features] for a in features]
    np.testing.assert_array_equal(graph, np.array(expected) & ~np.eye(40, dtype=bool))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("labeled_count", [0, 6])
def test_every_pick_covers_as_many_new_items_as_any_could(seed, labeled_count):
    """Ties may fall either way, so each pick is held against all others at its turn."""
    features, labeled = grid(70, seed), grid(labeled_count, seed + 9)
    view = PoolView(size=70, features=features, labeled_features=labeled)
    order = order_of(view, 25, seed)
    assert sorted(order) == list(range(70))
    shuffle = rng(seed)
    places = shuffle.permutation(70)
    points = next(spread.centred(features, places))
    classes = cover.k_means(points, cover.PSEUDO_CLASSES, shuffle, cover.STARTS)
    reach = naive.purity_radius(points, classes, cover.PURITY)
    uncovered = [all(naive.squared(x, y) >= reach for y in labeled) for x in features]
    for pick in order[:25]:
        gains = naive.gains(features, reach, uncovered)
        assert gains[pick] == max(gains)
        for i, x in enumerate(features):
            uncovered[i] &= naive.squared(x, features[pick]) >= reach


def test_the_densest_cluster_comes_first_and_labeled_ones_do_not_come():
    """Ten clusters far apart, as many as pseudo-classes: each is a ball of its own."""
    sizes = [6, 60, 9, 45, 30, 5, 8, 7, 10, 18]
    features, truth = planted(sizes, width=12)
    view = PoolView(size=len(features), features=features)
    assert truth[order_of(view, 4)[:4]].tolist() == [1, 3, 4, 9]
    labeled = PoolView(
        size=len(features), features=features, labeled_features=features[truth == 1][:1]
    )
    assert truth[order_of(labeled, 3)[:3]].tolist() == [3, 4, 9]


def test_classes_of_a_trained_task_are_the_pseudo_classes():
    """Three pseudo-classes for three findings: their balls are their planted clusters."""
    features, truth = planted([20, 10, 30])
    p = np.eye(3)[truth]
    view = PoolView(size=60, exclusive=True, probabilities=p, features=features)
    assert truth[order_of(view, 3)[:3]].tolist() == [2, 0, 1]


def test_a_large_pool_is_covered_by_a_part_of_it(monkeypatch):
    monkeypatch.setattr(cover, "ITEMS", 30)
    features = rng(0).normal(size=(80, 3))
    order = order_of(PoolView(size=80, features=features), 10)
    assert sorted(order) == list(range(80))
    part = rng(0).permutation(80)
    assert set(order[:30]) == set(part[:30].tolist())
    assert order[30:] == part[30:].tolist()


def test_a_dense_pool_is_covered_by_fewer(monkeypatch):
    """One ball holds all 50: 5 of them have the 25 pairs that may be."""
    monkeypatch.setattr(cover, "EDGES", 25)
    order = order_of(PoolView(size=50, features=np.ones((50, 2))), 3)
    assert order[5:] == rng(0).permutation(50)[5:].tolist()


def test_its_reason_names_the_place():
    assert reason("prob_cover", PoolView(size=9), 0, 8.0, FINDINGS) == (
        "place 2 of 9 in an order that asks first the images with the most others near them that "
        "no labeled or asked one is near to"
    )
