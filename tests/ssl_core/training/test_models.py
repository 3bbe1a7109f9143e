"""Backbones: shapes, torchvision as the second opinion, freezing, weights files, saving."""

from __future__ import annotations

import pickle
import re
from functools import cache
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision import models as zoo

from ssl_core.errors import ConfigError
from ssl_core.training import models
from ssl_core.training.models import (
    BACKBONES,
    IMAGENET_MEAN,
    IMAGENET_STD,
    backbone_names,
    build_model,
    load_model,
    save_model,
)

SECOND_OPINION = ["densenet121", "resnet18", "mobilenet_v2", "mobilenet_v3_small"]


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def scramble(net, seed=0):
    """Batch statistics and affine terms that a forgotten layer or a wrong mode would show."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(0.8 + torch.rand(tensor.shape, generator=generator) / 2)
    return net


@cache
def torchvision_net(backbone):
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        return scramble(zoo.get_model(backbone, weights=None)).eval()


def copy_of(state):
    return {key: value.detach().clone() for key, value in state.items()}


def same_state(one, other):
    assert one.keys() == other.keys()
    return [key for key in one if not torch.equal(one[key], other[key])] == []


def one_step(model, images):
    """A step of plain gradient descent, as large as to change whatever can change."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    model(images).logits.square().sum().backward()
    with torch.no_grad():
        for p in parameters:
            p -= 0.1 * p.grad


# --- every backbone ------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", backbone_names())
def test_every_backbone_gives_logits_that_are_linear_in_its_features(backbone):
    model = build_model(backbone, 3).eval()
    images = noise(2, 1, 64, 64)
    with torch.no_grad():
        logits, features = model(images)
        torch.testing.assert_close(model.head(features), logits)
        torch.testing.assert_close(model(images.expand(-1, 3, -1, -1)).logits, logits)
    assert logits.shape == (2, 3)
    assert features.shape == (2, model.head.in_features)
    assert logits.isfinite().all()
    assert model.backbone == backbone
    assert model.frozen_blocks == 0
    assert len(model.blocks) > 3


@pytest.mark.parametrize("backbone", SECOND_OPINION)
def test_features_are_torchvisions_for_the_same_weights(backbone, tmp_path):
    net = torchvision_net(backbone)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    model = build_model(backbone, 2, weights=str(tmp_path / "net.safetensors")).eval()
    images, seen = noise(2, 3, 64, 64), []
    last = next(m for m in list(net.children())[-1].modules() if isinstance(m, nn.Linear))
    handle = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    mean, std = (torch.tensor(c).view(3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        net((images - mean) / std)
        features = model(images).features
    handle.remove()
    torch.testing.assert_close(features, seen[0], rtol=1e-4, atol=1e-5)
    assert features.std() > 1e-3


def test_an_unknown_backbone_lists_the_known():
    with pytest.raises(ConfigError, match=r"'vgg' is unknown; use one of \['densenet121', "):
        build_model("vgg", 1)


# --- seeds ---------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["small_cnn", "resnet18"])
def test_the_seed_draws_the_weights_and_nothing_else_is_touched(backbone):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, again, other = (build_model(backbone, 2, seed=s).state_dict() for s in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002
    assert same_state(one, again)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    drawn = [k for k in one if k.startswith("blocks") and k.endswith("weight") and one[k].ndim == 4]
    assert all(not torch.equal(one[k], other[k]) for k in drawn)


def test_with_weights_the_seed_draws_the_head_alone(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file(torchvision_net("resnet18").state_dict(), path)
    one, other = (build_model("resnet18", 2, weights=str(path), seed=s) for s in (1, 2))
    assert same_state(one.blocks.state_dict(), other.blocks.state_dict())
    assert not torch.equal(one.head.weight, other.head.weight)


# --- freezing ------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("backbone", "blocks"), [("small_cnn", k) for k in range(5)] + [("mobilenet_v2", 14)]
)
def test_frozen_blocks_do_not_change_and_the_others_do(backbone, blocks, norm):
    model = scramble(build_model(backbone, 2, seed=1))
    model.freeze(blocks, norm=norm)
    before = copy_of(model.state_dict())
    one_step(model, noise(4, 1, 32, 32))
    after = model.state_dict()
    frozen = tuple(f"blocks.{i}." for i in range(blocks))
    batch_norm = ("running_mean", "running_var", "num_batches_tracked")
    for key in before:
        still = key.startswith(frozen) or (norm and key.endswith(batch_norm))
        assert torch.equal(before[key], after[key]) == still, key
    assert all(p.grad is None for block in model.blocks[:blocks] for p in block.parameters())


@pytest.mark.parametrize(
    ("backbone", "blocks"), [("small_cnn", 2), ("small_cnn", 4), ("densenet121", 2)]
)
def test_stem_and_tail_are_forward(backbone, blocks):
    model, images = build_model(backbone, 2), noise(2, 1, 64, 64)
    whole = model.eval()(images)
    model.freeze(blocks, norm=False)
    stem = model.stem(images)
    assert not stem.requires_grad
    for _ in range(2):  # a kept stem can be used again: blocks that work in place do not spoil it
        parts = model.tail(stem)
        torch.testing.assert_close(parts.logits, whole.logits)
        torch.testing.assert_close(parts.features, whole.features)
    torch.testing.assert_close(model(images).logits, whole.logits)


def test_thawing_gives_every_gradient_back():
    model = build_model("small_cnn", 1)
    model.freeze(3, norm=True)
    model.freeze(0, norm=False)
    before = copy_of(model.state_dict())
    one_step(model, noise(4, 1, 32, 32))
    assert all(not torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_a_frozen_part_stays_in_evaluation_when_the_model_trains():
    model = build_model("small_cnn", 1)
    model.freeze(2, norm=False)
    model.train()
    assert [block.training for block in model.blocks] == [False, False, True, True]
    assert model.training
    model.eval()
    assert not any(m.training for m in model.modules())


def test_frozen_statistics_are_also_those_that_a_neck_brings_along_but_not_those_of_a_fresh_one():
    model, images = build_model("small_cnn", 4, neck=1), torch.rand(8, 1, 32, 32)
    statistics = [buffer for name, buffer in model.neck.named_buffers() if "running" in name]
    model.freeze(2, norm=True)  # as pretraining begins: its neck learns its statistics
    first = [one.clone() for one in statistics]
    model.train()(images)
    assert not any(torch.equal(a, b) for a, b in zip(first, statistics, strict=True))
    model.freeze(2, norm=True)  # as fine-tuning begins
    learned = [one.clone() for one in statistics]
    model.train()(images * 3)
    assert all(torch.equal(a, b) for a, b in zip(learned, statistics, strict=True))
    model.freeze(2, norm=False)
    model.train()(images * 3)
    assert not any(torch.equal(a, b) for a, b in zip(learned, statistics, strict=True))


@pytest.mark.parametrize("blocks", [-1, 5])
def test_more_blocks_than_there_are_cannot_be_frozen(blocks):
    with pytest.raises(ConfigError, match=f"frozen_blocks = {blocks}: small_cnn has 4 blocks"):
        build_model("small_cnn", 1).freeze(blocks, norm=False)


def test_dropout_works_in_training_alone():
    model = build_model("small_cnn", 2)
    model.dropout.p = 0.5
    images = noise(2, 1, 32, 32)
    model.freeze(4, norm=True)  # so that nothing but dropout differs
    assert not torch.equal(model.train()(images).logits, model(images).logits)
    assert torch.equal(model.eval()(images).logits, model(images).logits)


# --- bf16 ----------------------------------------------------------------------------------


def test_under_bf16_autocast_pooling_and_head_stay_float32():
    model = build_model("resnet18", 2).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        got = model(noise(96, 1, 32, 32))
    assert (got.logits.dtype, got.features.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(got.logits, model.head(got.features))
    # 96 different pictures: in bf16, half of them would share a score with another
    assert all(len(got.logits[:, c].unique()) == 96 for c in range(2))


def test_the_blocks_do_run_in_bf16():
    model, seen = build_model("resnet18", 2).eval(), []
    model.blocks[-1].register_forward_hook(lambda module, given, got: seen.append(got.dtype))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(noise(2, 1, 32, 32))
    assert seen == [torch.bfloat16]


# --- weights files -------------------------------------------------------------------------


def refused(path, backbone="resnet18"):
    with pytest.raises(ConfigError) as caught:
        build_model(backbone, 1, weights=str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_a_weights_file_is_read_whatever_its_precision(name, dtype, tmp_path):
    path, state = tmp_path / name, torchvision_net("resnet18").state_dict()
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    model = build_model("resnet18", 4, weights=str(path))
    assert torch.equal(model.blocks[0][0].weight, state["conv1.weight"].float())
    assert torch.equal(
        model.blocks[4][1].bn2.running_var, state["layer4.1.bn2.running_var"].float()
    )
    assert model.head.weight.shape == (4, 512)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_torchvisions_own_densenet_files_have_older_names(tmp_path):
    state = torchvision_net("densenet121").state_dict()
    older = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in older
    torch.save(older, tmp_path / "densenet121-a639ec97.pth")
    model = build_model("densenet121", 1, weights=str(tmp_path / "densenet121-a639ec97.pth"))
    got = model.blocks.state_dict()
    assert torch.equal(got["11.running_mean"], state["features.norm5.running_mean"])
    key = "denselayer2.conv2.weight"
    assert torch.equal(got[f"4.{key}"], state[f"features.denseblock1.{key}"])


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(torchvision_net("mobilenet_v2").state_dict(), tmp_path / "net.safetensors")
    message = refused(tmp_path / "net.safetensors")
    assert "do not fit resnet18: " in message
    assert "tensors are missing, the first is 'bn1.bias'; choose the file of this back" in message


def test_weights_of_another_width_are_refused(tmp_path):
    state = dict(torchvision_net("resnet18").state_dict())
    state["conv1.weight"] = torch.zeros(32, 3, 7, 7)
    save_file(state, tmp_path / "net.safetensors")
    assert "do not fit resnet18: size mismatch for conv1.weight" in refused(
        tmp_path / "net.safetensors"
    )


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "do not exist: give a file, 'imagenet' or 'none'." in refused(tmp_path / "net.pth")
    assert "do not exist" in refused(tmp_path)


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a weights file was executed",))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"not weights at all", pickle.dumps(Trap()), pickle.dumps([1, 2])],
    ids=["empty", "half a zip", "text", "code", "list"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_damaged_or_foreign_file_is_refused_unexecuted(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert "cannot be read" in refused(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=40), st.sampled_from([b"", b"\x80\x02", b"}", b"(", b"]"]))
def test_any_bytes_are_refused_in_one_sentence(tmp_path, content, start):
    path = tmp_path / "net.pth"
    path.write_bytes(start + content)
    with pytest.raises(ConfigError, match="weights"):
        models._read(path)


@pytest.mark.parametrize(
    "content", [{"epoch": 3, "state_dict": {}}, {1: torch.zeros(1)}], ids=["training state", "ids"]
)
def test_a_file_with_more_than_tensors_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "net.pth")
    assert "hold more than tensors: save the state_dict alone." in refused(tmp_path / "net.pth")


def test_the_small_network_takes_no_weights():
    with pytest.raises(ConfigError, match="small_cnn has no published weights"):
        build_model("small_cnn", 1, weights="imagenet")


def test_weights_that_cannot_be_fetched_are_told(monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr(zoo, "get_model", offline)
    with pytest.raises(ConfigError, match=r"'imagenet' of resnet18 could not be fetched \(.*\): g"):
        build_model("resnet18", 1, weights="imagenet")


# --- saving and loading --------------------------------------------------------------------


def test_saving_and_loading_is_exact(tmp_path):
    model = scramble(build_model("small_cnn", 3, seed=9))
    one_step(model, noise(4, 1, 32, 32))
    identity = save_model(model, tmp_path / "models")
    again = load_model(tmp_path / "models" / f"{identity}.safetensors", "small_cnn", 3)
    assert same_state(model.state_dict(), again.state_dict())
    assert not again.training
    images = noise(2, 1, 32, 32, seed=4)
    assert torch.equal(model.eval()(images).logits, again(images).logits)


def test_the_id_is_the_contents(tmp_path):
    model = build_model("small_cnn", 2, seed=1)
    identity = save_model(model, tmp_path)
    assert re.fullmatch(r"[0-9a-f]{32}", identity)
    bits = (tmp_path / f"{identity}.safetensors").read_bytes()
    model.to(memory_format=torch.channels_last)  # another order in memory, the same content
    model.freeze(2, norm=True)
    assert save_model(model, tmp_path) == identity
    assert [path.name for path in tmp_path.iterdir()] == [f"{identity}.safetensors"]
    assert (tmp_path / f"{identity}.safetensors").read_bytes() == bits
    with torch.no_grad():
        model.head.bias[0] += 1e-7
    assert save_model(model, tmp_path) != identity
    with torch.no_grad():
        model.blocks[0][1].running_mean[0] += 1
    assert save_model(model, tmp_path) != identity
    assert len(list(tmp_path.iterdir())) == 3


def test_a_save_that_is_cut_off_leaves_no_model(tmp_path, monkeypatch):
    def cut_off(path, content):
        with path.open("wb") as file:
            file.write(content[:9])
        raise OSError("disk is full")

    monkeypatch.setattr(Path, "write_bytes", cut_off)
    with pytest.raises(OSError, match="full"):
        save_model(build_model("small_cnn", 1), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_loading_refuses_what_is_not_that_model(tmp_path):
    identity = save_model(build_model("small_cnn", 2), tmp_path)
    path = tmp_path / f"{identity}.safetensors"
    for backbone, findings in (("small_cnn", 3), ("resnet18", 2)):
        with pytest.raises(ConfigError, match=f"is not a {backbone} with {findings} findings"):
            load_model(path, backbone, findings)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="cannot be read"):
        load_model(path, "small_cnn", 2)
    with pytest.raises(ConfigError, match="do not exist"):
        load_model(tmp_path / "none.safetensors", "small_cnn", 2)


def test_every_name_is_built_by_torchvision_or_here():
    assert backbone_names() == [*BACKBONES, "small_cnn"]
    assert set(BACKBONES) <= set(zoo.list_models())
