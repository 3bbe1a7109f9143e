"""The training loop for masks: `training.train.optimise` on a feed of images and masks."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ssl_core.errors import TrainingError
from ssl_core.masks.copy_paste import CopyPaste
from ssl_core.masks.feed import MaskExamples, MaskFeed
from ssl_core.masks.networks import Segmenter
from ssl_core.masks.objectives import S4, MaskObjective
from ssl_core.masks.overlap import as_truth, average, dice
from ssl_core.masks.predict import Maps, predict_masks
from ssl_core.masks.views import MaskView
from ssl_core.progress import Report, silent
from ssl_core.training.augment import MILD
from ssl_core.training.feed import Unlabeled
from ssl_core.training.predict import Device
from ssl_core.training.schedule import Schedule
from ssl_core.training.train import FitResult, optimise

TINY = 1e-6


def fit_masks(
    model: Segmenter,
    pixels: npt.NDArray[np.uint8],
    training: MaskExamples,
    validation: MaskExamples,
    schedule: Schedule,
    *,
    seed: int,
    device: Device,
    view: MaskView = MILD,
    objective: MaskObjective = S4,
    unlabeled: Unlabeled[MaskView] | None = None,
    paste: CopyPaste | None = None,
    teacher: nn.Module | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 20.0,
    report: Report = silent,
    stage: str = "fit",
) -> FitResult:
    """Train `model` in place and leave it with the weights of its best validated epoch.

    The best epoch has the highest macro Dice on `validation`, the lower cross-entropy of pixels
    among equals. All that `training.train.fit` says of seeds, checkpoints and processes holds.

    Args:
        model: trained in place.
        pixels: `(N_all, C_in, S, S)` uint8.
        training: n ≥ 1 items; NaN pixels give no loss.
        validation: may be empty.
        schedule: how long and how hard.
        seed: of order, views and dropout.
        device: where to run.
        view: how training views are made of image and mask.
        objective: what a step minimises.
        unlabeled: images that the objective compares views of.
        paste: lesions of one item into another, before the view.
        teacher: a fixed network for the objective, which otherwise gets the moving average.
        checkpoint, checkpoint_seconds, report, stage: as in `training.train.fit`.

    Raises:
        TrainingError: no mask of the training items has a pixel, or the loss is no longer finite.
    """
    if not (training.masks.present == 1).any():
        raise TrainingError(
            f"The {len(training)} training labels hold no mask with a pixel: label more items "
            "before training."
        )
    feed = MaskFeed(pixels, training, schedule, view, seed, device, unlabeled, paste)

    def judge(current: Segmenter) -> tuple[float, float]:
        return validate(current, pixels, validation, device)

    return optimise(
        model,
        feed,
        schedule,
        lambda _: judge,
        seed=seed,
        device=device,
        objective=objective,
        score="Dice",
        teacher=teacher,
        checkpoint=checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        report=report,
        stage=stage,
    )


def validate(
    model: Segmenter, pixels: npt.NDArray[np.uint8], validation: MaskExamples, device: Device
) -> tuple[float, float]:
    """Macro Dice of the masks (p ≥ 0.5), and the mean cross-entropy of known pixels.

    The Dice is of the findings that an item of `validation` shows, see `overlap.shown`.

    Both NaN where nothing is known. Raises ArithmeticError for maps that are not finite.
    """
    if not len(validation):
        return math.nan, math.nan

    def keep(places: npt.NDArray[np.intp], made: Maps) -> dict[str, npt.NDArray[Any]]:
        finite = np.asarray(np.isfinite(made.maps).all(axis=(1, 2, 3)))
        truth = validation.masks
        return {"finite": finite, **scored(made.maps, truth.at(places), truth.present[places])}

    found = predict_masks(model, pixels, validation.rows, keep, device=device)
    if not found["finite"].all():  # said of all processes' items, so that all of them raise
        raise ArithmeticError
    present = (validation.masks.present == 1).any(axis=0)
    known = found["pixels"].sum()
    loss = float(found["loss"].sum() / known) if known else math.nan
    return average(np.where(present, found["dice"], np.nan)).macro.estimate.value, loss


def scored(
    maps: npt.NDArray[np.float32],
    truth: npt.NDArray[np.float32],
    present: npt.NDArray[np.floating],
) -> dict[str, npt.NDArray[np.float64]]:
    """Of b items `(b, C, S, S)`: `dice` `(b, C)`, and `loss` and `pixels` `(b,)`: the sum of the
    cross-entropy over known pixels and how many there are. Unknown pixels count for nothing.
    """
    inside, sure, known = as_truth(truth, present)
    p = np.clip(maps.astype(np.float64), TINY, 1 - TINY)
    losses = -np.log(np.where(inside, p, 1 - p))
    axes = (1, 2, 3)
    return {
        "dice": dice((maps >= 0.5) & sure, inside, known),
        "loss": np.where(sure, losses, 0.0).sum(axis=axes),
        "pixels": sure.sum(axis=axes).astype(np.float64),
    }
