"""Masks between a picture that a reader sees and the item's own frame.

Readers see an image at its own size, or at the working size, where it is fitted like the pixels
that a model sees. What they draw is kept at the image's own size either way: the truth, exports
and a second reader's mask have one frame, whatever the pictures' resolution is set to later. What
a model draws is kept at the working size, the only one at which it says anything (so are
pseudo-masks), and enlarged for the picture that is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ssl_core.errors import WorkspaceError
from ssl_core.images import Fit
from ssl_core.masks import files
from ssl_core.masks.overlap import Bools


@dataclass(frozen=True, slots=True)
class ShownMasks:
    """Keeps masks that were drawn on pictures, and gives masks as they lie on pictures.

    `folder` holds the kept masks; `size` and `fit` are those of the image store. `own` gives an
    item's own `(H, W)`; it is asked once a mask.
    """

    folder: Path
    size: int
    fit: Fit
    own: Callable[[str], tuple[int, int]]

    def keep(self, item_id: str, mask: Bools) -> str:
        """Keep what was drawn on an item's picture, `(H, W)`, at the image's own size; the digest.

        At the image's own size it is kept as it is, to the pixel; at the working size it is
        enlarged (see `unfit_mask`).

        Raises:
            ValueError: it is of neither size, or nothing is left of it.
            ImageError: the item's image cannot be read.
            WorkspaceError: the folder cannot be written.
        """
        own = self.own(item_id)
        if mask.shape != own:
            if mask.shape != (self.size, self.size):
                raise ValueError(
                    f"it is {_said(mask.shape)} pixels, and the image {_said(own)}, or "
                    f"{_said((self.size, self.size))} at the working size"
                )
            mask = files.unfit_mask(mask, own, self.fit)
        if not mask.any():
            raise ValueError("what is drawn is smaller than a pixel of the image")
        return files.keep(self.folder, mask)

    def load(self, digest: str, size: tuple[int, int]) -> Bools:
        """A kept mask of an item as it lies on its picture of `size`, `(H, W)`.

        Raises:
            WorkspaceError: it is missing or damaged, or belongs to another picture.
        """
        mask, working = files.load(self.folder, digest), (self.size, self.size)
        if mask.shape == size:
            return mask
        if mask.shape == working:
            return files.unfit_mask(mask, size, self.fit)
        if size == working:
            return files.fit_mask(mask, self.size, self.fit)
        raise WorkspaceError(
            f"The mask {digest} is {_said(mask.shape)} pixels and the picture {_said(size)}: "
            "delete the picture that Label Studio serves, and queue again."
        )


def _said(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} × {shape[0]}"
