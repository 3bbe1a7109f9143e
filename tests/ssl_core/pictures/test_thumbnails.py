"""Small pictures: the window by hand, sizes, kinds, and what cannot be shown."""

from __future__ import annotations

import base64
import io
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ssl_core.errors import WorkspaceError
from ssl_core.images import ImageStore
from ssl_core.pictures.thumbnails import data_url, encoded, montage, thumbnails, windowed
from tests import toy


def opened(picture: bytes) -> Image.Image:
    return Image.open(io.BytesIO(picture))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageStore:
    return toy.opened(toy.make(tmp_path_factory.mktemp("toy") / "w"))[0].images


def test_a_window_by_hand():
    """Centre 100, width 50: 75 is black, 125 white, 100 in the middle."""
    pixels = np.array([0, 75, 100, 110, 125, 255], np.uint8)
    assert windowed(pixels, 100, 50).tolist() == [0, 0, 128, 179, 255, 255]


def test_the_whole_window_changes_nothing():
    pixels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(windowed(pixels), pixels)


@given(st.floats(-300, 600), st.floats(-10, 600))
def test_law_a_brighter_pixel_is_never_darker(centre, width):
    assert (np.diff(windowed(np.arange(256, dtype=np.uint8), centre, width).astype(int)) >= 0).all()


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_a_picture_is_a_file_of_its_kind(channels, mode, kind):
    pixels = np.full((channels, 40, 20), 90, np.uint8)
    image = opened(encoded(pixels, 16, kind))
    assert (image.format.lower(), image.mode, image.size) == (kind, mode, (8, 16))


def test_a_png_holds_the_pixels():
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    np.testing.assert_array_equal(
        np.asarray(opened(encoded(pixels, None, "png"))), pixels.transpose(1, 2, 0)
    )


def test_items_come_in_the_order_asked(images):
    ids = [images.ids[5], images.ids[0], images.ids[5]]
    found = thumbnails(images, ids, side=16, kind="png", centre=60, width=100)
    assert found[0] == found[2] != found[1]
    expected = windowed(images.array[5, 0], 60, 100)
    np.testing.assert_array_equal(np.asarray(opened(found[0])), expected)
    assert thumbnails(images, []) == []


def test_a_data_address():
    assert data_url(b"abc", "png") == "data:image/png;base64,YWJj"
    assert base64.b64decode(data_url(b"\xff\x00").split(",")[1]) == b"\xff\x00"


def test_a_montage_by_hand(images):
    board = montage(images, images.ids[:3], columns=2)
    size = images.size
    assert board.shape == (1, 2 * size, 2 * size)
    np.testing.assert_array_equal(board[:, :size, size:], images.array[1])
    np.testing.assert_array_equal(board[:, size:, :size], images.array[2])
    assert not board[:, size:, size:].any()
    assert montage(images, [], columns=3).shape == (1, size, 3 * size)


def test_an_item_without_pixels_is_told(images):
    for show in (thumbnails, lambda i, ids: montage(i, ids, columns=2)):
        with pytest.raises(WorkspaceError, match=r"There is no picture to show .*'nobody'"):
            show(images, ["nobody"])


def test_an_item_takes_less_than_five_milliseconds():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 256, 256), dtype=np.uint8)
    encoded(pixels)  # Pillow's first picture loads its formats
    began = time.process_time()
    for _ in range(20):
        encoded(windowed(pixels, 120, 80), 128)
    assert (time.process_time() - began) / 20 < 0.005
