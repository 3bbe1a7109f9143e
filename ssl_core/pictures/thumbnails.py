"""Small pictures for pages, from the pixels at the working size, with window and level."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ssl_core.errors import WorkspaceError
from ssl_core.images import ImageStore

Kind = Literal["jpeg", "png"]
Pixels = npt.NDArray[np.uint8]

CENTRE, WIDTH = 127.5, 255.0  # the window that changes nothing
QUALITY = 85


def windowed(pixels: Pixels, centre: float = CENTRE, width: float = WIDTH) -> Pixels:
    """Pixels of any shape through a window: centre - width/2 becomes 0, centre + width/2 255.

    `centre` in 0..255, `width` above 0 (1 at the least is used). The linear function of DICOM's
    windows, without its half-step (PS3.3 C.11.2.1.3.2, LINEAR_EXACT).
    """
    width = max(width, 1.0)
    share = (np.arange(256) - (centre - width / 2)) / width
    table = np.floor(np.clip(share, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
    return np.asarray(table[pixels])


def encoded(pixels: Pixels, side: int | None = None, kind: Kind = "jpeg") -> bytes:
    """A picture `(C, H, W)`, C 1 or 3, as a file; `side` is its longer side, None leaves it."""
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    if side is not None:
        scale = side / max(image.size)
        size = tuple(max(1, round(length * scale)) for length in image.size)
        image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    options = {"quality": QUALITY} if kind == "jpeg" else {"compress_level": 1}
    image.save(file, kind.upper(), **options)
    return file.getvalue()


def thumbnails(
    images: ImageStore,
    ids: Sequence[str],
    *,
    side: int = 128,
    centre: float = CENTRE,
    width: float = WIDTH,
    kind: Kind = "jpeg",
) -> list[bytes]:
    """A small picture of each item, in the order asked.

    Raises:
        WorkspaceError: an item has no pixels.
    """
    return [encoded(windowed(p, centre, width), side, kind) for p in _pixels(images, ids)]


def data_url(picture: bytes, kind: Kind = "jpeg") -> str:
    """A picture as a `data:` address, for tables and charts that take one."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def montage(
    images: ImageStore,
    ids: Sequence[str],
    *,
    columns: int,
    centre: float = CENTRE,
    width: float = WIDTH,
) -> Pixels:
    """The items side by side, `columns` a row, as one picture `(C, rows·size, columns·size)`.

    Places that are left over are black; no item gives one black row.

    Raises:
        WorkspaceError: an item has no pixels.
    """
    pixels = windowed(_pixels(images, ids), centre, width)
    channels, size = images.channels, images.size
    rows = max(1, math.ceil(len(ids) / columns))
    board = np.zeros((rows * columns, channels, size, size), np.uint8)
    board[: len(ids)] = pixels
    grid = board.reshape(rows, columns, channels, size, size).transpose(2, 0, 3, 1, 4)
    return grid.reshape(channels, rows * size, columns * size)


def _pixels(images: ImageStore, ids: Sequence[str]) -> Pixels:
    try:
        return images.pixels(ids)
    except KeyError as error:
        raise WorkspaceError(
            f"There is no picture to show ({error.args[0]}): put back the images folder that "
            "belongs to the ledger."
        ) from None
