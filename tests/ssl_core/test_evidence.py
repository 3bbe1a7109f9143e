"""Intervals, paired comparisons and seeds: by hand, against naive formulas and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest, norm, t

from ssl_core.evidence import (
    Estimate,
    PerFinding,
    Statistic,
    compare,
    exact_interval,
    macro,
    mean_interval,
    mean_of_shares,
    paired_mean_interval,
    paired_over_seeds,
    statistic,
    undefined,
    wilson,
)
from ssl_core.metrics import accuracy, auroc, brier, operating_points

NAN = math.nan
QUICK = settings(deadline=None, max_examples=30)  # no timing: machines are shared


def made(value, *influence, hidden=0.0):
    """A metric of one finding, made by hand."""
    one = Statistic(Estimate(value, NAN, NAN, 9), np.array(influence, dtype=float), hidden, 9)
    return PerFinding((one,), one)


def naive_paired(a, b, labels):
    """DeLong's (1988) difference and its variance, from covariances of the O(mn) components."""
    parts = []
    for scores in (a, b):
        pos, neg = scores[labels == 1], scores[labels == 0]
        wins = (pos[:, None] > neg[None]) + 0.5 * (pos[:, None] == neg[None])
        parts.append((wins.mean(axis=1), wins.mean(axis=0)))
    s10 = np.cov([v10 for v10, _ in parts]) / parts[0][0].size
    s01 = np.cov([v01 for _, v01 in parts]) / parts[0][1].size
    s = s10 + s01
    return parts[0][0].mean() - parts[1][0].mean(), s[0, 0] + s[1, 1] - 2 * s[0, 1]


@st.composite
def two_models(draw):
    size = draw(st.integers(6, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = rng.choice([0.0, 1.0, 0.0, 1.0, NAN], size)
    labels[rng.permutation(size)[:4]] = [0, 1, 0, 1]
    grid = draw(st.sampled_from([3, 8, 1000]))
    return rng.integers(0, grid + 1, (size, 2)) / grid, labels


# intervals


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (1, 1, 0.2065, 1.0)],
)
def test_wilson_by_the_book(hits, of, low, high):
    assert wilson(hits / of, of) == pytest.approx((low, high), abs=5e-5)


@QUICK
@given(st.integers(1, 500), st.floats(0, 1))
def test_wilson_and_exact_are_scipys(of, share):
    hits = round(of * share)
    for ours, method in ((wilson, "wilson"), (exact_interval, "exact")):
        theirs = binomtest(hits, of).proportion_ci(method=method)
        assert ours(hits / of, of) == pytest.approx((theirs.low, theirs.high), abs=1e-8)


def test_no_trial_knows_nothing():
    assert exact_interval(1.0, 0) == (0, 1)
    assert np.isnan(wilson(0.5, 0)).all()


def test_interval_of_a_statistic_is_symmetric_in_logits():
    e = statistic(0.9, np.array([0.03, 0.04]), 0.0, 5, 7).estimate
    half = norm.ppf(0.975) * 0.05 / 0.09
    logits = [math.log(p / (1 - p)) - math.log(9) for p in (e.low, e.high)]
    assert logits == pytest.approx([-half, half], abs=1e-12)
    assert e.n == 7


def test_a_statistic_without_variance_hides_some():
    s = statistic(1.0, np.zeros(4), 0.0, 10, 20)
    low = 0.025**0.1
    assert (s.estimate.low, s.estimate.high) == pytest.approx((low, 1), abs=1e-12)
    assert math.sqrt(s.variance) == pytest.approx((1 - low) / 2 / norm.ppf(0.975), abs=1e-12)


def test_macro_of_nothing_is_undefined():
    assert math.isnan(macro([], 3).estimate.value)
    assert math.isnan(macro([undefined(4, 3), undefined(4, 2)], 3).estimate.value)


def test_macro_adds_influences_before_it_squares_them():
    rising, falling = np.array([0.03, -0.03]), np.array([-0.03, 0.03])
    twins = macro([statistic(0.8, rising, 0.0, 5, 9)] * 2, 9)
    assert twins.variance == pytest.approx(2 * 0.03**2)
    opposites = macro([statistic(v, i, 0.0, 5, 9) for v, i in ((0.7, rising), (0.9, falling))], 9)
    assert opposites.estimate.value == pytest.approx(0.8)
    assert opposites.influence == pytest.approx([0, 0])


def test_macro_adds_what_is_hidden_as_of_strangers():
    one = statistic(0.8, np.array([0.0, 0.01]), 0.0004, 5, 9)
    assert macro([one, one], 9).variance == pytest.approx(0.0001 + 0.0004 / 2)


# two models


@QUICK
@given(two_models())
def test_paired_delong_is_the_naive_one(data):
    scores, labels = data
    ours, theirs = (auroc(scores[:, [k]], labels[:, None]) for k in (0, 1))
    hidden = ours.macro.hidden + theirs.macro.hidden
    d = compare(ours, theirs).macro
    value, variance = naive_paired(scores[:, 0], scores[:, 1], labels)
    assert d.value == pytest.approx(value, abs=1e-12)
    change = ours.macro.influence - theirs.macro.influence
    assert change @ change == pytest.approx(variance, abs=1e-12)
    if variance + hidden > 1e-12:
        error = math.sqrt(variance + hidden)
        assert d.p == pytest.approx(2 * norm.sf(abs(value) / error), abs=1e-6)
        assert d.low == pytest.approx(max(-1, value - norm.ppf(0.975) * error), abs=1e-6)


@QUICK
@given(two_models())
def test_comparing_the_other_way_round_mirrors(data):
    scores, labels = data
    ours, theirs = (auroc(scores[:, [k]], labels[:, None]) for k in (0, 1))
    a, b = compare(ours, theirs).macro, compare(theirs, ours).macro
    assert (a.value, a.low, a.high, a.p) == pytest.approx(
        (-b.value, -b.high, -b.low, b.p), nan_ok=True
    )


def test_a_model_against_itself_is_no_difference():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((40, 3)), (rng.random((40, 3)) < 0.5).astype(float)
    result = compare(auroc(scores, labels), auroc(scores / 2, labels))
    for d in (*result.findings, result.macro):
        assert (d.value, d.low, d.high, d.p) == (0, 0, 0, 1)


def test_difference_by_hand():
    d = compare(made(0.8, 0.03, 0.01), made(0.7, 0.0, -0.03)).macro
    error = 0.05  # changes .03 and .04
    assert d.value == pytest.approx(0.1)
    assert (d.low, d.high) == pytest.approx(
        (0.1 - 1.959964 * error, 0.1 + 1.959964 * error), abs=1e-7
    )
    assert d.p == pytest.approx(0.0455003, abs=1e-7)


def test_a_difference_without_variance_claims_nothing():
    d = compare(made(0.8, 0.1), made(0.3, 0.1)).macro
    assert d.value == pytest.approx(0.5)
    assert np.isnan([d.low, d.high, d.p]).all()


def test_two_perfect_models_can_still_differ():
    scores, labels = np.repeat([0.9, 0.1], 10)[:, None], np.repeat([1, 0], 10)[:, None]
    d = compare(auroc(scores, labels), auroc(scores**2, labels)).macro
    assert (d.value, d.p) == (0, 1)
    assert d.low < -0.1
    assert d.high > 0.1


def test_difference_stays_within_minus_one_and_one():
    d = compare(made(1.0, 0.9), made(0.0, -0.9)).macro
    assert (d.value, d.high) == (1, 1)


def test_undefined_findings_stay_undefined_and_out_of_the_macro():
    rng = np.random.default_rng(1)
    labels = np.c_[rng.random(30) < 0.5, np.zeros(30)].astype(float)
    ours, theirs = (auroc(rng.random((30, 2)), labels) for _ in range(2))
    result = compare(ours, theirs)
    assert math.isnan(result.findings[1].p)
    assert result.macro == result.findings[0]


def test_macros_of_different_findings_are_not_compared():
    labels = np.array([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    bold, shy = np.full((4, 2), 0.9), np.tile([0.9, 0.1], (4, 1))
    ours, theirs = (operating_points(x, labels)["precision"] for x in (bold, shy))
    assert theirs.left_out == 1
    assert math.isnan(compare(ours, theirs).macro.value)


def test_any_metric_can_be_compared():
    rng = np.random.default_rng(2)
    labels = (rng.random((200, 1)) < 0.5).astype(float)
    good, bad = np.clip(labels * 0.6 + 0.4 * rng.random((200, 1)), 0, 1), rng.random((200, 1))
    assert compare(brier(good, labels), brier(bad, labels)).macro.high < 0
    ours, theirs = (operating_points(x, labels)["accuracy"] for x in (good, bad))
    d = compare(ours, theirs).macro
    assert d.value == pytest.approx(accuracy(good, labels).value - accuracy(bad, labels).value)
    assert d.p < 1e-6


def test_paired_accuracy_has_mcnemars_variance():
    hits = np.array([[1, 1], [1, 0], [1, 0], [0, 1], [0, 0], [1, 1], [1, 0], [0, 1.0]])
    ours, theirs = (operating_points(hits[:, [k]], np.ones((8, 1)))["accuracy"] for k in (0, 1))
    gain = hits[:, 0] - hits[:, 1]
    error = math.sqrt(gain.var(ddof=1) / 8)
    d = compare(ours, theirs).macro
    assert d.high - d.value == pytest.approx(norm.ppf(0.975) * error, abs=1e-12)


def test_other_groups_or_findings_are_refused():
    rng = np.random.default_rng(3)
    scores, labels = rng.random((20, 2)), rng.integers(0, 2, (20, 2))
    whole = auroc(scores, labels)
    for other in (auroc(scores[1:], labels[1:]), auroc(scores[:, :1], labels[:, :1])):
        with pytest.raises(ValueError, match="different findings or groups"):
            compare(whole, other)


@pytest.mark.parametrize(("auc", "size"), [(0.8, 80), (0.9, 150)])
def test_paired_test_errs_in_one_of_twenty(auc, size):
    rng = np.random.default_rng(4)
    labels = (rng.random((size, 1200)) < 0.4).astype(float)
    shared = rng.normal(size=labels.shape)
    ours, theirs = (
        auroc(ndtr(math.sqrt(2) * ndtri(auc) * labels + 0.8 * shared + 0.6 * own), labels)
        for own in rng.normal(size=(2, *labels.shape))
    )
    wrong = np.mean([d.p < 0.05 for d in compare(ours, theirs).findings])
    assert 0.03 < wrong < 0.065
    # unpaired, the shared luck would hide the difference
    unpaired = [
        abs(a.estimate.value - b.estimate.value) > 1.96 * math.sqrt(a.variance + b.variance)
        for a, b in zip(ours.findings, theirs.findings, strict=True)
    ]
    assert np.mean(unpaired) < 0.02


def test_paired_test_by_patient_errs_in_one_of_twenty():
    rng = np.random.default_rng(5)
    groups = np.repeat(np.arange(60), 4)
    labels = np.repeat(np.arange(60) < 30, 4)[:, None] * np.ones(1000)
    sides = [
        ndtr(
            (1.5 * labels + rng.normal(size=(60, 1000))[groups] + rng.normal(size=labels.shape)) / 3
        )
        for _ in range(2)
    ]
    by_patient = compare(*(auroc(x, labels, groups) for x in sides)).findings
    plain = compare(*(auroc(x, labels) for x in sides)).findings
    assert 0.03 < np.mean([d.p < 0.05 for d in by_patient]) < 0.07
    assert np.mean([d.p < 0.05 for d in plain]) > 0.12


def test_paired_macro_test_errs_in_one_of_twenty():
    rng = np.random.default_rng(6)
    wrong = []
    for _ in range(500):
        labels = (rng.normal(size=(100, 1)) + rng.normal(size=(100, 3)) > 0.3).astype(float)
        shared = rng.normal(size=(100, 1))
        sides = [ndtr(labels + 0.7 * shared + 0.7 * rng.normal(size=(100, 3))) for _ in range(2)]
        labels[rng.random(labels.shape) < 0.25] = NAN
        wrong.append(compare(*(auroc(x, labels) for x in sides)).macro.p < 0.05)
    assert 0.025 < np.mean(wrong) < 0.075


# seeds


def test_mean_interval_by_hand():
    e = mean_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)
    assert (e.value, e.low, e.high, e.n) == pytest.approx((2, 2 - half, 2 + half, 3))


def test_one_seed_or_none_has_no_bounds():
    one, none = mean_interval([0.7]), mean_interval([])
    assert (one.value, one.n, none.n) == (0.7, 1, 0)
    assert np.isnan([one.low, one.high, none.value, none.low]).all()


def test_paired_mean_is_the_mean_of_differences():
    assert paired_mean_interval([3, 5, 9], [2, 3, 6]) == mean_interval([1, 2, 3])
    with pytest.raises(ValueError, match="shorter"):
        paired_mean_interval([1, 2], [1])


def test_over_seeds_by_hand():
    # d = .10, .16; mean influence (.01, .02); seeds: s² = .0018, over 2
    ours = [made(0.8, 0.02, 0.02), made(0.86, 0.0, 0.02)]
    theirs = [made(0.7, 0.0, 0.0), made(0.7, 0.0, 0.0)]
    d = paired_over_seeds(ours, theirs).macro
    variance = 0.0005 + 0.0009
    freedom = (variance / 0.0009) ** 2
    half = t.ppf(0.975, freedom) * math.sqrt(variance)
    assert (d.value, d.low, d.high) == pytest.approx((0.13, 0.13 - half, 0.13 + half), abs=1e-9)
    assert d.p == pytest.approx(2 * t.sf(0.13 / math.sqrt(variance), freedom), abs=1e-9)


def test_seeds_that_all_agree_leave_the_test_patients():
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 2, (60, 2))
    ours, theirs = (auroc(rng.random((60, 2)), labels) for _ in range(2))
    seeds = paired_over_seeds([ours] * 3, [theirs] * 3)
    single = compare(ours, theirs)
    for a, b in zip((*seeds.findings, seeds.macro), (*single.findings, single.macro), strict=True):
        assert (a.value, a.low, a.high, a.p) == pytest.approx((b.value, b.low, b.high, b.p))


def test_more_agreeing_seeds_do_not_shrink_the_test_patients_part():
    ours, theirs = made(0.8, 0.03, 0.04), made(0.7, 0.0, 0.0)
    few, many = (paired_over_seeds([ours] * s, [theirs] * s).macro for s in (2, 50))
    assert many.high == pytest.approx(few.high)


def test_one_seed_cannot_speak_of_seeds():
    d = paired_over_seeds([made(0.8, 0.1)], [made(0.7, 0.0)]).macro
    assert d.value == pytest.approx(0.1)
    assert np.isnan([d.low, d.high, d.p]).all()


def test_unpaired_seeds_are_refused():
    one = made(0.8, 0.1)
    for ours, theirs in (([one], [one, one]), ([], [])):
        with pytest.raises(ValueError, match="paired seeds"):
            paired_over_seeds(ours, theirs)
    with pytest.raises(ValueError, match="different findings or groups"):
        paired_over_seeds([one, made(0.8, 0.1, 0.1)], [one, made(0.7, 0.1, 0.1)])


def test_seed_without_the_metric_leaves_it_undefined():
    bad = PerFinding((undefined(1, 0),), undefined(1, 0))
    d = paired_over_seeds([made(0.8, 0.1), bad], [made(0.7, 0.1), bad]).macro
    assert np.isnan([d.value, d.low, d.p]).all()


@pytest.mark.parametrize(("spread", "seeds"), [(0.0, 3), (0.3, 3), (0.1, 5)])
def test_over_seeds_covers_both_kinds_of_luck(spread, seeds):
    rng = np.random.default_rng(8)
    shape = (120, 300)  # each column is one study: a test set, two ways to train, some seeds
    labels = (rng.random(shape) < 0.4).astype(float)

    def way():
        shared = rng.normal(size=shape)
        skill = 1.2 + spread * rng.normal(size=(seeds, 1, shape[1]))
        return [
            auroc(ndtr(k * labels + 0.8 * shared + 0.6 * rng.normal(size=shape)), labels)
            for k in skill
        ]

    ours, theirs = way(), way()
    both = paired_over_seeds(ours, theirs).findings
    assert 0.93 < np.mean([d.low <= 0 <= d.high for d in both]) < 0.985
    pairs = [
        [[s.findings[c].estimate.value for s in side] for side in (ours, theirs)]
        for c in range(shape[1])
    ]
    seeds_only = [paired_mean_interval(a, b) for a, b in pairs]
    assert np.mean([e.low <= 0 <= e.high for e in seeds_only]) < 0.93  # same patients every time
    if spread == 0.3:
        alone = compare(ours[0], theirs[0]).findings
        assert np.mean([d.low <= 0 <= d.high for d in alone]) < 0.8  # one seed each


def test_the_mean_of_shares_over_seeds_has_bounds_that_are_shares():
    found = mean_of_shares([0.5, 0.9])
    assert (found.value, found.low, found.high) == (pytest.approx(0.7), 0.0, 1.0)
    plain = mean_interval([0.70, 0.71, 0.72])
    assert mean_of_shares([0.70, 0.71, 0.72]) == plain
    assert math.isnan(mean_of_shares([0.7]).low)
