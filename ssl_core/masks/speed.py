"""What a training step costs beyond the network itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch

from ssl_core.masks.networks import build_segmenter
from ssl_core.masks.objectives import S4, MaskBatch, dice_loss
from ssl_core.masks.views import see_pair
from ssl_core.training.augment import MILD
from ssl_core.training.steps import update_average


@dataclass(frozen=True, slots=True)
class StepSpeed:
    """Milliseconds of the network's forward and backward alone, and of a whole training step."""

    bare: float
    step: float
    ratio: float


def step_speed(
    backbone: str = "shallow_unet",
    *,
    size: int = 64,
    batch: int = 16,
    repeats: int = 15,
    device: str = "cpu",
) -> StepSpeed:
    """Time a supervised step of masks against the bare forward and backward of its network.

    The step takes bytes, augments image and mask in one warp, computes S4's loss, goes backward,
    and moves Adam and the moving average. The two are timed in turns, so that a busy machine slows
    both; each is its median, the ratio that of the pairs.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 1, size, size)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    masks = (torch.rand(shape, generator=generator) < 0.3).float().to(device)
    model = build_segmenter(backbone, 1, auxiliary=False).to(device).train()
    average = deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters())
    ready = images.float() / 255

    def bare() -> None:
        model.zero_grad(set_to_none=True)
        dice_loss(model(ready).maps, masks).backward()  # type: ignore[no-untyped-call]

    def step() -> None:
        seen = see_pair(images, masks, MILD, generator)
        loss = S4(model, None, MaskBatch(seen))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        update_average(average, model, 0.999, 100)

    pairs = np.array(
        [[_milliseconds(one, device) for one in (bare, step)] for _ in range(repeats + 2)]
    )
    pairs = pairs[2:]  # the first are slow for reasons of their own
    middle = np.median(pairs, axis=0)
    return StepSpeed(
        float(middle[0]), float(middle[1]), float(np.median(pairs[:, 1] / pairs[:, 0]))
    )


def _milliseconds(work: Callable[[], None], device: str) -> float:
    began = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)
