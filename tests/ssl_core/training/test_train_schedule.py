"""How a fit is laid out: steps, rates, freezing, averages, and which epoch is kept."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ssl_core.training.feed import Examples
from ssl_core.training.objectives import supervised
from ssl_core.training.steps import update_average
from tests.training import (
    KIND,
    NAN,
    NOTHING,
    POSITIVE,
    VALIDATION,
    Watch,
    differing,
    network,
    schedule,
    scored,
    train,
    weights,
)

# --- how steps are laid out ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "batch_size", "epoch_steps", "steps"),
    [(24, 8, 1, 3), (10, 4, 1, 3), (24, 8, 7, 7), (3, 16, 5, 5)],
)
def test_an_epoch_is_a_pass_or_epoch_steps_where_that_is_more(n, batch_size, epoch_steps, steps):
    watch, told = Watch(), []
    few = Examples(np.arange(n), np.linspace(0, 1, n)[:, None])
    train(
        network(),
        schedule(epochs=2, batch_size=batch_size, epoch_steps=epoch_steps),
        training=few,
        objective=watch,
        report=told.append,
        stage="teacher",
    )
    assert len(watch.batches) == 2 * steps
    assert [(e.stage, e.done, e.total) for e in told] == [
        ("teacher", i + 1, 2 * steps) for i in range(2 * steps)
    ]
    seen = torch.cat([batch.targets for batch in watch.batches[:steps]])[:, 0].tolist()
    counts = np.unique(seen, return_counts=True)[1]
    assert len(counts) == n  # every item in every epoch,
    assert counts.max() - counts.min() <= 1  # and none twice more often than another


def test_most_steps_ends_an_epoch_before_its_pass():
    watch = Watch()
    many = Examples(np.arange(24), np.linspace(0, 1, 24)[:, None])
    how = schedule(epochs=2, batch_size=8, epoch_steps=1, most_steps=2)
    train(network(), how, training=many, objective=watch)
    assert len(watch.batches) == 4
    epochs = [torch.cat([b.targets for b in watch.batches[i : i + 2]])[:, 0] for i in (0, 2)]
    for seen in epochs:
        assert len(seen.unique()) == 16  # no item twice
    assert set(epochs[0].tolist()) != set(epochs[1].tolist())  # nor always the same


def test_epochs_come_in_different_orders():
    watch = Watch()
    items = Examples(np.arange(8), np.linspace(0, 1, 8)[:, None])
    train(network(), schedule(epochs=3, batch_size=4), training=items, objective=watch)
    orders = [
        tuple(torch.cat([b.targets for b in watch.batches[i : i + 2]])[:, 0].tolist())
        for i in (0, 2, 4)
    ]
    assert len(set(orders)) == 3


def test_the_reported_note_is_the_last_validation():
    told = []
    train(network(), schedule(epochs=2, batch_size=12), report=told.append)
    assert told[0].note == ""
    assert all(event.note.startswith("AUROC ") for event in told[1:])


def spy_on_optimizer(monkeypatch, kind):
    """The rates and decays of every group at each step of an optimiser class."""
    seen, step = [], kind.step

    def spied(self, *args, **kwargs):
        seen.append([(g["lr"], g["weight_decay"], len(g["params"])) for g in self.param_groups])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(kind, "step", spied)
    return seen


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_the_rate_decays_by_epoch_and_the_head_has_its_own(name, kind, monkeypatch):
    seen = spy_on_optimizer(monkeypatch, kind)
    plan = schedule(
        optimizer=name, learning_rate=1e-3, decay=0.5, head_rate=10.0, weight_decay=0.02
    )
    train(network(), plan)
    assert len(seen) == 9
    for step, (body, head) in enumerate(seen):
        rate = 1e-3 * 0.5 ** (step // 3)
        assert body == (pytest.approx(rate), 0.02, 12)  # 4 convolutions, 4 batch norms
        assert head == (pytest.approx(10 * rate), 0.02, 2)


def test_momentum_is_the_usual_one(monkeypatch):
    made = []
    build = torch.optim.SGD.__init__

    def spied(self, *args, **kwargs):
        made.append(kwargs)
        build(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "__init__", spied)
    train(network(), schedule(epochs=1, optimizer="sgd"))
    assert made[0]["momentum"] == 0.9


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("blocks", [0, 2, 4])
def test_frozen_blocks_are_not_trained(blocks, norm):
    model = network()
    before = weights(model)
    train(model, schedule(epochs=1, frozen_blocks=blocks, frozen_norm=norm, weight_decay=0.1))
    changed = differing(before, weights(model))
    assert not [
        key for key in changed if key.startswith(tuple(f"blocks.{i}." for i in range(blocks)))
    ]
    assert "head.weight" in changed
    for i in range(blocks, 4):
        assert f"blocks.{i}.0.weight" in changed
        assert (f"blocks.{i}.1.running_mean" in changed) != norm


def test_clip_bounds_the_norm_of_the_gradient(monkeypatch):
    norms, step = [], torch.optim.SGD.step

    def spied(self, *args, **kwargs):
        grads = [p.grad for g in self.param_groups for p in g["params"]]
        norms.append(torch.cat([g.flatten() for g in grads]).norm().item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spied)
    train(network(), schedule(epochs=1, optimizer="sgd"))
    train(network(), schedule(epochs=1, optimizer="sgd", clip=0.01))
    assert min(norms[:3]) > 0.02
    assert norms[3:] == pytest.approx([0.01] * 3, rel=1e-3)


@pytest.mark.parametrize(
    ("targets", "exclusive", "expected"),
    [
        ([[1.0, 0.0], [0.0, NAN]], False, [[0.9, 0.1], [0.1, NAN]]),  # y·0.8 + 0.2/2
        ([[1, 0, 0, 0], [0, 1, 0, 0]], True, [[0.85, 0.05, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]]),
        ([[1, 0, 0, 0], [0, 1, 0, NAN], [0, 0, 1, 0]], True,
         [[0.85, 0.05, 0.05, 0.05], [0.05, 0.85, 0.05, NAN], [0.05, 0.05, 0.85, 0.05]]),
    ],
)  # fmt: skip
def test_label_smoothing_by_hand(targets, exclusive, expected):
    watch, targets = Watch(), np.array(targets, float)
    train(
        network(targets.shape[1]),
        schedule(epochs=1, label_smoothing=0.2),
        training=Examples(np.arange(len(targets)), targets),
        validation=NOTHING,
        exclusive=exclusive,
        objective=watch,
    )
    got = watch.batches[0].targets.numpy()
    order = np.argsort(np.nan_to_num(got, nan=-1) @ 10.0 ** np.arange(got.shape[1]))
    expected = np.array(expected)
    matching = np.argsort(np.nan_to_num(expected, nan=-1) @ 10.0 ** np.arange(got.shape[1]))
    np.testing.assert_allclose(got[order], expected[matching], rtol=1e-6)
    assert watch.batches[0].exclusive == exclusive


# --- the moving average ----------------------------------------------------------------------


def test_update_average_by_hand():
    average, student = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    for step, expected in ((0, 1.9), (1, 2 - 0.1 * 2 / 11), (1000, 1.1)):
        with torch.no_grad():
            average.weight.fill_(1.0)
            student.weight.fill_(2.0)
            average.running_mean.fill_(5.0)
            student.running_mean.fill_(7.0)
            student.num_batches_tracked.fill_(step)
        update_average(average, student, 0.9, step)
        # d = min(0.9, (1+s)/(10+s)): 0.1, 2/11, 0.9
        d = min(0.9, (1 + step) / (10 + step))
        assert average.weight.item() == pytest.approx(d * 1 + (1 - d) * 2)
        if step != 1:
            assert average.weight.item() == pytest.approx(expected)
        assert average.running_mean.item() == pytest.approx(d * 5 + (1 - d) * 7)
        assert average.num_batches_tracked.item() == step
        assert student.weight.item() == 2.0


def test_the_average_is_what_is_validated_and_returned():
    """The student's steps are those of a fit without average; the average is theirs, by hand."""
    students = []

    def remember(student, teacher, batch):
        students.append([p.detach().clone() for p in student.parameters()])
        return supervised(student, teacher, batch)

    plain, averaged = network(), network()
    start = [p.detach().clone() for p in plain.parameters()]
    plan = schedule(epochs=1)
    train(plain, plan, objective=remember)
    train(averaged, schedule(epochs=1, ema=0.6), validation=NOTHING)
    by_hand = start
    after = [*students[1:], [p.detach() for p in plain.parameters()]]
    for step, new in enumerate(after):
        d = min(0.6, (1 + step) / (10 + step))
        by_hand = [d * a + (1 - d) * s for a, s in zip(by_hand, new, strict=True)]
    for got, expected in zip(averaged.parameters(), by_hand, strict=True):
        torch.testing.assert_close(got, expected)
    assert differing(weights(plain), weights(averaged))


def test_the_objective_gets_the_average_as_its_teacher():
    teachers = []

    def remember(student, teacher, batch):
        teachers.append(teacher)
        return supervised(student, teacher, batch)

    train(network(), schedule(epochs=1), objective=remember)
    train(network(), schedule(epochs=1, ema=0.9), objective=remember)
    assert teachers[:3] == [None] * 3
    assert not any(p.requires_grad for p in teachers[3].parameters())


# --- which epoch is kept ---------------------------------------------------------------------


def test_the_best_validated_epoch_is_kept():
    """A planted fall: from the third epoch on, the objective teaches the opposite."""
    steps = []

    def turncoat(student, teacher, batch):
        steps.append(1)
        lie = replace(batch, targets=1 - batch.targets)
        return supervised(student, teacher, batch if len(steps) <= 6 else lie)

    model = network()
    result = train(model, schedule(epochs=8, learning_rate=5e-3, decay=1.0), objective=turncoat)
    aurocs = [epoch.score for epoch in result.history]
    assert len(aurocs) == 8
    assert aurocs[-1] < 0.5 < aurocs[result.best] == max(aurocs)
    got = scored(model, VALIDATION.rows)
    assert got[KIND[24:] == 1].mean() > got[KIND[24:] == 0].mean()  # the model left behind is it


def test_among_equal_aurocs_the_lower_log_loss_is_kept():
    model = network()
    result = train(model, schedule(epochs=5))
    best = result.history[result.best]
    assert (best.score, -best.log_loss) == max((e.score, -e.log_loss) for e in result.history)
    assert len({e.score for e in result.history}) < 5, (
        "no equals: the toy is too hard for this test"
    )
    p = np.clip(scored(model, VALIDATION.rows)[:, 0].astype(float), 1e-7, 1 - 1e-7)
    y = KIND[24:]
    by_hand = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert best.log_loss == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.parametrize(
    "validation",
    [
        NOTHING,
        Examples(np.arange(24, 48), np.full((24, 1), NAN)),
        Examples(np.arange(24, 48), np.ones((24, 1))),
    ],
    ids=["empty", "unknown", "one class"],
)
def test_where_validation_cannot_tell_the_last_epoch_is_kept(validation):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, other = network(), network()
        result = train(model, schedule(patience=1), validation=validation)
        train(other, schedule(), validation=NOTHING)
    assert (len(result.history), result.best) == (3, 2)
    assert all(math.isnan(epoch.score) for epoch in result.history)
    assert differing(weights(model), weights(other)) == []


def test_gaps_in_validation_do_not_count():
    targets = np.column_stack([POSITIVE[24:], np.full(24, NAN)])
    targets[:3, 0] = NAN
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = train(
            network(2),
            schedule(epochs=1),
            training=Examples(np.arange(24), np.column_stack([POSITIVE, 1 - POSITIVE])[:24]),
            validation=Examples(np.arange(24, 48), targets),
        )
    assert 0 <= result.history[0].score <= 1
    assert math.isfinite(result.history[0].log_loss)


def test_patience_stops_after_so_many_epochs_without_a_better_one():
    model = network()
    # the second epoch's rate is 0: from then on nothing gets better (batch statistics are frozen)
    plan = schedule(epochs=20, decay=0.0, patience=3, frozen_norm=True)
    result = train(model, plan)
    assert result.best == 0
    assert len(result.history) == 4
    assert len(train(network(), schedule(epochs=6, decay=0.0, frozen_norm=True)).history) == 6
