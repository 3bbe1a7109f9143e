"""Networks that draw masks: U-Nets on a classifier's encoder (S3), and a shallow one (S4).

S3's are those of segmentation-models-pytorch with an auxiliary classifier. S4's is the plain U-Net
of Ronneberger et al. 2015 with three levels, 64 to 256 channels, padded 3 × 3 convolutions without
batch norm and transposed convolutions on the way up, Xavier's initialisation; so it stands in the
public code that fits S4's description (ezermoysis1/mean-teacher-ssl, `depth=3`: two poolings).
Its softmax of two channels is here one logit a finding, which is the same for one finding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ssl_core.errors import ConfigError
from ssl_core.training.models import Network

DROPOUT = 0.2  # of the auxiliary classifier (S3)


class MaskOutput(NamedTuple):
    """`maps` `(B, C, H, W)`: logits of every pixel. `logits` `(B, C)` of the auxiliary classifier,
    None without one. `features` `(B, D)`: the deepest layer, averaged. All float32.
    """

    maps: Tensor
    logits: Tensor | None
    features: Tensor


class Segmenter(Network):
    """A body that draws maps, and an auxiliary classifier on its deepest layer.

    The body takes normalised images `(B, 3, H, W)` whose sides are multiples of `multiple`, and
    gives maps `(B, C, H, W)` and its deepest layer `(B, D, h, w)`. Images of other sides are
    padded with black to the right and below, and their maps cropped. The auxiliary classifier is
    average pooling, dropout of 0.2 and one linear layer.
    """

    def __init__(
        self, backbone: str, body: nn.Module, *, width: int, findings: int, auxiliary: bool
    ) -> None:
        super().__init__(backbone)
        self.findings, self.multiple = findings, 32
        self.body = body
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(width, findings) if auxiliary else None
        self.frozen_norm = False

    def forward(self, images: Tensor) -> MaskOutput:
        """Maps, class logits and features of images `(B, 1 or 3, H, W)` in [0, 1]."""
        height, width = images.shape[-2:]
        beside, below = -width % self.multiple, -height % self.multiple
        padded = F.pad(images, (0, beside, 0, below)) if beside or below else images
        maps, deepest = self.body(self.normalised(padded))
        # In float32 always, as in `training.models`: under bf16 autocast items would share scores.
        with torch.autocast(images.device.type, enabled=False):
            features = deepest.float().mean(dim=(2, 3))
            logits = None if self.head is None else self.head(self.dropout(features))
            return MaskOutput(maps[..., :height, :width].float(), logits, features)

    def freeze(self, blocks: int, *, norm: bool) -> None:
        """Take the encoder out of training (1) or nothing (0); `norm` keeps its batch statistics.

        Raises:
            ConfigError: more is to be frozen, or the network has no encoder of its own.
        """
        most = 1 if isinstance(self.body, _OnEncoder) else 0
        if not 0 <= blocks <= most:
            raise ConfigError(f"frozen_blocks = {blocks}: of {self.backbone} it can be {most}.")
        self.frozen_norm = norm
        if isinstance(self.body, _OnEncoder):
            self.body.encoder.requires_grad_(not blocks)

    def trained(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The body, but for a frozen encoder; the auxiliary classifier."""
        head = [] if self.head is None else list(self.head.parameters())
        return [p for p in self.body.parameters() if p.requires_grad], head

    def train(self, mode: bool = True) -> Segmenter:
        """Switch to training; where they are kept, the encoder's batch statistics stay."""
        super().train(mode)
        if self.frozen_norm and isinstance(self.body, _OnEncoder):
            self.body.encoder.eval()
        return self


class _OnEncoder(nn.Module):
    """A U-Net of segmentation-models-pytorch that also gives its encoder's last layer."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.encoder, self.decoder, self.head = net.encoder, net.decoder, net.segmentation_head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        layers = self.encoder(images)
        return self.head(self.decoder(layers)), layers[-1]


class _Shallow(nn.Module):
    """S4's U-Net: `depth` levels, the first of `width` channels, each twice the one above."""

    def __init__(self, width: int, depth: int, findings: int, *, norm: bool) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(_pair(a, b, norm) for a, b in pairwise([3, *widths]))
        back = list(pairwise(widths))[::-1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in back)
        self.join = nn.ModuleList(_pair(2 * a, a, norm) for a, _ in back)
        self.out = nn.Conv2d(width, findings, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        passed: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            passed.append(x)
        deepest = passed.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([up(x), passed.pop()], dim=1))
        return self.out(x), deepest


def _pair(into: int, out: int, norm: bool) -> nn.Sequential:
    def one(a: int) -> list[nn.Module]:
        between: list[nn.Module] = [nn.BatchNorm2d(out)] if norm else []
        return [nn.Conv2d(a, out, 3, padding=1, bias=not norm), *between, nn.ReLU(inplace=True)]

    return nn.Sequential(*one(into), *one(out))


def _encoder(
    name: str, decoder: Sequence[int] = (256, 128, 64, 32, 16)
) -> Callable[[int], tuple[nn.Module, int, int]]:
    def build(findings: int) -> tuple[nn.Module, int, int]:
        # Within the function: it takes seconds to import.
        import segmentation_models_pytorch as smp  # type: ignore[import-untyped]

        net = smp.Unet(name, encoder_weights=None, decoder_channels=list(decoder), classes=findings)
        return _OnEncoder(net), net.encoder.out_channels[-1], net.encoder.output_stride

    return build


def _shallow(width: int, depth: int, *, norm: bool) -> Callable[[int], tuple[nn.Module, int, int]]:
    def build(findings: int) -> tuple[nn.Module, int, int]:
        body = _Shallow(width, depth, findings, norm=norm)
        return body, width * 2 ** (depth - 1), 2 ** (depth - 1)

    return build


NETWORKS: dict[str, Callable[[int], tuple[nn.Module, int, int]]] = {
    "shallow_unet": _shallow(64, 3, norm=False),  # S4
    "small_unet": _shallow(16, 4, norm=True),  # a tenth of its cost: for CPUs and tests
    # For CPUs: at 64 pixels the usual decoder, four times as wide, made a step 1.7 times as long.
    "unet_mobilenet_v2": _encoder("mobilenet_v2", (64, 48, 32, 24, 16)),
    **{f"unet_resnet{n}": _encoder(f"resnet{n}") for n in (18, 34, 50, 101, 152)},
    **{f"unet_efficientnet_b{n}": _encoder(f"efficientnet-b{n}") for n in range(8)},
}
"""Body, width of its deepest layer and the multiple that sides must be, from C findings."""


def build_segmenter(
    backbone: str,
    findings: int,
    *,
    weights: str = "none",
    auxiliary: bool = True,
    seed: int = 0,
) -> Segmenter:
    """A fresh network with C = `findings` maps.

    Args:
        backbone: a name of `NETWORKS`.
        findings: C ≥ 1.
        weights: "none", or the path of a safetensors or weights-only .pth file with the encoder's
            weights: torchvision's own naming for ResNet and MobileNet, that of
            efficientnet-pytorch for EfficientNet. Nothing is fetched.
        auxiliary: whether there is a classifier besides the maps.
        seed: of everything drawn.

    Raises:
        ConfigError: unknown backbone, or weights that are missing or belong to another network.
    """
    if backbone not in NETWORKS:
        raise ConfigError(f"mask backbone {backbone!r} is unknown; use one of {list(NETWORKS)}.")
    with torch.random.fork_rng(devices=[]):  # seeds here only: nothing is seeded globally
        torch.default_generator.manual_seed(seed)
        body, width, multiple = NETWORKS[backbone](findings)
        model = Segmenter(backbone, body, width=width, findings=findings, auxiliary=auxiliary)
    model.multiple = multiple
    if weights != "none":
        _load_encoder(body, Path(weights), backbone)
    return model


def load_segmenter(path: Path, backbone: str, findings: int) -> Segmenter:
    """Read what `save_model` wrote, in evaluation mode; a classifier is there if it was saved.

    Raises:
        ConfigError: the file is missing, damaged or of another network.
    """
    state = _read(path)
    model = build_segmenter(backbone, findings, auxiliary="head.weight" in state)
    try:
        model.load_state_dict(state)
    except RuntimeError:
        raise ConfigError(f"model {path} is not a {backbone} with {findings} findings.") from None
    return model.eval()


def _load_encoder(body: nn.Module, path: Path, backbone: str) -> None:
    if not isinstance(body, _OnEncoder):
        raise ConfigError(f"{backbone} has no encoder with published weights: set weights 'none'.")
    wanted = body.encoder.state_dict()
    state = {key.removeprefix("encoder."): value for key, value in _read(path).items()}
    kept = {k: state[k] for k in wanted if k in state and state[k].shape == wanted[k].shape}
    # Files from before torch 0.4.1 do not count batches, and nothing here reads the count.
    missing = sorted(k for k in wanted.keys() - kept.keys() if not k.endswith("batches_tracked"))
    if missing:
        raise ConfigError(
            f"weights {path} do not fit {backbone}: {len(missing)} tensors are missing or of "
            f"another shape, the first is {missing[0]!r}; choose the file of this encoder."
        )
    for name, value in kept.items():
        wanted[name].copy_(value)  # in place, and half precision as float32


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file() and path == Path("imagenet"):
        raise ConfigError(
            "weights 'imagenet' are fetched for classifiers alone: for masks give the file of the "
            "encoder's weights, or 'none'."
        )
    if not path.is_file():
        raise ConfigError(f"weights {path} do not exist: give a file or 'none'.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a damaged file raises whatever its bytes happen to spell
        raise ConfigError(
            f"weights {path} cannot be read ({type(error).__name__}): "
            "give a safetensors file or a weights-only .pth file."
        ) from None
