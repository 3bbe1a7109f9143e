"""What the steps of a fit of masks are shown: images with masks, and views of others without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssl_core.masks.copy_paste import CopyPaste, copy_paste
from ssl_core.masks.objectives import MaskBatch
from ssl_core.masks.views import MaskView, Seen, see_pair
from ssl_core.training.augment import as_float
from ssl_core.training.distributed import rank
from ssl_core.training.feed import Order, Unlabeled
from ssl_core.training.predict import Device
from ssl_core.training.schedule import Schedule
from ssl_core.training.seeds import derived_seed

Floats = npt.NDArray[np.floating]


class MaskTargets(Protocol):
    """The masks of n items at the working size; `present` `(n, C)` is 1, 0 or NaN (unknown)."""

    # ruff: noqa: D102 (described by their class)
    @property
    def present(self) -> Floats: ...

    def at(self, positions: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """`(b, C, S, S)` of 1, 0 and NaN."""


@dataclass(frozen=True, slots=True)
class MaskExamples:
    """Rows of the pixel store with masks: `rows` `(n,)`, aligned with `masks`."""

    rows: npt.NDArray[np.int64]
    masks: MaskTargets

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Masks in memory, `(n, C, S, S)` float32 of 1, 0 and NaN; `present` follows from them."""

    masks: npt.NDArray[np.float32]

    @property
    def present(self) -> Floats:
        """1 where any pixel is in the mask, else 0 where all are known, else NaN."""
        known = ~np.isnan(self.masks).any(axis=(2, 3))
        return np.where((self.masks == 1).any(axis=(2, 3)), 1.0, np.where(known, 0.0, np.nan))

    def at(self, positions: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Those of some items."""
        return np.asarray(self.masks[positions])


def joined(parts: Sequence[MaskExamples]) -> MaskExamples:
    """Several sets of examples as one, in their order: readers' masks and pseudo-masks."""
    return MaskExamples(np.concatenate([p.rows for p in parts]), _Joined(tuple(parts)))


@dataclass(frozen=True, slots=True)
class _Joined:
    parts: tuple[MaskExamples, ...]

    @property
    def present(self) -> Floats:
        return np.concatenate([p.masks.present for p in self.parts])

    def at(self, positions: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        ends = np.cumsum([len(p) for p in self.parts])
        whose = np.searchsorted(ends, positions, side="right")
        found = [
            (np.flatnonzero(whose == i), part.masks.at(positions[whose == i] - end + len(part)))
            for i, (part, end) in enumerate(zip(self.parts, ends.tolist(), strict=True))
            if (whose == i).any()
        ]
        masks = np.empty((len(positions), *found[0][1].shape[1:]), np.float32)
        for places, some in found:
            masks[places] = some
        return masks


class MaskFeed:
    """Batches of images and masks that went through one warp; see `train.fit_masks`."""

    def __init__(
        self,
        pixels: npt.NDArray[np.uint8],
        training: MaskExamples,
        schedule: Schedule,
        view: MaskView,
        seed: int,
        device: Device,
        unlabeled: Unlabeled[MaskView] | None = None,
        paste: CopyPaste | None = None,
    ) -> None:
        self.pixels, self.training, self.view, self.paste = pixels, training, view, paste
        self.unlabeled, self.seed, self.device = unlabeled, seed, device
        self.memory: dict[str, Tensor] = {}
        others = (len(unlabeled.rows), unlabeled.ratio) if unlabeled else (0, 1)
        self._order = Order(len(training), schedule, seed, *others)
        self.steps = self._order.steps

    def batch(self, number: int) -> MaskBatch:
        """See `training.feed.Feed`."""
        chosen = self._order.labeled.batch(number)
        generator = self._chance(number, "views")
        images = as_float(self.device.place(self.pixels[self.training.rows[chosen]]))
        masks = torch.from_numpy(self.training.masks.at(chosen)).to(self.device.name)
        if self.paste is not None:
            images, masks = copy_paste(images, masks, self.paste, generator)
        labeled = _laid_out(see_pair(images, masks, self.view, generator))
        views: tuple[Seen, ...] = ()
        if self.unlabeled:
            rows = self.unlabeled.rows[self._order.unlabeled.batch(number)]
            views = self._others(rows, self.unlabeled.views, number)
        return MaskBatch(labeled, views, None, number / self.steps, self.memory)

    def _others(
        self, rows: npt.NDArray[np.int64], specs: Sequence[MaskView], number: int
    ) -> tuple[Seen, ...]:
        generator = self._chance(number, "unlabeled views")
        images = as_float(self.device.place(self.pixels[rows]))
        nothing = images[:, :0]
        return tuple(_laid_out(see_pair(images, nothing, spec, generator)) for spec in specs)

    def _chance(self, number: int, name: str) -> torch.Generator:
        return torch.Generator().manual_seed(derived_seed(self.seed, number, rank(), name))


def _laid_out(seen: Seen) -> Seen:
    return seen._replace(images=seen.images.to(memory_format=torch.channels_last))
