"""RandAugment(n, m) for radiographs: n operations a sample of strength m, and one warp in all.

Cubuk et al. 2020, "RandAugment: Practical automated data augmentation with a reduced search space".
Of its fourteen operations ten stay, those that a radiograph survives: none turns dark to bright
(solarize), throws levels away (posterize), flattens the histogram (equalize) or touches colour.
Gamma is added, which is what another exposure or display does to a film. Intensities go either way
from the picture as it is, and further with m; in the authors' code m = 0 is the darkest. Geometric
operations are composed into the one warp of `augment`, so intensities come first and the picture is
resampled once.

Chance is drawn as in `augment`: float64, from the generator given, on its device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.training.augment import (
    MILD,
    Augmentation,
    affine_warps,
    as_float,
    augment,
    expose,
    sample_exposures,
    sample_tints,
    sample_warps,
    warp,
)
from ssl_core.training.colour import tint

Intensity = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class RandAugment:
    """A strong view: a weak one's warp and exposure, n random operations, and a hole.

    operations: n, 0 to 8; each is drawn anew, uniformly, so one may come twice.
    magnitude: m, 0 to 10; at 10 an operation goes as far as `REACH` says, either way by chance.
    cutout: the longest side of a black square, as a share of the picture's shorter side, 0 to 1;
        each sample draws its own (DeVries & Taylor 2017, as FixMatch's strong views have it).
    weak: what is done to the picture besides.

    Raises ValueError for a value out of range.
    """

    operations: int = 2
    magnitude: float = 6.0
    cutout: float = 0.5
    weak: Augmentation = MILD

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name, most in (("operations", 8), ("magnitude", 10), ("cutout", 1)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"strong {name} is {value}: give a number from 0 to {most}")


View = Augmentation | RandAugment
"""How one view of a picture is made."""


def view(images: Tensor, spec: View, generator: torch.Generator) -> Tensor:
    """One view of each image: `augment`, or RandAugment on top of it.

    images: `(B, C, H, W)`, floating in [0, 1] or uint8. Returns `(B, C, H, W)` float32.
    """
    if isinstance(spec, Augmentation):
        return augment(images, spec, generator)
    images, matrices, holes = before_the_warp(as_float(images), spec, generator)
    return cut_out(warp(images, matrices), holes)


def before_the_warp(
    images: Tensor, spec: RandAugment, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images with changed intensities, their warps `(B, 3, 3)` and holes `(B, 3)`."""
    n, aspect = len(images), images.shape[-1] / images.shape[-2]
    exposures = sample_exposures(n, spec.weak, generator)
    matrices = sample_warps(n, spec.weak, generator, aspect=aspect)
    which, level = sample_operations(n, spec, generator)
    if spec.weak.exposes:
        images = expose(images, exposures)
    if spec.weak.tints:
        images = tint(images, sample_tints(n, spec.weak, generator))
    for slot in range(spec.operations):
        images = change(images, which[:, slot], level[:, slot])
        matrices = matrices @ move(which[:, slot], level[:, slot], aspect=aspect)
    return images, matrices, sample_holes(n, spec, generator)


def sample_operations(
    n: int, spec: RandAugment, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw `(n, operations)` positions in `OPERATIONS` and levels in [-m/10, m/10]: half minus."""
    draws = torch.rand(
        n, spec.operations, 2, generator=generator, device=generator.device, dtype=torch.float64
    )
    which = (draws[..., 0] * len(OPERATIONS)).long()
    return which, torch.where(draws[..., 1] < 0.5, -1.0, 1.0).double() * spec.magnitude / 10


def sample_holes(n: int, spec: RandAugment, generator: torch.Generator) -> Tensor:
    """Draw `(n, 3)`: the hole's centre x and y in [-1, 1], and its side in [0, cutout]."""
    draws = torch.rand(n, 3, generator=generator, device=generator.device, dtype=torch.float64)
    return torch.cat([2 * draws[:, :2] - 1, spec.cutout * draws[:, 2:]], dim=1)


def move(which: Tensor, level: Tensor, *, aspect: float = 1.0) -> Tensor:
    """`(n, 3, 3)` matrices, output → input, of the geometric operations; others do not move.

    which: `(n,)` positions in `OPERATIONS`. level: `(n,)` in [-1, 1]. aspect: width / height.
    """

    def far(name: str) -> Tensor:
        return torch.where(which == OPERATIONS.index(name), level * REACH[name], 0.0)

    still = torch.zeros_like(which, dtype=torch.bool)
    shift = torch.stack([far("shift x"), far("shift y")], dim=1)
    matrices = affine_warps(still, far("rotate"), torch.ones_like(level), shift, aspect=aspect)
    matrices[:, 0, 1] += far("shear x") / aspect  # pixels are square, coordinates need not be
    matrices[:, 1, 0] += far("shear y") * aspect
    return matrices


def change(images: Tensor, which: Tensor, level: Tensor) -> Tensor:
    """Apply each picture's own intensity operation; the geometric ones change nothing here.

    images: `(n, C, H, W)` in [0, 1]. which, level: as for `move`. Returns a new tensor in [0, 1].
    """
    changed = images.clone()
    for name, operation in INTENSITIES.items():
        chosen = (which == OPERATIONS.index(name)).nonzero()[:, 0]
        if len(chosen):
            here = chosen.to(images.device)
            far = (level[chosen] * REACH[name]).to(images)
            changed[here] = operation(images[here], far).clamp(0.0, 1.0)
    return changed


def cut_out(images: Tensor, holes: Tensor) -> Tensor:
    """Blacken a square of each picture, clipped at its border.

    images: `(n, C, H, W)`. holes: `(n, 3)` of `sample_holes`. A pixel goes when its centre lies
    within; a hole of side 0 takes nothing.
    """
    height, width = images.shape[-2:]
    x, y, side = holes.to(images).unbind(1)
    half = side * min(height, width) / 2

    def near(centre: Tensor, size: int) -> Tensor:
        pixels = torch.arange(size, device=images.device, dtype=images.dtype) + 0.5
        return (pixels - (centre[:, None] + 1) * size / 2).abs() < half[:, None]

    hole = near(y, height)[:, None, :, None] & near(x, width)[:, None, None, :]
    return images.masked_fill(hole, 0.0)


def _brightness(images: Tensor, far: Tensor) -> Tensor:
    return expose(images, torch.stack([1 + far, torch.ones_like(far)], dim=1))


def _contrast(images: Tensor, far: Tensor) -> Tensor:
    return expose(images, torch.stack([torch.ones_like(far), 1 + far], dim=1))


def _gamma(images: Tensor, far: Tensor) -> Tensor:
    """From a square root to a square: the exponent is 2 to the power of `far`."""
    return images ** (2.0**far)[:, None, None, None]


def _sharpness(images: Tensor, far: Tensor) -> Tensor:
    """Away from, or towards, PIL's SMOOTH kernel, as its ImageEnhance.Sharpness."""
    kernel = images.new_tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13
    channels = images.shape[1]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)
    return smooth + (1 + far)[:, None, None, None] * (images - smooth)


def _autocontrast(images: Tensor, far: Tensor) -> Tensor:
    """Stretch each picture to [0, 1], all channels alike; one of a single value stays."""
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    spread = images.amax(dim=(1, 2, 3), keepdim=True) - low
    return torch.where(spread > 0, (images - low) / spread.clamp(min=1e-6), images)


INTENSITIES: dict[str, Intensity] = {
    "autocontrast": _autocontrast,
    "brightness": _brightness,
    "contrast": _contrast,
    "gamma": _gamma,
    "sharpness": _sharpness,
}

REACH = {
    "identity": 0.0,
    "rotate": 30.0,  # degrees
    "shear x": 0.3,  # pixels sideways for each pixel down
    "shear y": 0.3,
    "shift x": 0.3,  # of the side
    "shift y": 0.3,
    "autocontrast": 0.0,
    "brightness": 0.9,  # factors 0.1 to 1.9
    "contrast": 0.9,
    "gamma": 1.0,  # exponents 1/2 to 2
    "sharpness": 0.9,
}
"""How far an operation goes at magnitude 10; autocontrast has no strength."""

OPERATIONS = tuple(REACH)
