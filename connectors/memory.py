"""Images and readers in memory: the shipped fakes for tests, demos and notebooks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ssl_core.errors import ImageError
from ssl_core.records import Assignment, Hint, Outcome, Pulled, Read


class MemorySource:
    """Images by name, each `(H, W, 3)` uint8 RGB (an `ImageSource`)."""

    def __init__(self, images: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        for path, image in images.items():
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise ValueError(f"{path!r} must be (H, W, 3) uint8, not {image.shape}.")
        self.images = dict(images)

    def digest(self, path: str) -> str:
        """Hash of shape and pixels: 32 hexadecimal digits. Raises `ImageError`."""
        image = self._image(path)
        return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:32]

    def read(self, path: str) -> npt.NDArray[np.uint8]:
        """A copy of the image, `(H, W, 3)` uint8. Raises `ImageError`."""
        return self._image(path).copy()

    def _image(self, path: str) -> npt.NDArray[np.uint8]:
        if path not in self.images:
            raise ImageError(f"{path!r} is not among the images in memory; check the path.")
        return self.images[path]


class MemoryRoom:
    """Readers who are played by the caller: `submit` and `skip` say what one of them did.

    A `ReadingRoom`. `waiting` holds what is in front of each reader, in order.
    """

    name = "memory"

    def __init__(self, readers: Sequence[str] = ("reader",)) -> None:
        self.readers = tuple(readers)
        self.waiting: dict[str, list[Assignment]] = {}
        self.hints: dict[str, Sequence[Hint]] = {}
        self._reads: list[Read] = []

    def queue(self, open_: Sequence[Assignment], hints: Mapping[str, Sequence[Hint]]) -> None:
        """Make what each reader has to read exactly this, in order of priority."""
        self.waiting = {}
        for one in sorted(open_, key=lambda a: a.priority):
            self.waiting.setdefault(one.reader, []).append(one)
        shown = {one.item_id for one in open_ if one.hinted}
        self.hints = {item_id: hints[item_id] for item_id in shown if item_id in hints}

    def submit(
        self, item_id: str, answers: Mapping[str, float], *, reader: str = "", **more: Any
    ) -> None:
        """A reader answers: 1.0 present, 0.0 absent, NaN cannot tell; `more` as in `Read`.

        In a segmentation task `masks` holds (finding, digest) of what was drawn.
        """
        self._add(item_id, reader, answers=tuple(answers.items()), **more)

    def act(self, item_id: str, outcome: Outcome, *, reader: str = "", **more: Any) -> None:
        """A reader calls an image unusable, skips it, or withdraws what they had said."""
        self._add(item_id, reader, outcome=outcome, **more)

    def pull(self, bookmark: str) -> Iterable[Pulled]:
        """What was done since the bookmark; the n-th read always has the same `key`."""
        reads = tuple(self._reads[int(bookmark or 0) :])
        yield Pulled(reads, bookmark=str(len(self._reads)))

    def _add(self, item_id: str, reader: str, **more: Any) -> None:
        reader = reader or self.readers[0]
        key = f"memory:{len(self._reads)}"
        self._reads.append(Read(key, item_id, reader, "label_studio", **more))
