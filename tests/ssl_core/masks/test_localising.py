"""D-AUC: by hand, against a sweep over all thresholds, its limits, and intervals that cover."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core import metrics
from ssl_core.masks.localising import d_auc, found_at
from ssl_core.masks.overlap import dice
from ssl_core.masks.scores import describe, mask_metrics

QUICK = settings(deadline=None, max_examples=30)


@st.composite
def cases(draw):
    """Maps with many ties and masks of half of the items, both kinds present."""
    n = draw(st.integers(2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    maps = rng.integers(0, 5, (n, 1, 4, 4)) / 4
    truth = rng.random((n, 1, 4, 4)) < 0.3
    truth[::2] = False
    truth[1::2, :, 1, 1] = True
    return maps, truth


def naive(maps, truth, hit):
    """Walk every threshold down, and count pairs."""

    def first(p, t):
        for level in sorted(set(p.ravel().tolist()), reverse=True):
            at = (p >= level)[None, None]
            if t.any() and dice(at, t[None, None])[0, 0] >= hit:
                return level
            if not t.any() and at.any():
                return level
        return -math.inf

    at = np.array([first(p, t) for p, t in zip(maps[:, 0], truth[:, 0], strict=True)])
    sick = truth.any(axis=(1, 2, 3))
    won = at[sick][:, None] - at[~sick][None]
    return float(((won > 0) + 0.5 * (won == 0)).mean())


def test_by_hand():
    truth = np.zeros((4, 1, 2, 2), bool)
    truth[:2, 0, 0] = True  # two abnormal images, the upper row is the lesion
    maps = np.array([
        [[0.9, 0.8], [0.1, 0.1]],  # found at 0.9 with Dice 2/3
        [[0.2, 0.2], [0.7, 0.7]],  # two wrong pixels first; found at 0.2 with Dice 4/6
        [[0.1, 0.1], [0.3, 0.1]],  # alarm at 0.3
        [[0.0, 0.0], [0.0, 0.1]],  # alarm at 0.1
    ])[:, None]  # fmt: skip
    scores, labels = found_at(maps, truth, hit=0.5)
    np.testing.assert_array_equal(scores[:, 0], [0.9, 0.2, 0.3, 0.1])
    np.testing.assert_array_equal(labels[:, 0], [1, 1, 0, 0])
    assert d_auc(maps, truth, hit=0.5).macro.estimate.value == 3 / 4
    # with Dice from 0.7 the first is found at 0.8, the second never: it loses both pairs
    np.testing.assert_array_equal(found_at(maps, truth, hit=0.7)[0][:2, 0], [0.8, math.nan])
    assert d_auc(maps, truth, hit=0.7).macro.estimate.value == 2 / 4


def test_never_found_loses_even_to_an_empty_map():
    truth = np.zeros((2, 1, 2, 2), bool)
    truth[0, 0, 0, 0] = True
    maps = np.zeros((2, 1, 2, 2))
    assert d_auc(maps, truth, hit=0.5).macro.estimate.value == 0.0
    assert d_auc(maps, truth, hit=0.2).macro.estimate.value == 0.5  # the whole picture: Dice 2/5


@QUICK
@given(cases(), st.sampled_from([0.05, 0.2, 0.5, 0.9, 1.0]))
def test_the_naive_sweep(case, hit):
    assert d_auc(*case, hit=hit).macro.estimate.value == pytest.approx(naive(*case, hit))


@QUICK
@given(cases())
def test_at_most_the_auroc_of_the_maximum_and_falling_with_hit(case):
    maps, truth = case
    labels = truth.any(axis=(2, 3)).astype(float)
    plain = metrics.auroc(maps.max(axis=(2, 3)), labels).macro.estimate.value
    areas = [d_auc(*case, hit=hit).macro.estimate.value for hit in (1e-9, 0.2, 0.5, 1.0)]
    assert plain + 1e-12 >= areas[0]
    assert all(a + 1e-12 >= b for a, b in pairwise(areas))
    inside = np.where(
        truth.any(axis=(2, 3)), np.where(truth, maps, 0).max(axis=(2, 3)), maps.max(axis=(2, 3))
    )
    assert areas[0] == pytest.approx(metrics.auroc(inside, labels).macro.estimate.value)


def test_unknown_images_are_left_out():
    rng = np.random.default_rng(0)
    maps, truth = rng.random((20, 2, 4, 4)), rng.random((20, 2, 4, 4)) < 0.2
    truth[::2] = False
    known = np.ones((20, 2), bool)
    known[4:, 1] = False
    found = d_auc(maps, truth, known)
    assert found.findings[1].estimate.n == 4
    fewer = d_auc(maps[:4, 1:], truth[:4, 1:])
    assert found.findings[1].estimate == fewer.findings[0].estimate


def test_the_interval_covers():
    # a lesion is found at a uniform threshold and normals alarm at u²: P(u > v²) = 1 - E[v²] = 2/3
    rng = np.random.default_rng(1)
    truth = np.zeros((80, 500, 1, 2), bool)
    truth[:40, :, :, 0] = True
    maps = np.zeros(truth.shape)
    maps[:40, :, 0, 0] = rng.random((40, 500))
    maps[40:, :, 0, 1] = rng.random((40, 500)) ** 2
    found = [s.estimate for s in d_auc(maps, truth).findings]
    assert 0.92 <= np.mean([e.low <= 2 / 3 <= e.high for e in found]) <= 0.98


def test_wrong_inputs_are_refused():
    maps, truth = np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 2), bool)
    for call, message in (
        (lambda: d_auc(maps + 2, truth), "probabilities"),
        (lambda: d_auc(maps[..., :1], truth), "of shape"),
        (lambda: d_auc(maps, truth, hit=0.0), "hit is"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_describe_has_every_number_and_distances_in_pixels():
    rng = np.random.default_rng(2)
    truth = rng.random((12, 2, 6, 8)) < 0.3
    truth[::3] = False
    maps = np.clip(truth * 0.6 + 0.5 * rng.random(truth.shape), 0, 1)
    found = mask_metrics(maps, truth, groups=np.arange(12) // 2)
    rows = describe(found, 10.0)
    assert len(rows) == 9 * 3
    for column, name, number in rows:
        metric = found[name].macro if column is None else found[name].findings[column]
        scale = 10.0 if name.startswith("surface") else 1.0
        assert number.value == pytest.approx(metric.estimate.value * scale)
        assert number.low <= number.value <= number.high
