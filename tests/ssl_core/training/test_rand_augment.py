"""RandAugment: every operation by hand or against PIL, and the laws of `augment` again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from pydantic import TypeAdapter, ValidationError

from ssl_core.training.augment import MILD, Augmentation, augment, warp
from ssl_core.training.rand_augment import (
    INTENSITIES,
    OPERATIONS,
    REACH,
    RandAugment,
    change,
    cut_out,
    move,
    sample_holes,
    sample_operations,
    view,
)

STILL = Augmentation(flip=0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
GENTLE = RandAugment(0, 0.0, 0.0, STILL)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=6, channels=1, height=12, width=12, seed=0):
    return torch.rand(n, channels, height, width, generator=chance(seed))


def operated(images, name, level):
    which = torch.full((len(images),), OPERATIONS.index(name))
    return change(images, which, torch.full((len(images),), level, dtype=torch.float64))


def moved(images, name, level):
    which = torch.full((len(images),), OPERATIONS.index(name))
    level = torch.full((len(images),), level, dtype=torch.float64)
    return warp(images, move(which, level, aspect=images.shape[-1] / images.shape[-2]))


# --- operations ------------------------------------------------------------------------------


def test_no_operation_turns_dark_to_bright():
    """Point operations keep the order of values within a picture, at any strength."""
    images = pictures(1, height=8, width=8)
    order = images.flatten().argsort()
    for name in ("autocontrast", "brightness", "contrast", "gamma"):
        for level in (-1.0, -0.5, 0.5, 1.0):
            values = operated(images, name, level).flatten()[order]
            assert (values.diff() >= -1e-6).all(), (name, level)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("level", [-1.0, -0.3, 0.6, 1.0])
def test_every_operation_stays_in_range(name, level):
    for images in (pictures(channels=3), torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)):
        got = moved(operated(images, name, level), name, level)
        assert got.shape == images.shape
        assert ((got >= 0) & (got <= 1 + 1e-6)).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_at_no_strength_nothing_happens(name):
    images = pictures()
    if name != "autocontrast":
        got = moved(operated(images, name, 0.0), name, 0.0)
        torch.testing.assert_close(got, images, rtol=1e-5, atol=1e-5)


def test_each_picture_gets_its_own():
    images = pictures(3)
    which = torch.tensor([OPERATIONS.index(n) for n in ("gamma", "rotate", "autocontrast")])
    got = change(images, which, torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(got[0], images[0] ** 2)
    assert torch.equal(got[1], images[1])
    assert (got[2].min(), got[2].max()) == (0, 1)


@pytest.mark.parametrize("level", [-1.0, 0.5])
def test_sharpness_is_pils(level):
    pixels = np.random.default_rng(0).integers(60, 190, (9, 9), dtype=np.uint8)
    expected = ImageEnhance.Sharpness(Image.fromarray(pixels)).enhance(1 + 0.9 * level)
    got = operated(torch.from_numpy(pixels)[None, None] / 255, "sharpness", level) * 255
    inside = (
        slice(1, -1),
        slice(1, -1),
    )  # PIL leaves the border, and cuts off twice
    np.testing.assert_allclose(got[0, 0].numpy()[inside], np.array(expected)[inside], atol=1.9)


def test_autocontrast_by_hand():
    image = torch.tensor([[[[0.2, 0.3], [0.4, 0.6]]]])
    expected = torch.tensor([[[[0.0, 0.25], [0.5, 1.0]]]])
    torch.testing.assert_close(operated(image, "autocontrast", 1.0), expected)


def test_shifts_by_hand():
    image = torch.zeros(1, 1, 10, 20)
    image[..., 5, 4] = 1.0
    right = moved(image, "shift x", 1.0)  # by 0.3 of 20 pixels
    assert right[0, 0, 5, 10] == pytest.approx(1.0, abs=1e-4)
    up = moved(image, "shift y", -1.0)  # by 0.3 of 10
    assert up[0, 0, 2, 4] == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("height", "width"), [(21, 21), (21, 41)])
def test_shears_move_by_pixels_for_each_pixel(height, width):
    """At level 1 a row 10 below the centre is read 3 pixels further to the right."""
    image = pictures(1, height=height, width=width)
    got = moved(image, "shear x", 1.0)
    torch.testing.assert_close(
        got[0, 0, height // 2 + 10, 3:-4], image[0, 0, height // 2 + 10, 6:-1], atol=1e-3, rtol=0
    )
    got = moved(image, "shear y", 1.0)
    torch.testing.assert_close(
        got[0, 0, 3:-4, width // 2 + 10], image[0, 0, 6:-1, width // 2 + 10], atol=1e-3, rtol=0
    )


def test_a_rotation_is_that_of_augment():
    image = pictures(1)
    spec = Augmentation(flip=0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
    assert torch.equal(augment(image, spec, chance()), image)
    quarter = torch.tensor([OPERATIONS.index("rotate")])
    turned = warp(image, move(quarter, torch.tensor([90 / 30], dtype=torch.float64)))
    torch.testing.assert_close(turned, image.rot90(1, (2, 3)), atol=1e-4, rtol=0)


def test_a_hole_by_hand():
    images = torch.ones(2, 1, 8, 8)
    got = cut_out(images, torch.tensor([[0.0, 0.0, 0.5], [-1.0, -1.0, 0.5]]))
    assert got[0, 0].sum() == 64 - 16  # 4 x 4 in the middle
    assert (got[0, 0, 2:6, 2:6] == 0).all()
    assert (got[1, 0, :2, :2] == 0).all()  # a quarter of it lies within
    assert got[1, 0].sum() == 64 - 4


# --- laws ------------------------------------------------------------------------------------


def test_without_operations_it_is_the_weak_views_chain():
    images = pictures()
    assert torch.equal(view(images, MILD, chance(3)), augment(images, MILD, chance(3)))
    torch.testing.assert_close(view(images, GENTLE, chance()), images, atol=1e-5, rtol=1e-5)


def test_one_seed_gives_one_view_and_another_does_not():
    images, spec = pictures(channels=3), RandAugment()
    one, again, other = (view(images, spec, chance(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert one.shape == images.shape
    assert one.dtype == torch.float32
    assert ((one >= 0) & (one <= 1)).all()
    assert len(torch.unique(one.flatten(1), dim=0)) == len(images)


def test_bytes_and_no_pictures_at_all():
    bytes_ = (pictures() * 255).byte()
    torch.testing.assert_close(
        view(bytes_, RandAugment(), chance()), view(bytes_ / 255, RandAugment(), chance())
    )
    assert view(bytes_[:0], RandAugment(), chance()).shape == (0, 1, 12, 12)


def test_operations_are_drawn_evenly_and_go_either_way():
    which, level = sample_operations(4000, RandAugment(3, 4.0), chance())
    counts = torch.bincount(which.flatten(), minlength=len(OPERATIONS))
    assert counts.min() > 0.85 * 12000 / len(OPERATIONS)
    assert set(level.unique().tolist()) == {-0.4, 0.4}
    assert abs(level.mean()) < 0.02
    holes = sample_holes(4000, RandAugment(cutout=0.4), chance())
    assert holes[:, 2].max() <= 0.4
    assert holes[:, :2].min() < -0.95


def test_every_intensity_has_a_reach():
    assert set(INTENSITIES) < set(REACH) == set(OPERATIONS)


@pytest.mark.parametrize(
    ("field", "value"), [("operations", 9), ("operations", -1), ("magnitude", 10.1), ("cutout", 2)]
)
def test_out_of_range_is_refused(field, value):
    with pytest.raises(ValueError, match=f"strong {field} is {value}: give a number from 0 to"):
        RandAugment(**{field: value})


def test_it_is_read_from_a_configuration():
    read = TypeAdapter(RandAugment).validate_python
    assert read({"operations": 3, "weak": {"flip": 0.0}}).weak == Augmentation(flip=0.0)
    with pytest.raises(ValidationError):
        read({"operatoins": 3})
