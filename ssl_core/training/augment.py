"""Augmentation: one composed 3×3 warp a sample, resampled once, on the images' device.

Matrices are *sampled* by one function and *applied* by another, so that a mask can follow its
image through the same warp and other views can bring their own matrices.

Coordinates. A picture spans [-1, 1] on both axes whatever its size: x to the right, y down, the
outer edges of the corner pixels at ±1. Every matrix maps **output → input**: `M @ (x, y, 1)` is
where the output pixel at (x, y) takes its value from. So `A @ B` does A to the picture first,
then B. A matrix fits all pictures of one `aspect` (width / height), whatever their size: the
aspect is what keeps a rotation a rotation when the picture is not square.

Chance. Parameters are drawn from the generator given, on its device, in float64 (which autocast
leaves alone); with a generator on the CPU the same seed gives the same views on every device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.training.colour import colour_matrices, tint

Mode = Literal["bilinear", "nearest"]
Padding = Literal["zeros", "border", "reflection"]

_MOST = {
    "flip": 1.0,
    "rotation": 180.0,
    "translation": 1.0,
    "perspective": 0.45,  # from 0.47 on, a view can look past its own horizon
    "perspective_probability": 1.0,
    "brightness": 1.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 0.5,
}


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far a view may stray from its picture; the defaults are S0's weak augmentation.

    The picture is mirrored, rotated, scaled, shifted, then tilted; each sample draws its own
    parameters, uniformly. Raises ValueError for a value out of range.

    flip: probability of a left-right mirror, 0 to 1.
    rotation: largest angle either way, in degrees, 0 to 180.
    translation: largest shift either way on each axis, as a share of that side, 0 to 1.
    scale: smallest and largest factor, above 0; more than 1 enlarges.
    perspective: how far each corner may move inwards, as a share of half a side, 0 to 0.45
        (torchvision's `RandomPerspective(distortion_scale)`).
    perspective_probability: probability that the corners move at all, 0 to 1.
    brightness, contrast: the factor is drawn from 1 ± this, 0 to 1 (torchvision's `ColorJitter`).
    saturation, hue: the factor is drawn from 1 ± this, 0 to 1, and the turn of the colour circle
        from ± this, 0 to 0.5; what is grey stays as it is.
    crop: smallest and largest share of the area that is kept, above 0 to 1, and blown up to the
        whole again; its place is drawn too. The last of the moves; sides keep their ratio.
    """

    flip: float = 0.5
    rotation: float = 25.0
    translation: float = 0.15
    scale: tuple[float, float] = (0.9, 1.1)
    perspective: float = 0.2
    perspective_probability: float = 0.5
    brightness: float = 0.0
    contrast: float = 0.0
    crop: tuple[float, float] = (1.0, 1.0)
    saturation: float = 0.0
    hue: float = 0.0

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # a configuration's misspelt key is refused

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            value = getattr(self, name)
            if not 0.0 <= value <= most:
                raise ValueError(
                    f"augmentation {name} is {value}: give a number from 0 to {most:g}"
                )
        low, high = self.scale
        if not 0.0 < low <= high < math.inf:
            raise ValueError(
                f"augmentation scale is {self.scale}: give two factors, 0 < low ≤ high"
            )
        low, high = self.crop
        if not 0.0 < low <= high <= 1.0:
            raise ValueError(
                f"augmentation crop is {self.crop}: give two shares, 0 < low ≤ high ≤ 1"
            )

    @property
    def tilts(self) -> bool:
        """Whether a view can be seen in perspective."""
        return min(self.perspective, self.perspective_probability) > 0.0

    @property
    def crops(self) -> bool:
        """Whether a view can be of a part."""
        return self.crop != (1.0, 1.0)

    @property
    def moves(self) -> bool:
        """Whether any pixel can move."""
        still = self.flip == self.rotation == self.translation == 0.0 and self.scale == (1.0, 1.0)
        return self.tilts or self.crops or not still

    @property
    def exposes(self) -> bool:
        """Whether any intensity can change."""
        return max(self.brightness, self.contrast) > 0.0

    @property
    def tints(self) -> bool:
        """Whether any colour can change."""
        return max(self.saturation, self.hue) > 0.0


S0 = Augmentation()
"""The weak augmentation of S0 (Martins & Silva)."""

MILD = Augmentation(rotation=10.0, translation=0.05, perspective=0.0, brightness=0.1, contrast=0.1)
"""For radiographs with few labels: small moves, small changes of exposure."""

NOTHING = Augmentation(flip=0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
"""The image as it is."""


def augment(images: Tensor, spec: Augmentation, generator: torch.Generator) -> Tensor:
    """One view of each image.

    images: `(B, C, H, W)`, floating in [0, 1] or uint8, on any device; B may be 0. Returns
    `(B, C, H, W)` float32 on the same device; `images` itself, no copy, where the spec
    changes nothing and they are float32 already. What comes into sight from outside is black.
    Raises ValueError for any other shape or type.
    """
    images = as_float(images)
    if spec.exposes:  # before the warp: the exposure is the picture's, not the black's around it
        images = expose(images, sample_exposures(len(images), spec, generator))
    if spec.tints:
        images = tint(images, sample_tints(len(images), spec, generator))
    if spec.moves:
        height, width = images.shape[-2:]
        images = warp(images, sample_warps(len(images), spec, generator, aspect=width / height))
    return images


def as_float(images: Tensor) -> Tensor:
    """`(B, C, H, W)` floating in [0, 1], or uint8 which is divided by 255, as float32."""
    if images.ndim != 4:
        raise ValueError(f"images must be (B, C, H, W), not {tuple(images.shape)}")
    if images.dtype == torch.uint8:
        return images.to(torch.float32).div_(255.0)
    if not images.is_floating_point():
        raise ValueError(f"images must be floating in [0, 1] or uint8, not {images.dtype}")
    return images.to(torch.float32)


def sample_warps(
    n: int, spec: Augmentation, generator: torch.Generator, *, aspect: float = 1.0
) -> Tensor:
    """Draw `(n, 3, 3)` float64 matrices, output → input, for pictures of `aspect` width / height.

    Each sample takes 14 numbers of the generator's stream, whatever the spec turns off, and 3 more
    for a crop: on the CPU the i-th matrix depends on the stream and on i alone, not on `n`.
    """
    draws = _uniform(n, 17 if spec.crops else 14, generator)
    flip, angle, size, tilt = draws[:, :4].unbind(dim=1)
    low, high = spec.scale
    moved = affine_warps(
        flip < spec.flip,
        (2.0 * angle - 1.0) * spec.rotation,
        low + size * (high - low),
        (2.0 * draws[:, 4:6] - 1.0) * spec.translation,
        aspect=aspect,
    )
    if spec.tilts:
        reach = spec.perspective * (tilt < spec.perspective_probability)
        inwards = 1.0 - reach[:, None, None] * draws[:, 6:14].view(n, 4, 2)
        moved = moved @ perspective_warps(draws.new_tensor(CORNERS) * inwards)
    if spec.crops:
        low, high = spec.crop
        side = (low + draws[:, 14] * (high - low)).sqrt()
        moved = moved @ crop_warps(side, 2.0 * draws[:, 15:] - 1.0)
    return moved


def crop_warps(side: Tensor, place: Tensor) -> Tensor:
    """`(n, 3, 3)` matrices, output → input, that blow a part up to the whole picture.

    side: `(n,)` share of each side that is kept, above 0 to 1. place: `(n, 2)` in [-1, 1], from the
    left or upper border to the right or lower one.
    """
    matrices = torch.eye(3).to(side).repeat(len(side), 1, 1)
    matrices[:, :2, :2] *= side[:, None, None]
    matrices[:, :2, 2] = (1.0 - side)[:, None] * place
    return matrices


def affine_warps(
    flip: Tensor, degrees: Tensor, scale: Tensor, shift: Tensor, *, aspect: float = 1.0
) -> Tensor:
    """`(n, 3, 3)` matrices, output → input: mirror, rotate and scale about the centre, then shift.

    flip: `(n,)` bool, left-right. degrees: `(n,)`, counter-clockwise as the picture is seen.
    scale: `(n,)`, above 0, more than 1 enlarges. shift: `(n, 2)`, to the right and down, as
    shares of width and height. aspect: width / height.
    """
    radians = torch.deg2rad(degrees)
    cos, sin = radians.cos() / scale, radians.sin() / scale
    mirror = 1.0 - 2.0 * flip.to(degrees)
    rows = torch.stack([mirror * cos, -mirror * sin / aspect, sin * aspect, cos], dim=-1)
    matrices = torch.eye(3).to(degrees).repeat(len(degrees), 1, 1)
    matrices[:, :2, :2] = rows.view(-1, 2, 2)
    matrices[:, :2, 2:] = matrices[:, :2, :2] @ (-2.0 * shift.unsqueeze(-1))
    return matrices


CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
"""A picture's corners (x, y): top left, top right, bottom right, bottom left."""


def perspective_warps(corners: Tensor) -> Tensor:
    """`(n, 3, 3)` matrices, output → input, that carry the picture's corners to `corners`.

    corners: `(n, 4, 2)` places of the output, in the order of `CORNERS`, the outline convex.
    Closed form (Heckbert 1989, "Fundamentals of Texture Mapping", section 2.2, by projective
    frames): with the first three corners as a basis, the fourth gives the basis its weights.
    """
    top_left, top_right, bottom_right, bottom_left = F.pad(corners, (0, 1), value=1.0).unbind(1)
    into_basis: Tensor = torch.linalg.inv(torch.stack([top_left, top_right, bottom_right], dim=-1))
    weights = into_basis @ bottom_left.unsqueeze(-1)
    # The picture's own first three corners with their weights 1, -1, 1, one a column.
    picture = corners.new_tensor([[-1.0, -1.0, 1.0], [-1.0, 1.0, 1.0], [1.0, -1.0, 1.0]])
    return picture @ (into_basis / weights)


def warp(
    images: Tensor, matrices: Tensor, *, mode: Mode = "bilinear", padding: Padding = "zeros"
) -> Tensor:
    """Resample each picture once through its own matrix.

    images: `(B, C, H, W)` floating (a mask too: `mode="nearest"` keeps its values).
    matrices: `(B, 3, 3)`, output → input, from any device; a matrix must not look past its
    horizon: `(M @ (x, y, 1))[2] > 0` over the whole picture. padding: what lies outside.
    Returns `(B, C, H, W)` of the images' type, contiguous whatever theirs.
    """
    # Not `affine_grid`: it multiplies H·W×3 matrices and is 2 to 15 times slower than these
    # two sums of a row's part and a column's part, one plane a coordinate.
    matrices = matrices.to(images)
    across, down, constant = matrices.unsqueeze(-1).unbind(2)
    columns = across * _centres(images, -1) + constant
    rows = down * _centres(images, -2)
    planes = rows.unsqueeze(-1) + columns.unsqueeze(-2)
    places = planes[:, :2].div_(planes[:, 2:])
    return F.grid_sample(images, places.permute(0, 2, 3, 1), mode, padding, align_corners=False)


def sample_exposures(n: int, spec: Augmentation, generator: torch.Generator) -> Tensor:
    """Draw `(n, 2)` float64 factors of brightness and contrast; 1 changes nothing."""
    reach = torch.tensor([spec.brightness, spec.contrast], dtype=torch.float64)
    return 1.0 + (2.0 * _uniform(n, 2, generator) - 1.0) * reach.to(generator.device)


def sample_tints(n: int, spec: Augmentation, generator: torch.Generator) -> Tensor:
    """Draw `(n, 3, 3)` float64 matrices of `colour`; the unit matrix changes nothing."""
    saturation, hue = (2.0 * _uniform(n, 2, generator) - 1.0).unbind(1)
    return colour_matrices(1.0 + spec.saturation * saturation, spec.hue * hue)


def expose(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, then contrast about each picture's own mean, kept in [0, 1].

    images: `(B, C, H, W)` in [0, 1]. factors: `(B, 2)`, from any device. Equal to torchvision's
    `adjust_brightness` then `adjust_contrast` on grey pictures in which nothing saturates.
    """
    brightness, contrast = factors.to(images)[:, :, None, None, None].unbind(1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    bias = (1.0 - contrast) * brightness * mean
    return torch.addcmul(bias, images, contrast * brightness).clamp_(0.0, 1.0)


def _uniform(n: int, count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, count, generator=generator, device=generator.device, dtype=torch.float64)


def _centres(images: Tensor, dim: int) -> Tensor:
    """Pixel centres along one side, exactly symmetric about 0 so that a mirror is a mirror."""
    size = images.shape[dim]
    return (2.0 * torch.arange(size, device=images.device, dtype=images.dtype) + 1.0 - size) / size
