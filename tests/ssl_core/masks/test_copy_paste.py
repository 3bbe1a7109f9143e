"""Copy-paste: what is pasted, where, how often, and that masks follow."""

from __future__ import annotations

import math

import pytest
import torch

from ssl_core.masks.copy_paste import CopyPaste, copy_paste

ALWAYS = CopyPaste(1.0)


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=6, sick=(0, 1)):
    """Item i is i/10 grey all over; the sick have a lesion in a corner of their own, and findings
    0 and 1 by turns.
    """
    images = (torch.arange(n) / 10).view(n, 1, 1, 1).expand(n, 3, 6, 6).clone()
    masks = torch.zeros(n, 2, 6, 6)
    for place, i in enumerate(sick):
        masks[i, place % 2, place, : place + 2] = 1
    return images, masks


def test_pasted_pixels_are_a_donors_and_so_is_the_mask():
    images, masks = batch()
    new_images, new_masks = copy_paste(images, masks, ALWAYS, chance())
    for i in range(2, 6):
        lesion = new_masks[i].amax(dim=0) == 1
        (donor,) = ((10 * new_images[i, 0][lesion]).round().unique()).tolist()
        assert torch.equal(new_masks[i], masks[int(donor)])
        assert torch.equal(new_images[i, 0][~lesion], images[i, 0][~lesion])
    assert torch.equal(new_images[:2], images[:2])  # not normal: left alone
    assert torch.equal(new_masks[:2], masks[:2])


def test_inputs_are_left_alone_and_the_same_seed_pastes_the_same():
    images, masks = batch()
    before = images.clone(), masks.clone()
    first, again = (copy_paste(images, masks, ALWAYS, chance(1)) for _ in range(2))
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = [copy_paste(images, masks, ALWAYS, chance(seed))[0] for seed in range(20)]
    assert any(not torch.equal(first[0], one) for one in other)


@pytest.mark.parametrize("probability", [0.0, 0.5, 0.75, 1.0])
def test_as_many_items_get_one_as_the_probability_says(probability):
    images, masks = batch(2000, sick=(0, 1))
    _, new = copy_paste(images, masks, CopyPaste(probability), chance(2))
    share = (new[2:] == 1).flatten(1).any(dim=1).float().mean()
    assert abs(share - probability) < 0.04


def test_onto_all_reaches_the_sick_but_never_themselves():
    images, masks = batch(2, sick=(0, 1))
    _, new = copy_paste(images, masks, CopyPaste(1.0, onto="all"), chance())
    assert torch.equal(new[0], new[1])  # each has both lesions, in both findings' masks
    assert new.sum() == 2 * masks.sum()
    alone = batch(1, sick=(0,))
    assert copy_paste(*alone, CopyPaste(1.0, onto="all"), chance())[1] is alone[1]


def test_times_pastes_several():
    images, masks = batch(3, sick=(0, 1))
    once = [int(copy_paste(images, masks, ALWAYS, chance(s))[1][2].sum()) for s in range(12)]
    often = [
        int(copy_paste(images, masks, CopyPaste(1.0, 8), chance(s))[1][2].sum()) for s in range(12)
    ]
    assert set(once) == {2, 3}
    assert 5 in often


def test_unknown_is_not_normal_and_stays_unknown():
    images, masks = batch()
    masks[3] = math.nan
    masks[0, 1] = math.nan  # nobody knows whether the donor has finding 1
    _, new = copy_paste(images, masks, ALWAYS, chance(3))
    assert torch.isnan(new[3]).all()
    _, new = copy_paste(images[[0, 2]], masks[[0, 2]], ALWAYS, chance())
    assert torch.equal(torch.isnan(new[1, 1]), masks[0, 0] == 1)


def test_without_donors_or_items_nothing_happens():
    images, masks = batch(sick=())
    assert copy_paste(images, masks, ALWAYS, chance())[0] is images
    empty = copy_paste(images[:0], masks[:0], ALWAYS, chance())
    assert empty[0].shape == (0, 3, 6, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probability": 1.1}, "probability is 1.1"),
        ({"times": 0}, "times is 0"),
        ({"onto": "some"}, "onto is 'some'"),
    ],
)
def test_options_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        CopyPaste(**changes)
