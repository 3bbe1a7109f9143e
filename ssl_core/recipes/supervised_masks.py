"""The baseline of S3 and S4: one network trained on the readers' masks alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ssl_core.masks.copy_paste import CopyPaste
from ssl_core.masks.objectives import Supervised
from ssl_core.recipes.stages import LABELS, FitMasks, MaskSettings, Stage
from ssl_core.training.schedule import Schedule


class SupervisedMasks(MaskSettings):
    """Parameters; the length is S4's, the loss its Dice with squared terms.

    `loss` and `classification` are those of `masks.objectives.Supervised`; the latter needs
    `auxiliary`. `paste` puts lesions of other items in.
    """

    student: Schedule = Schedule(epochs=100, batch_size=16, learning_rate=1e-3, decay=1.0)
    loss: Literal["dice", "cross_entropy", "both"] = "dice"
    classification: Annotated[float, Field(ge=0, lt=1)] = 0.0
    paste: CopyPaste | None = None


def stages(p: SupervisedMasks) -> list[Stage]:
    """Train on D, the labeled items."""
    objective = Supervised(p.loss, p.classification)
    return [
        FitMasks(
            "student",
            (LABELS,),
            p.student,
            view=p.augmentation,
            objective=objective,
            paste=p.paste,
            auxiliary=p.auxiliary,
        )
    ]
