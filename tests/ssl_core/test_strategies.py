"""The battery of laws that every query strategy must pass, and exact checks of each of them.

A new entry of `STRATEGIES` meets the laws by being in the dict. Strategies whose order hangs on
the generator (`DRAWING`) are held to equivariance in distribution or on planted data instead.
"""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ssl_core import strategies
from ssl_core.errors import SelectionError
from ssl_core.selection import draw
from ssl_core.strategies import STRATEGIES, PoolView, reason

DRAWING = {"random", "cold_start"}
DETERMINISTIC = sorted(set(STRATEGIES) - DRAWING)
TASKS = ["binary", "multi_label", "multi_class"]
FINDINGS = ("Effusion", "Nodule", "Mass", "Hernia")

every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))
every_deterministic = pytest.mark.parametrize("name", DETERMINISTIC)
every_task = pytest.mark.parametrize("task", TASKS)


def rng(seed=0):
    return np.random.default_rng(seed)


def probabilities(task, *leading, seed=0):
    generator = rng(seed)
    if task == "multi_class":
        return generator.dirichlet(np.ones(4), size=leading)
    return generator.random((*leading, 1 if task == "binary" else 4))


def full_view(task, size=30, seed=0, **changes):
    """A view that holds all that any strategy may ask for."""
    parts = {
        "probabilities": probabilities(task, size, seed=seed),
        "views": probabilities(task, 5, size, seed=seed + 1),
        "features": rng(seed + 2).normal(size=(size, 6)),
        "labeled_features": rng(seed + 3).normal(size=(4, 6)),
    }
    return PoolView(size=size, exclusive=task == "multi_class", **{**parts, **changes})


def rows(view, index):
    return PoolView(
        size=len(index),
        exclusive=view.exclusive,
        probabilities=view.probabilities[index],
        views=view.views[:, index],
        features=view.features[index],
        labeled_features=view.labeled_features,
    )


def columns(view, index):
    return PoolView(
        size=view.size,
        exclusive=view.exclusive,
        probabilities=view.probabilities[:, index],
        views=view.views[:, :, index],
    )


def scores_of(name, view, n=5, seed=0):
    """Scores, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return STRATEGIES[name](view, n, rng(seed))


# --- laws for every strategy -------------------------------------------------------------------


@every_task
@every_strategy
def test_scores_are_one_finite_float64_an_item(name, task):
    scores = scores_of(name, full_view(task))
    assert scores.shape == (30,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()


@every_task
@every_strategy
def test_same_generator_same_scores_and_inputs_are_left_alone(name, task):
    view = full_view(task)
    arrays = [view.probabilities, view.views, view.features, view.labeled_features]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.setflags(write=False)
    first = scores_of(name, view)
    np.testing.assert_array_equal(first, scores_of(name, view))
    for array, copy in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@every_strategy
def test_nothing_seeds_globally(name):
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (the global state is what we watch)
    scores_of(name, full_view("multi_label"))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@every_task
@every_strategy
@pytest.mark.parametrize("n", [0, 1, 30, 31, 1000])
def test_any_number_may_be_asked(name, task, n):
    assert np.isfinite(scores_of(name, full_view(task), n=n)).all()


@every_task
@every_strategy
@pytest.mark.parametrize("size", [0, 1, 2])
def test_tiny_pools(name, task, size):
    scores = scores_of(name, full_view(task, size=size))
    assert scores.shape == (size,)
    assert np.isfinite(scores).all()


@every_task
@every_strategy
def test_a_pool_of_equal_items(name, task):
    scores = scores_of(name, rows(full_view(task), np.zeros(12, dtype=int)))
    assert np.isfinite(scores).all()
    if name in DETERMINISTIC:
        assert len(np.unique(scores)) == 1


@every_task
@every_strategy
def test_certain_and_impossible_predictions_raise_no_warning(name, task):
    width = 1 if task == "binary" else 4
    sure = np.zeros((6, width))
    sure[:, 0] = 1.0
    if task != "multi_class":
        sure[::2] = 1.0 - sure[::2]
    view = full_view(task, size=6, probabilities=sure, views=np.stack([sure] * 5))
    scores = scores_of(name, view)
    assert np.isfinite(scores).all()
    if name in DETERMINISTIC:
        np.testing.assert_array_equal(scores, 0.0)


@every_task
@every_deterministic
def test_reordering_the_pool_reorders_the_scores(name, task):
    view, order = full_view(task), rng(9).permutation(30)
    np.testing.assert_array_equal(
        scores_of(name, view)[order], scores_of(name, rows(view, order), seed=1)
    )


@every_task
@every_deterministic
def test_an_item_is_scored_by_its_own_row(name, task):
    view = full_view(task)
    alone = [scores_of(name, rows(view, np.array([i])))[0] for i in range(view.size)]
    np.testing.assert_allclose(scores_of(name, view), alone, rtol=1e-12)


@pytest.mark.parametrize("task", ["multi_label", "multi_class"])
@every_deterministic
def test_the_order_of_findings_does_not_matter(name, task):
    view = full_view(task)
    np.testing.assert_allclose(
        scores_of(name, view), scores_of(name, columns(view, [2, 0, 3, 1])), rtol=1e-12
    )


@pytest.mark.parametrize("task", ["binary", "multi_label"])
@every_deterministic
def test_present_and_absent_weigh_the_same(name, task):
    view = full_view(task)
    other = full_view(task, probabilities=1 - view.probabilities, views=1 - view.views)
    np.testing.assert_allclose(scores_of(name, view), scores_of(name, other), rtol=1e-9, atol=1e-12)


@every_deterministic
def test_a_binary_task_agrees_with_two_exclusive_findings_on_the_order(name):
    one = full_view("binary")
    two = PoolView(
        size=30,
        exclusive=True,
        probabilities=np.concatenate([1 - one.probabilities, one.probabilities], axis=1),
        views=np.concatenate([1 - one.views, one.views], axis=2),
    )
    np.testing.assert_allclose(scores_of(name, one), scores_of(name, two), rtol=1e-9)


@every_task
@every_strategy
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_narrow_floats_give_the_same_order_on_separated_items(name, task, kind):
    levels = np.linspace(0.0, 1.0, 8)[:, None]
    if task == "multi_class":
        p = (1 - levels) * np.array([1.0, 0, 0, 0]) + levels * 0.25
    else:
        p = np.repeat(1.0 - 0.5 * levels, 1 if task == "binary" else 4, axis=1)
    certain = p[:1]
    views = np.stack([certain + (p - certain) * t for t in (0.0, 0.5, 1.0)])
    wide = full_view(task, size=8, probabilities=p, views=views)
    narrow = full_view(
        task,
        size=8,
        probabilities=p.astype(kind),
        views=views.astype(kind),
        features=wide.features.astype(kind),
        labeled_features=wide.labeled_features.astype(kind),
    )
    order = np.argsort(scores_of(name, wide))
    np.testing.assert_array_equal(order, np.argsort(scores_of(name, narrow)))
    if name in DETERMINISTIC:
        np.testing.assert_array_equal(order, np.arange(8))


@every_task
@every_strategy
def test_drawing_again_and_again_exhausts_the_pool(name, task):
    view = full_view(task, size=23)
    left, asked = np.arange(23), []
    for turn in range(6):
        rest = rows(view, left)
        drawn = draw(
            scores_of(name, rest, n=5, seed=turn),
            ["p"] * len(left),
            5,
            rng=rng(turn),
            strategy_name=name,
            reasons=lambda _: "",
        )
        taken = [item.position for item in drawn]
        asked += left[taken].tolist()
        left = np.delete(left, taken)
    assert sorted(asked) == list(range(23))


@every_task
@every_strategy
def test_every_strategy_gives_a_reason_that_names_no_nan(name, task):
    view = full_view(task)
    findings = FINDINGS[: view.probabilities.shape[1]]
    scores = scores_of(name, view)
    for i in range(view.size):
        sentence = reason(name, view, i, float(scores[i]), findings)
        assert len(sentence) > 10
        assert "\n" not in sentence
        assert "nan" not in sentence


@every_strategy
def test_what_a_strategy_lacks_is_said_in_one_sentence_that_says_what_to_do(name):
    bare = PoolView(size=3)
    if name == "random":
        assert scores_of(name, bare).shape == (3,)
        return
    with pytest.raises(SelectionError, match=r"there (is|are) no.*'random'"):
        scores_of(name, bare)


# --- what a view refuses -----------------------------------------------------------------------


@every_task
@pytest.mark.parametrize("part", ["probabilities", "views", "features", "labeled_features"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused_by_name(task, part, bad):
    array = getattr(full_view(task), part).copy()
    array.flat[-1] = bad
    with pytest.raises(ValueError, match=f"^{part} holds NaN or infinite"):
        full_view(task, **{part: array})


@pytest.mark.parametrize("bad", [-0.01, 1.01, 7.0])
def test_logits_are_refused(bad):
    with pytest.raises(ValueError, match="outside"):
        PoolView(size=1, probabilities=np.array([[bad]]))


def test_a_last_digit_beyond_one_is_forgiven():
    over = np.nextafter(np.float32(1), np.float32(2))
    view = PoolView(size=1, probabilities=np.array([[over]]))
    assert scores_of("entropy", view)[0] == 0.0
    assert scores_of("margin", view)[0] == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": np.zeros(3)}, "probabilities has shape"),
        ({"probabilities": np.zeros((2, 1))}, "probabilities has shape"),
        ({"probabilities": np.zeros((3, 0))}, "probabilities has shape"),
        ({"views": np.zeros((3, 1))}, "views has shape"),
        ({"views": np.zeros((2, 4, 1))}, "views has shape"),
        ({"views": np.zeros((1, 3, 1))}, "at least 2"),
        ({"probabilities": np.zeros((3, 2)), "views": np.zeros((2, 3, 1))}, "views has shape"),
        ({"features": np.zeros((4, 2))}, "features has shape"),
        ({"features": np.zeros((3, 2)), "labeled_features": np.zeros((1, 3))}, "labeled_features"),
        ({"exclusive": True, "probabilities": np.ones((3, 1))}, "one column"),
        ({"exclusive": True, "probabilities": np.full((3, 2), 0.6)}, "sum to 1"),
        ({"exclusive": True, "views": np.full((2, 3, 2), 0.3)}, "sum to 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PoolView(size=3, **changes)


# --- exact against naive references ------------------------------------------------------------


def naive_entropy(p, exclusive):
    def part(x):
        return -x * math.log(x) if x > 0 else 0.0

    if exclusive:
        return sum(part(x) for x in p) / math.log(len(p))
    return sum((part(x) + part(1 - x)) / math.log(2) for x in p) / len(p)


def naive_margin(p, exclusive):
    if exclusive:
        first, second = sorted(p, reverse=True)[:2]
        return 1 - (first - second)
    return sum(1 - abs(x - (1 - x)) for x in p) / len(p)


def naive_variance(views):
    total = 0.0
    for column in views.T:
        mean = sum(column) / len(column)
        total += sum((x - mean) ** 2 for x in column) / len(column)
    return total / views.shape[1]


unit = st.floats(0, 1)
tables = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(2, 5)), elements=unit)


@pytest.mark.parametrize("exclusive", [False, True])
@settings(max_examples=60, deadline=None)
@given(table=tables)
def test_entropy_and_margin_equal_the_naive_ones(exclusive, table):
    if exclusive:
        table = (table + 1e-3) / (table + 1e-3).sum(axis=1, keepdims=True)
    view = PoolView(size=len(table), exclusive=exclusive, probabilities=table)
    for name, naive in (("entropy", naive_entropy), ("margin", naive_margin)):
        scores = scores_of(name, view)
        expected = [naive(row.tolist(), exclusive) for row in table]
        np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-12)
        assert (scores >= -1e-12).all()
        assert (scores <= 1 + 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(
    views=hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 5), st.integers(1, 5), st.integers(1, 4)),
        elements=unit,
    )
)
def test_augmentation_equals_the_naive_variance(views):
    scores = scores_of("augmentation", PoolView(size=views.shape[1], views=views))
    expected = [naive_variance(views[:, i]) for i in range(views.shape[1])]
    np.testing.assert_allclose(scores, expected, rtol=1e-9, atol=1e-14)
    assert (scores <= 0.25 + 1e-12).all()


def order_of(name, view):
    return np.argsort(-scores_of(name, view), kind="stable").tolist()


def test_binary_by_hand():
    view = PoolView(size=4, probabilities=np.array([[0.9], [0.5], [0.25], [0.0]]))
    np.testing.assert_allclose(scores_of("margin", view), [0.2, 1.0, 0.5, 0.0])
    np.testing.assert_allclose(
        scores_of("entropy", view), [0.4689955936, 1.0, 0.8112781245, 0.0], atol=1e-10
    )


def test_entropy_and_margin_part_ways_on_three_classes_by_hand():
    p = np.array([[0.45, 0.45, 0.10], [0.40, 0.30, 0.30], [0.98, 0.01, 0.01]])
    view = PoolView(size=3, exclusive=True, probabilities=p)
    assert order_of("margin", view) == [0, 1, 2]
    np.testing.assert_allclose(scores_of("margin", view), [1.0, 0.9, 0.03])
    assert order_of("entropy", view) == [1, 0, 2]


def test_the_mean_over_findings_by_hand():
    """One coin toss among sure findings weighs less than four doubtful ones."""
    p = np.array([[0.5, 0.0, 0.0, 1.0], [0.3, 0.3, 0.7, 0.7], [0.9, 0.9, 0.9, 0.9]])
    view = PoolView(size=3, probabilities=p)
    np.testing.assert_allclose(scores_of("margin", view), [0.25, 0.6, 0.2])
    assert order_of("entropy", view) == [1, 2, 0]


def test_augmentation_by_hand():
    views = np.array([[[0.0], [0.5], [0.1]], [[1.0], [0.5], [0.3]]])
    view = PoolView(size=3, views=views)
    np.testing.assert_allclose(scores_of("augmentation", view), [0.25, 0.0, 0.01])


def test_views_that_agree_score_exactly_zero():
    view = PoolView(size=50, views=np.stack([rng(1).random((50, 3))] * 3))
    np.testing.assert_array_equal(scores_of("augmentation", view), 0.0)


def test_random_puts_every_item_first_equally_often():
    view = PoolView(size=5)
    generator = rng(3)
    firsts = [STRATEGIES["random"](view, 1, generator).argmax() for _ in range(5000)]
    counts = np.bincount(firsts, minlength=5)
    assert (np.abs(counts - 1000) < 5 * math.sqrt(5000 * 0.2 * 0.8)).all()


# --- cold start --------------------------------------------------------------------------------


def planted(sizes, width=8, spread=0.05, seed=0):
    """Well parted clusters of the given sizes: features `(N, D)`, true cluster `(N,)`."""
    generator = rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.eye(len(sizes), width) * 10.0
    return centres[truth] + generator.normal(scale=spread, size=(len(truth), width)), truth


def cold_order(features, n, labeled=None, seed=0):
    view = PoolView(size=len(features), features=features, labeled_features=labeled)
    return np.argsort(-scores_of("cold_start", view, n, seed))


def naive_typiclust(features, clusters, covered):
    """Algorithm of the paper, one pick at a time: the mean distances and the order.

    The two items of a cluster of two are equally typical: compare distances, not items.
    """
    sizes = {c: int((clusters == c).sum()) for c in set(clusters.tolist())}
    typical = {}
    for i, own in enumerate(clusters):
        others = [j for j in range(len(clusters)) if clusters[j] == own and j != i]
        distances = sorted(float(np.linalg.norm(features[i] - features[j])) for j in others)
        near = distances[: strategies.NEIGHBOURS]
        typical[i] = sum(near) / len(near) if near else 0.0
    order = []
    while len(order) < len(clusters):
        left = [i for i in range(len(clusters)) if i not in order]
        live = {int(clusters[i]) for i in left}
        pick = min(live, key=lambda c: (covered.get(c, 0), -sizes[c], c))
        item = min((i for i in left if clusters[i] == pick), key=typical.__getitem__)
        covered[pick] = covered.get(pick, 0) + 1
        order.append(item)
    return typical, order


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labeled_count", [0, 5])
def test_cold_start_is_the_greedy_algorithm_of_the_paper(seed, labeled_count):
    features = rng(seed).normal(size=(60, 3))
    labeled = rng(seed + 100).normal(size=(labeled_count, 3))
    points = strategies._centred(features, labeled)
    found = strategies._clusters(points, 6 + labeled_count, rng(seed))
    covered = {int(c): int((found[60:] == c).sum()) for c in found[60:]}
    distance, expected = naive_typiclust(features, found[:60], covered)
    order = cold_order(features, 6, labeled, seed)
    assert sorted(order.tolist()) == list(range(60))
    np.testing.assert_array_equal(found[order], found[expected])
    np.testing.assert_allclose(
        [distance[i] for i in order], [distance[i] for i in expected], rtol=1e-5
    )


def test_cold_start_scores_count_down_from_n():
    features = rng(0).normal(size=(17, 3))
    scores = scores_of("cold_start", PoolView(size=17, features=features))
    assert sorted(scores.tolist()) == list(range(1, 18))


def test_cold_start_takes_one_of_each_planted_cluster_the_largest_first():
    features, truth = planted([3, 40, 7, 20, 12])
    order = cold_order(features, 5)
    assert truth[order[:5]].tolist() == [1, 3, 4, 2, 0]
    assert truth[order[5:10]].tolist() == [1, 3, 4, 2, 0]


def test_cold_start_starts_where_the_items_are_dense():
    features, truth = planted([60, 30], spread=1.0)
    order = cold_order(features, 2)
    for cluster, first in enumerate(order[:2]):
        members = np.flatnonzero(truth == cluster)
        away = np.linalg.norm(features[members] - features[members].mean(axis=0), axis=1)
        assert np.linalg.norm(features[first] - features[members].mean(axis=0)) < np.median(away)


def test_cold_start_passes_over_clusters_that_are_labeled():
    features, truth = planted([30, 20, 10])
    labeled = features[truth == 0][:2] + 0.01
    # 1 asked and 2 labeled: three clusters, of which the largest is covered.
    assert truth[cold_order(features, 1, labeled)[:2]].tolist() == [1, 2]


def test_no_labeled_items_is_the_same_as_an_empty_table_of_them():
    features, _ = planted([9, 8, 7])
    np.testing.assert_array_equal(
        cold_order(features, 3), cold_order(features, 3, np.zeros((0, 8)))
    )


@pytest.mark.parametrize("seed", range(3))
def test_cold_start_is_equivariant_on_planted_clusters(seed):
    features, _ = planted([30, 20, 10, 6], seed=seed)
    shuffle = rng(seed).permutation(len(features))
    straight = cold_order(features, 4)
    np.testing.assert_array_equal(straight, shuffle[cold_order(features[shuffle], 4, seed=7)])


def test_cold_start_does_not_depend_on_where_zero_is():
    features, _ = planted([30, 20, 10])
    np.testing.assert_array_equal(cold_order(features, 3), cold_order(features + 4096.0, 3))


@pytest.mark.parametrize("copies", [2, 10])
@pytest.mark.parametrize("n", [1, 3, 8, 200])
def test_cold_start_with_fewer_distinct_points_than_asked(copies, n):
    distinct = rng(4).normal(size=(6, 3))
    features = np.tile(distinct, (copies, 1))
    order = cold_order(features, n)
    assert sorted(order.tolist()) == list(range(6 * copies))
    if n >= 6:
        assert len({int(i) % 6 for i in order[:6]}) == 6


def test_negative_zero_is_no_other_point():
    """A dead feature holds both zeros; k-means would warn of three clusters for two points."""
    assert 2 in cold_order(np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 5.0]]), 3)[:2]


def test_equal_items_are_asked_in_random_order():
    firsts = {int(cold_order(np.ones((5, 2)), 1, seed=seed)[0]) for seed in range(60)}
    assert firsts == set(range(5))


def test_cold_start_caps_its_clusters(monkeypatch):
    monkeypatch.setattr(strategies, "MAX_CLUSTERS", 3)
    features, truth = planted([12, 9, 6])
    assert truth[cold_order(features, 20)[:6]].tolist() == [0, 1, 2, 0, 1, 2]


def test_cold_start_covers_planted_clusters_better_than_random():
    """Ten clusters of unequal size, ten items asked, noise of one tenth of the distance."""
    sizes = [60, 40, 30, 20, 15, 12, 10, 8, 6, 5]
    cold, chance = [], []
    for seed in range(8):
        features, truth = planted(sizes, width=16, spread=0.7, seed=seed)
        cold.append(len(set(truth[cold_order(features, 10, seed=seed)[:10]])))
        chance.append(len(set(truth[rng(seed).permutation(len(truth))[:10]])))
    assert min(cold) > max(chance)


# --- reasons -----------------------------------------------------------------------------------


def test_reasons_word_for_word():
    one = PoolView(size=1, probabilities=np.array([[0.52]]))
    assert reason("margin", one, 0, 0.96, ("Effusion",)) == (
        "margin 0.04 between present and absent for Effusion (0.52)"
    )
    assert reason("entropy", one, 0, 1.0, ("Effusion",)) == (
        "entropy 1.00 (1 = no idea) for Effusion (0.52)"
    )
    several = PoolView(size=1, probabilities=np.array([[0.9, 0.4, 0.0]]))
    assert reason("margin", several, 0, 0.0, FINDINGS) == (
        "mean margin 0.67 over 3 findings; smallest: "
        "margin 0.20 between present and absent for Nodule (0.40)"
    )
    assert reason("entropy", several, 0, 0.0, FINDINGS) == (
        "mean entropy 0.48 over 3 findings; highest: entropy 0.97 (1 = no idea) for Nodule (0.40)"
    )
    classes = PoolView(size=1, exclusive=True, probabilities=np.array([[0.25, 0.5, 0.25]]))
    assert reason("margin", classes, 0, 0.75, FINDINGS) == (
        "margin 0.25 between Nodule (0.50) and Mass (0.25)"
    )
    assert reason("entropy", classes, 0, 0.0, FINDINGS) == (
        "entropy 0.95 over 3 findings (1 = all equally likely), likeliest Nodule (0.50)"
    )
    views = PoolView(size=1, views=np.array([[[0.4, 0.1]], [[0.5, 0.7]], [[0.6, 0.3]]]))
    assert reason("augmentation", views, 0, 0.0, FINDINGS) == (
        "over 3 augmented views the probability of Nodule went from 0.10 to 0.70"
    )
    assert reason("cold_start", PoolView(size=9), 0, 9.0, FINDINGS).startswith("place 1 of 9 ")


@pytest.mark.parametrize("name", ["margin", "entropy"])
@pytest.mark.parametrize("task", ["binary", "multi_label"])
def test_the_numbers_in_a_reason_are_those_of_the_item(name, task):
    """Read the sentence back: the first number is the score, the last the named probability."""
    view = full_view(task)
    scores = scores_of(name, view)
    for i in range(view.size):
        sentence = reason(name, view, i, float(scores[i]), FINDINGS)
        number = float(re.search(r"(\d\.\d\d)", sentence).group(1))
        expected = scores[i] if name == "entropy" else 1 - scores[i]
        assert number == pytest.approx(expected, abs=0.00501)
        finding, p = re.search(r"for (\w+) \((\d\.\d\d)\)", sentence).groups()
        row = view.probabilities[i]
        assert float(p) == pytest.approx(row[FINDINGS.index(finding)], abs=0.00501)
        assert np.abs(row - 0.5).argmin() == FINDINGS.index(finding)
