"""Objectives for masks: a loss from student, teacher and a batch; unknown pixels give none."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from ssl_core.masks.networks import MaskOutput
from ssl_core.masks.views import Seen, between, presence, warp_masks
from ssl_core.training.objectives import masked_binary_cross_entropy

EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class MaskBatch:
    """One step's material on the device.

    `labeled`: views of items with masks `(B, C, H, W)` of 0, 1 and NaN for unknown. `views`: V
    views of the same U other images, without masks (C = 0), in the order in which the objective
    names them; none where it compares none. `present` `(B, C)`: which findings the labeled items
    show, NaN for unknown; None takes it from the masks. `epoch` is how many passes are done, with
    its fraction. `memory` holds an objective's tensors from one step to the next.
    """

    labeled: Seen
    views: tuple[Seen, ...] = ()
    present: Tensor | None = None
    epoch: float = 0.0
    memory: dict[str, Tensor] = field(default_factory=dict)


class MaskObjective(Protocol):
    """A loss of one step: differentiable in the student, never in the teacher.

    The student is called once a step, with everything that it shall see (see
    `training.objectives.Objective`, whose rules hold here).
    """

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: MaskBatch) -> Tensor:
        """Return a scalar; a finite zero, still attached to the student, if nothing is known."""


@dataclass(frozen=True, slots=True)
class Supervised:
    """The loss with the readers' masks, or with pseudo-masks that stand in for them.

    mask: "dice" (S4), "cross_entropy" of every pixel, or "both", their mean. classification: the
    share of the auxiliary classifier's cross-entropy, 0 to 1; the masks have the rest. S3 has .3
    and .7; its loss of masks is not known to us, "both" is the usual one beside an auxiliary
    classifier. A network without a classifier gives the masks' share alone.
    """

    mask: Literal["dice", "cross_entropy", "both"] = "dice"
    classification: float = 0.0

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: MaskBatch) -> Tensor:
        """No teacher is asked."""
        return self.of(student(batch.labeled.images), batch)

    def of(self, output: MaskOutput, batch: MaskBatch) -> Tensor:
        """The loss of what the student said of the labeled views."""
        masks = batch.labeled.masks
        loss = (1 - self.classification) * mask_loss(output.maps, masks, self.mask)
        if not self.classification or output.logits is None:
            return loss
        present = presence(masks) if batch.present is None else batch.present
        return loss + self.classification * masked_binary_cross_entropy(output.logits, present)


S3 = Supervised("both", 0.3)
S4 = Supervised("dice")


def mask_loss(
    logits: Tensor, targets: Tensor, kind: Literal["dice", "cross_entropy", "both"]
) -> Tensor:
    """`dice_loss`, `masked_binary_cross_entropy` of every pixel, or the mean of the two."""
    if kind == "dice":
        return dice_loss(logits, targets)
    pixels = masked_binary_cross_entropy(logits, targets)
    return pixels if kind == "cross_entropy" else 0.5 * (pixels + dice_loss(logits, targets))


def dice_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """S4's Dice loss with squared terms: 1 - (2 Σ p·t + ε) / (Σ p² + Σ t² + ε).

    The sums run over all pixels of the batch at once (the batch Dice of S4's code: an empty mask
    pulls with its false pixels, and not with a Dice of its own that jumps), one finding at a
    time; the mean is over the findings that have a known pixel.

    Args:
        logits: `(B, C, H, W)`, any real; p is their sigmoid.
        targets: `(B, C, H, W)` in [0, 1]; NaN is left out.

    Returns:
        A scalar in [0, 1]; exactly 0 with a zero gradient when every pixel is unknown.
    """
    known = ~torch.isnan(targets)
    p = logits.float().sigmoid() * known
    t = torch.where(known, targets, 0.0).float()
    over = (0, 2, 3)
    shared = (p * t).sum(over)
    whole = p.square().sum(over) + t.square().sum(over)
    losses = 1 - (2 * shared + EPSILON) / (whole + EPSILON)
    used = known.any(dim=3).any(dim=2).any(dim=0)
    return (losses * used).sum() / used.sum().clamp(min=1)


@dataclass(frozen=True, slots=True)
class MeanTeacher:
    """S4: the supervised loss + w(epoch) · Dice loss against the moving average's hard masks.

    The teacher is asked about the second view, in S4 the image as it is; its masks (probability
    of one half or more) follow the warp that leads to the student's view, the first. Pixels that
    the teacher did not see give no loss. weight: the most that w gets to. start, end: w is 0
    until epoch `start`, then rises as in `ramp`; S4's code has 6 and 31 of 100 epochs.
    """

    weight: float = 1.5
    start: float = 6.0
    end: float = 31.0
    supervised: Supervised = S4

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: MaskBatch) -> Tensor:
        """Views: the student's, the teacher's. Without either or a teacher it is `supervised`."""
        weight = self.weight * ramp(batch.epoch, self.start, self.end)
        if not batch.views or teacher is None or not weight:
            return self.supervised(student, teacher, batch)
        ours, theirs = batch.views
        labeled, answer = see(student, batch.labeled, ours)
        with torch.no_grad():
            hard = (teacher(theirs.images).maps >= 0).float()
            told = carried(hard, theirs, ours)
        return self.supervised.of(labeled, batch) + weight * dice_loss(answer.maps, told)


@dataclass(frozen=True, slots=True)
class WeakToStrong:
    """FixMatch for pixels (Yang et al. 2023, UniMatch, Section 3.1; Sohn et al. 2020, Eq. 4).

    Where the weak view's probability p or 1 - p is at least `threshold`, the pixel is a label for
    each strong view, carried there by the warp that lies between them. The mean of the
    cross-entropy is over all pixels, the confident and the others; several strong views, as
    UniMatch's two, are averaged. The weak view is the student's own opinion, or the teacher's
    where there is one. UniMatch's perturbation of features is not here.
    """

    threshold: float = 0.95
    weight: float = 1.0
    supervised: Supervised = Supervised("both")

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: MaskBatch) -> Tensor:
        """Views: the weak one, then the strong ones. Without two views it is `supervised`."""
        if len(batch.views) < 2:
            return self.supervised(student, teacher, batch)
        weak, *strong = batch.views
        shown = [weak, *strong] if teacher is None else strong
        labeled, *outputs = see(student, batch.labeled, *shown)
        with torch.no_grad():
            opinion = outputs.pop(0) if teacher is None else teacher(weak.images)
            labels = confident(opinion.maps.detach().sigmoid(), self.threshold)
        losses = []
        for view, output in zip(strong, outputs, strict=True):
            told = carried(labels, weak, view)
            share = (~torch.isnan(told)).float().mean()
            losses.append(share * masked_binary_cross_entropy(output.maps, told))
        return self.supervised.of(labeled, batch) + self.weight * torch.stack(losses).mean()


def confident(probabilities: Tensor, threshold: float) -> Tensor:
    """1 where p ≥ `threshold`, 0 where p ≤ 1 - `threshold`, else NaN. threshold: 0.5 to 1."""
    unsure = torch.full_like(probabilities, math.nan)
    low = torch.where(probabilities <= 1 - threshold, 0.0, unsure)
    return torch.where(probabilities >= threshold, 1.0, low)


def carried(masks: Tensor, here: Seen, there: Seen) -> Tensor:
    """Masks `(U, C, H, W)` said of one view, in another view of the same images; NaN unseen."""
    if torch.equal(here.matrices, there.matrices):
        return masks
    return warp_masks(masks, between(here.matrices, there.matrices), outside=math.nan)


def see(network: nn.Module, *views: Seen) -> list[MaskOutput]:
    """What a network says of several views `(B_i, C_in, H, W)`, from one pass."""
    sizes = [len(view.images) for view in views]
    output: MaskOutput = network(torch.cat([view.images for view in views]))
    maps, features = torch.split(output.maps, sizes), torch.split(output.features, sizes)
    if output.logits is None:
        return [MaskOutput(m, None, f) for m, f in zip(maps, features, strict=True)]
    logits = torch.split(output.logits, sizes)
    return [MaskOutput(*part) for part in zip(maps, logits, features, strict=True)]


def ramp(epoch: float, start: float, end: float) -> float:
    """0 before `start`, then exp(-5(1 - x)²) with x from 0 to 1 at `end`, and 1 from there on.

    Laine & Aila 2017, "Temporal Ensembling"; S4's code, which begins after a wait.
    """
    if epoch < start:
        return 0.0
    done = min((epoch - start) / (end - start), 1.0) if end > start else 1.0
    return math.exp(-5.0 * (1.0 - done) ** 2)
