"""Objectives: each computes a loss from student, teacher and a batch; unknown labels give none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's material on the device.

    `images` is `(B, C_in, H, W)` in [0, 1], already augmented; `targets` is `(B, C)` in [0, 1]
    with NaN for unknown; `exclusive` says whether the C findings are classes of which one holds.

    `views` are V views of the same images without labels, each `(U, C_in, H, W)`, in the order in
    which the stage lists them; none where it shows none. `prior` `(C,)` is the share of positives
    expected, NaN for unknown. `step` counts from 0 to `steps` - 1. `seed` is this step's own, for
    an objective's chance. `memory` holds an objective's tensors from one step to the next, the
    same in all processes of torchrun; checkpoints keep it.
    """

    images: Tensor
    targets: Tensor
    exclusive: bool
    views: tuple[Tensor, ...] = ()
    prior: Tensor | None = None
    step: int = 0
    steps: int = 1
    seed: int = 0
    memory: dict[str, Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """A loss of one step: differentiable in the student, never in the teacher.

    A function, or a frozen dataclass of parameters with `__call__`: what changes from step to step
    stands in the batch's memory. The student is called once a step, with everything that it shall
    see: its batch norm sees all of it together, and so torchrun's processes can add up gradients.
    """

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Tensor:
        """Return a scalar; a finite zero, still attached to the student, if nothing is known."""


def supervised(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Tensor:
    """Cross-entropy with the batch's targets, hard or soft (S0, Section 3).

    Independent findings: binary cross-entropy averaged over the known entries (S0's loss for
    several findings at once, each with its own mask). Exclusive classes: cross-entropy averaged
    over the rows whose classes are all known.
    """
    logits: Tensor = student(batch.images).logits
    return classification(logits, batch.targets, exclusive=batch.exclusive)


def classification(logits: Tensor, targets: Tensor, *, exclusive: bool) -> Tensor:
    """The cross-entropy of the task: of classes, or of independent findings. See `supervised`."""
    if exclusive:
        return class_cross_entropy(logits, targets)
    return masked_binary_cross_entropy(logits, targets)


def see(network: nn.Module, *parts: Tensor) -> list[Tensor]:
    """Logits of several sets of images `(B_i, C_in, H, W)` from one pass: `(B_i, C)` each."""
    logits: Tensor = network(torch.cat(parts)).logits
    return list(torch.split(logits.float(), [len(part) for part in parts]))


def masked_binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy over known entries.

    Args:
        logits: `(B, C)`, any real.
        targets: `(B, C)` in [0, 1]; NaN is left out (design, rule 4).

    Returns:
        A scalar ≥ 0; exactly 0 with a zero gradient when every entry is NaN.
    """
    known = ~torch.isnan(targets)
    filled = torch.where(known, targets, torch.zeros_like(targets))
    # float32 even under autocast: log-sum-exp of bf16 logits loses the small losses.
    losses = F.binary_cross_entropy_with_logits(logits.float(), filled.float(), reduction="none")
    return (losses * known).sum() / known.sum().clamp(min=1)


def class_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over rows whose class distribution is known.

    Args:
        logits: `(B, C)`, C ≥ 2.
        targets: `(B, C)` rows summing to 1 (one-hot or soft); a row with a NaN is left out.

    Returns:
        A scalar ≥ 0; exactly 0 with a zero gradient when no row is known.
    """
    known = ~torch.isnan(targets).any(dim=1)
    filled = torch.where(known[:, None], targets, torch.zeros_like(targets))
    losses = -(filled.float() * F.log_softmax(logits.float(), dim=1)).sum(dim=1)
    return (losses * known).sum() / known.sum().clamp(min=1)
