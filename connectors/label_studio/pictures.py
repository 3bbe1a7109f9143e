"""The pictures that readers see: PNG files named by item id, with no patient data in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SUBFOLDER = "images"
"""Below the server's document root, which itself may not be a storage."""

Read = Callable[[str], npt.NDArray[np.uint8]]


class LocalFiles:
    """Pictures in a folder that Label Studio serves itself, to people who are signed in.

    `root` is the server's document root; `read` gives an item's pixels, `(H, W, 3)` or `(H, W)`
    uint8. Pixels are written anew and files are never copied, since a file may carry names in
    its metadata.
    """

    def __init__(self, root: Path, read: Read) -> None:
        self.folder = root / SUBFOLDER
        self._read = read

    def url(self, item_id: str) -> str:
        """The address of an item's picture, as tasks hold it."""
        return f"/data/local-files/?d={SUBFOLDER}/{item_id}.png"

    def prepare(
        self, item_ids: Sequence[str], progress: Callable[[int, int], None] = lambda done, n: None
    ) -> None:
        """Write the pictures that are not there yet; a killed run leaves no half-written one.

        Raises `ImageError` for an item whose file cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        held = {entry.name for entry in os.scandir(self.folder)}
        missing = [item_id for item_id in item_ids if f"{item_id}.png" not in held]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done, _ in enumerate(pool.map(self._write, missing), start=1):
                progress(done, len(missing))

    def size(self, item_id: str) -> tuple[int, int]:
        """`(H, W)` of an item's picture as it lies there, whatever `read` would give today.

        Raises `OSError` where there is none that can be read.
        """
        with Image.open(self.folder / f"{item_id}.png") as image:
            return image.height, image.width

    def _write(self, item_id: str) -> None:
        path = self.folder / f"{item_id}.png"
        scratch = path.with_suffix(f".{os.getpid()}.tmp")
        pixels = self._read(item_id)
        image = Image.fromarray(_grey(pixels))
        image.save(scratch, "PNG", compress_level=1)  # a fifth of the time for a tenth more bytes
        scratch.replace(path)


def _grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """One channel where three are the same: a third of the bytes, and readers see no tint."""
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        first = pixels[:, :, 0]
        if (first == pixels[:, :, 1]).all() and (first == pixels[:, :, 2]).all():
            return first
    return pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
