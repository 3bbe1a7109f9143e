"""RandAugment(n, m) with S3's three families: geometric, noise and colour.

The geometric operations and those of colour are `training.rand_augment`'s, with the same reach;
the noise is here. Cubuk et al. 2020 have no family of noise; S3 names one without its operations,
so these are ours, the ones that a radiograph meets: film grain, dose (grain that grows with
brightness) and a blurred exposure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_core.training.augment import MILD, Augmentation
from ssl_core.training.rand_augment import INTENSITIES, OPERATIONS, change, move

Family = Literal["geometric", "noise", "colour"]
Noise = Callable[[Tensor, Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, slots=True)
class Strong:
    """A strong view of image and mask: a weak one, then n random operations of strength m.

    operations: n, 0 to 8; each is drawn anew, uniformly over the operations of the families.
    magnitude: m, 0 to 10. families: those to draw from, at least one; geometric moves image and
    mask, noise and colour change the image alone. weak: what is done to both besides.

    Raises ValueError for a value out of range.
    """

    operations: int = 2
    magnitude: float = 6.0
    families: tuple[Family, ...] = ("geometric", "noise", "colour")
    weak: Augmentation = MILD

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name, most in (("operations", 8), ("magnitude", 10)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ValueError(f"strong {name} is {value}: give a number from 0 to {most}")
        if strays := [f for f in self.families if f not in FAMILIES]:
            raise ValueError(f"strong families has {strays[0]!r}: choose from {list(FAMILIES)}")
        if not self.families:
            raise ValueError("strong families is empty: name at least one")

    @property
    def names(self) -> tuple[str, ...]:
        """The operations that are drawn from: doing nothing, then the families'."""
        return ("identity", *(name for f in self.families for name in FAMILIES[f]))


def sample_strong(n: int, spec: Strong, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `(n, operations)` positions in `spec.names` and levels in [-m/10, m/10], half minus."""
    draws = torch.rand(
        n, spec.operations, 2, generator=generator, device=generator.device, dtype=torch.float64
    )
    which = (draws[..., 0] * len(spec.names)).long()
    return which, torch.where(draws[..., 1] < 0.5, -1.0, 1.0).double() * spec.magnitude / 10


def shift_strongly(
    matrices: Tensor, which: Tensor, level: Tensor, spec: Strong, *, aspect: float
) -> Tensor:
    """The warp `(n, 3, 3)` with the drawn geometric operations after it."""
    known = _places(which, spec)
    for slot in range(spec.operations):
        matrices = matrices @ move(known[:, slot], level[:, slot], aspect=aspect)
    return matrices


def change_noisily(
    images: Tensor, which: Tensor, level: Tensor, spec: Strong, generator: torch.Generator
) -> Tensor:
    """Apply the drawn operations of colour and noise to images `(n, C, H, W)` in [0, 1]."""
    known = _places(which, spec)
    for slot in range(spec.operations):
        images = change(images, known[:, slot], level[:, slot])
        for name, noise in NOISES.items():
            if name in spec.names:
                chosen = (which[:, slot] == spec.names.index(name)).nonzero()[:, 0]
                images = _some(images, chosen, level[chosen, slot], noise, generator)
    return images


def _some(
    images: Tensor, chosen: Tensor, level: Tensor, noise: Noise, generator: torch.Generator
) -> Tensor:
    if not len(chosen):
        return images
    here, far = chosen.to(images.device), level.abs().to(images)[:, None, None, None]
    changed = images.clone()
    changed[here] = noise(images[here], far, generator).clamp(0.0, 1.0)
    return changed


def _places(which: Tensor, spec: Strong) -> Tensor:
    """Positions in `spec.names` as positions in `OPERATIONS`; noise is not there: identity."""
    known = {name: i for i, name in enumerate(OPERATIONS)}
    table = [known.get(name, known["identity"]) for name in spec.names]
    return torch.tensor(table, device=which.device)[which]


def _grain(images: Tensor, far: Tensor, generator: torch.Generator) -> Tensor:
    return images + GRAIN * far * _normal(images, generator)


def _dose(images: Tensor, far: Tensor, generator: torch.Generator) -> Tensor:
    return images * (1 + DOSE * far * _normal(images, generator))


def _blur(images: Tensor, far: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian, σ up to BLUR of the shorter side; drawn per picture, rows then columns."""
    sigma = BLUR * far * min(images.shape[-2:])
    reach = max(1, round(3 * BLUR * min(images.shape[-2:])))
    steps = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernels = torch.exp(-0.5 * (steps / sigma.flatten()[:, None].clamp(min=1e-3)) ** 2)
    kernels = kernels / kernels.sum(dim=1, keepdim=True)
    n, channels = images.shape[:2]
    weights = kernels.repeat_interleave(channels, dim=0)[:, None]
    flat = images.reshape(1, n * channels, *images.shape[2:])
    for pad, shape in (((reach, reach, 0, 0), (1, -1)), ((0, 0, reach, reach), (-1, 1))):
        padded = F.pad(flat, pad, mode="replicate")
        flat = F.conv2d(padded, weights.view(n * channels, 1, *shape), groups=n * channels)
    return flat.view_as(images)


def _normal(images: Tensor, generator: torch.Generator) -> Tensor:
    """The same noise in all channels: a grey picture stays grey."""
    shape = (len(images), 1, *images.shape[2:])
    return torch.randn(shape, generator=generator, device=generator.device).to(images)


GRAIN = 0.1  # standard deviation at magnitude 10, of intensities in [0, 1]
DOSE = 0.3  # as a share of each pixel's brightness
BLUR = 0.02  # σ at magnitude 10, of the shorter side: 5 pixels of 256

NOISES: dict[str, Noise] = {"grain": _grain, "dose": _dose, "blur": _blur}

FAMILIES: dict[str, tuple[str, ...]] = {
    "geometric": ("rotate", "shear x", "shear y", "shift x", "shift y"),
    "noise": tuple(NOISES),
    "colour": tuple(INTENSITIES),
}
