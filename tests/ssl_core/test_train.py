"""The training loop: it learns, repeats itself bit for bit, survives a kill, and says why not."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ssl_core.augment import Augmentation
from ssl_core.errors import Cancelled, TrainingError
from ssl_core.models import build_model
from ssl_core.objectives import supervised
from ssl_core.predict import Device, predict
from ssl_core.train import Examples, Schedule, derived_seed, fit, learnable, update_average

NAN = math.nan
SIZE = 16
STILL = Augmentation(flip=0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
WEAK = Augmentation(rotation=5.0, translation=0.05, perspective=0.0)
CPU = Device("cpu", batch_size=32)


def toy(n=48, *, kinds=2, seed=0):
    """Pixels `(n, 1, SIZE, SIZE)` and kinds `(n,)`: noise, brighter in one band a kind."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 80, (n, 1, SIZE, SIZE), dtype=np.uint8)
    kind = np.arange(n) % kinds
    band = SIZE // kinds
    for i, k in enumerate(kind):
        pixels[i, :, k * band : (k + 1) * band] += 90
    return pixels, kind


PIXELS, KIND = toy()
POSITIVE = KIND[:, None].astype(float)
TRAINING = Examples(np.arange(24), POSITIVE[:24])
VALIDATION = Examples(np.arange(24, 48), POSITIVE[24:])
NOTHING = Examples(np.empty(0, np.int64), np.empty((0, 1)))


def network(findings=1, *, seed=1, dropout=0.0):
    model = build_model("small_cnn", findings, seed=seed)
    model.dropout.p = dropout
    return model


def schedule(**changes):
    return Schedule(**{"epochs": 3, "batch_size": 8, "learning_rate": 3e-3, **changes})


def train(model, plan, *, training=TRAINING, validation=VALIDATION, pixels=PIXELS, **options):
    settings = {"spec": STILL, "seed": 3, "exclusive": False, "device": CPU, **options}
    names = tuple("ABCDEFG"[: training.targets.shape[1]])
    return fit(model, pixels, training, validation, plan, findings=names, **settings)


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def differing(one, other):
    assert one.keys() == other.keys()
    return [key for key in one if not torch.equal(one[key], other[key])]


def scored(model, rows, *, exclusive=False, pixels=PIXELS):
    return predict(model, pixels, rows, exclusive=exclusive, device=CPU).probabilities


class Watch:
    """An objective that is `supervised` and remembers what it was shown."""

    def __init__(self):
        self.batches = []

    def __call__(self, student, teacher, batch):
        self.batches.append(batch)
        return supervised(student, teacher, batch)


# --- it learns -----------------------------------------------------------------------------


def test_a_separable_toy_is_learned():
    model = network()
    result = train(model, schedule(epochs=6), spec=WEAK)
    assert not model.training
    assert result.history[-1].loss < 0.5 * result.history[0].loss
    assert result.history[result.best].auroc == 1.0
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
    assert result.history[result.best].auroc > 0.95
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


# --- the same again ------------------------------------------------------------------------


def test_one_seed_gives_the_same_bits_and_another_does_not():
    plan = schedule(epochs=2, ema=0.9, label_smoothing=0.1)
    one, again, other = (network(dropout=0.3) for _ in range(3))
    results = [
        train(model, plan, spec=WEAK, seed=seed)
        for model, seed in ((one, 3), (again, 3), (other, 4))
    ]
    assert differing(weights(one), weights(again)) == []
    assert results[0] == results[1]
    assert "head.weight" in differing(weights(one), weights(other))


@pytest.mark.parametrize("part", ["order", "views", "dropout"])
def test_the_seed_draws_order_views_and_dropout(part):
    plan = schedule(epochs=1, batch_size=8 if part == "order" else 24)
    spec = WEAK if part == "views" else STILL
    models = [network(dropout=0.3 if part == "dropout" else 0.0) for _ in range(2)]
    for seed, model in enumerate(models):
        # in one batch of everything, the order cannot matter beyond rounding
        train(model, plan, spec=spec, seed=seed)
    gap = (models[0].head.weight - models[1].head.weight).abs().max().item()
    assert gap > 1e-4


def test_in_one_batch_of_everything_without_chance_the_seed_hardly_matters():
    models = [network(), network()]
    for seed, model in enumerate(models):
        train(model, schedule(epochs=1, batch_size=24, optimizer="sgd"), seed=seed)
    torch.testing.assert_close(models[0].head.weight, models[1].head.weight)


def test_nothing_is_left_behind():
    torch.manual_seed(11)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    train(network(dropout=0.5), schedule(epochs=1), spec=WEAK)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()


def test_the_callers_choice_of_determinism_is_put_back():
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        train(network(), schedule(epochs=1))
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_the_random_state_before_has_no_say():
    models = [network(dropout=0.3), network(dropout=0.3)]
    for state, model in enumerate(models):
        torch.manual_seed(state)
        train(model, schedule(epochs=1), spec=WEAK)
    assert differing(*map(weights, models)) == []


def test_derived_seeds_are_named_by_all_their_parts():
    parts = [(0,), (1,), (0, 1), ("0",), (0, "1"), (1, 0), (0, 1, "views"), (0, 1, "dropout")]
    seeds = [derived_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(0, 1, "views") == derived_seed(0, 1, "views")


# --- killed and resumed --------------------------------------------------------------------

ALL_AT_ONCE = {"ema": 0.8, "label_smoothing": 0.1, "clip": 1.0, "head_rate": 3.0}
INTERRUPTIONS = [
    ("adam", {}, 1),
    ("adam", ALL_AT_ONCE, 2),
    ("adam", ALL_AT_ONCE, 3),  # right after the first epoch
    ("adamw", {"weight_decay": 0.1, **ALL_AT_ONCE}, 4),
    ("sgd", {"weight_decay": 0.01}, 5),
    ("sgd", {"ema": 0.5, "frozen_blocks": 2}, 7),
    ("adam", {"frozen_blocks": 1, "frozen_norm": True}, 8),
    ("adam", {}, 9),  # after the very last step
]


def killed_at(step, model, plan, path, **options):
    def stop(event):
        if event.done == step:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        train(model, plan, checkpoint=path, checkpoint_seconds=0, report=stop, **options)


@pytest.mark.parametrize(("optimizer", "changes", "step"), INTERRUPTIONS)
def test_a_fit_that_was_stopped_and_resumed_ends_with_the_same_bits(
    optimizer, changes, step, tmp_path
):
    plan = schedule(optimizer=optimizer, **changes)
    options = {"spec": WEAK, "seed": 5}
    whole = network(dropout=0.3)
    expected = train(whole, plan, **options)
    path = tmp_path / "deep" / "fit.pt"
    killed_at(step, network(dropout=0.3), plan, path, **options)
    steps = []
    resumed = network(dropout=0.3)
    result = train(resumed, plan, checkpoint=path, report=lambda e: steps.append(e.done), **options)
    assert steps == list(range(step + 1, 10))
    assert result == expected
    assert differing(weights(whole), weights(resumed)) == []
    assert [p.name for p in path.parent.iterdir()] == ["fit.pt"]


def test_stopped_at_every_step_in_turn(tmp_path):
    plan, path = schedule(ema=0.8), tmp_path / "fit.pt"
    whole = network(dropout=0.3)
    train(whole, plan, spec=WEAK)
    for step in range(1, 10):
        killed_at(step, network(dropout=0.3), plan, path, spec=WEAK)
    resumed = network(seed=77, dropout=0.3)  # what it begins with no longer matters
    train(resumed, plan, spec=WEAK, checkpoint=path)
    assert differing(weights(whole), weights(resumed)) == []


def test_between_two_checkpoints_work_is_done_again(tmp_path):
    plan, path, steps = schedule(), tmp_path / "fit.pt", []

    def stop(event):
        if event.done == 5:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        train(network(), plan, checkpoint=path, checkpoint_seconds=1e9, report=stop)
    resumed, whole = network(), network()
    train(resumed, plan, checkpoint=path, report=lambda event: steps.append(event.done))
    train(whole, plan)
    assert steps == [4, 5, 6, 7, 8, 9]  # the end of an epoch is always kept
    assert differing(weights(whole), weights(resumed)) == []


def test_stopped_before_the_first_checkpoint(tmp_path):
    def stop(event):
        raise Cancelled("stopped")

    path = tmp_path / "fit.pt"
    with pytest.raises(Cancelled):
        train(network(), schedule(), checkpoint=path, checkpoint_seconds=1e9, report=stop)
    assert not path.exists()


def test_a_finished_fit_is_not_done_again(tmp_path):
    path, steps = tmp_path / "fit.pt", []
    one, again = network(), network()
    expected = train(one, schedule(), checkpoint=path)
    result = train(again, schedule(), checkpoint=path, report=lambda e: steps.append(e.done))
    assert steps == []
    assert result == expected
    assert differing(weights(one), weights(again)) == []


def main(path):
    """Train with a checkpoint at every step; the process is killed from within, without warning."""

    def kill(event):
        if event.done == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    plan = schedule(ema=0.8)
    train(network(dropout=0.3), plan, spec=WEAK, checkpoint=path, checkpoint_seconds=0, report=kill)


def test_killed_by_the_system_and_resumed(tmp_path):
    path = tmp_path / "fit.pt"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, __file__, path],
        env={
            **os.environ,
            "PYTHONPATH": str(root),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole, resumed, steps = network(dropout=0.3), network(dropout=0.3), []
    train(whole, schedule(ema=0.8), spec=WEAK)
    train(
        resumed,
        schedule(ema=0.8),
        spec=WEAK,
        checkpoint=path,
        report=lambda event: steps.append(event.done),
    )
    assert steps == [5, 6, 7, 8, 9]
    assert differing(weights(whole), weights(resumed)) == []


# --- few labels, odd labels ----------------------------------------------------------------


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


# --- how steps are laid out ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "batch_size", "epoch_steps", "steps"), [(24, 8, 1, 3), (10, 4, 1, 3), (24, 8, 7, 7), (3, 16, 5, 5)]
)  # fmt: skip
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


# --- the moving average --------------------------------------------------------------------


def test_update_average_by_hand():
    average, student = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    for step, expected in ((0, 1.9), (1, 2 - 0.1 * 2 / 11), (1000, 1.1)):
        with torch.no_grad():
            average.weight.fill_(1.0)
            student.weight.fill_(2.0)
            student.running_mean.fill_(7.0)
        update_average(average, student, 0.9, step)
        # d = min(0.9, (1+s)/(10+s)): 0.1, 2/11, 0.9
        d = min(0.9, (1 + step) / (10 + step))
        assert average.weight.item() == pytest.approx(d * 1 + (1 - d) * 2)
        if step != 1:
            assert average.weight.item() == pytest.approx(expected)
        assert average.running_mean.item() == 7.0
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


# --- which epoch is kept -------------------------------------------------------------------


def test_the_best_validated_epoch_is_kept():
    """A planted fall: from its third step on, the objective teaches the opposite."""
    steps = []

    def turncoat(student, teacher, batch):
        steps.append(1)
        sign = 1 if len(steps) <= 6 else -1
        return sign * supervised(student, teacher, batch).clamp(max=20)

    model = network()
    result = train(model, schedule(epochs=6, learning_rate=5e-3, decay=1.0), objective=turncoat)
    aurocs = [epoch.auroc for epoch in result.history]
    assert len(aurocs) == 6
    assert aurocs[-1] < 0.5 < aurocs[result.best] == max(aurocs)
    assert result.best < 5
    got = scored(model, VALIDATION.rows)
    assert got[KIND[24:] == 1].mean() > got[KIND[24:] == 0].mean()  # the model left behind is it


def test_among_equal_aurocs_the_lower_log_loss_is_kept():
    model = network()
    result = train(model, schedule(epochs=5))
    best = result.history[result.best]
    assert (best.auroc, -best.log_loss) == max((e.auroc, -e.log_loss) for e in result.history)
    assert len({e.auroc for e in result.history}) < 5, (
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
    assert all(math.isnan(epoch.auroc) for epoch in result.history)
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
    assert 0 <= result.history[0].auroc <= 1
    assert math.isfinite(result.history[0].log_loss)


def test_patience_stops_after_so_many_epochs_without_a_better_one():
    model = network()
    # the second epoch's rate is 0: from then on nothing gets better (batch statistics are frozen)
    plan = schedule(epochs=20, decay=0.0, patience=3, frozen_norm=True)
    result = train(model, plan)
    assert result.best == 0
    assert len(result.history) == 4
    assert len(train(network(), schedule(epochs=6, decay=0.0, frozen_norm=True)).history) == 6


def test_patience_survives_a_stop(tmp_path):
    plan, path = schedule(epochs=20, decay=0.0, patience=3, frozen_norm=True), tmp_path / "fit.pt"
    killed_at(8, network(), plan, path)
    assert len(train(network(), plan, checkpoint=path).history) == 4
    assert len(train(network(), plan, checkpoint=path).history) == 4  # over is over


# --- what goes wrong -----------------------------------------------------------------------


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
    path = tmp_path / "fit.pt"
    plan = schedule(epochs=1, batch_size=24, learning_rate=1e38, optimizer="sgd", head_rate=1e3)
    with pytest.raises(TrainingError, match="no longer finite at step 1"):
        train(network(), plan, validation=validation, checkpoint=path)
    assert not path.exists()


def test_more_frozen_blocks_than_there_are():
    with (
        pytest.raises(ValueError, match="frozen_blocks = 9")
        if False
        else pytest.raises(Exception, match="frozen_blocks = 9")
    ):
        train(network(), schedule(frozen_blocks=9))


# --- torch.compile -------------------------------------------------------------------------


@pytest.mark.skipif(
    not os.environ.get("READLOOP_TEST_COMPILE"),
    reason="torch.compile takes about a minute on a CPU; set READLOOP_TEST_COMPILE=1 to run it",
)
def test_a_compiled_fit_learns_what_a_plain_one_does():
    compiled, plain = network(), network()
    train(plain, schedule())
    train(compiled, schedule(), device=Device("cpu", compile=True))
    torch.testing.assert_close(compiled.head.weight, plain.head.weight, rtol=1e-2, atol=1e-3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
