"""How fast one composed warp is beside the same augmentation in kornia."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from ssl_core.errors import ReadloopError
from ssl_core.training.augment import S0, Augmentation, augment


def run(
    sizes: Sequence[int] = (28, 64, 256),
    batch: int = 64,
    repeats: int = 15,
    device: str | torch.device = "cpu",
) -> list[dict[str, float]]:
    """Time S0's weak augmentation of `(batch, 3, size, size)` float images, ours and kornia's.

    Returns a row a size: `size` (pixels), `ours_ms` and `kornia_ms` (median milliseconds a batch
    of `repeats`, the two taking turns so that a busy machine slows both), `ratio` (kornia / ours:
    above 1, ours is faster). Raises ReadloopError where kornia is not installed.
    """
    generator = torch.Generator().manual_seed(0)
    peer = _in_kornia(S0).to(device)
    rows = []
    for size in sizes:
        images = torch.rand(batch, 3, size, size, generator=generator).to(device)
        ours, kornia = _medians(
            [partial(augment, images, S0, generator), partial(peer, images)], repeats, images
        )
        rows.append({"size": size, "ours_ms": ours, "kornia_ms": kornia, "ratio": kornia / ours})
    return rows


def table(rows: Sequence[dict[str, float]]) -> Table:
    """The rows of `run` for the terminal."""
    shown = Table(title="Weak augmentation")
    for heading in ("size", "ours, ms a batch", "kornia, ms a batch", "ratio"):
        shown.add_column(heading, justify="right")
    for row in rows:
        shown.add_row(
            f"{row['size']:g} px",
            f"{row['ours_ms']:.1f}",
            f"{row['kornia_ms']:.1f}",
            f"{row['ratio']:.1f}×",
        )
    return shown


def _in_kornia(spec: Augmentation) -> nn.Module:
    """The same transforms with the same ranges, one after the other as kornia runs them."""
    try:
        import kornia.augmentation as kornia
    except ImportError as error:
        raise ReadloopError(
            "The augmentation benchmark compares with kornia, which is not installed: "
            "install the project's dev dependencies."
        ) from error
    shift, tilt = (spec.translation, spec.translation), spec.perspective_probability
    steps: list[Any] = [
        kornia.RandomHorizontalFlip(p=spec.flip),
        kornia.RandomAffine(spec.rotation, translate=shift, scale=spec.scale, p=1.0),
        kornia.RandomPerspective(spec.perspective, p=tilt),
    ]
    return nn.Sequential(*steps)


def _medians(calls: Sequence[Callable[[], Tensor]], repeats: int, images: Tensor) -> list[float]:
    """Median milliseconds of each call, after one call each that is not counted."""
    taken: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for call, times in zip(calls, taken, strict=True):
            start = time.perf_counter()
            call()
            if images.is_cuda:
                torch.cuda.synchronize(images.device)
            if turn:
                times.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(times) for times in taken]
