"""Weak-to-strong consistency of masks: Yang et al. 2023, "Revisiting Weak-to-Strong Consistency in
Semi-Supervised Semantic Segmentation" (UniMatch), on FixMatch's threshold.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ssl_core.config import Count, Share
from ssl_core.masks.objectives import WeakToStrong
from ssl_core.masks.strong import Strong
from ssl_core.masks.views import MaskView
from ssl_core.recipes.stages import LABELS, FitMasks, MaskSettings, Stage
from ssl_core.training.schedule import NotNegative, Schedule


class FixMatchMasks(MaskSettings):
    """Parameters; the threshold and the two strong views are UniMatch's.

    Where `student.ema` is above 0 the moving average gives the weak view's opinion (as in their
    later work), else the student itself does, as in the paper. `augmentation` makes the weak views,
    `strong` the others, `strong_views` of them. The perturbation of features is left out.
    """

    student: Schedule = Schedule(
        epochs=100, batch_size=16, learning_rate=1e-3, decay=1.0, ema=0.99, ema_warmup=2
    )
    strong: Strong = Strong(families=("noise", "colour"))
    strong_views: Annotated[int, Field(ge=1, le=4)] = 2
    loss: Literal["dice", "cross_entropy", "both"] = "both"
    threshold: Annotated[Share, Field(gt=0.5)] = 0.95
    weight: NotNegative = 1.0
    ratio: Count = 1


def stages(p: FixMatchMasks) -> list[Stage]:
    """One stage: D with its masks, and of D ∪ U a weak view and strong ones."""
    objective = WeakToStrong(p.threshold, p.weight, p.supervised)
    views: tuple[MaskView, ...] = (p.augmentation, *[p.strong] * p.strong_views)
    return [
        FitMasks(
            "student",
            (LABELS,),
            p.student,
            view=p.augmentation,
            objective=objective,
            views=views,
            ratio=p.ratio,
            auxiliary=p.auxiliary,
        )
    ]
