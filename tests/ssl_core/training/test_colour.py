"""Colour jitter: torchvision's saturation, turns that add up, and grey that stays grey."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from ssl_core.training.augment import MILD, Augmentation, augment
from ssl_core.training.colour import YIQ, colour_matrices, tint
from ssl_core.training.rand_augment import RandAugment, view

turns = st.floats(-0.5, 0.5)
factors = st.floats(0.0, 2.0)


def one(saturation: float, hue: float) -> torch.Tensor:
    return colour_matrices(*torch.tensor([[saturation], [hue]], dtype=torch.float64))[0]


@pytest.mark.parametrize("saturation", [0.0, 0.4, 1.0, 1.6])
def test_saturation_is_torchvisions(saturation):
    images = 0.3 + 0.4 * torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    ours = tint(images, one(saturation, 0.0).expand(2, 3, 3))
    torch.testing.assert_close(ours, tv.adjust_saturation(images, saturation), atol=1e-3, rtol=0)


@given(a=turns, b=turns, s=factors, t=factors)
def test_changes_one_after_the_other_are_one_change(a, b, s, t):
    torch.testing.assert_close(one(s, a) @ one(t, b), one(s * t, a + b), atol=1e-9, rtol=0)


def test_a_third_of_a_turn_and_none():
    torch.testing.assert_close(one(1.0, 0.0), torch.eye(3).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(one(1.0, 1.0), torch.eye(3).double(), atol=1e-12, rtol=0)
    third = one(1.0, 1 / 3)
    torch.testing.assert_close(third @ third @ third, torch.eye(3).double(), atol=1e-9, rtol=0)
    red = third @ torch.tensor([1.0, 0.0, 0.0]).double()
    assert red.argmax() != 0  # no longer red


@given(s=factors, a=turns, grey=st.floats(0.0, 1.0))
def test_grey_stays_grey_and_brightness_stays(s, a, grey):
    picture = torch.full((1, 3, 2, 2), grey, dtype=torch.float64)
    torch.testing.assert_close(tint(picture, one(s, a)[None]), picture, atol=1e-5, rtol=0)
    luma = torch.tensor(YIQ[0], dtype=torch.float64)
    torch.testing.assert_close(luma @ one(s, a), luma, atol=1e-9, rtol=0)


def test_a_picture_of_one_channel_is_left_alone():
    picture = torch.rand(2, 1, 4, 4)
    assert tint(picture, one(0.3, 0.2).expand(2, 3, 3)) is picture


COLOURED = Augmentation(
    flip=0, rotation=0, translation=0, scale=(1, 1), perspective=0, saturation=0.5, hue=0.1
)


@pytest.mark.parametrize("spec", [COLOURED, RandAugment(0, 0, 0, COLOURED)])
def test_views_of_colour_pictures_differ_and_those_of_grey_ones_do_not(spec):
    images = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    shown = view(images, spec, torch.Generator().manual_seed(0))
    assert (shown - images).abs().amax(dim=(1, 2, 3)).min() > 0.01
    assert not torch.equal(shown, view(images, spec, torch.Generator().manual_seed(1)))
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    seen = view(grey, spec, torch.Generator().manual_seed(0))
    torch.testing.assert_close(seen, grey, atol=1e-4, rtol=0)


def test_the_stream_of_chance_is_as_it_was_without_colour():
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    first = augment(images, MILD, torch.Generator().manual_seed(0))
    same = augment(images, dataclasses.replace(MILD, hue=0.0), torch.Generator().manual_seed(0))
    assert torch.equal(first, same)


@pytest.mark.parametrize(("name", "value"), [("saturation", 1.1), ("hue", 0.6), ("hue", -0.1)])
def test_out_of_range_is_refused(name, value):
    with pytest.raises(ValueError, match=f"augmentation {name} is {value}"):
        Augmentation(**{name: value})
