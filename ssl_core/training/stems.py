"""What frozen blocks give, computed once instead of at every step.

On a CPU most of a training step goes into blocks that do not train. Where the views of an image are
fixed, what those blocks give for them never changes: it is kept as memory maps beside the pixels,
named by the weights and the pixels they came from, and shared by all rounds, seeds and arms of a
simulation. For scoring these are the image and its mirror; for training the same two, or a number
of views that are drawn once from each augmentation (`Banks`).
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssl_core.images import ImageStore
from ssl_core.progress import Progress, Report, silent
from ssl_core.training.augment import as_float
from ssl_core.training.distributed import barrier, is_main
from ssl_core.training.models import Classifier
from ssl_core.training.predict import Device
from ssl_core.training.rand_augment import View, view
from ssl_core.training.seeds import derived_seed

VIEWS = 2  # the image and its mirror
_UNUSED_DAYS = 14  # after that a cache is deleted: settings change, and each leaves gigabytes
_ROWS = 128  # computed between two marks of progress: what a kill can cost

Stem = Callable[[int, int], npt.NDArray[np.float16]]
"""The stems of the rows from start to stop, `(stop - start, K, c, h, w)`."""


@dataclass(frozen=True, slots=True, eq=False)
class Banks:
    """K views of each augmentation, drawn once for M images: the stems `(M, K, c, h, w)` of each.

    place: `(N_all,)`, for a row of the pixel store its row here, -1 for images that have none.
    """

    place: npt.NDArray[np.int64]
    arrays: Mapping[View, npt.NDArray[np.float16]]

    def draw(
        self, rows: npt.NDArray[np.int64], specs: Sequence[View], generator: torch.Generator
    ) -> list[Tensor]:
        """One view of each row for each spec, `(B, c, h, w)` float16 on the CPU.

        Specs that are equal get different views of an image, as long as there are.
        """
        place, taken = self.place[rows], dict.fromkeys(specs, 0)
        if (place < 0).any():
            raise ValueError("a row has no views in the bank")
        orders = {spec: self._order(spec, len(rows), generator) for spec in taken}
        drawn = []
        for spec in specs:
            column = orders[spec][:, taken[spec] % self.arrays[spec].shape[1]]
            taken[spec] += 1
            drawn.append(torch.from_numpy(self.arrays[spec][place, column]))
        return drawn

    def _order(self, spec: View, n: int, generator: torch.Generator) -> npt.NDArray[np.int64]:
        chance = torch.rand((n, self.arrays[spec].shape[1]), generator=generator)
        return np.asarray(chance.argsort(dim=1).numpy())


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
    model = _ready(model, device)

    def stem(start: int, stop: int) -> npt.NDArray[np.float16]:
        pixels = as_float(device.place(images.array[start:stop]))
        return _run(model, [pixels, pixels.flip(-1)], device)

    name = f"stems-{_digest(images, model)}"
    return _kept(folder / name, len(images), stem, report, "frozen blocks")


def view_banks(
    folder: Path,
    images: ImageStore,
    rows: npt.NDArray[np.int64],
    model: Classifier,
    specs: Sequence[View],
    views: int,
    *,
    device: Device,
    report: Report = silent,
) -> Banks:
    """The frozen blocks' output for K = `views` views of each augmentation of `specs`.

    The views of an image depend on the augmentation and on the image's place among `rows`, on no
    round's seed. See `stem_array`; rows: `(M,)` rows of the store, those that will be trained on.
    """
    model, rows = _ready(model, device), np.sort(rows)

    def stem(spec: View, start: int, stop: int) -> npt.NDArray[np.float16]:
        pixels = device.place(images.array[rows[start:stop]])
        generator = torch.Generator().manual_seed(derived_seed("views", repr(spec), start))
        return _run(model, (view(pixels, spec, generator) for _ in range(views)), device)

    arrays = {}
    for spec in dict.fromkeys(specs):
        name = f"views-{_digest(images, model, repr((spec, views, rows.tobytes())))}"
        work = partial(stem, spec)
        arrays[spec] = _kept(folder / name, len(rows), work, report, "views of frozen blocks")
    place = np.full(len(images), -1)
    place[rows] = np.arange(len(rows))
    return Banks(place, arrays)


def _ready(model: Classifier, device: Device) -> Classifier:
    if not model.frozen_blocks:
        raise ValueError("a stem needs at least one frozen block")
    return model.to(device.name).eval()


def _kept(
    place: Path, count: int, stem: Stem, report: Report, stage: str
) -> npt.NDArray[np.float16]:
    """The memory map of what `stem` gives for rows 0 … count - 1, filled as far as it is not."""
    shape = (count, *stem(0, 1).shape[1:])
    if is_main():
        _fill(place, shape, stem, report, stage)
        _forget_unused(place)
    barrier()
    return np.memmap(place / "stems.f16", np.float16, "r", shape=shape)


def _fill(place: Path, shape: tuple[int, ...], stem: Stem, report: Report, stage: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    path, mark = place / "stems.f16", place / "done"
    row_bytes = math.prod(shape[1:]) * np.dtype(np.float16).itemsize
    done = _finished_rows(path, mark, row_bytes)
    path.touch()  # never truncated: another process may be filling it with the same
    # Written as a file, since a full disk kills the process that writes to a memory map.
    with path.open("r+b") as file:
        file.seek(done * row_bytes)
        while done < shape[0]:
            chunk = stem(done, min(done + _ROWS, shape[0]))
            file.write(chunk.tobytes())
            file.flush()
            os.fsync(file.fileno())  # before the mark: a marked row is whole
            done += len(chunk)
            scratch = mark.with_suffix(f".{os.getpid()}.tmp")
            scratch.write_text(str(done))
            scratch.replace(mark)
            report(Progress(stage, done, shape[0]))


def _forget_unused(used: Path) -> None:
    """Delete the caches beside the one in use that nobody has opened for a long time."""
    os.utime(used)
    oldest = time.time() - _UNUSED_DAYS * 24 * 3600
    for other in [*used.parent.glob("stems-*"), *used.parent.glob("views-*")]:
        with suppress(OSError):  # another process was first
            if other.stat().st_mtime < oldest:
                shutil.rmtree(other)


def _finished_rows(path: Path, mark: Path, row_bytes: int) -> int:
    """How many rows are whole; none of a damaged cache, which is filled afresh."""
    try:
        done = int(mark.read_text())
        return done if path.stat().st_size >= done * row_bytes else 0
    except (OSError, ValueError):
        return 0


def _run(model: Classifier, views: Iterable[Tensor], device: Device) -> npt.NDArray[np.float16]:
    with torch.inference_mode(), device.mixed():
        stems = [
            model.stem(one.to(memory_format=torch.channels_last)).half().cpu().numpy()
            for one in views
        ]
    return np.stack(stems, axis=1)


def _digest(images: ImageStore, model: Classifier, more: str = "") -> str:
    digest = hashlib.sha256(repr((images.ids, images.array.shape)).encode())
    digest.update(np.ascontiguousarray(images.array[:: max(1, len(images) // 64)]).tobytes())
    for name, tensor in model.blocks[: model.frozen_blocks].state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    digest.update(more.encode())
    return digest.hexdigest()[:24]
