"""What a training step of masks costs beyond the network itself."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from rich.table import Table

from app import show
from ssl_core.masks.feed import Drawn, MaskExamples, MaskFeed
from ssl_core.masks.networks import build_segmenter
from ssl_core.masks.objectives import S4, dice_loss
from ssl_core.training.augment import MILD
from ssl_core.training.predict import Device
from ssl_core.training.schedule import Schedule
from ssl_core.training.steps import Loop, reproducible


@dataclass(frozen=True, slots=True)
class StepCost:
    """Milliseconds of a network's forward and backward alone, and of a whole training step.

    `ratio` is the median of the pairs' own ratios.
    """

    backbone: str
    size: int
    batch: int
    bare: float
    step: float
    ratio: float


def run(
    backbone: str = "shallow_unet",
    *,
    size: int = 64,
    batch: int = 16,
    repeats: int = 15,
    device: str = "cpu",
) -> StepCost:
    """Time the loop's supervised step against the bare forward and backward of its network.

    The step takes bytes, augments image and mask in one warp, computes S4's loss, goes backward,
    and moves Adam and the moving average. The two take turns, so that a busy machine slows both.
    """
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4 * batch, 1, size, size), dtype=np.uint8)
    masks = (rng.random((4 * batch, 1, size, size)) < 0.3).astype(np.float32)
    schedule, where = Schedule(batch_size=batch, ema=0.99), Device(device)
    examples = MaskExamples(np.arange(4 * batch), Drawn(masks))
    ready = torch.from_numpy(pixels[:batch]).to(device).float() / 255
    truth = torch.from_numpy(masks[:batch]).to(device)
    alone = build_segmenter(backbone, 1, auxiliary=False).to(device).train()
    alone = alone.to(memory_format=torch.channels_last)

    def bare() -> None:
        alone.zero_grad(set_to_none=True)
        with where.mixed():
            loss = dice_loss(alone(ready).maps, truth)
        loss.backward()

    with reproducible():
        feed = MaskFeed(pixels, examples, schedule, MILD, 0, where)
        trained = build_segmenter(backbone, 1, auxiliary=False)
        loop = Loop(trained, feed, schedule, 0, where, S4)
        pairs = [
            (_milliseconds(bare, device), _milliseconds(lambda n=n: loop.step(n, "bench"), device))
            for n in range(repeats + 2)
        ][2:]  # the first are slow for reasons of their own
    middle = [statistics.median(column) for column in zip(*pairs, strict=True)]
    ratio = statistics.median(step / alone for alone, step in pairs)
    return StepCost(backbone, size, batch, middle[0], middle[1], ratio)


def table(found: StepCost) -> Table:
    """One line."""
    columns = ("network", "px", "batch", "forward + backward, ms", "training step, ms", "ratio")
    made = show.table("A training step of masks", columns, left=1)
    numbers = (f"{found.bare:.1f}", f"{found.step:.1f}", f"{found.ratio:.2f}")
    made.add_row(found.backbone, str(found.size), str(found.batch), *numbers)
    return made


def _milliseconds(work: Callable[[], object], device: str) -> float:
    began = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began)
