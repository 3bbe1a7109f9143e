"""The training loop: it learns, from few and odd labels, and says why not."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
import torch

from ssl_core.errors import ConfigError, TrainingError
from ssl_core.training.feed import Examples
from ssl_core.training.objectives import supervised
from ssl_core.training.predict import Device
from ssl_core.training.train import learnable
from tests.training import (
    KIND,
    NAN,
    NOTHING,
    PIXELS,
    POSITIVE,
    VALIDATION,
    WEAK,
    Watch,
    differing,
    network,
    schedule,
    scored,
    toy,
    train,
    weights,
)

# --- it learns -------------------------------------------------------------------------------


def test_a_separable_toy_is_learned():
    model = network()
    result = train(model, schedule(epochs=6), spec=WEAK)
    assert not model.training
    assert result.history[-1].loss < 0.5 * result.history[0].loss
    assert result.history[result.best].score == 1.0
    accuracy = ((scored(model, VALIDATION.rows)[:, 0] > 0.5) == (KIND[24:] == 1)).mean()
    assert accuracy == 1.0


def test_exclusive_classes_are_learned():
    pixels, kind = toy(60, kinds=3)
    targets = np.eye(3)[kind]
    targets[5] = NAN
    model = network(3)
    result = train(
        model,
        schedule(epochs=6, learning_rate=1e-2),
        pixels=pixels,
        training=Examples(np.arange(36), targets[:36]),
        validation=Examples(np.arange(36, 60), targets[36:]),
        exclusive=True,
    )
    assert result.history[result.best].score > 0.95
    got = scored(model, np.arange(36, 60), exclusive=True, pixels=pixels).argmax(axis=1)
    assert (got == kind[36:]).mean() > 0.9


def test_an_unknown_finding_does_not_hinder_the_others():
    targets = np.column_stack([POSITIVE, np.full(48, NAN), 1 - POSITIVE])
    targets[3, 0] = targets[5, 2] = NAN
    model = network(3)
    head = model.head.weight[1].clone()
    train(
        model,
        schedule(),
        training=Examples(np.arange(24), targets[:24]),
        validation=Examples(np.arange(24, 48), targets[24:]),
    )
    assert torch.equal(model.head.weight[1], head)  # Adam moves whatever has any gradient at all
    got = scored(model, VALIDATION.rows)
    assert got[KIND[24:] == 1, 0].min() > got[KIND[24:] == 0, 0].max()
    assert got[KIND[24:] == 1, 2].max() < got[KIND[24:] == 0, 2].min()


def test_rows_are_rows_of_the_store_and_targets_follow_them():
    watch = Watch()
    rows = np.array([40, 3, 17, 8])
    train(
        network(),
        schedule(epochs=2, batch_size=4),
        training=Examples(rows, np.array([[0.0], [1.0], [0.25], [0.75]])),
        objective=watch,
    )
    expected = {0.0: 40, 1.0: 3, 0.25: 17, 0.75: 8}
    for batch in watch.batches:
        assert sorted(batch.targets[:, 0].tolist()) == sorted(expected)
        for image, target in zip(batch.images, batch.targets[:, 0].tolist(), strict=True):
            stored = torch.from_numpy(PIXELS[expected[target]]).float() / 255
            torch.testing.assert_close(image, stored)


# --- few labels, odd labels ------------------------------------------------------------------


def test_a_batch_larger_than_the_set_holds_it_once():
    watch = Watch()
    few = Examples(np.arange(5), POSITIVE[:5])
    train(network(), schedule(epochs=3, batch_size=64), training=few, objective=watch)
    assert [len(batch.images) for batch in watch.batches] == [5, 5, 5]
    assert all(batch.targets.sum() == 2 for batch in watch.batches)


@pytest.mark.parametrize("exclusive", [False, True])
def test_one_labeled_item_of_a_class_will_do(exclusive):
    targets = np.column_stack([1 - POSITIVE, POSITIVE])[:2] if exclusive else POSITIVE[:2]
    model = network(targets.shape[1])
    result = train(
        model,
        schedule(epochs=2, epoch_steps=4),
        training=Examples(np.arange(2), targets),
        validation=NOTHING,
        exclusive=exclusive,
    )
    assert all(math.isfinite(epoch.loss) for epoch in result.history)
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize(
    ("targets", "exclusive", "message"),
    [
        ([[0], [0], [NAN]], False, "The 3 training labels hold no positive item of A: label more"),
        ([[1], [1]], False, "The 2 training labels hold no negative item of A: label more items"),
        ([[NAN]], False, "hold no positive item of A"),
        (np.empty((0, 1)), False, "The 0 training labels hold no positive item of A"),
        ([[1, 0], [1, 0]], False, "hold for none of A, B both a positive and a negative item"),
        ([[0, 1, 0], [0, 1, 0]], True, r"hold fewer than two classes \(B\): label more items"),
        ([[NAN, NAN, NAN]], True, r"hold fewer than two classes \(none\)"),
        (np.empty((0, 3)), True, r"The 0 training labels hold fewer than two classes \(none\)"),
    ],
)
def test_labels_that_teach_nothing_are_told(targets, exclusive, message):
    targets = np.array(targets, float)
    model = network(targets.shape[1])
    before = weights(model)
    with pytest.raises(TrainingError, match=message):
        train(
            model,
            schedule(),
            training=Examples(np.arange(len(targets)), targets),
            validation=NOTHING,
            exclusive=exclusive,
        )
    assert differing(before, weights(model)) == []


def test_learnable_by_hand():
    targets = np.array([[1, 0, NAN, 1, 0.7], [0, 0, NAN, NAN, 0.2], [NAN, 0, NAN, 1, 0.5]])
    assert learnable(targets, exclusive=False).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([[1, 0, 0], [0, 0, 1]], [True, False, True]),
        ([[1, 0, 0], [1, 0, 0]], [False] * 3),  # one class alone teaches nothing
        ([[1, 0, 0], [NAN, 1, 0]], [False] * 3),  # a row with a gap gives no loss
        ([[0.4, 0.3, 0.3], [0.3, 0.3, 0.4]], [True, False, True]),  # soft, none above one half
        (np.empty((0, 3)), [False] * 3),
    ],
)
def test_learnable_classes_by_hand(rows, expected):
    assert learnable(np.array(rows, float), exclusive=True).tolist() == expected


# --- what goes wrong -------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_told():
    def breaks(student, teacher, batch):
        return supervised(student, teacher, batch) * NAN

    with pytest.raises(
        TrainingError,
        match="The loss of teacher is no longer finite at step 0: lower its learning_rate or set",
    ):
        train(network(), schedule(), objective=breaks, stage="teacher")


@pytest.mark.parametrize("validation", [VALIDATION, NOTHING], ids=["validated", "not validated"])
def test_weights_that_break_in_the_very_last_step_are_not_kept(validation, tmp_path):
    """The last loss is fine, the step after it is not: nobody would look again."""

    def breaks(student, teacher, batch):
        student.head.weight.register_hook(lambda gradient: gradient * NAN)
        return supervised(student, teacher, batch)

    path, plan = tmp_path / "fit.pt", schedule(epochs=1, batch_size=24)
    with pytest.raises(TrainingError, match="no longer finite at step 1"):
        train(network(), plan, validation=validation, checkpoint=path, objective=breaks)
    assert not path.exists()


def test_weights_too_large_to_score_with_are_told():
    plan = schedule(epochs=1, batch_size=24, learning_rate=1e37, optimizer="sgd")
    with pytest.raises(TrainingError, match="no longer finite at step 1"):
        train(network(), plan)


def test_more_frozen_blocks_than_there_are():
    with pytest.raises(ConfigError, match="frozen_blocks = 9: small_cnn has 4 blocks"):
        train(network(), schedule(frozen_blocks=9))


# --- torch.compile ---------------------------------------------------------------------------


@pytest.mark.skipif(
    not os.environ.get("READLOOP_TEST_COMPILE"),
    reason="torch.compile takes about a minute on a CPU; set READLOOP_TEST_COMPILE=1 to run it",
)
def test_a_compiled_fit_learns_what_a_plain_one_does():
    compiled, plain = network(), network()
    train(plain, schedule())
    train(compiled, schedule(), device=Device("cpu", compile=True))
    torch.testing.assert_close(compiled.head.weight, plain.head.weight, rtol=1e-2, atol=1e-3)
