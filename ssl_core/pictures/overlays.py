"""Masks over images: filled or as contours, in the colours of their layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_erosion

from ssl_core.images import Fit
from ssl_core.masks.overlap import Bools
from ssl_core.pictures.activation import over_image

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
WIDTH = 2  # pixels of a contour


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One mask `(H, W)` over an image: RGB of 0..255, opacity in [0, 1], filled or its contour."""

    mask: Bools
    colour: Colour
    opacity: float = 1.0
    filled: bool = False


def contour(mask: Bools, width: int = WIDTH) -> Bools:
    """The pixels of a mask `(H, W)` that lie within `width` ≥ 1 steps of what is outside it.

    A step is to one of four neighbours; beyond the image's border is outside.
    """
    inner = binary_erosion(mask, iterations=width, border_value=0)
    return np.asarray(mask & ~inner)


def painted(rgb: Pixels, layers: Sequence[Layer], width: int = WIDTH) -> Pixels:
    """A copy of an image `(H, W, 3)` with layers over it, the last one on top."""
    mixed = rgb.astype(np.float32)
    for layer in layers:
        where = layer.mask if layer.filled else contour(layer.mask, width)
        over = np.asarray(layer.colour, np.float32)
        mixed[where] = mixed[where] * (1 - layer.opacity) + over * layer.opacity
    return np.asarray(mixed.round().astype(np.uint8))


def over(values: npt.NDArray[np.floating] | Bools, height: int, width: int, fit: Fit) -> Bools:
    """A map or mask `(s, s)` of the working size over its image, `(height, width)`, cut at 0.5.

    What was padded is cut off again, and edges run smoothly.
    """
    found = over_image(np.asarray(values, np.float32), height, width, fit=fit, ceiling=1.0)
    return np.asarray(found >= 0.5)


def resized(mask: Bools, height: int, width: int) -> Bools:
    """A mask of an image's own size at another size of the same image."""
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) >= 0.5)


def outlined(pixels: Pixels, layers: Sequence[Layer], side: int, width: int = WIDTH) -> Pixels:
    """An item `(C_in, S, S)` of the pixel store, enlarged to `(3, side, side)` under its layers.

    The layers' masks are of the working size `(S, S)`.
    """
    grey = np.moveaxis(pixels, 0, -1)
    rgb = np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else grey
    large = np.asarray(Image.fromarray(rgb).resize((side, side), Image.Resampling.BILINEAR))
    fitted = [
        Layer(resized(one.mask, side, side), one.colour, one.opacity, one.filled) for one in layers
    ]
    return np.ascontiguousarray(np.moveaxis(painted(large, fitted, width), -1, 0))
