"""`readloop replay` and `claims`, as a lead meets them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from app.cli import run
from app.replay_cli import markdown
from ssl_core.claims.proof import proof
from ssl_core.history.ledger import Ledger
from ssl_core.workspace import open_workspace
from tests import toy
from tests.rounds_by_hand import made

BUDGETS = "8,12,16,20"


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A replay of two seeds and four budgets, with its folder of results."""
    root = tmp_path_factory.mktemp("replay") / "w"
    toy.make(root, cost={"per_hour": 90.0, "currency": "EUR"})
    out = root.parent / "out"
    asked = ["--budgets", BUDGETS, "--strategies", "margin,random", "--seeds", "0,1"]
    assert run(["replay", str(root), *asked, "--target", ".6", "--out", str(out)]) == 0
    return root, out, asked


def test_what_is_saved_holds_every_claim(done):
    _, out, _ = done
    found = json.loads((out / "claims.json").read_text())
    (one,) = found["replayed"]
    assert (one["strategy"], one["control"], one["seeds"]) == ("margin", "random", [0, 1])
    assert one["budgets"] == [8, 12, 16, 20]
    assert one["verdict"]["state"] in ("better", "worse", "not told")
    assert one["area_difference"]["low"] <= one["area_difference"]["high"]
    assert one["at_target"]["target"] > 0
    assert (one["saved"]["hours"], one["saved"]["money"]) == (None, None)  # nobody read here
    assert len(one["outlook"]["forecast"]["back_test"]) == 1
    text = (out / "claims.md").read_text()
    assert all(f"- {sentence}" in text for sentence in found["sentences"])
    assert "NaN" not in (out / "claims.json").read_text()


def test_again_it_only_reads_and_says_the_same(done, capsys):
    root, out, asked = done
    before = (out / "claims.json").read_text()
    assert run(["replay", str(root), *asked, "--target", ".6", "--out", str(out)]) == 0
    assert (out / "claims.json").read_text() == before
    assert "margin beside random" in capsys.readouterr().out


def test_claims_prints_the_same_sentences(done, capsys):
    root, _, _ = done
    assert run(["claims", str(root)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    with_words = proof(open_workspace(root), ask_models=True)
    assert with_words.replayed[0].verdict.sentence in shown
    assert with_words.replayed[0].strategy in markdown(with_words)
    assert run(["claims", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["own"] is None


def test_a_workspace_without_hidden_answers_is_refused_in_one_sentence(tmp_path, capsys):
    root = tmp_path / "w"
    ws = made(root, f"sqlite:///{tmp_path / 'other.db'}")
    ws.ledger.close()
    for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
        (root / name).unlink(missing_ok=True)
    items = replace(ws, ledger=Ledger.open(f"sqlite:///{tmp_path / 'other.db'}")).ledger.items()
    Ledger.create(f"sqlite:///{root / 'ledger.db'}", toy.TASKS["binary"], items).close()
    assert run(["replay", str(root), "--budgets", "8"]) == 2
    told = capsys.readouterr().err
    assert "holds no hidden labels to replay" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--strategies", "random"], "names nothing but the control"),
        (["--target", "95"], "give an AUROC between 0 and 1"),
        (["--seeds", "one"], "give whole numbers"),
    ],
)
def test_bad_options_are_one_sentence(done, capsys, more, said):
    root, _, _ = done
    assert run(["replay", str(root), "--budgets", BUDGETS, *more]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
