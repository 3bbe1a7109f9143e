"""One battery over every objective, and the supervised losses by hand."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_core.recipes import RECIPES, Fit, PseudoLabel, plan
from ssl_core.training.models import Output, build_model
from ssl_core.training.objectives import (
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
every_task = pytest.mark.parametrize("task", sorted(TARGETS))
"""Every objective of every recipe stands the battery: a new recipe comes under it by its line in
RECIPES. The stage says how many views its objective compares."""
STAGES = {
    f"{name}, {stage.name}": stage
    for name in sorted(RECIPES)
    for stage in plan({"name": name}).stages
    if not isinstance(stage, PseudoLabel)
}
every_objective = pytest.mark.parametrize("name", sorted(STAGES))
FROM_LABELS = [n for n, s in STAGES.items() if isinstance(s, Fit) and s.on is not None]
FROM_VIEWS = [n for n, s in STAGES.items() if s.views]


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def batch_of(task, name="", *, unknown=False, step=90):
    """Late in training, when everything has ramped up, with as many views as the stage shows."""
    targets, exclusive = TARGETS[task]
    targets = torch.tensor(targets)
    if unknown:
        targets = torch.full_like(targets, NAN)
    several = len(STAGES[name].views) if name else 0
    views = tuple(noise(6, 1, 16, 16, seed=10 + v) for v in range(several))
    prior = torch.full((targets.shape[1],), 1 / targets.shape[1] if exclusive else 0.4)
    images = noise(len(targets), 1, 16, 16)
    return Batch(images, targets, exclusive, views, prior, step, 100, seed=5)


def networks(batch, outputs=None):
    """Two networks that are sure of what they say, or confident objectives would stay silent."""
    outputs = outputs or batch.targets.shape[1]
    made = [build_model("small_cnn", outputs, seed=seed) for seed in (1, 2)]
    for model in made:
        model.head.weight.data.mul_(60)
        model.head.bias.data.zero_()
    return made


def loss_of(name, batch, *, seed=0):
    student, teacher = networks(batch, getattr(STAGES[name], "outputs", None))
    torch.manual_seed(seed)
    return STAGES[name].objective(student, teacher, batch), student, teacher


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


@every_task
@pytest.mark.parametrize(
    ("name", "unknown"),
    [*((name, False) for name in FROM_LABELS), *((name, True) for name in FROM_VIEWS)],
)
def test_gradient_reaches_the_student_and_never_the_teacher(name, task, unknown):
    """From labels, and from views alone."""
    batch = batch_of(task, name, unknown=unknown)
    loss, student, teacher = loss_of(name, batch)
    assert loss.shape == ()
    assert loss.item() > 0
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    assert student.head.weight.grad.abs().sum() > 0
    assert next(student.blocks.parameters()).grad.abs().sum() > 0
    assert all(p.grad is None for p in teacher.parameters())


@every_objective
@every_task
def test_a_batch_without_anything_known_is_a_finite_zero_with_zero_gradients(name, task):
    batch = batch_of(task, unknown=True)
    loss, student, _ = loss_of(name, batch)
    assert loss.item() == 0
    loss.backward()
    assert all((p.grad == 0).all() for p in student.parameters())


@pytest.mark.parametrize("name", sorted(FROM_VIEWS))
@every_task
def test_labels_that_are_all_unknown_leave_a_finite_loss_of_the_views(name, task):
    """Not one known label and no prior: what is not known gives no NaN to anything."""
    batch = batch_of(task, name, unknown=True)
    batch = replace(batch, prior=torch.full_like(batch.prior, NAN))
    loss, student, _ = loss_of(name, batch)
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())
    assert all(value.isfinite().all() for value in batch.memory.values())


@every_objective
@every_task
def test_bf16_logits_give_a_float32_loss(name, task):
    exact, _, _ = loss_of(name, batch_of(task))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _, _ = loss_of(name, batch_of(task))
        shown, _, _ = loss_of(name, batch_of(task, name))
    assert loss.dtype == shown.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=0.05)
    assert shown.isfinite()


@every_objective
def test_without_a_teacher_the_loss_is_still_a_number(name):
    batch = batch_of("binary", name)
    student, _ = networks(batch)
    assert STAGES[name].objective(student, None, batch).isfinite()


@every_objective
@every_task
def test_the_order_of_items_does_not_matter(name, task):
    batch = batch_of(task, name)
    chance = torch.Generator().manual_seed(1)
    turned, mixed = (torch.randperm(n, generator=chance) for n in (len(batch.images), 6))
    other = replace(
        batch,
        images=batch.images[turned],
        targets=batch.targets[turned],
        views=tuple(view[mixed] for view in batch.views),
        memory={},
    )
    torch.testing.assert_close(loss_of(name, batch)[0], loss_of(name, other)[0])


@every_objective
@every_task
def test_one_seed_gives_one_loss_and_memory_is_all_that_lasts(name, task):
    """Three steps in a row, and the third again from what the second left behind, on a disk."""
    memory, kept, losses = {}, {}, []
    for step in (90, 91, 92):
        file = io.BytesIO()
        torch.save(memory, file)
        file.seek(0)
        kept = torch.load(file, weights_only=True)  # as a checkpoint is read
        losses.append(loss_of(name, replace(batch_of(task, name, step=step), memory=memory))[0])
    again = loss_of(name, replace(batch_of(task, name, step=92), memory=kept))[0]
    assert torch.equal(again, losses[-1])
    assert kept.keys() == memory.keys()
    assert all(torch.equal(kept[key], memory[key]) for key in memory)
    assert all(not value.requires_grad for value in memory.values())


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
