"""Class-activation maps: where in an image the evidence for a finding lies.

For a network that ends in global average pooling and one linear layer the map is a closed form
(Zhou et al. 2016, "Learning Deep Features for Discriminative Localization", Eq. 2): of the last
feature maps f (D, h, w) and the head's weights W (C, D), M_c(y, x) = sum_k W_ck f_k(y, x). There
is no backward pass. Every backbone of `models` ends so: the ReLU behind DenseNet's last norm is
one of its blocks, what torchvision puts between pooling and classes elsewhere was cut off with
its classifier, and dropout is the identity in evaluation. So for each of them

    mean over y, x of M_c(y, x)  +  bias_c  =  logit_c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from ssl_core.errors import ConfigError
from ssl_core.images import Fit
from ssl_core.training.augment import as_float
from ssl_core.training.models import Classifier
from ssl_core.training.predict import Device

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Activation:
    """`maps` `(n, C, h, w)` in units of logits, `bias` `(C,)` and `logits` `(n, C)`, float32.

    A place's value is what it adds to the logit, times the number of places: above zero it speaks
    for the finding, below zero against it. The mean over a map and the bias make the logit.
    """

    maps: FloatArray
    bias: FloatArray
    logits: FloatArray


def class_activation(
    model: Classifier, pixels: npt.NDArray[np.uint8], *, device: Device | None = None
) -> Activation:
    """The map of each finding for each image, from one forward pass of the image as it is.

    A prediction under test-time augmentation is a mean over several views; the map explains the
    view that is not mirrored or cropped.

    Args:
        model: a loaded network; it is put into evaluation mode and moved to the device.
        pixels: `(n, C_in, H, W)` uint8 at the working size, as rows of the image store.
        device: where to run, and how many images at a time; the CPU when None.

    Raises:
        ConfigError: the network does not end in global pooling and one linear layer.
    """
    _check_closed_form(model)
    device = device or Device()
    model.to(device.name).eval()
    weight, bias = model.head.weight.detach().float(), model.head.bias.detach().float()
    parts, logits = [], []
    with torch.inference_mode():
        for start in range(0, len(pixels), device.batch_size):
            images = as_float(device.place(pixels[start : start + device.batch_size]))
            with device.mixed():
                features = model.blocks[model.frozen_blocks :](model.stem(images))
            # In float32 whatever the blocks ran in, so that the mean keeps its law.
            maps = torch.einsum("cd,ndhw->nchw", weight, features.float())
            parts.append(maps.cpu().numpy())
            logits.append((features.float().mean((2, 3)) @ weight.T + bias).cpu().numpy())
    findings = model.head.out_features
    return Activation(
        np.concatenate(parts) if parts else np.empty((0, findings, 1, 1), np.float32),
        bias.cpu().numpy(),
        np.concatenate(logits) if logits else np.empty((0, findings), np.float32),
    )


def _check_closed_form(model: Classifier) -> None:
    if not isinstance(model, Classifier) or type(model.head) is not nn.Linear or len(model.neck):
        raise ConfigError(
            f"{getattr(model, 'backbone', type(model).__name__)} does not end in global pooling "
            "and one linear layer, so it has no closed-form class-activation map: use a model "
            "with a linear head."
        )


def over_image(
    activation: npt.NDArray[np.floating],
    height: int,
    width: int,
    *,
    fit: Fit,
    ceiling: float | None = None,
) -> FloatArray:
    """Bring one finding's map over its image: `(height, width)` float32 in [0, 1].

    0 is a place that does not speak for the finding (its map is zero or below); 1 is a place as
    strong as `ceiling` or stronger; linear between. Without a ceiling it is the map's own maximum,
    so that 1 in one image is not 1 in another: show the maximum beside it, or give images that
    are compared one ceiling. Where nothing speaks for the finding, all is 0.

    Args:
        activation: `(h, w)`, one finding of `Activation.maps`.
        height: of the image as it was before it was fitted, in pixels, ≥ 1.
        width: likewise.
        fit: how the image was fitted; of "pad" the padding is cut off again.
        ceiling: in units of logits, above 0.

    Raises:
        ValueError: the ceiling is not above zero, or a side is below 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image has at least one pixel, not {height} x {width}")
    if ceiling is not None and not ceiling > 0:
        raise ValueError(f"ceiling = {ceiling} must be above 0")
    positive = np.maximum(np.asarray(activation, dtype=np.float32), 0)
    top = float(positive.max()) if ceiling is None else ceiling
    if not top > 0:
        return np.zeros((height, width), dtype=np.float32)
    scaled = Image.fromarray(np.minimum(positive / top, 1))
    rows, columns = positive.shape
    box = _visible(rows, columns, height, width, fit)
    whole = scaled.resize((width, height), Image.Resampling.BILINEAR, box=box)
    return np.clip(np.asarray(whole, dtype=np.float32), 0, 1)


def _visible(
    rows: int, columns: int, height: int, width: int, fit: Fit
) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the image within its map, in places of the map."""
    longest = max(height, width)
    across, down = (width / longest, height / longest) if fit == "pad" else (1.0, 1.0)
    left, top = columns * (1 - across) / 2, rows * (1 - down) / 2
    return left, top, columns - left, rows - top
