"""FixMatch: Sohn et al. 2020, "Simplifying Semi-Supervised Learning with Consistency and
Confidence", with the distribution alignment of ReMixMatch (Berthelot et al. 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_core.config import Count, Share
from ssl_core.recipes.stages import LABELS, Fit, Settings, Stage
from ssl_core.training.augment import MILD, Augmentation
from ssl_core.training.distributed import join_processes
from ssl_core.training.objectives import Batch, classification, see
from ssl_core.training.rand_augment import RandAugment
from ssl_core.training.schedule import NotNegative, Schedule

REMEMBERED = 128  # batches in the running mean of predictions (ReMixMatch, Section 3.1)


class FixMatch(Settings):
    """Parameters; rates, weights, threshold and average are the paper's of CIFAR-10.

    `augmentation` makes the weak views, `strong` (RandAugment and a hole) the strong ones. `ratio`
    is the paper's μ, `weight` its λ_u, `threshold` its τ. Without `align` there is no distribution
    alignment, which in the paper is an extension.

    Not the paper's: views, which fit radiographs; length, and with it batches of 16 and not 64, a
    cosine that ends at 0 and not at cos(7π/16), and an average that warms up; momentum that is not
    Nesterov's.
    """

    student: Schedule = Schedule(
        epochs=25,
        epoch_steps=40,
        optimizer="sgd",
        learning_rate=0.03,
        weight_decay=5e-4,
        rate="cosine",
        ema=0.999,
    )
    augmentation: Augmentation = MILD
    strong: RandAugment = RandAugment()
    threshold: Share = 0.95
    ratio: Count = 7
    weight: NotNegative = 1.0
    align: bool = True


def stages(p: FixMatch) -> list[Stage]:
    """One stage: D with its labels, and of D ∪ U a weak and a strong view."""
    objective = Consistency(p.threshold, p.weight, p.align)
    views = (p.augmentation, p.strong)
    return [Fit("student", LABELS, p.student, objective=objective, views=views, ratio=p.ratio)]


@dataclass(frozen=True, slots=True)
class Consistency:
    """Section 2.2: ℓ_s + λ_u ℓ_u. A confident weak view is the label of the strong one.

    threshold: τ in [0, 1]; weight: λ_u ≥ 0; align: move the predictions on weak views towards the
    batch's prior. Expects the views (weak, strong); without views it is `supervised`.
    """

    threshold: float = 0.95
    weight: float = 1.0
    align: bool = True

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Tensor:
        """Eq. 3 and 4; the mean is over all unlabeled entries, the confident and the others."""
        labeled, *others = see(student, batch.images, *batch.views)
        loss = classification(labeled, batch.targets, exclusive=batch.exclusive)
        if not others:
            return loss
        weak, strong = others
        with torch.no_grad():
            prior = batch.prior
            q = weak.softmax(1) if batch.exclusive else weak.sigmoid()
            if self.align and prior is not None:
                q = align(q, prior, running_mean(q, batch), exclusive=batch.exclusive)
            labels = pseudo_labels(q, self.threshold, prior, exclusive=batch.exclusive)
        return loss + self.weight * _mean_over_all(strong, labels, exclusive=batch.exclusive)


def running_mean(q: Tensor, batch: Batch) -> Tensor:
    """The mean prediction `(C,)` of the last 128 batches, this one `(U, C)` included.

    The code of ReMixMatch leaves this one out, and begins with 128 even predictions.
    """
    mean = join_processes(q).mean(0, keepdim=True)
    past = batch.memory.get("predictions", mean[:0])
    batch.memory["predictions"] = torch.cat([past, mean])[-REMEMBERED:]
    return batch.memory["predictions"].mean(0)


def align(q: Tensor, prior: Tensor, mean: Tensor, *, exclusive: bool) -> Tensor:
    """Distribution alignment (ReMixMatch, Section 3.1): q̃ = normalise(q · prior / mean).

    Args:
        q: `(U, C)` in [0, 1]; of classes, rows sum to 1. Of independent findings each is aligned
            on its own, as the two classes "present" and "absent".
        prior: `(C,)` share of positives expected (design, rule 3); NaN leaves a finding as it is,
            and among classes all of them.
        mean: `(C,)` mean of the predictions so far.
        exclusive: the findings are classes of which one holds.

    Returns:
        `(U, C)` in [0, 1].
    """
    tiny = torch.finfo(q.dtype).tiny
    present = q * prior / mean.clamp(min=tiny)
    if exclusive:
        whole = present.sum(1, keepdim=True)
    else:
        whole = present + (1 - q) * (1 - prior) / (1 - mean).clamp(min=tiny)
    return torch.where(torch.isnan(whole), q, present / whole.clamp(min=tiny))


def pseudo_labels(q: Tensor, threshold: float, prior: Tensor | None, *, exclusive: bool) -> Tensor:
    """The confident predictions as 1 / 0, all others NaN: `(U, C)`.

    Classes: a row whose largest q is at least τ becomes one-hot (Eq. 4). Independent findings,
    which the paper does not treat: 1 at or above an upper threshold, 0 at or below a lower one,
    see `two_sided`. A finding whose prior is NaN gets none: unknown is not negative (rule 4).
    """
    if exclusive:
        top = F.one_hot(q.argmax(1), q.shape[1]).to(q.dtype)
        return top.masked_fill((q.amax(1) < threshold)[:, None], torch.nan)
    low, high = two_sided(threshold, torch.full_like(q[0], 0.5) if prior is None else prior)
    unsure = torch.full_like(q, torch.nan)
    return torch.where(q >= high, 1.0, torch.where(q <= low, 0.0, unsure))


def two_sided(threshold: float, prior: Tensor) -> tuple[Tensor, Tensor]:
    """The thresholds of C independent findings, `(C,)` each: absent up to, present from.

    At a prior π of one half they are 1 - τ and τ. Of a rare finding "absent" is nearly always
    right and says nothing at 1 - τ, where whoever knows the prior alone would already be: so the
    error that is allowed shrinks with the side's share, (1 - τ)·min(1, 2π) for "absent" and
    (1 - τ)·min(1, 2(1 - π)) for "present". NaN gives NaN, which no prediction reaches.
    """
    allowed = 1 - threshold
    return allowed * (2 * prior).clamp(max=1), 1 - allowed * (2 * (1 - prior)).clamp(max=1)


def _mean_over_all(logits: Tensor, labels: Tensor, *, exclusive: bool) -> Tensor:
    """Cross-entropy summed over what is labeled, divided by everything: Eq. 4's 1 / μB."""
    known = ~torch.isnan(labels)
    share = known.float().mean()
    return share * classification(logits, labels, exclusive=exclusive)
