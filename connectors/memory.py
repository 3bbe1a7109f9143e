"""Images and readers in memory: the shipped fakes for tests, demos and notebooks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ssl_core.errors import ImageError
from ssl_core.records import Item, Label, Selection


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
    """Readers who are played by the caller: `submit` says what one of them answered.

    A `ReadingRoom`. `queued` holds what was asked, by round and then by item id, in order.
    """

    def __init__(self) -> None:
        self.queued: dict[int, dict[str, tuple[Item, Selection | None]]] = {}
        self._answers: list[Label] = []

    def queue(self, round_number: int, items: Sequence[Item], why: Sequence[Selection]) -> None:
        """Put items in front of the readers, in order; queueing twice changes nothing."""
        reasons = {selection.item_id: selection for selection in why}
        asked = self.queued.setdefault(round_number, {})
        for item in items:
            asked.setdefault(item.id, (item, reasons.get(item.id)))

    def submit(
        self,
        item_id: str,
        finding: str,
        value: float,
        *,
        reader: str = "reader",
        seconds: float | None = None,
    ) -> None:
        """Answer one finding of a queued item: 1.0 present, 0.0 absent, NaN cannot tell."""
        if not any(item_id in asked for asked in self.queued.values()):
            raise ValueError(f"item {item_id!r} was never queued.")
        key = f"memory:{len(self._answers)}"
        self._answers.append(Label(item_id, finding, value, reader, "label_studio", key, seconds))

    def pull(self) -> Iterable[Label]:
        """Every answer so far, oldest first; the n-th one always has the same `key`."""
        return list(self._answers)
