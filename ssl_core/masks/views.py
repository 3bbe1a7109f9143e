"""Views of an image and its mask together: one warp, one resampling for both.

Masks are `(B, C, H, W)`: 1 in the mask, 0 outside it, NaN where nobody knows. A warped mask is
resampled like its image, bilinearly, then cut at one half: nearest would shift edges by up to half
a pixel against the image, and it is exact where the image is its own mask, see the tests. A pixel
is unknown where half or more of what it was made from is.

What comes into sight from outside the picture is black, and of a label it is background by
default (`outside` = 0): the black was put there, no finding can be in it, and a network that is
never told so would meet it unprepared in images that were padded to a square. Of a model's
*opinion* it is unknown (`outside` = NaN): what the model did not see it has no opinion on.

Chance is drawn as in `training.rand_augment`: the images are those that `view` makes of the same
specification and generator, bit for bit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_core.masks.strong import Strong, change_noisily, sample_strong, shift_strongly
from ssl_core.training.augment import (
    CORNERS,
    Augmentation,
    as_float,
    expose,
    sample_exposures,
    sample_tints,
    sample_warps,
    warp,
)
from ssl_core.training.colour import tint
from ssl_core.training.rand_augment import (
    RandAugment,
    before_the_warp,
    cut_out,
)

MaskView = Augmentation | RandAugment | Strong
"""How one view of an image and its mask is made."""


class Seen(NamedTuple):
    """A view: `images` `(B, C_in, H, W)` float32 in [0, 1]; `masks` `(B, C, H, W)` of 0, 1, NaN;
    `matrices` `(B, 3, 3)` float64, output → input, that both went through.
    """

    images: Tensor
    masks: Tensor
    matrices: Tensor


def see_pair(
    images: Tensor,
    masks: Tensor,
    spec: MaskView,
    generator: torch.Generator,
    *,
    outside: float = 0.0,
) -> Seen:
    """One view of each image and of its mask.

    The geometry moves both; exposure, colour and noise change the image only. Where a hole was cut
    into the image (RandAugment's cutout) the mask is unknown: nobody can see what is there.

    images: `(B, C_in, H, W)` floating in [0, 1] or uint8. masks: `(B, C, H, W)` floating, of 0, 1
    and NaN, C = 0 where there are none. outside: the masks' value outside the picture, 0 or NaN.
    Raises ValueError where the two differ in B, H or W.
    """
    images = as_float(images)
    if masks.ndim != 4 or (len(masks), *masks.shape[2:]) != (len(images), *images.shape[2:]):
        raise ValueError(f"masks {tuple(masks.shape)} do not fit images {tuple(images.shape)}")
    changed, matrices, holes = _before_the_warp(images, spec, generator)
    if matrices is None:
        still = torch.eye(3, dtype=torch.float64, device=generator.device)
        return Seen(changed, masks, still.repeat(len(images), 1, 1))
    seen, moved = _warp_both(changed, masks, matrices, outside)
    if holes is not None:
        seen = cut_out(seen, holes)
        open_to_sight = cut_out(torch.ones_like(moved), holes)
        moved = torch.where(open_to_sight == 0, math.nan, moved)
    return Seen(seen, moved, matrices)


def warp_masks(masks: Tensor, matrices: Tensor, *, outside: float = 0.0) -> Tensor:
    """Masks `(B, C, H, W)` of 0, 1 and NaN through `(B, 3, 3)` matrices, output → input."""
    return _warp_both(masks[:, :0], masks, matrices, outside)[1]


def warp_maps(maps: Tensor, matrices: Tensor) -> Tensor:
    """Probabilities `(B, C, H, W)` through `(B, 3, 3)` matrices; NaN outside, and kept soft."""
    return _warp_layers(maps[:, :0], maps, matrices, math.nan)[1]


def between(here: Tensor, there: Tensor) -> Tensor:
    """`(B, 3, 3)` matrices that bring what was said of one view to another view of the same image.

    here, there: each view's own matrices, output → input. A pixel of `there` lies at
    `there @ p` of the image, which is `here⁻¹ @ there @ p` of the first view.
    """
    back: Tensor = torch.linalg.inv(here)
    return _upright(back @ there)


def unwarp(maps: Tensor, matrices: Tensor) -> Tensor:
    """What was said of a view, back in the picture's own frame: `(B, C, H, W)`, NaN where unseen.

    maps: `(B, C, H, W)` probabilities. matrices: `(B, 3, 3)` of the view.
    """
    back: Tensor = torch.linalg.inv(matrices)
    return warp_maps(maps, _upright(back))


def presence(masks: Tensor) -> Tensor:
    """Which findings an item shows: `(B, C)`, 1 where any pixel is in the mask, else 0 where all
    are known, else NaN (unknown is not negative).
    """
    known = ~torch.isnan(masks).flatten(2).any(dim=2)
    shown = (masks == 1).flatten(2).any(dim=2)
    return torch.where(shown, 1.0, torch.where(known, 0.0, math.nan)).to(masks.dtype)


def _before_the_warp(
    images: Tensor, spec: MaskView, generator: torch.Generator
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Changed intensities, the warp (None: nothing moves) and the holes, drawn as `view` draws."""
    n, aspect = len(images), images.shape[-1] / images.shape[-2]
    if isinstance(spec, Augmentation):
        images = _weak_light(images, spec, generator)
        moves = sample_warps(n, spec, generator, aspect=aspect) if spec.moves else None
        return images, moves, None
    if isinstance(spec, Strong):
        images = _weak_light(images, spec.weak, generator)
        matrices = sample_warps(n, spec.weak, generator, aspect=aspect)
        which, level = sample_strong(n, spec, generator)
        matrices = shift_strongly(matrices, which, level, spec, aspect=aspect)
        return change_noisily(images, which, level, spec, generator), matrices, None
    return before_the_warp(images, spec, generator)


def _weak_light(images: Tensor, spec: Augmentation, generator: torch.Generator) -> Tensor:
    if spec.exposes:
        images = expose(images, sample_exposures(len(images), spec, generator))
    if spec.tints:
        images = tint(images, sample_tints(len(images), spec, generator))
    return images


def _warp_both(
    images: Tensor, masks: Tensor, matrices: Tensor, outside: float
) -> tuple[Tensor, Tensor]:
    images, soft = _warp_layers(images, masks, matrices, outside)
    return images, torch.where(torch.isnan(soft), soft, (soft >= 0.5).to(soft.dtype))


def _warp_layers(
    images: Tensor, masks: Tensor, matrices: Tensor, outside: float
) -> tuple[Tensor, Tensor]:
    """Images, masks and what is known of them as layers of one picture, resampled once."""
    unknown = torch.isnan(masks)
    gaps, ignored = bool(unknown.any()), math.isnan(outside)
    layers = [images, torch.where(unknown, 0.0, masks) if gaps else masks]
    if gaps:  # where the outside counts as known, it is the unknown that is zero there
        layers.append((~unknown if ignored else unknown).to(masks.dtype))
    elif ignored:
        layers.append(torch.ones_like(masks[:, :1]))
    warped = warp(torch.cat(layers, dim=1), matrices)
    first, second = images.shape[1], masks.shape[1]
    seen, moved = warped[:, :first], warped[:, first : first + second]
    if not (gaps or ignored):
        return seen, moved
    weight = warped[:, first + second :]
    weight = weight if ignored else 1 - weight
    return seen, torch.where(weight > 0.5, moved / weight.clamp(min=0.5), math.nan)


def _upright(matrices: Tensor) -> Tensor:
    """The same maps scaled to 1 at the centre; one with its horizon in the picture looks away.

    `warp` must not look past a horizon, and the inverse of a strong tilt can. Looking away means
    that all is unknown: no opinion is carried over rather than a mirrored one.
    """
    scaled = matrices / matrices[:, 2:, 2:]
    corners = torch.tensor(CORNERS).to(matrices)
    before = (scaled[:, 2, :2] @ corners.T + 1 > 0.05).all(dim=1)  # false of NaN, too
    away = torch.eye(3).to(matrices)
    away[0, 2] = 10.0
    return torch.where(before[:, None, None], scaled, away)
