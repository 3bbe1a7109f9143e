"""The seams to the outside, owned here by their consumer: two methods each.

`connectors` implements them (folder, simulated reader, Label Studio, later DICOM) and ships an
in-memory fake; nothing in `ssl_core` knows which one it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ssl_core.records import Assignment, Hint, Pulled


class ImageSource(Protocol):
    """Where the pixels come from."""

    def digest(self, path: str) -> str:
        """Content hash of one image file: 32 hexadecimal digits. Raises `ImageError`."""

    def read(self, path: str) -> npt.NDArray[np.uint8]:
        """Decode one image to `(H, W, 3)` uint8, RGB. Raises `ImageError` naming the file."""


class ReadingRoom(Protocol):
    """Where labels come from: readers answer what a round asked."""

    @property
    def name(self) -> str:
        """The room's name in the ledger, which keeps one bookmark a room."""

    @property
    def readers(self) -> tuple[str, ...]:
        """Who reads here."""

    def queue(self, open_: Sequence[Assignment], hints: Mapping[str, Sequence[Hint]]) -> None:
        """Make what each reader still has to read exactly this, in order of priority.

        What is missing is put there; what is there and not in `open_` is taken away, unless it
        was read or is being read. Queueing twice changes nothing. `hints` holds, by item, what
        hinted readers are shown.
        """

    def pull(self, bookmark: str) -> Iterable[Pulled]:
        """What readers did since the bookmark, oldest first; "" is everything.

        What comes twice has the same `key` both times. The bookmark of a pull is kept once all of
        it was taken: until then, what a ledger refused is told again.
        """
