from __future__ import annotations

from dataclasses import replace

import pytest

from ssl_core.errors import LedgerError
from ssl_core.history.ledger import Ledger
from ssl_core.records import Measurement, Model, PseudoLabel
from tests.ledger_records import ITEMS, NAN, TASK, round_, same, selection, stage


@pytest.fixture
def ledger(ledger_url):
    with Ledger.create(ledger_url, TASK) as made:
        made.import_items(ITEMS)
        yield made


def test_a_stage_brings_all_that_it_made(ledger):
    ledger.open_round(round_(1))
    model = Model("m-1", "teacher", "densenet121", "rounds/1/teacher.safetensors")
    asked = [selection("t2", 0), selection("t1", 1, NAN)]
    kept = [PseudoLabel("t2", "Nodule", 1.0, 0.9), PseudoLabel("t1", "Nodule", 0.0, NAN)]
    measured = [
        Measurement("m-1", "teacher", "validation", "macro", "auroc", 0.75, 0.5, 1.0, 40),
        Measurement("m-1", "teacher", "vault", "Nodule", "auroc", NAN, NAN, NAN, 0),
    ]
    assert ledger.add_stage(
        stage(), models=[model], selections=asked, pseudo_labels=kept, measurements=measured
    )
    assert ledger.stages(1) == [stage()]
    assert ledger.models() == ledger.models(1) == [(1, model)]
    assert same(ledger.selections(1), asked)
    assert same(ledger.selected(), [(1, asked[0]), (1, asked[1])])
    assert same(ledger.pseudo_labels(1), kept)
    assert same(ledger.measurements(), [(1, measured[0]), (1, measured[1])])
    for number in (0, 2):
        assert ledger.stages(number) == ledger.models(number) == ledger.selections(number) == []
        assert ledger.pseudo_labels(number) == ledger.measurements(number) == []


def test_a_stage_that_is_there_is_not_added_again(ledger):
    ledger.open_round(round_(1))
    model = Model("m-1", "teacher", "resnet18", "teacher.safetensors")
    assert ledger.add_stage(stage(), models=[model])
    again = replace(stage(), detail="another", seconds=9.0)
    assert not ledger.add_stage(again, models=[replace(model, id="m-2")])
    assert ledger.stages(1) == [stage()]
    assert ledger.models() == [(1, model)]
    ledger.finish_round(1, "{}")
    assert not ledger.add_stage(stage())  # also when the killed run had got that far


def test_a_stage_needs_an_open_round(ledger):
    with pytest.raises(LedgerError, match="Round 1 was never opened"):
        ledger.add_stage(stage(1))
    ledger.open_round(round_(1))
    ledger.finish_round(1, "{}")
    with pytest.raises(LedgerError, match="Round 1 is finished"):
        ledger.add_stage(stage(1))
    assert ledger.stages(1) == []


@pytest.mark.parametrize(
    "made",
    [
        {"pseudo_labels": [PseudoLabel("stranger", "Nodule", 1.0, 0.9)]},
        {"pseudo_labels": [PseudoLabel("t1", "Nodule", 1.5, 0.9)]},
        {"pseudo_labels": [PseudoLabel("t1", "Nodule", NAN, 0.9)]},
        {"selections": [selection("stranger", 0)]},
        {"selections": [selection("t1", 0), selection("t1", 1)]},
        {"selections": [selection("t1", 0), selection("t2", 0)]},
    ],
)
def test_a_stage_with_a_bad_row_leaves_nothing(ledger, made):
    ledger.open_round(round_(1))
    model = Model("m-1", "teacher", "resnet18", "teacher.safetensors")
    with pytest.raises(LedgerError):
        ledger.add_stage(stage(), models=[model], **made)
    assert ledger.stages(1) == ledger.models() == ledger.selected() == ledger.pseudo_labels(1) == []
    assert ledger.add_stage(stage(), models=[model])


def test_stages_rounds_and_ranks_come_in_order(ledger):
    weights = Model("m-1", "teacher", "resnet18", "teacher.safetensors")  # same weights twice
    kept = [PseudoLabel("t2", "Nodule", 1.0, 0.9), PseudoLabel("t1", "Nodule", 0.0, 0.1)]
    for number in (1, 2):
        ledger.open_round(round_(number))
        ledger.add_stage(stage(number, "select", 2), selections=[selection("t2", 1)])
        ledger.add_stage(
            stage(number, "teacher", 0), models=[weights], selections=[selection("t1", 0)]
        )
        ledger.add_stage(stage(number, "label", 1), pseudo_labels=kept[:number])
        ledger.add_stage(stage(number, "label again", 3), pseudo_labels=kept[1:])
        ledger.finish_round(number, "{}")
    assert [one.name for one in ledger.stages(2)] == ["teacher", "label", "select", "label again"]
    assert ledger.models() == [(1, weights), (2, weights)]
    assert [one.item_id for one in ledger.selections(2)] == ["t1", "t2"]
    assert [(number, one.rank) for number, one in ledger.selected()] == [
        (1, 0), (1, 1), (2, 0), (2, 1)
    ]  # fmt: skip
    assert [number for number, _ in ledger.selected(before_round=2)] == [1, 1]
    assert ledger.selected(before_round=1) == []
    assert ledger.pseudo_labels(1) == [kept[0], kept[1]]
    assert ledger.pseudo_labels(2) == [kept[0], kept[1], kept[1]]
    assert ledger.pseudo_labels(2, "label again") == [kept[1]]
    assert ledger.pseudo_labels(2, "no such stage") == []
