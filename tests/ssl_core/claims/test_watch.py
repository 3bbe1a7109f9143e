"""The verdict: what is said of histories by hand, of shadow controls and of replays."""

from __future__ import annotations

import json

import pytest

from app.rooms import archive_room
from ssl_core.claims.kept_evidence import pairs
from ssl_core.claims.proof import outlook_sentences, proof, sentences
from ssl_core.claims.savings import area_difference
from ssl_core.claims.sequence import Look
from ssl_core.claims.shadow_looks import shadow_looks
from ssl_core.claims.watch import judge, verdict
from ssl_core.records import Measurement
from ssl_core.simulate import simulate
from tests import toy
from tests.rounds_by_hand import add, made, model, open_round


def looks(*differences, error=0.005):
    return [Look(k, 50.0 * k, d, error) for k, d in enumerate(differences, 1)]


def test_nothing_measured_is_not_told():
    found = judge([], "margin")
    assert (found.state, found.rounds, found.difference) == ("not told", 0, None)
    assert found.sentence == (
        "margin is not told from random: no control of equal budget has been measured yet."
    )


def test_the_states_and_their_sentences():
    better, worse = judge(looks(*[0.1] * 6), "margin"), judge(looks(*[-0.1] * 6), "margin")
    same = judge(looks(0.01, -0.01, 0.0, 0.01, -0.01, 0.004), "margin")
    assert [x.state for x in (better, worse, same)] == ["better", "worse", "not told"]
    assert better.sentence.startswith(
        "margin is better than random after 6 rounds: AUROC +.100 [+."
    )
    assert same.sentence.startswith(
        "margin is not told from random after 6 rounds: AUROC +.001 [−."
    )
    few = judge(looks(0.1, 0.1), "margin")
    assert (few.state, few.difference) == ("not told", None)
    assert few.sentence.endswith("2 rounds compared, and 4 are needed to say anything.")


# Shadow controls of a live workspace


@pytest.fixture
def ws(tmp_path, ledger_url):
    ws = made(tmp_path / "w", ledger_url)
    yield ws
    ws.ledger.close()


def controlled(ws, number, difference, split="vault", half=0.01):
    open_round(ws.ledger, number, ws.config.to_json())
    own = model(f"c{number}", "control student")
    low, high = difference - half, difference + half
    told = Measurement(own.id, "control", split, "macro", "difference", difference, low, high, 24)
    add(ws.ledger, number, "control student", models=[own])
    detail = {"control": {"labels": 10 * number, "against": [[number, 1.0]]}}
    add(ws.ledger, number, "evaluate", detail=detail, measurements=[told])
    ws.ledger.finish_round(number, "{}")


def test_shadow_controls_are_the_looks(ws):
    for number in range(1, 8):  # nobody chose the labels of the first
        controlled(ws, number, 0.15)
    found = shadow_looks(ws.ledger, ws.config.selection.strategy, "vault")
    assert [(x.round, x.labels, x.difference) for x in found] == [
        (n, 10.0 * n, 0.15) for n in range(2, 8)
    ]
    assert found[0].error == pytest.approx(0.01 / 1.959964)
    assert verdict(ws).state == "better"
    assert verdict(ws, "validation").state == "not told"
    assert verdict(ws).rounds == 6


# A replay


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    ws, _ = toy.opened(toy.make(tmp_path_factory.mktemp("replayed") / "w"))
    simulate(ws, archive_room, budgets=["8", "12", "16"], strategies=["margin"], seeds=[0, 1])
    yield ws
    ws.ledger.close()


def test_a_replay_is_looked_at_once_and_says_what_simulate_says(replayed):
    (pair,) = pairs(replayed)
    assert (pair.seeds, pair.ours.budgets.tolist()) == ((0, 1), [8, 12, 16])
    found = verdict(replayed)
    assert found.difference == area_difference(pair.ours, pair.control)
    assert found.rounds == 3
    assert "over 2 seeds and 3 budgets" in found.sentence
    assert verdict(replayed, "validation").rounds == 0  # the vault chooses nothing
    kept = json.dumps([found.sentence])
    assert "nan" not in kept


def test_claims_take_no_look_into_the_vault(replayed):
    before = replayed.ledger.vault_looks()
    found = proof(replayed, 0.9)
    assert replayed.ledger.vault_looks() == before == []
    assert found.replayed[0].at_target.target == pytest.approx(0.9, abs=0.1)
    told = sentences(found)
    assert told[0] == found.verdict.sentence
    assert any("times as many" in text for text in told)
    assert outlook_sentences(found.replayed[0].outlook) == [
        "No forecast and no stop advice: a forecast needs 4 measured budgets, and there are 3."
    ]
