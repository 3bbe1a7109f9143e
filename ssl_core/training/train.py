"""The only training loop: `optimise()` improves a network, and can be killed at any step.

`fit()` is that loop for classifiers; `masks.train.fit_masks` is it for networks that draw masks.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ssl_core import metrics
from ssl_core.errors import TrainingError
from ssl_core.progress import Progress, Report, silent
from ssl_core.training.augment import Augmentation
from ssl_core.training.distributed import agree, is_main
from ssl_core.training.feed import Examples, Feed, FloatArray, ImageFeed, Unlabeled
from ssl_core.training.models import Classifier
from ssl_core.training.objectives import Objective, supervised
from ssl_core.training.predict import Device, Inputs, validation_scorer
from ssl_core.training.rand_augment import View
from ssl_core.training.schedule import Schedule
from ssl_core.training.stems import Banks
from ssl_core.training.steps import Loop, Loss, N, diverged, reproducible

State = dict[str, Any]
Judge = Callable[[N], tuple[float, float]]
"""What validation says of a network: a score (higher is better) and a loss, both NaN where it
cannot tell. Of weights whose output is not finite it raises ArithmeticError."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch came to: mean training loss, and on validation the score and its loss.

    Of classifiers these are macro AUROC and log loss, of masks Dice and cross-entropy of pixels.
    """

    loss: float
    score: float
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
    training: Examples | None,
    validation: Examples,
    schedule: Schedule,
    *,
    spec: Augmentation,
    seed: int,
    exclusive: bool,
    findings: tuple[str, ...],
    device: Device,
    objective: Objective = supervised,
    unlabeled: Unlabeled[View] | None = None,
    teacher: Classifier | None = None,
    prior: FloatArray | None = None,
    banks: Banks | None = None,
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
            or the stems of those; then a view is the image or its mirror whatever its
            augmentation, unless there are `banks`.
        training: N ≥ 1 items; NaN targets give no loss. None where the objective learns from
            `unlabeled` alone.
        validation: may be empty.
        schedule: how long and how hard.
        spec: the augmentation of training views.
        seed: of order, views and dropout.
        exclusive: the findings are classes of which one holds.
        findings: C names, for messages.
        device: where to run.
        objective: what a step minimises.
        unlabeled: images that the objective compares views of.
        teacher: a fixed network for the objective, which otherwise gets the moving average.
        prior: `(C,)` share of positives expected, for objectives that ask; NaN for unknown.
        banks: the views to train on, drawn beforehand, in place of those of `pixels`.
        checkpoint: a file kept while training and left for the caller to delete; if it exists,
            training goes on from it.
        checkpoint_seconds: least time between two checkpoints within an epoch.
        report: told after every step.
        stage: the name to report under.

    Raises:
        TrainingError: no finding has both a positive and a negative target, or the loss is no
            longer finite.
    """
    if training is not None:
        _check_targets(training.targets, findings, exclusive=exclusive)
    nothing = Examples(np.empty(0, np.int64), np.empty((0, model.head.out_features)))
    shown = (training or nothing, schedule, spec, seed, exclusive, device)
    return optimise(
        model,
        ImageFeed(pixels, *shown, unlabeled, prior, banks),
        schedule,
        lambda student: _judge(student, pixels, validation, exclusive=exclusive, device=device),
        seed=seed,
        device=device,
        objective=objective,
        teacher=teacher,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        report=report,
        stage=stage,
    )


def optimise(
    model: N,
    feed: Feed,
    schedule: Schedule,
    judge: Callable[[N], Judge[N]],
    *,
    seed: int,
    device: Device,
    objective: Loss,
    score: str = "AUROC",
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20.0,
    report: Report = silent,
    stage: str = "fit",
) -> FitResult:
    """Train any network on any feed; see `fit`.

    Args:
        model: trained in place.
        feed: what each step shows the objective.
        schedule: how long and how hard.
        judge: makes of the network, as training begins, what validates it after each epoch.
        seed: of dropout.
        device: where to run.
        objective: what a step minimises.
        score: what validation's score is called.
        teacher, checkpoint, checkpoint_seconds, report, stage: see `fit`.

    Raises:
        TrainingError: the loss is no longer finite.
    """
    with reproducible():
        loop = Loop(model, feed, schedule, seed, device, objective, teacher)
        run = _restore(loop, checkpoint) if checkpoint and checkpoint.exists() else _Run()
        validate = judge(loop.student)
        total, saved = schedule.epochs * feed.steps, time.monotonic()
        told = _figures(run)
        while run.step < total and not _patience_is_over(run, schedule):
            run.loss_sum += loop.step(run.step, stage)
            run.step += 1
            ends_epoch = run.step % feed.steps == 0
            if ends_epoch:
                loop.settle(run.step, stage)
                _end_epoch(run, loop, validate, stage)
                told = _figures(run)
            due = ends_epoch or time.monotonic() - saved > checkpoint_seconds
            if checkpoint and due and is_main():  # by its clock alone: nobody waits for it
                _save(loop, run, checkpoint)
                saved = time.monotonic()
            note = f"{score} {run.history[-1].score:.3f}" if run.history else ""
            report(Progress(stage, run.step, total, note, schedule.epochs, told))
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


def _figures(run: _Run) -> tuple[tuple[float, float], ...]:
    """What whoever watches is told of the epochs so far, those before a kill among them."""
    return tuple((epoch.loss, epoch.score) for epoch in run.history)


def _patience_is_over(run: _Run, schedule: Schedule) -> bool:
    return 0 < schedule.patience <= len(run.history) - 1 - run.best if run.history else False


def _end_epoch(run: _Run, loop: Loop[N], validate: Judge[N], stage: str) -> None:
    try:
        found = validate(loop.validated)
    except ArithmeticError:  # of weights that are finite, but only just
        raise diverged(stage, run.step) from None
    # Every process must choose the same epoch, whatever its last bits say.
    epoch = Epoch(run.loss_sum / loop.feed.steps, *(agree(value) for value in found))
    run.history.append(epoch)
    run.loss_sum = 0.0
    if run.best < 0 or _better(epoch, run.history[run.best]):
        run.best = len(run.history) - 1
        run.best_state = _copy_state(loop.validated)


def _judge(
    student: Classifier, pixels: Inputs, validation: Examples, *, exclusive: bool, device: Device
) -> Judge[Classifier]:
    """Macro AUROC and log loss on the validation items."""
    score = validation_scorer(student, pixels, validation.rows, exclusive=exclusive, device=device)

    def judge(current: Classifier) -> tuple[float, float]:
        scores, targets = score(current), validation.targets
        if not np.isfinite(scores).all():
            raise ArithmeticError
        known = ~np.isnan(targets)
        if not known.any():
            return math.nan, math.nan
        p = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
        losses = -(targets * np.log(p) + (1 - targets) * np.log(1 - p))
        auroc = metrics.auroc(scores, targets).macro.estimate.value
        return auroc, float(losses[known].mean())

    return judge


def _better(epoch: Epoch, best: Epoch) -> bool:
    if math.isnan(epoch.score) or math.isnan(best.score):
        return True
    return (epoch.score, -epoch.log_loss) > (best.score, -best.log_loss)


def _save(loop: Loop[N], run: _Run, path: Path) -> None:
    """Write the run atomically."""
    state = {
        **vars(run),  # not copied, as asdict would
        "history": [asdict(epoch) for epoch in run.history],
        "student": loop.student.state_dict(),
        "average": loop.average.state_dict() if loop.average is not None else {},
        "optimizer": loop.optimizer.state_dict(),
        "memory": loop.feed.memory,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}.tmp")
    written = io.BytesIO()  # on the way to a file, torch hides that the disk is full
    torch.save(state, written)
    scratch.write_bytes(written.getbuffer())
    scratch.replace(path)


def _restore(loop: Loop[N], path: Path) -> _Run:
    """Continue from what `_save` wrote. Raises `TrainingError` for a damaged file."""
    try:
        # Loading moves what belongs on the device; Adam's step counts stay where they are, and on
        # a CUDA device each of them would be waited for at every step.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # damaged bytes raise whatever they happen to spell
        raise TrainingError(f"{path} is damaged: delete it; its stage starts over.") from None
    loop.student.load_state_dict(state["student"])
    if loop.average is not None:
        loop.average.load_state_dict(state["average"])
    loop.optimizer.load_state_dict(state["optimizer"])
    memory = state.get("memory", {})  # a checkpoint of an earlier version has none
    loop.feed.memory.update({name: tensor.to(loop.device.name) for name, tensor in memory.items()})
    history = [Epoch(**epoch) for epoch in state["history"]]
    return _Run(state["step"], state["best"], state["loss_sum"], history, state["best_state"])


def _copy_state(model: nn.Module) -> State:
    return {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
