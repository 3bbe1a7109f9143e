"""When `auto` gives up: by hand, by chance, and in a round that selects."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from app.status import status_of
from ssl_core.claims import fallback
from ssl_core.claims.sequence import Look, so_far
from ssl_core.claims.shadow_looks import shadow_looks
from ssl_core.records import CONTROL, DIFFERENCE, Measurement
from ssl_core.rounds import run_round
from tests import toy
from tests.rounds_by_hand import add, made, model, open_round
from tests.toy import copied

ROUNDS = 7  # four controls stand between rounds by then


def look(k: int, difference: float, error: float = 0.01) -> Look:
    return Look(k, 10.0 * k, difference, error)


def looks(*differences: float, error: float = 0.01) -> list[Look]:
    return [look(k + 1, d, error) for k, d in enumerate(differences)]


def test_nothing_is_said_before_there_are_enough_controls():
    assert fallback.should_fall_back(looks(*[-0.2] * 5), 6) is None
    assert fallback.should_fall_back(looks(*[-0.2] * 6), 0) is None
    assert fallback.should_fall_back([], 6) is None


def test_a_strategy_that_is_better_goes_on():
    assert fallback.should_fall_back(looks(*[0.1] * 6, error=0.005), 6) is None


def test_one_that_is_not_told_from_chance_or_is_worse_gives_up_with_its_numbers():
    found = so_far(looks(*[0.02] * 6))
    assert fallback.should_fall_back(looks(*[0.02] * 6), 6) == (
        "cannot be told from chance after 6 shadow controls: AUROC on validation +0.020 "
        f"[{found.low:+.3f}, {found.high:+.3f}] against random labels at equal budgets"
    )
    worse = fallback.should_fall_back(looks(*[-0.1] * 7, error=0.005), 6)
    assert worse.startswith("is worse than chance after 7")


def test_an_unknown_difference_is_no_control():
    assert fallback.should_fall_back([*looks(*[0.0] * 5), look(6, math.nan)], 6) is None


@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_what_is_no_better_than_chance_rarely_goes_on(shared):
    """Patients' luck that controls share in part, and trainings that differ; over all looks."""
    rng, kept = np.random.default_rng(3), 0
    for _ in range(200):
        luck = rng.normal(0, 0.02) * math.sqrt(shared)
        own = rng.normal(0, 0.02 * math.sqrt(1 - shared), 10) + rng.normal(0, 0.02, 10)
        told = looks(*(luck + own), error=0.02)
        kept += any(fallback.should_fall_back(told[:k], 6) is None for k in range(6, 11))
    assert kept <= 12  # 2.5 % would be 5; 12 is beyond three standard errors


# In a round


def controlled(ws, number: int, value: float, settings: str, against=None) -> None:
    """A finished round that measured a control, with this difference on validation."""
    open_round(ws.ledger, number, settings, "auto")
    shadow = model(f"c{number}", f"{CONTROL} student")
    told = {"labels": 10 * number, "against": against or [[number, 1.0]]}
    rows = [
        Measurement(shadow.id, CONTROL, split, "macro", name, value, value - w, value + w, 12)
        for split, name, w in (
            ("validation", DIFFERENCE, 0.01),
            ("vault", DIFFERENCE, 0.5),
            ("validation", "auroc", 0.1),
        )
    ]
    add(ws.ledger, number, "evaluate", detail={"control": told}, measurements=rows)
    ws.ledger.finish_round(number, "{}")


def test_only_what_the_strategy_itself_asked_for_counts(tmp_path, ledger_url):
    ws = made(tmp_path / "w", ledger_url, selection={"strategy": "auto"})
    auto = ws.config.to_json()
    margin = ws.config.changed(selection={"strategy": "margin"}).to_json()
    controlled(ws, 1, 0.1, auto)  # of labels that nobody chose
    controlled(ws, 2, 0.2, margin)  # its labels were asked by round 1
    controlled(ws, 3, 0.3, auto)  # by 1 and 2
    controlled(ws, 4, 0.4, auto, against=[[1, 0.5], [2, 0.5]])

    def values(strategy: str, until: int) -> list[float]:
        return [x.difference for x in shadow_looks(ws.ledger, strategy, "validation", until)]

    assert values("auto", 9) == [0.2, 0.4]
    assert values("auto", 2) == [0.2]
    assert values("margin", 9) == []
    ws.ledger.close()


@pytest.fixture(scope="module")
def fallen(tmp_path_factory):
    """Rounds by `auto` with a slice of one half, on tiny vaults where nothing can be proved."""
    chosen = {"strategy": "auto", "query_size": 6, "random_share": 0.5, "fall_back_after": 1}
    tables = {"selection": chosen, "map": {"methods": ()}}
    root = toy.make(tmp_path_factory.mktemp("toy") / "w", items=144, **tables)
    ws, room = toy.opened(root)
    for _ in range(ROUNDS):
        run_round(ws, room)
    return root


def selects(ws, number: int) -> dict:
    return next(json.loads(s.detail) for s in ws.ledger.stages(number) if s.name == "select")


def test_auto_falls_back_and_every_selection_says_so(fallen):
    ws, _ = toy.opened(fallen)
    why = [selects(ws, number).get("fell_back") for number in range(1, ROUNDS + 1)]
    assert why[:2] == [None, None]
    assert why[-1].startswith("auto cannot be told from chance after ")
    for number in range(2, ROUNDS + 1):
        asked = [s for s in ws.ledger.selections(number) if s.kind == "strategy"]
        expected = fallback.TO if why[number - 1] else "auto"
        assert {s.strategy for s in asked} == {expected}
        assert all(("auto fell back to this" in s.reason) == bool(why[number - 1]) for s in asked)
        assert ws.ledger.rounds()[number - 1].strategy == "auto"
    found = shadow_looks(ws.ledger, "auto", "validation", ROUNDS)
    assert why[-1] == "auto " + fallback.should_fall_back(found, 1)


def test_status_says_it_in_one_sentence(fallen):
    ws, _ = toy.opened(fallen)
    status = status_of(ws)
    why = selects(ws, ROUNDS)["fell_back"]
    assert status["rounds"][-1]["fell_back"] == why
    assert f"Fell back to random plus diversity (random_diverse): {why}." in status["next"]
    assert status["rounds"][0]["fell_back"] is None


def test_with_0_it_goes_on_whatever_was_measured(fallen, tmp_path):
    root = copied(fallen, tmp_path / "w")
    ws, room = toy.opened(root)
    ws = replace(ws, config=ws.config.changed(selection={"fall_back_after": 0}))
    run_round(ws, room)
    assert {s.strategy for s in ws.ledger.selections(ROUNDS + 1)} == {"auto"}
    assert shadow_looks(ws.ledger, "auto", "validation")
    assert "chance" not in status_of(ws)["next"]
