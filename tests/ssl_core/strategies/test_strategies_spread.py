"""Items that lie far apart: k-center and BADGE against references that build every table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssl_core.strategies import PoolView, reason, spread
from tests.ssl_core.strategies import strategies_reference as naive
from tests.ssl_core.strategies.strategies_views import FINDINGS, TASKS, full_view, rng, scores_of


def order_of(name, view, n, seed=0):
    return np.argsort(-scores_of(name, view, n, seed)).tolist()


@pytest.fixture(params=[(64, 2048), (1,), (3, 11)], ids=str)
def shortlists(request, monkeypatch):
    """With small shortlists and blocks, small pools meet all that large ones do."""
    monkeypatch.setattr(spread, "SHORTLISTS", request.param)
    monkeypatch.setattr(spread, "PENDING", 4 + len(request.param))
    monkeypatch.setattr(spread, "BLOCK", 17)
    monkeypatch.setattr(spread, "CENTRES", 5)


# --- k-center ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("labeled_count", [0, 7])
@pytest.mark.usefixtures("shortlists")
def test_k_center_picks_what_the_naive_one_picks(seed, labeled_count):
    features = rng(seed).normal(size=(80, 5))
    labeled = rng(seed + 50).normal(size=(labeled_count, 5))
    picks, _ = naive.k_center(features, labeled, 30)
    view = PoolView(size=80, features=features, labeled_features=labeled)
    assert order_of("k_center", view, 30, seed)[:30] == picks


@pytest.mark.usefixtures("shortlists")
def test_k_center_in_clusters_picks_what_the_naive_one_picks():
    """Where one pick brings many others near, most of a shortlist is out of date."""
    generator = rng(1)
    centres = generator.normal(size=(6, 4)) * 20
    features = centres[generator.integers(6, size=90)] + generator.normal(size=(90, 4))
    view = PoolView(size=90, features=features)
    assert order_of("k_center", view, 40)[:40] == naive.k_center(features, [], 40)[0]


whole = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 14), st.integers(1, 3)),
    elements=st.integers(-3, 3).map(float),
)


@settings(max_examples=80, deadline=None)
@given(features=whole, seed=st.integers(0, 5), offset=st.sampled_from([0.0, 4096.0]))
def test_every_pick_on_a_grid_is_exactly_the_farthest(features, seed, offset):
    """Whole numbers tie: another item may be picked, never a nearer one."""
    view = PoolView(
        size=len(features),
        features=features + offset,
        labeled_features=np.full((1, features.shape[1]), offset),
    )
    order = order_of("k_center", view, len(features), seed)
    assert sorted(order) == list(range(len(features)))
    known = np.zeros((1, features.shape[1]))
    for turn, pick in enumerate(order):
        gaps = [min(naive.squared(features[i], c) for c in known) for i in order[turn:]]
        assert gaps[0] == max(gaps)
        known = np.concatenate([known, features[pick][None]])


def test_ties_of_k_center_are_broken_by_the_generator():
    view = PoolView(
        size=4,
        features=np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]),
        labeled_features=np.zeros((1, 2)),
    )
    assert {order_of("k_center", view, 1, seed)[0] for seed in range(60)} == {0, 1, 2, 3}


def test_after_the_picks_of_k_center_the_farthest_follow():
    features = np.array([[0.0], [10.0], [4.9], [1.0], [7.0]])
    view = PoolView(size=5, features=features, labeled_features=np.zeros((1, 1)))
    assert order_of("k_center", view, 1) == [1, 2, 4, 3, 0]


def test_k_center_starts_in_the_middle_and_says_so():
    features = np.array([[0.0], [1.0], [2.0], [3.0], [9.0]])
    view = PoolView(size=5, features=features)
    order = order_of("k_center", view, 2)
    assert order[:2] == [3, 4]
    assert reason("k_center", view, 3, 5.0, FINDINGS) == (
        "the most central image of the pool: none is labeled yet to be far from"
    )
    assert reason("k_center", view, 4, 4.0, FINDINGS) == (
        "place 2 of 5 in an order that asks first what is farthest from all labeled and asked "
        "images"
    )


def test_k_center_halves_the_largest_gap_of_random():
    """The promise of a greedy choice: at most twice the best gap that so many centres can have."""
    generator = rng(2)
    centres = generator.normal(size=(12, 8)) * 30
    features = centres[generator.integers(12, size=400)] + generator.normal(size=(400, 8))
    order = order_of("k_center", PoolView(size=400, features=features), 12)

    def gap(picks):
        return max(min(naive.squared(x, features[i]) for i in picks) for x in features)

    assert gap(order[:12]) < gap(range(12)) / 10


# --- BADGE -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("shortlists")
def test_badge_draws_what_full_gradients_draw(task, seed):
    view = full_view(task, size=70, seed=seed)
    exact = naive.badge(view.probabilities, view.features, view.exclusive, 25, rng(seed))
    assert order_of("badge", view, 25, seed)[:25] == exact


@settings(max_examples=60, deadline=None)
@given(
    scale=hnp.arrays(np.float64, (5, 3), elements=st.integers(-4, 4).map(float)),
    rows=hnp.arrays(np.float64, (5, 4), elements=st.integers(-4, 4).map(float)),
)
def test_distances_of_outer_products_without_building_them(scale, rows):
    built = np.einsum("nc,nd->ncd", scale, rows).reshape(5, -1)
    factored = spread.points(rows.astype(np.float32), scale.astype(np.float32))
    np.testing.assert_array_equal(
        spread.squared_distances(factored, factored),
        [[naive.squared(a, b) for b in built] for a in built],
    )


def test_the_first_of_badge_has_the_longest_gradient():
    p = np.array([[0.9], [0.45], [0.5]])
    features = np.array([[1.0, 0], [3.0, 4.0], [3.0, 0]])
    view = PoolView(size=3, probabilities=p, features=features)
    assert {order_of("badge", view, 1, seed)[0] for seed in range(10)} == {1}
    assert reason("badge", view, 1, 3.0, FINDINGS) == (
        "place 1 of 3: of all images it would change the last layer most (a gradient of length "
        "2.25, most of it for Effusion)"
    )
    assert reason("badge", view, 0, 2.0, FINDINGS) == (
        "place 2 of 3 in a draw that favors images that would change the last layer otherwise "
        "than those drawn before"
    )


def test_badge_draws_in_proportion_to_squared_distance():
    """After the first (gradient 5), distances 2, 1 and 0: chances 4/5, 1/5 and 0."""
    features = np.array([[10.0], [6.0], [8.0], [10.0]])
    view = PoolView(size=4, probabilities=np.full((4, 1), 0.5), features=features)
    seconds = []
    for seed in range(2000):
        order = order_of("badge", view, 2, seed)
        assert order[0] in (0, 3)
        seconds.append(order[1])
    counts = np.bincount(seconds, minlength=4)
    assert counts[0] == counts[3] == 0
    assert abs(counts[1] - 1600) < 5 * math.sqrt(2000 * 0.8 * 0.2)


def test_badge_takes_one_at_most_of_what_the_model_is_sure_of():
    """Their gradients are all zero: after one of them, the others add nothing."""
    p = np.concatenate([np.full((40, 2), [1.0, 0.0]), np.full((10, 2), 0.6)])
    view = PoolView(size=50, probabilities=p, features=rng(1).normal(size=(50, 3)))
    assert sum(i < 40 for i in order_of("badge", view, 10)[:10]) <= 1
