"""One optimisation step: what it shows the network, and the parts that it moves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_core.config import Count, Positive, Share, Table
from ssl_core.errors import TrainingError
from ssl_core.training.augment import Augmentation
from ssl_core.training.distributed import copy_from_main, rank, world_size
from ssl_core.training.lars import Lars
from ssl_core.training.models import Classifier
from ssl_core.training.objectives import Batch, Objective
from ssl_core.training.predict import Device, Inputs
from ssl_core.training.rand_augment import View, view
from ssl_core.training.seeds import derived_seed
from ssl_core.training.stems import Banks

FloatArray = npt.NDArray[np.floating]
NotNegative = Annotated[float, Field(ge=0)]


class Schedule(Table):
    """How long and how hard one stage trains; the defaults are S0's (Martins & Silva).

    An epoch is a pass over the items, or `epoch_steps` steps where that is more: with tiny D, steps
    count and not passes. After each epoch the model is validated; `learning_rate` is then
    multiplied by `decay`. `head_rate` multiplies the rate of the last layer. `patience` epochs
    without a better validation end the stage (0: never). `ema` > 0 trains as usual but validates
    and returns the exponential moving average of the weights; without `keep_average` that average
    only teaches. It warms up over about `ema_warmup` steps, see `update_average`. `clip` > 0 bounds
    the gradient norm. With `rate = "cosine"` the rate falls to 0 along half a cosine instead of by
    `decay`; before either it rises in a straight line over `warmup` epochs.
    """

    epochs: Count = 25
    epoch_steps: Count = 1
    batch_size: Count = 16
    learning_rate: Positive = 1e-4
    decay: Share = 0.9
    head_rate: Positive = 1.0
    rate: Literal["decay", "cosine"] = "decay"
    warmup: NotNegative = 0.0
    optimizer: Literal["adam", "adamw", "sgd", "lars"] = "adam"
    weight_decay: NotNegative = 0.0
    label_smoothing: Share = 0.0
    frozen_blocks: Annotated[int, Field(ge=0)] = 0
    frozen_norm: bool = False
    ema: Share = 0.0
    ema_warmup: Count = 10
    keep_average: bool = True
    clip: NotNegative = 0.0
    patience: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of the pixel store with targets: `rows` `(N,)`, `targets` `(N, C)` in [0, 1] or NaN."""

    rows: npt.NDArray[np.int64]
    targets: FloatArray


@dataclass(frozen=True, slots=True)
class Unlabeled:
    """Images to learn from without labels, and the views of them that the objective compares.

    rows: `(M,)` rows of the pixel store, M ≥ 1.
    views: one augmentation a view; of stems a view is the image or its mirror.
    ratio: how many of them a step shows for each place of its batch.
    """

    rows: npt.NDArray[np.int64]
    views: tuple[View, ...]
    ratio: int = 1


class Loop:
    """The moving parts of one fit: networks, optimiser, and what step number s does with them."""

    def __init__(
        self,
        model: Classifier,
        pixels: Inputs,
        training: Examples | None,
        schedule: Schedule,
        spec: Augmentation,
        seed: int,
        exclusive: bool,
        device: Device,
        objective: Objective,
        unlabeled: Unlabeled | None = None,
        teacher: Classifier | None = None,
        prior: FloatArray | None = None,
        banks: Banks | None = None,
    ) -> None:
        model.freeze(schedule.frozen_blocks, norm=schedule.frozen_norm)
        self.student: Classifier = model.to(device.name)
        self.student = self.student.to(memory_format=torch.channels_last)
        self.average = deepcopy(self.student).requires_grad_(False) if schedule.ema else None
        self.teacher = teacher and teacher.to(device.name).requires_grad_(False).eval()
        self.training = training or _nothing(model.head.out_features)
        self.pixels, self.schedule, self.spec, self.unlabeled = pixels, schedule, spec, unlabeled
        self.banks = banks
        self.seed, self.exclusive, self.device, self.objective = seed, exclusive, device, objective
        self.prior = None if prior is None else torch.tensor(prior).float().to(device.name)
        self.memory: dict[str, Tensor] = {}
        # Without labels, an epoch is a pass over what is shown without them.
        passed = self.training.rows if training or not unlabeled else unlabeled.rows
        # Not less than one item a process; the order repeats items where there are fewer.
        self.batch_size = max(min(schedule.batch_size, len(passed)), world_size())
        self.steps = max(schedule.epoch_steps, math.ceil(len(passed) / self.batch_size))
        self.optimizer = _optimizer(self.student, schedule)
        self.network = _wrapped(self.student, device)
        self._order = _Order(len(self.training.rows), self.batch_size, self.steps, [seed])
        if unlabeled:
            several = min(schedule.batch_size * unlabeled.ratio, len(unlabeled.rows))
            several = math.ceil(several / world_size()) * world_size()  # the same in each process
            self._other = _Order(len(unlabeled.rows), several, self.steps, [seed, 1])

    @property
    def validated(self) -> Classifier:
        """The network that is validated and kept: the average where there is one to be kept."""
        keep = self.average is not None and self.schedule.keep_average
        return self.average if keep else self.student  # type: ignore[return-value]

    def step(self, number: int, stage: str) -> float:
        """Do optimisation step `number`; return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["first_lr"] * _rate(self.schedule, number, self.steps)
        self.student.train()
        if self.average is not None:
            self.average.train()  # a teacher with noise of its own
        torch.manual_seed(derived_seed(self.seed, number, rank(), "dropout"))  # within fork_rng
        batch = self._batch(number)
        with self.device.mixed():
            loss = self.objective(self.network, self.teacher or self.average, batch)
        if not torch.isfinite(loss):
            raise diverged(stage, number)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.schedule.clip:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.schedule.clip)
        self.optimizer.step()
        if self.average is not None:
            decay, warmup = self.schedule.ema, self.schedule.ema_warmup
            update_average(self.average, self.student, decay, number, warmup)
        return float(loss.detach())

    def settle(self, number: int, stage: str) -> None:
        """Make what is validated one network in all processes, batch statistics too; check it."""
        copy_from_main(self.validated.buffers())
        if not all(bool(v.isfinite().all()) for v in self.validated.state_dict().values()):
            raise diverged(stage, number)

    def _batch(self, number: int) -> Batch:
        chosen = self._order.batch(number)
        (images,) = self._views(self.training.rows[chosen], (self.spec,), number, "views")
        targets = torch.from_numpy(self.training.targets[chosen].astype(np.float32))
        smooth = self.schedule.label_smoothing
        if smooth:
            targets = targets * (1 - smooth) + smooth / (targets.shape[1] if self.exclusive else 2)
        views: list[Tensor] = []
        if self.unlabeled:
            rows = self.unlabeled.rows[self._other.batch(number)]
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


def _nothing(findings: int) -> Examples:
    return Examples(np.empty(0, np.int64), np.empty((0, findings)))


def _view(images: Tensor, spec: View, generator: torch.Generator) -> Tensor:
    if images.ndim < 5:
        return view(images, spec, generator)
    which = torch.randint(images.shape[1], (len(images),), generator=generator)
    return images[torch.arange(len(images)), which]  # of stems: the image or its mirror


class _Order:
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


def _rate(schedule: Schedule, number: int, steps: int) -> float:
    """What step `number` multiplies the learning rates by: in [0, 1]."""
    rising, total = schedule.warmup * steps, schedule.epochs * steps
    rise = min(1.0, (number + 1) / rising) if rising else 1.0
    if schedule.rate == "cosine":  # Loshchilov & Hutter 2017, Eq. 5, without restarts
        done = max(0.0, number - rising) / max(total - rising, 1.0)
        return rise * 0.5 * (1.0 + math.cos(math.pi * done))
    return rise * schedule.decay ** (number // steps)


def diverged(stage: str, step: int) -> TrainingError:
    """The error of a training that blew up."""
    return TrainingError(
        f"The loss of {stage} is no longer finite at step {step}: "
        "lower its learning_rate or set clip = 1.0."
    )


def update_average(
    average: nn.Module, student: nn.Module, decay: float, step: int, warmup: int = 10
) -> None:
    """Move the average one step: a ← d·a + (1-d)·s, with d = min(decay, (1+step)/(warmup+step)).

    The warm-up of d keeps the first, random weights from lingering. With `warmup` = 2 it is that
    of Tarvainen & Valpola 2017, min(decay, 1 - 1/(t+1)) at the t-th step, t = step + 1: until
    `decay` is reached, a plain mean of all weights so far. Batch statistics move along with the
    weights: averaged weights on the student's own statistics were at chance in some epochs.
    """
    rate = 1 - min(decay, (1 + step) / (warmup + step))
    with torch.no_grad():
        new = student.state_dict()
        for name, mean in average.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(new[name], rate)
            else:  # how many batches were seen
                mean.copy_(new[name])


def _optimizer(model: Classifier, schedule: Schedule) -> torch.optim.Optimizer:
    body = [p for p in model.blocks.parameters() if p.requires_grad]
    body += model.neck.parameters()
    head_lr = schedule.learning_rate * schedule.head_rate
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": lr, "first_lr": lr}
        for parameters, lr in ((body, schedule.learning_rate), (model.head.parameters(), head_lr))
    ]
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=schedule.weight_decay)
    if schedule.optimizer == "lars":
        return Lars(groups, momentum=0.9, weight_decay=schedule.weight_decay)
    kind = torch.optim.AdamW if schedule.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, weight_decay=schedule.weight_decay)


def _wrapped(model: Classifier, device: Device) -> nn.Module:
    network = DistributedDataParallel(model) if world_size() > 1 else model
    return torch.compile(network) if device.compile else network  # type: ignore[return-value]


@contextmanager
def reproducible() -> Iterator[None]:
    """Deterministic kernels and a private random state while training; both put back after."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn: tuple[bool, bool] = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
