"""What a room is given to show pictures with, and to keep and show what is painted on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from connectors.label_studio.page import hint_result
from ssl_core.errors import ReadingRoomError
from ssl_core.records import Hint, Task

Bools = npt.NDArray[np.bool_]


class Pictures(Protocol):
    """Where the server, or a reader's browser, finds an item's picture."""

    @property
    def folder(self) -> Path | None:
        """The folder that the server serves itself; None where another server does."""

    def url(self, item_id: str) -> str:
        """The address that a task holds."""

    def prepare(self, item_ids: Sequence[str], progress: Callable[[int, int], None]) -> None:
        """See to it that the addresses will answer."""

    def size(self, item_id: str) -> tuple[int, int]:
        """`(H, W)` of a picture that was prepared. Raises `OSError` if it cannot be read."""


class Masks(Protocol):
    """Where masks are kept, by digest."""

    def keep(self, item_id: str, mask: Bools) -> str:
        """Keep what was painted on an item's picture, `(H, W)`, in the item's own frame.

        Raises `ValueError` with a phrase where it does not fit the image.
        """

    def load(self, digest: str, size: tuple[int, int]) -> Bools:
        """A kept mask as it lies on a picture of `size`, `(H, W)`."""


def painted(
    task: Task, hints: Sequence[Hint], item_id: str, pictures: Pictures, masks: Masks
) -> list[dict[str, Any]]:
    """A prediction's result: what the model said of an item, painted on the picture if it drew.

    Raises `ReadingRoomError` where the picture cannot be read.
    """
    values = {hint.finding: hint.value for hint in hints}
    drawn = {hint.finding: hint.mask for hint in hints if hint.mask}
    try:
        size = pictures.size(item_id)
    except OSError as error:
        raise ReadingRoomError(
            f"The picture of the item {item_id} cannot be read ({error}): delete it from "
            f"{pictures.folder}, and queue again."
        ) from error
    found = {finding: masks.load(digest, size) for finding, digest in drawn.items()}
    return hint_result(task, values, found)
