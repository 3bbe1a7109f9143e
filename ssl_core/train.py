"""The only training loop: `fit()` improves a model on targets, and can be killed at any step."""

from __future__ import annotations

import hashlib
import io
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ssl_core import metrics
from ssl_core.augment import Augmentation, augment
from ssl_core.config import Count, Positive, Share, Table
from ssl_core.distributed import agree, barrier, copy_from_main, is_main, rank, world_size
from ssl_core.errors import TrainingError
from ssl_core.models import Classifier
from ssl_core.objectives import Batch, Objective, supervised
from ssl_core.predict import Device, Inputs, validation_scorer
from ssl_core.progress import Progress, Report, silent

State = dict[str, Any]
FloatArray = npt.NDArray[np.floating]
NotNegative = Annotated[float, Field(ge=0)]


class Schedule(Table):
    """How long and how hard one stage trains; the defaults are S0's (Martins & Silva).

    An epoch is a pass over the items, or `epoch_steps` steps where that is more: with tiny D, steps
    count and not passes. After each epoch the model is validated; `learning_rate` is then
    multiplied by `decay`. `head_rate` multiplies the rate of the last layer. `patience` epochs
    without a better validation end the stage (0: never). `ema` > 0 trains as usual but validates
    and returns the exponential moving average of the weights. `clip` > 0 bounds the gradient norm.
    """

    epochs: Count = 25
    epoch_steps: Count = 1
    batch_size: Count = 16
    learning_rate: Positive = 1e-4
    decay: Share = 0.9
    head_rate: Positive = 1.0
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: NotNegative = 0.0
    label_smoothing: Share = 0.0
    frozen_blocks: Annotated[int, Field(ge=0)] = 0
    frozen_norm: bool = False
    ema: Share = 0.0
    clip: NotNegative = 0.0
    patience: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows of the pixel store with targets: `rows` `(N,)`, `targets` `(N, C)` in [0, 1] or NaN."""

    rows: npt.NDArray[np.int64]
    targets: FloatArray


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to: mean training loss, validation AUROC (macro) and log loss."""

    loss: float
    auroc: float
    log_loss: float


@dataclass(frozen=True, slots=True)
class FitResult:
    """The epochs in order and the position of the one whose weights were kept."""

    history: list[Epoch]
    best: int


@dataclass
class _Run:
    """Everything that a killed fit needs to go on: saved whole, restored whole."""

    step: int = 0
    best: int = -1
    loss_sum: float = 0.0
    history: list[Epoch] = field(default_factory=list)
    best_state: State = field(default_factory=dict)


def fit(
    model: Classifier,
    pixels: Inputs,
    training: Examples,
    validation: Examples,
    schedule: Schedule,
    *,
    spec: Augmentation,
    seed: int,
    exclusive: bool,
    findings: tuple[str, ...],
    device: Device,
    objective: Objective = supervised,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20.0,
    report: Report = silent,
    stage: str = "fit",
) -> FitResult:
    """Train `model` in place and leave it with the weights of its best validated epoch.

    The best epoch has the highest macro AUROC on `validation`, the lower log loss among equals; if
    validation cannot tell (no item, or one class only), it is the last. What a step does is a
    function of `seed` and the step's number alone, so a run that was killed and resumed from
    `checkpoint` ends with the bits of one that was not. Under torchrun the processes split each
    batch.

    Args:
        model: trained in place.
        pixels: `(N_all, C_in, H, W)` uint8 of which `training.rows` and `validation.rows` are rows,
            or the stems of those; then `spec` is not used and a view is the image or its mirror.
        training: N ≥ 1 items; NaN targets give no loss.
        validation: may be empty.
        schedule: how long and how hard.
        spec: the augmentation of training views.
        seed: of order, views and dropout.
        exclusive: the findings are classes of which one holds.
        findings: C names, for messages.
        device: where to run.
        objective: what a step minimises.
        checkpoint: a file kept while training and left for the caller to delete; if it exists,
            training goes on from it.
        checkpoint_seconds: least time between two checkpoints within an epoch.
        report: told after every step.
        stage: the name to report under.

    Raises:
        TrainingError: no finding has both a positive and a negative target, or the loss is no
            longer finite.
    """
    _check_targets(training.targets, findings, exclusive=exclusive)
    with _reproducible():
        loop = _Loop(model, pixels, training, schedule, spec, seed, exclusive, device, objective)
        run = loop.restore(checkpoint) if checkpoint and checkpoint.exists() else _Run()
        score = validation_scorer(
            loop.student, pixels, validation.rows, exclusive=exclusive, device=device
        )
        total, saved = schedule.epochs * loop.steps, time.monotonic()
        while run.step < total and not _patience_is_over(run, schedule):
            run.loss_sum += loop.step(run.step, stage)
            run.step += 1
            ends_epoch = run.step % loop.steps == 0
            if ends_epoch:
                loop.settle(run.step, stage)
                scores = score(loop.validated)
                if not np.isfinite(scores).all():  # of weights that are finite, but only just
                    raise _diverged(stage, run.step)
                _end_epoch(run, loop, scores, validation.targets)
            if checkpoint and (ends_epoch or time.monotonic() - saved > checkpoint_seconds):
                loop.save(run, checkpoint)
                saved = time.monotonic()
            note = f"AUROC {run.history[-1].auroc:.3f}" if run.history else ""
            report(Progress(stage, run.step, total, note))
        model.load_state_dict(run.best_state)
    model.eval()
    return FitResult(run.history, run.best)


def learnable(targets: FloatArray, *, exclusive: bool) -> npt.NDArray[np.bool_]:
    """Which of C findings can be learned: `(C,)`.

    A finding needs a target above and one below one half; an exclusive class needs an item of its
    own and one of another class, both with all their classes known.
    """
    if not exclusive:
        return np.asarray((targets > 0.5).any(axis=0) & (targets < 0.5).any(axis=0))
    classes = np.unique(targets[~np.isnan(targets).any(axis=1)].argmax(axis=1))
    return np.isin(np.arange(targets.shape[1]), classes) & (len(classes) > 1)


def _check_targets(targets: FloatArray, findings: tuple[str, ...], *, exclusive: bool) -> None:
    if learnable(targets, exclusive=exclusive).any():
        return
    if exclusive:
        seen = ", ".join(findings[c] for c in np.flatnonzero((targets > 0.5).any(axis=0))) or "none"
        what = f"fewer than two classes ({seen})"
    elif len(findings) == 1:
        missing = "negative" if (targets > 0.5).any() else "positive"
        what = f"no {missing} item of {findings[0]}"
    else:
        what = f"for none of {', '.join(findings)} both a positive and a negative item"
    raise TrainingError(
        f"The {len(targets)} training labels hold {what}: label more items before training."
    )


def _patience_is_over(run: _Run, schedule: Schedule) -> bool:
    return 0 < schedule.patience <= len(run.history) - 1 - run.best if run.history else False


def _end_epoch(run: _Run, loop: _Loop, scores: FloatArray, targets: FloatArray) -> None:
    epoch = Epoch(run.loss_sum / loop.steps, *_validate(scores, targets))
    run.history.append(epoch)
    run.loss_sum = 0.0
    if run.best < 0 or _better(epoch, run.history[run.best]):
        run.best = len(run.history) - 1
        run.best_state = _copy_state(loop.validated)


def _validate(scores: FloatArray, targets: FloatArray) -> tuple[float, float]:
    known = ~np.isnan(targets)
    if not known.any():
        return math.nan, math.nan
    auroc = metrics.auroc(scores, targets).macro.estimate.value
    p = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
    losses = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
    # Every process must choose the same epoch, whatever its last bits say.
    return agree(auroc), agree(float(losses[known].mean()))


def _better(epoch: Epoch, best: Epoch) -> bool:
    if math.isnan(epoch.auroc) or math.isnan(best.auroc):
        return True
    return (epoch.auroc, -epoch.log_loss) > (best.auroc, -best.log_loss)


class _Loop:
    """The moving parts of one fit: networks, optimiser, and what step number s does with them."""

    def __init__(
        self,
        model: Classifier,
        pixels: Inputs,
        training: Examples,
        schedule: Schedule,
        spec: Augmentation,
        seed: int,
        exclusive: bool,
        device: Device,
        objective: Objective,
    ) -> None:
        model.freeze(schedule.frozen_blocks, norm=schedule.frozen_norm)
        self.student: Classifier = model.to(device.name)
        self.student = self.student.to(memory_format=torch.channels_last)
        self.average = deepcopy(self.student).requires_grad_(False) if schedule.ema else None
        self.pixels, self.training, self.schedule, self.spec = pixels, training, schedule, spec
        self.seed, self.exclusive, self.device, self.objective = seed, exclusive, device, objective
        # Not less than one item a process; the order repeats items where there are fewer.
        self.batch_size = max(min(schedule.batch_size, len(training.rows)), world_size())
        self.steps = max(schedule.epoch_steps, math.ceil(len(training.rows) / self.batch_size))
        self.optimizer = _optimizer(self.student, schedule)
        self.network = _wrapped(self.student, device)
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    @property
    def validated(self) -> Classifier:
        """The network that is validated and kept: the average where there is one."""
        return self.student if self.average is None else self.average

    def step(self, number: int, stage: str) -> float:
        """Do optimisation step `number`; return its loss."""
        epoch = number // self.steps
        for group in self.optimizer.param_groups:
            group["lr"] = group["first_lr"] * self.schedule.decay**epoch
        self.student.train()
        torch.manual_seed(derived_seed(self.seed, number, rank(), "dropout"))  # within fork_rng
        batch = self._batch(number)
        with self.device.mixed():
            loss = self.objective(self.network, self.average, batch)
        if not torch.isfinite(loss):
            raise _diverged(stage, number)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.schedule.clip:
            nn.utils.clip_grad_norm_(self.student.parameters(), self.schedule.clip)
        self.optimizer.step()
        if self.average is not None:
            update_average(self.average, self.student, self.schedule.ema, number)
        return float(loss.detach())

    def settle(self, number: int, stage: str) -> None:
        """Make what is validated one network in all processes, batch statistics too; check it."""
        copy_from_main(self.validated.buffers())
        if not all(bool(v.isfinite().all()) for v in self.validated.state_dict().values()):
            raise _diverged(stage, number)

    def _batch(self, number: int) -> Batch:
        epoch, position = divmod(number, self.steps)
        if self._order[0] != epoch:
            self._order = (epoch, self._draw_order(epoch))
        start = position * self.batch_size
        chosen = self._order[1][start : start + self.batch_size][rank() :: world_size()]
        images = self.device.place(self.pixels[self.training.rows[chosen]])
        generator = torch.Generator().manual_seed(derived_seed(self.seed, number, rank(), "views"))
        views = self._views(images, generator).to(memory_format=torch.channels_last)
        targets = torch.from_numpy(self.training.targets[chosen].astype(np.float32))
        smooth = self.schedule.label_smoothing
        if smooth:
            targets = targets * (1 - smooth) + smooth / (targets.shape[1] if self.exclusive else 2)
        return Batch(views, targets.to(self.device.name), self.exclusive)

    def _views(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if images.ndim < 5:
            return augment(images, self.spec, generator)
        which = torch.randint(images.shape[1], (len(images),), generator=generator)
        return images[torch.arange(len(images)), which]  # of stems: the image or its mirror

    def _draw_order(self, epoch: int) -> npt.NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, epoch])
        n, wanted = len(self.training.rows), self.steps * self.batch_size
        passes = [rng.permutation(n) for _ in range(math.ceil(wanted / n))]
        return np.concatenate(passes)[:wanted]

    def save(self, run: _Run, path: Path) -> None:
        """Write the run atomically, from the main process."""
        if is_main():
            state = {
                **asdict(run),
                "student": self.student.state_dict(),
                "average": self.average.state_dict() if self.average is not None else {},
                "optimizer": self.optimizer.state_dict(),
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(f".{os.getpid()}.tmp")
            written = io.BytesIO()  # on the way to a file, torch hides that the disk is full
            torch.save(state, written)
            scratch.write_bytes(written.getbuffer())
            scratch.replace(path)
        barrier()

    def restore(self, path: Path) -> _Run:
        """Continue from what `save` wrote. Raises `TrainingError` for a damaged file."""
        try:
            state = torch.load(path, map_location=self.device.name, weights_only=True)
        except Exception:  # damaged bytes raise whatever they happen to spell
            raise TrainingError(f"{path} is damaged: delete it; its stage starts over.") from None
        self.student.load_state_dict(state["student"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        history = [Epoch(**epoch) for epoch in state["history"]]
        return _Run(state["step"], state["best"], state["loss_sum"], history, state["best_state"])


def _diverged(stage: str, step: int) -> TrainingError:
    return TrainingError(
        f"The loss of {stage} is no longer finite at step {step}: "
        "lower its learning_rate or set clip = 1.0."
    )


def derived_seed(*parts: object) -> int:
    """A seed of 63 bits named by its parts: resuming needs no generator's state."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def update_average(average: nn.Module, student: nn.Module, decay: float, step: int) -> None:
    """Move the average one step: a ← d·a + (1-d)·s, with d = min(decay, (1+step)/(10+step)).

    The warm-up of d keeps the first, random weights from lingering (Tarvainen & Valpola 2017,
    Section 3, raise it likewise). Buffers are copied.
    """
    rate = 1 - min(decay, (1 + step) / (10 + step))
    with torch.no_grad():
        for mean, new in zip(average.parameters(), student.parameters(), strict=True):
            mean.lerp_(new, rate)
        for old, buffer in zip(average.buffers(), student.buffers(), strict=True):
            old.copy_(buffer)


def _optimizer(model: Classifier, schedule: Schedule) -> torch.optim.Optimizer:
    body = [p for p in model.blocks.parameters() if p.requires_grad]
    head_lr = schedule.learning_rate * schedule.head_rate
    groups: list[dict[str, Any]] = [
        {"params": parameters, "lr": lr, "first_lr": lr}
        for parameters, lr in ((body, schedule.learning_rate), (model.head.parameters(), head_lr))
    ]
    if schedule.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=schedule.weight_decay)
    kind = torch.optim.AdamW if schedule.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, weight_decay=schedule.weight_decay)


def _wrapped(model: Classifier, device: Device) -> nn.Module:
    network = DistributedDataParallel(model) if world_size() > 1 else model
    return torch.compile(network) if device.compile else network  # type: ignore[return-value]


def _copy_state(model: nn.Module) -> State:
    return {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}


@contextmanager
def _reproducible() -> Iterator[None]:
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
