"""What the steps of one fit are shown: which items, and which views of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ssl_core.training.augment import Augmentation
from ssl_core.training.distributed import rank, world_size
from ssl_core.training.objectives import Batch
from ssl_core.training.predict import Device, Inputs
from ssl_core.training.rand_augment import View, view
from ssl_core.training.schedule import Schedule
from ssl_core.training.seeds import derived_seed
from ssl_core.training.stems import Banks

FloatArray = npt.NDArray[np.floating]
V = TypeVar("V")


class Feed(Protocol):
    """Batches by the step's number alone: a fit that was killed goes on with the same ones.

    steps: of one epoch. memory: an objective's tensors from one step to the next, for checkpoints.
    """

    steps: int
    memory: dict[str, Tensor]

    def batch(self, number: int) -> Any:
        """What step `number`, from 0, gives the objective: this process's share of it."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of the pixel store with targets: `rows` `(N,)`, `targets` `(N, C)` in [0, 1] or NaN."""

    rows: npt.NDArray[np.int64]
    targets: FloatArray


@dataclass(frozen=True, slots=True)
class Unlabeled(Generic[V]):
    """Images to learn from without labels, and the views of them that the objective compares.

    rows: `(M,)` rows of the pixel store, M ≥ 1.
    views: how each view is made; of stems a view is the image or its mirror.
    ratio: how many of them a step shows for each place of its batch.
    """

    rows: npt.NDArray[np.int64]
    views: tuple[V, ...]
    ratio: int = 1


class Order:
    """Which labeled and unlabeled items each step shows, and how many steps an epoch has.

    labeled: how many items have labels. unlabeled: how many images are shown without, `ratio` of
    them for each place of the batch. Without labels an epoch is a pass over the others.
    """

    def __init__(
        self, labeled: int, schedule: Schedule, seed: int, unlabeled: int = 0, ratio: int = 1
    ) -> None:
        passed = labeled or unlabeled
        # Not less than one item a process; the order repeats items where there are fewer.
        size = max(min(schedule.batch_size, passed), world_size())
        self.steps = max(schedule.epoch_steps, math.ceil(passed / size))
        if schedule.most_steps:
            self.steps = min(self.steps, schedule.most_steps)
        self.labeled = _Shuffled(labeled, size, self.steps, [seed])
        several = min(schedule.batch_size * ratio, unlabeled)
        several = math.ceil(several / world_size()) * world_size()  # the same in each process
        self.unlabeled = _Shuffled(unlabeled, several, self.steps, [seed, 1])


class ImageFeed:
    """Images with targets, and views of others without: what objectives of classification take.

    See `train.fit` for the arguments.
    """

    def __init__(
        self,
        pixels: Inputs,
        training: Examples,
        schedule: Schedule,
        spec: Augmentation,
        seed: int,
        exclusive: bool,
        device: Device,
        unlabeled: Unlabeled[View] | None = None,
        prior: FloatArray | None = None,
        banks: Banks | None = None,
    ) -> None:
        self.training, self.pixels, self.schedule, self.spec = training, pixels, schedule, spec
        self.unlabeled, self.banks = unlabeled, banks
        self.seed, self.exclusive, self.device = seed, exclusive, device
        self.prior = None if prior is None else torch.tensor(prior).float().to(device.name)
        self.memory: dict[str, Tensor] = {}
        others = (len(unlabeled.rows), unlabeled.ratio) if unlabeled else (0, 1)
        self._order = Order(len(training.rows), schedule, seed, *others)
        self.steps = self._order.steps

    def batch(self, number: int) -> Batch:
        """See `Feed`."""
        chosen = self._order.labeled.batch(number)
        (images,) = self._views(self.training.rows[chosen], (self.spec,), number, "views")
        targets = torch.from_numpy(self.training.targets[chosen].astype(np.float32))
        smooth = self.schedule.label_smoothing
        if smooth:
            targets = targets * (1 - smooth) + smooth / (targets.shape[1] if self.exclusive else 2)
        views: list[Tensor] = []
        if self.unlabeled:
            rows = self.unlabeled.rows[self._order.unlabeled.batch(number)]
            views = self._views(rows, self.unlabeled.views, number, "unlabeled views")
        return Batch(
            images,
            targets.to(self.device.name),
            self.exclusive,
            tuple(views),
            self.prior,
            number,
            self.schedule.epochs * self.steps,
            derived_seed(self.seed, number, rank(), "objective"),
            self.memory,
        )

    def _views(
        self, rows: npt.NDArray[np.int64], specs: tuple[View, ...], number: int, name: str
    ) -> list[Tensor]:
        """Views of the same images, one a spec, one after the other from one stream of chance."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, number, rank(), name))
        if self.banks:
            drawn = self.banks.draw(rows, specs, generator)
            views = [stems.to(self.device.name).float() for stems in drawn]
        else:
            images = self.device.place(self.pixels[rows])
            views = [_view(images, spec, generator) for spec in specs]
        return [one.to(memory_format=torch.channels_last) for one in views]


def _view(images: Tensor, spec: View, generator: torch.Generator) -> Tensor:
    if images.ndim < 5:
        return view(images, spec, generator)
    which = torch.randint(images.shape[1], (len(images),), generator=generator)
    return images[torch.arange(len(images)), which]  # of stems: the image or its mirror


class _Shuffled:
    """Which of n items each step shows: every epoch a new order, repeated where n is too few."""

    def __init__(self, n: int, batch_size: int, steps: int, seed: list[int]) -> None:
        self.n, self.batch_size, self.steps, self.seed = n, batch_size, steps, seed
        self._drawn: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, number: int) -> npt.NDArray[np.int64]:
        """This process's share of step `number`'s positions in 0 … n - 1; none where n is 0."""
        epoch, position = divmod(number, self.steps)
        if self._drawn[0] != epoch and self.n:
            self._drawn = (epoch, self._draw(epoch))
        start = position * self.batch_size
        return self._drawn[1][start : start + self.batch_size][rank() :: world_size()]

    def _draw(self, epoch: int) -> npt.NDArray[np.int64]:
        first, *others = self.seed
        rng = np.random.default_rng([first, epoch, *others])
        wanted = self.steps * self.batch_size
        passes = [rng.permutation(self.n) for _ in range(math.ceil(wanted / self.n))]
        return np.concatenate(passes)[:wanted]
