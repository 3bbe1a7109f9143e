"""A strategy looked at after every round: levels by hand, false calls and power by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssl_core.claims.sequence import FIRST, Look, so_far, spent
from tests.ssl_core.claims.replay_worlds import noise

RUNS, ROUNDS = (
    150,
    8,
)  # a rate of 5 % is then seen within 5.3 points (3 sd), one of 2.5 % within 3.8


def history(
    rng, effect=0.0, error=0.01, alike=0.5, labels=0.0, training=0.0, grows=False, first=50.0
):
    """Differences of 8 rounds: luck of the test cases, of nested labels and of each training."""
    n = first * (1.25 ** np.arange(ROUNDS) if grows else np.arange(1.0, ROUNDS + 1))
    steps = np.diff(np.concatenate([[0.0], n]))
    nested = np.cumsum(rng.standard_normal(ROUNDS) * np.sqrt(steps)) / n * math.sqrt(n[0])
    luck = math.sqrt(alike) * rng.standard_normal() + math.sqrt(1 - alike) * rng.standard_normal(
        ROUNDS
    )
    d = effect + error * luck + labels * nested + training * rng.standard_normal(ROUNDS)
    return [Look(k + 1, n[k], float(d[k]), error) for k in range(ROUNDS)]


def calls(looks):
    """What was said at each look: +1 better, -1 worse, 0 not told."""
    found = [so_far(looks[:k]) for k in range(FIRST, len(looks) + 1)]
    return [int(d.low > 0) - int(d.high < 0) for d in found]


def test_the_levels_of_all_looks_add_up_to_five_percent():
    assert [spent(k) for k in range(1, FIRST)] == [0.0] * (FIRST - 1)
    assert spent(FIRST) == pytest.approx(0.05 / (FIRST + 1))
    assert sum(spent(k) for k in range(1, 200_000)) == pytest.approx(0.05, rel=1e-4)


def test_too_few_looks_say_nothing_and_unknown_ones_do_not_count():
    looks = [Look(k, 50.0 * k, 0.1, 0.01) for k in range(1, FIRST)]
    assert so_far(looks) is None
    assert so_far([*looks, Look(9, 500.0, math.nan, 0.01)]) is None
    assert so_far([*looks, Look(9, 500.0, 0.1, 0.01)]).n == FIRST


def test_the_value_is_the_mean_and_its_sign_turns_with_the_sides():
    looks = [Look(k, 50.0 * k, d, 0.01) for k, d in enumerate((0.01, 0.05, 0.02, 0.04), 1)]
    found = so_far(looks)
    turned = so_far([Look(x.round, x.labels, -x.difference, x.error) for x in looks])
    assert found.value == pytest.approx(0.03)
    assert (turned.low, turned.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
    assert found.p == pytest.approx(turned.p)


def test_the_interval_excludes_zero_just_where_p_is_below_five_percent():
    rng = np.random.default_rng(2)
    for _ in range(40):
        found = so_far(history(rng, effect=0.03))
        assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_luck_widens_the_interval():
    steady = [Look(k, 50.0 * k, 0.02, 0.005) for k in range(1, 7)]
    wild = [Look(k, 50.0 * k, 0.02 + (-1) ** k * 0.03, 0.005) for k in range(1, 7)]
    widths = [so_far(x).high - so_far(x).low for x in (steady, wild)]
    assert widths[1] > 1.2 * widths[0]


NULLS = {
    "test cases alone": {},
    "test cases, all alike": {"alike": 1.0, "error": 0.02},
    "independent": {"alike": 0.0},
    "luck of the labels": {"labels": 0.02, "error": 0.005},
    "luck of the training": {"training": 0.02, "error": 0.005},
    "much of both, slow growth": {"labels": 0.03, "training": 0.03, "grows": True},
    "a shadow control of few labels": {"labels": 0.08, "error": 0.03, "grows": True, "first": 12.0},
}


@pytest.mark.parametrize("name", NULLS)
def test_secretly_random_is_called_better_in_five_percent_over_all_looks(name):
    rng = np.random.default_rng([5, *name.encode()])
    better = np.mean([1 in calls(history(rng, **NULLS[name])) for _ in range(RUNS)])
    assert better <= 0.025 + noise(0.025, RUNS)  # the other half of 5 % is for "worse"


@pytest.mark.parametrize(("effect", "call"), [(-0.10, -1), (0.10, 1)])
def test_what_is_far_from_random_is_told_within_six_rounds(effect, call):
    """Ten standard errors, with luck of both kinds: in 95 of 100 histories."""
    rng = np.random.default_rng(6)
    told = [
        call in calls(history(rng, effect, labels=0.005, training=0.005)[:6]) for _ in range(60)
    ]
    assert np.mean(told) >= 0.95 - noise(0.95, 60)
