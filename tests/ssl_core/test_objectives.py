"""One battery over every objective, and the supervised losses by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_core.models import Output, build_model
from ssl_core.objectives import (
    OBJECTIVES,
    Batch,
    class_cross_entropy,
    masked_binary_cross_entropy,
    supervised,
)

NAN = math.nan
QUICK = settings(deadline=None, max_examples=50)  # no timing: machines are shared
TARGETS = {
    "binary": ([[1.0], [0.0], [1.0], [NAN]], False),
    "multi_label": ([[1.0, 0.0, NAN], [0.0, NAN, 1.0], [1.0, 1.0, 0.0], [0.5, 0.2, 0.9]], False),
    "exclusive": ([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.2, 0.7, 0.1], [NAN, 1.0, 0.0]], True),
}
every_objective = pytest.mark.parametrize("name", sorted(OBJECTIVES))
every_task = pytest.mark.parametrize("task", sorted(TARGETS))


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(task, *, unknown=False):
    targets, exclusive = TARGETS[task]
    targets = torch.tensor(targets)
    if unknown:
        targets = torch.full_like(targets, NAN)
    return Batch(noise(len(targets), 1, 16, 16), targets, exclusive)


def networks(batch):
    findings = batch.targets.shape[1]
    return build_model("small_cnn", findings, seed=1), build_model("small_cnn", findings, seed=2)


def softplus(x):
    return math.log1p(math.exp(x))


class Fixed(nn.Module):
    """A student whose logits are its parameter."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return Output(self.logits, self.logits)


# --- the battery ---------------------------------------------------------------------------


@every_objective
@every_task
def test_gradient_reaches_the_student_and_never_the_teacher(name, task):
    batch = batch_of(task)
    student, teacher = networks(batch)
    loss = OBJECTIVES[name](student, teacher, batch)
    assert loss.shape == ()
    assert loss.item() > 0
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    assert student.head.weight.grad.abs().sum() > 0
    assert next(student.blocks.parameters()).grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


@every_objective
@every_task
def test_a_batch_without_labels_is_a_finite_zero_with_zero_gradients(name, task):
    batch = batch_of(task, unknown=True)
    student, teacher = networks(batch)
    loss = OBJECTIVES[name](student, teacher, batch)
    assert loss.item() == 0
    loss.backward()
    assert all((p.grad == 0).all() for p in student.parameters())


@every_objective
@every_task
def test_bf16_logits_give_a_float32_loss(name, task):
    batch = batch_of(task)
    student, teacher = networks(batch)
    exact = OBJECTIVES[name](student, teacher, batch)
    with torch.autocast("cpu", torch.bfloat16):
        loss = OBJECTIVES[name](student, teacher, batch)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)


@every_objective
def test_without_a_teacher_the_loss_is_still_a_number(name):
    batch = batch_of("binary")
    student, _ = networks(batch)
    assert OBJECTIVES[name](student, None, batch).isfinite()


# --- supervised, by hand -------------------------------------------------------------------


def test_binary_by_hand():
    loss = supervised(Fixed([[2.0], [-1.0], [7.0]]), None, _batch([[1.0], [0.0], [NAN]]))
    assert loss.item() == pytest.approx((softplus(-2) + softplus(-1)) / 2)


def test_multi_label_is_the_mean_over_known_entries():
    student = Fixed([[0.0, 1.0], [3.0, -2.0]])
    loss = supervised(student, None, _batch([[1.0, NAN], [0.25, 0.0]]))
    soft = 0.25 * softplus(-3) + 0.75 * softplus(3)
    assert loss.item() == pytest.approx((math.log(2) + soft + softplus(-2)) / 3)


def test_unknown_entries_give_no_gradient_to_their_finding():
    student = Fixed([[0.0, 1.0], [3.0, -2.0]])
    supervised(student, None, _batch([[1.0, NAN], [0.0, NAN]])).backward()
    assert (student.logits.grad[:, 1] == 0).all()
    sigmoid = 1 / (1 + math.exp(-3))
    torch.testing.assert_close(student.logits.grad[:, 0], torch.tensor([-0.5 / 2, sigmoid / 2]))


def test_exclusive_by_hand():
    student = Fixed([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [9.0, 9.0, -9.0]])
    targets = [[0.0, 0.0, 1.0], [0.5, 0.3, 0.2], [NAN, 1.0, 0.0]]
    loss = supervised(student, None, _batch(targets, exclusive=True))
    first = math.log(math.exp(1) + math.exp(2) + math.exp(3)) - 3
    assert loss.item() == pytest.approx((first + math.log(3)) / 2)
    loss.backward()
    assert (student.logits.grad[2] == 0).all()  # one unknown class leaves out its whole row
    torch.testing.assert_close(
        student.logits.grad[1], (torch.full((3,), 1 / 3) - torch.tensor([0.5, 0.3, 0.2])) / 2
    )


def test_two_exclusive_classes_are_a_binary_finding():
    z, y = torch.tensor([[0.3], [-1.2]]), torch.tensor([[1.0], [0.0]])
    pair = torch.cat([torch.zeros_like(z), z], dim=1), torch.cat([1 - y, y], dim=1)
    torch.testing.assert_close(class_cross_entropy(*pair), masked_binary_cross_entropy(z, y))


def test_small_losses_of_bf16_logits_are_not_lost():
    logits = torch.tensor([[12.0]], dtype=torch.bfloat16)
    loss = masked_binary_cross_entropy(logits, torch.tensor([[1.0]]))
    assert loss.item() == pytest.approx(softplus(-12), rel=1e-5)
    pair = class_cross_entropy(torch.tensor([[12.0, 0.0]], dtype=torch.bfloat16), torch.eye(2)[:1])
    assert pair.item() == pytest.approx(softplus(-12), rel=1e-2)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    loss = masked_binary_cross_entropy(logits, torch.tensor([[0.0], [1.0]]))
    assert loss.item() == pytest.approx(1e4)
    loss.backward()
    assert logits.grad.isfinite().all()


@QUICK
@given(
    st.lists(
        st.tuples(st.floats(-20, 20), st.one_of(st.just(NAN), st.floats(0, 1))),
        min_size=1,
        max_size=12,
    )
)
def test_left_out_entries_might_as_well_not_be_there(entries):
    logits, targets = (torch.tensor(column)[:, None] for column in zip(*entries, strict=True))
    known = ~targets.isnan()[:, 0]
    loss = masked_binary_cross_entropy(logits, targets)
    if not known.any():
        assert loss.item() == 0
    else:
        torch.testing.assert_close(loss, masked_binary_cross_entropy(logits[known], targets[known]))


def _batch(targets, *, exclusive=False):
    return Batch(torch.zeros(len(targets), 1, 2, 2), torch.tensor(targets), exclusive)
