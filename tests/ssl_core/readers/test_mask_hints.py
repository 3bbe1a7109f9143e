"""What hinted readers are shown where findings are drawn: the masks of the model in use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from connectors.memory import MemoryRoom
from ssl_core.history.ledger import Ledger
from ssl_core.masks import files
from ssl_core.masks.networks import build_segmenter
from ssl_core.probabilities import peaks
from ssl_core.readers.anchoring_reads import hinted_or_blind
from ssl_core.readers.hints import hints_for
from ssl_core.readers.reading import queue, sync
from ssl_core.records import Task
from ssl_core.training.augment import as_float
from ssl_core.training.models import save_model
from ssl_core.workspace import Workspace
from tests import rounds_by_hand as hand
from tests import toy

TASK = Task("segmentation", ("Spot", "Bar"))


@pytest.fixture
def ws(tmp_path) -> Workspace:
    """A round whose student nobody trained: its maps are what its seed makes of them."""
    recipe = {"name": "supervised_masks", "tta": "none"}
    model = {"backbone": "small_unet"}
    reading = {"hints": True, "room": "label_studio"}
    root = toy.make(tmp_path / "w", items=24, recipe=recipe, model=model, reading=reading)
    made, _ = toy.opened(root)
    items = made.ledger.items()
    made.ledger.close()
    made = replace(made, ledger=Ledger.create(f"sqlite:///{tmp_path}/masks.db", TASK, items))
    network = build_segmenter("small_unet", 2, seed=3)
    identity = save_model(network, made.models_folder)
    student = replace(hand.model(identity), backbone="small_unet")
    hand.open_round(made.ledger, 1, made.config.to_json())
    hand.add(made.ledger, 1, "student", models=[student])
    found = [replace(hand.auroc(student, "validation", 0.5), name="dice")]
    hand.add(made.ledger, 1, "evaluate", "evaluate", {"gate": None}, measurements=found)
    made.ledger.finish_round(1, "{}")
    return made


def maps_of(ws: Workspace, ids: list[str]) -> np.ndarray:
    """`(n, C, S, S)` in [0, 1], straight from the network."""
    network = ws.load_segmenter(ws.ledger.models()[-1][1]).eval()
    with torch.inference_mode():
        found = network(as_float(torch.from_numpy(ws.images.pixels(ids))))
    return found.maps.sigmoid().numpy()


def test_a_hint_holds_the_mask_at_one_half_and_absent_has_none(ws):
    ids = hand.ids(ws, "train")
    drawn = maps_of(ws, ids) >= 0.5
    found = hints_for(ws, ids)
    assert list(found) == ids
    (identity,) = {hint.model_id for each in found.values() for hint in each}
    assert identity == ws.ledger.models()[-1][1].id
    values = set()
    for item_id, masks in zip(ids, drawn, strict=True):
        assert [hint.finding for hint in found[item_id]] == list(TASK.findings)
        for hint, mask in zip(found[item_id], masks, strict=True):
            assert 0 <= hint.score <= 1
            assert hint.value == float(mask.any()) == float(hint.mask is not None)
            if hint.mask:
                np.testing.assert_array_equal(files.load(ws.masks_folder, hint.mask), mask)
            values.add(hint.value)
    assert 1.0 in values
    assert hints_for(ws, []) == {}


def test_the_highest_value_of_each_map_says_whether_it_is_drawn(ws):
    ids = hand.ids(ws, "train")
    number, model = ws.ledger.models()[-1]
    found = peaks(ws, number, model, ids)
    np.testing.assert_allclose(found, maps_of(ws, ids).max(axis=(2, 3)), atol=1e-5)
    (ws.root / model.path).unlink()  # kept: nothing is asked twice
    np.testing.assert_array_equal(peaks(ws, number, model, ids[::-1]), found[::-1])


def test_half_of_a_batch_is_hinted_once_and_held_against_what_was_drawn(ws):
    ids = hand.ids(ws, "train")[:8]
    hand.open_round(ws.ledger, 2, ws.config.to_json())
    chosen = [hand.asked(i, k, "random" if k % 2 else "strategy") for k, i in enumerate(ids)]
    hand.add(ws.ledger, 2, "select", "select", selections=chosen)
    ws.ledger.finish_round(2, "{}")
    room = MemoryRoom(("reader",))
    queue(ws, room)
    asked = [one for one in room.waiting["reader"] if one.round == 2]
    hinted = {one.item_id for one in asked if one.hinted}
    assert set(room.hints) == hinted == set(ws.ledger.reading.hints())
    assert len(hinted) == 4
    first = ws.ledger.reading.hints()
    said = hints_for(ws, ids)
    for item_id in ids:  # every reader says what the model does, shown or not
        answers = {hint.finding: hint.value for hint in said[item_id]}
        masks = tuple((hint.finding, hint.mask) for hint in said[item_id] if hint.mask)
        room.submit(item_id, answers, masks=masks, seconds=9.0)
    sync(ws, room)
    queue(ws, room)
    assert ws.ledger.reading.hints() == first
    found = hinted_or_blind(ws)
    assert [one.agrees for one in found] == [1.0] * 8
    assert sum(one.hinted for one in found) == 4


@pytest.mark.parametrize(("shift", "disputed"), [(1, 0), (6, 1)])
def test_masks_that_lie_apart_go_to_the_adjudicator(ws, tmp_path, shift, disputed):
    """Both say present, and only the pixels tell that they do not mean the same."""
    reading = {"readers": ["ann", "bob"], "adjudicator": "cat", "room": "label_studio"}
    ws = replace(ws, config=ws.config.changed(reading=reading))
    room = MemoryRoom(("ann", "bob"))
    queue(ws, room)
    twice = set.intersection(*({a.item_id for a in room.waiting[r]} for r in room.readers))
    item = min(twice)
    for reader, at in (("ann", 2), ("bob", 2 + shift)):
        mask = np.zeros((16, 16), bool)
        mask[at : at + 6, 2:10] = True
        drawn = (("Spot", files.keep(ws.masks_folder, mask)),)
        room.submit(item, {"Spot": 1.0, "Bar": 0.0}, reader=reader, masks=drawn)
    assert sync(ws, room).adjudications == disputed
    assert [a.item_id for a in room.waiting.get("cat", ())] == [item] * disputed
    assert sync(ws, room).adjudications == 0  # once
