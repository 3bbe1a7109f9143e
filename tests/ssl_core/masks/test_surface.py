"""Distances between edges: by hand, against all pairs of points, and where a mask is empty."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.evidence import Estimate
from ssl_core.masks.surface import in_pixels, share_of_diagonal, surface_distances

QUICK = settings(deadline=None, max_examples=30)


def square(left, side=4, size=12):
    mask = np.zeros((1, 1, size, size), bool)
    mask[..., 3 : 3 + side, left : left + side] = True
    return mask


def naive_edge(mask):
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.argwhere(mask & ~inner)


def naive(a, b):
    if not (a.any() and b.any()):
        return (math.hypot(*a.shape),) * 2 if a.any() or b.any() else (0.0, 0.0)
    apart = np.linalg.norm(naive_edge(a)[:, None] - naive_edge(b)[None], axis=-1)
    there, back = apart.min(axis=1), apart.min(axis=0)
    return np.concatenate([there, back]).mean(), max(np.percentile(x, 95) for x in (there, back))


def test_shifted_shapes_by_hand():
    found = surface_distances(square(3, side=1), square(6, side=1))
    assert found.mean[0, 0] == found.worst[0, 0] == 3.0
    assert found.diagonal == pytest.approx(math.sqrt(288))
    # The inner pixels of a square are no edge: a hole in it of 2 × 2 is 1 away from all of them.
    ring = square(3)
    ring[..., 4:6, 4:6] = False
    assert surface_distances(square(3), ring).mean[0, 0] == 0.0


def test_points_by_hand():
    a, b = np.zeros((2, 1, 1, 10, 10), bool)
    a[..., 2, 2] = True
    b[..., 5, 6] = True
    found = surface_distances(a, b)
    assert found.mean[0, 0] == found.worst[0, 0] == 5.0
    b[..., 2, 2] = True  # one of two edge pixels is right now: 0, 0 and 5
    found = surface_distances(a, b)
    assert found.mean[0, 0] == pytest.approx(5 / 3)
    assert found.worst[0, 0] == pytest.approx(0.95 * 5)


def test_empty_masks_are_defined():
    empty = np.zeros_like(square(3))
    for pair in ((square(3), empty), (empty, square(3))):
        found = surface_distances(*pair)
        assert found.mean[0, 0] == found.worst[0, 0] == found.diagonal
    assert surface_distances(empty, empty).mean[0, 0] == 0.0
    unknown = surface_distances(square(3), empty, np.array([[False]]))
    assert math.isnan(unknown.mean[0, 0])


@QUICK
@given(st.integers(0, 2**32), st.integers(1, 9), st.integers(1, 9))
def test_the_naive_numbers_and_the_laws(seed, height, width):
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 3, 1, height, width)) < rng.choice([0.0, 0.15, 0.6])
    found, other = surface_distances(a, b), surface_distances(b, a)
    mirrored = surface_distances(a[..., ::-1], b[..., ::-1])
    for n in range(3):
        mean, worst = naive(a[n, 0], b[n, 0])
        assert found.mean[n, 0] == pytest.approx(mean)
        assert found.worst[n, 0] == pytest.approx(worst)
    for name in ("mean", "worst"):
        np.testing.assert_allclose(getattr(found, name), getattr(other, name))
        np.testing.assert_allclose(getattr(found, name), getattr(mirrored, name))
        assert (getattr(found, name) <= found.diagonal).all()
    assert (surface_distances(a, a).mean == 0).all()


def test_shares_have_intervals_and_go_back_to_pixels():
    pixels = np.array([[1.0], [3.0], [math.nan], [10.0]])
    share = share_of_diagonal(pixels, 10.0).macro.estimate
    shown = in_pixels(share, 10.0)
    assert shown.value == pytest.approx(14 / 3)
    assert 0 < shown.low < shown.value < shown.high < 10
    assert shown.n == 3
    assert in_pixels(Estimate(0.1, 0.0, 0.2, 5), 20.0) == Estimate(2.0, 0.0, 4.0, 5)
