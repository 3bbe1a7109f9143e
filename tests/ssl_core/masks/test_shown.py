"""Masks between a picture that a reader sees and the item's own frame."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.errors import WorkspaceError
from ssl_core.masks.files import digest_of, fit_mask, keep, load, unfit_mask
from ssl_core.masks.overlap import dice
from ssl_core.masks.shown import ShownMasks

OWN, SIZE = (60, 90), 32


@pytest.fixture
def shown(tmp_path) -> ShownMasks:
    return ShownMasks(tmp_path / "masks", SIZE, "pad", lambda item_id: OWN)


def disc(shape: tuple[int, int], y: float, x: float, radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - y, columns - x) < radius


def test_at_the_image_s_own_size_it_is_kept_to_the_pixel(shown):
    mask = np.random.default_rng(0).random(OWN) < 0.5
    digest = shown.keep("a", mask)
    assert digest == digest_of(mask)
    np.testing.assert_array_equal(load(shown.folder, digest), mask)
    np.testing.assert_array_equal(shown.load(digest, OWN), mask)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_at_the_working_size_it_is_enlarged_and_trains_as_it_was_drawn(tmp_path, fit):
    shown = ShownMasks(tmp_path, SIZE, fit, lambda item_id: OWN)
    drawn = disc((SIZE, SIZE), 15, 14, 6)
    kept = load(shown.folder, shown.keep("a", drawn))
    assert kept.shape == OWN
    again = fit_mask(kept, SIZE, fit)
    assert dice(again[None, None], drawn[None, None])[0, 0] > 0.97


def test_what_is_drawn_beside_a_padded_image_is_cut_off(shown):
    drawn = np.zeros((SIZE, SIZE), bool)
    drawn[:10] = True  # the padding ends at row 5
    kept = load(shown.folder, shown.keep("a", drawn))
    assert kept[:8].all()
    assert not kept[20:].any()
    drawn[3:] = False
    with pytest.raises(ValueError, match="smaller than a pixel"):
        shown.keep("a", drawn)


@pytest.mark.parametrize("shape", [(90, 60), (60, 91), (31, 32), (1, 1)])
def test_another_size_is_refused_with_both_sizes(shown, shape):
    with pytest.raises(ValueError, match=f"it is {shape[1]} × {shape[0]} pixels, and the image 90"):
        shown.keep("a", np.ones(shape, bool))
    assert not shown.folder.exists()


def test_a_model_s_mask_lies_on_a_picture_of_either_size(shown):
    drawn = disc((SIZE, SIZE), 15, 14, 6)
    digest = keep(shown.folder, drawn)
    np.testing.assert_array_equal(shown.load(digest, OWN), unfit_mask(drawn, OWN, "pad"))
    np.testing.assert_array_equal(shown.load(digest, (SIZE, SIZE)), drawn)


def test_a_reader_s_mask_on_a_picture_of_the_working_size_and_of_another_image(shown):
    drawn = disc(OWN, 30, 40, 12)
    digest = shown.keep("a", drawn)
    np.testing.assert_array_equal(shown.load(digest, (SIZE, SIZE)), fit_mask(drawn, SIZE, "pad"))
    with pytest.raises(WorkspaceError, match="is 90 × 60 pixels and the picture 40 × 50"):
        shown.load(digest, (50, 40))
