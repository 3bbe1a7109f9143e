"""Images a second of the training loop and of ten-crop inference, by network and mode."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from rich.table import Table

from app import show
from ssl_core.training.augment import S0
from ssl_core.training.feed import Examples, ImageFeed
from ssl_core.training.models import build_model
from ssl_core.training.objectives import supervised
from ssl_core.training.predict import Device, choose_device, predict
from ssl_core.training.schedule import Schedule
from ssl_core.training.steps import Loop, reproducible

MODES = {
    "float32": {"autocast": False, "compile": False},
    "bf16": {"autocast": True, "compile": False},
    "bf16, compiled": {"autocast": True, "compile": True},
}
"""Channels last always; on a CPU there is no bf16, and the first two are the same."""


def run(
    backbones: Sequence[str],
    *,
    batches: Sequence[int] = (64, 128, 256),
    size: int = 256,
    device: str = "auto",
    steps: int = 20,
) -> Iterator[dict[str, Any]]:
    """Time the loop's own steps (draw, augment, forward, backward, Adam) and `predict`.

    Yields a row a backbone, batch and mode: `train` and `predict` (images a second: the batch over
    the median step, after three that are not counted; all images over the faster of two calls,
    ten-crop), `memory_mb` (most that training had allocated on a CUDA device, else None). Pixels
    are noise `(2·batch, 1, size, size)`.
    """
    where = choose_device(device)
    for backbone in backbones:
        for batch in batches:
            for mode, options in MODES.items():
                here = Device(where, batch, **options)
                train, memory = _train(backbone, batch, size, here, steps)
                scored = None if here.compile else _predict(backbone, batch, size, here)
                yield {
                    "backbone": backbone,
                    "batch": batch,
                    "mode": mode,
                    "train": train,
                    "predict": scored,
                    "memory_mb": memory,
                }


def device_name(device: str = "auto") -> str:
    """What the table's title calls the machine."""
    where = choose_device(device)
    if where.startswith("cuda"):
        return torch.cuda.get_device_name(where)
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


def _train(
    backbone: str, batch: int, size: int, device: Device, steps: int
) -> tuple[float, float | None]:
    pixels, targets = _noise(batch, size)
    examples = Examples(np.arange(len(pixels)), targets)
    on_cuda = device.name.startswith("cuda")
    torch.compiler.reset()  # a graph made for another batch size would be made general, and slower
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    with reproducible():
        schedule = Schedule(batch_size=batch)
        feed = ImageFeed(pixels, examples, schedule, S0, 0, False, device)
        loop = Loop(build_model(backbone, 1), feed, schedule, 0, device, supervised)
        taken = [_seconds(lambda n=n: loop.step(n, "bench")) for n in range(steps + 3)][3:]
    memory = torch.cuda.max_memory_allocated() / 2**20 if on_cuda else None
    return batch / statistics.median(taken), memory


def _predict(backbone: str, batch: int, size: int, device: Device) -> float:
    pixels, _ = _noise(batch, size)
    model, rows = build_model(backbone, 1), np.arange(len(pixels))

    def score() -> None:  # its answer is an array of the CPU's: it waits for the device
        predict(model, pixels, rows, exclusive=False, device=device, tta="ten_crop")

    return len(rows) / min(_seconds(score) for _ in range(2))


def _noise(batch: int, size: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2 * batch, 1, size, size), dtype=np.uint8)
    return pixels, np.arange(2 * batch)[:, None] % 2.0


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()  # a step returns its loss as a number: it has waited for the device
    return time.perf_counter() - start


def table(rows: Sequence[dict[str, Any]], size: int, device: str) -> Table:
    """The rows of `run` for the terminal."""
    columns = ("network", "mode", "batch", "train, images/s", "ten-crop, images/s", "memory, MB")
    made = show.table(f"{size} px on {device_name(device)}", columns, left=2)
    for row in rows:
        measured = (row["train"], row["predict"], row["memory_mb"])
        cells = ("–" if value is None else f"{value:,.0f}" for value in measured)
        made.add_row(row["backbone"], row["mode"], str(row["batch"]), *cells)
    return made
