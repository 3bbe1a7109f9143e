"""What models draw on items: put by by the stages, the same when it is computed anew."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from ssl_core import drawings as kept
from ssl_core.masks.overlap import dice
from ssl_core.masks.truth import mask_truth
from ssl_core.probabilities import FOLDER, labeled, stage_model
from ssl_core.workspace import open_workspace
from tests.mask_workspaces import NEWEST


@pytest.fixture
def ws(drawn):
    return open_workspace(drawn)


@pytest.fixture
def copy(drawn, tmp_path):
    return open_workspace(shutil.copytree(drawn, tmp_path / "w"))


def ids(ws, split):
    return [item.id for item in ws.ledger.items(split)]


def file_of(ws, model):
    (path,) = (ws.root / FOLDER).glob(f"{model.id}-*.masks")
    return path


def test_what_a_round_drew_on_validation_is_not_drawn_again(ws, monkeypatch):
    monkeypatch.setattr(kept, "predict_masks", lambda *_, **__: pytest.fail("drawn again"))
    validation = ids(ws, "validation")
    for _, model in ws.ledger.models(NEWEST):
        found = kept.drawings(ws, NEWEST, model, validation)
        assert (found.shape, found.dtype) == ((12, 2, 16, 16), np.bool_)
    with pytest.raises(pytest.fail.Exception, match="drawn again"):
        kept.drawings(ws, NEWEST, stage_model(ws, NEWEST), ids(ws, "train"))


def test_it_is_what_would_be_drawn_and_kept(copy, monkeypatch):
    student, validation = stage_model(copy, NEWEST), ids(copy, "validation")
    before = kept.drawings(copy, NEWEST, student, validation)
    assert before.any()
    assert not before.all()
    file_of(copy, student).unlink()
    after = kept.drawings(copy, NEWEST, student, [*validation, validation[0]])
    np.testing.assert_array_equal(after[:12], before)
    np.testing.assert_array_equal(after[12], before[0])
    monkeypatch.setattr(kept, "predict_masks", lambda *_, **__: pytest.fail("drawn again"))
    np.testing.assert_array_equal(kept.drawings(copy, NEWEST, student, validation), before)
    assert kept.drawings(copy, NEWEST, student, []).shape == (0, 2, 16, 16)
    found = kept.shows(copy, NEWEST, student, validation)
    np.testing.assert_array_equal(found, before.any(axis=(2, 3)))


@pytest.mark.parametrize("items", [0, 3])
def test_masks_are_packed_each_from_a_byte_of_its_own(items):
    masks = np.zeros((items, 2, 3, 3), bool)
    masks[:, 1, 0, 0] = True
    found = kept._packed(masks)
    assert found.tolist() == [[0, 0, 128, 0]] * items


def test_a_damaged_row_is_drawn_again_and_no_other(copy, monkeypatch):
    student, validation = stage_model(copy, NEWEST), ids(copy, "validation")
    before = kept.drawings(copy, NEWEST, student, validation)
    row = int(copy.images.positions([validation[3]])[0])
    data = bytearray(file_of(copy, student).read_bytes())
    length = 2 * 16 * 16 // 8 + 4
    data[row * length] ^= 1
    file_of(copy, student).write_bytes(data)
    asked = []
    draw = kept.predict_masks

    def listened(model, pixels, rows, *rest, **more):
        asked.append(rows.tolist())
        return draw(model, pixels, rows, *rest, **more)

    monkeypatch.setattr(kept, "predict_masks", listened)
    np.testing.assert_array_equal(kept.drawings(copy, NEWEST, student, validation), before)
    assert asked == [[row]]


def test_a_disk_that_is_full_costs_time_and_no_page(copy, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "_keep", full)
    assert kept.drawings(copy, NEWEST, stage_model(copy, NEWEST), ids(copy, "train")).any()


def test_the_dice_on_validation_is_what_the_round_measured(ws):
    for number, model in ws.ledger.models():
        (told,) = [
            m for _, m in ws.ledger.measurements(number)
            if (m.stage, m.split, m.finding, m.name) == (model.stage, "validation", "macro", "dice")
        ]  # fmt: skip
        found = kept.measured(ws, number, model, labeled(ws, "validation")).macro.estimate
        assert (found.value, found.low, found.high) == pytest.approx(
            (told.value, told.low, told.high), abs=1e-6
        )


def test_overlap_is_item_by_item_and_unknown_where_nobody_drew(ws):
    train = labeled(ws, "train")
    student = stage_model(ws, NEWEST)
    found = kept.overlap(ws, NEWEST, student, train)
    truth = mask_truth(train.ids, ws.ledger.labels(), ws.ledger.task.findings, ws.masks)
    told = truth.at(np.arange(len(train.ids)))
    masks = kept.drawings(ws, NEWEST, student, train.ids)
    np.testing.assert_allclose(found, dice(masks, told == 1))
    vault = labeled(ws, "validation")
    nobody = kept.overlap(ws, NEWEST, student, _of(ws, vault, "vault"))
    assert np.isnan(nobody).all()  # the vault's labels are not looked at


def _of(ws, like, split):
    some = ids(ws, split)
    empty = np.full((len(some), 2), np.nan)
    return type(like)(tuple(some), tuple(some), ws.images.positions(some), empty)
