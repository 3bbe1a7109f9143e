"""The baseline of every paper: one model trained on the labels alone."""

from __future__ import annotations

from ssl_core.augment import Augmentation
from ssl_core.config import Table
from ssl_core.predict import Tta
from ssl_core.recipes.stages import LABELS, Fit, Stage
from ssl_core.train import Schedule


class Supervised(Table):
    """Parameters."""

    student: Schedule = Schedule(epochs=25)
    tta: Tta = "ten_crop"
    augmentation: Augmentation = Augmentation()


def stages(p: Supervised) -> list[Stage]:
    """Train on D, the labeled items."""
    return [Fit("student", LABELS, p.student)]
