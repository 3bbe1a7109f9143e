"""Inference: order, batches, augmented views, the validation scorer, and nothing left behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ssl_core.errors import Cancelled
from ssl_core.training.augment import Augmentation
from ssl_core.training.models import Output, build_model
from ssl_core.training.predict import (
    Device,
    choose_device,
    predict,
    predict_views,
    to_probabilities,
    tta_views,
    validation_scorer,
)

SIZE = 24
STILL = Augmentation(flip=0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
CPU = Device("cpu", batch_size=4)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 1, SIZE, SIZE), dtype=np.uint8)
ROWS = np.array([7, 3, 19, 0, 3, 12, 5, 1, 18])


def network(findings=2, seed=1):
    return build_model("small_cnn", findings, seed=seed).eval()


def images_of(rows):
    return torch.from_numpy(PIXELS[rows]).float() / 255


class Mean(nn.Module):
    """Logit and feature: the mean of the pixels in the left half; remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 1)
        self.shapes = []

    def forward(self, images):
        self.shapes.append(tuple(images.shape))
        half = images[..., : images.shape[-1] // 2].mean(dim=(1, 2, 3))[:, None]
        return Output(half, half)


# --- predict -------------------------------------------------------------------------------


@pytest.mark.parametrize("exclusive", [False, True])
def test_predictions_are_the_models_in_the_order_of_the_rows(exclusive):
    model = network(3)
    got = predict(model, PIXELS, ROWS, exclusive=exclusive, device=CPU)
    with torch.no_grad():
        one_by_one = [model(images_of([row])) for row in ROWS]
    logits = torch.cat([output.logits for output in one_by_one])
    expected = to_probabilities(logits, exclusive=exclusive).numpy()
    np.testing.assert_allclose(got.probabilities, expected, rtol=1e-4, atol=1e-6)
    features = torch.cat([output.features for output in one_by_one]).numpy()
    np.testing.assert_allclose(got.features, features, rtol=1e-4, atol=1e-5)
    assert got.probabilities.dtype == got.features.dtype == np.float32
    np.testing.assert_array_equal(got.probabilities[1], got.probabilities[4])  # the same row
    assert len(np.unique(got.probabilities[:, 0])) == len(set(ROWS.tolist()))


def test_no_rows_give_empty_arrays():
    got = predict(network(3), PIXELS, ROWS[:0], exclusive=False, device=CPU)
    assert got.probabilities.shape == (0, 3)
    assert got.features.shape == (0, 128)


@pytest.mark.parametrize("tta", ["none", "flip", "ten_crop"])
@pytest.mark.parametrize("batch_size", [1, 2, 9, 100])
def test_the_batch_size_makes_no_difference(tta, batch_size):
    model = network()
    whole, parts = (
        predict(model, PIXELS, ROWS, exclusive=False, device=Device("cpu", size), tta=tta)
        for size in (5, batch_size)
    )
    np.testing.assert_allclose(whole.probabilities, parts.probabilities, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole.features, parts.features, rtol=1e-4, atol=1e-5)


def test_a_memory_map_is_read_as_it_lies(tmp_path):
    np.save(tmp_path / "pixels.npy", PIXELS)
    mapped = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    one = predict(network(), PIXELS, ROWS, exclusive=False, device=CPU)
    other = predict(network(), mapped, ROWS, exclusive=False, device=CPU)
    np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_exclusive_rows_sum_to_one_and_others_need_not():
    model = network(4)
    for tta in ("none", "flip", "ten_crop"):
        got = predict(model, PIXELS, ROWS, exclusive=True, device=CPU, tta=tta).probabilities
        np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-5)
    got = predict(model, PIXELS, ROWS, exclusive=False, device=CPU).probabilities
    assert np.abs(got.sum(axis=1) - 1).max() > 0.1
    assert ((got > 0) & (got < 1)).all()


def test_a_model_in_training_is_switched_to_evaluation():
    model = network().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one = predict(model, PIXELS, ROWS, exclusive=False, device=CPU)
    assert not model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    again = predict(model, PIXELS, ROWS, exclusive=False, device=CPU)
    np.testing.assert_array_equal(one.probabilities, again.probabilities)


def test_every_batch_is_reported_under_the_stage():
    told = []
    predict(network(), PIXELS, ROWS, exclusive=False, device=CPU, report=told.append, stage="pool")
    assert [(event.stage, event.done, event.total) for event in told] == [
        ("pool", 4, 9),
        ("pool", 8, 9),
        ("pool", 9, 9),
    ]


class Broken(Mean):
    def forward(self, images):
        raise MemoryError("out of memory")


def cancel(event):
    raise Cancelled("stopped")


@pytest.mark.parametrize(("model", "report", "fault"), [
    (Broken(), lambda event: None, MemoryError),
    (Mean(), cancel, Cancelled),
])  # fmt: skip
def test_a_fault_leaves_no_inference_mode_behind(model, report, fault):
    caught = None
    try:
        predict(model, PIXELS, ROWS, exclusive=False, device=CPU, report=report)
    except fault as error:
        caught = error  # held: its traceback keeps the frames alive
    assert caught is not None
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


# --- views ---------------------------------------------------------------------------------


def test_flip_is_the_image_and_its_mirror():
    images = torch.rand(2, 1, 5, 7)
    one, mirror = tta_views(images, "flip")
    assert torch.equal(one, images)
    assert torch.equal(mirror, torch.flip(images, dims=[3]))
    assert [torch.equal(v, images) for v in tta_views(images, "none")] == [True]


@pytest.mark.parametrize(
    ("height", "width", "h", "w", "top", "left"),
    [(256, 256, 224, 224, 16, 16), (16, 32, 14, 28, 1, 2), (15, 17, 13, 15, 1, 1)],
)
def test_ten_crop_is_four_corners_the_centre_and_their_mirrors(height, width, h, w, top, left):
    images = torch.arange(height * width, dtype=torch.float32).view(1, 1, height, width)
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w), (top, left)]
    views = list(tta_views(images, "ten_crop"))
    assert len(views) == 10
    for (y, x), crop, mirror in zip(corners, views[::2], views[1::2], strict=True):
        assert torch.equal(crop, images[..., y : y + h, x : x + w])
        assert torch.equal(mirror, crop.flip(3))


def test_probabilities_and_features_are_means_over_views():
    pixels = np.zeros((1, 1, 16, 16), np.uint8)
    pixels[..., :8] = 255  # white on the left: the view sees 1, its mirror 0
    got = predict(Mean(), pixels, np.array([0]), exclusive=False, device=CPU, tta="flip")
    sigmoid = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(
        got.probabilities, [[(sigmoid + 0.5) / 2]], rtol=1e-6
    )  # not of logits
    np.testing.assert_allclose(got.features, [[0.5]])


def test_ten_crop_shows_the_model_seven_eighths():
    model = Mean()
    predict(model, PIXELS, ROWS[:3], exclusive=False, device=CPU, tta="ten_crop")
    assert model.shapes == [(3, 1, 21, 21)] * 10


def test_the_mean_over_views_by_another_way():
    model = network()
    with torch.no_grad():
        views = [model(view).logits.sigmoid() for view in tta_views(images_of(ROWS), "ten_crop")]
    got = predict(model, PIXELS, ROWS, exclusive=False, device=CPU, tta="ten_crop")
    np.testing.assert_allclose(got.probabilities, sum(views) / 10, rtol=1e-4, atol=1e-6)


# --- augmented views -----------------------------------------------------------------------


def look(model, *, seed=0, views=3, spec=Augmentation(), rows=ROWS, batch=4, exclusive=False):  # noqa: B008
    return predict_views(
        model,
        PIXELS,
        rows,
        views=views,
        spec=spec,
        seed=seed,
        exclusive=exclusive,
        device=Device("cpu", batch),
    )


def test_views_have_their_shape_and_are_drawn_from_the_seed():
    model = network(3)
    torch_state = torch.get_rng_state()
    one, again, other = look(model), look(model), look(model, seed=1)
    assert one.shape == (3, len(ROWS), 3)
    assert one.dtype == np.float32
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(axis=(0, 2)).all()
    assert (one[0] != one[1]).any(axis=1).all()
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_the_same_row_in_two_places_has_views_of_its_own():
    views = look(network())
    assert (views[:, 1] != views[:, 4]).any()


def test_views_that_do_not_move_are_predictions():
    model = network()
    expected = predict(model, PIXELS, ROWS, exclusive=False, device=CPU).probabilities
    for view in look(model, spec=STILL, batch=3):
        np.testing.assert_allclose(view, expected, rtol=1e-4, atol=1e-6)


def test_views_of_exclusive_classes_sum_to_one():
    np.testing.assert_allclose(look(network(3), exclusive=True).sum(axis=2), 1, atol=1e-5)


def test_views_of_nothing():
    assert look(network(3), rows=ROWS[:0]).shape == (3, 0, 3)
    assert look(network(3), views=0).shape == (0, len(ROWS), 3)


# --- the validation scorer -----------------------------------------------------------------


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("frozen", [0, 2, 4])
def test_the_scorer_gives_what_predict_gives_while_the_rest_trains(frozen, exclusive):
    model = network(3)
    model.freeze(frozen, norm=False)
    score = validation_scorer(model, PIXELS, ROWS, exclusive=exclusive, device=CPU)
    before = None
    for _ in range(3):
        expected = predict(model, PIXELS, ROWS, exclusive=exclusive, device=CPU).probabilities
        got = score(model)
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)
        assert before is None or not np.allclose(before, got)
        before = got
        model.train()
        model(images_of(ROWS)).logits.square().sum().backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p -= 0.05 * p.grad
    assert not torch.is_inference_mode_enabled()


def test_frozen_blocks_are_run_once(monkeypatch):
    model = network()
    model.freeze(2, norm=False)
    calls = []
    stem = model.stem
    monkeypatch.setattr(model, "stem", lambda images: calls.append(len(images)) or stem(images))
    score = validation_scorer(model, PIXELS, ROWS, exclusive=False, device=CPU)
    for _ in range(3):
        score(model)
    assert calls == [4, 4, 1]


@pytest.mark.parametrize("frozen", [0, 2])
def test_the_scorer_of_no_rows(frozen):
    model = network(3)
    model.freeze(frozen, norm=False)
    score = validation_scorer(model, PIXELS, ROWS[:0], exclusive=False, device=CPU)
    assert score(model).shape == (0, 3)


# --- the machine ---------------------------------------------------------------------------


def test_auto_takes_cuda_when_there_is_one(monkeypatch):
    for there, name in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert choose_device("auto") == name
    assert choose_device("cuda:1") == "cuda:1"


def test_autocast_is_for_cuda_alone():
    with Device("cpu", autocast=True).mixed():
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_autocast_is_for_devices_that_compute_in_bf16(monkeypatch, native):
    def supported(including_emulation=True):
        return native or including_emulation  # before Ampere, CUDA only emulates it

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    assert isinstance(Device("cuda").mixed(), torch.autocast) == native
    assert not isinstance(Device("cuda", autocast=False).mixed(), torch.autocast)


def test_a_network_goes_where_it_is_run():
    model = network()
    model.freeze(1, norm=False)
    elsewhere = Device("meta", batch_size=4)  # a device that every machine has
    validation_scorer(model, PIXELS, ROWS, exclusive=False, device=elsewhere)
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_pixels_are_placed_channels_last():
    colour = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    placed = CPU.place(colour[:, :, ::-1])  # negative strides, as of a flipped view
    assert placed.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(placed.numpy(), colour[:, :, ::-1])
