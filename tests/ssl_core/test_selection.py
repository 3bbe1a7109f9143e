"""The drawing of a batch: exact probabilities, by enumeration and by simulation."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core.selection import (
    RANDOM_REASON,
    draw,
    inclusion_probability,
    inclusion_weighted_mean,
    slice_size,
)


def draw_of(scores, n, *, groups=None, seed=0, strategy="margin", **options):
    return draw(
        scores,
        groups if groups is not None else [str(i) for i in range(len(scores))],
        n,
        rng=options.pop("rng", None) or np.random.default_rng(seed),
        strategy_name=strategy,
        reasons=lambda position: f"because of {position}",
        **options,
    )


def positions(drawn, kind=None):
    return [item.position for item in drawn if kind in (None, item.kind)]


# --- the walk ----------------------------------------------------------------------------------


def test_without_a_slice_the_highest_scores_are_asked_in_order():
    drawn = draw_of([0.1, 0.9, 0.5, 0.7], 3, random_share=0.0)
    assert positions(drawn) == [1, 3, 2]
    assert [item.rank for item in drawn] == [0, 1, 2]
    assert [item.score for item in drawn] == [0.9, 0.7, 0.5]
    assert [item.kind for item in drawn] == ["strategy"] * 3
    assert [item.reason for item in drawn] == [f"because of {i}" for i in (1, 3, 2)]
    assert [item.probability for item in drawn] == [1.0] * 3
    assert [item.slice_probability for item in drawn] == [0.0] * 3


def test_the_cap_by_hand():
    scores, groups = [9, 8, 7, 6, 5, 4, 3], ["a", "a", "a", "b", "a", "b", "c"]

    def order(n, cap):
        return positions(draw_of(scores, n, groups=groups, group_cap=cap, random_share=0.0))

    assert order(3, 1) == [0, 3, 6]
    assert order(7, 1) == [0, 3, 6, 1, 5, 2, 4]  # second helpings, then third, then fourth
    assert order(4, 2) == [0, 1, 3, 5]
    assert order(7, 2) == [0, 1, 3, 5, 6, 2, 4]
    assert order(7, None) == order(7, 4) == list(range(7))


@settings(max_examples=60, deadline=None)
@given(
    pool=st.lists(st.tuples(st.floats(-5, 5), st.sampled_from("abcd")), min_size=1, max_size=25),
    n=st.integers(0, 30),
    cap=st.integers(1, 4),
)
def test_the_cap_holds_while_other_groups_have_items_left(pool, n, cap):
    scores, groups = [score for score, _ in pool], [group for _, group in pool]
    taken = positions(draw_of(scores, n, groups=groups, group_cap=cap, random_share=0.0))
    assert len(taken) == len(set(taken)) == min(n, len(pool))
    count = {group: [groups[i] for i in taken].count(group) for group in "abcd"}
    within_reach = sum(min(groups.count(group), cap) for group in "abcd")
    if n <= within_reach:
        assert max(count.values()) <= cap
    for group in "abcd":  # within a group, the higher scores are the ones taken
        own = [i for i in range(len(pool)) if groups[i] == group]
        best = sorted((scores[i] for i in own), reverse=True)[: count[group]]
        assert sorted((scores[i] for i in taken if groups[i] == group), reverse=True) == best


def test_ties_are_broken_at_random_wherever_the_items_stand():
    rng, scores = np.random.default_rng(5), [0.0, 1.0, 1.0, 1.0, 0.5]
    orders = [tuple(positions(draw_of(scores, 4, random_share=0.0, rng=rng))) for _ in range(1200)]
    assert {order[3] for order in orders} == {4}
    counts = [orders.count((*three, 4)) for three in ((1, 2, 3), (1, 3, 2), (2, 1, 3), (3, 2, 1))]
    assert all(abs(count - 200) < 5 * math.sqrt(1200 / 6 * 5 / 6) for count in counts)


# --- the slice ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "share", "expected"),
    [
        (0, 0.15, 0),
        (1, 0.15, 1),  # at least one
        (3, 0.15, 1),
        (10, 0.15, 2),  # 1.5: halves up
        (30, 0.15, 5),  # 4.5: halves up, not to the even
        (50, 0.15, 8),
        (100, 0.145, 15),  # 14.499999999999998 in floating point
        (100, 0.1449, 14),
        (20, 0.0, 0),
        (20, 1e-9, 1),
        (20, 1.0, 20),
    ],
)
def test_slice_size_rounds_halves_up(n, share, expected):
    assert slice_size(n, share) == expected


def test_kinds_scores_and_reasons_of_a_mixed_batch():
    scores = np.linspace(0, 1, 40)
    drawn = draw_of(scores, 20, random_share=0.25)
    control = [item for item in drawn if item.kind == "random"]
    assert len(control) == 5
    for item in drawn:
        assert item.slice_probability == 5 / 40
        if item in control:
            assert math.isnan(item.score)
            assert item.reason == RANDOM_REASON
        else:
            assert item.score == scores[item.position]
            assert item.reason == f"because of {item.position}"
    left = [i for i in range(39, -1, -1) if i not in positions(control)]
    assert positions(drawn, "strategy") == left[:15]


def test_the_slice_ignores_scores_and_the_cap():
    """All but two items are one patient's: a capped slice would favour the two."""
    rng, total, times = np.random.default_rng(2), 12, 3000
    groups = ["x"] * 10 + ["y", "z"]
    hits = np.zeros(total)
    for _ in range(times):
        drawn = draw_of(range(total), 6, groups=groups, group_cap=1, random_share=0.5, rng=rng)
        hits[positions(drawn, "random")] += 1
    assert hits.sum() == 3 * times
    assert (np.abs(hits - times / 4) < 5 * math.sqrt(times * 0.25 * 0.75)).all()


def test_ranks_do_not_tell_control_from_query():
    rng, times = np.random.default_rng(3), 3000
    at_rank = np.zeros(8)
    for _ in range(times):
        drawn = draw_of(range(50), 8, random_share=0.25, rng=rng)
        assert [item.rank for item in drawn] == list(range(8))
        for item in drawn:
            at_rank[item.rank] += item.kind == "random"
    assert (np.abs(at_rank - times / 4) < 5 * math.sqrt(times * 0.25 * 0.75)).all()


def test_the_order_within_the_slice_is_random():
    rng, rising, mixed = np.random.default_rng(4), 0, 0
    for _ in range(1000):
        first, second = positions(draw_of(range(30), 4, random_share=0.5, rng=rng), "random")
        rising, mixed = rising + (first < second), mixed + 1
    assert abs(rising - mixed / 2) < 5 * math.sqrt(mixed / 4)


def test_random_is_all_slice():
    drawn = draw_of(np.arange(30.0), 6, strategy="random", group_cap=1, groups=["p"] * 30)
    assert len(set(positions(drawn))) == 6
    for item in drawn:
        assert item.kind == "random"
        assert item.probability == item.slice_probability == 6 / 30
        assert item.reason == RANDOM_REASON


# --- probabilities -----------------------------------------------------------------------------


def enumerated(total, n, m):
    """Inclusion probability of each place of the walk, over every slice there can be."""
    slices = list(combinations(range(total), m))
    hits = [0] * total
    for chosen in slices:
        rest = [place for place in range(total) if place not in chosen]
        for place in (*chosen, *rest[: n - m]):
            hits[place] += 1
    return [Fraction(hit, len(slices)) for hit in hits]


def test_probabilities_equal_full_enumeration():
    for total in range(1, 9):
        for n in range(1, total + 1):
            for m in range(n + 1):
                found = inclusion_probability(np.arange(1, total + 1), total, n, m)
                expected = [float(p) for p in enumerated(total, n, m)]
                np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_probabilities_by_hand():
    """Four items, two asked, one at random: the second is taken if the first is in the slice."""
    found = inclusion_probability([1, 2, 3, 4], 4, 2, 1)
    np.testing.assert_allclose(found, [1.0, 1 / 4 + 1 / 4, 1 / 4, 1 / 4])


@settings(max_examples=40, deadline=None)
@given(total=st.integers(1, 3000), data=st.data())
def test_probabilities_fall_along_the_walk_and_add_up_to_the_batch(total, data):
    n = data.draw(st.integers(1, min(total, 400)))
    m = data.draw(st.integers(0, n))
    found = inclusion_probability(np.arange(1, total + 1), total, n, m)
    assert found.sum() == pytest.approx(n, rel=1e-9)
    assert (np.diff(found) <= 1e-12).all()
    assert (found >= m / total - 1e-15).all()
    assert (found <= 1.0).all()


@pytest.mark.parametrize("cap", [None, 2])
def test_the_frequencies_of_drawing_are_the_stored_probabilities(cap):
    """Every item of a batch carries the same probability each time, and it is how often it came."""
    rng, total, times = np.random.default_rng(6), 30, 2500
    scores = np.random.default_rng(1).permutation(total).astype(float)
    groups = [str(i % 7) for i in range(total)]
    hits, stored = np.zeros(total), np.full(total, np.nan)
    for _ in range(times):
        for item in draw_of(scores, 10, groups=groups, group_cap=cap, random_share=0.4, rng=rng):
            hits[item.position] += 1
            assert stored[item.position] == item.probability or np.isnan(stored[item.position])
            stored[item.position] = item.probability
    assert not np.isnan(stored).any()
    assert stored.sum() == pytest.approx(10)
    error = np.sqrt(times * stored * (1 - stored))
    assert (np.abs(hits - times * stored) <= 5 * error).all()
    assert ((stored > 4 / 30 + 0.01) & (stored < 0.99)).any()  # the tail is put to the test


# --- edges -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["margin", "random"])
@pytest.mark.parametrize("n", [7, 8, 100])
def test_asking_for_all_takes_all_with_certainty(strategy, n):
    drawn = draw_of(np.arange(7.0), n, strategy=strategy, groups=["p"] * 7, group_cap=1)
    assert sorted(positions(drawn)) == list(range(7))
    assert [item.rank for item in drawn] == list(range(7))
    assert all(item.probability == pytest.approx(1.0, abs=1e-12) for item in drawn)


def test_empty_pool_and_empty_batch():
    assert draw_of([], 5) == []
    assert draw_of([], 0) == []
    assert draw_of([1.0, 2.0], 0) == []


def test_one_item():
    (item,) = draw_of([0.3], 1)
    assert (item.position, item.rank, item.kind, item.probability) == (0, 0, "random", 1.0)
    (item,) = draw_of([0.3], 1, random_share=0.0)
    assert (item.kind, item.probability, item.slice_probability) == ("strategy", 1.0, 0.0)


def test_same_generator_same_batch_and_inputs_are_left_alone():
    scores, groups = np.random.default_rng(0).random(50), [str(i // 3) for i in range(50)]
    before, names = scores.copy(), list(groups)
    scores.setflags(write=False)

    def summary(seed):
        drawn = draw_of(scores, 20, groups=groups, group_cap=1, seed=seed)
        return [(item.position, item.kind, item.probability) for item in drawn]

    assert summary(1) == summary(1)
    assert summary(1) != summary(2)
    np.testing.assert_array_equal(scores, before)
    assert groups == names


def test_reasons_are_asked_for_strategy_items_alone():
    asked = []
    drawn = draw(
        np.arange(100.0),
        ["p"] * 100,
        10,
        rng=np.random.default_rng(0),
        strategy_name="margin",
        reasons=lambda position: asked.append(position) or "so",
    )
    assert asked == positions(drawn, "strategy")


@pytest.mark.parametrize(
    ("scores", "n", "options", "message"),
    [
        ([0.1, math.nan], 1, {}, "NaN"),
        ([0.1, math.inf], 1, {}, "infinite"),
        ([[0.1], [0.2]], 1, {}, "one row each"),
        ([0.1, 0.2], 1, {"groups": ["a"]}, "one row each"),
        ([0.1, 0.2], -1, {}, "n is -1"),
        ([0.1, 0.2], 1, {"group_cap": 0}, "group_cap"),
        ([0.1, 0.2], 1, {"random_share": 1.1}, "random_share"),
        ([0.1, 0.2], 1, {"random_share": -0.1}, "random_share"),
        ([0.1, 0.2], 1, {"random_share": math.nan}, "random_share"),
    ],
)
def test_what_cannot_be_drawn_is_refused(scores, n, options, message):
    with pytest.raises(ValueError, match=message):
        draw_of(scores, n, **options)


# --- the weighted mean -------------------------------------------------------------------------


def test_weighted_mean_by_hand():
    assert inclusion_weighted_mean([1, 0], [0.5, 0.25]) == pytest.approx(2 / 6)
    assert inclusion_weighted_mean([3.0], [0.01]) == 3.0


def test_weighted_mean_of_equal_probabilities_is_the_mean():
    values = np.random.default_rng(0).random(20)
    assert inclusion_weighted_mean(values, np.full(20, 0.2)) == pytest.approx(values.mean())


def test_unknown_values_are_left_out_with_their_weight():
    assert inclusion_weighted_mean([1, math.nan, 0], [0.5, 0.1, 0.5]) == pytest.approx(0.5)
    assert math.isnan(inclusion_weighted_mean([math.nan], [0.5]))
    assert math.isnan(inclusion_weighted_mean([], []))


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.5, math.nan])
def test_weights_need_probabilities(bad):
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        inclusion_weighted_mean([1.0, 0.0], [0.5, bad])


def test_weights_need_equal_lengths():
    with pytest.raises(ValueError, match="one row each"):
        inclusion_weighted_mean([1.0, 0.0], [0.5])


def test_inverse_probabilities_estimate_totals_without_bias_by_enumeration():
    """Horvitz and Thompson: the mean over all slices of Σ v/π is the pool's total, exactly."""
    total, n, m = 7, 4, 2
    values = [Fraction(v) for v in (5, -1, 3, 0, 8, 2, 13)]
    probability = enumerated(total, n, m)
    estimates = []
    for chosen in combinations(range(total), m):
        rest = [place for place in range(total) if place not in chosen]
        batch = (*chosen, *rest[: n - m])
        estimates.append(sum(values[place] / probability[place] for place in batch))
    assert sum(estimates) / len(estimates) == sum(values)


def test_weighting_undoes_the_bias_of_a_strategy():
    """A strategy that asks for the sick: prevalence 20 %, 4 in 5 of whom score above the well."""
    rng, total, times = np.random.default_rng(8), 400, 1000
    sick = np.zeros(total)
    sick[:80] = 1.0
    scores = np.random.default_rng(1).random(total) + 0.8 * sick
    plain, weighted = [], []
    for _ in range(times):
        drawn = draw_of(scores, 80, random_share=0.5, rng=rng)
        values = sick[positions(drawn)]
        plain.append(values.mean())
        weighted.append(inclusion_weighted_mean(values, [item.probability for item in drawn]))
    error = np.std(weighted) / math.sqrt(times)
    assert np.mean(plain) > 0.4
    assert abs(np.mean(weighted) - 0.2) < 0.01 + 4 * error
    assert error < 0.005
