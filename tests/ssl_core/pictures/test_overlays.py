"""Contours, fills and enlarged masks, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.pictures.overlays import Layer, contour, outlined, over, painted, resized

GREEN, BLUE = (0, 200, 0), (0, 0, 200)


def block(size, y0, y1, x0, x1):
    mask = np.zeros((size, size), bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_contour_is_the_inner_edge_by_hand():
    mask = block(7, 1, 6, 1, 6)
    found = contour(mask, 1)
    assert found.sum() == 25 - 9
    assert not found[2:5, 2:5].any()
    np.testing.assert_array_equal(contour(mask, 2), mask & ~block(7, 3, 4, 3, 4))
    assert not contour(np.zeros((4, 4), bool), 1).any()
    assert contour(np.ones((4, 4), bool), 1).sum() == 12  # beyond the border is outside


def test_layers_are_painted_in_order_with_their_opacity():
    image = np.full((5, 5, 3), 100, np.uint8)
    fill = Layer(block(5, 0, 3, 0, 3), GREEN, 0.5, filled=True)
    line = Layer(block(5, 1, 5, 1, 5), BLUE)
    found = painted(image, [fill, line], width=1)
    assert found[0, 0].tolist() == [50, 150, 50]
    assert found[1, 1].tolist() == [0, 0, 200]
    assert found[2, 2].tolist() == [50, 150, 50]  # inside the contour, under nothing else
    assert found[3, 3].tolist() == [100, 100, 100]
    assert (image == 100).all()
    np.testing.assert_array_equal(painted(image, [Layer(fill.mask, GREEN, 0.0)]), image)


def test_a_mask_of_the_working_size_lies_over_its_image_without_the_padding():
    """A wide image, 40 x 20, stands in rows 2 to 5 of 8; its left half is drawn."""
    mask = block(8, 2, 6, 0, 4)
    found = over(mask, 20, 40, "pad")
    assert found.shape == (20, 40)
    assert found[:, :18].all()
    assert not found[:, 22:].any()
    squashed = over(block(8, 0, 8, 0, 4), 20, 40, "squash")
    assert squashed[:, :18].all()
    assert not squashed[:, 22:].any()
    assert not over(np.full((8, 8), 0.49, np.float32), 8, 8, "pad").any()
    assert over(np.full((8, 8), 0.5, np.float32), 8, 8, "pad").all()


def test_a_mask_of_another_size_of_the_same_image():
    found = resized(block(8, 0, 8, 0, 4), 16, 24)
    assert found.shape == (16, 24)
    assert found[:, :11].all()
    assert not found[:, 13:].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_item_of_the_store_is_enlarged_under_its_contours(channels):
    pixels = np.full((channels, 8, 8), 60, np.uint8)
    found = outlined(pixels, [Layer(block(8, 2, 6, 2, 6), GREEN)], 64)
    assert (found.shape, found.dtype) == ((3, 64, 64), np.uint8)
    assert found[:, 32, 17].tolist() == [0, 200, 0]  # the left edge lies at 16
    assert found[:, 32, 32].tolist() == [60, 60, 60]
    assert found[:, 2, 2].tolist() == [60, 60, 60]
