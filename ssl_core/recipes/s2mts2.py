"""S2MTS2: Liu et al. 2021, "Self-supervised Mean Teacher for Semi-supervised Chest X-ray
Classification", on the joint contrastive learning of Cai et al. 2020 ("Joint Contrastive Learning
with Infinite Possibilities").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ssl_core.config import Count, Positive, Share
from ssl_core.recipes.mean_teacher import Consistency, check_average
from ssl_core.recipes.simclr_v2 import PART
from ssl_core.recipes.stages import LABELS, Fit, Pretrain, Settings, Stage
from ssl_core.training.augment import MILD, Augmentation
from ssl_core.training.distributed import join_processes
from ssl_core.training.objectives import Batch, see
from ssl_core.training.schedule import NotNegative, Schedule


class S2mts2(Settings):
    """Parameters; pretraining's rates and momentum are those of the authors' code.

    Pretraining: `pretrain.ema` is the momentum of the mean teacher that makes the keys, the same at
    every step (`ema_warmup` = 1: a queue needs keys of one kind); the student is kept. `keys` is
    M', from which a positive's mean and covariance are estimated; `queue` the keys of other images
    that are remembered. `temperature` is τ and `influence` λ of `joint_contrastive`. The projection
    head has `layers` hidden layers and one of `outputs` values. Smaller than theirs, for small
    pools and machines: batches (256) and queue (65 536).
    Fine-tuning is the recipe `mean_teacher`'s, and so are `weight`, `ramp_up` and `ratio`, from the
    pooled features. The authors' code is simpler there and has another head: it begins after the
    first layer of a projection head of three, student and teacher see one and the same view, of U
    alone, and the weight rises to 1 in a straight line.
    """

    pretrain: Schedule = Schedule(
        epochs=100,
        batch_size=64,
        optimizer="sgd",
        learning_rate=0.03,
        weight_decay=1e-4,
        rate="cosine",
        ema=0.999,
        ema_warmup=1,
        keep_average=False,
    )
    student: Schedule = Schedule(epochs=25, epoch_steps=40, ema=0.99, ema_warmup=2)
    augmentation: Augmentation = MILD
    crop: Augmentation = PART
    keys: Annotated[int, Field(ge=1, le=16)] = 5
    queue: Count = 4096
    temperature: Positive = 0.2
    influence: NotNegative = 4.0
    layers: Annotated[int, Field(ge=0, le=4)] = 1
    outputs: Count = 128
    weight: NotNegative = 10.0
    ramp_up: Share = 0.3
    ratio: Count = 3


def stages(p: S2mts2) -> list[Stage]:
    """The paper's two steps: pretraining without labels on D ∪ U, then fine-tuning on D + U."""
    check_average("s2mts2", p.student)
    contrast = JointContrast(p.temperature, p.influence, p.queue)
    consistency = Consistency(p.weight, p.ramp_up)
    views = (p.augmentation, p.augmentation)
    return [
        Pretrain("pretrained", p.pretrain, contrast, (p.crop,) * (1 + p.keys), p.layers, p.outputs),
        Fit(
            "student",
            LABELS,
            p.student,
            start="pretrained",
            objective=consistency,
            views=views,
            ratio=p.ratio,
        ),
    ]


@dataclass(frozen=True, slots=True)
class JointContrast:
    """`joint_contrastive` with the student's queries and the mean teacher's keys.

    temperature: τ > 0; influence: λ ≥ 0; queue: most keys of earlier images, K ≥ 1. Expects 1 + M'
    views, the query's first, and networks that give projections `(U, d)`; without views or a
    teacher it is zero. The teacher runs on its running statistics: in a batch of its own, batch
    norm would tell it which images belong together, against which He et al. 2020 ("Momentum
    Contrast") shuffle the keys between GPUs.
    """

    temperature: float = 0.2
    influence: float = 4.0
    queue: int = 4096

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Tensor:
        """Labels are not looked at. After the loss each image's mean key joins the queue."""
        if not batch.views or teacher is None:
            return see(student, batch.images)[0].sum() * 0.0
        query, *positives = batch.views
        with torch.no_grad():
            projected = torch.stack(see(teacher.eval(), *positives))
        keys = F.normalize(projected, dim=2)
        (answer,) = see(student, query)
        past = batch.memory.get("keys", keys[0, :0])
        loss = joint_contrastive(
            F.normalize(answer, dim=1), keys, past, self.temperature, self.influence
        )
        batch.memory["keys"] = torch.cat([past, join_processes(keys.mean(0))])[-self.queue :]
        return loss


def joint_contrastive(
    queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float, influence: float
) -> Tensor:
    """The closed form for infinitely many positives (Cai et al. 2020, "Method"), mean over U.

    A query's positive keys are taken to be Gaussian. The expectation over all of them of the
    contrastive loss, -log( exp(qᵀk⁺/τ) / (exp(qᵀk⁺/τ) + Σ_k exp(qᵀk/τ)) ), is then bounded from
    above by a closed form in their mean μ and covariance Σ: Jensen's inequality moves it under the
    logarithm, and the moment-generating function of a Gaussian gives it there:

        log( exp(a + b) + Σ_k exp(qᵀk/τ) ) - a,    a = qᵀμ/τ,  b = λ/(2τ²) · qᵀΣq

    Args:
        queries: `(U, d)`, q.
        keys: `(M', U, d)` of the same images, from which μ and Σ (divided by M') are estimated.
        negatives: `(K, d)` of other images, k; K may be 0.
        temperature: τ > 0.
        influence: λ ≥ 0; 0 is the contrast with the mean key alone, 1 the bound itself. The
            authors' code divides the second term by τ once, so that ours is its λ times τ, and
            raises λ in a straight line over the epochs; here it stays.

    Returns:
        A scalar ≥ 0.
    """
    mean = keys.mean(0)
    # qᵀΣq is the variance of qᵀk: the (d, d) covariance is never made.
    spread = torch.einsum("ud,mud->mu", queries, keys - mean).square().mean(0)
    positive = (queries * mean).sum(1) / temperature
    positive = positive + influence / (2 * temperature**2) * spread
    others = queries @ negatives.T / temperature
    whole = torch.logsumexp(torch.cat([positive[:, None], others], dim=1), dim=1)
    return (whole - (queries * mean).sum(1) / temperature).mean()
