"""What frozen blocks give for every item, computed once instead of at every step.

On a CPU most of a training step goes into blocks that do not train. If the views of an image are
fixed (itself and its mirror), what those blocks give for them never changes: it is kept as a
memory map beside the pixels, named by the weights and the pixels it came from, and shared by all
rounds, seeds and arms of a simulation.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ssl_core.augment import as_float
from ssl_core.distributed import barrier, is_main
from ssl_core.images import ImageStore
from ssl_core.models import Classifier
from ssl_core.predict import Device
from ssl_core.progress import Progress, Report, silent

VIEWS = 2  # the image and its mirror
_ROWS = 128  # computed between two marks of progress: what a kill can cost


def stem_array(
    folder: Path,
    images: ImageStore,
    model: Classifier,
    *,
    device: Device,
    report: Report = silent,
) -> npt.NDArray[np.float16]:
    """The frozen blocks' output for every item of the store, and for its mirror.

    Args:
        folder: where the memory map is kept.
        images: N items.
        model: frozen as it will be trained; its first `frozen_blocks` ≥ 1 blocks are run.
        device: where to run.
        report: told of progress; what it raises stops the work, which goes on at the next call.

    Returns:
        `(N, 2, c, h, w)` float16, read-only, in the order of the store's rows.

    Raises:
        ValueError: the model has no frozen block.
    """
    if not model.frozen_blocks:
        raise ValueError("a stem needs at least one frozen block")
    model = model.to(device.name).eval()
    place = folder / f"stems-{_digest(images, model)}"
    shape = (len(images), VIEWS, *_stem(model, images.array[:1], device).shape[2:])
    if is_main():
        _fill(place, shape, images, model, device, report)
    barrier()
    return np.memmap(place / "stems.f16", np.float16, "r", shape=shape)


def _fill(
    place: Path,
    shape: tuple[int, ...],
    images: ImageStore,
    model: Classifier,
    device: Device,
    report: Report,
) -> None:
    place.mkdir(parents=True, exist_ok=True)
    path, mark = place / "stems.f16", place / "done"
    row_bytes = math.prod(shape[1:]) * np.dtype(np.float16).itemsize
    done = _finished_rows(path, mark, row_bytes)
    path.touch()  # never truncated: another process may be filling it with the same
    # Written as a file, since a full disk kills the process that writes to a memory map.
    with path.open("r+b") as file:
        file.seek(done * row_bytes)
        while done < shape[0]:
            chunk = images.array[done : done + _ROWS]
            file.write(_stem(model, chunk, device).tobytes())
            file.flush()
            os.fsync(file.fileno())  # before the mark: a marked row is whole
            done += len(chunk)
            scratch = mark.with_suffix(f".{os.getpid()}.tmp")
            scratch.write_text(str(done))
            scratch.replace(mark)
            report(Progress("frozen blocks", done, shape[0]))


def _finished_rows(path: Path, mark: Path, row_bytes: int) -> int:
    """How many rows are whole; none of a damaged cache, which is filled afresh."""
    try:
        done = int(mark.read_text())
        return done if path.stat().st_size >= done * row_bytes else 0
    except (OSError, ValueError):
        return 0


def _stem(
    model: Classifier, pixels: npt.NDArray[np.uint8], device: Device
) -> npt.NDArray[np.float16]:
    with torch.inference_mode(), device.mixed():
        images = as_float(device.place(pixels))
        views = [model.stem(view).half().cpu().numpy() for view in (images, images.flip(-1))]
    return np.stack(views, axis=1)


def _digest(images: ImageStore, model: Classifier) -> str:
    digest = hashlib.sha256(repr((images.ids, images.array.shape)).encode())
    digest.update(np.ascontiguousarray(images.array[:: max(1, len(images) // 64)]).tobytes())
    for name, tensor in model.blocks[: model.frozen_blocks].state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]
