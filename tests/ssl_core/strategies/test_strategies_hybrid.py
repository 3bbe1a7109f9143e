"""Diversity among the uncertain, typical first and uncertain later, and near-duplicates."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssl_core.errors import SelectionError
from ssl_core.strategies import (
    NEEDS,
    PoolView,
    demote_duplicates,
    duplicates,
    hybrid,
    reason,
    suppress_duplicates,
)
from tests.ssl_core.strategies import strategies_reference as naive
from tests.ssl_core.strategies.strategies_views import FINDINGS, TASKS, full_view, rng, scores_of


def order_of(name, view, n, seed=0):
    return np.argsort(-scores_of(name, view, n, seed)).tolist()


# --- diversity among the uncertain -------------------------------------------------------------


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_margin_diverse_is_k_center_within_the_shortlist(task, seed):
    view = full_view(task, size=60, seed=seed)
    doubt = [naive.margin(row.tolist(), view.exclusive) for row in view.probabilities]
    by_doubt = sorted(range(60), key=lambda i: -doubt[i])
    short, rest = by_doubt[:20], by_doubt[20:]
    picks, _ = naive.k_center(view.features[short], view.labeled_features, 4)
    order = order_of("margin_diverse", view, 4, seed)
    assert order[:4] == [short[i] for i in picks]
    assert set(order[:20]) == set(short)
    assert order[20:] == rest


def test_equal_margins_enter_the_shortlist_by_chance():
    view = PoolView(size=40, probabilities=np.full((40, 1), 0.3), features=rng(0).random((40, 2)))
    shortlists = {frozenset(order_of("margin_diverse", view, 1, s)[:5]) for s in range(20)}
    assert len(shortlists) > 15


def test_the_reason_of_margin_diverse_gives_place_and_margin():
    view = PoolView(size=1, probabilities=np.array([[0.52]]))
    assert reason("margin_diverse", view, 0, 1.0, FINDINGS) == (
        "place 1 of 1 in an order that asks first what is farthest from labeled and asked images "
        "among the most uncertain: margin 0.04 between present and absent for Effusion (0.52)"
    )


# --- diversity among the random ----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_random_diverse_is_k_center_within_a_lot(seed):
    view = full_view("binary", size=60, seed=seed)
    lot = rng(seed).permutation(60)[:8].tolist()
    picks, _ = naive.k_center(view.features[lot], view.labeled_features, 4)
    order = order_of("random_diverse", view, 4, seed)
    assert order[:4] == [lot[i] for i in picks]
    assert set(order[:8]) == set(lot)


def test_random_diverse_asks_every_item_with_about_the_same_chance():
    """What is far is asked more often than by lot alone, but no more than `LOT` times as often."""
    view = PoolView(size=40, features=np.concatenate([rng(0).random((36, 2)), np.full((4, 2), 9)]))
    asked = np.zeros(40)
    for seed in range(800):
        asked[order_of("random_diverse", view, 4, seed)[:4]] += 1 / 800
    assert asked.sum() == pytest.approx(4)
    assert asked.max() <= hybrid.LOT * 4 / 40 + 0.05
    assert asked.min() >= 0.02


def test_random_diverse_passes_over_what_it_has_seen():
    """Of two copies in a lot of two, the one like a labeled item waits."""
    view = PoolView(size=2, features=np.eye(2), labeled_features=np.eye(2)[:1])
    assert all(order_of("random_diverse", view, 1, seed)[0] == 1 for seed in range(10))


# --- typical first, uncertain later ------------------------------------------------------------


def labeled_view(count, task="multi_label", size=60, seed=0):
    return full_view(task, size, seed, labeled_features=rng(seed + 7).normal(size=(count, 6)))


def test_auto_can_do_without_a_model():
    assert NEEDS["auto"] == {"features"}
    view = replace(labeled_view(30), probabilities=None)
    assert order_of("auto", view, 5) == order_of("design", view, 5)
    unlabeled = replace(labeled_view(30), labeled_features=None)
    assert order_of("auto", unlabeled, 5) == order_of("design", unlabeled, 5)


@pytest.mark.parametrize(
    ("task", "count", "share"),
    [("binary", 100, 0.5), ("binary", 300, 0.75), ("multi_label", 200, 0.5), ("binary", 0, 0.0)],
)
def test_the_share_of_the_uncertain_by_hand(task, count, share):
    assert hybrid.uncertain_share(labeled_view(count, task)) == share


def test_the_share_grows_with_every_label():
    shares = [hybrid.uncertain_share(labeled_view(count)) for count in range(0, 2000, 50)]
    assert (np.diff(shares) > 0).all()
    assert shares[-1] < 1


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("count", [1, 40, 100, 900])
@pytest.mark.parametrize("n", [1, 7, 20])
def test_auto_merges_the_two_orders_at_the_stated_places(task, count, n):
    view = labeled_view(count, task)
    findings = max(view.probabilities.shape[1], 2)
    share = count / (count + 50 * findings)
    chance, turns = rng(3), [int(j * share + 1e-9) for j in range(61)]
    many = turns[n]
    open_ = hybrid.still_open(view)
    typical = np.argsort(-hybrid.design_order(view, open_, n - many, chance, "auto")).tolist()
    asked = np.concatenate([view.labeled_features, view.features[typical[: n - many]]])
    aware = replace(view, labeled_features=asked)
    uncertain = np.argsort(-hybrid.margin_diverse(aware, many, chance)).tolist()
    expected = []
    for before, after in pairwise(turns):
        queue = uncertain if after > before else typical
        expected.append(next(i for i in queue if i not in expected))
    assert order_of("auto", view, n, seed=3) == expected


def test_the_reason_of_auto_says_which_order_placed_the_item():
    """100 labels of a binary task: every second place is for an uncertain item."""
    view = labeled_view(100, "binary")
    order = order_of("auto", view, 10)
    first, second = (reason("auto", view, order[k], 60.0 - k, FINDINGS) for k in (0, 1))
    assert first == (
        "place 1 of 60, one of the 50% for typical images with 100 labeled: "
        "it tells most about the pool, given labeled and asked images"
    )
    assert second.startswith(
        "place 2 of 60, one of the 50% for uncertain images with 100 labeled: "
        "far from labeled and asked ones, margin "
    )


# --- near-duplicates ---------------------------------------------------------------------------


@pytest.fixture(params=[1, 3, 1024])
def steps(request, monkeypatch):
    monkeypatch.setattr(duplicates, "AT_A_TIME", request.param)
    monkeypatch.setattr(duplicates, "BLOCK", request.param)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [-1.0, 0.5, 0.9, 1.0])
@pytest.mark.usefixtures("steps")
def test_duplicates_go_behind_as_in_the_naive_walk(seed, threshold):
    features, labeled = rng(seed).normal(size=(40, 3)), rng(seed + 1).normal(size=(3, 3))
    order = rng(seed + 2).permutation(40)
    found = suppress_duplicates(order, features, labeled, threshold)
    assert found.tolist() == naive.suppress_duplicates(order, features, labeled, threshold)


@settings(max_examples=60, deadline=None)
@given(
    features=hnp.arrays(np.float64, (8, 2), elements=st.integers(-2, 2).map(float)),
    n=st.integers(0, 9),
)
def test_the_first_n_are_those_of_the_whole_walk(features, n):
    """Directions of a small grid: cosines are equal or far from 0.995."""
    whole = suppress_duplicates(np.arange(8), features, None, 0.995)
    short = suppress_duplicates(np.arange(8), features, None, 0.995, n)
    assert whole.tolist() == naive.suppress_duplicates(range(8), features, [], 0.995)
    assert sorted(short) == list(range(8))
    singles = [i for i in whole.tolist() if naive_single(i, whole, features)]
    many = min(n, len(singles))
    assert short[:many].tolist() == singles[:many]


def naive_single(i, order, features):
    at = order.tolist().index(i)
    return not any(
        float(features[i] @ features[j])
        > 0.995 * np.linalg.norm(features[i]) * np.linalg.norm(features[j])
        > 0
        for j in order[:at]
    )


def test_rows_without_direction_are_no_duplicates():
    assert suppress_duplicates(np.arange(3), np.zeros((3, 2)), np.ones((1, 2)), 0.9).tolist() == [
        0,
        1,
        2,
    ]


def test_a_threshold_that_is_no_cosine_is_refused():
    with pytest.raises(ValueError, match="threshold is 99"):
        suppress_duplicates(np.arange(2), np.ones((2, 2)), None, 99)


def test_demoted_scores_keep_both_orders():
    features = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.001], [1.0, 1.0], [0.0, 3.0]])
    view = PoolView(size=5, features=features)
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    found = demote_duplicates(scores, view, 0.995, 5, rng())
    assert np.argsort(-found).tolist() == [0, 1, 3, 2, 4]
    np.testing.assert_array_equal(found[[0, 1, 3]], scores[[0, 1, 3]])
    assert found[[2, 4]].max() < scores.min()
    assert scores.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]


def test_duplicates_of_labeled_items_are_demoted():
    view = PoolView(
        size=2, features=np.array([[1.0, 0.0], [0.0, 1.0]]), labeled_features=np.array([[5.0, 0]])
    )
    found = demote_duplicates(np.array([1.0, 0.0]), view, 0.995, 2, rng())
    assert np.argsort(-found).tolist() == [1, 0]


def test_duplicates_need_features_and_no_items():
    with pytest.raises(SelectionError, match="features"):
        demote_duplicates(np.zeros(2), PoolView(size=2), 0.9, 1, rng())
    empty = PoolView(size=0, features=np.zeros((0, 2)))
    assert demote_duplicates(np.zeros(0), empty, 0.9, 1, rng()).shape == (0,)
