"""S0: Martins & Silva, teacher-student pseudo-labels for chest radiographs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ssl_core.config import Share
from ssl_core.recipes.stages import LABELS, Fit, PseudoLabel, Settings, Stage
from ssl_core.training.schedule import Schedule


class TeacherStudent(Settings):
    """Parameters; the defaults are the paper's (Section 4).

    `generations` > 1 makes the student the next teacher, which the paper leaves as future work, as
    it does `soft` pseudo-labels (the teacher's scores) in place of 1 / 0.
    """

    teacher: Schedule = Schedule(epochs=25)
    intermediate: Schedule = Schedule(epochs=10)
    student: Schedule = Schedule(epochs=15)
    keep_fraction: Share = 0.75
    soft: bool = False
    generations: Annotated[int, Field(ge=1, le=9)] = 1


def stages(p: TeacherStudent) -> list[Stage]:
    """The paper's Section 3 in order: D the labeled items, U the rest of the train pool.

    1. The teacher learns from D. 2. It scores U under ten-crop test-time augmentation, and the
    most confident share κ is kept, balanced by the class prior. 3. The student learns from those
    alone: the "intermediate" model. 4. The student is fine-tuned on D.
    """
    plan: list[Stage] = [Fit("teacher", LABELS, p.teacher)]
    teacher = "teacher"
    for generation in range(1, p.generations + 1):
        suffix = "" if generation == p.generations else f" {generation}"
        pseudo, intermediate, student = (
            name + suffix for name in ("pseudo-labels", "intermediate", "student")
        )
        plan += [
            PseudoLabel(pseudo, teacher, p.keep_fraction, p.soft, p.tta),
            Fit(intermediate, pseudo, p.intermediate, otherwise=teacher),
            Fit(student, LABELS, p.student, start=intermediate),
        ]
        teacher = student
    return plan
