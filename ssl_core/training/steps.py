"""One optimisation step: the parts that it moves, whatever the network and the batch are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_core.errors import TrainingError
from ssl_core.training.distributed import all_true, copy_from_main, rank, world_size
from ssl_core.training.feed import Feed
from ssl_core.training.lars import Lars
from ssl_core.training.models import Network
from ssl_core.training.predict import Device
from ssl_core.training.schedule import Schedule, rate
from ssl_core.training.seeds import derived_seed

N = TypeVar("N", bound=Network)
Loss = Callable[[nn.Module, nn.Module | None, Any], Tensor]
"""An objective: of student, teacher and what the feed gives."""


class Loop(Generic[N]):
    """The moving parts of one fit: networks, optimiser, and what step number s does with them."""

    def __init__(
        self,
        model: N,
        feed: Feed,
        schedule: Schedule,
        seed: int,
        device: Device,
        objective: Loss,
        teacher: nn.Module | None = None,
    ) -> None:
        model.freeze(schedule.frozen_blocks, norm=schedule.frozen_norm)
        self.student: N = model.to(device.name).to(memory_format=torch.channels_last)
        self.average = deepcopy(self.student).requires_grad_(False) if schedule.ema else None
        self.teacher = teacher and teacher.to(device.name).requires_grad_(False).eval()
        self.feed, self.schedule, self.seed = feed, schedule, seed
        self.device, self.objective = device, objective
        self.optimizer = _optimizer(self.student, schedule)
        self.network = _wrapped(self.student, device)

    @property
    def validated(self) -> N:
        """The network that is validated and kept: the average where there is one to be kept."""
        keep = self.average is not None and self.schedule.keep_average
        return self.average if keep else self.student  # type: ignore[return-value]

    def step(self, number: int, stage: str) -> float:
        """Do optimisation step `number`; return its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["first_lr"] * rate(self.schedule, number, self.feed.steps)
        self.student.train()
        if self.average is not None:
            self.average.train()  # a teacher with noise of its own
        torch.manual_seed(derived_seed(self.seed, number, rank(), "dropout"))  # within fork_rng
        batch = self.feed.batch(number)
        with self.device.mixed():
            loss = self.objective(self.network, self.teacher or self.average, batch)
        if not all_true(torch.isfinite(loss.detach())):
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


def diverged(stage: str, step: int) -> TrainingError:
    """The error of a training that blew up."""
    return TrainingError(
        f"The loss of {stage} is no longer finite at step {step}: lower its learning_rate or set "
        "clip = 1.0. A round keeps the settings that it was opened with: give this one up "
        "(readloop round --abandon) and run another."
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
    share = 1 - min(decay, (1 + step) / (warmup + step))
    with torch.no_grad():
        new = student.state_dict()
        for name, mean in average.state_dict().items():
            if mean.is_floating_point():
                mean.lerp_(new[name], share)
            else:  # how many batches were seen
                mean.copy_(new[name])


def _optimizer(model: Network, schedule: Schedule) -> torch.optim.Optimizer:
    body, head = model.trained()
    head_lr = schedule.learning_rate * schedule.head_rate
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": lr, "first_lr": lr}
        for parameters, lr in ((body, schedule.learning_rate), (head, head_lr))
    ]
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=schedule.weight_decay)
    if schedule.optimizer == "lars":
        return Lars(groups, momentum=0.9, weight_decay=schedule.weight_decay)
    kind = torch.optim.AdamW if schedule.optimizer == "adamw" else torch.optim.Adam
    # Fused: of a small network's step on a CPU, the plain one takes a tenth by itself.
    return kind(groups, weight_decay=schedule.weight_decay, fused=True)


def _wrapped(model: nn.Module, device: Device) -> nn.Module:
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
