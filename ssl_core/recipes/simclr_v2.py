"""SimCLRv2: Chen et al. 2020, "Big Self-Supervised Models are Strong Semi-Supervised Learners".

Pretrain on all images without labels, fine-tune on the few labels, distil into a smaller network.
S1 uses it on radiographs with active learning, which here is the loop's query strategy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ssl_core.config import Count, Positive
from ssl_core.recipes.stages import LABELS, Fit, Pretrain, Settings, Stage
from ssl_core.training.augment import MILD, Augmentation
from ssl_core.training.objectives import Batch, classification, see
from ssl_core.training.schedule import Schedule

PART = Augmentation(
    rotation=0.0, translation=0.0, scale=(1.0, 1.0), perspective=0.0, crop=(0.5, 1.0),
    brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05,
)  # fmt: skip
"""A part of half the area or more: a smaller one may miss what is to be seen in a radiograph (S1).
Exposure changes a little, and so does colour where there is any."""


class SimClrV2(Settings):
    """Parameters; pretraining's rates, both temperatures and the crop are S1's.

    `crop` makes both views of pretraining. The projection head has `layers` hidden layers and one
    of `outputs` values (the paper's head of three layers is `layers` = 2; its authors' code puts a
    batch norm after the last one too); fine-tuning begins with the first `kept_layers` of them, and
    trains the whole network. `student_backbone` "" is the workspace's own network.

    The paper's memory network, a moving average of the encoder with a queue, is left out: the
    paper finds that it gains little where batches are large.
    """

    pretrain: Schedule = Schedule(
        epochs=100,
        batch_size=128,
        optimizer="lars",
        learning_rate=0.2,
        weight_decay=1e-4,
        rate="cosine",
        warmup=10,
    )
    finetune: Schedule = Schedule(epochs=25, epoch_steps=20)
    distil: Schedule = Schedule(epochs=25)
    augmentation: Augmentation = MILD
    crop: Augmentation = PART
    temperature: Positive = 0.1
    layers: Annotated[int, Field(ge=0, le=4)] = 2
    kept_layers: Annotated[int, Field(ge=0, le=4)] = 1
    outputs: Count = 128
    distil_temperature: Positive = 0.1
    student_backbone: str = ""
    student_weights: str = "none"


def stages(p: SimClrV2) -> list[Stage]:
    """Section 2: the three steps of Figure 3."""
    kept = min(p.kept_layers, p.layers)
    return [
        Pretrain(
            "pretrained", p.pretrain, Contrast(p.temperature), (p.crop, p.crop), p.layers, p.outputs
        ),
        Fit("finetuned", LABELS, p.finetune, start="pretrained", neck=kept),
        Fit(
            "student",
            None,
            p.distil,
            start=None if p.student_backbone else "pretrained",
            neck=0 if p.student_backbone else kept,
            objective=Distil(p.distil_temperature),
            views=(p.augmentation,),
            teacher="finetuned",
            backbone=p.student_backbone or None,
            weights=p.student_weights,
        ),
    ]


@dataclass(frozen=True, slots=True)
class Contrast:
    """Eq. 1 over a batch: two views of an image attract, views of other images repel.

    temperature: τ > 0. Expects two views and a student that gives projections `(U, d)`; without
    views it is zero. Under torchrun the other images are those of the same process.
    """

    temperature: float = 0.1

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Tensor:
        """There is no teacher, and labels are not looked at."""
        if not batch.views:
            return see(student, batch.images)[0].sum() * 0.0
        one, other = see(student, *batch.views)
        return nt_xent(one, other, self.temperature)


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """The normalised temperature-scaled cross-entropy (Eq. 1), mean over all 2·U views.

    The authors' code adds the means of the two halves: its loss is twice this one.

    one, other: `(U, d)` projections of two views of the same images, not yet normalised.
    Returns a scalar ≥ 0; 0 for a single image, which has nothing to be told from.
    """
    z = F.normalize(torch.cat([one, other]).float(), dim=1)
    likeness = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(one))
    return F.cross_entropy(likeness, partner)


@dataclass(frozen=True, slots=True)
class Distil:
    """Eq. 2: the student says of each image what the teacher says, at one temperature.

    No label has a part in it; Eq. 3, which mixes labels in, is for many of them. Both networks see
    the same view. temperature: τ > 0; below 1 it sharpens both. Independent findings, which the
    paper does not treat: the same with a sigmoid of each. Expects one view; without it or a teacher
    it is zero.
    """

    temperature: float = 0.1

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Tensor:
        """Labels are not looked at: the teacher has learned them."""
        if not batch.views or teacher is None:
            return see(student, batch.images)[0].sum() * 0.0
        (view,) = batch.views
        with torch.no_grad():
            told = see(teacher, view)[0] / self.temperature
            told = told.softmax(1) if batch.exclusive else told.sigmoid()
        (answer,) = see(student, view)
        return classification(answer / self.temperature, told, exclusive=batch.exclusive)
