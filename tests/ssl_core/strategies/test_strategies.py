"""The battery of laws that every query strategy must pass.

A new entry of `STRATEGIES` meets the laws by being in the dict. Strategies whose order hangs on
the generator (`DRAWING`) are held to equivariance in distribution or on planted data instead.
"""

from __future__ import annotations

import numpy as np
import pytest

from ssl_core.errors import SelectionError
from ssl_core.selection import draw
from ssl_core.strategies import STRATEGIES, PoolView, reason
from tests.ssl_core.strategies.strategies_views import (
    FINDINGS,
    TASKS,
    columns,
    full_view,
    rng,
    rows,
    scores_of,
)

DRAWING = {
    "random",
    "class_balanced_random",
    "cold_start",
    "kmeans_start",
    "design",
    "k_center",
    "badge",
    "prob_cover",
    "margin_diverse",
    "random_diverse",
    "auto",
}
DETERMINISTIC = sorted(set(STRATEGIES) - DRAWING)
every_strategy = pytest.mark.parametrize("name", sorted(STRATEGIES))
every_deterministic = pytest.mark.parametrize("name", DETERMINISTIC)
every_task = pytest.mark.parametrize("task", TASKS)


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
    arrays = [
        view.probabilities,
        view.views,
        view.features,
        view.labeled_features,
        view.teacher_probabilities,
    ]
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
    view = full_view(
        task,
        size=6,
        probabilities=sure,
        views=np.stack([sure] * 5),
        teacher_probabilities=sure,
    )
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
    other = full_view(
        task,
        probabilities=1 - view.probabilities,
        views=1 - view.views,
        teacher_probabilities=1 - view.teacher_probabilities,
    )
    np.testing.assert_allclose(scores_of(name, view), scores_of(name, other), rtol=1e-9, atol=1e-12)


@every_deterministic
def test_a_binary_task_agrees_with_two_exclusive_findings_on_the_order(name):
    one = full_view("binary")
    teacher = one.teacher_probabilities
    two = PoolView(
        size=30,
        exclusive=True,
        probabilities=np.concatenate([1 - one.probabilities, one.probabilities], axis=1),
        views=np.concatenate([1 - one.views, one.views], axis=2),
        teacher_probabilities=np.concatenate([1 - teacher, teacher], axis=1),
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
    sure = np.repeat(certain, 8, axis=0)
    wide = full_view(task, size=8, probabilities=p, views=views, teacher_probabilities=sure)
    narrow = full_view(
        task,
        size=8,
        probabilities=p.astype(kind),
        views=views.astype(kind),
        features=wide.features.astype(kind),
        labeled_features=wide.labeled_features.astype(kind),
        teacher_probabilities=sure.astype(kind),
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
@pytest.mark.parametrize(
    "part",
    ["probabilities", "views", "features", "labeled_features", "teacher_probabilities"],
)
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
        ({"teacher_probabilities": np.zeros((2, 1))}, "teacher_probabilities has shape"),
        (
            {"probabilities": np.zeros((3, 2)), "teacher_probabilities": np.zeros((3, 1))},
            "teacher_probabilities has shape",
        ),
        ({"exclusive": True, "probabilities": np.ones((3, 1))}, "one column"),
        ({"exclusive": True, "probabilities": np.full((3, 2), 0.6)}, "sum to 1"),
        ({"exclusive": True, "views": np.full((2, 3, 2), 0.3)}, "sum to 1"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PoolView(size=3, **changes)
