"""Mean teacher by hand: the consistency cost, its ramp, its noise, and the average's warm-up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ssl_core.recipes import plan
from ssl_core.recipes.mean_teacher import Consistency, ramp
from ssl_core.training.models import Output
from ssl_core.training.objectives import Batch
from ssl_core.training.steps import update_average

NAN = math.nan


class Fixed(nn.Module):
    """A network whose logits are its parameter, and which remembers what it was shown."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))
        self.shown = None

    def forward(self, images):
        assert len(images) == len(self.logits)
        self.shown = images
        return Output(self.logits, self.logits)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def batch(targets, unlabeled, *, exclusive=False, step=99):
    views = (torch.full((unlabeled, 1, 2, 2), 0.25), torch.full((unlabeled, 1, 2, 2), 0.75))
    images = torch.zeros(len(targets), 1, 2, 2)
    return Batch(images, torch.tensor(targets), exclusive, views, None, step, 100, seed=4)


def test_findings_by_hand():
    student, teacher = Fixed([[1.0, -1.0], [0.5, 2.0]]), Fixed([[0.0, 3.0]])
    loss = Consistency(weight=4.0, ramp_up=0.5)(student, teacher, batch([[1.0, NAN]], 1))
    apart = ((sigmoid(0.5) - sigmoid(0)) ** 2 + (sigmoid(2) - sigmoid(3)) ** 2) / 2
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)) + 4.0 * apart)
    loss.backward()
    assert teacher.logits.grad is None
    assert (student.logits.grad[1] != 0).all()


def test_classes_by_hand():
    student, teacher = Fixed([[0.0, 0.0], [1.0, 0.0]]), Fixed([[0.0, 1.0]])
    loss = Consistency(weight=1.0, ramp_up=0.0)(
        student, teacher, batch([[NAN, NAN]], 1, exclusive=True)
    )
    assert loss.item() == pytest.approx((sigmoid(1) - sigmoid(-1)) ** 2)


def test_the_ramp_by_hand():
    assert ramp(0, 80.0) == pytest.approx(math.exp(-5))
    assert ramp(40, 80.0) == pytest.approx(math.exp(-1.25))
    assert ramp(80, 80.0) == ramp(500, 80.0) == ramp(0, 0.0) == 1.0


def test_consistency_ramps_up_over_its_share_of_the_steps():
    student, teacher = Fixed([[0.0], [1.0]]), Fixed([[0.0]])
    objective = Consistency(weight=3.0, ramp_up=0.4)
    full = 3.0 * (sigmoid(1) - 0.5) ** 2
    for step, share in ((0, math.exp(-5)), (20, math.exp(-1.25)), (40, 1.0), (99, 1.0)):
        loss = objective(student, teacher, batch([[NAN]], 1, step=step))
        assert loss.item() == pytest.approx(full * share)


def test_student_and_teacher_see_a_view_each_with_noise_of_its_own():
    student, teacher = Fixed([[0.0]] * 201), Fixed([[0.0]] * 200)
    plain = batch([[1.0]], 200)
    Consistency()(student, teacher, plain)
    assert (student.shown[1:] == 0.25).all()
    assert (teacher.shown == 0.75).all()
    Consistency(noise=0.1)(student, teacher, plain)
    ours, theirs = student.shown[1:] - 0.25, teacher.shown - 0.75
    assert (student.shown[0] == 0).all()
    assert ours.std().item() == pytest.approx(0.1, rel=0.1)
    assert abs(torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]) < 0.1
    Consistency(noise=0.1)(student, teacher, plain)
    assert torch.equal(student.shown[1:] - 0.25, ours)  # the seed is the step's
    Consistency(noise=0.1)(student, teacher, replace(plain, seed=5))
    assert not torch.equal(student.shown[1:] - 0.25, ours)


def test_the_average_warms_up_as_in_the_authors_code():
    """min(1 - 1/(t+1), α): until α is reached, the plain mean of all weights so far."""
    average, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    average.weight.data.fill_(8.0)
    seen, expected = [8.0], 0.0
    for step in range(6):
        student.weight.data.fill_(float(step))
        update_average(average, student, 0.8, step, 2)
        seen.append(float(step))
        t = step + 1
        decay = min(1 - 1 / (t + 1), 0.8)
        expected = decay * (expected if step else 8.0) + (1 - decay) * step
        assert average.weight.item() == pytest.approx(expected, rel=1e-5)
        if t <= 4:  # 1 - 1/5 = .8
            assert average.weight.item() == pytest.approx(sum(seen) / len(seen), rel=1e-5)


def test_parameters_reach_the_stage():
    made = plan({"name": "mean_teacher", "weight": 2.0, "ramp_up": 0.5, "noise": 0.1, "ratio": 1})
    (stage,) = made.fits
    assert stage.objective == Consistency(2.0, 0.5, 0.1)
    assert stage.views == (made.augmentation,) * 2
    assert (stage.ratio, stage.schedule.ema_warmup, stage.schedule.keep_average) == (1, 2, True)
