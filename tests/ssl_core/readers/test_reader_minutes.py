"""AUROC for a reader's time: steps by hand, and strategies after equal minutes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssl_core.claims.curve import Line, Point
from ssl_core.evidence import Estimate
from ssl_core.readers.reader_minutes import (
    draws_of,
    draws_of_seeds,
    per_minute,
    per_minute_sentence,
    steps,
    steps_sentence,
)


def line(*points: tuple[int, float | None, float]) -> Line:
    told = tuple(
        Point(k, labels, hours, None, Estimate(value, value - 0.03, value + 0.03, 50))
        for k, (labels, hours, value) in enumerate(points, 1)
    )
    return Line("rounds", "margin", "student", "student", "macro", 1, told)


def test_steps_by_hand():
    found = steps(line((20, 1.0, 0.7), (40, 3.0, 0.8), (60, 3.0, 0.82)))
    assert [(s.since, s.until, s.labels, s.hours) for s in found] == [
        (1, 2, 20, 2.0),
        (2, 3, 20, 0.0),
        (1, 3, 40, 2.0),
    ]
    half = 0.03 * math.sqrt(2)
    assert found[0].gain.value == pytest.approx(0.1)
    assert found[0].per_hour.value == pytest.approx(0.05)
    assert (found[0].per_hour.low, found[0].per_hour.high) == pytest.approx(
        ((0.1 - half) / 2, (0.1 + half) / 2)
    )
    assert math.isnan(found[1].per_hour.value)  # nobody read in between
    assert steps_sentence(found).startswith("From round 1 to round 3, 40 labels took 2.0")
    assert "cannot be told from none" not in steps_sentence(found)
    assert steps(line((20, None, 0.7), (40, None, 0.8))) == []
    assert "not known" in steps_sentence([])


BUDGETS = [50, 100, 200, 400]
CURVE = np.array([0.70, 0.75, 0.80, 0.85])  # .05 for each doubling


def compare(times: float, ahead: float = 0.02):
    ours, control = np.tile(CURVE + ahead, (1000, 1)), np.tile(CURVE, (1000, 1))
    rate = np.full(1000, times)
    return per_minute("margin", BUDGETS, ours, BUDGETS, control, rate, np.full(1000, 30.0))


def test_a_strategy_that_wins_by_the_label_may_lose_by_the_minute():
    same = compare(1.0)
    assert [one.minutes.value for one in same] == pytest.approx([25, 50, 100, 200])
    assert all(one.per_label.value == one.per_minute.value for one in same)
    assert same[0].per_label.value == pytest.approx(0.02)
    twice = compare(2.0)
    assert math.isnan(twice[0].per_minute.value)  # 25 labels: before the curve begins
    assert twice[1].per_label.value == pytest.approx(0.02)
    assert twice[1].per_minute.value == pytest.approx(0.02 - 0.05)  # a doubling behind
    assert "wins by the label and loses by the minute" in per_minute_sentence(twice)
    assert "it wins by the minute" in per_minute_sentence(same)
    assert "cannot be compared" in per_minute_sentence([])


def test_what_is_not_sure_of_the_times_is_not_sure_of_the_minutes():
    rng = np.random.default_rng(0)
    times = np.exp(0.4 * rng.standard_normal(1000)) * 1.3
    flat = np.tile(CURVE, (1000, 1))
    found = per_minute("m", [20, 1600], flat[:, [0, 3]], BUDGETS, flat, times, np.full(1000, 30.0))
    assert found[1].per_minute.high - found[1].per_minute.low > 0.02
    assert found[1].per_label.high == pytest.approx(found[1].per_label.low)


def test_draws_have_the_spread_of_the_intervals():
    rng = np.random.default_rng(0)
    draws = draws_of([Estimate(0.8, 0.7, 0.9, 9), Estimate(0.5, 0.49, 0.51, 9)], rng)
    assert draws.mean(axis=0) == pytest.approx([0.8, 0.5], abs=0.01)
    assert draws.std(axis=0) == pytest.approx([0.2 / 3.92, 0.02 / 3.92], rel=0.1)


def test_seeds_keep_their_pairing():
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.1, size=20)
    both = np.c_[0.8 + luck, 0.75 + luck]  # the same luck on both sides
    draws = draws_of_seeds(both, rng)
    assert (draws[:, 0] - draws[:, 1]).std() < 1e-12
    assert draws[:, 0].std() == pytest.approx(luck.std(ddof=1) / math.sqrt(20), rel=0.15)
