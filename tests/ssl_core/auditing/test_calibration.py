"""Reliability of scores, by hand and in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssl_core.auditing.calibration import reliability, spiegelhalter


def test_by_hand():
    scores = np.array([0.1, 0.2, 0.3, 0.2, 0.2, 0.8, 0.9, 0.8, 0.9, 0.6, 0.5])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 0, math.nan])
    found = reliability("mass", scores, labels, np.arange(11).astype(str))
    assert (found.n, found.present) == (10, 0.5)
    assert found.score == pytest.approx(0.5)
    assert [(b.score, b.present.value, b.present.n) for b in found.bins] == [
        (pytest.approx(0.2), 0.2, 5),
        (pytest.approx(0.8), 0.8, 5),
    ]
    assert found.p > 0.3


def test_no_read_says_nothing():
    found = reliability("mass", np.array([0.4]), np.array([math.nan]), np.array(["a"]))
    assert (found.n, found.bins) == (0, ())
    assert math.isnan(found.p)


def test_the_test_holds_its_level_and_sees_overconfidence():
    rng = np.random.default_rng(2)
    p = rng.beta(0.5, 0.5, (200, 30))
    calm = [spiegelhalter(row, (rng.random(30) < row) * 1.0, rng) for row in p]
    assert np.mean(np.array(calm) < 0.05) <= 0.09
    over = [spiegelhalter(row, (rng.random(30) < 0.5 + 0.6 * (row - 0.5)) * 1.0, rng) for row in p]
    assert np.mean(np.array(over) < 0.05) > 0.65
    assert spiegelhalter(np.full(4, 0.5), np.ones(4), rng) == 1.0
    assert spiegelhalter(np.zeros(4), np.ones(4), rng) < 0.01
