"""Dice of two readers' masks, with its interval by patient."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.errors import WorkspaceError
from ssl_core.masks import files
from ssl_core.masks.overlap import average
from ssl_core.readers.mask_agreement import mask_agreement, mean_dice
from ssl_core.records import HeldRead, Label
from tests.ledger_records import NAN

SHAPE = (6, 10)


def box(columns: int, rows: int = 6) -> np.ndarray:
    """`rows * columns` pixels in the upper left corner."""
    mask = np.zeros(SHAPE, bool)
    mask[:rows, :columns] = True
    return mask


@pytest.fixture
def said(tmp_path):
    """Labels of a reader, an item each: a mask, 0.0 or NaN; None is no label."""

    def labels(reader: str, *told: np.ndarray | float | None, finding: str = "mass", **more):
        return [
            Label(
                str(i),
                finding,
                1.0 if isinstance(one, np.ndarray) else one,
                reader,
                more.get("source", "label_studio"),
                f"{reader}:{i}:{finding}",
                role=more.get("role", "reader"),
                mask=files.keep(tmp_path, one) if isinstance(one, np.ndarray) else None,
            )
            for i, one in enumerate(told)
            if one is not None
        ]

    labels.load = partial(files.load, tmp_path)
    return labels


def test_dice_by_hand(said):
    ours = said("ann", box(4), box(5), 0.0, 0.0, box(3), NAN, box(2), None)
    theirs = said("bob", box(6), box(5), 0.0, box(2), 0.0, box(1), NAN, box(2))
    (one,) = mask_agreement(ours + theirs, said.load)
    assert (one.finding, one.readers) == ("mass", ("ann", "bob"))
    # 2 · 24 / (24 + 36) = .8, then 1, both absent 1, and twice one absent
    assert one.dice.value == pytest.approx((0.8 + 1 + 1 + 0 + 0) / 5)
    assert one.drawn.value == pytest.approx((0.8 + 1 + 0 + 0) / 4)
    assert (one.dice.n, one.drawn.n, one.both_absent, one.unsure) == (5, 4, 1, 2)
    assert one.worth == 5
    assert one.dice.low < one.dice.value < one.dice.high


def test_both_absent_is_full_agreement_and_says_of_how_many(said):
    (one,) = mask_agreement(said("ann", 0.0, 0.0, 0.0) + said("bob", 0.0, 0.0, 0.0), said.load)
    assert (one.dice.value, one.dice.high, one.dice.n) == (1.0, 1.0, 3)
    assert 0 < one.dice.low < 0.5  # three items tell little
    assert math.isnan(one.drawn.value)
    assert (one.drawn.n, one.both_absent) == (0, 3)


def test_masks_that_lie_apart_have_none(said):
    right = box(10) & ~box(5)
    (one,) = mask_agreement(said("ann", box(5)) + said("bob", right), said.load)
    assert (one.dice.value, one.dice.low) == (0.0, 0.0)


def test_a_finding_that_a_small_size_would_lose_still_counts(said):
    speck, other = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    speck[0, 0] = other[5, 9] = True
    (one,) = mask_agreement(said("ann", speck) + said("bob", other), said.load)
    assert one.dice.value == 0.0


def test_only_what_was_asked_for_counts(said):
    labels = said("ann", box(4), box(4)) + said("bob", box(4), box(8))
    labels += said("import", box(1), box(1), source="import")
    labels += said("zoe", box(1), box(1), role="adjudicator")
    reads = [
        HeldRead(f"{reader}:{i}", i, reader, outcome, "", None, None, "reader", False, 1)
        for reader, i, outcome in (
            ("ann", "0", "read"),
            ("bob", "0", "read"),
            ("ann", "1", "read"),
            ("bob", "1", "withdrawn"),
        )
    ]
    (one,) = mask_agreement(labels, said.load, reads)
    assert (one.readers, one.dice.value, one.dice.n) == (("ann", "bob"), 1.0, 1)


def test_findings_and_pairs_are_told_apart(said):
    labels = said("ann", box(4)) + said("bob", box(6)) + said("cy", box(4))
    labels += said("ann", 0.0, finding="nodule") + said("bob", 0.0, finding="nodule")
    found = mask_agreement(labels, said.load)
    told = {(one.finding, *one.readers): one.dice.value for one in found}
    assert told == {
        ("mass", "ann", "bob"): pytest.approx(0.8),
        ("mass", "ann", "cy"): 1.0,
        ("mass", "bob", "cy"): pytest.approx(0.8),
        ("nodule", "ann", "bob"): 1.0,
    }


def test_weights_speak_of_the_pool(said):
    labels = said("ann", box(4), 0.0, box(2)) + said("bob", box(6), 0.0, 0.0)
    weigh = {"0": 1.0, "1": 9.0}.get
    (one,) = mask_agreement(labels, said.load, weigh=lambda ids: {i: weigh(i, 0.0) for i in ids})
    assert one.dice.value == pytest.approx((1 * 0.8 + 9 * 1) / 10)
    assert (one.dice.n, one.drawn.n, one.both_absent) == (2, 1, 1)
    assert one.worth == pytest.approx(100 / 82)


def test_a_lost_mask_and_masks_of_two_sizes_are_named(said, tmp_path):
    labels = said("ann", box(4)) + said("bob", np.ones((3, 3), bool))
    with pytest.raises(WorkspaceError, match=r"'mass' on the item 0 by ann and bob are of diff"):
        mask_agreement(labels, said.load)
    for one in tmp_path.iterdir():
        one.unlink()
    with pytest.raises(WorkspaceError, match="is missing"):
        mask_agreement(labels, said.load)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1) | st.sampled_from([0.0, 1.0]), st.integers(0, 4)), min_size=1
    )
)
def test_unweighted_it_is_the_mean_that_models_are_measured_by(rows):
    values = {str(i): value for i, (value, _) in enumerate(rows)}
    groups = {str(i): f"P{group}" for i, (_, group) in enumerate(rows)}
    one = mean_dice(values, dict.fromkeys(values, 1.0), groups)
    other = average(np.array([[v] for v in values.values()]), list(groups.values()))
    expected = other.findings[0].estimate
    assert one.value == pytest.approx(expected.value, abs=1e-12)
    assert one.n == expected.n
    assert 0 <= one.low <= one.value <= one.high <= 1
    off = dict.fromkeys(groups.values(), 0.0)
    for i, value in values.items():
        off[groups[i]] += value - expected.value
    # Patients whose deviations cancel out leave no error to compare.
    if 0.001 < expected.value < 0.999 and max(map(abs, off.values())) > 0.01:
        assert (one.low, one.high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_the_interval_covers():
    """Half of the patients' two items alike; 40 patients: .92 of 400 at the least."""
    rng, hits = np.random.default_rng(3), 0
    groups = {str(i): str(i // 2) for i in range(80)}
    weights = dict.fromkeys(groups, 1.0)
    for _ in range(400):
        alike = np.repeat(rng.random(40) < 0.5, 2)
        values = np.where(alike, np.repeat(rng.beta(8, 1.2, 40), 2), rng.beta(8, 1.2, 80))
        found = mean_dice(dict(zip(groups, values.tolist(), strict=True)), weights, groups)
        hits += found.low <= 8 / 9.2 <= found.high
    assert hits / 400 > 0.92
