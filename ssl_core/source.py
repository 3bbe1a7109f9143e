"""The seams to the outside, owned here by their consumer: two methods each.

`connectors` implements them (folder, simulated reader, later DICOM and Label Studio) and ships
an in-memory fake; nothing in `ssl_core` knows which one it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ssl_core.records import Item, Label, Selection


class ImageSource(Protocol):
    """Where the pixels come from."""

    def digest(self, path: str) -> str:
        """Content hash of one image file: 32 hexadecimal digits. Raises `ImageError`."""

    def read(self, path: str) -> npt.NDArray[np.uint8]:
        """Decode one image to `(H, W, 3)` uint8, RGB. Raises `ImageError` naming the file."""


class ReadingRoom(Protocol):
    """Where labels come from: readers answer what a round asked."""

    def queue(self, round_number: int, items: Sequence[Item], why: Sequence[Selection]) -> None:
        """Put items in front of the readers, in order; queueing twice changes nothing."""

    def pull(self) -> Iterable[Label]:
        """Every answer so far, oldest first; each with the `key` that makes it one event."""
