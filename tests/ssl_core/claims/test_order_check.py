"""The order in which cases were asked: right ones pass, planted faults are found in one round."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_core import selection
from ssl_core.claims import order_check
from ssl_core.claims.order_check import contradicted, disorder
from ssl_core.claims.watch import verdict
from ssl_core.records import Selection
from ssl_core.rounds import run_round
from ssl_core.strategies import ALL_STRATEGIES
from tests import toy


def asked(scores, groups=None, n=20, cap=2, seed=0, share=0.15):
    groups = groups or [f"P{k}" for k in range(len(scores))]
    drawn = selection.draw(
        scores,
        groups,
        n,
        random_share=share,
        group_cap=cap,
        rng=np.random.default_rng(seed),
        strategy_name="margin",
        reasons=lambda i: "because",
    )
    return [
        Selection(
            str(d.position),
            d.rank,
            d.kind,
            "margin",
            d.score,
            d.probability,
            d.slice_probability,
            "",
        )
        for d in drawn
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 60), st.integers(1, 4), st.integers(1, 3))
def test_every_batch_that_draw_makes_passes(seed, n, size, cap):
    """Also where patients have more items than the cap, and where scores are equal."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 12, 60) / 12.0
    groups = [f"P{k // size}" for k in range(60)]
    assert disorder(asked(scores, groups, n, cap, seed), -(-size // cap)) is None


def test_a_walk_that_is_not_sorted_is_found(monkeypatch):
    monkeypatch.setattr(selection, "_walk", lambda s, g, cap, rng: rng.permutation(len(s)))
    found = disorder(asked(np.random.default_rng(1).random(100)))
    assert found == "not asked by falling score"


def test_a_walk_from_the_lowest_is_found(monkeypatch):
    monkeypatch.setattr(selection, "_walk", lambda s, g, cap, rng: np.argsort(s))
    found = disorder(asked(np.random.default_rng(1).random(100)))
    assert found == "the lowest scores were asked first"


def test_cases_from_too_far_down_are_found():
    right = asked(np.random.default_rng(1).random(100))
    wrong = [
        replace(s, probability=s.slice_probability) if s.kind == "strategy" else s for s in right
    ]
    assert disorder(wrong) == "17 of 17 cases stand too far down the order to be asked"


def test_four_cases_are_no_proof():
    assert disorder(asked(np.arange(9.0), n=4)[::-1]) is None


def test_scores_that_contradict_the_model():
    doubt = np.linspace(0, 1, 12)
    assert not contradicted(doubt * 3 - 1, doubt)
    assert contradicted(-doubt, doubt)
    assert contradicted(np.random.default_rng(3).permutation(doubt), doubt)
    assert not contradicted(np.ones(12), doubt)


# In a workspace


def rounds(root, monkeypatch, strategy, fault):
    """One cold round, then one that trained, with a fault planted."""
    ws, room = toy.opened(toy.make(root, selection={"strategy": strategy, "query_size": 12}))
    fault(monkeypatch)
    for _ in range(2):
        run_round(ws, room)
    return ws


def upside_down(monkeypatch):
    right = ALL_STRATEGIES["margin"]
    monkeypatch.setitem(ALL_STRATEGIES, "margin", lambda view, n, rng: -right(view, n, rng))


def unsorted(monkeypatch):
    monkeypatch.setitem(ALL_STRATEGIES, "margin", lambda view, n, rng: rng.random(view.size))


@pytest.mark.parametrize("fault", [upside_down, unsorted])
def test_a_strategy_that_scores_wrongly_is_found_in_its_first_round(tmp_path, monkeypatch, fault):
    ws = rounds(tmp_path / "w", monkeypatch, "margin", fault)
    found = verdict(ws, ask_models=True)
    assert (found.state, found.rounds) == ("broken", 2)
    assert "the kept scores are not the model's doubt of the cases" in found.sentence
    assert verdict(ws).state == "not told"  # without asking the models it cannot be seen


@pytest.mark.parametrize("strategy", ["margin", "entropy", "least_confidence", "auto", "badge"])
def test_strategies_that_do_what_they_say_are_never_broken(tmp_path, monkeypatch, strategy):
    ws = rounds(tmp_path / "w", monkeypatch, strategy, lambda m: None)
    assert order_check.broken(ws, ask_models=True) is None
