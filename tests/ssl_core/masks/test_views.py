"""Image and mask in one warp: equivariance, unknown pixels, opinions carried between views."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_core.masks.strong import FAMILIES, Strong
from ssl_core.masks.views import (
    between,
    presence,
    see_pair,
    unwarp,
    warp_maps,
    warp_masks,
)
from ssl_core.training.augment import MILD, S0, Augmentation, affine_warps
from ssl_core.training.rand_augment import RandAugment, view

STILL = Augmentation(flip=0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
MIRROR = Augmentation(flip=1.0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
GEOMETRIC = Strong(3, 10.0, ("geometric",), weak=S0)
SPECS = {
    "s0": S0,
    "mild": MILD,
    "still": STILL,
    "rand": RandAugment(weak=Augmentation(saturation=0.3, contrast=0.2)),
    "strong": Strong(weak=Augmentation(saturation=0.3, brightness=0.2)),
}


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(n=6, size=24, channels=1, seed=0):
    """Images that are their own masks: a bright ellipse on black, away from the border."""
    g = chance(seed)
    y, x = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    middle = size * (0.35 + 0.3 * torch.rand(n, 2, 1, 1, generator=g))
    radius = size * (0.1 + 0.15 * torch.rand(n, 2, 1, 1, generator=g))
    inside = ((y - middle[:, 0]) / radius[:, 0]) ** 2 + ((x - middle[:, 1]) / radius[:, 1]) ** 2 < 1
    masks = inside.float()[:, None]
    return masks.expand(-1, channels, -1, -1).clone(), masks


def same(one, other):
    """Equal, and unknown at the same places."""
    return torch.equal(torch.isnan(one), torch.isnan(other)) and torch.equal(
        one.nan_to_num(), other.nan_to_num()
    )


# --- equivariance ------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [S0, MIRROR, GEOMETRIC], ids=["s0", "mirror", "strong"])
def test_the_mask_of_the_warped_image_is_the_warped_mask(spec):
    images, masks = blobs(32)
    seen = see_pair(images, masks, spec, chance(1))
    assert torch.equal((seen.images >= 0.5).float(), seen.masks)
    assert not torch.equal(seen.masks, masks)
    assert seen.masks.unique().tolist() == [0, 1]


def test_a_grey_image_and_its_threshold_go_the_same_way_but_for_the_edge():
    images, _ = blobs(16, 48)
    smooth = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    masks = (smooth >= 0.5).float()
    seen = see_pair(smooth, masks, S0, chance(2))
    differ = ((seen.images >= 0.5).float() != seen.masks).float().mean(dim=(1, 2, 3))
    assert differ.max() < 0.02


@pytest.mark.parametrize("name", sorted(SPECS.keys() - {"strong"}))
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_those_of_view_bit_for_bit(name, channels):
    images = torch.rand(5, channels, 20, 16, generator=chance(3))
    masks = (torch.rand(5, 2, 20, 16, generator=chance(4)) < 0.3).float()
    seen = see_pair(images, masks, SPECS[name], chance(5))
    assert torch.equal(seen.images, view(images, SPECS[name], chance(5)))


@pytest.mark.parametrize("name", SPECS)
def test_seeded_and_inputs_are_left_alone(name):
    images, masks = blobs(channels=3)
    masks[0, 0, :3] = math.nan
    before = images.clone(), masks.clone()
    first, again = (see_pair(images, masks, SPECS[name], chance(6)) for _ in range(2))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert same(images, before[0])
    assert same(masks, before[1])
    if name != "still":
        assert not same(first.images, see_pair(images, masks, SPECS[name], chance(7)).images)


def test_nothing_moves_where_nothing_can():
    images, masks = blobs()
    seen = see_pair(images, masks, STILL, chance())
    assert torch.equal(seen.images, images)
    assert torch.equal(seen.masks, masks)
    assert torch.equal(seen.matrices, torch.eye(3).double().repeat(6, 1, 1))


def test_bytes_and_empty_batches_are_taken():
    images = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    assert see_pair(images, torch.ones(2, 1, 8, 8), MILD, chance()).images.max() <= 1.0
    nothing = see_pair(torch.zeros(0, 1, 8, 8), torch.zeros(0, 1, 8, 8), S0, chance())
    assert nothing.images.shape == nothing.masks.shape == (0, 1, 8, 8)
    assert see_pair(images, torch.ones(2, 0, 8, 8), S0, chance()).masks.shape == (2, 0, 8, 8)
    with pytest.raises(ValueError, match="do not fit"):
        see_pair(images, torch.ones(2, 1, 8, 7), S0, chance())


# --- families ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["noise", "colour"])
def test_noise_and_colour_leave_the_mask(family):
    images, masks = blobs(24, channels=3)
    images = 0.2 + 0.6 * images
    seen = see_pair(images, masks, Strong(2, 10.0, (family,), weak=STILL), chance(8))
    assert torch.equal(seen.masks, masks)
    changed = (seen.images != images).flatten(1).any(dim=1)
    assert changed.float().mean() > 0.8
    assert seen.images.min() >= 0
    assert seen.images.max() <= 1
    assert torch.equal(seen.images[:, 0], seen.images[:, 2])  # grey stays grey


@pytest.mark.parametrize("operation", FAMILIES["noise"])
def test_each_noise_does_what_its_name_says(operation):
    from ssl_core.masks.strong import NOISES

    flat = torch.full((2, 1, 64, 64), 0.5)
    step = flat.clone()
    step[..., 32:] = 0.9
    far = torch.tensor([0.5, 1.0]).view(2, 1, 1, 1)
    if operation == "blur":
        out = NOISES[operation](step, far, chance())
        torch.testing.assert_close(NOISES[operation](flat, far, chance()), flat)
        rise = (out[:, 0, 0, 31] - 0.5).tolist()
        assert 0 < rise[0] < 0.2 + 1e-6
        assert (out.diff(dim=-1) >= -1e-6).all()
        return
    out = NOISES[operation](flat, far, chance())
    spread = out.std(dim=(1, 2, 3))
    expected = far.flatten() * (0.1 if operation == "grain" else 0.3 * 0.5)
    torch.testing.assert_close(spread, expected, rtol=0.05, atol=0)


def test_magnitude_zero_changes_nothing_but_contrast_stretching():
    images, masks = blobs(12)
    images = 0.2 + 0.5 * images
    names = ("geometric", "noise")
    seen = see_pair(images, masks, Strong(3, 0.0, names, weak=STILL), chance(9))
    torch.testing.assert_close(seen.images, images, atol=1e-5, rtol=0)
    assert torch.equal(seen.masks, masks)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"operations": 9}, "operations is 9"),
        ({"magnitude": -1}, "magnitude is -1"),
        ({"families": ("weather",)}, "'weather'"),
        ({"families": ()}, "empty"),
    ],
)
def test_strong_refuses_what_it_cannot_do(changes, message):
    with pytest.raises(ValueError, match=message):
        Strong(**changes)


# --- unknown pixels ----------------------------------------------------------------------------


def shift(by):
    """Everything moves `by` widths to the right."""
    still, zero = torch.zeros(1, dtype=torch.bool), torch.zeros(1)
    return affine_warps(still, zero, torch.ones(1), torch.tensor([[by, 0.0]]))


def test_the_outside_of_a_label_is_background_and_of_an_opinion_unknown():
    masks = torch.ones(1, 1, 4, 4)
    label = warp_masks(masks, shift(0.5))
    assert label[0, 0, 0].tolist() == [0, 0, 1, 1]
    opinion = warp_masks(masks, shift(0.5), outside=math.nan)
    assert torch.isnan(opinion[0, 0, 0]).tolist() == [True, True, False, False]
    assert torch.isnan(warp_maps(0.3 * masks, shift(0.5))[0, 0, 0]).tolist()[:2] == [True, True]


@pytest.mark.parametrize("outside", [0.0, math.nan])
def test_unknown_pixels_stay_unknown_where_they_go(outside):
    masks = torch.ones(2, 2, 4, 4)
    masks[0, 0, :, 0] = math.nan
    moved = warp_masks(masks, shift(0.25).repeat(2, 1, 1), outside=outside)
    assert torch.isnan(moved[0, 0, 0, 1])
    assert torch.isnan(moved[:, :, :, 1:]).sum() == 4  # one column of one mask
    assert (moved[:, :, :, 2:] == 1).all()


def test_half_an_unknown_neighbour_is_unknown_and_less_is_not():
    masks = torch.ones(1, 1, 1, 8)
    masks[..., :4] = math.nan
    for by, first in ((0.5 / 8, 4), (0.4 / 8, 4), (0.6 / 8, 5)):
        known = ~torch.isnan(warp_masks(masks, shift(by)))[0, 0, 0]
        assert int(known[1:].nonzero()[0]) + 1 == first + (by == 0.5 / 8)


def test_what_is_known_is_not_dimmed_by_what_is_not():
    maps = torch.full((1, 1, 1, 8), 0.8)
    maps[..., :4] = math.nan
    moved = warp_maps(maps, shift(0.4 / 8))
    torch.testing.assert_close(moved[0, 0, 0, 4:], torch.full((4,), 0.8))


def test_a_hole_hides_the_mask():
    images, masks = torch.full((8, 1, 16, 16), 0.7), torch.ones(8, 1, 16, 16)
    seen = see_pair(images, masks, RandAugment(0, 0.0, 0.8, weak=STILL), chance(10))
    assert torch.isnan(seen.masks).any()
    assert torch.equal(torch.isnan(seen.masks), seen.images == 0)


def test_presence_of_whole_items():
    masks = torch.zeros(4, 1, 2, 2)
    masks[1, 0, 0, 0] = 1
    masks[2, 0, 0, 0] = math.nan
    masks[3, 0, 0] = torch.tensor([1.0, math.nan])
    found = presence(masks)[:, 0].tolist()
    assert found[:2] == [0, 1]
    assert math.isnan(found[2])
    assert found[3] == 1


# --- from one view to another ------------------------------------------------------------------


def test_an_opinion_of_one_view_is_carried_into_another():
    images, masks = blobs(32, 48)
    here, there = (see_pair(images, masks, S0, chance(seed)) for seed in (11, 12))
    carried = warp_masks(here.masks, between(here.matrices, there.matrices), outside=math.nan)
    known = ~torch.isnan(carried)
    assert known.float().mean() > 0.6
    assert (carried[known] == there.masks[known]).float().mean() > 0.985
    identity = between(here.matrices, here.matrices)
    torch.testing.assert_close(identity, torch.eye(3).double().repeat(32, 1, 1))


def test_unwarping_brings_a_view_back():
    images, masks = blobs(32, 48)
    seen = see_pair(images, masks, S0, chance(13))
    back = unwarp(seen.masks, seen.matrices)
    known = ~torch.isnan(back)
    assert ((back[known] >= 0.5).float() == masks[known]).float().mean() > 0.985


def test_a_view_past_its_horizon_has_no_opinion():
    tilted = torch.eye(3).double()[None].clone()
    tilted[0, 2, 0] = 0.99
    assert torch.isnan(unwarp(torch.ones(1, 1, 8, 8), torch.linalg.inv(tilted) * -1)).all()
