"""What only a CUDA device can show: the same bits again, resuming, bf16, NCCL. Skipped without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_core.errors import Cancelled
from ssl_core.readers.hints import hints_for
from ssl_core.rounds import run_round
from ssl_core.training.models import build_model
from ssl_core.training.predict import Device, predict, predict_views
from ssl_core.training.train import Loop
from tests import toy
from tests.training import PIXELS, TRAINING, WEAK, differing, network, schedule, train, weights

NAME = "cuda"
CUDA = Device(NAME, batch_size=32)
EXACT = Device(NAME, batch_size=32, autocast=False)
ROWS = np.arange(24, 48)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def big(backbone):
    model = build_model(backbone, 1, seed=1)
    model.dropout.p = 0.3
    return model


def pictures():
    """The toy's, enlarged: the larger networks halve a picture five times."""
    return PIXELS.repeat(4, axis=2).repeat(4, axis=3)


# S0's network and those with a pooling that overlaps, depthwise convolutions, or its own means
BACKBONES = ["densenet121", "resnet18", "mobilenet_v2", "efficientnet_b0"]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("autocast", [True, False])
def test_one_seed_gives_the_same_bits(backbone, autocast):
    device = Device(NAME, 32, autocast)
    models = [big(backbone) for _ in range(2)]
    plan = schedule(epochs=2, ema=0.9)
    options = {"spec": WEAK, "pixels": pictures(), "device": device}
    results = [train(model, plan, **options) for model in models]
    assert differing(*map(weights, models)) == []
    assert results[0] == results[1]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("step", [1, 5])
def test_a_fit_that_was_stopped_and_resumed_ends_with_the_same_bits(optimizer, step, tmp_path):
    plan = schedule(optimizer=optimizer, ema=0.8, clip=1.0)
    options = {"spec": WEAK, "seed": 5, "device": CUDA}
    whole, path = network(dropout=0.3), tmp_path / "fit.pt"
    expected = train(whole, plan, **options)

    def stop(event):
        if event.done == step:
            raise Cancelled("stopped")

    kept = {"checkpoint": path, "checkpoint_seconds": 0}
    with pytest.raises(Cancelled):
        train(network(dropout=0.3), plan, report=stop, **kept, **options)
    resumed = network(dropout=0.3)
    assert train(resumed, plan, **kept, **options) == expected
    assert differing(weights(whole), weights(resumed)) == []


def test_a_resumed_optimiser_does_not_wait_for_the_device(tmp_path, monkeypatch):
    loops = []

    class Kept(Loop):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            loops.append(self)

    monkeypatch.setattr("ssl_core.training.train.Loop", Kept)
    kept = {"checkpoint": tmp_path / "fit.pt", "device": CUDA}
    train(network(), schedule(epochs=1), **kept)
    train(network(), schedule(epochs=2), **kept)
    fresh, resumed = (list(loop.optimizer.state.values()) for loop in loops)
    assert {s["step"].device.type for s in fresh + resumed} == {"cpu"}
    assert {s["exp_avg"].device.type for s in resumed} == {torch.device(NAME).type}


def test_in_float32_it_learns_what_a_cpu_does():
    here, there = network(), network()
    plan = schedule(optimizer="sgd")
    train(here, plan, spec=WEAK)
    train(there, plan, spec=WEAK, device=EXACT)
    torch.testing.assert_close(
        there.head.weight.cpu(), here.head.weight, rtol=1e-2, atol=1e-3
    )  # TF32 convolutions


def test_a_compiled_fit_repeats_itself_and_learns_what_a_plain_one_does():
    plain, one, again = network(), network(), network()
    train(plain, schedule(), device=CUDA)
    for model in (one, again):
        train(model, schedule(), device=Device(NAME, 32, compile=True))
    assert differing(weights(one), weights(again)) == []
    torch.testing.assert_close(one.head.weight, plain.head.weight, rtol=2e-2, atol=5e-3)


@pytest.mark.parametrize("tta", ["none", "flip", "ten_crop"])
def test_predictions_are_those_of_a_cpu(tta):
    model = big("resnet18")
    ask = {"exclusive": False, "tta": tta}
    here = predict(model, pictures(), ROWS, device=Device("cpu", 32), **ask)
    exact = predict(model, pictures(), ROWS, device=EXACT, **ask)
    coarse = predict(model, pictures(), ROWS, device=CUDA, **ask)
    np.testing.assert_allclose(exact.probabilities, here.probabilities, atol=2e-3)
    np.testing.assert_allclose(coarse.probabilities, here.probabilities, atol=3e-2)
    assert len(np.unique(coarse.probabilities)) == len(ROWS)  # bf16 makes no ties
    again = predict(model, pictures(), ROWS, device=CUDA, **ask)
    np.testing.assert_array_equal(again.probabilities, coarse.probabilities)


def test_views_are_those_of_a_cpu():
    model, ask = network(), {"views": 3, "spec": WEAK, "seed": 0, "exclusive": False}
    here = predict_views(model, PIXELS, ROWS, device=Device("cpu", 32), **ask)
    there = predict_views(model, PIXELS, ROWS, device=EXACT, **ask)
    np.testing.assert_allclose(there, here, atol=2e-3)


FROZEN = {"epochs": 2, "epoch_steps": 3, "batch_size": 8, "frozen_blocks": 1, "frozen_norm": True}
STAGES = ("teacher", "intermediate", "student")
STEMS = {"name": "teacher_student", "tta": "flip", "cache_stem": True} | dict.fromkeys(
    STAGES, FROZEN
)


@pytest.mark.parametrize("recipe", [toy.RECIPE, STEMS])
def test_rounds_repeat_themselves(tmp_path, recipe):
    """Three rounds, twice: the same models, numbers and queries, to the bit."""
    told = []
    for name in ("one", "two"):
        tables = {"compute": {"device": NAME, "checkpoint_seconds": 0.0}, "recipe": recipe}
        workspace, room = toy.opened(toy.make(tmp_path / name, **tables))
        for _ in range(3):
            run_round(workspace, room)
        ids = [item.id for item in workspace.ledger.items()][:5]
        hints = hints_for(workspace, ids)
        measured = [(n, m.stage, m.name, m.value) for n, m in workspace.ledger.measurements()]
        models = [(n, m.stage, m.id) for n, m in workspace.ledger.models()]
        asked = [(n, s.item_id, s.score) for n, s in workspace.ledger.selected(before_round=4)]
        told.append((hints, measured, models, asked))
        assert list(hints) == ids
    assert repr(told[0]) == repr(told[1])


def test_torchrun_with_nccl_does_what_one_process_does(tmp_path):
    alone = network(dropout=0.3)
    train(alone, schedule(), spec=WEAK, device=CUDA)
    root = Path(__file__).parents[3]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node", "1", __file__, tmp_path],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    got = dict(np.load(tmp_path / "weights.npz"))
    for key, value in alone.state_dict().items():
        np.testing.assert_array_equal(got[key], value.cpu().numpy(), err_msg=key)


def test_training_uses_the_device():
    model = network()
    before = torch.cuda.max_memory_allocated()
    train(model, schedule(epochs=1), training=TRAINING, device=CUDA)
    assert model.head.weight.is_cuda
    assert torch.cuda.max_memory_allocated() > before


def main(folder):
    """What torchrun starts."""
    from ssl_core.training.distributed import agree, barrier, copy_from_main, join_torchrun

    join_torchrun()
    values = torch.ones(2, device=NAME)
    copy_from_main([values, torch.ones(2)])  # memory of the device, and of the CPU
    assert agree(0.25) == 0.25
    model = network(dropout=0.3)
    train(model, schedule(), spec=WEAK, device=CUDA)
    predict(model, PIXELS, ROWS, exclusive=False, device=CUDA)
    barrier()
    np.savez(folder / "weights.npz", **{k: v.cpu().numpy() for k, v in model.state_dict().items()})
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
