"""Ensembles of teachers by hand, their laws, and the two thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.masks.ensemble import (
    ENSEMBLES,
    confidence,
    decide,
    single,
    soft,
    weighted_soft,
    weights,
)


def teachers(k=3, n=4, c=2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((k, n, c, 5, 6), np.float32), rng.random((k, n, c), np.float32)


def test_weights_and_the_weighted_mean_by_hand():
    maps = np.array([[0.8, 0.2], [0.4, 0.0]]).reshape(2, 1, 1, 1, 2)
    classes = np.array([0.6, 0.2]).reshape(2, 1, 1)
    np.testing.assert_allclose(weights(maps, classes).ravel(), [0.7, 0.3])
    np.testing.assert_allclose(weights(maps).ravel(), [0.8, 0.4])
    found = weighted_soft(maps, classes).ravel()
    np.testing.assert_allclose(found, [0.7 * 0.8 + 0.3 * 0.4, 0.7 * 0.2])
    np.testing.assert_allclose(soft(maps).ravel(), [0.6, 0.1])
    np.testing.assert_allclose(single(maps).ravel(), [0.8, 0.2])
    np.testing.assert_allclose(confidence(maps, classes).ravel(), [0.5])


@pytest.mark.parametrize("name", ENSEMBLES)
def test_one_teacher_is_its_own_ensemble(name):
    maps, classes = teachers(k=1)
    np.testing.assert_allclose(ENSEMBLES[name](maps, classes), maps[0], rtol=1e-6)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_within_what_the_teachers_say(name):
    maps, classes = teachers()
    found = ENSEMBLES[name](maps, classes)
    assert found.shape == (4, 2, 5, 6)
    assert found.dtype == np.float32
    assert (found >= maps.min(axis=0) - 1e-6).all()
    assert (found <= maps.max(axis=0) + 1e-6).all()


def test_the_order_of_teachers_and_equal_weights():
    maps, classes = teachers()
    np.testing.assert_allclose(
        weighted_soft(maps, classes), weighted_soft(maps[::-1], classes[::-1]), rtol=1e-5
    )
    maps[..., 0, 0] = 1.0  # all have the same maximum
    np.testing.assert_allclose(weighted_soft(maps), soft(maps), rtol=1e-5)


def test_teachers_that_all_see_nothing_give_nothing():
    found = weighted_soft(np.zeros((2, 1, 1, 3, 3)), np.zeros((2, 1, 1)))
    assert (found == 0).all()


def test_two_thresholds_by_hand():
    maps = np.zeros((5, 1, 2, 2))
    maps[:, 0, 0, 0] = [0.9, 0.9, 0.9, 0.4, 0.5]
    scores = np.array([[0.8], [0.5], [0.2], [0.9], [0.7]])
    found = decide(maps, scores, positive=0.7, negative=0.2)
    # abnormal; between; normal whatever the map; sure but without a pixel; both just reached
    np.testing.assert_array_equal(found.decided[:, 0], [1, np.nan, 0, np.nan, 1])
    assert found.masks.sum(axis=(1, 2, 3)).tolist() == [1, 0, 0, 0, 1]
    targets = found.targets
    assert np.isnan(targets).all(axis=(1, 2, 3)).tolist() == [False, True, False, True, False]
    assert np.nansum(targets) == 2
    assert targets.dtype == np.float32


def test_thresholds_are_a_findings_own():
    maps = np.full((1, 2, 2, 2), 0.9)
    found = decide(maps, np.array([[0.6, 0.6]]), positive=[0.5, 0.9], negative=[0.1, 0.7])
    np.testing.assert_array_equal(found.decided, [[1, 0]])


def test_what_does_not_fit_is_refused():
    maps, classes = teachers()
    for call, message in (
        (lambda: soft(maps[0]), "maps must be"),
        (lambda: soft(maps[:0]), "K ≥ 1"),
        (lambda: weights(maps, classes[:1]), "do not fit"),
        (lambda: soft(maps + 1), "probabilities"),
        (lambda: decide(maps[0], classes[0], 0.2, 0.2), "must lie below"),
        (lambda: decide(maps[0], classes[0][:1], 0.8, 0.2), "do not fit"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
