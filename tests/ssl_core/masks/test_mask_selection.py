"""Scores that ask for masks: by hand, and the laws of `tests.ssl_core.strategies`."""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.masks.selection import (
    boundary_entropy,
    disagreement,
    disagreement_reason,
    entropy_by_finding,
    entropy_reason,
    foreground,
    foreground_random,
    inconsistency,
    inconsistency_reason,
    mean_entropy,
)

OF_MAPS = {"mean_entropy": mean_entropy, "boundary_entropy": boundary_entropy}
OF_SEVERAL = {"inconsistency": inconsistency, "disagreement": disagreement}


def maps(n=20, seed=0, lead=()):
    return np.random.default_rng(seed).random((*lead, n, 2, 6, 5), np.float32)


def cases():
    """Every deterministic score with material of its own, items on axis -4."""
    found = [(name, score, maps()) for name, score in OF_MAPS.items()]
    return found + [(name, score, maps(lead=(3,))) for name, score in OF_SEVERAL.items()]


every_score = pytest.mark.parametrize(("name", "score", "p"), cases())


def take(p, rows):
    return np.take(p, rows, axis=-4)


# --- laws --------------------------------------------------------------------------------------


@every_score
def test_one_finite_float64_an_item_and_inputs_are_left_alone(name, score, p):
    before = p.copy()
    p.setflags(write=False)
    found = score(p)
    assert found.shape == (20,)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(p, before)


@every_score
def test_reordering_the_pool_reorders_the_scores(name, score, p):
    order = np.random.default_rng(1).permutation(20)
    np.testing.assert_array_equal(score(p)[order], score(take(p, order)))


@every_score
def test_an_item_is_scored_by_its_own_maps(name, score, p):
    alone = [score(take(p, [i]))[0] for i in range(20)]
    np.testing.assert_allclose(score(p), alone, rtol=1e-12)


@every_score
def test_mirrors_and_the_order_of_findings_and_members_do_not_matter(name, score, p):
    for other in (p[..., ::-1], p[..., ::-1, :], p[..., ::-1, :, :]):
        np.testing.assert_allclose(score(p), score(other), rtol=1e-9)
    if p.ndim == 5:
        np.testing.assert_allclose(score(p), score(p[::-1]), rtol=1e-6)


@every_score
def test_ties_and_tiny_pools(name, score, p):
    assert len(np.unique(score(take(p, [3] * 7)))) == 1
    for size in (0, 1, 2):
        assert score(take(p, np.arange(size))).shape == (size,)


@every_score
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_certain_maps_ask_for_nothing(name, score, p, value):
    np.testing.assert_array_equal(score(np.full_like(p, value)), 0.0)


@every_score
def test_what_is_no_probability_is_refused(name, score, p):
    for wrong in (p + 1, p[..., 0], p[..., :0]):
        with pytest.raises(ValueError, match="must be"):
            score(wrong)
    if name != "inconsistency":
        with pytest.raises(ValueError, match="probabilities"):
            score(np.full_like(p, np.nan))


# --- each by hand ------------------------------------------------------------------------------


def test_mean_entropy_by_hand():
    p = np.array([0.5, 0.0, 1.0, 0.5]).reshape(1, 1, 2, 2)
    assert mean_entropy(p)[0] == 0.5
    both = np.concatenate([p, np.zeros_like(p)], axis=1)
    assert mean_entropy(both)[0] == 0.25


def disc(radius, haze, size=64):
    y, x = np.mgrid[:size, :size] + 0.5 - size / 2
    return 1 / (1 + np.exp((np.hypot(y, x) - radius) / haze))[None, None]


def test_boundary_entropy_is_the_width_of_the_edge_whatever_the_size():
    small, large = disc(14, 1.0), disc(26, 1.0)
    assert mean_entropy(large)[0] > 1.7 * mean_entropy(small)[0]
    assert boundary_entropy(large)[0] == pytest.approx(boundary_entropy(small)[0], rel=0.1)
    assert boundary_entropy(disc(14, 2.0))[0] > 1.6 * boundary_entropy(small)[0]


def test_boundary_entropy_of_an_empty_mask_is_finite_and_modest():
    haze = np.full((1, 1, 64, 64), 0.001)
    assert 0 < boundary_entropy(haze)[0] < boundary_entropy(disc(14, 1.0))[0]
    half = np.zeros((1, 1, 4, 4))
    half[..., :2] = 0.8  # an edge of 4 pixels; the floor is 4, too
    entropy = -(0.8 * np.log2(0.8) + 0.2 * np.log2(0.2))
    assert boundary_entropy(half)[0] == pytest.approx(8 * entropy / 4)


def test_inconsistency_by_hand():
    a = np.array([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)
    b = np.array([0.0, 1.0, 1.0, 0.0]).reshape(1, 1, 1, 4)
    assert inconsistency(np.stack([a, a]))[0] == 0
    assert inconsistency(np.stack([a, b]))[0] == 0.5
    assert inconsistency(np.stack([a, a, b]))[0] == pytest.approx(1 / 3)
    assert inconsistency(np.stack([a, 0 * a]))[0] == 1
    unseen = b.copy()
    unseen[..., 0] = unseen[..., 2] = np.nan
    assert inconsistency(np.stack([a, unseen]))[0] == 0
    assert inconsistency(np.stack([a, np.full_like(a, np.nan)]))[0] == 0


def test_disagreement_by_hand():
    sure = np.stack([np.zeros((1, 1, 2, 2)), np.ones((1, 1, 2, 2))])
    assert disagreement(sure)[0] == 1
    assert disagreement(np.full((2, 1, 1, 2, 2), 0.5))[0] == 0


def test_the_foreground_is_counted_by_finding():
    p = np.zeros((2, 2, 2, 2))
    p[1, 0, 0] = 0.5
    p[1, 1] = 0.49
    np.testing.assert_array_equal(foreground(p), [[0, 0], [2, 0]])


def test_entropy_by_finding_is_what_the_mean_is_made_of():
    p = np.random.default_rng(0).random((5, 3, 4, 4))
    np.testing.assert_allclose(entropy_by_finding(p).mean(axis=1), mean_entropy(p))


def test_foreground_comes_first_by_its_share():
    has = np.arange(90) < 30
    order = np.argsort(-foreground_random(has, np.random.default_rng(0)))
    shown = order < 30
    assert shown[:15].sum() == 10
    assert shown[:44].sum() in (29, 30)
    assert shown[:46].sum() == 30  # then the others go on
    assert sorted(order) == list(range(90))
    for share, first in ((1.0, 30), (0.0, 0)):
        found = np.argsort(-foreground_random(has, np.random.default_rng(0), share=share))
        assert (found[:30] < 30).sum() == first


def test_foreground_random_is_seeded_even_within_its_kinds_and_takes_any_pool():
    has = np.arange(10) < 4
    draws = np.array([foreground_random(has, np.random.default_rng(s)) for s in range(400)])
    np.testing.assert_array_equal(draws[0], foreground_random(has, np.random.default_rng(0)))
    firsts = np.bincount(draws.argmax(axis=1), minlength=10)
    assert firsts[4:].sum() in (0, 400)  # which kind begins is not left to chance
    lucky = firsts[:4] if firsts[:4].any() else firsts[4:]
    assert lucky.min() > 0.6 * lucky.mean()
    for n in (0, 1):
        assert foreground_random(has[:n], np.random.default_rng(0)).shape == (n,)
    with pytest.raises(ValueError, match="share is 2"):
        foreground_random(has, np.random.default_rng(0), share=2)


def test_reasons_are_sentences_about_the_item():
    p = np.zeros((2, 2, 2, 2))
    p[1, 1, 0, 0] = 0.5
    told = entropy_reason(entropy_by_finding(p), 1, ("A", "B"))
    assert told == "the outline of B is unsure by 0.250 bits a pixel"
    assert inconsistency_reason(0.25) == "masks of its augmented views agree with a Dice of 0.75"
    assert disagreement_reason(0.1) == "the models disagree by 0.100 bits a pixel"
