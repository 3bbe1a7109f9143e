"""Readers against a confident model, by hand; the vault is never asked."""

from __future__ import annotations

import math

import pytest

from ssl_core.readers.contradictions import contradictions
from ssl_core.records import Label
from tests.rounds_by_hand import ids, made, says, trained


@pytest.fixture
def ws(tmp_path, ledger_url):
    ws = made(tmp_path / "w", ledger_url)
    yield ws
    ws.ledger.close()


def say(ws, item_id, value, reader="ann", finding="Spot"):
    key = f"{reader}{item_id}{finding}"
    ws.ledger.add_labels([Label(item_id, finding, value, reader, "label_studio", key)])


def test_the_most_confident_come_first_from_train_and_validation(ws):
    train, validation, vault = (ids(ws, split) for split in ("train", "validation", "vault"))
    say(ws, train[0], 0.0)
    trained(ws, 1, t1=0.7, s1=0.8)
    say(ws, train[1], 1.0)
    say(ws, train[2], 1.0)
    say(ws, validation[0], 1.0)
    say(ws, vault[0], 0.0)
    opinions = {train[0]: 0.85, train[1]: 0.9, train[2]: 0.25, validation[0]: 0.05, vault[0]: 1.0}
    says(ws, "s1", {i: [p] for i, p in opinions.items()})
    found = contradictions(ws, 1)
    assert [(c.item_id, c.split, c.label) for c in found] == [
        (validation[0], "validation", 1.0),
        (train[0], "train", 0.0),
    ]
    assert [c.confidence for c in found] == pytest.approx([0.95, 0.85])
    assert [c.probability for c in found] == pytest.approx([0.05, 0.85])
    assert [c.trained_on for c in found] == [False, True]
    assert found[1].readers == (("ann", 0.0),)
    looser = contradictions(ws, 1, least=0.7)
    assert [c.item_id for c in looser] == [validation[0], train[0], train[2]]
    assert not looser[2].trained_on  # it was labeled after the round opened
    assert len(contradictions(ws, 1, least=0.7, most=1)) == 1
    assert ws.ledger.vault_looks() == []


def test_what_readers_hold_true_counts_and_not_one_of_them(ws):
    trained(ws, 1, t1=0.7, s1=0.8)
    first, second = ids(ws, "train")[:2]
    for reader, value in (("ann", 1.0), ("bob", 0.0), ("cat", 0.0)):
        say(ws, first, value, reader)
    for reader, value in (("ann", 1.0), ("bob", 0.0)):
        say(ws, second, value, reader)  # an even vote is unknown
    says(ws, "s1", {first: [0.95], second: [0.95]})
    (found,) = contradictions(ws, 1)
    assert (found.item_id, found.label) == (first, 0.0)
    assert found.readers == (("ann", 1.0), ("bob", 0.0), ("cat", 0.0))


def test_of_exclusive_classes_an_item_appears_once(tmp_path, ledger_url):
    ws = made(tmp_path / "w", ledger_url, "multi_class")
    trained(ws, 1, t1=0.7, s1=0.8)
    item = ids(ws, "train")[0]
    for finding, value in (("plain", 1.0), ("spot", 0.0), ("bar", 0.0)):
        say(ws, item, value, finding=finding)
    says(ws, "s1", {item: [0.02, 0.95, 0.03]})
    (found,) = contradictions(ws, 1)
    assert (found.finding, found.label, found.confidence) == ("spot", 0.0, pytest.approx(0.95))
    ws.ledger.close()


def test_a_finding_that_nobody_knows_contradicts_nothing(ws):
    trained(ws, 1, t1=0.7, s1=0.8)
    item = ids(ws, "train")[0]
    say(ws, item, math.nan)
    assert contradictions(ws, 1) == []
    with pytest.raises(ValueError, match=r"least is 0\.4"):
        contradictions(ws, 1, least=0.4)
