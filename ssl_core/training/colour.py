"""Colour jitter: one 3×3 matrix a sample that turns hues and changes saturation.

It works on the two colour axes of YIQ (the NTSC standard of 1953), so brightness stays and grey
stays grey: a radiograph that was stored in colour is not tinted.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))
"""From red, green and blue to brightness and two axes of colour."""


def colour_matrices(saturation: Tensor, hue: Tensor) -> Tensor:
    """`(n, 3, 3)` matrices from RGB to RGB.

    saturation: `(n,)` factors, 0 or more; 0 gives grey. hue: `(n,)` in turns of the colour circle.
    """
    there = torch.tensor(YIQ, dtype=saturation.dtype, device=saturation.device)
    angle = 2 * math.pi * hue
    change = torch.zeros(len(hue), 3, 3).to(saturation)
    change[:, 0, 0] = 1.0
    change[:, 1, 1] = change[:, 2, 2] = saturation * angle.cos()
    change[:, 2, 1] = saturation * angle.sin()
    change[:, 1, 2] = -change[:, 2, 1]
    back: Tensor = torch.linalg.inv(there)
    return back @ change @ there


def tint(images: Tensor, matrices: Tensor) -> Tensor:
    """Each picture's pixels through its own matrix, kept in [0, 1].

    images: `(B, 3, H, W)` in [0, 1]; pictures of one channel come back as they are. matrices:
    `(B, 3, 3)`, from any device.
    """
    if images.shape[1] != 3:
        return images
    return torch.einsum("bij,bjhw->bihw", matrices.to(images), images).clamp(0.0, 1.0)
