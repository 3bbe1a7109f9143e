"""Forecast and stop advice: curves by hand, refusals, and how often the intervals hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ssl_core.claims.forecast import FURTHEST, Fit, Observed, examined, fit, forecast
from ssl_core.claims.stopping import advise
from tests.ssl_core.claims.replay_worlds import CURVES, noise

RUNS = 60  # of a curve: a coverage of 95 % is then seen within 8.4 points (3 sd)
AHEAD = 2.5  # times the newest labels: where the target lies
DOUBLED = 50.0 * 2.0 ** np.arange(6)
MADE = CURVES | {"exponential": lambda n: 0.93 - 0.25 * np.exp(-n / 2000)}


def rng(seed=0):
    return np.random.default_rng(seed)


def history(curve, chance, n=DOUBLED, luck=0.008, nested=0.5, freedom=4):
    """Means over 5 seeds at rising budgets, with errors that were estimated from those seeds."""
    error = luck * (n / n[0]) ** -0.3
    near = np.sqrt(np.minimum.outer(n, n) / np.maximum.outer(n, n))
    root = np.linalg.cholesky((1 - nested) * np.eye(len(n)) + nested * near)
    y = MADE[curve](n) + error * (root @ chance.standard_normal(len(n)))
    told = error * np.sqrt(chance.chisquare(freedom, len(n)) / freedom)
    return [Observed(*map(float, one)) for one in zip(n, y, told, strict=True)]


def one(a, b, c, d=0.0, n0=100.0):
    return Fit(*(np.array([x]) for x in (a, b, c, d, 1.0)), n0)


def test_a_curve_by_hand():
    plain = one(0.9, 0.1, 0.5)  # .9 - .1 · (n / 100)^-.5
    assert plain.at(400)[0] == pytest.approx(0.85)
    assert plain.reaching(0.85)[0] == pytest.approx(400)
    assert plain.reaching(0.95)[0] == math.inf
    assert plain.reaching(0.9 - 1e-9)[0] == math.inf  # beyond a hundred times the labels
    late = one(0.9, 0.1, 1.0, d=100.0)  # .9 - .1 · 200 / (n + 100)
    assert late.at(300)[0] == pytest.approx(0.85)
    assert late.reaching(0.85)[0] == pytest.approx(300)
    straight = one(0.8, 0.05, 0.0)  # .8 + .05 · log(n / 100)
    assert straight.at(100 * math.e)[0] == pytest.approx(0.85)
    assert straight.reaching(0.85)[0] == pytest.approx(100 * math.e)
    assert straight.at(1e9)[0] == 1.0


def test_a_curve_without_luck_is_found_again():
    n = 50 * 2.0 ** np.arange(8)
    points = [Observed(float(x), float(CURVES["power"](x)), 1e-4) for x in n]
    found = forecast(points, float(CURVES["power"](2 * n[-1])), rng())
    assert found.refused == ""
    assert all(t.covered for t in found.back_test)
    assert [t.labels for t in found.back_test] == n[3:].tolist()
    assert found.labels.low <= 2 * n[-1] <= found.labels.high
    assert found.labels.value == pytest.approx(2 * n[-1], rel=0.3)


def test_the_back_test_rests_on_earlier_points_alone():
    points = history("power", rng(3))
    later = [*points[:-1], replace(points[-1], auroc=0.99)]
    ours, theirs = (examined(x, rng(1))[0] for x in (points, later))
    assert ours[:-1] == theirs[:-1]
    assert ours[-1].forecast == theirs[-1].forecast
    assert not theirs[-1].covered


def test_too_short_a_history_is_refused():
    found = forecast(history("power", rng())[:3], 0.9, rng())
    assert (found.labels, found.back_test) == (None, ())
    assert found.refused == "a forecast needs 4 measured budgets, and there are 3"
    unknown = [Observed(n, math.nan, 0.01) for n in (1.0, 2.0, 3.0, 4.0)]
    assert "there are 0" in forecast(unknown, 0.9, rng()).refused


def test_a_curve_that_does_not_foretell_itself_is_refused():
    jump = [Observed(n, y, 0.003) for n, y in ((50, 0.7), (100, 0.71), (200, 0.715), (400, 0.9))]
    found = forecast(jump, 0.95, rng())
    assert found.labels is None
    assert found.refused.endswith("only 0 of 1 earlier points lay where they were forecast")


def test_a_falling_curve_is_refused():
    points = [Observed(50.0 * 2**k, 0.9 - 0.05 * k, 0.002) for k in range(5)]
    assert fit(points, rng()) is None
    assert forecast(points, 0.95, rng()).labels is None


def test_same_seed_same_forecast():
    points = history("power", rng(1))
    assert forecast(points, 0.92, rng(7)) == forecast(points, 0.92, rng(7))


def test_a_target_out_of_reach_is_infinite_and_no_nan():
    points = [Observed(float(n), 0.8 - 3 * float(n) ** -1.0, 0.002) for n in DOUBLED]
    found = forecast(points, 0.97, rng())
    assert found.labels.value == math.inf
    assert found.labels.high == math.inf
    assert FURTHEST > AHEAD


@pytest.mark.parametrize("size", [4, 6])
@pytest.mark.parametrize("curve", CURVES)
def test_the_interval_of_a_forecast_covers(curve, size):
    """93 % or more of the forecasts that are made, less the check's own noise."""
    chance, n = rng([8, size, *curve.encode()]), DOUBLED[:size]
    goal = AHEAD * n[-1]
    held = []
    for k in range(RUNS):
        points = history(
            curve, chance, n, luck=(0.004, 0.015)[k % 2], nested=(0.0, 0.8)[k // 2 % 2]
        )
        found = forecast(points, float(CURVES[curve](goal)), chance)
        if found.labels is not None:
            held.append(found.labels.low <= goal <= found.labels.high)
    assert len(held) >= RUNS / 2
    assert np.mean(held) >= 0.93 - noise(0.95, len(held))


def test_a_curve_that_no_power_law_is_stays_in_its_interval():
    """Exponential: hardly bent so far, and four times the labels ahead."""
    chance, n, goal, held = rng(9), DOUBLED[:5], 4 * DOUBLED[4], []
    for k in range(RUNS):
        points = history("exponential", chance, n, luck=(0.004, 0.01)[k % 2])
        found = forecast(points, float(MADE["exponential"](goal)), chance)
        if found.labels is not None:
            held.append(found.labels.low <= goal <= found.labels.high)
    assert np.mean(held) >= 0.93 - noise(0.95, len(held))


# Stop advice


def test_a_flat_curve_is_stopped_and_a_steep_one_is_not():
    flat = [Observed(float(n), 0.9 - 20 * float(n) ** -1.5, 0.001) for n in DOUBLED]
    steep = [Observed(float(n), 0.6 + 0.1 * math.log(n / 50), 0.002) for n in (50, 80, 120, 170)]
    ours, theirs = advise(flat, rng()), advise(steep, rng())
    assert (ours.advice, ours.refused) == ("stop", "")
    assert ours.probability < 0.01
    assert (theirs.advice, theirs.probability) == ("go on", pytest.approx(1.0, abs=0.1))
    assert advise(flat[:3], rng()).advice == "not known"
    assert advise(flat[:3], rng()).probability is None


def test_who_stops_gives_a_gain_away_no_more_often_than_said():
    """Curves drawn at random: of those that were told to stop, few would have gained .01."""
    chance, lost = rng(4), []
    for _ in range(150):
        a, c = chance.uniform(0.8, 0.99), chance.uniform(0.2, 1.0)
        b = (a - chance.uniform(0.55, 0.75)) * 50**c
        points = [
            Observed(float(n), float(a - b * n**-c + chance.normal(0, e)), e)
            for n, e in zip(DOUBLED, 0.01 * (DOUBLED / 50) ** -0.3, strict=True)
        ]
        said, newest = advise(points, chance, more=400), DOUBLED[-1]
        if said.advice == "stop":
            lost.append(b * (newest**-c - (newest + 400) ** -c) >= said.worth)
    assert len(lost) >= 20
    assert np.mean(lost) <= 0.1 + noise(0.1, len(lost))
