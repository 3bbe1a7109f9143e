"""The benchmark of strategies: its regressions, its rows by hand, and cells that are kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from app.bench import peers, selection
from app.bench.frozen import Frozen, Some
from app.bench.selection import Trial, check, rows_of, run
from app.bench.selection_loop import Rule, fit
from app.bench.selection_tables import markdown, save
from ssl_core.errors import ConfigError, ReadloopError


def toy(exclusive: bool, items: int = 90) -> Frozen:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(2 * items, 6)).astype(np.float32)
    labels = (features[:, :3] + 0.3 * rng.normal(size=(2 * items, 3)) > 0).astype(float)
    if exclusive:
        labels = np.eye(3)[features[:, :3].argmax(axis=1)]
    whole = Some(features, labels, np.array([f"P{i // 2}" for i in range(2 * items)]))
    rows = np.arange(items)
    return Frozen(
        "toy", "grouped", ("A", "B", "C"), exclusive, whole.at(rows), whole.at(rows + items)
    )


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_regressions_are_those_of_all_features(exclusive):
    some = toy(exclusive).train
    head = fit(some.features[:4], some.labels[:4], exclusive, Rule())
    whole = LogisticRegression(C=1 / 6, max_iter=5_000, tol=1e-9)
    if exclusive:
        seen = np.unique(some.labels[:4].argmax(axis=1))
        expected = whole.fit(some.features[:4], some.labels[:4].argmax(axis=1))
        p = head.probabilities(some.features)
        np.testing.assert_allclose(p[:, seen], expected.predict_proba(some.features), atol=1e-3)
        assert p.sum(axis=1) == pytest.approx(1.0)
        return
    for column in np.flatnonzero((some.labels[:4].mean(axis=0) % 1) > 0):
        expected = whole.fit(some.features[:4], some.labels[:4, column]).predict_proba(
            some.features
        )
        np.testing.assert_allclose(
            head.probabilities(some.features)[:, column], expected[:, 1], atol=1e-3
        )


def test_nothing_is_learned_from_one_side():
    assert fit(np.ones((3, 2), np.float32), np.ones((3, 1)), False, Rule()) is None


@pytest.mark.parametrize("exclusive", [False, True])
def test_finished_cells_are_only_read(tmp_path, exclusive, monkeypatch):
    trial = Trial(("random", "auto", "bald"), (10, 25), (7,), (0, 1))
    frozen = toy(exclusive)
    curves = run(frozen, trial, tmp_path)
    assert {tuple(curve) for curve in curves.values()} == {(7, 10, 17, 24, 25)}
    monkeypatch.setattr(selection, "curve", None)
    assert str(run(frozen, trial, tmp_path)) == str(curves)  # NaN is not itself
    rows = rows_of(frozen, trial, curves)
    save(frozen, trial, curves, rows, tmp_path / "table")
    assert "| macro | 7 | auto |" in markdown(frozen, trial, rows)
    assert (tmp_path / "table.png").stat().st_size > 10_000


def test_rows_by_hand():
    """auto is .1 better at 10 with both seeds, and reaches random's .8 halfway from 10 to 20."""
    curves = {
        ("random", 10, 0): {10: [0.6], 20: [0.8]},
        ("random", 10, 1): {10: [0.7], 20: [0.8]},
        ("auto", 10, 0): {10: [0.7], 20: [0.85]},
        ("auto", 10, 1): {10: [0.8], 20: [0.85]},
    }
    frozen = toy(True)
    _, row = rows_of(frozen, Trial(("random", "auto"), (10, 20), (10,), (0, 1)), curves)
    assert row.auroc[10] == pytest.approx(0.75)
    assert row.spread[10] == pytest.approx(math.sqrt(0.005))
    assert row.difference[10].value == pytest.approx(0.1)
    assert row.verdicts == {10: "win", 20: "win"}
    assert row.reaches.value == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": ("auto",)}, "must hold random"),
        ({"strategies": ("random", "augmentation")}, "'augmentation' cannot be run"),
        ({"rule": Rule(start="margin")}, "needs a model"),
        ({"seeds": (0,)}, "at least 2"),
        ({"budgets": ()}, "whole numbers"),
    ],
)
def test_what_cannot_be_run_is_said(changes, message):
    asked = {"strategies": ("random",), "budgets": (10,), "query_sizes": (5,), "seeds": (0, 1)}
    with pytest.raises(ConfigError, match=message):
        check(Trial(**{**asked, **changes}))


def test_a_missing_peer_is_one_sentence(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(ReadloopError, match="small-text, modAL-python are not installed: `pip "):
        peers.check()
