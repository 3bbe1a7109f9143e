"""Cached stems: the same numbers as running the frozen blocks every time, and resumable."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
import torch

from connectors.memory import MemorySource
from ssl_core.errors import Cancelled, ConfigError
from ssl_core.images import ImageStore
from ssl_core.recipes import plan
from ssl_core.rounds import run_round
from ssl_core.training.augment import Augmentation
from ssl_core.training.feed import Examples
from ssl_core.training.models import build_model
from ssl_core.training.predict import Device, predict
from ssl_core.training.rand_augment import RandAugment, view
from ssl_core.training.schedule import Schedule
from ssl_core.training.seeds import derived_seed
from ssl_core.training.stems import stem_array, view_banks
from ssl_core.training.train import fit
from tests import toy

DEVICE = Device(batch_size=16)


@pytest.fixture
def store(tmp_path) -> ImageStore:
    rng = np.random.default_rng(0)
    images = {f"{i}.png": toy.picture(rng, i % 2 == 0, False) for i in range(300)}
    pairs = [(f"{i:032x}", f"{i}.png") for i in range(300)]
    folder = tmp_path / "images"
    return ImageStore.build(folder, pairs, MemorySource(images), size=16, fit="pad", channels=1)[0]


def model(seed: int = 0, blocks: int = 2):
    made = build_model("small_cnn", 1, seed=seed)
    made.freeze(blocks, norm=True)
    return made


def test_stems_are_what_the_frozen_blocks_give_for_an_image_and_its_mirror(store, tmp_path):
    network = model()
    array = stem_array(tmp_path, store, network, device=DEVICE)
    assert array.shape == (300, 2, 32, 4, 4)
    assert array.dtype == np.float16
    images = torch.from_numpy(store.pixels(store.ids[5:8])).float() / 255
    with torch.no_grad():
        expected = [network.stem(images), network.stem(images.flip(-1))]
    for one in (0, 1):
        np.testing.assert_allclose(array[5:8, one], expected[one].numpy(), atol=2e-3)


@pytest.mark.parametrize("tta", ["none", "flip"])
def test_predictions_from_stems_equal_those_from_pixels(store, tmp_path, tta):
    network = model()
    array = stem_array(tmp_path, store, network, device=DEVICE)
    rows = np.array([7, 0, 250, 3])
    ours = predict(network, array, rows, exclusive=False, device=DEVICE, tta=tta)
    full = predict(network, store.array, rows, exclusive=False, device=DEVICE, tta=tta)
    np.testing.assert_allclose(ours.probabilities, full.probabilities, atol=2e-3)
    np.testing.assert_allclose(ours.features, full.features, atol=5e-3)


def test_training_from_stems_equals_training_on_pixels_without_augmentation(store, tmp_path):
    still = Augmentation(flip=0, rotation=0, translation=0, scale=(1, 1), perspective=0)
    schedule = Schedule(
        epochs=2, batch_size=16, learning_rate=1e-2, frozen_blocks=2, frozen_norm=True
    )
    training = Examples(np.arange(40), (np.arange(40)[:, None] % 2 == 0).astype(float))
    validation = Examples(np.arange(40, 60), (np.arange(40, 60)[:, None] % 2 == 0).astype(float))
    twice = stem_array(tmp_path, store, model(), device=DEVICE).copy()
    twice[:, 1] = twice[:, 0]  # no mirror, so that both see the same views
    found = []
    for inputs in (store.array, twice):
        network = model()
        fit(
            network, inputs, training, validation, schedule,
            spec=still, seed=0, exclusive=False, findings=("Spot",), device=DEVICE,
        )  # fmt: skip
        found.append(network.head.weight.detach().numpy())
    np.testing.assert_allclose(found[0], found[1], atol=5e-3)


def test_both_views_are_trained_on(store, tmp_path):
    array = stem_array(tmp_path, store, model(), device=DEVICE).copy()
    array[:, 1] = np.nan  # a mirror that would be noticed
    training = Examples(np.arange(40), (np.arange(40)[:, None] % 2 == 0).astype(float))
    with pytest.raises(Exception, match="no longer finite"):
        fit(
            model(), array, training, Examples(training.rows[:0], training.targets[:0]),
            Schedule(epochs=3, frozen_blocks=2, frozen_norm=True), spec=Augmentation(), seed=0,
            exclusive=False, findings=("Spot",), device=DEVICE,
        )  # fmt: skip


def test_stopped_and_resumed_it_is_the_same_and_finished_rows_are_kept(store, tmp_path):
    whole = stem_array(tmp_path / "a", store, model(), device=DEVICE)
    seen: list[int] = []

    def stop(event):
        seen.append(event.done)
        if len(seen) == 2:
            raise Cancelled("stopped by the test")

    with pytest.raises(Cancelled):
        stem_array(tmp_path / "b", store, model(), device=DEVICE, report=stop)
    later: list[int] = []
    resumed = stem_array(
        tmp_path / "b", store, model(), device=DEVICE, report=lambda e: later.append(e.done)
    )
    assert later[0] > seen[-1]
    np.testing.assert_array_equal(resumed, whole)
    again: list[int] = []
    stem_array(tmp_path / "b", store, model(), device=DEVICE, report=lambda e: again.append(e.done))
    assert again == []


def test_other_weights_or_blocks_are_other_stems(store, tmp_path):
    stem_array(tmp_path, store, model(0), device=DEVICE)
    stem_array(tmp_path, store, model(1), device=DEVICE)
    stem_array(tmp_path, store, model(0, blocks=3), device=DEVICE)
    assert len(list(tmp_path.glob("stems-*"))) == 3


def test_a_network_without_frozen_blocks_has_no_stem(store, tmp_path):
    with pytest.raises(ValueError, match="at least one frozen block"):
        stem_array(tmp_path, store, build_model("small_cnn", 1), device=DEVICE)


FROZEN = {**toy.RECIPE["teacher"], "frozen_blocks": 2, "frozen_norm": True}
CACHED = {
    "name": "teacher_student",
    **dict.fromkeys(("teacher", "intermediate", "student"), FROZEN),
    "tta": "flip",
    "cache_stem": True,
}


def test_a_round_runs_on_cached_stems(tmp_path):
    workspace, room = toy.opened(toy.make(tmp_path / "w", recipe=CACHED))
    run_round(workspace, room)
    number = run_round(workspace, room)
    assert [s.name for s in workspace.ledger.stages(number)][-1] == "select"
    # One folder of stems for all stages would need fixed first weights: this network has its own
    # each time, but every fit and prediction of a stage shares them.
    assert list((workspace.root / "images").glob("stems-*"))


@pytest.mark.parametrize(
    "change",
    [
        {"tta": "ten_crop"},
        {"student": {**FROZEN, "frozen_blocks": 1}},
        {"student": {**FROZEN, "frozen_blocks": 0}},
    ],
)
def test_a_stem_that_cannot_be_shared_is_refused(change):
    with pytest.raises(ConfigError, match="cache_stem needs one frozen_blocks"):
        plan({**CACHED, **change})


# --- views drawn beforehand -----------------------------------------------------------------

TURN, STRONG = Augmentation(), RandAugment()
ROWS = np.r_[40:180, 20:30]


def banks(tmp_path, store, specs=(TURN, STRONG), report=lambda _: None):
    rows = ROWS
    return view_banks(tmp_path, store, rows, model(), specs, 3, device=DEVICE, report=report)


def test_a_bank_holds_the_stems_of_views_of_its_augmentation(store, tmp_path):
    found = banks(tmp_path, store)
    assert list(found.arrays) == [TURN, STRONG]
    ordered = np.sort(ROWS)
    for spec, array in found.arrays.items():
        assert array.shape == (150, 3, 32, 4, 4)
        generator = torch.Generator().manual_seed(derived_seed("views", repr(spec), 128))
        images = torch.from_numpy(store.array[ordered[128:]])
        with torch.no_grad():
            network = model().eval()
            expected = [network.stem(view(images, spec, generator)).numpy() for _ in range(3)]
        np.testing.assert_allclose(array[128:], np.stack(expected, axis=1), atol=2e-3)


def test_draws_are_views_of_the_rows_asked_for_and_equal_specs_get_different_ones(store, tmp_path):
    found, rows = banks(tmp_path, store), np.array([41, 25, 25, 179])
    drawn = found.draw(rows, (TURN, TURN, STRONG), torch.Generator().manual_seed(1))
    again = found.draw(rows, (TURN, TURN, STRONG), torch.Generator().manual_seed(1))
    other = found.draw(rows, (TURN, TURN, STRONG), torch.Generator().manual_seed(2))
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(drawn, other, strict=True))
    for spec, one in zip((TURN, TURN, STRONG), drawn, strict=True):
        for row, stem in zip(rows, one, strict=True):
            choices = found.arrays[spec][np.searchsorted(np.sort(ROWS), row)]
            assert any(np.array_equal(stem, choice) for choice in choices)
    assert not any(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))


def test_every_view_of_a_bank_is_drawn(store, tmp_path):
    found = banks(tmp_path, store, (TURN,))
    (drawn,) = found.draw(np.full(200, 50), (TURN,), torch.Generator().manual_seed(0))
    shown = {stem.numpy().tobytes() for stem in drawn}
    assert shown == {
        stem.tobytes() for stem in found.arrays[TURN][np.searchsorted(np.sort(ROWS), 50)]
    }


def test_an_image_without_views_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match="no views"):
        banks(tmp_path, store).draw(np.array([0]), (TURN,), torch.Generator())


def test_a_cancelled_bank_goes_on_and_ends_the_same(store, tmp_path):
    whole = banks(tmp_path / "whole", store, (STRONG,))

    def stop(event):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        banks(tmp_path / "cut", store, (STRONG,), stop)
    told = []
    cut = banks(tmp_path / "cut", store, (STRONG,), lambda event: told.append(event.done))
    assert told == [150]  # of 150 rows the first 128 were there
    np.testing.assert_array_equal(cut.arrays[STRONG], whole.arrays[STRONG])


def test_caches_that_nobody_has_opened_for_long_are_deleted_and_those_in_use_are_not(
    store, tmp_path
):
    caches = tmp_path / "caches"
    stem_array(caches, store, model(), device=DEVICE)
    (opened,) = caches.iterdir()
    stem_array(caches, store, model(seed=1), device=DEVICE)
    (caches / "pixels").mkdir()
    month_ago = time.time() - 30 * 24 * 3600
    for folder in caches.iterdir():
        os.utime(folder, (month_ago, month_ago))
    stem_array(caches, store, model(), device=DEVICE)
    assert {p.name for p in caches.iterdir()} == {opened.name, "pixels"}
