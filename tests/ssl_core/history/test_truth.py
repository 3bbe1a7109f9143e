"""What counts as true where readers were several, entry by entry."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from ssl_core.history.truth import disagreements, label_matrix, unusable_items
from ssl_core.records import HeldRead, Label
from tests.ledger_records import NAN

ANN, BOB, DAN = "ann", "bob", "dan"
ANN_AGAIN = "ann (again)"  # where ann reads what she has answered once more
CAT = "cat"  # the adjudicator


def said(reader: str, value: float, item="a", finding="mass", source="label_studio") -> Label:
    role = "adjudicator" if reader == CAT else "reader"
    key = f"{reader}:{item}:{finding}"
    return Label(item, finding, value, reader, source, key, role=role)


def imported(value: float) -> Label:
    return said("import", value, source="import")


def did(reader: str, outcome: str = "read", item: str = "a") -> HeldRead:
    role = "adjudicator" if reader == CAT else "reader"
    return HeldRead(f"{reader}:{item}", item, reader, outcome, "", None, None, role, False, 1)


TABLE = [
    ([], NAN),
    ([said(ANN, 1.0)], 1.0),
    ([said(ANN, 0.0)], 0.0),
    ([said(ANN, NAN)], NAN),
    ([said(ANN, 1.0), said(BOB, 1.0)], 1.0),
    ([said(ANN, 1.0), said(BOB, 0.0)], NAN),  # even
    ([said(ANN, 1.0), said(BOB, NAN)], 1.0),  # cannot tell is no vote
    ([said(ANN, NAN), said(BOB, NAN)], NAN),
    ([said(ANN, 1.0), said(BOB, 0.0), said(DAN, 0.0)], 0.0),
    ([said(ANN, 1.0), said(BOB, 0.0), said(DAN, NAN)], NAN),
    ([said(CAT, 1.0), said(ANN, 0.0), said(BOB, 0.0)], 1.0),
    ([said(CAT, 0.0), said(ANN, 1.0), said(BOB, 0.0)], 0.0),
    ([said(CAT, NAN), said(ANN, 1.0), said(BOB, 1.0), said(DAN, 0.0)], NAN),
    ([said(CAT, NAN), imported(1.0)], NAN),
    ([said(CAT, 0.0), imported(1.0)], 0.0),
    ([imported(1.0)], 1.0),
    ([imported(NAN)], NAN),
    ([imported(1.0), said(ANN, 0.0)], 0.0),  # a reader who answered, whatever came with the import
    ([imported(1.0), said(ANN, NAN)], 1.0),  # one who could not tell has not
    ([imported(1.0), said(ANN, 0.0), said(BOB, 1.0)], NAN),
    ([said("archive", 1.0, source="archive")], 1.0),
    ([said(ANN, 1.0), said(ANN_AGAIN, 0.0)], NAN),  # who contradicts themselves has no vote
    ([said(ANN, 1.0), said(ANN_AGAIN, 1.0)], 1.0),
    ([said(ANN, 1.0), said(ANN_AGAIN, 1.0), said(BOB, 0.0)], NAN),  # nor has anybody two
    ([said(ANN, 1.0), said(ANN_AGAIN, 0.0), said(BOB, 0.0)], 0.0),
    ([said(ANN, 1.0), said(ANN_AGAIN, NAN)], 1.0),
    ([imported(0.0), said(ANN, 1.0), said(ANN_AGAIN, 1.0)], 1.0),
]


@pytest.mark.parametrize(("labels", "truth"), TABLE)
def test_the_truth_by_hand_in_any_order(labels, truth):
    for order in permutations(labels):
        found = label_matrix(["a"], order, ["mass"])
        np.testing.assert_array_equal(found, [[truth]])


def test_each_item_and_finding_is_its_own():
    labels = [
        said(ANN, 1.0, "a", "mass"),
        said(BOB, 0.0, "a", "mass"),
        said(ANN, 0.0, "a", "nodule"),
        said(CAT, 1.0, "b", "mass"),
        said(ANN, 1.0, "stranger", "mass"),
    ]
    found = label_matrix(["b", "c", "a"], labels, ["nodule", "mass"])
    np.testing.assert_array_equal(found, [[NAN, 1.0], [NAN, NAN], [0.0, NAN]])
    assert label_matrix([], labels, ["nodule", "mass"]).shape == (0, 2)


@pytest.mark.parametrize(
    ("reads", "out"),
    [
        ([], False),
        ([did(ANN)], False),
        ([did(ANN, "unusable")], True),
        ([did(ANN, "skipped"), did(BOB, "withdrawn")], False),
        ([did(ANN, "unusable"), did(BOB)], True),  # one who says so is enough
        ([did(ANN, "unusable"), did(CAT)], False),
        ([did(ANN), did(BOB), did(CAT, "unusable")], True),
        ([did(ANN, "unusable"), did(CAT, "skipped")], True),
        ([did(ANN, "unusable"), did(CAT, "withdrawn")], True),
        ([did(ANN), did(CAT, "withdrawn")], False),
    ],
)
def test_who_takes_an_item_out(reads, out):
    for order in permutations(reads):
        assert unusable_items([*order, did(BOB, item="b")]) == ({"a"} if out else set())


TWO_READ = [did(ANN), did(BOB)]


@pytest.mark.parametrize(
    ("reads", "labels", "apart"),
    [
        ([did(ANN)], [said(ANN, 1.0)], False),
        (TWO_READ, [said(ANN, 1.0), said(BOB, 1.0)], False),
        (TWO_READ, [said(ANN, 1.0), said(BOB, 0.0)], True),
        (TWO_READ, [said(ANN, 1.0), said(BOB, NAN)], False),
        (TWO_READ, [said(ANN, 1.0), said(BOB, 0.0, finding="nodule")], False),
        ([did(ANN)], [said(ANN, 1.0), imported(0.0)], False),
        ([did(ANN), did(BOB, "unusable")], [said(ANN, 1.0)], True),
        ([did(ANN, "unusable"), did(BOB, "unusable")], [], False),
        ([did(ANN), did(BOB, "skipped")], [said(ANN, 1.0)], False),
        ([did(ANN), did(BOB, "withdrawn")], [said(ANN, 1.0), said(BOB, NAN)], False),
        ([*TWO_READ, did(CAT)], [said(ANN, 1.0), said(BOB, 0.0), said(CAT, 1.0)], False),
        ([*TWO_READ, did(CAT, "unusable")], [said(ANN, 1.0), said(BOB, 0.0)], False),
        ([*TWO_READ, did(CAT, "skipped")], [said(ANN, 1.0), said(BOB, 0.0)], True),
        ([*TWO_READ, did(CAT, "withdrawn")], [said(ANN, 1.0), said(BOB, 0.0)], True),
    ],
)
def test_when_readers_disagree(reads, labels, apart):
    assert disagreements(reads, labels) == (["a"] if apart else [])


def test_disputes_come_by_first_read():
    reads = [did(r, item=item) for item in ("c", "a", "b") for r in (ANN, BOB)]
    labels = [said(r, v, item) for item in "abc" for r, v in ((ANN, 1.0), (BOB, 0.0))]
    assert disagreements(reads, labels) == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("reads", "masks", "apart"),
    [
        (TWO_READ, {ANN: "left", BOB: "left"}, False),
        (TWO_READ, {ANN: "left", BOB: "right"}, True),
        ([*TWO_READ, did(CAT)], {ANN: "left", BOB: "right"}, False),  # the adjudicator has read
        (TWO_READ, {ANN: "left"}, False),
    ],
)
def test_masks_of_one_finding_that_lie_apart_are_a_dispute(reads, masks, apart):
    asked = []

    def other(first: str, second: str) -> bool:
        asked.append((first, second))
        return first != second

    labels = [replace(said(reader, 1.0), mask=mask) for reader, mask in masks.items()]
    assert disagreements(reads, labels, other) == (["a"] if apart else [])
    assert asked == ([("left", "right")] if apart else [])  # one mask is not held against itself
    assert disagreements(reads, labels) == []
