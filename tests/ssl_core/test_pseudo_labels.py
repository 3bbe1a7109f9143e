"""What is kept: the authors' own lists row for row, hand counts, exact rounding, laws."""

from __future__ import annotations

import gzip
import math
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssl_core.pseudo_labels import (
    class_prior,
    keep_most_confident,
    keep_most_confident_class,
    soften,
)

NAN = math.nan
QUICK = settings(deadline=None, max_examples=50)  # no timing: machines are shared
DATA = Path(os.environ.get("READLOOP_DATA", "../shared/data")) / "s0_teacher"
EFFUSION = 3  # the third label column; column 0 is the file's name

fractions = st.integers(0, 100).map(lambda percent: Fraction(percent, 100))


def keep(scores, prior, kappa):
    """One finding, given and answered as plain lists."""
    return keep_most_confident(np.array(scores, float)[:, None], np.array([prior]), kappa)[:, 0]


def same(kept, expected):
    np.testing.assert_array_equal(kept, np.array(expected, float))


def read(path):
    return [line.split() for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def exact_counts(kappa, positives, n):
    """S0's two floors in exact arithmetic: ⌊κπN⌋ and ⌊κ(1-π)N⌋ + 1, cut where they overlap."""
    high = math.floor(kappa * positives)
    low = math.floor(kappa * (n - positives)) + 1 if positives < n else 0
    return high, min(low, n - high)


# --- the authors' own files ----------------------------------------------------------------


@pytest.mark.parametrize(("share", "rest"), [("02p", "98p"), ("10p", "90p")])
def test_the_authors_kept_lists_come_out_row_for_row(share, rest):
    files = [f"teacher_{share}_00_scores", f"teacher_{share}_00_kept", f"train{rest}"]
    paths = [DATA / f"{name}.txt.gz" for name in files]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"the authors' files are not in {DATA} (set READLOOP_DATA)")
    scores, theirs, truth = (read(path) for path in paths)
    prior = np.array([np.mean([float(row[EFFUSION]) for row in truth])])
    kept = keep_most_confident(np.array([[float(row[1])] for row in scores]), prior, 0.75)
    ours = [
        (row[0], str(int(value)))
        for row, value in zip(scores, kept[:, 0], strict=True)
        if not np.isnan(value)
    ]
    assert ours == [(row[0], row[EFFUSION]) for row in theirs]
    assert len(ours) > 30_000


# --- by hand -------------------------------------------------------------------------------


def test_by_hand():
    # κπN = .5 · .4 · 10 = 2 highest; κ(1-π)N + 1 = 3 + 1 lowest
    scores = [0.91, 0.15, 0.35, 0.82, 0.05, 0.73, 0.22, 0.64, 0.48, 0.57]
    same(keep(scores, 0.4, 0.5), [1, 0, 0, 1, 0, NAN, 0, NAN, NAN, NAN])


def test_both_counts_are_floors_and_the_negatives_get_one_more():
    kept = keep(np.linspace(0.1, 0.9, 7), 0.5, 0.75)  # 2.625 → 2 and 2 + 1
    same(kept, [0, 0, 0, NAN, NAN, 1, 1])


def test_ties_give_the_negatives_the_earlier_rows_and_the_positives_the_later():
    same(keep([0.5] * 8, 0.5, 0.5), [0, 0, 0, NAN, NAN, NAN, 1, 1])
    same(keep([0.5, 0.2, 0.5, 0.5, 0.9], 0.4, 0.75), [0, 0, 0, NAN, 1])


def test_keeping_all_is_a_split_without_overlap():
    same(keep([0.9, 0.1, 0.4, 0.6], 0.5, 1), [1, 0, 0, 1])


def test_keep_fraction_zero_keeps_nothing():
    assert np.isnan(keep([0.1, 0.9], 0.5, 0)).all()


def test_a_class_with_prior_zero_gets_nothing():
    same(keep([0.1, 0.5, 0.9, 0.7], 0.0, 0.5), [0, 0, NAN, 0])
    same(keep([0.1, 0.5, 0.9, 0.7], 1.0, 0.5), [NAN, NAN, 1, 1])
    same(keep([0.1, 0.9], 0.0, 1), [0, 0])
    same(keep([0.1, 0.9], 1.0, 1), [1, 1])


def test_unscored_rows_are_neither_kept_nor_counted():
    scored = [0.91, 0.15, 0.35, 0.82, 0.05]
    with_gaps = [0.91, NAN, 0.15, 0.35, NAN, NAN, 0.82, 0.05]
    kept = keep(with_gaps, 0.4, 0.75)
    assert np.isnan(kept[[1, 4, 5]]).all()
    same(np.delete(kept, [1, 4, 5]), keep(scored, 0.4, 0.75))
    assert np.isnan(keep([NAN, NAN], 0.5, 1)).all()


def test_an_unknown_prior_keeps_nothing_of_its_finding_alone():
    scores = np.array([[0.1, 0.1], [0.9, 0.9]])
    kept = keep_most_confident(scores, np.array([NAN, 0.5]), 1)
    same(kept, [[NAN, 0], [NAN, 1]])


@pytest.mark.parametrize("prior", [0.0, 0.3, 1.0])
def test_no_item_and_one_item(prior):
    assert keep_most_confident(np.empty((0, 2)), np.full(2, prior), 0.75).shape == (0, 2)
    same(keep([0.99], prior, 0.75), [0] if prior < 1 else [NAN])  # the negatives' + 1
    same(keep([0.99], prior, 1), [1] if prior == 1 else [0])


@QUICK
@given(
    scores=hnp.arrays(float, st.tuples(st.integers(0, 12), st.just(3)), elements=st.floats(0, 1)),
    prior=hnp.arrays(float, 3, elements=st.floats(0, 1)),
    kappa=st.floats(0, 1),
)
def test_findings_are_each_on_their_own(scores, prior, kappa):
    together = keep_most_confident(scores, prior, kappa)
    for c in range(3):
        alone = keep_most_confident(scores[:, c : c + 1], prior[c : c + 1], kappa)
        same(together[:, c : c + 1], alone)


@QUICK
@given(
    scores=st.lists(st.one_of(st.floats(0, 1), st.just(NAN)), max_size=30),
    prior=st.floats(0, 1),
    kappa=st.floats(0, 1),
)
def test_the_kept_are_the_extremes(scores, prior, kappa):
    scores = np.array(scores, float)
    kept = keep(scores, prior, kappa)
    high, low, between = scores[kept == 1], scores[kept == 0], scores[np.isnan(kept)]
    between = between[~np.isnan(between)]
    assert not np.isnan(high).any()
    assert not np.isnan(low).any()
    assert high.min(initial=1) >= between.max(initial=0)
    assert between.min(initial=1) >= low.max(initial=0)
    assert high.min(initial=1) >= low.max(initial=0)


@QUICK
@given(st.data(), fractions)
def test_counts_are_those_of_exact_arithmetic(data, kappa):
    """π is a rounded quotient: κ·π·N that is whole must not fall to the number below."""
    n = data.draw(st.integers(1, 60_000))
    positives = data.draw(st.integers(0, n))
    scores = np.linspace(0, 1, n)
    kept = keep(scores, positives / n, float(kappa))
    expected = exact_counts(kappa, positives, n) if kappa else (0, 0)
    assert ((kept == 1).sum(), (kept == 0).sum()) == expected


def test_a_whole_product_that_floating_point_misses():
    misses = [
        (n, p)
        for n in range(1, 200)
        for p in range(n + 1)
        if Fraction(3, 4) * p == round(0.75 * p) and math.floor(0.75 * (p / n) * n) < 0.75 * p
    ]
    assert misses, "plain floors would do, and this test is idle"
    for n, positives in misses:
        assert (keep(np.linspace(0, 1, n), positives / n, 0.75) == 1).sum() == 0.75 * positives


def test_inputs_are_left_alone_and_float32_will_do():
    scores = np.array([[0.9], [0.1], [0.5]], np.float32)
    before = scores.copy()
    kept = keep_most_confident(scores, np.array([0.5], np.float32), 1)
    same(scores, before)
    assert kept.dtype == np.float64


@pytest.mark.parametrize("rule", [keep_most_confident, keep_most_confident_class])
@pytest.mark.parametrize(
    ("scores", "prior", "kappa", "message"),
    [
        (np.zeros(3), np.zeros(1), 0.5, r"scores must be \(N, C\)"),
        (np.zeros((3, 2)), np.zeros(3), 0.5, r"not \(3, 2\) and \(3,\)"),
        (np.full((3, 1), 1.5), np.zeros(1), 0.5, "scores must lie"),
        (np.zeros((3, 1)), np.array([-0.1]), 0.5, "class_prior must lie"),
        (np.zeros((3, 1)), np.zeros(1), 1.1, "keep_fraction must lie"),
        (np.zeros((3, 1)), np.zeros(1), NAN, "keep_fraction must lie"),
    ],
)
def test_wrong_shapes_and_ranges_are_refused(rule, scores, prior, kappa, message):
    with pytest.raises(ValueError, match=message):
        rule(scores, prior, kappa)


# --- exclusive classes ---------------------------------------------------------------------


def test_the_greedy_case_by_hand():
    scores = [
        [0.8, 0.1, 0.1],  # the surest: class 0, which has room for one
        [0.7, 0.2, 0.1],  # class 0 is full; visited again at .2, which class 1 still takes
        [0.1, 0.6, 0.3],  # class 1, room for two
        [0.2, 0.3, 0.5],  # class 2
        [0.4, 0.3, 0.3],  # visited at .3 before row 1 is at .2: takes class 1's last place
        [0.3, 0.3, 0.4],  # class 2 is full by now
    ]
    kept = keep_most_confident_class(np.array(scores), np.array([1, 2, 1]) / 6, 1)
    nothing = [NAN] * 3
    same(kept, [[1, 0, 0], nothing, [0, 1, 0], [0, 0, 1], [0, 1, 0], nothing])


def test_equal_pairs_go_in_row_order_then_class_order():
    kept = keep_most_confident_class(np.full((4, 2), 0.5), np.array([0.5, 0.5]), 1)
    same(kept, [[1, 0], [1, 0], [0, 1], [0, 1]])


def test_a_row_with_a_gap_is_neither_kept_nor_counted():
    scores = np.array([[0.9, 0.1], [NAN, 0.99], [0.8, 0.2], [0.3, 0.7]])
    kept = keep_most_confident_class(scores, np.array([2 / 3, 1 / 3]), 1)
    same(kept, [[1, 0], [NAN, NAN], [1, 0], [0, 1]])


def test_a_class_without_a_prior_gets_no_item():
    kept = keep_most_confident_class(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([NAN, 1.0]), 1)
    same(kept, [[0, 1], [0, 1]])


def test_exclusive_without_items_or_fraction():
    assert keep_most_confident_class(np.empty((0, 3)), np.full(3, 1 / 3), 1).shape == (0, 3)
    assert np.isnan(keep_most_confident_class(np.full((5, 2), 0.5), np.full(2, 0.5), 0)).all()


exclusive_scores = st.integers(2, 4).flatmap(
    lambda c: hnp.arrays(
        float, st.tuples(st.integers(0, 25), st.just(c)), elements=st.floats(0.01, 1)
    )
).map(lambda raw: raw / raw.sum(axis=1, keepdims=True))  # fmt: skip


@QUICK
@given(exclusive_scores, st.data(), fractions)
def test_one_class_an_item_and_quotas_are_filled_in_order(scores, data, kappa):
    n, classes = scores.shape
    cuts = sorted(
        data.draw(st.lists(st.integers(0, n), min_size=classes - 1, max_size=classes - 1))
    )
    share = np.diff([0, *cuts, n])
    kept = keep_most_confident_class(scores, share / max(n, 1), float(kappa))
    rows = kept[~np.isnan(kept).all(axis=1)]
    assert set(rows.ravel().tolist()) <= {0.0, 1.0}
    assert (rows.sum(axis=1) == 1).all()
    quota = [math.floor(kappa * int(s)) for s in share]
    assert np.nansum(kept, axis=0).tolist() == quota  # Σ quota ≤ N: every place finds an item


@QUICK
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40, unique=True), st.data(), fractions)
def test_two_classes_are_the_binary_rule_without_its_extra_negative(raw, data, kappa):
    scores = np.unique(np.round(raw, 6))  # 1 - s then has no ties of its own making
    positives = data.draw(st.integers(0, len(scores)))
    prior = positives / len(scores)
    pair = np.stack([1 - scores, scores], axis=1)
    two = keep_most_confident_class(pair, np.array([1 - prior, prior]), float(kappa))
    one = keep(scores, prior, float(kappa))
    same(two[:, 1] == 1, one == 1)
    quota = math.floor(kappa * (len(scores) - positives))
    assert (two[:, 0] == 1).sum() == quota
    assert (np.flatnonzero(two[:, 0] == 1) == np.arange(quota)).all()  # the lowest, as sorted


# --- soft values, the prior ----------------------------------------------------------------


def test_soften_keeps_the_choice_and_takes_the_scores():
    kept = np.array([[1, NAN], [0, 1]])
    same(soften(kept, np.array([[0.7, 0.6], [0.2, 0.9]])), [[0.7, NAN], [0.2, 0.9]])
    assert soften(kept, np.zeros((2, 2), np.float32)).dtype == np.float64


def test_class_prior_by_hand():
    labels = np.array([[1, 0, NAN], [0, 0, NAN], [NAN, 0, NAN], [1, 0, NAN]])
    same(class_prior(labels), [2.5 / 4, 0.5 / 5, NAN])  # (positives + ½) / (known + 1)


def test_class_prior_of_exclusive_classes_sums_to_one():
    labels = np.eye(4)[[0, 0, 0, 1, 1, 2]]
    prior = class_prior(labels, exclusive=True)
    same(prior, np.array([3.5, 2.5, 1.5, 0.5]) / 8)
    assert prior.sum() == 1


def test_class_prior_without_labels_is_unknown():
    assert np.isnan(class_prior(np.empty((0, 2)))).all()


@QUICK
@given(
    hnp.arrays(
        float,
        st.tuples(st.integers(1, 40), st.just(2)),
        elements=st.sampled_from([0, 1, NAN]),
    )
)
def test_class_prior_never_claims_certainty_and_nears_the_ratio(labels):
    prior = class_prior(labels)
    known = ~np.isnan(labels)
    for c in range(2):
        if not known[:, c].any():
            assert np.isnan(prior[c])
            continue
        ratio = labels[known[:, c], c].mean()
        assert 0 < prior[c] < 1
        assert abs(prior[c] - ratio) <= 0.5 / (known[:, c].sum() + 1) + 1e-12
