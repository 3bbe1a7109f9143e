"""What steps of masks are shown, what is predicted batch by batch, and how it is validated."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ssl_core.errors import TrainingError
from ssl_core.masks.copy_paste import CopyPaste
from ssl_core.masks.feed import Drawn, MaskExamples, MaskFeed, joined
from ssl_core.masks.networks import build_segmenter
from ssl_core.masks.overlap import dice
from ssl_core.masks.predict import each_batch, predict_masks, view_maps
from ssl_core.masks.train import fit_masks, scored, validate
from ssl_core.training.augment import MILD, NOTHING, Augmentation
from ssl_core.training.feed import Unlabeled
from ssl_core.training.predict import Device
from ssl_core.training.schedule import Schedule
from tests import toy

CPU = Device(batch_size=7)
SIZE = toy.SIZE
SHORT = Schedule(epochs=2, epoch_steps=3, batch_size=4, learning_rate=3e-3)


def pictures(n: int, seed: int = 0):
    """Pixels `(n, 1, S, S)` and masks `(n, 2, S, S)` of the toy."""
    rng = np.random.default_rng(seed)
    made = [toy.drawn(rng, i % 2 == 0, i % 3 == 0) for i in range(n)]
    pixels = np.stack([p[:, :, 0] for p, _, _ in made])[:, None]
    masks = np.stack([np.stack(m) for _, *m in made]).astype(np.float32)
    return pixels, masks


PIXELS, MASKS = pictures(24)


def some(start: int, stop: int) -> MaskExamples:
    return MaskExamples(np.arange(start, stop), Drawn(MASKS[start:stop]))


@pytest.fixture(scope="module")
def model():
    return build_segmenter("small_unet", 2, auxiliary=True, seed=1).eval()


# What a step is shown


def test_unaugmented_batches_are_the_pixels_and_their_masks():
    feed = MaskFeed(PIXELS, some(0, 12), SHORT, NOTHING, 3, CPU)
    assert feed.steps == 3
    seen = [feed.batch(number).labeled for number in range(3)]
    images = torch.cat([s.images for s in seen]).numpy()
    drawn = torch.cat([s.masks for s in seen]).numpy()
    order = [next(i for i in range(12) if np.allclose(PIXELS[i] / 255, image)) for image in images]
    assert sorted(order) == list(range(12))
    np.testing.assert_array_equal(drawn, MASKS[order])


def test_a_batch_hangs_on_seed_and_number_alone():
    def batch(number, seed=3):
        unlabeled = Unlabeled(np.arange(12, 24), (MILD, NOTHING), 2)
        feed = MaskFeed(PIXELS, some(0, 12), SHORT, MILD, seed, CPU, unlabeled, CopyPaste())
        return feed.batch(number)

    one, again = batch(4), batch(4)
    for a, b in zip((one.labeled, *one.views), (again.labeled, *again.views), strict=True):
        torch.testing.assert_close(a.images, b.images)
        torch.testing.assert_close(a.masks, b.masks, equal_nan=True)
    assert not torch.equal(batch(4, seed=4).labeled.images, one.labeled.images)
    assert one.views[0].images.shape == (8, 1, SIZE, SIZE)
    assert one.views[0].masks.shape == (8, 0, SIZE, SIZE)
    assert one.epoch == 4 / 3


def test_two_views_are_of_the_same_images():
    views = (NOTHING, NOTHING)
    feed = MaskFeed(PIXELS, some(0, 4), SHORT, NOTHING, 0, CPU, Unlabeled(np.arange(24), views))
    first, second = feed.batch(0).views
    torch.testing.assert_close(first.images, second.images)


def test_image_and_mask_go_through_one_warp():
    turned = Augmentation(flip=1.0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
    seen = MaskFeed(PIXELS, some(0, 12), SHORT, turned, 0, CPU).batch(0).labeled
    bright = seen.images[:, 0] > 100 / 255
    for c in range(2):
        assert not (seen.masks[:, c].bool() & ~bright).any()


def test_joined_examples_are_the_parts_in_their_order():
    parts = [some(0, 5), some(5, 6), some(6, 12)]
    whole = joined(parts)
    np.testing.assert_array_equal(whole.rows, np.arange(12))
    wanted = np.random.default_rng(0).permutation(12)
    np.testing.assert_array_equal(whole.masks.at(wanted), MASKS[wanted])
    np.testing.assert_array_equal(whole.masks.present, Drawn(MASKS[:12]).present)


def test_presence_follows_from_what_is_drawn():
    masks = np.zeros((1, 3, 2, 2), np.float32)
    masks[0, 0, 0, 0] = 1
    masks[0, 2, 1, 1] = math.nan
    np.testing.assert_array_equal(Drawn(masks).present, [[1, 0, math.nan]])


# What is predicted


def test_batches_come_in_order_whatever_their_size(model):
    rows = np.array([5, 2, 9, 2, 20])
    found = predict_masks(
        model,
        PIXELS,
        rows,
        lambda places, made: {"maps": made.maps, "places": places},
        device=Device(batch_size=2),
    )
    np.testing.assert_array_equal(found["places"], np.arange(5))
    np.testing.assert_array_equal(found["maps"][1], found["maps"][3])
    with torch.inference_mode():
        alone = model(torch.from_numpy(PIXELS[9:10]).float() / 255).maps.sigmoid().numpy()
    np.testing.assert_allclose(found["maps"][2:3], alone, atol=1e-5)


def test_the_mirror_is_turned_back_before_the_mean(model):
    def ask(pixels, tta):
        keep = lambda places, made: {"m": made.maps, "c": made.classes}  # noqa: E731
        return predict_masks(model, pixels, np.arange(4), keep, device=CPU, tta=tta)

    mirror = np.ascontiguousarray(PIXELS[..., ::-1])
    both = (ask(PIXELS, "none")["m"] + ask(mirror, "none")["m"][..., ::-1]) / 2
    np.testing.assert_allclose(ask(PIXELS, "flip")["m"], both, atol=1e-5)
    np.testing.assert_allclose(ask(PIXELS, "ten_crop")["m"], both, atol=1e-5)
    np.testing.assert_allclose(ask(mirror, "flip")["c"], ask(PIXELS, "flip")["c"], atol=1e-5)


def test_without_a_classifier_the_maps_maximum_says_what_is_there():
    plain = build_segmenter("small_unet", 2, auxiliary=False).eval()
    keep = lambda places, made: {"m": made.maps, "c": made.classes}  # noqa: E731
    found = predict_masks(plain, PIXELS, np.arange(3), keep, device=CPU)
    np.testing.assert_array_equal(found["c"], found["m"].max(axis=(2, 3)))


def test_several_models_see_the_same_batch(model):
    other = build_segmenter("small_unet", 2, auxiliary=True, seed=2)
    found = each_batch(
        [model, other, model],
        PIXELS,
        np.arange(3),
        lambda places, made: {str(k): one.maps for k, one in enumerate(made)},
        device=CPU,
    )
    np.testing.assert_array_equal(found["0"], found["2"])
    assert np.abs(found["0"] - found["1"]).max() > 1e-4


def test_views_come_back_in_the_pictures_own_frame(model):
    images = torch.from_numpy(PIXELS[:2])
    still = view_maps(model, images, NOTHING, 2, 0, CPU)
    np.testing.assert_allclose(still[0], still[1])
    shifted = Augmentation(flip=0, rotation=0, translation=0.3, scale=(1.0, 1.0), perspective=0)
    moved = view_maps(model, images, shifted, 3, 0, CPU)
    assert moved.shape == (3, 2, 2, SIZE, SIZE)
    assert np.isnan(moved).any()
    assert not np.isnan(moved).all()


# How it is validated and trained


def test_scores_by_hand():
    maps = np.array([0.9, 0.2, 0.6, 0.5]).reshape(1, 1, 2, 2).astype(np.float32)
    truth = np.array([1, 0, 0, math.nan]).reshape(1, 1, 2, 2).astype(np.float32)
    found = scored(maps, truth, np.ones((1, 1)))
    assert found["dice"][0, 0] == pytest.approx(2 / 3)
    assert found["loss"][0] == pytest.approx(-math.log(0.9) - math.log(0.8) - math.log(0.4), 1e-5)
    assert found["pixels"][0] == 3
    unknown = scored(maps, np.full_like(truth, math.nan), np.full((1, 1), math.nan))
    assert math.isnan(unknown["dice"][0, 0])
    assert (unknown["loss"][0], unknown["pixels"][0]) == (0, 0)
    doubted = scored(maps * 0, np.where(truth == 1, math.nan, 0), np.full((1, 1), math.nan))
    assert math.isnan(doubted["dice"][0, 0])  # not an empty mask that is rightly empty
    assert doubted["pixels"][0] == 3


def test_validation_is_the_macro_dice_of_its_items(model):
    found, loss = validate(model, PIXELS, some(0, 12), CPU)
    keep = lambda places, made: {"m": made.maps}  # noqa: E731
    maps = predict_masks(model, PIXELS, np.arange(12), keep, device=CPU)["m"]
    assert found == pytest.approx(dice(maps >= 0.5, MASKS[:12] == 1).mean())
    p = np.where(MASKS[:12] == 1, maps, 1 - maps).astype(np.float64)
    assert loss == pytest.approx(-np.log(p).mean(), rel=1e-3)
    assert all(math.isnan(value) for value in validate(model, PIXELS, some(0, 0), CPU))


def test_a_fit_keeps_the_best_epoch_and_repeats_itself():
    plan = Schedule(epochs=4, epoch_steps=4, batch_size=8, learning_rate=1e-2)

    def run():
        fresh = build_segmenter("small_unet", 2, auxiliary=False, seed=3)
        return fresh, fit_masks(fresh, PIXELS, some(0, 16), some(16, 24), plan, seed=0, device=CPU)

    (one, result), (two, again) = run(), run()
    assert result == again
    for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    scores = [epoch.score for epoch in result.history]
    assert scores[result.best] == max(scores)
    assert validate(one, PIXELS, some(16, 24), CPU)[0] == pytest.approx(scores[result.best])


def test_masks_without_a_pixel_cannot_be_learned():
    empty = MaskExamples(np.arange(4), Drawn(np.zeros_like(MASKS[:4])))
    with pytest.raises(TrainingError, match="hold no mask with a pixel: label more items"):
        fit_masks(
            build_segmenter("small_unet", 2), PIXELS, empty, some(4, 8), SHORT, seed=0, device=CPU
        )
