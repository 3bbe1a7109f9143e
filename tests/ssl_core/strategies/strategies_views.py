"""Views of made-up pools for the tests of query strategies."""

from __future__ import annotations

import warnings

import numpy as np

from ssl_core.strategies import STRATEGIES, PoolView

TASKS = ["binary", "multi_label", "multi_class"]
FINDINGS = ("Effusion", "Nodule", "Mass", "Hernia")


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
        "teacher_probabilities": probabilities(task, size, seed=seed + 4),
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
        teacher_probabilities=view.teacher_probabilities[index],
    )


def columns(view, index):
    return PoolView(
        size=view.size,
        exclusive=view.exclusive,
        probabilities=view.probabilities[:, index],
        views=view.views[:, :, index],
        teacher_probabilities=view.teacher_probabilities[:, index],
    )


def scores_of(name, view, n=5, seed=0):
    """Scores, with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return STRATEGIES[name](view, n, rng(seed))


def planted(sizes, width=8, spread=0.05, seed=0):
    """Well parted clusters of the given sizes: features `(N, D)`, true cluster `(N,)`."""
    generator = rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    centres = np.eye(len(sizes), width) * 10.0
    return centres[truth] + generator.normal(scale=spread, size=(len(truth), width)), truth
