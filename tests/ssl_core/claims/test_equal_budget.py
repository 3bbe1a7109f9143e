"""A strategy against its control at equal budgets: which rounds stand in, and the difference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ssl_core import metrics
from ssl_core.claims.equal_budget import against_control, mixed, stand_ins
from ssl_core.evidence import PerFinding, compare

LABELS = np.array([[1, 1], [0, 0], [1, 0], [0, 1], [1, 0], [0, 0], [1, 1], [0, 1]], dtype=float)
GROUPS = np.array(list("aabbccdd"))


def auroc(seed: int, labels=LABELS, items: int = 8) -> PerFinding:
    scores = np.clip(0.35 * labels + np.random.default_rng(seed).random((items, 2)) * 0.6, 0, 1)
    return metrics.auroc(scores, labels, GROUPS if items == 8 else None)


def test_the_nearest_rounds_stand_in_by_the_logarithm_of_the_budget():
    labels = {2: 50, 3: 100, 4: 200, 6: 400}
    assert stand_ins(100, labels) == {3: 1.0}
    assert stand_ins(50, labels) == {2: 1.0}
    half = stand_ins(round(math.sqrt(100 * 200)), labels)  # 141 of 141.4
    assert half == {3: pytest.approx(0.504, abs=1e-3), 4: pytest.approx(0.496, abs=1e-3)}
    assert stand_ins(250, labels) == {
        4: pytest.approx(1 - math.log(1.25) / math.log(2)),
        6: pytest.approx(math.log(1.25) / math.log(2)),
    }


def test_a_curve_is_not_drawn_on_beyond_its_ends():
    assert stand_ins(49, {2: 50, 3: 100}) == {}
    assert stand_ins(101, {2: 50, 3: 100}) == {}
    assert stand_ins(5, {}) == {}


def test_of_rounds_with_as_many_labels_the_newest_counts():
    assert stand_ins(50, {2: 50, 3: 50}) == {3: 1.0}
    assert set(stand_ins(70, {2: 50, 3: 50, 4: 100, 5: 100})) == {3, 5}


@given(st.dictionaries(st.integers(1, 30), st.integers(1, 900), max_size=8), st.integers(1, 900))
def test_weights_are_a_mean_of_rounds_around_the_budget(labels, budget):
    found = stand_ins(budget, labels)
    inside = labels and min(labels.values()) <= budget <= max(labels.values())
    assert bool(found) == bool(inside)
    assume(found)
    assert sum(found.values()) == pytest.approx(1.0)
    assert all(weight > 0 for weight in found.values())
    logs = sum(weight * math.log(labels[number]) for number, weight in found.items())
    assert logs == pytest.approx(math.log(budget))
    between = {c for c in labels.values() if c == budget}
    assert {labels[n] for n in found} == between or not between


def test_against_one_round_it_is_the_paired_comparison():
    ours, control = auroc(1), auroc(2)
    assert against_control([(1.0, ours)], control) == compare(ours, control)


def test_against_two_rounds_values_and_errors_are_those_of_their_mean():
    first, second, control = auroc(1, *BIG), auroc(2, *BIG), auroc(3, *BIG)
    found = against_control([(0.25, first), (0.75, second)], control)
    for c in range(2):
        a, b, r = (x.findings[c] for x in (first, second, control))
        value = 0.25 * a.estimate.value + 0.75 * b.estimate.value - r.estimate.value
        assert found.findings[c].value == pytest.approx(value)
        change = 0.25 * a.influence + 0.75 * b.influence - r.influence
        half = 1.959964 * math.sqrt(float(change @ change))
        assert found.findings[c].low == pytest.approx(value - half, abs=1e-6)
        assert found.findings[c].high == pytest.approx(value + half, abs=1e-6)
    assert found.macro.value == pytest.approx(np.mean([d.value for d in found.findings]))


BIG = ((np.random.default_rng(0).random((120, 2)) < 0.4).astype(float), 120)


def test_a_model_mixed_with_itself_is_itself():
    one = auroc(4, *BIG)
    found = mixed([(0.3, one), (0.7, one)])
    for ours, theirs in zip(
        (*found.findings, found.macro), (*one.findings, one.macro), strict=True
    ):
        assert ours.estimate.value == pytest.approx(theirs.estimate.value)
        assert ours.estimate.low == pytest.approx(theirs.estimate.low)
        assert ours.variance == pytest.approx(theirs.variance)


def test_two_perfect_models_keep_an_honest_interval():
    perfect = metrics.auroc(LABELS, LABELS, GROUPS)
    found = mixed([(0.5, perfect), (0.5, perfect)]).macro
    assert found.estimate == perfect.macro.estimate
    assert found.estimate.low < 0.9


def test_a_finding_that_one_model_has_no_number_for_is_unknown():
    gone = LABELS.copy()
    gone[:, 1] = np.nan
    full, part = auroc(1), metrics.auroc(np.abs(LABELS - 0.3), gone, GROUPS)
    found = against_control([(0.5, full), (0.5, part)], auroc(2))
    assert math.isfinite(found.findings[0].value)
    assert math.isnan(found.findings[1].value)
    assert math.isnan(found.macro.value)
