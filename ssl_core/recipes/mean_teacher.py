"""Mean teacher: Tarvainen & Valpola 2017, "Mean teachers are better role models"."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ssl_core.config import Count, Share
from ssl_core.errors import ConfigError
from ssl_core.recipes.stages import LABELS, Fit, Settings, Stage
from ssl_core.training.augment import MILD, Augmentation
from ssl_core.training.objectives import Batch, classification, see
from ssl_core.training.schedule import NotNegative, Schedule


class MeanTeacher(Settings):
    """Parameters; lengths and weights fit few radiographs, the authors' are for 32-pixel images.

    The teacher is the moving average of the student's weights, with decay min(1 - 1/(t+1),
    `student.ema`), t = 1 at the first step, as in the authors' code for residual networks; it is
    what is kept, unless `student.keep_average` is false. `weight` is the largest weight of the
    consistency cost (the authors' code: 100 for ten classes), reached after the share `ramp_up` of
    all steps (theirs: 40 000 of 150 000). `noise` is the standard deviation of the Gaussian noise
    on both inputs, which are in [0, 1] (theirs: 0.15 on normalised inputs).
    """

    student: Schedule = Schedule(epochs=25, epoch_steps=40, ema=0.99, ema_warmup=2)
    augmentation: Augmentation = MILD
    weight: NotNegative = 10.0
    ramp_up: Share = 0.3
    noise: NotNegative = 0.0
    ratio: Count = 3


def stages(p: MeanTeacher) -> list[Stage]:
    """One stage: D with its labels, and two views of D ∪ U, the student's and the teacher's."""
    check_average("mean_teacher", p.student)
    objective = Consistency(p.weight, p.ramp_up, p.noise)
    views = (p.augmentation, p.augmentation)
    return [Fit("student", LABELS, p.student, objective=objective, views=views, ratio=p.ratio)]


def check_average(name: str, schedule: Schedule) -> None:
    """Refuse a stage whose teacher, the moving average, is switched off: it would be supervised."""
    if not schedule.ema:
        raise ConfigError(f"recipe {name}: student.ema = 0 leaves no teacher: set it above 0.")


@dataclass(frozen=True, slots=True)
class Consistency:
    """Section 2: classification cost + w(t) · J, with J the distance of two opinions.

    J = mean over entries, so over items and classes, of (student's probability of one view -
    teacher's of another)². Independent findings, which the paper does not treat: a sigmoid of each.
    Expects the views (student's, teacher's); without views or a teacher it is `supervised`.
    """

    weight: float = 10.0
    ramp_up: float = 0.3
    noise: float = 0.0

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> Tensor:
        """The teacher's opinion carries no gradient."""
        if not batch.views or teacher is None:
            (labeled,) = see(student, batch.images)
            return classification(labeled, batch.targets, exclusive=batch.exclusive)
        ours, theirs = self._noisy(batch)
        labeled, answer = see(student, batch.images, ours)
        with torch.no_grad():
            (opinion,) = see(teacher, theirs)
        classify = classification(labeled, batch.targets, exclusive=batch.exclusive)
        apart = _probabilities(answer, batch) - _probabilities(opinion, batch)
        weight = self.weight * ramp(batch.step, self.ramp_up * batch.steps)
        return classify + weight * apart.square().mean()

    def _noisy(self, batch: Batch) -> tuple[Tensor, ...]:
        if not self.noise:
            return batch.views
        generator = torch.Generator().manual_seed(batch.seed)  # of the CPU: the same everywhere
        return tuple(
            view + self.noise * torch.randn(view.shape, generator=generator).to(view)
            for view in batch.views
        )


def ramp(step: int, length: float) -> float:
    """The sigmoid-shaped ramp exp(-5(1 - x)²) with x = step / length, 1 from x = 1 on.

    Laine & Aila 2017, "Temporal Ensembling"; Tarvainen & Valpola take it from there.
    """
    done = min(step / length, 1.0) if length else 1.0
    return math.exp(-5.0 * (1.0 - done) ** 2)


def _probabilities(logits: Tensor, batch: Batch) -> Tensor:
    return logits.softmax(1) if batch.exclusive else logits.sigmoid()
