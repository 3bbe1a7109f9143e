"""S3: self-training for lesions with an ensemble of teachers, copy-paste and RandAugment."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from ssl_core.config import Share
from ssl_core.masks.copy_paste import CopyPaste
from ssl_core.masks.strong import Strong
from ssl_core.recipes.stages import LABELS, FitMasks, MaskSettings, PseudoMasks, Stage
from ssl_core.training.schedule import Schedule

Shares = Annotated[tuple[Share, ...], Field(min_length=1)]


class SelfTraining(MaskSettings):
    """Parameters; loss shares, ensemble, thresholds' sense and copy-paste's options are S3's.

    `backbones` lists the networks of each iteration: those of the first are the initial teachers,
    trained on labels alone; those of each later one learn from labels and from the masks that the
    ones before drew together. A later network must not have fewer weights than its teachers. "" is
    the workspace's own; others begin with the files that `backbone_weights` gives them by name.
    With `warm_start` a student begins with the weights of a teacher that is the same network, each
    with another one's as far as there are. `positive` and `negative` decide what is drawn, absent
    or dropped: one number, or one for each finding in the task's order; S3 does not give its own.
    Without `pseudo_masks` the students learn from the labels alone, for as long: the control that
    tells what pseudo-masks taught from what more training did.
    """

    teacher: Schedule = Schedule(epochs=60, batch_size=16, learning_rate=1e-3, rate="cosine")
    student: Schedule = Schedule(epochs=60, batch_size=16, learning_rate=1e-3, rate="cosine")
    backbones: Annotated[tuple[tuple[str, ...], ...], Field(min_length=1, max_length=9)] = (
        ("", ""),
        ("", ""),
        ("",),
    )
    backbone_weights: dict[str, str] = Field(default_factory=dict)
    warm_start: bool = False
    pseudo_masks: bool = True
    ensemble: Literal["single", "soft", "weighted_soft"] = "weighted_soft"
    positive: Share | Shares = 0.7
    negative: Share | Shares = 0.3
    strong: Strong = Strong()
    paste: CopyPaste | None = CopyPaste()
    loss: Literal["dice", "cross_entropy", "both"] = "both"
    auxiliary: bool = True

    @model_validator(mode="after")
    def _told_apart(self) -> SelfTraining:
        try:
            low, high = np.broadcast_arrays(self.negative, self.positive)
        except ValueError:
            raise ValueError("positive and negative have different numbers of values") from None
        if not (low < high).all():
            raise ValueError("negative must lie below positive")
        if not all(self.backbones):
            raise ValueError("each iteration of backbones names at least one network")
        named = {name for row in self.backbones for name in row}
        if "" in self.backbone_weights:
            raise ValueError(
                "backbone_weights names '', whose file is [model] weights: set it there"
            )
        if strays := sorted(self.backbone_weights.keys() - named):
            raise ValueError(f"backbone_weights names {strays[0]!r}, which is not in backbones")
        return self


def stages(p: SelfTraining) -> list[Stage]:
    """Teachers on D; then, again and again, masks of U by all of them, and students on both."""
    plan: list[Stage] = []
    before: dict[str, str] = {}  # the network of each teacher
    for iteration, networks in enumerate(p.backbones):
        last = iteration == len(p.backbones) - 1
        role = "teacher" if not iteration else "student"
        on: tuple[str, ...] = (LABELS,)
        if before and p.pseudo_masks:
            drawn = f"pseudo-masks {iteration}"
            asked = tuple(before)[: 1 if p.ensemble == "single" else None]
            plan.append(PseudoMasks(drawn, asked, p.ensemble, p.positive, p.negative, p.tta))
            on = (LABELS, drawn)
        made: dict[str, str] = {}
        for place, network in enumerate(networks):
            name = role if last and len(networks) == 1 else f"{role} {iteration}{_letter(place)}"
            alike = [stage for stage, other in before.items() if other == network]
            plan.append(
                FitMasks(
                    name,
                    on,
                    p.student if iteration else p.teacher,
                    view=p.strong if iteration else p.augmentation,
                    objective=p.supervised,
                    paste=p.paste,
                    start=alike[place % len(alike)] if p.warm_start and alike else None,
                    backbone=network or None,
                    weights=p.backbone_weights.get(network, "none"),
                    auxiliary=p.auxiliary,
                    not_smaller_than=tuple(before),
                )
            )
            made[name] = network
        before = made
    return plan


def _letter(place: int) -> str:
    return chr(ord("a") + place)
