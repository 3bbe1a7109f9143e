"""The baseline of S3 and S4: one network trained on the readers' masks alone."""

from __future__ import annotations

from ssl_core.masks.copy_paste import CopyPaste
from ssl_core.recipes.stages import LABELS, FitMasks, MaskSettings, Stage
from ssl_core.training.schedule import Schedule


class SupervisedMasks(MaskSettings):
    """Parameters; the length is S4's, the loss its Dice with squared terms.

    `paste` puts lesions of other items in.
    """

    student: Schedule = Schedule(epochs=100, batch_size=16, learning_rate=1e-3, decay=1.0)
    paste: CopyPaste | None = None


def stages(p: SupervisedMasks) -> list[Stage]:
    """Train on D, the labeled items."""
    return [
        FitMasks(
            "student",
            (LABELS,),
            p.student,
            view=p.augmentation,
            objective=p.supervised,
            paste=p.paste,
            auxiliary=p.auxiliary,
        )
    ]
