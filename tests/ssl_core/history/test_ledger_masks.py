from __future__ import annotations

import math
from dataclasses import replace

import pytest

from connectors.archive import ArchiveRoom
from connectors.memory import MemoryRoom
from ssl_core.errors import LedgerError
from ssl_core.history.ledger import Ledger
from ssl_core.records import Answer, Assignment, Hint, Item, Label, PseudoLabel, Task
from tests.ledger_records import round_, same, stage

TASK = Task("segmentation", ("Lung", "Nodule"))
ONE, TWO = "1" * 64, "2" * 64
ITEMS = [Item("t1", "anna", "train", "1.png"), Item("t2", "bea", "train", "2.png")]


@pytest.fixture
def ledger(ledger_url):
    with Ledger.create(ledger_url, TASK) as ledger:
        ledger.import_items(ITEMS)
        yield ledger


def label(value: float, mask: str | None, key: str = "k") -> Label:
    return Label("t1", "Lung", value, "ann", "import", key, mask=mask)


def test_a_label_keeps_its_mask(ledger):
    kept = [label(1.0, ONE), replace(label(0.0, None, "l"), finding="Nodule")]
    assert ledger.add_labels(kept) == 2
    assert ledger.labels() == kept
    assert ledger.add_labels(kept) == 0


def test_another_mask_under_the_same_key_is_another_answer(ledger):
    ledger.add_labels([label(1.0, ONE)])
    with pytest.raises(LedgerError, match="'k' is taken by another answer"):
        ledger.add_labels([label(1.0, TWO)])


@pytest.mark.parametrize(
    ("value", "mask", "message"),
    [
        (1.0, None, "'k' says that the finding is present without a mask"),
        (0.0, ONE, "'k' has a mask, which belongs to a finding that is present"),
        (math.nan, ONE, "'k' has a mask, which belongs to a finding that is present"),
        (1.0, "1.png", "refused a change"),
    ],
)
def test_a_mask_that_is_missing_or_out_of_place_is_refused(ledger, value, mask, message):
    with pytest.raises(LedgerError, match=message):
        ledger.add_labels([label(value, mask)])
    assert ledger.labels() == []


def test_only_segmentation_has_masks(ledger_url):
    with Ledger.create(ledger_url, Task("binary", ("Lung",)), ITEMS) as ledger:
        with pytest.raises(LedgerError, match="a segmentation task alone"):
            ledger.add_labels([label(1.0, ONE)])
        assert ledger.add_labels([label(1.0, None)]) == 1


def test_an_archive_answers_with_the_masks_that_it_hid(ledger_url):
    hidden = [Answer("t1", "Lung", 1.0, ONE), Answer("t1", "Nodule", 0.0)]
    with Ledger.create(ledger_url, TASK, ITEMS, answers=hidden) as ledger:
        assert ledger.answers(["t1"]) == hidden
        room = ArchiveRoom(ledger.answers)
        asked = [Assignment(item.id, "archive", 1, k) for k, item in enumerate(ITEMS)]
        ledger.reading.assign(asked)
        room.queue(asked, {})
        for page in room.pull(""):
            assert ledger.reading.take("archive", page).new == 1
        assert [(one.finding, one.value, one.mask) for one in ledger.labels()] == [
            ("Lung", 1.0, ONE),
            ("Nodule", 0.0, None),
        ]


def test_an_archive_without_a_mask_is_refused_whole(ledger_url):
    with pytest.raises(LedgerError, match=r"answer about 'Lung' of 't1' says .* without a mask"):
        Ledger.create(ledger_url, TASK, ITEMS, answers=[Answer("t1", "Lung", 1.0)])


def test_a_reader_draws_and_takes_back(ledger):
    room = MemoryRoom(["ann"])
    ledger.reading.assign([Assignment("t1", "ann", 1, 0)])

    def said() -> list[tuple[str, float, str | None]]:
        for page in room.pull(ledger.reading.bookmark("memory")):
            ledger.reading.take("memory", page)
        return sorted((one.finding, one.value, one.mask) for one in ledger.labels())

    room.submit("t1", {"Lung": 1.0, "Nodule": 1.0}, masks=(("Lung", ONE), ("Nodule", TWO)))
    assert said() == [("Lung", 1.0, ONE), ("Nodule", 1.0, TWO)]
    room.submit("t1", {"Lung": 1.0, "Nodule": 0.0}, masks=(("Lung", TWO),))
    assert said() == [("Lung", 1.0, TWO), ("Nodule", 0.0, None)]
    room.act("t1", "withdrawn")
    assert same(said(), [("Lung", math.nan, None), ("Nodule", math.nan, None)])


@pytest.mark.parametrize(
    ("answers", "masks", "message"),
    [
        ({"Lung": 1.0}, (), "without a mask"),
        ({"Lung": 0.0}, (("Lung", ONE),), "has a mask, which belongs to"),
        ({"Lung": 0.0}, (("Nodule", ONE),), "has a mask of 'Nodule', about which it says nothing"),
    ],
)
def test_a_read_whose_masks_are_not_its_answers_is_refused(ledger, answers, masks, message):
    room = MemoryRoom(["ann"])
    ledger.reading.assign([Assignment("t1", "ann", 1, 0)])
    room.submit("t1", answers, masks=masks)
    with pytest.raises(LedgerError, match=message):
        ledger.reading.take("memory", next(iter(room.pull(""))))
    assert ledger.labels() == []
    assert ledger.reading.reads() == []


def test_hints_and_pseudo_labels_keep_their_masks(ledger):
    hints = [Hint("t1", "Lung", 1.0, 0.9, "m", ONE), Hint("t1", "Nodule", 0.0, 0.1, "m")]
    ledger.reading.assign([Assignment("t1", "ann", 1, 0, hinted=True)], hints)
    assert ledger.reading.hints() == {"t1": hints}
    pseudo = [PseudoLabel("t2", "Lung", 1.0, 0.9, TWO), PseudoLabel("t2", "Nodule", 0.0, 0.1)]
    ledger.open_round(round_(1))
    ledger.add_stage(stage(), pseudo_labels=pseudo)
    assert ledger.pseudo_labels(1) == pseudo
