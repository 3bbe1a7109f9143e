"""The baseline of every paper: one model trained on the labels alone."""

from __future__ import annotations

from ssl_core.recipes.stages import LABELS, Fit, Settings, Stage
from ssl_core.training.schedule import Schedule


class Supervised(Settings):
    """Parameters."""

    student: Schedule = Schedule(epochs=25)


def stages(p: Supervised) -> list[Stage]:
    """Train on D, the labeled items."""
    return [Fit("student", LABELS, p.student)]
