"""Backbones: a stack of blocks from torchvision, then global pooling and one linear layer."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ssl_core.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Output(NamedTuple):
    """`logits` `(B, C)` and the pooled `features` `(B, D)` that they are linear in, float32."""

    logits: Tensor
    features: Tensor


class Network(nn.Module):
    """What the loop trains: a `backbone` by name, whose images are normalised as ImageNet's."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def normalised(self, images: Tensor) -> Tensor:
        """Images `(B, 1 or 3, H, W)` in [0, 1] as `(B, 3, H, W)` of mean 0 and deviation 1."""
        return (images.expand(-1, 3, -1, -1) - self.mean) / self.std

    def freeze(self, blocks: int, *, norm: bool) -> None:
        """Take the first `blocks` out of training; with `norm`, keep all batch statistics too."""
        raise NotImplementedError

    def trained(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters that train: of the body, and of the last layers."""
        raise NotImplementedError


class Classifier(Network):
    """Blocks, global average pooling, the neck, dropout, one linear layer.

    The neck is empty, or `neck` hidden layers as a projection head has them (SimCLRv2).

    `forward` takes images `(B, 1 or 3, H, W)` in [0, 1]. The blocks are a flat sequence so that
    the first of them can be frozen, and run once instead of at every step (`stem`).
    """

    def __init__(
        self,
        backbone: str,
        blocks: list[nn.Module],
        width: int,
        findings: int,
        dropout: float = 0.0,
        neck: int = 0,
    ) -> None:
        super().__init__(backbone)
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, findings)
        self.neck = nn.Sequential(*[m for _ in range(neck) for m in _hidden(width)])
        self.frozen_blocks = 0
        self.frozen_norm = False
        self.frozen_neck = False

    def forward(self, images: Tensor) -> Output:
        """Logits and features of images `(B, 1 or 3, H, W)` in [0, 1], or of what `stem` gave."""
        return self.tail(self.stem(images) if images.shape[1] <= 3 else images)

    def stem(self, images: Tensor) -> Tensor:
        """Normalise and run the frozen blocks: no gradient, never changed by training."""
        x = self.normalised(images)
        if self.frozen_blocks:
            with torch.no_grad():
                x = self.blocks[: self.frozen_blocks](x)
        return x

    def tail(self, x: Tensor) -> Output:
        """Run the blocks that train, then the pooling and the head: these in float32 always."""
        x = self.blocks[self.frozen_blocks :](x)
        # Under bf16 autocast items would share scores: bf16 has 128 numbers between 1 and 2.
        with torch.autocast(x.device.type, enabled=False):
            features = self.neck(x.float().mean(dim=(2, 3)))
            return Output(self.head(self.dropout(features)), features)

    def freeze(self, blocks: int, *, norm: bool) -> None:
        """Take the first `blocks` out of training; with `norm`, keep all batch statistics too.

        Those of a neck that has seen no batch yet are not kept: there is nothing to keep.

        Raises:
            ConfigError: there are not that many blocks.
        """
        if not 0 <= blocks <= len(self.blocks):
            raise ConfigError(
                f"frozen_blocks = {blocks}: {self.backbone} has {len(self.blocks)} blocks."
            )
        seen = [n for name, n in self.neck.named_buffers() if name.endswith("batches_tracked")]
        self.frozen_blocks, self.frozen_norm = blocks, norm
        self.frozen_neck = norm and all(n > 0 for n in seen)
        for position, block in enumerate(self.blocks):
            block.requires_grad_(position >= blocks)

    def trained(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The blocks that are not frozen and the neck; the last layer."""
        body = [p for p in self.blocks.parameters() if p.requires_grad]
        return [*body, *self.neck.parameters()], list(self.head.parameters())

    def train(self, mode: bool = True) -> Classifier:
        """Switch to training; frozen blocks and frozen batch norm stay as in evaluation."""
        super().train(mode)
        self.blocks[: self.frozen_blocks].eval()
        kept = [self.blocks] * self.frozen_norm + [self.neck] * self.frozen_neck
        for module in (module for part in kept for module in part.modules()):
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def _hidden(width: int) -> list[nn.Module]:
    return [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True)]


def _densenet(net: nn.Module) -> tuple[list[nn.Module], int]:
    # torchvision applies this ReLU in forward(), outside `features`.
    return [*net.features, nn.ReLU(inplace=True)], net.classifier.in_features  # type: ignore


def _resnet(net: nn.Module) -> tuple[list[nn.Module], int]:
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)  # type: ignore
    return [stem, net.layer1, net.layer2, net.layer3, net.layer4], net.fc.in_features  # type: ignore


def _features(net: nn.Module) -> tuple[list[nn.Module], int]:
    layers = [m for m in net.classifier.modules() if isinstance(m, nn.Linear)]  # type: ignore
    return [*net.features], layers[0].in_features  # type: ignore


Cut = Callable[[nn.Module], tuple[list[nn.Module], int]]

BACKBONES: dict[str, Cut] = {
    "densenet121": _densenet,
    "densenet169": _densenet,
    "resnet18": _resnet,
    "resnet34": _resnet,
    "resnet50": _resnet,
    "resnet152": _resnet,
    "mobilenet_v2": _features,
    "mobilenet_v3_small": _features,
    "mobilenet_v3_large": _features,
    "efficientnet_b0": _features,
    "efficientnet_b4": _features,
}


def _small_cnn(findings: int, neck: int) -> Classifier:
    """Four blocks for small pictures; the first strides, as full size costs most on a CPU."""

    def norm(convolution: nn.Conv2d) -> list[nn.Module]:
        return [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)]

    widths = (16, 32, 64, 128)
    blocks: list[nn.Module] = [nn.Sequential(*norm(nn.Conv2d(3, 16, 5, 2, 2, bias=False)))]
    for a, b in pairwise(widths):
        convolution = nn.Conv2d(a, b, 3, padding=1, bias=False)
        blocks.append(nn.Sequential(*norm(convolution), nn.MaxPool2d(2)))
    return Classifier("small_cnn", blocks, widths[-1], findings, neck=neck)


def build_model(
    backbone: str, findings: int, *, weights: str = "none", seed: int = 0, neck: int = 0
) -> Classifier:
    """A fresh classifier with C = `findings` outputs.

    Args:
        backbone: a name of `backbone_names()`.
        findings: C ≥ 1.
        weights: "none"; "imagenet" (torchvision's default weights, fetched by torchvision); or the
            path of a safetensors or weights-only .pth file in torchvision's own naming.
        seed: of everything drawn: head and neck, and the blocks if there are no weights.
        neck: hidden layers between pooling and head, 0 or more.

    Raises:
        ConfigError: unknown backbone, or weights that are missing or belong to another network.
    """
    if backbone not in backbone_names():
        raise ConfigError(f"backbone {backbone!r} is unknown; use one of {backbone_names()}.")
    with torch.random.fork_rng(devices=[]):  # seeds here only: nothing is seeded globally
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed CUDA as well
        if backbone == "small_cnn":
            if weights != "none":
                raise ConfigError("small_cnn has no published weights: set weights = 'none'.")
            return _small_cnn(findings, neck)
        net = _torchvision(backbone, weights)
        if weights not in ("none", "imagenet"):
            _load_torchvision(net, Path(weights), backbone)
        blocks, width = BACKBONES[backbone](net)
        return Classifier(backbone, blocks, width, findings, neck=neck)


def with_new_head(model: Classifier, findings: int, *, neck: int, seed: int) -> Classifier:
    """A classifier that begins with the blocks and the first `neck` hidden layers of another.

    Its head of C = `findings` outputs is fresh, drawn from `seed`.

    Raises:
        ConfigError: the model has fewer hidden layers.
    """
    fresh = build_model(model.backbone, findings, seed=seed, neck=neck)
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("head.")}
    try:
        missing, _ = fresh.load_state_dict(kept, strict=False)
    except RuntimeError as error:  # of another width
        raise ConfigError(f"{model.backbone} cannot pass its blocks on: {error}.") from None
    if any(key.startswith("neck.") for key in missing):
        raise ConfigError(f"{model.backbone} has fewer than {neck} hidden layers to begin with.")
    return fresh


def backbone_names() -> list[str]:
    """Every name that `build_model` takes."""
    return [*BACKBONES, "small_cnn"]


def _torchvision(backbone: str, weights: str) -> nn.Module:
    from torchvision import models as zoo  # half of the package's import time

    try:
        return zoo.get_model(backbone, weights="DEFAULT" if weights == "imagenet" else None)  # type: ignore
    except (OSError, RuntimeError) as error:  # no network, or a download that was cut off
        raise ConfigError(
            f"weights 'imagenet' of {backbone} could not be fetched ({error}): give a file."
        ) from None


def _load_torchvision(net: nn.Module, path: Path, backbone: str) -> None:
    # torchvision's own DenseNet files still say norm.1 where its networks say norm1.
    named = {re.sub(r"(denselayer\d+\.\w+)\.(\d)", r"\1\2", k): v for k, v in _read(path).items()}
    state = {k: v.float() if v.is_floating_point() else v for k, v in named.items()}
    heads = ("classifier.", "fc.")
    wanted = {k for k in net.state_dict() if not k.startswith(heads)}
    # Files from before torch 0.4.1 do not count batches, and nothing here reads the count.
    counted = {k for k in wanted - state.keys() if k.endswith("num_batches_tracked")}
    if missing := sorted((wanted := wanted - counted) - state.keys()):
        raise ConfigError(
            f"weights {path} do not fit {backbone}: {len(missing)} tensors are missing, "
            f"the first is {missing[0]!r}; choose the file of this backbone."
        )
    try:
        net.load_state_dict({k: state[k] for k in wanted}, strict=False)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise ConfigError(f"weights {path} do not fit {backbone}: {detail}") from None


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ConfigError(f"weights {path} do not exist: give a file, 'imagenet' or 'none'.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file raises whatever its bytes happen to spell
        raise ConfigError(
            f"weights {path} cannot be read ({type(error).__name__}): "
            "give a safetensors file or a weights-only .pth file."
        ) from None
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise ConfigError(f"weights {path} hold more than tensors: save the state_dict alone.")
    return state


def save_model(model: Network, folder: Path) -> str:
    """Write weights as `<id>.safetensors`, where id is the hash of their content; return id.

    The content hash makes a repeated save of the same weights the same file, and the write is
    atomic: a killed save leaves no half file under the final name.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].numpy().tobytes())
    identity = digest.hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{identity}.safetensors"
    scratch = folder / f".{identity}.{os.getpid()}.tmp"
    # One entry of metadata: with more, their order and so the file's bytes change by chance.
    written = save(state, metadata={"backbone": model.backbone})
    scratch.write_bytes(written)  # unlike `save_file`, a full disk is an OSError
    scratch.replace(target)
    return identity


def load_model(path: Path, backbone: str, findings: int) -> Classifier:
    """Read a model that `save_model` wrote, in evaluation mode.

    Raises:
        ConfigError: the file is missing, damaged or of another network.
    """
    state = _read(path)
    neck = sum(re.fullmatch(r"neck\.\d+\.running_mean", key) is not None for key in state)
    model = build_model(backbone, findings, neck=neck)
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise ConfigError(f"model {path} is not a {backbone} with {findings} findings.") from None
    return model.eval()
