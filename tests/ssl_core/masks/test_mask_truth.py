"""What counts as true, pixel by pixel: every case by hand on four pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from ssl_core.errors import WorkspaceError
from ssl_core.history.truth import label_matrix
from ssl_core.masks.files import digest_of, keep
from ssl_core.masks.overlap import as_truth, dice
from ssl_core.masks.store import MaskStore
from ssl_core.masks.truth import mask_truth
from ssl_core.records import AGAIN, Label

NAN = math.nan
ANN, BOB, EVE, CAT = "ann", "bob", "eve", "cat"  # cat is the adjudicator
MASKS = {
    text: np.array([c == "1" for c in text], bool).reshape(2, 2)
    for text in (f"{k:04b}" for k in range(16))
}
ABSENT, UNSURE = "absent", "cannot tell"


def said(reader: str, what: str, item="a", finding="mass", source="label_studio") -> Label:
    """A label: a mask by its four pixels, absent, or cannot tell."""
    value = {ABSENT: 0.0, UNSURE: NAN}.get(what, 1.0)
    mask = digest_of(MASKS[what]) if value == 1.0 else None
    role = "adjudicator" if reader == CAT else "reader"
    key = f"{reader}:{item}:{finding}"
    return Label(item, finding, value, reader, source, key, role=role, mask=mask)


def imported(what: str) -> Label:
    return said("import", what, source="import")


@pytest.fixture
def store(tmp_path):
    (tmp_path / "images").mkdir()
    for mask in MASKS.values():
        keep(tmp_path / "masks", mask)
    return MaskStore(tmp_path / "images", tmp_path / "masks", 2, "pad")


TABLE = [
    ([], "????", NAN),
    ([said(ANN, "1100")], "1100", 1.0),
    ([said(ANN, ABSENT)], "0000", 0.0),
    ([said(ANN, UNSURE)], "????", NAN),
    ([said(ANN, "1100"), said(BOB, "1010")], "1??0", 1.0),
    ([said(ANN, "1100"), said(BOB, "1100")], "1100", 1.0),
    ([said(ANN, "1100"), said(BOB, ABSENT)], "??00", NAN),
    ([said(ANN, ABSENT), said(BOB, ABSENT)], "0000", 0.0),
    ([said(ANN, "1111"), said(BOB, ABSENT)], "????", NAN),  # no pixel is known
    ([said(ANN, "1100"), said(BOB, UNSURE)], "1100", 1.0),  # cannot tell is no vote
    ([said(ANN, "1100"), said(BOB, "1010"), said(EVE, "0110")], "1110", 1.0),
    ([said(ANN, "1100"), said(BOB, "1010"), said(EVE, ABSENT)], "1000", 1.0),
    ([said(ANN, "1100"), said(BOB, ABSENT), said(EVE, ABSENT)], "0000", 0.0),
    ([said(ANN, "1000"), said(BOB, "0001"), said(EVE, ABSENT)], "0000", 1.0),  # in two places
    ([said(ANN, "1100"), said(BOB, "1010"), said(EVE, UNSURE)], "1??0", 1.0),
    ([said(ANN, "1100"), said(BOB, "1010"), said(CAT, "0011")], "0011", 1.0),
    ([said(ANN, "1100"), said(BOB, "1010"), said(CAT, ABSENT)], "0000", 0.0),
    ([said(ANN, "1100"), said(BOB, "1010"), said(CAT, UNSURE)], "????", NAN),
    ([said(ANN, "1100"), said(ANN + AGAIN, "0011")], "1100", 1.0),  # one person has one vote
    ([said(ANN, "1100"), said(ANN + AGAIN, ABSENT)], "????", NAN),
    ([said(ANN, "1100"), said(ANN + AGAIN, ABSENT), said(BOB, "0011")], "0011", 1.0),
    ([imported("1100"), said(ANN, "1100"), said(ANN + AGAIN, ABSENT)], "????", NAN),
    ([said(ANN, "1100"), said(ANN + AGAIN, "1100"), said(BOB, "0011")], "????", 1.0),
    ([imported("0110")], "0110", 1.0),
    ([imported(ABSENT)], "0000", 0.0),
    ([imported("0110"), said(ANN, "1000")], "1000", 1.0),  # a reader's mask, not the file's
    ([imported("0110"), said(ANN, UNSURE)], "0110", 1.0),
    ([imported("0110"), said(CAT, UNSURE)], "????", NAN),
    ([imported("0110"), said(ANN, "1000"), said(CAT, ABSENT)], "0000", 0.0),
]


def pixels(text: str) -> list[list[float]]:
    values = [NAN if c == "?" else float(c) for c in text]
    return [values[:2], values[2:]]


@pytest.mark.parametrize(("labels", "expected", "present"), TABLE)
def test_the_rule_by_hand(store, labels, expected, present):
    for order in permutations(labels):
        truth = mask_truth(["a"], order, ["mass"], store)
        found = truth.at([0])
        assert (found.dtype, found.shape) == (np.float32, (1, 1, 2, 2))
        np.testing.assert_array_equal(found[0, 0], pixels(expected))
        np.testing.assert_array_equal(truth.present, [[present]])
        assert truth.known.tolist() == [expected != "????"]


def test_only_what_is_drawn_or_agreed_to_be_absent_is_measured(store):
    asked = {
        "0": [said(ANN, "1100"), said(BOB, ABSENT)],  # nobody knows whether it is there
        "1": [said(ANN, "1100"), said(BOB, "0011")],  # it is there, and no pixel is sure
        "2": [said(ANN, "1000"), said(BOB, "0001"), said(EVE, ABSENT)],  # likewise
        "3": [said(ANN, "1100"), said(BOB, "1010")],
        "4": [said(ANN, ABSENT)],
        "5": [said(ANN, "1100"), said(BOB, ABSENT), said(EVE, ABSENT)],
        "6": [],
    }
    labels = [replace(label, item_id=i) for i, some in asked.items() for label in some]
    truth = mask_truth(list(asked), labels, ["mass"], store)
    inside, sure, known = as_truth(truth.at(range(7)), truth.present)
    assert known[:, 0].tolist() == [False, False, False, True, True, True, False]
    assert inside.sum(axis=(1, 2, 3)).tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert sure[3, 0].tolist() == [[True, False], [False, True]]
    nothing = np.zeros(inside.shape, bool)
    np.testing.assert_array_equal(dice(nothing, inside, known)[:, 0], [NAN, NAN, NAN, 0, 1, 1, NAN])


def test_items_and_findings_keep_their_places(store):
    labels = [
        said(ANN, "1111", "b", "edema"),
        said(ANN, ABSENT, "a", "mass"),
        said(BOB, "0001", "b", "mass"),
        said(BOB, "0100", "stranger", "mass"),
        said(ANN, "1111", "d", "mass"),
        said(BOB, ABSENT, "d", "mass"),
        said(BOB, "0011", "d", "edema"),
    ]
    ids, findings = ["a", "b", "c", "d"], ["mass", "edema"]
    truth = mask_truth(ids, iter(labels), findings, store)
    np.testing.assert_array_equal(truth.present, label_matrix(ids, labels, findings))
    assert truth.known.tolist() == [True, True, False, True]
    found = truth.at([3, 1, 1, 0, 2])
    expected = [
        ["????", "0011"],
        ["0001", "1111"],
        ["0001", "1111"],
        ["0000", "????"],
        ["????", "????"],
    ]
    np.testing.assert_array_equal(found, [[pixels(t) for t in row] for row in expected])
    assert truth.at([]).shape == (0, 2, 2, 2)


def test_masks_are_read_when_they_are_asked_for(store):
    labels = [said(ANN, "1100", "a"), said(ANN, "0011", "b")]
    truth = mask_truth(["a", "b"], labels, ["mass"], store)
    (store.kept / f"{labels[1].mask}.png").unlink()
    assert truth.at([0]).sum() == 2
    with pytest.raises(WorkspaceError, match="is missing"):
        truth.at([1])


def test_a_label_of_an_older_version_has_no_mask(store):
    old = Label("a", "mass", 1.0, "import", "import", "k")
    with pytest.raises(WorkspaceError, match=r"'mass' on the item a has no mask: .* older version"):
        mask_truth(["a"], [old], ["mass"], store)


def test_many_even_votes_are_told_apart(store):
    ids = [f"i{k}" for k in range(150)]
    whole = [k % 3 == 0 for k in range(150)]
    labels = [said(BOB, ABSENT, i) for i in ids]
    labels += [said(ANN, "1111" if w else "0111", i) for i, w in zip(ids, whole, strict=True)]
    truth = mask_truth(ids, labels, ["mass"], store)
    assert truth.known.tolist() == [not w for w in whole]
