"""A reason is true by construction: without the term that it names, the item's place is another.

Every reason must name one: a finding that the item is open about, the labeled images that it is
unlike, or those drawn before it. `random` names none, and nothing known of an item moves it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssl_core.strategies import STRATEGIES, reason
from tests.ssl_core.strategies.strategies_views import (
    FINDINGS,
    TASKS,
    full_view,
    rng,
    rows,
    scores_of,
)

SIZE, ASKED = 200, 5
every_task = pytest.mark.parametrize("task", TASKS)
every_strategy = pytest.mark.parametrize(
    "name", sorted(set(STRATEGIES) - {"random", "class_balanced_random", "badge"})
)


def a_view(task):
    """Three regions that the few labeled images lie far from: all are uncovered."""
    centres = 4.0 * np.eye(3, 6)
    features = centres[np.arange(SIZE) % 3] + rng(1).normal(size=(SIZE, 6))
    return full_view(task, SIZE, features=features, labeled_features=-9 + rng(2).random((4, 6)))


def sure(view, i, finding):
    """The view with item i certain of one finding, whoever is asked and however it is shown."""

    def certain(p):
        p = p.copy()
        if view.exclusive:
            p[..., i, :] = np.eye(p.shape[-1])[finding]
        else:
            p[..., i, finding] = np.round(p[..., i, finding].mean())
        return p

    p, views = certain(view.probabilities), certain(view.views)
    teacher = view.teacher_probabilities.copy()
    teacher[i] = p[i] if view.exclusive else teacher[i]
    teacher[i, finding] = p[i, finding]
    return replace(view, probabilities=p, views=views, teacher_probabilities=teacher)


def covered(view, i):
    """The view with copies of item i labeled."""
    copies = np.repeat(view.features[i : i + 1], 3, axis=0)
    return replace(view, labeled_features=np.concatenate([view.labeled_features, copies]))


def like(view, i, other):
    """The view with item i as another one is."""
    order = np.arange(view.size)
    order[i] = other
    return rows(view, order)


def named(sentence, view):
    """What the sentence rests on: the positions of the findings that it names, and the labeled."""
    findings = [c for c in range(view.probabilities.shape[1]) if FINDINGS[c] in sentence]
    return findings[:1], "labeled" in sentence


def without(view, i, sentence, first=0):
    """Every view that lacks one of the terms that the sentence names."""
    findings, labeled = named(sentence, view)
    found = [sure(view, i, c) for c in findings]
    if "drawn before" in sentence:
        found.append(like(view, i, first))
    return [*found, covered(view, i)] if labeled else found


def place(scores, i):
    return int((scores > scores[i]).sum())


def sentence_of(name, view, scores, i):
    return reason(name, view, i, float(scores[i]), FINDINGS[: view.probabilities.shape[1]])


@every_task
@every_strategy
def test_without_what_the_reason_names_the_item_is_asked_later(name, task):
    view = a_view(task)
    scores = scores_of(name, view, ASKED)
    for i in np.argsort(-scores)[:ASKED].tolist():
        sentence = sentence_of(name, view, scores, i)
        others = without(view, i, sentence, int(scores.argmax()))
        assert others, f"names nothing: {sentence}"
        for other in others:
            assert place(scores_of(name, other, ASKED), i) > place(scores, i), sentence


@every_task
def test_badge_draws_what_is_like_the_first_later_in_most_draws(task):
    """A lot decides its order, so one draw proves nothing: the mean of thirty draws."""
    view, gaps = a_view(task), []
    for seed in range(30):
        scores = scores_of("badge", view, ASKED, seed)
        first, i = np.argsort(-scores)[[0, ASKED // 2]].tolist()
        for other in without(view, i, sentence_of("badge", view, scores, i), first):
            gaps.append(place(scores_of("badge", other, ASKED, seed), i) - place(scores, i))
    assert np.mean(gaps) > ASKED


def test_the_class_that_is_named_decides_how_soon_an_item_is_drawn():
    """10 of one class and 90 of the other: in turns, item 0 comes five times as soon."""
    p = np.where(np.arange(100) < 10, 0.9, 0.1)[:, None]
    rare = full_view("binary", 100, probabilities=p)
    common = full_view(
        "binary", 100, probabilities=np.where(np.arange(100) == 0, 0.1, p[:, 0])[:, None]
    )
    sentence = sentence_of("class_balanced_random", rare, np.zeros(100), 0)
    assert "the 10 of 100 images whose rarest predicted finding is Effusion" in sentence
    means = [
        np.mean([place(scores_of("class_balanced_random", view, 5, seed), 0) for seed in range(60)])
        for view in (rare, common)
    ]
    assert means[0] < 15 < 35 < means[1]


@every_task
def test_random_names_nothing_and_nothing_moves_it(task):
    view = a_view(task)
    scores = scores_of("random", view, ASKED)
    sentence = sentence_of("random", view, scores, 0)
    assert sentence == "drawn at random from the whole pool"
    assert without(view, 0, sentence) == []
    shuffled = rows(view, rng(5).permutation(SIZE))
    np.testing.assert_array_equal(scores, scores_of("random", shuffled, ASKED))
