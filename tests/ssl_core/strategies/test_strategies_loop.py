"""Every strategy within a round: it gets what it needs, and is refused where it cannot."""

from __future__ import annotations

from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest

from ssl_core import work
from ssl_core.errors import ConfigError
from ssl_core.preflight import check_settings
from ssl_core.rounds import run_round
from ssl_core.strategies import NEEDS, STRATEGIES, PoolView
from tests import toy


def with_selection(root, **changes):
    workspace, room = toy.opened(root)
    config = workspace.config.changed(selection=changes)
    return type(workspace)(root, config, workspace.ledger, workspace.images), room


def test_every_strategy_says_what_it_needs():
    assert set(NEEDS) == set(STRATEGIES)


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {"random", "cold_start"}))
def test_every_strategy_runs_after_a_model(one_round, tmp_path, strategy):
    copytree(one_round, tmp_path / "w")
    workspace, room = with_selection(tmp_path / "w", strategy=strategy)
    number = run_round(workspace, room)
    chosen = [s for s in workspace.ledger.selections(number) if s.kind == "strategy"]
    assert len(chosen) == 7
    assert all(np.isfinite(s.score) and len(s.reason) > 10 for s in chosen)


@pytest.mark.parametrize(
    "strategy", sorted(n for n in NEEDS if "probabilities" not in NEEDS[n] and n != "random")
)
def test_strategies_that_need_no_model_start_the_first_round(tmp_path, strategy):
    root = toy.make(tmp_path / "w", selection={"cold_start": strategy, "query_size": 8})
    workspace, room = toy.opened(root)
    run_round(workspace, room)
    assert {s.strategy for s in workspace.ledger.selections(1)} == {strategy}


def test_one_model_is_refused_a_disagreement_before_the_round_opens(one_round):
    workspace, _ = with_selection(one_round, strategy="disagreement")
    check_settings(workspace.config, 1)
    alone = workspace.config.changed(recipe={"name": "supervised"})
    with pytest.raises(ConfigError, match="compares two models and the recipe 'supervised' makes"):
        check_settings(alone, 1)


def test_students_and_teachers_disagreement_is_the_score(one_round, tmp_path):
    """The reason names two probabilities; with one finding they are apart by the score."""
    copytree(one_round, tmp_path / "w")
    workspace, room = with_selection(tmp_path / "w", strategy="disagreement")
    number = run_round(workspace, room)
    for row in workspace.ledger.selections(number):
        if row.kind == "strategy":
            words = row.reason.split()
            assert words[0] == "teacher"
            assert abs(float(words[1]) - float(words[4])) == pytest.approx(row.score, abs=0.0101)


@pytest.mark.parametrize(("wanted", "first"), [(False, [0, 1]), (True, [0, 2]), (0.5, [0, 3])])
def test_near_duplicates_are_asked_last_where_that_is_wanted(wanted, first):
    """Item 1 is as item 0, item 2 has a cosine of .8 to it, item 3 of 0."""
    features = np.array([[1.0, 0.0], [2.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    turn = SimpleNamespace(
        config=SimpleNamespace(selection=SimpleNamespace(duplicates=wanted)),
        round=SimpleNamespace(query_size=2),
        seed=lambda name: 0,
    )
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    found = work._without_duplicates(turn, PoolView(4, features=features), scores)
    assert np.argsort(-found)[:2].tolist() == first
    assert work._without_duplicates(turn, PoolView(4), scores) is scores


@pytest.mark.parametrize("duplicates", [True, 0.9])
def test_a_round_without_near_duplicates_still_fills_its_query(one_round, tmp_path, duplicates):
    copytree(one_round, tmp_path / "w")
    workspace, room = with_selection(tmp_path / "w", strategy="margin", duplicates=duplicates)
    number = run_round(workspace, room)
    assert len(workspace.ledger.selections(number)) == 8
