"""The training loop with images that have no labels: views, teachers, memory, rates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ssl_core.errors import Cancelled, TrainingError
from ssl_core.training.feed import Examples, Unlabeled
from ssl_core.training.models import Output
from ssl_core.training.objectives import see, supervised
from tests.training import (
    NOTHING,
    PIXELS,
    STILL,
    WEAK,
    Watch,
    differing,
    network,
    schedule,
    train,
    weights,
)

POOL = np.arange(10, 40)


def agreeing(student, teacher, batch):
    """Labels, agreement with a teacher on two views, and a memory that counts and averages."""
    labeled, ours = see(student, batch.images, batch.views[0])
    with torch.no_grad():
        (theirs,) = see(teacher if teacher is not None else student, batch.views[1])
        past = batch.memory.get("past", torch.zeros(1))
        batch.memory["past"] = 0.5 * past + theirs.sigmoid().mean()
    noise = torch.rand(1, generator=torch.Generator().manual_seed(batch.seed))
    pull = (ours.sigmoid() - theirs.sigmoid()).square().mean() * (1 + past.abs() + noise).item()
    return supervised(_Said(labeled), None, batch) + pull


class _Said(torch.nn.Module):
    """Gives logits that were computed before."""

    def __init__(self, logits):
        super().__init__()
        self.said = logits

    def forward(self, images):
        return Output(self.said, self.said)


def watched(plan=None, *, training=None, **options):
    watch = Watch()
    settings = {"unlabeled": Unlabeled(POOL, (STILL, WEAK), 2), **options}
    more = {} if training is None else {"training": training}
    train(network(), plan or schedule(epochs=2), objective=watch, **more, **settings)
    return watch.batches


# --- what a step is shown --------------------------------------------------------------------


def test_views_are_of_the_same_images_in_the_order_of_the_stage():
    stored = {PIXELS[row].tobytes(): row for row in POOL}
    assert watched()[0].views[0].shape == (16, 1, 16, 16)  # ratio 2 of a batch of 8
    for batch in watched(unlabeled=Unlabeled(POOL, (STILL, WEAK), 1)):
        still, weak = batch.views
        assert still.shape == weak.shape
        rows = [stored.get((image * 255).round().byte().numpy().tobytes()) for image in still]
        assert None not in rows
        assert len(set(rows)) == len(rows)
        assert not torch.equal(still, weak)


def test_every_image_without_a_label_comes_as_often_as_another():
    first = watched(schedule(epochs=1, epoch_steps=15))  # 15 steps of 16 of 30 images: 8 times each
    told = torch.cat([batch.views[0] for batch in first]).flatten(1)
    _, counts = torch.unique(told, dim=0, return_counts=True)
    assert counts.tolist() == [8] * 30


def test_labels_come_as_they_would_without_a_pool():
    """What is shown beside them does not change their order or their views."""
    alone = Watch()
    train(network(), schedule(epochs=2), objective=alone, spec=WEAK)
    for one, other in zip(watched(spec=WEAK), alone.batches, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert other.views == ()


def test_a_batch_knows_its_place_its_seed_and_its_prior():
    batches = watched(prior=np.array([0.25]))
    assert [(b.step, b.steps) for b in batches] == [(i, 6) for i in range(6)]
    assert len({b.seed for b in batches}) == 6
    assert [b.seed for b in batches] == [b.seed for b in watched()]
    assert all(b.prior.tolist() == [0.25] for b in batches)
    assert watched()[0].prior is None
    assert len({id(b.memory) for b in batches}) == 1


def test_a_small_pool_is_shown_whole():
    batches = watched(unlabeled=Unlabeled(POOL[:3], (STILL,), 7))
    assert {len(b.views[0]) for b in batches} == {3}


def test_stems_have_the_image_and_its_mirror_as_views():
    stems = np.random.default_rng(0).random((48, 2, 64, 4, 4)).astype(np.float16)
    seen = set()

    def shown(student, teacher, batch):
        seen.update(torch.cat(batch.views).half().flatten(1).sum(1).tolist())
        return supervised(student, teacher, batch)

    plan = schedule(frozen_blocks=3, frozen_norm=True, epochs=4)
    pool = Unlabeled(np.arange(4), (STILL, STILL), 1)
    train(network(), plan, pixels=stems, validation=NOTHING, objective=shown, unlabeled=pool)
    expected = set(torch.from_numpy(stems[:4]).flatten(0, 1).flatten(1).sum(1).tolist())
    assert seen == expected


# --- without labels --------------------------------------------------------------------------


def test_a_fit_can_do_without_labels():
    shown = []

    def alike(student, teacher, batch):
        shown.append((batch.images.shape, batch.targets.shape, len(batch.views[0])))
        one, other = see(student, *batch.views)
        return (one - other).square().mean()

    model = network()
    before = weights(model)
    pool = Unlabeled(POOL, (WEAK, WEAK), 1)
    result = train(model, schedule(), training=None, validation=NOTHING, objective=alike,
                   unlabeled=pool)  # fmt: skip
    assert shown == [((0, 1, 16, 16), (0, 1), 8)] * 12  # 30 images: 4 steps an epoch
    assert result.best == 2
    assert "blocks.0.0.weight" in differing(before, weights(model))


# --- teachers --------------------------------------------------------------------------------


def test_a_fixed_teacher_is_left_as_it_is_and_goes_before_the_average():
    fixed, seen = network(seed=9, dropout=0.5), []
    before = weights(fixed)

    def remember(student, teacher, batch):
        seen.append((teacher, teacher.training))
        return agreeing(student, teacher, batch)

    pool = Unlabeled(POOL, (WEAK, WEAK), 1)
    train(network(), schedule(ema=0.9), objective=remember, teacher=fixed, unlabeled=pool)
    assert all(teacher is fixed and not training for teacher, training in seen)
    assert differing(before, weights(fixed)) == []


def test_the_average_may_only_teach():
    """Without `keep_average` the weights are those of a fit without an average."""
    plain, taught, kept = network(), network(), network()
    train(plain, schedule())
    train(taught, schedule(ema=0.9, keep_average=False))
    train(kept, schedule(ema=0.9))
    assert differing(weights(plain), weights(taught)) == []
    assert differing(weights(plain), weights(kept))


# --- killed and resumed ----------------------------------------------------------------------


@pytest.mark.parametrize("teacher", [None, "fixed"])
@pytest.mark.parametrize("step", [1, 3, 4, 8, 9])
def test_stopped_and_resumed_it_ends_with_the_same_bits(step, teacher, tmp_path):
    plan = schedule(ema=0.8, rate="cosine", warmup=1.0, optimizer="sgd", learning_rate=0.01)
    options = {"spec": WEAK, "objective": agreeing, "unlabeled": Unlabeled(POOL, (WEAK, WEAK), 2)}
    if teacher:
        options["teacher"] = network(seed=9)

    def stop(event):
        if event.done == step:
            raise Cancelled("stopped")

    whole, path = network(dropout=0.3), tmp_path / "fit.pt"
    expected = train(whole, plan, **options)
    with pytest.raises(Cancelled):
        train(network(dropout=0.3), plan, checkpoint=path, checkpoint_seconds=0, report=stop,
              **options)  # fmt: skip
    resumed = network(seed=5, dropout=0.3)
    assert train(resumed, plan, checkpoint=path, **options) == expected
    assert differing(weights(whole), weights(resumed)) == []


# --- rates -----------------------------------------------------------------------------------


def rates(monkeypatch, **changes):
    seen, step = [], torch.optim.SGD.step

    def spied(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spied)
    train(network(), schedule(optimizer="sgd", learning_rate=0.1, **changes))
    return seen


def test_a_cosine_by_hand(monkeypatch):
    expected = [0.05 * (1 + math.cos(math.pi * step / 9)) for step in range(9)]
    assert rates(monkeypatch, rate="cosine", decay=0.1) == pytest.approx(expected)


def test_a_warm_up_by_hand(monkeypatch):
    rise = [0.1 / 3, 0.2 / 3, 0.1]
    fall = [0.05 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert rates(monkeypatch, rate="cosine", warmup=1.0) == pytest.approx([*rise, *fall])
    decayed = [*rise, *[0.05] * 3, *[0.025] * 3]
    assert rates(monkeypatch, warmup=1.0, decay=0.5) == pytest.approx(decayed)


def test_targets_are_still_checked_where_there_are_some():
    one_side = Examples(np.arange(3), np.zeros((3, 1)))
    with pytest.raises(TrainingError, match="hold no positive item"):
        watched(training=one_side)
