"""Class-activation maps: the law that ties them to the logit, and where they lie on the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_core.errors import ConfigError
from ssl_core.images import fit_image
from ssl_core.pictures.activation import class_activation, over_image
from ssl_core.training.augment import as_float
from ssl_core.training.feed import Examples
from ssl_core.training.models import Classifier, backbone_names, build_model, load_model, save_model
from ssl_core.training.predict import Device, predict
from ssl_core.training.train import fit
from tests.training import CPU, STILL, network, schedule


def noise(n: int, channels: int, size: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, channels, size, size), dtype=np.uint8)


def lively(model: Classifier) -> Classifier:
    """Batch statistics and a head that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2, generator=generator)
            module.running_var.uniform_(0.6, 1.5, generator=generator)
            module.bias.data.uniform_(-0.3, 0.3, generator=generator)
    model.head.weight.data.uniform_(-1, 1, generator=generator)
    model.head.bias.data.uniform_(-2, 2, generator=generator)
    return model.eval()


@pytest.mark.parametrize("backbone", backbone_names())
def test_the_mean_of_the_map_and_the_bias_are_the_logit(backbone):
    model = lively(build_model(backbone, 3))
    pixels = noise(2, 1, 96)
    found = class_activation(model, pixels)
    with torch.inference_mode():
        logits = model(as_float(torch.from_numpy(pixels))).logits.numpy()
    assert found.maps.shape[:2] == (2, 3)
    assert found.maps.shape[2] > 1  # it is a map
    assert np.ptp(found.maps) > 0
    scale = max(1.0, float(np.abs(found.maps).max()))
    law = found.maps.mean(axis=(2, 3), dtype=np.float64) + found.bias
    np.testing.assert_allclose(law, logits, atol=2e-5 * scale)
    np.testing.assert_allclose(found.logits, logits, atol=2e-5 * scale)


def test_the_map_by_hand():
    """One block that hands the picture on: the map is the weighted sum of its colours."""
    model = Classifier("by_hand", [nn.Identity()], 3, 2)
    model.mean.zero_()
    model.std.fill_(1)
    model.head.weight.data = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 4.0]])
    model.head.bias.data = torch.tensor([0.5, -1.0])
    pixels = np.zeros((1, 3, 1, 2), np.uint8)
    pixels[0, :, 0, 0] = (255, 0, 0)
    pixels[0, :, 0, 1] = (0, 255, 51)
    found = class_activation(model, pixels)
    np.testing.assert_allclose(found.maps, [[[[1, 2]], [[0, -0.2]]]], atol=1e-6)
    np.testing.assert_allclose(found.logits, [[2.0, -1.1]], atol=1e-6)
    np.testing.assert_allclose(found.bias, [0.5, -1.0])


def test_a_densenet_s_map_is_of_what_the_last_relu_leaves():
    model = lively(build_model("densenet121", 1))
    model.head.weight.data.fill_(-1)
    assert class_activation(model, noise(1, 3, 64)).maps.max() <= 0


def test_batches_frozen_blocks_and_training_mode_change_nothing():
    model = lively(build_model("small_cnn", 2))
    model.dropout.p = 0.5
    pixels = noise(5, 3, 32)
    whole = class_activation(model, pixels)
    model.train()
    np.testing.assert_allclose(
        class_activation(model, pixels, device=Device(batch_size=2)).maps, whole.maps, atol=1e-5
    )
    assert not model.training
    model.freeze(2, norm=True)
    np.testing.assert_allclose(class_activation(model, pixels).maps, whole.maps, atol=1e-5)
    assert not any(p.grad is not None for p in model.parameters())


def test_no_image_gives_an_empty_answer():
    found = class_activation(build_model("small_cnn", 2), np.empty((0, 1, 32, 32), np.uint8))
    assert found.maps.shape[:2] == (0, 2)
    assert found.logits.shape == (0, 2)


def test_a_loaded_model_explains_what_predict_says(tmp_path):
    identity = save_model(lively(build_model("small_cnn", 2)), tmp_path)
    model = load_model(tmp_path / f"{identity}.safetensors", "small_cnn", 2)
    pixels = noise(3, 1, 32)
    found = class_activation(model, pixels)
    said = predict(model, pixels, np.arange(3), exclusive=False, device=CPU).probabilities
    np.testing.assert_allclose(1 / (1 + np.exp(-found.logits)), said, atol=1e-5)


def test_the_map_of_a_trained_network_lies_on_what_it_learned():
    """Positives have a bright spot in one quarter, negatives none: the map finds the quarter."""
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 80, (96, 1, 64, 64), dtype=np.uint8)
    quarters = rng.integers(0, 2, (96, 2))
    for i in range(0, 96, 2):
        y, x = quarters[i] * 32 + 8
        pixels[i, 0, y : y + 16, x : x + 16] += 120
    positive = (np.arange(96) % 2 == 0).astype(float)[:, None]
    training, rest = (Examples(r, positive[r]) for r in np.split(np.arange(96), [64]))
    model = network()
    fit(model, pixels, training, rest, schedule(epochs=20), **_settings())
    shown = rest.rows[rest.targets[:, 0] == 1]
    maps = class_activation(model, pixels[shown]).maps[:, 0]
    assert maps.shape[1:] == (4, 4)
    by_quarter = maps.reshape(-1, 2, 2, 2, 2).mean(axis=(2, 4))
    found = np.stack(np.unravel_index(by_quarter.reshape(-1, 4).argmax(1), (2, 2)), axis=1)
    assert (found == quarters[shown]).all(axis=1).mean() > 0.9


def _settings() -> dict[str, object]:
    return {"spec": STILL, "seed": 3, "exclusive": False, "device": CPU, "findings": ("A",)}


@pytest.mark.parametrize("head", [nn.Sequential(nn.Linear(128, 8), nn.ReLU(), nn.Linear(8, 2))])
def test_a_head_that_is_not_linear_is_refused_by_name(head):
    model = build_model("small_cnn", 2)
    model.head = head
    with pytest.raises(ConfigError, match="small_cnn does not end in global pooling"):
        class_activation(model, noise(1, 1, 32))


def test_zero_is_no_evidence_and_one_is_the_ceiling():
    peaks = np.array([[4.0, -3.0], [0.0, 2.0]])
    shown = over_image(peaks, 2, 2, fit="squash")
    np.testing.assert_allclose(shown, [[1, 0], [0, 0.5]])
    np.testing.assert_allclose(over_image(peaks, 2, 2, fit="squash", ceiling=8), shown / 2)
    np.testing.assert_allclose(over_image(peaks, 2, 2, fit="squash", ceiling=2.0), [[1, 0], [0, 1]])
    assert not over_image(-peaks.clip(0), 3, 3, fit="squash").any()


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 400), st.integers(1, 400),
    st.sampled_from(["pad", "squash"]), st.integers(0, 9),
)  # fmt: skip
def test_a_map_has_the_image_s_size_and_stays_in_range(h, w, height, width, fit, seed):
    cam = np.random.default_rng(seed).normal(size=(h, w))
    shown = over_image(cam, height, width, fit=fit)
    assert shown.shape == (height, width)
    assert shown.dtype == np.float32
    assert 0 <= shown.min() <= shown.max() <= 1
    assert np.isfinite(shown).all()


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize(("height", "width"), [(60, 240), (240, 60), (120, 120)])
def test_a_bright_place_is_marked_where_it_is_in_the_image(fit, height, width):
    """Fitted and brought back, the maximum lies on the same pixels, padding or not."""
    rgb = np.zeros((height, width, 3), np.uint8)
    y, x = height // 4, 3 * width // 4
    rgb[y - 6 : y + 6, x - 6 : x + 6] = 255
    small = fit_image(rgb, 48, fit, 1)[0].astype(float)
    shown = over_image(small, height, width, fit=fit)
    rows, columns = np.indices(shown.shape)
    assert abs((shown * rows).sum() / shown.sum() - (y - 0.5)) < 2.5
    assert abs((shown * columns).sum() / shown.sum() - (x - 0.5)) < 2.5


@pytest.mark.parametrize("wrong", [{"height": 0}, {"width": 0}, {"ceiling": 0.0}, {"ceiling": -1}])
def test_what_cannot_be_shown_is_refused(wrong):
    with pytest.raises(ValueError, match=r"at least one pixel|above 0"):
        over_image(np.ones((2, 2)), **{"height": 2, "width": 2, "fit": "pad", **wrong})
