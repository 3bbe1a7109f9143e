"""Copy-paste: lesions cut out along their masks from one item and put into another.

Ghiasi et al. 2021, "Simple Copy-Paste is a Strong Data Augmentation Method for Instance
Segmentation", with the three options of S3: probability, times, normal cases only or all. A lesion
stays where it is in its own view, as the place is part of what a radiograph means; views move it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class CopyPaste:
    """S3's options. Raises ValueError for a value out of range.

    probability: that an item gets anything, 0 to 1 (S3 compares 0, 0.5 and 0.75). times: how many
    donors it then gets, one after the other, 1 to 8. onto: "normal" pastes only into items whose
    every mask is known and empty, "all" into any.
    """

    probability: float = 0.5
    times: int = 1
    onto: Literal["normal", "all"] = "normal"

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"copy-paste probability is {self.probability}: give 0 to 1")
        if not 1 <= self.times <= 8:
            raise ValueError(f"copy-paste times is {self.times}: give a number from 1 to 8")
        if self.onto not in ("normal", "all"):
            raise ValueError(f"copy-paste onto is {self.onto!r}: choose 'normal' or 'all'")


def copy_paste(
    images: Tensor, masks: Tensor, spec: CopyPaste, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """New images `(B, C_in, H, W)` and masks `(B, C, H, W)` with lesions of other items in them.

    Donors are the batch's items with a lesion, as they came in; each item draws its own, evenly,
    never itself. What is pasted is the union of the donor's masks over all findings. There image
    and masks are the donor's, all findings (an unknown mask stays unknown there); elsewhere both
    stay. Which items are normal is judged once, before anything is pasted. Chance is drawn on the
    generator's device, a number of draws that hangs on B and `times` alone. The inputs stay as
    they are; they come back themselves where nothing was pasted.
    """
    n, device = len(images), images.device
    lucky = torch.rand(n, generator=generator, device=generator.device) < spec.probability
    draws = torch.rand(spec.times, n, n, generator=generator, device=generator.device)
    lesions = (masks == 1).any(dim=1, keepdim=True)
    sick = lesions.flatten(1).any(dim=1)
    takes = lucky.to(device)
    if spec.onto == "normal":
        takes = takes & (masks == 0).flatten(1).all(dim=1)
    allowed = sick.expand(n, n) & ~torch.eye(n, dtype=torch.bool, device=device)
    takes = takes & allowed.any(dim=1)
    if not takes.any():
        return images, masks
    new_images, new_masks = images, masks
    for draw in draws.to(device):
        donor = torch.where(allowed, draw, -1.0).argmax(dim=1)
        here = lesions[donor] & takes[:, None, None, None]
        new_images = torch.where(here, images[donor], new_images)
        new_masks = torch.where(here, masks[donor], new_masks)
    return new_images, new_masks
