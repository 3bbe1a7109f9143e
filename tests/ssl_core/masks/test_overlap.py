"""Overlap of masks: by hand, against naive loops, laws, and intervals that cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.evidence import compare
from ssl_core.masks.overlap import (
    average,
    bootstrap,
    dice,
    iou,
    pixel_accuracy,
    pooled_iou,
    presence,
    shown,
)
from ssl_core.masks.scores import mask_metrics

QUICK = settings(deadline=None, max_examples=30)


def mask(*rows):
    """One item with one finding, drawn as text: # is in the mask."""
    return np.array([[[[c == "#" for c in row] for row in rows]]])


@st.composite
def pairs(draw):
    """Two stacks of masks of one shape, sparse to dense, some empty."""
    shape = draw(st.tuples(*[st.integers(1, n) for n in (4, 3, 6, 6)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    dense = rng.choice([0.0, 0.1, 0.5, 1.0], (2, *shape[:2]))[..., None, None]
    return tuple(rng.random((2, *shape)) < dense)


def naive(a, b):
    """Dice, IoU and accuracy of one pair from sets of places."""
    ours, theirs = ({tuple(p) for p in np.argwhere(m).tolist()} for m in (a, b))
    same = sum(x == y for x, y in zip(a.ravel(), b.ravel(), strict=True)) / a.size
    if not ours | theirs:
        return 1.0, 1.0, same
    both = len(ours & theirs)
    return 2 * both / (len(ours) + len(theirs)), both / len(ours | theirs), same


A = mask("##..", "##..")
B = mask(".##.", ".##.")
EMPTY = mask("....", "....")


def test_by_hand():
    # two of four pixels shared: Dice 2·2/8, IoU 2/6, and 4 of 8 pixels differ
    assert dice(A, B)[0, 0] == 0.5
    assert iou(A, B)[0, 0] == pytest.approx(1 / 3)
    assert pixel_accuracy(A, B)[0, 0] == 0.5


def test_empty_masks_are_defined():
    for measure in (dice, iou):
        assert measure(EMPTY, EMPTY)[0, 0] == 1.0
        assert measure(A, EMPTY)[0, 0] == 0.0
        assert measure(EMPTY, A)[0, 0] == 0.0
    assert pixel_accuracy(EMPTY, EMPTY)[0, 0] == 1.0


@QUICK
@given(pairs())
def test_the_naive_numbers(masks):
    a, b = masks
    expected = [[naive(x, y) for x, y in zip(m, t, strict=True)] for m, t in zip(a, b, strict=True)]
    found = np.stack([dice(a, b), iou(a, b), pixel_accuracy(a, b)], axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-15)


@QUICK
@given(pairs())
def test_symmetric_within_range_and_blind_to_mirrors(masks):
    a, b = masks
    for measure in (dice, iou, pixel_accuracy):
        found = measure(a, b)
        np.testing.assert_array_equal(found, measure(b, a))
        assert ((found >= 0) & (found <= 1)).all()
        np.testing.assert_allclose(found, measure(a[..., ::-1], b[..., ::-1]), atol=1e-15)
        np.testing.assert_array_equal(measure(a, a), 1.0)
    d = dice(a, b)
    np.testing.assert_allclose(iou(a, b), d / (2 - d), atol=1e-15)


def test_unknown_masks_are_left_out():
    truth = np.concatenate([A, A, EMPTY])
    known = np.array([[True], [False], [True]])
    found = dice(np.concatenate([A, EMPTY, A]), truth, known)
    np.testing.assert_array_equal(found[:, 0], [1.0, math.nan, 0.0])
    mean = average(found).findings[0].estimate
    assert (mean.value, mean.n) == (0.5, 2)
    nothing = average(np.full((3, 1), math.nan)).macro.estimate
    assert math.isnan(nothing.value)
    assert nothing.n == 0


def test_pixels_that_are_not_sure_count_neither_way():
    sure = mask("####", "#...")
    assert pixel_accuracy(A, B, sure=sure)[0, 0] == 2 / 5
    nowhere = mask("....", "....")
    assert math.isnan(pixel_accuracy(A, B, sure=nowhere)[0, 0])
    assert math.isnan(pixel_accuracy(A, B, np.array([[False]]), sure)[0, 0])


def test_of_a_finding_that_nobody_shows_no_overlap_is_measured():
    truth = np.zeros((3, 3, 2, 2), bool)
    truth[0, 0] = truth[2, 2] = True
    known = np.ones((3, 3), bool)
    known[2, 2] = False  # the third finding's only mask is not known
    known[1, 0] = False
    expected = [[True, False, False], [False, False, False], [True, False, False]]
    np.testing.assert_array_equal(shown(truth, known), expected)
    assert shown(truth)[:, 2].all()
    found = mask_metrics(truth * 0.9, truth, known)
    for name in ("dice", "iou", "pooled iou"):
        values = [s.estimate.value for s in found[name].findings]
        np.testing.assert_array_equal(values, [1.0, np.nan, np.nan])
        assert found[name].macro.estimate.value == 1.0
    assert found["specificity"].findings[1].estimate.value == 1.0  # of normal images it can be


def test_the_mean_has_the_variance_of_a_mean():
    values = np.random.default_rng(0).random((30, 1))
    found = average(values).findings[0]
    assert found.estimate.value == pytest.approx(values.mean(), abs=1e-15)
    assert found.variance == pytest.approx(values.var(ddof=1) / 30, abs=1e-15)
    assert 0 < found.estimate.low < found.estimate.value < found.estimate.high < 1


def test_copies_of_a_patient_teach_nothing():
    values = np.random.default_rng(1).random((12, 2))
    once = average(values, np.arange(12))
    thrice = average(np.repeat(values, 3, axis=0), np.repeat(np.arange(12), 3))
    assert thrice.macro.estimate.low == pytest.approx(once.macro.estimate.low)
    assert thrice.macro.variance == pytest.approx(once.macro.variance)


def test_all_perfect_is_not_certain():
    found = average(np.ones((20, 1))).macro.estimate
    assert (found.value, found.high) == (1.0, 1.0)
    assert found.low == pytest.approx(0.025 ** (1 / 20))


def test_two_models_are_compared_in_pairs():
    rng = np.random.default_rng(2)
    hard = rng.random((80, 1))
    ours, theirs = np.clip(hard + 0.05 + 0.02 * rng.random((80, 1)), 0, 1), hard
    difference = compare(average(ours), average(theirs)).macro
    assert difference.low > 0.04  # far tighter than either mean
    assert compare(average(ours), average(ours)).macro.p == 1.0


def clusters(rng, patients, sets):
    """Values `(patients·3, sets)`: three items a patient that share most of their luck."""
    luck = rng.beta(4, 2, (patients, 1, sets))
    own = rng.beta(4, 2, (patients, 3, sets))
    return (0.8 * luck + 0.2 * own).reshape(-1, sets), np.repeat(np.arange(patients), 3)


def test_intervals_cover_by_patient():
    values, patients = clusters(np.random.default_rng(3), 40, 1000)
    truth = 4 / 6

    def covered(per_finding):
        found = [s.estimate for s in per_finding.findings]
        return np.mean([e.low <= truth <= e.high for e in found])

    assert 0.93 <= covered(average(values, patients)) <= 0.97
    assert covered(average(values)) < 0.85  # items of one patient are not independent


def test_bootstrap_agrees_with_the_influence():
    values, patients = clusters(np.random.default_rng(4), 200, 3)
    values[5, 0] = math.nan
    drawn = bootstrap(values, patients, np.random.default_rng(5))
    exact = average(values, patients)
    for one, other in zip(drawn, [*exact.findings, exact.macro], strict=True):
        assert one.value == pytest.approx(other.estimate.value)
        assert one.n == other.estimate.n
        assert one.low == pytest.approx(other.estimate.low, abs=0.006)
        assert one.high == pytest.approx(other.estimate.high, abs=0.006)
    assert drawn == bootstrap(values, patients, np.random.default_rng(5))


def test_bootstrap_of_too_little_has_no_bounds():
    one, whole = bootstrap(np.ones((3, 1)), ["a"] * 3, np.random.default_rng(0))
    assert one == whole or math.isnan(one.low)
    assert (one.value, one.n) == (1.0, 3)
    unknown, _ = bootstrap(np.full((3, 1), math.nan), None, np.random.default_rng(0))
    assert math.isnan(unknown.value)


def test_pooled_iou_by_hand_and_its_influence():
    predicted, truth = np.concatenate([A, A, EMPTY]), np.concatenate([B, A, EMPTY])
    found = pooled_iou(predicted, truth).macro
    assert found.estimate.value == pytest.approx((2 + 4 + 0) / (6 + 4 + 0))
    assert found.estimate.n == 2  # the item without a pixel says nothing
    # leaving an item out moves the ratio as its influence says, to first order
    many = np.random.default_rng(6).random((2, 300, 1, 4, 4)) < 0.4
    whole = pooled_iou(*many).macro
    less = pooled_iou(many[0][1:], many[1][1:]).macro.estimate.value
    assert whole.estimate.value - less == pytest.approx(whole.influence[0], abs=2e-5)


def test_presence_counts_images():
    predicted = np.concatenate([A, EMPTY, A, EMPTY, A])
    truth = np.concatenate([A, A, EMPTY, EMPTY, A])
    known = np.array([[True]] * 4 + [[False]])
    found = presence(predicted, truth, known)
    assert found["sensitivity"].macro.estimate.value == 0.5
    assert found["specificity"].macro.estimate.value == 0.5
    assert found["sensitivity"].macro.estimate.n == 2
    assert presence(predicted, truth, known, least=5)["specificity"].macro.estimate.value == 1.0


@pytest.mark.parametrize(
    ("predicted", "truth", "known", "message"),
    [
        (A[0], A[0], None, r"must both be \(N, C, H, W\)"),
        (A, A[..., :2], None, "must both be"),
        (A.astype(float), A, None, "must be boolean"),
        (A[..., :0], A[..., :0], None, "no pixels"),
        (A, A, np.ones((2, 1), bool), "known is"),
        (A, A, np.ones((1, 1)), "known is"),
    ],
)
def test_wrong_inputs_are_refused(predicted, truth, known, message):
    with pytest.raises(ValueError, match=message):
        dice(predicted, truth, known)


def test_wrong_values_and_groups_are_refused():
    with pytest.raises(ValueError, match="values must be"):
        average([[1.5]])
    with pytest.raises(ValueError, match="groups have shape"):
        average([[0.5]], ["a", "b"])
