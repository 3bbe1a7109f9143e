"""One model's numbers: against hand computation, naive formulas, scikit-learn and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, f1_score, precision_score, recall_score, roc_auc_score

from ssl_core.metrics import (
    accuracy,
    auroc,
    brier,
    choose_thresholds,
    decide,
    describe,
    ece,
    operating_points,
    prevalence,
)

NAN = math.nan
QUICK = settings(deadline=None, max_examples=30)  # no timing: machines are shared
column = lambda *values: np.array(values, dtype=float)[:, None]  # noqa: E731


def ends(estimate):
    return estimate.low, estimate.high


def naive_components(scores, labels):
    """DeLong's structural components by comparing every positive with every negative."""
    pos, neg = scores[labels == 1], scores[labels == 0]
    wins = (pos[:, None] > neg[None]) + 0.5 * (pos[:, None] == neg[None])
    return wins.mean(axis=1), wins.mean(axis=0)


def naive_delong(scores, labels):
    v10, v01 = naive_components(scores, labels)
    return v10.mean(), v10.var(ddof=1) / v10.size + v01.var(ddof=1) / v01.size


def covered(per_finding, truth):
    """Share of columns whose interval holds the truth: each column is one simulated test set."""
    found = [s.estimate for s in per_finding.findings]
    return np.mean([e.low <= truth <= e.high for e in found])


@st.composite
def readings(draw, least=2, groups=False):
    """One finding with tied scores (multiples of 1/16), unknown labels and both classes."""
    size = draw(st.integers(2 * least, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = rng.choice([0.0, 1.0, 0.0, 1.0, NAN], size)
    labels[rng.permutation(size)[: 2 * least]] = [0, 1] * least
    scores = rng.integers(0, draw(st.sampled_from([2, 6, 17])), size) / 16
    return (scores, labels, rng.integers(0, 7, size)) if groups else (scores, labels)


# AUROC


def test_auroc_with_ties_by_hand():
    # positives .8 .5 .5, negatives .5 .2: wins 2, 1½, 1½ of 2 each, hence 5 of 6 pairs
    result = auroc(column(0.8, 0.5, 0.5, 0.5, 0.2), column(1, 1, 1, 0, 0)).macro
    assert result.estimate.value == pytest.approx(5 / 6, abs=1e-15)
    # V10 = 1, ¾, ¾ (variance 1/48, over 3); V01 = 2/3, 1 (variance 1/18, over 2)
    assert result.variance == pytest.approx(1 / 144 + 1 / 36, abs=1e-15)
    error = math.sqrt(5 / 144) / (5 / 6 * 1 / 6)
    low = 1 / (1 + math.exp(-(math.log(5) - 1.959963984540054 * error)))
    assert result.estimate.low == pytest.approx(low, abs=1e-12)
    assert result.estimate.n == 5


@QUICK
@given(readings())
def test_fast_delong_is_the_naive_one(data):
    scores, labels = data
    value, variance = naive_delong(scores, labels)
    result = auroc(scores[:, None], labels[:, None]).findings[0]
    assert result.estimate.value == pytest.approx(value, abs=1e-12)
    assert result.influence @ result.influence == pytest.approx(variance, abs=1e-12)


@QUICK
@given(readings(groups=True))
def test_clustered_variance_is_obuchowskis(data):
    scores, labels, groups = data
    v10, v01 = naive_components(scores, labels)
    value = v10.mean()
    pos, neg = groups[labels == 1], groups[labels == 0]
    i10, i01 = len(set(pos)), len(set(neg))
    assume(i10 > 1 and i01 > 1)
    a = np.array([(v10[pos == g] - value).sum() for g in range(7)]) / v10.size
    b = np.array([(v01[neg == g] - value).sum() for g in range(7)]) / v01.size
    f10, f01 = i10 / (i10 - 1), i01 / (i01 - 1)
    expected = f10 * a @ a + f01 * b @ b + 2 * math.sqrt(f10 * f01) * a @ b
    result = auroc(scores[:, None], labels[:, None], groups).findings[0]
    assert result.influence @ result.influence == pytest.approx(expected, abs=1e-12)


@QUICK
@given(readings())
def test_clustering_by_item_is_delong(data):
    scores, labels = data
    names = np.array([f"patient {i}" for i in range(scores.size)])[::-1]
    alone = auroc(scores[:, None], labels[:, None]).macro.estimate
    named = auroc(scores[:, None], labels[:, None], names).macro.estimate
    assert named.value == alone.value
    assert ends(named) == pytest.approx(ends(alone), abs=1e-12)


@QUICK
@given(readings(least=1))
def test_auroc_is_scikit_learns(data):
    scores, labels = data
    known = ~np.isnan(labels)
    value = auroc(scores[:, None], labels[:, None]).macro.estimate.value
    assert value == pytest.approx(roc_auc_score(labels[known], scores[known]), abs=1e-12)


@QUICK
@given(readings(least=1, groups=True))
def test_auroc_looks_at_the_order_alone(data):
    scores, labels, groups = data
    plain = auroc(scores[:, None], labels[:, None], groups).macro.estimate
    for bent in (scores**2, scores / 2, (1 + scores) / 2):  # exact on this grid
        assert auroc(bent[:, None], labels[:, None], groups).macro.estimate == plain


@QUICK
@given(readings(least=1, groups=True))
def test_flipping_scores_or_labels_mirrors_the_auroc(data):
    scores, labels, groups = data
    plain = auroc(scores[:, None], labels[:, None], groups).macro.estimate
    both = auroc(1 - scores[:, None], 1 - labels[:, None], groups).macro.estimate
    assert both.value == pytest.approx(plain.value, abs=1e-15)
    assert ends(both) == pytest.approx(ends(plain), abs=1e-9)
    for x, y in ((1 - scores, labels), (scores, 1 - labels)):
        one = auroc(x[:, None], y[:, None], groups).macro.estimate
        assert one.value == pytest.approx(1 - plain.value, abs=1e-15)
        assert ends(one) == pytest.approx((1 - plain.high, 1 - plain.low), abs=1e-9)


@QUICK
@given(readings(least=1, groups=True), st.randoms(use_true_random=False))
def test_order_of_items_and_unknown_rows_change_nothing(data, random):
    scores, labels, groups = data
    plain = auroc(scores[:, None], labels[:, None], groups).macro.estimate
    order = list(np.flatnonzero(~np.isnan(labels)))
    random.shuffle(order)
    mixed = auroc(scores[order][:, None], labels[order][:, None], groups[order] * -3).macro
    assert mixed.estimate.value == plain.value
    assert ends(mixed.estimate) == pytest.approx(ends(plain), abs=1e-9)
    assert mixed.estimate.n == plain.n


@QUICK
@given(readings(), st.integers(2, 4))
def test_copies_of_an_item_by_patient_teach_nothing(data, copies):
    scores, labels = data
    groups = np.arange(scores.size)
    once = auroc(scores[:, None], labels[:, None]).macro.estimate
    many = auroc(
        *(np.repeat(a, copies, axis=0) for a in (scores[:, None], labels[:, None], groups))
    )
    assert ends(many.macro.estimate) == pytest.approx(ends(once), abs=1e-12)


@QUICK
@given(readings(least=1, groups=True))
def test_auroc_interval_holds_its_value_within_0_and_1(data):
    scores, labels, groups = data
    e = auroc(scores[:, None], labels[:, None], groups).macro.estimate
    assert 0 <= e.low <= e.value <= e.high <= 1
    assert e.low < e.high


def test_perfect_separation_has_an_honest_bound():
    scores, labels = np.repeat([0.9, 0.1], 10)[:, None], np.repeat([1, 0], 10)[:, None]
    low = 0.025 ** (1 / 10)
    up, down = auroc(scores, labels).macro.estimate, auroc(1 - scores, labels).macro.estimate
    assert (up.value, down.value) == (1, 0)
    assert ends(up) == pytest.approx((low, 1), abs=1e-12)
    assert ends(down) == pytest.approx((0, 1 - low), abs=1e-12)


def test_perfect_separation_counts_disjoint_patients():
    scores, labels = np.repeat([0.9, 0.1], 10)[:, None], np.repeat([1, 0], 10)[:, None]
    five = auroc(scores, labels, np.arange(20) // 2).macro.estimate
    assert five.low == pytest.approx(0.025 ** (1 / 5), abs=1e-12)
    # ten patients with both classes make five pairs without a shared patient; one makes none
    both = auroc(scores, labels, np.arange(20) % 10).macro.estimate
    assert both.low == pytest.approx(0.025 ** (1 / 5), abs=1e-12)
    assert ends(auroc(scores, labels, np.zeros(20)).macro.estimate) == (0, 1)


def test_perfect_separation_is_seldom_a_surprise():
    # 10 + 10 items at AUROC .97: a third of all test sets are separated perfectly
    rng = np.random.default_rng(1)
    labels = np.repeat([1.0, 0.0], 10)[:, None] * np.ones(2000)
    result = auroc(
        ndtr(rng.normal(size=labels.shape) + math.sqrt(2) * ndtri(0.97) * labels), labels
    )
    assert np.mean([s.estimate.value == 1 for s in result.findings]) > 0.25
    assert covered(result, 0.97) > 0.94


def test_scores_all_tied_say_one_half_and_little_more():
    e = auroc(np.full((20, 1), 0.5), np.repeat([1, 0], 10)[:, None]).macro.estimate
    exact = binomtest(5, 10).proportion_ci(method="exact")
    assert e.value == 0.5
    assert ends(e) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_one_positive_patient_leaves_a_wide_interval():
    rng = np.random.default_rng(2)
    labels = np.r_[np.ones(5), np.zeros(95)][:, None]
    groups = np.r_[np.zeros(5), np.arange(1, 96)]
    one = auroc(rng.random((100, 1)) * 0.5 + 0.4 * labels, labels, groups).macro.estimate
    assert one.high - one.low > 0.9


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, NAN], [NAN, NAN, NAN]])
def test_one_class_or_no_label_is_undefined_not_a_crash(labels):
    e = auroc(column(0.1, 0.5, 0.9), column(*labels)).macro.estimate
    assert np.isnan([e.value, e.low, e.high]).all()
    assert e.n == np.isfinite(labels).sum()


def test_macro_is_the_mean_of_the_defined_findings():
    rng = np.random.default_rng(3)
    scores, labels = rng.random((60, 4)), (rng.random((60, 4)) < 0.4).astype(float)
    labels[:, 1], labels[:, 2], labels[0] = 0, NAN, NAN
    result = auroc(scores, labels)
    assert result.left_out == 2
    used = [result.findings[c].estimate.value for c in (0, 3)]
    assert result.macro.estimate.value == pytest.approx(np.mean(used), abs=1e-15)
    assert result.macro.estimate.n == 59
    alone = auroc(scores[:, :2], labels[:, :2])
    assert alone.macro.estimate == alone.findings[0].estimate


def test_macro_of_twins_is_as_unsure_as_one_of_them():
    rng = np.random.default_rng(4)
    scores, labels = rng.random((50, 1)), (rng.random((50, 1)) < 0.5).astype(float)
    one, three = auroc(scores, labels), auroc(np.tile(scores, 3), np.tile(labels, 3))
    assert ends(three.macro.estimate) == pytest.approx(ends(one.macro.estimate), abs=1e-12)


def test_macro_of_strangers_is_surer_by_the_root_of_their_number():
    rng = np.random.default_rng(5)
    scores, labels = rng.random((400, 4)), (rng.random((400, 4)) < 0.5).astype(float)
    labels[np.arange(400)[:, None] // 100 != np.arange(4)] = NAN  # no item is shared
    result = auroc(scores, labels)
    expected = sum(s.variance for s in result.findings) / 16
    assert result.macro.variance == pytest.approx(expected, abs=1e-15)


def test_macro_of_perfect_findings_is_as_sure_as_the_smallest():
    scores, labels = np.repeat([[0.9], [0.1]], 10, axis=0) * np.ones(2), np.repeat([1.0, 0.0], 10)
    labels = np.c_[labels, labels]
    labels[:6, 1] = NAN
    macro = auroc(scores, labels).macro.estimate
    assert ends(macro) == pytest.approx((0.025 ** (1 / 4), 1), abs=1e-12)


def test_a_perfect_finding_does_not_sharpen_the_macro():
    rng = np.random.default_rng(6)
    labels = np.repeat([[1.0, 1.0], [0.0, 0.0]], 10, axis=0)
    scores = np.c_[labels[:, 0] * 0.5 + 0.2, rng.random(20)]
    result = auroc(scores, labels)
    assert result.findings[0].estimate.value == 1
    assert result.findings[0].hidden > 0
    assert result.macro.variance > result.findings[1].variance / 4


@pytest.mark.parametrize(("auc", "size"), [(0.8, 60), (0.8, 200), (0.97, 60), (0.97, 200)])
def test_delong_interval_covers(auc, size):
    rng = np.random.default_rng(7)
    labels = (rng.random((size, 1500)) < 0.5).astype(float)
    scores = ndtr(rng.normal(size=labels.shape) + math.sqrt(2) * ndtri(auc) * labels)
    assert 0.93 < covered(auroc(scores, labels), auc) < 0.975


def test_clustered_interval_covers_where_the_plain_one_does_not():
    rng = np.random.default_rng(8)
    groups, present = np.repeat(np.arange(60), 5), (np.arange(60) < 30).astype(float)
    labels = np.repeat(present, 5)[:, None] * np.ones(800)
    habit = rng.normal(size=(60, 800))[groups]
    scores = ndtr((1.5 * labels + habit + rng.normal(size=labels.shape)) / 3)
    truth = ndtr(1.5 / 2)
    assert 0.93 < covered(auroc(scores, labels, groups), truth) < 0.975
    assert covered(auroc(scores, labels), truth) < 0.85


def test_macro_interval_covers_with_shared_noise_and_unknowns():
    rng = np.random.default_rng(9)
    shift = np.array([0.8, 1.2, 1.9])
    truth, hits, plain = ndtr(shift / math.sqrt(2)).mean(), [], []
    for _ in range(700):
        sick, noise = rng.normal(size=(120, 1)), rng.normal(size=(120, 1))
        labels = (0.7 * sick + 0.7 * rng.normal(size=(120, 3)) > 0.3).astype(float)
        blur = 0.9 * noise + math.sqrt(0.19) * rng.normal(size=(120, 3))
        scores = ndtr(shift * labels + blur)
        labels[rng.random(labels.shape) < 0.25] = NAN
        result = auroc(scores, labels)
        hits.append(result.macro.estimate.low <= truth <= result.macro.estimate.high)
        alone = math.sqrt(sum(s.variance for s in result.findings)) / 3
        plain.append(abs(result.macro.estimate.value - truth) < 1.96 * alone)
    assert 0.925 < np.mean(hits) < 0.975
    assert np.mean(plain) < np.mean(hits) - 0.03  # findings taken as independent: too sure


# thresholds and operating points


def test_decide_takes_the_threshold_itself_as_present():
    assert decide([[0.5, 0.2], [0.4, 0.3]], thresholds=[0.5, 0.3]).tolist() == [[1, 0], [0, 1]]
    assert decide([[0.5], [0.49]]).tolist() == [[True], [False]]


def test_decide_exclusive_takes_the_first_of_equals():
    assert decide([[0.2, 0.4, 0.4], [0.1, 0, 0]], exclusive=True).tolist() == [[0, 1, 0], [1, 0, 0]]


@QUICK
@given(readings(least=1), st.sampled_from(["youden", "accuracy"]))
def test_no_threshold_does_better_than_the_chosen(data, rule):
    scores, labels = data

    def gain(cut):
        pos, neg = scores[labels == 1] >= cut, scores[labels == 0] < cut
        return pos.mean() + neg.mean() if rule == "youden" else pos.sum() + neg.sum()

    assume(np.unique(scores[~np.isnan(labels)]).size > 1)
    (chosen,) = choose_thresholds(scores[:, None], labels[:, None], rule)
    assert gain(chosen) >= max(gain(k / 32) for k in range(34)) - 1e-12


def test_threshold_lies_halfway_between_neighbours():
    scores, labels = column(0.1, 0.2, 0.6, 0.7), column(0, 0, 1, 1)
    assert choose_thresholds(scores, labels) == pytest.approx([0.4])


def test_of_equal_thresholds_the_nearest_one_half_wins():
    # 0.15 and 0.75 are right on three of four items: 0.75 is nearer
    scores, labels = column(0.1, 0.2, 0.7, 0.8), column(0, 1, 0, 1)
    assert choose_thresholds(scores, labels, "accuracy") == pytest.approx([0.75])


def test_accuracy_rule_may_call_all_or_none():
    scores = column(0.1, 0.2, 0.3, 0.4, 1.0)
    none, every = (
        choose_thresholds(scores, column(1, 0, 0, 0, 0), "accuracy"),
        choose_thresholds(scores, column(1, 1, 1, 1, 0), "accuracy"),
    )
    assert not decide(scores, thresholds=none).any()
    assert decide(scores, thresholds=every).all()


def test_threshold_between_neighbouring_floats_separates_them():
    low, high = 0.3, np.nextafter(0.3, 1)
    scores = column(low, high)
    chosen = choose_thresholds(scores, column(0, 1))
    assert decide(scores, thresholds=chosen).tolist() == [[False], [True]]


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0], [NAN, NAN, NAN]])
def test_threshold_of_one_class_is_one_half(labels):
    assert choose_thresholds(column(0.1, 0.2, 0.9), column(*labels)).tolist() == [0.5]


def test_threshold_of_one_score_or_no_item_is_one_half():
    assert choose_thresholds(column(0.1, 0.1), column(0, 1)).tolist() == [0.5]
    assert choose_thresholds(np.zeros((0, 2)), np.zeros((0, 2))).tolist() == [0.5, 0.5]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule is 'f1'"):
        choose_thresholds(column(0.1), column(1), "f1")


def test_operating_points_by_hand():
    # called: 4 positives of 5, 1 negative of 5; one unknown item is called and does not count
    scores = column(0.9, 0.8, 0.7, 0.6, 0.1, 0.9, 0.2, 0.2, 0.2, 0.2, 0.99)
    labels = column(1, 1, 1, 1, 1, 0, 0, 0, 0, 0, NAN)
    points = operating_points(scores, labels)
    found = {name: p.macro.estimate for name, p in points.items()}
    for name, hits, of in [
        ("accuracy", 8, 10),
        ("sensitivity", 4, 5),
        ("specificity", 4, 5),
        ("precision", 4, 5),
    ]:
        interval = binomtest(hits, of).proportion_ci(method="wilson")
        assert found[name].value == hits / of
        assert found[name].n == of
        assert ends(found[name]) == pytest.approx((interval.low, interval.high), abs=1e-12)
    jaccard = binomtest(4, 6).proportion_ci(method="wilson")
    assert found["f1"].value == pytest.approx(0.8)
    expected = [2 * j / (1 + j) for j in (jaccard.low, jaccard.high)]
    assert ends(found["f1"]) == pytest.approx(expected, abs=1e-12)


@settings(QUICK, max_examples=20)
@given(readings(least=1))
def test_operating_points_are_scikit_learns(data):
    scores, labels = data
    known = ~np.isnan(labels)
    y, called = labels[known], scores[known] >= 0.5
    assume(called.any())
    points = operating_points(scores[:, None], labels[:, None])
    found = {name: p.macro.estimate.value for name, p in points.items()}
    assert found["precision"] == pytest.approx(precision_score(y, called))
    assert found["sensitivity"] == pytest.approx(recall_score(y, called))
    assert found["specificity"] == pytest.approx(recall_score(1 - y, ~called))
    assert found["f1"] == pytest.approx(f1_score(y, called))


@QUICK
@given(readings(least=1, groups=True))
def test_points_lie_within_their_intervals(data):
    scores, labels, groups = data
    for point in operating_points(scores[:, None], labels[:, None], groups=groups).values():
        e = point.macro.estimate
        assert math.isnan(e.value) or 0 <= e.low <= e.value <= e.high <= 1


def test_influence_on_f1_is_that_of_a_ratio_of_sums():
    hit, of = np.r_[1, 1, 0, 1, 0], np.r_[2, 2, 1, 2, 1]  # F1 = 2 Σ hit / Σ (called + present)
    scores, labels = np.array([[1, 1, 1, 1, 0]]).T, np.array([[1, 1, 0, 1, 1]]).T
    found = operating_points(scores, labels)["f1"].macro
    expected = math.sqrt(5 / 4) * (2 * hit - 6 / 8 * of) / 8
    assert found.influence == pytest.approx(expected, abs=1e-12)


def test_points_without_a_denominator_are_undefined():
    points = operating_points(column(0.1, 0.2), column(0, 0))
    assert points["specificity"].macro.estimate.value == 1
    for name in ("sensitivity", "precision", "f1"):
        e = points[name].macro.estimate
        assert math.isnan(e.value)
        assert math.isnan(e.low)
        assert e.n == 0


def test_copies_by_patient_keep_the_interval_of_one_each():
    hits = np.repeat([1.0, 0.0], [30, 10])[:, None]
    once = accuracy(hits, np.ones_like(hits))
    many = accuracy(
        *np.repeat([hits, np.ones_like(hits)], 5, axis=1), groups=np.repeat(range(40), 5)
    )
    assert many.n == 200
    assert ends(many) == pytest.approx(ends(once), abs=0.004)
    plain = accuracy(*np.repeat([hits, np.ones_like(hits)], 5, axis=1))
    assert plain.high - plain.low < 0.6 * (many.high - many.low)


def test_all_right_counts_patients_not_items():
    ones = np.ones((20, 1))
    by_patient = accuracy(ones, ones, groups=np.arange(20) // 4)
    assert ends(by_patient) == pytest.approx(ends(accuracy(ones[:5], ones[:5])), abs=1e-12)


def test_clustered_accuracy_covers_where_the_plain_one_does_not():
    rng = np.random.default_rng(10)
    groups = np.repeat(np.arange(60), 5)
    chance = ndtr(0.8 + rng.normal(size=(60, 800)))[groups]
    hits = (rng.random(chance.shape) < chance).astype(float)
    truth = ndtr(0.8 / math.sqrt(2))
    clustered = operating_points(hits, np.ones_like(hits), groups=groups)["accuracy"]
    assert 0.93 < covered(clustered, truth) < 0.975
    assert covered(operating_points(hits, np.ones_like(hits))["accuracy"], truth) < 0.88


def test_exclusive_accuracy_is_of_the_highest_score():
    scores = np.array([[0.5, 0.3, 0.2], [0.4, 0.5, 0.1], [0.4, 0.3, 0.3], [0, 0, 1.0], [1.0, 0, 0]])
    labels = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [NAN] * 3])
    found = accuracy(scores, labels, exclusive=True, thresholds=[0.9, 0.9, 0.9])
    interval = binomtest(3, 4).proportion_ci(method="wilson")
    assert (found.value, found.n) == (0.75, 4)
    assert ends(found) == pytest.approx((interval.low, interval.high), abs=1e-12)
    points = operating_points(scores, labels, exclusive=True)
    values = [s.estimate.value for s in points["sensitivity"].findings]
    assert values == [1, 1, 0.5]
    assert [s.estimate.value for s in points["accuracy"].findings] == [0.75, 1, 0.75]


def test_two_classes_in_one_item_are_refused():
    with pytest.raises(ValueError, match="more than one"):
        accuracy([[0.5, 0.5]], [[1, 1]], exclusive=True)
    with pytest.raises(ValueError, match="two columns"):
        accuracy([[0.5]], [[1]], exclusive=True)


def test_multi_label_accuracy_is_the_mean_over_findings():
    scores = np.array([[0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    labels = np.array([[1, 1], [0, NAN], [0, 1]])
    assert accuracy(scores, labels).value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert accuracy(scores, labels, thresholds=[0.95, 0.05]).value == pytest.approx((2 / 3 + 1) / 2)


# calibration and prevalence


@QUICK
@given(readings(least=1))
def test_brier_is_scikit_learns(data):
    scores, labels = data
    known = ~np.isnan(labels)
    e = brier(scores[:, None], labels[:, None]).macro.estimate
    assert e.value == pytest.approx(brier_score_loss(labels[known], scores[known]))
    assert 0 <= e.low <= e.value <= e.high <= 1


def test_brier_interval_covers():
    rng = np.random.default_rng(11)
    scores = rng.random((150, 1000))
    labels = (rng.random(scores.shape) < scores).astype(float)
    assert 0.925 < covered(brier(scores, labels), 1 / 6) < 0.975  # ∫ s(1-s) ds


def test_brier_of_perfect_scores_is_zero_with_room_above():
    e = brier(column(0, 1, 1, 0), column(0, 1, 1, 0)).macro.estimate
    assert (e.value, e.low) == (0, 0)
    assert e.high == pytest.approx(1 - 0.025 ** (1 / 4))


def naive_ece(scores, labels, bins):
    """Equal-mass bins of sorted items; no ties."""
    order = np.argsort(scores)
    parts = np.array_split(order, bins)
    return sum(abs(scores[p].mean() - labels[p].mean()) * len(p) for p in parts) / len(scores)


@QUICK
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_ece_is_the_naive_one(seed, mass):
    rng = np.random.default_rng(seed)
    scores, labels = rng.random(15 * mass), (rng.random(15 * mass) < 0.4).astype(float)
    found = ece(scores[:, None], labels[:, None]).macro.estimate.value
    assert found == pytest.approx(naive_ece(scores, labels, 15), abs=1e-12)


def test_ece_by_hand_keeps_ties_together():
    # two levels, hence two bins: .2 with 30 of 100 present, .8 with 100 of 200
    scores = np.repeat([0.2, 0.8], [100, 200])[:, None]
    labels = np.repeat([1, 0, 1, 0], [30, 70, 100, 100])[:, None]
    e = ece(scores, labels).macro.estimate
    assert e.value == pytest.approx(0.1 / 3 + 0.3 * 2 / 3, abs=1e-12)
    errors = np.array([math.sqrt(0.21 / 99) / 3, math.sqrt(0.25 / 199) * 2 / 3])
    reach = 1.959963984540054 * math.sqrt(errors @ errors)
    low = 0.7 / 3 - math.sqrt(2 / math.pi) * errors.sum() - reach
    assert ends(e) == pytest.approx((low, 0.7 / 3 + reach), abs=1e-12)


def test_ece_interval_holds_the_truth():
    rng = np.random.default_rng(12)
    scores = rng.random((300, 500))
    true = (rng.random(scores.shape) < scores).astype(float)
    calibrated = ece(scores, true)
    assert np.mean([s.estimate.value for s in calibrated.findings]) > 0.04  # noise, not error
    assert covered(calibrated, 0) > 0.94
    bent = (rng.random(scores.shape) < scores**2).astype(float)
    assert covered(ece(scores, bent), 1 / 6) > 0.94  # ∫ s - s² ds


def test_ece_of_few_items_has_no_bounds():
    e = ece(column(0.1, 0.9, 0.4), column(0, 1, 0)).macro.estimate
    assert e.value == pytest.approx(0.6 / 3)
    assert np.isnan(ends(e)).all()


def test_ece_macro_is_the_mean_and_copies_by_patient_teach_nothing():
    rng = np.random.default_rng(13)
    scores = rng.random((150, 3))
    labels = (rng.random((150, 3)) < scores).astype(float)
    labels[:, 2] = NAN
    result = ece(scores, labels)
    values = [s.estimate.value for s in result.findings]
    assert result.macro.estimate.value == pytest.approx(np.mean(values[:2]))
    assert math.isnan(values[2])
    assert result.macro.estimate.low <= result.macro.estimate.value <= result.macro.estimate.high
    many = ece(*np.repeat([scores, labels], 4, axis=1), groups=np.repeat(np.arange(150), 4))
    assert ends(many.macro.estimate) == pytest.approx(ends(result.macro.estimate), abs=1e-9)


def test_prevalence_counts_known_labels():
    labels = np.array([[1, NAN], [0, NAN], [0, 1], [NAN, 1]])
    result = prevalence(labels)
    values = [(s.estimate.value, s.estimate.n) for s in result.findings]
    assert values == [(pytest.approx(1 / 3), 3), (1, 2)]


# describe, and what is refused


def test_describe_gives_every_number_for_findings_and_macro():
    rng = np.random.default_rng(14)
    scores, labels = rng.random((80, 2)), (rng.random((80, 2)) < 0.3).astype(float)
    groups = rng.integers(0, 30, 80)
    rows = describe(scores, labels, groups=groups, thresholds=[0.3, 0.6])
    names = [
        "auroc",
        "accuracy",
        "sensitivity",
        "specificity",
        "precision",
        "f1",
        "brier",
        "ece",
        "prevalence",
    ]
    assert [(c, name) for c, name, _ in rows] == [(c, name) for name in names for c in (0, 1, None)]
    table = {(c, name): e for c, name, e in rows}
    assert table[None, "auroc"] == auroc(scores, labels, groups).macro.estimate
    points = operating_points(scores, labels, thresholds=[0.3, 0.6], groups=groups)
    assert table[1, "f1"] == points["f1"].findings[1].estimate
    assert table[0, "prevalence"].value == labels[:, 0].mean()
    assert table[None, "accuracy"] == accuracy(scores, labels, thresholds=[0.3, 0.6], groups=groups)


@pytest.mark.parametrize("shape", [(0, 1), (0, 3), (1, 1), (5, 2)])
@pytest.mark.parametrize("fill", [0.0, 1.0, NAN])
def test_describe_survives_poor_data(shape, fill):
    rows = describe(np.full(shape, 0.5), np.full(shape, fill), groups=np.zeros(shape[0]))
    for _, name, e in rows:
        assert math.isnan(e.value) or 0 <= e.value <= 1
        if name == "auroc":
            assert math.isnan(e.value)


def test_describe_exclusive_uses_the_highest_score():
    scores, labels = np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 1, 2, 1]]
    table = {(c, name): e for c, name, e in describe(scores, labels, exclusive=True)}
    assert table[None, "accuracy"].value == 0.75
    assert table[0, "precision"].value == 0.5


@pytest.mark.parametrize(
    ("scores", "labels", "groups", "message"),
    [
        ([0.5], [1], None, r"\(N, C\)"),
        ([[0.5]], [[1, 0]], None, r"\(N, C\)"),
        ([[1.5]], [[1]], None, "scores must lie"),
        ([[NAN]], [[1]], None, "scores must lie"),
        ([[0.5]], [[0.3]], None, "labels must be"),
        ([[0.5]], [[1]], [1, 2], "groups have shape"),
    ],
)
def test_wrong_inputs_are_refused(scores, labels, groups, message):
    for metric in (auroc, brier, ece):
        with pytest.raises(ValueError, match=message):
            metric(scores, labels, groups)


def test_wrong_thresholds_are_refused():
    with pytest.raises(ValueError, match="thresholds have shape"):
        decide([[0.5, 0.5]], thresholds=[0.5])
