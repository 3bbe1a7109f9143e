"""Inference of masks: what is wanted of each batch's maps is kept, and not the maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssl_core.masks.networks import MaskOutput, Segmenter
from ssl_core.masks.views import MaskView, see_pair, unwarp
from ssl_core.progress import Progress, Report, silent
from ssl_core.training.augment import as_float
from ssl_core.training.distributed import gather_shares, share_of
from ssl_core.training.predict import Device, Tta

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


class Maps(NamedTuple):
    """Of b items: `maps` `(b, C, S, S)` and `classes` `(b, C)` in [0, 1], `features` `(b, D)`.

    `classes` are the auxiliary classifier's; without one, the map's maximum. `images` are the
    bytes that they were made from, on the device.
    """

    maps: Floats
    classes: Floats
    features: Floats
    images: Tensor


Kept = Mapping[str, npt.NDArray[Any]]
Keep = Callable[[npt.NDArray[np.intp], Maps], Kept]
"""What is kept of a batch: of its places among the rows and its maps, arrays with a row an item."""


def each_batch(
    models: list[Segmenter],
    pixels: npt.NDArray[np.uint8],
    rows: Rows,
    keep: Callable[[npt.NDArray[np.intp], list[Maps]], Kept],
    *,
    device: Device,
    tta: Tta = "none",
    report: Report = silent,
    stage: str = "predict",
) -> dict[str, npt.NDArray[Any]]:
    """Show rows of the pixel store to K models, batch by batch; under torchrun work is shared.

    Args:
        models: all see the same batch.
        pixels: `(N_all, C_in, S, S)` uint8.
        rows: `(N,)` rows of `pixels`, in the order of the answer.
        keep: called with the batch's places in `rows` and each model's `Maps`; gives arrays whose
            first axis is the batch's.
        device: where to run; the models are moved there.
        tta: "flip" averages with the mirror; of masks there is no crop, so "ten_crop" is "flip".
        report: told after every batch.
        stage: the name to report under.

    Returns:
        The arrays of all rows, by name.
    """
    mine, found = share_of(np.arange(len(rows))), list[Kept]()
    for model in models:
        model.to(device.name).eval()
    with torch.inference_mode():
        for start in range(0, max(len(mine), 1), device.batch_size):
            # Without rows there is still an answer: what is kept, of none.
            chunk = mine[start : start + device.batch_size] if len(mine) else np.arange(1)
            images = device.place(pixels[rows[chunk] if len(rows) else chunk])
            kept = keep(chunk, [_ask(model, images, device, tta) for model in models])
            found.append(kept if len(mine) else {name: a[:0] for name, a in kept.items()})
            report(Progress(stage, min(start + len(chunk), len(mine)), len(mine)))
    return {
        name: gather_shares(np.concatenate([kept[name] for kept in found])) for name in found[0]
    }


def predict_masks(
    model: Segmenter,
    pixels: npt.NDArray[np.uint8],
    rows: Rows,
    keep: Keep,
    *,
    device: Device,
    tta: Tta = "none",
    report: Report = silent,
    stage: str = "predict",
) -> dict[str, npt.NDArray[Any]]:
    """`each_batch` of one model."""
    return each_batch(
        [model],
        pixels,
        rows,
        lambda places, made: keep(places, made[0]),
        device=device,
        tta=tta,
        report=report,
        stage=stage,
    )


def view_maps(
    model: Segmenter, images: Tensor, spec: MaskView, views: int, seed: int, device: Device
) -> Floats:
    """`(V, b, C, S, S)` under V views of the images, back in their own frame; NaN where unseen."""
    generator = torch.Generator().manual_seed(seed)
    pictures = as_float(images)
    made = []
    with torch.inference_mode():
        for _ in range(views):
            seen = see_pair(pictures, pictures[:, :0], spec, generator)
            with device.mixed():
                maps = model(seen.images).maps.sigmoid()
            made.append(unwarp(maps, seen.matrices))
    return np.asarray(torch.stack(made).clamp(0.0, 1.0).cpu().numpy(), dtype=np.float32)


def _ask(model: Segmenter, images: Tensor, device: Device, tta: Tta) -> Maps:
    pictures = as_float(images)
    with device.mixed():
        outputs = [(model(pictures), False)]
        if tta != "none":
            outputs.append((model(pictures.flip(-1)), True))
    maps = torch.stack(list(_maps(outputs))).mean(0).clamp(0.0, 1.0)
    said = [output.logits.sigmoid() for output, _ in outputs if output.logits is not None]
    classes = torch.stack(said).mean(0) if said else maps.amax(dim=(2, 3))
    features = torch.stack([output.features for output, _ in outputs]).mean(0)
    m, c, f = (t.cpu().numpy() for t in (maps, classes, features))
    return Maps(m, c, f, images)


def _maps(outputs: list[tuple[MaskOutput, bool]]) -> Iterator[Tensor]:
    for output, mirrored in outputs:
        maps = output.maps.sigmoid()
        yield maps.flip(-1) if mirrored else maps
