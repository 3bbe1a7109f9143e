"""The training loop again: the same bits for one seed, also after a kill at any step."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core.errors import Cancelled
from ssl_core.training.feed import Examples
from ssl_core.training.seeds import derived_seed
from tests.training import (
    NAN,
    NOTHING,
    POSITIVE,
    STILL,
    WEAK,
    differing,
    network,
    schedule,
    train,
    weights,
)

# --- the same again --------------------------------------------------------------------------


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


def test_every_step_drops_other_features():
    masks = []
    model = network(dropout=0.5)
    model.dropout.register_forward_hook(
        lambda module, given, got: masks.append(torch.where(given[0] > 0, (got > 0).float(), NAN))
    )
    items = Examples(np.arange(8), POSITIVE[:8])
    train(model, schedule(), training=items, validation=NOTHING)
    assert len(masks) == 3
    for one, other in itertools.pairwise(masks):
        told = ~(one.isnan() | other.isnan())  # where a feature is 0 anyway, nothing can be told
        assert told.float().mean() > 0.2
        assert (one != other)[told].float().mean() == pytest.approx(0.5, abs=0.15)


def test_derived_seeds_are_named_by_all_their_parts():
    parts = [(0,), (1,), (0, 1), ("0",), (0, "1"), (1, 0), (0, 1, "views"), (0, 1, "dropout")]
    seeds = [derived_seed(*part) for part in parts]
    assert len(set(seeds)) == len(parts)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derived_seed(0, 1, "views") == derived_seed(0, 1, "views")


# --- killed and resumed ----------------------------------------------------------------------

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


def test_patience_survives_a_stop(tmp_path):
    plan, path = schedule(epochs=20, decay=0.0, patience=3, frozen_norm=True), tmp_path / "fit.pt"
    killed_at(8, network(), plan, path)
    assert len(train(network(), plan, checkpoint=path).history) == 4
    assert len(train(network(), plan, checkpoint=path).history) == 4  # over is over


def main(path):
    """Train with a checkpoint at every step; the process is killed from within, without warning."""

    def kill(event):
        if event.done == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    plan = schedule(ema=0.8)
    train(network(dropout=0.3), plan, spec=WEAK, checkpoint=path, checkpoint_seconds=0, report=kill)


def test_killed_by_the_system_and_resumed(tmp_path):
    path = tmp_path / "fit.pt"
    root = Path(__file__).parents[3]
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


if __name__ == "__main__":
    main(Path(sys.argv[1]))
