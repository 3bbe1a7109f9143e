"""Strategies that score an item by its own row: exact, by hand, and in words."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssl_core.errors import SelectionError
from ssl_core.strategies import STRATEGIES, PoolView, reason
from tests.ssl_core.strategies import strategies_reference as naive
from tests.ssl_core.strategies.strategies_views import (
    FINDINGS,
    full_view,
    rng,
    scores_of,
)

unit = st.floats(0, 1)
tables = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=unit)


def exclusive_rows(table):
    return (table + 1e-3) / (table + 1e-3).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("name", ["entropy", "margin", "least_confidence"])
@pytest.mark.parametrize("exclusive", [False, True])
@settings(max_examples=60, deadline=None)
@given(table=tables)
def test_uncertainty_equals_the_naive_one(exclusive, name, table):
    if exclusive:
        table = exclusive_rows(table)
    scores = scores_of(name, PoolView(len(table), exclusive=exclusive, probabilities=table))
    expected = [getattr(naive, name)(row.tolist(), exclusive) for row in table]
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)
    assert (scores >= -1e-12).all()
    assert (scores <= 1 + 1e-12).all()


tables_of_views = hnp.arrays(
    np.float64, st.tuples(st.integers(2, 5), st.integers(1, 5), st.integers(2, 4)), elements=unit
)


@settings(max_examples=60, deadline=None)
@given(views=tables_of_views)
def test_augmentation_equals_the_naive_variance(views):
    scores = scores_of("augmentation", PoolView(size=views.shape[1], views=views))
    expected = [naive.variance(views[:, i]) for i in range(views.shape[1])]
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-14)
    assert (scores <= 0.25 + 1e-12).all()


@pytest.mark.parametrize("exclusive", [False, True])
@settings(max_examples=60, deadline=None)
@given(views=tables_of_views)
def test_bald_is_the_mutual_information_of_answer_and_view(exclusive, views):
    if exclusive:
        views = exclusive_rows(views)
    scores = scores_of("bald", PoolView(views.shape[1], exclusive=exclusive, views=views))
    expected = [naive.bald(views[:, i], exclusive) for i in range(views.shape[1])]
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-12)
    assert (scores >= 0).all()
    assert (scores <= 1 + 1e-12).all()


@pytest.mark.parametrize("exclusive", [False, True])
@settings(max_examples=60, deadline=None)
@given(views=tables_of_views)
def test_disagreement_equals_the_naive_distance(exclusive, views):
    if exclusive:
        views = exclusive_rows(views)
    p, t = views[:2]
    view = PoolView(len(p), exclusive=exclusive, probabilities=p, teacher_probabilities=t)
    expected = [naive.disagreement(*both, exclusive) for both in zip(p, t, strict=True)]
    scores = scores_of("disagreement", view)
    np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)
    assert (scores <= 1 + 1e-12).all()


def order_of(name, view):
    return np.argsort(-scores_of(name, view), kind="stable").tolist()


def test_binary_by_hand():
    view = PoolView(size=4, probabilities=np.array([[0.9], [0.5], [0.25], [0.0]]))
    np.testing.assert_allclose(scores_of("margin", view), [0.2, 1.0, 0.5, 0.0])
    np.testing.assert_allclose(
        scores_of("entropy", view), [0.4689955936, 1.0, 0.8112781245, 0.0], atol=1e-10
    )


def test_entropy_and_margin_part_ways_on_three_classes_by_hand():
    p = np.array([[0.45, 0.45, 0.10], [0.40, 0.30, 0.30], [0.98, 0.01, 0.01]])
    view = PoolView(size=3, exclusive=True, probabilities=p)
    assert order_of("margin", view) == [0, 1, 2]
    np.testing.assert_allclose(scores_of("margin", view), [1.0, 0.9, 0.03])
    assert order_of("entropy", view) == [1, 0, 2]


def test_the_mean_over_findings_by_hand():
    """One coin toss among sure findings weighs less than four doubtful ones."""
    p = np.array([[0.5, 0.0, 0.0, 1.0], [0.3, 0.3, 0.7, 0.7], [0.9, 0.9, 0.9, 0.9]])
    view = PoolView(size=3, probabilities=p)
    np.testing.assert_allclose(scores_of("margin", view), [0.25, 0.6, 0.2])
    assert order_of("entropy", view) == [1, 2, 0]


def test_augmentation_by_hand():
    views = np.array([[[0.0], [0.5], [0.1]], [[1.0], [0.5], [0.3]]])
    view = PoolView(size=3, views=views)
    np.testing.assert_allclose(scores_of("augmentation", view), [0.25, 0.0, 0.01])


@pytest.mark.parametrize("name", ["augmentation", "bald"])
def test_views_that_agree_score_exactly_zero(name):
    view = PoolView(size=50, views=np.stack([rng(1).random((50, 3))] * 3))
    np.testing.assert_array_equal(scores_of(name, view), 0.0)


def test_bald_by_hand():
    """Sure views that differ: one bit. Doubtful ones that agree: none."""
    views = np.array([[[0.0], [0.5], [0.25]], [[1.0], [0.5], [0.75]]])
    view = PoolView(size=3, views=views)
    np.testing.assert_allclose(scores_of("bald", view), [1.0, 0.0, 1 - 0.8112781245], atol=1e-10)
    views = np.array([[[1.0, 0, 0]], [[0, 1.0, 0]], [[0, 0, 1.0]]])
    exclusive = PoolView(size=1, exclusive=True, views=views)
    np.testing.assert_allclose(scores_of("bald", exclusive), [1.0])


def test_least_confidence_by_hand():
    p = np.array([[0.45, 0.45, 0.10], [0.40, 0.30, 0.30], [1.0, 0.0, 0.0]])
    view = PoolView(size=3, exclusive=True, probabilities=p)
    np.testing.assert_allclose(scores_of("least_confidence", view), [0.825, 0.9, 0.0])


def test_disagreement_by_hand():
    p, t = np.array([[0.9, 0.2], [0.5, 0.5]]), np.array([[0.4, 0.3], [0.5, 0.5]])
    view = PoolView(size=2, probabilities=p, teacher_probabilities=t)
    np.testing.assert_allclose(scores_of("disagreement", view), [0.3, 0.0])
    p, t = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.2, 0.7]])
    view = PoolView(size=1, exclusive=True, probabilities=p, teacher_probabilities=t)
    np.testing.assert_allclose(scores_of("disagreement", view), [0.6])


def test_one_model_has_nothing_to_disagree_with():
    view = PoolView(size=1, probabilities=np.array([[0.5]]))
    with pytest.raises(SelectionError, match="second model and there are none"):
        scores_of("disagreement", view)


def test_random_puts_every_item_first_equally_often():
    view = PoolView(size=5)
    generator = rng(3)
    firsts = [STRATEGIES["random"](view, 1, generator).argmax() for _ in range(5000)]
    counts = np.bincount(firsts, minlength=5)
    assert (np.abs(counts - 1000) < 5 * math.sqrt(5000 * 0.2 * 0.8)).all()


def test_balanced_random_asks_every_predicted_class_as_often():
    """90, 9 and 1 items of three classes: 1 of each, then the two that are left, in turn."""
    classes = np.repeat([0, 1, 2], [90, 9, 1])
    view = PoolView(size=100, exclusive=True, probabilities=np.eye(3)[classes])
    for seed in range(5):
        order = np.argsort(-scores_of("class_balanced_random", view, seed=seed))
        assert sorted(classes[order[:3]]) == [0, 1, 2]
        assert np.bincount(classes[order[:17]]).tolist() == [8, 8, 1]


def test_balanced_random_counts_an_item_for_its_rarest_finding():
    p = np.zeros((20, 2))
    p[:12, 0] = 0.9
    p[:3, 1] = 0.5
    view = PoolView(size=20, probabilities=p)
    order = np.argsort(-scores_of("class_balanced_random", view))
    rare = {int(i) for i in order[:9] if i < 3}
    common = {int(i) for i in order[:9] if 3 <= i < 12}
    assert (len(rare), len(common)) == (3, 3)
    assert reason("class_balanced_random", view, 0, 0.0, FINDINGS) == (
        "drawn at random among the 3 of 20 images whose rarest predicted finding is Nodule"
    )
    assert reason("class_balanced_random", view, 19, 0.0, FINDINGS).endswith(
        "the 8 of 20 images that are predicted to show no finding"
    )


def test_balanced_random_puts_every_item_of_a_class_first_equally_often():
    view = PoolView(size=5, probabilities=np.array([[0.9]] * 4 + [[0.1]]))
    generator = rng(3)
    drawn = [STRATEGIES["class_balanced_random"](view, 1, generator).argmax() for _ in range(4000)]
    counts = np.bincount(drawn, minlength=5)
    assert (np.abs(counts - np.array([500] * 4 + [2000])) < 160).all()


# --- reasons -----------------------------------------------------------------------------------


def test_reasons_word_for_word():
    one = PoolView(size=1, probabilities=np.array([[0.52]]))
    assert reason("margin", one, 0, 0.96, ("Effusion",)) == (
        "margin 0.04 between present and absent for Effusion (0.52)"
    )
    assert reason("entropy", one, 0, 1.0, ("Effusion",)) == (
        "entropy 1.00 (1 = no idea) for Effusion (0.52)"
    )
    several = PoolView(size=1, probabilities=np.array([[0.9, 0.4, 0.0]]))
    assert reason("margin", several, 0, 0.0, FINDINGS) == (
        "mean margin 0.67 over 3 findings; smallest: "
        "margin 0.20 between present and absent for Nodule (0.40)"
    )
    assert reason("entropy", several, 0, 0.0, FINDINGS) == (
        "mean entropy 0.48 over 3 findings; highest: entropy 0.97 (1 = no idea) for Nodule (0.40)"
    )
    classes = PoolView(size=1, exclusive=True, probabilities=np.array([[0.25, 0.5, 0.25]]))
    assert reason("margin", classes, 0, 0.75, FINDINGS) == (
        "margin 0.25 between Nodule (0.50) and Mass (0.25)"
    )
    assert reason("entropy", classes, 0, 0.0, FINDINGS) == (
        "entropy 0.95 over 3 findings (1 = all equally likely), likeliest Nodule (0.50)"
    )
    views = PoolView(size=1, views=np.array([[[0.4, 0.1]], [[0.5, 0.7]], [[0.6, 0.3]]]))
    assert reason("augmentation", views, 0, 0.0, FINDINGS) == (
        "over 3 augmented views the probability of Nodule went from 0.10 to 0.70"
    )
    assert reason("cold_start", PoolView(size=9), 0, 9.0, FINDINGS).startswith("place 1 of 9 ")


@pytest.mark.parametrize("name", ["margin", "entropy"])
@pytest.mark.parametrize("task", ["binary", "multi_label"])
def test_the_numbers_in_a_reason_are_those_of_the_item(name, task):
    """Read the sentence back: the first number is the score, the last the named probability."""
    view = full_view(task)
    scores = scores_of(name, view)
    for i in range(view.size):
        sentence = reason(name, view, i, float(scores[i]), FINDINGS)
        number = float(re.search(r"(\d\.\d\d)", sentence).group(1))
        expected = scores[i] if name == "entropy" else 1 - scores[i]
        assert number == pytest.approx(expected, abs=0.00501)
        finding, p = re.search(r"for (\w+) \((\d\.\d\d)\)", sentence).groups()
        row = view.probabilities[i]
        assert float(p) == pytest.approx(row[FINDINGS.index(finding)], abs=0.00501)
        assert np.abs(row - 0.5).argmin() == FINDINGS.index(finding)
