"""S4: a mean teacher for masks, Tarvainen & Valpola 2017 with a Dice consistency."""

from __future__ import annotations

from ssl_core.config import Count
from ssl_core.masks.objectives import MeanTeacher
from ssl_core.recipes.mean_teacher import check_average
from ssl_core.recipes.stages import LABELS, FitMasks, MaskSettings, Stage
from ssl_core.training.augment import NOTHING, Augmentation
from ssl_core.training.schedule import NotNegative, Schedule


class MeanTeacherMasks(MaskSettings):
    """Parameters; weight, ramp and length are those of S4's code.

    The teacher is the moving average of the student's weights and sees `teacher_view`, the image as
    it is; its hard masks follow the warp to the student's view. `weight` is the most that the
    consistency gets to: 0 before epoch `start` (a supervised warm start), full from epoch `end` on.
    What is kept is the average, unless `student.keep_average` is false. `ratio` images without
    labels are shown for each with one.
    """

    student: Schedule = Schedule(
        epochs=100, batch_size=16, learning_rate=1e-3, decay=1.0, ema=0.99, ema_warmup=2
    )
    teacher_view: Augmentation = NOTHING
    weight: NotNegative = 1.5
    start: NotNegative = 6.0
    end: NotNegative = 31.0
    ratio: Count = 1


def stages(p: MeanTeacherMasks) -> list[Stage]:
    """One stage: D with its masks, and of D ∪ U the student's view and the teacher's."""
    check_average("mean_teacher_masks", p.student)
    objective = MeanTeacher(p.weight, p.start, p.end, p.supervised)
    views = (p.augmentation, p.teacher_view)
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
