"""Objectives for masks: by hand, where gradients go, and batches in which nothing is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ssl_core.masks.networks import MaskOutput, build_segmenter
from ssl_core.masks.objectives import (
    S3,
    S4,
    MaskBatch,
    MeanTeacher,
    Supervised,
    WeakToStrong,
    carried,
    confident,
    dice_loss,
    mask_loss,
    ramp,
)
from ssl_core.masks.views import Seen, see_pair
from ssl_core.training.augment import Augmentation, affine_warps

SURE = 40.0  # a logit whose sigmoid is 1 in float32
CONSISTENT = [
    MeanTeacher(start=0, end=0, weight=1.0),
    WeakToStrong(threshold=0.5),
    WeakToStrong(threshold=0.5, supervised=S3),
]


class Pixelwise(nn.Module):
    """A network whose map is the first channel itself, scaled by its one parameter."""

    def __init__(self, findings=1):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.findings, self.calls = findings, 0

    def forward(self, images):
        self.calls += 1
        maps = self.scale * images[:, :1].expand(-1, self.findings, -1, -1)
        return MaskOutput(maps, maps.amax(dim=(2, 3)), maps.mean(dim=(2, 3)))


def still(images, masks=None):
    matrices = torch.eye(3).double().repeat(len(images), 1, 1)
    return Seen(images, images[:, :0] if masks is None else masks, matrices)


def hidden(*values):
    """A labeled picture of one row of which nothing is known."""
    images = row(*values)
    return still(images, torch.full_like(images, math.nan))


def row(*values):
    """One picture of one row."""
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


# --- losses by hand ----------------------------------------------------------------------------


def test_dice_loss_by_hand():
    p = torch.tensor([0.8, 0.4, 0.2, 0.1])
    loss = dice_loss(torch.logit(p).view(1, 1, 2, 2), row(1, 1, 0, 0).view(1, 1, 2, 2))
    # 2(.8 + .4) / (.64 + .16 + .04 + .01 + 2) = 2.4 / 2.85
    assert loss.item() == pytest.approx(1 - 2.4 / 2.85, abs=1e-6)


def test_dice_loss_is_the_batchs_and_a_finding_at_a_time():
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 4, 4, generator=g)
    targets = (torch.rand(3, 2, 4, 4, generator=g) < 0.4).float()
    p = logits.sigmoid()
    each = [
        1 - 2 * (p[:, c] * targets[:, c]).sum() / (p[:, c] ** 2 + targets[:, c] ** 2).sum()
        for c in range(2)
    ]
    assert dice_loss(logits, targets).item() == pytest.approx(sum(each).item() / 2, abs=1e-5)


def test_dice_loss_at_its_ends():
    mask = row(1, 0, 1)
    assert dice_loss(SURE * (2 * mask - 1), mask).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(SURE * (1 - 2 * mask), mask).item() == pytest.approx(1, abs=1e-6)
    empty = torch.zeros_like(mask)
    assert dice_loss(empty - SURE, empty).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(empty + SURE, empty).item() == pytest.approx(1, abs=1e-6)


def test_cross_entropy_by_hand_and_both():
    logits, mask = torch.logit(row(0.9, 0.4)), row(1, 0)
    expected = -(math.log(0.9) + math.log(0.6)) / 2
    assert mask_loss(logits, mask, "cross_entropy").item() == pytest.approx(expected, abs=1e-6)
    both = (expected + dice_loss(logits, mask).item()) / 2
    assert mask_loss(logits, mask, "both").item() == pytest.approx(both, abs=1e-6)


@pytest.mark.parametrize("kind", ["dice", "cross_entropy", "both"])
def test_unknown_pixels_give_no_loss_and_no_gradient(kind):
    logits = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    targets = (logits > 0.3).float()
    hidden = targets.clone()
    hidden[0, 0, 0] = math.nan
    hidden[:, 1] = math.nan
    logits.requires_grad_()
    loss = mask_loss(logits, hidden, kind)
    loss.backward()
    assert (logits.grad[torch.isnan(hidden)] == 0).all()
    assert (logits.grad[~torch.isnan(hidden)] != 0).all()
    kept = ~torch.isnan(hidden[:, :1])
    flat = (logits[:, :1][kept].view(1, 1, 1, -1), targets[:, :1][kept].view(1, 1, 1, -1))
    assert loss.item() == pytest.approx(mask_loss(*flat, kind).item(), abs=1e-6)


def test_s3_weighs_three_to_seven():
    network = Pixelwise()
    seen = still(row(0.5, -1.0), row(1, 0))
    loss = S3(network, None, MaskBatch(seen))
    masks = mask_loss(seen.images, seen.masks, "both").item()
    classes = math.log(1 + math.exp(-0.5))  # the map's maximum, present
    assert loss.item() == pytest.approx(0.7 * masks + 0.3 * classes, abs=1e-6)
    unknown = MaskBatch(seen, present=torch.tensor([[math.nan]]))
    assert S3(network, None, unknown).item() == pytest.approx(0.7 * masks, abs=1e-6)
    absent = MaskBatch(seen, present=torch.tensor([[0.0]]))
    assert S3(network, None, absent).item() == pytest.approx(
        0.7 * masks + 0.3 * (classes + 0.5), abs=1e-6
    )


def test_a_network_without_classifier_has_the_masks_share():
    network = build_segmenter("small_unet", 1, auxiliary=False)
    seen = still(torch.rand(2, 1, 8, 8), torch.ones(2, 1, 8, 8))
    torch.manual_seed(0)
    alone = Supervised("both")(network, None, MaskBatch(seen))
    assert S3(network, None, MaskBatch(seen)).item() == pytest.approx(0.7 * alone.item(), abs=1e-5)


# --- the ramp ----------------------------------------------------------------------------------


def test_the_ramp_is_s4s():
    assert [ramp(e, 6, 31) for e in (0, 5.99, 31, 99)] == [0, 0, 1, 1]
    assert ramp(6, 6, 31) == pytest.approx(math.exp(-5))
    assert ramp(18.5, 6, 31) == pytest.approx(math.exp(-5 / 4))
    assert ramp(3, 3, 3) == 1
    rising = [ramp(e / 4, 6, 31) for e in range(160)]
    assert rising == sorted(rising)


def test_before_the_ramp_it_is_the_supervised_loss():
    batch = MaskBatch(still(row(0.5, -1), row(1, 0)), (still(row(1, 1)), still(row(2, 2))), None, 3)
    teacher = Pixelwise()
    assert MeanTeacher()(Pixelwise(), teacher, batch) == S4(Pixelwise(), None, batch)
    assert teacher.calls == 0


# --- mean teacher ------------------------------------------------------------------------------


def test_mean_teacher_by_hand():
    ours, theirs = still(torch.logit(row(0.8, 0.4))), still(row(3.0, -3.0))
    batch = MaskBatch(hidden(0.0, 0.0), (ours, theirs), epoch=50)
    loss = MeanTeacher(weight=1.5)(Pixelwise(), Pixelwise(), batch)
    # hard masks of the teacher: 1, 0. Dice: 2 · .8 / (.64 + .16 + 1)
    assert loss.item() == pytest.approx(1.5 * (1 - 1.6 / 1.8), abs=1e-5)


def test_the_teachers_mask_follows_the_students_warp():
    picture = torch.full((1, 1, 4, 8), -SURE)
    picture[..., 1:3] = SURE
    still_, zero = torch.zeros(1, dtype=torch.bool), torch.zeros(1)
    moved = affine_warps(still_, zero, torch.ones(1), torch.tensor([[0.25, 0.0]])).double()
    shifted = picture.roll(2, dims=-1)
    ours, theirs = Seen(shifted, shifted[:, :0], moved), still(picture)
    unknown = still(picture, torch.full_like(picture, math.nan))
    batch = MaskBatch(unknown, (ours, theirs), epoch=50)
    assert MeanTeacher()(Pixelwise(), Pixelwise(), batch).item() == pytest.approx(0, abs=1e-5)
    # and without the warp the same pictures do not agree
    wrong = MaskBatch(batch.labeled, (still(shifted), theirs), epoch=50)
    assert MeanTeacher()(Pixelwise(), Pixelwise(), wrong).item() > 1


def test_pixels_that_the_teacher_did_not_see_give_no_loss():
    masks = torch.ones(1, 1, 1, 4)
    still_, zero = torch.zeros(1, dtype=torch.bool), torch.zeros(1)
    half = affine_warps(still_, zero, torch.ones(1), torch.tensor([[0.5, 0.0]])).double()
    told = carried(masks, still(masks), Seen(masks, masks[:, :0], half))
    assert torch.isnan(told).flatten().tolist() == [True, True, False, False]


# --- weak to strong ----------------------------------------------------------------------------


def test_confident_pixels_only():
    q = torch.tensor([0.96, 0.95, 0.94, 0.5, 0.06, 0.05, 0.0])
    found = confident(q, 0.95)
    assert found[:2].tolist() == [1, 1]
    assert torch.isnan(found[2:5]).all()
    assert found[5:].tolist() == [0, 0]


def test_weak_to_strong_by_hand_over_all_pixels():
    weak, strong = still(torch.logit(row(0.99, 0.6, 0.01))), still(torch.logit(row(0.7, 0.2, 0.4)))
    labeled = hidden(0.0, 0.0, 0.0)
    loss = WeakToStrong(0.95, 2.0)(Pixelwise(), None, MaskBatch(labeled, (weak, strong)))
    expected = -(math.log(0.7) + math.log(0.6)) / 3  # the middle pixel counts, without a label
    assert loss.item() == pytest.approx(2 * expected, abs=1e-5)
    two = MaskBatch(labeled, (weak, strong, weak))
    sure = -2 * math.log(0.99) / 3
    loss = WeakToStrong(0.95, 2.0)(Pixelwise(), None, two)
    assert loss.item() == pytest.approx(expected + sure, abs=1e-5)


def test_the_weak_opinion_carries_no_gradient():
    weak = still(row(3.0, -3.0))
    weak.images.requires_grad_()
    strong = still(row(1.0, 1.0))
    labeled = hidden(0.0, 0.0)
    network = Pixelwise()
    WeakToStrong(0.9)(network, None, MaskBatch(labeled, (weak, strong))).backward()
    assert network.scale.grad.abs() > 0
    assert weak.images.grad is None or (weak.images.grad == 0).all()


# --- for all of them ---------------------------------------------------------------------------


def views(seed=0):
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(2, 1, 16, 16, generator=g)
    nothing = images[:, :0]
    return tuple(see_pair(images, nothing, Augmentation(), g) for _ in range(2))


@pytest.mark.parametrize("objective", CONSISTENT)
def test_the_gradient_reaches_the_student_and_never_the_teacher(objective):
    student, teacher = (build_segmenter("small_unet", 1, seed=s) for s in (1, 2))
    unknown = still(torch.rand(2, 1, 16, 16), torch.full((2, 1, 16, 16), math.nan))
    objective(student, teacher, MaskBatch(unknown, views(), epoch=1)).backward()
    assert max(p.grad.abs().max() for p in student.body.parameters()) > 0
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("objective", [*CONSISTENT, S3, S4])
def test_an_unknown_batch_is_a_finite_zero_with_a_gradient(objective):
    student = build_segmenter("small_unet", 2)
    unknown = still(torch.rand(2, 1, 16, 16), torch.full((2, 2, 16, 16), math.nan))
    loss = objective(student, None, MaskBatch(unknown))
    assert loss.item() == 0
    loss.backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in student.parameters())
    assert any(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize("objective", CONSISTENT)
def test_the_student_is_called_once(objective):
    student = Pixelwise()
    batch = MaskBatch(still(torch.rand(2, 1, 16, 16), torch.ones(2, 1, 16, 16)), views(), epoch=1)
    assert torch.isfinite(objective(student, Pixelwise(), batch))
    assert student.calls == 1


def test_a_few_steps_learn_a_mask():
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(4)
    masks = torch.zeros(8, 1, 16, 16)
    for i, (y, x) in enumerate(torch.randint(0, 10, (8, 2), generator=g).tolist()):
        masks[i, 0, y : y + 6, x : x + 6] = 1
    images = 0.3 * torch.rand(8, 1, 16, 16, generator=g) + 0.6 * masks
    network = build_segmenter("small_unet", 1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        loss = S3(network, None, MaskBatch(still(images, masks)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
