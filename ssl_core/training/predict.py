"""The only inference loop: probabilities, features and augmented views of many images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssl_core.progress import Progress, Report, silent
from ssl_core.training.augment import Augmentation, as_float, augment
from ssl_core.training.distributed import gather_shares, share_of
from ssl_core.training.models import Classifier

Tta = Literal["none", "flip", "ten_crop"]
Inputs = npt.NDArray[np.uint8] | npt.NDArray[np.float16]
"""Rows to run a network on: pixels `(N, C, H, W)` uint8, or what the frozen blocks give for an
image and its mirror, `(N, 2, c, h, w)` float16 (see `stems`)."""

CROP = 7 / 8  # of the side, as in S0: 224 of 256 pixels


@dataclass(frozen=True, slots=True)
class Prediction:
    """`probabilities` `(N, C)` in [0, 1] and `features` `(N, D)`, float32, means over TTA views."""

    probabilities: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Device:
    """Where and how networks run: the machine's side of a computation, none of its meaning."""

    name: str = "cpu"
    batch_size: int = 64
    autocast: bool = True
    compile: bool = False

    def mixed(self) -> AbstractContextManager[object]:
        """bf16 autocast on CUDA devices that compute in bf16 (Ampere and later).

        Older ones emulate it, and a CPU without AMX is several times slower with it: never there.
        """
        wanted = self.autocast and self.name.startswith("cuda")
        if wanted and torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.autocast("cuda", torch.bfloat16)
        return nullcontext()

    def place(self, pixels: Inputs) -> Tensor:
        """Copy rows of the inputs to the device: `(B, C, H, W)` uint8, or stems as they are."""
        images = torch.from_numpy(np.array(pixels)).to(self.name, non_blocking=True)
        stems = images.ndim == 5
        return images.float() if stems else images.to(memory_format=torch.channels_last)


def choose_device(wanted: str) -> str:
    """Resolve "auto" to "cuda" when there is one, else "cpu"."""
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def tta_views(images: Tensor, tta: Tta) -> Iterator[Tensor]:
    """The views whose predictions are averaged.

    "none": the image; "flip": and its mirror; "ten_crop": four corners and the centre at 7/8 of
    the side, each and its mirror (S0, Section 4). Of stems `(B, 2, c, h, w)` there is no crop.
    """
    if images.ndim == 5:
        yield from images.unbind(1)[: 1 if tta == "none" else None]
        return
    for crop in _crops(images) if tta == "ten_crop" else (images,):
        yield crop
        if tta != "none":
            yield crop.flip(-1)


def _crops(images: Tensor) -> Iterator[Tensor]:
    height, width = images.shape[-2:]
    h, w = round(height * CROP), round(width * CROP)
    middle = ((height - h) // 2, (width - w) // 2)
    for top, left in ((0, 0), (0, width - w), (height - h, 0), (height - h, width - w), middle):
        yield images[..., top : top + h, left : left + w]


def to_probabilities(logits: Tensor, *, exclusive: bool) -> Tensor:
    """Softmax over exclusive classes, a sigmoid for each finding otherwise; float32."""
    logits = logits.float()
    return logits.softmax(dim=1) if exclusive else logits.sigmoid()


def predict(
    model: Classifier,
    pixels: Inputs,
    rows: npt.NDArray[np.int64],
    *,
    exclusive: bool,
    device: Device,
    tta: Tta = "none",
    report: Report = silent,
    stage: str = "predict",
) -> Prediction:
    """Score rows of the pixel store; under torchrun the processes share the work.

    Args:
        model: `(B, C_in, H, W)` images in [0, 1] to logits `(B, C)` and features `(B, D)`.
        pixels: `(N_all, C_in, H, W)` uint8, usually a memory map, or stems of the same rows.
        rows: `(N,)` rows of `pixels`, in the order of the answer; N = 0 gives empty arrays.
        exclusive: softmax rather than sigmoids.
        device: where to run; the model is moved there.
        tta: test-time augmentation, see `tta_views`.
        report: told after every batch.
        stage: the name to report under.
    """
    mine = share_of(rows)
    probabilities = np.empty((len(mine), model.head.out_features), np.float32)
    features = np.empty((len(mine), model.head.in_features), np.float32)
    with _inference(model, device):
        for start, images in _batches(pixels, mine, device, report, stage):
            outputs = [model(view) for view in tta_views(images, tta)]
            scores = [to_probabilities(o.logits, exclusive=exclusive) for o in outputs]
            stop = start + len(images)
            probabilities[start:stop] = torch.stack(scores).mean(0).cpu().numpy()
            pooled = torch.stack([o.features.float() for o in outputs]).mean(0)
            features[start:stop] = pooled.cpu().numpy()
    return Prediction(gather_shares(probabilities), gather_shares(features))


def predict_views(
    model: Classifier,
    pixels: Inputs,
    rows: npt.NDArray[np.int64],
    *,
    views: int,
    spec: Augmentation,
    seed: int,
    exclusive: bool,
    device: Device,
    report: Report = silent,
) -> npt.NDArray[np.float32]:
    """Probabilities `(V, N, C)` of V augmented views of each row, for disagreement scores.

    The views of a row depend on `seed`, on the row's place in `rows` and on the batch size.
    """
    mine = share_of(rows)
    scores = np.empty((views, len(mine), model.head.out_features), np.float32)
    with _inference(model, device):
        for start, images in _batches(pixels, mine, device, report, "views"):
            generator = torch.Generator().manual_seed(seed + start)
            for view in range(views):
                output = model(augment(images, spec, generator))
                chunk = to_probabilities(output.logits, exclusive=exclusive)
                scores[view, start : start + len(images)] = chunk.cpu().numpy()
    return gather_shares(scores, axis=1)


def validation_scorer(
    model: Classifier,
    pixels: Inputs,
    rows: npt.NDArray[np.int64],
    *,
    exclusive: bool,
    device: Device,
) -> Callable[[Classifier], npt.NDArray[np.float32]]:
    """A function that scores the same rows `(N, C)` again and again while the model trains.

    With frozen blocks, what they give for these rows never changes: it is computed once and kept,
    which makes validating after every epoch cheap on a CPU.
    """
    if not model.frozen_blocks or pixels.ndim == 5:
        return lambda m: predict(m, pixels, rows, exclusive=exclusive, device=device).probabilities
    mine = share_of(rows)
    with _inference(model, device):
        stems = [model.stem(images) for _, images in _batches(pixels, mine, device, silent, "")]

    def score(current: Classifier) -> npt.NDArray[np.float32]:
        with _inference(current, device):
            parts = [
                to_probabilities(current.tail(stem).logits, exclusive=exclusive).cpu().numpy()
                for stem in stems
            ]
        empty = np.empty((0, current.head.out_features), np.float32)
        return gather_shares(np.concatenate([empty, *parts]))

    return score


@contextmanager
def _inference(model: Classifier, device: Device) -> Iterator[None]:
    model.to(device.name).eval()
    with torch.inference_mode(), device.mixed():
        yield


def _batches(
    pixels: Inputs,
    rows: npt.NDArray[np.int64],
    device: Device,
    report: Report,
    stage: str,
) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(rows), device.batch_size):
        chunk = rows[start : start + device.batch_size]
        images = device.place(pixels[chunk])
        yield start, images if images.ndim == 5 else as_float(images)
        report(Progress(stage, min(start + len(chunk), len(rows)), len(rows)))
