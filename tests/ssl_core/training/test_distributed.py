"""Several processes under torchrun do what one does: this file is also the script they run."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core.errors import ConfigError, TrainingError
from ssl_core.recipes import RECIPES, Fit, Pretrain, PseudoLabel
from ssl_core.recipes import plan as recipe_plan
from ssl_core.training import distributed
from ssl_core.training.augment import Augmentation
from ssl_core.training.distributed import (
    agree,
    all_true,
    barrier,
    check_devices,
    copy_from_main,
    gather_shares,
    is_main,
    join_torchrun,
    leave_torchrun,
    rank,
    share_of,
    world_size,
)
from ssl_core.training.feed import Examples, Unlabeled
from ssl_core.training.models import build_model
from ssl_core.training.objectives import supervised
from ssl_core.training.predict import Device, predict, predict_views
from ssl_core.training.schedule import Schedule
from ssl_core.training.train import fit

STILL = Augmentation(flip=0, rotation=0, translation=0, scale=(1.0, 1.0), perspective=0)
CPU = Device("cpu", batch_size=4)
PLAN = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "ema": 0.5}
ROWS = np.array([5, 3, 28, 0, 11, 3, 17])  # an odd number: the processes get unequal shares
OWN_STATISTICS = Schedule(**PLAN)  # each process normalises with its own half of a batch
NO_STATISTICS = Schedule(**PLAN, frozen_norm=True)  # no batch statistics: the gradients just add up


def toy():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 80, (32, 1, 16, 16), dtype=np.uint8)
    kind = np.arange(32) % 2
    pixels[kind == 1, :, :8] += 90
    targets = kind[:, None].astype(float)
    first, second = np.arange(20), np.arange(20, 32)
    return pixels, Examples(first, targets[first]), Examples(second, targets[second])


def trained(plan, checkpoint=None):
    pixels, training, validation = toy()
    model, seen = build_model("small_cnn", 1, seed=1), []

    def remember(student, teacher, batch):
        seen.append(len(batch.images))
        return supervised(student, teacher, batch)

    result = fit(
        model,
        pixels,
        training,
        validation,
        plan,
        spec=STILL,
        seed=3,
        exclusive=False,
        findings=("A",),
        device=CPU,
        objective=remember,
        checkpoint=checkpoint,
        checkpoint_seconds=0,
    )
    assert seen == [8 // world_size()] * 9  # each its own share of every batch
    return model, result


def outcome(plan, checkpoint=None):
    """Weights after a fit, and what predictions and views of them are, as plain arrays."""
    pixels, training, _ = toy()
    model, result = trained(plan, checkpoint)
    ask = {"exclusive": False, "device": CPU}
    made = predict(model, pixels, ROWS, tta="flip", **ask)
    few = predict(model, pixels, ROWS[:1], **ask)  # fewer rows than processes
    none = predict(model, pixels, ROWS[:0], **ask)
    views = predict_views(model, pixels, ROWS, views=2, spec=STILL, seed=0, **ask)
    return {
        **{f"weights.{k}": v.numpy() for k, v in model.state_dict().items()},
        "auroc": np.array([epoch.score for epoch in result.history]),
        "best": np.array(result.best),
        "probabilities": made.probabilities,
        "features": made.features,
        "few": few.probabilities,
        "none": none.probabilities,
        "views": views,
        "small": _two_items(training),
    }


def _two_items(training):
    """Fewer items than a batch and as many as processes: weights after one step."""
    pixels, _, _ = toy()
    model = build_model("small_cnn", 1, seed=1)
    two = Examples(training.rows[:2], training.targets[:2])
    empty = Examples(two.rows[:0], two.targets[:0])
    options = {"spec": STILL, "seed": 3, "exclusive": False, "findings": ("A",), "device": CPU}
    fit(model, pixels, two, empty, Schedule(epochs=1, frozen_norm=True), **options)
    return model.head.weight.detach().numpy()


def recipes_apart():
    """A short fit of each stage that shows views: weights, and what its objective remembers."""
    pixels, training, validation = toy()
    made = {}
    for name in sorted(RECIPES):
        for stage in recipe_plan({"name": name}).stages:
            if isinstance(stage, PseudoLabel) or not stage.views:
                continue
            labeled = isinstance(stage, Fit) and stage.on is not None
            network = partial(build_model, "small_cnn", 1 if labeled else 8)
            model, memory = network(seed=1), {}

            def watched(student, teacher, batch, stage=stage, memory=memory):
                loss = stage.objective(student, teacher, batch)
                memory.update(batch.memory)
                return loss

            fit(
                model,
                pixels,
                training if labeled else None,
                validation if labeled else Examples(training.rows[:0], np.empty((0, 8))),
                Schedule(epochs=2, batch_size=8, ema=0.5),
                spec=STILL,
                seed=3,
                exclusive=False,
                findings=("A",),
                device=CPU,
                objective=watched,
                unlabeled=Unlabeled(np.arange(31), stage.views),
                teacher=None if labeled or isinstance(stage, Pretrain) else network(seed=2),
                prior=np.array([0.5]),
            )
            told = {**model.state_dict(), **memory}
            made |= {f"{name} {stage.name} {k}": v.numpy() for k, v in told.items()}
    return made


def one_diverges():
    """A loss that is no number in one process alone ends the fit in all."""
    pixels, training, validation = toy()
    options = {"spec": STILL, "seed": 3, "exclusive": False, "findings": ("A",), "device": CPU}

    def broken(student, teacher, batch):
        return supervised(student, teacher, batch) * (math.nan if rank() else 1.0)

    with pytest.raises(TrainingError, match="no longer finite at step 0"):
        fit(
            build_model("small_cnn", 1, seed=1),
            pixels,
            training,
            validation,
            Schedule(**PLAN),
            objective=broken,
            **options,
        )


def main(folder):
    """What each of the processes runs."""
    join_torchrun()
    join_torchrun()  # a second call changes nothing
    assert world_size() == 2
    assert is_main() == (rank() == 0)
    values = torch.full((2,), float(rank()) + 5)
    copy_from_main([values])
    assert values.tolist() == [5, 5]
    assert agree(0.25 + rank()) == 0.25
    everything = np.arange(7) * 10
    assert share_of(everything).tolist() == everything[rank() :: 2].tolist()
    assert gather_shares(share_of(everything)).tolist() == everything.tolist()
    for name, plan in (("same", NO_STATISTICS), ("other", OWN_STATISTICS)):
        np.savez(folder / f"{name}-{rank()}.npz", **outcome(plan, folder / f"{name}.pt"))
    np.savez(folder / f"recipes-{rank()}.npz", **recipes_apart())
    one_diverges()
    if is_main():  # whoever comes late to the last barrier finds the others still there
        time.sleep(0.3)
    barrier()
    leave_torchrun()
    assert world_size() == 1
    leave_torchrun()  # alone it does nothing


def test_two_processes_do_what_one_does(tmp_path):
    """One test for all: under pytest-xdist a shared fixture would start torchrun in each worker."""
    together = _torchrun(tmp_path)
    for name in ("same", "other"):
        _the_processes_end_with_the_same_weights_and_answers(together, name)
        _answers_are_in_order_and_those_of_one_process(together, name)
    _every_recipe_keeps_the_processes_together(together)
    _without_batch_statistics_the_halves_of_a_batch_give_the_gradient_of_the_whole(together)
    _with_batch_statistics_of_their_own_they_still_learn(together)


def _torchrun(folder):
    """What two processes came to: a function of the plan's name and the process."""
    root = Path(__file__).parents[3]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", __file__, folder],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return lambda name, process: dict(np.load(folder / f"{name}-{process}.npz"))


def _the_processes_end_with_the_same_weights_and_answers(together, name):
    one, other = together(name, 0), together(name, 1)
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)


def _every_recipe_keeps_the_processes_together(together):
    """The same weights and the same memory; statistics are the main process's."""
    _the_processes_end_with_the_same_weights_and_answers(together, "recipes")
    told = together("recipes", 0)
    assert told["fixmatch student predictions"].shape == (6, 1)  # steps of two epochs
    assert told["s2mts2 pretrained keys"].shape == (64, 8)  # 8 a step, 4 of each process


def _answers_are_in_order_and_those_of_one_process(together, name):
    got, pixels = together(name, 0), toy()[0]
    model = build_model("small_cnn", 1)
    state = {k.removeprefix("weights."): v for k, v in got.items() if k.startswith("weights.")}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in state.items()})
    alone = predict(model, pixels, ROWS, exclusive=False, device=CPU, tta="flip")
    np.testing.assert_allclose(got["probabilities"], alone.probabilities, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["features"], alone.features, rtol=1e-4, atol=1e-5)
    plain = predict(model, pixels, ROWS, exclusive=False, device=CPU).probabilities
    np.testing.assert_allclose(got["few"], plain[:1], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(got["views"], np.stack([plain, plain]), rtol=1e-4, atol=1e-6)
    assert got["none"].shape == (0, 1)
    assert len(np.unique(plain)) == 6  # an order that is wrong would show


def _without_batch_statistics_the_halves_of_a_batch_give_the_gradient_of_the_whole(together):
    got, alone = together("same", 0), outcome(NO_STATISTICS)
    np.testing.assert_allclose(got["auroc"], alone["auroc"])
    assert got["best"] == alone["best"]
    for key in alone:
        if key.startswith("weights."):
            np.testing.assert_allclose(got[key], alone[key], rtol=1e-3, atol=2e-4, err_msg=key)
    start = build_model("small_cnn", 1, seed=1).head.weight.detach().numpy()
    assert np.abs(alone["weights.head.weight"] - start).max() > 3e-3  # it did move
    np.testing.assert_allclose(got["small"], alone["small"], rtol=1e-3, atol=2e-4)


def _with_batch_statistics_of_their_own_they_still_learn(together):
    got, alone = together("other", 0), outcome(OWN_STATISTICS)
    assert got["auroc"].max() > 0.9
    assert alone["auroc"].max() > 0.9


# --- alone ---------------------------------------------------------------------------------


def test_one_process_is_its_own_main():
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    barrier()
    values = torch.ones(2)
    copy_from_main([values])
    assert values.tolist() == [1, 1]
    assert agree(0.5) == 0.5
    assert all_true(torch.tensor(True))
    assert not all_true(torch.tensor(False))
    rows = np.arange(5)
    assert share_of(rows).tolist() == rows.tolist()
    assert gather_shares(rows) is rows


def test_without_torchrun_there_is_nothing_to_join(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    join_torchrun()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("device", "processes", "fault"),
    [
        ("cuda", 2, "torchrun started 2 processes on a machine with 1 CUDA devices: start 1,"),
        ("cuda:0", 2, "compute.device = 'cuda:0' would hold all 2 processes"),
        ("cuda", 1, ""),
        ("cuda:0", 1, ""),
        ("cpu", 2, ""),
    ],
)
def test_two_processes_need_two_cuda_devices(monkeypatch, device, processes, fault):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    if not fault:
        check_devices(device)
        return
    with pytest.raises(ConfigError, match=re.escape(fault)):
        check_devices(device)


def test_without_torchrun_any_device_will_do(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    check_devices("cuda:7")


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("processes", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_shares_of_any_number_of_processes_come_back_in_order(monkeypatch, count, processes, axis):
    whole = np.arange(count * 3).reshape(count, 3)
    parts = []
    monkeypatch.setattr(distributed, "world_size", lambda: processes)
    for number in range(processes):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        parts.append(np.moveaxis(share_of(whole), 0, axis))
    assert sum(part.shape[axis] for part in parts) == count

    def all_gather(box, part):
        box[:] = parts

    monkeypatch.setattr(distributed.dist, "all_gather_object", all_gather)
    got = gather_shares(parts[0], axis=axis)
    np.testing.assert_array_equal(np.moveaxis(got, axis, 0), whole)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
