"""`readloop promote`, `rollback` and `models` as an engineer uses them."""

from __future__ import annotations

import json
import shutil

import pytest

from app.cli import run
from ssl_core.rounds import run_round
from tests import toy


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three rounds of which two trained; a margin so wide that everything passes."""
    root = toy.make(tmp_path_factory.mktemp("toy") / "w", promotion={"margin": 0.99})
    ws, room = toy.opened(root)
    for _ in range(3):
        run_round(ws, room)
    ws.ledger.close()
    return root


@pytest.fixture
def workspace(trained, tmp_path):
    return str(shutil.copytree(trained, tmp_path / "w"))


@pytest.fixture
def strict(workspace):
    """The same, where nothing passes: twelve items exclude no loss of nothing at all."""
    path = toy.Path(workspace) / "readloop.toml"
    path.write_text(path.read_text().replace("margin = 0.99", "margin = 0.0"))
    return workspace


def listed(workspace, capsys):
    capsys.readouterr()
    assert run(["models", workspace, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_models_lists_what_was_measured_and_what_is_in_use(workspace, capsys):
    found = listed(workspace, capsys)
    stages = [(m["round"], m["stage"]) for m in found["models"]]
    assert stages == [(r, s) for r in (2, 3) for s in ("teacher", "intermediate", "student")]
    assert [m["in_use"] for m in found["models"]] == [False] * 5 + [True]
    assert found["in_use"] == {"round": 3, "model": found["models"][-1]["model"]}
    assert found["decisions"] == []
    vault = found["models"][-1]["vault"]
    assert 0 <= vault["low"] <= vault["value"] <= vault["high"] <= 1
    assert run(["models", workspace]) == 0
    assert "Nothing was promoted: the newest student is in use." in capsys.readouterr().out


def test_a_student_that_did_not_pass_is_not_called_in_use(strict, tmp_path, capsys):
    assert run(["models", strict]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "the newest student did not pass the gate against teacher, which is in use." in told
    assert run(["export", strict, "--out", str(tmp_path / "out")]) == 0
    assert "Wrote the model in use, teacher of round 3, and its card" in capsys.readouterr().out
    card = json.loads((tmp_path / "out" / "model-card.json").read_text())
    assert card["stage"] == "teacher"
    assert "teacher of round 3" in (tmp_path / "out" / "model-card.md").read_text()


def test_promote_then_roll_back(workspace, capsys):
    assert run(["promote", workspace, "--by", "eva", "--why", "good"]) == 0
    told = capsys.readouterr().out
    assert "student of round 3 against student of round 2 on validation (12 items, paired" in told
    assert "In use: student of round 3" in told
    assert run(["rollback", workspace, "--why", "complaints"]) == 0
    assert "In use: student of round 2" in capsys.readouterr().out
    found = listed(workspace, capsys)
    assert [(d["kind"], d["round"], d["why"]) for d in found["decisions"]] == [
        ("promotion", 3, "good"),
        ("rollback", 2, "complaints"),
    ]
    assert found["decisions"][0]["by"] == "eva"
    assert found["decisions"][0]["verdict"]["passes"] is True
    assert found["decisions"][1]["by"]
    assert found["in_use"]["round"] == 2
    assert run(["models", workspace]) == 0
    assert "Decisions" in capsys.readouterr().out


def test_a_refusal_is_one_sentence_and_an_override_needs_its_reason(strict, capsys):
    assert run(["promote", strict]) == 2
    error = capsys.readouterr().err
    assert "Not promoted: student of round 3 against teacher of round 3" in error
    assert "does not exclude a loss larger than 0." in error
    assert error.count("\n") == 1
    assert run(["promote", strict, "--override"]) == 2
    assert "give --why" in capsys.readouterr().err
    assert run(["promote", strict, "--override", "--why", "the demo"]) == 0
    assert [d["kind"] for d in listed(strict, capsys)["decisions"]] == ["override"]


def test_a_model_is_chosen_by_how_its_id_begins(workspace, capsys):
    teacher = listed(workspace, capsys)["models"][0]["model"]
    assert run(["promote", workspace, "--model", teacher[:10]]) == 0
    assert "In use: teacher of round 2" in capsys.readouterr().out
    assert run(["promote", workspace, "--model", "nothing"]) == 2
    assert "no measured model whose id begins with 'nothing'" in capsys.readouterr().err


def test_an_empty_workspace_says_what_to_do(tmp_path, capsys):
    root = str(toy.make(tmp_path / "w"))
    assert run(["models", root]) == 0
    assert "No round has measured a model yet: readloop round" in capsys.readouterr().out
    for command in ("promote", "rollback"):
        assert run([command, root]) == 2
        assert capsys.readouterr().err.count("\n") == 1
