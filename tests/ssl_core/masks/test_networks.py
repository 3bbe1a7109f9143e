"""Networks: shapes at any size, seeds, weights in and out, and what cannot be loaded."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from ssl_core.errors import ConfigError
from ssl_core.masks.networks import NETWORKS, build_segmenter, load_segmenter
from ssl_core.training.models import save_model

LIGHT = ["shallow_unet", "small_unet", "unet_resnet18", "unet_efficientnet_b0"]


def pictures(n=2, channels=1, size=(40, 50), seed=0):
    return torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", LIGHT)
@pytest.mark.parametrize("auxiliary", [True, False])
def test_one_output_at_any_size(name, auxiliary):
    model = build_segmenter(name, 3, auxiliary=auxiliary).eval()
    with torch.inference_mode():
        for size in ((40, 50), (32, 64), (1, 7)):
            out = model(pictures(size=size))
            assert out.maps.shape == (2, 3, *size)
            assert out.features.ndim == 2
            assert (out.logits is None) != auxiliary
            if auxiliary:
                assert out.logits.shape == (2, 3)
                expected = model.head(out.features)  # no dropout in evaluation
                torch.testing.assert_close(out.logits, expected)


def test_padding_is_black_and_to_the_right_and_below():
    model = build_segmenter("unet_resnet18", 1, seed=3).eval()
    small, large = pictures(size=(33, 40)), torch.zeros(2, 1, 64, 64)
    large[..., :33, :40] = small
    with torch.inference_mode():
        torch.testing.assert_close(model(small).maps, model(large).maps[..., :33, :40])


def test_grey_is_colour_of_equal_channels():
    model = build_segmenter("small_unet", 1).eval()
    grey = pictures()
    with torch.inference_mode():
        torch.testing.assert_close(model(grey).maps, model(grey.expand(-1, 3, -1, -1)).maps)


def test_s4s_network_by_the_numbers():
    model = build_segmenter("shallow_unet", 1, auxiliary=False)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [
        64,
        64,
        128,
        128,
        256,
        256,
        128,
        128,
        64,
        64,
        1,
    ]
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    # 3→64→64→128→128→256→256, two transposed, 256→128→128 and 128→64→64, then 64→1
    assert sum(p.numel() for p in model.parameters()) == 1_862_849
    assert model(pictures(size=(8, 8))).features.shape == (2, 256)
    assert model.multiple == 4


def test_the_classifier_drops_a_fifth():
    model = build_segmenter("small_unet", 1)
    assert model.dropout.p == 0.2


def test_seeds_decide_everything_and_nothing_global():
    before = torch.random.get_rng_state()
    first, again, other = (build_segmenter("small_unet", 2, seed=s) for s in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert not torch.equal(first.head.weight, other.head.weight)


@pytest.mark.parametrize("name", ["small_unet", "unet_efficientnet_b0"])
def test_saved_and_loaded_it_says_the_same(name, tmp_path):
    for auxiliary in (True, False):
        model = build_segmenter(name, 2, auxiliary=auxiliary, seed=5).eval()
        identity = save_model(model, tmp_path)
        assert identity == save_model(model, tmp_path)
        loaded = load_segmenter(tmp_path / f"{identity}.safetensors", name, 2)
        with torch.inference_mode():
            for ours, theirs in zip(model(pictures()), loaded(pictures()), strict=True):
                assert (ours is None and theirs is None) or torch.equal(ours, theirs)


def test_another_network_or_damaged_bytes_are_refused(tmp_path):
    identity = save_model(build_segmenter("small_unet", 2), tmp_path)
    path = tmp_path / f"{identity}.safetensors"
    with pytest.raises(ConfigError, match="not a small_unet with 3 findings"):
        load_segmenter(path, "small_unet", 3)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_segmenter(path, "small_unet", 2)
    with pytest.raises(ConfigError, match="do not exist"):
        load_segmenter(tmp_path / "none.safetensors", "small_unet", 2)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_an_encoder_begins_with_torchvisions_weights(suffix, tmp_path):
    net, path = resnet18(), tmp_path / f"weights.{suffix}"
    torch.save(net.state_dict(), path) if suffix == "pth" else save_file(net.state_dict(), path)
    model = build_segmenter("unet_resnet18", 1, weights=str(path))
    assert torch.equal(model.body.encoder.layer4[1].conv2.weight, net.layer4[1].conv2.weight)
    images = pictures(1, 3, (64, 64))
    net.fc = torch.nn.Identity()
    with torch.inference_mode():
        expected = net.eval()((images - model.mean) / model.std)
        torch.testing.assert_close(model.eval()(images).features, expected, rtol=1e-4, atol=1e-4)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(resnet18().state_dict(), path)
    with pytest.raises(ConfigError, match=r"do not fit unet_resnet34: \d+ tensors"):
        build_segmenter("unet_resnet34", 1, weights=str(path))
    with pytest.raises(ConfigError, match="no encoder"):
        build_segmenter("small_unet", 1, weights=str(path))
    with pytest.raises(ConfigError, match="'vgg' is unknown"):
        build_segmenter("vgg", 1)


def test_every_paper_backbone_has_a_name():
    assert {f"unet_efficientnet_b{n}" for n in range(8)} <= NETWORKS.keys()
    assert {"unet_resnet18", "unet_resnet34", "unet_resnet50"} <= NETWORKS.keys()
