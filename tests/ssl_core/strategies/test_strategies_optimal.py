"""Transductive experimental design, against posterior covariances inverted at every pick."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.strategies import PoolView, optimal, reason
from tests.ssl_core.strategies.strategies_views import FINDINGS, full_view, planted, rng, scores_of


def order_of(view, n, seed=0):
    return np.argsort(-scores_of("design", view, n, seed)).tolist()


def left_open(pool, known, weights):
    """Σ wᵢ xᵢᵀ (prior + Σ known)⁻¹ xᵢ / Σ wᵢ."""
    cover = np.linalg.inv(optimal.PRIOR * np.eye(pool.shape[1]) + known.T @ known)
    return sum(w * x @ cover @ x for w, x in zip(weights, pool, strict=True)) / sum(weights)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("labeled_count", [0, 6])
def test_every_pick_leaves_least_open(seed, labeled_count):
    features, weights = rng(seed).normal(size=(40, 5)) + 100.0, rng(seed + 9).random(40)
    labeled = rng(seed + 1).normal(size=(labeled_count, 5)) + 100.0
    view = PoolView(size=40, features=features, labeled_features=labeled)
    scores = optimal.design_order(view, weights, 8, rng(seed), "design")
    order = np.argsort(-scores).tolist()
    assert sorted(order) == list(range(40))
    (pool, known), free = optimal.components(features, labeled), set(range(40))
    for pick in order[:8]:
        after = {i: left_open(pool, np.vstack([known, pool[i]]), weights) for i in free}
        assert after[pick] <= min(after.values()) + 1e-9
        free.remove(pick)
        known = np.vstack([known, pool[pick]])


def test_components_keep_angles_about_the_middle():
    features, labeled = rng(0).normal(size=(30, 4)) + 7.0, rng(1).normal(size=(3, 4)) + 7.0
    pool, known = optimal.components(features, labeled)
    rows = np.concatenate([features, labeled]) - features.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    both = np.concatenate([pool, known])
    np.testing.assert_allclose(both @ both.T, rows @ rows.T, atol=1e-10)


def test_the_largest_region_comes_first_and_a_labeled_one_last():
    features, truth = planted([12, 50, 25])
    view = PoolView(size=87, features=features)
    first = truth[order_of(view, 3)[:3]].tolist()
    assert first[0] == 1
    assert set(first) == {0, 1, 2}
    known = PoolView(size=87, features=features, labeled_features=features[truth == 1][:2])
    assert set(truth[order_of(known, 2)[:2]].tolist()) == {0, 2}


def test_certain_items_do_not_count():
    """Of four regions of one size, the one that the model is not sure of is asked first."""
    features, truth = planted([30, 30, 30, 30])
    for unsure in range(4):
        p = np.where(truth == unsure, 0.5, 0.999)[:, None]
        view = PoolView(size=120, features=features, probabilities=p)
        scores = optimal.design_order(view, optimal.still_open(view), 1, rng(), "auto")
        assert truth[scores.argmax()] == unsure


def test_nothing_is_open_before_a_model_or_all_is():
    assert optimal.still_open(PoolView(size=3)).tolist() == [1.0, 1.0, 1.0]
    assert optimal.still_open(full_view("multi_label")).min() > 0.0


def test_its_reason_names_the_place_and_what_is_known():
    assert reason("design", PoolView(size=9), 0, 8.0, FINDINGS) == (
        "place 2 of 9 in an order that asks first what tells most about all images of the pool, "
        "given what is labeled or asked"
    )
