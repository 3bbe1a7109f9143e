"""Savings: by hand, and how often the intervals hold what is true."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_core.claims.savings import (
    Paths,
    area,
    area_difference,
    differences,
    joint,
    labels_to,
    paths,
    reach,
    saved,
)
from ssl_core.evidence import Estimate, PerFinding, Statistic, compare
from tests.ssl_core.claims.replay_worlds import BUDGETS, World, noise

RUNS = (
    200  # of a world: a coverage of 95 % is then seen within 4.6 points (3 sd), of 2.5 % within 3.3
)


def made(values, budgets=(10.0, 100.0), influence=None, name="a") -> Paths:
    """Values by seed and budget; no luck of test cases unless it is given."""
    table = np.array(values, dtype=float)
    luck = np.zeros((*table.shape, 2)) if influence is None else np.array(influence, dtype=float)
    return Paths(name, np.array(budgets, dtype=float), table, luck, np.zeros(table.shape))


# By hand


def test_the_area_is_the_mean_over_the_logarithm_of_the_budget():
    """10 to 100 and 100 to 1000 are equally wide: .5·(.6+.8)/2 + .5·(.8+.9)/2 = .775."""
    found = area(made([[0.6, 0.8, 0.9]] * 2, (10, 100, 1000)))
    assert found.value == pytest.approx(0.775)
    uneven = area(made([[0.6, 0.8, 0.9]] * 2, (10, 100, 10_000)))
    assert uneven.value == pytest.approx((0.7 + 2 * 0.85) / 3)
    assert area(made([[0.7], [0.9]], (50,))).value == pytest.approx(0.8)


def test_the_interval_of_an_area_over_seeds_is_students():
    """Differences of the area .01, .02, .03: mean .02, t(2) · .01 / √3 = .024842."""
    ours, control = made([[0.71, 0.71], [0.72, 0.72], [0.73, 0.73]]), made([[0.7, 0.7]] * 3)
    found = area_difference(ours, control)
    assert (found.value, found.low) == (
        pytest.approx(0.02),
        pytest.approx(0.02 - 0.024842, abs=1e-6),
    )
    assert found.p == pytest.approx(0.0742, abs=1e-4)  # t = 3.4641 with 2 degrees of freedom


def test_the_interval_over_test_cases_is_normal_and_both_sources_add_in_squares():
    luck = [[[0.003, -0.004], [0.003, -0.004]]] * 3  # of the difference: .005 at both budgets
    ours, control = made([[0.71, 0.71]] * 3, influence=luck), made([[0.7, 0.7]] * 3)
    assert area_difference(ours, control).high == pytest.approx(0.01 + 1.959964 * 0.005)
    ours = made([[0.71, 0.71], [0.72, 0.72], [0.73, 0.73]], influence=luck)
    both = math.hypot(1.959964 * 0.005, 0.024842)
    assert area_difference(ours, control).high == pytest.approx(0.02 + both, abs=1e-6)


def test_luck_that_both_share_cancels():
    luck = [[[0.03, -0.04], [0.03, -0.04]]] * 2
    ours = made([[0.71, 0.72], [0.81, 0.82]], influence=luck)
    control = made([[0.70, 0.71], [0.80, 0.81]], influence=luck)
    found = area_difference(ours, control)
    assert (found.low, found.high) == (pytest.approx(0.01), pytest.approx(0.01))


def test_one_seed_has_values_and_no_ends():
    found = area_difference(made([[0.7, 0.8]]), made([[0.6, 0.7]]))
    assert found.value == pytest.approx(0.1)
    assert all(math.isnan(x) for x in (found.low, found.high, found.p))
    assert math.isnan(saved(made([[0.7, 0.8]]), made([[0.6, 0.7]])).ratio.low)


def test_other_budgets_are_compared_where_both_were():
    ours = made([[0.6, 0.7, 0.8]] * 2, (1, 10, 100))
    control = made([[0.6, 0.7]] * 2, (10, 1000))
    assert area_difference(ours, control).value == pytest.approx(0.75 - 0.625)
    assert [d.value for d in differences(ours, control)] == pytest.approx([0.1, 0.15])
    with pytest.raises(ValueError, match="no budget in common"):
        area_difference(ours, made([[0.6, 0.7]] * 2, (200, 300)))


def test_what_reaches_the_controls_last_auroc():
    """.7 of the control at 100; ours passes it halfway between .6 at 10 and .8 at 100."""
    ours, control = made([[0.6, 0.8]] * 2), made([[0.5, 0.7]] * 2)
    found = saved(ours, control, hours=0.1, money=3.0)
    assert (found.target, found.control) == (pytest.approx(0.7), 100)
    assert found.labels.value == pytest.approx(math.sqrt(1000), rel=1e-3)
    assert found.ratio.value == pytest.approx(math.sqrt(0.1), rel=1e-3)
    assert found.spared.value == pytest.approx(100 - math.sqrt(1000), rel=1e-3)
    assert found.hours.value == pytest.approx(found.spared.value / 10)
    assert found.money.value == pytest.approx(found.spared.value * 3)
    assert saved(ours, control).hours is None


def test_what_is_never_reached_or_was_there_at_once_is_a_bound():
    never = saved(made([[0.4, 0.5]] * 2), made([[0.5, 0.7]] * 2))
    assert (never.labels.value, never.ratio.high, never.spared.low) == (
        math.inf,
        math.inf,
        -math.inf,
    )
    at_once = saved(made([[0.9, 0.95]] * 2), made([[0.5, 0.7]] * 2))
    assert (at_once.labels.value, at_once.labels.high) == (10, 10)
    assert (at_once.ratio.low, at_once.ratio.value) == (0, 0.1)
    assert at_once.spared.high == 100


def test_a_target_of_its_own():
    ours, control = made([[0.6, 0.8]] * 2), made([[0.5, 0.7]] * 2)
    found = saved(ours, control, 0.6)
    assert found.control == pytest.approx(math.sqrt(1000), rel=1e-3)
    assert found.labels.value == 10
    beyond = saved(ours, control, 0.75)  # which the control never has
    assert (beyond.target, beyond.control) == (0.75, 100)
    assert beyond.labels.value == pytest.approx(10 * 10**0.75, rel=1e-3)
    assert labels_to(ours, 0.75).value == beyond.labels.value


def test_with_one_budget_and_one_pair_it_is_the_paired_test_of_delong():
    rng = np.random.default_rng(0)
    some = [Statistic(Estimate(v, 0, 1, 40), rng.normal(0, 0.01, 40), 0.0, 9) for v in (0.8, 0.7)]
    whole = compare(*(PerFinding((s,), s) for s in some)).macro
    both = joint(*(paths("x", [50], [[s], [s]]) for s in some))
    found = both.difference([1.0, -1.0])
    assert (found.low, found.high) == (pytest.approx(whole.low), pytest.approx(whole.high))
    assert found.p == pytest.approx(whole.p, rel=1e-6)


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="same seeds"):
        joint(made([[0.7, 0.8]] * 2), made([[0.7, 0.8]] * 3))
    with pytest.raises(ValueError, match="every seed needs"):
        paths("x", [10, 20], [[Statistic(Estimate(0.5, 0, 1, 9), np.zeros(3), 0.0, 1)]])


@given(st.lists(st.floats(0.3, 1), min_size=2, max_size=6), st.floats(0.3, 1), st.floats(0.3, 1))
def test_a_higher_target_never_needs_fewer_labels(values, one, other):
    budgets = [10.0 * 2**k for k in range(len(values))]
    low, high = sorted((one, other))
    assert reach(budgets, values, low) <= reach(budgets, values, high)
    assert budgets[0] <= reach(budgets, values, low)


# How often the intervals hold what is true

WORLDS = {
    "three seeds": World(),
    "five seeds, heavy tails": World(seeds=5, heavy=True),
    "seeds alone": World(cases=1e-9, nested=0.9),
    "few patients, much luck": World(seeds=5, cases=0.03, luck=0.005, groups=40),
    "slow curve, no saving": World(curve="slow power", faster=1.0, seeds=4, nested=0.0),
    "late curve": World(curve="late", faster=1.6, seeds=10, luck=0.03, heavy=True),
}


@pytest.mark.parametrize("name", WORLDS)
def test_nominal_intervals_cover(name):
    """Area and ratio cover 93 % or more; the check itself allows 3 sd of its own noise."""
    world, rng = WORLDS[name], np.random.default_rng([3, *name.encode()])
    ours, control = world.truth()
    no_luck = np.zeros((2, len(BUDGETS), 2))
    true = [
        Paths("t", BUDGETS, np.tile(v, (2, 1)), no_luck, no_luck[:, :, 0]) for v in (ours, control)
    ]
    gain, ratio = area_difference(*true).value, saved(*true).ratio.value
    held = np.zeros(2)
    for _ in range(RUNS):
        drawn = world.draw(rng)
        d, r = area_difference(*drawn), saved(*drawn).ratio
        held += (d.low <= gain <= d.high, r.low <= ratio * 1.003 and ratio <= r.high * 1.003)
    assert (held / RUNS >= 0.93 - noise(0.95, RUNS)).all(), held / RUNS


def test_a_strategy_that_is_secretly_random_is_seldom_better():
    world, rng = World(faster=1.0, seeds=3), np.random.default_rng(11)
    better = np.mean([area_difference(*world.draw(rng)).low > 0 for _ in range(RUNS)])
    assert better <= 0.025 + noise(0.025, RUNS)  # one side of 5 %
